"""The `lenssr` command: what it writes, what it prints, and how it fails."""

import contextlib
import io
import logging
import os
import subprocess
import sys
import warnings

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits

from lenssr import _demo_command, cli
from lenssr.datasets import hst_lens
from lenssr.exceptions import InputError, LensSRWarning
from lenssr.options import RESOLVER, SOURCES
from lenssr.result import SuperResolution
from lenssr.simulation import DeepLense

LENS = "SIE: {theta_E: 1.28149057, e1: 0.1}"


def run(*arguments):
    return cli.main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def cutout(tmp_path_factory):
    """A simulated lens as a FITS file with an error plane."""
    item = DeepLense(lens="sie", size=1, seed=1)[0]
    header = item.low.wcs.to_header()
    header["BUNIT"] = "electron / s"
    error = np.sqrt(item.low_truth.data / 1000 + 1e-6)
    path = tmp_path_factory.mktemp("cutout") / "cutout.fits"
    fits.HDUList(
        [
            fits.PrimaryHDU(),
            fits.ImageHDU(item.low.data, header, name="SCI"),
            fits.ImageHDU(error, header, name="ERR"),
        ]
    ).writeto(path)
    return path


@pytest.fixture
def lens(tmp_path):
    path = tmp_path / "lens.yaml"
    path.write_text(LENS)
    return path


@pytest.fixture
def tmp_out(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


@pytest.fixture
def command(monkeypatch):
    """Replace what ``lenssr demo`` does by a function of the test's own."""

    def replace(function):
        monkeypatch.setattr(cli, "_demo", function)

    return replace


# ---------------------------------------------------------------- resolve


@pytest.mark.parametrize(("text", "value"), [("pixel", "pixel"), ("0.1arcsec", 0.1 * u.arcsec)])
def test_output_psf_is_a_word_or_an_angle(text, value):
    arguments = cli._parser().parse_args(["resolve", "in.fits", "-o", "out.fits", "--psf-out", text])
    assert arguments.psf_out == value


def test_output_psf_without_a_psf_is_refused(cutout, tmp_out, capsys):
    assert run("resolve", cutout, "-o", tmp_out / "out.fits", "--psf-out", "0.05arcsec") == 1
    assert "psf_out = 0.05 arcsec: the image has no PSF to narrow: give psf=" in capsys.readouterr().err


@pytest.mark.parametrize(("text", "value"), [("mge", "mge"), ("sersic, mge", ["sersic", "mge"])])
def test_several_lights_are_a_list(text, value):
    arguments = cli._parser().parse_args(["resolve", "in.fits", "-o", "out.fits", "--lens-light", text])
    assert arguments.lens_light == value


def test_resolve_writes_file_and_figure(cutout, lens, tmp_out, capsys):
    out, plot = tmp_out / "out.fits", tmp_out / "out.png"
    assert run("resolve", cutout, "-o", out, "--lens", lens, "--plot", plot) == 0
    result = SuperResolution.read(out)
    assert result.image.shape == (150, 150)
    assert result.lens.theta_E.value == 1.28149057
    assert plot.read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr()
    assert "reduced chi2" in printed.out
    assert printed.err.splitlines()[0] == f"lenssr: resolving {cutout}"


def test_options_reach_the_result(cutout, lens, tmp_out):
    out = tmp_out / "out.fits"
    options = ["--sci", "SCI", "--err", "ERR", "--psf-fwhm", "80mas", "--unit", "adu/s", "--scale", "3"]
    assert run("resolve", cutout, "-o", out, "--lens", lens, "--device", "cpu", *options) == 0
    result = SuperResolution.read(out)
    assert result.image.shape == (225, 225)
    assert result.image.unit == u.adu / u.s
    assert result.image.psf is not None


def test_a_network_and_its_steps_are_chosen(cutout, lens, tmp_out):
    out = tmp_out / "out.fits"
    options = ["--source", "network", "--weights", "relensing", "--refine", "1", "--lens", lens]
    assert run("resolve", cutout, "-o", out, *options) == 0
    about = SuperResolution.read(out).meta["network"]
    assert (about["name"], about["refine"]) == ("relensing", 1)


def test_a_start_reaches_the_resolver(cutout, tmp_out, monkeypatch):
    """It is what the fit of an unknown lens begins with, which would take seconds here."""
    seen = {}

    def stop(**options):
        seen.update(options)
        raise InputError("seen")

    monkeypatch.setattr("lenssr.resolver.SuperResolver", stop)
    for given, expected in (([], "search"), (["--start", "network"], "network")):
        assert run("resolve", cutout, "-o", tmp_out / "out.fits", *given) == 1
        assert seen["start"] == expected and seen["source"] == "auto"


def test_pixel_scale_reaches_the_result(cutout, tmp_path, tmp_out):
    bare = tmp_path / "bare.fits"
    fits.PrimaryHDU(fits.getdata(cutout, "SCI")).writeto(bare)
    out = tmp_out / "out.fits"
    options = ["--pixel-scale", "50mas", "--unit", "electron/s", "--source", "interpolation"]
    assert run("resolve", bare, "-o", out, *options, "--plot", tmp_out / "out.png") == 0
    assert 'at 0.025"' in repr(SuperResolution.read(out))


def test_existing_output_is_kept(cutout, tmp_out, capsys):
    out = tmp_out / "out.fits"
    out.write_text("precious")
    assert run("resolve", cutout, "-o", out) == 1
    assert out.read_text() == "precious"
    assert "--overwrite" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "output"),
    [
        (["resolve", "far/away/cutout.fits.gz"], "cutout_sr.fits"),
        (["resolve", "blue=a.fits", "red=b.fits"], "a_sr.fits"),
        (["sersic", "field.fits"], "field_sersic.ecsv"),
        (["survey", "catalogue.ecsv"], "survey-catalogue"),
        (["survey", "cutouts/"], "survey-cutouts"),
        (["survey", "cutouts/*.fits"], "survey-lenses"),
        (["train", "recipes/mine.yaml"], "train-mine"),
        (["simulate"], "lenssr-lenses"),
        (["resolve", "cutout.fits", "-o", "mine.fits"], "mine.fits"),
    ],
)
def test_outputs_have_a_name_by_default(given, output):
    arguments = cli._parser().parse_args(given)
    cli._name_output(arguments)
    assert arguments.output == output


def test_without_a_name_the_output_goes_to_the_current_folder(cutout, tmp_out, monkeypatch, capsys):
    monkeypatch.chdir(tmp_out)
    assert run("resolve", cutout, "--source", "interpolation") == 0
    assert [path.name for path in tmp_out.iterdir()] == ["cutout_sr.fits"]
    assert "written        cutout_sr.fits" in capsys.readouterr().out
    assert run("resolve", cutout, "--source", "interpolation") == 1
    assert "cutout_sr.fits exists" in capsys.readouterr().err


@pytest.mark.parametrize(("strict", "code"), [(["--strict"], 3), ([], 0)])
def test_strict_tells_a_result_that_is_not_ok(tmp_path, tmp_out, strict, code):
    """A constant image is flagged, and written all the same."""
    flat = tmp_path / "flat.fits"
    fits.PrimaryHDU(np.ones((20, 20))).writeto(flat)
    options = ["--source", "interpolation", "--pixel-scale", "50mas", "--unit", "electron/s", *strict]
    assert run("resolve", flat, "-o", tmp_out / "out.fits", *options) == code
    assert not SuperResolution.read(tmp_out / "out.fits").ok


def test_strict_leaves_a_good_result_alone(cutout, tmp_out):
    options = ["--source", "interpolation", "--strict"]
    assert run("resolve", cutout, "-o", tmp_out / "out.fits", *options) == 0


def test_a_folder_leads_to_the_survey(tmp_path, capsys):
    assert run("resolve", tmp_path) == 1
    assert f"{tmp_path} is a folder: lenssr survey {tmp_path}" in capsys.readouterr().err


def test_an_output_is_not_one_of_the_files_that_are_read(cutout, tmp_out, capsys):
    weights = tmp_out / "weights.fits"
    weights.write_bytes(cutout.read_bytes())
    assert run("resolve", cutout, "-o", weights, "--overwrite", "--wht-file", weights) == 1
    assert "is an input of this run" in capsys.readouterr().err
    assert weights.read_bytes() == cutout.read_bytes()


@pytest.mark.parametrize(
    "given",
    [
        ["resolve", "missing.fits"],
        ["resolve", "{here}", "--psf-file", "missing.fits"],
        ["resolve", "{here}", "--mask-file", "missing.fits"],
        ["resolve", "{here}", "--err-file", "missing.fits"],
        ["resolve", "{here}", "--lens", "missing.yaml"],
        ["resolve", "blue={here}", "red=missing.fits"],
        ["inspect", "missing.fits"],
        ["sersic", "missing.fits"],
        ["sersic", "{here}", "--init", "missing.ecsv"],
        ["survey", "missing.ecsv"],
    ],
)
def test_missing_files_are_found_before_libraries_load(cutout, tmp_out, given):
    code = (
        "import sys; from lenssr.cli import main\n"
        "heavy = {'torch', 'scipy', 'astropy.units', 'matplotlib', 'photutils', 'lenssr.imaging'}\n"
        "print(main(sys.argv[1:]), sorted(heavy & set(sys.modules)))"
    )
    given = [one.format(here=cutout) for one in given]
    done = subprocess.run(
        [sys.executable, "-c", code, *given], capture_output=True, text=True, check=True, cwd=tmp_out
    )
    assert done.stdout.splitlines()[-1] == "1 []"
    assert "does not exist or is not a file" in done.stderr


def test_the_package_is_the_command(tmp_out):
    done = subprocess.run([sys.executable, "-m", "lenssr", "--version"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("lenssr ")


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("lenssr res", ["resolve "]),
        ("lenssr resolve --str", ["--strict "]),
        ("lenssr resolve in.fits --source per", ["perturbed_sersic "]),
    ],
)
def test_a_shell_completes_the_command(tmp_path, line, offered):
    pytest.importorskip("argcomplete", reason="the extra 'completion' is not installed")
    answer = tmp_path / "answer"
    shell = {
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_SHELL": "bash",
        "_ARGCOMPLETE_IFS": "\013",
        "_ARGCOMPLETE_SUPPRESS_SPACE": "0",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(answer),
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
    }
    code = "from lenssr.cli import main; main()"
    subprocess.run([sys.executable, "-c", code], env=os.environ | shell, check=True)
    assert answer.read_text().split("\013") == offered


def test_overwrite_replaces(cutout, tmp_out):
    out = tmp_out / "out.fits"
    out.write_text("old")
    assert run("resolve", cutout, "-o", out, "--source", "interpolation", "--overwrite") == 0
    assert SuperResolution.read(out).source is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["missing.fits"], "missing.fits"),
        (["{cutout}", "--lens-light", "magic"], "lens_light = 'magic'"),
        (["{cutout}", "--lens-light", "none,mge"], "lens_light = ['none', 'mge']"),
        (
            ["{cutout}", "--prior", "gradient", "--source", "sersic"],
            "prior = 'gradient' with source = 'sersic'",
        ),
        (["{cutout}", "--lens", "missing.yaml"], "missing.yaml"),
        (["{cutout}", "--lens", "{cutout}"], "cannot be read as text in UTF-8"),
        (["{cutout}", "--sci", "FOO"], "FOO"),
        (["{cutout}", "--unit", "bananas"], "bananas"),
        (["{cutout}", "--psf", "PSF", "--psf-fwhm", "0.1arcsec"], "both name a PSF"),
        (["{cutout}", "--psf-file", "{cutout}", "--psf", "FOO"], "FOO"),
        (["{cutout}", "--device", "abacus"], "abacus"),
        (["{cutout}", "--refine", "2"], "--refine: only a network has it, give --source network too"),
        (["{cutout}", "--source", "network", "--weights", "none"], "weights = 'none'"),
        (["{cutout}", "--start", "nowhere"], "start: weights = 'nowhere'"),
        (["{cutout}", "--plot", "out.fits"], "end its name in .png"),
    ],
)
def test_errors_are_one_line(cutout, tmp_out, capsys, changes, message):
    changes = [change.format(cutout=cutout) for change in changes]
    assert run("resolve", "-o", tmp_out / "out.fits", *changes) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("lenssr: error: ")
    assert message in lines[-1]
    assert not any("Traceback" in line for line in lines)
    assert list(tmp_out.iterdir()) == []


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--psf-fwhm", "0.1", "write 0.1arcsec if it is in arcsec"),
        ("--pixel-scale", "0.05", "write 0.05arcsec if it is in arcsec"),
        ("--pixel-scale", "5m", "not a positive angle"),
        ("--pixel-scale", "-1arcsec", "not a positive angle"),
        ("--pixel-scale", "narcsec", "not a positive angle"),
        ("--scale", "0", "below 1"),
        ("--scale", "2.5", "not a whole number"),
        ("--refine", "-1", "below 0"),
        ("--mask", "yes", "invalid choice"),
        ("--source", "magic", "invalid choice"),
        ("--prior", "magic", "invalid choice"),
        ("--psf-out", "0.1", "no unit"),
    ],
)
def test_arguments_that_mean_nothing(capsys, option, value, message):
    with pytest.raises(SystemExit) as stopped:
        run("resolve", "in.fits", "-o", "out.fits", f"{option}={value}")
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_one_psf_only(capsys):
    with pytest.raises(SystemExit) as stopped:
        run("resolve", "in.fits", "-o", "out.fits", "--psf-file", "psf.fits", "--psf-fwhm", "0.1arcsec")
    assert stopped.value.code == 2
    assert "not allowed with" in capsys.readouterr().err


def test_a_registered_source_is_known_to_the_command(monkeypatch, capsys):
    monkeypatch.setitem(SOURCES, "disc", SOURCES["sersic"])
    arguments = cli._parser().parse_args(["resolve", "in.fits", "-o", "out.fits", "--source", "disc"])
    assert arguments.source == "disc"
    with pytest.raises(SystemExit):
        run("resolve", "--help")
    assert ", ".join(SOURCES) in " ".join(capsys.readouterr().out.split())


def test_none_leaves_lens_light_and_other_objects_alone():
    arguments = cli._parser().parse_args(["resolve", "in.fits", "--lens-light", "none", "--mask", "none"])
    given = cli._given(arguments, RESOLVER)
    assert given["lens_light"] is None and given["mask"] is None and given["source"] == "auto"
    resolver = cli._resolver(cli._parser().parse_args(["resolve", "in.fits", "--mask-file", "mask.fits"]))
    assert resolver.mask is None and resolver.settings.lens_light == "auto"


def test_what_the_command_does_not_say_is_the_default():
    arguments = cli._parser().parse_args(["resolve", "in.fits", "-o", "out.fits"])
    given = cli._given(arguments, RESOLVER)
    assert given == {name: one.default for name, one in RESOLVER.items() if one.flag is not None}


# ---------------------------------------------------------------- what is said


@pytest.fixture
def talkative(command):
    """A command that says something at every level."""

    def talk(arguments):
        logger = logging.getLogger("lenssr.room")
        logger.debug("a detail")
        logger.info("a stage\nin two lines")
        warnings.warn("mind this", LensSRWarning, stacklevel=1)
        print("the result")

    command(talk)


@pytest.mark.parametrize(
    ("switches", "lines"),
    [
        ([], ["lenssr: a stage in two lines", "lenssr: warning: mind this"]),
        (["--quiet"], ["lenssr: warning: mind this"]),
        (["--verbose"], ["lenssr: a detail", "lenssr: a stage in two lines", "lenssr: warning: mind this"]),
    ],
)
@pytest.mark.filterwarnings("default")
def test_how_much_is_said(talkative, capsys, switches, lines):
    assert run("demo", *switches) == 0
    printed = capsys.readouterr()
    assert printed.err.splitlines() == lines
    assert printed.out == "the result\n"


@pytest.mark.filterwarnings("default")
def test_a_log_file_holds_everything_and_is_appended_to(talkative, tmp_path, capsys):
    path = tmp_path / "lenssr.log"
    path.write_text("before\n")
    for _ in range(2):
        assert run("demo", "--quiet", "--log-file", path) == 0
    text = path.read_text()
    assert text.startswith("before\n")
    assert text.count("DEBUG lenssr.room: a detail") == text.count("WARNING lenssr: mind this") == 2
    assert "the result" not in text and "a detail" not in capsys.readouterr().err


def test_a_log_file_holds_the_traceback_of_an_error(command, tmp_path, capsys):
    def fail(arguments):
        raise InputError("no")

    command(fail)
    assert run("demo", "--log-file", tmp_path / "lenssr.log") == 1
    assert "Traceback" in (tmp_path / "lenssr.log").read_text()
    assert capsys.readouterr().err == "lenssr: error: no\n"


def test_a_log_file_that_cannot_be_written_is_refused(talkative, tmp_path, capsys):
    assert run("demo", "--log-file", tmp_path / "nowhere" / "lenssr.log") == 1
    assert "lenssr: error: --log-file" in capsys.readouterr().err


def test_a_command_leaves_the_logger_as_it_was(talkative):
    logger = logging.getLogger("lenssr")
    before = logger.level, list(logger.handlers)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert run("demo", "--verbose") == 0
    assert (logger.level, logger.handlers) == before


def test_stages_are_records_for_a_program(cutout, tmp_out, caplog):
    caplog.set_level(logging.INFO, logger="lenssr")
    assert run("resolve", cutout, "-o", tmp_out / "out.fits", "--source", "interpolation") == 0
    assert f"resolving {cutout}" in caplog.messages


# ---------------------------------------------------------------- running


def test_debug_shows_the_traceback(tmp_out, capsys):
    assert run("resolve", "missing.fits", "-o", tmp_out / "out.fits", "--debug") == 1
    assert "Traceback" in capsys.readouterr().err


def test_warnings_are_one_line(command, capsys):
    def noisy(arguments):
        warnings.warn("two\nlines", LensSRWarning, stacklevel=1)

    command(noisy)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert run("demo") == 0
    assert capsys.readouterr().err == "lenssr: warning: two lines\n"


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (InputError("a\nb"), 1, "lenssr: error: a b"),
        (OSError(28, "No space left"), 1, "lenssr: error: [Errno 28] No space left"),
        (ZeroDivisionError("oops"), 1, "lenssr: error: ZeroDivisionError: oops"),
        (KeyboardInterrupt(), 130, "lenssr: interrupted"),
    ],
)
def test_failures_have_codes(command, capsys, error, code, line):
    def fail(arguments):
        raise error

    command(fail)
    assert run("demo") == code
    assert capsys.readouterr().err == line + "\n"


def test_without_a_command_help_is_printed(capsys):
    assert run() == 2
    assert "resolve" in capsys.readouterr().out


def test_version(capsys):
    assert run("--version") == 0
    assert capsys.readouterr().out.startswith("lenssr ")


def test_help_does_not_wait_for_the_numerics():
    code = (
        "import sys; from lenssr.cli import main\n"
        "try: main(['resolve', '--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'scipy', 'astropy.units', 'matplotlib', 'photutils', 'lenssr.simulation'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


# ---------------------------------------------------------------- demo and simulate


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """Run the demo once, where one was run before; give its folder and what it printed."""
    folder = tmp_path_factory.mktemp("demo")
    (folder / "demo.fits").write_text("of an earlier demo")
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert run("demo", "--simulated", "-o", folder) == 0
    return folder, printed.getvalue()


@pytest.mark.slow
def test_demo_resolves_the_real_lens(tmp_path, capsys):
    assert run("demo", "-o", tmp_path) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"demo.fits", "demo.png"}
    result = SuperResolution.read(tmp_path / "demo.fits")
    assert result.ok, result.flags
    assert result.lens[0].theta_E.value == pytest.approx(1.28, abs=0.03)
    assert result.image.shape == (224, 224)
    printed = capsys.readouterr().out
    assert all(f"  {line}".rstrip() in printed.splitlines() for line in _demo_command.code().splitlines())


def test_the_code_that_the_demo_shows_is_what_it_runs(monkeypatch):
    """Run the text with a stand-in for the resolver, whose arguments are compared."""
    seen = {}

    class Stand:
        def __init__(self, **settings):
            seen["settings"] = settings

        def __call__(self, image):
            seen["image"] = image
            return self

        def plot(self, path):
            seen["plot"] = path

    monkeypatch.setattr("lenssr.SuperResolver", Stand, raising=False)
    exec(compile(_demo_command.code(), "demo", "exec"), {})
    image = hst_lens()[_demo_command.BAND]
    assert seen == {"settings": _demo_command.SETTINGS, "image": image, "plot": "demo.png"}


def test_demo_writes_file_and_figure(demo):
    folder, _ = demo
    assert {path.name for path in folder.iterdir()} == {"demo.fits", "demo.png"}
    result = SuperResolution.read(folder / "demo.fits")
    assert result.ok, result.flags


def test_demo_beats_interpolation_and_says_so(demo):
    rows = {line.split()[0]: line.split()[1:] for line in demo[1].splitlines()}
    assert float(rows["lenssr"][0]) > float(rows["bicubic"][0]) + 10


def test_demo_finds_the_lens(demo):
    found = demo[1].splitlines()
    true, value, _, error = next(line for line in found if line.startswith("  theta_E")).split()[1:]
    assert abs(float(true) - float(value)) < 4 * float(error)


def test_simulate_writes_a_data_set(tmp_path):
    assert run("simulate", "--lens", "sis", "--noise", "-n", 3, "--seed", 5, "-o", tmp_path / "set") == 0
    files = sorted((tmp_path / "set").glob("*.fits"))
    assert len(files) == 3
    item = DeepLense(lens="sis", noise=True, size=3, seed=5)[0]
    with fits.open(files[0]) as hdus:
        stored = next(hdu.data for hdu in hdus if hdu.data is not None and hdu.data.shape == item.low.shape)
    np.testing.assert_array_equal(stored, item.low.data)


def test_simulate_knows_the_other_models_and_substructure(tmp_path):
    assert run("simulate", "--model", "III", "--substructure", "axion", "-n", 1, "-o", tmp_path / "set") == 0
    with fits.open(tmp_path / "set" / "000000.fits") as hdus:
        assert hdus["SCI"].data.shape == (64, 64) and len(hdus["SUBHALOS"].data) == 100
        assert hdus[0].header["LENS"] == "sie+shear" and hdus[0].header["NOISE"] is True


@pytest.mark.parametrize(("option", "value"), [("--model", "IX"), ("--lens", "nfw"), ("--seed", "-1")])
def test_simulate_refuses_what_it_does_not_know(tmp_path, capsys, option, value):
    assert run("simulate", f"{option}={value}", "-o", tmp_path / "set") == 1
    assert capsys.readouterr().err.startswith("lenssr: error: ")
    assert not (tmp_path / "set").exists()
