"""Reading a manifest field by field, so that one edited by hand is refused with the name of the field that is wrong."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any


class Section:
    """An object of a manifest.

    Parameters
    ----------
    values : mapping
        As JSON gave it; anything else is refused.
    path : str
        Where it stands ("classifier", "labels[2]"), "" for the whole manifest.
    """

    def __init__(self, values: Any, path: str = "") -> None:
        if not isinstance(values, dict):
            raise ValueError(f"{path or 'the manifest'} must be an object in braces, it is {_shown(values)}")
        self.values: Mapping[str, Any] = values
        self._path = path

    def name(self, key: str) -> str:
        """Where a field stands, for messages."""
        return f"{self._path}.{key}" if self._path else key

    def section(self, key: str) -> Section:
        """Return an object within this one."""
        return Section(self._get(key), self.name(key))

    def sections(self, key: str) -> Iterator[Section]:
        """Yield the objects of a list."""
        values = self._get(key)
        if not isinstance(values, list):
            raise ValueError(f"{self.name(key)} must be a list in brackets, it is {_shown(values)}")
        for k, value in enumerate(values):
            yield Section(value, f"{self.name(key)}[{k}]")

    def text(self, key: str, known: tuple[str, ...] = ()) -> str:
        """Return a text, one of `known` where that is given."""
        value = self._get(key)
        if not isinstance(value, str) or (known and value not in known):
            wanted = f"one of {', '.join(known)}" if known else "a text in quotes"
            raise ValueError(f"{self.name(key)} must be {wanted}, it is {_shown(value)}")
        return value

    def number(
        self, key: str, low: float, high: float = math.inf, default: float | None = None, open_end: bool = False
    ) -> float:
        """Return a number in `low` to `high`; without the ends where `open_end`."""
        value = self._get(key, default)
        right = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        if not right or not (low < value < high if open_end else low <= value <= high):
            if math.isinf(high):
                wanted = "a number above 0" if open_end and low == 0 else f"a number of {low:g} or more"
            else:
                wanted = f"a number {'between' if open_end else 'from'} {low:g} {'and' if open_end else 'to'} {high:g}"
            raise ValueError(f"{self.name(key)} must be {wanted}, it is {_shown(value)}")
        return float(value)

    def whole(self, key: str, low: int, high: float = math.inf, default: int | None = None) -> int:
        """Return a whole number in `low` to `high`."""
        value = self.number(key, low, high, default)
        if value != int(value):
            raise ValueError(f"{self.name(key)} must be a whole number, it is {value:g}")
        return int(value)

    def flag(self, key: str, default: bool) -> bool:
        """Return true or false."""
        value = self._get(key, default)
        if not isinstance(value, bool):
            raise ValueError(f"{self.name(key)} must be true or false, it is {_shown(value)}")
        return value

    def _get(self, key: str, default: Any = None) -> Any:
        value = self.values.get(key, default)
        if value is None:
            raise ValueError(f"'{key}' is missing{f' in {self._path}' if self._path else ''}")
        return value


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
