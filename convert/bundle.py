"""Putting a bundle together: networks converted, hashed, and described in a manifest."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rbcedge.convert.tflite import Precision, convert, write

from rbcedge.bundle import SCHEMA, Label, describe


def build(
    folder: Path,
    networks: Mapping[str, tuple[Callable[[], Any], list[NDArray[np.float32]], Sequence[NDArray[np.uint8]]]],
    manifest: Mapping[str, Any],
    labels: Sequence[Label],
    precisions: Sequence[Precision] = ("int8", "fp32"),
) -> None:
    """Convert both networks and write a bundle.

    Parameters
    ----------
    folder : Path
        Made where it is missing; the manifest is written last, so that a half-made bundle is none.
    networks : mapping of role to (build, weights, calibration)
        As `rbcedge.convert.tflite.convert` takes them.
    manifest : mapping
        Everything but schema, creation date, labels and artefacts.
    labels : sequence of Label
        In the order of the classifier's outputs.
    precisions : sequence of str
    """
    folder.mkdir(parents=True, exist_ok=True)
    artefacts = []
    for role, (make, weights, calibration) in networks.items():
        for precision in precisions:
            path = folder / f"{role}.{precision}.tflite"
            write(path, convert(make, weights, precision, calibration))
            artefacts.append(asdict(describe(role, "tflite", precision, path)))
    whole = {
        "schema": SCHEMA,
        "created": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        **manifest,
        "labels": [asdict(label) for label in labels],
        "artefacts": artefacts,
    }
    write(folder / "manifest.json", (json.dumps(whole, indent=1, ensure_ascii=False) + "\n").encode())
