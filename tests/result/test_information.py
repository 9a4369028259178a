"""What is data and what is prior in a source on a grid."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.spatial import KDTree

from lenssr.grids import PixelGrid
from lenssr.light import Sersic
from lenssr.result import SuperResolution
from lenssr.source import Prior, evidence
from lenssr.source.evidence import leverage
from lenssr.source.linalg import Factor


def lower_band(matrix):
    """All of a symmetric matrix as LAPACK has a lower band."""
    return np.stack([np.pad(np.diagonal(matrix, -k), (0, k)) for k in range(len(matrix))])


@pytest.fixture(scope="module")
def half(solve):
    """Most of the image hidden, and a prior that guesses little."""
    rows, columns = np.indices(solve.shape)
    return solve("pixelated", lens=solve.lens, prior="gradient", mask=rows < columns + 8)


@pytest.mark.parametrize("parameters", [0, 3])
@pytest.mark.parametrize(("size", "width"), [(50, 7), (49, 7), (30, 29), (20, 0)])
def test_variances_are_the_diagonal_of_the_inverse(size, width, parameters, rng):
    matrix = np.tril(np.triu(rng.normal(size=(size, size)), -width)) * 0.2
    matrix = matrix + matrix.T + np.eye(size) * (4 + width)
    band = lower_band(matrix)[: width + 1]
    cross, corner = rng.normal(size=(size, parameters)), size * np.eye(parameters)
    factor = Factor(band, cross, corner)
    whole = np.linalg.inv(np.block([[matrix, cross], [cross.T, corner]]))
    np.testing.assert_allclose(factor.node_variances(), np.diagonal(whole)[:size], rtol=1e-10)


@pytest.mark.parametrize("parameters", [0, 2])
def test_leverage_is_the_diagonal_of_the_hat_matrix(parameters, rng, monkeypatch):
    matrix, jacobian = rng.normal(size=(12, 8)), rng.normal(size=(12, parameters))
    weight, slope = rng.uniform(0, 2, 12) * (np.arange(12) > 2), rng.uniform(0.5, 2, 8)
    both = np.concatenate([matrix * slope, jacobian], axis=1)
    curvature = both.T @ (weight[:, None] * both) + np.eye(8 + parameters)
    factor = Factor(lower_band(curvature[:8, :8]), curvature[:8, 8:], curvature[8:, 8:])
    problem = SimpleNamespace(
        weight=weight,
        jacobian=lambda values, parameters: jacobian,
        lensed_source=lambda values, parameters: matrix @ values,
    )
    solution = SimpleNamespace(factor=factor, slope=slope, values=slope, parameters=np.zeros(parameters))
    expected = weight * np.einsum("ij,jk,ik->i", both, np.linalg.inv(curvature), both)
    # The few draws of a run are enough for the sum over a region; for a pixel it takes more.
    assert leverage(problem, solution).sum() == pytest.approx(expected.sum(), rel=0.25)
    monkeypatch.setattr(evidence, "DRAWS", 20_000)
    np.testing.assert_allclose(leverage(problem, solution), expected, rtol=0.06)


def test_it_is_a_share(half):
    assert half.information.shape == half.source.shape
    assert 0 <= half.information.min() < 0.4
    assert 0.6 < half.information.max() <= 1


def test_the_source_is_masked_where_it_is_prior(half):
    np.testing.assert_array_equal(half.source.mask, half.information < 0.5)
    assert 0 < half.source.mask.mean() < 1


def test_it_follows_from_draws_and_prior(half):
    """In the middle of the grid, where source pixels are nodes, for a source with one node per pixel."""
    state, strength = half.posterior.ready.state, half.meta["strength"]
    prior = Prior("gradient", state.grid.side).local_variance / strength
    factor = half.posterior.ready.factor()
    draws = factor.sample(np.random.default_rng(0).normal(size=(factor.size, 2000)))
    expected = np.clip(1 - draws[: factor.count].var(axis=1) / prior, 0, 1)
    grid = half.posterior.ready.state.grid
    side = half.information.shape[0]
    even = np.linspace(-grid.half, grid.half, side) * (1 - 1e-12)
    y, x = np.meshgrid(even + grid.y_0, even + grid.x_0, indexing="ij")
    expected = grid.matrix(x.ravel(), y.ravel()) @ expected
    np.testing.assert_allclose(half.information.ravel(), expected, atol=0.1)


def test_fewer_data_know_less(solve, half):
    whole = solve("pixelated", lens=solve.lens, prior="gradient")
    assert np.median(whole.information) > np.median(half.information)


@pytest.mark.parametrize("prior", ["curvature", "curvature+laplacian3", "laplacian3"])
def test_a_hidden_arc_is_prior(solve, prior):
    """Known where an arc is seen; where no ray lands that is seen, the prior only continues it."""
    rows, columns = np.indices(solve.shape)
    result = solve("pixelated", lens=solve.lens, prior=prior, mask=rows < columns + 8)
    state, grid = result.posterior.ready.state, result.posterior.ready.state.grid
    seen = PixelGrid(solve.shape, 0.1)
    x, y = (torch.as_tensor(axis[rows >= columns + 8]) for axis in (seen.x, seen.y))
    landed = [axis[0].numpy() for axis in state.scene.source_positions(x, y, state.physical)]
    side = result.information.shape[0]
    line = np.linspace(-grid.half, grid.half, side)
    node_y, node_x = np.meshgrid(line + grid.y_0, line + grid.x_0, indexing="ij")
    distance = KDTree(np.stack(landed, axis=1)).query(np.stack([node_x, node_y], axis=-1))[0]
    far, bright = distance > 0.1 * grid.half, result.source.data > 0.3 * result.source.data.max()
    assert np.median(result.information[bright & ~far]) > 0.8
    assert np.median(result.information[far]) < 0.5


def test_a_profile_has_none(solve):
    result = solve("sersic", lens=solve.lens, fit_lens=False)
    assert result.information is None
    assert result.source.mask is None
    assert isinstance(result.source_model, Sersic)


def test_it_survives_the_file(half, tmp_path):
    half.write(tmp_path / "out.fits")
    again = SuperResolution.read(tmp_path / "out.fits")
    np.testing.assert_array_equal(again.information, half.information)
    np.testing.assert_array_equal(again.source.mask, half.source.mask)


def test_the_figure_hatches_the_prior(half, solve, panels):
    def notes(result):
        return [text.get_text() for text in panels(result.plot())["source"].texts]

    assert "hatched: prior, not data" in notes(half)
    assert "hatched: prior, not data" not in notes(solve("sersic", lens=solve.lens, fit_lens=False))
