"""Names of parameters and units as a figure has them."""

import inspect

import astropy.units as u
import pytest
from matplotlib.mathtext import MathTextParser

import lenssr.light
import lenssr.mass
from lenssr._figures import SYMBOLS, symbols, unit_text


def names_of_parameters():
    classes = [getattr(room, name) for room in (lenssr.mass, lenssr.light) for name in room.__all__]
    named = [one for one in classes if inspect.isclass(one)]
    lists = [one.param_names for one in named if isinstance(getattr(one, "param_names", None), tuple)]
    return sorted({name for names in lists for name in names})


def test_every_parameter_has_a_symbol():
    assert len(names_of_parameters()) > 15
    assert set(names_of_parameters()) <= set(SYMBOLS)


@pytest.mark.parametrize("name", sorted(SYMBOLS))
def test_matplotlib_can_set_a_symbol(name):
    for text in symbols([f"lens.{name}_0", f"lens_light.{name}_1", f"lens_light.{name}_2"]):
        assert MathTextParser("agg").parse(text).width > 0


def test_component_and_number_are_told_where_they_are_needed():
    assert symbols(["lens.theta_E_0", "lens.gamma1_1", "sky"]) == [
        r"$\theta_\mathrm{E}$",
        r"$\gamma_1$",
        "sky",
    ]
    assert symbols(["lens.x_0_0", "source.x_0"]) == [r"$x_0^{\,\mathrm{lens}}$", r"$x_0^{\,\mathrm{source}}$"]
    two = symbols(["lens_light.r_eff_0", "lens_light.r_eff_1"])
    assert two == [r"$r_\mathrm{eff}^{\,\mathrm{0}}$", r"$r_\mathrm{eff}^{\,\mathrm{1}}$"]
    assert symbols(["lens.my_own_0", "lens.my_own_1"]) == ["my_own (0)", "my_own (1)"]


@pytest.mark.parametrize(
    ("unit", "text"),
    [
        (u.electron / u.s, r"$\mathrm{e^{-}\,s^{-1}}$"),
        (u.arcsec, "arcsec"),
        ("", "no unit"),
        (u.nJy, r"$\mathrm{nJy}$"),
        (u.MJy / u.sr, r"$\mathrm{MJy\,sr^{-1}}$"),
    ],
)
def test_units_are_set_with_raised_powers(unit, text):
    assert unit_text(unit) == text
