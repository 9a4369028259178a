"""Lenses as HST sees them, drawn at random and rendered by lenstronomy; and galaxies that lens nothing.

Each has pixels of 0.05", the PSF of a telescope of 2.4 m at 0.6 micron (an obscured aperture with its rings,
blurred by detector and drizzling), and an error plane that follows the counts; its noise is correlated
between neighbours by 0.3, as in drizzled images. The S/N of the arcs, sqrt(sum (arcs / error)^2), is their
total flux over the error that a fit of nothing but this flux has, were pixels independent. Draw number k of a
group is the same whatever else is drawn.

Three groups. "priors": the mass is a power law within 15 degrees and 0.05" of the light of its galaxy, with a
shear of 0.05 rms. "against": one of these does not hold, in turn: the mass is misaligned by 30 to 90 degrees,
or its axis ratio is 0.2 below that of the light, or the shear is 0.12 to 0.2. "none": no lens at all, but an
elliptical with satellites, a spiral, or a merger, in turn; there "arcs" are all but the main galaxy.
"""

import functools
import math
from dataclasses import dataclass

import numpy as np
from astropy.nddata import CCDData, StdDevUncertainty
from astropy.wcs import WCS
from lenstronomy.LightModel.Profiles.sersic import Sersic
from rendered_lenses import RenderedLens
from scipy import ndimage, optimize, special

from lenssr.simulation import GalaxyShapes
from lenssr.simulation.galaxy_shapes import half_light_radius, resample_shape

__all__ = ["GROUPS", "ForeignLens", "drawn"]

GROUPS = {
    "priors": ("as the priors",),
    "against": ("misaligned", "flattened", "sheared"),
    "none": ("elliptical", "spiral", "merger"),
}
PIXEL, RAYS = 0.05, 3
# Seconds, and electron/s in a pixel, of which sky and read noise are the noise.
EXPOSURE, SKY = 2000.0, 0.05
NEIGHBOURS_CORRELATE = 0.3
CORE = 0.02  # arcsec: galaxies are flat within, which the rays resolve


# ---------------------------------------------------------------- the telescope


@functools.cache
def kernel(reach=0.8):
    """The PSF at every ray, out to ``reach`` in arcsec, of a wide filter, blurred by 0.035" rms."""
    step = PIXEL / 2 / RAYS
    number = round(reach / PIXEL) * 2 * RAYS  # so that every sixth ray is at the centre of a pixel
    axis = np.arange(-number, number + 1) * step / 206265
    radius, hole, total = np.hypot(axis, axis[:, None]) + 1e-12, 0.33, 0.0
    for wavelength in np.linspace(0.5e-6, 0.7e-6, 7):
        x = math.pi * 2.4 / wavelength * radius
        total = total + (special.j1(x) / x - hole * special.j1(hole * x) / x) ** 2 / wavelength**2
    total = ndimage.gaussian_filter(total, 0.035 / step, mode="constant")
    return total / total.sum()


def wcs_of(size):
    """North is up, and east to the left."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.cunit = ["RA---TAN", "DEC--TAN"], ["deg", "deg"]
    wcs.wcs.cdelt, wcs.wcs.crpix = np.array([-PIXEL, PIXEL]) / 3600, [(size + 1) / 2] * 2
    wcs.wcs.set()
    return wcs


def correlated_noise(rng, size):
    """Normal noise (size, size) of unit variance, correlated between neighbours."""
    side = (1 - math.sqrt(1 - 2 * NEIGHBOURS_CORRELATE**2)) / (2 * NEIGHBOURS_CORRELATE)
    noise = rng.normal(size=(size + 2, size + 2))
    for axis in (0, 1):
        noise = ndimage.convolve1d(noise, [side, 1.0, side], axis=axis) / math.sqrt(1 + 2 * side**2)
    return noise[1:-1, 1:-1]


def cosmic_rays(rng, size):
    """Tracks (size, size) of one to four cosmic rays, in units of the sky's noise."""
    tracks = np.zeros((size, size))
    for _ in range(rng.integers(1, 5)):
        length, turn, strength = rng.uniform(1, 12), rng.uniform(0, math.pi), 10 ** rng.uniform(1.2, 2.3)
        along = np.arange(0, length, 0.25)
        rows, columns = (
            np.round(rng.uniform(0, size) + along * part).astype(int) % size
            for part in (math.sin(turn), math.cos(turn))
        )
        np.maximum.at(tracks, (rows, columns), strength)
    return tracks


# ---------------------------------------------------------------- what shines


def ellipticity(q, phi):
    """The two components of an axis ratio and an angle in radians."""
    return (1 - q) / (1 + q) * math.cos(2 * phi), (1 - q) / (1 + q) * math.sin(2 * phi)


def cored(flux, radius, n, q, phi, x, y, boxiness=0.0):
    """A Sérsic of a total flux, with a small core; half-light radius in arcsec, angle in radians."""
    amplitude = flux / Sersic().total_flux(amp=1.0, R_sersic=radius, n_sersic=n)
    e1, e2 = ellipticity(q, phi)
    shape = {"e1": e1, "e2": e2, "center_x": x, "center_y": y, "boxiness": boxiness}
    profile = {"amp": amplitude, "R_sersic": radius, "n_sersic": n, "Rb": CORE, "gamma": 0.0}
    return ("CORE_SERSIC", profile | shape)


def galaxy(rng, flux, radius, q, phi, x, y):
    """A bulge and what surrounds it, turned against each other, boxy or discy."""
    share, twist = rng.uniform(0.3, 0.7), math.radians(rng.normal(0, 12))
    outer_q = np.clip(q + rng.normal(0, 0.08), 0.5, 0.99)
    inner, outer = radius * rng.uniform(0.25, 0.5), radius * rng.uniform(0.9, 1.8)
    boxiness = rng.uniform(-0.03, 0.03, 2)
    return [
        cored(share * flux, inner, rng.uniform(2, 4), q, phi - twist / 2, x, y, boxiness[0]),
        cored((1 - share) * flux, outer, rng.uniform(0.8, 1.6), outer_q, phi + twist / 2, x, y, boxiness[1]),
    ]


def picture(image, flux, side, x, y, turn=0.0):
    """A square image as a profile of a total flux, ``side`` arcsec wide."""
    step = side / len(image)
    keywords = {"image": image / (image.sum() * step**2), "amp": flux, "scale": step}
    return ("INTERPOL", keywords | {"center_x": x, "center_y": y, "phi_G": turn})


@functools.cache
def shapes():
    """Shapes of real galaxies."""
    return GalaxyShapes.hubble_deep_field()


def real_galaxy(rng, flux, radius, x, y):
    """A galaxy with the shape of a real one, of a half-light radius in arcsec, anyhow turned."""
    image = resample_shape(shapes()[int(rng.integers(len(shapes())))])
    return picture(image, flux, radius / half_light_radius(image), x, y, rng.uniform(0, 2 * math.pi))


def blob(flux, width, x, y):
    """A round Gaussian."""
    return ("GAUSSIAN", {"amp": flux, "sigma": width, "center_x": x, "center_y": y})


def clumps(rng, flux, number, width, reach, x, y):
    """Gaussians about a place, scattered by ``reach``."""
    fluxes = flux * rng.dirichlet(np.ones(number)) if number else ()
    return [blob(each, rng.uniform(*width), *rng.normal((x, y), reach)) for each in fluxes]


def spiral(rng, flux, radius, x, y):
    """A disc with arms and clumps along them, seen at some angle."""
    places = (np.arange(200) - 99.5) / 100 * 5
    q, turn = rng.uniform(0.5, 0.95), rng.uniform(0, 2 * math.pi)
    across, along = np.meshgrid(places / q, places, indexing="ij")
    r = np.hypot(along, across) + 0.05
    phase = rng.choice([2, 2, 3]) * (np.arctan2(across, along) - np.log(r) / math.tan(rng.uniform(0.3, 0.6)))
    arms = 1 + rng.uniform(0.7, 1.0) * np.cos(phase) * np.clip(r - 0.5, 0, 1)
    lumps = ndimage.gaussian_filter(rng.exponential(size=r.shape), 3, mode="wrap") ** 8
    image = np.exp(-r) * arms * (1 + rng.uniform(0.3, 1.0) * lumps / lumps.mean()) * np.clip(5 - r, 0, 1)
    return picture(image, flux, 10 * radius, x, y, turn)


def tail(rng, flux, radius, x, y):
    """A curved tail of stars about a place."""
    start, length = rng.uniform(0, 2 * math.pi), math.radians(rng.uniform(50, 150))
    lights = []
    for share in np.linspace(0, 1, 40):
        away, angle = radius * (1 + 0.3 * share), start + length * share
        place = x + away * math.cos(angle), y + away * math.sin(angle)
        lights.append(blob(flux * (1.2 - share) / 28, radius * (0.06 + 0.04 * share), *place))
    return lights


# ---------------------------------------------------------------- draws


@dataclass(frozen=True, eq=False)
class ForeignLens:
    """A drawn image, and what is in it.

    Attributes
    ----------
    kind : str
        One of the kinds of its group.
    scene : `~rendered_lenses.RenderedLens`
    flux : float
        Electrons/s of the scene's unit of flux.
    snr : float
        Of the arcs.
    image : `~astropy.nddata.CCDData`
        With its errors, and the exposure in its meta.
    psf : array
        Sampled at the pixels, without their response.
    hidden : array of bool
        Pixels where other objects are brighter than the noise, or cosmic rays are.
    extras : str
        What else there is: "satellite", "neighbour", "cosmic rays".
    """

    kind: str
    scene: RenderedLens
    flux: float
    snr: float
    image: CCDData
    psf: np.ndarray
    hidden: np.ndarray
    extras: str

    def truth(self, scale=1):
        """Noise-free electrons/s of lens galaxy and arcs, as `RenderedLens.plane` has them."""
        return self.flux * (self.scene.plane("light", scale) + self.scene.plane("source", scale))


def drawn(group, number, seed=0):
    """Draw a lens of a group (`GROUPS`)."""
    rng = np.random.default_rng([seed, list(GROUPS).index(group), number])
    return exposed(rng, *scene_of(rng, group, number))


def scene_of(rng, group, number):
    """Draw kind, scene, S/N and extras."""
    kind = GROUPS[group][number % len(GROUPS[group])]
    theta_E, snr = rng.uniform(0.6, 2.0), math.exp(rng.uniform(math.log(20), math.log(200)))
    size = 2 * round(max(6 * theta_E, 4.0) / PIXEL / 2)
    scene, extras = (unlensed if group == "none" else lensed)(rng, kind, theta_E, size)
    return kind, scene, snr, extras


def lensed(rng, kind, theta_E, size):
    """Draw a lens with its galaxy, its source and its surroundings."""
    round_limit = {"misaligned": 0.85, "flattened": 0.79}.get(kind, 1.0)
    q = rng.uniform(0.55, round_limit)
    light_q = q + 0.2 if kind == "flattened" else np.clip(q + rng.normal(0, 0.08), 0.5, round_limit)
    light_phi = rng.uniform(0, math.pi)
    turn = rng.choice([-1, 1]) * rng.uniform(30, 90) if kind == "misaligned" else rng.uniform(-15, 15)
    shear = rng.uniform(0.12, 0.2) if kind == "sheared" else rng.rayleigh(0.05 / math.sqrt(2))
    along = rng.uniform(0, math.pi)
    place = rng.normal(0, 0.05, 2)
    centre = place + within(rng, 0.05)
    lens = (
        *(theta_E, *ellipticity(q, light_phi + math.radians(turn)), *centre),
        *(shear * math.cos(2 * along), shear * math.sin(2 * along)),
    )
    radius = math.exp(rng.uniform(math.log(0.07), math.log(0.25)))
    behind = centre + within(rng, 0.35 * theta_E)
    clumpy = rng.uniform(0, 0.4)
    source = [real_galaxy(rng, 1 - clumpy, radius, *behind)]
    source += clumps(rng, clumpy, int(rng.integers(1, 5)), (0.02, 0.05), 0.7 * radius, *behind)
    flux = math.exp(rng.uniform(math.log(10), math.log(300)))
    light = galaxy(rng, flux, theta_E, light_q, light_phi, *place)
    satellites, others, extras = [], [], []
    if rng.uniform() < 0.3:
        extras.append("satellite")
        mass, where = theta_E * rng.uniform(0.05, 0.15), place + at(rng, theta_E * rng.uniform(0.5, 2.2))
        satellites.append((mass, *where))
        others.append(satellite(rng, flux * (mass / theta_E) ** 2 * math.exp(rng.normal(0, 0.3)), where))
    if rng.uniform() < 0.3:
        extras.append("neighbour")
        others.append(neighbour(rng, flux * 10 ** rng.uniform(-1.7, -0.3), theta_E))
    model = {"lens": lens, "slope": rng.uniform(1.7, 2.3), "satellites": satellites}
    return rendered(size, **model, source=source, light=light, others=others), extras


def unlensed(rng, kind, radius, size):
    """Draw a galaxy that lenses nothing, with what might pass for arcs."""
    place, others = rng.normal(0, 0.05, 2), []
    flux, q, phi = 50.0, rng.uniform(0.55, 1), rng.uniform(0, math.pi)
    light = galaxy(rng, flux, radius, q, phi, *place)
    if kind == "elliptical":
        for _ in range(rng.integers(2, 5)):
            where = place + at(rng, radius * rng.uniform(0.5, 1.8))
            others.append(satellite(rng, flux * rng.uniform(0.005, 0.05), where))
    elif kind == "spiral":
        light = [cored(rng.uniform(0.1, 0.4) * flux, 0.15 * radius, rng.uniform(1, 3), q, phi, *place)]
        others.append(spiral(rng, flux, 0.6 * radius, *place))
    else:
        where = place + at(rng, radius * rng.uniform(0.4, 1.2))
        others.append(real_galaxy(rng, flux * rng.uniform(0.2, 0.8), 0.3 * radius, *where))
        others += tail(rng, flux * rng.uniform(0.03, 0.15), radius * rng.uniform(0.8, 1.4), *place)
    return rendered(size, source=[], light=light, others=others), []


def rendered(size, **parts):
    """The scene in HST's pixels."""
    return RenderedLens(size=size, pixel_scale=PIXEL, sky=0.0, rays=RAYS, kernel=kernel(), **parts)


def exposed(rng, kind, scene, snr, extras):
    """Expose a scene so that its arcs have the S/N."""
    arcs = scene.plane("source" if scene.source else "others")

    def sigma(flux):
        return np.sqrt((flux * scene.plane("all") + SKY) / EXPOSURE)

    def too_bright(log_flux):
        flux = math.exp(log_flux)
        return math.sqrt(np.sum((flux * arcs / sigma(flux)) ** 2)) / snr - 1

    flux = math.exp(optimize.brentq(too_bright, -15, 15))
    data = flux * scene.plane("all") + sigma(flux) * correlated_noise(rng, scene.size)
    rays = np.zeros_like(data)
    if rng.uniform() < 1 / 3:
        extras = [*extras, "cosmic rays"]
        rays = cosmic_rays(rng, scene.size) * math.sqrt(SKY / EXPOSURE)
    data = data + rays
    error = StdDevUncertainty(np.sqrt((np.maximum(data, 0) + SKY) / EXPOSURE))
    return ForeignLens(
        kind=kind,
        scene=scene,
        flux=flux,
        snr=snr,
        image=CCDData(
            data, unit="electron/s", uncertainty=error, wcs=wcs_of(scene.size), meta={"EXPTIME": EXPOSURE}
        ),
        psf=scene.kernel[:: 2 * RAYS, :: 2 * RAYS],
        hidden=(flux * scene.plane("others") > sigma(flux)) | (rays > 0),
        extras=", ".join(extras),
    )


def within(rng, reach):
    """A place within a circle."""
    return at(rng, reach * math.sqrt(rng.uniform()))


def at(rng, away):
    """A place at a distance from the origin."""
    turn = rng.uniform(0, 2 * math.pi)
    return away * np.array([math.cos(turn), math.sin(turn)])


def satellite(rng, flux, where):
    """A small early-type galaxy."""
    shape = rng.uniform(0.05, 0.15), rng.uniform(2, 4), rng.uniform(0.6, 1), rng.uniform(0, math.pi)
    return cored(flux, *shape, *where)


def neighbour(rng, flux, theta_E):
    """A star or a galaxy in the frame, beyond the arcs."""
    x, y = at(rng, theta_E * rng.uniform(1.5, 3))
    if rng.uniform() < 0.3:
        return blob(flux, 0.01, x, y)
    if rng.uniform() < 0.5:
        return real_galaxy(rng, flux, rng.uniform(0.15, 0.5), x, y)
    return cored(
        flux, rng.uniform(0.15, 0.6), rng.uniform(1, 4), rng.uniform(0.5, 1), rng.uniform(0, 3), x, y
    )
