"""Deblending by subtraction: bright galaxies are fitted first, and subtracted from the data of faint ones."""

import logging
from dataclasses import replace

import numpy as np

from lenssr.photometry.cutouts import cut, paste
from lenssr.photometry.groups import make_task
from lenssr.photometry.images import light_boxes
from lenssr.photometry.measure import MEASURED
from lenssr.photometry.table import STAMP_RADII

__all__ = ["blended_shares", "refit_overlapping"]

log = logging.getLogger(__name__)

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


class NeighbourLight:
    """Model light of the galaxies of an image, and of all others than some."""

    def __init__(self, tasks, rows, solver):
        self._rows, self._solver = rows, solver
        self._total, self._boxes = [np.zeros(band.shape) for band in tasks[0].bands], {}
        fits = {int(task.rows[0]): rows.fits[task.rows[0]][0] for task in tasks}
        galaxies = [(fit, k) for fit in fits.values() for k in range(len(fit.task.members))]
        # All at once: many have boxes of one size.
        drawn = [light_boxes(galaxies, solver, band) for band in range(len(self._total))]
        for (fit, k), *boxes in zip(galaxies, *drawn, strict=True):
            self._put(int(fit.task.rows[k]), boxes)

    def _put(self, row, boxes):
        self._boxes[row] = boxes
        for total, (corner, light) in zip(self._total, boxes, strict=True):
            paste(total, corner, light)

    def take(self, task):
        """Remove the light of the galaxies of a group."""
        for row in task.rows.tolist():
            for total, (corner, light) in zip(self._total, self._boxes.pop(row, ()), strict=False):
                paste(total, corner, -light)

    def renew(self, task):
        """Replace the light of a group by that of its last fit."""
        self.take(task)
        fit = self._rows.fits[task.rows[0]][0]
        galaxies = [(fit, k) for k in range(len(task.members))]
        bands = range(len(self._total))
        for row, *boxes in zip(
            task.rows.tolist(), *(light_boxes(galaxies, self._solver, b) for b in bands), strict=True
        ):
            self._put(row, boxes)

    def of(self, row, task, band):
        """Light (ny, nx) of one galaxy in the stamp of a group; None where it does not reach."""
        corner, light = self._boxes[row][band]
        start = np.subtract(task.corner, corner)
        if (start >= light.shape).any() or (start + task.shape <= 0).any():
            return None
        return cut(light, [start], task.shape)[0]

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
        light = cut(self._total[band], [task.corner], task.shape)[0]
        for row in task.rows.tolist():
            if row in self._boxes:
                own = self.of(row, task, band)
                light = light if own is None else light - own
        return light


def weight_of(task, band):
    """Inverse variances (ny, nx) of the pixels in which a group is fitted."""
    valid = cut(task.bands[band].valid, [task.corner], task.shape, False)[0]
    sigma = cut(task.sigma(band), [task.corner], task.shape, 1.0)[0]
    return np.where(valid & task.share(), sigma**-2.0, 0.0)


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
    for row, share in blended_shares(tasks, rows, lights):
        rows.mark_blended(row, share > BLENDED_SHARE)


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
        weights = [weight_of(task, band) for band in range(len(task.bands))] if near else []
        for other in near:
            rows = tasks[other].rows.tolist()
            chi2 = sum(
                _chi2_of_light([lights.of(row, task, band) for row in rows], weight)
                for band, weight in enumerate(weights)
            )
            if chi2 > HALO_SIGMA**2:
                touching[k].add(other)
                touching[other].add(k)
    return touching


def _chi2_of_light(lights, weight):
    """Chi2 of light after the best constant is subtracted."""
    seen = [light for light in lights if light is not None]
    if not seen or not weight.any():
        return 0.0
    light = sum(seen)
    return float((weight * (light - (weight * light).sum() / weight.sum()) ** 2).sum())


def _without_others(task, rows, lights, settings):
    """Task of a group with the light of others subtracted, its boxes large enough for it."""
    fit, parts = rows.fits[task.rows[0]][0], [rows.fits[row][1] for row in task.rows]
    boxes = [_grown_box(task, k, own, settings) for k, own in enumerate(parts)]
    new = make_task(task.bands, task.sources, task.members, task.rows, boxes)
    others = [lights.others(new, band) for band in range(len(fit.task.bands))]
    return replace(new, others=others)


def _grown_box(task, galaxy, parts, settings):
    """Box of a galaxy: 8 r_eff where the options and the edges of the image allow."""
    old, member = task.boxes[galaxy], task.members[galaxy]
    if not settings.grows:
        return old
    radius = max(one.values[MEASURED.index("r_eff")] for band in parts for one in band)
    grown = []
    for side, first, size in zip(old, settings.box, task.bands[0].shape, strict=True):
        wanted = min(int(np.ceil(STAMP_RADII * radius)) | 1, MOST_GROWTH * first | 1)
        place = (task.sources.y if not grown else task.sources.x)[member]
        within = 2 * int(min(place + 0.5, size - 0.5 - place)) + 1
        grown.append(max(side, min(wanted, within)))
    return tuple(grown)


def blended_shares(tasks, rows, lights):
    """Rows, and the share of its flux by which each would be off if no neighbour were fitted."""
    for old in tasks:
        task = rows.fits[old.rows[0]][0].task
        weight = weight_of(task, 0)
        foreign = lights.others(task, 0)
        own = {row: lights.of(row, task, 0) for row in task.rows.tolist()}
        own = {row: np.zeros(task.shape) if light is None else light for row, light in own.items()}
        for row, light in own.items():
            near = foreign + sum(other for name, other in own.items() if name != row)
            power = (weight * light**2).sum()
            yield row, float((weight * light * near).sum() / power) if power > 0 else 0.0
