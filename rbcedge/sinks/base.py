"""What a sink is: something that shows or keeps the running result."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rbcedge.bundle import Bundle
from rbcedge.counting.differential import Differential
from rbcedge.counting.quality import Verdict
from rbcedge.field import Field
from rbcedge.frame import Gap


@dataclass(frozen=True, slots=True)
class Start:
    """What is known when a run begins."""

    source: str
    kind: str
    total: int
    bundle: Bundle
    engine: str
    precision: str
    until: int | None = None
    until_ci: float | None = None


@dataclass(frozen=True, slots=True)
class Update:
    """One processed field and the state of the run after it.

    Attributes
    ----------
    field : Field
    verdict : Verdict
        Whether the field is countable, and why not.
    counted : (N,) bool
        Cells of this field that were counted now.
    seen_before : (N,) bool
        Cells that were counted in an earlier frame.
    differential : Differential
        After this field.
    fps : float
        Fields per second over the last seconds.
    dropped : int
        Frames of a live source that were never looked at, so far.
    fields : mapping-like counts so far: seen, counted, rejected by reason.
    """

    field: Field
    verdict: Verdict
    counted: NDArray[np.bool_]
    seen_before: NDArray[np.bool_]
    differential: Differential
    fps: float
    dropped: int
    fields_seen: int
    fields_counted: int
    rejected: dict[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


class Sink(Protocol):
    """Receives a run as it happens. Called from the session's thread, in order, and must be quick."""

    def setup(self, start: Start) -> None:
        """The run begins."""

    def append(self, update: Update) -> None:
        """A field was processed and is already on disk."""

    def skip(self, gap: Gap) -> None:
        """Frames were lost."""

    def close(self) -> None:
        """The run is over, in whatever way. Safe to call twice."""
