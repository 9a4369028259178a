"""How fine images of a free-form source change with the lens, whose grid follows it."""

from types import SimpleNamespace

import astropy.units as u
import numpy as np
import pytest
import torch

from lenssr import EPL, Shear
from lenssr.grids import PixelGrid
from lenssr.imaging.operator import ImagingOperator
from lenssr.model.scene import Scene
from lenssr.reconstruction.fine_freeform import FineView, FreeForm
from lenssr.source import SourceGrid
from lenssr.source.source_grid import GridMotion

LENS = EPL(0.8, 1.9, 0.1, -0.05) + Shear(0.02, 0.01)
GRID = SourceGrid(0.05, -0.03, 0.6, 12, 0.5)
OBSERVATION = SimpleNamespace(
    grid=PixelGrid((20, 20), 0.15), shape=(20, 20), psf=None, unit=u.electron, brightness_unit=u.electron
)
OPTIONS = {"scale": 2, "oversampling": 3, "psf_out": None}
GAMMA = 1


class Slope:
    """In place of a factor: it tells the gradient that it is asked to solve for."""

    def __init__(self, count, size):
        self.count, self.size = count, size

    def solve(self, right):
        self.gradient = right[:, 0]
        return right


@pytest.fixture(scope="module")
def scene():
    return Scene(lens=LENS, lens_free=True, lens_light=0, sky=False, extent=1.5, source=0)


@pytest.fixture(scope="module")
def view_at(scene):
    """A view of a source whose grid has followed the lens to another slope."""
    operator = ImagingOperator(OBSERVATION.grid, oversampling=2)
    start = LENS.vector[None]
    a_x, a_y, *slopes = LENS.deflection_jacobian_at(operator.x, operator.y, start)
    rays = (operator.x - a_x)[0], (operator.y - a_y)[0]
    weights = torch.exp(-(rays[0] ** 2 + rays[1] ** 2) / 0.1)
    free = scene.free[: len(LENS.vector)]
    motion = GridMotion.following(GRID, [-slope[0] for slope in slopes], *rays, weights, free)
    x, y = GRID.nodes
    values = np.exp(-((x - 0.1) ** 2 + y**2) / 0.05)

    def make(step):
        change = torch.zeros(len(LENS.vector), dtype=torch.float64)
        change[GAMMA] = step
        state = FreeForm(motion.applied(GRID, change), scene, start + change, values, values, motion)
        return FineView(state, OBSERVATION, OPTIONS)

    return make


STEP = 1e-5


def slope_of(view_at, measure):
    return (measure(view_at(STEP)) - measure(view_at(-STEP))) / (2 * STEP)


def along_gamma(view):
    draw = np.zeros((GRID.size + view._moved.shape[0], 1))
    draw[GRID.size + GAMMA] = 1.0
    return draw


def test_the_grid_grows_with_the_slope(view_at):
    assert slope_of(view_at, lambda view: np.log(view.state.grid.half)) > 0.3


def test_the_image_changes_as_finite_differences_do(view_at):
    view = view_at(0.0)
    found = next(view.changes(along_gamma(view)))[1][0]
    expected = slope_of(view_at, lambda v: v.image(v.matrix @ v.state.values))
    # A ray that crosses a node has two slopes.
    assert np.isclose(found, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max()).mean() > 0.98


def test_the_source_changes_as_finite_differences_do(view_at):
    view = view_at(0.0)
    pixels = view.grid.nodes
    found = view.source_changes(along_gamma(view))[0].ravel()
    expected = slope_of(view_at, lambda v: v.state.rays(*pixels).matrix() @ v.state.values)
    same = np.isclose(found, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())
    # Pixels on the rim leave the grid, or enter it.
    assert same.reshape(view.grid.side, -1)[1:-1, 1:-1].mean() > 0.98


def test_the_magnification_changes_as_finite_differences_do(view_at):
    view = view_at(0.0)
    factor = Slope(GRID.size, GRID.size + view._moved.shape[0])
    view.magnification(factor, 1.0)
    expected = slope_of(view_at, lambda v: v.magnification(factor, 1.0)[0])
    assert factor.gradient[GRID.size + GAMMA] == pytest.approx(expected, rel=0.02)
