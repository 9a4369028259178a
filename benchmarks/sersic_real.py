"""Sérsic photometry of real galaxies, for the page "Sérsic photometry".

Run it where LENSSR_REAL_DATA names the folder with the real images. It writes figures to docs/_static and
prints tables.
"""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import astropy.units as u
import common  # first of lenssr: it sets one thread
import numpy as np
from astropy.io import fits
from astropy.nddata import NDData, StdDevUncertainty
from astropy.table import QTable
from astropy.wcs import WCS
from matplotlib.figure import Figure
from photutils.segmentation import detect_sources
from scipy import ndimage

from lenssr import SersicPhotometry, SuperResolver
from lenssr.imaging import Observation, measure_sky
from lenssr.photometry import decode_flags

STATIC = Path(__file__).parents[1] / "docs" / "_static"
BANDS = {"F475X": "hst_f475x.fits", "F600LP": "hst_f600lp.fits"}
LENS = QTable({"x": [63.0], "y": [65.0]})
EUCLID, VIS = "euclid_q1_des.fits", {"sci": "VIS_BGSUB", "err": "VIS_RMS", "psf": "VIS_PSF"}
# The halo of the lens galaxy reaches the spiral and a faint one: they share a group.
NAMES = ("lens galaxy", "spiral", "faint one", "faint one")
GALAXIES = QTable({"x": [48.9, 67.0, 85.0, 9.0], "y": [49.7, 93.0, 16.3, 63.0], "group_id": [1, 1, 2, 1]})
STAR, STAR_RADIUS = (52.4, 82.4), 8
ROUNDS = 3
SHOWN = {"flux": ".4g", "r_eff": ".3g", "n": ".3g", "ellip": ".3f", "theta": ".1f"}


@dataclass
class Fit:
    """The fit of an image: the object, its table, and what was masked."""

    phot: SersicPhotometry
    table: QTable
    mask: np.ndarray

    def residual(self, data):
        """What galaxies, as far as they reach, and the sky of the first leave of the data."""
        return data - self.light(data) - u.Quantity(self.table["sky"][0]).value

    def light(self, data):
        """The galaxies as far as they reach."""
        wide = tuple(2 * size for size in data.shape)
        return np.asarray(self.phot.make_model_image(data.shape, model_shape=wide))


def distance(shape, x, y):
    """Of all pixels from a position."""
    rows, columns = np.indices(shape)
    return np.hypot(columns - x, rows - y)


def stands_out(pull):
    """Pixels in which something shines that the model does not have."""
    width = 0.8
    # White noise of 1 is 1 / (2 sqrt(pi) width) behind a Gaussian.
    smooth = ndimage.gaussian_filter(pull, width) * 2 * np.sqrt(np.pi) * width
    found = detect_sources(smooth, 3.0, n_pixels=8)
    return ndimage.binary_dilation(found.data > 0, iterations=2)


def fit(source, where, data, error, *, near, far=np.inf, mask=None, **options):
    """Fit, mask what stands out between two distances from the first galaxy, and fit again.

    Returns
    -------
    first, last : Fit
    """
    away = distance(data.shape, where["x"][0], where["y"][0])
    mask = np.zeros(data.shape, dtype=bool) if mask is None else mask
    made = []
    for number in range(ROUNDS + 1):
        # Profile likelihoods are worth their time in the end only.
        intervals = "auto" if number == ROUNDS else "gaussian"
        phot = SersicPhotometry(intervals=intervals, **options)
        made.append(Fit(phot, phot(source, mask=mask, init_params=where), mask))
        mask = mask | (stands_out(made[-1].residual(data) / error) & (away > near) & (away < far))
    return made[0], made[-1]


def cells(row, component=""):
    """What the tables show of a galaxy: values with errors."""
    found = []
    for name, form in SHOWN.items():
        value, error = (u.Quantity(row[f"{name}{component}{end}"]).value for end in ("", "_err"))
        found.append(f"{value:{form}}" + (f" ± {error:.2g}" if error > 0 else why_none(row)))
    return found


def why_none(row):
    """Why a number has no error."""
    flags = decode_flags(row["flags"])
    return " (a point)" if "PSF_SIZED" in flags else " (on a bound)" if "BOUND" in flags else " (held)"


def ends(row):
    return [f"{row['reduced_chi2']:.2f}", ", ".join(decode_flags(row["flags"]))]


def rows_of(name, kind, fitted):
    """One row of a printed table, and one for each component."""
    row = fitted.table[0]
    if "r_eff" in fitted.table.colnames:
        return [[name, kind, *cells(row), *ends(row)]]
    total = f"{u.Quantity(row['flux']).value:{SHOWN['flux']}} ± {u.Quantity(row['flux_err']).value:.2g}"
    parts = [["", part, *cells(row, f"_{k}"), "", ""] for k, part in enumerate(("bulge", "disc"))]
    return [[name, kind, total, *[""] * (len(SHOWN) - 1), *ends(row)], *parts]


COLUMNS = ("flux", "r_eff, pixel", "n", "ellip", "theta, degree", "reduced chi2", "flags")


def hst(folder):
    """The lens galaxy in two bands: one Sérsic with nothing masked, then with the arcs masked, then two."""
    made, rows = {}, []
    for name, file in BANDS.items():
        observation = Observation.from_any(folder / file)
        data, error = observation.data, observation.sigma()
        options = {"near": 12, "fit_shape": 127}
        first, one = fit(folder / file, LENS, data, error, **options)
        _, two = fit(folder / file, LENS, data, error, n_components=2, **options)
        made[name] = data, error, first, one, two
        kinds = ("one, nothing masked", "one, arcs masked", "two, arcs masked")
        for kind, fitted in zip(kinds, (first, one, two), strict=True):
            rows += rows_of(name, kind, fitted)
    common.table(("HST, electron/s", "Sérsics", *COLUMNS), rows)
    return made


def euclid(folder):
    """Every galaxy in Euclid VIS, the star and the arcs masked."""
    with fits.open(folder / EUCLID) as hdus:
        data, error = (hdus[VIS[key]].data.astype(float) for key in ("sci", "err"))
        psf, wcs = hdus[VIS["psf"]].data.astype(float), WCS(hdus[VIS["sci"]].header)
    image = NDData(data, uncertainty=StdDevUncertainty(error), wcs=wcs)
    star = distance(data.shape, *STAR) < STAR_RADIUS
    _, last = fit(image, GALAXIES, data, error, near=4, far=22, mask=star, psf=psf, fit_shape=61)
    rows = [
        [name, row["skycoord"].to_string("hmsdms", precision=1), *cells(row), *ends(row)]
        for name, row in zip(NAMES, last.table, strict=True)
    ]
    common.table(("Euclid VIS", "position", *COLUMNS), rows)
    return data, error, last


def beside_the_resolver(folder, tables):
    """The same profile in the fit of the whole lens by `SuperResolver`."""
    rows = []
    for (name, table), file, hdus in zip(
        tables.items(), (*BANDS.values(), EUCLID), (None, None, VIS), strict=True
    ):
        observation = Observation.from_any(folder / file, hdus=hdus)
        sky, row = measure_sky(observation), table[0]
        resolver = SuperResolver(source="sersic", lens_light="sersic", mask="auto")
        light = resolver(folder / file, hdus=hdus).lens_light
        by_mask = [f"{row['r_eff_sky'].value:.3f}", f"{row['n']:.2f}", f"{row['ellip']:.3f}"]
        by_model = [f"{light.r_eff.value:.3f}", f"{light.n.value:.2f}", f"{1 - light.q:.3f}"]
        rows.append([name, "SersicPhotometry, arcs masked", *by_mask, f"{sky.lag1:.2f}", f"{sky.factor:.2f}"])
        rows.append(["", "SuperResolver, arcs modelled", *by_model, "", ""])
    columns = (
        "lens galaxy",
        "one Sérsic by",
        'r_eff "',
        "n",
        "ellip",
        "neighbours correlate by",
        "errors wider by",
    )
    common.table(columns, rows)


def bare(axis, title):
    axis.set(xticks=[], yticks=[])
    axis.set_title(title, fontsize=9)


def show(axis, image, title, noise):
    """An image with an arcsinh stretch."""
    stretched = np.arcsinh(image / (3 * noise))
    axis.imshow(stretched, origin="lower", vmin=-1, vmax=5, cmap="magma", interpolation="nearest")
    bare(axis, title)


def show_pull(axis, pull, mask, title):
    """Residuals in sigma, and around what the fit did not see a line."""
    axis.imshow(pull, origin="lower", vmin=-4, vmax=4, cmap="RdBu_r", interpolation="nearest")
    if mask.any():
        axis.contour(mask, levels=[0.5], colors="0.2", linewidths=0.6)
    bare(axis, title)


def draw(made, vis):
    """Data, model and residuals of both HST bands, and of Euclid VIS."""
    figure = Figure((11, 4.7), layout="constrained")
    for row, (name, (data, error, first, one, two)) in zip(figure.subplots(2, 5), made.items(), strict=True):
        noise = np.median(error)
        show(row[0], data, f"{name}: data", noise)
        show(row[1], two.light(data), "model: two Sérsics", noise)
        show_pull(row[2], first.residual(data) / error, first.mask, "one, nothing masked")
        show_pull(row[3], one.residual(data) / error, one.mask, "one, arcs masked")
        show_pull(row[4], two.residual(data) / error, two.mask, "two, arcs masked")
    figure.savefig(STATIC / "sersic_hst.png", dpi=110)
    data, error, last = vis
    figure = Figure((8.4, 3), layout="constrained")
    row = figure.subplots(1, 3)
    show(row[0], data, "Euclid VIS: data", np.median(error))
    show(row[1], last.light(data), "model", np.median(error))
    show_pull(row[2], last.residual(data) / error, last.mask, "residual, -4 to 4 sigma")
    figure.savefig(STATIC / "sersic_euclid.png", dpi=110)


def main(folder):
    common.header("Sérsic photometry of real galaxies", rounds=ROUNDS)
    made = hst(folder)
    vis = euclid(folder)
    tables = {name: one.table for name, (*_, one, _) in made.items()} | {"Euclid VIS": vis[2].table}
    beside_the_resolver(folder, tables)
    draw(made, vis)


if __name__ == "__main__":
    if "LENSSR_REAL_DATA" not in os.environ:
        sys.exit("LENSSR_REAL_DATA is unset: it names the folder with the real images")
    main(Path(os.environ["LENSSR_REAL_DATA"]))
