"""A network that predicts the source from one image; lens equation and telescope are not learned."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, max_pool2d, pad

from lenssr.exceptions import InputError
from lenssr.imaging import ImagingOperator
from lenssr.imaging.detection import significant_pixels
from lenssr.source import SourceGrid
from lenssr.units import positive_integer

# Largest |g|, where the brightness is exp(g) times the unit: exp(g) stays within float32.
LARGEST_LOG = 30.0
# Number of smoothings: means over squares of 1, 2, 4 and 8 nodes. Coverage, in pixels, below which a mean is
# a gap.
SMOOTHINGS, LEAST_WEIGHT = 4, 0.05
# Initial logits of the smoothings: the source is mostly made of the finest.
INITIAL_LOGITS = torch.tensor([3.0, 0.0, 0.0, 0.0]).reshape(-1, 1, 1)
INPUT_PLANES = SMOOTHINGS + 4
# Input planes of later passes, which correct the source; initial logit of the share of the residual that they
# add.
CORRECTION_PLANES, INITIAL_STEP_LOGIT = 6, -2.0
MAX_PARAMETERS = 300_000


class UNet(nn.Module):
    """U-Net: two convolutions at each resolution, down and up again; its output is zero at first.

    ``channels`` are given by resolution, the finest first; sizes halve from one to the next.
    """

    def __init__(self, before: int, after: int, channels: Sequence[int]) -> None:
        super().__init__()
        steps = list(zip(channels[:-1], channels[1:], strict=True))
        self.down = nn.ModuleList(_two_convolutions(*step) for step in [(before, channels[0]), *steps])
        self.up = nn.ModuleList(_two_convolutions(deep + shallow, shallow) for shallow, deep in steps)
        self.last = nn.Conv2d(channels[0], after, 3, padding=1)
        for parameter in self.last.parameters():
            nn.init.zeros_(parameter)
        # 25 % faster on a CPU.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in the stubs

    def forward(self, planes: Tensor) -> Tensor:
        """Planes (B, before, ny, nx) to planes (B, after, ny, nx)."""
        levels: list[Tensor] = []
        planes = planes.contiguous(memory_format=torch.channels_last)
        for pair in self.down:
            planes = pair(max_pool2d(planes, 2, ceil_mode=True) if levels else planes)
            levels.append(planes)
        for pair, level in zip(reversed(self.up), reversed(levels[:-1]), strict=True):
            planes = interpolate(planes, size=level.shape[-2:], mode="nearest")
            planes = pair(torch.cat([planes, level], 1))
        return self.last(planes)


def _two_convolutions(before: int, after: int) -> nn.Sequential:
    first, second = (nn.Conv2d(number, after, 3, padding=1) for number in (before, after))
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU())


@dataclass(frozen=True)
class PredictedSource:
    """Sources on grids behind their lenses, one for each image of a batch.

    Attributes
    ----------
    plane : `~lenssr.source.SourceGrid`
    log_brightness : `torch.Tensor`, shape (B, side, side)
        Logarithm of the brightness at the nodes, per arcsec2, rows of equal y first.
    """

    plane: SourceGrid
    # Logarithm (B, side, side) of the brightness at the nodes, per arcsec2, rows of equal y first.
    log_brightness: Tensor

    @property
    def brightness(self) -> Tensor:
        """Brightness at the nodes, shape (B, side, side)."""
        return self.log_brightness.exp()

    def at(self, x: Tensor, y: Tensor) -> Tensor:
        """Brightness (B, R), per arcsec2, at positions (B, R) in arcsec: bilinear, zero outside the grid."""
        return self.plane.rays(x, y).interpolate(self.brightness)

    def image(self, operator: Callable[[Tensor], Tensor], x: Tensor, y: Tensor) -> Tensor:
        """The lensed image of the sources.

        Parameters
        ----------
        operator : callable
            Brightness at rays (B, R) to flux in pixels (B, ny, nx), such as an
            `~lenssr.imaging.ImagingOperator`; of any resolution.
        x, y : `torch.Tensor`, shape (B, R)
            Positions of its rays in the source plane, in arcsec.

        Returns
        -------
        image : `torch.Tensor`, shape (B, ny, nx)
        """
        return operator(self.at(x, y))


class RelensingNetwork(nn.Module):
    """Predict the source of a lensed image on a grid, to be re-lensed exactly.

    The image is gridded in the source plane: each ray of a pixel carries the brightness of the pixel to the
    nodes around its position there. The inputs of a U-Net are the gridded image, also smoothed to several
    widths, its noise, its coverage, and the width of the PSF, all in units of the image and of the grid. For
    each node it predicts weights of the smoothings, and a correction; both act on the logarithm of the
    brightness, which therefore is positive. No input depends on the lens model, the pixel scale or the
    magnification.

    Parameters
    ----------
    side : int, optional
        Nodes along a side of the grid; 64 by default. The trained weights serve any.
    stretch : float, optional
        Concentration of the nodes towards the middle, see `~lenssr.source.SourceGrid`; 1 by default.
    channels : tuple of int, optional
        Of the resolutions of the U-Net; ``(12, 24, 48, 64)`` by default.
    passes : int, optional
        Number of predictions; 1 by default. After the first one the source is lensed and convolved, and a
        second, smaller U-Net corrects it by the residual of the image. Use 3 with a PSF, 1 without.

    Attributes
    ----------
    settings : dict
        The options; ``RelensingNetwork(**settings)`` builds the network again.

    Raises
    ------
    InputError
        If an option has no meaning, or the network would have 300 000 parameters or more.

    Notes
    -----
    An untrained network returns nearly the gridded brightness, gaps filled from around.

    Examples
    --------
    >>> import torch
    >>> from lenssr.grids import PixelGrid
    >>> from lenssr.imaging import ImagingOperator
    >>> from lenssr.networks import RelensingNetwork
    >>> operator = ImagingOperator(PixelGrid((20, 20), 0.1), oversampling=1, dtype=torch.float32)
    >>> image = torch.exp(-(operator.x**2 + operator.y**2)).reshape(1, 20, 20)
    >>> rays = operator.x[None], operator.y[None]  # no lens at all
    >>> source = RelensingNetwork()(image, torch.full_like(image, 0.01), operator, *rays)
    >>> source.image(operator, *rays).shape
    torch.Size([1, 20, 20])
    """

    #: The name of this kind of network in files of weights.
    kind = "RelensingNetwork"

    def __init__(
        self,
        side: int = 64,
        *,
        stretch: float = 1.0,
        channels: Sequence[int] = (12, 24, 48, 64),
        passes: int = 1,
    ) -> None:
        super().__init__()
        self.side = positive_integer(side, "side", 2 ** len(channels))
        self.passes = positive_integer(passes, "passes")
        if not 0 <= stretch <= 3:
            raise InputError(f"stretch = {stretch!r}: give a number between 0 and 3")
        self.stretch = float(stretch)
        self.settings: dict[str, Any] = {"side": self.side, "stretch": self.stretch}
        self.settings |= {"channels": tuple(channels), "passes": self.passes}
        self.net = UNet(INPUT_PLANES, 1 + SMOOTHINGS, channels)
        if self.passes > 1:
            self.again = UNet(CORRECTION_PLANES, 2, channels[:3])
        number = sum(parameter.numel() for parameter in self.net.parameters())
        if number >= MAX_PARAMETERS:
            raise InputError(f"channels = {channels}: give fewer, for less than {MAX_PARAMETERS} parameters")

    def forward(
        self,
        image: Tensor,
        sigma: Tensor,
        operator: ImagingOperator,
        x: Tensor,
        y: Tensor,
        *,
        psf_sigma: Tensor | float = 0.0,
        plane: SourceGrid | None = None,
    ) -> PredictedSource:
        """Predict the sources of a batch.

        Parameters
        ----------
        image : `torch.Tensor`, shape (B, ny, nx)
            Flux per pixel, without sky and lens light.
        sigma : `torch.Tensor`, shape (B, ny, nx)
            Its standard deviation; infinite where a pixel is masked or hidden.
        operator : `~lenssr.imaging.ImagingOperator`
            The telescope, with equally many rays in all its cells.
        x, y : `torch.Tensor`, shape (B, R)
            Positions of its rays in the source plane, in arcsec, through any lens.
        psf_sigma : `torch.Tensor` or float, shape (B,), optional
            Standard deviation of the PSF along an axis, in arcsec; 0, the default, where there is none.
        plane : `~lenssr.source.SourceGrid`, optional
            The grids; by default around significant light.
        """
        if plane is None:
            significant = to_rays(significant_pixels(image, sigma), operator)
            plane = SourceGrid.around_significant(x, y, significant, self.side, self.stretch)
        bilinear = plane.rays(x, y)
        brightness, error, coverage = gridded_image(image, sigma, operator, bilinear)
        seen = coverage > 0
        # The unit is the rms of the significant brightness, so that the inputs have no unit.
        strong = (seen & (brightness > 3 * error)).to(brightness)
        power = (strong * brightness.square()).sum((1, 2)) / strong.sum((1, 2)).clamp_min(1)
        noise = (seen * error.square()).sum((1, 2)) / seen.sum((1, 2)).clamp_min(1)
        unit = torch.where(power > 0, power, noise).sqrt()[:, None, None]
        unit = unit.clamp_min(torch.finfo(unit.dtype).tiny)
        smoothed = _smoothed(brightness, error, coverage) / unit[:, None, None]
        # The input of each smoothing is its mean where that is significant, else its error.
        floor = torch.finfo(unit.dtype).eps
        logs = smoothed.clamp_min(0).square().sum(2).sqrt().clamp_min(floor).log()
        blur = torch.as_tensor(psf_sigma).to(unit).reshape(-1, 1, 1) / plane.spacing[:, None, None]
        planes = [
            torch.asinh(torch.where(seen, brightness / error, 0)) / 3,
            (error / unit).clamp_min(floor).log() / 4,
            torch.log1p(coverage) / 2,
            torch.log1p(blur).expand_as(coverage),
        ]
        answer = self.net(torch.cat([logs / 2, torch.stack(planes, 1)], 1)).to(logs)
        shares = (answer[:, 1:] + INITIAL_LOGITS.to(answer)).softmax(1)
        logs = ((shares * logs).sum(1) + answer[:, 0]).clamp(-LARGEST_LOG, LARGEST_LOG)
        for _ in range(1, self.passes):
            drawn = logs.exp() * unit
            rest = image - operator(bilinear.interpolate(drawn))
            left = gridded_image(rest, sigma, operator, bilinear)[0]
            logs = self._corrected(logs, left / error, left / (drawn + error), planes[1:])
        return PredictedSource(plane, logs + unit.log())

    def _corrected(self, logs: Tensor, signal: Tensor, share: Tensor, planes: list[Tensor]) -> Tensor:
        """Correct the logarithm of the brightness by the gridded residual over its error and brightness."""
        share = torch.asinh(share)
        answer = self.again(torch.stack([torch.asinh(signal) / 3, share, logs / 2, *planes], 1)).to(logs)
        logs = logs + answer[:, 0] + (answer[:, 1] + INITIAL_STEP_LOGIT).sigmoid() * share
        return logs.clamp(-LARGEST_LOG, LARGEST_LOG)


def gridded_image(
    image: Tensor, sigma: Tensor, operator: ImagingOperator, bilinear: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Images gridded at the nodes in the source plane: brightness, error, coverage, each (B, side, side).

    The brightness is the mean, per arcsec2, of the pixels whose rays arrive, weighted by the adjoint of the
    bilinear map (0 without rays); the error is its standard deviation (of an average ray, without rays), the
    coverage is in pixels. Pixels of infinite ``sigma`` are ignored.
    """
    area, seen = operator.grid.pixel_area, torch.isfinite(sigma)
    brightness, error = (torch.where(seen, values, 0) / area for values in (image, sigma))
    ones, values, variances = (to_rays(a, operator) for a in (seen.to(image), brightness, error.square()))
    # Rays of one pixel share its noise: their number in a pixel counts once.
    number = int(operator.inside.sum()) / image[0].numel()
    weight, total = bilinear.adjoint(ones), bilinear.adjoint(values)
    variance = bilinear.adjoint(variances, power=2) * number
    some = weight > 1e-6
    safe = torch.where(some, weight, 1)
    typical = variances.sum(1) / ones.sum(1).clamp_min(1)
    error = torch.where(some, variance / safe.square(), typical[:, None, None]).sqrt()
    coverage = torch.where(some, weight / number, 0)
    return torch.where(some, total / safe, 0), error.clamp_min(torch.finfo(error.dtype).tiny), coverage


def to_rays(image: Tensor, operator: ImagingOperator) -> Tensor:
    """Values (B, R) at the rays of an operator: those (B, ny, nx) of their pixels, 0 in its margin."""
    image = pad(image, [operator.margin] * 4)
    factor = operator.cells[0] // image.shape[-2]
    cells = image.repeat_interleave(factor, -2).repeat_interleave(factor, -1) if factor > 1 else image
    cells = cells.flatten(1)
    return cells.repeat_interleave(operator.x.shape[-1] // cells.shape[1], 1)


def _smoothed(brightness: Tensor, error: Tensor, weight: Tensor) -> Tensor:
    """Means over squares of 1, 2, 4 and 8 nodes, with errors, gaps filled: (B, 4, 2, side, side)."""
    pyramid = [torch.stack([brightness * weight, (error * weight).square(), weight], 1)]
    while min(pyramid[-1].shape[-2:]) > 1:
        pyramid.append(avg_pool2d(pyramid[-1], 2, ceil_mode=True))
    filled, kept = None, []
    for level in reversed(range(len(pyramid))):
        total, noise, weight = pyramid[level].split(1, 1)
        safe = weight.clamp_min(1e-12)
        values = torch.cat([total / safe, (noise / 4**level).sqrt() / safe], 1)
        if filled is not None:
            values = torch.where(weight > LEAST_WEIGHT, values, _resized(filled, values))
        filled = values
        if level < SMOOTHINGS:
            kept.append(_resized(filled, pyramid[0]))
    return torch.stack(kept[::-1], 1)


def _resized(planes: Tensor, like: Tensor) -> Tensor:
    if planes.shape[-2:] == like.shape[-2:]:
        return planes
    return interpolate(planes, size=like.shape[-2:], mode="bilinear")
