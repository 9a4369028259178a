"""Lenses whose sources are real galaxies."""

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
from astropy.nddata import CCDData
from numpy.typing import ArrayLike, NDArray

from lenssr.grids import PixelGrid
from lenssr.imaging import PSF, ImagingOperator, PoissonNoise
from lenssr.imaging.render_scene import brightness_of
from lenssr.light import PixelatedSource
from lenssr.mass import SIE, Shear
from lenssr.simulation.camera import convolve_and_crop, lensed, render_densely, sky_grid
from lenssr.simulation.dataset import LensDataset, observed
from lenssr.simulation.galaxy_shapes import GalaxyShapes, resample_shape
from lenssr.simulation.scenes import UNIT, SimulatedLens, image
from lenssr.units import positive_integer, positive_number, strip_unit

#: Settings of `GalaxyLenses` for two cameras, by the side of their pixels.
GALAXY_CELLS = {
    '0.05"': {"pixel_scale": 0.05, "fwhm": 0.087, "pixels": 76, "sky_rms": 0.01},
    '0.1"': {"pixel_scale": 0.1, "fwhm": 0.16, "pixels": 38, "sky_rms": 0.02},
}

# Side of the box of the source in arcsec, and nodes along it: several to a pixel of the cutouts.
_SOURCE_SIDE, _NODES = 1.0, 240


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

    def truth_behind(self, psf: PSF | u.Quantity | ArrayLike | None) -> CCDData:
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
        known = None if psf is None else PSF.from_any(psf)
        scene = render_densely(grid, known, lensed(self.lens, brightness_of(self.source)[0]))
        return image(convolve_and_crop(scene, grid, known), grid)

    def mean_source(
        self,
        shape: tuple[int, int],
        pixel_scale: float | u.Quantity,
        x_0: float | u.Quantity = 0.0,
        y_0: float | u.Quantity = 0.0,
    ) -> NDArray[np.float64]:
        """Surface brightness of the source averaged over pixels (ny, nx), in electron / s per arcsec2.

        Parameters
        ----------
        shape : tuple of int
            ``(ny, nx)`` of the pixels.
        pixel_scale : float or `~astropy.units.Quantity`
            Their side, in arcsec.
        x_0, y_0 : float or `~astropy.units.Quantity`, optional
            Where their common centre lies in the source plane, in arcsec. Default 0.
        """
        lengths = ((pixel_scale, "pixel_scale"), (x_0, "x_0"), (y_0, "y_0"))
        side, x, y = (strip_unit(value, u.arcsec, name) for value, name in lengths)
        grid, rays = PixelGrid(shape, side), max(2, math.ceil(2 * side / self.source.grid.pixel_scale))
        operator = ImagingOperator(grid, oversampling=rays)
        values = brightness_of(self.source)[0](operator.x + x, operator.y + y)
        return operator(values).numpy() / grid.pixel_area


@dataclass(repr=False, eq=False)
class GalaxyLenses(LensDataset):
    """Lenses with real galaxies, which have arms and clumps, as sources.

    The lens is an SIE with theta_E uniform in 1" to 1.25", e1 and e2 uniform within 0.15 and a centre that
    scatters by 0.02" in x and y, plus a shear with gamma1 and gamma2 uniform within 0.05. The source is a
    shape, one after the other, in a box of 1", turned by any angle, whose centre is uniform within 0.25" in
    x and y. The exposure is ``10**U(3, 3.5)`` seconds; the noise is Poisson noise plus sky noise. There is no
    lens light.

    Parameters
    ----------
    shapes : `GalaxyShapes`, str, `~pathlib.Path`, sequence of array, or None, optional
        The galaxies: a folder of cutouts, or cutouts (see `GalaxyShapes.from_any`). By default
        `GalaxyShapes.hubble_deep_field`, for which scikit-image must be installed.
    size : int, optional
        Number of lenses; 100 by default.
    seed : int, optional
        Seed of the random numbers; 0 by default.
    pixel_scale : float or `~astropy.units.Quantity`, optional
        Side of the low pixels, in arcsec; 0.05 by default.
    fwhm : float or `~astropy.units.Quantity`, optional
        FWHM of the Gaussian PSF, in arcsec; 0.087 by default.
    pixels : int, optional
        Low pixels along a side of the image; 76 by default.
    sky_rms : float, optional
        Noise of the sky in a low pixel, in electron / s; 0.01 by default.
    flux : float, optional
        Flux of the source before it is magnified, in electron / s; 15 by default. The images together have
        some 13 times as much.
    scale : int, optional
        High pixels along a low one; 2 by default.

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

    _stream = 4

    shapes: GalaxyShapes | str | Path | Sequence[ArrayLike] | None = None
    size: int = 100
    seed: int = 0
    _: KW_ONLY
    pixel_scale: float | u.Quantity = 0.05
    fwhm: float | u.Quantity = 0.087
    pixels: int = 76
    sky_rms: float = 0.01
    flux: float = 15.0
    scale: int = 2

    def __post_init__(self) -> None:
        super().__init__(self.size, self.seed)
        self.pixels = positive_integer(self.pixels, "pixels", 8)
        self.scale = positive_integer(self.scale, "scale")
        for name, unit in {"pixel_scale": u.arcsec, "fwhm": u.arcsec, "sky_rms": None, "flux": None}.items():
            setattr(self, name, positive_number(getattr(self, name), unit, name))
        self.shapes = GalaxyShapes.from_any(self.shapes)

    def settings(self) -> dict[str, Any]:
        """Return the settings by name, plain values, without the shapes."""
        return {name: value for name, value in super().settings().items() if name != "shapes"}

    def _item(self, index: int) -> GalaxyLens:
        rng = self.rng(index)
        shapes = GalaxyShapes.from_any(self.shapes)
        number = index % len(shapes)
        galaxy = rng.uniform(1.0, 1.25), *rng.uniform(-0.15, 0.15, 2), *rng.normal(0.0, 0.02, 2)
        lens = SIE(*galaxy) + Shear(*rng.uniform(-0.05, 0.05, 2))
        angle, (x_0, y_0) = rng.uniform(0, 2 * math.pi), rng.uniform(-0.25, 0.25, 2)
        noise = PoissonNoise(10 ** rng.uniform(3.0, 3.5), self.sky_rms)
        grid = sky_grid((self.pixels, self.pixels), self.pixel_scale)
        fine, psf = grid.upsample(self.scale), PSF.from_fwhm(self.fwhm * u.arcsec)
        nodes = resample_shape(shapes[number], _NODES, angle)
        brightness = self.flux * (nodes / (nodes.mean() * _SOURCE_SIDE**2)) * (UNIT / u.arcsec**2)
        source = PixelatedSource(brightness, _SOURCE_SIDE / _NODES * u.arcsec, x_0=x_0, y_0=y_0)
        scene = render_densely(fine, psf, lensed(lens, brightness_of(source)[0]))
        truth = convolve_and_crop(scene, fine, psf)
        return GalaxyLens(
            index=index,
            **observed(truth, grid, self.scale, noise, rng),
            pixel_truth=image(convolve_and_crop(scene, fine, None), fine),
            lens=lens,
            source=source,
            psf=psf,
            settings={"shape": number, "angle": math.degrees(angle)},
            galaxy=shapes.names[number],
        )
