"""Populations of lenses, an SIE with shear each: mixed ones as surveys find them, broad ones to train on."""

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq

from lenssr.exceptions import InputError
from lenssr.imaging import PSF, PoissonNoise
from lenssr.light import Sersic, sersic_brightness, sersic_flux
from lenssr.mass import SIE, Shear
from lenssr.mass.parameter import ellipticity
from lenssr.simulation import galaxy_shapes
from lenssr.simulation.camera import Camera, binned, lensed, render_steep, sky_grid
from lenssr.simulation.dataset import BatchedLenses, LensDataset, check_range, observed
from lenssr.simulation.galaxy_shapes import GalaxyShapes
from lenssr.simulation.scenes import UNIT, LensDraw, SimulatedLens
from lenssr.units import positive_integer

# Side of a low pixel and FWHM of the PSF, in arcsec, and noise of the sky, in electron / s.
PIXEL_SCALE = 0.05
FWHM = 0.1
BACKGROUND_RMS = 0.01
# Sides of the images in pixels, and the field they must span in Einstein radii. Few shapes: equal ones share
# a batch.
_IMAGE_SIDES = (100, 150, 200)
_FIELD = 5.0
# Effective radius of a source: range in Einstein radii, and least one in arcsec.
_SOURCE_RADII, _SMALLEST_SOURCE = (0.08, 0.25), 0.06

_SOURCES = ("sersic", "clumpy", "shapes", "blends")
# Radius of a sampled Moffat profile in half widths.
_MOFFAT_REACH = 6.0

# x and y in arcsec.
_Pair = Sequence[Any]

_LENS = SIE(1.0) + Shear(0.0, 0.0)


def _draw_lens(
    rng: Generator, largest: float, least_q: float, offset: float, shear: float
) -> tuple[NDArray, float, float]:
    """Parameters (9,) of an SIE up to a ``largest`` radius, with shear, and its axis ratio and direction."""
    theta_E, q, phi = rng.uniform(0.5, largest), rng.uniform(least_q, 1.0), rng.uniform(0, math.pi)
    x_0, y_0 = rng.uniform(-offset, offset, 2)
    gamma, angle = rng.uniform(0, shear), rng.uniform(0, math.pi)
    gammas = gamma * math.cos(2 * angle), gamma * math.sin(2 * angle)
    return np.array([theta_E, *ellipticity(q, phi), x_0, y_0, *gammas, 0.0, 0.0]), q, phi


def _draw_place(rng: Generator, largest: float, centre: _Pair, alpha: _Pair) -> list[float]:
    """Position within ``largest`` arcsec of the optical axis through a centre, where alpha deflects."""
    # On the axis through the lens only the shear deflects.
    radius, angle = largest * math.sqrt(rng.uniform()), rng.uniform(0, 2 * math.pi)
    shifts = radius * math.cos(angle), radius * math.sin(angle)
    return [float(x - bent + shift) for x, bent, shift in zip(centre, alpha, shifts, strict=True)]


@dataclass(repr=False, eq=False)
class LensPopulation(LensDataset):
    """Mixed galaxy-galaxy lenses with PSF, noise, and for half of them the light of the lens.

    The lens is an SIE with theta_E uniform in 0.5" to 2", q in 0.6 to 1 and its centre within 0.2" of the
    image centre in x and y, plus a shear of up to 0.08 in any direction. The source is a Sérsic with n in 0.5
    to 4, r_eff in 0.08 to 0.25 theta_E (but at least 0.06") and q in 0.5 to 1, within 0.35 theta_E of the
    optical axis, where it has several images. Half of the lenses shine: a Sérsic at the centre of the mass
    with n in 2 to 5, r_eff in 0.5 to 1.5 theta_E, the shape of the mass within a scatter of 0.05 in q and 10
    degrees, and 0.5 to 3 times the flux of the arcs.

    The low image has pixels of 0.05" and spans at least five Einstein radii: 100, 150 or 200 pixels a side.
    The PSF is a Gaussian of FWHM 0.1". The exposure is ``10**U(3, 3.5)`` seconds; to the Poisson noise comes
    a Gaussian background of 0.01 electron / s. The flux of the source gives its arcs the signal-to-noise
    ratio ``sqrt(sum(arcs**2 / variance))``, drawn between 150 and 500 evenly in the logarithm
    (``item.settings["snr"]``).

    Parameters
    ----------
    size, seed : int, optional
        Number of lenses, and seed of the random numbers; 100 and 0 by default.
    lens_light : bool or None, optional
        Whether all lenses shine, none does, or, the default, those with odd numbers.
    scale : int, optional
        High pixels along a low one; 2 by default.

    Notes
    -----
    The truth is the scene behind the telescope's PSF, integrated over the high pixels; the low image is its
    sum over ``scale`` x ``scale`` pixels. Pixels are sampled adaptively.

    Examples
    --------
    >>> from lenssr.simulation import LensPopulation
    >>> item = LensPopulation(size=10, seed=1)[2]
    >>> item.lens.param_names
    ('theta_E_0', 'e1_0', 'e2_0', 'x_0_0', 'y_0_0', 'gamma1_1', 'gamma2_1', 'x_0_1', 'y_0_1')
    >>> item.lens_light is None, item.psf.fwhm
    (True, <Quantity 0.1 arcsec>)
    """

    _stream = 2

    size: int = 100
    seed: int = 0
    _: KW_ONLY
    lens_light: bool | None = None
    scale: int = 2

    def __post_init__(self) -> None:
        super().__init__(self.size, self.seed)
        self.lens_light = None if self.lens_light is None else bool(self.lens_light)
        self.scale = positive_integer(self.scale, "scale")

    def _item(self, index: int) -> SimulatedLens:
        rng = self.rng(index)
        vector, q, phi = _draw_lens(rng, 2.0, 0.6, 0.2, 0.08)
        lens = _LENS.with_vector(vector)
        theta_E, _, _, *centre = vector[:5].tolist()
        source = _draw_sersic(rng, theta_E, centre, lens[1].deflection(*centre))
        light, light_ratio = _draw_lens_light(rng, theta_E, centre, q, phi)
        shines = index % 2 == 1 if self.lens_light is None else self.lens_light
        exposure, snr = 10 ** rng.uniform(3.0, 3.5), 10 ** rng.uniform(math.log10(150), math.log10(500))
        pixels = next(n for n in _IMAGE_SIDES if n * PIXEL_SCALE >= _FIELD * theta_E)
        grid, psf = sky_grid((pixels, pixels), PIXEL_SCALE), PSF.from_fwhm(FWHM * u.arcsec)
        arcs, glow = render_steep(
            grid.upsample(self.scale),
            psf,
            lensed(lens, lambda x, y: sersic_brightness(x, y, *source)),
            lambda x, y: sersic_brightness(x, y, *light),
        )
        # Both have amplitude 1 so far; scale the lens light relative to the source.
        light[0] = light_ratio * arcs.sum() / glow.sum() if shines else 0.0
        glow *= light[0]
        source[0] = _amplitude(binned(arcs, self.scale), binned(glow, self.scale), exposure, snr)
        light[0] *= source[0]
        noise = PoissonNoise(exposure, BACKGROUND_RMS)
        return SimulatedLens(
            index=index,
            **observed(source[0] * (arcs + glow), grid, self.scale, noise, rng),
            lens=lens,
            source=Sersic.from_vector(source, unit=UNIT),
            lens_light=Sersic.from_vector(light, unit=UNIT) if shines else None,
            psf=psf,
            settings={"snr": float(snr)},
        )


def _draw_sersic(rng: Generator, theta_E: float, centre: _Pair, alpha: _Pair) -> NDArray:
    """Parameters of a source with amplitude 1 behind a lens, as `sersic_brightness` takes them."""
    n, q, phi = rng.uniform(0.5, 4.0), rng.uniform(0.5, 1.0), rng.uniform(0, math.pi)
    r_eff = max(theta_E * rng.uniform(*_SOURCE_RADII), _SMALLEST_SOURCE)
    place = _draw_place(rng, 0.35 * theta_E, centre, alpha)
    return np.array([1.0, r_eff * math.sqrt(q), n, *place, *ellipticity(q, phi)])


def _draw_lens_light(
    rng: Generator, theta_E: float, centre: _Pair, q: float, phi: float
) -> tuple[NDArray, float]:
    """Parameters of a lens galaxy's light with amplitude 1, and the ratio of its flux to the arcs'."""
    n, r_eff = rng.uniform(2.0, 5.0), theta_E * rng.uniform(0.5, 1.5)
    q = float(np.clip(q + 0.05 * rng.standard_normal(), 0.5, 1.0))
    phi = phi + math.radians(10) * rng.standard_normal()
    vector = np.array([1.0, r_eff * math.sqrt(q), n, *centre, *ellipticity(q, phi)])
    return vector, 10 ** rng.uniform(math.log10(0.5), math.log10(3.0))


def _amplitude(arcs: NDArray, glow: NDArray, exposure: float, snr: float) -> float:
    """Amplitude that gives the arcs a signal-to-noise ratio, with all other light in proportion."""

    def excess(log_amplitude: float) -> float:
        amplitude = math.exp(log_amplitude)
        variance = amplitude * (arcs + glow) / exposure + BACKGROUND_RMS**2
        return math.log(np.sum((amplitude * arcs) ** 2 / variance)) / 2 - math.log(snr)

    return math.exp(brentq(excess, math.log(1e-6), math.log(1e8)))


@dataclass(repr=False, eq=False)
class BroadLenses(BatchedLenses):
    """Lenses, sources and cameras of many kinds, drawn from broad ranges, in batches that share a camera.

    The lens is an SIE with theta_E uniform in 0.5" to 2" (but at most ``largest`` sides of the image), q in
    0.5 to 1, its centre within 0.15" of the image centre in x and y, plus a shear of up to 0.1 in any
    direction. Sources have an effective radius of 0.08 to 0.25 theta_E (but at least 0.06") and q in 0.4 to
    1; they lie within 0.4 theta_E of the optical axis. They are Sérsic profiles with n in 0.5 to 4, discs
    with clumps, or, if ``shapes`` are given, real galaxies, in equal numbers. The lens does not shine.

    Every 64 lenses in a row share a camera. Its pixel scale is uniform in the logarithm, its PSF a Gaussian
    or a Moffat profile (beta of 2.5 to 5), as often one as the other, with a FWHM uniform in pixels. The
    exposure is ``10**U(3, 3.5)`` seconds and the background 0.003 to 0.03 electron / s, uniform in the
    logarithm. The source's brightness follows from the signal-to-noise ratio.

    Parameters
    ----------
    size : int, optional
        Number of lenses; 1000 by default.
    seed : int, optional
        Seed of the random numbers; 0 by default.
    shapes : `GalaxyShapes`, str, `~pathlib.Path` or sequence of array, optional
        Real galaxies to draw from: a folder of cutouts, or cutouts (see `GalaxyShapes.from_any`); none by
        default. Keep some for tests: ``shapes[::2]`` is one half, ``"hubble_deep_field[::2]"`` one half of
        those that come with scikit-image.
    sources : sequence of {"sersic", "clumpy", "shapes", "blends"}, optional
        Kinds of sources, each as often as it is named; by default the first two, and the third with
        ``shapes``. A blend is two shapes, deformed and superposed: few galaxies make many blends.
    pixels : int, optional
        Low pixels along a side of the image; 64 by default.
    pixel_scale : tuple of float, optional
        Least and largest side of a low pixel in arcsec; (0.05, 0.12) by default.
    fwhm : tuple of float, optional
        Least and largest FWHM of the PSF in low pixels; (1, 2.5) by default.
    snr : tuple of float, optional
        Least and largest signal-to-noise ratio of a low pixel on an arc, uniform in the logarithm; (6, 40) by
        default. See Notes.
    scale : int, optional
        High pixels along a low one; 2 by default.
    largest : float, optional
        Largest Einstein radius over the side of the image; 0.26 by default, which keeps the arcs inside.

    Raises
    ------
    InputError
        If a setting is out of range, or the shapes cannot be read.

    Notes
    -----
    Light is integrated over high pixels, within 1 % of the peak of the image also where n is 4; the PSF is
    applied at their sampling, and sums of them make the low image. As in `~lenssr.imaging.ImagingOperator`,
    it brings in light from beyond the edge of the image.

    The signal-to-noise ratio belongs to a pixel with the mean surface brightness of the source within its
    half-light radius r (lensing conserves it), times r / sqrt(r^2 + (FWHM / 2)^2), about the factor by which
    the PSF dims an arc of that width.

    A shape is turned by a multiple of 90 degrees and mirrored, at random; a shape in a blend by any angle.

    Examples
    --------
    >>> from lenssr.simulation import BroadLenses
    >>> data = BroadLenses(size=200, seed=1)
    >>> for indices in data.index_batches(32, indices=range(100)):
    ...     batch = data.batch(indices)
    ...     print(len(batch), tuple(batch.low.shape[1:]), round(batch.pixel_scale, 3))
    32 (64, 64) 0.077
    32 (64, 64) 0.077
    32 (64, 64) 0.088
    4 (64, 64) 0.088
    """

    _stream = 6
    _block = 64
    _lens = _LENS

    size: int = 1000
    seed: int = 0
    _: KW_ONLY
    shapes: GalaxyShapes | str | Path | Sequence[ArrayLike] | None = None
    sources: str | Sequence[str] | None = None
    pixels: int = 64
    pixel_scale: tuple[Any, Any] = (0.05, 0.12)
    fwhm: tuple[float, float] = (1.0, 2.5)
    snr: tuple[float, float] = (6.0, 40.0)
    scale: int = 2
    largest: float = 0.26

    def __post_init__(self) -> None:
        super().__init__(self.size, self.seed)
        if self.shapes is not None:
            self.shapes = GalaxyShapes.from_any(self.shapes)
        self.sources = self._kinds = self._checked_sources()
        self.pixels = positive_integer(self.pixels, "pixels", 16)
        self.scale = positive_integer(self.scale, "scale")
        self.pixel_scale = check_range(self.pixel_scale, u.arcsec, "pixel_scale")
        self.fwhm = check_range(self.fwhm, u.dimensionless_unscaled, "fwhm")
        self.snr = check_range(self.snr, u.dimensionless_unscaled, "snr")
        self.largest = float(self.largest)
        if not 0 < self.largest <= 0.5:
            raise InputError(f"largest = {self.largest}: give a share of the side of the image, up to 0.5")
        if self.largest * self.pixels * self.pixel_scale[0] < 0.5:
            field = f'{self.pixels} pixels of {self.pixel_scale[0]}"'
            raise InputError(f'{field} do not hold a lens of 0.5": give more pixels, or larger ones')
        self._shape_images: dict[int, tuple[np.ndarray, float]] = {}

    def _checked_sources(self) -> tuple[str, ...]:
        if self.sources is None:
            return _SOURCES[: 2 if self.shapes is None else 3]
        sources = (self.sources,) if isinstance(self.sources, str) else tuple(self.sources)
        if not sources or not set(sources) <= set(_SOURCES):
            raise InputError(f"sources = {sources}: give some of {', '.join(map(repr, _SOURCES))}")
        if self.shapes is None and not set(sources) <= {"sersic", "clumpy"}:
            raise InputError(f"sources = {sources} without shapes=: give cutouts of galaxies or their folder")
        return sources

    def _camera_numbers(self, number: int) -> tuple[float, float, float]:
        """Pixel scale, FWHM in arcsec and the beta of a Moffat profile, 0 for a Gaussian."""
        rng = np.random.default_rng([self.seed, number, self._stream, 9, 9])
        pixel_scale = math.exp(rng.uniform(*np.log(self.pixel_scale)))
        fwhm = rng.uniform(*self.fwhm) * pixel_scale
        return pixel_scale, fwhm, rng.uniform(2.5, 5.0) * (rng.uniform() < 0.5)

    def _make_camera(self, number: int) -> Camera:
        pixel_scale, fwhm, beta = self._camera_numbers(number)
        psf = _moffat(fwhm, beta, pixel_scale, self.scale) if beta else PSF.from_fwhm(fwhm * u.arcsec)
        return Camera(self.pixels, pixel_scale, self.scale, psf)

    def _draw(self, index: int) -> LensDraw:
        rng = self.rng(index)
        pixel_scale, fwhm, _ = self._camera_numbers(self._camera_number(index))
        lens, _, _ = _draw_lens(rng, min(2.0, self.largest * self.pixels * pixel_scale), 0.5, 0.15, 0.1)
        exposure, rms = 10 ** rng.uniform(3.0, 3.5), math.exp(rng.uniform(*np.log([0.003, 0.03])))
        snr = math.exp(rng.uniform(*np.log(self.snr)))
        kind = self._kinds[int(rng.integers(len(self._kinds)))]
        source, source_image, step, radius = self._draw_source(rng, kind, lens)
        mean = 1 / (2 * math.pi * radius * math.hypot(radius, fwhm / 2))
        # The flux s of a pixel solves s / sqrt(s / exposure + rms^2) = snr.
        ratio = snr**2 / exposure
        source[0] *= (ratio + math.sqrt(ratio**2 + (2 * snr * rms) ** 2)) / 2 / (mean * pixel_scale**2)
        return LensDraw(
            lens=lens,
            source=source,
            noise=PoissonNoise(exposure, rms),
            high_noise=PoissonNoise(exposure, rms / self.scale),
            streams=(self.rng(index, 1), self.rng(index, 2)),
            source_image=source_image,
            source_step=step,
            settings={"snr": snr, "kind": float(_SOURCES.index(kind))},
        )

    def _draw_source(
        self, rng: Generator, kind: str, lens: NDArray
    ) -> tuple[NDArray, NDArray | None, float, float]:
        """Source of flux 1: vector, image and step (if it is an image), and half-light radius."""
        theta_E, _, _, x, y, gamma1, gamma2 = lens[:7]
        r_eff = max(theta_E * rng.uniform(*_SOURCE_RADII), _SMALLEST_SOURCE)
        q, phi = rng.uniform(0.4, 1), rng.uniform(0, math.pi)
        alpha = gamma1 * x + gamma2 * y, gamma2 * x - gamma1 * y
        place = _draw_place(rng, 0.4 * theta_E, (x, y), alpha)
        if kind == "sersic":
            n = rng.uniform(0.5, 4.0)
            amplitude = 1 / float(sersic_flux(1.0, r_eff, n))
            return np.array([amplitude, r_eff, n, *place, *ellipticity(q, phi)]), None, 1.0, r_eff
        vector = np.array([1.0, np.nan, np.nan, *place, np.nan, np.nan])
        if kind == "clumpy":
            source_image, step = galaxy_shapes.clumpy_disc(rng, r_eff, q, phi)
            radius = galaxy_shapes.half_light_radius(source_image) * len(source_image) * step
            return vector, source_image, step, radius
        source_image, radius = self._draw_shape(rng)
        source_image = galaxy_shapes.rotate_or_mirror(source_image, int(rng.integers(8)))
        if kind == "blends":
            source_image = galaxy_shapes.blend_galaxies(rng, source_image, self._draw_shape(rng)[0])
            radius = galaxy_shapes.half_light_radius(source_image)
        step = r_eff / radius / len(source_image)
        return vector, source_image / step**2, step, r_eff

    def _draw_shape(self, rng: Generator) -> tuple[NDArray, float]:
        """Image of a shape on the nodes, and its half-light radius over its side."""
        shapes = GalaxyShapes.from_any(self.shapes)
        number = int(rng.integers(len(shapes)))
        if number not in self._shape_images:
            source_image = galaxy_shapes.resample_shape(shapes[number])
            source_image = source_image / source_image.sum()
            self._shape_images[number] = source_image, galaxy_shapes.half_light_radius(source_image)
        return self._shape_images[number]


def _moffat(fwhm: float, beta: float, pixel_scale: float, scale: int) -> PSF:
    """Moffat profile sampled at the high pixels."""
    step = pixel_scale / scale
    core = fwhm / 2 / math.sqrt(2 ** (1 / beta) - 1)
    reach = math.ceil(_MOFFAT_REACH * fwhm / 2 / step)
    places = np.arange(-reach, reach + 1) * step / core
    return PSF((1 + places**2 + places[:, None] ** 2) ** -beta, oversampling=scale, pixel_scale=pixel_scale)
