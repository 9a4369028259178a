"""Gauss-Newton for the sources of many images at once: dense matrices, on any device."""

from collections import defaultdict
from functools import cached_property

import numpy as np
import torch

from lenssr.source.evidence import laplace_evidence
from lenssr.source.gauss_newton import DEEPEST, LARGEST_STEP, SETTLED, STRONGEST, TRIES, WEAKEST, Solution
from lenssr.source.linalg import SOFTEST
from lenssr.source.problem_batch import COLUMNS_AT_ONCE, ProblemBatch

__all__ = ["BatchSolution", "DenseFactor", "DensePrior", "answer_together", "images_at_once", "solve_batch"]

# Memory for matrices where a device does not say what is free, and the share that is taken where it does.
CPU_BYTES, FREE_SHARE = 2**30, 0.8
# Matrices (n, n) of an image that live side by side: in its steps, and while its response to a PSF is made,
# which takes so many planes of cells for each column.
MATRICES, MATRICES_BESIDE_RESPONSE, PLANES = 6, 2, 10


class DensePrior:
    """A prior as a matrix on a device.

    Parameters
    ----------
    prior : `~lenssr.source.Prior`
    device : `torch.device` or str

    Attributes
    ----------
    matrix, root : `torch.Tensor`, shape (n, n)
        Its precision, and the lower Cholesky factor of it.
    log_determinant : float
    """

    def __init__(self, prior, device):
        self.matrix = torch.as_tensor(prior.dense, dtype=torch.float64, device=device)
        self.root = torch.linalg.cholesky(self.matrix)
        self.log_determinant = prior.log_determinant


class DenseFactor:
    """Cholesky factors of matrices [[A, B], [B^T, C]], of each as `~lenssr.source.Factor` is of one.

    Parameters
    ----------
    curvature : `torch.Tensor`, shape (b, n, n)
        A.
    cross, corner : `torch.Tensor`, shapes (b, n, K), (b, K, K)
        B and C, of the few parameters.

    Attributes
    ----------
    log_determinant : `torch.Tensor`, shape (b,)
    failed : `torch.Tensor` of bool, shape (b,)
        Whether A is not positive; what else is known of such a matrix means nothing.
    """

    def __init__(self, curvature, cross, corner):
        self.count = curvature.shape[1]
        self.lower, info = torch.linalg.cholesky_ex(curvature)
        self.half = torch.linalg.solve_triangular(self.lower, cross, upper=False)
        self.schur = _roots(corner - self.half.mT @ self.half, corner.diagonal(dim1=1, dim2=2))
        roots = (part.diagonal(dim1=1, dim2=2).log().sum(1) for part in (self.lower, self.schur))
        self.log_determinant = 2 * sum(roots)
        self.failed = (info != 0) | ~self.log_determinant.isfinite()

    def solve(self, right):
        """Solutions (b, n + K, m) for right-hand sides of that shape."""
        above = torch.linalg.solve_triangular(self.lower, right[:, : self.count], upper=False)
        below = right[:, self.count :] - self.half.mT @ above
        below = torch.linalg.solve_triangular(self.schur, below, upper=False)
        return self.sample(torch.cat([above, below], dim=1))

    def sample(self, normals):
        """Vectors (b, n + K, m) whose covariance is the inverse of the matrix, from standard normals."""
        above, below = normals[:, : self.count], normals[:, self.count :]
        below = torch.linalg.solve_triangular(self.schur.mT, below, upper=True)
        above = torch.linalg.solve_triangular(self.lower.mT, above - self.half @ below, upper=True)
        return torch.cat([above, below], dim=1)

    def trace(self, root):
        """Traces (b,) of (inverse, its first n rows and columns) R R^T, of a lower triangular R (n, n)."""
        inside = torch.linalg.solve_triangular(self.lower, root.expand_as(self.lower), upper=False)
        # What the parameters of lens, light and sky add, as the inverse is L^-T (1 + h h^T) L^-1.
        h = torch.linalg.solve_triangular(self.schur, self.half.mT, upper=False)
        return inside.square().sum((1, 2)) + (h @ inside).square().sum((1, 2))

    @property
    def parameter_covariance(self):
        """Covariances (b, K, K) of the parameters."""
        eye = torch.eye(self.schur.shape[1], dtype=self.schur.dtype, device=self.schur.device)
        inverse = torch.linalg.solve_triangular(self.schur, eye.expand_as(self.schur), upper=False)
        return inverse.mT @ inverse


def _roots(schur, diagonal):
    """Lower Cholesky factors of the Schur complements; what is not positive is mended as for one image."""
    lower, info = torch.linalg.cholesky_ex(schur)
    if not schur.shape[1] or not bool((info != 0).any()):
        return lower
    scale = torch.where(diagonal > 0, diagonal, 1.0).sqrt()
    scale = scale.unsqueeze(2) * scale.unsqueeze(1)
    values, vectors = torch.linalg.eigh(torch.nan_to_num(schur / scale))
    positive = (vectors * values.abs().clamp_min(SOFTEST).unsqueeze(1)) @ vectors.mT
    mended = torch.linalg.cholesky_ex(positive * scale)[0]
    return torch.where((info != 0)[:, None, None], mended, lower)


class BatchSolution:
    """Where the inversions of a batch ended; the factor there, and what needs it, is made when asked for.

    Attributes
    ----------
    field : `torch.Tensor`, shape (B, n)
        Logarithms of the node values, or the values themselves if the inversion was linear.
    parameters : `torch.Tensor`, shape (B, K)
    strength, mean, chi2 : `torch.Tensor`, shape (B,)
    iterations : `torch.Tensor` of int, shape (B,)
    converged, failed : `torch.Tensor` of bool, shape (B,)
        A problem has failed if its matrix was not positive; it stays where it was then.
    """

    def __init__(self, state, iterations, converged, failed):
        self._state, self._stopped = state, failed
        self.field, self.parameters, self.strength = state.field, state.parameters, state.strength
        self.mean, self.chi2 = state.mean, state.chi2
        self.iterations, self.converged = iterations, converged

    @cached_property
    def factor(self):
        """`DenseFactor` of the Gauss-Newton matrices at the end."""
        return self._state.factorise(self._state.everything, exact=True)

    @property
    def failed(self):
        """Which problems have failed."""
        return self._stopped | self.factor.failed

    @cached_property
    def evidence(self):
        """Logarithms (B,) of the Laplace evidence, up to what data alone determine."""
        return self._state.evidence(self.factor)

    @cached_property
    def determined(self):
        """Number of nodes (B,) that the data determine."""
        return self._state.determined(self.factor, self._state.everything)


def solve_batch(
    batch,
    prior,
    strength,
    field,
    parameters,
    *,
    mean=None,
    link="log",
    adapt=True,
    max_iterations=40,
    tolerance=0.05,
):
    """Solve each of a batch as `~lenssr.source.solve` solves one, on the device of the batch.

    Problems do not know of one another: what becomes of one does not depend on which others there are, but
    for rounding.

    Parameters
    ----------
    batch : `~lenssr.source.problem_batch.ProblemBatch`
    prior : `DensePrior`
    strength : `torch.Tensor`, shape (B,), or None
        Where the strength begins; None takes what ``field`` suggests.
    field, parameters : `torch.Tensor`, shapes (B, n), (B, K)
        Where they begin.
    mean : float, optional
        Mean of the prior; by default it is found with the strength, or 0 if the link is linear.
    link : {"log", "linear"}, optional
    adapt : bool, optional
        Whether the strength moves; it does by default. The trace that it needs is exact.
    max_iterations : int, optional
        By default 40. A network that proposes a source may want no more than 2.
    tolerance : float, optional
        Converged once a step gains less than this in twice the log posterior, and the strength has settled.

    Returns
    -------
    solution : `BatchSolution`
    """
    state = _State(batch, prior, field, parameters, mean, link)
    state.set_strength(state.everything, state.rough_strength() if strength is None else strength)
    iterations = torch.zeros_like(state.everything)
    converged = torch.zeros_like(iterations, dtype=torch.bool)
    failed, settled = converged.clone(), torch.full_like(converged, not adapt)
    for _ in range(max_iterations):
        index = torch.nonzero(~(converged & settled | failed)).squeeze(1)
        if not len(index):
            break
        iterations[index] += 1
        factor = state.factorise(index)
        failed[index] = factor.failed
        step = factor.solve(state.gradient(index).unsqueeze(2)).squeeze(2)
        step = torch.where(factor.failed.unsqueeze(1), 0.0, step)
        if link == "log":
            largest = step[:, : factor.count].amax(1).clamp_min(1e-300)
            step = step * (LARGEST_STEP / largest).clamp_max(1.0).unsqueeze(1)
        converged[index] = state.advance(index, step) < tolerance
        if adapt:
            before = state.strength[index]
            state.set_strength(index, state.likeliest_strength(factor, index))
            settled[index] = (state.strength[index] / before).log().abs() < np.log(SETTLED)
        del factor  # before the next one is made
    return BatchSolution(state, iterations, converged & settled & ~failed, failed)


class _State:
    """Fields and parameters of a batch with what they predict."""

    def __init__(self, batch, prior, field, parameters, mean, link):
        self.batch, self.prior, self.is_log = batch, prior, link == "log"
        self.everything = torch.arange(len(batch), device=batch.data.device)
        self.finds_mean = mean is None and self.is_log
        self.mean = field.mean(1) if self.finds_mean else torch.full_like(field[:, 0], float(mean or 0.0))
        self.field, self.parameters = field.clone(), parameters.clone()
        self.strength = torch.ones_like(self.mean)
        self.residual = self._residual(field, parameters, self.everything)
        self.chi2 = self._chi2(self.residual, self.everything)
        self.jacobian = batch.jacobian(self._brightness(field, self.everything), parameters, self.everything)

    def _fading(self, field, index):
        return (self.batch.log_floor[index].unsqueeze(1) - field).clamp_max(DEEPEST).exp()

    def _brightness(self, field, index):
        return (field - self._fading(field, index)).exp() if self.is_log else field

    def _slope(self, index):
        field = self.field[index]
        if not self.is_log:
            return torch.ones_like(field)
        fading = self._fading(field, index)
        return (field - fading).exp() * (1 + fading)

    def _residual(self, field, parameters, index):
        source = self._brightness(field, index)
        return self.batch.data[index] - self.batch.predict(source, parameters, index)

    def _chi2(self, residual, index):
        return (self.batch.weight[index] * residual.square()).sum(1)

    def _roughness(self, field, index):
        offset = field - self.mean[index].unsqueeze(1)
        return ((offset @ self.prior.matrix) * offset).sum(1)

    def _penalty(self, field, parameters, index):
        mean, stiffness = (part[index] for part in self.batch.parameter_prior)
        pull = (stiffness * (parameters - mean).square()).sum(1)
        return self.strength[index] * self._roughness(field, index) + pull

    def set_strength(self, index, strength):
        """Change the strengths of the prior."""
        self.strength[index] = torch.nan_to_num(strength, nan=WEAKEST).clamp(WEAKEST, STRONGEST)

    def rough_strength(self):
        """First strengths: as if data determined a tenth of the nodes, but no stiffer than the data."""
        rough = self._roughness(self.field, self.everything).clamp_min(1e-300)
        normal = self.batch.normal(self.parameters, self.everything).diagonal(dim1=1, dim2=2)
        data = (self._slope(self.everything).square() * normal).sum(1)
        return torch.minimum(0.1 * self.field.shape[1] / rough, data / self.prior.matrix.trace())

    def gradient(self, index):
        """Half the gradients (b, n + K) of the log posteriors."""
        weighted = self.batch.weight[index] * self.residual[index]
        parameters = self.parameters[index]
        by_source = self.batch.adjoint(weighted.unsqueeze(1), parameters, index).squeeze(1)
        rough = (self.field[index] - self.mean[index].unsqueeze(1)) @ self.prior.matrix
        mean, stiffness = (part[index] for part in self.batch.parameter_prior)
        by_field = self._slope(index) * by_source - self.strength[index].unsqueeze(1) * rough
        by_parameter = (self.jacobian[index] @ weighted.unsqueeze(2)).squeeze(2)
        return torch.cat([by_field, by_parameter - stiffness * (parameters - mean)], dim=1)

    def factorise(self, index, *, exact=False):
        """Factor the Gauss-Newton matrices."""
        jacobian, parameters, slope = self.jacobian[index], self.parameters[index], self._slope(index)
        weighted = jacobian * self.batch.weight[index].unsqueeze(1)
        cross = slope.unsqueeze(2) * self.batch.adjoint(weighted, parameters, index).mT
        corner = jacobian @ weighted.mT + torch.diag_embed(self.batch.parameter_prior[1][index])
        curvature = self.batch.normal(parameters, index, exact=exact)[index]
        curvature.mul_(slope.unsqueeze(2)).mul_(slope.unsqueeze(1))
        curvature.addcmul_(self.strength[index][:, None, None], self.prior.matrix)
        return DenseFactor(curvature, cross, corner)

    def advance(self, index, step):
        """Move along steps, each shortened until its posterior grows; returns the gains (b,)."""
        before = self.chi2[index] + self._penalty(self.field[index], self.parameters[index], index)
        gains, left = torch.zeros_like(before), torch.arange(len(index), device=index.device)
        lower, upper = self.batch.bounds
        count = self.field.shape[1]
        for _ in range(TRIES):
            here = index[left]
            field = self.field[here] + step[left, :count]
            parameters = (self.parameters[here] + step[left, count:]).clamp(lower[here], upper[here])
            residual = self._residual(field, parameters, here)
            chi2 = self._chi2(residual, here)
            gain = before[left] - chi2 - self._penalty(field, parameters, here)
            better = gain > 0
            moved = here[better]
            self.field[moved], self.parameters[moved] = field[better], parameters[better]
            self.residual[moved], self.chi2[moved] = residual[better], chi2[better]
            gains[left[better]] = gain[better]
            left, step = left[~better], step / 3
            if not len(left):
                break
        moved = index[gains > 0]
        if not len(moved):
            return gains
        source = self._brightness(self.field[moved], moved)
        self.jacobian[moved] = self.batch.jacobian(source, self.parameters[moved], moved)
        return gains

    def determined(self, factor, index):
        """Number of nodes that the data determine: n - strength tr(A^-1 C)."""
        undetermined = self.strength[index] * factor.trace(self.prior.root)
        return (factor.count - undetermined).clamp(1.0, factor.count)

    def likeliest_strength(self, factor, index):
        """The strengths at which the evidence of the present fields is stationary."""
        if self.finds_mean:
            self.mean[index] = self.field[index].mean(1)
        rough = self._roughness(self.field[index], index).clamp_min(1e-300)
        return self.determined(factor, index) / rough

    def evidence(self, factor):
        """Laplace evidence: fit, prior, and the ratio of the volumes of posterior and prior."""
        count, stiffness = factor.count, self.batch.parameter_prior[1]
        prior = self.prior.log_determinant + count * self.strength.log()
        prior = prior + torch.where(stiffness > 0, stiffness, 1.0).log().sum(1)
        penalty = self.chi2 + self._penalty(self.field, self.parameters, self.everything)
        return laplace_evidence(prior, factor.log_determinant, penalty)


def images_at_once(problem, device):
    """How many images like one fit into the memory of a device.

    Parameters
    ----------
    problem : `~lenssr.source.Problem`
    device : `torch.device` or str

    Returns
    -------
    count : int

    Notes
    -----
    An image takes six matrices (n, n) in double precision: 0.6 GB with 60x60 nodes, 0.25 GB with 48x48, which
    is also enough for a PSF over 75x75 pixels; in larger fields behind a PSF it is n numbers a pixel, and
    more. Of a GPU, 80 % of what is free is taken.
    """
    device, size = torch.device(device), problem.grid.size
    numbers = MATRICES * size**2
    if problem.stack.kernel is not None:
        planes = PLANES * COLUMNS_AT_ONCE * np.prod(problem.stack.operator.cells)
        numbers = max(numbers, MATRICES_BESIDE_RESPONSE * size**2 + size * len(problem.data) + planes)
    free = CPU_BYTES
    if device.type == "cuda":
        free = FREE_SHARE * torch.cuda.mem_get_info(device)[0]
    return max(1, int(free // (8 * numbers)))


def answer_together(requests, device):
    """Answer requests of several images, those of one kind together, as many as fit into memory.

    Parameters
    ----------
    requests : sequence of `~lenssr.source.batching.Request`
        Of images of one shape behind one telescope.
    device : `torch.device` or str

    Returns
    -------
    solutions : list of `~lenssr.source.Solution` or Exception
        With evidence and determined nodes as found on the device.
    """
    kinds = defaultdict(list)
    for number, request in enumerate(requests):
        kinds[_kind(request)].append(number)
    solutions = [None] * len(requests)
    for members in kinds.values():
        first = requests[members[0]]
        prior, size = DensePrior(first.prior, device), images_at_once(first.problem, device)
        for start in range(0, len(members), size):
            part = members[start : start + size]
            found = _answer([requests[number] for number in part], prior, device)
            for number, solution in zip(part, found, strict=True):
                solutions[number] = solution
    return solutions


def _kind(request):
    """Requests of one kind can be answered together."""
    problem, prior, scene = request.problem, request.prior, request.problem.scene
    blocks = tuple((block.role, block.names) for block in scene.blocks)
    return (
        (prior.name, prior.length, problem.grid.side, request.strength is None),
        (blocks, tuple(scene.free.tolist())),
        tuple(sorted(request.options.items())),
    )


def _answer(requests, prior, device):
    """Solutions of requests of one kind."""
    batch = ProblemBatch([request.problem for request in requests], device)
    field, parameters, strength = (
        None if request_parts[0] is None else torch.as_tensor(np.stack(request_parts), device=device)
        for request_parts in zip(*((r.field, r.parameters, r.strength) for r in requests), strict=True)
    )
    solution = solve_batch(batch, prior, strength, field, parameters, **requests[0].options)
    names = "field", "parameters", "strength", "mean", "iterations", "converged", "evidence", "determined"
    found = [getattr(solution, name).cpu().numpy() for name in names]
    failed = solution.failed.tolist()
    answers = []
    for one, request in enumerate(requests):
        if failed[one]:
            answers.append(np.linalg.LinAlgError("the matrix of the inversion is not positive"))
            continue
        end = {name: part[one] for name, part in zip(names, found, strict=True)}
        answers.append(Solution.found(request.problem, request.prior, request.options, end))
    return answers
