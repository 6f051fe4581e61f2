"""Table 5 for data of one's own: the nine networks, each trained shortly, with parameters, size and time.

    rbcedge train cut CHULA CELLS
    python benchmarks/networks.py CELLS OUT

Trains each network of Table 5 by the paper's recipe, cut short (--epochs, --steps; one fold), converts it, and times
crops (--crops) in Keras, in LiteRT float32 and in LiteRT INT8; what is shown is scaled to the paper's 17,954 cells.
OUT/networks.csv and OUT/networks.md gain a row as each network is done; called again, it goes on where it was.

The accuracies compare short trainings from the same start on the same slides, nothing more. Seconds of CPU, over all
cores, say what a network costs where other work runs beside it.
"""

import argparse
import csv
import json
import os
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

#: What is timed, by its name in a row.
ENGINES = {"keras": "Keras", "litert_fp32": "LiteRT fp32", "litert_int8": "LiteRT INT8"}
Row = dict[str, Any]


def main() -> None:
    """Train, convert, time and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="set in the layout 'elsafty'")
    parser.add_argument("out", type=Path)
    parser.add_argument("--networks", default="all", help="comma-separated, or all")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--steps", type=int, default=100, help="batches of an epoch at the most")
    parser.add_argument("--weights", default="none", help="imagenet or none")
    parser.add_argument("--side", type=int, default=80)
    parser.add_argument("--crops", type=int, default=2048, help="crops to time")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    from rbcedge.training.needs import keras_or_error

    keras_or_error(("tensorflow",))
    import tensorflow as tf
    from rbcedge.training.networks import NETWORKS, chosen

    tf.config.threading.set_intra_op_parallelism_threads(args.threads)
    names = NETWORKS if args.networks == "all" else [n for part in args.networks.split(",") for n in chosen(part)]
    for name in names:
        path = args.out / name / "row.json"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_suffix(".part")
            part.write_text(json.dumps(_row(name, args), indent=1))
            part.replace(path)
        _write(args.out, [args.out / n / "row.json" for n in NETWORKS])
    print((args.out / "networks.md").read_text())


def _row(name: str, args: argparse.Namespace) -> Row:
    import keras
    from rbcedge.training import protocol
    from rbcedge.training.datasets.reading import read
    from rbcedge.training.measures import confusion, measure
    from rbcedge.training.protocol_bundle import convert_classifier
    from rbcedge.training.recipes import CLASSIFIER, limited

    from rbcedge.engines.litert import LiteRTEngine

    cells = read(args.data, "elsafty")
    settings = protocol.Settings(
        limited(CLASSIFIER["paper"], args.epochs, 0.9), args.weights, args.seed, steps=args.steps, side=args.side
    )
    run = args.out / name / "run"
    done = protocol.train_classifier(cells, run, name, settings, repetitions=1, folds=1, watch=_Lines(name))
    with done.table.open(newline="") as f:
        rows = list(csv.DictReader(f))
    codes = done.about["codes"]
    truth = np.array([codes.index(r["truth"]) for r in rows])
    guess = np.array([[float(r[f"p_{c}"]) for c in codes] for r in rows]).argmax(1)
    found = measure(confusion(truth, guess, len(codes)))
    with np.load(run / "calibration.npz") as z:
        pixels = np.resize(z["crops"], (args.crops, *z["crops"].shape[1:]))
    keras.backend.clear_session()
    model = keras.saving.load_model(run / "model.keras", compile=False)
    times = {"keras": _timed(lambda x: _keras(model, x), pixels)}
    classes, sizes = {}, {}
    for precision in ("fp32", "int8"):
        path = args.out / name / f"classifier.{precision}.tflite"
        path.write_bytes(convert_classifier(run, precision, batch=32))
        sizes[precision] = path.stat().st_size
        engine = LiteRTEngine(path, precision, args.threads)
        times[f"litert_{precision}"] = _timed(engine.infer, pixels)
        classes[precision] = engine.infer(pixels[:512]).argmax(1)
        engine.close()
    fold = done.about["folds"][0]
    return {
        "network": name,
        "accuracy": 100 * found.accuracy,
        "sensitivity": 100 * float(found.mean("sensitivity")),
        "precision": 100 * float(found.mean("precision")),
        "f1": 100 * found.macro_f1,
        "test_cells": len(rows),
        "epochs": fold["epochs"],
        "steps": args.steps,
        "weights": args.weights,
        "data_sha256": done.about["data"]["sha256"],
        "trainable": done.about["trainable"],
        "model_bytes": done.about["model_bytes"],
        "int8_bytes": sizes["int8"],
        "train_s": fold["train_s"],
        "crops": args.crops,
        "threads": args.threads,
        **{f"{k}_s": clock for k, (clock, _) in times.items()},
        **{f"{k}_cpu_s": cpu for k, (_, cpu) in times.items()},
        "int8_same_class": 100 * float((classes["int8"] == classes["fp32"]).mean()),
    }


class _Lines:
    """A watcher that prints a line for each epoch."""

    def __init__(self, name: str) -> None:
        self._name = name

    def reading(self, done: int, cells: int) -> None:
        pass

    def note(self, text: str) -> None:
        print(f"{self._name}: {text}", flush=True)

    def fold(self, name: str, number: int, folds: int) -> None:
        pass

    def told(self, told: Any) -> None:
        if told.row is not None:
            print(f"{self._name}: {told.row}", flush=True)


def _keras(model: Any, pixels: np.ndarray) -> np.ndarray:
    out = []
    for start in range(0, len(pixels), 64):
        part = np.zeros((64, *pixels.shape[1:]), np.float32)
        count = len(pixels[start : start + 64])
        part[:count] = pixels[start : start + 64]
        out.append(model.predict_on_batch(part / 255)[:count])
    return np.concatenate(out)


def _timed(call: Callable[[np.ndarray], object], pixels: np.ndarray) -> tuple[float, float]:
    """Seconds on the clock, and of CPU over all threads."""
    call(pixels[:64])
    clock, cpu = time.perf_counter(), time.process_time()
    call(pixels)
    return time.perf_counter() - clock, time.process_time() - cpu


def _write(out: Path, paths: list[Path]) -> None:
    """Table of the rows that are there, the paper's figures beside them."""
    from rbcedge.training.evaluation import paper
    from rbcedge.training.evaluation.tables import Table

    rows = [json.loads(p.read_text()) for p in paths if p.exists()]
    at = {c: i for i, c in enumerate(paper.TABLE_5_COLUMNS)}
    lines = []
    for r in rows:
        theirs = paper.TABLE_5[r["network"]]
        each = paper.TEST_CELLS / r["crops"]
        times = [f"{r[f'{k}_s'] * each:.1f} ({r[f'{k}_cpu_s'] * each:.1f})" for k in ENGINES]
        lines.append(
            (paper.NAMES[r["network"]], *(f"{r[k]:.1f}" for k in ("accuracy", "sensitivity", "precision", "f1")),
             f"{theirs[at['ACC']]:.1f}", f"{r['trainable'] / 1e6:.2f}", f"{theirs[at['M']]:.2f}",
             f"{r['model_bytes'] / 2**20:.1f}", f"{theirs[at['MB']]:.1f}", f"{r['int8_bytes'] / 2**20:.1f}",
             f"{r['train_s']:.0f}", *times, f"{theirs[at['test s']]:.1f}", f"{r['int8_same_class']:.1f}")
        )  # fmt: skip
    columns = (
        "network", "ACC %", "SN %", "PPV %", "F1 %", "ACC paper", "M", "M paper", "MB", "MB paper", "INT8 MB",
        "train s", *(f"{name} s (CPU s)" for name in ENGINES.values()), "T4 s paper", "INT8 same class %",
    )  # fmt: skip
    first = rows[0]
    notes = (
        f"{first['test_cells']:,} test cells of slides of their own (data sha256 {first['data_sha256'][:12]}). "
        f"Training: {first['epochs']} epochs of at most {first['steps']} batches of 32, one fold, first weights: "
        f"{first['weights']}.",
        f"Times: {paper.TEST_CELLS:,} crops, scaled from {first['crops']:,}, {first['threads']} threads, "
        f"{_machine()}; in brackets seconds of CPU over all threads.",
        "M: trainable parameters in millions. MB: 2^20 bytes; of the saved model with its optimiser, and of the INT8 "
        "file. INT8 same class: share of 512 training crops that INT8 and float32 call the same.",
        f"{date.today()}, `{' '.join(['python', *sys.argv])}`.",
    )
    table = Table("networks", "Networks (Table 5)", columns, tuple(lines), notes)
    (out / "networks.md").write_text(table.markdown(1) + "\n", encoding="utf-8")
    (out / "networks.csv").write_text(table.csv(), encoding="utf-8")


def _machine() -> str:
    from rbcedge.bench.hardware import machine

    here = machine()
    return f"{here.cpu or here.architecture} ({here.instructions})" if here.instructions else here.cpu


if __name__ == "__main__":
    main()
