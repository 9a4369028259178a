"""What the command line advises, by settings and flags."""

from types import SimpleNamespace

import pytest

from lenssr import SIE, _advice
from lenssr._advice import advice
from lenssr.options import Settings
from lenssr.reconstruction.verdict import FLAGS


def told(settings, flags, *, ok=False, mask="auto"):
    return " | ".join(advice(Settings(**settings), mask, SimpleNamespace(ok=ok, flags=flags)))


@pytest.mark.parametrize(
    ("settings", "flags", "text"),
    [
        (
            {"lens_light": None},
            ("bad_chi2",),
            "the lens galaxy is not modelled: if it is seen, add --lens-light mge,mge",
        ),
        ({"lens_light": None}, ("source_too_large",), "the lens galaxy is not modelled"),
        ({"lens_light": "sersic"}, ("bad_field_chi2",), "the lens galaxy may be no Sérsic"),
        ({"source": "sersic", "lens_light": "mge"}, ("residual_structure",), "try --source pixelated"),
        ({"lens_light": "mge", "lens": SIE(1.0)}, ("bad_arc_chi2",), "add --fit-lens"),
    ],
)
def test_what_the_model_lacks_is_named(settings, flags, text):
    assert text in told(settings, flags)


def test_a_mask_is_advised_where_there_is_none():
    assert "add --mask auto" in told({}, ("bad_field_chi2",), mask=None)
    assert "--mask" not in told({}, ("bad_field_chi2",), mask="auto")


@pytest.mark.parametrize(
    ("settings", "flags"),
    [
        ({"source": "pixelated", "lens_light": "mge"}, ("bad_chi2", "residual_structure")),
        ({"source": "interpolation"}, ("constant_image",)),
        ({}, ("starts_disagree",)),
    ],
)
def test_where_nothing_is_lacking_nothing_is_advised(settings, flags):
    assert told(settings, flags) == ""


def test_a_good_result_needs_no_other_model():
    assert told({}, ("correlated_noise", "no_psf"), ok=True) == _advice.MISSING["no_psf"]


def test_flags_that_are_spoken_of_exist():
    assert _advice.UNEXPLAINED | _advice.ARCS_UNEXPLAINED | _advice.NO_LENS | set(_advice.MISSING) <= set(
        FLAGS
    )
