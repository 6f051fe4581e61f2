"""Table 5 for data of one's own: the nine networks, each trained shortly, with parameters, size and time.

    rbcedge train cut CHULA CELLS
    python benchmarks/networks.py CELLS OUT

Trains each network of Table 5 by the paper's recipe, cut short (--epochs, --steps; one fold), converts it, and times
as many crops as the paper's test set has (17,954) in Keras, in LiteRT float32 and in LiteRT INT8. OUT/networks.csv and
OUT/networks.md gain a row as each network is done; called again, it goes on with those that are missing.

The accuracies compare short trainings from the same start on the same slides, nothing more.
"""

import argparse
import csv
import json
import os
import time
from pathlib import Path

import numpy as np

COLUMNS = (
    "network", "accuracy", "sensitivity", "precision", "f1", "parameters_m", "model_mb", "int8_mb", "train_s",
    "crops", "keras_s", "litert_fp32_s", "litert_int8_s", "int8_same_class",
)  # fmt: skip


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
    parser.add_argument("--crops", type=int, default=17954, help="crops to time")
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
            part.write_text(json.dumps(_row(name, args)))
            part.replace(path)
        _tables(args.out, list(NETWORKS))
    print((args.out / "networks.md").read_text())


def _row(name: str, args: argparse.Namespace) -> dict[str, float | str]:
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
    times = {"keras_s": _timed(lambda x: _keras(model, x), pixels)}
    classes = {}
    for precision in ("fp32", "int8"):
        path = args.out / name / f"classifier.{precision}.tflite"
        path.write_bytes(convert_classifier(run, precision, batch=32))
        engine = LiteRTEngine(path, precision, args.threads)
        times[f"litert_{precision}_s"] = _timed(engine.infer, pixels)
        classes[precision] = engine.infer(pixels[:512]).argmax(1)
        engine.close()
    return {
        "network": name,
        "accuracy": 100 * found.accuracy,
        "sensitivity": 100 * float(np.nanmean(found.sensitivity)),
        "precision": 100 * float(np.nanmean(found.precision)) if not np.isnan(found.precision).all() else float("nan"),
        "f1": 100 * found.macro_f1,
        "parameters_m": done.about["trainable"] / 1e6,
        "model_mb": done.about["model_bytes"] / 1e6,
        "int8_mb": (args.out / name / "classifier.int8.tflite").stat().st_size / 1e6,
        "train_s": done.about["folds"][0]["train_s"],
        "crops": args.crops,
        **times,
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

    def told(self, told: object) -> None:
        if told.row is not None:  # type: ignore[attr-defined]
            print(f"{self._name}: {told.row}", flush=True)  # type: ignore[attr-defined]


def _keras(model: object, pixels: np.ndarray) -> np.ndarray:
    out = []
    for start in range(0, len(pixels), 64):
        part = np.zeros((64, *pixels.shape[1:]), np.float32)
        count = len(pixels[start : start + 64])
        part[:count] = pixels[start : start + 64]
        out.append(model.predict_on_batch(part / 255)[:count])  # type: ignore[attr-defined]
    return np.concatenate(out)


def _timed(call: object, pixels: np.ndarray) -> float:
    call(pixels[:64])  # type: ignore[operator]
    start = time.perf_counter()
    call(pixels)  # type: ignore[operator]
    return time.perf_counter() - start


def _tables(out: Path, order: list[str]) -> None:
    rows = [json.loads((out / n / "row.json").read_text()) for n in order if (out / n / "row.json").exists()]
    with (out / "networks.csv").open("w", newline="") as f:
        writer = csv.DictWriter(f, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    lines += [
        "| " + " | ".join(f"{r[c]:.2f}" if isinstance(r[c], float) else str(r[c]) for c in COLUMNS) + " |" for r in rows
    ]
    (out / "networks.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
