"""Resolvers in files."""

import astropy.units as u
import pytest

from lenssr import SIE, InputError, NetworkSource, Sersic, Shear, SuperResolver
from lenssr.networks import load
from lenssr.networks.library import find
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


def test_fixed_and_bounds_of_a_lens_survive(tmp_path):
    lens = SIE(1.2, 0.1)
    lens.theta_E.bounds, lens.x_0.fixed = (1.0, None), True
    SuperResolver(lens=lens, fit_lens=True).save(tmp_path / "one.safetensors")
    after = SuperResolver.load(tmp_path / "one.safetensors").settings.lens
    assert after.theta_E.bounds == (1.0, None)
    assert [p.name for p in after.parameters if p.fixed] == ["x_0"]


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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"psf": 0.1 * u.arcsec}, "psf= belongs to images"),
        ({"lens_light": Sersic(1.0, 1.0, 4.0)}, "lights by name only"),
    ],
)
def test_what_has_no_plain_form_is_refused(options, message, tmp_path):
    with pytest.raises(InputError, match=message):
        SuperResolver(**options).save(tmp_path / "one.safetensors")
    assert not list(tmp_path.iterdir())


def test_other_files_are_refused_by_name(tmp_path):
    with pytest.raises(InputError, match="holds a RelensingNetwork, not a saved resolver"):
        SuperResolver.load(find("relensing"))
    SuperResolver().save(tmp_path / "one.safetensors")
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
