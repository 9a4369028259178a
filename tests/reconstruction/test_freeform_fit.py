"""How far a lens may go from its parametric fit."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from astropy.nddata import CCDData

from lenssr import SIE, Sersic, Shear, SuperResolver
from lenssr.grids import PixelGrid
from lenssr.imaging import Observation, render
from lenssr.reconstruction import decisions
from lenssr.reconstruction.freeform_fit import FreeFormFit, weighted_median
from lenssr.reconstruction.parametric import ParametricReconstruction
from lenssr.source.batching import alone

RADIUS, CENTRE, REACH = 1.0, 0.02, 0.1


@pytest.fixture(scope="module")
def fitted():
    """A ring, what the parametric fit says of it, and a function that inverts it from elsewhere."""
    grid, sigma = PixelGrid((40, 40), 0.08), 0.03
    lens = SIE(RADIUS, 0.1, -0.05, x_0=CENTRE) + Shear(0.02, -0.03)
    low = render(grid, lens=lens, source=Sersic(60.0, r_eff=0.2, n=1.0, x_0=0.05, y_0=-0.06))
    data = low + np.random.default_rng(3).normal(0, sigma, low.shape)
    image = Observation.from_any(CCDData(data, unit="electron"), noise=sigma, pixel_scale=0.08)
    settings = SuperResolver(source="pixelated", oversampling=1, prior="curvature", lens_light=None).settings
    parametric = ParametricReconstruction(settings)
    stack, scene, (fit,) = parametric.fit([image])

    def invert(**moved):
        physical = fit.physical.clone()
        for name, by in moved.items():
            physical[scene["lens"].names.index(name)] += by
        start = replace(fit, physical=physical)
        problem, solution = alone(FreeFormFit(stack, scene, start, image, settings).run())
        there = problem.physical(solution.parameters)[0, scene["lens"].slice]
        lower, upper = problem.bounds
        free = (solution.parameters > lower) & (solution.parameters < upper)
        return dict(zip(scene["lens"].names, there.tolist(), strict=True)), bool(free.all()), physical

    return invert


def test_a_lens_leaves_a_parametric_fit_that_is_off(fitted):
    lens, free, start = fitted(x_0_0=0.16)
    assert free
    assert lens["x_0_0"] == pytest.approx(CENTRE, abs=0.02)
    assert float(start[3]) - lens["x_0_0"] > REACH


def test_a_lens_that_is_unlikely_stays_where_it_is_flagged(fitted, monkeypatch):
    monkeypatch.setattr(decisions, "UNLIKELY_LENS", 0.0)
    lens, free, start = fitted(x_0_0=0.16)
    assert not free
    assert float(start[3]) - lens["x_0_0"] == pytest.approx(REACH)


@pytest.mark.parametrize("lens_light, reach", [("sersic", 1.0), (None, None)])
def test_the_halo_of_a_galaxy_makes_no_room_for_a_source(lens_light, reach):
    """A Sérsic that was fitted to arcs and halo is as large as the field."""
    grid, sigma = PixelGrid((60, 60), 0.1), 0.05
    lens = SIE(RADIUS, 0.1, -0.05) + Shear(0.02, -0.03)
    low = render(grid, lens=lens, source=Sersic(60.0, r_eff=0.2, n=1.0, x_0=0.3, y_0=-0.1))
    data = low + np.random.default_rng(3).normal(0, sigma, low.shape)
    image = Observation.from_any(CCDData(data, unit="electron"), noise=sigma, pixel_scale=0.1)
    settings = SuperResolver(source="pixelated", oversampling=1, lens_light=lens_light).settings
    parametric = ParametricReconstruction(settings)
    stack, scene, (fit,) = parametric.fit([image])
    physical = fit.physical.clone()
    physical[scene["lens"].slice] = lens.vector
    halo = render(grid, lens=lens, source=Sersic(300.0, r_eff=2.0, n=1.0, x_0=0.3, y_0=-0.1))
    lensed = torch.as_tensor((low + halo).ravel()).to(fit.lensed_source)
    found = FreeFormFit(stack, scene, replace(fit, physical=physical, lensed_source=lensed), image, settings)
    if reach is None:
        assert found.grid.half > 1.8 * RADIUS
    else:
        assert 0.8 * reach * RADIUS < found.grid.half < 1.1 * reach * RADIUS
        assert max(abs(found.grid.x_0 - 0.3), abs(found.grid.y_0 + 0.1)) + 0.4 < found.grid.half


def test_a_weighted_median_is_that_of_repeated_values():
    values, weight = np.array([3.0, 1.0, 2.0, 7.0]), np.array([1, 2, 1, 5])
    assert weighted_median(values, weight) == np.median(np.repeat(values, weight))
