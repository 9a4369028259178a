"""Deblending of touching objects, at the saddles between their peaks."""

import heapq

import numpy as np
from scipy import ndimage

__all__ = ["deblend"]

# Number of thresholds between the faintest and the brightest pixel of a segment.
THRESHOLDS = 32
NEIGHBOURS = np.ones((3, 3), dtype=int)


def deblend(image, labels, which, *, pixels, contrast):
    """Divide the segments ``which`` of a label image that have several peaks; new parts get new numbers.

    A peak needs ``pixels`` pixels above the saddle to its neighbour, and its part a share ``contrast`` of the
    light of the segment, in which ``image`` is positive. Bertin & Arnouts 1996, A&AS 117, 393, section 6 (the
    tree of thresholds).

    >>> import numpy as np
    >>> from lenssr.imaging.deblending import deblend
    >>> y, x = np.indices((20, 30))
    >>> two = sum(np.exp(-((x - at) ** 2 + (y - 10) ** 2) / 18) for at in (10, 20))
    >>> labels = deblend(two, (two > 0.1).astype(int), [1], pixels=5, contrast=0.01)
    >>> bool(labels[10, 10] != labels[10, 20]), bool(labels[10, 10] == labels[8, 14])
    (True, True)
    """
    labels = np.array(labels, dtype=int)
    boxes, count = ndimage.find_objects(labels), labels.max()
    for label in which:
        box = boxes[label - 1]
        segment = labels[box] == label
        parts = _basins(image[box], segment, _peaks(image[box], segment, pixels), contrast)
        for number in range(2, parts.max() + 1):
            count += 1
            labels[box][parts == number] = count
    return labels


def _peaks(image, segment, pixels):
    """Regions around single peaks: the leaves of the tree of rising thresholds."""
    values = image[segment]
    leaves = [segment]
    for level in np.geomspace(values.min(), values.max(), THRESHOLDS + 2)[1:-1]:
        grown = []
        for leaf in leaves:
            found, _ = ndimage.label(leaf & (image > level), NEIGHBOURS)
            large = np.flatnonzero(np.bincount(found.ravel())[1:] >= pixels) + 1
            grown += [found == number for number in large] if len(large) > 1 else [leaf]
        leaves = grown
    return leaves


def _basins(image, segment, peaks, contrast):
    """Divide a segment among its peaks, without the faintest until all have enough of its light."""
    light = np.where(segment, image, 0.0)
    while len(peaks) > 1:
        markers = np.zeros(segment.shape, dtype=int)
        for number, peak in enumerate(peaks, start=1):
            markers[peak] = number
        parts = _flood(image, segment, markers)
        shares = ndimage.sum_labels(light, parts, np.arange(1, len(peaks) + 1)) / light.sum()
        if shares.min() >= contrast:
            return parts
        del peaks[int(shares.argmin())]
    return segment.astype(int)


def _flood(image, segment, markers):
    """Grow markers downhill over a segment, the brightest pixels first, until they meet."""
    width = segment.shape[1] + 2
    image = np.pad(image, 1).ravel().tolist()
    parts = np.pad(np.where(segment, markers, -1), 1, constant_values=-1).ravel().tolist()
    # Of equally bright pixels the one that was reached first goes first.
    edge = [
        (-image[pixel], age, pixel) for age, pixel in enumerate(np.flatnonzero(np.pad(markers, 1)).tolist())
    ]
    heapq.heapify(edge)
    age = len(edge)
    while edge:
        _, _, pixel = heapq.heappop(edge)
        for shift in (-width - 1, -width, -width + 1, -1, 1, width - 1, width, width + 1):
            near = pixel + shift
            if parts[near] == 0:
                parts[near] = parts[pixel]
                age += 1
                heapq.heappush(edge, (-image[near], age, near))
    return np.maximum(np.array(parts).reshape(-1, width)[1:-1, 1:-1], 0)
