"""Many inversions at once: the answers of each image by itself, and nothing that leaves its device."""

import astropy.units as u
import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode

from lenssr import EPL, SIE, Sersic, Shear
from lenssr.grids import PixelGrid
from lenssr.imaging import PSF, GaussianNoise
from lenssr.model.constraints import Constraints
from lenssr.model.image_stack import ImageStack
from lenssr.model.scene import Scene
from lenssr.source import Factor, Prior, Problem, SourceGrid, gauss_newton_batch, linalg, solve
from lenssr.source.batching import Request
from lenssr.source.gauss_newton_batch import DenseFactor, DensePrior, answer_together, solve_batch
from lenssr.source.problem_batch import ProblemBatch

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
    return Problem(
        stack, fine, scene, start, constraints, grid, weight, np.zeros(len(weight)), anchor, floor=0.1
    )


def start_of(problem, seed=0):
    """Field and parameters to begin with."""
    field = np.random.default_rng(seed).normal(0, 0.2, problem.grid.size)
    return field, problem.scene.to_fit(problem.template)[0].numpy()


def batch_of(problems, prior=None):
    """The batch, and what `solve_batch` takes besides strengths."""
    field, parameters = (np.stack(parts) for parts in zip(*map(start_of, problems), strict=True))
    batch = ProblemBatch(problems, "cpu")
    prior = DensePrior(prior or Prior("curvature", SIDE), "cpu")
    return batch, prior, torch.as_tensor(field), torch.as_tensor(parameters)


@pytest.fixture(autouse=True)
def whole_matrices(monkeypatch):
    """Nothing is left out of the matrix of a single image, as nothing is of those of a batch."""
    monkeypatch.setattr(linalg, "DROPPED", 0.0)


@pytest.mark.parametrize("case", CASES)
def test_a_batch_is_its_problems(case):
    problems = [problem_of(seed, **CASES[case]) for seed in range(2)]
    batch, _, field, parameters = batch_of(problems)
    parameters = parameters * 1.01
    source, rng = field.exp(), np.random.default_rng(1)
    values = torch.as_tensor(rng.normal(size=(2, 2, batch.data.shape[1])))
    index = torch.tensor([1, 0])
    images = batch.predict(source[index], parameters[index], index)
    jacobian = batch.jacobian(source[index], parameters[index], index)
    nodes = batch.adjoint(values[index], parameters[index], index)
    normal = batch.normal(parameters[index], index)
    for row, number in enumerate(index.tolist()):
        problem, at = problems[number], parameters[number].numpy()
        one = source[number].numpy()
        np.testing.assert_allclose(images[row], problem.predict(one, at), rtol=1e-10, atol=1e-12)
        expected = problem.jacobian(one, at)
        np.testing.assert_allclose(
            jacobian[row].T, expected, rtol=1e-9, atol=1e-10 * np.abs(expected).max(initial=1)
        )
        expected = problem.adjoint(values[number].numpy().T, at)
        np.testing.assert_allclose(nodes[row].T, expected, rtol=1e-9, atol=1e-11)
        factor = problem.normal(at, exact=True)
        offsets = range(factor.columns.shape[1])
        expected = np.stack(
            [np.pad(np.diagonal(normal[number].numpy(), -k), (0, k)) for k in offsets], axis=1
        )
        np.testing.assert_allclose(factor.columns, expected, rtol=1e-9, atol=1e-11 * expected.max())


@pytest.mark.parametrize(
    ("case", "grows"), [("behind a PSF, lens and light free", False), ("a slope free", True)]
)
def test_slopes_know_that_the_grid_follows_the_lens(case, grows):
    problem = problem_of(3, **CASES[case])
    assert np.abs(problem.motion.drift).max() > 0.1
    assert (np.abs(problem.motion.growth).max() > 0.1) == grows
    field, parameters = start_of(problem)
    jacobian = problem.jacobian(np.exp(field), parameters)
    for number in range(7):
        step = np.zeros(len(parameters))
        step[number] = 1e-6
        ends = [problem.predict(np.exp(field), parameters + sign * step) for sign in (1, -1)]
        slope = (ends[0] - ends[1]) / 2e-6
        # A ray that crosses a node has two slopes, and the PSF hands them on.
        same = np.isclose(slope, jacobian[:, number], rtol=1e-4, atol=1e-4 * np.abs(slope).max())
        assert same.mean() > 0.9


def test_a_grid_follows_the_mean_of_its_rays():
    problem = problem_of(3, **CASES["behind a PSF, lens and light free"])
    anchor = np.random.default_rng(3).random(len(problem.stack.operator.x))
    parameters = start_of(problem)[1]
    parameters[:7] += 1e-4
    physical = [problem.physical(parameters), problem.template]
    operator = problem.stack.operator
    rays = [problem.scene.source_positions(operator.x, operator.y, each) for each in physical]
    grid = problem.grid_at(parameters)
    moved = grid.x_0 - problem.grid.x_0, grid.y_0 - problem.grid.y_0
    for after, before, by in zip(*rays, moved, strict=True):
        assert by == pytest.approx(np.average((after - before)[0].numpy(), weights=anchor), rel=1e-2)


def assert_same(batch, number, alone):
    """One image of a batch ended where it ended alone."""
    sigma = np.sqrt(np.diagonal(alone.factor.solve(np.eye(alone.factor.size))))
    size = len(alone.field)
    np.testing.assert_allclose(
        batch.field[number].numpy() / sigma[:size], alone.field / sigma[:size], atol=1e-5
    )
    np.testing.assert_allclose(
        batch.parameters[number].numpy() / sigma[size:], alone.parameters / sigma[size:], atol=1e-5
    )
    for name in ("strength", "mean", "chi2", "evidence", "determined"):
        mine, theirs = float(getattr(batch, name)[number]), getattr(alone, name)
        assert mine == pytest.approx(theirs, rel=1e-6, abs=1e-6), name
    scaled = batch.factor.parameter_covariance[number].numpy() / np.outer(sigma[size:], sigma[size:])
    expected = alone.factor.parameter_covariance / np.outer(sigma[size:], sigma[size:])
    np.testing.assert_allclose(scaled, expected, atol=1e-6)


OTHERS = [{"link": "linear"}, {"mean": -1.0, "adapt": False}]
RICHEST = "behind a PSF, lens and light free"


@pytest.mark.parametrize(
    ("case", "options"), [(case, {}) for case in CASES] + [(RICHEST, other) for other in OTHERS], ids=str
)
def test_every_image_gets_its_own_solution(case, options, exact_trace):
    problems = [problem_of(seed, **CASES[case]) for seed in range(2)]
    batch, prior, field, parameters = batch_of(problems)
    strength = None if options.get("adapt", True) else torch.tensor([1.0, 10.0], dtype=torch.float64)
    field = field.exp() if options.get("link") == "linear" else field
    options = {"max_iterations": 8, "tolerance": 1e-3, **options}
    found = solve_batch(batch, prior, strength, field, parameters, **options)
    assert not found.failed.any()
    for number, problem in enumerate(problems):
        first = None if strength is None else float(strength[number])
        start = Prior("curvature", SIDE), first, field[number].numpy(), parameters[number].numpy()
        assert_same(found, number, solve(problem, *start, **options))


def test_a_trace_by_probes_ends_near_the_exact_one():
    problem = problem_of(0)
    batch, prior, field, parameters = batch_of([problem])
    found = solve_batch(batch, prior, None, field, parameters)
    alone = solve(problem, Prior("curvature", SIDE), None, field[0].numpy(), parameters[0].numpy())
    assert float(found.strength[0]) == pytest.approx(alone.strength, rel=0.3)
    assert float(found.evidence[0]) == pytest.approx(alone.evidence, abs=1)


def test_company_changes_nothing():
    """Images that end after different numbers of iterations, together and each alone."""
    problems = [problem_of(seed, free=True) for seed in range(3)]
    batch, *start = batch_of(problems)
    together = solve_batch(batch, start[0], None, *start[1:])
    assert len(set(together.iterations.tolist())) > 1
    for number, problem in enumerate(problems):
        batch, *start = batch_of([problem])
        alone = solve_batch(batch, start[0], None, *start[1:])
        for name in ("field", "parameters", "chi2", "evidence", "iterations", "converged"):
            torch.testing.assert_close(getattr(together, name)[number], getattr(alone, name)[0])


def test_few_iterations_from_a_given_field(exact_trace):
    """As a network that proposes a source asks for them."""
    problems = [problem_of(seed, kernel=KERNEL) for seed in range(2)]
    batch, prior, field, parameters = batch_of(problems)
    end = solve_batch(batch, prior, None, field, parameters, tolerance=1e-3)
    near = end.field + 0.05 * torch.sin(torch.arange(SIDE**2))
    two = solve_batch(batch, prior, end.strength, near, end.parameters, max_iterations=2)
    assert two.iterations.tolist() == [2, 2]
    index = torch.arange(2)
    seen = [batch.predict(field.exp(), end.parameters, index) for field in (end.field, near, two.field)]
    assert (seen[2] - seen[0]).abs().max() < 0.1 * (seen[1] - seen[0]).abs().max()
    none = solve_batch(batch, prior, end.strength, end.field, end.parameters, max_iterations=0)
    torch.testing.assert_close(none.field, end.field)
    torch.testing.assert_close(none.chi2, end.chi2)


def test_factors_solve_and_sample(rng):
    roots = torch.as_tensor(rng.normal(size=(3, 12, 12)))
    whole = roots @ roots.mT + 5 * torch.eye(12)
    factor = DenseFactor(whole[:, :10, :10], whole[:, :10, 10:], whole[:, 10:, 10:])
    right = torch.as_tensor(rng.normal(size=(3, 12, 2)))
    torch.testing.assert_close(factor.solve(right), torch.linalg.solve(whole, right))
    inverse = torch.linalg.inv(whole)
    torch.testing.assert_close(factor.parameter_covariance, inverse[:, 10:, 10:])
    torch.testing.assert_close(factor.log_determinant, torch.linalg.slogdet(whole)[1])
    spread = factor.sample(torch.eye(12, dtype=torch.float64).expand(3, -1, -1))
    torch.testing.assert_close(spread @ spread.mT, inverse)
    root = torch.as_tensor(np.tril(rng.normal(size=(10, 10))))
    expected = (inverse[:, :10, :10] * (root @ root.T)).sum((1, 2))
    torch.testing.assert_close(factor.trace(root), expected)
    assert not factor.failed.any()


def test_what_is_not_positive_fails_or_is_mended_alone(rng):
    root = rng.normal(size=(8, 8))
    good = root @ root.T + 5 * np.eye(8)
    stiff = good.copy()
    stiff[6:, 6:] -= 0.99 * good[6:, 6:]
    whole = torch.as_tensor(np.stack([good, stiff, -good]))
    factor = DenseFactor(whole[:, :6, :6], whole[:, :6, 6:], whole[:, 6:, 6:])
    assert factor.failed.tolist() == [False, False, True]
    for number, one in enumerate((good, stiff)):
        band = np.stack([np.pad(np.diagonal(one[:6, :6], -k), (0, k)) for k in range(6)])
        alone = Factor(band, one[:6, 6:].copy(), one[6:, 6:].copy())
        np.testing.assert_allclose(factor.schur[number], alone.schur, rtol=1e-8, atol=1e-10)
        assert float(factor.log_determinant[number]) == pytest.approx(alone.log_determinant)


def requests_of(problems, **options):
    return [Request(p, Prior("curvature", SIDE), None, *start_of(p), options) for p in problems]


def test_requests_of_all_kinds_are_answered_in_order(monkeypatch):
    problems = [problem_of(seed) for seed in range(3)] + [problem_of(seed, free=True) for seed in range(2)]
    requests = requests_of(problems)
    requests[1] = Request(
        *[getattr(requests[1], n) for n in ("problem", "prior")], 3.0, *start_of(problems[1])
    )
    expected = answer_together(requests, "cpu")
    monkeypatch.setattr(gauss_newton_batch, "CPU_BYTES", 1)
    assert gauss_newton_batch.images_at_once(problems[0], "cpu") == 1
    for one, other, request in zip(expected, answer_together(requests, "cpu"), requests, strict=True):
        assert one.prior is request.prior and one.options == {"link": "log", "mean": None}
        np.testing.assert_allclose(one.field, other.field, rtol=1e-9, atol=1e-9)
        # What is found out later, on the CPU, continues where the batch ended.
        alone = solve(request.problem, one.prior, one.strength, one.field, one.parameters, max_iterations=0)
        assert one.chi2 == pytest.approx(alone.chi2)
        assert one.evidence == pytest.approx(alone.evidence, abs=0.1)
        assert one.determined == pytest.approx(alone.determined, rel=0.1)


def test_only_guilty_images_fail():
    problems = [problem_of(seed) for seed in range(3)]
    expected = answer_together(requests_of(problems), "cpu")
    problems[1].weight = -problems[1].weight
    found = answer_together(requests_of(problems), "cpu")
    assert isinstance(found[1], np.linalg.LinAlgError)
    for number in (0, 2):
        np.testing.assert_allclose(found[number].field, expected[number].field, rtol=1e-9, atol=1e-9)


def tensors_of(value):
    """All tensors that an object holds."""
    if isinstance(value, torch.Tensor):
        return [value]
    parts = value if isinstance(value, tuple) else getattr(value, "__dict__", {}).values()
    return [tensor for part in parts for tensor in tensors_of(part)]


def test_a_batch_is_made_on_its_device():
    """A device without memory stands for any that is no CPU."""
    batch = ProblemBatch([problem_of(0, lights=1, oversampling="auto", modulated=True)], "meta")
    found = tensors_of(batch)
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
    batch, prior, field, parameters = batch_of(problems)
    solve_batch(batch, prior, None, field, parameters, max_iterations=1)  # tables of b_n are made once

    def refuse(self, *args, **kwargs):
        raise AssertionError("a tensor was carried to the CPU")

    for name in ("cpu", "numpy", "__array__"):
        monkeypatch.setattr(torch.Tensor, name, refuse)
    # One lens alone is traced with numpy, but only on the CPU.
    monkeypatch.setattr("lenssr.mass.blocks._has_memory", lambda *tensors: False)
    with SaysWhere():
        found = solve_batch(batch, prior, None, field, parameters, max_iterations=3)
        assert found.evidence.isfinite().all() and not found.failed.any()
