"""Does the run loop keep up with a camera over a slide that rests or is moved slowly? Target: 30 pictures a second.

    python benchmarks/moving_field.py [--speeds 0,0.5,1,2,3] [--frames 400] [--threads N]

A window of 640x480 slides over one large simulated field of the usual density: along it, down, and back, so that new
cells keep coming in at its edge. Speeds are native px for each picture at 30 pictures a second; above 100 px/s (3.3 a
picture) the ledger calls the stage moving and no network runs. Session, ledger, record on disk as at the microscope;
only the screen is left out. Prints, for each speed, pictures a second (one after another), latency, how many pictures
took longer than a camera's 33 ms, and what became of them. Exit code 1 where a speed stays below the target.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from rbcedge import bundle as bundles
from rbcedge.bench.fields import exact_field, usual_cells
from rbcedge.bench.hardware import machine
from rbcedge.bench.loops import turn
from rbcedge.engines.loading import cores, load_engines
from rbcedge.frame import Frame
from rbcedge.pipeline.host import HostPipeline

SIZE, FIELD = (640, 480), (1600, 960)
FPS, TARGET = 30.0, 30.0
WARM_UP = 10


class Window:
    """A source: a window that slides over a field at a steady speed, px for each picture; it ends with the field."""

    name, kind, description, dropped = "moving field", "video", "a window that slides", 0

    def __init__(self, field: NDArray[np.uint8], speed: float) -> None:
        self._field, self._speed = field, speed

    def __len__(self) -> int:
        return 0

    def place(self, way: float) -> tuple[int, int]:
        """Corner of the window after so many px: to the right, down, and to the left again."""
        right, below = FIELD[0] - SIZE[0], FIELD[1] - SIZE[1]
        if way <= right:
            return round(way), 0
        if way <= right + below:
            return right, round(way - right)
        return max(0, round(2 * right + below - way)), below

    def frames(self) -> Iterator[Frame]:
        end = 2 * (FIELD[0] - SIZE[0]) + FIELD[1] - SIZE[1]
        k = 0
        while self._speed * k <= end:
            x, y = self.place(self._speed * k)
            pixels = np.ascontiguousarray(self._field[y : y + SIZE[1], x : x + SIZE[0]])
            yield Frame(k, k / FPS, pixels, self.name)
            k += 1

    def close(self) -> None:
        pass


def main() -> None:
    """Measure and judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speeds", default="0,0.5,1,2,3", help="px for each picture, joined by commas")
    parser.add_argument("--frames", type=int, default=400)
    parser.add_argument("--threads", type=int, default=cores())
    args = parser.parse_args()
    try:
        speeds = [float(v) for v in args.speeds.split(",")]
    except ValueError:
        parser.error("--speeds: write numbers joined by commas, as 0,1,2.5")
    if args.frames < 2 or args.threads < 1 or not all(0 <= v < 100 for v in speeds):
        parser.error("--frames is 2 or more, --threads 1 or more, speeds are 0 to 100")
    bundle = bundles.load(bundles.default_folder())
    field = exact_field(1, *FIELD, usual_cells(*FIELD)).pixels
    print(
        f"{machine().lines[0]}, {args.threads} threads, {SIZE[0]}x{SIZE[1]}, about {usual_cells(*SIZE)} cells in view\n"
    )
    print("| px a picture | pictures | per s | p50 ms | p90 ms | p99 ms | over 33 ms | cells counted | became |")
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    slow = []
    for speed in speeds:
        engines = load_engines(bundle, threads=args.threads)
        pipeline = HostPipeline(bundle, *engines, 1.0)
        engine = (engines[0].name, engines[0].precision)
        whole = args.frames
        if speed:
            # A source that ended would begin anew, as another place of the slide.
            whole = min(whole, int((2 * (FIELD[0] - SIZE[0]) + FIELD[1] - SIZE[1]) / speed) - WARM_UP)
        meter, _ = turn(lambda speed=speed: Window(field, speed), pipeline, bundle, engine, whole, WARM_UP, fresh=False)
        pipeline.close()
        total = np.array(meter.total_ms)
        p50, p90, p99 = np.percentile(total, (50, 90, 99))
        became = ", ".join(f"{name} {n}" for name, n in sorted(meter.states.items(), key=lambda s: -s[1]))
        print(
            f"| {speed:g} | {len(total)} | {meter.loop.per_second:.0f} | {p50:.2f} | {p90:.1f} | {p99:.1f} "
            f"| {(total > 1e3 / FPS).mean():.1%} | {meter.counted} | {became} |",
            flush=True,
        )
        if meter.loop.per_second < TARGET:
            slow.append(speed)
    if slow:
        print(f"\nbelow {TARGET:.0f} pictures a second at {', '.join(f'{v:g}' for v in slow)} px a picture")
    sys.exit(1 if slow else 0)


if __name__ == "__main__":
    main()
