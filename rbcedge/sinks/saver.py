"""`--save`: masks, overlays and crops as picture files, written by a thread of their own."""

from __future__ import annotations

import re
import shutil
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path, PurePosixPath
from queue import Queue
from threading import Event, Thread

import cv2
import numpy as np
from numpy.typing import NDArray

from rbcedge.bundle import Bundle
from rbcedge.cells import crops
from rbcedge.errors import RbcedgeError
from rbcedge.field import Field
from rbcedge.frame import Frame, Gap
from rbcedge.report.overlay import draw
from rbcedge.sinks.base import Start, Status, Update

KINDS = ("masks", "overlays", "crops")
# Fields that may wait for the writer. A still picture is never left out: the count waits when the disk is
# slower.
_WAITING = 8
# Bytes that pictures leave free on the disk: the record of a long day, and the tables at its end.
_RESERVE = 64_000_000


class Saver:
    """Writes ``masks/<name>.png``, ``overlays/<name>.jpg`` and ``crops/<CODE>/<field>_<cell>.png``.

    <name> is the picture's path without its suffix, sub-folders kept; for live sources and videos the
    source's name and the number of the field. Masks are 0 and 255 and of exactly the picture's size. Crops
    are cut out as for the classifier, ``crop_px`` wide at native scale and black beyond the cell's rim, but in the
    picture's own colours: not flat-fielded.

    Parameters
    ----------
    folder : Path
    kinds : collection of str
        Of `KINDS`.
    """

    name = "saved pictures"

    def __init__(self, folder: Path, kinds: Collection[str]) -> None:
        unknown = set(kinds) - set(KINDS)
        if unknown:
            raise ValueError(f"{sorted(unknown)}: known are {KINDS}")
        self._folder, self._kinds = folder, frozenset(kinds)
        self._queue: Queue[tuple[Update, str] | None] = Queue(_WAITING)
        self._failed = Event()
        self._error: Exception | None = None
        self._names = _Names()
        self._bundle: Bundle | None = None
        self._stills = True
        self._thread = Thread(target=self._work, name="rbcedge-saver", daemon=True)

    def setup(self, start: Start) -> None:
        """Start the writer."""
        self._bundle, self._stills = start.bundle, start.kind == "stills"
        self._thread.start()

    def append(self, update: Update, status: Status) -> None:
        """Hand a field to the writer. Raises what made an earlier one fail."""
        self._raise()
        update = self._own(update)
        frame = update.field.frame
        if self._stills:
            name = self._names.of(frame.source)
        else:
            name = f"{_safe(frame.source).replace('/', '_')}_{update.number:06d}"
        self._queue.put((update, name))

    def tick(self, frame: Frame, status: Status) -> None:
        """Nothing new, nothing to write."""

    def skip(self, gap: Gap, status: Status) -> None:
        """No picture, nothing to write."""

    def close(self) -> None:
        """Wait until everything is written. Raises what failed and was not told yet."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()
        self._raise()

    def _raise(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _work(self) -> None:
        # After a failure the queue is still emptied, so that nobody waits for room in it.
        while (item := self._queue.get()) is not None:
            if self._failed.is_set():
                continue
            try:
                self._write(*item)
            except Exception as error:
                self._error = error
                self._failed.set()

    def _own(self, update: Update) -> Update:
        """Take hold of what is written later, in another thread: pictures on a device stay there only for a while."""
        # Once asked for, masks and labels stay with the field.
        if "masks" in self._kinds:
            _ = update.field.mask
        if not self._kinds & {"overlays", "crops"}:
            return update
        _ = update.field.labels
        return replace(update, field=replace(update.field, frame=update.field.frame.kept()))

    def _write(self, update: Update, name: str) -> None:
        field, bundle = update.field, self._bundle
        assert bundle is not None
        # Counts are worth more than pictures: these must not take the last room from the record.
        self._folder.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(self._folder).free < _RESERVE:
            raise RbcedgeError(f"less than {_RESERVE // 1_000_000} MB are free on the disk; they are for the record")
        if "masks" in self._kinds:
            write_picture(self._folder / "masks" / f"{name}.png", field.mask)
        if "overlays" in self._kinds:
            picture = draw(field, bundle.codes, bundle.confidence_threshold)
            write_picture(self._folder / "overlays" / f"{name}.jpg", picture)
        if "crops" in self._kinds:
            self._write_crops(update.number, field, bundle)

    def _write_crops(self, number: int, field: Field, bundle: Bundle) -> None:
        cells = field.cells
        rows = np.flatnonzero(cells.classified)
        cut = crops(field.frame.pixels, field.labels, cells, rows, field.scale, bundle.crop_px, bundle.rim_px)
        for row, picture in zip(rows, cut, strict=True):
            code = bundle.codes[cells.best[row]]
            write_picture(self._folder / "crops" / code / f"{number}_{row + 1}.png", picture)


class _Names:
    """Gives each picture a name for its files; where two differ only in their suffix, the second keeps it."""

    def __init__(self) -> None:
        self._given: set[str] = set()

    def of(self, source: str) -> str:
        whole = _safe(source)
        name, k = PurePosixPath(whole).with_suffix("").as_posix(), 1
        # Some file systems do not tell upper from lower case.
        while name.casefold() in self._given:
            name = whole if k == 1 else f"{whole}_{k}"
            k += 1
        self._given.add(name.casefold())
        return name


def _safe(source: str) -> str:
    """Return the name as a path below the folder, without what file systems refuse."""
    parts = (re.sub(r'[<>:"\\|?*\x00-\x1f]', "_", p) for p in PurePosixPath(source).parts if p not in ("/", "..", "."))
    return "/".join(parts) or "picture"


def write_picture(path: Path, picture: NDArray[np.uint8]) -> None:
    """Write a PNG or JPEG by the path's suffix: complete or not at all.

    Raises
    ------
    OSError
        As the file system says, which `cv2.imwrite` would keep to itself.
    RbcedgeError
        The picture cannot be encoded.
    """
    options = [cv2.IMWRITE_PNG_COMPRESSION, 1] if path.suffix == ".png" else [cv2.IMWRITE_JPEG_QUALITY, 90]
    ok, data = cv2.imencode(path.suffix, picture, options)
    if not ok:
        raise RbcedgeError(f"{path}: this picture cannot be encoded.")
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(f".{path.name}.part")
    try:
        half.write_bytes(data.tobytes())
        half.replace(path)
    except OSError:
        half.unlink(missing_ok=True)
        raise
