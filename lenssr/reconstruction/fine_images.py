"""The fine images of a solved scene, their errors and draws, and the PSF that they are seen with.

That PSF is the telescope's at the finer sampling, a narrower Gaussian, or none.
"""

import copy
import datetime
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import astropy.units as u
import numpy as np
import torch
from astropy.nddata import CCDData, StdDevUncertainty
from astropy.wcs import WCS
from numpy.typing import NDArray
from torch import Tensor

from lenssr.exceptions import InputError
from lenssr.grids import PixelGrid, conserves_sum, resampling_factor, rows_of, transformed, wcs_of_resampled
from lenssr.imaging.operator import ImagingOperator
from lenssr.imaging.psf import PSF
from lenssr.imaging.render_scene import kernel_options
from lenssr.model.image_stack import CUSP_PIXELS
from lenssr.options import PIXEL
from lenssr.reconstruction import decisions

PIECE = 2**22  # values of the derivatives of a fine image that are in memory at a time
# Fine pixels above which an image is made in strips, and cells of a strip with its margin.
LARGE_IMAGE, STRIP_CELLS = 2**20, 2**17
SOURCE_SIDE = 80  # pixels along the side of the image of a parametric source
# Parts into which a side of the field is cut to follow the light that falls beside it.
PARTS = 32


def ccd(array, unit, *, error=None, wcs=None, mask=None, psf=None, **meta):
    """A `~astropy.nddata.CCDData` of plain arrays; ``meta`` are header entries."""
    array = np.asarray(array, dtype=np.float64)
    error = None if error is None else StdDevUncertainty(np.asarray(error, dtype=np.float64))
    # In UTC, as FITS has it: without an offset.
    meta = {"DATE": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S"), **meta}
    return CCDData(array, unit=unit, uncertainty=error, wcs=wcs, mask=mask, psf=psf, meta=meta)


# ---------------------------------------------------------------- the PSF of the output


def check_output_psf(psf_out, observation, scale):
    """Refuse a PSF that output pixels do not sample, or that is not narrower than the image's."""
    if not isinstance(psf_out, u.Quantity):
        return
    fwhm, pixel = psf_out.to_value(u.arcsec), observation.grid.pixel_scale / scale
    if observation.psf is None:
        raise InputError(f"psf_out = {psf_out}: the image has no PSF to narrow: give psf=, or leave it out")
    own = observation.psf_fwhm
    if fwhm < decisions.PIXELS_ACROSS * pixel * (1 - 1e-9):
        raise InputError(
            f"psf_out = {psf_out} is below 2 output pixels of {pixel:.4g} arcsec, which do not sample it: "
            f"give at least {decisions.PIXELS_ACROSS * pixel:.4g} arcsec, a larger scale=, or 'pixel'"
        )
    if not fwhm < own:
        raise InputError(
            f"psf_out = {psf_out} is not narrower than the PSF of the image, of FWHM {own:.4g} arcsec: "
            "give a smaller one, or leave it out"
        )


def describe_psf_out(psf_out):
    """Describe the PSF of the fine images for a header."""
    if psf_out is None:
        return "telescope"
    return PIXEL if isinstance(psf_out, str) else f"Gaussian, FWHM {psf_out.to_value(u.arcsec):.6g} arcsec"


def is_extrapolated(psf_out, observation):
    """Whether the fine images show detail that the PSF removed from the data."""
    return isinstance(psf_out, str) and observation.psf is not None


def _output_psf(psf_out, observation):
    if psf_out is None:
        return observation.psf
    return None if isinstance(psf_out, str) else PSF.from_fwhm(psf_out)


def fine_kernel(observation, scale, psf_out=None):
    """The PSF of the fine images at their sampling, or None."""
    psf = _output_psf(psf_out, observation)
    return None if psf is None else psf.kernel(observation.grid.matrix, subsampling=scale)


def fine_operator(observation, scale, oversampling, psf_out=None, *, grid=None, **options):
    """The `~lenssr.imaging.ImagingOperator` from rays to the fine images; it takes ``options``."""
    psf = _output_psf(psf_out, observation)
    grid = observation.grid.upsample(scale) if grid is None else grid
    kernel, how = kernel_options(psf, grid.matrix, scale=scale, oversampling=oversampling)
    return ImagingOperator(grid, kernel, oversampling=oversampling, **how, **options)


def surroundings(grid):
    """Rays x, y (arcsec) and their areas (arcsec2), each (R,), beside an image out to three times its size.

    A total flux needs them for the light beyond the pixels.
    """
    height, width = (side * grid.pixel_scale for side in grid.shape)
    steps = (np.arange(3 * PARTS) + 0.5) / PARTS - 1.5
    y, x = np.meshgrid(steps, steps, indexing="ij")
    beside = np.maximum(np.abs(x), np.abs(y)) > 0.5
    x, y = transformed(grid.unit_matrix, x[beside] * width, y[beside] * height)
    area = np.full(len(x), width * height / PARTS**2)
    return x + grid.origin[0], y + grid.origin[1], area


# ---------------------------------------------------------------- a parametric scene


@dataclass(frozen=True)
class Products:
    """The images of one solved scene, each (scale ny, scale nx).

    ``images`` are the scene, its lensed source and its lens light; ``errors`` their standard deviations;
    ``kernel`` is their PSF; ``parameters`` the number of free parameters that the source took from the data;
    ``fields`` are other fields of the `~lenssr.SuperResolution`, by name.
    """

    images: tuple[NDArray, NDArray, NDArray]
    errors: tuple[NDArray, NDArray, NDArray]
    wcs: WCS | None
    kernel: NDArray | None
    parameters: float
    fields: dict[str, Any]


class FineScene:
    """A fitted scene, with parameters (P,) and covariance (P, P), at a finer sampling."""

    def __init__(self, scene, physical, covariance, observation, *, scale, oversampling, psf_out=None):
        self.scene, self.physical = scene, physical.unsqueeze(0)
        self.covariance, self.observation = covariance, observation
        self._seen = observation, {"scale": scale, "oversampling": oversampling, "psf_out": psf_out}
        self.grid = observation.grid.upsample(scale)
        self.kernel = fine_kernel(observation, scale, psf_out)
        self._prepare()

    def _prepare(self, **options):
        """Make the operator, with its ``options``, and trace its rays."""
        scene, (observation, seen) = self.scene, self._seen
        oversampling, scale = seen["oversampling"], seen["scale"]
        refine = scene.brightness_at(self.physical) if oversampling == "auto" else None
        options = {"refine": refine, "device": self.physical.device, **options}
        self.operator = fine_operator(observation, scale, oversampling, seen["psf_out"], **options)
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

    def products(self, *sources):
        """All images of the scene, with the images of its source, or of both."""
        lensed, light, errors, flux, inside = self.measured()
        sky = self.scene.sky_of(self.physical[0]) * self.sky_factor if self.scene["sky"] is not None else 0.0
        images = (lensed + light + sky, lensed, light)
        posterior = ParametricPosterior(self.scene, self.physical[0], self.covariance, *self._seen)
        fields = {"source": sources[0], "posterior": posterior}
        if len(sources) == 1:
            found = [self.magnification(flux, inside)]
        else:
            found = [self.behind(block) for block in self.scene.sources]
            fields["second_source"] = sources[1]
        for start, pair in zip(("", "second_"), found, strict=False):
            fields |= {
                f"{start}magnification{end}": one for end, one in zip(("", "_error"), pair, strict=True)
            }
        return Products(images, errors, self.grid.wcs, self.kernel, self.scene.count("source"), fields)

    def behind(self, block):
        """Magnification of one of two sources, and its standard deviation."""
        scene, columns = self.scene.behind(block)
        covariance = self.covariance[columns][:, columns]
        observation, seen = self._seen
        alone = fine_scene(scene, self.physical[0, columns], covariance, observation, **seen)
        *_, flux, inside = alone.measured()
        return alone.magnification(flux, inside)

    def measured(self):
        """Images (ny, nx) of source and lens light, `errors`, and flux of the lensed source in the field."""
        return self.image("source"), self.image("lens_light"), *self.errors(), self.lensed_flux()

    def lensed_flux(self) -> Tensor:
        """Flux of the lensed source in the field, before the PSF."""
        rays, operator = (self.operator.x, self.operator.y, self.physical), self.operator
        here = self.scene.brightness(*rays, roles=("source",), positions=self.positions)
        return operator.crop(operator.collect(here)).sum()

    def errors(self) -> tuple[tuple[NDArray, ...], Tensor]:
        """Standard deviations (ny, nx) of scene, source and lens light, and changes (F,) of the lensed flux.

        The flux is that in the field, its changes along `root_covariance`.
        """
        root = self.root_covariance()
        variances = torch.zeros(3, *self.grid.shape, dtype=torch.float64, device=root.device)
        fluxes = [root.new_zeros(0)]
        for *changes, flux in self.changes(root):
            for variance, change in zip(variances, changes, strict=False):
                variance += change.double().square().sum(0)
            fluxes.append(flux.double())
        return tuple(variances.sqrt().cpu().numpy()), torch.cat(fluxes)

    def changes(self, directions: Tensor) -> Iterator[tuple[Tensor, ...]]:
        """Changes of the images along directions (F, K) of the fit vector, k of them at a time.

        Yields the scene, its source, its light of the lens (if it has any), each (k, ny, nx), and the flux
        (k,) of the lensed source in the field before the PSF.
        """
        step = max(1, PIECE // self.operator.x.numel())
        # Errors need seven digits at most; only their squares may leave the range of single precision.
        operator, directions = self.operator.to(torch.float32), directions.float()
        for columns in directions.split(step, dim=1):
            cells = [operator.collect(rays) for rays in self._derivatives(operator, columns)]
            parts = [operator.convolve(light) * self.factor for light in cells]
            sky = columns[self.scene.fit_rows("sky")].sum(0)[:, None, None] * self.sky_factor
            yield sum(parts) + sky, *parts, operator.crop(cells[0]).sum((-2, -1))

    def magnification(self, flux_changes: Tensor, inside: Tensor) -> tuple[float, float]:
        """Total magnification and its standard deviation, from the flux in the field and its changes."""
        scene, roles = self.scene, ("source",)
        x, y, area = (torch.as_tensor(part).to(self.physical) for part in surroundings(self.observation.grid))
        beyond = scene.brightness(x, y, self.physical, roles=roles)[0]
        lensed = inside + (beyond * area).sum()
        flux, flux_slope = _source_flux(scene, self.physical[0])
        value = lensed / flux
        root, rows = self.root_covariance(), scene.fit_rows("lens", "source")
        _, slopes = scene.brightness_jacobian(x, y, self.physical)
        d_lensed = flux_changes + root[rows].T @ (slopes[0, rows[: slopes.shape[1]]] @ area)
        d_flux = root.T @ flux_slope
        return float(value), float(((d_lensed - value * d_flux) / flux).norm())

    def root_covariance(self):
        """A matrix R (F, F) with R R^T the covariance of the fit vector."""
        scene = self.scene
        slope = torch.where(scene.log, self.physical[0], 1.0)[scene.free]
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


class TiledScene(FineScene):
    """A `FineScene` of a large image, strip after strip: its rays would take gigabytes together.

    Each strip has a margin of the whole PSF.
    """

    def _prepare(self, **options):
        """Leave the operators to the strips."""
        observation, seen = self._seen
        self.sky_factor = resampling_factor(observation.unit, seen["scale"])

    def _strips(self):
        """Rows of the fine image, and the scene there."""
        observation, seen = self._seen
        grid, _ = self.grid, self.kernel
        kernel, how = kernel_options(
            _output_psf(seen["psf_out"], observation),
            grid.matrix,
            scale=seen["scale"],
            oversampling=seen["oversampling"],
        )
        margin = 0 if kernel is None else -(-(max(kernel.shape) // 2) // how.get("kernel_subsampling", 1))
        cells = how.get("kernel_subsampling", 1) ** 2 * (grid.shape[1] + 2 * margin)
        rows = max(STRIP_CELLS // cells, 4 * margin, 8)
        for first in range(0, grid.shape[0], rows):
            last = min(first + rows, grid.shape[0])
            strip = copy.copy(self)
            strip.__class__ = FineScene
            strip.grid = rows_of(grid, first, last)
            strip._prepare(grid=strip.grid, margin=margin)
            yield slice(first, last), strip

    def measured(self):
        """As `FineScene.measured`."""
        lensed, light, *errors = (np.zeros(self.grid.shape) for _ in range(5))
        flux, inside = 0.0, 0.0
        for rows, strip in self._strips():
            found = strip.measured()
            lensed[rows] = found[0]
            if self.scene.lights:  # planes that nothing touches take no memory
                light[rows] = found[1]
            for error, part in zip(errors, found[2][: 2 + bool(self.scene.lights)], strict=False):
                error[rows] = part
            flux, inside = flux + found[3], inside + found[4]
        return lensed, light, tuple(errors), flux, inside

    def image(self, *roles):
        """As `FineScene.image`."""
        whole = np.zeros(self.grid.shape)
        for rows, strip in self._strips():
            whole[rows] = strip.image(*roles)
        return whole

    def changes(self, directions):
        """As `FineScene.changes`, all directions at once."""
        planes, fluxes = None, 0.0
        for rows, strip in self._strips():
            parts = [torch.cat(one) for one in zip(*strip.changes(directions), strict=True)]
            *images, flux = parts
            if planes is None:
                planes = [one.new_zeros(len(one), *self.grid.shape) for one in images]
            for plane, image in zip(planes, images, strict=True):
                plane[:, rows] = image
            fluxes = fluxes + flux
        yield *planes, fluxes


def fine_scene(scene, physical, covariance, observation, *, scale, **options):
    """A `FineScene`, or for a large image a `TiledScene`."""
    large = observation.data.size * scale**2 > LARGE_IMAGE
    kind = TiledScene if large else FineScene
    return kind(scene, physical, covariance, observation, scale=scale, **options)


def _source_flux(scene, physical):
    """Flux of the source without a lens, and its derivatives with respect to the fit vector (F,)."""
    vector = physical.detach().clone().requires_grad_()
    source = scene["source"]
    flux = source.profile.flux(vector[source.slice])
    (slope,) = torch.autograd.grad(flux, vector)
    slope = torch.where(scene.log, slope * physical, slope)
    return flux.detach(), slope[scene.free]


class ParametricPosterior:
    """Draws of a fitted scene; images are made when they are asked for."""

    def __init__(self, scene, physical, covariance, observation, options):
        self.scene, self.physical, self.covariance = scene, physical, covariance
        self.observation, self.options = observation, options

    def changes(self, count, rng):
        """Differences of draws from the most likely image and source, (count, ny, nx) and (count, my, mx)."""
        scene = self.scene
        fine = fine_scene(scene, self.physical, self.covariance, self.observation, **self.options)
        root = fine.root_covariance()
        normals = torch.as_tensor(rng.standard_normal((count, len(root)))).to(root)
        directions = root @ normals.T
        images = torch.cat([everything.double() for everything, *_ in fine.changes(directions)])
        block = scene["source"]
        vector, free = self.physical[block.slice], scene.free[block.slice]
        slope = torch.where(scene.log[block.slice], vector, 1.0)[free]
        view = _SourceView(block.profile, vector)
        start = int(scene.free[: block.start].sum())
        rows = slice(start, start + int(free.sum()))
        sources = (directions[rows] * slope[:, None]).T @ view.jacobian[free]
        return images.cpu().numpy(), sources.reshape(count, *view.grid.shape).cpu().numpy()


def window_wcs(grid, x_0, y_0, pixel_scale, side):
    """WCS of a square window around a position (arcsec) of the image frame, with another pixel scale."""
    if grid.wcs is None:
        return None
    wcs = wcs_of_resampled(grid.wcs, grid.pixel_scale / pixel_scale)
    # The pixels of the window lie along x and y of the frame; pixels of the image may be rotated.
    wcs.wcs.cd = wcs.wcs.cd @ np.linalg.inv(grid.unit_matrix)
    reference = np.subtract(grid.from_pixel(*(grid.wcs.wcs.crpix - 1)), (x_0, y_0))
    wcs.wcs.crpix = reference / pixel_scale + (side + 1) / 2
    wcs.pixel_shape = (side, side)
    wcs.wcs.set()
    return wcs


def source_image(block, physical, covariance, observation):
    """A parametric source, a `Block`, on its own grid, in surface brightness, with its errors."""
    view = _SourceView(block.profile, physical[block.slice])
    covariance = covariance[block.slice, block.slice]
    variance = (view.jacobian * (covariance @ view.jacobian)).sum(0).clamp_min(0)
    value, error = (plane.reshape(view.grid.shape).cpu() for plane in (view.value, variance.sqrt()))
    return source_ccd(value, error, observation, view.x_0, view.y_0, view.grid.pixel_scale)


def source_ccd(value, error, observation, x_0, y_0, pixel_scale, mask=None):
    """A source on square pixels (side, side) around a centre in arcsec, with WCS and meta."""
    place = {"x_0": x_0, "y_0": y_0, "pixel_scale": pixel_scale}
    wcs = window_wcs(observation.grid, **place, side=len(value))
    return ccd(value, observation.brightness_unit, error=error, wcs=wcs, mask=mask, **place)


def source_pixels(profile, vector):
    """Positions x, y (side, side) in arcsec of the pixels that show a profile of parameters (P,)."""
    view = _SourceView(profile, vector)
    return tuple(
        torch.as_tensor(a) + at
        for a, at in zip((view.grid.x, view.grid.y), (view.x_0, view.y_0), strict=True)
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
