"""A broad population of lenses, cameras and sources, fast enough to train on."""

import math

import astropy.units as u
import numpy as np

from lenssr.exceptions import InputError
from lenssr.imaging.noise import PoissonNoise
from lenssr.imaging.psf import PSF
from lenssr.light.sersic import sersic_flux
from lenssr.mass import SIE, Shear
from lenssr.mass.parameter import ellipticity
from lenssr.simulation.camera import Camera
from lenssr.simulation.dataset import BatchedLenses, LensDraw, check_count, check_range
from lenssr.simulation.galaxy_shapes import (
    GalaxyShapes,
    blend_galaxies,
    clumpy_disc,
    half_light_radius,
    resample_shape,
    rotate_or_mirror,
)

__all__ = ["BroadLenses"]

_SOURCES = ("sersic", "clumpy", "shapes", "blends")
# Kinds of sources that need ``shapes``.
_OF_SHAPES = _SOURCES[2:]
# Least effective radius of a source in arcsec; radius of a sampled Moffat profile in half widths.
_SMALLEST_SOURCE = 0.06
_MOFFAT_REACH = 6.0


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
        How many lenses; 1000 by default.
    seed : int, optional
        Which ones; 0 by default.
    shapes : `GalaxyShapes`, str, `~pathlib.Path` or sequence of array, optional
        Real galaxies to draw from: a folder of cutouts, or cutouts (see `GalaxyShapes.from_any`); none by
        default. Keep some for tests: ``shapes[::2]`` is one half, ``"hubble_deep_field[::2]"`` one half of
        those that come with scikit-image.
    sources : sequence of {"sersic", "clumpy", "shapes", "blends"}, optional
        Kinds of sources, each as often as it is named; by default the first two, and the third with
        ``shapes``. A blend is two shapes, deformed and superposed: few galaxies make many blends.
    pixels : int, optional
        How many low pixels lie along a side of the image; 64 by default.
    pixel_scale : tuple of float, optional
        Least and largest side of a low pixel in arcsec; (0.05, 0.12) by default.
    fwhm : tuple of float, optional
        Least and largest FWHM of the PSF in low pixels; (1, 2.5) by default.
    snr : tuple of float, optional
        Least and largest signal-to-noise ratio of a low pixel on an arc, uniform in the logarithm; (6, 40) by
        default. See Notes.
    scale : int, optional
        How many high pixels lie along a low one; 2 by default.
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

    The signal-to-noise ratio is that of a pixel with the mean surface brightness of the source within its
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

    _settings = (
        *("size", "seed", "shapes", "sources", "pixels"),
        *("pixel_scale", "fwhm", "snr", "scale", "largest"),
    )
    _stream = 6
    _block = 64
    _lens = SIE(1.0) + Shear(0.0, 0.0)

    def __init__(
        self,
        size=1000,
        seed=0,
        *,
        shapes=None,
        sources=None,
        pixels=64,
        pixel_scale=(0.05, 0.12),
        fwhm=(1.0, 2.5),
        snr=(6.0, 40.0),
        scale=2,
        largest=0.26,
    ):
        super().__init__(size, seed)
        self.shapes = None if shapes is None else GalaxyShapes.from_any(shapes)
        self.sources = _checked_sources(sources, self.shapes)
        self.pixels, self.scale = check_count(pixels, "pixels", 16), check_count(scale, "scale", 1)
        self.pixel_scale = check_range(pixel_scale, u.arcsec, "pixel_scale")
        self.fwhm = check_range(fwhm, u.dimensionless_unscaled, "fwhm")
        self.snr = check_range(snr, u.dimensionless_unscaled, "snr")
        self.largest = float(largest)
        if not 0 < self.largest <= 0.5:
            raise InputError(f"largest = {largest!r}: give a share of the side of the image, up to 0.5")
        if self.largest * self.pixels * self.pixel_scale[0] < 0.5:
            raise InputError(
                f'{self.pixels} pixels of {self.pixel_scale[0]}" do not hold a lens of 0.5": give more '
                "pixels, or larger ones"
            )
        self._shape_images = {}

    def _camera_numbers(self, number):
        """Pixel scale, FWHM in arcsec and the beta of a Moffat profile, 0 for a Gaussian."""
        rng = np.random.default_rng([self.seed, number, self._stream, 9, 9])
        pixel_scale = math.exp(rng.uniform(*np.log(self.pixel_scale)))
        fwhm = rng.uniform(*self.fwhm) * pixel_scale
        return pixel_scale, fwhm, rng.uniform(2.5, 5.0) * (rng.uniform() < 0.5)

    def _make_camera(self, number):
        pixel_scale, fwhm, beta = self._camera_numbers(number)
        psf = PSF.from_fwhm(fwhm * u.arcsec)
        if beta:
            psf = _moffat(fwhm, beta, pixel_scale, self.scale)
        return Camera(self.pixels, pixel_scale, self.scale, psf)

    def _draw(self, index):
        rng = self.rng(index)
        pixel_scale, fwhm, _ = self._camera_numbers(self._camera_number(index))
        lens = self._draw_lens(rng, pixel_scale)
        exposure, rms = 10 ** rng.uniform(3.0, 3.5), math.exp(rng.uniform(*np.log([0.003, 0.03])))
        snr = math.exp(rng.uniform(*np.log(self.snr)))
        kind = self.sources[rng.integers(len(self.sources))]
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

    def _draw_lens(self, rng, pixel_scale):
        theta_E = rng.uniform(0.5, min(2.0, self.largest * self.pixels * pixel_scale))
        e1, e2 = ellipticity(rng.uniform(0.5, 1.0), rng.uniform(0, math.pi))
        x_0, y_0 = rng.uniform(-0.15, 0.15, 2)
        gamma, phi = rng.uniform(0, 0.1), rng.uniform(0, math.pi)
        return np.array(
            [theta_E, e1, e2, x_0, y_0, gamma * math.cos(2 * phi), gamma * math.sin(2 * phi), 0.0, 0.0]
        )

    def _draw_source(self, rng, kind, lens):
        """Source of flux 1: vector, image and step (if it is an image), and half-light radius."""
        theta_E, _, _, x, y, gamma1, gamma2 = lens[:7]
        r_eff = max(theta_E * rng.uniform(0.08, 0.25), _SMALLEST_SOURCE)
        q, phi = rng.uniform(0.4, 1), rng.uniform(0, math.pi)
        reach, angle = 0.4 * theta_E * math.sqrt(rng.uniform()), rng.uniform(0, 2 * math.pi)
        # On the optical axis through the lens only the shear deflects.
        x_0 = x - (gamma1 * x + gamma2 * y) + reach * math.cos(angle)
        y_0 = y - (gamma2 * x - gamma1 * y) + reach * math.sin(angle)
        if kind == "sersic":
            n = rng.uniform(0.5, 4.0)
            amplitude = 1 / float(sersic_flux(1.0, r_eff, n))
            return np.array([amplitude, r_eff, n, x_0, y_0, *ellipticity(q, phi)]), None, 1.0, r_eff
        vector = np.array([1.0, np.nan, np.nan, x_0, y_0, np.nan, np.nan])
        if kind == "clumpy":
            source_image, step = clumpy_disc(rng, r_eff, q, phi)
            return vector, source_image, step, half_light_radius(source_image) * len(source_image) * step
        source_image, radius = self._image_brightness(int(rng.integers(len(self.shapes))))
        source_image = rotate_or_mirror(source_image, int(rng.integers(8)))
        if kind == "blends":
            source_image = blend_galaxies(
                rng, source_image, self._image_brightness(int(rng.integers(len(self.shapes))))[0]
            )
            radius = half_light_radius(source_image)
        step = r_eff / radius / len(source_image)
        return vector, source_image / step**2, step, r_eff

    def _image_brightness(self, number):
        """Image of a shape on the nodes, and its half-light radius over its side."""
        if number not in self._shape_images:
            source_image = resample_shape(self.shapes[number])
            source_image = source_image / source_image.sum()
            self._shape_images[number] = source_image, half_light_radius(source_image)
        return self._shape_images[number]


def _checked_sources(sources, shapes):
    if sources is None:
        return _SOURCES[:3] if shapes is not None else _SOURCES[:2]
    sources = (sources,) if isinstance(sources, str) else tuple(sources)
    unknown = [kind for kind in sources if kind not in _SOURCES]
    if unknown or not sources:
        raise InputError(f"sources = {sources}: give some of {', '.join(map(repr, _SOURCES))}")
    lacking = [kind for kind in sources if kind in _OF_SHAPES and shapes is None]
    if lacking:
        raise InputError(f"sources hold {lacking[0]!r}: give shapes=, cutouts of galaxies or their folder")
    return sources


def _moffat(fwhm, beta, pixel_scale, scale):
    """Moffat profile sampled at the high pixels."""
    step = pixel_scale / scale
    core = fwhm / 2 / math.sqrt(2 ** (1 / beta) - 1)
    reach = math.ceil(_MOFFAT_REACH * fwhm / 2 / step)
    places = np.arange(-reach, reach + 1) * step / core
    return PSF((1 + places**2 + places[:, None] ** 2) ** -beta, oversampling=scale, pixel_scale=pixel_scale)
