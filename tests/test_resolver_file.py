"""Resolvers in files."""

from pathlib import Path

import astropy.units as u
import numpy as np
import pytest

from lenssr import (
    SIE,
    InputError,
    MassModel,
    NetworkSource,
    PixelatedDeflection,
    Sersic,
    Shear,
    SuperResolver,
)
from lenssr.mass import Parameter
from lenssr.networks import load
from lenssr.networks.weights import find
from lenssr.options import SOURCES, Settings
from lenssr.simulation import DeepLense

SETTINGS = [
    {"source": "pixelated", "prior": "curvature", "positive": False, "psf_out": 0.1 * u.arcsec},
    {
        "source": "sersic",
        "lens": SIE(1.2, 0.1) + Shear(0.05, 0.0),
        "lens_light": ["sersic", "mge"],
        "sky": None,
    },
    {"source": "network", "scale": 3, "oversampling": 1, "seed": 4},
    {"source": NetworkSource("lenssr-with-source")},
]


@pytest.mark.parametrize("options", SETTINGS, ids=lambda options: str(options["source"]))
def test_settings_survive(options, tmp_path):
    before = SuperResolver(**options)
    before.save(tmp_path / "one.safetensors")
    after = SuperResolver.load(tmp_path / "one.safetensors")
    assert after.settings.describe() == before.settings.describe()


@pytest.mark.parametrize("mask", ["auto", None])
def test_what_is_hidden_survives(mask, tmp_path):
    path = tmp_path / "one.safetensors"
    SuperResolver(mask=mask).save(path)
    assert SuperResolver.load(path).mask == mask
    with pytest.raises(InputError, match="mask= is not saved with a resolver"):
        SuperResolver(mask=np.zeros((5, 5), dtype=bool)).save(path)


def test_files_from_before_masks_were_saved_hide_nothing(tmp_path, monkeypatch):
    plain = SuperResolver().settings.save()
    monkeypatch.setattr("lenssr.networks.weights.load_bundle", lambda path: dict(plain))
    assert SuperResolver.load(tmp_path / "old.safetensors").mask is None


def test_fixed_and_bounds_of_a_lens_survive(tmp_path):
    lens = SIE(1.2, 0.1)
    lens.theta_E.bounds, lens.x_0.fixed = (1.0, None), True
    SuperResolver(source="sersic", lens=lens, fit_lens=True).save(tmp_path / "one.safetensors")
    after = SuperResolver.load(tmp_path / "one.safetensors").settings.lens
    assert after.theta_E.bounds == (1.0, None)
    assert [p.name for p in after.parameters if p.fixed] == ["x_0"]


def test_models_of_every_kind_survive(tmp_path):
    light = Sersic(2 * u.nJy / u.arcsec**2, 300 * u.mas, 4.0, fixed={"n": True})
    maps = PixelatedDeflection(*np.random.default_rng(0).normal(size=(2, 5, 6)), 0.5)
    SuperResolver(source="sersic", lens=SIE(1.2) + maps, lens_light=["mge", light]).save(
        tmp_path / "one.safetensors"
    )
    after = SuperResolver.load(tmp_path / "one.safetensors").settings
    np.testing.assert_array_equal(after.lens[1].alpha_y, maps.alpha_y)
    assert after.lens_light[0] == "mge" and after.lens_light[1].n.fixed
    assert after.lens_light[1].amplitude.quantity == light.amplitude.quantity


def test_a_file_of_version_0_1_loads():
    """What lenssr wrote before it kept models as plain data; see `data/README.md`."""
    after = SuperResolver.load(Path(__file__).parent / "data" / "resolver_0_1.safetensors").settings
    assert (after.scale, after.sky, after.psf_out, after.fit_lens) == (3, None, 0.1 * u.arcsec, True)
    assert after.lens_light == ("sersic", "mge")
    assert repr(after.lens) == repr(SIE(1.2, 0.1) + Shear(0.05, 0.0))
    assert after.lens[0].theta_E.bounds == (1.0, None)
    assert [name for name in after.lens.param_names if getattr(after.lens, name).fixed] == [
        "x_0_0",
        "x_0_1",
        "y_0_1",
    ]


def test_a_registered_source_loads_where_it_is_registered(tmp_path, monkeypatch):
    monkeypatch.setitem(SOURCES, "disc", SOURCES["sersic"])
    SuperResolver(source="disc").save(tmp_path / "one.safetensors")
    assert SuperResolver.load(tmp_path / "one.safetensors").settings.source == "disc"
    monkeypatch.delitem(SOURCES, "disc")
    with pytest.raises(InputError, match="source = 'disc': import the module that registers it"):
        SuperResolver.load(tmp_path / "one.safetensors")


def test_an_option_of_a_newer_version_is_refused():
    with pytest.raises(InputError, match="one.safetensors has the option 'colour', which is unknown here"):
        Settings.load(SuperResolver(source="sersic").settings.save() | {"colour": 1}, "one.safetensors")


def test_results_are_the_same_to_the_last_bit(tmp_path):
    item = DeepLense(lens="sie", noise=True, size=1, seed=1)[0]
    before = SuperResolver(source="network", lens=item.lens, oversampling=1)
    before.save(tmp_path / "one.safetensors")
    first, second = (
        resolver(item.low, noise=item.noise)
        for resolver in (before, SuperResolver.load(tmp_path / "one.safetensors"))
    )
    assert first.image.data.tobytes() == second.image.data.tobytes()
    assert first.image.uncertainty.array.tobytes() == second.image.uncertainty.array.tobytes()
    assert first.meta["network"] == second.meta["network"]


class Forgetful(MassModel):
    """A lens that does not keep what it is built from."""

    theta_E = Parameter("Einstein radius")

    def __init__(self, theta_E, table):
        super().__init__(theta_E=theta_E)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"psf": 0.1 * u.arcsec}, "psf= is not saved with a resolver"),
        ({"lens": Forgetful(1.0, [2.0])}, "a Forgetful does not keep its argument table"),
    ],
)
def test_what_has_no_plain_form_is_refused(options, message, tmp_path):
    with pytest.raises(InputError, match=message):
        SuperResolver(**options).save(tmp_path / "one.safetensors")
    assert not list(tmp_path.iterdir())


def test_other_files_are_refused_by_name(tmp_path):
    with pytest.raises(InputError, match="holds a RelensingNetwork, not a saved resolver"):
        SuperResolver.load(find("relensing"))
    SuperResolver(source="sersic").save(tmp_path / "one.safetensors")
    with pytest.raises(InputError, match="a SuperResolver"):
        load(tmp_path / "one.safetensors")
    (tmp_path / "one.safetensors").write_bytes(b"PK\x03\x04" + bytes(20))
    with pytest.raises(InputError, match="pickle of PyTorch"):
        SuperResolver.load(tmp_path / "one.safetensors")


def test_pretrained_ones_have_their_scale():
    resolver = SuperResolver.from_pretrained("lenssr-with-source", seed=3)
    assert resolver.settings.scale == 2 and resolver.settings.seed == 3
    with pytest.raises(InputError, match="'nothing': no file, and none that come with lenssr"):
        SuperResolver.from_pretrained("nothing")
