"""What a survey reads in catalogues and folders, and what it refuses."""

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.table import QTable, Table

from lenssr.exceptions import InputError
from lenssr.survey.lens_list import ListedLens, read_lens_list


@pytest.mark.parametrize("suffix", ["ecsv", "fits", "csv", "vot", "parquet"])
def test_every_form_of_table_gives_the_same_list(folder, suffix):
    path = folder / f"catalogue.{suffix}"
    table = Table({"id": ["a", "b"], "ra": [150.0, 151.0], "dec": [2.0, 2.0], "file": ["a.fits", "b.fits"]})
    table.write(path, **({"format": "votable"} if suffix == "vot" else {}))
    found = read_lens_list(path)
    assert [(one.id, one.ra, one.files) for one in found] == [
        ("a", 150.0, {"": str(folder / "a.fits")}),
        ("b", 151.0, {"": str(folder / "b.fits")}),
    ]


def test_cells_of_parquet_may_be_empty(folder):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    columns = {
        "id": ["a", "b"],
        "file_g": ["a.fits", "b.fits"],
        "file_r": [None, "c.fits"],
        "z_lens": [0.5, None],
    }
    parquet.write_table(pyarrow.table(columns), folder / "empty.parquet")
    found = read_lens_list(folder / "empty.parquet").lenses
    assert [list(one.files) for one in found] == [["g"], ["g", "r"]]
    assert found[0].z_lens == 0.5 and np.isnan(found[1].z_lens)


def test_a_folder_is_a_lens_for_each_file(folder):
    found = read_lens_list(folder)
    assert [one.id for one in found] == list("abcde")
    assert found.bands == ("",)


def test_a_pattern_names_ids_and_bands(folder, write_cutout):
    for name in ("J_1_r", "J_1_g", "J_2_g"):
        write_cutout(folder / f"{name}.fits")
    found = read_lens_list(folder, files="{id}_{band}.fits")
    assert {one.id: sorted(one.files) for one in found} == {"J_1": ["g", "r"], "J_2": ["g"]}
    assert found.bands == ("g", "r")


def test_columns_by_band_leave_out_empty_cells(folder):
    table = Table({"id": ["a", "b"], "file_g": ["a.fits", "b.fits"], "file_r": ["c.fits", ""]})
    table.write(folder / "bands.csv")
    found = read_lens_list(folder / "bands.csv")
    assert [list(one.files) for one in found] == [["g", "r"], ["g"]]


def test_positions_and_what_is_known_have_units(folder):
    place = SkyCoord([10.0, 20.0] * u.deg, [1.0, -1.0] * u.deg)
    table = QTable({"id": ["a", "b"], "skycoord": place, "theta_E": [1200, 900] * u.mas})
    table["file"] = [str(folder / "a.fits"), str(folder / "b.fits")]
    found = read_lens_list(table)
    np.testing.assert_allclose([one.ra for one in found], [10, 20])
    np.testing.assert_allclose([one.theta_E for one in found], [1.2, 0.9])


def test_without_an_id_a_pattern_is_a_mosaic(folder):
    table = Table({"id": ["x", "y"], "ra": [150.0, 150.0], "dec": [2.0, 2.0]})
    table.write(folder / "places.csv")
    found = read_lens_list(folder / "places.csv", files="a.fits", needs_places=True)
    assert [one.files[""] for one in found] == [str(folder / "a.fits")] * 2


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"id": ["a", "a"]}, "the id 'a' stands 2 times"),
        ({"file": ["a.fits", "none.fits"]}, r"lens b: .*none.fits does not exist"),
        ({"colour": [1, 2]}, "column colour is unknown"),
        ({"z_lens": [0.5, 2.0], "z_source": [1.0, 1.0]}, "lens b: z_lens = 2.0, z_source = 1.0"),
        ({"theta_E": [1.0, -1.0]}, "lens b: theta_E = -1.0 is not positive"),
        ({"mask": ["none.fits", ""]}, "lens a: .*none.fits does not exist"),
        ({"psf_z": ["", "a.fits"]}, "lens b: a PSF of the band z, but no file of it"),
        ({"file": ["", "b.fits"]}, "lens a: no file is named"),
        ({"ra": ["x", "y"]}, "column ra holds no numbers in deg"),
        ({"ID": ["a", "b"]}, "the columns id and ID mean the same"),
        ({"file_r": ["a.fits", "b.fits"]}, "columns file and file_BAND"),
        ({"id": ["", "b"]}, "row 0: the id ''"),
    ],
)
def test_problems_are_named(folder, columns, message):
    table = Table({"id": ["a", "b"], "file": ["a.fits", "b.fits"]} | columns)
    table.write(folder / "wrong.ecsv")
    with pytest.raises(InputError, match=message):
        read_lens_list(folder / "wrong.ecsv")


def test_all_problems_are_logged(folder, caplog):
    Table({"id": list("abcd"), "file": [f"{n}.none" for n in range(4)]}).write(folder / "wrong.ecsv")
    with pytest.raises(InputError, match="4 problems, the first: lens a"):
        read_lens_list(folder / "wrong.ecsv")
    assert [f"lens {name}" in record.message for name, record in zip("abcd", caplog.records, strict=True)]


def test_a_table_without_ids_or_files_is_refused(folder):
    with pytest.raises(InputError, match="there is no column id, only file"):
        read_lens_list(Table({"file": ["a.fits"]}))
    with pytest.raises(InputError, match="there is no column file or file_BAND"):
        read_lens_list(Table({"id": ["a"]}))


def test_a_position_is_needed_to_cut(folder):
    with pytest.raises(InputError, match=r"lens a: a position \(ra, dec\) is needed"):
        read_lens_list(folder, needs_places=True)


def test_a_pattern_has_two_words_only():
    with pytest.raises(InputError, match="only {id} and {band}"):
        read_lens_list(Table({"id": ["a"]}), files="{name}.fits")


def test_columns_of_ones_own_are_let_through_by_name(catalogue):
    with pytest.raises(InputError, match="column note is unknown"):
        read_lens_list(catalogue)
    assert [one.kept for one in read_lens_list(catalogue, keep=["note"])][0] == {"note": "note a"}
    with pytest.raises(InputError, match="keep names the column nothing"):
        read_lens_list(catalogue, keep=["note", "nothing"])


def test_names_of_files_are_plain_and_differ():
    stems = [ListedLens(id=name, number=0, files={}).stem for name in ("a b", "a/b", "a=20b", ".a", "ä")]
    assert stems == ["a=20b", "a=2Fb", "a=3D20b", "=2Ea", "=C3=A4"]
