"""Groups of galaxies that are fitted together, their stamps, and the batches of these fits."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

__all__ = ["AutoGrouper", "GroupTask", "batches", "cut", "first_pixel", "make_tasks", "paste", "telescope"]

# Multiple, in pixels, to which sides of the stamps of groups are rounded up: more of them share a batch.
SIDE_STEP = 8
# Factor on the separation that splits a group with too many members. Chosen.
SHRINK = 0.7
# Separation in pixels below which a group is not split any more.
NO_SEPARATION = 1e-3


class AutoGrouper:
    """Group galaxies nearer to each other than ``min_separation`` pixels.

    Where a group would have more than ``most`` members, a smaller separation splits it.
    """

    def __init__(self, min_separation, most=4):
        self.min_separation, self.most = min_separation, most

    def __repr__(self):
        return f"AutoGrouper({self.min_separation:g}, most={self.most})"

    def __call__(self, x, y):
        """Number of the group of each galaxy, from 1."""
        groups = self._split(np.stack([x, y], axis=1).astype(float), self.min_separation)
        return np.unique(groups, return_inverse=True)[1] + 1

    def _split(self, places, separation):
        pairs = cKDTree(places).query_pairs(separation, output_type="ndarray")
        links = coo_array((np.ones(len(pairs)), pairs.T), shape=(len(places), len(places)))
        groups = connected_components(links, directed=False)[1]
        if separation < NO_SEPARATION:
            return groups
        for group in np.flatnonzero(np.bincount(groups) > self.most):
            own = np.flatnonzero(groups == group)
            groups[own] = groups.max() + 1 + self._split(places[own], SHRINK * separation)
        return groups


# ---------------------------------------------------------------- boxes of pixels


def cut(plane, corner, shape, fill=0.0):
    """Box (rows, columns) of a plane from its first pixel (row, column) on; ``fill`` beyond the edge."""
    box = np.full(shape, fill, dtype=plane.dtype)
    inside, own = _overlap(corner, shape, plane.shape)
    box[own] = plane[inside]
    return box


def paste(plane, corner, box):
    """Add a box (rows, columns) to a plane (ny, nx) in place, from its first pixel (row, column) on."""
    inside, own = _overlap(corner, box.shape, plane.shape)
    plane[inside] += box[own]


def _overlap(corner, shape, limits):
    """Slices of an image and of a box in which they overlap."""
    low = np.maximum(corner, 0)
    high = np.maximum(np.minimum(np.add(corner, shape), limits), low)
    return tuple(map(slice, low, high)), tuple(map(slice, low - corner, high - corner))


def first_pixel(x, y, shape):
    """First row and column of a box around a position."""
    return tuple(int(np.floor(centre + 0.5)) - size // 2 for centre, size in zip((y, x), shape, strict=True))


# ---------------------------------------------------------------- groups with their stamps


@dataclass
class GroupTask:
    """Galaxies that are fitted together, in a stamp that holds the box around each of them.

    ``members`` and ``rows`` (G,) are their numbers in ``sources`` and in the table; ``boxes`` has the sides
    (rows, columns) of the box around each galaxy; ``others`` the light (ny, nx) of other galaxies to take
    from the data, one image a band. ``corner`` is the first pixel of the stamp, ``shape`` its sides, 0 if a
    position is not finite; ``places`` (G, 2) and ``middle`` are (x, y) in pixels of the image, ``centres`` in
    those of the stamp from its middle; ``widening`` is the factor on errors for correlated noise.
    """

    bands: list
    sources: object
    members: np.ndarray
    rows: np.ndarray
    boxes: list
    others: list | None = None

    def __post_init__(self):
        self.widening = max(band.meta["widening"] for band in self.bands)
        self.places = np.stack([self.sources.x[self.members], self.sources.y[self.members]], axis=1)
        self.corner = self.shape = (0, 0)
        if self.sources.fitted[self.members].all():
            corners = np.array(self._box_corners)
            corner, end = corners.min(0), (corners + self.boxes).max(0)
            size = end - corner if len(self.members) == 1 else -(-(end - corner) // SIDE_STEP) * SIDE_STEP
            self.corner, self.shape = tuple(corner.tolist()), tuple(size.tolist())
        self.middle = tuple((np.array(self.corner) + (np.array(self.shape) - 1) / 2)[::-1])
        self.centres = self.places - self.middle

    @property
    def _box_corners(self):
        return [first_pixel(*place, box) for place, box in zip(self.places, self.boxes, strict=True)]

    def cut(self, plane, fill=0.0):
        """The stamp of a plane (ny, nx) of the image; ``fill`` beyond its edge."""
        return cut(plane, self.corner, self.shape, fill)

    def data(self, band):
        """Pixels (ny, nx) of a band without the light of others."""
        data = self.cut(self.bands[band].data)
        return data if self.others is None else data - self.others[band]

    def weight(self, band):
        """Inverse variances (ny, nx) of a band, 0 where a pixel is not fitted."""
        image = self.bands[band]
        fitted = self.cut(image.valid, False) & self.own_pixels
        return np.where(fitted, self.cut(image.meta["sigma"], 1.0) ** -2.0, 0.0)

    def noise_numbers(self, band):
        """Numbers of the noise model of a band, as maps (ny, nx)."""
        image = self.bands[band]
        numbers = (getattr(image.noise, name) for name in image.noise.names)
        return [self.cut(np.broadcast_to(np.asarray(one, float), image.shape), 1.0) for one in numbers]

    @cached_property
    def own_pixels(self):
        """Pixels (ny, nx) of the stamp that are in a box, and belong to no other galaxy."""
        inside = np.zeros(self.shape, dtype=bool)
        for start, box in zip(self._box_corners, self.boxes, strict=True):
            paste(inside, np.subtract(start, self.corner), np.ones(box, dtype=bool))
        sources = self.sources
        if sources.segments is not None:
            labels = self.cut(sources.segments)
            return inside & ((labels <= 0) | np.isin(labels, sources.labels[self.members]))
        x, y = self.middle
        near = np.flatnonzero(sources.fitted & (np.hypot(sources.x - x, sources.y - y) < 2 * max(self.shape)))
        others = np.setdiff1d(near, self.members)
        if not len(others):
            return inside
        pixels = np.argwhere(inside)[:, ::-1] + self.corner[::-1]
        foreign = np.stack([sources.x[others], sources.y[others]], axis=1)
        own, other = (cKDTree(places).query(pixels)[0] for places in (self.places, foreign))
        inside[inside] = own <= other
        return inside


def make_tasks(bands, sources, fit_shape, grouper, first_row=0):
    """Tasks of the galaxies of an image, and the number (G,) of the group of each, from ``grouper(x, y)``."""
    count = len(sources)
    known = sources.fitted
    if sources.group is not None:
        groups = np.unique(sources.group, return_inverse=True)[1] + 1
        # What cannot be fitted must not take its group with it.
        groups[~known] = groups.max(initial=0) + 1 + np.arange((~known).sum())
    elif grouper is None or count < 2:
        groups = np.arange(1, count + 1)
    else:
        groups = np.zeros(count, dtype=int)
        groups[known] = grouper(sources.x[known], sources.y[known]) if known.any() else 0
        groups[~known] = groups.max() + 1 + np.arange((~known).sum())
    members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    return [GroupTask(bands, sources, m, m + first_row, [fit_shape] * len(m)) for m in members], groups


def telescope(image):
    """Hashable identity of the PSF and the pixels of an image."""
    psf, pixels = image.psf, tuple(image.grid.matrix.ravel().tolist())
    if psf is None:
        return None, pixels
    return psf.oversampling, psf.includes_pixel, psf.pixel_scale, repr(psf), psf.array.tobytes(), pixels


def batches(tasks, most_values):
    """Lists of tasks that run together, with at most about ``most_values`` pixels times parameters each."""
    alike = {}
    for task in tasks:
        kinds = tuple((telescope(band), type(band.noise), str(band.unit)) for band in task.bands)
        alike.setdefault((task.shape, len(task.members), kinds), []).append(task)
    result = []
    for (shape, galaxies, kinds), members in alike.items():
        size = max(1, most_values // max(1, shape[0] * shape[1] * len(kinds) * (7 * galaxies + 2)))
        result += [members[i : i + size] for i in range(0, len(members), size)]
    return result
