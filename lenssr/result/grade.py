"""Grades: what a verdict comes to, in a word."""

from collections.abc import Iterable, Mapping
from typing import Any

from lenssr.exceptions import InputError

__all__ = ["GRADES", "OK_GRADES", "grade_told", "worst"]

# From bad to good.
GRADES = ("failed", "doubtful", "probable", "secure")
OK_GRADES = frozenset(("probable", "secure"))


def worst(grades: Iterable[str]) -> str:
    """The worst of some grades; "secure" where there is none."""
    return min(grades, key=GRADES.index, default="secure")


def grade_told(told: Mapping[str, Any]) -> str:
    """The grade in a file; older ones only say whether the result is ok."""
    grade = told["grade"] if "grade" in told else "probable" if told["ok"] else "doubtful"
    if grade not in GRADES:
        raise InputError(f"the grade {str(grade)[:40]!r} is none of {', '.join(GRADES)}: get the file again")
    return str(grade)
