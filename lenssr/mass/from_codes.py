"""Lenses from the descriptions of other codes."""

import os
from collections.abc import Sequence
from typing import Any

from lenssr._exchange.autolens_names import mass_from_autolens
from lenssr._exchange.coolest_profiles import mass_of
from lenssr._exchange.coolest_template import Profile, Template, read_template
from lenssr._exchange.lenstronomy_names import mass_from
from lenssr._files import local_path
from lenssr.exceptions import InputError
from lenssr.mass.base import MassModel, MassSystem, from_dict
from lenssr.mass.elliptical_nfw import ellipsoids
from lenssr.mass.multi_plane import MultiPlane
from lenssr.mass.pixelated import PixelatedDeflection

__all__ = ["from_autolens", "from_coolest", "from_lenstronomy", "lens_of"]

Options = dict[str, Any]
OFF_CENTRE = 1e-6
"""By how many of its pixels a map of the potential may be off the origin."""


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
        ``NIE`` that differ in sign and core is a `~lenssr.mass.DPIE`, the set of ``CSE`` that an
        `~lenssr.mass.EllipticalNFW` is written as is one again; ``NFW_ELLIPSE_CSE`` is one as well.

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
    models = [from_dict({name: values}) for name, values in mass_from(names, kwargs, ellipsoids())]
    return models[0] if len(models) == 1 else MassSystem(*models)


def from_autolens(profiles: Sequence[tuple[str, dict[str, Any]]]) -> MassModel:
    """Build a lens from mass profiles of PyAutoLens, which need not be installed.

    Parameters
    ----------
    profiles : list of tuple
        The name of each profile (Isothermal, PowerLaw, their Sph forms, PointMass, ExternalShear) and its
        parameters, with PyAutoLens's names and units: pairs have y first.

    Returns
    -------
    lens : `~lenssr.mass.MassModel`
        A sum if there are several profiles.

    Raises
    ------
    InputError
        If a profile is not translated, lacks a parameter, or has one that is not known.

    Examples
    --------
    >>> from lenssr.mass import from_autolens
    >>> lens = from_autolens([("Isothermal", {"einstein_radius": 1.6, "ell_comps": (0.0526, 0.0)})])
    >>> round(lens.theta_E.value, 4), lens.e1.value, lens.e2.value
    (1.5978, 0.0, 0.0526)
    """
    models = [from_dict(dict([mass_from_autolens(name, values)])) for name, values in profiles]
    return models[0] if len(models) == 1 else MassSystem(*models)


def from_coolest(path: str | os.PathLike[str]) -> MassModel:
    """Read the lens of a COOLEST template, which any code may have written.

    It needs the package coolest (``pip install "lenssr[coolest]"``). Nothing in a file is run.

    Parameters
    ----------
    path : str or `~pathlib.Path`
        The ``.json`` file; files that it names lie beside it.

    Returns
    -------
    lens : `~lenssr.mass.MassModel`
        A sum if there are several profiles. SIE, PEMD, NIE and SPEMD with a core (a `CoredPowerLaw`),
        Chameleon, external shear, sheet of convergence, and the potential on a regular grid.

    Raises
    ------
    InputError
        If the package is missing, its loader refuses the file, there is no mass, or a profile has no
        counterpart here: an NFW, whose unit of density the format leaves open.

    See Also
    --------
    lenssr.SuperResolution.from_coolest : The whole template.
    """
    return lens_of(read_template(local_path(path)))


def lens_of(template: Template) -> MassModel:
    """The lens of a template that has been read."""
    heavy = [entity for entity in template.entities if entity.mass]
    redshifts = sorted({entity.redshift for entity in heavy if entity.redshift is not None})
    if len(redshifts) > 1:
        raise InputError(f"the template has mass at redshifts {redshifts}: give one with a single plane")
    models = [_of_profile(profile) for entity in heavy for profile in entity.mass]
    if not models:
        raise InputError("the template has no mass: give one with a lens")
    return models[0] if len(models) == 1 else MassSystem(*models)


def _of_profile(profile: Profile) -> MassModel:
    grid = profile.grid
    if grid is not None:
        if max(map(abs, grid.centre)) > OFF_CENTRE * grid.pixel_scale:
            raise InputError(f"a potential around {grid.centre} is refused: give one around (0, 0)")
        return PixelatedDeflection.from_potential(grid.values, grid.pixel_scale)
    name, values = mass_of(profile.kind, profile.values, "gamma" in profile.fixed)
    return from_dict({name: values})
