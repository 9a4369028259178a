"""Good inputs of each kind, and the engines that damage them."""

import io
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import astropy.units as u
import judges
import mutations
import numpy as np
import torch
from astropy.io import fits
from astropy.nddata import CCDData, StdDevUncertainty
from astropy.wcs import WCS

from lenssr import PSF, SIE, Shear, SuperResolver

# Mutants of each kind in the long runs.
KINDS = {
    "FITS": 10_000,
    "headers": 1000,
    "PSF": 200,
    "lens YAML": 500,
    "recipes": 2000,
    "weights": 1000,
    "results": 2000,
    "tables": 500,
    "commands": 500,
}


@dataclass(frozen=True)
class Case:
    """How a kind is read, what a good input gives, and its mutants."""

    read: Callable
    expected: Any
    mutants: Callable


def image_file(path, *, sums=True, real=None):
    """A FITS file of a lens with errors, mask and PSF: simulated, or a real one of a folder."""
    if real and Path(real, "hst_f475x.fits").exists() and not sums:
        path.write_bytes(Path(real, "hst_f475x.fits").read_bytes())
        return path
    rng, wcs = np.random.default_rng(5), WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.crpix = ["RA---TAN", "DEC--TAN"], [150.0, 2.0], [10, 10]
    wcs.wcs.cdelt = -0.05 / 3600, 0.05 / 3600
    data = rng.normal(1, 0.1, (24, 24))
    header = wcs.to_header()
    header["BUNIT"], header["EXPTIME"] = "electron/s", 1000.0
    planes = {"SCI": data, "ERR": np.full(data.shape, 0.1), "DQ": (data > 1.2).astype("i2")}
    hdus = [
        fits.ImageHDU(plane.astype("f4") if plane.dtype == float else plane, header, name)
        for name, plane in planes.items()
    ]
    hdus.append(fits.ImageHDU(PSF.from_fwhm(0.12 * u.arcsec).kernel(0.05), name="PSF"))
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(path, checksum=sums)
    return path


def result_file(path):
    """A result in its FITS form."""
    rng = np.random.default_rng(7)
    image = CCDData(
        rng.normal(1, 0.1, (16, 16)), unit="electron/s", uncertainty=StdDevUncertainty(np.full((16, 16), 0.1))
    )
    SuperResolver(source="interpolation")(image, pixel_scale=0.05).write(path)
    return path


def make_case(kind, folder):
    """The case of a kind; files go into the folder."""
    made = _MADE[kind](folder)
    return made


def _fits(folder):
    real = os.environ.get("LENSSR_REAL_DATA")
    summed, plain = (
        image_file(folder / "summed.fits"),
        image_file(folder / "plain.fits", sums=False, real=real),
    )
    expected = {judges.read_image(summed), judges.read_image(plain)}

    def mutants(rng, count):
        yield from mutations.fits_mutants(summed.read_bytes(), rng, count // 2, sums=True)
        yield from mutations.fits_mutants(plain.read_bytes(), rng, count - count // 2, sums=False)

    return Case(judges.read_image, _OneOf(expected), mutants)


class _OneOf:
    """Equal to each of some values."""

    def __init__(self, values):
        self.values = values

    def __eq__(self, other):
        return other in self.values

    def __ne__(self, other):
        return other not in self.values

    __hash__ = None


def _headers(folder):
    plain = image_file(folder / "plain.fits", sums=False)
    return Case(judges.read_image, None, lambda rng, n: mutations.header_mutants(plain.read_bytes(), rng, n))


def _psf(folder):
    path = folder / "psf.fits"
    fits.PrimaryHDU(PSF.from_fwhm(0.2 * u.arcsec).kernel(0.05)).writeto(path, checksum=True)

    def mutants(rng, count):
        return mutations.fits_mutants(path.read_bytes(), rng, count, sums=True)

    return Case(judges.read_psf, judges.read_psf(path), mutants)


def _lens(folder):
    plain = (SIE(1.2, e1=0.1) + Shear(0.05, 0.0)).to_dict()
    plain = json.loads(json.dumps(plain))
    return Case(judges.read_lens, None, lambda rng, n: mutations.yaml_mutants(plain, rng, n))


def _recipes(folder):
    from lenssr.training import Recipe

    torch.zeros(1)
    plain = json.loads(json.dumps(Recipe.load("relensing", {"data.0.size": 8}).to_dict()))
    return Case(judges.read_recipe, None, lambda rng, n: mutations.yaml_mutants(plain, rng, n))


def _weights(folder):
    from lenssr.networks import SISR, Card, save_weights
    from lenssr.networks.weights import ENTRY, _checksum, _read

    torch.manual_seed(0)
    path = folder / "net.safetensors"
    numbers = {"seed": 1, "device": "cpu", "minutes": 1.0, "steps": 10}
    card = Card(recipe={"task": "bicubic"}, scores={"loss": 1.0}, limits={"snr": [1.0, 9.0]}, **numbers)
    save_weights(SISR(channels=4, depth=1), path, card)
    _, tensors = _read(path)

    def seal(told):
        from safetensors.torch import save

        told = told if isinstance(told, dict) else {}
        try:
            told["checksum"] = _checksum(told, tensors)
            return save(tensors, {ENTRY: json.dumps(told)})
        except (TypeError, ValueError):
            return b""

    def mutants(rng, count):
        return mutations.weight_mutants(path.read_bytes(), rng, count, seal)

    return Case(judges.read_weights, judges.read_weights(path), mutants)


def _results(folder):
    path = result_file(folder / "good.fits")

    def mutants(rng, count):
        return mutations.fits_mutants(path.read_bytes(), rng, count, sums=True)

    return Case(judges.read_result, judges.read_result(path), mutants)


def _tables(folder):
    from lenssr import SersicPhotometry  # noqa: F401 - loads what tables need, before the fork

    return Case(judges.read_table, None, mutations.table_mutants)


def _commands(folder):
    files = [str(image_file(folder / "image.fits"))]
    lens = folder / "lens.yaml"
    lens.write_text("SIE: {theta_E: 1.0}\n", encoding="utf-8")
    files.append(str(lens))
    with io.StringIO():
        pass
    return Case(judges.run_command, None, lambda rng, n: mutations.command_mutants(rng, n, files))


_MADE = dict(
    zip(KINDS, (_fits, _headers, _psf, _lens, _recipes, _weights, _results, _tables, _commands), strict=True)
)
