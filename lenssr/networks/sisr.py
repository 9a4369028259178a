"""Single-image super-resolution: residual blocks and sub-pixel upscaling."""

import torch
from torch import nn
from torch.nn.functional import interpolate

from lenssr.exceptions import InputError

__all__ = ["SISR"]

HEADS = ("flux", "sigmoid")
# Options of the published LensSR network.
_LENSSR_OPTIONS = {
    "channels": 64,
    "depth": 3,
    "kernels": (3, 5),
    "last_kernel": 9,
    "batch_norm": True,
    "with_noise": False,
    "head": "sigmoid",
}


class SISR(nn.Module):
    """A network that makes one image ``scale`` times finer, from that image alone.

    A convolution, residual blocks, one wide convolution around which the first features are led, and a
    pixel shuffle for each prime factor of the magnification. The lean default has neither batch norm nor a
    upper limit: its output is added to the bicubic image, in units of the rms of the image, so that flux is
    conserved.

    Parameters
    ----------
    scale : int, optional
        Magnification; 2 by default.
    channels : int, optional
        Default 32.
    depth : int, optional
        Number of residual blocks; 3 by default.
    kernels : tuple of int, optional
        Odd sides of the convolutions of a block; ``(3, 3)`` by default.
    first_kernel, last_kernel : int, optional
        Odd sides of the convolutions in front of and behind the blocks; 3 and 3 by default.
    batch_norm : bool, optional
        Whether batch norm follows the convolutions, and a ReLU the last one of a block too. Default False.
    with_noise : bool, optional
        Whether the network is told the noise of the pixels; it is by default.
    head : {"flux", "sigmoid"}, optional
        "flux" (the default) adds to the bicubic image and conserves the flux of the whole image exactly.
        "sigmoid" ends in a sigmoid between the least and the largest pixel of the image, as in LensSR: it can
        not be brighter than what it was given.

    Attributes
    ----------
    settings : dict
        What the network was built with; ``SISR(**settings)`` builds it again.

    Raises
    ------
    InputError
        If an option has no meaning.

    References
    ----------
    Shi et al. 2016, CVPR, 1874 (pixel shuffle); Lim et al. 2017, CVPR Workshops, 1132 (residual blocks
    without batch norm).

    Examples
    --------
    >>> import torch
    >>> from lenssr.networks import SISR
    >>> sum(p.numel() for p in SISR().parameters()), sum(p.numel() for p in SISR.named("lenssr").parameters())
    (102625, 899843)
    >>> image = torch.rand(1, 75, 75)
    >>> SISR(scale=3)(image, torch.full_like(image, 0.1)).shape
    torch.Size([1, 225, 225])
    """

    kind = "SISR"

    def __init__(
        self,
        scale=2,
        *,
        channels=32,
        depth=3,
        kernels=(3, 3),
        first_kernel=3,
        last_kernel=3,
        batch_norm=False,
        with_noise=True,
        head="flux",
    ):
        super().__init__()
        for name, value in (("scale", scale), ("channels", channels), ("depth", depth)):
            _check_positive_integer(name, value)
        for value in (*kernels, first_kernel, last_kernel):
            _check_kernel(value)
        if head not in HEADS:
            raise InputError(f"head = {head!r}: give one of {', '.join(map(repr, HEADS))}")
        self.settings = {
            "scale": scale,
            "channels": channels,
            "depth": depth,
            "kernels": tuple(kernels),
            "first_kernel": first_kernel,
            "last_kernel": last_kernel,
            "batch_norm": batch_norm,
            "with_noise": with_noise,
            "head": head,
        }
        self.scale, self.head, self.with_noise = scale, head, with_noise
        self.first = _layers(1 + with_noise, channels, first_kernel, batch_norm, last=True)
        self.blocks = nn.ModuleList(_block(channels, kernels, batch_norm) for _ in range(depth))
        self.wide = _convolution(channels, channels, last_kernel)
        self.finer = nn.Sequential(*(_shuffle(channels, factor) for factor in _prime_factors(scale)))
        self.last = _convolution(channels, 1, 3)
        self.last_norm = nn.BatchNorm2d(1) if batch_norm else nn.Identity()
        if head == "flux":  # The initial output is the bicubic image.
            nn.init.zeros_(self.last.weight)
            nn.init.zeros_(self.last.bias)
        # 10 % faster on a CPU.
        self.to(memory_format=torch.channels_last)

    @classmethod
    def named(cls, name, scale=2):
        """Build a known configuration.

        Parameters
        ----------
        name : {"lean", "lenssr"}
            The default, or that of LensSR: 64 channels, 3 blocks of a 3 x 3 and a 5 x 5 convolution with
            batch norm, a 9 x 9 convolution behind them, and a sigmoid.
        scale : int, optional
            Magnification; 2 by default.

        Returns
        -------
        network : `SISR`

        Raises
        ------
        InputError
            If there is none of this name.
        """
        known = {"lean": {}, "lenssr": _LENSSR_OPTIONS}
        if name not in known:
            raise InputError(
                f"configuration {name!r} is not known: give one of {', '.join(map(repr, known))}"
            )
        return cls(scale, **known[name])

    @classmethod
    def seed(cls):
        """Build LensSR's own network, which doubles the resolution.

        Returns
        -------
        network : `SISR`
        """
        return cls.named("lenssr")

    def forward(self, image, noise=None):
        """Make images finer.

        Parameters
        ----------
        image : `torch.Tensor`, shape (..., ny, nx)
            Flux per pixel.
        noise : `torch.Tensor`, shape (..., ny, nx), optional
            Standard deviation of the pixels; for a network that wants it, and only for one.

        Returns
        -------
        finer : `torch.Tensor`, shape (..., ny * scale, nx * scale)
            Flux per finer pixel. Images and noise that are c times larger give c times larger ones, if c is
            positive.

        Raises
        ------
        InputError
            If the noise is missing, or not wanted.
        """
        if (noise is not None) != self.with_noise:
            remedy = "give the noise of the pixels too" if self.with_noise else "leave the noise out"
            raise InputError(f"this network was built with with_noise={self.with_noise}: {remedy}")
        lead = image.shape[:-2]
        image = image.reshape(-1, 1, *image.shape[-2:])
        if noise is not None:
            noise = noise.expand(*lead, *image.shape[-2:]).reshape(image.shape)
        finer = self._in_range(image) if self.head == "sigmoid" else self._added(image, noise)
        return finer.reshape(*lead, *finer.shape[-2:])

    def _added(self, image, noise):
        """The bicubic image, and what the network finds in units of the rms; flux as in the image."""
        unit = image.square().mean((-2, -1), keepdim=True).sqrt()
        unit = unit.clamp_min(torch.finfo(image.dtype).tiny)
        planes = image / unit if noise is None else torch.cat([image / unit, noise / unit], 1)
        area = self.scale**2
        finer = unit * self._features(planes).to(image.dtype)
        finer = finer + interpolate(image, scale_factor=self.scale, mode="bicubic") / area
        return finer + image.mean((-2, -1), keepdim=True) / area - finer.mean((-2, -1), keepdim=True)

    def _in_range(self, image):
        least, most = image.amin((-2, -1), keepdim=True), image.amax((-2, -1), keepdim=True)
        width = (most - least).clamp_min(torch.finfo(image.dtype).tiny)
        share = self._features((image - least) / width).to(image.dtype).sigmoid()
        return (least + share * width) / self.scale**2

    def _features(self, planes):
        first = self.first(planes.contiguous(memory_format=torch.channels_last))
        features = first
        for block in self.blocks:
            features = features + block(features)
        return self.last_norm(self.last(self.finer(self.wide(features) + first)))


def _convolution(before, after, side):
    return nn.Conv2d(before, after, side, padding=side // 2)


def _layers(before, after, side, batch_norm, *, last):
    """A convolution, its batch norm, and a ReLU where one follows."""
    parts = [_convolution(before, after, side)]
    if batch_norm:
        parts.append(nn.BatchNorm2d(after))
    if last:
        parts.append(nn.ReLU())
    return nn.Sequential(*parts)


def _block(channels, kernels, batch_norm):
    # Without batch norm the sum of all blocks would only ever grow if a ReLU came last.
    end = len(kernels) - 1
    return nn.Sequential(
        *(
            _layers(channels, channels, side, batch_norm, last=batch_norm or k < end)
            for k, side in enumerate(kernels)
        )
    )


def _shuffle(channels, factor):
    return nn.Sequential(_convolution(channels, channels * factor**2, 3), nn.PixelShuffle(factor), nn.ReLU())


def _prime_factors(number):
    factors, divisor = [], 2
    while number > 1:
        while number % divisor == 0:
            factors.append(divisor)
            number //= divisor
        divisor += 1
    return factors


def _check_positive_integer(name, value):
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InputError(f"{name} = {value!r}: give a positive integer")


def _check_kernel(side):
    if not isinstance(side, int) or side < 1 or side % 2 == 0:
        raise InputError(f"a kernel of side {side!r}: give a positive odd integer, so that it has a middle")
