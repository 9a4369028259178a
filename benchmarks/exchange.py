"""Round trips to other codes: every family of lenses and every light profile, there and back.

"there" is the largest difference of deflections (arcsec) or brightnesses (over the largest) between lenssr
and the other code at 200 places; "image" the largest difference of the images of one Sérsic source behind
both (of COOLEST: behind the lens and behind what is read back), over its largest brightness; "back" the
largest change of a parameter, or with COOLEST of a deflection, after the way there and back.
lenstronomy and the package coolest evaluate their own profiles; PyAutoLens is compared by its published
formula of the convergence, since it is not installed.

    python benchmarks/exchange.py
"""

import warnings
from types import SimpleNamespace

import common  # first: it sets one thread
import numpy as np
from coolest.api.profiles import light as coolest_light
from coolest.api.profiles import mass as coolest_mass
from lenstronomy.LensModel.lens_model import LensModel
from lenstronomy.LightModel.light_model import LightModel

from lenssr import light, mass
from lenssr._exchange import coolest_profiles
from lenssr.exceptions import InputError
from lenssr.light.light_codes import numbers_of
from lenssr.result import coolest_files

AT = {"x_0": 0.1, "y_0": -0.2}
E = {"e1": 0.12, "e2": -0.08, **AT}
X, Y = np.random.default_rng(5).normal(scale=1.2, size=(2, 200))
FEW = 20  # of a profile that lenstronomy integrates
SOURCE = light.Sersic(1.0, 0.3, 1.5, 0.05, -0.1, 0.2, 0.1)
FIELD, PIXEL = 140, 0.1  # of the data of a template, whose grids have pixels half as wide
MAP, NARROW = "PixelatedDeflection", 32  # pixels within a map
CELLS = np.mgrid[-20:21, -20:21] * 0.1
LENSES = {
    "SIS": mass.SIS(1.1, **AT),
    "SIE": mass.SIE(1.2, **E),
    "EPL": mass.EPL(1.2, 2.2, **E),
    "CoredPowerLaw, gamma 2": mass.CoredPowerLaw(1.2, 2.0, 0.1, **E),
    "CoredPowerLaw, round": mass.CoredPowerLaw(1.2, 2.3, 0.2, **AT),
    "CoredPowerLaw": mass.CoredPowerLaw(1.2, 2.3, 0.2, **E),
    "DPIE": mass.DPIE(1.2, 0.1, 3.0, **E),
    "NFW": mass.NFW(2.0, 1.3, **AT),
    "EllipticalNFW": mass.EllipticalNFW(2.0, 1.3, **E),
    "TruncatedNFW": mass.TruncatedNFW(2.0, 1.3, 5.0, **AT),
    "SersicMass, round": mass.SersicMass(0.4, 1.0, 4.0, **AT),
    "SersicMass": mass.SersicMass(0.4, 1.0, 2.5, **E),
    "GaussianMass": mass.GaussianMass(0.5, 0.8, **E),
    "Multipole 3": mass.Multipole(3, 0.03, 0.02, **AT),
    "Multipole 4": mass.Multipole(4, 0.03, 0.02, **AT),
    "EllipticalMultipole 4, along x": mass.EllipticalMultipole(4, 0.03, 0.02, e1=0.2, **AT),
    "EllipticalMultipole 4, turned": mass.EllipticalMultipole(4, 0.03, 0.02, **E),
    "PointMass": mass.PointMass(0.9, **AT),
    "Shear": mass.Shear(0.05, -0.03),
    "ConvergenceSheet": mass.ConvergenceSheet(0.2),
    "PixelatedDeflection": mass.PixelatedDeflection(*mass.SIE(1.2, **E).deflection(*CELLS[::-1]), 0.1),
    "MultiPlane": mass.MultiPlane([(0.3, mass.SIE(1.2, **E)), (0.8, mass.SIS(0.2, **AT))], z_source=2.0),
}
LIGHTS = {
    "Sersic, n 0.7": light.Sersic(2.0, 0.3, 0.7, **E),
    "Sersic, n 4": light.Sersic(2.0, 0.3, 4.0, **E),
    "MultiGaussian": light.MultiGaussian([0.1, 0.4], [1.0, 3.0], **E),
    "PixelatedSource": light.PixelatedSource(np.random.default_rng(1).uniform(size=(12, 15)), 0.2, **AT),
}
# Parameters of PyAutoLens, and by what formula they become ours.
AUTOLENS = (
    ("Isothermal", {"einstein_radius": 1.6, "ell_comps": (0.0526, 0.0)}),
    ("PowerLaw", {"einstein_radius": 1.6, "slope": 2.2, "ell_comps": (0.1, 0.05), "centre": (0.02, -0.01)}),
    ("IsothermalSph", {"einstein_radius": 1.6}),
    ("ExternalShear", {"gamma_1": 0.05, "gamma_2": 0.05}),
)


def changed(before, after):
    """Largest change of a parameter, or of a map."""
    if not len(before.param_names):
        return np.abs(before.alpha_x - after.alpha_x).max()
    return np.abs(np.asarray(before.vector) - np.asarray(after.vector)).max()


def places(lens, name):
    if name == MAP:  # lenstronomy interpolates linearly: at the pixels
        return CELLS[1].ravel(), CELLS[0].ravel()
    return (X[:FEW], Y[:FEW]) if name == "SersicMass" else (X, Y)


def named(models):
    """Names of models joined by a plus, a long list of one name in short."""
    return f"{len(models)} {models[0]}" if len(models) > 9 else " + ".join(models)


def image_apart(x, y, ours, theirs):
    """Largest difference of the images of a source at two sets of deflections, over the brightest."""
    one, other = (SOURCE(x - alpha[0], y - alpha[1]) for alpha in (ours, theirs))
    return np.abs(one - other).max() / one.max()


def to_lenstronomy(name, lens):
    try:
        options, kwargs = lens.to_lenstronomy()
    except InputError as error:
        return (name, *"----", str(error).split(":")[0])
    x, y = places(lens, name)
    ours, theirs = lens.deflection(x, y), LensModel(**options).alpha(x, y, kwargs)
    apart, image = np.abs(np.array(ours) - theirs).max(), image_apart(x, y, ours, theirs)
    gap = changed(lens, mass.from_lenstronomy(options, kwargs))
    return (name, named(options["lens_model_list"]), *(f"{one:.0e}" for one in (apart, image, gap)), "")


def light_to_lenstronomy(name, galaxy):
    options, kwargs = light.to_lenstronomy(galaxy)
    ours = galaxy(X, Y)
    there = np.abs(ours - LightModel(**options).surface_brightness(X, Y, kwargs)).max() / ours.max()
    back = light.from_lenstronomy(options, kwargs)
    gap = np.abs(galaxy.parameters - back.parameters).max()
    return (name, options["light_model_list"][0], f"{there:.0e}", f"{gap:.0e}")


def to_coolest(name, lens):
    family = type(lens).__name__
    if family == "MultiPlane":
        return (name, *"----", "COOLEST holds one plane")
    x, y = (np.clip(axis, -NARROW / 20, NARROW / 20) for axis in (X, Y)) if family == MAP else (X, Y)
    ours, found = lens.deflection(x, y), coolest_profiles.profile_of_mass(family, lens._described())
    if found is None:
        kind, note = "PixelatedRegularGridPotential", "as a map of the potential"
        pixels = SimpleNamespace(data=np.zeros((NARROW if family == MAP else FIELD,) * 2))
        potential = coolest_files._potential([lens], pixels, PIXEL)
        back, there = mass.PixelatedDeflection.from_potential(potential.values, potential.pixel_scale), "-"
    else:
        kind, values = found
        theirs = getattr(coolest_mass, kind, None)
        note = "" if theirs is not None else "which the package does not evaluate"
        there = "-" if theirs is None else np.abs(np.array(ours) - theirs().deflection(x, y, **values)).max()
        there = there if theirs is None else f"{there:.0e}"
        back = mass.from_dict(dict([coolest_profiles.mass_of(kind, values, family in ("SIS", "SIE"))]))
    returned = back.deflection(x, y)
    gap = np.abs(np.array(ours) - returned).max()
    return (name, kind, there, f"{image_apart(x, y, ours, returned):.0e}", f"{gap:.0e}", note)


def light_to_coolest(name, galaxy):
    kind = type(galaxy).__name__
    found = coolest_profiles.profile_of_light(kind, numbers_of(galaxy))
    if found is None:
        axis = (np.arange(2 * FIELD) - FIELD + 0.5) * PIXEL / 2
        back = light.PixelatedSource(galaxy(*np.meshgrid(axis, axis)), PIXEL / 2)
        gap = np.abs(back(X, Y) - galaxy(X, Y)).max() / galaxy(X, Y).max()
        return (name, "PixelatedRegularGrid", "-", f"{gap:.0e} of the brightness")
    theirs, ours = coolest_light.Sersic().evaluate_surface_brightness(X, Y, **found[1]), galaxy(X, Y)
    back = light.Sersic(**coolest_profiles.light_of(*found)[1])
    there, gap = np.abs(theirs - ours).max() / ours.max(), np.abs(back.parameters - galaxy.parameters).max()
    return (name, found[0], f"{there:.0e}", f"{gap:.0e}")


def from_autolens(name, values):
    lens = mass.from_autolens([(name, values)])
    said = ", ".join(f"{one.name} {one.value:.5f}" for one in lens.parameters if not one.fixed)
    if name == "ExternalShear":
        return (name, said, "-")
    e2, e1 = values.get("ell_comps", (0.0, 0.0))
    e, phi = np.hypot(e1, e2), np.arctan2(e2, e1) / 2
    q, slope = (1 - e) / (1 + e), values.get("slope", 2.0)
    y_0, x_0 = values.get("centre", (0.0, 0.0))
    x = X * np.cos(phi) - Y * np.sin(phi) + x_0
    y = X * np.sin(phi) + Y * np.cos(phi) + y_0
    radius = values["einstein_radius"]
    theirs = (3 - slope) / (1 + q) * (radius / np.hypot(X, Y / q)) ** (slope - 1)
    return (name, said, f"{np.abs(lens.convergence(x, y) / theirs - 1).max():.0e}")


def main():
    warnings.filterwarnings("ignore", message="Cosmology is provided")
    common.header("Round trips to other codes", places=len(X))
    print("lenstronomy: lenses")
    columns = ("family", "name there", "there", "image", "back", "note")
    common.table(columns, [to_lenstronomy(name, lens) for name, lens in LENSES.items()])
    print("lenstronomy: light")
    common.table(
        ("profile", "name there", "there", "back"),
        [light_to_lenstronomy(name, one) for name, one in LIGHTS.items()],
    )
    print("COOLEST: lenses (back: deflections)")
    common.table(columns, [to_coolest(name, lens) for name, lens in LENSES.items()])
    print("COOLEST: light")
    common.table(
        ("profile", "name there", "there", "back"),
        [light_to_coolest(name, one) for name, one in LIGHTS.items()],
    )
    print("PyAutoLens: parameters, and the largest relative difference of the convergence")
    common.table(("profile", "here", "convergence"), [from_autolens(*one) for one in AUTOLENS])


if __name__ == "__main__":
    main()
