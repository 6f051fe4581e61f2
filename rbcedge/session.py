"""The run loop: source -> pipeline -> quality gate -> ledger -> classes -> differential -> store -> sinks.

Still pictures: each is a field of its own; every cell in it is classified and recorded.

Live sources and videos: thirty pictures a second show the same field. A picture costs only what is new in it:
while the slide moves nothing is searched for, and where it rests on a field that is fully counted neither
network runs. A row is written for each field with newly counted cells, and otherwise only when the state
changes (moving, blurred, nothing new ...); the row then says for how many pictures in a row it stands. The
sum over rows is the number of pictures seen, a day at the microscope stays a small file, and a killed process
loses no cell and at most a second of this bookkeeping.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from dataclasses import field as dataclass_field
from threading import Event, Thread
from time import perf_counter
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rbcedge.counting.differential import Tally, differential
from rbcedge.counting.flags import flags
from rbcedge.counting.grading import Scheme
from rbcedge.counting.ledger import Ledger
from rbcedge.counting.motion import Motion
from rbcedge.counting.quality import MOVING, Gate, Verdict
from rbcedge.errors import DeviceError, RbcedgeError
from rbcedge.field import Field
from rbcedge.frame import Frame, Gap
from rbcedge.pipeline.base import FindAgain, Pipeline
from rbcedge.sinks.base import Sink, Start, State, Status, Update
from rbcedge.sinks.together import Sinks
from rbcedge.sources.base import Source
from rbcedge.store import Store
from rbcedge.timing import Rate, Stages, timed

Outcome = Literal["finished", "goal reached", "interrupted"]

# How often the bookkeeping of pictures without news goes to disk, and percentiles are worked out again.
_HEARTBEAT_S = 1.0
_REFRESH_S = 0.5
# A field that was searched need not be searched again before it moved so far, native px: 1/20 of a cell
# when it rests there, a fifth while it creeps on. A picture rests when it moved less than the last figure.
_SETTLED_PX, _CREEP_PX, _REST_PX = 2.0, 8.0, 0.5


def run(
    source: Source,
    pipeline: Pipeline,
    gate: Gate,
    ledger: Ledger | None,
    scheme: Scheme,
    store: Store,
    sinks: Sequence[Sink],
    start: Start,
    stop: Event,
) -> Outcome:
    """Count until the source ends, a goal of `start` is reached, or `stop` is set.

    Parameters
    ----------
    source, pipeline, gate, scheme, store
    ledger : Ledger or None
        None for still pictures: each is counted by itself.
    sinks : sequence of Sink
        Set up and closed here.
    start : Start
        Also holds the goals.
    stop : Event
        Set from a signal handler or another thread to end cleanly. Set when this returns.

    Returns
    -------
    str
        How it ended, as in the record.

    Raises
    ------
    RbcedgeError
        The source, the store or a device failed. What was recorded before is kept, and the record says what failed
        where that can still be written.
    """
    count = _Count(source, pipeline, gate, ledger, scheme, store, Sinks(sinks, store.warn), start)
    # A source may be waiting for a picture that never comes: closing it from another thread ends the wait.
    closer = Thread(target=_close_when, args=(stop, source), name="rbcedge-stop", daemon=True)
    closer.start()
    outcome: Outcome = "finished"
    try:
        count.begin()
        for item in source.frames():
            if stop.is_set():
                break
            count.take(item)
            if count.reached:
                outcome = "goal reached"
                break
        if stop.is_set() and outcome == "finished":
            outcome = "interrupted"
        count.end(outcome)
    except BaseException as error:
        count.fail(error)
        raise
    finally:
        stop.set()
        closer.join(timeout=10)
        count.close()
    return outcome


def _close_when(stop: Event, source: Source) -> None:
    stop.wait()
    source.close()


@dataclass(slots=True)
class _Stretch:
    """Pictures in a row that are recorded as one."""

    key: tuple[str, str]
    frames: int
    written: int
    written_s: float


@dataclass(frozen=True, slots=True)
class _News:
    """A field to be recorded.

    `ids` are the ledger's numbers of its cells; cells numbered `retracted`, with the (M, K) probabilities
    `taken_back`, turned out to have been counted before.
    """

    update: Update
    ids: NDArray[np.int64] | None = None
    retracted: NDArray[np.int64] = dataclass_field(default_factory=lambda: np.zeros(0, np.int64))
    taken_back: NDArray[np.float32] = dataclass_field(default_factory=lambda: np.zeros((0, 1), np.float32))


@dataclass(frozen=True, slots=True)
class _Idle:
    """A picture without news; `field` and `verdict` where it was searched."""

    frame: Frame
    state: Literal["repeated", "rejected"]
    reason: str
    scale: float
    field: Field | None = None
    verdict: Verdict | None = None


class _Count:
    """The state of one run."""

    def __init__(
        self,
        source: Source,
        pipeline: Pipeline,
        gate: Gate,
        ledger: Ledger | None,
        scheme: Scheme,
        store: Store,
        sinks: Sinks,
        start: Start,
    ) -> None:
        self._source, self._pipeline, self._gate, self._ledger = source, pipeline, gate, ledger
        self._scheme, self._store, self._sinks, self._start = scheme, store, sinks, start
        self._labels = start.bundle.labels
        self._tally = Tally.empty(len(self._labels))
        self._differential = differential(self._tally, self._labels, scheme)
        self._seen = self._counted = self._repeated = self._skipped = 0
        self._rejected: Counter[str] = Counter()
        self._stretch: _Stretch | None = None
        self._settled = False
        self._drift = (0.0, 0.0)
        self._stages, self._rate = Stages(), Rate()
        self._timing: dict[str, dict[str, float]] = {}
        self._timing_s = float("-inf")
        self._begun_s = perf_counter()

    @property
    def reached(self) -> bool:
        """Whether a goal is reached."""
        return self._differential.reached(self._start.until, self._start.until_ci)

    def begin(self) -> None:
        self._sinks.each(lambda sink: sink.setup(self._start))

    def take(self, item: Frame | Gap) -> None:
        """Process what the source gave."""
        if isinstance(item, Gap):
            self._skip(item)
            return
        begun = perf_counter()
        timings: dict[str, float] = {}
        found: _News | _Idle
        if self._ledger is None:
            try:
                found = self._still(item, timings)
            except DeviceError:
                # The next picture would fare no better.
                raise
            except RbcedgeError as error:
                # One picture that cannot be processed is no reason to leave the others out.
                self._skip(Gap(item.source, str(error)))
                return
        else:
            found = self._moving(item, self._ledger, timings)
        self._seen += 1
        if isinstance(found, _News):
            self._record(found, begun, timings)
        else:
            self._idle(found, begun, timings)

    def end(self, outcome: str) -> None:
        """Let the sinks finish, then write how it ended."""
        self._flush_stretch()
        self._sinks.close()
        self._store.finish(outcome, self._progress(whole=True))

    def fail(self, error: BaseException) -> None:
        """Write what failed, where that can still be written."""
        # Where the store is what failed, the error on its way up says so.
        with suppress(Exception):
            self.end(f"failed: {' '.join(str(error).split()) or type(error).__name__}")

    def close(self) -> None:
        with suppress(Exception):
            self._sinks.close()
        self._source.close()

    def _still(self, frame: Frame, timings: dict[str, float]) -> _News:
        field = self._pipeline.find(frame)
        try:
            field = self._pipeline.classify(field, np.arange(len(field.cells)))
        except FindAgain:
            field = self._pipeline.find(frame)
            field = self._pipeline.classify(field, np.arange(len(field.cells)))
        with timed(timings, "gate"):
            verdict = self._gate.judge(field, None, self._labels)
        counted = ~field.cells.on_border if verdict.countable else np.zeros(len(field.cells), np.bool_)
        return _News(Update(0, field, verdict, counted))

    def _moving(self, frame: Frame, ledger: Ledger, timings: dict[str, float]) -> _News | _Idle:
        """Find out what is new in a picture of a live source or video."""
        scale = self._pipeline.scale
        with timed(timings, "register"):
            motion = ledger.observe(frame, scale)
        self._drift = (self._drift[0] + motion.shift[0], self._drift[1] + motion.shift[1])
        if motion.moving or motion.jump:
            self._settled = False
        if motion.moving:
            return _Idle(frame, "rejected", MOVING, scale)
        reach = _CREEP_PX if motion.pixels * scale > _REST_PX else _SETTLED_PX
        if self._settled and np.hypot(*self._drift) * scale < reach:
            return _Idle(frame, "repeated", "", scale)
        try:
            return self._search(frame, ledger, motion, scale, timings)
        except FindAgain:
            # Nothing of this picture was committed: the engine that took over sees it as if for the first time.
            return self._search(frame, ledger, motion, self._pipeline.scale, timings)

    def _search(
        self, frame: Frame, ledger: Ledger, motion: Motion, scale: float, timings: dict[str, float]
    ) -> _News | _Idle:
        """Find the cells of a picture at rest, and count those that are new."""
        field = self._pipeline.find(frame)
        self._drift = (0.0, 0.0)
        with timed(timings, "gate"):
            verdict = self._gate.judge(field, motion, self._labels)
        self._settled = verdict.countable
        if not verdict.countable:
            timings.update(field.timings_ms)
            return _Idle(frame, "rejected", verdict.reason, scale, field, verdict)
        with timed(timings, "ledger"):
            placement = ledger.place(field)
        if placement.new.any():
            field = self._pipeline.classify(field, np.flatnonzero(placement.new))
        taken_back = ledger.known(placement.retracted)
        with timed(timings, "ledger"):
            ledger.commit(placement, field)
        if placement.new.any() or len(placement.retracted):
            update = Update(0, field, verdict, placement.new)
            return _News(update, placement.ids, placement.retracted, taken_back)
        timings.update(field.timings_ms)
        return _Idle(frame, "repeated", "", scale, field, verdict)

    def _record(self, news: _News, begun: float, timings: dict[str, float]) -> None:
        """Count a field, write it, then show it."""
        self._flush_stretch()
        self._sinks.warn(self._pipeline.warnings)
        update = news.update
        field, verdict, counted = update.field, update.verdict, update.counted
        timings = {**field.timings_ms, **timings}
        threshold = self._start.bundle.confidence_threshold
        with timed(timings, "count"):
            if counted.any():
                self._tally += Tally.of(field.cells.probabilities[counted], threshold)
            if len(news.taken_back):
                self._tally -= Tally.of(news.taken_back, threshold)
            self._differential = differential(self._tally, self._labels, self._scheme)
        if verdict.countable:
            self._counted += 1
        else:
            self._rejected[verdict.reason] += 1
        recorded = dict(timings)
        with timed(timings, "store"):
            number = self._store.add(
                field.frame,
                "counted" if verdict.countable else "rejected",
                verdict.reason,
                scale=field.scale,
                cells=field.cells,
                rows=np.arange(len(counted)) if news.ids is None else np.flatnonzero(counted),
                counted=counted,
                ids=news.ids,
                retracted=news.retracted,
                sharpness=verdict.sharpness,
                density=verdict.density,
                overlap_ratio=verdict.overlap_ratio,
                timings_ms=recorded,
                progress=self._progress(),
            )
        self._measure(begun, timings)
        status = self._status("counted" if verdict.countable else "rejected", verdict.reason)
        self._sinks.each(lambda sink: sink.append(replace(update, number=number), status))

    def _idle(self, idle: _Idle, begun: float, timings: dict[str, float]) -> None:
        """Count a picture without news; write it only when the state changed, or once a second."""
        if idle.field is not None:
            self._sinks.warn(self._pipeline.warnings)
        if idle.state == "repeated":
            self._repeated += 1
        else:
            self._rejected[idle.reason] += 1
        now = perf_counter()
        stretch = self._stretch
        if stretch is not None and stretch.key == (idle.state, idle.reason):
            stretch.frames += 1
            if now - stretch.written_s >= _HEARTBEAT_S:
                self._flush_stretch(end=False)
        else:
            self._flush_stretch()
            with timed(timings, "store"):
                verdict = idle.verdict
                self._store.add(
                    idle.frame,
                    idle.state,
                    idle.reason,
                    scale=idle.scale,
                    cells=None if idle.field is None else idle.field.cells,
                    sharpness=None if verdict is None else verdict.sharpness,
                    density=None if verdict is None else verdict.density,
                    overlap_ratio=None if verdict is None else verdict.overlap_ratio,
                    timings_ms=timings,
                    progress=self._progress(),
                )
            self._stretch = _Stretch((idle.state, idle.reason), 1, 1, now)
        self._measure(begun, timings)
        status = self._status(idle.state, idle.reason)
        self._sinks.each(lambda sink: sink.tick(idle.frame, status))

    def _flush_stretch(self, end: bool = True) -> None:
        """Write how many pictures the last row stands for."""
        stretch = self._stretch
        if stretch is None:
            return
        if stretch.frames > stretch.written:
            self._store.lengthen(stretch.frames, self._progress())
            stretch.written, stretch.written_s = stretch.frames, perf_counter()
        if end:
            self._stretch = None

    def _skip(self, gap: Gap) -> None:
        self._flush_stretch()
        self._skipped += 1
        self._settled = False
        self._store.skip(gap)
        status = self._status("lost", gap.reason)
        self._sinks.each(lambda sink: sink.skip(gap, status))

    def _measure(self, begun: float, timings: dict[str, float]) -> None:
        now = perf_counter()
        self._stages.add({**timings, "total": 1000 * (now - begun)})
        self._rate.tick(now)

    def _timings(self) -> dict[str, dict[str, float]]:
        now = perf_counter()
        if now - self._timing_s >= _REFRESH_S:
            self._timing, self._timing_s = self._stages.summary(), now
        return self._timing

    def _progress(self, whole: bool = False) -> dict[str, Any]:
        """What the record keeps of the running state; `whole`: at the end, worked out anew."""
        if whole:
            self._timing_s = float("-inf")
        elapsed = perf_counter() - self._begun_s
        return {
            "dropped": self._source.dropped,
            "fps": round(self._seen / elapsed, 3) if elapsed > 0 else 0.0,
            "elapsed_s": round(elapsed, 3),
            "timing_ms": self._timings(),
        }

    def _status(self, state: State, reason: str) -> Status:
        return Status(
            state=state,
            reason=reason,
            differential=self._differential,
            flags=flags(self._differential),
            warnings=self._sinks.warnings,
            seen=self._seen,
            counted=self._counted,
            repeated=self._repeated,
            rejected=dict(self._rejected),
            dropped=self._source.dropped,
            skipped=self._skipped,
            scale=self._pipeline.scale,
            fps=self._rate.per_second,
            elapsed_s=perf_counter() - self._begun_s,
            timing_ms=self._timings(),
        )
