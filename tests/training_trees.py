"""Small data sets on disk in the layouts that the readers know: discs of a size and colour for each class."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

FOLDERS = {"01_rounded_rbcs": 7, "03_teardrops": 4, "07_two_overlapping_cells": 10}
CODES = ("NOR", "TEA", "TWO")


def cell(rng: np.random.Generator, radius: int, side: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """A crop (side, side, 3) uint8 with a disc in its middle, and its mask (side, side) of 0 and 255."""
    yy, xx = np.mgrid[:side, :side]
    mask = ((xx - side // 2) ** 2 + (yy - side // 2) ** 2 <= radius**2).astype(np.uint8) * 255
    colour = np.array([90 + 5 * radius, 60, 150 - 8 * radius]) + rng.normal(0, 6, 3)
    pixels = np.where(mask[..., None] > 0, colour, 225) + rng.normal(0, 4, (side, side, 3))
    return np.clip(pixels, 0, 255).astype(np.uint8), mask


def elsafty(
    folder: Path,
    slides: Sequence[int] = tuple(range(1, 9)),
    each: int = 3,
    side: int = 32,
    folders: dict[str, int] = FOLDERS,
    suffix: str = ".png",
    trees: Sequence[str] = ("cropped images", "masks", "segmented cells"),
    xywh: bool = False,
    class_map: bool = True,
) -> Path:
    """Write `each` cells of every class and slide as `Slide 1 (1,93,472,116,497).png` in three parallel trees."""
    for slide in slides:
        rng = np.random.default_rng(slide)
        for name, radius in folders.items():
            for k in range(each):
                pixels, mask = cell(rng, radius, side)
                x, y = (int(v) for v in rng.integers(100, 500, 2))
                size = 2 * radius + 1
                numbers = (x, y, size, size) if xywh else (x, y, x + size, y + size)
                file = f"Slide {slide} ({k + 1},{','.join(map(str, numbers))})"
                pictures = {"crop": pixels, "mask": mask, "segm": pixels * (mask[..., None] > 0)}
                for tree in trees:
                    path = folder / tree / name / f"{file}{'.png' if 'mask' in tree else suffix}"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    assert cv2.imwrite(str(path), pictures[tree[:4]])
    if class_map:
        codes = {name: code for name, code in zip(FOLDERS, CODES, strict=True) if name in folders}
        (folder / "class_map.json").write_text(json.dumps({"folders": codes}))
    return folder


def bccd(folder: Path) -> Path:
    """A field with three VOC boxes."""
    (folder / "JPEGImages").mkdir(parents=True)
    (folder / "Annotations").mkdir()
    rng = np.random.default_rng(0)
    cv2.imwrite(str(folder / "JPEGImages" / "P7_BloodImage_00001.jpg"), rng.integers(0, 255, (120, 160, 3), np.uint8))
    boxes = [("RBC", 10, 20, 50, 62), ("WBC", 70, 10, 150, 100), ("Platelets", 5, 90, 20, 104)]
    objects = "".join(
        f"<object><name>{n}</name><bndbox><xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax><ymax>{d}</ymax></bndbox>"
        "</object>"
        for n, a, b, c, d in boxes
    )
    (folder / "Annotations" / "P7_BloodImage_00001.xml").write_text(f"<annotation>{objects}</annotation>")
    return folder


def folders(folder: Path, names: Sequence[str], each: int = 4, pattern: str = "P{k}_{i}.png") -> Path:
    """A plain folder for each class; `pattern` names the files from patient k and number i."""
    rng = np.random.default_rng(0)
    for c, name in enumerate(names):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(each):
            pixels, _ = cell(rng, 4 + 3 * c)
            cv2.imwrite(str(folder / name / pattern.format(k=i, i=i)), pixels)
    return folder
