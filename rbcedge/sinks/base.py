"""What a sink is: something that shows or keeps the running result. And the values it is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from rbcedge.bundle import Bundle
from rbcedge.counting.differential import Differential
from rbcedge.counting.quality import Verdict
from rbcedge.field import Field
from rbcedge.frame import Frame, Gap

State = Literal["starting", "counted", "repeated", "rejected", "lost"]


@dataclass(frozen=True, slots=True)
class Start:
    """What is known when a run begins.

    Attributes
    ----------
    source, kind : str
        Name and kind of the source.
    description : str
        One line: what was opened, at what size and frame rate.
    total : int
        Number of pictures where it is known, otherwise 0.
    bundle : Bundle
    engine, precision : str
    scale : float or None
        Native px per source px as the user gave it; None where it is measured on the first fields.
    folder : Path
        Where the results are.
    until : int or None
        Counted cells to stop at.
    until_ci : float or None
        Half width in points of the intervals to stop at.
    """

    source: str
    kind: str
    description: str
    total: int
    bundle: Bundle
    engine: str
    precision: str
    scale: float | None
    folder: Path
    until: int | None = None
    until_ci: float | None = None


@dataclass(frozen=True, slots=True)
class Status:
    """The state of a run after a picture.

    Attributes
    ----------
    state : str
        What became of the picture; "lost" after a gap.
    reason : str
        Why it was rejected or lost, otherwise empty.
    differential : Differential
    flags, warnings : tuple of str
        In words.
    seen, counted, repeated : int
        Pictures looked at; fields counted; pictures that showed nothing new.
    rejected : mapping of str to int
        Pictures not counted, by reason.
    dropped, skipped : int
        Pictures of a live source never looked at; gaps: files that could not be read, losses of a camera.
    scale : float
        Native px per source px of the last picture.
    fps : float
        Pictures per second over the last seconds.
    elapsed_s : float
    timing_ms : mapping
        Stage -> "p50", "p90", "p99", "max" in ms.
    """

    state: State
    reason: str
    differential: Differential
    flags: tuple[str, ...]
    warnings: tuple[str, ...]
    seen: int
    counted: int
    repeated: int
    rejected: Mapping[str, int]
    dropped: int
    skipped: int
    scale: float
    fps: float
    elapsed_s: float
    timing_ms: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class Update:
    """One recorded field.

    Attributes
    ----------
    number : int
        Its number in the records, from 1.
    field : Field
    verdict : Verdict
        Whether the field is countable, and why not.
    counted : (N,) bool
        Cells of this field that were counted now.
    """

    number: int
    field: Field
    verdict: Verdict
    counted: NDArray[np.bool_]


class Sink(Protocol):
    """Receives a run as it happens. Called from the session's thread, in order, and must be quick.

    A sink that raises is named in a warning and left out from then on; the count goes on.
    """

    @property
    def name(self) -> str:
        """For warnings: "screen", "saved pictures"."""

    def setup(self, start: Start) -> None:
        """The run begins."""

    def append(self, update: Update, status: Status) -> None:
        """A field was processed and is already on disk."""

    def tick(self, frame: Frame, status: Status) -> None:
        """A picture without news: the stage moves, or everything in it was counted before."""

    def skip(self, gap: Gap, status: Status) -> None:
        """Pictures were lost."""

    def close(self) -> None:
        """The run is over, in whatever way: finish what is in hand. Safe to call twice."""
