"""Looking at every field once: what it looks like, what is in it, whether it can be counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from rbcedge.calibration.descriptors import describe

from rbcedge.counting.ledger import Ledger
from rbcedge.counting.quality import Gate
from rbcedge.errors import RbcedgeError
from rbcedge.frame import Frame, Gap
from rbcedge.pipeline.host import HostPipeline
from rbcedge.sources.base import Source

#: Called with what is done, how much of it, and of how much (0: not known).
Progress = Callable[[str, int, int], None]
#: Share of the picture that must be new in a moving source, and pictures of it that are waited for, per field wanted.
_NEW, _PATIENCE = 0.8, 100


def silent(what: str, done: int, total: int) -> None:
    """Show nothing."""


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A countable field.

    Attributes
    ----------
    source : str
        The picture's name in its source.
    picture : Path
        Its pixels, kept without loss.
    scale : float
        Native px per source px.
    figures : (D,) float64
        As `rbcedge.calibration.descriptors.describe` gives them.
    counts : (K,) int64
        Whole cells by most probable class.
    """

    source: str
    picture: Path
    scale: float
    figures: NDArray[np.float64]
    counts: NDArray[np.int64]

    def frame(self) -> Frame:
        """Read the picture again."""
        pixels = cv2.imread(str(self.picture), cv2.IMREAD_COLOR)
        if pixels is None:
            raise RbcedgeError(f"{self.picture}: cannot be read again. Is the disk full?")
        return Frame(0, 0.0, np.asarray(pixels, np.uint8), self.source)


@dataclass(frozen=True, slots=True)
class Examined:
    """What a source gave.

    Attributes
    ----------
    candidates : tuple of Candidate
    left_out : tuple of (str, str)
        Pictures that cannot be read or counted, and why.
    """

    candidates: tuple[Candidate, ...]
    left_out: tuple[tuple[str, str], ...]


def examine(
    source: Source,
    pipeline: HostPipeline,
    folder: Path,
    most: int = 200,
    progress: Progress = silent,
) -> Examined:
    """Process the fields of a source and keep those that can be counted.

    Parameters
    ----------
    source : Source
        Read to its end, or to `most` pictures where it has none.
    pipeline : HostPipeline
        With the float networks.
    folder : Path
        Where the pictures are kept meanwhile.
    most : int
        Fields looked at; of a longer folder that many, spread evenly over it. Of a video or live source the pictures
        that show a new place, at rest.
    progress : callable

    Raises
    ------
    RbcedgeError
        The source failed, or the disk takes nothing.
    """
    bundle = pipeline.bundle
    gate = Gate(diameter_px=bundle.diameter_px)
    stills = source.kind == "stills"
    total = len(source) if stills else 0
    folder.mkdir(parents=True, exist_ok=True)
    candidates: list[Candidate] = []
    left_out: list[tuple[str, str]] = []
    for position, item in enumerate(_spread(source, most) if stills else _places(source, most)):
        if isinstance(item, Gap):
            left_out.append((item.source, item.reason))
        else:
            name = item.source if stills else f"{item.source} #{item.index}"
            found = _look(replace(item, source=name), pipeline, gate, folder / f"{position:06d}.png")
            if isinstance(found, Candidate):
                candidates.append(found)
            else:
                left_out.append((name, found))
        progress("looking at the fields", position + 1, min(total, most) or most)
        if position + 1 >= most:
            break
    return Examined(tuple(candidates), tuple(left_out))


def _spread(source: Source, most: int) -> Iterator[Frame | Gap]:
    """Yield at most `most` of a source's pictures, spread evenly over it."""
    total = len(source)
    wanted = set(np.linspace(0, total - 1, min(most, total)).astype(int).tolist())
    for position, item in enumerate(source.frames()):
        if not total or position in wanted:
            yield item


def _places(source: Source, most: int) -> Iterator[Frame]:
    """Yield pictures at rest that share little with the one before: thirty a second of one field are one field."""
    ledger = Ledger()
    away: tuple[float, float] | None = None
    for number, item in enumerate(source.frames()):
        if number == _PATIENCE * most:
            break
        if isinstance(item, Gap):
            continue
        motion = ledger.observe(item)
        if away is not None:
            away = (away[0] + motion.shift[0], away[1] + motion.shift[1])
        width, height = item.size
        new = away is None or motion.jump or abs(away[0]) > _NEW * width or abs(away[1]) > _NEW * height
        if new and not motion.moving:
            away = (0.0, 0.0)
            yield item


def _look(frame: Frame, pipeline: HostPipeline, gate: Gate, path: Path) -> Candidate | str:
    bundle = pipeline.bundle
    try:
        field = pipeline.find(frame)
    except RbcedgeError as error:
        return str(error)
    whole = np.flatnonzero(~field.cells.on_border)
    field = pipeline.classify(field, whole)
    verdict = gate.judge(field, None, bundle.labels)
    if not verdict.countable:
        return verdict.reason
    if not cv2.imwrite(str(path), frame.pixels, [cv2.IMWRITE_PNG_COMPRESSION, 1]):
        raise RbcedgeError(f"{path}: cannot be written. Is the disk full?")
    counts = np.bincount(field.cells.best[whole], minlength=len(bundle.labels))
    return Candidate(frame.source, path, field.scale, describe(field, verdict, bundle.labels), counts)
