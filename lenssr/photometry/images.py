"""Model images of fitted galaxies."""

import math

import numpy as np
import torch
from astropy.modeling.models import Sersic2D
from scipy import ndimage

from lenssr.light.sersic_shape import sersic_b
from lenssr.model.scene import Scene
from lenssr.photometry.cutouts import Stamps, paste
from lenssr.photometry.groups import first_pixel
from lenssr.photometry.measure import MEASURED, Component

__all__ = ["light_boxes", "model_image", "sersic2d", "sky_image"]

# Most stamps, and most pixels in them, that are rendered at once.
BATCH, MOST_PIXELS = 16, 2**20
# Surface brightness, in noise of a pixel, below which the light of a galaxy is negligible. Chosen.
NEGLIGIBLE_LIGHT = 0.02
# Smallest side of a box, and step of the lattice on which the sky is interpolated, in pixels.
SMALLEST, SKY_STEP = 32, 8


def sersic2d(component, unit):
    """``Sersic2D`` of a component in zero-based pixels of the image, its errors as ``std``."""
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


def light_boxes(fitted, solver, band, *, model_shape=None):
    """Light of galaxies, each as the first pixel of a box and an image (rows, columns).

    ``fitted`` lists (fit, number in the group). Without ``model_shape`` a box ends where the light is far
    below the noise, or at the edge of the image.
    """
    shapes = [model_shape or box_shape(fit, galaxy, solver, band) for fit, galaxy in fitted]
    boxes = [None] * len(fitted)
    for shape in dict.fromkeys(shapes):
        alike = [k for k, other in enumerate(shapes) if other == shape]
        size = max(1, min(BATCH, MOST_PIXELS // (shape[0] * shape[1])))
        for start in range(0, len(alike), size):
            part = alike[start : start + size]
            corners, lights = _stamps([fitted[k] for k in part], solver, shape, band)
            for k, corner, light in zip(part, corners, lights, strict=True):
                boxes[k] = corner, light
    return boxes


def box_shape(fit, galaxy, solver, band):
    """Sides of the box around a galaxy beyond which its light is negligible."""
    telescope, task, radius = fit.task.bands[band], fit.task, 0.0
    noise = NEGLIGIBLE_LIGHT * float(np.median(task.sigma(band)[telescope.valid]))
    for component in range(fit.layout.components):
        values = Component(fit, galaxy, component, band).values
        amplitude, r_eff, n = (values[MEASURED.index(name)] for name in ("amplitude", "r_eff", "n"))
        b = float(sersic_b(torch.tensor(n, dtype=torch.float64)))
        steps = 1 + math.log(max(amplitude, 1e-300) / noise) / b
        radius = max(radius, r_eff * min(max(steps, 0.0) ** n, 1e9 / r_eff))
    radius += solver.psf_reach(telescope.psf, telescope.grid)
    # From its centre to the farthest edge, and no farther.
    x, y = (float(v) for v in Component(fit, galaxy, 0, band).values[:2])
    ends = (max(place, size - 1 - place) + 1 for place, size in zip((y, x), telescope.shape, strict=True))
    return tuple(_side(min(radius, end)) for end in ends)


def _side(radius):
    """Side of a box with this radius or more: one of a few sizes, so that many galaxies are drawn at once."""
    steps = math.ceil(2 * math.log2(max(2 * radius + 1, SMALLEST) / SMALLEST))
    return math.ceil(SMALLEST * 2 ** (steps / 2))


def model_image(fitted, solver, shape, model_shape, band):
    """Sum (ny, nx) of the images of galaxies, each in a box of ``model_shape`` or as far as it reaches."""
    image = np.zeros(shape)
    for corner, light in light_boxes(fitted, solver, band, model_shape=model_shape):
        paste(image, corner, light)
    return image


def sky_image(fitted, shape, band):
    """Fitted sky (ny, nx), interpolated smoothly between galaxies; zero if none was fitted."""
    if not fitted or not fitted[0][0].layout.sky:
        return np.zeros(shape)
    places, skies, near = [], [], []
    for fit, galaxy in fitted:
        places.append(Component(fit, galaxy, 0, band).values[:2])
        skies.append(float(fit.coordinates[fit.layout.column("sky", band=band)]))
        near.append((min(fit.task.boxes[galaxy]) / 4) ** 2)
    skies = np.array(skies)
    if np.ptp(skies) == 0:
        return np.full(shape, skies[0])
    rows, columns = (np.linspace(0, size - 1, -(-size // SKY_STEP) + 1) for size in shape)
    coarse = np.empty((len(rows), len(columns)))
    for k, row in enumerate(rows):
        squares = [(x - columns) ** 2 + (y - row) ** 2 + r for (x, y), r in zip(places, near, strict=True)]
        weight = np.stack(squares) ** -2.0
        coarse[k] = skies @ weight / weight.sum(0)
    steps = (np.linspace(0, len(part) - 1, size) for part, size in zip((rows, columns), shape, strict=True))
    return ndimage.map_coordinates(coarse, np.meshgrid(*steps, indexing="ij"), order=1)


def _stamps(part, solver, model_shape, band):
    """First pixels and light (b, ny, nx) of galaxies."""
    fit = part[0][0]
    layout, telescope = fit.layout, fit.task.bands[band]
    device = solver.settings.torch_device
    operator = solver.operator(telescope.psf, telescope.grid, tuple(model_shape))
    options = {"lens": None, "lens_free": False, "source": 0, "extent": max(model_shape), "device": device}
    scene = Scene(lens_light=layout.components, sky=False, **options)
    corners, vectors = [], []
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
    vectors = torch.stack(vectors).to(device)
    empty = torch.zeros(len(part), *model_shape, dtype=vectors.dtype, device=device)
    physical = scene.to_physical(vectors, torch.ones_like(vectors))
    lights = Stamps(empty, empty, operator).image(scene, physical)
    return corners, lights.reshape(-1, *model_shape).cpu().numpy()
