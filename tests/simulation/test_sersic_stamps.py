"""Simulated stamps of Sérsic galaxies."""

import numpy as np
import pytest

from lenssr.exceptions import InputError
from lenssr.simulation import SersicStamps


def test_items_are_the_same_at_every_call_and_differ_from_each_other():
    stamps = SersicStamps(2, shape=(24, 24), r_eff=(2, 3), seed=3)
    assert np.array_equal(stamps[0].image.data, stamps[0].image.data)
    assert not np.array_equal(stamps[0].image.data, stamps[1].image.data)
    with pytest.raises(IndexError, match="2"):
        stamps[2]


def test_noise_has_the_asked_signal_to_noise():
    stamp = SersicStamps(1, snr=40, shape=(32, 32), r_eff=(2, 3), seed=1)[0]
    sigma = stamp.image.uncertainty.array
    assert np.sqrt((stamp.noise_free**2 / sigma**2).sum()) == pytest.approx(40)
    left = (stamp.image.data - stamp.noise_free - stamp.sky) / sigma
    assert abs(left.std() - 1) < 0.1


def test_the_flux_is_in_the_stamp():
    stamp = SersicStamps(1, shape=(64, 64), r_eff=(2, 2), n=(0.8, 0.8), seed=1)[0]
    assert stamp.noise_free.sum() == pytest.approx(stamp.flux, rel=1e-3)
    rows, columns = np.indices(stamp.noise_free.shape)
    x = (stamp.noise_free * columns).sum() / stamp.noise_free.sum()
    assert x == pytest.approx(float(stamp.truth.x_0.value), abs=2e-3)


@pytest.mark.parametrize(("options", "match"), [({"n": (3, 1)}, "n = "), ({"snr": 0}, "snr")])
def test_bad_options_are_refused(options, match):
    with pytest.raises(InputError, match=match):
        SersicStamps(1, **options)
