"""Limits that stand before anything is done: memory, texts of units, nested values, quotes in messages."""

import contextlib
import functools
import os
import re
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from lenssr.exceptions import InputError

# Share of the memory of the machine, or of the cgroup, that one run may need. Chosen: others run there, too.
MEMORY_SHARE = 0.7
# Bytes that Python, numpy, torch and astropy take before any image is read, measured.
BASE_BYTES = 450e6
# Needs below this are never refused: what runs already has used more.
SMALL_BYTES = 50e6
# Environment variable that sets the limit, such as 2GB, where --max-memory does not.
VARIABLE = "LENSSR_MAX_MEMORY"
# Longest unit, and digits of an exponent or of a number in it.
LONGEST_UNIT, EXPONENT_DIGITS, NUMBER_DIGITS = 100, 3, 30

_PREFIXES = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}
_chosen: ContextVar[float | None] = ContextVar("chosen", default=None)
_share: ContextVar[int] = ContextVar("share", default=1)
_per_pixel: ContextVar[float] = ContextVar("per_pixel", default=0.0)

# ---------------------------------------------------------------- memory


def memory_size(text: str | float) -> float:
    """Bytes of a size such as ``2GB``, ``500MB``, ``1.5GiB`` or a number of bytes."""
    match = re.fullmatch(r"\s*(\d{1,18}(?:\.\d{0,9})?)\s*([KMGT]?)(I?)B?\s*", str(text).upper())
    size = float(match[1]) * (1024 if match[3] else 1000) ** _PREFIXES[match[2]] if match else 0.0
    if not size > 0:
        raise InputError(f"a memory of {text!r}: give a size such as 2GB or 500MB")
    return size


def memory_limit() -> float:
    """Bytes that one process may need: what the user chose, else a share of the machine's, over the jobs."""
    chosen = _chosen.get()
    if chosen is None and os.environ.get(VARIABLE):
        chosen = memory_size(os.environ[VARIABLE])
    return (MEMORY_SHARE * _machine_memory() if chosen is None else chosen) / _share.get()


def set_memory_limit(size: float | None) -> None:
    """Set the limit of this thread in bytes for good; None leaves it as it is."""
    if size is not None:
        _chosen.set(size)


def check_memory(need: float, what: str, remedy: str) -> None:
    """Refuse what needs more bytes than `memory_limit`; the message has both numbers."""
    if need <= SMALL_BYTES or need + BASE_BYTES <= memory_limit():
        return
    total, limit = map(_readable, (need + BASE_BYTES, memory_limit()))
    told = f"{what} needs about {total} of memory, the limit is {limit}"
    raise InputError(f"{told}: {remedy}, or raise the limit (--max-memory, {VARIABLE})")


@contextlib.contextmanager
def limited(
    *, memory: float | None = None, jobs: int | None = None, per_pixel: float | None = None
) -> Iterator[None]:
    """Set the limit in bytes, how many processes share it, or what follows each pixel that is read."""
    given = ((_chosen, memory), (_share, jobs), (_per_pixel, per_pixel))
    tokens = [(variable, variable.set(value)) for variable, value in given if value is not None]
    try:
        yield
    finally:
        for variable, token in reversed(tokens):
            variable.reset(token)


def bytes_per_pixel() -> float:
    """Bytes that the running call needs for each pixel of an image, besides the image itself."""
    return _per_pixel.get()


def _readable(size: float) -> str:
    return f"{size / 1e9:.3g} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def _machine_memory() -> float:
    found = [_physical_memory()]
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        soft, _ = resource.getrlimit(resource.RLIMIT_AS)
        found += [soft] if soft != resource.RLIM_INFINITY else []
    return float(min(found))


@functools.cache
def _physical_memory() -> float:
    """Memory of the machine, or of the cgroup of this process where that is less."""
    found = [2.0**33]
    with contextlib.suppress(AttributeError, OSError, ValueError):
        found = [float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))]
    root = Path("/sys/fs/cgroup")
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines():
            _, controllers, own = line.split(":", 2)
            if controllers not in ("", "memory"):
                continue
            place, name = (
                (root, "memory.max") if not controllers else (root / "memory", "memory.limit_in_bytes")
            )
            parts = Path(own.strip("/")).parts
            for depth in range(len(parts) + 1):
                with contextlib.suppress(OSError, ValueError):
                    found.append(float(place.joinpath(*parts[:depth], name).read_text(encoding="ascii")))
    return min(size for size in found if size > 0)


# ---------------------------------------------------------------- texts


def check_unit_text(text: Any, what: str) -> None:
    """Refuse a unit, or a number with one, that would take long to read: long, nested, or huge exponents."""
    text = str(text)
    if len(text) > LONGEST_UNIT:
        raise InputError(f"{what} has {len(text)} characters: give a unit of at most {LONGEST_UNIT}")
    powers = re.findall(r"(?:\*\*|\^|[eE])[\s(+-]*(\d+)", text)
    long = any(len(digits.lstrip("0")) > EXPONENT_DIGITS for digits in powers)
    long = long or any(len(digits) > NUMBER_DIGITS for digits in re.findall(r"\d+", text))
    # An exponent may stand without a sign, as in m2, or in the denominator of a fraction.
    loose = re.findall(r"[A-Za-z)\]/(]\s*[-+]?(\d+)", text)
    long = long or any(len(digits.lstrip("0")) > EXPONENT_DIGITS + 9 for digits in loose)
    if long or text.count("(") > 8 or len(re.findall(r"\*\*|\^", text)) > 12:
        raise InputError(
            f"{what} = {quoted(text)} has an exponent or a nesting that no unit needs: correct it"
        )


def quoted(value: Any, most: int = 200) -> str:
    """``repr`` of a value for a message, at most 200 characters."""
    if isinstance(value, str | bytes) and len(value) > most:
        return f"{value[: most - 30]!r}... ({len(value)} characters)"
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - whatever the class of a user does
        text = f"<{type(value).__name__}>"
    return text if len(text) <= most else f"{text[: most - 3]}..."
