"""Double rings that lenstronomy renders: one lens, two sources, of which the first deflects the second.

Lens equation of both planes, light, integration over pixels and convolution are lenstronomy's. Each is
fitted without any hint: the lens (SIE and shear), the mass of the first source, both sources, and beta, the
scaling of the two planes, with a prior of 0.1 whose middle is off by a draw of that width. Right is a fit
whose Einstein radii of both sources are within 1 %, both sources within 10 % of the truth (the norm of what
is off, over that of the source's image), beta within 3 of its errors, and chi2 that of noise. "held" are the
same with beta of redshifts and cosmology.

    python benchmarks/double_rings.py [-n 20] [--held 5] [--jobs 1]
"""

import time
import warnings
from dataclasses import dataclass
from functools import cached_property

import astropy.units as u
import common  # first: it sets one thread
import numpy as np
from astropy.cosmology import Planck18
from astropy.nddata import CCDData
from lenstronomy.Data.pixel_grid import PixelGrid
from lenstronomy.Data.psf import PSF
from lenstronomy.ImSim.image_model import ImageModel
from lenstronomy.LensModel.lens_model import LensModel
from lenstronomy.LightModel.light_model import LightModel
from scipy.special import gammaincinv

from lenssr import SIE, DoubleSourcePlane, Sersic, Shear, SourcePlanes, SuperResolver

SIDE, PIXEL, FWHM, RAYS = 56, 0.08, 0.16, 7
PRIOR = 0.1
RADIUS_WITHIN, SOURCE_WITHIN, SIGMAS, WORST_CHI2 = 0.01, 0.1, 3.0, 1.1
COLUMNS = ("ring", "R_E 1", "R_E 2", "off 1", "off 2", "mass of first", "beta", "true", "pull", "chi2")
COLUMNS += ("right", "flags", "s")
LINE = "{:<8} {:>6} {:>6} {:>5} {:>5}  {:<18} {:<17} {:>6} {:>5} {:>6} {:>5}  {:<16} {:>3}"


@dataclass(frozen=True)
class DoubleRing:
    """One system, drawn from a seed."""

    seed: int

    @cached_property
    def rng(self):
        """Draws of this system, then of its noise."""
        return np.random.default_rng([24, self.seed])

    @cached_property
    def numbers(self):
        """Redshifts, lens, mass of the first source, and both sources, in arcsec."""
        draw = self.rng
        z = draw.uniform(0.2, 0.4), draw.uniform(0.55, 0.9), draw.uniform(1.5, 3.0)
        lens = (draw.uniform(1.3, 1.6), *draw.normal(0, 0.08, 2), *draw.normal(0, 0.02, 2))
        sources = [
            (
                draw.uniform(0.1, 0.2),
                draw.uniform(0.8, 2.0),
                *draw.normal(0, place, 2),
                *draw.normal(0, 0.1, 2),
            )
            for place in (0.05, 0.08)
        ]
        return z, lens, draw.normal(0, 0.03, 2), draw.uniform(0.05, 0.25), sources

    @property
    def planes(self):
        """The source planes by redshift."""
        z, *_ = self.numbers
        return SourcePlanes(z_lens=z[0], z_sources=z[1:], cosmology=Planck18)

    @property
    def lens(self):
        """What lenstronomy renders, as lenssr's model."""
        _, lens, shear, mass, (first, _) = self.numbers
        x_0, y_0 = first[2:4]
        return DoubleSourcePlane(SIE(*lens) + Shear(*shear), self.planes, theta_E=mass, x_0=x_0, y_0=y_0)

    @cached_property
    def image(self):
        """The image (ny, nx) without noise, the brightest pixel of each source 1 and 0.6."""
        z, lens, shear, mass, sources = self.numbers
        keys = ("theta_E", "e1", "e2", "center_x", "center_y")
        first = sources[0]
        masses = [
            dict(zip(keys, lens, strict=True)),
            {"gamma1": shear[0], "gamma2": shear[1], "ra_0": 0.0, "dec_0": 0.0},
            {"theta_E": mass, "center_x": first[2], "center_y": first[3]},
        ]
        options = {"lens_redshift_list": [z[0], z[0], z[1]], "z_source": z[2], "cosmo": Planck18}
        with warnings.catch_warnings(action="ignore"):
            model = LensModel(["SIE", "SHEAR", "SIS"], multi_plane=True, **options)
        margin = int(np.ceil(4 * FWHM / PIXEL))
        number = SIDE + 2 * margin
        corner = -(number - 1) / 2 * PIXEL
        grid = PixelGrid(number, number, np.eye(2) * PIXEL, corner, corner)
        psf = PSF("GAUSSIAN", fwhm=FWHM, pixel_size=PIXEL, truncation=5)
        numerics = {"supersampling_factor": RAYS, "supersampling_convolution": True}
        # Lights of one redshift alone would be put at that of the lens model.
        lights = LightModel(["SERSIC_ELLIPSE"] * 2, source_redshift_list=z[1:])
        scene = ImageModel(grid, psf, model, lights, kwargs_numerics=numerics)
        names = ("R_sersic", "n_sersic", "center_x", "center_y", "e1", "e2")
        images = []
        for shining in range(2):
            keywords = [
                {"amp": float(k == shining), **dict(zip(names, source, strict=True))}
                for k, source in enumerate(sources)
            ]
            image = scene.image(masses, keywords)[margin:-margin, margin:-margin]
            images.append((image, (1.0, 0.6)[shining] / image.max()))
        return images

    @cached_property
    def sigma(self):
        """Noise of a pixel: the brighter source is 25 to 50 times as bright."""
        return 1 / np.random.default_rng([25, self.seed]).uniform(25, 50)

    def draw(self):
        """The image with noise, as a `CCDData`."""
        noise = np.random.default_rng([26, self.seed]).normal(0, self.sigma, (SIDE, SIDE))
        return CCDData(sum(image * scale for image, scale in self.image) + noise, unit="electron/s")

    @property
    def sources(self):
        """Both sources as lenssr's models; lenstronomy's b_n is an approximation."""
        models = []
        for (radius, n, x, y, e1, e2), (_, scale) in zip(self.numbers[-1], self.image, strict=True):
            exact, theirs = gammaincinv(2 * n, 0.5), 1.9992 * n - 0.3271
            q = (1 - np.hypot(e1, e2)) / (1 + np.hypot(e1, e2))
            half = radius * (exact / theirs) ** n / np.sqrt(q)
            amplitude = scale * np.exp(theirs - exact)
            models.append(Sersic(amplitude, half, n, x, y, e1, e2))
        return models


def difference(plane, truth):
    """How far the image of a source is off, over its norm."""
    ny, nx = plane.shape
    side, x_0, y_0 = (plane.meta[name] for name in ("pixel_scale", "x_0", "y_0"))
    y, x = np.indices((ny, nx), dtype=float)
    right = truth(x_0 + (x - (nx - 1) / 2) * side, y_0 + (y - (ny - 1) / 2) * side)
    return float(np.linalg.norm(plane.data - right) / np.linalg.norm(right))


def radius(lens, source):
    """Effective Einstein radius for one of the sources, in arcsec."""
    return lens.of_source(source).einstein_radius().value


def solve(seed, held=False):
    """What a fit finds, beside the truth."""
    ring = DoubleRing(seed)
    right = ring.planes.beta
    planes = ring.planes
    if not held:
        middle = right + np.random.default_rng([27, seed]).normal(0, PRIOR)
        planes = SourcePlanes(beta=float(np.clip(middle, 0.3, 0.95)), beta_error=PRIOR)
    start = time.process_time()
    resolver = SuperResolver(source_planes=planes)
    result = resolver(ring.draw(), noise=ring.sigma, psf=FWHM * u.arcsec, pixel_scale=PIXEL)
    truths = ring.sources
    beta = result.lens.beta
    return {
        "seconds": time.process_time() - start,
        "radii": [radius(result.lens, k) / radius(ring.lens, k) for k in (1, 2)],
        "off": [
            difference(plane, truth)
            for plane, truth in zip((result.source, result.second_source), truths, strict=True)
        ],
        "mass": (
            float(result.lens.sphere.theta_E.value - ring.numbers[3]),
            float(result.lens.sphere.theta_E.std),
        ),
        "beta": (float(beta.value), float(beta.std or 0.0), right),
        "chi2": float(result.reduced_chi2),
        "flags": [flag for flag in result.flags if flag != "no_wcs"],
        "ok": bool(result.ok),
    }


def is_right(found):
    """Whether lens, both sources and beta are right."""
    value, error, right = found["beta"]
    beta = abs(value - right) <= max(SIGMAS * error, 1e-9)
    lens = all(abs(ratio - 1) < RADIUS_WITHIN for ratio in found["radii"])
    return beta and lens and max(found["off"]) < SOURCE_WITHIN and found["chi2"] < WORST_CHI2


def row(name, found):
    value, error, right = found["beta"]
    mass, mass_error = found["mass"]
    pull = f"{(value - right) / error:+.1f}" if error else ""
    return (
        name,
        *(f"{ratio:.4f}" for ratio in found["radii"]),
        *(f"{off:.1%}" for off in found["off"]),
        f"{mass:+.4f} +- {mass_error:.4f}",
        f"{value:.4f} +- {error:.4f}" if error else f"{value:.4f}",
        f"{right:.4f}",
        pull,
        f"{found['chi2']:.3f}",
        "yes" if is_right(found) else "NO",
        ", ".join(found["flags"]) or "none",
        f"{found['seconds']:.0f}",
    )


def main():
    parser = common.parser_of(__doc__, 20, "systems", 0)
    parser.add_argument("--held", type=int, default=5, help="systems that are fitted with beta held, too")
    arguments = parser.parse_args()
    seeds = range(arguments.seed, arguments.seed + arguments.n)
    common.header("Double rings, rendered by lenstronomy", systems=arguments.n, pixel=PIXEL, FWHM=FWHM)
    tasks = [(seed, False) for seed in seeds] + [(seed, True) for seed in seeds[: arguments.held]]
    found = []
    print(LINE.format(*COLUMNS))
    for (seed, held), one in zip(tasks, common.in_processes(solve, tasks, arguments.jobs), strict=True):
        found.append(one)
        print(LINE.format(*row(f"{seed}{', held' if held else ''}", one)), flush=True)
    free = (one["beta"] for one in found[: arguments.n])
    pulls = np.array([(value - right) / error for value, error, right in free])
    right, ok = (sum(map(test, found)) for test in (is_right, lambda one: one["ok"]))
    spread, worst = np.sqrt(np.mean(pulls**2)), np.abs(pulls).max()
    print(f"\nright {right} of {len(found)}, ok {ok}; pulls of beta: rms {spread:.2f}, largest {worst:.1f}")


if __name__ == "__main__":
    main()
