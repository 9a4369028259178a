"""Batched Levenberg-Marquardt: many small nonlinear least-squares problems at once."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["LeastSquaresResult", "levenberg_marquardt", "parts_of"]

Part = tuple[slice, Tensor, Tensor]
Model = Callable[[Tensor, Tensor], tuple[Tensor, Tensor] | Iterable[Part]]
Prior = tuple[Tensor, Tensor] | None

DAMPING_START = 1e-3
DAMPING_RANGE = (1e-9, 1e9)


@dataclass
class LeastSquaresResult:
    """Where a batch of fits ended.

    Attributes
    ----------
    parameters : `torch.Tensor`, shape (B, P)
    chi2 : `torch.Tensor`, shape (B,)
        Weighted sum of squared residuals.
    curvature : `torch.Tensor`, shape (B, P, P)
        Gauss-Newton matrix J^T W J at the end; its inverse is the covariance.
    iterations : `torch.Tensor`, shape (B,)
    converged : `torch.Tensor` of bool, shape (B,)
    at_bound : `torch.Tensor` of bool, shape (B, P)
        Parameters that ended on a bound.
    """

    parameters: Tensor
    chi2: Tensor
    curvature: Tensor
    iterations: Tensor
    converged: Tensor
    at_bound: Tensor

    def covariance(self) -> Tensor:
        """Inverse of the curvature; rows of parameters on a bound are zero.

        Returns
        -------
        covariance : `torch.Tensor`, shape (B, P, P), float64
        """
        return masked_inverse(self.curvature.double(), self.at_bound)


def masked_inverse(matrix: Tensor, held: Tensor) -> Tensor:
    """Invert symmetric positive matrices leaving out the rows and columns that are held.

    The matrices are scaled to a unit diagonal first; a direction without any information gets a large but
    finite variance (1e12 times that of its diagonal element alone).
    """
    scale = torch.diagonal(matrix, dim1=-2, dim2=-1).clamp_min(0).sqrt()
    dead = held | ~(scale > 0) | ~torch.isfinite(scale)
    scale = torch.where(dead, 1.0, scale)
    normal = matrix / (scale[..., :, None] * scale[..., None, :])
    outside = dead[..., :, None] | dead[..., None, :]
    normal = torch.where(outside, 0.0, normal) + torch.diag_embed(dead.to(matrix.dtype))
    values, vectors = torch.linalg.eigh(torch.nan_to_num(normal))
    inverse = (vectors / values.clamp_min(1e-12)[..., None, :]) @ vectors.mT
    return torch.where(outside, 0.0, inverse / (scale[..., :, None] * scale[..., None, :]))


def levenberg_marquardt(
    model: Model,
    start: Tensor,
    data: Tensor,
    weight: Tensor,
    *,
    lower: Tensor | None = None,
    upper: Tensor | None = None,
    prior: Prior = None,
    max_iterations: int = 50,
    tolerance: float = 1e-3,
    look: bool = True,
    patience: int | None = None,
    inside: Callable[[Tensor], Tensor] | None = None,
) -> LeastSquaresResult:
    """Minimise sum(weight * (data - model)^2) for a batch of problems with box bounds.

    Parameters
    ----------
    model : callable
        ``model(parameters, index)`` takes parameters (b, P) of the problems numbered ``index`` (b,) and
        returns the model (b, N) and its derivatives (b, P, N), which are overwritten. Problems that have
        finished are left out of the call. Or an iterator of parts: a slice of the N data, and model and
        derivatives there, so that the derivatives of many data need not be in memory together.
    start : `torch.Tensor`, shape (B, P)
        Where to begin; moved inside the bounds.
    data, weight : `torch.Tensor`, shape (B, N)
        Data and inverse variance (0 hides a pixel).
    lower, upper : `torch.Tensor`, shape (B, P) or (P,), optional
        Bounds, by default none.
    prior : tuple of two `torch.Tensor`, shape (B, P), optional
        Mean and inverse variance of Gaussian priors on the parameters (0 for none), which chi2 and curvature
        then include. By default none.
    max_iterations : int, optional
        By default 50.
    tolerance : float, optional
        A problem has converged once the step it would take lowers chi2 by less than this (absolute; in
        units of chi2, so that 1e-3 means 3 % of a standard deviation), by default 1e-3.
    look : bool, optional
        Whether the model is evaluated at the end of such a step, True by default. Otherwise chi2 is the
        predicted one and the curvature that before the step, which saves a call.
    patience : int, optional
        A problem has also converged after this number of iterations in a row that lowered its chi2 by less
        than the tolerance each, for any predicted gain: where parameters are degenerate, as the shape
        of a point is, predictions stay large. By default only the predicted gain counts.
    inside : callable, optional
        ``inside(parameters (b, P))`` projects them into a region that is not a box. By default none is used.

    Returns
    -------
    result : `LeastSquaresResult`

    Examples
    --------
    Two exponentials, fitted together:

    >>> import torch
    >>> from lenssr.model import levenberg_marquardt
    >>> x, truth = torch.linspace(0, 2, 30).double(), torch.tensor([[2.0, 1.0], [1.0, 0.5]]).double()
    >>> def model(parameters, index):
    ...     amplitude, rate = parameters.T[:, :, None]
    ...     decay = torch.exp(-rate * x)
    ...     return amplitude * decay, torch.stack([decay, -x * amplitude * decay], dim=1)
    >>> data, _ = model(truth, None)
    >>> result = levenberg_marquardt(model, torch.ones_like(truth), data, torch.full_like(data, 1e4))
    >>> torch.allclose(result.parameters, truth, atol=1e-3)
    True

    References
    ----------
    Marquardt 1963, J. SIAM 11, 431 (scaling by the diagonal); Madsen, Nielsen & Tingleff 2004, "Methods for
    non-linear least squares problems", section 3.2 (the update of the damping).
    """
    count = len(start)
    lower, upper = (
        torch.as_tensor(missing if end is None else end).to(start).expand_as(start)
        for end, missing in ((lower, -torch.inf), (upper, torch.inf))
    )
    state = _Iterates(model, torch.clamp(start, lower, upper), data, weight, prior)
    state.chi2, state.gradient, state.curvature = state.expand(
        state.parameters, torch.arange(count, device=start.device)
    )
    damping = torch.full((count,), DAMPING_START, dtype=torch.float64, device=start.device)
    growth = torch.full_like(damping, 2.0)
    converged = torch.zeros(count, dtype=torch.bool, device=start.device)
    iterations = torch.zeros(count, dtype=torch.long, device=start.device)
    idle = torch.zeros_like(iterations)
    for _ in range(max_iterations):
        index = torch.nonzero(~converged).squeeze(1)
        if index.numel() == 0:
            break
        step, predicted = state.step(index, damping[index], lower[index], upper[index])
        trial = torch.clamp(state.parameters[index] + step, lower[index], upper[index])
        trial = trial if inside is None else inside(trial)
        if not look:
            # A heavily damped step is short of its goal, however little it promises.
            near = (predicted < tolerance) & (damping[index] < 1)
            state.take(index[near], trial[near], predicted[near])
            converged[index[near]] = True
            index, trial, predicted = index[~near], trial[~near], predicted[~near]
            if index.numel() == 0:
                break
        gained, gain = state.try_move(index, trial)
        ratio = gain / predicted.clamp_min(1e-300)
        # Nielsen's update: trust grows smoothly with the ratio of true to predicted gain.
        shrink = torch.clamp(1 - (2 * ratio - 1) ** 3, min=1 / 5)
        damping[index] = torch.where(gained, damping[index] * shrink, damping[index] * growth[index])
        damping.clamp_(*DAMPING_RANGE)
        growth[index] = torch.where(gained, 2.0, growth[index] * 2)
        iterations[index] += 1
        # A heavily damped step that succeeds may be short of its goal; one that fails has nowhere to go.
        settled = ~gained | (damping[index] < 1)
        stuck = ~gained & (damping[index] >= DAMPING_RANGE[1])
        converged[index] = (predicted < tolerance) & (gain < tolerance) & settled | stuck
        if patience is not None:
            idle[index] = torch.where(gain < tolerance, idle[index] + 1, 0)
            converged |= idle >= patience
    on_bound = (state.parameters <= lower) | (state.parameters >= upper)
    return LeastSquaresResult(state.parameters, state.chi2, state.curvature, iterations, converged, on_bound)


def parts_of(found: tuple[Tensor, Tensor] | Iterable[Part]) -> Iterable[Part]:
    """Parts of what a model returns, which may be one: all of it."""
    return [(slice(None), *found)] if isinstance(found, tuple) else found


class _Iterates:
    """Current parameters, chi2, gradient and curvature of every problem of the batch."""

    def __init__(self, model: Model, parameters: Tensor, data: Tensor, weight: Tensor, prior: Prior) -> None:
        self.model, self.data, self.prior = model, data, prior
        self.root = weight.sqrt()
        self.parameters = parameters.clone()
        self.chi2 = self.gradient = self.curvature = torch.empty(0)

    def expand(self, parameters: Tensor, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Chi2, its gradient and its curvature, priors included, of some problems at parameters (b, P)."""
        chi2 = gradient = curvature = torch.zeros((), dtype=torch.float64, device=parameters.device)
        for pixels, value, jacobian in parts_of(self.model(parameters, index)):
            root = self.root[index, pixels]
            residual = (self.data[index, pixels] - value) * root
            weighted = jacobian.mul_(root.unsqueeze(1))
            chi2 = chi2 + residual.square().sum(1, dtype=torch.float64)
            gradient = gradient + (weighted @ residual.unsqueeze(2)).squeeze(2).double()
            curvature = curvature + (weighted @ weighted.mT).double()
        if self.prior is not None:
            mean, stiffness = (part[index].double() for part in self.prior)
            pull = mean - parameters.double()
            chi2 = chi2 + (stiffness * pull.square()).sum(1)
            gradient, curvature = gradient + stiffness * pull, curvature + torch.diag_embed(stiffness)
        return chi2, gradient, curvature

    def step(self, index: Tensor, damping: Tensor, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        """The damped Gauss-Newton step, and by how much it should lower chi2."""
        gradient, curvature, here = self.gradient[index], self.curvature[index], self.parameters[index]
        held = ((here <= lower) & (gradient < 0)) | ((here >= upper) & (gradient > 0))
        diagonal = torch.diagonal(curvature, dim1=1, dim2=2)
        scale = torch.where(diagonal > 0, diagonal, 1.0).sqrt()
        normal = curvature / (scale.unsqueeze(1) * scale.unsqueeze(2))
        normal = torch.where(held.unsqueeze(1) | held.unsqueeze(2), 0.0, normal)
        normal = normal + torch.diag_embed(damping.unsqueeze(1) + held.double() + 1e-12)
        right = torch.where(held, 0.0, gradient / scale)
        factor, failed = torch.linalg.cholesky_ex(torch.nan_to_num(normal))
        step = torch.cholesky_solve(right.unsqueeze(2), factor).squeeze(2)
        step = torch.where((failed != 0).unsqueeze(1), 0.0, step)
        predicted = (step * right).sum(1) + damping * step.square().sum(1)
        return (step / scale).to(here.dtype), predicted

    def take(self, index: Tensor, end: Tensor, predicted: Tensor) -> None:
        """Take steps whose end is known well enough."""
        self.parameters[index] = end
        self.chi2[index] -= predicted

    def try_move(self, index: Tensor, trial: Tensor) -> tuple[Tensor, Tensor]:
        """Move the problems whose chi2 falls; returns which did and by how much chi2 fell."""
        chi2, gradient, curvature = self.expand(trial, index)
        gain = torch.nan_to_num(self.chi2[index] - chi2, nan=-torch.inf)
        gained = gain > 0
        mine = self.parameters, self.chi2, self.gradient, self.curvature
        for kept, new in zip(mine, (trial, chi2, gradient, curvature), strict=True):
            kept[index[gained]] = new[gained]
        return gained, torch.where(gained, gain, 0.0)
