"""What bends light: mass models and their sums."""

from lenssr.mass.base import MassModel, MassSystem, Parameter
from lenssr.mass.isothermal import SIE, SIS
from lenssr.mass.power_law import EPL
from lenssr.mass.shear import ConvergenceSheet, Shear

__all__ = ["EPL", "SIE", "SIS", "ConvergenceSheet", "MassModel", "MassSystem", "Parameter", "Shear"]
