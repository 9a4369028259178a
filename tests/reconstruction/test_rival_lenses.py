"""Which trial lenses are looked at once more, and which of them wins."""

from types import SimpleNamespace

import pytest
import torch

from lenssr.reconstruction import decisions
from lenssr.reconstruction.rival_lenses import likeliest, rivals
from lenssr.reconstruction.trial_lenses import TrialLens, _oddity


def trial(log_posterior, extent=0.2, reach=1.3, oddity=0.0):
    return TrialLens(torch.ones(9), log_posterior, extent, reach, 1.0, oddity)


def end(evidence, temperature=1.0):
    """What a look ends with; one at another temperature says how much its chi2 is too high."""
    return SimpleNamespace(
        temperature=temperature, evidence_at=lambda coolest: evidence * temperature / coolest
    )


def test_lenses_that_are_nearly_as_likely_are_rivals():
    trials = [
        trial(-100.0),
        trial(-100.0 - 0.9 * decisions.RIVAL_TRIAL),
        trial(-100.0 - 1.1 * decisions.RIVAL_TRIAL),
    ]
    assert rivals(trials) == trials[:2]


@pytest.mark.parametrize("odd", [{"extent": 0.7}, {"reach": 0.8}])
def test_the_likeliest_of_the_usual_lenses_is_a_rival_however_far_behind(odd):
    trials = [trial(-100.0, **odd), trial(-110.0, **odd), trial(-900.0), trial(-950.0)]
    assert rivals(trials) == [trials[0], trials[2], trials[1]]


def test_without_a_rival_nothing_has_to_be_looked_at():
    assert likeliest([("only", 50.0)], begin=None) == ("only", None)


def test_evidence_of_one_temperature_decides_less_what_is_lost_for_being_odd():
    ends = {"odd": end(-50.0), "usual": end(-90.0), "poor": end(-70.0, temperature=2.0)}
    fits = [("odd", 30.0), ("usual", 0.0), ("poor", 0.0)]
    assert likeliest(fits, ends.get) == ("odd", ends["odd"])
    assert likeliest([("odd", 50.0), *fits[1:]], ends.get) == ("usual", ends["usual"])


def test_nothing_is_lost_for_being_odd_within_the_limits():
    extent, reach = torch.tensor([0.1, 0.33, 0.66, 0.1]), torch.tensor([1.2, 1.0, 1.2, 0.5])
    lost = _oddity(extent, reach)
    assert lost[:2].tolist() == [0, 0]
    # ln(2)^2 of what the limits are multiplied with
    assert lost[2:].tolist() == pytest.approx([0.48045 * decisions.WIDE, 0.48045 * decisions.NEAR], rel=1e-4)
