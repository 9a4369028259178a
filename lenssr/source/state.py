"""Where a batch of lenses is on its way uphill: fields, parameters, what they predict, and the next step."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lenssr.source.evidence import laplace_evidence
from lenssr.source.linalg import BandedFactors, DenseFactors, refined_within_box, within_box
from lenssr.source.priors import BatchPrior

if TYPE_CHECKING:
    from lenssr.source.gauss_newton import Request

__all__ = ["STRONGEST", "Factors", "State"]

Factors = BandedFactors | DenseFactors

DIMMER, BRIGHTER = 0.8, 10.0  # shares of a flux by which one step may change it
PROBES = 8
PROBE_SEED = 20061
WEAKEST, STRONGEST = 1e-8, 1e9  # strengths


class State:
    """Fields and parameters of a batch with what they predict."""

    def __init__(self, model, prior, field, parameters, mean, link, *, lens_share=1.0):
        self.model, self.prior, self.link, self.latest = model, prior, link, None
        self.parameter_prior = model.parameter_prior
        if lens_share != 1:
            mean_, stiffness = (part.clone() for part in model.parameter_prior)
            stiffness[:, : model.scene.count("lens")] *= lens_share
            self.parameter_prior = mean_, stiffness
        self.everything = model.everything
        self.finds_mean = mean is None and not link.is_linear
        given = torch.as_tensor(0.0 if mean is None else mean, dtype=field.dtype).to(field).reshape(1, -1)
        self.mean = field.mean(1, keepdim=True) if self.finds_mean else given.expand(len(field), -1).clone()
        self.field, self.parameters = field.clone(), parameters.clone()
        self.source, self.slope = self._brightness(field, self.everything)
        self.strength = torch.ones_like(self.field[:, 0])
        self.residual = self._residual(self.source, parameters, self.everything)
        self.chi2 = self._chi2(self.residual, self.everything)
        self.jacobian = model.jacobian(self.source, parameters, self.everything)
        self._probes = None

    def row(self, row: int, request: Request) -> State:
        """The state of one lens by itself, on the CPU."""
        parts = self.field[row : row + 1].cpu(), self.parameters[row : row + 1].cpu()
        prior = BatchPrior(request.prior, "cpu", dense=False)
        mean = None if self.finds_mean else self.mean[row].cpu().numpy()
        one = State(request.problem.model, prior, *parts, mean, self.link)
        one.mean = self.mean[row : row + 1].cpu()
        one.set_strength(one.everything, self.strength[row : row + 1].cpu())
        return one

    def _brightness(self, field: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        return self.link.on_tensors(field, self.model.log_floor[index].unsqueeze(1))

    def _residual(self, source: Tensor, parameters: Tensor, index: Tensor) -> Tensor:
        return self.model.data[index] - self.model.predict(source, parameters, index)

    def _chi2(self, residual: Tensor, index: Tensor) -> Tensor:
        return (self.model.weight[index] * residual.square()).sum(1)

    def _roughness(self, field: Tensor, index: Tensor) -> Tensor:
        offset = field - self.mean[index]
        return (self.prior.apply(offset) * offset).sum(1)

    def _penalty(self, field, parameters, index):
        mean, stiffness = (part[index] for part in self.parameter_prior)
        pull = (stiffness * (parameters - mean).square()).sum(1)
        return self.strength[index] * self._roughness(field, index) + pull

    def set_strength(self, index: Tensor, strength: Tensor) -> None:
        """Change the strengths of the prior."""
        self.strength[index] = torch.nan_to_num(strength, nan=WEAKEST).clamp(WEAKEST, STRONGEST)

    def rough_strength(self) -> Tensor:
        """First strengths: as if data determined a tenth of the nodes, but no stiffer than the data."""
        rough = self._roughness(self.field, self.everything).clamp_min(1e-300)
        normal = self.model.normal(self.parameters, self.everything)
        diagonal = torch.stack([torch.as_tensor(one.diagonal()) for one in normal])
        data = (self.slope.square() * diagonal).sum(1)
        return torch.minimum(0.1 * self.field.shape[1] / rough, data / self.prior.trace)

    def gradient(self, index: Tensor) -> Tensor:
        """Half the gradients (b, n + K) of the log posteriors."""
        weighted = self.model.weight[index] * self.residual[index]
        parameters = self.parameters[index]
        by_source = self.model.adjoint(weighted.unsqueeze(1), parameters, index).squeeze(1)
        rough = self.prior.apply(self.field[index] - self.mean[index])
        mean, stiffness = (part[index] for part in self.parameter_prior)
        by_field = self.slope[index] * by_source - self.strength[index].unsqueeze(1) * rough
        by_parameter = (self.jacobian[index] @ weighted.unsqueeze(2)).squeeze(2)
        return torch.cat([by_field, by_parameter - stiffness * (parameters - mean)], dim=1)

    def factorise(self, index: Tensor, *, exact: bool = False, loosely: bool = False) -> Factors:
        """Factor the Gauss-Newton matrices, or nearly these; see `ForwardModel.normal`."""
        jacobian, parameters, slope = self.jacobian[index], self.parameters[index], self.slope[index]
        weighted = jacobian * self.model.weight[index].unsqueeze(1)
        cross = slope.unsqueeze(2) * self.model.adjoint(weighted, parameters, index).mT
        corner = jacobian @ weighted.mT + torch.diag_embed(self.parameter_prior[1][index])
        kind = DenseFactors if self.model.dense else BandedFactors
        normal = self.model.normal(parameters, index, exact=exact, loosely=loosely)
        return kind(normal, slope, self.prior, self.strength[index], cross, corner, for_step=not exact)

    def step(self, factors: Factors, index: Tensor) -> Tensor:
        """The Gauss-Newton steps (b, n + K)."""
        step = factors.solve(self.gradient(index).unsqueeze(2)).squeeze(2)
        return torch.where(factors.failed.unsqueeze(1), 0.0, step)

    def times(self, index: Tensor) -> Callable[[Tensor], Tensor]:
        """Make the function that multiplies (b, n + K) by the Gauss-Newton matrices, nothing left out."""
        count, slope, jacobian = self.field.shape[1], self.slope[index], self.jacobian[index]
        weight, parameters = self.model.weight[index], self.parameters[index]
        stiffness, strength = self.parameter_prior[1][index], self.strength[index].unsqueeze(1)

        def product(vector: Tensor) -> Tensor:
            nodes, beside = vector[:, :count], vector[:, count:]
            image = self.model.lensed_source(slope * nodes, parameters, index)
            image = weight * (image + (beside.unsqueeze(1) @ jacobian).squeeze(1))
            by_source = self.model.adjoint(image.unsqueeze(1), parameters, index).squeeze(1)
            by_parameter = (jacobian @ image.unsqueeze(2)).squeeze(2) + stiffness * beside
            return torch.cat([slope * by_source + strength * self.prior.apply(nodes), by_parameter], dim=1)

        return product

    def held_step(self, factors: Factors, index: Tensor, refined: bool = False) -> Tensor:
        """The Gauss-Newton steps (b, n + K), within bounds and within what one step may change.

        ``refined`` ones are of the whole matrices, which the factors are nearly those of.
        """
        down, up = (torch.where(self.model.bright, end, self.model.reach) for end in (DIMMER, BRIGHTER))
        lower, upper = (bound[index] - self.parameters[index] for bound in self.model.bounds)
        box = torch.maximum(lower, -down), torch.minimum(upper, up)
        if not refined:
            return within_box(factors, self.step(factors, index), *box)
        step, quickly = refined_within_box(self.times(index), factors, self.gradient(index), *box)
        if not quickly:
            self.model.forget(index)
        return torch.where(factors.failed.unsqueeze(1), 0.0, step)

    def objective(self, index: Tensor) -> Tensor:
        """Twice the negative log posteriors (b,), but for constants."""
        return self.chi2[index] + self._penalty(self.field[index], self.parameters[index], index)

    def trial(self, index: Tensor, step: Tensor) -> tuple[Tensor, ...]:
        """Where steps lead: field, parameters, source, slope, residual and chi2, and the objectives (b,)."""
        count, (lower, upper) = self.field.shape[1], self.model.bounds
        nodes, asked = step[:, :count], step[:, count:]
        if not self.link.is_linear and bool(self.model.bright.any()):
            # Beside lens light, which the same pixels show, a step is meant in what the image is proportional
            # to, not in its logarithm.
            nodes = nodes.clamp_min(-DIMMER).log1p()
        field = self.field[index] + nodes
        moved = torch.where(self.model.bright, asked.clamp_min(-DIMMER).log1p(), asked)
        parameters = (self.parameters[index] + moved).clamp(lower[index], upper[index])
        source, slope = self._brightness(field, index)
        residual = self._residual(source, parameters, index)
        chi2 = self._chi2(residual, index)
        objective = chi2 + self._penalty(field, parameters, index)
        return field, parameters, source, slope, residual, chi2, objective

    def take(self, index: Tensor, parts: Iterable[Tensor]) -> None:
        """Move to where trials have led."""
        kept = (self.field, self.parameters, self.source, self.slope, self.residual, self.chi2)
        for mine, part in zip(kept, parts, strict=True):
            mine[index] = part

    def renew_jacobian(self, index: Tensor) -> None:
        """Find the derivatives anew after a move."""
        if len(index):
            self.jacobian[index] = self.model.jacobian(self.source[index], self.parameters[index], index)

    def determined(self, factors: Factors, index: Tensor, less: float | Tensor = 0.0) -> Tensor:
        """Numbers (b,) of nodes that the data determine: n - strength (tr(A^-1 C) - less)."""
        undetermined = self.strength[index] * (factors.trace(self.prior, self.probes) - less)
        return (factors.count - undetermined).clamp(1.0, factors.count)

    @property
    def probes(self) -> NDArray:
        """Fixed signs (n + K, PROBES) for traces."""
        if self._probes is None:
            size = self.field.shape[1] + self.parameters.shape[1]
            self._probes = np.random.default_rng(PROBE_SEED).choice([-1.0, 1.0], (size, PROBES))
        return self._probes

    def likeliest_strength(self, factors, index, field=None, *, less=0.0):
        """The strengths at which the evidence of fields, by default the present ones, is stationary."""
        field = self.field[index] if field is None else field
        if self.finds_mean:
            self.mean[index] = field.mean(1, keepdim=True)
        determined = self.determined(factors, index, less)
        if self.latest is None:
            self.latest = torch.full_like(self.strength, torch.nan)
        self.latest[index] = determined
        return determined / self._roughness(field, index).clamp_min(1e-300)

    def evidence(self, factors: Factors) -> Tensor:
        """Laplace evidence (B,): fit, prior, and the ratio of the volumes of posterior and prior."""
        stiffness = self.parameter_prior[1]
        prior = self.prior.log_determinant + self.field.shape[1] * self.strength.log()
        prior = prior + torch.where(stiffness > 0, stiffness, 1.0).log().sum(1)
        penalty = self.chi2 + self._penalty(self.field, self.parameters, self.everything)
        return laplace_evidence(prior, factors.log_determinant, penalty)
