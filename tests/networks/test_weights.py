"""Weights in files that cannot run code, with a card."""

import json
import pickle

import numpy as np
import pytest
import torch
from astropy.io import fits

from lenssr import InputError
from lenssr.networks import SISR, Card, DeflectionNetwork, RelensingNetwork, load_weights, save_weights

CARD = Card(
    recipe={"task": "relensing", "data": [{"dataset": "DeepLense", "seed": 1}]},
    seed=3,
    device="cpu",
    minutes=1.5,
    steps=100,
    scores={"psnr": 48.1},
    limits={"pixel_scale": [0.05, 0.05], "psf_fwhm": [0.0, 0.1], "snr": [20.0, 900.0]},
)
NETWORKS = {
    "SISR": lambda: SISR(3, channels=4, depth=1, batch_norm=True),
    "RelensingNetwork": lambda: RelensingNetwork(16, channels=(4, 6)),
    "DeflectionNetwork": lambda: DeflectionNetwork(channels=(3, 4, 5), hidden=7, knots=6),
}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "net.safetensors"


@pytest.fixture
def file(path):
    save_weights(NETWORKS["SISR"](), path, CARD)
    return path


def with_header(path, change):
    """Rewrite a file with another header, its checksum as it was."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])


@pytest.mark.parametrize("kind", NETWORKS)
def test_networks_survive(kind, path):
    network = NETWORKS[kind]()
    save_weights(network, path, CARD)
    found, card = load_weights(path, kind=kind)
    assert type(found) is type(network) and found.settings == network.settings and card == CARD
    assert not found.training
    for name, tensor in network.state_dict().items():
        assert torch.equal(found.state_dict()[name], tensor)


def test_it_is_what_others_read_as_safetensors(file):
    from safetensors import safe_open

    network, _ = load_weights(file)
    with safe_open(file, framework="pt") as other:
        assert set(other.keys()) == set(network.state_dict())
        for name, tensor in network.state_dict().items():
            assert torch.equal(other.get_tensor(name), tensor)
        assert json.loads(other.metadata()["lenssr"])["kind"] == "SISR"


def test_the_card_is_a_page_too(file):
    page = file.with_suffix(".md").read_text(encoding="utf-8")
    assert page.startswith("# SISR\n")
    for text in (
        "seed 3, 100 steps",
        "cpu, 1.5 minutes",
        "| psnr | 48.1 |",
        "| psf_fwhm | 0 | 0.1 |",
        "DeepLense",
    ):
        assert text in page


def test_nothing_else_is_left_beside(file):
    assert sorted(path.name for path in file.parent.iterdir()) == ["net.md", "net.safetensors"]


@pytest.mark.parametrize("place", [-1, -1000, 300])
def test_a_flipped_bit_is_found(file, place):
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)
    with pytest.raises(InputError, match="damaged|not of lenssr"):
        load_weights(file)


def test_a_cut_file_is_refused(file):
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(InputError, match="is damaged: .*get the file again"):
        load_weights(file)


def test_settings_that_were_changed_are_found(file):
    def change(header):
        about = json.loads(header["__metadata__"]["lenssr"])
        about["settings"]["scale"] = 2
        header["__metadata__"]["lenssr"] = json.dumps(about)

    with_header(file, change)
    with pytest.raises(InputError, match="its checksum differs"):
        load_weights(file)


def test_another_network_is_refused_by_name(file):
    with pytest.raises(InputError, match="holds a SISR, not a RelensingNetwork: give a file of that kind"):
        load_weights(file, kind="RelensingNetwork")


def test_shapes_of_another_network_are_refused(path, monkeypatch):
    network = NETWORKS["SISR"]()
    network.settings["channels"] = 5
    save_weights(network, path, CARD)
    with pytest.raises(InputError, match="does not fit the SISR that it describes"):
        load_weights(path)


def test_options_of_another_release_are_refused(path):
    network = NETWORKS["SISR"]()
    network.settings["colours"] = 3
    save_weights(network, path, CARD)
    with pytest.raises(InputError, match="describes a SISR of another release: .*colours"):
        load_weights(path)


class Bomb:
    def __reduce__(self):
        return pytest.fail, ("a pickle was run",)


def write_pickle(path):
    path.write_bytes(pickle.dumps(Bomb()))


def write_checkpoint(path):
    torch.save({"weight": torch.zeros(3)}, path)


def write_fits(path):
    fits.PrimaryHDU(np.zeros((3, 3))).writeto(path)


def write_text(path):
    path.write_text("not weights at all, but long enough", encoding="utf-8")


def write_nothing(path):
    path.write_bytes(b"")


def write_foreign(path):
    from safetensors.torch import save_file

    save_file({"weight": torch.zeros(3)}, path)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (
            write_pickle,
            "is a Python pickle, not a safetensors file: only these are read, since they run no code",
        ),
        (write_checkpoint, "is a pickle of PyTorch, or another zip archive, not a safetensors"),
        (write_fits, "is a FITS file, not a safetensors file"),
        (write_text, "is of another kind, not a safetensors file"),
        (write_nothing, "is of another kind"),
        (write_foreign, "is a safetensors file, but not of lenssr"),
    ],
)
def test_files_of_other_kinds_are_refused_by_name(path, write, message):
    write(path)
    with pytest.raises(InputError, match=message):
        load_weights(path)


def test_a_missing_file_is_named(path):
    with pytest.raises(InputError, match="net.safetensors cannot be read: No such file"):
        load_weights(path)


def test_weights_that_are_not_finite_are_not_written(path):
    network = NETWORKS["SISR"]()
    with torch.no_grad():
        network.last.weight[0] = torch.nan
    with pytest.raises(InputError, match="last.weight holds values that are not finite"):
        save_weights(network, path, CARD)
    assert not path.exists()


def test_the_name_of_the_file_has_to_say_what_it_is(tmp_path):
    with pytest.raises(InputError, match="ends in .safetensors"):
        save_weights(NETWORKS["SISR"](), tmp_path / "net.pt", CARD)
