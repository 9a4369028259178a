"""Zero lines of functions on a quadtree that is divided where they bend, linked across its hanging nodes."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lenssr.mass.mesh import INNERMOST, Leaves
from lenssr.mass.rays import Array

__all__ = ["zero_lines"]

BEND = 0.15
"""Second over first differences in a cell that a zero line crosses, above which it is divided."""

CURVED = 0.7
"""Least value in a cell without a zero, in units of second differences, below which it is divided."""

ROUNDS = 22
"""Divisions of cells, beyond those around centres."""

MOST_LEAVES = 20_000
"""Leaves at once from which none is divided: a function jumps all along a line."""

# Regula falsi (Illinois) on the edges that a line crosses.
EDGE_STEPS = 2
# Corners and middles of a cell, in units of half its size.
STENCIL_X, STENCIL_Y = (c.ravel() for c in np.meshgrid(np.arange(3), np.arange(3)))
CORNERS = np.array([0, 2, 8, 6])
# The 25 points of a cell's four parts: the nine of each part, the nine of the cell, and the others.
PARTS = [5 * (2 * j + STENCIL_Y) + 2 * i + STENCIL_X for j in (0, 1) for i in (0, 1)]
WHOLE = 2 * (5 * STENCIL_Y + STENCIL_X)
OTHERS = np.setdiff1d(np.arange(25), WHOLE)
# Lines of three through the nine points, and those along its edges.
THREES = np.array([[0, 1, 2], [3, 4, 5], [6, 7, 8], [0, 3, 6], [1, 4, 7], [2, 5, 8], [0, 4, 8], [2, 4, 6]])
EDGES = THREES[[0, 2, 3, 5]]

Flags = NDArray[np.bool_]
Whole = NDArray[np.int64]


def zero_lines(levels: Any, leaves: Leaves) -> list[tuple[int, Array]]:
    """Zero lines as (number of the function, points (2, n)); closed ones end where they begin.

    ``levels`` has ``all_at(x, y)``, the values of each function, and ``at(places, which)``.
    """
    tree = _Corners(*_divided(levels, leaves))
    segments = [_segments(tree, k) for k in range(len(tree.values))]
    if not any(len(links) for _, links in segments):
        return []
    which = np.concatenate([np.full(len(edges), k) for k, (edges, _) in enumerate(segments)])
    points = _crossings(levels, tree, np.concatenate([edges for edges, _ in segments]), which)
    lines, start = [], 0
    for k, (edges, links) in enumerate(segments):
        for chain in _chains(len(edges), links):
            lines.append((k, points[:, start + np.array(chain)]))
        start += len(edges)
    return lines


def _divided(levels: Any, leaves: Leaves) -> tuple[Leaves, Array]:
    """Leaves so small that lines through them are nearly straight, and values (k, n, 4) at their corners."""
    done, smallest = [], max(2, round(INNERMOST / max(leaves.unit)))
    values = _values(levels, leaves, STENCIL_X, STENCIL_Y, 2)
    for left in reversed(range(ROUNDS + 1)):
        divide = np.zeros(len(leaves.x), dtype=bool)
        for nine in values:
            divide |= _coarse(nine)
        divide &= (leaves.size > smallest) & (divide.sum() < MOST_LEAVES) & (left > 0)
        done.append((leaves.take(~divide), values[:, ~divide][..., CORNERS]))
        if not divide.any():
            break
        leaves = leaves.take(divide)
        grown = np.empty((len(values), len(leaves.x), 25))
        grown[..., WHOLE] = values[:, divide]
        grown[..., OTHERS] = _values(levels, leaves, OTHERS % 5, OTHERS // 5, 4)
        values = np.concatenate([grown[..., part] for part in PARTS], axis=1)
        leaves = leaves.divided()
    found, corners = done[0]
    for others, _ in done[1:]:
        found = found.with_others(others)
    return found, np.concatenate([corners for _, corners in done], axis=1)


def _values(levels: Any, leaves: Leaves, along_x: Whole, along_y: Whole, steps: int) -> Array:
    """Values (k, n, m) of each function at m points of each leaf, counted in so many steps across it."""
    step = leaves.size[:, None] // steps
    x, y = leaves.place(leaves.x[:, None] + step * along_x, leaves.y[:, None] + step * along_y)
    return np.stack([values.reshape(x.shape) for values in levels.all_at(x.ravel(), y.ravel())])


def _coarse(values: Array) -> Flags:
    """Cells, of their nine values each, that have to be divided."""
    triples = values[:, THREES]
    bend = np.abs(triples[..., 0] - 2 * triples[..., 1] + triples[..., 2]).max(axis=1)
    low, high = values.min(axis=1), values.max(axis=1)
    crossed = (low < 0) & (high >= 0)
    near = ~crossed & (np.minimum(np.abs(low), np.abs(high)) < CURVED * bend)
    positive = values >= 0
    edge = positive[:, EDGES]
    twice = ((edge[..., 0] == edge[..., 2]) & (edge[..., 0] != edge[..., 1])).any(axis=1)
    corners = positive[:, CORNERS]
    changes = (corners != np.roll(corners, 1, axis=1)).sum(axis=1)
    return near | (crossed & ((bend > BEND * (high - low)) | twice | (changes != 2)))


class _Corners:
    """Values (k, n, 4) at the corners of all leaves, to be looked up by integer coordinates."""

    def __init__(self, leaves: Leaves, values: Array) -> None:
        self.leaves = leaves
        # Corners counter-clockwise from the lower left.
        self.x = leaves.x[:, None] + leaves.size[:, None] * np.array([0, 1, 1, 0])
        self.y = leaves.y[:, None] + leaves.size[:, None] * np.array([0, 0, 1, 1])
        self.keys, first, back = np.unique(self.key(self.x, self.y), return_index=True, return_inverse=True)
        self.corner = back.reshape(self.x.shape)
        self.vertex_x, self.vertex_y = self.x.ravel()[first], self.y.ravel()[first]
        self.values = values.reshape(len(values), -1)[:, first]

    def key(self, x: Whole, y: Whole) -> Whole:
        """One integer for two coordinates."""
        return x * (1 << 32) + y

    def find(self, x: Whole, y: Whole) -> tuple[Whole, Flags]:
        """Numbers of vertices at coordinates, and whether there is one."""
        key = self.key(x, y)
        place = np.minimum(np.searchsorted(self.keys, key), len(self.keys) - 1)
        return place, self.keys[place] == key

    def sides(self, cells: Whole) -> tuple[Whole, Whole, Whole]:
        """Sides of leaves, split at hanging nodes: leaf, first and last vertex, counter-clockwise."""
        corner = self.corner[cells]
        owner = np.repeat(cells, 4)
        first, last = corner.ravel(), np.roll(corner, -1, axis=1).ravel()
        order = np.arange(len(owner), dtype=np.float64)
        width = 0.5
        while True:
            x, y = (c[first] + c[last] for c in (self.vertex_x, self.vertex_y))
            middle, hangs = self.find(x // 2, y // 2)
            hangs &= (x % 2 == 0) & (y % 2 == 0)
            if not hangs.any():
                break
            keep = ~hangs
            owner = np.concatenate((owner[keep], owner[hangs], owner[hangs]))
            first, last = (
                np.concatenate((first[keep], first[hangs], middle[hangs])),
                np.concatenate((last[keep], middle[hangs], last[hangs])),
            )
            order = np.concatenate((order[keep], order[hangs], order[hangs] + width))
            width /= 2
        ordered = np.argsort(order, kind="stable")
        return owner[ordered], first[ordered], last[ordered]

    def neighbours(self, edges: Whole, known: Whole) -> Whole:
        """Leaves that touch edges of smaller ones, a slow search for the few that no line seems to cross."""
        found = []
        leaves = self.leaves
        for first, last in edges:
            x, y = (c[first] + c[last] for c in (self.vertex_x, self.vertex_y))
            inside = (2 * leaves.x <= x) & (x <= 2 * (leaves.x + leaves.size))
            inside &= (2 * leaves.y <= y) & (y <= 2 * (leaves.y + leaves.size))
            found += [cell for cell in np.flatnonzero(inside) if cell not in known]
        return np.unique(np.array(found, dtype=np.int64))


def _segments(tree: _Corners, number: int) -> tuple[Whole, Whole]:
    """Edges (n, 2) of vertices that a zero line crosses, and pairs (m, 2) of them that it joins in a leaf."""
    positive = tree.values[number] >= 0
    corners = positive[tree.corner]
    cells = np.flatnonzero(corners.any(axis=1) & ~corners.all(axis=1))
    if not len(cells):
        return np.zeros((0, 2), dtype=np.int64), np.zeros((0, 2), dtype=np.int64)
    while True:
        owner, first, last = tree.sides(cells)
        crossed = positive[first] != positive[last]
        owner, first, last = owner[crossed], first[crossed], last[crossed]
        ends = np.stack((np.minimum(first, last), np.maximum(first, last)), axis=1)
        edges, edge, count = np.unique(
            ends[:, 0] * len(tree.keys) + ends[:, 1], return_inverse=True, return_counts=True
        )
        pairs = np.stack((edges // len(tree.keys), edges % len(tree.keys)), axis=1)
        lonely = pairs[count == 1]
        others = tree.neighbours(lonely, cells) if len(lonely) else lonely[:0, 0]
        if not len(others):
            break
        cells = np.concatenate((cells, others))
    return pairs, _joined(tree, number, owner, edge.ravel(), positive[first])


def _joined(tree: _Corners, number: int, owner: Whole, edge: Whole, falls: Flags) -> Whole:
    """Pairs of edges that a line joins in each leaf; ``falls`` where the function gets negative there."""
    order = np.argsort(owner, kind="stable")
    owner, edge, falls = owner[order], edge[order], falls[order]
    _, start, count = np.unique(owner, return_index=True, return_counts=True)
    simple = start[count == 2]
    pairs = [np.stack((edge[simple], edge[simple + 1]), axis=1)]
    for begin, n in zip(start[count > 2], count[count > 2], strict=True):
        around = edge[begin : begin + n]
        # The sides of more than one line are told by the mean of the corners.
        mean = tree.values[number][tree.corner[owner[begin]]].mean()
        if falls[begin] != (mean >= 0):
            around = np.roll(around, -1)
        pairs.append(around.reshape(-1, 2))
    return np.concatenate(pairs)


def _crossings(levels: Any, tree: _Corners, edges: Whole, which: NDArray[np.intp]) -> Array:
    """Positions (2, n) in arcsec where lines cross edges, by a few steps of regula falsi."""
    ends = [np.stack(tree.leaves.place(tree.vertex_x[v], tree.vertex_y[v])) for v in edges.T]
    f = [tree.values[which, v] for v in edges.T]
    low, high = np.zeros(len(which)), np.ones(len(which))
    f_low, f_high = f
    for _ in range(EDGE_STEPS):
        share = np.clip(
            _root(low, high, f_low, f_high), low + 1e-3 * (high - low), high - 1e-3 * (high - low)
        )
        value = levels.at(ends[0] + share * (ends[1] - ends[0]), which)
        below = (value >= 0) == (f_low >= 0)
        # Illinois: halve the value at the end that stays.
        f_low, f_high = np.where(below, value, f_low / 2), np.where(below, f_high / 2, value)
        low, high = np.where(below, share, low), np.where(below, high, share)
    return ends[0] + _root(low, high, f_low, f_high) * (ends[1] - ends[0])


def _root(low: Array, high: Array, f_low: Array, f_high: Array) -> Array:
    gap = f_low - f_high
    return np.where(gap == 0, low, low + (high - low) * f_low / np.where(gap == 0, 1.0, gap))


def _chains(number: int, links: Whole) -> list[list[int]]:
    """Edges in the order in which pairs join them; a closed chain ends where it begins."""
    ends, others = links.T.ravel(), links[:, ::-1].T.ravel()
    order = np.argsort(ends, kind="stable")
    _, start, count = np.unique(ends[order], return_index=True, return_counts=True)
    # Each edge is a side of two leaves at most, and so has two neighbours at most.
    pairs = np.full((2, number), -1)
    pairs[0, ends[order[start]]] = others[order[start]]
    pairs[1, ends[order[start[count > 1]]]] = others[order[start[count > 1] + 1]]
    one, two = pairs.tolist()
    chains, used = [], [False] * number
    # Open ones first, from their ends.
    for begin in np.concatenate([ends[order[start[count == n]]] for n in (1, 2)]).tolist():
        if used[begin]:
            continue
        chain, here = [], begin
        while here >= 0 and not used[here]:
            used[here] = True
            chain.append(here)
            here = one[here] if one[here] >= 0 and not used[one[here]] else two[here]
        if two[begin] >= 0 and len(chain) > 2 and begin in (one[chain[-1]], two[chain[-1]]):
            chain.append(begin)
        chains.append(chain)
    return chains
