"""Weights by name."""

import pytest
import torch

from lenssr import InputError, NetworkSource
from lenssr.networks import Card, RelensingNetwork, available, load, save_weights, weights


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A library with one small network."""
    monkeypatch.setattr(weights, "PRETRAINED_FOLDER", tmp_path)
    card = Card({}, 0, "cpu", 0.0, 0, {}, {})
    save_weights(RelensingNetwork(16, channels=(4, 6)), tmp_path / "small.safetensors", card)
    return tmp_path


def test_what_there_is_can_be_loaded(shelf):
    assert available() == ("small",)
    network, card = load("small", kind="RelensingNetwork")
    assert network.side == 16 and card.device == "cpu"
    again, _ = load(shelf / "small.safetensors")
    torch.testing.assert_close(again.state_dict(), network.state_dict())


def test_an_unknown_name_lists_what_there_is(shelf):
    with pytest.raises(InputError, match="'big': no file, and none that come with lenssr: 'small'"):
        load("big")


@pytest.mark.parametrize(
    "options", [{"weights": "nothing"}, {"refine": -1}, {"refine": 0.5}, {"refine": True}]
)
def test_meaningless_choices_are_refused_when_they_are_made(options):
    with pytest.raises(InputError, match=str(*options.values())):
        NetworkSource(**options)
