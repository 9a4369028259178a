"""YAML without surprises: no aliases, tags or duplicate keys, and numbers that look like numbers.

Plain words are what YAML 1.2 says: ``true`` and ``false``, ``null`` and ``~``, decimal numbers. "yes",
"1:30" and "012" are texts. The parser's events are read one by one, so that nothing is built before it is
checked.
"""

import math
import re
from typing import Any

import yaml

from lenssr._limits import quoted
from lenssr.exceptions import InputError

# Largest text, depth of lists and mappings, number of values, and length of one.
MOST_BYTES, MOST_DEPTH, MOST_VALUES, LONGEST_VALUE = 4 * 2**20, 30, 1_000_000, 20_000

_WORDS = {"": None, "~": None, "null": None, "Null": None, "NULL": None}
_WORDS |= {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_WHOLE = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_REAL = re.compile(r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]{1,6})?")
_INFINITE = re.compile(r"[-+]?\.(inf|Inf|INF)")
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_yaml(text: str, name: str) -> Any:
    """Value of one document; ``name`` of the text stands in messages."""
    if len(text) > MOST_BYTES:
        raise InputError(f"{name} has {len(text)} characters: give at most {MOST_BYTES}")
    try:
        return _Reader(text, name).read()
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{name} cannot be read as YAML: {error}") from error


class _Reader:
    """Values from the events of a text."""

    def __init__(self, text: str, name: str) -> None:
        self.events, self.name, self.values = yaml.parse(text, Loader=_LOADER), name, 0

    def read(self) -> Any:
        next(self.events)  # the stream begins
        event = next(self.events)
        if isinstance(event, yaml.StreamEndEvent):
            return None
        value = self._value(next(self.events), 0)
        next(self.events)  # the document ends
        if not isinstance(next(self.events), yaml.StreamEndEvent):
            raise self._refuse("several documents", "give one")
        return value

    def _refuse(self, what: str, remedy: str) -> InputError:
        return InputError(f"{self.name} holds {what}: {remedy}")

    def _value(self, event: Any, depth: int) -> Any:
        self.values += 1
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            raise self._refuse("an anchor or an alias (& or *)", "write the values themselves")
        if event.tag is not None:
            raise self._refuse(f"a tag, {quoted(event.tag)}", "leave it out")
        if depth > MOST_DEPTH or self.values > MOST_VALUES:
            raise self._refuse(f"more than {MOST_DEPTH} levels or {MOST_VALUES} values", "give less")
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event)
        return self._list(depth) if isinstance(event, yaml.SequenceStartEvent) else self._mapping(depth)

    def _list(self, depth: int) -> list[Any]:
        values = []
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            values.append(self._value(event, depth + 1))
        return values

    def _mapping(self, depth: int) -> dict[str, Any]:
        values: dict[str, Any] = {}
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent):
                raise self._refuse("a key that is no word", "give words as keys")
            self._value(event, depth + 1)
            key = event.value
            if key in values:
                raise self._refuse(f"the key {quoted(key)} twice", "give it once")
            values[key] = self._value(next(self.events), depth + 1)
        return values

    def _scalar(self, event: Any) -> Any:
        text = event.value
        if len(text) > LONGEST_VALUE:
            raise self._refuse(f"a value of {len(text)} characters", f"give at most {LONGEST_VALUE}")
        return plain_value(text, self.name) if event.implicit[0] else text


def plain_value(text: str, name: str) -> Any:
    """Value of a word without quotes: null, a bool, a number, or the text."""
    if text in _WORDS:
        return _WORDS[text]
    if _WHOLE.fullmatch(text) and len(text) <= 300:
        return int(text)
    if _REAL.fullmatch(text) and len(text) <= 300:
        number = float(text)
        if math.isinf(number):
            raise InputError(f"{name}: {quoted(text)} is too large a number: give one below 1e308")
        return number
    if _INFINITE.fullmatch(text):
        return -math.inf if text.startswith("-") else math.inf
    return math.nan if text in (".nan", ".NaN", ".NAN") else text
