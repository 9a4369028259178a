"""Groups of galaxies that are fitted together, their pixels, and the batches of these fits."""

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from lenssr.photometry.cutouts import cut

__all__ = [
    "AutoGrouper",
    "GroupTask",
    "batches",
    "first_pixel",
    "make_task",
    "make_tasks",
    "pixel_key",
    "psf_key",
]

# Multiple, in pixels, to which sides of the stamps of groups are rounded up: more of them share a batch.
SIDE_STEP = 8
# Factor on the separation that splits a group with too many members. Chosen.
SHRINK = 0.7


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
        for group in np.flatnonzero(np.bincount(groups) > self.most):
            own = np.flatnonzero(groups == group)
            groups[own] = groups.max() + 1 + self._split(places[own], SHRINK * separation)
        return groups


@dataclass
class GroupTask:
    """Galaxies that are fitted together.

    ``members`` and ``rows`` (G,) are their numbers in ``sources`` and in the table; ``corner`` and ``shape``
    the first pixel and the sides of the stamp; ``boxes`` rows and columns of the box around each galaxy;
    ``others`` the light (ny, nx) of other galaxies to take from the data, one image a band.
    """

    bands: list
    sources: object
    members: np.ndarray
    rows: np.ndarray
    corner: tuple
    shape: tuple
    boxes: list
    others: list | None = None

    @property
    def fit_shape(self):
        """The largest of the boxes."""
        return max(self.boxes)

    def sigma(self, band):
        """Standard deviation (ny, nx) of the pixels of the image in a band."""
        return self.bands[band].meta["sigma"]

    @property
    def widening(self):
        """Factor on all errors for noise that correlates between pixels."""
        return max(band.meta["widening"] for band in self.bands)

    @property
    def middle(self):
        """Pixel (x, y) of the image at the middle of the stamp."""
        return tuple(
            start + (size - 1) / 2 for start, size in zip(self.corner[::-1], self.shape[::-1], strict=True)
        )

    @property
    def centres(self):
        """Positions (G, 2) of the galaxies relative to the middle of the stamp, in pixels."""
        x, y = self.middle
        return np.stack([self.sources.x[self.members] - x, self.sources.y[self.members] - y], axis=1)

    def share(self):
        """Pixels (ny, nx) of the stamp that belong to these galaxies."""
        rows, columns = (start + np.arange(size) for start, size in zip(self.corner, self.shape, strict=True))
        inside = np.zeros(self.shape, dtype=bool)
        for member, box in zip(self.members, self.boxes, strict=True):
            top, left = first_pixel(self.sources.x[member], self.sources.y[member], box)
            own_rows = (rows >= top) & (rows < top + box[0])
            inside |= own_rows[:, None] & (columns >= left) & (columns < left + box[1])
        foreign = self._foreign(rows, columns) & inside
        return inside & ~foreign

    def _foreign(self, rows, columns):
        sources = self.sources
        if sources.segments is not None:
            labels = cut(sources.segments, [self.corner], self.shape)[0]
            return (labels > 0) & ~np.isin(labels, sources.labels[self.members])
        reach = max(self.shape)
        x, y = (
            start + (size - 1) / 2 for start, size in zip(self.corner[::-1], self.shape[::-1], strict=True)
        )
        near = np.flatnonzero(np.hypot(sources.x - x, sources.y - y) < 2 * reach)
        others = np.setdiff1d(near, self.members)
        if not len(others):
            return np.zeros(self.shape, dtype=bool)
        pixels = np.stack([part.ravel() for part in np.meshgrid(columns, rows)], axis=1)
        distance = [
            cKDTree(np.stack([sources.x[which], sources.y[which]], axis=1)).query(pixels)[0]
            for which in (self.members, others)
        ]
        return (distance[1] < distance[0]).reshape(self.shape)


def psf_key(psf):
    """Hashable identity of a PSF."""
    if psf is None:
        return None
    return psf.oversampling, psf.includes_pixel, psf.pixel_scale, repr(psf), psf.array.tobytes()


def pixel_key(grid):
    """Size and stretch of the pixels of a grid, its matrix as nested tuples."""
    return tuple(tuple(row) for row in grid.matrix.tolist())


def first_pixel(x, y, shape):
    """First row and column of a box around a position."""
    return tuple(int(np.floor(centre + 0.5)) - size // 2 for centre, size in zip((y, x), shape, strict=True))


def make_tasks(bands, sources, fit_shape, grouper, first_row=0):
    """Tasks of the galaxies of an image, and the number (G,) of the group of each, from ``grouper(x, y)``."""
    count = len(sources)
    if sources.group is not None:
        groups = np.unique(sources.group, return_inverse=True)[1] + 1
    elif grouper is None or count < 2:
        groups = np.arange(1, count + 1)
    else:
        groups = np.zeros(count, dtype=int)
        known = np.isfinite(sources.x + sources.y)
        groups[known] = grouper(sources.x[known], sources.y[known]) if known.any() else 0
        groups[~known] = groups.max() + 1 + np.arange((~known).sum())
    tasks = []
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        tasks.append(make_task(bands, sources, members, members + first_row, [fit_shape] * len(members)))
    return tasks, groups


def make_task(bands, sources, members, rows, boxes, others=None):
    """GroupTask of one group, its stamp large enough for all boxes; empty if a position is not finite."""
    if not np.isfinite(sources.x[members] + sources.y[members]).all():
        return GroupTask(bands, sources, members, rows, (0, 0), (0, 0), boxes, others)
    places = zip(members, boxes, strict=True)
    corners = np.array([first_pixel(sources.x[m], sources.y[m], box) for m, box in places])
    corner, end = corners.min(0), (corners + boxes).max(0)
    size = end - corner
    if len(members) > 1:
        size = -(-size // SIDE_STEP) * SIDE_STEP
    corner, size = (tuple(int(v) for v in part) for part in (corner, size))
    return GroupTask(bands, sources, members, rows, corner, size, boxes, others)


def batches(tasks, most_values):
    """Lists of tasks that run together, with at most about ``most_values`` pixels times parameters each."""
    alike = {}
    for task in tasks:
        kinds = tuple(
            (psf_key(band.psf), type(band.noise), pixel_key(band.grid), str(band.unit)) for band in task.bands
        )
        alike.setdefault((task.shape, len(task.members), kinds), []).append(task)
    result = []
    for (shape, galaxies, kinds), members in alike.items():
        size = max(1, most_values // max(1, shape[0] * shape[1] * len(kinds) * (7 * galaxies + 2)))
        result += [members[i : i + size] for i in range(0, len(members), size)]
    return result
