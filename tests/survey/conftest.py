"""Small cutouts on the disk, and processes that are none: lenses of a survey are solved in this one."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS

from lenssr import SuperResolver
from lenssr.survey import engines
from lenssr.survey.lens_row import failed_row
from lenssr.survey.lens_solver import LensSolver

SIDE, SCALE = 20, 0.1


def _write_cutout(path, number=0, *, ra=150.0, error=True, side=SIDE):
    """A blob on noise, with errors and a place on the sky."""
    rng = np.random.default_rng(number)
    y, x = np.indices((side, side)) - (side - 1) / 2
    data = 50 * np.exp(-(x**2 + (y - number % 3) ** 2) / 8) + rng.normal(size=(side, side))
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval = ["RA---TAN", "DEC--TAN"], [ra, 2.0]
    wcs.wcs.crpix, wcs.wcs.cdelt = [(side + 1) / 2] * 2, [-SCALE / 3600, SCALE / 3600]
    header = wcs.to_header()
    header["BUNIT"] = "electron / s"
    hdus = [fits.PrimaryHDU(), fits.ImageHDU(data, header, name="SCI")]
    if error:
        hdus.append(fits.ImageHDU(np.ones((side, side)), header, name="ERR"))
    fits.HDUList(hdus).writeto(path, overwrite=True)
    return path


@pytest.fixture
def write_cutout():
    """Function that writes a cutout."""
    return _write_cutout


@pytest.fixture
def folder(tmp_path):
    """Five cutouts, a.fits to e.fits."""
    place = tmp_path / "cutouts"
    place.mkdir()
    for number, name in enumerate("abcde"):
        _write_cutout(place / f"{name}.fits", number, ra=150 + number)
    return place


@pytest.fixture
def catalogue(folder):
    """A table of the five, with a column of its own."""
    path = folder / "catalogue.ecsv"
    names = list("abcde")
    table = Table({"id": names, "file": [f"{n}.fits" for n in names], "note": [f"note {n}" for n in names]})
    table.write(path)
    return path


class HerePool:
    """What `SolverPool` does, in this process."""

    asked = []

    def __init__(self, job, **limits):
        self.solver = LensSolver(job)

    def solve(self, lenses, wanted):
        type(self).asked += list(wanted)
        return self.solver.solve(lenses, wanted, 1)

    def close(self):
        self.solver.journal.close()


class IdlePool(HerePool):
    """Reads nothing but the first bytes of a file, and has a row of nothing."""

    def solve(self, lenses, wanted):
        type(self).asked += list(wanted)
        rows = [self._row(lens) for lens in lenses if lens.id in wanted]
        for row in rows:
            self.solver.journal.add(row)
        return rows

    def _row(self, lens):
        with open(lens.files[""], "rb") as file:
            good = file.read(6) == b"SIMPLE"
        row = failed_row(lens, "reading", "" if good else f"{lens.id}.fits is no FITS file")
        row |= {"grade": "probable", "flags": "", "stage": "", "product": f"{lens.id}.fits"} if good else {}
        return row | {"seconds": 1.0, "memory": 1.0, "attempts": 1, "host": "here", "finished": "2026"}


@pytest.fixture
def here(monkeypatch):
    """Have lenses solved in this process; ``asked`` has the ids of those that are solved."""
    monkeypatch.setattr(engines, "SolverPool", HerePool)
    monkeypatch.setattr(HerePool, "asked", [])
    return HerePool


@pytest.fixture
def idle(monkeypatch):
    """Have rows of lenses without results, at once; ``asked`` has their ids."""
    monkeypatch.setattr(engines, "SolverPool", IdlePool)
    monkeypatch.setattr(IdlePool, "asked", [])
    return IdlePool


@pytest.fixture
def resolver():
    return SuperResolver(source="interpolation")
