"""One spelling of a lens everywhere, and objects as prompts and notebooks show them."""

import inspect

import astropy.units as u
import numpy as np
import pytest

from lenssr import SIE, Sersic, SersicPhotometry, Shear
from lenssr.exceptions import InputError
from lenssr.imaging import Observation
from lenssr.mass import from_dict

# Everything that an elliptical lens needs beside its shape.
NEEDED = {
    "theta_E": 1.2, "core": 0.1, "edge": 2.0, "gamma": 1.9, "r_s": 3.0, "alpha_rs": 0.5, "kappa_0": 0.4,
    "sigma": 0.7, "m": 4, "a1": 0.02, "a2": 0.01, "amplitude": 1.0, "r_eff": 0.6, "n": 2.0,
}  # fmt: skip


def elliptical():
    import lenssr.mass

    classes = [getattr(lenssr.mass, name) for name in lenssr.mass.__all__]
    return [one for one in classes if inspect.isclass(one) and hasattr(one, "from_q_phi") and one.param_names]


def given(cls):
    return {name: NEEDED[name] for name in inspect.signature(cls).parameters if name in NEEDED}


def test_there_are_elliptical_lenses():
    assert len(elliptical()) == 8


@pytest.mark.parametrize("cls", elliptical(), ids=lambda cls: cls.__name__)
def test_a_lens_is_spelled_alike_in_python_and_in_files(cls):
    by_name = cls(**given(cls), q=0.8, phi=30 * u.deg)
    by_file = from_dict({cls.__name__: given(cls) | {"q": 0.8, "phi": "30 deg"}})
    assert by_name.vector.tolist() == by_file.vector.tolist()
    assert by_name.q == pytest.approx(0.8)
    assert by_name.phi.deg == pytest.approx(30)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"q": 0.8}, "give both"),
        ({"phi": 30 * u.deg}, "give both"),
        ({"q": 0.8, "phi": 30 * u.deg, "e1": 0.1}, "give one pair"),
        ({"q": 1.2, "phi": 30 * u.deg}, "0 < q <= 1"),
        ({"q": 0.8, "phi": 30}, "phi"),
    ],
)
def test_half_a_shape_and_two_are_refused(shape, message):
    with pytest.raises(InputError, match=message):
        SIE(1.2, **shape)
    with pytest.raises(InputError, match=message):
        Sersic(1.0, r_eff=0.3, **shape)


def test_a_profile_is_spelled_like_a_lens():
    one, other = (
        Sersic(1.0, r_eff=0.3, q=0.7, phi=10 * u.deg),
        Sersic.from_axis_ratio(1.0, r_eff=0.3, q=0.7, phi=10 * u.deg),
    )
    np.testing.assert_array_equal(one.parameters, other.parameters)
    assert SIE(1.2, q=1).vector.tolist() == SIE(1.2).vector.tolist()


def test_an_observation_is_one_line():
    mask = np.zeros((20, 30), bool)
    mask[0] = True
    image = np.random.default_rng(1).normal(size=(20, 30))
    one = Observation.from_any(image, pixel_scale=0.05, noise=0.1, unit="electron/s", mask=mask)
    assert repr(one) == '<Observation 30x20 at 0.05", electron / s, 30 masked, no PSF, GaussianNoise>'
    assert "30 pixels" in one._repr_html_()


def test_photometry_shows_what_is_not_usual():
    assert repr(SersicPhotometry()) == "SersicPhotometry()"
    shown = repr(SersicPhotometry(psf=2.5 * u.pix, sky=None, fit_shape=41))
    assert shown == "SersicPhotometry(psf=<Quantity 2.5 pix>, fit_shape=41, sky=None)"


def test_a_lens_is_a_table_in_a_notebook():
    html = (SIE(1.25) + Shear(0.1, 0.0))._repr_html_()
    assert html.count("<tr>") == 1 + len((SIE(1.25) + Shear(0.1, 0.0)).param_names)
    assert ">theta_E_0<" in html
    assert ">1.25<" in html
