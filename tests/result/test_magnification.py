"""The total magnification, against rays shot by another code, and against draws."""

import numpy as np
import pytest
import torch
from astropy.io import fits
from scipy.interpolate import RegularGridInterpolator

from lenssr.reconstruction.fine_images import FineScene
from lenssr.source import SourceGrid

SIDE, STEP = 4.8, 0.008


@pytest.fixture(scope="module")
def rays(solve):
    """Where a fine grid of rays lands behind the true lens, by lenstronomy."""
    models = pytest.importorskip("lenstronomy.LensModel.lens_model")
    sie, shear = solve.lens
    values = {name: float(getattr(sie, name).value) for name in ("theta_E", "e1", "e2")}
    centre = {"center_x": float(sie.x_0.value), "center_y": float(sie.y_0.value)}
    field = {"gamma1": float(shear.gamma1.value), "gamma2": float(shear.gamma2.value)}
    line = np.arange(-SIDE, SIDE, STEP) + STEP / 2
    x, y = (axis.ravel() for axis in np.meshgrid(line, line))
    return models.LensModel(["SIE", "SHEAR"]).ray_shooting(x, y, [{**values, **centre}, field])


def magnification(brightness, flux, rays):
    return brightness(*rays).sum() * STEP**2 / flux


def test_of_a_profile_equals_rays_of_lenstronomy(solve, rays):
    result = solve("sersic", lens=solve.lens, fit_lens=False)
    found = result.source_model
    x, y = (axis * found.x_0.unit for axis in rays)
    expected = magnification(lambda *_: found(x, y).value, float(found.flux.value), rays)
    assert result.magnification == pytest.approx(expected, rel=2e-3)


def test_of_a_grid_equals_rays_of_lenstronomy(solve, rays):
    source = solve("pixelated", lens=solve.lens, fit_lens=False).source
    scale, side = source.meta["pixel_scale"], source.shape[0]
    line = (np.arange(side) - (side - 1) / 2) * scale
    axes = line + source.meta["y_0"], line + source.meta["x_0"]
    inside = RegularGridInterpolator(axes, source.data, bounds_error=False, fill_value=0.0)
    expected = magnification(lambda x, y: inside((y, x)), source.data.sum() * scale**2, rays)
    result = solve("pixelated", lens=solve.lens, fit_lens=False)
    assert result.magnification == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("source", ["sersic", "pixelated"])
def test_it_is_near_the_truth(solve, rays, source):
    result = solve(source, lens=solve.lens, fit_lens=False)
    truth = magnification(solve.source, float(solve.source.flux), rays)
    assert result.magnification == pytest.approx(truth, rel=0.05)
    assert 0 < result.magnification_error < 0.05 * truth
    if source == "sersic":
        assert abs(result.magnification - truth) < 4 * result.magnification_error


def test_error_of_a_profile_is_the_scatter_of_its_parameters(solve, rng):
    result = solve("sersic", lens=solve.lens, fit_lens=True)
    posterior = result.posterior
    covariance = posterior.covariance.numpy()
    moves = rng.multivariate_normal(np.zeros(len(covariance)), covariance, 100, method="eigh")
    drawn = [_moved(posterior, move) for move in moves]
    assert np.std(drawn) == pytest.approx(result.magnification_error, rel=0.25)


def _moved(posterior, move):
    physical = posterior.physical + posterior.physical.new_tensor(move)
    none = torch.zeros_like(posterior.covariance)
    fine = FineScene(posterior.scene, physical, none, posterior.observation, scale=1, oversampling=2)
    root = fine.root_covariance()
    return fine.magnification(root.new_zeros(len(root)), fine.lensed_flux())[0]


def test_error_of_a_grid_is_the_scatter_of_draws(solve, rays):
    result = solve("pixelated", lens=solve.lens, fit_lens=False)
    meta, side = result.source.meta, result.source.shape[0]
    half = (side - 1) / 2 * meta["pixel_scale"]
    seen = SourceGrid(meta["x_0"], meta["y_0"], half, side).matrix(*rays).sum(axis=0) * STEP**2
    drawn = result.sample(400).source.value.reshape(400, -1)
    scatter = np.std(drawn @ seen / drawn.sum(axis=1)) / meta["pixel_scale"] ** 2
    assert scatter == pytest.approx(result.magnification_error, rel=0.15)


def test_a_free_lens_makes_it_less_certain(solve):
    known, free = (solve("pixelated", lens=solve.lens, fit_lens=fit) for fit in (False, True))
    assert free.magnification_error > known.magnification_error


def test_header_and_text_say_on_what_it_depends(solve, tmp_path):
    result = solve("sersic", lens=solve.lens, fit_lens=False)
    result.write(tmp_path / "out.fits")
    header = fits.getheader(tmp_path / "out.fits", "SCI")
    assert header["MAGNIF"] == result.magnification
    assert header["MAGNERR"] == result.magnification_error
    assert "conditional on the mass family" in " ".join(header["COMMENT"])
    line = next(line for line in result.summary().splitlines() if line.startswith("magnification"))
    assert "+-" in line and "conditional on the family of the mass model" in line


def test_without_a_lens_there_is_none(solve, tmp_path):
    result = solve("interpolation")
    result.write(tmp_path / "out.fits")
    assert np.isnan(result.magnification)
    assert "MAGNIF" not in fits.getheader(tmp_path / "out.fits", "SCI")
    assert "magnification" not in result.summary()
