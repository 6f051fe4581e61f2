"""Run folders made by hand, as `rbcedge train` would leave them (docs/training-files.md)."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

CODES = ("NOR", "TEA", "TWO")
#: cell, slide, scanner, truth; no cell of TWO on slide 5.
CELLS = (
    ("a1", "4", "2", "NOR"),
    ("a2", "4", "2", "TEA"),
    ("a3", "4", "2", "TWO"),
    ("a4", "4", "2", "NOR"),
    ("b1", "5", "1", "NOR"),
    ("b2", "5", "1", "TEA"),
)
#: What the two folds call the cells.
CALLS = (("NOR", "TEA", "TWO", "TEA", "NOR", "TEA"), ("NOR", "NOR", "TWO", "NOR", "NOR", "TEA"))


def classifier_run(
    folder: Path,
    network: str = "efficientnetb0",
    segmented: bool = True,
    weighted: bool = False,
    calls: Sequence[Sequence[str]] = CALLS,
    cells: Sequence[tuple[str, str, str, str]] = CELLS,
    codes: Sequence[str] = CODES,
    about: Mapping[str, Any] | None = None,
) -> Path:
    """Write a run in which the class that is called has 0.8, the others the rest."""
    folder.mkdir(parents=True, exist_ok=True)
    rest = 0.2 / (len(codes) - 1)
    with (folder / "predictions.csv").open("w", newline="") as f:
        out = csv.writer(f, lineterminator="\n")
        columns = ["cell", "slide", "scanner", "truth", *(f"p_{c}" for c in codes)]
        out.writerow([*columns, "fold", "repetition", "network", "segmented", "weighted", "train_s", "test_s"])
        for n, fold in enumerate(calls):
            for cell, call in zip(cells, fold, strict=True):
                p = [f"{0.8 if c == call else rest:.6f}" for c in codes]
                how = [n % 2 + 1, n // 2 + 1, network, int(segmented), int(weighted), 10 + n, 0.5]
                out.writerow([*cell, *p, *how])
    content = {
        "schema": 1, "finished": True, "task": "classifier", "network": network, "trainable": 4_000_000,
        "model_bytes": 47 * 2**20, "codes": list(codes), "segmented": segmented, "weighted": weighted,
        "recipe": {"name": "paper"}, "weights": "none", "data": {"folder": "set", "sha256": "0123456789abcdef"},
        "split": {"test": ["4", "5"], "folds": [{}] * len(calls)}, "machine": {"cpu": "a machine", "gpu": None},
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps({**content, **(about or {})}))
    return folder


def segmenter_run(
    folder: Path,
    network: str = "unet2",
    pixels: Sequence[Sequence[int]] = ((90, 10, 10, 290),) * 6,
    objects: Sequence[Sequence[int]] | None = ((1, 1),) * 5 + ((2, 0),),
) -> Path:
    """Write a run of a segmenter; `objects` holds objects and matched for each cell."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "segmentation.csv").open("w", newline="") as f:
        out = csv.writer(f, lineterminator="\n")
        columns = ["tp", "fp", "fn", "tn", *(("objects", "matched") if objects else ())]
        out.writerow(["cell", "slide", "scanner", "truth", *columns, "network", "train_s", "test_s"])
        for cell, counts, found in zip(CELLS, pixels, objects or ((),) * len(CELLS), strict=True):
            out.writerow([*cell, *counts, *found, network, 3, 0.5])
    content = {"schema": 1, "finished": True, "task": "segmenter", "network": network, "parameters": 120_000}
    (folder / "run.json").write_text(json.dumps(content))
    return folder
