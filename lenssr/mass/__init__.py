"""Mass models of lenses, and their sums."""

from lenssr.mass.base import MassModel, MassSystem, from_dict
from lenssr.mass.cored_power_law import CoredPowerLaw
from lenssr.mass.double_source_plane import DoubleSourcePlane, SourcePlanes
from lenssr.mass.dual_isothermal import DPIE
from lenssr.mass.elliptical_nfw import EllipticalNFW
from lenssr.mass.from_codes import from_autolens, from_coolest, from_lenstronomy
from lenssr.mass.gaussian_mass import GaussianMass
from lenssr.mass.isothermal import SIE, SIS
from lenssr.mass.kernels import centred
from lenssr.mass.multi_plane import MultiPlane
from lenssr.mass.multipole import EllipticalMultipole, Multipole
from lenssr.mass.nfw import NFW
from lenssr.mass.parameter import EllipticalMixin, Parameter
from lenssr.mass.pixelated import PixelatedDeflection
from lenssr.mass.point import PointMass
from lenssr.mass.power_law import EPL
from lenssr.mass.sersic_mass import SersicMass
from lenssr.mass.shear import ConvergenceSheet, Shear
from lenssr.mass.truncated_nfw import TruncatedNFW

__all__ = [
    "DPIE",
    "EPL",
    "NFW",
    "SIE",
    "SIS",
    "ConvergenceSheet",
    "CoredPowerLaw",
    "DoubleSourcePlane",
    "EllipticalMixin",
    "EllipticalMultipole",
    "EllipticalNFW",
    "GaussianMass",
    "MassModel",
    "MassSystem",
    "MultiPlane",
    "Multipole",
    "Parameter",
    "PixelatedDeflection",
    "PointMass",
    "SersicMass",
    "Shear",
    "SourcePlanes",
    "TruncatedNFW",
    "centred",
    "from_autolens",
    "from_coolest",
    "from_dict",
    "from_lenstronomy",
]
