"""A made-up bundle, source and pipeline: dark discs are cells, their colour says the class."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Event

import cv2
import numpy as np
from numpy.typing import NDArray

from rbcedge.bundle import Bundle, load
from rbcedge.cells import components
from rbcedge.field import Field
from rbcedge.frame import Frame, Gap
from rbcedge.sources.base import Kind

CODES = ("NOR", "OVA", "TEA", "TWO")
# Grey levels of the discs, in the order of the codes; the doubtful one is nearest to the last.
LEVELS = (60, 80, 100, 120)
DOUBTFUL = 140


def make_bundle(folder: Path) -> Bundle:
    """Write a manifest without networks and load it."""
    folder.mkdir(parents=True, exist_ok=True)
    manifest = {
        "schema": 1,
        "name": "test",
        "created": "2026-01-01",
        "licence": "Apache-2.0",
        "labels": [
            {"code": "NOR", "name": "normal, rounded"},
            {"code": "OVA", "name": "ovalocyte", "significant": True},
            {"code": "TEA", "name": "teardrop", "significant": True},
            {"code": "TWO", "name": "two overlapped", "cells": 2},
        ],
        "scale": {"diameter_px": 38.0, "um_per_px": 0.19},
        "segmenter": {"scale": 1.0, "threshold": 0.5},
        "classifier": {"crop_px": 80, "confidence_threshold": 0.6, "temperature": 1.0},
        "artefacts": [],
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return load(folder)


def disc_picture(
    discs: Sequence[tuple[int, int, int]], size: tuple[int, int] = (320, 240), radius: int = 18
) -> NDArray[np.uint8]:
    """Draw discs (x, y, grey level) on light ground, (H, W, 3) uint8."""
    width, height = size
    out = np.full((height, width, 3), 230, np.uint8)
    for x, y, level in discs:
        cv2.circle(out, (x, y), radius, (level, level, level), -1, cv2.LINE_8)
    return out


def field_of_discs(k: int = 0, border: bool = True) -> NDArray[np.uint8]:
    """Twelve whole discs (seven NOR, two OVA, one TEA, one TWO, one doubtful), one cut by the left edge."""
    levels = [60] * 7 + [80, 80, 100, 120, DOUBTFUL]
    discs = [(45 + 60 * (i % 5), 40 + 60 * (i // 5), levels[(i + k) % 12]) for i in range(12)]
    if border:
        discs.append((5, 220, 60))
    return disc_picture(discs)


class DarkPipeline:
    """Cells are what is darker than 180; the class is told by the grey level at the centre."""

    name = "fake"
    precision = "fp32"

    def __init__(self, classes: int = len(CODES), scale: float = 1.0) -> None:
        self.scale = scale
        self._classes = classes
        self.warnings: tuple[str, ...] = ()
        self.searched = 0
        self.classified = 0

    def find(self, frame: Frame) -> Field:
        self.searched += 1
        mask = np.where(frame.pixels[:, :, 1] < 180, 255, 0).astype(np.uint8)
        labels, cells = components(mask, self._classes, min_area=20)
        return Field(frame, self.scale, mask, labels, cells, 0.0, {"segment": 1.5, "components": 0.5})

    def classify(self, field: Field, rows: NDArray[np.intp]) -> Field:
        self.classified += len(rows)
        p = np.empty((len(rows), self._classes), np.float32)
        for k, row in enumerate(rows):
            x, y = field.cells.centroids[row].round().astype(int)
            level = int(field.frame.pixels[y, x, 1])
            sure = 0.5 if level == DOUBTFUL else 0.91
            p[k] = (1 - sure) / (self._classes - 1)
            p[k, min(abs(np.array(LEVELS) - level).argmin(), self._classes - 1)] = sure
        cells = field.cells.with_probabilities(rows, p)
        return replace(field, cells=cells, timings_ms={**field.timings_ms, "classify": 2.0})

    def close(self) -> None:
        pass


class ListSource:
    """A source that gives what it was made with."""

    def __init__(
        self,
        items: Sequence[Frame | Gap | Exception],
        kind: Kind = "stills",
        stop_after: tuple[int, Event] | None = None,
        dropped: int = 0,
    ) -> None:
        self.items, self.kind, self.stop_after, self.dropped = list(items), kind, stop_after, dropped
        self.name = "pictures"
        self.description = f"pictures: {len(items)} pictures"
        self.closed = 0

    def __len__(self) -> int:
        return len(self.items) if self.kind == "stills" else 0

    def frames(self) -> Iterator[Frame | Gap]:
        for k, item in enumerate(self.items):
            if self.stop_after is not None and k == self.stop_after[0]:
                self.stop_after[1].set()
            if isinstance(item, Exception):
                raise item
            yield item

    def close(self) -> None:
        self.closed += 1


def stills(n: int) -> list[Frame]:
    """`n` different fields of discs."""
    return [Frame(k, 0.0, field_of_discs(k), f"slide/{k}.png") for k in range(n)]


class DarkSegmenter:
    """Stands in for the U-Net: cell is what is darker than 180 in the flat-fielded picture."""

    name = "litert"
    precision = "int8"
    input_shape = (1, 480, 640, 3)

    def infer(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        return (batch[..., 1:2] < 180).astype(np.float32)

    def close(self) -> None:
        pass


class LevelClassifier:
    """Stands in for EfficientNetB0: the class is told by the grey level of the disc."""

    name = "litert"
    precision = "int8"
    input_shape = (32, 80, 80, 3)

    def infer(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        out = np.empty((len(batch), len(CODES)), np.float32)
        for k, crop in enumerate(batch):
            level = float(np.median(crop[..., 1][crop[..., 1] > 0])) * 230 / 235
            sure = 0.5 if abs(level - DOUBTFUL) < 8 else 0.91
            out[k] = (1 - sure) / (len(CODES) - 1)
            out[k, np.abs(np.array(LEVELS) - level).argmin()] = sure
        return out

    def close(self) -> None:
        pass


def fake_engines(*_: object) -> tuple[DarkSegmenter, LevelClassifier]:
    """Takes the place of `rbcedge.engines.loading.load_engines`."""
    return DarkSegmenter(), LevelClassifier()


def write_pictures(folder: Path, n: int) -> Path:
    """Write `n` fields of discs as 0.png, 1.png, ..."""
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(n):
        cv2.imwrite(str(folder / f"{k}.png"), field_of_discs(k))
    return folder
