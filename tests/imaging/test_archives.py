"""Files as archives write them: every plane with its meaning, or a refusal with the remedy."""

import re
from pathlib import Path

import numpy as np
import pytest
from archive_layouts import LAYOUTS

from lenssr import SuperResolution, cli
from lenssr.exceptions import InputError
from lenssr.imaging import Observation
from lenssr.imaging.inspection import GUESSES

pytestmark = pytest.mark.filterwarnings("ignore:.*not finite", "ignore::astropy.wcs.FITSFixedWarning")


def read(made):
    """Observation by the options of the command."""
    arguments = cli._parser().parse_args(["inspect", made.path, *made.options])
    reading = cli._reading_with_psf(arguments)
    return Observation.from_any(made.path, mask=arguments.mask_file, most_pixels=1024**2, **reading)


@pytest.mark.parametrize("name", LAYOUTS)
def test_layout(name, tmp_path):
    layout = LAYOUTS[name]
    made = layout.make(tmp_path)
    if made.refused:
        with pytest.raises(InputError, match=made.refused):
            read(made)
        return
    seen = read(made)
    assert seen.meta["reading"]["reader"].startswith(layout.reader)
    assert seen.unit == made.unit
    assert seen.pixel_scale == pytest.approx(made.scale, rel=1e-3)
    assert seen.meta["zero_point"] == (
        None if made.zero_point is None else pytest.approx(made.zero_point, abs=1e-3)
    )
    assert seen.mask.sum() == made.hidden
    assert set(seen.flags) & set(GUESSES) == set(made.flags)
    assert seen.data.sum() == pytest.approx(made.flux, rel=0.1)
    if (
        made.sigma is not None
        and "weight_guessed" not in made.flags
        and "noise_from_exposure" not in made.flags
    ):
        assert np.allclose(seen.error, made.sigma, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hst-flc", "jwst-i2d", "alma"])
def test_lens_and_product(name, tmp_path, fitsverify):
    made = LAYOUTS[name].make(tmp_path)
    assert cli.main(["resolve", made.path, "-o", str(tmp_path / "out.fits"), *made.options]) == 0
    result = SuperResolution.read(tmp_path / "out.fits")
    assert result.lens[0].theta_E.value == pytest.approx(made.theta_E, rel=0.01)
    fitsverify(tmp_path / "out.fits")


def test_inspect_says_what_was_read(tmp_path, capsys):
    made = LAYOUTS["rubin"].make(tmp_path)
    assert cli.main(["inspect", made.path, *made.options]) == 0
    told = capsys.readouterr().out
    assert re.search(r"^mask +HDU 2 MASK, bits BAD, SAT", told, flags=re.M)
    assert re.search(r"^unit +BUNIT = nJy", told, flags=re.M)
    assert "8 hidden" in told


PAGE = Path(__file__).parents[2] / "docs" / "user" / "files.rst"


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_has_a_row_with_its_command(name, tmp_path):
    text = PAGE.read_text(encoding="utf-8")
    found = re.search(rf"   \* - ``{name}``\n(.*?)(?=\n   \* - |\n\n)", text, flags=re.S)
    command = " ".join(found[1].split("``")[-2].split())
    options = LAYOUTS[name].make(tmp_path).options
    named = {one for one in re.findall(r"--[a-z-]+", command)}
    wanted = {one for one in options if one.startswith("--")}
    if " PSF" in command:
        wanted -= {"--psf-fwhm"}
    assert named == wanted, command
