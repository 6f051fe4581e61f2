"""A bundle from a run: its classifier, converted, beside the segmenter of another bundle."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import warnings
import zipfile
from dataclasses import asdict
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rbcedge.convert.tflite import Precision, convert, write
from rbcedge.training import networks, protocol_files
from rbcedge.training.export import BATCH, NAMES, SIGNIFICANT
from rbcedge.training.lessons import CELLS
from rbcedge.training.weights import read_weights

from rbcedge.bundle import SCHEMA, Bundle, Label, default_folder, describe, load
from rbcedge.errors import RbcedgeError

PRECISIONS: tuple[Precision, ...] = ("int8", "fp32")


def bundle(run: Path, folder: Path, base: Path | None = None, name: str | None = None) -> None:
    """Write the bundle `folder` from a finished run of `train_classifier`.

    The segmenter is that of `base`. A bundle has one native scale, that of the crops: where the run's cells are
    smaller or larger than those of `base`, the segmenter's working resolution is changed so that it still sees its own.

    Parameters
    ----------
    run : Path
    folder : Path
        Must be new or empty.
    base : Path, optional
        A bundle; the one that comes with the package by default.
    name : str, optional

    Raises
    ------
    RbcedgeError
        Where the run is not a finished one of a classifier, or scales do not go together.
    """
    about = _finished(run)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RbcedgeError(f"{folder} is not empty. Give a new folder.")
    start = load(base or default_folder())
    diameter = float(about["diameter_px"] or start.diameter_px)
    scale = start.segmenter_scale * start.diameter_px / diameter
    if scale > 1:
        raise RbcedgeError(
            f"The run's cells are {diameter:.0f} px wide, those of {start.name} {start.diameter_px:.0f} px at "
            f"{start.segmenter_scale:g} of native resolution: pictures would have to be enlarged. Give another --base."
        )
    folder.mkdir(parents=True, exist_ok=True)
    artefacts = _segmenter(start, folder)
    for precision in PRECISIONS:
        path = folder / f"classifier.{precision}.tflite"
        write(path, convert_classifier(run, precision))
        artefacts.append(asdict(describe("classifier", "tflite", precision, path)))
    manifest = _manifest(about, start, name, diameter, scale, artefacts)
    write(folder / "manifest.json", (json.dumps(manifest, indent=1, ensure_ascii=False) + "\n").encode())


def convert_classifier(run: Path, precision: Precision, batch: int = BATCH) -> bytes:
    """Convert the best fold of a finished run to TFLite; INT8 is calibrated on the crops that the run kept.

    Raises
    ------
    RbcedgeError
        Where the run is not a finished one of a classifier.
    """
    about = _finished(run)
    make = partial(networks.classifier, about["network"], len(about["codes"]), "none", about["crop_px"], batch)
    weights = read_weights(run / "folds" / about["best"] / "weights.npz")
    # The converter prints its signature, and misses statistics that INT8 inputs do not need.
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return convert(make, weights, precision, _calibration(run / "calibration.npz", batch))


def _finished(run: Path) -> dict[str, Any]:
    about = protocol_files.read(run / "run.json")
    if about["task"] != "classifier" or not about["finished"]:
        raise RbcedgeError(f"{run}: a finished run of 'rbcedge train classifier' is needed.")
    return about


def _segmenter(start: Bundle, folder: Path) -> list[dict[str, Any]]:
    out = []
    for artefact in start.artefacts:
        if artefact.role == "segmenter" and artefact.format != "engine":
            shutil.copyfile(start.path(artefact), folder / artefact.file)
            out.append(asdict(artefact))
    return out


def _calibration(path: Path, batch: int) -> list[NDArray[np.uint8]]:
    """The crops that the run kept for this, in batches of one size: the last is filled from the beginning."""
    try:
        with path.open("rb") as f, np.load(f) as z:
            crops: NDArray[np.uint8] = z["crops"]
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as e:
        raise RbcedgeError(f"{path}: cannot be read ({e}); INT8 is calibrated on it.") from e
    rows = np.resize(np.arange(len(crops)), -(-len(crops) // batch) * batch).reshape(-1, batch)
    return [crops[r] for r in rows]


def _manifest(
    about: dict[str, Any],
    start: Bundle,
    name: str | None,
    diameter: float,
    scale: float,
    artefacts: list[dict[str, Any]],
) -> dict[str, Any]:
    labels = [Label(c, NAMES.get(c, c), c in SIGNIFICANT, CELLS.get(c, 1)) for c in about["codes"]]
    whole = start.manifest
    return {
        "schema": SCHEMA,
        "created": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        "name": name or f"{about['network']}-{about['recipe']['name']}",
        "licence": whole["licence"],
        "training": {
            "classifier": {
                k: about[k] for k in ("network", "recipe", "seed", "segmented", "weighted", "data", "split")
            },
            "segmenter": {"bundle": start.name, "sha256": start.sha256, "training": whole.get("training", {})},
        },
        "scale": {"diameter_px": diameter, "um_per_px": start.um_per_px * start.diameter_px / diameter},
        "segmenter": {**whole["segmenter"], "scale": scale},
        "classifier": {
            "network": about["network"],
            "crop_px": about["crop_px"],
            # Laid out for one side only.
            "small_crop_px": about["crop_px"],
            "rim_px": 0,
            "confidence_threshold": 0.5,
            "temperature": 1.0,
            "input": "RGB 0-255, zero outside of the cell",
        },
        "measured": {"test_slides": about["split"]["test"], "folds": about["folds"]},
        "labels": [asdict(label) for label in labels],
        "artefacts": artefacts,
    }
