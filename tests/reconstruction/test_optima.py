"""Other starts of a free lens, and what is told of the optima they lead to."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from lenssr.mass import SIE, Shear
from lenssr.model.scene import Scene
from lenssr.reconstruction.optima import Optimum, other_optima, other_starts

LENS = SIE(1.2) + Shear(0.0, 0.0)
WIDTHS = np.array([0.12, 0.2, 0.2, 0.1, 0.1, 0.1, 0.1])


class Problem:
    """What is asked of a problem: a free lens with priors, and a sky."""

    scene = Scene(lens=LENS, lens_free=True, lens_light=0, sky=True, source=0, extent=2.0)
    bounds = np.full(8, -0.5), np.full(8, 1.5)
    parameter_prior = np.zeros(8), np.array([0.0, *WIDTHS[1:] ** -2, 0.0])

    def physical(self, parameters):
        template = torch.cat([LENS.vector, torch.zeros(1)])[None].double()
        return self.scene.to_physical(torch.as_tensor(parameters)[None], template)


class Solution:
    """An end of an inversion whose lens is uncertain along one direction, by a share of the widths."""

    evidence = -100.0
    parameters = np.array([1.2, 0.1, 0.0, 0.02, -0.01, 0.03, 0.0, 0.5])

    def __init__(self, soft, error):
        soft = np.array(soft) / np.linalg.norm(soft)
        scaled = 1e-6 * np.eye(7) + error**2 * np.outer(soft, soft)
        self.parameter_covariance = np.eye(8)
        self.parameter_covariance[:7, :7] = scaled * np.outer(WIDTHS, WIDTHS)
        self.factor = self


@pytest.mark.parametrize(("error", "reach"), [(0.05, 0.25), (0.6, 1.0)])
def test_starts_lie_along_what_is_determined_worst(error, reach):
    soft = np.array([0, 0, 0, 0, 1, 0, -1])
    solution = Solution(soft, error)
    starts = other_starts(Problem(), solution, [])
    moved = np.array([start - solution.parameters for start in starts])
    assert len(starts) == 2
    np.testing.assert_allclose(moved[0], -moved[1], atol=1e-12)
    assert moved[0][4] * moved[0][6] < 0
    assert np.linalg.norm(moved[0][:7] / WIDTHS) == pytest.approx(reach, rel=1e-2)
    np.testing.assert_allclose(moved[0][[0, 1, 2, 3, 5, 7]], 0, atol=1e-3)


def test_rivals_within_the_bounds_are_starts():
    place = Problem().physical(Solution.parameters)[0]
    near, far = place.clone(), place.clone()
    near[0], far[0] = 1.1, 3.0
    starts = other_starts(Problem(), Solution([1, 0, 0, 0, 0, 0, 0], 0.05), [(3.0, near), (4.0, far)])
    assert len(starts) == 3
    assert starts[2][0] == 1.1
    assert starts[2][7] == Solution.parameters[7]


def test_another_lens_is_told_with_its_evidence():
    best = Optimum.of(Problem(), Solution([1, 0, 0, 0, 0, 0, 0], 0.05))
    within = replace(best, evidence=-101.0, lens=best.lens + 2 * np.sqrt(2 * best.variance))
    elsewhere = replace(best, evidence=-104.0, lens=best.lens + [0, 0, 0.1, 0, 0, 0, 0])
    rivals = other_optima(best, [best, within, elsewhere])
    assert rivals == [(8.0, elsewhere.physical)]
