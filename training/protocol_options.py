"""Options of `rbcedge train` as values."""

from __future__ import annotations

import re

from rbcedge.errors import UsageError


def parse_folds(text: str) -> tuple[int, int]:
    """``"5x2"`` to (5, 2).

    Raises
    ------
    UsageError
    """
    found = re.fullmatch(r"(\d+)x(\d+)", text.strip().lower())
    if found is None or int(found.group(1)) < 1 or int(found.group(2)) < 1:
        raise UsageError(f"--folds {text!r}: expected repetitions x folds, as 5x2 (or 1x1 for a single training).")
    return int(found.group(1)), int(found.group(2))


def parse_slides(text: str | None) -> tuple[str, ...] | None:
    """``"4, 5,6"`` to ("4", "5", "6").

    Raises
    ------
    UsageError
    """
    if text is None:
        return None
    slides = tuple(s.strip() for s in text.split(",") if s.strip())
    if not slides:
        raise UsageError("--test-slides: no slide given.")
    return slides
