"""Is every cell counted once? The ledger against the simulator's exact truth, and on windows of large real fields.

    python benchmarks/ledger_exactness.py [--frames 600] [--real FOLDER]

The simulated stage pans, rests, jumps, returns, drifts and refocuses (programs "raster" and "wander"). "masks":
the simulator's own masks; "network": the shipped U-Net's. Due are cells that were whole in a picture that was
counted; missed and twice are shares of them. With --real, a 640x480 window moves over each picture of 1280x960
and the cells counted are held against the cells of the whole picture.
"""

import argparse
import itertools
from collections import Counter
from pathlib import Path

import cv2
import numpy as np

from rbcedge import bundle
from rbcedge.cells import components
from rbcedge.counting.ledger import Config, Ledger
from rbcedge.counting.quality import Gate
from rbcedge.engines import load_engines
from rbcedge.field import Field
from rbcedge.frame import Frame
from rbcedge.pipeline.host import HostPipeline
from rbcedge.simulator import Smear, View, program

WIDTH, HEIGHT = 640, 480


def exact(frame: Frame, view: View) -> Field:
    """Make the field a perfect segmentation would give."""
    labels, cells = components((view.labels > 0).astype(np.uint8), 8, 57, fill_holes=False)
    return Field(frame, 1.0, np.where(labels > 0, np.uint8(255), np.uint8(0)), labels, cells)


def named(field: Field) -> Field:
    """Give every cell some class: which one is no matter here."""
    rows = np.arange(len(field.cells))
    cells = field.cells.with_probabilities(rows, np.full((len(rows), 8), 1 / 8, np.float32))
    return Field(field.frame, field.scale, field.mask, field.labels, cells, field.foreign, field.timings_ms)


def owners(field: Field, view: View) -> np.ndarray:
    """For each cell of the field the simulated object it mostly lies on, -1 for none."""
    n = len(field.cells)
    ids, dense = np.unique(view.labels, return_inverse=True)
    dense = dense.reshape(view.labels.shape)
    shared = np.bincount(field.labels.ravel() * len(ids) + dense.ravel(), minlength=(n + 1) * len(ids))
    shared = shared.reshape(n + 1, len(ids))[1:]
    shared[:, ids == 0] = 0
    return np.where(shared.sum(1) > 0, ids[shared.argmax(1)], -1)


def simulated(name: str, seed: int, frames: int, fps: float, pipeline: HostPipeline | None) -> tuple[int, int, int]:
    """Run a stage program; return how many cells were due, missed, counted twice or more."""
    smear, stage = Smear(seed=seed), program(name, WIDTH, HEIGHT, seed)
    ledger, gate = Ledger(Config()), Gate()
    due: set[int] = set()
    counted: Counter[int] = Counter()
    owner_of: dict[int, int] = {}
    for i, pose in enumerate(itertools.islice(stage.poses(fps), frames)):
        view = smear.view(pose.x, pose.y, WIDTH, HEIGHT, focus=pose.focus, motion=pose.motion)
        frame = Frame(i, i / fps, view.pixels, "sim")
        motion = ledger.observe(frame, 1.0)
        if motion.moving:
            continue
        field = exact(frame, view) if pipeline is None else pipeline.find(frame)
        if not gate.judge(field, motion).countable:
            continue
        own = owners(field, view)
        whole = set(view.objects.ids[view.objects.whole].tolist())
        due |= {int(k) for k in own[~field.cells.on_border] if int(k) in whole}
        placement = ledger.place(field)
        ledger.commit(placement, named(field))
        new = np.flatnonzero(placement.new)
        for row in new:
            owner_of[int(placement.ids[row])] = int(own[row])
        # Parts of one cell that the network cut in two in one picture are its fault, not the ledger's.
        counted.update({int(own[row]) for row in new})
        counted.subtract(owner_of[int(k)] for k in placement.retracted)
    return len(due), sum(counted[k] < 1 for k in due), sum(counted[k] > 1 for k in due)


def windows(picture: np.ndarray, pipeline: HostPipeline) -> tuple[int, int]:
    """Pan a window over a large picture; return the cells of the whole picture and the cells counted."""
    whole = pipeline.find(Frame(0, 0.0, picture, "whole"))
    scale, step = pipeline.scale, (160, 120)
    fixed = HostPipeline(pipeline.bundle, *load_engines(pipeline.bundle), scale=scale)
    ledger, gate, count = Ledger(Config()), Gate(), 0
    h, w = picture.shape[:2]
    xs, ys = range(0, w - WIDTH + 1, step[0]), range(0, h - HEIGHT + 1, step[1])
    stops = [(x, y) for k, y in enumerate(ys) for x in (xs if k % 2 == 0 else reversed(xs))]
    for i, (x, y) in enumerate(s for s in stops for _ in range(2)):  # each stop rests for two pictures
        window = np.ascontiguousarray(picture[y : y + HEIGHT, x : x + WIDTH])
        frame = Frame(i, i / 10, window, "window")
        motion = ledger.observe(frame, scale)
        if motion.moving:
            continue
        field = fixed.find(frame)
        if not gate.judge(field, motion).countable:
            continue
        placement = ledger.place(field)
        ledger.commit(placement, named(field))
        count += int(placement.new.sum()) - len(placement.retracted)
    return int((~whole.cells.on_border).sum()), count


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=600)
    parser.add_argument("--real", type=Path)
    args = parser.parse_args()
    b = bundle.load(bundle.default_folder())
    print("| program | seed | segmentation | due | missed | twice |\n|---|---|---|---|---|---|", flush=True)
    for kind in ("masks", "network"):
        sums = np.zeros(3, int)
        for name, seed in (("raster", 1), ("wander", 2), ("wander", 6)):
            pipeline = HostPipeline(b, *load_engines(b), scale=1.0) if kind == "network" else None
            due, missed, twice = simulated(name, seed, args.frames, 10.0, pipeline)
            sums += (due, missed, twice)
            print(f"| {name} | {seed} | {kind} | {due} | {missed / due:.2%} | {twice / due:.2%} |", flush=True)
        print(f"| all | | {kind} | {sums[0]} | {sums[1] / sums[0]:.2%} | {sums[2] / sums[0]:.2%} |", flush=True)
    if args.real:
        totals = np.zeros(2, int)
        for path in sorted(args.real.rglob("*.[jJ][pP][gG]")):
            picture = cv2.imread(str(path))
            if picture is not None and picture.shape[:2] == (960, 1280):
                totals += windows(picture, HostPipeline(b, *load_engines(b)))
        print(f"\nreal pictures: {totals[0]} cells in whole fields, {totals[1]} counted through windows")


if __name__ == "__main__":
    main()
