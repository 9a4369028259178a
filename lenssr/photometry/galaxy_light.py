"""Light of fitted galaxies: model images, a figure, and fits of galaxies in the light of others.

Galaxies are listed as pairs of the fit of a group and the number of the galaxy in it.
"""

import logging
import math
from dataclasses import replace

import numpy as np
import torch
from scipy import ndimage

from lenssr.light.sersic_shape import sersic_b
from lenssr.photometry.flags import STAMP_RADII
from lenssr.photometry.groups import cut, first_pixel, paste
from lenssr.photometry.parameters import MEASURED
from lenssr.photometry.task_batch import profile_images

__all__ = ["model_image", "refit_overlapping", "sky_image"]

log = logging.getLogger(__name__)

# Most stamps, and most pixels in them, that are rendered at once.
BATCH, MOST_PIXELS = 16, 2**20
# Surface brightness, in noise of a pixel, below which the light of a galaxy is negligible. Chosen.
NEGLIGIBLE_LIGHT = 0.02
# Smallest side of a box, and step of the lattice on which the sky is interpolated, in pixels.
SMALLEST, SKY_STEP = 32, 8
# Groups are fitted again if the light of one may shift parameters of another by more than this, in sigma.
# Chosen.
HALO_SIGMA = 1.0
# Rounds of fits: first from bright to faint, brighter ones subtracted; then with all others subtracted.
SUBTRACTION_ROUNDS = 2
# Largest factor by which the sides of a box grow. Chosen: time grows with its square.
MOST_GROWTH = 4
# Share of its flux by which neighbours would change a galaxy, if they were not fitted, that makes it blended.
# Chosen.
BLENDED_SHARE = 0.02


# ---------------------------------------------------------------- images


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
    x, y = np.array([fit.values[galaxy, 0, band, :2] for fit, galaxy in fitted]).T
    skies = np.array([fit.sky(band)[0] for fit, _ in fitted])
    near = np.array([(min(fit.task.boxes[galaxy]) / 4) ** 2 for fit, galaxy in fitted])
    rows, columns = (np.linspace(0, size - 1, -(-size // SKY_STEP) + 1) for size in shape)
    coarse = np.empty((len(rows), len(columns)))
    for k, row in enumerate(rows):
        weight = ((x - columns[:, None]) ** 2 + (y - row) ** 2 + near) ** -2.0
        coarse[k] = weight @ skies / weight.sum(1)
    steps = (np.linspace(0, len(part) - 1, size) for part, size in zip((rows, columns), shape, strict=True))
    return ndimage.map_coordinates(coarse, np.meshgrid(*steps, indexing="ij"), order=1)


def light_boxes(fitted, solver, band, *, model_shape=None):
    """Light of galaxies, each as the first pixel of a box and an image (rows, columns).

    Without ``model_shape`` a box ends where the light is far below the noise, or at the edge of the image.
    """
    if not fitted:
        return []
    image = fitted[0][0].task.bands[band]
    faintest, reach = NEGLIGIBLE_LIGHT * np.median(image.meta["sigma"][image.valid]), solver.psf_reach(image)
    shapes = [model_shape or _box_shape(fit, galaxy, band, faintest, reach) for fit, galaxy in fitted]
    boxes = [None] * len(fitted)
    for shape in set(shapes):
        alike = [k for k, other in enumerate(shapes) if other == shape]
        size = max(1, min(BATCH, MOST_PIXELS // math.prod(shape)))
        for part in (alike[start : start + size] for start in range(0, len(alike), size)):
            for k, box in zip(part, _render([fitted[k] for k in part], solver, shape, band), strict=True):
                boxes[k] = box
    return boxes


def _box_shape(fit, galaxy, band, faintest, reach):
    """Sides of the box around a galaxy beyond which its light, blurred by the PSF, is negligible."""
    radius = 0.0
    for values in fit.values[galaxy, :, band].tolist():
        one = dict(zip(MEASURED, values, strict=True))
        steps = max(1 + math.log(max(one["amplitude"], 1e-300) / faintest) / sersic_b(one["n"]), 0.0)
        radius = max(radius, min(one["r_eff"] * steps ** one["n"], 1e9))
    radius += reach
    # No farther than from its centre to the farthest edge.
    places = fit.values[galaxy, 0, band, :2].tolist()[::-1]
    ends = (max(at, size - 1 - at) + 1 for at, size in zip(places, fit.task.bands[band].shape, strict=True))
    return tuple(_side(min(radius, end)) for end in ends)


def _side(radius):
    """Side of a box with this radius or more: one of a few sizes, so that many galaxies are drawn at once."""
    steps = math.ceil(2 * math.log2(max(2 * radius + 1, SMALLEST) / SMALLEST))
    return math.ceil(SMALLEST * 2 ** (steps / 2))


def _render(fitted, solver, shape, band):
    """First pixels and light (rows, columns) of galaxies in boxes of one shape."""
    corners, vectors = [], []
    for fit, galaxy in fitted:
        profiles = fit.coordinates[fit.layout.profiles[galaxy, :, band]]
        place = profiles[:, 3:5] + profiles.new_tensor(fit.task.middle)
        corners.append(first_pixel(*place[0].tolist(), shape))
        middle = np.add(corners[-1], (np.array(shape) - 1) / 2)[::-1]
        profiles[:, 3:5] = place - profiles.new_tensor(middle.tolist())
        vectors.append(profiles.flatten())
    operator = solver.operator(fitted[0][0].task.bands[band], shape)
    lights = sum(profile_images(operator, torch.stack(vectors).to(solver.settings.torch_device)))
    return zip(corners, lights.cpu().numpy(), strict=True)


# ---------------------------------------------------------------- neighbours


class NeighbourLight:
    """Model light of the galaxies of an image: each alone, or all but those of a group."""

    def __init__(self, tasks, rows, solver):
        self._rows, self._solver = rows, solver
        self._total, self._boxes = [np.zeros(band.shape) for band in tasks[0].bands], {}
        # All at once: many have boxes of one size.
        self._draw([row for task in tasks for row in task.rows.tolist()])

    def _draw(self, rows):
        fitted = [self._rows.fits[row] for row in rows]
        drawn = [light_boxes(fitted, self._solver, band) for band in range(len(self._total))]
        for row, *boxes in zip(rows, *drawn, strict=True):
            self._boxes[row] = boxes
            for total, box in zip(self._total, boxes, strict=True):
                paste(total, *box)

    def take(self, task):
        """Remove the light of the galaxies of a group."""
        for row in task.rows.tolist():
            for total, (corner, light) in zip(self._total, self._boxes.pop(row, ()), strict=False):
                paste(total, corner, -light)

    def renew(self, task):
        """Draw the light of a group again, from its last fit."""
        self.take(task)
        self._draw(task.rows.tolist())

    def of(self, row, task, band):
        """Light (ny, nx) of one galaxy in the stamp of a group."""
        corner, light = self._boxes[row][band]
        return cut(light, np.subtract(task.corner, corner), task.shape)

    def reaching(self, task):
        """Rows of the galaxies whose light may reach the stamp of a group."""
        rows, near = np.array(list(self._boxes)), False
        for band in range(len(self._total)):
            corners = np.array([self._boxes[row][band][0] for row in rows])
            ends = corners + [self._boxes[row][band][1].shape for row in rows]
            near |= (corners < np.add(task.corner, task.shape)).all(1) & (ends > task.corner).all(1)
        return set(rows[near].tolist())

    def others(self, task, band):
        """Light (ny, nx) of all other groups in the stamp of a group."""
        own = (self.of(row, task, band) for row in task.rows.tolist() if row in self._boxes)
        return task.cut(self._total[band]) - sum(own)


def refit_overlapping(tasks, rows, solver, fit):
    """Fit the groups of an image again whose galaxies overlap with those of other groups.

    ``rows`` holds a first fit of each, which is replaced. ``fit(tasks, last)`` fits tasks and fills their
    rows, with Gaussian intervals unless it is the last time.
    """
    tasks = [task for task in tasks if rows.fits[task.rows[0]] is not None]
    if sum(len(task.rows) for task in tasks) < 2:
        return
    lights = NeighbourLight(tasks, rows, solver)
    levels = _brightness_levels(tasks, rows, lights)
    together = [task for level in levels for task in level]
    for task in together:
        lights.take(task)
    if together:
        log.debug("%d of %d groups are in each other's light: fitted again", len(together), len(tasks))
    for number in range(SUBTRACTION_ROUNDS if together else 0):
        for level in levels:
            new = [_without_others(task, rows, lights, solver.settings) for task in level]
            fit(new, number == SUBTRACTION_ROUNDS - 1)
            for task in new:
                lights.renew(task)
    for task in tasks:
        fit, _ = rows.fits[task.rows[0]]
        shares = _blended_shares(fit.task, lights)
        fit.blended = [k for k, share in enumerate(shares) if share > BLENDED_SHARE]


def _brightness_levels(tasks, rows, lights):
    """Groups that overlap, in lists: each comes after all brighter ones that it overlaps with."""
    signal = [max(rows.fits[task.rows[0]][0].signal) for task in tasks]
    order = sorted(range(len(tasks)), key=lambda k: -signal[k])
    touching = _overlapping(tasks, lights)
    level = {}
    for k in order:
        if touching[k]:
            level[k] = 1 + max((level[other] for other in touching[k] if other in level), default=-1)
    numbers = range(max(level.values(), default=-1) + 1)
    return [[tasks[k] for k in order if level.get(k) == number] for number in numbers]


def _overlapping(tasks, lights):
    """Numbers of the groups that each group overlaps with."""
    touching = [set() for _ in tasks]
    group = {row: k for k, task in enumerate(tasks) for row in task.rows.tolist()}
    for k, task in enumerate(tasks):
        near = {group[row] for row in lights.reaching(task)} - {k}
        weights = [task.weight(band) for band in range(len(task.bands))] if near else []
        for other in near:
            rows = tasks[other].rows.tolist()
            parts = (sum(lights.of(row, task, band) for row in rows) for band in range(len(weights)))
            chi2 = sum(map(_chi2_of_light, parts, weights))
            if chi2 > HALO_SIGMA**2:
                touching[k].add(other)
                touching[other].add(k)
    return touching


def _chi2_of_light(light, weight):
    """Chi2 of light after the best constant is subtracted."""
    if not weight.any():
        return 0.0
    return float((weight * (light - np.average(light, weights=weight)) ** 2).sum())


def _without_others(task, rows, lights, settings):
    """Task of a group with the light of others subtracted, its boxes large enough for it."""
    fit, _ = rows.fits[task.rows[0]]
    radii = fit.values[..., MEASURED.index("r_eff")].max((1, 2))
    boxes = [_grown_box(task, k, r, settings) for k, r in enumerate(radii)] if settings.grows else task.boxes
    new = replace(task, boxes=boxes)
    return replace(new, others=[lights.others(new, band) for band in range(len(task.bands))])


def _grown_box(task, galaxy, radius, settings):
    """Box of a galaxy: 8 r_eff where the options and the edges of the image allow."""
    wanted = int(np.ceil(STAMP_RADII * radius)) | 1
    place, shape = task.places[galaxy, ::-1], np.array(task.bands[0].shape)
    within = 2 * np.minimum(place + 0.5, shape - 0.5 - place).astype(int) + 1
    most = np.minimum(within, MOST_GROWTH * np.array(settings.box) | 1)
    return tuple(np.maximum(task.boxes[galaxy], np.minimum(wanted, most)).tolist())


def _blended_shares(task, lights):
    """Share of the flux of each galaxy of a group by which it would be off if no neighbour were fitted."""
    weight, total = task.weight(0), lights.others(task, 0)
    own = [lights.of(row, task, 0) for row in task.rows.tolist()]
    total = total + sum(own)
    for light in own:
        power = (weight * light**2).sum()
        yield float((weight * light * (total - light)).sum() / power) if power > 0 else 0.0
