"""Images and models of galaxies that have been fitted."""

import numpy as np
import torch
from astropy.modeling.models import Sersic2D

from lenssr.fitting.scene import Scene
from lenssr.photometry.measure import MEASURED
from lenssr.photometry.stamps import Stamps
from lenssr.photometry.tasks import first_pixel

__all__ = ["model_image", "sersic2d"]

# Stamps that are made at once.
BATCH = 16


def sersic2d(component, unit):
    """The model of astropy, in zero-based pixels of the image.

    Parameters
    ----------
    component : `~lenssr.photometry.measure.Component`
    unit : `~astropy.units.Unit`
        Of the pixels of the image.

    Returns
    -------
    model : `~astropy.modeling.functional_models.Sersic2D`
        With the error of each parameter as its ``std``; None where it has none.
    """
    names = {"x_0": "x", "y_0": "y"}
    values, errors = {}, {}
    for name in Sersic2D.param_names:
        place = MEASURED.index(names.get(name, name))
        values[name], errors[name] = float(component.values[place]), float(component.errors[place]) or None
    if str(unit):
        values["amplitude"] = values["amplitude"] * unit
    model = Sersic2D(**values)
    for name, error in errors.items():
        getattr(model, name).std = error
    return model


def model_image(fitted, solver, shape, model_shape, band, *, sky):
    """Sum of the model images of galaxies.

    Parameters
    ----------
    fitted : list of (fit, galaxy)
        Groups and places in them.
    solver : `~lenssr.photometry.solve.Solver`
    shape : tuple of int
        Of the image.
    model_shape : tuple of int
        Box around each galaxy in which it shines.
    band : int
    sky : bool
        Whether the sky of each galaxy is added within its box, once where boxes overlap.

    Returns
    -------
    image : `~numpy.ndarray`, shape (ny, nx)
    """
    image, level, times = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    for start in range(0, len(fitted), BATCH):
        part = fitted[start : start + BATCH]
        corners, lights, skies = _stamps(part, solver, model_shape, band)
        for corner, light, constant in zip(corners, lights, skies, strict=True):
            box, own = [], []
            for first, size, limit in zip(corner, model_shape, shape, strict=True):
                low, high = max(first, 0), min(first + size, limit)
                box.append(slice(low, max(low, high)))
                own.append(slice(low - first, max(low, high) - first))
            image[tuple(box)] += light[tuple(own)]
            level[tuple(box)] += constant
            times[tuple(box)] += 1
    return image + level / np.maximum(times, 1) if sky else image


def _stamps(part, solver, model_shape, band):
    """First pixels, light (b, ny, nx) and sky of galaxies."""
    fit = part[0][0]
    layout, telescope = fit.layout, fit.task.bands[band]
    device = solver.settings.torch_device
    operator = solver.operator(telescope.psf, telescope.grid.pixel_scale, tuple(model_shape))
    options = {"lens": None, "lens_free": False, "source": 0, "extent": max(model_shape), "device": device}
    scene = Scene(lens_light=layout.components, sky=False, **options)
    corners, vectors, skies = [], [], []
    for fit, galaxy in part:
        vector = []
        for component in range(layout.components):
            first = layout.column("r_eff", galaxy, component)
            columns = [layout.column("bright", galaxy, component, band), *range(first, first + 6)]
            own = fit.coordinates[columns].clone()
            own[3:5] += torch.tensor(fit.task.middle, dtype=own.dtype)
            if not component:
                corners.append(first_pixel(float(own[3]), float(own[4]), model_shape))
            own[3] -= corners[-1][1] + (model_shape[1] - 1) / 2
            own[4] -= corners[-1][0] + (model_shape[0] - 1) / 2
            vector.append(own)
        vectors.append(torch.cat(vector))
        skies.append(float(fit.coordinates[fit.layout.column("sky", band=band)]) if layout.sky else 0.0)
    vectors = torch.stack(vectors).to(device)
    empty = torch.zeros(len(part), *model_shape, dtype=vectors.dtype, device=device)
    physical = scene.to_physical(vectors, torch.ones_like(vectors))
    lights = Stamps(empty, empty, operator).image(scene, physical)
    return corners, lights.reshape(-1, *model_shape).cpu().numpy(), skies
