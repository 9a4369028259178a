"""Images of a batch of lenses, and their inversions: bands or whole matrices, alone or together."""

import astropy.units as u
import numpy as np
import pytest
import torch
from scipy.interpolate import RegularGridInterpolator
from scipy.signal import fftconvolve
from torch.overrides import TorchFunctionMode

from lenssr import EPL, SIE, Sersic, Shear
from lenssr.grids import PixelGrid
from lenssr.imaging import PSF, GaussianNoise
from lenssr.model.fit import Constraints
from lenssr.model.image_stack import ImageStack
from lenssr.model.scene import Scene
from lenssr.source import (
    ForwardModel,
    Prior,
    Problem,
    Request,
    SourceGrid,
    View,
    answer_together,
    batching,
    gauss_newton,
    linalg,
    solve,
    solve_batch,
)

GRID = PixelGrid((18, 17), 0.15)
KERNEL = PSF.from_fwhm(0.25 * u.arcsec).kernel(0.15)
FINE_KERNEL = PSF.from_fwhm(0.25 * u.arcsec).kernel(0.05)
LENS = SIE(0.8, 0.1, -0.05) + Shear(0.02, 0.01)
SLOPED = EPL(0.8, 1.9, 0.1, -0.05) + Shear(0.02, 0.01)
SOURCE = Sersic(20.0, r_eff=0.2, n=1.2, x_0=0.1, y_0=-0.05, e1=0.1, e2=0.0)
LIGHT = Sersic(30.0, r_eff=0.3, n=2.0, e1=0.1, e2=0.0)
SIDE, SIGMA = 10, 0.1

CASES = {
    "sharp": {},
    "sharp, lens free": {"free": True, "oversampling": 1},
    "behind a PSF": {"kernel": KERNEL, "surface_brightness": True},
    "behind a PSF, lens and light free": {
        "kernel": KERNEL,
        "free": True,
        "lights": 1,
        "oversampling": "auto",
    },
    "a slope free": {"lens": SLOPED, "free": True, "oversampling": 1},
    "behind a fine PSF": {"kernel": FINE_KERNEL, "kernel_subsampling": 3, "oversampling": 3},
    "PSF with pixel": {
        "kernel": FINE_KERNEL,
        "kernel_subsampling": 3,
        "oversampling": 3,
        "includes_pixel": True,
    },
    "a Sérsic times a field": {"modulated": True, "free": True},
    "nothing but the source": {"sky": False},
}


def problem_of(
    seed,
    *,
    lens=LENS,
    free=False,
    lights=0,
    modulated=False,
    sky=True,
    kernel=None,
    oversampling=2,
    **options,
):
    """An image that the seed makes: its lens, source and noise differ from those of other seeds."""
    rng = np.random.default_rng(seed)
    whole = Scene(lens=lens, lens_free=free, lens_light=lights, sky=sky, extent=1.5)
    scene = Scene(lens=lens, lens_free=free, lens_light=lights, sky=sky, extent=1.5, source=int(modulated))
    parts = [lens.vector, SOURCE.vector] + [LIGHT.vector] * lights
    parts += [torch.tensor([0.03], dtype=torch.float64)] * sky
    physical = torch.cat(parts) * torch.as_tensor(rng.normal(1, 0.03, whole.size))
    sigma = SIGMA / (GRID.pixel_area if options.get("surface_brightness") else 1)
    noise = rng.normal(0, sigma, (1, *GRID.shape))
    stack = ImageStack(
        noise,
        rng.random(noise.shape) > 0.05,
        [GaussianNoise(sigma)],
        GRID,
        kernel,
        oversampling=oversampling,
        **options,
    )
    fine = stack
    if oversampling == "auto":
        light = {"physical": physical[None], "roles": ("lens_light",)}
        fine = stack.select([0], refine=lambda x, y: whole.brightness(x, y, **light)[0])
    fine.data = fine.data + fine.image(whole, physical[None])
    stack.data = fine.data
    source = whole["source"].slice
    kept = torch.ones(whole.size, dtype=torch.bool)
    kept[source] = modulated
    start, constraints = physical[kept], Constraints.of(scene, 1)
    constraints.mean[:] = torch.where(scene.log, start.log(), start)
    constraints.stiffness[:] = 400.0
    constraints.stiffness[:, scene.size - 1 :] = 0.0 if sky else 400.0
    x, y = (
        axis[0].numpy() for axis in whole.source_positions(fine.operator.x, fine.operator.y, physical[None])
    )
    inside = np.hypot(x - 0.1, y + 0.05) < 0.6
    grid = SourceGrid.around(x[inside], y[inside], SIDE, 0.5)
    weight = torch.where(fine.valid[0], sigma**-2, 0.0).double().numpy()
    rays = stack.operator.x, stack.operator.y
    anchor = np.random.default_rng(seed).random(len(rays[0]))
    views = [View(stack, fine, weight, np.zeros(len(weight)))]
    return Problem(views, scene, start, constraints, grid, anchor, floor=0.1)


def start_of(problem, seed=0):
    """Field and parameters to begin with."""
    field = np.random.default_rng(seed).normal(0, 0.2, problem.grid.size)
    return field, problem.start()


@pytest.fixture
def whole_matrices(monkeypatch):
    """Nothing is left out of a band."""
    monkeypatch.setattr(linalg, "DROPPED", 0.0)


def requests_of(problems, **options):
    return [Request(p, Prior("curvature", SIDE), None, *start_of(p), options) for p in problems]


def tensors(problems):
    """The forward model of some problems, and source and parameters (B, n), (B, K) to look at."""
    field, parameters = (np.stack(parts) for parts in zip(*map(start_of, problems), strict=True))
    return ForwardModel(problems), torch.as_tensor(np.exp(field)), torch.as_tensor(parameters * 1.01)


def test_an_image_is_the_interpolated_source_behind_lens_and_telescope():
    """Against interpolation, integration and convolution by scipy."""
    problem = problem_of(1, sky=False, kernel=KERNEL, oversampling=8)
    values = np.exp(start_of(problem)[0])
    # The PSF scatters light in from beyond the frame, where the field is modelled as well.
    margin = problem.views[0].stack.operator.margin
    grid, fine = problem.grid, GRID.padded(margin).upsample(8)
    x, y = (torch.as_tensor(axis.ravel()) for axis in (fine.x, fine.y))
    rays = [axis[0].numpy() for axis in problem.scene.source_positions(x, y, problem.template)]
    lines = grid.offsets + grid.y_0, grid.offsets + grid.x_0
    source = RegularGridInterpolator(lines, values.reshape(SIDE, SIDE), bounds_error=False, fill_value=0.0)
    wide = tuple(side + 2 * margin for side in GRID.shape)
    light = source((rays[1], rays[0])).reshape(wide[0], 8, wide[1], 8).mean((1, 3)) * GRID.pixel_area
    expected = fftconvolve(light, KERNEL, mode="same")[margin:-margin, margin:-margin]
    found = problem.predict(values, problem.start()).reshape(GRID.shape)
    np.testing.assert_allclose(found, expected, atol=1e-9 * expected.max())


@pytest.mark.parametrize("case", CASES)
def test_derivatives_are_those_of_finite_differences(case):
    model, source, parameters = tensors([problem_of(seed, **CASES[case]) for seed in range(2)])
    index = torch.tensor([1, 0])
    jacobian = model.jacobian(source[index], parameters[index], index)
    for number in range(parameters.shape[1]):
        step = torch.zeros_like(parameters)
        step[:, number] = 1e-6
        ends = [model.predict(source[index], (parameters + s * step)[index], index) for s in (1, -1)]
        slope = (ends[0] - ends[1]) / 2e-6
        # A ray that crosses a node has two slopes, and the PSF hands them on.
        same = torch.isclose(slope, jacobian[:, number], rtol=1e-4, atol=1e-4 * float(slope.abs().max()))
        assert same.double().mean() > 0.9


@pytest.mark.parametrize("case", CASES)
def test_the_adjoint_is_the_transpose(case, rng):
    model, source, parameters = tensors([problem_of(seed, **CASES[case]) for seed in range(2)])
    values = torch.as_tensor(rng.normal(size=(2, 3, model.data.shape[1])))
    image = model.lensed_source(source, parameters, model.everything)
    back = model.adjoint(values, parameters, model.everything)
    torch.testing.assert_close((image[:, None] * values).sum(2), (source[:, None] * back).sum(2))


@pytest.mark.parametrize("case", CASES)
def test_whole_matrices_are_those_of_bands(case, whole_matrices):
    """As other devices have them; behind a PSF both see its core."""
    problems = [problem_of(seed, **CASES[case]) for seed in range(2)]
    model, _, parameters = tensors(problems)
    dense = ForwardModel(problems, dense=True)
    pairs = zip(*(one.normal(parameters, one.everything) for one in (model, dense)), strict=True)
    for band, whole in pairs:
        lower = np.stack([np.pad(column[k:], (0, k)) for k, column in enumerate(whole.T.numpy())])
        width = band.columns.shape[1]
        np.testing.assert_allclose(lower[:, :width], band.columns, rtol=1e-9, atol=1e-11 * lower.max())
        assert not lower[:, width:].any()


@pytest.mark.parametrize(
    ("case", "grows"), [("behind a PSF, lens and light free", False), ("a slope free", True)]
)
def test_a_grid_moves_and_may_grow(case, grows):
    problem = problem_of(3, **CASES[case])
    assert problem.motion.drift.abs().max() > 0.1
    assert (problem.motion.growth.abs().max() > 0.1) == grows


def test_a_grid_follows_the_mean_of_its_rays():
    problem = problem_of(3, **CASES["behind a PSF, lens and light free"])
    anchor = np.random.default_rng(3).random(len(problem.views[0].stack.operator.x))
    parameters = start_of(problem)[1]
    parameters[:7] += 1e-4
    physical = [problem.physical(parameters), problem.template]
    operator = problem.views[0].stack.operator
    rays = [problem.scene.source_positions(operator.x, operator.y, each) for each in physical]
    grid = problem.grid_at(parameters)
    moved = grid.x_0 - problem.grid.x_0, grid.y_0 - problem.grid.y_0
    for after, before, by in zip(*rays, moved, strict=True):
        assert by == pytest.approx(np.average((after - before)[0].numpy(), weights=anchor), rel=1e-2)


OTHERS = [{"link": "linear"}, {"mean": -1.0, "adapt": False}]
RICHEST = "behind a PSF, lens and light free"


@pytest.mark.parametrize(
    ("case", "options"), [(case, {}) for case in CASES] + [(RICHEST, other) for other in OTHERS], ids=str
)
def test_images_end_together_where_they_end_alone(case, options, whole_matrices, exact_trace):
    """With whole matrices, as on other devices, and with bands."""
    requests = requests_of(
        [problem_of(seed, **CASES[case]) for seed in range(2)],
        **{"max_iterations": 8, "tolerance": 1e-3, **options},
    )
    found = answer_together(requests, "cpu", dense=True)
    for mine, request in zip(found, requests, strict=True):
        start = request.prior, None, request.field, request.parameters
        alone = solve(request.problem, *start, **request.options)
        sigma = np.sqrt(np.diagonal(alone.factor.solve(np.eye(alone.factor.size))))
        size = len(alone.field)
        np.testing.assert_allclose((mine.field - alone.field) / sigma[:size], 0, atol=1e-5)
        np.testing.assert_allclose((mine.parameters - alone.parameters) / sigma[size:], 0, atol=1e-5)
        for name in ("strength", "chi2", "evidence", "determined"):
            assert getattr(mine, name) == pytest.approx(getattr(alone, name), rel=1e-6, abs=1e-6), name
        scaled = mine.factor.parameter_covariance / np.outer(sigma[size:], sigma[size:])
        expected = alone.factor.parameter_covariance / np.outer(sigma[size:], sigma[size:])
        np.testing.assert_allclose(scaled, expected, atol=1e-6)


def test_a_trace_by_probes_ends_near_the_exact_one():
    (request,) = requests_of([problem_of(0)])
    (exact,) = answer_together([request], "cpu", dense=True)
    (probed,) = answer_together([request], "cpu")
    assert exact.strength == pytest.approx(probed.strength, rel=0.3)
    assert exact.evidence == pytest.approx(probed.evidence, abs=1)


@pytest.mark.parametrize("dense", [False, True])
def test_company_changes_nothing(dense):
    """Images that end after different numbers of iterations, together and each alone."""
    requests = requests_of([problem_of(seed, free=True) for seed in range(3)])
    together = answer_together(requests, "cpu", dense=dense)
    assert len({one.iterations for one in together}) > 1
    for mine, request in zip(together, requests, strict=True):
        (alone,) = answer_together([request], "cpu", dense=dense)
        for name in ("field", "parameters", "chi2", "evidence"):
            np.testing.assert_allclose(getattr(mine, name), getattr(alone, name), rtol=1e-7, atol=1e-9)
        assert (mine.iterations, mine.converged) == (alone.iterations, alone.converged)


def test_few_iterations_from_a_given_field():
    """As a network that proposes a source asks for them."""
    problem = problem_of(0, kernel=KERNEL)
    prior, (field, parameters) = Prior("curvature", SIDE), start_of(problem)
    end = solve(problem, prior, None, field, parameters, tolerance=1e-3)
    near = end.field + 0.05 * np.sin(np.arange(SIDE**2))
    two = solve(problem, prior, end.strength, near, end.parameters, max_iterations=2)
    assert two.iterations == 2
    seen = [problem.predict(np.exp(one), end.parameters) for one in (end.field, near, two.field)]
    assert np.abs(seen[2] - seen[0]).max() < 0.2 * np.abs(seen[1] - seen[0]).max()
    none = solve(problem, prior, end.strength, end.field, end.parameters, max_iterations=0)
    np.testing.assert_array_equal(none.field, end.field)
    assert none.chi2 == pytest.approx(end.chi2)


def test_requests_of_all_kinds_are_answered_in_order(monkeypatch):
    problems = [problem_of(seed) for seed in range(3)] + [problem_of(seed, free=True) for seed in range(2)]
    requests = requests_of(problems)
    requests[1] = Request(problems[1], requests[1].prior, 3.0, *start_of(problems[1]), {})
    expected = answer_together(requests, "cpu")
    monkeypatch.setattr(batching, "CPU_BYTES", 1)
    assert batching.images_at_once(problems[0], "cpu") == 1
    for one, other, request in zip(expected, answer_together(requests, "cpu"), requests, strict=True):
        assert one.prior is request.prior and one.options == {"link": "log", "mean": None}
        np.testing.assert_allclose(one.field, other.field, rtol=1e-9, atol=1e-9)
        # What is found out later continues where the batch ended.
        alone = solve(request.problem, one.prior, one.strength, one.field, one.parameters, max_iterations=0)
        assert one.chi2 == pytest.approx(alone.chi2)
        assert one.evidence == pytest.approx(alone.evidence, abs=0.1)
        assert one.determined == pytest.approx(alone.determined, rel=0.1)


def test_only_guilty_images_fail():
    problems = [problem_of(seed) for seed in range(3)]
    expected = answer_together(requests_of(problems), "cpu", dense=True)
    problems[1].weight = -problems[1].weight
    found = answer_together(requests_of(problems), "cpu", dense=True)
    assert isinstance(found[1], np.linalg.LinAlgError)
    for number in (0, 2):
        np.testing.assert_allclose(found[number].field, expected[number].field, rtol=1e-9, atol=1e-9)


def tensors_of(value):
    """All tensors that an object holds."""
    if isinstance(value, torch.Tensor):
        return [value]
    parts = value if isinstance(value, (tuple, list)) else getattr(value, "__dict__", {}).values()
    return [tensor for part in parts for tensor in tensors_of(part)]


def test_a_model_is_made_on_its_device():
    """A device without memory stands for any that is no CPU."""
    model = ForwardModel([problem_of(0, lights=1, oversampling="auto", modulated=True)], "meta")
    found = tensors_of(model)
    assert len(found) > 20
    assert {tensor.device.type for tensor in found} == {"meta"}


class SaysWhere(TorchFunctionMode):
    """Refuses whatever makes a tensor without saying on which device."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        made = function in (torch.zeros, torch.ones, torch.full, torch.empty, torch.arange, torch.eye)
        made |= function in (torch.tensor, torch.as_tensor) and not isinstance(args[0], torch.Tensor)
        assert not made or kwargs.get("device") is not None, f"{function.__name__} on no device"
        return function(*args, **kwargs)


@pytest.mark.parametrize("case", CASES)
def test_tensors_of_an_inversion_stay_on_their_device(case, monkeypatch):
    problems = [problem_of(seed, **CASES[case]) for seed in range(2)]
    requests, model = requests_of(problems), ForwardModel(problems, dense=True)
    options = {"mean": None, "link": "log", "adapt": True, "max_iterations": 3, "tolerance": 0.05}
    solve_batch(requests_of(problems, max_iterations=1), model)  # tables of b_n are made once
    state = gauss_newton._begun(requests, model, options)

    def refuse(self, *args, **kwargs):
        raise AssertionError("a tensor was carried to the CPU")

    for name in ("cpu", "numpy", "__array__"):
        monkeypatch.setattr(torch.Tensor, name, refuse)
    # One lens alone is traced with numpy, but only on the CPU.
    monkeypatch.setattr("lenssr.mass.kernels._has_memory", lambda *tensors: False)
    with SaysWhere():
        *_, failed = gauss_newton._iterate([state], options)
        factors = state.factorise(state.everything, exact=True)
        assert state.evidence(factors).isfinite().all() and not failed.any()
