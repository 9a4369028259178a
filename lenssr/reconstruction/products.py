"""The images of a fitted scene and their errors: fine image, source, model and residual."""

import datetime
from dataclasses import dataclass

import numpy as np
import torch
from astropy.nddata import CCDData, StdDevUncertainty

from lenssr.fitting.stack import CUSP_PIXELS
from lenssr.grids import PixelGrid, conserves_sum, resampling_factor, wcs_of_resampled
from lenssr.light.sersic import sersic_brightness_jacobian
from lenssr.reconstruction.telescope import fine_kernel, fine_operator

__all__ = ["FineScene", "Products", "ccd", "source_image", "window_wcs"]

# Derivatives of a fine image are made in pieces of about this many values, to bound the memory.
PIECE = 2**22
SOURCE_SIDE = 80
SOURCE_RADII = 4.0


def ccd(array, unit, *, wcs=None, error=None, mask=None, psf=None, **meta):
    """A `~astropy.nddata.CCDData` of plain arrays.

    Parameters
    ----------
    array, error, mask, psf : `~numpy.ndarray`
    unit : `~astropy.units.Unit`
    wcs : `~astropy.wcs.WCS`, optional
    **meta
        Header entries.

    Returns
    -------
    image : `~astropy.nddata.CCDData`
    """
    uncertainty = None if error is None else StdDevUncertainty(np.asarray(error, dtype=np.float64))
    header = {"DATE": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), **meta}
    return CCDData(
        np.asarray(array, dtype=np.float64),
        unit=unit,
        wcs=wcs,
        uncertainty=uncertainty,
        mask=mask,
        psf=psf,
        meta=header,
    )


@dataclass(frozen=True)
class Products:
    """The images of one solved scene, whatever described its source.

    Attributes
    ----------
    images : tuple of `~numpy.ndarray`, shape (scale ny, scale nx)
        The scene, its lensed source, its lens light.
    errors : tuple of `~numpy.ndarray`, shape (scale ny, scale nx)
        Their standard deviations.
    source : `~astropy.nddata.CCDData`
        The source on its own grid.
    wcs : `~astropy.wcs.WCS` or None
        Of the images.
    kernel : `~numpy.ndarray` or None
        The PSF of the images.
    parameters : float
        How many free parameters the source took from the data.
    """

    images: tuple
    errors: tuple
    source: CCDData
    wcs: object
    kernel: object
    parameters: float


class FineScene:
    """A fitted scene at a finer sampling, with the error of every pixel.

    Parameters
    ----------
    scene : `~lenssr.fitting.scene.Scene`
    physical, covariance : `torch.Tensor`, shapes (P,), (P, P)
        The fit.
    observation : `~lenssr.imaging.Observation`
    scale : int
    oversampling : int or "auto"
    psf_out : None, "pixel" or `~astropy.units.Quantity`, optional
        What the images are seen with, by default the telescope.
    """

    def __init__(self, scene, physical, covariance, observation, *, scale, oversampling, psf_out=None):
        self.scene, self.physical = scene, physical.unsqueeze(0)
        self.covariance = covariance
        self.grid = observation.grid.upsample(scale)
        self.kernel = fine_kernel(observation, scale, psf_out)
        refine = None
        if oversampling == "auto":
            refine = lambda x, y: scene.brightness(x, y, self.physical)[0]  # noqa: E731
        options = {"refine": refine, "device": physical.device}
        self.operator = fine_operator(observation, scale, oversampling, psf_out, **options)
        self.positions = scene.source_positions(self.operator.x, self.operator.y, self.physical)
        self.cusp = CUSP_PIXELS * self.grid.pixel_scale if oversampling == "auto" else 0.0
        self.factor = 1.0 if conserves_sum(observation.unit) else 1 / self.grid.pixel_area
        self.sky_factor = resampling_factor(observation.unit, scale)

    def image(self, *roles):
        """Fine image of the components with these roles, shape (ny, nx)."""
        image = torch.zeros(self.grid.shape, dtype=torch.float64, device=self.physical.device)
        if any(self.scene.of_role(role) for role in roles if role != "sky"):
            rays = (self.operator.x, self.operator.y, self.physical)
            light = self.scene.brightness(*rays, roles=roles, positions=self.positions)
            image = self.operator(light)[0] * self.factor
        for block in self.scene.of_role("sky") if "sky" in roles else ():
            image = image + self.physical[0, block.start] * self.sky_factor
        return image.cpu().numpy()

    def products(self, source, parameters):
        """All images of the scene, with a given source image that took so many parameters."""
        lensed, light = self.image("source"), self.image("lens_light")
        images = (lensed + light + self.image("sky"), lensed, light)
        return Products(images, self.errors(), source, self.grid.wcs, self.kernel, parameters)

    def errors(self):
        """Standard deviations of the fine images: of the scene, of its lensed source, of its lens light.

        Returns
        -------
        everything, source, lens_light : `~numpy.ndarray`, shape (ny, nx)
        """
        root = self._root_covariance()
        step = max(1, PIECE // self.operator.x.numel())
        # An error needs no more than seven digits; only its square may leave the range of single precision.
        operator, root = self.operator.to(torch.float32), root.float()
        variances = torch.zeros(3, *self.grid.shape, dtype=torch.float64, device=root.device)
        for columns in root.split(step, dim=1):
            parts = [operator(rays) * self.factor for rays in self._derivatives(operator, columns)]
            sky = columns[self.rows("sky")].sum(0)[:, None, None] * self.sky_factor
            for variance, derivative in zip(variances, (sum(parts) + sky, *parts), strict=False):
                variance += derivative.double().square().sum(0)
        return tuple(variances.sqrt().cpu().numpy())

    def _root_covariance(self):
        """A matrix whose square is the covariance of the fit vector."""
        scene = self.scene
        slope = torch.where(scene.log, self.physical[0], torch.ones_like(self.physical[0]))[scene.free]
        covariance = self.covariance[scene.free][:, scene.free] / slope[:, None] / slope[None, :]
        values, vectors = torch.linalg.eigh(covariance)
        return vectors * values.clamp_min(0).sqrt()

    def rows(self, *roles):
        """Which entries of the fit vector belong to components with these roles."""
        rows = torch.zeros_like(self.scene.free_index, dtype=torch.bool)
        for block in (block for role in roles for block in self.scene.of_role(role)):
            rows |= (self.scene.free_index >= block.start) & (self.scene.free_index < block.stop)
        return rows

    def _derivatives(self, operator, columns):
        """Derivatives of the rays' brightness along directions (F, K): of source, and of lens light."""
        groups = [self.rows("lens", "source")]
        groups += [self.rows("lens_light")] if self.scene.of_role("lens_light") else []
        found = [[] for _ in groups]
        size = max(1, PIECE // max(1, len(self.scene.free_index)))
        rays = (operator.x, operator.y, *(axis[0].to(operator.x) for axis in self.positions))
        for x, y, *landed in zip(*(axis.split(size) for axis in rays), strict=True):
            here = tuple(axis.unsqueeze(0) for axis in landed)
            _, jacobian = self.scene.brightness_jacobian(x, y, self.physical, positions=here, cusp=self.cusp)
            lit = jacobian.shape[1]
            for rows, pieces in zip(groups, found, strict=True):
                pieces.append(columns[rows].T @ jacobian[0, rows[:lit]])
        return [torch.cat(pieces, dim=1) for pieces in found]


def window_wcs(grid, x_0, y_0, pixel_scale, side):
    """WCS of a square window around a position of the image frame, with another pixel scale.

    Parameters
    ----------
    grid : `~lenssr.grids.PixelGrid`
    x_0, y_0 : float
        Centre in arcsec.
    pixel_scale : float
        Of the window, in arcsec.
    side : int
        Pixels along a side.

    Returns
    -------
    wcs : `~astropy.wcs.WCS` or None
    """
    if grid.wcs is None:
        return None
    factor = grid.pixel_scale / pixel_scale
    wcs = wcs_of_resampled(grid.wcs, factor)
    centre = [(position + 0.5) * factor - 0.5 for position in grid.to_pixel(x_0, y_0)]
    wcs.wcs.crpix = wcs.wcs.crpix - np.array(centre) + (side - 1) / 2
    wcs.pixel_shape = (side, side)
    wcs.wcs.set()
    return wcs


def source_image(vector, covariance, observation):
    """The source on its own grid: four effective radii each way, in surface brightness.

    Parameters
    ----------
    vector, covariance : `torch.Tensor`, shapes (7,), (7, 7)
        The Sérsic and its covariance.
    observation : `~lenssr.imaging.Observation`

    Returns
    -------
    source : `~astropy.nddata.CCDData`
    """
    x_0, y_0 = float(vector[3]), float(vector[4])
    flattening = float(torch.hypot(vector[5], vector[6]))
    major = float(vector[1]) * np.sqrt((1 + flattening) / (1 - flattening))
    pixel_scale = 2 * SOURCE_RADII * major / SOURCE_SIDE
    grid = PixelGrid((SOURCE_SIDE, SOURCE_SIDE), pixel_scale)
    x, y = (torch.as_tensor(c.ravel()).to(vector) for c in (grid.x + x_0, grid.y + y_0))
    columns = vector.reshape(1, 7, 1).unbind(1)
    value, _, _, jacobian = (part[0] for part in sersic_brightness_jacobian(x, y, *columns))
    variance = (jacobian * (covariance @ jacobian)).sum(0).clamp_min(0)
    return ccd(
        value.reshape(grid.shape).cpu(),
        observation.brightness_unit,
        wcs=window_wcs(observation.grid, x_0, y_0, pixel_scale, SOURCE_SIDE),
        error=variance.sqrt().reshape(grid.shape).cpu(),
        x_0=x_0,
        y_0=y_0,
        pixel_scale=pixel_scale,
    )
