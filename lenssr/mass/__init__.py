"""Mass models of lenses, and their sums."""

from lenssr.mass.base import MassModel, MassSystem, from_dict
from lenssr.mass.isothermal import SIE, SIS
from lenssr.mass.kernels import centred
from lenssr.mass.nfw import NFW
from lenssr.mass.parameter import EllipticalMixin, Parameter
from lenssr.mass.pixelated import PixelatedDeflection
from lenssr.mass.point import PointMass
from lenssr.mass.power_law import EPL
from lenssr.mass.shear import ConvergenceSheet, Shear

__all__ = [
    "EPL",
    "NFW",
    "SIE",
    "SIS",
    "ConvergenceSheet",
    "EllipticalMixin",
    "MassModel",
    "MassSystem",
    "Parameter",
    "PixelatedDeflection",
    "PointMass",
    "Shear",
    "centred",
    "from_dict",
]
