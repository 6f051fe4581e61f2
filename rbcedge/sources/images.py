"""Still pictures: files, folders, or several of both."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import cv2
import numpy as np
from numpy.typing import NDArray

from rbcedge.errors import RbcedgeError
from rbcedge.frame import Frame, Gap
from rbcedge.sources.ahead import Ahead
from rbcedge.sources.base import Kind
from rbcedge.sources.intact import flaw
from rbcedge.sources.pixels import to_bgr8

SUFFIXES = frozenset(
    {
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".png",
        ".tif",
        ".tiff",
        ".bmp",
        ".dib",
        ".webp",
        ".jp2",
        ".pgm",
        ".ppm",
        ".pnm",
        ".pbm",
    }
)
# A folder that holds this file is the result of a run; the overlays in it are not fields.
_RESULT_MARK = "session.db"
_SAVED = ("masks", "overlays", "crops")


@dataclass(frozen=True, slots=True)
class Still:
    """A picture to open: its path and its name within the run (unique, with forward slashes)."""

    path: Path
    name: str


def natural(text: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key that puts 2.jpg before 10.jpg, upper and lower case together."""
    return tuple(
        (0, int(part), part) if part.isdecimal() else (1, 0, part.casefold())
        for part in re.split(r"([0-9]+)", text)
        if part
    )


def is_picture(path: Path) -> bool:
    """Whether the file's name is that of a picture (hidden files are not)."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def pictures_below(folder: Path) -> list[Path]:
    """All picture files in `folder` and below, in natural order; results of earlier runs are left out.

    Where `folder` itself received the results of a run, its own pictures still count, not those the run saved.

    Raises
    ------
    RbcedgeError
        The folder cannot be read.
    """
    found: list[Path] = []

    def refuse(error: OSError) -> None:
        if error.filename is None or Path(error.filename) == folder:
            raise RbcedgeError(f"{folder}: cannot read this folder ({error.strerror})")

    for where, folders, files in os.walk(folder, onerror=refuse):
        if _RESULT_MARK in files:
            if Path(where) != folder:
                folders.clear()
                continue
            folders[:] = [f for f in folders if f not in _SAVED]
        folders[:] = [f for f in folders if not f.startswith(".")]
        found += [Path(where, f) for f in files if is_picture(Path(f))]
    return sorted(found, key=lambda p: [natural(part) for part in p.relative_to(folder).parts])


def name_stills(found: Sequence[tuple[Path, Path]]) -> list[Still]:
    """Give every picture a name that is unique within the run, and drop pictures that were given twice.

    Parameters
    ----------
    found : sequence of (root, path)
        `root` is the folder the user gave (for a file, its parent).

    Returns
    -------
    list of Still
        Named by the path below the root; where two roots hold the same name, with the root's own name before
        it; where that is not enough either, with the whole path.
    """
    once: dict[Path, tuple[Path, Path]] = {}
    for root, path in found:
        once.setdefault(_real(path), (root, path))
    items = [(real, root.resolve(), path) for real, (root, path) in once.items()]
    short = [path.absolute().relative_to(root.absolute()).as_posix() for root, path in once.values()]
    longer = [f"{root.name}/{name}" for (_, root, _), name in zip(items, short, strict=True)]
    whole = [real.as_posix().lstrip("/") for real, _, _ in items]
    names = short
    for more in (longer, whole):
        seen = Counter(names)
        names = [n if seen[n] == 1 else m for n, m in zip(names, more, strict=True)]
    if len(set(names)) < len(names):  # a longer name may meet another's short one
        names = whole
    return [Still(path, name) for (_, _, path), name in zip(items, names, strict=True)]


def _real(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError):
        # Links that lead in a circle: reading it will say so.
        return path.absolute()


def further_pages(path: Path) -> int:
    """How many pictures a TIFF file holds beside the first."""
    if path.suffix.lower() not in (".tif", ".tiff"):
        return 0
    try:
        return max(0, int(cv2.imcount(str(path), cv2.IMREAD_UNCHANGED)) - 1)
    except cv2.error:
        return 0


def read_picture(path: Path) -> NDArray[np.uint8]:
    """Decode a picture file to (H, W, 3) uint8 BGR, as people see it.

    A JPEG's EXIF orientation is applied, because every viewer applies it and masks and overlays must lie on
    the picture as it is seen. The other rules are those of `to_bgr8`.

    Raises
    ------
    ValueError
        In words fit for the user: why it cannot be read.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from error
    reason = flaw(data)
    if reason is not None:
        raise ValueError(reason)
    # UNCHANGED keeps depth and alpha but ignores the orientation; a JPEG has neither depth nor alpha.
    flags = cv2.IMREAD_COLOR if data[:2] == b"\xff\xd8" else cv2.IMREAD_UNCHANGED
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except (cv2.error, MemoryError) as error:
        text = getattr(error, "err", "") or str(error) or "not enough memory"
        raise ValueError(f"cannot be decoded ({' '.join(text.split())})") from error
    if pixels is None:
        raise ValueError("cannot be decoded: damaged, or a kind of picture that is not supported")
    return to_bgr8(np.asarray(pixels))


class Stills:
    """A source of still pictures, each a field of its own.

    The next pictures are decoded in the background. A file that cannot be read becomes a `Gap` with its
    reason.

    Parameters
    ----------
    stills : sequence of Still
    name : str
        What the user gave, for titles.
    """

    def __init__(self, stills: Sequence[Still], name: str) -> None:
        self._stills = tuple(stills)
        self._name = name
        self._ahead: Ahead[Frame | Gap] | None = None
        self._lock = Lock()
        self._closed = False

    @property
    def name(self) -> str:
        return self._name

    @property
    def kind(self) -> Kind:
        return "stills"

    @property
    def description(self) -> str:
        n = len(self._stills)
        return f"{self._name}: {n} picture{'' if n == 1 else 's'}"

    @property
    def dropped(self) -> int:
        """Always 0: every picture waits for its turn."""
        return 0

    def __len__(self) -> int:
        return len(self._stills)

    def _read(self) -> Iterator[Frame | Gap]:
        index = 0
        for still in self._stills:
            try:
                pixels = read_picture(still.path)
            except ValueError as error:
                yield Gap(still.name, str(error))
            else:
                yield Frame(index, 0.0, pixels, still.name)
                index += 1
                more = further_pages(still.path)
                if more:
                    yield Gap(still.name, f"only the first of its {more + 1} pages is read", frames=more)

    def frames(self) -> Iterator[Frame | Gap]:
        """Yield the pictures in order. `time_s` is 0: stills have no clock in common."""
        with self._lock:
            if self._closed or self._ahead is not None:
                return
            self._ahead = Ahead(self._read(), name="rbcedge-stills")
        try:
            yield from self._ahead
        finally:
            self._ahead.close()

    def close(self) -> None:
        with self._lock:
            self._closed = True
        if self._ahead is not None:
            self._ahead.close()
