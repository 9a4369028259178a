"""Robust loss functions (M-estimators)."""

from lenssr.model.least_squares import masked_inverse

__all__ = ["LOSSES", "robust_factor", "sandwich"]

# Scales in sigma: efficiency of 95 % for Gaussian noise (Holland & Welsch 1977).
LOSSES = {"huber": 1.345, "cauchy": 2.385}


def robust_factor(residual, loss):
    """Weight of a residual (in sigma) relative to least squares: 1 for small ones, falling to 0.

    Holland & Welsch 1977, Communications in Statistics A6, 813.

    >>> import torch
    >>> from lenssr.photometry.robust import robust_factor
    >>> robust_factor(torch.tensor([0.5, 13.45]), "huber")
    tensor([1.0000, 0.1000])
    """
    scale = LOSSES[loss]
    if loss == "huber":
        return scale / residual.abs().clamp_min(scale)
    return 1 / (1 + (residual / scale).square())


def _influence_slope(residual, loss):
    """Derivative of residual times weight, the influence function."""
    scale = LOSSES[loss]
    if loss == "huber":
        return (residual.abs() < scale).to(residual)
    squared = (residual / scale).square()
    return (1 - squared) / (1 + squared).square()


def sandwich(jacobian, residual, weight, loss, held):
    """Covariance (B, Z, Z) of a robust fit, from the scatter of its residuals.

    The Jacobian is (B, Z, N); residuals in sigma and inverse variances are (B, N); ``held`` (B, Z) marks
    parameters on a bound, whose rows are zero. Huber 1981, "Robust Statistics", section 7.6.
    """
    bread = (jacobian * (weight * _influence_slope(residual, loss)).unsqueeze(1)) @ jacobian.mT
    pull = residual * robust_factor(residual, loss)
    filling = (jacobian * (weight * pull.square()).unsqueeze(1)) @ jacobian.mT
    inverse = masked_inverse(bread, held)
    return inverse @ filling @ inverse
