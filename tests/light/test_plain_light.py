"""Light to dictionaries and YAML, and back."""

import astropy.units as u
import numpy as np
import pytest
import yaml
from astropy.modeling.models import Gaussian2D, Sersic2D

from lenssr.exceptions import InputError
from lenssr.light import MultiGaussian, Sersic, from_dict, to_dict

FITTED = MultiGaussian.from_vector(
    np.array([1.0, 2.0, 0.1, 0.2, 0.05, -0.05]), [0.1, 0.3], covariance=np.diag([1e-2, 4e-2, 1, 1, 1, 2]) / 7
)
FITTED.flux_0.bounds = (None, 3.0)
BRIGHT = Sersic(2 * u.nJy / u.arcsec**2, 300 * u.mas, 4.0, fixed={"n": True}, bounds={"e1": (None, 0.1)})
BRIGHT.amplitude.std = 0.1


@pytest.mark.parametrize(
    "model",
    [
        Sersic(1.0, 0.3, 1 / 3),
        BRIGHT,
        FITTED,
        Sersic2D(1.0, 0.3, 2.0, bounds={"n": (0.5, 8.0)}),
        Gaussian2D(1.0, 0.1, 0.2, 0.3, 0.4, 20 * u.deg),
    ],
    ids=["plain", "units", "fitted", "astropy", "an angle"],
)
def test_every_word_survives(model):
    again = from_dict(yaml.safe_load(yaml.safe_dump(to_dict(model))))
    assert type(again) is type(model)
    for name in model.param_names:
        one, two = getattr(model, name), getattr(again, name)
        for attribute in ("value", "unit", "fixed", "bounds", "std"):
            assert getattr(one, attribute) == getattr(two, attribute), (name, attribute)
    covariance = getattr(model, "covariance", None)
    np.testing.assert_array_equal(getattr(again, "covariance", None), covariance)


def test_names_and_lists_stay():
    again = from_dict(to_dict(["sersic", Sersic(), None]))
    assert (again[0], type(again[1]), again[2]) == ("sersic", Sersic, None)
    assert to_dict(None) is None and from_dict("mge") == "mge"


@pytest.mark.parametrize(
    "light, match",
    [
        (Sersic(tied={"e2": lambda model: model.e1}), "e2 of a Sersic is tied"),
        (Sersic() + Sersic(), "a CompoundModel of several models has no plain form"),
        (Sersic(*([1.0, 0.5],) * 3, *([0.0, 0.0],) * 4, n_models=2), "a Sersic of several models"),
    ],
    ids=["tied", "a sum", "a set"],
)
def test_what_has_no_plain_form(light, match):
    with pytest.raises(InputError, match=match):
        to_dict(light)


@pytest.mark.parametrize(
    "description, match",
    [
        ({"Sersik": {}}, "'Sersik' is not a light model: give one of .*Sersic"),
        ({"Sersic": {"r": 1.0}}, "Sersic has no parameter 'r'"),
        ({"MultiGaussian": {"sigma": [0.1], "r": 1.0}}, "MultiGaussian: .*'r'"),
        (3, "describes no light"),
    ],
)
def test_refused(description, match):
    with pytest.raises(InputError, match=match):
        from_dict(description)
