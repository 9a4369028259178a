"""Checkpoints of a training: written whole, and two of them kept."""

import contextlib
import io
import os
import zipfile
from pathlib import Path
from typing import Any

import torch

from lenssr._files import atomic

CHECKPOINT_FOLDER, LAST, BEFORE = "checkpoints", "last.ckpt", "before.ckpt"


def whole_checkpoints() -> Any:
    """Plugin of Lightning that writes a checkpoint beside its place, and renames it.

    Lightning itself writes into a folder for temporary files, from where it copies if that is another file
    system: a process that is killed then leaves half a file. The last checkpoint is kept as `BEFORE` when the
    next one comes.
    """
    from lightning.pytorch.plugins.io import TorchCheckpointIO

    class WholeCheckpoints(TorchCheckpointIO):
        def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
            place = Path(path)
            place.parent.mkdir(parents=True, exist_ok=True)
            content = io.BytesIO()
            torch.save(checkpoint, content)
            with atomic(place) as temporary:
                temporary.write_bytes(content.getbuffer())
                if place.name == LAST and place.exists():
                    _keep(place)

    return WholeCheckpoints()


def _keep(place: Path) -> None:
    """Give a checkpoint its second name, which stays when another takes the first."""
    with contextlib.suppress(FileExistsError), atomic(place.with_name(BEFORE)) as second:
        try:
            os.link(place, second)
        except OSError:  # not every file system has links
            second.write_bytes(place.read_bytes())


def is_whole(path: Path) -> bool:
    """Whether a checkpoint is there and can be read to its end."""
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:
                return False
        torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # noqa: BLE001 - whatever is wrong with it
        return False
    return True
