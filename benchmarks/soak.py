"""Does memory grow, does latency drift? The run loop over very many pictures.

    python benchmarks/soak.py [--frames 100000] [--every 5000] [--json FILE]

The session runs as it does at the microscope: pipeline, gate, ledger, record on disk; nothing is drawn on a screen.
A stage goes round and round over one large simulated field: it rests at four places and pans between them. Pictures
are windows cut out of that field, so that drawing them costs nothing; after the first round every cell is in the
ledger, so that whatever grows afterwards is a leak and not the count. A picture is pure registration while the slide
moves, a search of the field after each stop, and nothing while it rests: the same mixture as in use.

Prints the resident memory and the median latency of each interval. Exit code 1 where memory grew by more than 1 %
after the warm-up (the first tenth), or the median of the last fifth exceeds that of the first fifth after the
warm-up by more than --drift.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from rbcedge import bundle as bundles
from rbcedge.bench.fields import exact_field
from rbcedge.bench.hardware import machine
from rbcedge.counting.grading import icsh_2015
from rbcedge.counting.ledger import Config, Ledger
from rbcedge.counting.quality import Gate
from rbcedge.engines.loading import load_engines
from rbcedge.frame import Frame, Gap
from rbcedge.pipeline.host import HostPipeline
from rbcedge.record import Setup
from rbcedge.session import run
from rbcedge.sinks.base import Start, Status, Update
from rbcedge.store import Store

SIZE = (640, 480)
FIELD = (1280, 800)
FPS = 30.0
REST, PAN = 60, 30
GROWTH = 0.01


class Round:
    """A source: a stage that goes round over one large field, as fast as it is read."""

    name, kind, description, dropped = "soak", "video", "a stage that goes round", 0

    def __init__(self, field: NDArray[np.uint8], frames: int) -> None:
        self._field, self._frames = field, frames
        self.handed_s = 0.0

    def __len__(self) -> int:
        return self._frames

    def places(self) -> Iterator[tuple[int, int]]:
        """Corner of the window for each picture, px, endless."""
        right, below = FIELD[0] - SIZE[0], FIELD[1] - SIZE[1]
        stops = [(0, 0), (right, 0), (right, below), (0, below)]
        while True:
            for k, (x, y) in enumerate(stops):
                u, v = stops[(k + 1) % len(stops)]
                yield from [(x, y)] * REST
                for step in range(1, PAN):
                    # Speeds up and slows down again, as a hand does.
                    t = (1 - np.cos(np.pi * step / PAN)) / 2
                    yield round(x + (u - x) * t), round(y + (v - y) * t)

    def frames(self) -> Iterator[Frame | Gap]:
        for k, (x, y) in enumerate(self.places()):
            if k == self._frames:
                return
            pixels = np.ascontiguousarray(self._field[y : y + SIZE[1], x : x + SIZE[0]])
            self.handed_s = perf_counter()
            yield Frame(k, k / FPS, pixels, self.name)

    def close(self) -> None:
        pass


class Gauge:
    """A sink that takes memory and latency."""

    name = "gauge"

    def __init__(self, source: Round, every: int) -> None:
        self._source, self._every = source, every
        self._seen = 0
        self._part: list[float] = []
        self.rows: list[dict[str, float]] = []
        self.status: Status | None = None

    def setup(self, start: Start) -> None:
        print("|  pictures | resident MB | p50 ms | p99 ms | cells |\n|---|---|---|---|---|", flush=True)

    def append(self, update: Update, status: Status) -> None:
        self._take(status)

    def tick(self, frame: Frame, status: Status) -> None:
        self._take(status)

    def skip(self, gap: Gap, status: Status) -> None:
        pass

    def close(self) -> None:
        pass

    def _take(self, status: Status) -> None:
        self._part.append(1e3 * (perf_counter() - self._source.handed_s))
        self._seen += 1
        self.status = status
        if self._seen % self._every == 0:
            gc.collect()
            p50, p99 = np.percentile(self._part, (50, 99))
            counted = status.differential.single + status.differential.overlapped + status.differential.unclassified
            row = {"pictures": self._seen, "mb": resident() / 2**20, "p50": p50, "p99": p99, "cells": counted}
            self.rows.append(row)
            print(f"| {self._seen} | {row['mb']:.1f} | {p50:.2f} | {p99:.1f} | {counted} |", flush=True)
            self._part.clear()


def resident() -> int:
    """Resident memory of this process, bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def soak(frames: int, every: int) -> list[dict[str, float]]:
    """Let the session count `frames` pictures; return memory and latency of each interval of `every`."""
    bundle = bundles.load(bundles.default_folder())
    picture = exact_field(1, *FIELD, 240).pixels
    segmenter, classifier = load_engines(bundle, threads=1)
    pipeline = HostPipeline(bundle, segmenter, classifier, 1.0)
    scheme, source = icsh_2015(), Round(picture, frames)
    gauge = Gauge(source, every)
    with tempfile.TemporaryDirectory(prefix="rbcedge-soak-") as folder:
        engine = (segmenter.name, segmenter.precision)
        store = Store(Path(folder), Setup.of("soak", source.name, source.kind, bundle, *engine, 1.0, scheme))
        start = Start(source.name, source.kind, source.description, frames, bundle, *engine, 1.0, Path(folder))
        ledger = Ledger(Config(diameter_px=bundle.diameter_px))
        try:
            run(source, pipeline, Gate(), ledger, scheme, store, [gauge], start, Event())
        finally:
            store.close()
            pipeline.close()
        on_disk = sum(p.stat().st_size for p in Path(folder).iterdir())
    print(f"\nrecord on disk: {on_disk / 1e6:.2f} MB for {frames} pictures")
    return gauge.rows


def judge(rows: list[dict[str, float]], drift: float) -> tuple[float, float, bool]:
    """Return growth of memory, drift of latency (shares, after the first tenth), and whether both are small."""
    after = rows[max(1, len(rows) // 10) :]
    if len(after) < 5:
        raise SystemExit("soak: too few intervals. Give more --frames, or a smaller --every.")
    fifth = max(1, len(after) // 5)
    grown = after[-1]["mb"] / after[0]["mb"] - 1
    first, last = (float(np.median([r["p50"] for r in part])) for part in (after[:fifth], after[-fifth:]))
    return grown, last / first - 1, grown <= GROWTH and last / first - 1 <= drift


def main() -> None:
    """Soak and judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=100_000)
    parser.add_argument("--every", type=int, default=5_000)
    parser.add_argument("--drift", type=float, default=0.2, help="share; wide, as other programs may run beside it")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.every < 1 or args.frames < 6 * args.every:
        parser.error("--frames must be at least six times --every")
    begun = perf_counter()
    rows = soak(args.frames, args.every)
    grown, drift, good = judge(rows, args.drift)
    print(f"{machine().lines[0]}, one thread; {args.frames} pictures in {perf_counter() - begun:.0f} s")
    print(f"after the warm-up: memory {grown:+.2%} (limit {GROWTH:+.0%}), median latency {drift:+.1%}")
    if args.json:
        args.json.write_text(json.dumps({"growth": grown, "drift": drift, "rows": rows}, indent=1))
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
