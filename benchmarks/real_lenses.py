"""Real lenses with a free-form source, for the page "From an HST cutout to its source".

Run it where LENSSR_REAL_DATA names the folder with the real images. It writes figures to docs/_static and
prints tables; `--keep folder` keeps results there and takes those that it finds.
"""

import argparse
import os
import sys
from pathlib import Path

import astropy.units as u
import numpy as np
from common import header, table  # before torch: it sets the number of threads
from real_measures import (
    annulus_chi2,
    bicubic,
    binned,
    common_psf,
    dipole,
    dipole_scatter,
    light_centre,
    offsets,
    positions,
    registered,
    rings,
    smoothed_bicubic,
    within,
)

from lenssr import SuperResolution, SuperResolver
from lenssr.imaging import GaussianNoise, Observation, measure_sky

STATIC = Path(__file__).parents[1] / "docs" / "_static"
BANDS = {"F475X": "hst_f475x.fits", "F600LP": "hst_f600lp.fits"}
LIGHT = ["mge", "mge"]
EUCLID = "euclid_q1_des.fits"
ARC, COUNTER = (1.35, 0.0), (-1.17, -0.05)
COMMON = 0.3 * u.arcsec


def euclid_hdus(band):
    """Which HDUs of the Euclid file are one band."""
    return {"sci": f"{band}_BGSUB", "err": f"{band}_RMS", "psf": f"{band}_PSF"}


class Runs:
    """Results by name, made once."""

    def __init__(self, folder, keep):
        self.folder, self.keep = folder, keep
        if keep is not None:
            keep.mkdir(exist_ok=True, parents=True)

    def __call__(self, name, image, *, given=None, **settings):
        """Resolve an image with a free-form source."""
        path = None if self.keep is None else self.keep / f"{name}.fits"
        if path is not None and path.is_file():
            return SuperResolution.read(path)
        resolver = SuperResolver(source="pixelated", mask="auto", **settings)
        result = resolver(image, **(given or {}))
        print(f"{name}: {result.meta['seconds']:.0f} s", file=sys.stderr, flush=True)
        if path is not None:
            result.write(path)
        return result

    def bands(self, *, as_it_is=False):
        """Both HST bands, each by itself; on request with the errors of the file as they are."""
        results = {}
        for name, file in BANDS.items():
            path, given = self.folder / file, {}
            if as_it_is:
                given["noise"] = GaussianNoise(Observation.from_any(path).error)
            label = f"{name}_plane" if as_it_is else name
            results[name] = self(label, path, given=given, lens_light=LIGHT)
        return results

    def held(self, blue, red):
        """F600LP with the lens of F475X, which may not move."""
        lens = registered(blue.lens, blue, red)
        return self("F600LP_held", self.folder / BANDS["F600LP"], lens=lens, lens_light=LIGHT)


def print_bands(results, planes):
    """Fit quality of both bands, with the errors of the file beside the model's."""
    rows = []
    for kind, chosen in (("model's photons", results), ("ERR as it is", planes)):
        for name, result in chosen.items():
            centre = light_centre(result)
            found = [rings(result, centre=each) for each in ((0.0, 0.0), centre)]
            worst = [np.abs(mean / error).max() for _, mean, error in found]
            wave = np.array([dipole(result, centre), dipole_scatter(result)])
            rows.append(
                (
                    name,
                    kind,
                    f"{annulus_chi2(result):.2f}",
                    "{:.1f}, {:.1f}".format(*worst),
                    "{:.1f}, {:.1f}".format(*wave[0]),
                    "{:.1f}, {:.1f}".format(*wave[0] / wave[1]),
                    "{:+.0%}, {:+.1f}".format(*within(result, ARC, 0.4)),
                    "{:+.0%}, {:+.1f}".format(*within(result, COUNTER, 0.3)),
                    f"{result.meta['sky_noise']['factor']:.2f}",
                    f"{result.lens[0].theta_E.value:.4f}",
                    ", ".join(result.flags),
                )
            )
    columns = (
        "band",
        "errors",
        'chi2 0.8"-1.8"',
        "worst ring, sigma (image, galaxy)",
        "m = 1, sigma (plain, weighted)",
        "over its rms on the sky",
        "left of arc, sigma",
    )
    table((*columns, "of counter-image, sigma", "widening", 'theta_E "', "flags"), rows)


def print_held(red, held):
    """F600LP with a lens of its own, and with that of F475X."""
    rows = [
        (
            name,
            f"{float(result.chi2_map.sum()):.0f}",
            f"{annulus_chi2(result):.3f}",
            "{:.1f}, {:.1f}".format(*dipole(result, light_centre(result))),
        )
        for name, result in (("its own", red), ("that of F475X", held))
    ]
    table(("F600LP, lens", "chi2", 'chi2 0.8"-1.8"', "m = 1, sigma (plain, weighted)"), rows)


def print_lenses(results):
    """The lenses of the two bands beside one another."""
    found = offsets(*results.values())
    rows = [(name, f"{a:.4f}", f"{b:.4f}", f"{pull:+.1f}") for name, (a, b, pull) in found.items()]
    table(("parameter", *results, "difference, sigma"), rows)


def axes_of(rows, columns, size=2.6):
    """A figure with bare axes."""
    from matplotlib.figure import Figure

    figure = Figure((size * columns, size * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.ravel():
        axis.set(xticks=[], yticks=[])
    return figure, axes


def show(axis, image, title="", *, low=0.0, high=None, colours="magma", stretch=None):
    """Draw an image, with an arcsinh stretch where a scale is given."""
    image = np.asarray(image, dtype=float)
    if stretch is not None:
        image, low = np.arcsinh(image / stretch), np.arcsinh(low / stretch)
        high = None if high is None else np.arcsinh(high / stretch)
    axis.imshow(image, origin="lower", vmin=low, vmax=high, cmap=colours, interpolation="nearest")
    axis.set_title(title, fontsize=9)


def hidden(result, image):
    """An image with NaN where pixels are masked."""
    return np.where(result.data.mask, np.nan, image)


def draw_bands(results):
    """Data, model, residual, the resolved image, the source and its error."""
    figure, axes = axes_of(len(results), 6)
    for row, (name, result) in zip(axes, results.items(), strict=True):
        sky = 2 * np.nanmedian(result.data.uncertainty.array)
        high = np.nanmax(result.data.data)
        pull = result.residual.data / result.residual.uncertainty.array
        options = {"low": -sky, "high": high, "stretch": sky}
        show(row[0], hidden(result, result.data.data), f"{name}: data", **options)
        show(row[1], result.model_image.data, "model", **options)
        show(row[2], hidden(result, pull), "residual, 4 sigma", low=-4, high=4, colours="RdBu_r")
        fine = {"low": -sky / 4, "high": high / 4, "stretch": sky / 4}
        show(row[3], result.image.data, "super-resolved", **fine)
        source, error = result.source.data, result.source.uncertainty.array
        side = result.source.meta["pixel_scale"] * source.shape[0]
        show(row[4], source, f'source, {side:.2f}"', high=source.max())
        show(row[5], error, "its error, same scale", high=source.max())
    figure.savefig(STATIC / "hst_bands.png", dpi=110)


def draw_rings(results, planes):
    """Mean residual of rings, in sigma, for both kinds of errors."""
    from matplotlib.figure import Figure

    figure = Figure((8, 3), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for axis, (kind, chosen) in zip(
        axes, (("errors as in the file", planes), ("photons of the model", results)), strict=True
    ):
        axis.axhspan(-3, 3, color="0.92")
        for name, result in chosen.items():
            inner, mean, error = rings(result)
            axis.plot(inner + 0.05, mean / error, "o-", ms=3, label=name)
        axis.set(title=kind, xlabel="radius, arcsec")
        axis.legend(frameon=False)
    axes[0].set_ylabel("mean residual, sigma")
    figure.savefig(STATIC / "hst_rings.png", dpi=110)


def bin_test(runs):
    """Bin F475X, add noise, resolve it back; beside bicubic interpolation."""
    image, psf, data, error = binned(runs.folder / BANDS["F475X"], np.random.default_rng(1))
    radius = np.hypot(*positions(data.shape, 0.04))
    ring = (radius >= 0.8) & (radius < 1.8)

    def score(fine):
        return float((((fine - data) / error)[ring] ** 2).mean())

    result = runs("binned", image, given={"psf": psf, "pixel_scale": 0.08}, lens_light=LIGHT)
    low = image["SCI"].data
    smooth, width = smoothed_bicubic(low, score)
    rows = [
        ("bicubic", f"{score(bicubic(low)):.2f}"),
        (f"bicubic, best smoothing (sigma {width:.1f} pixels)", f"{smooth:.3f}"),
        ("free-form source", f"{score(result.image.data):.3f}"),
    ]
    table(('0.08" to 0.04"', 'mean ((result - original) / ERR)^2, 0.8"-1.8"'), rows)
    figure, axes = axes_of(1, 4)
    sky = 0.015
    options = {"low": -sky, "high": data.max(), "stretch": sky}
    show(axes[0, 0], low / 4, 'binned, noise added (0.08")', **options)
    show(axes[0, 1], bicubic(low), "bicubic", **options)
    show(axes[0, 2], result.image.data, "super-resolved", **options)
    show(axes[0, 3], data, 'original (0.04")', **options)
    figure.savefig(STATIC / "hst_binned.png", dpi=110)


def nisp(runs):
    """Euclid VIS, and NISP H with the lens of VIS."""
    path = runs.folder / EUCLID
    vis = runs("euclid_vis", path, given={"hdus": euclid_hdus("VIS")}, lens_light=LIGHT)
    # Resampled from pixels of 0.3", the sky scatters far less than the RMS plane says.
    observation = Observation.from_any(path, hdus=euclid_hdus("NIR_H"))
    noise = GaussianNoise(observation.error * measure_sky(observation).rms_ratio)
    given = {"hdus": euclid_hdus("NIR_H"), "noise": noise}
    near = runs("euclid_h", path, given=given, lens=vis.lens, lens_light=LIGHT, psf_out=COMMON)
    return vis, near


def print_euclid(vis, near):
    """Fit quality in VIS and H, and how alike the arcs are at a common PSF."""
    rows = []
    for name, result in (("VIS", vis), ("NISP H", near)):
        _, mean, error = rings(result)
        lens, sky = result.lens[0], result.meta["sky_noise"]
        rows.append(
            (
                name,
                f"{lens.theta_E.value:.3f}",
                f"{annulus_chi2(result, 0.4, 1.2):.2f}",
                f"{np.abs(mean / error).max():.1f}",
                f"{sky['lag1']:.2f}",
                f"{sky['factor']:.1f}",
                ", ".join(result.flags),
            )
        )
    columns = ('theta_E "', 'chi2 0.4"-1.2"', "worst ring, sigma", "neighbours correlate by", "widening")
    table(("Euclid", *columns, "flags"), rows)


def compare_euclid(vis, near):
    """Correlation of the arcs of VIS and H at a common PSF, over the annulus with the arcs."""
    scale = vis.meta["pixel_scale"]
    arcs = vis.residual.data + _coarse(vis.lensed_source.data)
    reference = common_psf(np.where(vis.data.mask, 0, arcs), _kernel(vis), COMMON, scale)
    resolved = _coarse(near.lensed_source.data)
    images = {
        "VIS": reference,
        "H, free-form source": resolved,
        "H, and what it leaves": resolved + near.residual.data,
    }
    radius = np.hypot(*positions(reference.shape, scale))
    ring = (radius >= 0.4) & (radius < 1.2) & ~vis.data.mask & ~near.data.mask
    rows = [
        (name, f"{np.corrcoef(reference[ring], image[ring])[0, 1]:.2f}")
        for name, image in images.items()
        if image is not reference
    ]
    table(("arcs, lens light subtracted", 'correlation with VIS, both with a PSF of 0.3"'), rows)
    figure, axes = axes_of(1, 3)
    middle = slice(30, 70)
    for axis, (name, image) in zip(axes[0], images.items(), strict=True):
        show(axis, image[middle, middle], name, high=np.percentile(image[ring], 99))
    figure.savefig(STATIC / "euclid_h.png", dpi=110)


def _coarse(fine, factor=2):
    ny, nx = fine.shape
    return fine.reshape(ny // factor, factor, nx // factor, factor).sum((1, 3))


def _kernel(result):
    """The PSF of a result's image at the sampling of the data."""
    fine = np.asarray(result.image.psf)
    fine = np.pad(fine, ((0, fine.shape[0] % 2), (0, fine.shape[1] % 2)))
    return _coarse(fine) / fine.sum()


def main(folder, keep):
    """Run everything."""
    runs = Runs(folder, keep)
    header("Real lenses, free-form source", lens_light=LIGHT)
    results, planes = runs.bands(), runs.bands(as_it_is=True)
    print_bands(results, planes)
    print_lenses(results)
    print_held(results["F600LP"], runs.held(*results.values()))
    draw_bands(results)
    draw_rings(results, planes)
    bin_test(runs)
    vis, near = nisp(runs)
    print_euclid(vis, near)
    compare_euclid(vis, near)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", type=Path, help="folder in which results are kept")
    if "LENSSR_REAL_DATA" not in os.environ:
        sys.exit("LENSSR_REAL_DATA is unset: it names the folder with the real images")
    main(Path(os.environ["LENSSR_REAL_DATA"]), parser.parse_args().keep)
