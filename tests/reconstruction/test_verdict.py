"""A verdict is made once for every image, and the result that holds it is frozen."""

import dataclasses

import numpy as np
import pytest
import torch

from lenssr import SIE, InputError, NetworkSource, SuperResolution, SuperResolver
from lenssr.imaging import observation as observations
from lenssr.networks import SISR, Card, RelensingNetwork, save_weights
from lenssr.reconstruction import assemble
from lenssr.reconstruction.verdict import FLAGS
from lenssr.simulation import DeepLense

KNOWN = """
    bad_chi2 bad_arc_chi2 bad_field_chi2 low_chi2 residual_structure not_converged lens_at_bound
    source_at_bound lens_light_at_bound starts_disagree theta_E_uncertain theta_E_imprecise
    no_arcs not_multiply_imaged brightest_image_hidden mass_off_light lights_apart lens_unlike_light
    ring_unresolved source_off_grid galaxy_in_source
    source_too_large flux_disagrees saturated
    small_image correlated_noise errors_too_small constant_image hdu_guessed gain_guessed
    noise_guessed noise_from_exposure errors_follow_counts no_psf telescope_without_psf psf_undersampled
    psf_cropped psf_off_centre extrapolated unlike_training unit_missing no_wcs failed interpolated
    not_relensed
""".split()
SERIOUS = """
    bad_chi2 bad_arc_chi2 bad_field_chi2 residual_structure not_converged lens_at_bound source_at_bound
    starts_disagree theta_E_uncertain no_arcs not_multiply_imaged brightest_image_hidden
    ring_unresolved source_off_grid source_too_large flux_disagrees errors_too_small constant_image failed
    telescope_without_psf lights_apart lens_unlike_light galaxy_in_source
""".split()
# Of what the networks below know, as the image is.
LIMITS = {"pixel_scale": [0.05, 0.05], "psf_fwhm": [0.0, 0.0], "snr": [20.0, 5000.0]}
SOURCES = ("interpolation", "sersic", "pixelated", "perturbed_sersic", "auto", "network", "sisr")


@pytest.fixture(scope="module")
def item():
    return DeepLense(lens="sie", noise=True, size=1, seed=1)[0]


@pytest.fixture(scope="module")
def resolver(item, tmp_path_factory):
    """Function that makes a resolver; its networks have learned nothing."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(3)
    networks = {"network": RelensingNetwork(32, channels=(4, 6)), "sisr": SISR(channels=4, depth=1)}
    for name, network in networks.items():
        save_weights(network, folder / f"{name}.safetensors", Card({}, 0, "cpu", 0.0, 0, {}, LIMITS))

    def make(source):
        if source in networks:
            lens = item.lens if source == "network" else None
            return SuperResolver(source=NetworkSource(folder / f"{source}.safetensors"), lens=lens)
        return SuperResolver(
            source=source, lens=None if source == "interpolation" else item.lens, oversampling=1
        )

    return make


@pytest.fixture
def calls(monkeypatch):
    """What is judged, and whose sky is measured."""
    judged, measured = [], []
    judge, measure_sky = assemble.judge, observations.measure_sky
    monkeypatch.setattr(assemble, "judge", lambda run: judged.append(run) or judge(run))
    monkeypatch.setattr(observations, "measure_sky", lambda one: measured.append(one) or measure_sky(one))
    return judged, measured


@pytest.mark.parametrize("source", SOURCES)
def test_every_image_is_judged_once_and_its_sky_measured_at_most_once(source, resolver, item, calls):
    judged, measured = calls
    results = resolver(source).map([item.low, item.low], noise=item.noise)
    assert all(results) and len(judged) == 2
    assert len({id(one) for one in measured}) == len(measured) <= 2
    for run, result in zip(judged, results, strict=True):
        assert run.facts.get("interpolated", False) == (source == "interpolation")
        assert result.ok == (not set(result.flags) & set(SERIOUS))
        assert result.meta["seconds"] > 0 and "torch" in result.meta["versions"]


@pytest.mark.parametrize("source", ["interpolation", "sersic", "pixelated"])
def test_measures_are_plain_values_of_flags(source, resolver, item):
    result = resolver(source)(item.low, noise=item.noise)
    measures = result.meta["measures"]
    assert set(result.flags) <= set(measures) <= set(FLAGS)
    assert ("source_off_grid" in measures) == (source == "pixelated")
    assert ("no_arcs" in measures) == (source != "interpolation")
    for value in measures.values():
        assert type(value) in (bool, float, list)


@pytest.mark.parametrize("name", KNOWN)
def test_which_flags_are_serious(name):
    assert FLAGS[name].serious == (name in SERIOUS) == (FLAGS[name].cap in ("doubtful", "failed"))


def test_flags_come_in_the_order_of_the_table():
    """As the docs and the files of before have them; new ones may stand between."""
    assert [name for name in FLAGS if name in KNOWN] == KNOWN


def test_a_result_is_frozen(resolver, item, tmp_path):
    result = resolver("interpolation")(item.low, noise=item.noise)
    result.write(tmp_path / "out.fits")
    for one in (result, SuperResolution.read(tmp_path / "out.fits")):
        for field in dataclasses.fields(one):
            with pytest.raises(dataclasses.FrozenInstanceError):
                setattr(one, field.name, None)
    other = dataclasses.replace(result, flags=("no_wcs",), meta={**result.meta, "name": "mine"})
    assert other.flags == ("no_wcs",) and other.meta["name"] == "mine" and "name" not in result.meta
    np.testing.assert_array_equal(other.image.data, result.image.data)


def test_an_image_that_cannot_be_solved_says_so(resolver):
    (failed,) = SuperResolver(source="sersic", lens=SIE(1.0)).map([np.zeros(5)], pixel_scale=0.1)
    assert not failed.ok and failed.flags == ("failed",) and isinstance(failed.error, InputError)
