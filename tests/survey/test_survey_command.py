"""The command ``lenssr survey``."""

import pytest
from astropy.table import Table

from lenssr import cli


def run(*arguments):
    return cli.main(["survey", *map(str, arguments)])


FAST = ("--source", "interpolation", "--figures", "none")


def test_a_folder_becomes_a_catalogue_and_goes_on(folder, tmp_path, idle, capsys):
    for number in (1, 2):
        assert run(folder, "-o", tmp_path / "run", "--part", f"{number}/2", *FAST) == 0
    assert "catalogue" not in capsys.readouterr().out
    assert run(folder, "-o", tmp_path / "run", "--collect", *FAST) == 0
    assert "lenses         5 in the catalogue" in capsys.readouterr().out
    assert len(Table.read(tmp_path / "run" / "catalogue.fits")) == 5
    assert run(folder, "-o", tmp_path / "run", "--redo", "a,b", *FAST) == 0
    assert idle.asked == ["a", "c", "e", "b", "d", "a", "b"]
    assert "this run       2 in" in capsys.readouterr().out


def test_failures_say_how_to_repeat_them(folder, tmp_path, idle, monkeypatch, capsys):
    (folder / "b.fits").write_bytes(b"no FITS")
    words = ["survey", str(folder), "-o", str(tmp_path / "run"), "--jobs", "1", "--part=1/1", *FAST]
    monkeypatch.setattr("sys.argv", ["lenssr", *words])
    assert cli.main(words) == 0
    assert run(folder, "-o", tmp_path / "run", "--collect", *FAST) == 0
    (row,) = Table.read(tmp_path / "run" / "failures.ecsv")
    assert row["repeat"] == f"lenssr survey {folder} -o {tmp_path}/run {' '.join(FAST)} --redo b"
    assert cli.main(row["repeat"].split()[1:]) == 0


def test_options_of_resolve_reach_the_resolver(folder, tmp_path, idle, capsys):
    options = (
        "--scale",
        "3",
        "--lens-light",
        "sersic",
        "--unit",
        "adu",
        "--psf-fwhm",
        "0.2arcsec",
        "--figures",
        "none",
    )
    assert run(folder, "-o", tmp_path / "run", *options) == 0
    assert run(folder, "-o", tmp_path / "run", *options[2:]) == 1
    assert "resolver.scale was 3, is 2: give the same" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--part", "0/3", "is no part"),
        ("--part", "three", "is no part"),
        ("--timeout", "-1", "is no time"),
        ("--memory", "much", "a memory of 'much'"),
        ("--jobs", "-2", "below -1"),
    ],
)
def test_options_are_checked(folder, tmp_path, capsys, option, value, message):
    with pytest.raises(SystemExit):
        run(folder, "-o", tmp_path / "run", f"{option}={value}")
    assert message in capsys.readouterr().err


def test_collecting_solves_nothing(folder, tmp_path, capsys):
    assert run(folder, "-o", tmp_path / "run", "--collect", "--redo", "all", *FAST) == 1
    assert "--redo with --collect" in capsys.readouterr().err
