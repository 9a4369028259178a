"""A network that estimates the lens from one image, with its uncertainty."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, interpolate, pad

from lenssr.exceptions import InputError
from lenssr.mass import SIE, MassModel, MassSystem, Shear
from lenssr.mass.pixelated import spline_values

LENS_NAMES = ("theta_E", "e1", "e2", "x_0", "y_0", "gamma1", "gamma2")
# The family that is estimated; the origin of the shear is 0.
FAMILY = SIE(1.0) + Shear(0.0, 0.0)
NUMBER = len(LENS_NAMES)
# Limits of the estimates, moduli of ellipticity and shear; Einstein radius and centre in units of half the
# field.
RADIUS = (0.02, 1.0)
CENTRE, ELLIPTICITY, SHEAR = 0.3, 0.5, 0.3
# Logarithms of the diagonal of the root of the precision lie within MIDDLE +- WIDTH, its other entries below
# SLANT.
MIDDLE, WIDTH, SLANT = 2.0, 5.0, 100.0
# Sides of the input image and of the features; numbers of features for the last layers, and of input planes.
INPUT_SIDE, FEATURES_SIDE, READ, INPUT_PLANES = 64, 8, 16, 6
# Largest correction of the potential, in units of the square of half the field.
CORRECTION = 0.05


@dataclass(frozen=True)
class LensEstimate:
    """Estimates of the lenses of a batch: SIE and shear, with errors.

    The network predicts unbounded numbers, which `vector` maps to the range of each parameter. Vectors hold
    theta_E, e1, e2, x_0, y_0, gamma1 and gamma2, lengths in arcsec.

    Attributes
    ----------
    free : `torch.Tensor`, shape (B, 7)
        Means of the free numbers.
    root : `torch.Tensor`, shape (B, 7, 7)
        Lower triangle whose product ``root.T @ root`` is their precision.
    half : float
        Half the field in arcsec.
    coefficients : `torch.Tensor`, shape (B, K + 2, K + 2), or None
        Of the cubic B-spline of a correction of the potential, in arcsec2, on K x K knots over the field.
    """

    free: Tensor  # means of the free numbers, shape (B, 7)
    root: Tensor  # lower triangle (B, 7, 7) whose product root.T @ root is their precision
    half: float  # half the field in arcsec
    # Of the cubic B-spline of a correction of the potential, in arcsec2, on K x K knots over the field, shape
    # (B, K + 2, K + 2).
    coefficients: Tensor | None = None

    @property
    def vector(self) -> Tensor:
        """Parameters (B, 7)."""
        return _bounded(self.free, self.half)

    @cached_property
    def covariance(self) -> Tensor:
        """Covariance (B, 7, 7) of the parameters, to first order."""
        slope = torch.func.vmap(torch.func.jacrev(partial(_bounded, half=self.half)))(self.free)
        eye = torch.eye(NUMBER, dtype=self.root.dtype, device=self.root.device)
        spread = slope @ torch.linalg.solve_triangular(self.root, eye.expand_as(self.root), upper=False)
        return spread @ spread.mT

    def miss(self, vector: Tensor) -> Tensor:
        """Free numbers (B, 7) of the true parameters (B, 7) less the estimated ones."""
        return _unbounded(vector, self.half) - self.free

    def _whitened(self, miss: Tensor) -> Tensor:
        """The root times a miss; no matrix product, which mixed precision would round."""
        return (self.root * miss[..., None, :]).sum(-1)

    def distance(self, vector: Tensor) -> Tensor:
        """Mahalanobis distance (B,) of other parameters (B, 7) from the estimate."""
        return self._whitened(self.miss(vector)).norm(dim=-1)

    def likely(self) -> Tensor:
        """The mean, and the points 1 sigma to each side of it along the widest direction: (B, 3, 7)."""
        precision, directions = torch.linalg.eigh(self.root.mT @ self.root)
        step = directions[..., 0] / precision[..., :1].sqrt()
        return torch.stack([_bounded(self.free + sign * step, self.half) for sign in (0, 1, -1)], 1)

    def negative_log_likelihood(self, vector: Tensor, *, hold_mean: bool = False) -> Tensor:
        """Negative logarithm of the likelihood of the true parameters, as free numbers.

        Parameters
        ----------
        vector : `torch.Tensor`, shape (B, 7)
        hold_mean : bool, optional
            Whether gradients reach the errors only; by default also the mean.

        Returns
        -------
        loss : `torch.Tensor`, shape (B,)

        Notes
        -----
        ``|root (u - free)|^2 / 2 - sum(log diag(root)) + 7 log(2 pi) / 2`` with the free numbers u of the
        truth.
        """
        miss = self.miss(vector)
        miss = self._whitened(miss.detach() if hold_mean else miss)
        volume = self.root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return miss.square().sum(-1) / 2 - volume + NUMBER / 2 * math.log(2 * math.pi)

    def lens(self, number: int) -> MassSystem:
        """SIE and shear of one image, with ``std`` and ``covariance``, without the correction."""
        vector, covariance = self.vector[number].detach(), self.covariance[number].detach()
        whole = torch.zeros(NUMBER + 2, NUMBER + 2, dtype=torch.float64)
        whole[:NUMBER, :NUMBER] = covariance
        return FAMILY.with_vector(_append_shear_origin(vector.double().cpu()), covariance=whole)

    def deflection(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Deflection at positions, differentiable, the correction included.

        Parameters
        ----------
        x, y : `torch.Tensor`, broadcastable with (B, R)
            In arcsec.

        Returns
        -------
        alpha_x, alpha_y : `torch.Tensor`, shape (B, R)
            In arcsec; the gradient of one potential, so that its curl is zero.
        """
        ax, ay = FAMILY.deflection_at(x, y, _append_shear_origin(self.vector))
        return ax + self._spline(x, y, 1, 0), ay + self._spline(x, y, 0, 1)

    def convergence(self, x: Tensor, y: Tensor) -> Tensor:
        """Convergence (B, R) at positions, as `deflection`."""
        xx, _, yy = FAMILY.hessian_at(x, y, _append_shear_origin(self.vector))
        return (xx + yy + self._spline(x, y, 2, 0) + self._spline(x, y, 0, 2)) / 2

    def _spline(self, x: Tensor, y: Tensor, column_order: int, row_order: int) -> Tensor | float:
        """A derivative of the correction of the potential."""
        if self.coefficients is None:
            return 0.0
        knots = self.coefficients.shape[-1] - 2
        step = 2 * self.half / (knots - 1)
        x, y = (place.expand(len(self.free), -1) / step + (knots - 1) / 2 for place in (x, y))
        values = partial(spline_values, column_order=column_order, row_order=row_order)
        return torch.func.vmap(values)(self.coefficients, x, y) / step ** (column_order + row_order)


class DeflectionNetwork(nn.Module):
    """Estimate SIE and shear from an image and its noise.

    An image of any shape is averaged to 64 x 64 pixels; the inputs are its signal-to-noise ratio, its
    brightness in units of its rms, and the positions of its pixels. Lengths are predicted in units of the
    field, independent of the pixel scale.

    Parameters
    ----------
    channels : tuple of int, optional
        Of the three convolutions that halve the image, and of those behind them; ``(24, 48, 64)``.
    hidden : int, optional
        Numbers between features and parameters; 128 by default.
    knots : int or None, optional
        Knots along a side of a correction of the potential, at least 4; None, the default, for no correction.

    Attributes
    ----------
    settings : dict
        The options; ``DeflectionNetwork(**settings)`` builds the network again.

    Notes
    -----
    All parameters are bounded by construction: the Einstein radius between 0.02 and 1, the centre within 0.3
    of half the field, ellipticities below 0.5 and shears below 0.3 in modulus. Errors are predicted from the
    same features without training them: otherwise the well-constrained parameters would dominate.

    References
    ----------
    Hezaveh, Perreault Levasseur & Marshall 2017, Nature 548, 555; Perreault Levasseur et al. 2017, ApJL 850,
    L7 (their uncertainties); Stirn et al. 2023, AISTATS, 5593 (errors that do not disturb the mean).

    Examples
    --------
    >>> import torch
    >>> from lenssr.networks import DeflectionNetwork
    >>> image = torch.rand(2, 80, 70)
    >>> estimate = DeflectionNetwork()(image, torch.ones_like(image), 0.05)
    >>> estimate.vector.shape, estimate.lens(0).param_names[:3]
    (torch.Size([2, 7]), ('theta_E_0', 'e1_0', 'e2_0'))
    """

    #: The name of this kind of network in files of weights.
    kind = "DeflectionNetwork"

    def __init__(
        self, *, channels: Sequence[int] = (24, 48, 64), hidden: int = 128, knots: int | None = None
    ) -> None:
        super().__init__()
        if len(channels) != 3:
            raise InputError(f"channels = {channels!r}: give three, since the image is halved three times")
        if knots is not None and (not isinstance(knots, int) or knots < 4):
            raise InputError(f"knots = {knots!r}: give an integer of at least 4, or None")
        self.settings: dict[str, Any] = {"channels": tuple(channels), "hidden": hidden, "knots": knots}
        layers: list[nn.Module] = []
        for before, after in zip((INPUT_PLANES, *channels), channels, strict=False):
            layers += [nn.Conv2d(before, after, 5, 2, 2), nn.ReLU()]
            layers += [nn.Conv2d(after, after, 3, 1, 1), nn.ReLU()]
        self.features = nn.Sequential(*layers)
        narrow = [nn.Conv2d(channels[-1], READ, 1), nn.ReLU(), nn.Flatten()]
        dense = [nn.Linear(READ * FEATURES_SIDE**2, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU()]
        self.read = nn.Sequential(*narrow, *dense)
        self.mean = nn.Linear(hidden, NUMBER)
        spread = [nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, NUMBER * (NUMBER + 1) // 2)]
        self.spread = nn.Sequential(*spread)
        self.correction = None
        if knots is not None:
            self.correction = nn.Sequential(nn.Conv2d(channels[-1], READ, 3, padding=1), nn.ReLU())
            self.last = nn.Conv2d(READ, 1, 3, padding=1)
            for parameter in self.last.parameters():
                nn.init.zeros_(parameter)

    def forward(self, image: Tensor, sigma: Tensor, pixel_scale: float, *, views: int = 8) -> LensEstimate:
        """Estimate the lenses of a batch.

        Parameters
        ----------
        image : `torch.Tensor`, shape (B, ny, nx)
            Flux per pixel.
        sigma : `torch.Tensor`, shape (B, ny, nx)
            Its standard deviation; infinite where a pixel is masked.
        pixel_scale : float
            In arcsec.
        views : {1, 2, 4, 8}, optional
            Number of mirrored and rotated copies of the images, over which the estimate is averaged. With all
            8, the default, it is equivariant. Errors and the correction of the potential come from the first.
        """
        half = max(image.shape[-2:]) * float(pixel_scale) / 2
        features = self.features(_input_planes(image, sigma))
        read = self.read(features)
        free, root = self.mean(read).to(image), _precision_root(self.spread(read.detach()).to(image))
        others = [self._seen_from(side, image, sigma) for side in _SIDES[1:views]]
        free = torch.stack([free, *others]).mean(0)
        coefficients = None
        if self.correction is not None:
            size = (self.settings["knots"] + 2,) * 2
            planes = interpolate(self.correction(features), size=size, mode="bilinear", align_corners=True)
            coefficients = CORRECTION * half**2 * self.last(planes)[:, 0].tanh().to(image)
        return LensEstimate(free, root, half, coefficients)

    def _seen_from(self, side: tuple[bool, tuple[int, ...]], image: Tensor, sigma: Tensor) -> Tensor:
        """Means of the free numbers for transformed images, transformed back."""
        swap, flips = side
        image, sigma = ((values.mT if swap else values).flip(flips) for values in (image, sigma))
        free = self.mean(self.read(self.features(_input_planes(image, sigma)))).to(image)
        # Invert in the opposite order: mirror first, then exchange x and y.
        flip_x, flip_y = (-1.0 if axis in flips else 1.0 for axis in (-1, -2))
        both = flip_x * flip_y
        free = free * free.new_tensor([1.0, 1.0, both, flip_x, flip_y, 1.0, both])
        if swap:
            free = free[:, [0, 1, 2, 4, 3, 5, 6]] * free.new_tensor([1.0, -1.0, 1.0, 1.0, 1.0, -1.0, 1.0])
        return free


# Whether x and y are exchanged, and which axes are mirrored then.
_SIDES = [(swap, flips) for flips in ((), (-1,), (-2,), (-2, -1)) for swap in (False, True)]


def as_family(lens: MassModel, vectors: Tensor) -> Tensor:
    """Parameters (B, 7), in the order of ``LENS_NAMES``, of SIS or SIE lenses (B, P), with or without shear.

    Parameters that a lens does not have are 0; other lenses are refused.
    """
    parts = getattr(lens, "components", (lens,))
    kinds = [type(part).__name__ for part in parts]
    if kinds[0] not in ("SIS", "SIE") or kinds[1:] not in ([], ["Shear"]):
        raise InputError(f"{' + '.join(kinds)} is not an SIE with shear: give SIS, SIE, or either with shear")
    # index finds x_0 and y_0 of the galaxy, which come before the shear's.
    names = [name for part in parts for name in part.param_names]
    zero = torch.zeros_like(vectors[:, 0])
    return torch.stack([vectors[:, names.index(n)] if n in names else zero for n in LENS_NAMES], 1)


def _append_shear_origin(vector: Tensor) -> Tensor:
    """The vector of the family (..., 9): the shear acts around the origin."""
    return torch.cat([vector, torch.zeros_like(vector[..., :2])], -1)


def _discs(half: float) -> tuple[tuple[slice, float], ...]:
    """Numbers of the vector behind the Einstein radius that are bounded in modulus, and their bounds."""
    place = CENTRE * half
    return (slice(1, 3), ELLIPTICITY), (slice(3, 4), place), (slice(4, 5), place), (slice(5, 7), SHEAR)


def _bounded(free: Tensor, half: float) -> Tensor:
    """Free numbers (..., 7) to parameters."""
    low, high = RADIUS
    parts = [half * (low + (high - low) * free[..., :1].sigmoid())]
    for part, bound in _discs(half):
        u = free[..., part]
        parts.append(bound * u / (1 + u.square().sum(-1, keepdim=True)).sqrt())
    return torch.cat(parts, -1)


def _unbounded(vector: Tensor, half: float) -> Tensor:
    """The inverse of `_bounded`."""
    low, high = RADIUS
    parts = [((vector[..., :1] / half - low) / (high - low)).clamp(1e-4, 1 - 1e-4).logit()]
    for part, bound in _discs(half):
        share = vector[..., part] / bound
        # Truths on the rim or beyond it would be infinite.
        parts.append(share / (1 - share.square().sum(-1, keepdim=True)).clamp_min(1e-3).sqrt())
    return torch.cat(parts, -1)


def _precision_root(numbers: Tensor) -> Tensor:
    """The lower triangle (B, 7, 7) of 28 numbers, its diagonal positive and bounded."""
    diagonal = (MIDDLE + WIDTH * (numbers[:, :NUMBER] / WIDTH).tanh()).exp()
    root = torch.diag_embed(diagonal)
    rows, columns = torch.tril_indices(NUMBER, NUMBER, -1, device=numbers.device)
    slant = SLANT * (numbers[:, NUMBER:] / SLANT).tanh()
    return root.index_put((torch.arange(len(root), device=root.device)[:, None], rows, columns), slant)


def _input_planes(image: Tensor, sigma: Tensor) -> Tensor:
    """Inputs of the network: signal, noise, mask and positions, (B, 6, 64, 64)."""
    ny, nx = image.shape[-2:]
    more_y, more_x = max(nx - ny, 0), max(ny - nx, 0)
    frame = (more_x // 2, more_x - more_x // 2, more_y // 2, more_y - more_y // 2)
    seen = torch.isfinite(sigma)
    parts = torch.where(seen, image, 0), torch.where(seen, sigma, 0).square(), seen.to(image)
    total, variance, share = adaptive_avg_pool2d(pad(torch.stack(parts, 1), frame), INPUT_SIDE).unbind(1)
    safe = share.clamp_min(1e-6)
    # Noise averages down with the number of pixels in a cell; cells smaller than pixels share theirs.
    number = max((max(ny, nx) / INPUT_SIDE) ** 2, 1.0)
    mean, error = total / safe, (variance / safe / number).sqrt()
    unit = mean.square().mean((-2, -1), keepdim=True).sqrt().clamp_min(torch.finfo(image.dtype).tiny)
    error = error.clamp_min(1e-6 * unit)
    line = torch.linspace(-1, 1, INPUT_SIDE, dtype=image.dtype, device=image.device)
    y, x = torch.meshgrid(line, line, indexing="ij")
    planes = [torch.asinh(mean / error) / 3, mean / unit / 3, (error / unit).log() / 4, share]
    return torch.stack([*planes, x.expand_as(mean), y.expand_as(mean)], 1)
