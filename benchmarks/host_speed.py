"""How long the CPU pipeline takes per field and per cell.

    python benchmarks/host_speed.py [PICTURES...] [--json FILE]

Without pictures, fields of the simulated microscope are used. Reports, on this machine: every stage of a fresh
field (all cells classified) at 640x480 for the pictures with 65 to 85 cells; a resting field in the run loop;
and the paper's 17,954 cells (its Table 5: 11.0 s on a T4) through the classifier, on each crop side.
"""

import argparse
import json
import os
import platform
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from time import perf_counter

import cv2
import numpy as np

from rbcedge import bundle
from rbcedge.counting.grading import icsh_2015
from rbcedge.counting.ledger import Config, Ledger
from rbcedge.counting.quality import Gate
from rbcedge.engines import load_engines
from rbcedge.export import export
from rbcedge.frame import Frame
from rbcedge.pipeline.host import HostPipeline
from rbcedge.session import run
from rbcedge.simulator import Composition, Look, render_field
from rbcedge.sinks.base import Start
from rbcedge.sources import SourceOptions, open_source
from rbcedge.store import Setup, Store

PAPER_CELLS = 17_954


def pictures(paths: list[Path]) -> Iterator[np.ndarray]:
    """Yield BGR pictures of 640x480."""
    for path in paths:
        picture = cv2.imread(str(path))
        if picture is not None and picture.shape == (480, 640, 3):
            yield picture
    if not paths:
        for seed in range(24):
            rng = np.random.default_rng(seed)
            yield render_field(rng, 640, 480, look=Look(), composition=Composition(density=68)).pixels


def percentiles(samples: list[float]) -> dict[str, float]:
    """Summarise times in ms."""
    p50, p90, p99 = np.percentile(samples, [50, 90, 99])
    return {"n": len(samples), "p50": round(p50, 2), "p90": round(p90, 2), "p99": round(p99, 2)}


def fresh_fields(b: bundle.Bundle, threads: int, paths: list[Path]) -> dict:
    """Time fields in which every cell is new."""
    pipeline = HostPipeline(b, *load_engines(b, threads=threads), scale=1.0)
    stages, cells = defaultdict(list), []
    for n, picture in enumerate(pictures(paths)):
        for _ in range(2):  # the first pass warms up
            begun = perf_counter()
            field = pipeline.find(Frame(n, 0.0, picture, "bench"))
            field = pipeline.classify(field, np.arange(len(field.cells)))
            total = 1e3 * (perf_counter() - begun)
        if 65 <= len(field.cells) <= 85:
            cells.append(len(field.cells))
            for stage, ms in {**field.timings_ms, "total": total}.items():
                stages[stage].append(ms)
    if not cells:
        raise SystemExit("no picture of 640x480 with 65 to 85 cells")
    return {"fields": len(cells), "cells": float(np.median(cells)), **{k: percentiles(v) for k, v in stages.items()}}


def resting(b: bundle.Bundle, threads: int) -> dict:
    """Time the run loop on a field that rests, and on one that the stage moves over."""
    out = {}
    for name, uri in (
        ("rest", "sim:?pan=rest&speed=max&frames=300"),
        ("raster", "sim:?pan=raster&speed=max&frames=450"),
    ):
        with tempfile.TemporaryDirectory() as folder:
            segmenter, classifier = load_engines(b, threads=threads)
            source = open_source(uri, SourceOptions())
            scheme = icsh_2015()
            setup = Setup.of("bench", source.name, source.kind, b, "litert", "int8", 1.0, scheme)
            store = Store(Path(folder), setup)
            start = Start(
                source.name, source.kind, source.description, 0, b, "litert", "int8", 1.0, Path(folder), None, None
            )
            pipeline = HostPipeline(b, segmenter, classifier, 1.0)
            ledger = Ledger(Config(diameter_px=b.diameter_px))
            run(source, pipeline, Gate(), ledger, scheme, store, [], start, Event())
            store.close()
            summary = export(Path(folder))
            out[name] = summary.timing_ms["total"]
    return out


def paper_cells(b: bundle.Bundle, threads: int) -> dict:
    """Time the paper's number of test cells through the classifier."""
    _, classifier = load_engines(b, threads=threads)
    rng = np.random.default_rng(0)
    out = {}
    for side in sorted({b.small_crop_px, b.crop_px}):
        crops = rng.integers(0, 255, (PAPER_CELLS, side, side, 3), np.uint8)
        classifier.infer(crops[:64])
        begun = perf_counter()
        classifier.infer(crops)
        out[f"{side} px"] = round(perf_counter() - begun, 2)
    return out


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pictures", type=Path, nargs="*")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    b = bundle.load(bundle.default_folder())
    result = {
        "machine": f"{_processor()}, {args.threads} threads",
        "bundle": b.sha256[:12],
        "fresh field, ms": fresh_fields(b, args.threads, args.pictures),
        "run loop, ms per picture": resting(b, args.threads),
        f"{PAPER_CELLS:,} cells, s": paper_cells(b, args.threads),
    }
    text = json.dumps(result, indent=1)
    print(text)
    if args.json:
        args.json.write_text(text)


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = {line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")}
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    best = next((f for f in ("avx512_vnni", "avx_vnni", "avx512f", "avx2") if f in flags), "")
    return f"{' '.join(sorted(names)) or platform.processor()} ({platform.machine()} {best})"


if __name__ == "__main__":
    main()
