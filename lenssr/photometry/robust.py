"""Losses that do not let a few bad pixels decide."""

from lenssr.model.least_squares import masked_inverse

__all__ = ["LOSSES", "robust_factor", "sandwich"]

# Scales at which each is 95 % as good as least squares where the noise is Gaussian.
LOSSES = {"huber": 1.345, "cauchy": 2.385}


def robust_factor(residual, loss):
    """By how much a residual counts less than in least squares.

    Parameters
    ----------
    residual : `torch.Tensor`
        In sigma.
    loss : {"huber", "cauchy"}

    Returns
    -------
    factor : `torch.Tensor`
        1 for small residuals, falling to 0.

    References
    ----------
    Holland & Welsch 1977, Communications in Statistics A6, 813.

    Examples
    --------
    >>> import torch
    >>> from lenssr.photometry.robust import robust_factor
    >>> robust_factor(torch.tensor([0.5, 13.45]), "huber")
    tensor([1.0000, 0.1000])
    """
    scale = LOSSES[loss]
    if loss == "huber":
        return scale / residual.abs().clamp_min(scale)
    return 1 / (1 + (residual / scale).square())


def _slope(residual, loss):
    """Derivative of residual times its factor."""
    scale = LOSSES[loss]
    if loss == "huber":
        return (residual.abs() < scale).to(residual)
    squared = (residual / scale).square()
    return (1 - squared) / (1 + squared).square()


def sandwich(jacobian, residual, weight, loss, held):
    """Covariance of a robust fit, from how its residuals really scatter.

    Parameters
    ----------
    jacobian : `torch.Tensor`, shape (B, Z, N)
    residual, weight : `torch.Tensor`, shape (B, N)
        In sigma, and inverse variance.
    loss : {"huber", "cauchy"}
    held : `torch.Tensor` of bool, shape (B, Z)
        Parameters on a bound; their rows are zero.

    Returns
    -------
    covariance : `torch.Tensor`, shape (B, Z, Z)

    References
    ----------
    Huber 1981, "Robust Statistics", section 7.6.
    """
    bread = (jacobian * (weight * _slope(residual, loss)).unsqueeze(1)) @ jacobian.mT
    pull = residual * robust_factor(residual, loss)
    filling = (jacobian * (weight * pull.square()).unsqueeze(1)) @ jacobian.mT
    inverse = masked_inverse(bread, held)
    return inverse @ filling @ inverse
