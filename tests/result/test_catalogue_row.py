"""A result as one row of a catalogue."""

from dataclasses import replace

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from astropy.table import QTable, vstack

from lenssr import SuperResolution, SuperResolver
from lenssr.simulation import DeepLense


@pytest.fixture(scope="module")
def results():
    items = DeepLense(lens="sie", noise=True, size=2, seed=4)
    resolver = SuperResolver(source="sersic", lens=items[0].lens, fit_lens=True, oversampling=1)
    return [resolver(item.low, noise=item.noise) for item in items]


def test_one_row_with_units_and_errors(results):
    row = results[0].table
    assert len(row) == 1
    assert row["lens.theta_E"].unit == u.arcsec and row["lens.theta_E_err"].unit == u.arcsec
    found = {name.removesuffix("_err") for name in row.colnames if name.endswith("_err")}
    assert set(results[0].covariance_names) <= found


def test_values_and_errors_are_those_of_lens_and_covariance(results):
    result, row = results[0], results[0].table
    assert row["lens.theta_E"][0].to_value(u.arcsec) == result.lens.theta_E.value
    errors = [u.Quantity(row[f"{name}_err"])[0].value for name in result.covariance_names]
    np.testing.assert_allclose(errors, np.sqrt(np.diag(result.covariance)), rtol=1e-6)


def test_rows_stack_and_other_units_convert(results):
    first, second = (result.table for result in results)
    second["R_E"] = second["R_E"].to(u.mas)
    both = vstack([first, second])
    assert len(both) == 2
    expected = [result.R_E.to_value(u.arcsec) for result in results]
    np.testing.assert_allclose(both["R_E"].to_value(u.arcsec), expected)


def test_results_of_other_kinds_stack_too(results, make):
    without = replace(make(), lens=None)
    both = vstack([results[0].table, make().table, without.table])
    assert both["R_E"].mask.tolist() == [False, False, True]


@pytest.mark.parametrize(
    ("meta", "found"),
    [
        ({"file": "/data/J0946.fits.gz"}, ("J0946", "J0946.fits.gz")),
        ({"file": "a.fits", "OBJECT": "J1430"}, ("J1430", "a.fits")),
        ({"OBJECT": "J1430", "id": 17}, ("17", "")),
        ({}, ("", "")),
    ],
)
def test_names_of_lens_and_file(make, meta, found):
    row = replace(make(), meta=meta).table
    assert (row["id"][0], row["file"][0]) == found


def test_a_row_survives_files_of_tables(results, tmp_path):
    row = results[0].table
    row.write(tmp_path / "row.ecsv")
    again = QTable.read(tmp_path / "row.ecsv")
    assert again.colnames == row.colnames
    assert again["lens.theta_E"].unit == u.arcsec


def test_the_product_has_the_same_names_and_units(results, tmp_path):
    path, result = tmp_path / "out.fits", results[0]
    result.write(path)
    assert set(result.covariance_names) - {"sky"} <= set(fits.getdata(path, "LENS")["key"])
    again = SuperResolution.read(path)
    assert list(again.parameters["unit"]) == list(result.parameters["unit"])
    assert again.table.colnames == result.table.colnames
    assert [again.table[n].unit for n in again.table.colnames] == [
        result.table[n].unit for n in result.table.colnames
    ]
