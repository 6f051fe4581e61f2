"""The real run loop with a tap at each end: where a picture goes in, and where its count is on disk."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Thread
from time import perf_counter
from typing import Any

from rbcedge.bench.result import Loop
from rbcedge.bundle import Bundle
from rbcedge.counting.grading import icsh_2015
from rbcedge.counting.ledger import Config, Ledger
from rbcedge.counting.quality import Gate
from rbcedge.errors import RbcedgeError
from rbcedge.frame import Frame, Gap
from rbcedge.pipeline.base import Pipeline
from rbcedge.pipeline.gpu.base import Transfers
from rbcedge.record import Setup
from rbcedge.report.overlay import draw
from rbcedge.session import run
from rbcedge.sinks.base import Start, Status, Update
from rbcedge.sources.base import Kind, Source
from rbcedge.store import Store
from rbcedge.timing import timed

#: Pictures a second of the field held still; also the pace at which the run loop believes to see it.
_STILL_FPS = 30.0


class Metered:
    """A source that says when each picture was handed over, and what getting it cost.

    A source that ends is opened again until `pictures` were handed over, as often as it takes.

    Parameters
    ----------
    opener : callable
        Opens the source anew.
    pictures : int
    stop : Event
        Ends it before the next picture.

    Raises
    ------
    RbcedgeError
        From `frames`: a file source holds one picture only, or none.
    """

    def __init__(self, opener: Callable[[], Source], pictures: int, stop: Event) -> None:
        self._opener, self._pictures, self.stop = opener, pictures, stop
        self._source = opener()
        self._closed = False
        self.handed_s = 0.0
        self.capture_ms = 0.0
        self.different = 0
        self.skips: list[Gap] = []

    @property
    def name(self) -> str:
        return self._source.name

    @property
    def kind(self) -> Kind:
        return self._source.kind

    @property
    def description(self) -> str:
        return self._source.description

    @property
    def dropped(self) -> int:
        return self._source.dropped

    def __len__(self) -> int:
        return len(self._source)

    def frames(self) -> Iterator[Frame | Gap]:
        handed = 0
        while handed < self._pictures and not self._over():
            asked, before = perf_counter(), handed
            for item in self._source.frames():
                if isinstance(item, Gap):
                    if self.different == 0:
                        self.skips.append(item)
                    yield item
                    if self._over():
                        return
                    asked = perf_counter()
                    continue
                handed += 1
                # A live picture waits for nobody: what counts is how old it is.
                now = perf_counter()
                late = time.monotonic() - item.time_s if self.kind == "live" else now - asked
                self.capture_ms, self.handed_s = 1e3 * late, now
                yield item
                if handed == self._pictures or self._over():
                    return
                asked = perf_counter()
            if self._over():
                return
            got = handed - before
            if self.kind == "live":
                return
            if got < 2:
                self._complain(got)
            self.different = self.different or got
            self._source.close()
            self._source = self._opener()

    def _over(self) -> bool:
        return self._closed or self.stop.is_set()

    def _complain(self, got: int) -> None:
        if got:
            raise RbcedgeError(
                f"{self.name} holds one picture. A measurement needs at least two different ones: the same picture "
                "again and again would be measured from the cache. Give several pictures or a folder."
            )
        reason = f" {self.skips[0].source}: {self.skips[0].reason}." if self.skips else ""
        raise RbcedgeError(f"{self.name}: no picture could be read.{reason}")

    def close(self) -> None:
        self._closed = True
        self._source.close()


class Tap(Store):
    """A record that remembers what a field took, by stage, and what writing it took."""

    def __init__(self, folder: Path, setup: Setup) -> None:
        super().__init__(folder, setup)
        self.last_ms: dict[str, float] = {}

    def add(self, *args: Any, timings_ms: Mapping[str, float], **rest: Any) -> int:
        """Write a field; see `Store.add`."""
        self.last_ms = dict(timings_ms)
        with timed(self.last_ms, "store"):
            return super().add(*args, timings_ms=timings_ms, **rest)


class Meter:
    """A sink that takes the times of each picture. Its `append` is called when the count is on disk.

    Parameters
    ----------
    source : Metered
    store : Tap
    bundle : Bundle
    warm_up : int
        Pictures to leave out at the beginning.
    drawn : bool
        Whether each field is drawn with its cells, as `--save overlays` does, after its count.
    progress : callable
        Called with the number of pictures done.
    transfers : callable
        Says what a device has copied so far. Copies for drawing are left out of `moved`.
    """

    name = "measurement"

    def __init__(
        self,
        source: Metered,
        store: Tap,
        bundle: Bundle,
        warm_up: int,
        drawn: bool,
        progress: Callable[[int], None],
        transfers: Callable[[], Transfers],
    ) -> None:
        self._source, self._store, self._bundle = source, store, bundle
        self._warm_up, self._drawn, self._progress = warm_up, drawn, progress
        self._transfers, self._mark, self.moved = transfers, transfers(), Transfers()
        self._seen = 0
        self._begun = perf_counter()
        self._drops = 0
        self.total_ms: list[float] = []
        self.stages_ms: dict[str, list[float]] = defaultdict(list)
        self.cells: list[int] = []
        self.size = (0, 0)
        self.scale = 1.0
        self.counted = 0
        self.states: dict[str, int] = defaultdict(int)
        self.reasons: dict[str, int] = defaultdict(int)
        self.countable: Frame | None = None
        self.loop = Loop(())

    def setup(self, start: Start) -> None:
        pass

    def append(self, update: Update, status: Status) -> None:
        field = update.field
        counts = self._take(status)
        if update.verdict.countable and self.countable is None:
            self.countable = field.frame.kept()
        self.size = field.frame.size
        if not counts:
            return
        self.cells.append(len(field.cells))
        for stage, ms in self._store.last_ms.items():
            self.stages_ms[stage].append(ms)
        if self._drawn:
            timings: dict[str, float] = {}
            with timed(timings, "draw"):
                draw(field, self._bundle.codes, self._bundle.confidence_threshold)
            self.stages_ms["draw"].append(timings["draw"])
            self._mark = self._transfers()
        self._finish(status)

    def tick(self, frame: Frame, status: Status) -> None:
        self.size = frame.size
        if self._take(status):
            self._finish(status)

    def skip(self, gap: Gap, status: Status) -> None:
        pass

    def close(self) -> None:
        pass

    def _take(self, status: Status) -> bool:
        """Take the time of a picture; False while it is warming up."""
        now = perf_counter()
        self._seen += 1
        self._progress(self._seen)
        self.scale = status.scale
        self.counted = status.differential.counted
        if self._seen <= self._warm_up:
            self._begun, self._drops = now, status.dropped
            self._mark = self._transfers()
            return False
        moved = self._transfers()
        self.moved, self._mark = self.moved + (moved - self._mark), moved
        self.states[status.state] += 1
        if status.reason:
            self.reasons[status.reason] += 1
        # A stage that is a capture in every source keeps its place before all others.
        self.stages_ms["capture"].append(self._source.capture_ms)
        self.total_ms.append(self._source.capture_ms + 1e3 * (now - self._source.handed_s))
        return True

    def _finish(self, status: Status) -> None:
        self.loop = Loop(
            tuple(self.total_ms),
            {stage: tuple(values) for stage, values in self.stages_ms.items()},
            tuple(self.cells),
            perf_counter() - self._begun,
            status.dropped - self._drops,
            status.skipped,
        )


class Held:
    """A source of one picture that is shown again and again, as a camera over a slide at rest does."""

    name: str = "a field at rest"
    kind: Kind = "video"
    description: str = "one field at rest"
    dropped: int = 0

    def __init__(self, frame: Frame) -> None:
        self._frame = frame

    def __len__(self) -> int:
        return 0

    def frames(self) -> Iterator[Frame | Gap]:
        k = 0
        while True:
            yield Frame(k, k / _STILL_FPS, self._frame.pixels, self.name)
            k += 1

    def close(self) -> None:
        pass


def turn(
    opener: Callable[[], Source],
    pipeline: Pipeline,
    bundle: Bundle,
    engine: tuple[str, str],
    pictures: int,
    warm_up: int,
    *,
    fresh: bool,
    drawn: bool = False,
    stop: Event | None = None,
    progress: Callable[[int], None] = lambda _: None,
    transfers: Callable[[], Transfers] = Transfers,
) -> tuple[Meter, Metered]:
    """Let the run loop count `warm_up` + `pictures` pictures into a record of its own, and meter it.

    Parameters
    ----------
    opener : callable
        Opens the source; again when it ends.
    pipeline : Pipeline
    bundle : Bundle
    engine : (str, str)
        Name and precision, for the record.
    pictures, warm_up : int
    fresh : bool
        True: every picture is a field of its own, all its cells are classified (no ledger). False: as at the
        microscope, only what is new.
    drawn : bool
    stop : Event, optional
        Ends it early.
    progress : callable
    transfers : callable
        What the pipeline's device has copied so far.

    Returns
    -------
    Meter, Metered
        With the samples.
    """
    source = Metered(opener, warm_up + pictures, stop or Event())
    scheme = icsh_2015()
    with TemporaryDirectory(prefix="rbcedge-bench-") as folder:
        setup = Setup.of("bench", source.name, source.kind, bundle, *engine, None, scheme)
        store = Tap(Path(folder), setup)
        meter = Meter(source, store, bundle, warm_up, drawn, progress, transfers)
        start = Start(source.name, source.kind, source.description, 0, bundle, *engine, None, Path(folder), None, None)
        ledger = None if fresh else Ledger(Config(diameter_px=bundle.diameter_px))
        gate = Gate(diameter_px=bundle.diameter_px)
        try:
            # An event of its own: the run loop sets it at its end.
            run(source, pipeline, gate, ledger, scheme, store, [meter], start, _passed_on(source.stop))
        finally:
            store.close()
            source.close()
    return meter, source


def _passed_on(stop: Event) -> Event:
    """Return an event that is set soon after `stop` is; whoever sets it first ends the watch."""
    own = Event()

    def watch() -> None:
        while not own.wait(0.1):
            if stop.is_set():
                own.set()

    Thread(target=watch, name="rbcedge-bench-stop", daemon=True).start()
    return own
