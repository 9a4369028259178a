"""Batches of simulated lenses: the same numbers in every batch, and what a batch says of itself."""

import pickle

import astropy.units as u
import numpy as np
import pytest
import torch

from lenssr.exceptions import InputError
from lenssr.imaging.noise import PoissonNoise
from lenssr.simulation import AxionVortex, BroadLenses, ColdSubhalos, DeepLense, LensDataset, camera

CELLS = {
    "I": DeepLense("I", noise=True, size=80, seed=5),
    "I cdm": DeepLense("I", substructure="cdm", size=80, seed=5),
    "II axion": DeepLense("II", substructure=AxionVortex(number=20), size=80, seed=5),
    "III cdm": DeepLense("III", substructure=ColdSubhalos(poisson=True), lens="sis", size=80, seed=5),
    "broad": BroadLenses(size=64, seed=5, shapes=[np.exp(-np.hypot(*np.indices((40, 40)) / 4 - 5))]),
}
IMAGES = ("low", "low_truth", "truth", "high")


@pytest.fixture(params=CELLS.values(), ids=CELLS)
def data(request):
    return request.param


def test_one_lens_alone_is_the_same_as_in_a_batch_of_64(data):
    many = data.batch(range(64), high=True)
    for index in (0, 37, 63):
        one = data.batch([index], high=True)
        for name in ("lens_vector", "source_vector"):
            numbers = (getattr(scenes, name) for scenes in (one.scenes, many.scenes))
            assert np.array_equal(next(numbers)[0], next(numbers)[index], equal_nan=True)
        if one.scenes.subhalos is not None:
            # a longer list elsewhere in a batch fills a shorter one up with nothing
            subhalos = one.scenes.subhalos[0]
            filled = torch.zeros_like(many.scenes.subhalos[index])
            filled[: len(subhalos)] = subhalos
            assert torch.equal(filled, many.scenes.subhalos[index])
        for name in ("exposure", *one.settings):
            find = one.settings.get(name, one.exposure), many.settings.get(name, many.exposure)
            assert find[0][0] == find[1][index]
        for name in ("low_truth", "truth"):
            first, second = getattr(one, name)[0], getattr(many, name)[index]
            assert torch.allclose(first, second, rtol=1e-5, atol=1e-6 * float(second.max()))
        for name in ("low", "high"):
            first, second = getattr(one, name)[0], getattr(many, name)[index]
            assert (first != second).float().mean() < 1e-3


def test_rendering_many_together_changes_nothing(data, monkeypatch):
    one_by_one = data.batch(range(5), dtype=torch.float64)
    monkeypatch.setitem(camera._RAYS_AT_ONCE, "cpu", 10**9)
    together = data.batch(range(5), dtype=torch.float64)
    for name in ("low_truth", "truth"):
        assert torch.allclose(getattr(together, name), getattr(one_by_one, name), rtol=1e-9, atol=1e-15)


def test_a_batch_does_not_depend_on_what_was_made_before(data):
    again = pickle.loads(pickle.dumps(data))
    again.batch([3, 9])
    assert torch.equal(again.batch([4, 3]).low, data.batch([4, 3]).low)


def test_items_are_those_of_the_batch(data):
    item, batch = data[7], data.batch([6, 7], high=True)
    for name in IMAGES:
        values = getattr(item, name).data
        difference = np.abs(getattr(batch, name)[1].numpy() - values)
        tolerance = 1e-5 * values.max() + (1e-3 if name in ("low", "high") else 0.0)
        assert np.median(difference) <= tolerance and np.mean(difference > tolerance) < 1e-3
    assert item.noise.exposure == pytest.approx(float(batch.exposure[1]))
    assert item.psf is batch.psf


def test_the_models_of_an_item_make_its_image(data):
    item = data[11]
    batch = data.batch([11], dtype=torch.float64)
    x, y = torch.linspace(-1.5, 1.5, 40, dtype=torch.float64), torch.full((40,), 0.3, dtype=torch.float64)
    alpha = item.lens.deflection(x, y)
    for own, other in zip(batch.scenes.deflection(x[None], y[None]), alpha, strict=True):
        assert torch.allclose(own[0], other, atol=1e-12)
    beta = tuple(position - shift for position, shift in zip((x, y), alpha, strict=True))
    brightness = np.asarray(item.source(*(position.numpy() * u.arcsec for position in beta)))
    assert batch.scenes.brightness(x[None], y[None])[0].numpy() == pytest.approx(brightness, rel=1e-8)


def test_the_noise_is_that_of_the_noise_model(data):
    batch = data.batch()
    mean, _, variance = batch.noise.moments(batch.low_truth)
    bright = (batch.low_truth * batch.exposure[:, None, None] > 5).expand_as(batch.low)
    pull = ((batch.low - mean) / variance.sqrt())[bright]
    assert abs(float(pull.mean())) < 5 / len(pull) ** 0.5
    assert float(pull.var()) == pytest.approx(1, abs=0.02)
    assert torch.equal(batch.variance, variance.expand_as(batch.low))


def test_shapes_and_types(data):
    batch = data.batch([1, 2, 3], dtype=torch.float64)
    side = data.batch([1]).grid.shape[0]
    assert len(batch) == 3 and batch.index.tolist() == [1, 2, 3]
    assert batch.low.shape == batch.low_truth.shape == batch.variance.shape == (3, side, side)
    assert batch.truth.shape == (3, side * batch.scale, side * batch.scale)
    assert batch.high is None and batch.high_noise is None
    assert batch.low.dtype == batch.scenes.lens_vector.dtype == batch.exposure.dtype == torch.float64
    moved = batch.to(dtype=torch.float32)
    assert moved.low.dtype == moved.scenes.source_vector.dtype == moved.noise.exposure.dtype == torch.float32
    assert moved.index.dtype == torch.int64


def test_kernel_is_that_of_the_psf():
    batch = CELLS["II axion"].batch([0])
    for subsampling in (1, batch.scale):
        kernel = batch.kernel(subsampling)
        assert kernel.dtype == torch.float32 and float(kernel.sum()) == pytest.approx(1, abs=1e-6)
        assert kernel.shape == batch.psf.kernel(0.101, subsampling).shape
    assert CELLS["I"].batch([0]).kernel() is None


@pytest.mark.parametrize(("which", "expected"), [(None, [0, 1, 2, 3]), (slice(2), [0, 1]), ([-1], [3])])
def test_batch_selects(which, expected):
    assert DeepLense(size=4).batch(which).index.tolist() == expected


def test_an_empty_batch_is_refused():
    with pytest.raises(InputError, match="at least one"):
        DeepLense(size=4).batch([])


def test_index_out_of_range():
    with pytest.raises(IndexError, match="4 lenses"):
        DeepLense(size=4).batch([4])


def test_index_batches_hold_every_lens_once():
    data = DeepLense(size=10)
    for seed in (None, 3):
        batches = data.index_batches(4, seed=seed)
        assert [len(batch) for batch in sorted(batches, key=len)] == [2, 4, 4]
        assert sorted(sum(batches, [])) == list(range(10))
    assert data.index_batches(4, seed=3) == data.index_batches(4, seed=3) != data.index_batches(4, seed=4)
    assert data.index_batches(2, indices=[5, 1, 8]) == [[5, 1], [8]]


def test_same_sources_with_and_without_substructure():
    plain, cdm = (DeepLense("II", substructure=kind, size=3, seed=2).batch() for kind in ("none", "cdm"))
    assert torch.equal(plain.scenes.source_vector, cdm.scenes.source_vector)
    assert not torch.allclose(plain.low_truth, cdm.low_truth)


def test_settings_are_the_arguments_that_a_data_set_keeps():
    class Doubled(LensDataset):
        def __init__(self, data, size, factor=2):
            super().__init__(size, seed=3)
            self._data, self.factor = data, factor

        def _item(self, index):
            return self._data[self.factor * index]

    doubled = Doubled(DeepLense(size=6), 3)
    assert repr(doubled) == "Doubled(size=3, factor=2)"
    assert doubled.settings() == {"dataset": "Doubled", "size": 3, "factor": 2}
    assert [item.index for item in doubled] == [0, 2, 4]


def test_purposes_have_streams_of_their_own():
    data = DeepLense(size=3)
    numbers = [data.rng(1, *purpose).uniform() for purpose in ((), (1,), (2,))]
    assert len(set(numbers)) == 3


def test_noise_of_a_batch_stays_on_its_device():
    batch = CELLS["III cdm"].batch([0, 1])
    assert type(batch.noise) is PoissonNoise and batch.noise.exposure.shape == (2, 1, 1)
    assert batch.noise.exposure.device == batch.device


def test_sources_differentiate_in_positions(data):
    scenes = data.batch([2], dtype=torch.float64).scenes
    x = torch.tensor([[0.4, 0.9, -0.7]], dtype=torch.float64, requires_grad=True)
    y = torch.tensor([[0.5, -0.2, 0.3]], dtype=torch.float64)
    brightness = scenes.source(x, y)
    (slope,) = torch.autograd.grad(brightness.sum(), x)
    step = 1e-6
    with torch.no_grad():
        difference = (scenes.source(x + step, y) - scenes.source(x - step, y)) / (2 * step)
        assert torch.allclose(brightness, scenes.source(x, y), rtol=1e-10)
    assert torch.allclose(slope, difference, rtol=1e-5, atol=1e-6 * float(difference.abs().max()))
