"""Fields with instance labels, ready to learn from: real ones through the teacher, and simulated ones.

Each lesson is one ``.npz`` with `pixels` (H, W, 3) uint8 red, green, blue after flat field, as the networks see
it; `labels` (H, W) int32 instances; `ignore` (H, W) bool; and for the classifier `classes` (N,) int8 for
instance 1..N: an index into the codes, -1 where unknown.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rbcedge.training.datasets.chula import TO_PAPER, LabelledField
from rbcedge.training.teacher import teach, trust

from rbcedge.errors import RbcedgeError
from rbcedge.pipeline.illumination import estimate
from rbcedge.simulator import CODES as SIMULATED_CODES
from rbcedge.simulator import render_field

#: The paper's classes, in its order of Table 4.
CODES = ("OTH", "BUR", "FRA", "NOR", "OVA", "TEA", "THR", "TWO")
#: Red cells in an overlapped one; in all others there is one.
CELLS = {"TWO": 2, "THR": 3}


def seen(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return BGR `pixels` as the networks see them: flat-fielded, red, green, blue."""
    return np.ascontiguousarray(estimate(pixels).apply(pixels)[..., ::-1])


def classes_of(labels: NDArray[np.int32], field: LabelledField) -> NDArray[np.int8]:
    """Name each instance by the marked centres it holds: one is its class, two TWO, three THR, more unknown.

    An instance much larger than its neighbours with only one mark is unknown too: in partly marked fields
    such a thing is often an overlap.
    """
    n = int(labels.max())
    h, w = labels.shape
    areas = np.bincount(labels.ravel(), minlength=n + 1)[1:]
    typical = float(np.median(areas)) if n else 0.0
    reach = cv2.dilate(labels.astype(np.float32), np.ones((5, 5), np.uint8)).astype(np.int32)
    held: list[list[int]] = [[] for _ in range(n)]
    for (x, y), kind in zip(field.points, field.types, strict=True):
        y, x = min(max(int(y), 0), h - 1), min(max(int(x), 0), w - 1)
        i = labels[y, x] or reach[y, x]
        if i:
            held[i - 1].append(int(kind))
    out = np.full(n, -1, np.int8)
    for i, kinds in enumerate(held):
        if len(kinds) == 1 and areas[i] < 1.7 * typical:
            out[i] = CODES.index(TO_PAPER[kinds[0]])
        elif len(kinds) in (2, 3):
            out[i] = CODES.index("TWO" if len(kinds) == 2 else "THR")
    return out


def keep_split(folder: Path, seed: int, held_out: Sequence[LabelledField]) -> None:
    """Write which fields are held out beside the lessons; another split in the same folder is refused.

    Raises
    ------
    RbcedgeError
        Lessons of another split are there: learning from held-out fields would make every figure worthless.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "split.json"
    split = {"seed": seed, "held_out": [f.number for f in held_out]}
    if path.exists() and json.loads(path.read_text()) != split:
        raise RbcedgeError(f"{folder} holds lessons of another split (see {path.name}). Give another --work folder.")
    path.write_text(json.dumps(split))


def prepare_real(fields: Sequence[LabelledField], folder: Path, progress: Callable[[str], None] = print) -> None:
    """Write a lesson for every field; what the teacher cannot be trusted on is ignored by the segmenter."""
    folder.mkdir(parents=True, exist_ok=True)
    for field in fields:
        out = folder / f"{field.number:04d}.npz"
        if out.exists():
            continue
        picture = cv2.imread(str(field.picture))
        lesson = teach(picture)
        doubt = trust(lesson, field.points)
        if doubt:
            progress(f"{field.picture.name}: not for the segmenter: {doubt}")
        pixels, ignore = seen(picture), lesson.ignore | bool(doubt)
        write(out, _lesson(pixels, lesson.labels, ignore, classes_of(lesson.labels, field)))


def prepare_simulated(count: int, folder: Path, seed: int = 0, size: tuple[int, int] = (640, 480)) -> None:
    """Write `count` simulated lessons of random looks and compositions."""
    folder.mkdir(parents=True, exist_ok=True)
    table = np.array([CODES.index(c) for c in SIMULATED_CODES], np.int8)
    for i in range(count):
        out = folder / f"{seed}-{i:05d}.npz"
        if out.exists():
            continue
        view = render_field(np.random.default_rng((seed, i)), *size, overlays=bool(i % 2))
        ids, dense = np.unique(view.labels, return_inverse=True)
        dense = dense.reshape(view.labels.shape).astype(np.int32) + (0 if ids[0] == 0 else 1)
        order = {int(v): int(c) for v, c in zip(view.objects.ids, view.objects.codes, strict=True)}
        classes = np.array([table[order[int(v)]] for v in ids if v], np.int8)
        write(out, _lesson(seen(view.pixels), dense, np.zeros(dense.shape, bool), classes))


def _lesson(
    pixels: NDArray[np.uint8], labels: NDArray[np.int32], ignore: NDArray[np.bool_], classes: NDArray[np.int8]
) -> dict[str, NDArray[Any]]:
    return {"pixels": pixels, "labels": labels.astype(np.int16), "ignore": ignore, "classes": classes}


def write(path: Path, lesson: Mapping[str, NDArray[Any]]) -> None:
    """Write a lesson in one step."""
    temporary = path.with_name(f".{path.stem}.part.npz")
    np.savez(temporary, **lesson)
    temporary.replace(path)


def load(paths: Iterable[Path]) -> list[dict[str, NDArray[Any]]]:
    """Read lessons into memory."""
    out = []
    for path in paths:
        with np.load(path) as z:
            out.append({k: z[k] for k in z.files})
    return out
