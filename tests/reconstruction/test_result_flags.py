"""Every flag is set beyond its threshold, and not before, on runs that are made by hand."""

import ast
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import astropy.units as u
import numpy as np
import pytest
import torch
from astropy.wcs import WCS

import lenssr.imaging
from lenssr.grids import PixelGrid
from lenssr.imaging import PSF, Observation
from lenssr.imaging.sky import SkyNoise
from lenssr.mass import SIE
from lenssr.model.fit import Fit
from lenssr.model.scene import Scene
from lenssr.reconstruction.verdict import FLAGS, Run, arc_pixels, judge, lag_one
from lenssr.source import SourceGrid

SHAPE, PIXEL, THETA_E = (40, 40), 0.1, 0.8
LARGE = 1.2  # an Einstein radius that does not limit the grid of a source below
QUIET = SkyNoise(level=0.0, rms=1.0, rms_ratio=1.0, lag1=0.0, factor=1.0, pixels=500)
SETTINGS = SimpleNamespace(scale=2, oversampling="auto", psf_out=None)
SCENE = Scene(lens=SIE(THETA_E), lens_free=True, lens_light=1, sky=False, extent=2.0)
PLACES = {block.role: block.start for block in SCENE.blocks}
BLOCK = np.zeros(SHAPE)
BLOCK[10:30, 10:30] = 1.0  # 400 pixels, many enough for 5 sigma to lie below the thresholds of chi2
BOARD = np.indices(SHAPE).sum(0) % 2 * 2.0 - 1


def on_the_sky(grid):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.cdelt = ["RA---TAN", "DEC--TAN"], [-PIXEL / 3600, PIXEL / 3600]
    wcs.wcs.set()
    return PixelGrid(grid.shape, grid.pixel_scale, wcs)


def seen(data, **options):
    options = {"noise": 1.0, "unit": "electron/s", "pixel_scale": PIXEL, **options}
    return Observation.from_any(np.asarray(data, dtype=float), **options)


def fit_of(physical, covariance, source, model, **changes):
    planes = {"model": model, "lensed_source": source, "weight": np.ones(model.shape)}
    return Fit(
        physical=physical,
        covariance=covariance,
        **{name: torch.as_tensor(plane.ravel()) for name, plane in planes.items()},
        **{
            "chi2": 0.0,
            "converged": True,
            "at_bound": (),
            "iterations": 9,
            "constraints": None,
            "leverage": torch.zeros(model.size, dtype=torch.float64),
            **changes,
        },
    )


def make(
    source=8 * BLOCK,
    residual=None,
    *,
    theta_E=THETA_E,
    r_eff=0.2,
    error=1e-3,
    degrees=None,
    facts=(),
    flags=(),
    noise=None,
    settings=None,
    image=None,
    sky=True,
    light_off=0.0,
    light_e=0.0,
    **fit,
):
    """A run that nothing is wrong with, but for what is changed: its noise is 1, its model the source."""
    residual = BOARD if residual is None else residual
    observation = seen(source + residual, psf=PSF.from_fwhm(0.3 * u.arcsec)) if image is None else image
    grid = on_the_sky(observation.grid) if sky else observation.grid
    observation = replace(observation, grid=grid, flags=tuple(flags))
    physical = torch.full((SCENE.size,), 0.1, dtype=torch.float64)
    physical[0], physical[PLACES["source"] + 1] = theta_E, r_eff
    physical[1:5] = 0.0
    physical[PLACES["lens_light"] + 3 : PLACES["lens_light"] + 5] = torch.tensor([0.6, 0.8]) * light_off
    physical[PLACES["lens_light"] + 5 : PLACES["lens_light"] + 7] = torch.tensor([0.6, 0.8]) * light_e
    covariance = torch.eye(SCENE.size, dtype=torch.float64) * error**2
    model = observation.data - residual
    return Run(
        observation,
        SimpleNamespace(**{**vars(SETTINGS), **(settings or {})}),
        model,
        np.ones(model.shape),
        model.size if degrees is None else degrees,
        dict.fromkeys(facts, True),
        scene=SCENE,
        fit=fit_of(physical, covariance, source, model, **fit),
        noise=replace(QUIET, **(noise or {})),
    )


def two_lights(apart):
    """A run with two parts of the lens light, so many arcsec apart."""
    run, scene = make(), Scene(lens=SIE(THETA_E), lens_free=True, lens_light=2, sky=False, extent=2.0)
    physical = torch.full((scene.size,), 0.1, dtype=torch.float64)
    physical[0], physical[1:5] = THETA_E, 0.0
    for block, x in zip(scene.lights, (0.0, apart), strict=True):
        physical[block.start + 3 : block.start + 7] = torch.tensor([x, 0.0, 0.0, 0.0])
    covariance = torch.eye(scene.size, dtype=torch.float64) * 1e-6
    source = run.fit.lensed_source.reshape(SHAPE).numpy()
    return replace(run, scene=scene, fit=fit_of(physical, covariance, source, run.model))


def on_grid(rim=0.0, beyond=0.0, radius=0.2, **changes):
    """A run with a source on a grid of 2" through which rays go straight; light on its rim, or beside it."""
    grid = SourceGrid(0.0, 0.0, 1.0, 21)
    residual = np.zeros(SHAPE)
    residual[19:21, 35:37] = beyond / 2  # four pixels, 1.6" from the centre
    run = make(residual=residual, **changes)
    nodes = np.hypot(*grid.nodes)
    values = np.where(nodes <= nodes.max() - 1e-9, 0.0, rim)  # the corners
    off = np.abs(nodes - radius)
    ring = (off < off.min() + 1e-9).astype(float)
    problem = SimpleNamespace(
        grid_at=lambda parameters: grid,
        scene=SimpleNamespace(source_positions=lambda x, y, physical: (x[None], y[None])),
        physical=lambda parameters: None,
        lensed_source=lambda values, parameters: np.full(run.weight.size, values.max()),
        node_brightness=lambda values, parameters: ring,
    )
    return replace(run, inversion=(problem, SimpleNamespace(parameters=None, values=values)))


def striped(correlation, region, side=60):
    """Residuals whose neighbours in a region correlate by this much, exactly."""
    board = np.indices((side, side)).sum(0) % 2 * 2.0 - 1
    one, other = np.sqrt((1 + correlation) / 2), np.sqrt((1 - correlation) / 2)
    return {"source": 10.0 * region, "residual": np.where(region, one + other * board, 0.0)}


def spot(value, *place):
    plane = np.zeros(SHAPE)
    plane[place] = value
    return plane


def full(count):
    data = 0.1 * np.arange(1600.0).reshape(SHAPE) / 1600
    data.flat[:count] = 11.0
    return seen(data, psf=PSF.from_fwhm(0.3 * u.arcsec))


def blurred(samples):
    x = np.arange(-10, 11)
    profile = np.exp(-4 * np.log(2) * x**2 / samples**2)
    return seen(10 * BLOCK + BOARD, psf=PSF(np.outer(profile, profile)))


EVERYWHERE = np.ones((60, 60), dtype=bool)
INSIDE, OUTSIDE = (22, 22), (20, 38)  # of the critical curve, 0.35" and 1.85" from the centre
DARK = np.zeros(SHAPE)
BY_HAND = seen(10 * BLOCK + BOARD)
OBSERVED = replace(BY_HAND, meta={**BY_HAND.meta, "TELESCOP": "HST"})

# By flag: a run that has it, and runs that do not. All numbers are stated here, not read from the package.
CASES = {
    "bad_chi2": (
        make(residual=1.21**0.5 * BOARD),
        make(residual=1.19**0.5 * BOARD),
        make(residual=1.7**0.5 * BOARD, noise={"factor": 5.0}),  # 5 sigma of 1600 / 25 pixels are 0.88
        make(residual=3 * BOARD, facts=["interpolated"]),
    ),
    "bad_arc_chi2": (
        make(residual=1.41**0.5 * BLOCK * BOARD),
        make(residual=1.39**0.5 * BLOCK * BOARD),
        make(source=spot(9.0, 5, slice(0, 11)), residual=spot(9.0, 5, slice(0, 11))),  # 11 pixels are too few
    ),
    "bad_field_chi2": (
        make(residual=1.21**0.5 * (1 - BLOCK) * BOARD),
        make(residual=1.19**0.5 * (1 - BLOCK) * BOARD),
    ),
    "low_chi2": (make(residual=0.79**0.5 * BOARD), make(residual=0.81**0.5 * BOARD)),
    "residual_structure": (
        make(**striped(0.11, EVERYWHERE)),
        make(**striped(0.09, EVERYWHERE)),
        make(source=10 * BLOCK, residual=striped(0.19, BLOCK > 0, 40)["residual"]),  # 4 sigma are 0.2
    ),
    "not_converged": (make(converged=False), make()),
    "lens_at_bound": (make(at_bound=(0,)), make(at_bound=(PLACES["source"], PLACES["lens_light"]))),
    "source_at_bound": (make(at_bound=(PLACES["source"] + 6,)), make(at_bound=(4, PLACES["lens_light"]))),
    "lens_light_at_bound": (make(at_bound=(PLACES["lens_light"],)), make(at_bound=(0, PLACES["source"]))),
    "starts_disagree": (make(modes=[(900.0, None), (24.9, None)]), make(modes=[(25.1, None)]), make()),
    "theta_E_uncertain": (make(error=0.101 * THETA_E), make(error=0.099 * THETA_E)),
    "theta_E_imprecise": (make(error=0.0168 * THETA_E), make(error=0.0166 * THETA_E)),
    "no_arcs": (
        make(source=spot(1.98, slice(5), slice(5))),  # times 5, the root of the number of pixels
        make(source=spot(2.02, slice(5), slice(5))),
        make(source=spot(4.04, slice(5), slice(5)), noise={"factor": 2.0}),
    ),
    "not_multiply_imaged": (
        make(source=spot(4.9, *INSIDE) + spot(99.0, *OUTSIDE)),
        make(source=spot(5.1, *INSIDE) + spot(99.0, *OUTSIDE)),
    ),
    "brightest_image_hidden": (
        make(source=spot(71.0, *INSIDE) + spot(29.0, *OUTSIDE)),
        make(source=spot(69.0, *INSIDE) + spot(31.0, *OUTSIDE)),
        make(source=DARK),
    ),
    "mass_off_light": (
        make(light_off=0.121),
        make(light_off=0.119),
    ),
    "lights_apart": (two_lights(0.51 * THETA_E), two_lights(0.49 * THETA_E), make()),
    "lens_unlike_light": (make(light_e=0.301), make(light_e=0.299), make(light_e=-0.299)),
    "ring_unresolved": (make(theta_E=0.199), make(theta_E=0.201)),
    "source_off_grid": (
        on_grid(rim=8.1, theta_E=LARGE),
        on_grid(rim=7.9, theta_E=LARGE),
        on_grid(beyond=7.9, theta_E=LARGE),
        on_grid(beyond=8.1, theta_E=LARGE, noise={"factor": 1.1}),
        on_grid(beyond=8.1, theta_E=LARGE, noise={"rms_ratio": 1.1}),
        on_grid(rim=8.1),
        make(),
    ),
    "source_cut": (on_grid(rim=8.1), on_grid(rim=7.9), on_grid(rim=8.1, theta_E=LARGE), make()),
    "galaxy_in_source": (
        make(light_off=0.121, error=0.0168 * THETA_E),
        make(light_off=0.119, error=0.0168 * THETA_E),
        make(light_off=0.121, error=0.0166 * THETA_E),
        on_grid(rim=8.1),
        on_grid(rim=7.9, light_off=0.121),
        on_grid(rim=8.1, theta_E=LARGE, light_off=0.121),  # off its grid, not cut
    ),
    "source_too_large": (make(r_eff=1.01 * THETA_E), make(r_eff=0.99 * THETA_E), on_grid(radius=0.75)),
    "flux_disagrees": (
        make(source=10 * BLOCK, residual=0.51 * BLOCK),
        make(source=10 * BLOCK, residual=0.49 * BLOCK),
        make(source=4 * BLOCK, residual=0.24 * BLOCK),  # 96, and 5 sigma are 100
        make(source=DARK),
    ),
    "saturated": (make(image=full(4)), make(image=full(3)), make(source=DARK)),
    "correlated_noise": (make(noise={"lag1": 0.151}), make(noise={"lag1": 0.149})),
    "errors_too_small": (make(noise={"rms_ratio": 1.31}), make(noise={"rms_ratio": 1.29})),
    "no_psf": (make(image=BY_HAND), make(), make(image=BY_HAND, settings={"oversampling": 1})),
    "telescope_without_psf": (
        make(image=OBSERVED),
        make(image=BY_HAND),
        make(image=OBSERVED, settings={"oversampling": 1}),
    ),
    "psf_undersampled": (
        make(image=blurred(1.8)),
        make(image=blurred(2.3)),
        make(image=blurred(1.8), settings={"scale": 1}),
        make(image=blurred(1.8), settings={"psf_out": "pixel"}),
        make(image=BY_HAND),
    ),
    "extrapolated": (
        make(settings={"psf_out": "pixel"}),
        make(settings={"psf_out": 0.1 * u.arcsec}),
        make(image=BY_HAND, settings={"psf_out": "pixel"}),
    ),
    "no_wcs": (make(sky=False), make()),
}
# What an observation notes, and what whoever solved it knows.
NOTED = (
    "small_image constant_image hdu_guessed gain_guessed noise_guessed noise_from_exposure "
    "errors_follow_counts psf_cropped psf_off_centre unit_missing failed weight_guessed mask_guessed "
    "psf_place_guessed errors_missing border_without_data single_exposure cosmic_rays cosmic_rays_masked "
    "posterior_not_gaussian left_out down_weighted pointing_off"
).split()
FACTS = ["interpolated", "not_relensed", "unlike_training"]
ALSO = {
    "source_off_grid": [
        on_grid(beyond=8.1, theta_E=LARGE),
        on_grid(beyond=8.1, theta_E=LARGE, noise={"rms_ratio": 0.9}),
    ],
    "source_cut": [on_grid(beyond=8.1)],
    "source_too_large": [on_grid(radius=1.25), on_grid(r_eff=1.01 * THETA_E)],
    "bad_chi2": [
        make(residual=1.9**0.5 * BOARD, noise={"factor": 5.0}),
        make(residual=np.nan * BOARD, image=BY_HAND),
    ],
    "low_chi2": [make(residual=np.nan * BOARD, image=BY_HAND)],
    "correlated_noise": [make(noise={"lag1": np.nan})],
    "ring_unresolved": [make(theta_E=np.nan)],
}


def test_every_flag_is_tested():
    assert sorted([*CASES, *NOTED, *FACTS]) == sorted(FLAGS)


@pytest.mark.parametrize("name", CASES)
def test_a_flag_is_set_beyond_its_threshold(name):
    has, *lack = CASES[name]
    assert name in judge(has).flags
    assert [name in judge(run).flags for run in lack] == [False] * len(lack)


@pytest.mark.parametrize("name", ALSO)
def test_a_flag_is_also_set(name):
    assert all(name in judge(run).flags for run in ALSO[name])


@pytest.mark.parametrize("name", NOTED)
def test_what_an_observation_notes_is_a_flag(name):
    assert judge(make(flags=[name])).flags == (name,)


@pytest.mark.parametrize(
    ("flags", "grade"),
    [
        ((), "secure"),
        (("errors_missing", "psf_cropped"), "secure"),
        (("errors_missing", "noise_guessed"), "probable"),
        (("noise_guessed", "left_out"), "doubtful"),
        (("left_out", "constant_image"), "failed"),
    ],
)
def test_the_grade_is_the_worst_that_a_flag_leaves(flags, grade):
    verdict = judge(make(flags=flags))
    assert set(verdict.flags) == set(flags) and verdict.grade == grade


@pytest.mark.parametrize("name", FACTS)
def test_what_is_known_of_the_way_is_a_flag(name):
    assert judge(make(facts=[name])).flags == (name,)
    assert judge(replace(make(), facts={name: False})).flags == ()


def test_everything_that_is_noted_has_a_flag():
    """Names that the code of the room notes: flags.append("..."), guess("..."), self.flags = ("...",)."""
    found = set()
    for path in Path(lenssr.imaging.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            if called.endswith(("flags.append", ".guess")) and isinstance(node.args[0], ast.Constant):
                found.add(node.args[0].value)
            elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "self.flags":
                found |= set(ast.literal_eval(node.value))
    assert "psf_off_centre" in found and "hdu_guessed" in found
    assert found <= set(NOTED)


def test_neighbours_of_white_noise_do_not_correlate(rng):
    pulls = rng.normal(size=(60, 60))
    assert abs(lag_one(pulls, np.ones((60, 60), dtype=bool))) < 0.05


def test_neighbours_of_smooth_residuals_correlate(rng):
    pulls = np.kron(rng.normal(size=(12, 12)), np.ones((5, 5)))
    region = np.ones(pulls.shape, dtype=bool)
    assert lag_one(pulls, region) == pytest.approx(0.8, abs=0.08)
    assert lag_one(pulls.T, region) == pytest.approx(lag_one(pulls, region))
    # A checkerboard is the opposite, and opposite edges are no neighbours.
    board = np.indices((6, 7)).sum(0) % 2 * 2.0 - 1
    assert lag_one(board, np.ones(board.shape, dtype=bool)) == pytest.approx(-1)
    edges = np.zeros((6, 7), dtype=bool)
    edges[[0, -1]] = True
    stripes = np.tile(np.arange(7) % 2 * 2.0 - 1, (6, 1))
    assert lag_one(stripes, edges) == pytest.approx(-1)


def test_a_region_without_neighbours_has_no_correlation():
    region = np.zeros((5, 5), dtype=bool)
    region[2, 2] = True
    assert lag_one(np.ones((5, 5)), region) == 0.0


def test_arcs_are_where_the_lensed_source_stands_out():
    source = np.array([[0.0, 0.29, 0.31, 5.0]])
    weight = np.array([[100.0, 100.0, 100.0, 0.0]])
    assert arc_pixels(source, weight).tolist() == [[False, False, True, False]]
