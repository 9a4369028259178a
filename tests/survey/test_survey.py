"""A survey: what it writes, how it goes on, and what it refuses."""

import json
import os

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import QTable, Table

from lenssr import SIE, Shear, SuperResolver
from lenssr.cosmology import einstein_mass, velocity_dispersion
from lenssr.exceptions import InputError
from lenssr.result import SuperResolution
from lenssr.survey import Survey
from lenssr.survey.lens_strip import panels_of

CHANGING = ["seconds", "memory", "host", "finished", "attempts"]


def survey_of(source, folder, resolver, **options):
    return Survey(source, folder, resolver=resolver, **{"figures": False} | options)


@pytest.fixture
def survey(catalogue, tmp_path, resolver, here):
    return survey_of(catalogue, tmp_path / "run", resolver, keep="note")


def without_changing(table):
    return {name: list(map(str, table[name])) for name in table.colnames if name not in CHANGING}


# ---------------------------------------------------------------- what is written


def test_every_lens_gets_a_row_and_files(survey, fitsverify):
    summary = survey.run()
    table = Table.read(survey.folder.path / "catalogue.ecsv")
    assert list(table["id"]) == list("abcde")
    assert list(table["note"]) == [f"note {name}" for name in "abcde"]
    assert set(table["grade"]) == {"probable"} and summary.grades == {"probable": 5}
    np.testing.assert_allclose(table["ra"], 150 + np.arange(5), atol=1e-9)
    for row in table:
        product = SuperResolution.read(survey.folder.path / row["product"])
        assert product.image.shape == (40, 40)
        assert (survey.folder.path / row["thumbnail"]).read_bytes().startswith(b"\xff\xd8")
    fitsverify(survey.folder.path / row["product"])
    assert (survey.folder.path / "index.html").exists()


def test_all_forms_of_the_catalogue_hold_the_same(survey, fitsverify):
    pyarrow = pytest.importorskip("pyarrow.parquet")
    survey.run(part=(1, 2))
    survey.collect()
    place = survey.folder.path
    tables = {suffix: Table.read(place / f"catalogue.{suffix}") for suffix in ("ecsv", "fits")}
    tables["parquet"] = Table(pyarrow.read_table(place / "catalogue.parquet").to_pydict())
    for suffix, table in tables.items():
        filled = table.filled("") if suffix == "ecsv" else table  # an empty text is read as masked
        for name, column in tables["ecsv"].filled("").columns.items():
            ours = filled[name].astype(str) if filled[name].dtype.kind in "SO" else filled[name]
            np.testing.assert_array_equal(np.asarray(ours), np.asarray(column), err_msg=f"{suffix} {name}")
            assert suffix == "parquet" or table[name].unit == column.unit
    assert all(tables["ecsv"][name].description for name in tables["ecsv"].colnames)
    about = pyarrow.read_schema(place / "catalogue.parquet").metadata[b"table_meta_yaml"].decode()
    assert "{name: R_E, unit: arcsec, datatype: float64, description:" in about
    header = fits.getheader(place / "catalogue.fits", 1)
    assert all(header[f"TCOMM{k + 1}"] for k in range(header["TFIELDS"]))
    fitsverify(place / "catalogue.fits")


def test_a_failure_is_a_row_that_says_how_to_repeat_it(catalogue, folder, tmp_path, resolver, here):
    (folder / "c.fits").write_bytes(b"no FITS")
    survey = survey_of(catalogue, tmp_path / "run", resolver, keep="note")
    survey.repeat_by("lenssr survey in.ecsv -o run --redo ID")
    summary = survey.run()
    assert summary.grades == {"probable": 4, "failed": 1}
    (row,) = Table.read(survey.folder.path / "failures.ecsv")
    assert (row["id"], row["stage"]) == ("c", "reading")
    assert "c.fits" in row["failure"]
    assert row["repeat"] == "lenssr survey in.ecsv -o run --redo c"
    catalogue = Table.read(survey.folder.path / "catalogue.ecsv")
    assert list(catalogue["grade"]) == ["probable", "probable", "failed", "probable", "probable"]
    assert "1 x" in summary.text()


def test_numbers_of_a_row_are_those_of_the_result(write_cutout, tmp_path, here):
    """Axis ratio, angles, mass and panels against formulas of their own."""
    path = write_cutout(tmp_path / "x.fits", 1)
    lens = SIE(0.5, e1=0.1, e2=-0.05) + Shear(0.03, 0.04)
    table = Table({"id": ["x"], "file_g": [str(path)], "z_lens": [0.5], "z_source": [2.0]})
    resolver = SuperResolver(source="sersic", lens=lens, psf=0.15 * u.arcsec, lens_light="sersic", seed=1)
    survey = survey_of(table, tmp_path / "run", resolver)
    survey.run()
    row = QTable.read(tmp_path / "run" / "catalogue.ecsv")[0]
    modulus = np.hypot(0.1, 0.05)
    np.testing.assert_allclose(row["q"], (1 - modulus) / (1 + modulus))
    np.testing.assert_allclose(row["shear"], 0.05)
    # x runs to the west: an angle phi from +x is one of phi + 90 degrees west of north.
    phi = np.degrees(0.5 * np.arctan2(-0.05, 0.1))
    np.testing.assert_allclose(row["phi"].value, phi)
    np.testing.assert_allclose(row["position_angle"].value, (270 + phi) % 180, atol=1e-6)
    np.testing.assert_allclose(row["R_E"].value, 0.5, rtol=0.02)
    assert row["einstein_mass"] == einstein_mass(row["R_E"], 0.5, 2.0)
    assert row["velocity_dispersion"] == velocity_dispersion(row["R_E"], 0.5, 2.0)
    assert row["slope"] == 2 and row["flux_unit_g"] == "electron / s" and row["source_flux_g"] > 0
    result = SuperResolution.read(tmp_path / "run" / row["product"])
    data, arcs, image, _ = panels_of(result)
    lensed = result.lensed_source.data.reshape(20, 2, 20, 2).sum((1, 3))
    np.testing.assert_allclose(arcs, data - result.model_image.data + lensed)
    assert image.shape == (40, 40)


def test_mosaics_are_cut_at_the_positions(write_cutout, tmp_path, resolver, here):
    path = write_cutout(tmp_path / "mosaic.fits", side=60)
    table = Table({"id": ["x", "y"], "ra": [150.0, 150.0005], "dec": [2.0, 2.0]})
    table.write(tmp_path / "places.ecsv")
    survey = survey_of(
        tmp_path / "places.ecsv", tmp_path / "run", resolver, files=path.name, size=2 * u.arcsec
    )
    table = survey.run() and Table.read(tmp_path / "run" / "catalogue.ecsv")
    results = [SuperResolution.read(tmp_path / "run" / row["product"]) for row in table]
    assert [one.data.shape for one in results] == [(20, 20)] * 2
    middle = results[1].data.wcs.pixel_to_world(9.5, 9.5)
    assert middle.separation(SkyCoord(150.0005 * u.deg, 2 * u.deg)) < 0.11 * u.arcsec


def test_a_figure_is_drawn_where_it_is_asked_for(folder, tmp_path, resolver, here):
    survey = survey_of(folder, tmp_path / "run", resolver, figures=True)
    survey.run(part=(1, 5))
    assert (tmp_path / "run" / "figures" / "0000" / "a.png").read_bytes().startswith(b"\x89PNG")


def test_a_batch_gives_what_single_lenses_give(folder, tmp_path, resolver, here):
    tables = []
    for batch in (1, 2):
        survey = survey_of(folder, tmp_path / f"run{batch}", resolver, batch=batch)
        survey.run(part=(1, 2))
        survey.collect()
        tables.append(without_changing(Table.read(tmp_path / f"run{batch}" / "catalogue.ecsv")))
    assert tables[1]["id"] == ["a", "b", "e"]
    assert tables[0]["reduced_chi2"][0] == tables[1]["reduced_chi2"][0]


def test_a_bad_lens_of_a_batch_fails_alone(folder, tmp_path, resolver, here):
    (folder / "b.fits").write_bytes(b"no FITS")
    survey = survey_of(folder, tmp_path / "run", resolver, batch=5)
    assert survey.run().grades == {"probable": 4, "failed": 1}


def test_the_einstein_radius_of_the_catalogue_is_where_the_fit_begins(folder, tmp_path, here):

    files = [str(folder / name) for name in ("a.fits", "c.fits")]
    table = Table({"id": ["a", "c"], "file": files, "theta_E": [0.7, np.nan]})
    for batch in (1, 2):
        run = tmp_path / f"run{batch}"
        survey = survey_of(table, run, SuperResolver(source="sersic"), batch=batch)
        survey.run()
        rows = {row["id"]: SuperResolution.read(run / row["product"]) for row in survey.collect()}
        assert rows["a"].meta["hints"] == {"theta_E": 0.7} and "hints" not in rows["c"].meta
    with pytest.raises(InputError, match="the catalogue has theta_E, but the lens is given"):
        survey_of(table, tmp_path / "other", SuperResolver(source="sersic", lens=SIE(1.0)))


# ---------------------------------------------------------------- going on


@pytest.fixture
def idle_survey(catalogue, tmp_path, resolver, idle):
    return survey_of(catalogue, tmp_path / "run", resolver, keep="note")


def test_a_run_goes_on_where_it_stopped(idle_survey, idle):
    survey = idle_survey
    survey.run(part=(1, 2))
    assert idle.asked == ["a", "c", "e"]
    assert survey.run().solved == 2
    assert idle.asked == ["a", "c", "e", "b", "d"]
    assert survey.run().solved == 0


def test_parts_together_are_the_whole(catalogue, tmp_path, resolver, idle):
    whole = survey_of(catalogue, tmp_path / "whole", resolver, keep="note")
    whole.run()
    parts = survey_of(catalogue, tmp_path / "parts", resolver, keep="note")
    for number in (3, 1, 2):
        parts.run(part=(number, 3))
        assert not (tmp_path / "parts" / "catalogue.ecsv").exists()
    table = parts.collect()
    assert without_changing(table) == without_changing(whole.collect())


@pytest.mark.parametrize(("redo", "expected"), [("failed", ["c"]), ("all", list("abcde")), (["e"], ["e"])])
def test_lenses_are_done_again(folder, tmp_path, resolver, idle, redo, expected):
    content = (folder / "c.fits").read_bytes()
    (folder / "c.fits").write_bytes(b"x" * len(content))
    times = os.stat(folder / "a.fits")
    os.utime(folder / "c.fits", ns=(times.st_atime_ns, times.st_mtime_ns))
    survey = survey_of(folder, tmp_path / "run", resolver)
    survey.run()
    (folder / "c.fits").write_bytes(content)  # mended, with the same size and time
    os.utime(folder / "c.fits", ns=(times.st_atime_ns, times.st_mtime_ns))
    idle.asked.clear()
    summary = survey_of(folder, tmp_path / "run", resolver).run(redo=redo)
    assert idle.asked == expected
    assert summary.grades == ({"probable": 5} if "c" in expected else {"probable": 4, "failed": 1})
    assert len(Table.read(tmp_path / "run" / "catalogue.ecsv")) == 5


def test_half_a_line_is_a_lens_that_is_not_done(idle_survey, idle):
    survey = idle_survey
    survey.run()
    (path,) = (survey.folder.path / "rows").glob("*.jsonl")
    path.write_bytes(path.read_bytes()[:-20])
    idle.asked.clear()
    assert survey.run().grades == {"probable": 5}
    assert idle.asked == ["e"]


def test_a_lens_that_is_done_twice_has_one_row(idle_survey):
    survey = idle_survey
    survey.run()
    (path,) = (survey.folder.path / "rows").glob("*.jsonl")
    path.with_name("other.jsonl").write_bytes(path.read_bytes())
    assert list(survey.collect()["id"]) == list("abcde")


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"resolver": SuperResolver(source="interpolation", scale=3)}, "resolver.scale was 2, is 3"),
        ({"batch": 2}, "batch was 1, is 2"),
        ({"reading": {"unit": "adu"}}, "reading.unit was None, is 'adu'"),
    ],
)
def test_other_settings_are_refused(catalogue, tmp_path, resolver, idle, change, message):
    survey_of(catalogue, tmp_path / "run", resolver, keep="note").run(part=(1, 5))
    with pytest.raises(InputError, match=message):
        survey_of(catalogue, tmp_path / "run", **{"resolver": resolver, "keep": "note"} | change).run()


def test_other_input_is_refused(catalogue, folder, tmp_path, resolver, idle, write_cutout):
    def again():
        survey_of(catalogue, tmp_path / "run", resolver, keep="note").run(part=(1, 5))

    again()
    write_cutout(folder / "b.fits", 7, error=False)
    with pytest.raises(InputError, match=r"b.fits has changed since"):
        again()
    table = Table.read(catalogue)
    table["file"][0] = "c.fits"
    table.write(catalogue, overwrite=True)
    with pytest.raises(InputError, match="files of the lens a was"):
        again()
    table[1:].write(catalogue, overwrite=True)
    with pytest.raises(InputError, match="the lens a is gone"):
        again()


def test_a_folder_that_is_not_writable_is_refused(catalogue, tmp_path, resolver, idle):
    (tmp_path / "run").write_text("a file")
    with pytest.raises(InputError, match="run cannot be made"):
        survey_of(catalogue, tmp_path / "run", resolver, keep="note").run()


def test_a_full_disk_stops_the_run_and_leaves_no_half_file(survey, monkeypatch):
    """The third product does not fit."""
    from lenssr.survey import lens_solver

    written, write_strip = [], lens_solver.write_strip

    def full(result, path):
        written.append(path)
        if len(written) == 3:
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device", str(path))
        write_strip(result, path)

    monkeypatch.setattr(lens_solver, "write_strip", full)
    with pytest.raises(InputError, match="cannot be written .No space left on device"):
        survey.run()
    place = survey.folder.path
    assert sorted(path.name for path in (place / "thumbnails" / "0000").iterdir()) == ["a.jpg", "b.jpg"]
    assert len(survey.folder.done()) == 2
    monkeypatch.undo()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"part": (3, 2)}, r"part = \(3, 2\)"),
        ({"redo": ["nobody"]}, "there is no lens 'nobody'"),
        ({"timeout": -1}, "timeout = -1"),
        ({"memory": "much"}, "a memory of 'much'"),
        ({"jobs": 0}, "jobs = 0"),
        ({"scheduler": "nonsense"}, "the scheduler nonsense does not answer"),
    ],
)
def test_options_without_a_meaning_are_refused(idle_survey, options, message):
    with pytest.raises(InputError, match=message):
        idle_survey.run(**options)


def test_a_log_tells_of_every_lens(idle_survey):
    survey = idle_survey
    survey.run()
    lines = (survey.folder.path / "survey.log").read_text().splitlines()
    assert [sum(f" {name}: probable" in line for line in lines) for name in "abcde"] == [1] * 5
    about = json.loads((survey.folder.path / "survey.json").read_text())
    assert about["asked"]["resolver.source"] == "interpolation"
