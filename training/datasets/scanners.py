"""Table 2 of the paper: which scanner took which of its 25 slides."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from rbcedge.errors import RbcedgeError

#: Scanner to slides.
TABLE_2: Mapping[str, tuple[str, ...]] = {
    "1": ("1", "5", "6", "8", "25"),
    "2": ("2", "3", "4", "7", "9", "11"),
    "3": ("14", "15", "19", "20", "22", "23", "24"),
    "4": ("10", "12", "13", "16", "17", "18", "21"),
}

#: The test slides of section 4.3.
TEST_SLIDES = ("4", "5", "6", "13", "16")

SCANNER_OF: Mapping[str, str] = {slide: scanner for scanner, slides in TABLE_2.items() for slide in slides}


def scanners(folder: Path) -> Mapping[str, str]:
    """Slide to scanner from ``scanners.json`` in the set's folder, else Table 2.

    Raises
    ------
    RbcedgeError
        Where the file is not a JSON object of texts.
    """
    path = folder / "scanners.json"
    if not path.exists():
        return SCANNER_OF
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise RbcedgeError(f"{path}: cannot be read ({e}).") from e
    if not isinstance(found, dict):
        raise RbcedgeError(f'{path}: expected {{"slide": "scanner", ...}}.')
    return {str(k): str(v) for k, v in found.items()}
