"""Mass models from plain dictionaries, as they stand in YAML files, saved resolvers and results."""

import numpy as np

from lenssr._plain import read_models
from lenssr.exceptions import InputError
from lenssr.mass.base import MassModel
from lenssr.mass.system import MassSystem

__all__ = ["from_dict"]


def from_dict(description):
    """Build a mass model, or a system, from plain numbers and strings.

    Parameters
    ----------
    description : dict or list of dict
        ``{"SIE": {"theta_E": 1.2, "e1": 0.1}}``: names of models and their parameters, in arcsec or as
        strings with a unit (``"1.2 arcsec"``). Elliptical models also take ``q`` and ``phi``
        (``"30 deg"``). Two more keys for fits: ``fixed``, a list of parameters that stay as they are, and
        ``bounds``, a dictionary of pairs; two that a fit has written: ``std``, a dictionary of errors, and
        ``covariance``, nested lists. Several models make a system; a last entry ``{"covariance": ...}`` is
        that of all its parameters. Models of your own are found by name once they are imported.

    Returns
    -------
    model : `~lenssr.mass.MassModel`

    Raises
    ------
    InputError
        If a name is unknown, or a value refused.

    See Also
    --------
    lenssr.mass.MassModel.to_dict : The way back.

    Examples
    --------
    >>> from lenssr.mass import from_dict
    >>> from_dict([{"SIE": {"theta_E": 1.2, "e1": 0.1}}, {"Shear": {"gamma1": 0.05, "gamma2": 0.0}}])
    SIE(theta_E=1.2, e1=0.1, e2=0.0, x_0=0.0, y_0=0.0) + Shear(gamma1=0.05, gamma2=0.0, x_0=0.0, y_0=0.0)
    """
    entries = description if isinstance(description, list) else [description]
    if not entries or not all(isinstance(entry, dict) and entry for entry in entries):
        raise InputError(
            f'{description!r} describes no lens: give {{"SIE": {{"theta_E": 1.2}}}} or a list of such'
        )
    if list(entries[0]) == ["MassSystem"]:
        return _system(**entries[0]["MassSystem"])
    if len(entries) > 1:
        return _system(entries)
    return read_models(entries, MassModel, "mass model")[0]


def _system(components, covariance=None):
    """A system of models, with the covariance that stands beside them or after the last."""
    if components and list(components[-1]) == ["covariance"]:
        *components, last = components
        covariance = last["covariance"]
    system = MassSystem(*read_models(components, MassModel, "mass model"))
    if covariance is None:
        return system
    errors = [parameter.std for parameter in system.parameters]
    system._take(system.vector.numpy(), np.array(covariance, dtype=np.float64))
    # Set last: a covariance has 0 for a parameter that is fixed, which is not an error.
    for parameter, std in zip(system.parameters, errors, strict=True):
        parameter.std = std
    return system
