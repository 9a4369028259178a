"""The state of the process that others share, left as it was: filters of warnings, and torch's modes."""

import contextlib
import os
import threading
import warnings
from collections.abc import Iterator

_lock = threading.RLock()
_open: list[tuple[object, ...]] = []
_inside: list[None] = []
_before: list[warnings.catch_warnings] = []


@contextlib.contextmanager
def same_filters() -> Iterator[None]:
    """Bring the filters of warnings back, which imports of others change, also from several threads.

    ``warnings.catch_warnings`` in two threads may leave the filters of one behind. Here the first one in
    keeps the filters of the process, and the last one out brings them back.
    """
    with _lock:
        if not _inside:
            _before.append(warnings.catch_warnings())
            _before[0].__enter__()
        _inside.append(None)
    try:
        yield
    finally:
        with _lock:
            _inside.pop()
            if not _inside:
                _before.pop().__exit__(None, None, None)


@contextlib.contextmanager
def quiet(category: type[Warning] = Warning, *, message: str = "", action: str = "ignore") -> Iterator[None]:
    """Ignore warnings of a category, those whose text matches ``message``, also from several threads."""
    entry: tuple[object, ...] = (action, message, category)
    with same_filters():
        with _lock:
            _open.append(entry)
            warnings.filterwarnings(action, message, category)  # type: ignore[arg-type]  # a known word
            mine = warnings.filters[0]
        try:
            yield
        finally:
            with _lock:
                _open.remove(entry)
                if entry not in _open:
                    with contextlib.suppress(ValueError):
                        warnings.filters.remove(mine)  # type: ignore[attr-defined]  # a list
                    _mutated()


def _mutated() -> None:
    """Have warnings look at the filters again."""
    changed = getattr(warnings, "_filters_mutated", None) or getattr(
        warnings, "_filters_mutated_lock_held", None
    )
    if changed is not None:
        changed()


@contextlib.contextmanager
def same_environment() -> Iterator[None]:
    """Bring environment variables and filters of warnings back, which imports of others change."""
    environment = dict(os.environ)
    with same_filters():
        try:
            yield
        finally:
            for name in os.environ.keys() - environment.keys():
                del os.environ[name]
            os.environ.update(environment)
