"""The posterior of a band when other bands know the lens too: against whole matrices."""

import numpy as np
import pytest

from lenssr.source import BoundFactor, Factor

NODES, WIDTH, PARAMETERS, LENS = 12, 3, 4, 2


@pytest.fixture
def pieces(rng):
    """A `Factor`, its whole matrix, and the information that others have of the first two parameters."""
    half = rng.normal(size=(NODES + PARAMETERS, 40))
    whole = half @ half.T / 40 + np.eye(NODES + PARAMETERS)
    rows, columns = np.indices((NODES, NODES))
    whole[:NODES, :NODES] *= np.abs(rows - columns) <= WIDTH
    whole[:NODES, :NODES] += 3 * np.eye(NODES)
    band = np.zeros((WIDTH + 1, NODES), order="F")
    for k in range(WIDTH + 1):
        band[k, : NODES - k] = np.diagonal(whole[:NODES, :NODES], -k)
    factor = Factor(band, whole[:NODES, NODES:].copy(), whole[NODES:, NODES:].copy())
    others = np.array([[2.0, 0.7], [0.7, 3.0]])
    return factor, whole, others


def bound_of(factor, whole, others):
    lens = slice(NODES, NODES + LENS)
    alone = np.linalg.inv(whole)[lens, lens]
    joint = whole.copy()
    joint[lens, lens] += others
    return BoundFactor(factor, np.linalg.inv(np.linalg.inv(alone) + others)), np.linalg.inv(joint)


def test_its_covariance_is_that_of_the_joint_matrix(pieces):
    bound, expected = bound_of(*pieces)
    np.testing.assert_allclose(bound.solve(np.eye(len(expected))), expected, atol=1e-10)
    np.testing.assert_allclose(bound.parameter_covariance, expected[NODES:, NODES:], atol=1e-10)
    np.testing.assert_allclose(bound.node_variances(), np.diagonal(expected)[:NODES], atol=1e-10)


def test_its_draws_have_that_covariance(pieces):
    """Draws are linear in the normals: those of the unit vectors are a root of the covariance."""
    bound, expected = bound_of(*pieces)
    root = bound.sample(np.eye(len(expected)))
    np.testing.assert_allclose(root @ root.T, expected, atol=1e-10)
