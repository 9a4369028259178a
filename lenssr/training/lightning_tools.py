"""Helpers for Lightning: import, warnings, interrupts, cores, batches by number, optimisers."""

import logging
import signal
import threading
import warnings
from contextlib import contextmanager

import torch
from torch.utils.data import DataLoader

from lenssr.exceptions import InputError

__all__ = ["cores", "device_name", "import_lightning", "numbers", "optimizers", "own_interrupts", "quiet"]

# Warnings of Lightning on intended choices: batches are made on the device, in a thread of their own.
REMARKS = (
    ".*does not have many workers.*",
    ".*smaller than the logging interval.*",
    ".*GPU available but not used.*",
    ".*Checkpoint directory .* exists and is not empty.*",
    ".*torch.jit.script.*",
    ".*isinstance.treespec, LeafSpec.*",
)


def import_lightning():
    """Import Lightning, or say which extra holds it."""
    try:
        import lightning.pytorch as lightning
    except ImportError as error:
        raise InputError("training needs Lightning: pip install 'lenssr[train]'") from error
    return lightning


def numbers(count):
    """Loader of batch numbers only: batches are simulated on the device where they are used."""
    return DataLoader(range(count), batch_size=None)


@contextmanager
def quiet():
    """Silence remarks of Lightning on choices that are intended."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for remark in REMARKS:
                warnings.filterwarnings("ignore", remark)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def cores(number):
    """Let torch use ``number`` cores; None leaves it as it is."""
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def own_interrupts():
    """Restore interrupts, which Lightning turns into an exit, and its signal handler."""
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as end:
        if isinstance(end.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, before)


def device_name(device):
    """Name of a device for cards."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def optimizers(parameters, optimisation):
    """Optimizer and learning rate of each step, in the form of Lightning."""
    optimizer = torch.optim.AdamW(
        parameters, optimisation.learning_rate, weight_decay=optimisation.weight_decay
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, optimisation.rate)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
