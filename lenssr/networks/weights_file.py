"""Files of tensors that cannot run code, with a description of themselves: safetensors and JSON."""

import hashlib
import json
from importlib import import_module
from pathlib import Path

from lenssr.exceptions import InputError
from lenssr.files import atomic

__all__ = ["check_tensors", "checksum", "fill", "read_tensors", "write_tensors"]

# Key of the description in the metadata of a file.
ENTRY = "lenssr"
# First bytes of files of other kinds.
MAGIC = {
    b"PK\x03\x04": "a pickle of PyTorch, or another zip archive",
    b"\x80": "a Python pickle",
    b"SIMPLE": "a FITS file",
    b"\x89HDF": "an HDF5 file",
    b"\x93NUMPY": "a NumPy array",
    b"GGUF": "a GGUF model",
}


def write_tensors(path, about, tensors, *, page=None):
    """Write tensors (on the CPU, contiguous), a description of them, and a checksum of both.

    ``about`` holds JSON values, ``kind``, ``settings`` and ``card`` among them. ``path`` ends in
    ``.safetensors`` and is replaced atomically; ``page`` is text that is written beside it, as ``.md``.
    """
    save, path = _library("safetensors.torch").save, Path(path)
    if path.suffix != ".safetensors":
        raise InputError(f"{path}: give a name that ends in .safetensors")
    about = json.loads(json.dumps(about))  # as it will be read
    about["checksum"] = checksum(about, tensors)
    with atomic(path) as temporary:
        temporary.write_bytes(save(tensors, {ENTRY: json.dumps(about)}))
    if page is not None:
        with atomic(path.with_suffix(".md")) as temporary:
            temporary.write_text(page, encoding="utf-8")


def read_tensors(path):
    """Description and tensors of a file of `write_tensors`, not yet compared with the checksum."""
    library = _library("safetensors")
    try:
        with library.safe_open(path, framework="pt") as file:
            told = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (library.SafetensorError, OSError) as error:
        raise InputError(_why_not(path, error)) from error
    try:
        about = json.loads(told[ENTRY])
        about["kind"], about["settings"], about["card"]  # noqa: B018 - only whether they are there
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path} is a safetensors file, but not of lenssr: it does not say what it holds"
        ) from error
    return about, tensors


def check_tensors(path, about, tensors):
    """Refuse a damaged file, whose checksum differs."""
    if about.get("checksum") != checksum(about, tensors):
        raise InputError(f"{path} is damaged: its checksum is another one; get the file again")


def checksum(about, tensors):
    """SHA-256 of the description (without its checksum) and of names, types, shapes and values of tensors."""
    told = {key: value for key, value in about.items() if key != "checksum"}
    laid = {name: [str(one.dtype), list(one.shape)] for name, one in tensors.items()}
    digest = hashlib.sha256(json.dumps([told, laid], sort_keys=True).encode())
    for name in sorted(tensors):
        digest.update(tensors[name].numpy().tobytes())
    return digest.hexdigest()


def fill(path, network, tensors):
    """Load tensors into a network; refuse those whose names or shapes differ."""
    expected = network.state_dict()
    wrong = sorted(set(expected) ^ set(tensors))
    wrong += [name for name in expected if name in tensors and expected[name].shape != tensors[name].shape]
    if wrong:
        raise InputError(
            f"{path} does not fit the {network.kind} that it describes: {wrong[0]}, {len(wrong)} in all; it "
            "was written by another release"
        )
    network.load_state_dict(tensors)


def _library(name):
    try:
        return import_module(name)
    except ImportError as error:
        raise ImportError("weights need safetensors: pip install lenssr[networks]") from error


def _why_not(path, error):
    """Explain why a file cannot be opened."""
    try:
        with open(path, "rb") as file:
            start = file.read(16)
    except OSError as unread:
        return f"{path} cannot be read: {unread.strerror or unread}"
    if start[8:9] == b"{":
        return f"{path} is damaged: {error}; get the file again"
    named = next((name for magic, name in MAGIC.items() if start.startswith(magic)), "of another kind")
    return f"{path} is {named}, not a safetensors file: only these are read, since they run no code"
