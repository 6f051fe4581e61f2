"""Accuracy and latency of U-Nets of several widths, working resolutions and up-samplings after equal, short training.

    python benchmarks/segmenter_curve.py runs/lessons --steps 400

Each network is trained on the same lessons for the same number of steps, converted to INT8 and timed on one
640x480 field; IoU and instance F1 are against held-out real lessons (the teacher's masks) and against simulated
fields nobody was trained on (exact truth). Prints a Markdown table.
"""

import argparse
import os
import platform
import tempfile
from functools import partial
from pathlib import Path
from time import perf_counter

import cv2
import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from rbcedge.convert.tflite import convert, write
from rbcedge.training.lessons import load
from rbcedge.training.networks import unet
from rbcedge.training.segmentation_scores import Overlap, compare
from rbcedge.training.segmenter import train
from rbcedge.training.weights import read_weights

from rbcedge.cells import components
from rbcedge.engines.litert import LiteRTEngine

NETWORKS = [
    (4, 0.5, "transpose"),
    (8, 0.5, "transpose"),
    (16, 0.5, "transpose"),
    (8, 0.33, "transpose"),
    (8, 0.5, "paper"),
]


def score(engine: LiteRTEngine, lessons: list[dict], scale: float) -> Overlap:
    """Segment lessons and compare with their labels."""
    total = Overlap()
    for lesson in lessons:
        h, w = lesson["labels"].shape
        size = (round(w * scale), round(h * scale))
        small = cv2.resize(lesson["pixels"], size, interpolation=cv2.INTER_AREA)
        padded = cv2.copyMakeBorder(small, 0, -size[1] % 16, 0, -size[0] % 16, cv2.BORDER_REPLICATE)
        probability = engine.infer(padded[None])[0, : size[1], : size[0], 0]
        mask = (cv2.resize(probability, (w, h)) >= 0.5).astype(np.uint8)
        total = total + compare(lesson["labels"], components(mask, 1, 57)[0], lesson["ignore"])
    return total


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("lessons", type=Path)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    args = parser.parse_args()
    real = [x for x in load(sorted((args.lessons / "training").glob("[0-9]*.npz"))[::3]) if x["ignore"].mean() < 0.9]
    simulated = load(sorted((args.lessons / "simulated").glob("[0-9]*.npz")))
    held_out = [
        x for x in load(sorted((args.lessons / "held-out").glob("[0-9]*.npz"))[::3]) if x["ignore"].mean() < 0.9
    ]
    unseen, simulated = simulated[:30], simulated[30::3]
    print(f"{platform.machine()}, {args.threads} threads, {args.steps} steps of training each\n", flush=True)
    print("| width | resolution | up-sampling | parameters | INT8 ms | real IoU | F1 | simulated IoU | F1 |")
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    for width, scale, upsampling in NETWORKS:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder)
            train(real, simulated, out, width, 4, upsampling, scale, args.steps)
            h, w = round(480 * scale), round(640 * scale)
            h, w = h + -h % 16, w + -w % 16
            make = partial(unet, width, 4, upsampling, (h, w, 3), 1)
            pictures = [cv2.resize(x["pixels"], (w, h), interpolation=cv2.INTER_AREA)[None] for x in real[::12]]
            path = out / "unet.tflite"
            write(path, convert(make, read_weights(out / "weights.npz"), "int8", pictures))
            engine = LiteRTEngine(path, "int8", args.threads)
            a, b = score(engine, held_out, scale), score(engine, unseen, scale)
            times = []
            for _ in range(30):
                begun = perf_counter()
                engine.infer(pictures[0])
                times.append(1e3 * (perf_counter() - begun))
            count = make().count_params()
            print(
                f"| {width} | {scale} | {upsampling} | {count:,} | {np.median(times):.1f} | {a.iou:.4f} "
                f"| {a.instance_f1:.4f} | {b.iou:.4f} | {b.instance_f1:.4f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
