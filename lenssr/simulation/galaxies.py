"""Lenses whose sources are real galaxies."""

import math
from dataclasses import dataclass

import astropy.units as u
import numpy as np
import torch
from astropy.nddata import CCDData
from scipy import ndimage

from lenssr.exceptions import InputError
from lenssr.grids import PixelGrid
from lenssr.imaging.noise import PoissonNoise
from lenssr.imaging.operator import Convolution, ImagingOperator
from lenssr.imaging.psf import PSF
from lenssr.light.pixelated_source import PixelatedSource, interpolate_image
from lenssr.mass import SIE, Shear
from lenssr.simulation.item import UNIT, LensDataset, SimulatedLens, check_count, image, sky_grid
from lenssr.simulation.population import binned
from lenssr.simulation.shapes import GalaxyShapes
from lenssr.units import strip_unit

__all__ = ["GALAXY_CELLS", "GalaxyLens", "GalaxyLenses"]

#: Settings of `GalaxyLenses` for two cameras, by the side of their pixels.
GALAXY_CELLS = {
    '0.05"': {"pixel_scale": 0.05, "fwhm": 0.087, "pixels": 76, "sky_rms": 0.01},
    '0.1"': {"pixel_scale": 0.1, "fwhm": 0.16, "pixels": 38, "sky_rms": 0.02},
}

# Side of the box of the source in arcsec.
_SOURCE_SIDE = 1.0
# Nodes along the box of the source: several to a pixel of the cutouts.
_NODES = 240
# Step of the rays in arcsec. A quarter of it changes images by 83 to 96 dB below their peaks.
_RAY_STEP = 0.00625


@dataclass(frozen=True, eq=False)
class GalaxyLens(SimulatedLens):
    """A simulated lens with a real galaxy as its source.

    It has all attributes of a `SimulatedLens`; ``source`` is a `~lenssr.light.PixelatedSource`, and
    ``settings`` hold the number of the galaxy's shape and the angle of its rotation in degrees.

    Attributes
    ----------
    pixel_truth : `~astropy.nddata.CCDData`
        As ``truth``, without PSF: only integrated over the high pixels.
    galaxy : str
        Name of the shape.
    """

    pixel_truth: CCDData | None = None
    galaxy: str = ""

    def truth_behind(self, psf):
        """Noise-free high image behind another PSF.

        Parameters
        ----------
        psf : `~lenssr.imaging.PSF`, `~astropy.units.Quantity`, array or None
            Anything that `~lenssr.imaging.PSF.from_any` takes, such as the FWHM of a Gaussian; None for
            none, which gives ``pixel_truth``.

        Returns
        -------
        truth : `~astropy.nddata.CCDData`
        """
        grid = PixelGrid.from_wcs(self.truth.wcs, self.truth.shape)
        psf = None if psf is None else PSF.from_any(psf)
        return image(_observe(_lensed_image(grid, self.lens, self.source, psf), grid, psf), grid)

    def mean_source(self, shape, pixel_scale, x_0=0.0, y_0=0.0):
        """Surface brightness of the source averaged over pixels.

        Parameters
        ----------
        shape : tuple of int
            ``(ny, nx)`` of the pixels.
        pixel_scale : float or `~astropy.units.Quantity`
            Their side, in arcsec.
        x_0, y_0 : float or `~astropy.units.Quantity`, optional
            Where their common centre lies in the source plane, in arcsec. Default 0.

        Returns
        -------
        brightness : `~numpy.ndarray`, shape (ny, nx)
            In electron / s per arcsec2.
        """
        lengths = ((pixel_scale, "pixel_scale"), (x_0, "x_0"), (y_0, "y_0"))
        pixel_scale, x_0, y_0 = (strip_unit(value, u.arcsec, name) for value, name in lengths)
        grid = PixelGrid(shape, pixel_scale)
        step = self.source.grid.pixel_scale
        operator = ImagingOperator(grid, oversampling=max(2, math.ceil(2 * pixel_scale / step)))
        values = _brightness(self.source, operator.x + x_0, operator.y + y_0)
        return operator(values).numpy() / grid.pixel_area


class GalaxyLenses(LensDataset):
    """Lenses with real galaxies, which have arms and clumps, as sources.

    The lens is an SIE with theta_E uniform in 1" to 1.25", e1 and e2 uniform within 0.15 and a centre that
    scatters by 0.02" in x and y, plus a shear with gamma1 and gamma2 uniform within 0.05. The source is a
    shape, one after the other, in a box of 1", turned by any angle, whose centre is uniform within 0.25" in
    x and y. The exposure is ``10**U(3, 3.5)`` seconds; noise is Poisson noise and that of the sky. There is
    no lens light.

    Parameters
    ----------
    shapes : `GalaxyShapes`, str, `~pathlib.Path`, sequence of array, or None, optional
        The galaxies: a folder of cutouts, or cutouts (see `GalaxyShapes.from_any`). By default those of
        `GalaxyShapes.hubble_deep_field`, for which scikit-image must be installed.
    size : int, optional
        How many lenses; 100 by default.
    seed : int, optional
        Which ones; 0 by default.
    pixel_scale : float or `~astropy.units.Quantity`, optional
        Side of the low pixels, in arcsec; 0.05 by default.
    fwhm : float or `~astropy.units.Quantity`, optional
        FWHM of the Gaussian PSF, in arcsec; 0.087 by default.
    pixels : int, optional
        How many low pixels lie along a side of the image; 76 by default.
    sky_rms : float, optional
        Noise of the sky in a low pixel, in electron / s; 0.01 by default.
    flux : float, optional
        Flux of the source before it is magnified, in electron / s; 15 by default. The images together have
        some 13 times as much.
    scale : int, optional
        How many high pixels lie along a low one; 2 by default.

    Raises
    ------
    InputError
        If a setting is out of range, or the shapes cannot be read.

    Notes
    -----
    The source is the cubic spline of the shape on 240 x 240 nodes, bilinear between these, so the pixels of
    the cutout do not show. Rays 0.006" apart are traced through the lens, on a field wider than the image, so
    that the PSF brings in light from beyond its edge. The truth is the flux in high pixels after the PSF; the
    low image sums ``scale`` x ``scale`` of these.

    The deep field's image is a JPEG with a non-linear stretch. Its galaxies are used for their shapes
    only: their fluxes, colours and profiles mean nothing.

    Examples
    --------
    >>> import numpy as np
    >>> from lenssr.simulation import GALAXY_CELLS, GalaxyLenses
    >>> y, x = np.indices((40, 40)) - 20
    >>> clumps = np.exp(-np.hypot(x, y) / 4) + np.exp(-np.hypot(x - 8, y + 5) / 2)
    >>> item = GalaxyLenses([clumps], size=10, seed=1, **GALAXY_CELLS['0.1"'])[3]
    >>> item.low.shape, item.truth.shape, float(item.source.flux.value)
    ((38, 38), (76, 76), 15.0)
    >>> item.galaxy, type(item.source).__name__
    ('0', 'PixelatedSource')
    """

    _settings = ("size", "seed", "pixel_scale", "fwhm", "pixels", "sky_rms", "flux", "scale")
    _stream = 4

    def __init__(
        self,
        shapes=None,
        size=100,
        seed=0,
        *,
        pixel_scale=0.05,
        fwhm=0.087,
        pixels=76,
        sky_rms=0.01,
        flux=15.0,
        scale=2,
    ):
        super().__init__(size, seed)
        self.pixel_scale = _positive_setting(strip_unit(pixel_scale, u.arcsec, "pixel_scale"), "pixel_scale")
        self.fwhm = _positive_setting(strip_unit(fwhm, u.arcsec, "fwhm"), "fwhm")
        self.pixels, self.scale = check_count(pixels, "pixels", 8), check_count(scale, "scale", 1)
        self.sky_rms, self.flux = _positive_setting(sky_rms, "sky_rms"), _positive_setting(flux, "flux")
        self.shapes = GalaxyShapes.from_any(shapes)

    def __repr__(self):
        """Show the settings, the shapes first."""
        return super().__repr__().replace("(", f"({self.shapes!r}, ", 1)

    def _draw_lens(self, rng):
        theta_E = rng.uniform(1.0, 1.25)
        e1, e2 = rng.uniform(-0.15, 0.15, 2)
        x_0, y_0 = rng.normal(0.0, 0.02, 2)
        return SIE(theta_E, e1, e2, x_0, y_0) + Shear(*rng.uniform(-0.05, 0.05, 2))

    def _item(self, index):
        rng = self.rng(index)
        number = index % len(self.shapes)
        lens, angle, centre = self._draw_lens(rng), rng.uniform(0, 2 * math.pi), rng.uniform(-0.25, 0.25, 2)
        exposure = 10 ** rng.uniform(3.0, 3.5)
        grid, psf = (
            sky_grid((self.pixels, self.pixels), self.pixel_scale),
            PSF.from_fwhm(self.fwhm * u.arcsec),
        )

        fine = grid.upsample(self.scale)
        source = _pixelated_source(self.flux * _rotated_shape(self.shapes[number], angle), centre)
        scene = _lensed_image(fine, lens, source, psf)
        truth = _observe(scene, fine, psf)
        low_truth = binned(truth, self.scale)
        noise = PoissonNoise(exposure, self.sky_rms)
        high_noise = PoissonNoise(exposure, self.sky_rms / self.scale)
        return GalaxyLens(
            index=index,
            low=image(noise.draw(low_truth, rng), grid, exposure),
            high=image(high_noise.draw(truth, rng), fine, exposure),
            low_truth=image(low_truth, grid),
            truth=image(truth, fine),
            pixel_truth=image(_observe(scene, fine, None), fine),
            lens=lens,
            source=source,
            noise=noise,
            high_noise=high_noise,
            psf=psf,
            settings={"shape": number, "angle": math.degrees(angle)},
            galaxy=self.shapes.names[number],
        )


def _positive_setting(value, name):
    if not (np.ndim(value) == 0 and np.isfinite(value) and value > 0):
        raise InputError(f"{name} = {value} is not a positive number")
    return float(value)


def _rotated_shape(shape, angle):
    """Shape rotated counter-clockwise, on the nodes of the source; its flux is 1."""
    side = len(shape)
    positions = ((np.arange(_NODES) + 0.5) / _NODES - 0.5) * side
    x, y = positions, positions[:, None]
    columns = x * math.cos(angle) + y * math.sin(angle) + (side - 1) / 2
    rows = y * math.cos(angle) - x * math.sin(angle) + (side - 1) / 2
    # The corners of the box lie outside the cutout, which is dark at its rim.
    nodes = np.maximum(ndimage.map_coordinates(shape, [rows, columns], order=3, mode="grid-constant"), 0.0)
    return nodes / (nodes.mean() * _SOURCE_SIDE**2)


def _pixelated_source(brightness, centre):
    return PixelatedSource(
        brightness * (UNIT / u.arcsec**2), _SOURCE_SIDE / _NODES * u.arcsec, x_0=centre[0], y_0=centre[1]
    )


def _brightness(source, x, y):
    """Brightness of a source at positions (R,), plain numbers."""
    values = interpolate_image(x, y, source.image, source.grid.pixel_scale, *source.center)
    return source.amplitude.value * values


def _lensed_image(grid, lens, source, psf):
    """Flux in high pixels before the PSF, on a field wider than the image by half of its kernel."""
    rim = 0 if psf is None else max(psf.kernel(grid.pixel_scale).shape) // 2
    wide = PixelGrid(tuple(side + 2 * rim for side in grid.shape), grid.pixel_scale)
    operator = ImagingOperator(wide, oversampling=max(2, math.ceil(grid.pixel_scale / _RAY_STEP)))
    # Blocks of rays that fit into the cache.
    flux = [
        _brightness(source, x - alpha_x[0], y - alpha_y[0])
        for x, y in zip(operator.x.split(2**17), operator.y.split(2**17), strict=True)
        for alpha_x, alpha_y in [lens.deflection_at(x[None], y[None], lens.vector[None])]
    ]
    return operator(torch.cat(flux))


def _observe(scene, grid, psf):
    """Convolve a scene with a PSF, and cut it to the pixels of the image."""
    if psf is not None:
        scene = Convolution(psf.kernel(grid.pixel_scale), scene.shape)(scene)
    rim = (scene.shape[0] - grid.shape[0]) // 2
    return scene[rim : rim + grid.shape[0], rim : rim + grid.shape[1]].numpy()
