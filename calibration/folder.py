"""A calibration set on disk: pictures as PNG, and a JSON file with the hash of each."""

from __future__ import annotations

import hashlib
import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rbcedge.calibration.chosen import CalibrationSet, CellPicture, FieldPicture

from rbcedge.errors import RbcedgeError

SCHEMA = 1
INDEX = "calibration.json"


def save(chosen: CalibrationSet, folder: Path) -> Path:
    """Write a set into a folder that does not exist yet or is empty; the index last, so that half a set is none.

    Returns
    -------
    Path
        Of the index.

    Raises
    ------
    RbcedgeError
        The folder cannot be written or holds something.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise RbcedgeError(f"{folder}: not empty. Give a new folder for the calibration set.")
        fields = [
            {
                **_write(folder, f"fields/{k:03d}.png", f.pixels),
                "source": f.source,
                "scale": f.scale,
                "figures": {name: round(v, 5) for name, v in f.figures.items()},
            }
            for k, f in enumerate(chosen.fields)
        ]
        cells = [
            {**_write(folder, f"cells/{c.code}/{k:04d}.png", c.pixels), "source": c.source, "code": c.code}
            for k, c in enumerate(chosen.cells)
        ]
        index = {
            "schema": SCHEMA,
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "bundle": chosen.bundle,
            "geometry": dict(chosen.geometry),
            "classes": dict(sorted(chosen.classes.items())),
            "fields": fields,
            "cells": cells,
            "left_out": [{"source": source, "reason": reason} for source, reason in chosen.left_out],
        }
        path = folder / INDEX
        part = path.with_suffix(".part")
        part.write_text(json.dumps(index, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise RbcedgeError(f"{folder}: the calibration set cannot be written ({error.strerror}).") from error
    return path


def load(folder: Path) -> CalibrationSet:
    """Read a set and check every file against its hash.

    Raises
    ------
    RbcedgeError
        Naming the file that is missing, changed or unreadable; also for an empty set and one of a single class.
    """
    path = folder / INDEX
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RbcedgeError(f"{folder} is no calibration set: {INDEX} cannot be read ({error.strerror}).") from error
    except ValueError as error:
        raise RbcedgeError(f"{path}: not readable as JSON ({error}). Make the set anew.") from error
    try:
        if index["schema"] != SCHEMA:
            raise ValueError(f"schema {index['schema']}, this version reads {SCHEMA}")
        chosen = CalibrationSet(
            tuple(
                FieldPicture(_read(folder, e), str(e["source"]), float(e["scale"]), dict(e["figures"]))
                for e in index["fields"]
            ),
            tuple(CellPicture(_read(folder, e), str(e["source"]), str(e["code"])) for e in index["cells"]),
            str(index["bundle"]),
            {str(k): float(v) for k, v in index["geometry"].items()},
            tuple((str(e["source"]), str(e["reason"])) for e in index["left_out"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"'{error.args[0]}' is missing" if isinstance(error, KeyError) else str(error)
        raise RbcedgeError(f"{path}: {what}. Make the set anew.") from error
    chosen.check()
    return chosen


def digest(chosen: CalibrationSet) -> str:
    """Hash of all pictures in their order: names the set in a manifest."""
    whole = hashlib.sha256()
    for picture in (*chosen.fields, *chosen.cells):
        whole.update(str(picture.pixels.shape).encode())
        whole.update(picture.pixels.tobytes())
    return whole.hexdigest()


def _write(folder: Path, name: str, pixels: NDArray[np.uint8]) -> dict[str, Any]:
    ok, data = cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
    if not ok:
        raise RbcedgeError(f"{folder / name}: cannot be encoded as PNG.")
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.tobytes())
    return {"file": name, "bytes": len(data), "sha256": hashlib.sha256(data.tobytes()).hexdigest()}


def _read(folder: Path, entry: dict[str, Any]) -> NDArray[np.uint8]:
    name = str(entry["file"])
    path = folder / name
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise RbcedgeError(f"{folder / INDEX}: {name} lies outside of the set.")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RbcedgeError(f"{path}: cannot be read ({error.strerror}). Make the calibration set anew.") from error
    if hashlib.sha256(data).hexdigest() != entry["sha256"]:
        raise RbcedgeError(f"{path}: content differs from {INDEX} (sha256). Make the calibration set anew.")
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if pixels is None:
        raise RbcedgeError(f"{path}: not a picture. Make the calibration set anew.")
    rgb: NDArray[np.uint8] = cv2.cvtColor(np.asarray(pixels, np.uint8), cv2.COLOR_BGR2RGB)
    return rgb
