"""Grades (1+, 2+, 3+) under a named scheme, because schemes differ between laboratories."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rbcedge.errors import RbcedgeError

ABSENT = "-"
GRADES = ("1+", "2+", "3+")


@dataclass(frozen=True, slots=True)
class Steps:
    """Where the grades of one class begin, in percent of the assessable single cells.

    Attributes
    ----------
    few : float or None
        1+ above this share. None: the scheme knows no 1+ for this class.
    moderate : float
        2+ from this share on.
    many : float
        3+ above this share.
    """

    few: float | None
    moderate: float
    many: float

    def __post_init__(self) -> None:
        few = 0.0 if self.few is None else self.few
        if not 0 <= few <= self.moderate <= self.many <= 100:
            raise ValueError(
                f"few <= moderate <= many are wanted, in percent: {self.few}, {self.moderate}, {self.many}"
            )

    def grade(self, percent: float) -> str:
        """Return "-", "1+", "2+" or "3+" for a share in percent."""
        if percent > self.many:
            return "3+"
        if percent >= self.moderate and percent > 0:
            return "2+"
        if self.few is not None and percent > self.few:
            return "1+"
        return ABSENT


@dataclass(frozen=True, slots=True)
class Scheme:
    """A named set of steps.

    Attributes
    ----------
    name : str
        Appears in every report.
    steps : mapping of str to Steps
        By class code. A class without steps is not graded.
    """

    name: str
    steps: Mapping[str, Steps]

    def grade(self, code: str, percent: float) -> str:
        """Return "-", "1+", "2+" or "3+"; "" for a class that this scheme does not grade."""
        steps = self.steps.get(code)
        return "" if steps is None else steps.grade(percent)


def icsh_2015() -> Scheme:
    """Return the default scheme, after Palmer et al., Int J Lab Hematol 37 (2015) 287, grading table.

    Schistocytes: below 1 % 1+, 1-2 % 2+, above 2 % 3+. Ovalocytes and elliptocytes, teardrop cells,
    echinocytes: no 1+, 5-20 % 2+, above 20 % 3+.
    """
    common = Steps(None, 5.0, 20.0)
    return Scheme(
        "after ICSH 2015",
        {"OVA": common, "TEA": common, "BUR": common, "FRA": Steps(0.0, 1.0, 2.0)},
    )


def load_scheme(path: Path) -> Scheme:
    """Read a scheme from a JSON file.

    The file holds ``{"name": "our laboratory", "steps": {"OVA": {"few": 2, "moderate": 5, "many": 20}}}``:
    percentages where 1+ begins (null or left out: no 1+), where 2+ begins and above which it is 3+.

    Raises
    ------
    RbcedgeError
        If the file cannot be read or does not hold a scheme, saying what is wrong in it.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as e:
        raise RbcedgeError(f"grading scheme {path} cannot be read ({e.strerror}).") from e
    except UnicodeDecodeError as e:
        raise RbcedgeError(f"grading scheme {path} is not a text file.") from e
    except json.JSONDecodeError as e:
        raise RbcedgeError(f"grading scheme {path}, line {e.lineno}: {e.msg}.") from e
    try:
        return _parse(document)
    except ValueError as e:
        raise RbcedgeError(f"grading scheme {path}: {e}.") from e


def _parse(document: Any) -> Scheme:
    if not isinstance(document, dict) or set(document) != {"name", "steps"}:
        raise ValueError('"name" and "steps" are wanted, and nothing else')
    name, steps = document["name"], document["steps"]
    if not isinstance(name, str) or not name.strip():
        raise ValueError('"name" must be a text')
    if not isinstance(steps, dict) or not steps:
        raise ValueError('"steps" must map class codes to percentages')
    return Scheme(name.strip(), {str(code): _parse_steps(str(code), entry) for code, entry in steps.items()})


def _parse_steps(code: str, entry: Any) -> Steps:
    if not isinstance(entry, dict) or not {"moderate", "many"} <= set(entry) <= {"few", "moderate", "many"}:
        raise ValueError(f'{code}: "moderate" and "many" are wanted, and "few" if there is a 1+')
    for key, value in entry.items():
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number and not (key == "few" and value is None):
            raise ValueError(f'{code}: "{key}" must be a number in percent, got {value!r}')
    try:
        return Steps(entry.get("few"), entry["moderate"], entry["many"])
    except ValueError as e:
        raise ValueError(f"{code}: {e}") from e
