"""Which galaxies are fitted together, in which pixels, and which of these fits run as one batch."""

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from lenssr.photometry.cutouts import cut

__all__ = ["AutoGrouper", "Task", "batches", "first_pixel", "make_task", "make_tasks", "psf_key"]

# Sides of the stamps of groups are rounded up to a multiple of this, so that more of them share a batch.
SIDE_STEP = 8
SHRINK = 0.7


class AutoGrouper:
    """Group galaxies that are near each other, but never many.

    Parameters
    ----------
    min_separation : float
        Galaxies nearer to each other than this, in pixels, belong together.
    most : int, optional
        Where more than so many would, the separation is taken smaller for them; by default 4.

    Examples
    --------
    >>> from lenssr.photometry.groups import AutoGrouper
    >>> AutoGrouper(10)([1, 5, 40], [1, 1, 1]).tolist()
    [1, 1, 2]
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
class Task:
    """Galaxies that are fitted together.

    Attributes
    ----------
    bands : list of `~lenssr.imaging.Observation`
    sources : `~lenssr.photometry.sources.Sources`
        Of the whole image.
    members : `~numpy.ndarray` of int, shape (G,)
        Which of them.
    rows : `~numpy.ndarray` of int, shape (G,)
        Their rows in the table.
    corner, shape : tuple of int
        First row and column of the stamp, and its sides.
    boxes : list of tuple of int
        Rows and columns of the box around each galaxy that is fitted.
    others : list of `~numpy.ndarray`, shape (ny, nx), optional
        Light of other galaxies in the stamp, one image a band, which is taken from the data; by default none.
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
        """Factor on all errors, because the noise of neighbouring pixels correlates."""
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
    """What tells one PSF from another."""
    if psf is None:
        return None
    return psf.oversampling, psf.includes_pixel, psf.pixel_scale, repr(psf), psf.array.tobytes()


def first_pixel(x, y, shape):
    """First row and column of a box around a position."""
    return tuple(int(np.floor(centre + 0.5)) - size // 2 for centre, size in zip((y, x), shape, strict=True))


def make_tasks(bands, sources, fit_shape, grouper, first_row=0):
    """Share the galaxies of an image out among fits.

    Parameters
    ----------
    bands : list of `~lenssr.imaging.Observation`
    sources : `~lenssr.photometry.sources.Sources`
    fit_shape : tuple of int
    grouper : callable or None
        ``grouper(x, y)`` gives the number of the group of each, as `~photutils.psf.SourceGrouper` does.
    first_row : int, optional
        Of the galaxies in the table, by default 0.

    Returns
    -------
    tasks : list of `Task`
    groups : `~numpy.ndarray` of int, shape (G,)
        Number of the group of each galaxy.
    """
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
    """Make the `Task` of a group, its stamp as large as holds all boxes; empty if a place is not finite."""
    if not np.isfinite(sources.x[members] + sources.y[members]).all():
        return Task(bands, sources, members, rows, (0, 0), (0, 0), boxes, others)
    places = zip(members, boxes, strict=True)
    corners = np.array([first_pixel(sources.x[m], sources.y[m], box) for m, box in places])
    corner, end = corners.min(0), (corners + boxes).max(0)
    size = end - corner
    if len(members) > 1:
        size = -(-size // SIDE_STEP) * SIDE_STEP
    corner, size = (tuple(int(v) for v in part) for part in (corner, size))
    return Task(bands, sources, members, rows, corner, size, boxes, others)


def batches(tasks, most_values):
    """Put tasks that run together into lists.

    Parameters
    ----------
    tasks : list of `Task`
    most_values : int
        Pixels times parameters that a batch may hold, roughly.

    Returns
    -------
    batches : list of list of `Task`
    """
    alike = {}
    for task in tasks:
        kinds = tuple(
            (psf_key(band.psf), type(band.noise), band.grid.pixel_scale, str(band.unit))
            for band in task.bands
        )
        alike.setdefault((task.shape, len(task.members), kinds), []).append(task)
    result = []
    for (shape, galaxies, kinds), members in alike.items():
        size = max(1, most_values // max(1, shape[0] * shape[1] * len(kinds) * (7 * galaxies + 2)))
        result += [members[i : i + size] for i in range(0, len(members), size)]
    return result
