"""Sources on a grid of several images at once: the same results, in order, whatever becomes of any one."""

import astropy.units as u
import numpy as np
import pytest
import torch
from astropy.nddata import CCDData, StdDevUncertainty

from lenssr import SIE, Sersic, SuperResolver
from lenssr.grids import PixelGrid
from lenssr.imaging import PSF, Observation, render
from lenssr.reconstruction import freeform_fit
from lenssr.reconstruction.assemble import Solved
from lenssr.reconstruction.freeform import FreeFormReconstruction
from lenssr.reconstruction.freeform_fit import FreeFormFit

GRID, PSF_IN, SIGMA = PixelGrid((26, 26), 0.12), PSF.from_fwhm(0.24 * u.arcsec), 0.05
LENS = SIE(0.9, 0.1, -0.05)


def image_of(seed):
    rng = np.random.default_rng(seed)
    x_0, y_0 = rng.normal(0, 0.08, 2)
    source = Sersic(20.0, r_eff=0.25, n=1.0, x_0=x_0, y_0=y_0, e1=0.1, e2=0.0)
    data = render(GRID, lens=LENS, source=source, psf=PSF_IN) + rng.normal(0, SIGMA, GRID.shape)
    return CCDData(data, unit="electron", uncertainty=StdDevUncertainty(np.full(GRID.shape, SIGMA)))


@pytest.fixture(autouse=True)
def coarse(monkeypatch):
    """Few nodes: what is tested does not depend on their number."""
    monkeypatch.setattr(freeform_fit, "SIDE_WITH_PSF", 16)


def resolver_of(batched, **options):
    resolver = SuperResolver(
        **{"source": "pixelated", "lens": LENS, "lens_light": None, "device": "cpu", **options}
    )
    resolver._method = FreeFormReconstruction(resolver.settings, batched=batched)
    # Starts that are fitted together differ from those fitted alone by as much as the fit converges.
    resolver._method.parts = lambda members: [members]
    return resolver


@pytest.mark.parametrize(
    "options", [{}, {"fit_lens": True, "lens_light": "sersic"}, {"source": "auto"}], ids=str
)
def test_a_batch_gives_the_results_of_each_image(options, exact_trace):
    images = [image_of(seed) for seed in range(2)]
    each, batch = (
        resolver_of(batched, **options).map(images, psf=PSF_IN, pixel_scale=0.12 * u.arcsec)
        for batched in (False, True)
    )
    for one, other in zip(each, batch, strict=True):
        assert one.meta["chosen"] == other.meta["chosen"]
        for mine, theirs in zip(one.meta["candidates"], other.meta["candidates"], strict=True):
            assert mine[:2] == theirs[:2] and mine[2] == pytest.approx(theirs[2], abs=1e-3)
        for name in ("image", "source"):
            mine, theirs = getattr(one, name), getattr(other, name)
            error = mine.uncertainty.array
            assert np.abs((mine.data - theirs.data) / error).max() < 1e-3
            np.testing.assert_allclose(theirs.uncertainty.array, error, rtol=1e-3)
        assert one.flags == other.flags
        np.testing.assert_allclose(other.covariance, one.covariance, rtol=1e-3, atol=1e-12)


def test_images_are_solved_together_and_fail_alone(monkeypatch):
    asked = []

    def fails(requests, device):
        asked.append(len(requests))
        found = original(requests, device)
        # The second image ends in the second round.
        return [found[0], ZeroDivisionError("of all things"), *found[2:]] if len(asked) == 2 else found

    module = "lenssr.reconstruction.freeform"
    original = __import__(module, fromlist=["answer_together"]).answer_together
    monkeypatch.setattr(f"{module}.answer_together", fails)
    images = [image_of(seed) for seed in range(2)] + ["nowhere.fits"]
    images.append(image_of(2))
    results = resolver_of(True).map(images, psf=PSF_IN, pixel_scale=0.12 * u.arcsec)
    assert asked[:3] == [3, 3, 2]
    assert [bool(result) for result in results] == [True, False, False, True]
    assert results[1].name == "image 1" and "of all things" in str(results[1].error)
    alone = resolver_of(True).map(images[3:], psf=PSF_IN, pixel_scale=0.12 * u.arcsec)[0]
    np.testing.assert_allclose(results[3].image.data, alone.image.data, rtol=1e-6, atol=1e-9)


def test_a_result_that_cannot_be_made_fails_alone_and_is_solved_once(monkeypatch):
    made = []

    def fails(solved, *rest):
        made.append(len(made))
        if len(made) == 2:
            raise ZeroDivisionError("of all things")
        return original(solved, *rest)

    original = Solved.result
    monkeypatch.setattr(Solved, "result", fails)
    images = [image_of(seed) for seed in range(3)]
    results = resolver_of(True).map(images, psf=PSF_IN, pixel_scale=0.12 * u.arcsec)
    assert sum(map(bool, results)) == 2 and len(made) == 3
    (failed,) = [result for result in results if not result]
    assert isinstance(failed.error, ZeroDivisionError)


def test_each_image_is_finished_before_the_next_is_inverted(monkeypatch):
    order = []
    original = {name: getattr(cls, name) for cls, name in ((FreeFormFit, "run"), (Solved, "result"))}

    def run(self):
        order.append("run")
        return original["run"](self)

    def result(self, *rest):
        order.append("result")
        return original["result"](self, *rest)

    monkeypatch.setattr(FreeFormFit, "run", run)
    monkeypatch.setattr(Solved, "result", result)
    images = [image_of(seed) for seed in range(2)]
    resolver_of(False).map(images, psf=PSF_IN, pixel_scale=0.12 * u.arcsec)
    assert order == ["run", "result"] * 2


def test_one_image_that_fails_is_an_error(monkeypatch):
    def fails(requests, device):
        return [ZeroDivisionError("of all things") for _ in requests]

    monkeypatch.setattr("lenssr.reconstruction.freeform.answer_together", fails)
    with pytest.raises(ZeroDivisionError, match="of all things"):
        resolver_of(True)(image_of(0), psf=PSF_IN, pixel_scale=0.12 * u.arcsec)


def test_where_a_device_leads(monkeypatch):
    resolver = SuperResolver(source="pixelated", lens=LENS, lens_light=None, device="cpu")
    assert not resolver._method.batched
    # A device that holds no values, which is refused as an option, stands for any that is no CPU.
    settings = resolver.settings
    monkeypatch.setattr(type(settings), "torch_device", torch.device("meta"))
    method = FreeFormReconstruction(settings)
    assert method.batched and method.device.type == "meta"
    observation = Observation.from_any(image_of(0), psf=PSF_IN, pixel_scale=0.12 * u.arcsec)
    members = [(number, observation) for number in range(3)]
    assert method.parts(members) == [members]
    assert resolver._method.parts(members) == [[member] for member in members]
