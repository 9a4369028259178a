"""What a network is shown, and in which order."""

import collections

import pytest
import torch

from lenssr.imaging import ImagingOperator
from lenssr.simulation import DeepLense
from lenssr.training.data import Prefetcher, Schedule, View, hidden_pixel_generator
from lenssr.training.objectives import draw_hidden
from lenssr.training.tasks import SersicFitter, batch_psnr


def view(hidden=None, model="I", size=3, dtype=torch.float32, **options):
    batch = DeepLense(model, size=size, seed=3, **options).batch(dtype=dtype)
    chosen = None if hidden is None else draw_hidden(batch.low, hidden, torch.Generator().manual_seed(1))
    return View(batch, chosen)


def test_variance_is_near_the_true_one():
    shown = view(lens="sis", noise=True)
    ratio = shown.variance / shown.batch.variance
    bright = shown.batch.low_truth > 0.1 * shown.batch.low_truth.amax()
    assert ratio[bright].median().item() == pytest.approx(1, abs=0.1)
    assert ratio.median().item() == pytest.approx(1, abs=0.2)


def test_variance_of_a_hidden_pixel_does_not_know_its_value():
    shown = view(0.3)
    before = shown.variance.clone()
    batch = shown.batch
    batch.low[shown.hidden] += 100 * torch.rand(int(shown.hidden.sum()))
    torch.testing.assert_close(View(batch, shown.hidden).variance, before)


def test_hidden_pixels_have_no_finite_noise():
    shown = view(0.3)
    assert torch.equal(torch.isinf(shown.sigma), shown.hidden)


def test_the_true_source_through_the_telescope_is_the_noise_free_image():
    shown = view()
    brightness = shown.batch.scenes.source(*shown.rays)
    torch.testing.assert_close(shown.operator(brightness), shown.batch.low_truth, rtol=1e-4, atol=1e-7)
    fine = shown.fine_operator(shown.batch.scenes.source(*shown.fine_rays))
    torch.testing.assert_close(fine, shown.batch.truth, rtol=1e-4, atol=1e-7)


def test_so_it_is_with_a_psf_but_for_how_pixels_are_integrated():
    shown = view(model="II")
    model = shown.operator(shown.batch.scenes.source(*shown.rays))
    assert (model - shown.batch.low_truth).abs().max() < 0.01 * shown.batch.low_truth.max()
    assert shown.psf_sigma == pytest.approx(0.16 / 2.3548, rel=1e-4)


def test_substructure_is_not_known():
    plain, spoiled = view(), view(substructure="cdm")
    torch.testing.assert_close(plain.rays, spoiled.rays)


def test_cameras_are_built_once():
    batch = DeepLense(size=1).batch()
    first = View(batch).operator
    assert View(batch).operator is first and isinstance(first, ImagingOperator)
    assert View(batch).fine_operator is not first


def test_a_sersic_read_off_an_image_is_the_source():
    shown, reader = view(size=2, dtype=torch.float64), SersicFitter()
    finer = reader(shown)
    assert batch_psnr(finer, shown.batch.truth).min() > 45
    assert len(reader._fitted_vectors) == 2
    torch.testing.assert_close(reader(shown), finer)


def test_psnr_is_t():
    from lenssr import metrics

    truth = torch.rand(2, 12, 12, dtype=torch.float64)
    image = truth + 0.01 * torch.randn(2, 12, 12, dtype=torch.float64)
    expected = [metrics.scores_t(a.numpy(), b.numpy()).psnr for a, b in zip(image, truth, strict=True)]
    assert batch_psnr(image, truth).tolist() == pytest.approx(expected)


# ---------------------------------------------------------------- order


def schedule(seed=0):
    return Schedule([DeepLense(size=7), DeepLense(size=4, lens="sis")], 3, seed)


def test_every_lens_is_shown_once_in_a_pass():
    order = schedule()
    for which in range(2):
        seen = collections.Counter()
        for number in range(which * len(order), (which + 1) * len(order)):
            dataset, indices = order[number]
            seen.update((dataset.lens, index) for index in indices)
        assert len(seen) == 11 and set(seen.values()) == {1}


def test_a_batch_depends_on_its_number_only():
    def told(order, number):
        dataset, indices = order[number]
        return dataset.lens, indices

    forwards, backwards = schedule(), schedule()
    numbers = list(range(3 * len(forwards)))
    first = [told(forwards, number) for number in numbers]
    again = [told(backwards, number) for number in reversed(numbers)][::-1]
    assert first == again
    assert first != [told(schedule(1), number) for number in numbers]
    assert first[: len(forwards)] != first[len(forwards) : 2 * len(forwards)]


def test_batches_made_ahead_are_those_asked_for():
    order = schedule()
    with Prefetcher(schedule()) as batches:
        # The last jumps to one that was not begun, as a training that goes on does.
        for number, after in ((0, 1), (1, 2), (7, 8)):
            dataset, indices = order[number]
            found = batches(number, "cpu", after=after)
            assert torch.equal(found.low, dataset.batch(indices).low)
        assert torch.equal(batches.make(order[3], "cpu").low, order[3][0].batch(order[3][1]).low)


def test_batches_are_made_on_one_core_and_others_keep_theirs():
    before, seen = torch.get_num_threads(), []
    order = schedule()
    order.datasets[0].batch = order.datasets[1].batch = lambda *_, **__: seen.append(torch.get_num_threads())
    try:
        torch.set_num_threads(2)
        with Prefetcher(order) as batches:
            batches(0, "cpu", after=1)
            batches(1, "cpu", after=2)
        assert set(seen) == {1}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_batch_that_cannot_be_made_is_told_where_it_is_asked_for():
    order = schedule()
    order.datasets[0]._draw = order.datasets[1]._draw = None
    with Prefetcher(order) as batches, pytest.raises(TypeError):
        batches(0, "cpu", after=1)


def test_hidden_pixels_differ_between_batches_and_from_validation():
    draws = [
        torch.rand(4, generator=hidden_pixel_generator(0, number)).tolist() for number in (0, 0, 1, -1, 2)
    ]
    assert draws[0] == draws[1]
    assert len({tuple(draw) for draw in draws}) == 4
