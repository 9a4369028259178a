"""Batched Levenberg-Marquardt: many small nonlinear least-squares problems at once."""

from dataclasses import dataclass

import torch

__all__ = ["LeastSquaresResult", "levenberg_marquardt"]

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

    parameters: torch.Tensor
    chi2: torch.Tensor
    curvature: torch.Tensor
    iterations: torch.Tensor
    converged: torch.Tensor
    at_bound: torch.Tensor

    def covariance(self, *, free_only=True):
        """Inverse of the curvature; rows of parameters on a bound are zero.

        Returns
        -------
        covariance : `torch.Tensor`, shape (B, P, P), float64
        """
        curvature = self.curvature.double().clone()
        held = self.at_bound if free_only else torch.zeros_like(self.at_bound)
        return masked_inverse(curvature, held)


def masked_inverse(matrix, held):
    """Invert symmetric positive matrices leaving out the rows and columns that are held.

    The matrices are scaled to a unit diagonal first; a direction without any information gets a large but
    finite variance (1e12 times that of its diagonal element alone).
    """
    scale = torch.diagonal(matrix, dim1=-2, dim2=-1).clamp_min(0).sqrt()
    dead = held | ~(scale > 0) | ~torch.isfinite(scale)
    scale = torch.where(dead, torch.ones_like(scale), scale)
    normal = matrix / (scale[..., :, None] * scale[..., None, :])
    normal = torch.where(dead[..., :, None] | dead[..., None, :], torch.zeros_like(normal), normal)
    normal = normal + torch.diag_embed(dead.to(matrix.dtype))
    values, vectors = torch.linalg.eigh(torch.nan_to_num(normal))
    inverse = (vectors / values.clamp_min(1e-12)[..., None, :]) @ vectors.mT
    inverse = inverse / (scale[..., :, None] * scale[..., None, :])
    return torch.where(dead[..., :, None] | dead[..., None, :], torch.zeros_like(inverse), inverse)


def levenberg_marquardt(
    model,
    start,
    data,
    weight,
    *,
    lower=None,
    upper=None,
    prior=None,
    max_iterations=50,
    tolerance=1e-3,
    look=True,
    patience=None,
    inside=None,
):
    """Minimise sum(weight * (data - model)^2) for a batch of problems with box bounds.

    Parameters
    ----------
    model : callable
        ``model(parameters, index)`` takes parameters (b, P) of the problems numbered ``index`` (b,) and
        returns the model (b, N) and its derivatives (b, P, N), which are overwritten. Problems that have
        finished are left out of the call.
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
        Whether the model is called at the end of such a step, by default it is. Otherwise the step is taken
        unseen, which saves a call: chi2 is what it should lead to, and the curvature that before it.
    patience : int, optional
        A problem has converged, too, once so many iterations in a row have lowered its chi2 by less than the
        tolerance each, whatever they promised: where parameters lose all meaning, as the shape of a point
        does, steps go on promising. By default only what a step promises counts.
    inside : callable, optional
        ``inside(parameters (b, P))`` moves them to where they may be, if that is no box. By default nothing.

    Returns
    -------
    result : `LeastSquaresResult`

    References
    ----------
    Marquardt 1963, J. SIAM 11, 431 (scaling by the diagonal); Madsen, Nielsen & Tingleff 2004, "Methods for
    non-linear least squares problems", section 3.2 (the update of the damping).
    """
    count, number = start.shape
    lower = (
        torch.full_like(start, -torch.inf)
        if lower is None
        else torch.as_tensor(lower).to(start).expand_as(start)
    )
    upper = (
        torch.full_like(start, torch.inf)
        if upper is None
        else torch.as_tensor(upper).to(start).expand_as(start)
    )
    state = _Iterates(model, torch.clamp(start, lower, upper), data, weight, prior)
    everything = torch.arange(count, device=start.device)
    state.chi2, state.gradient, state.curvature = state.expand(state.parameters, everything)
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
        if not look:
            # A heavily damped step is short of its goal, however little it promises.
            near = (predicted < tolerance) & (damping[index] < 1)
            state.take(index[near], step[near], predicted[near], lower, upper, inside)
            converged[index[near]] = True
            index, step, predicted = index[~near], step[~near], predicted[~near]
            if index.numel() == 0:
                break
        trial = torch.clamp(state.parameters[index] + step, lower[index], upper[index])
        gained, gain = state.try_move(index, trial if inside is None else inside(trial))
        ratio = gain / predicted.clamp_min(1e-300)
        # Nielsen's update: trust grows smoothly with the ratio of true to predicted gain.
        shrink = torch.clamp(1 - (2 * ratio - 1) ** 3, min=1 / 5)
        damping[index] = torch.where(gained, damping[index] * shrink, damping[index] * growth[index])
        damping.clamp_(*DAMPING_RANGE)
        growth[index] = torch.where(gained, torch.full_like(gain, 2.0), growth[index] * 2)
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


class _Iterates:
    """Current parameters, chi2, gradient and curvature of every problem of the batch."""

    def __init__(self, model, parameters, data, weight, prior):
        self.model, self.data, self.prior = model, data, prior
        self.root = weight.sqrt()
        self.parameters = parameters.clone()
        self.chi2 = self.gradient = self.curvature = None

    def expand(self, parameters, index):
        """Chi2, its gradient and its curvature, priors included, of some problems at parameters (b, P)."""
        value, jacobian = self.model(parameters, index)
        root = self.root[index]
        residual = (self.data[index] - value) * root
        weighted = jacobian.mul_(root.unsqueeze(1))
        chi2 = residual.square().sum(1, dtype=torch.float64)
        gradient = (weighted @ residual.unsqueeze(2)).squeeze(2).double()
        curvature = (weighted @ weighted.mT).double()
        if self.prior is not None:
            mean, stiffness = (part[index].double() for part in self.prior)
            pull = mean - parameters.double()
            chi2 = chi2 + (stiffness * pull.square()).sum(1)
            gradient, curvature = gradient + stiffness * pull, curvature + torch.diag_embed(stiffness)
        return chi2, gradient, curvature

    def step(self, index, damping, lower, upper):
        """The damped Gauss-Newton step, and by how much it should lower chi2."""
        gradient, curvature, here = self.gradient[index], self.curvature[index], self.parameters[index]
        held = ((here <= lower) & (gradient < 0)) | ((here >= upper) & (gradient > 0))
        diagonal = torch.diagonal(curvature, dim1=1, dim2=2)
        scale = torch.where(diagonal > 0, diagonal, torch.ones_like(diagonal)).sqrt()
        normal = curvature / (scale.unsqueeze(1) * scale.unsqueeze(2))
        normal = torch.where(held.unsqueeze(1) | held.unsqueeze(2), torch.zeros_like(normal), normal)
        normal = normal + torch.diag_embed(damping.unsqueeze(1) + held.double() + 1e-12)
        right = torch.where(held, torch.zeros_like(gradient), gradient / scale)
        factor, failed = torch.linalg.cholesky_ex(torch.nan_to_num(normal))
        step = torch.cholesky_solve(right.unsqueeze(2), factor).squeeze(2)
        step = torch.where((failed != 0).unsqueeze(1), torch.zeros_like(step), step)
        predicted = (step * right).sum(1) + damping * step.square().sum(1)
        return (step / scale).to(here.dtype), predicted

    def take(self, index, step, predicted, lower, upper, inside):
        """Take steps whose end is known well enough."""
        end = torch.clamp(self.parameters[index] + step, lower[index], upper[index])
        self.parameters[index] = end if inside is None else inside(end)
        self.chi2[index] -= predicted

    def try_move(self, index, trial):
        """Move the problems whose chi2 falls; returns which did and by how much chi2 fell."""
        chi2, gradient, curvature = self.expand(trial, index)
        gain = torch.nan_to_num(self.chi2[index] - chi2, nan=-torch.inf)
        gained = gain > 0
        moved = index[gained]
        self.parameters[moved] = trial[gained]
        self.chi2[moved] = chi2[gained]
        self.gradient[moved] = gradient[gained]
        self.curvature[moved] = curvature[gained]
        return gained, torch.where(gained, gain, torch.zeros_like(gain))
