"""Mass outside the field of view: constant shear, and a sheet of constant convergence."""

import torch
from torch import Tensor

from lenssr.mass.base import MassModel
from lenssr.mass.kernels import Pair, Triple, WithJacobian, centred, lift, plain_numbers, sum_in_blocks
from lenssr.mass.parameter import Length, Parameter, centre

__all__ = ["ConvergenceSheet", "Shear"]


def shear_potential(x: Tensor, y: Tensor, gamma1: Tensor, gamma2: Tensor, x_0: Tensor, y_0: Tensor) -> Tensor:
    """Potential of a constant shear in arcsec2, positions in arcsec."""
    x, y, gamma1, gamma2 = centred(x, y, gamma1, gamma2, x_0, y_0)
    return gamma1 * (x * x - y * y) / 2 + gamma2 * x * y


def shear_deflection(x: Tensor, y: Tensor, gamma1: Tensor, gamma2: Tensor, x_0: Tensor, y_0: Tensor) -> Pair:
    """Deflection by a constant shear in arcsec."""
    x, y, *params = lift(x, y, gamma1, gamma2, x_0, y_0)
    numbers = plain_numbers(x, y, *params)
    if numbers is not None:
        return sum_in_blocks(x, y, (_add_shear, numbers))
    x, y, gamma1, gamma2 = centred(x, y, *params)
    return torch.addcmul(gamma1 * x, gamma2, y), torch.addcmul(gamma2 * x, gamma1, y, value=-1)


def _add_shear(ax: Tensor, ay: Tensor, x: Tensor, y: Tensor, *numbers: float) -> None:
    """Add `shear_deflection` for numbers in place; the origin, mostly 0, comes last."""
    gamma1, gamma2, x_0, y_0 = numbers
    ax.add_(x, alpha=gamma1).add_(y, alpha=gamma2)
    ay.add_(x, alpha=gamma2).sub_(y, alpha=gamma1)
    if x_0 or y_0:
        ax.sub_(gamma1 * x_0 + gamma2 * y_0)
        ay.sub_(gamma2 * x_0 - gamma1 * y_0)


def shear_hessian(x: Tensor, y: Tensor, gamma1: Tensor, gamma2: Tensor, x_0: Tensor, y_0: Tensor) -> Triple:
    """Second derivatives xx, xy, yy of the potential of a constant shear."""
    x, y, gamma1, gamma2 = centred(x, y, gamma1, gamma2, x_0, y_0)
    # 0 * x has the shape, dtype and device of x, and a zero derivative.
    flat = 0 * x + 0 * y
    return gamma1 + flat, gamma2 + flat, flat - gamma1


def _add_shear_hessian(
    xx: Tensor, xy: Tensor, yy: Tensor, x: Tensor, y: Tensor, *numbers: float, alpha: Pair | None = None
) -> None:
    """Add `shear_hessian` for numbers in place, and the deflection to ``alpha``."""
    if alpha is not None:
        _add_shear(*alpha, x, y, *numbers)
    xx.add_(numbers[0])
    xy.add_(numbers[1])
    yy.sub_(numbers[0])


def shear_deflection_jacobian(
    x: Tensor, y: Tensor, gamma1: Tensor, gamma2: Tensor, x_0: Tensor, y_0: Tensor
) -> WithJacobian:
    """Deflection (B, R) by a constant shear, and derivatives (B, 4, R) by its parameters."""
    ax, ay = shear_deflection(x, y, gamma1, gamma2, x_0, y_0)
    none = torch.zeros_like(ax)
    x, y = x - x_0 + none, y - y_0 + none
    dax = torch.stack((x, y, none - gamma1, none - gamma2), dim=-2)
    day = torch.stack((-y, x, none - gamma2, none + gamma1), dim=-2)
    return ax, ay, dax, day


class Shear(MassModel):
    """Constant shear by mass outside the field: psi = gamma1 (x^2 - y^2) / 2 + gamma2 x y.

    Parameters
    ----------
    gamma1, gamma2 : float
        Components of the shear.
    x_0, y_0 : float or `~astropy.units.Quantity`, optional
        Origin, where the deflection vanishes, in arcsec; default 0. Fixed in fits, because it only shifts the
        source.

    Examples
    --------
    >>> from lenssr.mass import Shear
    >>> Shear(0.05, 0.0).deflection(1.0, 1.0)
    (0.05, -0.05)
    """

    gamma1 = Parameter("shear along the axes")
    gamma2 = Parameter("shear along the diagonals")
    x_0, y_0 = centre("origin", fixed=True)
    _potential = staticmethod(shear_potential)
    _deflection = staticmethod(shear_deflection)
    _add_deflection = staticmethod(_add_shear)
    _add_hessian = staticmethod(_add_shear_hessian)
    _hessian = staticmethod(shear_hessian)
    _deflection_jacobian = staticmethod(shear_deflection_jacobian)

    def __init__(self, gamma1: float, gamma2: float, x_0: Length = 0.0, y_0: Length = 0.0) -> None:
        super().__init__(gamma1=gamma1, gamma2=gamma2, x_0=x_0, y_0=y_0)

    def _centres(self) -> list[tuple[float, float]]:
        return []


def sheet_potential(x: Tensor, y: Tensor, kappa: Tensor) -> Tensor:
    """Potential of a sheet of constant convergence in arcsec2, positions in arcsec."""
    x, y, kappa = lift(x, y, kappa)
    return kappa * (x * x + y * y) / 2


def sheet_deflection(x: Tensor, y: Tensor, kappa: Tensor) -> Pair:
    """Deflection by a sheet of constant convergence in arcsec."""
    x, y, kappa = lift(x, y, kappa)
    return kappa * x, kappa * y


def sheet_hessian(x: Tensor, y: Tensor, kappa: Tensor) -> Triple:
    """Second derivatives xx, xy, yy of the potential of a sheet of constant convergence."""
    x, y, kappa = lift(x, y, kappa)
    flat = 0 * (x + y)
    return kappa + flat, 0 * kappa + flat, kappa + flat


class ConvergenceSheet(MassModel):
    """Sheet of constant convergence, around the image centre.

    A sheet changes the scale of the source but not the image (the mass-sheet degeneracy [1]_), so data alone
    do not constrain it: ``needs_prior`` is true, and a fit with a free sheet is refused.

    Parameters
    ----------
    kappa : float
        Convergence; negative for a void.

    References
    ----------
    .. [1] Falco, Gorenstein & Shapiro 1985, ApJ 289, L1

    Examples
    --------
    >>> from lenssr.mass import ConvergenceSheet
    >>> ConvergenceSheet(0.1).deflection(1.0, 2.0)
    (0.1, 0.2)
    """

    #: True: a free sheet changes the scale of the source, and nothing that is seen.
    needs_prior = True
    kappa = Parameter("convergence", fixed=True)
    _potential = staticmethod(sheet_potential)
    _deflection = staticmethod(sheet_deflection)
    _hessian = staticmethod(sheet_hessian)

    def __init__(self, kappa: float) -> None:
        super().__init__(kappa=kappa)
