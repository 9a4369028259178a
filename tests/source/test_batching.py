"""Inversions in lock-step: who is answered when, and what a failure stops."""

import pytest

from lenssr.source.batching import alone, ask, together


def doubling(value, rounds):
    """Ask so many times, and return what comes of the value."""
    for _ in range(rounds):
        value = yield from ask(value, None, None, None, None)
    return value


def patient(value):
    try:
        return (yield from ask(value, None, None, None, None))
    except ZeroDivisionError:
        return "survived"


def clumsy(value):
    yield from ask(value, None, None, None, None)
    raise KeyError(value)


class Doubler:
    def __init__(self):
        self.asked = []

    def __call__(self, requests):
        self.asked.append([request.problem for request in requests])
        return [ZeroDivisionError() if one == 0 else 2 * one for one in self.asked[-1]]


def test_each_round_answers_all_that_still_ask():
    double = Doubler()
    found = together([doubling(1, 2), doubling(5, 0), doubling(3, 1), doubling(10, 3)], double)
    assert found == [4, 5, 6, 80]
    assert double.asked == [[1, 3, 10], [2, 20], [40]]


def test_only_the_guilty_fail():
    double = Doubler()
    found = together([doubling(1, 2), doubling(0, 2), clumsy(7), patient(0), doubling(2, 2)], double)
    assert found[0] == 4 and found[3:] == ["survived", 8]
    assert isinstance(found[1], ZeroDivisionError) and isinstance(found[2], KeyError)
    assert double.asked[1] == [2, 4]


def test_nobody_asks():
    assert together([], Doubler()) == []
    assert alone(doubling(3, 0)) == 3


def test_alone_an_error_is_an_error():
    with pytest.raises(AttributeError):  # nothing can be solved for None
        alone(doubling(None, 1))
