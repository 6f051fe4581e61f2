"""What a run leaves on disk; `docs/training-files.md` defines it."""

from __future__ import annotations

import importlib
import json
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rbcedge.training.datasets.cellset import LabelledCell
from rbcedge.training.protocol_fit import write_csv, write_text
from rbcedge.training.segmentation_scores import parts

from rbcedge.errors import RbcedgeError

SCHEMA = 1
#: What may differ between the beginning of a run and its continuation.
_LOOSE = ("finished", "folds", "versions", "command", "machine", "parameters", "trainable", "model_bytes")


def finished(out: Path, about: Mapping[str, Any]) -> bool:
    """Say whether the run `about` is finished in `out`; nothing is written.

    Raises
    ------
    RbcedgeError
        Where another run is there, or things that are no run.
    """
    path = out / "run.json"
    if path.exists():
        there = read(path)
        mine = json.loads(json.dumps(about))
        differ = [k for k in mine if k not in _LOOSE and there.get(k) != mine[k]]
        if differ:
            raise RbcedgeError(
                f"{out} holds another run: {_difference(differ[0], there.get(differ[0]), mine[differ[0]])}. "
                "Give another --out."
            )
        return bool(there["finished"])
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RbcedgeError(f"{out} is not empty and holds no run. Give another --out.")
    return False


def begin(out: Path, about: Mapping[str, Any]) -> None:
    """Write ``run.json`` where `finished` found none."""
    if not (out / "run.json").exists():
        out.mkdir(parents=True, exist_ok=True)
        write_run(out, about)


def read(path: Path) -> dict[str, Any]:
    """Read a ``run.json``.

    Raises
    ------
    RbcedgeError
        Where it cannot be read or is of another schema.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise RbcedgeError(f"{path}: cannot be read ({e}).") from e
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        raise RbcedgeError(f"{path}: not the record of a run of this version (schema {SCHEMA}).")
    return found


def write_run(out: Path, about: Mapping[str, Any]) -> None:
    """Write ``run.json``."""
    write_text(out / "run.json", json.dumps(dict(about), indent=1, ensure_ascii=False) + "\n")


def _difference(key: str, there: Any, mine: Any) -> str:
    if isinstance(there, dict) and isinstance(mine, dict):
        inner = next(k for k in [*mine, *there] if there.get(k) != mine.get(k))
        return _difference(f"{key}.{inner}", there.get(inner), mine.get(inner))
    short = [s if len(s) <= 60 else s[:57] + "..." for s in (str(there), str(mine))]
    return f"{key} is {short[0]} there, {short[1]} now"


def prediction_columns(codes: Sequence[str]) -> tuple[str, ...]:
    """Columns of ``predictions.csv``."""
    return (
        "cell", "slide", "scanner", "truth", *(f"p_{c}" for c in codes), "fold", "repetition", "network",
        "segmented", "weighted", "train_s", "test_s",
    )  # fmt: skip


def prediction_rows(
    cells: Sequence[LabelledCell], codes: Sequence[str], probabilities: NDArray[np.float32], same: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """One row for each cell; `same` holds what all rows share."""
    return [
        {
            "cell": c.id,
            "slide": c.slide,
            "scanner": c.scanner or "",
            "truth": c.code,
            **{f"p_{code}": f"{v:.6f}" for code, v in zip(codes, p, strict=True)},
            **same,
        }
        for c, p in zip(cells, probabilities, strict=True)
    ]


SEGMENTATION = (
    "cell", "slide", "scanner", "truth", "tp", "fp", "fn", "tn", "objects", "matched", "network", "train_s", "test_s",
)  # fmt: skip


def segmentation_rows(
    cells: Sequence[LabelledCell], truth: NDArray[np.uint8], guess: NDArray[np.bool_], same: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """One row for each cell, from (N, side, side) masks."""
    true = truth > 0

    def count(which: NDArray[np.bool_]) -> NDArray[np.int64]:
        return which.reshape(len(which), -1).sum(1)

    tp, fp, fn = count(true & guess), count(~true & guess), count(true & ~guess)
    tn = true[0].size - tp - fp - fn
    found = [parts(t, g) for t, g in zip(true, guess, strict=True)]
    return [
        {
            "cell": c.id, "slide": c.slide, "scanner": c.scanner or "", "truth": c.code,
            "tp": int(tp[i]), "fp": int(fp[i]), "fn": int(fn[i]), "tn": int(tn[i]),
            "objects": found[i][0], "matched": int(found[i][1]), **same,
        }
        for i, c in enumerate(cells)
    ]  # fmt: skip


def finish_fold(folder: Path, columns: tuple[str, ...], rows: list[dict[str, Any]], about: Mapping[str, Any]) -> None:
    """Write a fold's rows, then the mark that it is done, then drop its checkpoint."""
    write_csv(folder / "test.csv", columns, rows)
    write_text(folder / "fold.json", json.dumps(dict(about), indent=1) + "\n")
    (folder / "checkpoint.npz").unlink(missing_ok=True)


def fold_done(folder: Path) -> dict[str, Any] | None:
    """What `finish_fold` wrote, or None."""
    path = folder / "fold.json"
    if not path.exists():
        return None
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def join(out: Path, name: str, folds: Sequence[str]) -> None:
    """Put the folds' tables together: header once, rows fold by fold."""
    text = []
    for k, fold in enumerate(folds):
        lines = (out / "folds" / fold / "test.csv").read_bytes().decode().splitlines(keepends=True)
        text += lines if k == 0 else lines[1:]
    write_text(out / name, "".join(text))


def versions() -> dict[str, str]:
    """Versions of what decides the result."""
    from importlib.metadata import PackageNotFoundError, version

    import cv2
    import keras

    try:
        own = version("rbcedge")
    except PackageNotFoundError:
        own = "not installed"
    backend = keras.backend.backend()
    return {
        "rbcedge": own,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "opencv": cv2.__version__,
        "keras": keras.__version__,
        backend: str(getattr(importlib.import_module(backend), "__version__", "unknown")),
    }


def machine() -> dict[str, Any]:
    """CPU, threads and GPU."""
    import keras

    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [x.split(":", 1)[1].strip() for x in info.read_text().splitlines() if x.startswith("model name")]
        cpu = names[0] if names else cpu
    if keras.backend.backend() == "jax":
        import jax

        gpu = next((d.device_kind for d in jax.devices() if d.platform == "gpu"), None)
    else:
        import tensorflow as tf

        found = tf.config.list_physical_devices("GPU")
        gpu = tf.config.experimental.get_device_details(found[0]).get("device_name") if found else None
    return {"cpu": cpu, "threads": os.cpu_count(), "gpu": gpu}
