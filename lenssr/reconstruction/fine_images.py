"""The images of a fitted scene and their errors: fine image, source, model and residual."""

import datetime
from dataclasses import dataclass

import numpy as np
import torch
from astropy.nddata import CCDData, StdDevUncertainty

from lenssr.grids import PixelGrid, conserves_sum, resampling_factor, wcs_of_resampled
from lenssr.model.image_stack import CUSP_PIXELS
from lenssr.reconstruction.output_psf import fine_kernel, fine_operator, surroundings

__all__ = ["FineScene", "Products", "ParametricPosterior", "ccd", "source_image", "window_wcs"]

# Derivatives of a fine image are made in pieces of about this many values, to bound the memory.
PIECE = 2**22
SOURCE_SIDE = 80  # pixels along the side of the image of a parametric source


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
    wcs : `~astropy.wcs.WCS` or None
        Of the images.
    kernel : `~numpy.ndarray` or None
        The PSF of the images.
    parameters : float
        How many free parameters the source took from the data.
    fields : dict
        Other fields of the `~lenssr.SuperResolution`, by name.
    """

    images: tuple
    errors: tuple
    wcs: object
    kernel: object
    parameters: float
    fields: dict


class FineScene:
    """A fitted scene at a finer sampling, with the error of every pixel.

    Parameters
    ----------
    scene : `~lenssr.model.scene.Scene`
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
        self.covariance, self.observation = covariance, observation
        self._seen = observation, {"scale": scale, "oversampling": oversampling, "psf_out": psf_out}
        self.grid = observation.grid.upsample(scale)
        self.kernel = fine_kernel(observation, scale, psf_out)
        refine = scene.brightness_at(self.physical) if oversampling == "auto" else None
        options = {"refine": refine, "device": physical.device}
        self.operator = fine_operator(observation, scale, oversampling, psf_out, **options)
        self.positions = scene.source_positions(self.operator.x, self.operator.y, self.physical)
        self.cusp = CUSP_PIXELS * self.grid.pixel_scale if oversampling == "auto" else 0.0
        self.factor = 1.0 if conserves_sum(observation.unit) else 1 / self.grid.pixel_area
        self.sky_factor = resampling_factor(observation.unit, scale)

    def image(self, *roles):
        """Fine image of the components with these roles, shape (ny, nx)."""
        image = torch.zeros(self.grid.shape, dtype=torch.float64, device=self.physical.device)
        if any(block.role in roles and block.role != "sky" for block in self.scene.blocks):
            rays = (self.operator.x, self.operator.y, self.physical)
            light = self.scene.brightness(*rays, roles=roles, positions=self.positions)
            image = self.operator(light)[0] * self.factor
        if "sky" in roles:
            image = image + self.scene.sky_of(self.physical[0]) * self.sky_factor
        return image.cpu().numpy()

    def products(self, source):
        """All images of the scene, with a given image of its source."""
        lensed, light = self.image("source"), self.image("lens_light")
        images = (lensed + light + self.image("sky"), lensed, light)
        errors, flux = self._errors()
        magnification, magnification_error = self.magnification(flux)
        fields = {
            "source": source,
            "posterior": ParametricPosterior(self.scene, self.physical[0], self.covariance, *self._seen),
            "magnification": magnification,
            "magnification_error": magnification_error,
        }
        return Products(images, errors, self.grid.wcs, self.kernel, self.scene.count("source"), fields)

    def errors(self):
        """Standard deviations of the fine images: of the scene, of its lensed source, of its lens light.

        Returns
        -------
        everything, source, lens_light : `~numpy.ndarray`, shape (ny, nx)
        """
        return self._errors()[0]

    def _errors(self):
        """Standard deviations, and how the lensed flux in the field changes along `root_covariance` (F,)."""
        root = self.root_covariance()
        variances = torch.zeros(3, *self.grid.shape, dtype=torch.float64, device=root.device)
        fluxes = [root.new_zeros(0)]
        for *changes, flux in self.changes(root):
            for variance, change in zip(variances, changes, strict=False):
                variance += change.double().square().sum(0)
            fluxes.append(flux.double())
        return tuple(variances.sqrt().cpu().numpy()), torch.cat(fluxes)

    def changes(self, directions):
        """How the images change along directions (F, K) of the fit vector, some of them at a time.

        Yields
        ------
        everything, source, lens_light : `torch.Tensor`, shape (k, ny, nx)
            The last only if the lens shines.
        flux : `torch.Tensor`, shape (k,)
            Of the lensed source in the field, before the PSF.
        """
        step = max(1, PIECE // self.operator.x.numel())
        # An error needs no more than seven digits; only its square may leave the range of single precision.
        operator, directions = self.operator.to(torch.float32), directions.float()
        for columns in directions.split(step, dim=1):
            cells = [operator.collect(rays) for rays in self._derivatives(operator, columns)]
            parts = [operator.convolve(light) * self.factor for light in cells]
            sky = columns[self.scene.fit_rows("sky")].sum(0)[:, None, None] * self.sky_factor
            yield sum(parts) + sky, *parts, operator.crop(cells[0]).sum((-2, -1))

    def magnification(self, flux_changes):
        """Total magnification of the source, and its standard deviation.

        Parameters
        ----------
        flux_changes : `torch.Tensor`, shape (F,)
            How the lensed flux in the field changes along `root_covariance`.

        Returns
        -------
        magnification, error : float
        """
        scene, operator = self.scene, self.operator
        here = scene.brightness(
            operator.x, operator.y, self.physical, roles=("source",), positions=self.positions
        )
        x, y, area = (torch.as_tensor(part).to(self.physical) for part in surroundings(self.observation.grid))
        beyond = scene.brightness(x, y, self.physical, roles=("source",))[0]
        lensed = operator.crop(operator.collect(here)).sum() + (beyond * area).sum()
        flux, flux_slope = _source_flux(scene, self.physical[0])
        value = lensed / flux
        root, rows = self.root_covariance(), scene.fit_rows("lens", "source")
        _, slopes = scene.brightness_jacobian(x, y, self.physical)
        d_lensed = flux_changes + root[rows].T @ (slopes[0, rows[: slopes.shape[1]]] @ area)
        d_flux = root.T @ flux_slope
        return float(value), float(((d_lensed - value * d_flux) / flux).norm())

    def root_covariance(self):
        """A matrix (F, F) that, times its transpose, is the covariance of the fit vector."""
        scene = self.scene
        slope = torch.where(scene.log, self.physical[0], torch.ones_like(self.physical[0]))[scene.free]
        covariance = self.covariance[scene.free][:, scene.free] / slope[:, None] / slope[None, :]
        values, vectors = torch.linalg.eigh(covariance)
        return vectors * values.clamp_min(0).sqrt()

    def _derivatives(self, operator, columns):
        """Derivatives of the rays' brightness along directions (F, K): of source, and of lens light."""
        groups = [self.scene.fit_rows("lens", "source")]
        groups += [self.scene.fit_rows("lens_light")] if self.scene.lights else []
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


def _source_flux(scene, physical):
    """Flux of the source without a lens, and its derivatives with respect to the fit vector (F,)."""
    vector = physical.detach().clone().requires_grad_()
    source = scene["source"]
    flux = source.profile.flux(vector[source.slice])
    (slope,) = torch.autograd.grad(flux, vector)
    slope = torch.where(scene.log, slope * physical, slope)
    return flux.detach(), slope[scene.free]


class ParametricPosterior:
    """What draws of a fitted scene come from; images are made when they are asked for.

    Parameters
    ----------
    scene : `~lenssr.model.scene.Scene`
    physical, covariance : `torch.Tensor`, shapes (P,), (P, P)
    observation : `~lenssr.imaging.Observation`
    options : dict
        ``scale``, ``oversampling`` and ``psf_out``.
    """

    def __init__(self, scene, physical, covariance, observation, options):
        self.scene, self.physical, self.covariance = scene, physical, covariance
        self.observation, self.options = observation, options

    def changes(self, count, rng):
        """How far draws lie from the most likely image and source.

        Parameters
        ----------
        count : int
        rng : `~numpy.random.Generator`

        Returns
        -------
        image, source : `~numpy.ndarray`, shapes (count, ny, nx), (count, my, mx)
        """
        scene = self.scene
        fine = FineScene(scene, self.physical, self.covariance, self.observation, **self.options)
        root = fine.root_covariance()
        normals = torch.as_tensor(rng.standard_normal((count, len(root)))).to(root)
        directions = root @ normals.T
        images = torch.cat([everything.double() for everything, *_ in fine.changes(directions)])
        block = scene["source"]
        vector, free = self.physical[block.slice], scene.free_of("source")
        slope = torch.where(scene.log[block.slice], vector, torch.ones_like(vector))[free]
        view = _SourceView(block.profile, vector)
        sources = (directions[scene.fit_rows("source")] * slope[:, None]).T @ view.jacobian[free]
        return images.cpu().numpy(), sources.reshape(count, *view.grid.shape).cpu().numpy()


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
    wcs = wcs_of_resampled(grid.wcs, grid.pixel_scale / pixel_scale)
    # The pixels of the window lie along x and y of the frame, which those of the image need not.
    wcs.wcs.cd = wcs.wcs.cd @ np.linalg.inv(grid.unit_matrix)
    reference = np.subtract(grid.from_pixel(*(grid.wcs.wcs.crpix - 1)), (x_0, y_0))
    wcs.wcs.crpix = reference / pixel_scale + (side + 1) / 2
    wcs.pixel_shape = (side, side)
    wcs.wcs.set()
    return wcs


def source_image(scene, physical, covariance, observation):
    """The parametric source of a scene (P,) on its own grid, in surface brightness, with its errors.

    Parameters
    ----------
    scene : `~lenssr.model.scene.Scene`
    physical, covariance : `torch.Tensor`, shapes (P,), (P, P)
    observation : `~lenssr.imaging.Observation`

    Returns
    -------
    source : `~astropy.nddata.CCDData`
    """
    block = scene["source"]
    view = _SourceView(block.profile, physical[block.slice])
    covariance = covariance[block.slice, block.slice]
    variance = (view.jacobian * (covariance @ view.jacobian)).sum(0).clamp_min(0)
    x_0, y_0, pixel_scale = view.x_0, view.y_0, view.grid.pixel_scale
    return ccd(
        view.value.reshape(view.grid.shape).cpu(),
        observation.brightness_unit,
        wcs=window_wcs(observation.grid, x_0, y_0, pixel_scale, SOURCE_SIDE),
        error=variance.sqrt().reshape(view.grid.shape).cpu(),
        x_0=x_0,
        y_0=y_0,
        pixel_scale=pixel_scale,
    )


class _SourceView:
    """A profile of parameters (P,) on a grid around it: brightness ``value`` (M,), ``jacobian`` (P, M)."""

    def __init__(self, profile, vector):
        self.x_0, self.y_0, half = (float(number) for number in profile.window(vector))
        self.grid = PixelGrid((SOURCE_SIDE, SOURCE_SIDE), 2 * half / SOURCE_SIDE)
        x, y = self.grid.x + self.x_0, self.grid.y + self.y_0
        rays = (torch.as_tensor(axis.ravel()).to(vector) for axis in (x, y))
        parts = profile.jacobian(*rays, vector[None])
        self.value, self.jacobian = parts[0][0], parts[3][0]
