"""Which folder of a data set holds which class: a small JSON file that a user can replace.

``{"folders": {"*teardrop*": "TEA", "*angled*": ""}, "codes": ["NOR", ...]}``: patterns (as of a shell) are tried in
their order against the folder's name in lower case; "" leaves a folder out. `codes` is optional and fixes the order
of the network's outputs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from rbcedge.errors import RbcedgeError

#: The paper's classes in the order people read them.
CODES = ("NOR", "OVA", "TEA", "FRA", "BUR", "OTH", "TWO", "THR")

_HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class ClassMap:
    """Folder patterns and their classes.

    Attributes
    ----------
    folders : tuple of (pattern, code)
    codes : tuple of str
    source : str
        Where it was read, for messages.
    strict : bool
        Every pattern must be met by a folder.
    """

    folders: tuple[tuple[str, str], ...]
    codes: tuple[str, ...]
    source: str
    strict: bool = True

    def code(self, folder: str) -> str | None:
        """Class of a folder; "" where it is left out, None where no pattern fits."""
        for pattern, code in self.folders:
            if fnmatchcase(folder.lower(), pattern.lower()):
                return code
        return None

    def check(self, folders: Iterable[str]) -> None:
        """Refuse patterns that no folder meets: a slip there would silently empty a class.

        Raises
        ------
        RbcedgeError
        """
        there = sorted(set(folders))
        met = {next((p for p, _ in self.folders if fnmatchcase(f.lower(), p.lower())), None) for f in there}
        idle = [p for p, _ in self.folders if p not in met]
        if idle and self.strict:
            raise RbcedgeError(
                f"{self.source}: no folder of the data set is called {', '.join(repr(p) for p in idle)}. "
                f"Folders there: {', '.join(there) or 'none'}."
            )

    def as_dict(self) -> dict[str, str]:
        """Pattern to code."""
        return dict(self.folders)


def read(path: Path, strict: bool = True) -> ClassMap:
    """Read a class map.

    Raises
    ------
    RbcedgeError
        Where it cannot be read or understood.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except OSError as e:
        raise RbcedgeError(f"{path}: the class map cannot be read ({e.strerror}).") from e
    except ValueError as e:
        raise RbcedgeError(f"{path}: the class map is no JSON ({e}).") from e
    folders = raw.get("folders") if isinstance(raw, dict) else None
    if not isinstance(folders, dict) or not all(isinstance(v, str) for v in folders.values()):
        raise RbcedgeError(f'{path}: expected {{"folders": {{"folder pattern": "CODE", ...}}}}; "" leaves one out.')
    used = {code for code in folders.values() if code}
    odd = sorted(code for code in used if not code.isidentifier())
    if odd or not used:
        raise RbcedgeError(f"{path}: class codes must be plain words, got {', '.join(map(repr, odd)) or 'none'}.")
    known = tuple(c for c in CODES if c in used)
    codes = tuple(raw.get("codes", known + tuple(sorted(used - set(known)))))
    if set(codes) != used or len(set(codes)) != len(codes):
        raise RbcedgeError(f"{path}: 'codes' must list each code of 'folders' once: {', '.join(sorted(used))}.")
    return ClassMap(tuple(folders.items()), codes, str(path), strict)


def shipped(layout: str) -> ClassMap:
    """The map that comes with a reader; a set may lack some of its folders."""
    return read(_HERE / f"{layout}.json", strict=False)


def choose(folder: Path, layout: str, given: Path | None) -> ClassMap:
    """The user's map, else the one beside the data (`class_map.json`), else the shipped one."""
    if given is not None:
        return read(given)
    beside = folder / "class_map.json"
    return read(beside) if beside.is_file() else shipped(layout)
