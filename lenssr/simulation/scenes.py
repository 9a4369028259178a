"""What data sets are made of: lenses and sources as tensors, and their images, in batches and one by one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, Literal, Self

import astropy.units as u
import numpy as np
import torch
from astropy.modeling import Model
from astropy.nddata import CCDData
from numpy.typing import NDArray

from lenssr.grids import PixelGrid
from lenssr.imaging import PSF, NoiseModel, PoissonNoise
from lenssr.light import PixelatedSource, Sersic, interpolate_image, sersic_b, sersic_brightness
from lenssr.mass import MassModel, MassSystem, PointMass
from lenssr.mass.kernels import tracked
from lenssr.mass.point import point_masses_deflection

UNIT = u.electron / u.s


@dataclass(frozen=True, eq=False)
class _Tensors:
    """Base of what holds tensors of one device and one floating-point type."""

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        """Return the same on another device or in another precision; integers stay as they are."""

        def move(tensor: torch.Tensor) -> torch.Tensor:
            return tensor.to(device=device, dtype=dtype) if tensor.is_floating_point() else tensor

        return map_tensors(move, self)


@dataclass(frozen=True, eq=False)
class LensScenes(_Tensors):
    """Lenses and the sources behind them, before any telescope; tensors of one device and type.

    Methods take positions x and y in arcsec, tensors broadcastable with (B, R), and return tensors (B, R).

    Attributes
    ----------
    lens : `~lenssr.mass.MassModel` or `~lenssr.mass.MassSystem`
        The kind of all lenses, without substructure. Its parameter values mean nothing.
    lens_vector : `torch.Tensor`, shape (B, P)
        The lenses, in the order of ``lens.param_names``.
    source_vector : `torch.Tensor`, shape (B, 7)
        The sources, as `~lenssr.light.sersic_brightness` takes them, in electron / s per arcsec2 and arcsec.
        For a source that is an image: its factor and centre, NaN elsewhere.
    subhalos : `torch.Tensor`, shape (B, N, 3), or None
        Point masses: Einstein radius, x and y, in arcsec; shorter lists are padded with zeros.
    source_images, source_step : `torch.Tensor`, shape (B, S, S) and (B,), or None
        Sources that are images, surface brightness before the factor (zeros for the others), and the step of
        their pixels in arcsec.
    """

    lens: MassModel | MassSystem
    lens_vector: torch.Tensor
    source_vector: torch.Tensor
    subhalos: torch.Tensor | None = None
    source_images: torch.Tensor | None = None
    source_step: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.lens_vector)

    @cached_property
    def has_source_image(self) -> NDArray[np.bool_]:
        """Which sources are images, shape (B,)."""
        return torch.isnan(self.source_vector[:, 2]).cpu().numpy()

    @cached_property
    def _discs(self) -> torch.Tensor | None:
        """Numbers (7, B, 1) that describe sources if all are exponential discs; otherwise None.

        They are the logarithm of the central brightness, and u and v as a x + b y - c each; the brightness is
        exp(log_peak - hypot(u, v)).
        """
        amplitude, r_eff_circ, n, x_0, y_0, e1, e2 = self.source_vector.double().T.unsqueeze(-1)
        if not bool(((n == 1) & (amplitude > 0)).all()):
            return None
        scale = sersic_b(1.0) / (r_eff_circ * torch.sqrt(1 - e1**2 - e2**2))
        numbers = [torch.log(amplitude) + sersic_b(1.0)]
        for a, b in (((1 - e1) * scale, -e2 * scale), (-e2 * scale, (1 + e1) * scale)):
            numbers += [a, b, a * x_0 + b * y_0]
        return torch.stack(numbers).to(self.source_vector.dtype)

    def select(self, rows: slice | Sequence[int] | NDArray[np.integer]) -> "LensScenes":
        """Return some of the scenes."""
        some = map_tensors(lambda tensor: tensor[rows], self)
        # Select the cached properties, too: to compute them scene by scene would be slow.
        discs = None if self._discs is None else self._discs[:, rows]
        some.__dict__.update(has_source_image=self.has_source_image[rows], _discs=discs)
        return some

    def deflection(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Deflection by the lenses in arcsec, substructure included."""
        alpha_x, alpha_y = self.lens.deflection_at(x, y, self.lens_vector)
        if self.subhalos is None:
            return alpha_x, alpha_y
        sub_x, sub_y = self.substructure_deflection(x, y)
        return alpha_x + sub_x, alpha_y + sub_y

    def substructure_deflection(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Deflection by the substructure alone in arcsec."""
        assert self.subhalos is not None
        return point_masses_deflection(x, y, *self.subhalos.unbind(-1))

    def source(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Surface brightness of the sources at positions in the source plane, in electron / s per arcsec2."""
        images, step = self.source_images, self.source_step
        if images is not None and step is not None and self.has_source_image.all():
            factor, x_0, y_0 = (self.source_vector[:, [column]] for column in (0, 3, 4))
            return factor * interpolate_image(x, y, images, step[:, None], x_0, y_0)
        if not self.has_source_image.any():
            if self._discs is not None and not tracked(x, y, self.source_vector):
                return _exponential(x, y, *self._discs)
            return sersic_brightness(x, y, *self.source_vector.T.unsqueeze(-1))
        x, y = (positions.expand(len(self), -1) for positions in torch.broadcast_tensors(x, y))
        total = torch.empty_like(x)
        for rows in (np.flatnonzero(self.has_source_image), np.flatnonzero(~self.has_source_image)):
            total[rows] = self.select(rows).source(x[rows], y[rows])
        return total

    def brightness(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Surface brightness of the lensed sources at positions in the image plane; as `source`."""
        alpha_x, alpha_y = self.deflection(x, y)
        return self.source(x - alpha_x, y - alpha_y)

    def model(self, row: int) -> MassModel | MassSystem:
        """Lens of one scene, by its place in the batch; its substructure are point masses beside it."""
        lens = self.lens.with_vector(self.lens_vector[row].double().cpu())
        subhalos = [] if self.subhalos is None else self.subhalos[row].tolist()
        masses = [PointMass(*numbers) for numbers in subhalos if numbers[0] > 0]
        return MassSystem(lens, *masses) if masses else lens

    def light(self, row: int) -> "Sersic | PixelatedSource":
        """Source of one scene, by its place in the batch."""
        vector = self.source_vector[row].double().cpu()
        images, step = self.source_images, self.source_step
        if images is None or step is None or not self.has_source_image[row]:
            return Sersic.from_vector(vector.numpy(), unit=UNIT)
        brightness = (vector[0] * images[row].double().cpu()).numpy() * (UNIT / u.arcsec**2)
        x_0, y_0 = vector[3:5].tolist()
        return PixelatedSource(brightness, float(step[row]) * u.arcsec, x_0=x_0, y_0=y_0)


@dataclass(frozen=True, eq=False)
class SimulatedLens:
    """One simulated lens: images at two resolutions, and everything that went into them.

    Images are `~astropy.nddata.CCDData` in electron / s per pixel, with a WCS; the exposure in seconds is
    ``meta["EXPTIME"]``.

    Attributes
    ----------
    index : int
        Its place in the data set.
    low, high, low_truth, truth : `~astropy.nddata.CCDData`
        The noisy images; ``high`` has ``scale`` times as many pixels along a side; and both without noise.
    lens : `~lenssr.mass.MassModel`
    source, lens_light : `~lenssr.light.Sersic`, `~lenssr.light.PixelatedSource` or None
        The true source, and the light of the lens galaxy, in electron / s per arcsec2.
    noise, high_noise : `~lenssr.imaging.NoiseModel`
        How ``low`` and ``high`` were made from their truths; numbers are in electron / s and seconds.
    psf : `~lenssr.imaging.PSF` or None
    settings : dict
        Numbers of the simulation that belong to no model, such as the signal-to-noise ratio.
    """

    index: int
    low: CCDData
    high: CCDData
    low_truth: CCDData
    truth: CCDData
    lens: MassModel | MassSystem
    source: Model
    noise: PoissonNoise
    high_noise: PoissonNoise
    lens_light: "Model | None" = None  # quoted: astropy gives | of models a meaning
    psf: PSF | None = None
    settings: dict = field(default_factory=dict)

    @property
    def given(self) -> dict[str, Any]:
        """What an observer would know besides the image: noise and PSF, as keywords for a resolver's call."""
        known = {"noise": self.noise, "psf": self.psf}
        return {name: value for name, value in known.items() if value is not None}


@dataclass(frozen=True, eq=False)
class LensBatch(_Tensors):
    """Simulated lenses of one camera as tensors: one shape, pixel scale and PSF, one device and type.

    Images are in electron / s per pixel.

    Attributes
    ----------
    index : `torch.Tensor`, shape (B,), int64
        Numbers of the lenses in the data set; on the CPU.
    low, low_truth : `torch.Tensor`, shape (B, ny, nx)
        The noisy images, and the same without noise.
    truth : `torch.Tensor`, shape (B, ny * scale, nx * scale)
        The noise-free images with ``scale`` times as many pixels along a side.
    noise, high_noise : `~lenssr.imaging.NoiseModel`
        Noise of ``low`` and of ``high`` (or None), whose numbers are tensors (B, 1, 1).
    scenes : `LensScenes`
    grid : `~lenssr.grids.PixelGrid`
        Pixels of ``low``.
    scale : int
    psf : `~lenssr.imaging.PSF` or None
    oversampling : "auto" or int
        Integration over pixels, as the option of `~lenssr.SuperResolver`; 1 where the data set samples light
        at pixel centres.
    exposure : `torch.Tensor`, shape (B,)
        Of ``low``, in seconds.
    high : `torch.Tensor`, shape (B, ny * scale, nx * scale), or None
        Noisy images of the shape of ``truth``, if they were asked for.
    settings : dict of str to `torch.Tensor`, shape (B,)
        Numbers of the simulation that belong to no model, such as the signal-to-noise ratio.
    """

    index: torch.Tensor
    low: torch.Tensor
    low_truth: torch.Tensor
    truth: torch.Tensor
    noise: PoissonNoise
    scenes: LensScenes
    grid: PixelGrid
    scale: int
    psf: PSF | None
    oversampling: Literal["auto"] | int
    exposure: torch.Tensor
    high: torch.Tensor | None = None
    high_noise: PoissonNoise | None = None
    settings: dict = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.low)

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.low.device

    @property
    def pixel_scale(self) -> float:
        """Side of the low pixels in arcsec."""
        return self.grid.pixel_scale

    @property
    def psf_fwhm(self) -> float:
        """FWHM of the PSF in arcsec; 0 where there is none."""
        return 0.0 if self.psf is None else self.psf.fwhm_at(self.pixel_scale)

    @property
    def variance(self) -> torch.Tensor:
        """True variance of ``low``, shape (B, ny, nx), from the noise-free image."""
        return self.noise.moments(self.low_truth)[2].expand(self.low.shape)

    def kernel(self, subsampling: int = 1) -> torch.Tensor | None:
        """Kernel of the PSF for `torch.Tensor` images.

        Parameters
        ----------
        subsampling : int, optional
            Samples along a low pixel; 1 by default, ``scale`` for images of the shape of ``truth``.

        Returns
        -------
        kernel : `torch.Tensor`, odd sides, or None
            Normalised to a sum of 1; None without a PSF.
        """
        if self.psf is None:
            return None
        return torch.as_tensor(self.psf.kernel(self.pixel_scale, subsampling)).to(self.low)

    def item(self, row: int) -> SimulatedLens:
        """Return one lens, by its place in the batch, as resolvers take it.

        ``high`` and ``high_noise`` are None unless the batch has them.
        """
        fine = self.grid.upsample(self.scale)
        numbers = {name: getattr(self, name) for name in ("noise", "high_noise", "settings")}
        numbers = map_tensors(lambda values: float(values[row]), numbers)

        def view(values: Any, grid: PixelGrid, noise: PoissonNoise | None = None) -> Any:
            exposure = None if noise is None else noise.exposure
            return None if values is None else image(values[row].double().cpu().numpy(), grid, exposure)

        return SimulatedLens(
            index=int(self.index[row]),
            low=view(self.low, self.grid, numbers["noise"]),
            high=view(self.high, fine, numbers["high_noise"]),
            low_truth=view(self.low_truth, self.grid),
            truth=view(self.truth, fine),
            lens=self.scenes.model(row),
            source=self.scenes.light(row),
            psf=self.psf,
            **numbers,
        )


@dataclass
class LensDraw:
    """Random numbers of one lens, before anything is rendered: plain numbers and float64 arrays."""

    lens: np.ndarray  # shape (P,); this and the next as in `LensScenes`
    source: np.ndarray
    noise: PoissonNoise
    high_noise: PoissonNoise
    # For the noise of the high and of the low image; if they are one, the high image's is drawn first.
    streams: tuple[np.random.Generator, np.random.Generator]
    subhalos: np.ndarray = field(default_factory=lambda: np.zeros((0, 3)))
    source_image: "np.ndarray | None" = None  # shape (S, S), if it is one, and the side of its pixels
    source_step: float = 1.0
    settings: dict = field(default_factory=dict)


def make_scenes(kind: MassModel | MassSystem, draws: Sequence[LensDraw]) -> LensScenes:
    """`LensScenes` of a batch in float64, from the kind of lens and what was drawn."""
    more: dict[str, torch.Tensor] = {}
    if any(len(one.subhalos) for one in draws):
        masses = [torch.from_numpy(one.subhalos) for one in draws]
        more["subhalos"] = torch.nn.utils.rnn.pad_sequence(masses, batch_first=True)
    given = next((one.source_image for one in draws if one.source_image is not None), None)
    if given is not None:
        images = [np.zeros_like(given) if one.source_image is None else one.source_image for one in draws]
        more["source_images"] = torch.from_numpy(np.stack(images))
        more["source_step"] = torch.tensor([one.source_step for one in draws])
    lens, source = (np.stack([getattr(one, name) for one in draws]) for name in ("lens", "source"))
    return LensScenes(kind, torch.from_numpy(lens), torch.from_numpy(source), **more)


def image(values: NDArray, grid: PixelGrid, exposure: float | None = None) -> CCDData:
    """Make a `~astropy.nddata.CCDData` on a grid."""
    header = {} if exposure is None else {"EXPTIME": float(exposure)}
    return CCDData(values, unit=UNIT, wcs=grid.wcs, meta=header)


def _exponential(x: torch.Tensor, y: torch.Tensor, *numbers: torch.Tensor) -> torch.Tensor:
    """Brightness of exponential discs, in place: several times faster than a general Sérsic profile."""
    log_peak, u_x, u_y, u_0, v_x, v_y, v_0 = numbers
    u = torch.mul(x, u_x).addcmul_(y, u_y).sub_(u_0)
    v = torch.mul(x, v_x).addcmul_(y, v_y).sub_(v_0)
    radius = u.square_().addcmul_(v, v).sqrt_()
    return torch.sub(log_peak, radius, out=radius).exp_()


def map_tensors(function: Callable[[torch.Tensor], Any], value: Any) -> Any:
    """Apply a function to a tensor, or to all tensors of scenes, a batch, a noise model or a dictionary."""
    if isinstance(value, torch.Tensor):
        return function(value)
    if isinstance(value, dict):
        return {name: map_tensors(function, one) for name, one in value.items()}
    if isinstance(value, NoiseModel):
        names: tuple[str, ...] = value.names
        return value.with_numbers(*(function(getattr(value, name)) for name in names))
    if isinstance(value, _Tensors):
        values = {one.name: map_tensors(function, getattr(value, one.name)) for one in fields(value)}
        return replace(value, **values)
    return value
