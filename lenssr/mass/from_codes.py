"""Lenses from the descriptions of other codes."""

from collections.abc import Sequence
from typing import Any

from lenssr.exceptions import InputError
from lenssr.exchange.lenstronomy_names import mass_from
from lenssr.mass.base import MassModel, MassSystem, from_dict
from lenssr.mass.multi_plane import MultiPlane

__all__ = ["from_lenstronomy"]

Options = dict[str, Any]


def from_lenstronomy(
    lens_model_list: Sequence[str] | Options, kwargs_lens: Sequence[dict[str, Any]]
) -> MassModel:
    """Build a lens from the names and keywords of lenstronomy, which need not be installed.

    Parameters
    ----------
    lens_model_list : list of str, or dict
        Names of models; or the options of lenstronomy's ``LensModel``, which hold them, and with
        ``multi_plane`` the redshifts.
    kwargs_lens : list of dict
        Keywords of each model.

    Returns
    -------
    lens : `~lenssr.mass.MassModel`
        A sum if there are several models; a `~lenssr.mass.MultiPlane` if the options say so. A pair of
        ``NIE`` that differ in sign and core is a `~lenssr.mass.DPIE`.

    Raises
    ------
    InputError
        If a model has no counterpart here, or lacks a keyword.

    See Also
    --------
    lenssr.mass.MassModel.to_lenstronomy : The way back.

    Examples
    --------
    >>> from lenssr.mass import from_lenstronomy
    >>> from_lenstronomy(["SIS", "SHEAR"], [{"theta_E": 1.2}, {"gamma1": 0.05, "gamma2": 0.0}])
    SIS(theta_E=1.2, x_0=0.0, y_0=0.0) + Shear(gamma1=0.05, gamma2=0.0, x_0=0.0, y_0=0.0)
    """
    given = lens_model_list
    options: Options = given if isinstance(given, dict) else {"lens_model_list": given}
    names = options.get("lens_model_list", ())
    if not options.get("multi_plane"):
        return _lens(names, kwargs_lens)
    redshifts, z_source = options.get("lens_redshift_list") or (), options.get("z_source")
    if len(redshifts) != len(names) or z_source is None:
        raise InputError("several planes need lens_redshift_list, one for each model, and z_source")
    planes = []
    for z in sorted(set(redshifts)):
        here = [i for i, redshift in enumerate(redshifts) if redshift == z]
        planes.append((float(z), _lens([names[i] for i in here], [kwargs_lens[i] for i in here])))
    reference = options.get("z_source_convention") or z_source
    cosmology = options.get("cosmo")
    return MultiPlane(planes, float(z_source), cosmology=cosmology, z_reference=float(reference))


def _lens(names: Sequence[str], kwargs: Sequence[dict[str, Any]]) -> MassModel:
    models = [from_dict({name: values}) for name, values in mass_from(names, kwargs)]
    return models[0] if len(models) == 1 else MassSystem(*models)
