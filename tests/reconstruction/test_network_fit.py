"""Light beyond the grid that a network draws on."""

import numpy as np
import pytest

from lenssr.reconstruction.network_fit import extrapolate_source
from lenssr.source import SourceGrid

GRID = SourceGrid(0.1, -0.05, 0.5, 33, 1.0)


@pytest.mark.parametrize("faintest", [0.05, 0.003])
def test_wings_go_on_as_far_as_they_are_seen(faintest):
    """The light falls as the fourth power of radius, to what the image still shows, or twice the grid."""

    def light(x, y):
        return (1 + np.hypot(x - GRID.x_0, y - GRID.y_0) / 0.05) ** -4.0 * 1e3

    x, y = (axis.ravel() for axis in np.meshgrid(np.linspace(-2, 2, 80), np.linspace(-2, 2, 80)))
    grid, values = extrapolate_source(GRID, light(*GRID.nodes), (x, y), faintest)
    found, true = grid.matrix(x, y) @ values, light(x, y)
    near = np.maximum(np.abs(x - GRID.x_0), np.abs(y - GRID.y_0)) < 0.99
    seen = near & (true > 1.3 * faintest)
    np.testing.assert_allclose(found[seen], true[seen], rtol=0.35)
    assert GRID.half < grid.half <= 1.0
    assert (grid.side, grid.x_0) == (GRID.side, GRID.x_0)
    assert grid.spacing == pytest.approx(GRID.spacing, rel=0.02)


def test_nothing_changes_where_nothing_is_seen_beyond():
    x, y = GRID.nodes
    values = np.exp(-np.hypot(x - GRID.x_0, y - GRID.y_0) / 0.1)
    grid, same = extrapolate_source(GRID, values, (x, y), 1.0)
    assert grid == GRID
    np.testing.assert_array_equal(same, values)
