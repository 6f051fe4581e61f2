"""The paper's protocol (sections 4.2 to 4.4): networks trained over folds of slides, tested on slides of their own.

A run over all folds goes on where it was interrupted, and comes to the same result; see `docs/training-files.md` for
what it leaves.
"""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray
from rbcedge.training import imagenet_lite, networks, protocol_files
from rbcedge.training.datasets import pictures, splits
from rbcedge.training.datasets.cellset import CellSet
from rbcedge.training.datasets.pictures import Crops
from rbcedge.training.datasets.splits import Fold, Split
from rbcedge.training.protocol_batches import Part
from rbcedge.training.protocol_fit import Told, Trainee, fit, repeatable, write_text
from rbcedge.training.recipes import Recipe, Unet
from rbcedge.training.weights import read_weights

from rbcedge.errors import RbcedgeError

#: Cells whose masks are looked at for the diameter.
_MEASURED = 500
#: Cells kept for the calibration of INT8, spread over the classes.
_CALIBRATION = 512


class Watcher(Protocol):
    """Whoever shows progress."""

    def reading(self, done: int, cells: int) -> None:
        """So many of the cells' pictures are read."""

    def note(self, text: str) -> None:
        """Something worth a line."""

    def fold(self, name: str, number: int, folds: int) -> None:
        """A fold begins; `number` from 1."""

    def told(self, told: Told) -> None:
        """A batch is done."""


class Quiet:
    """A watcher that shows nothing."""

    def reading(self, done: int, cells: int) -> None:
        """See `Watcher`."""

    def note(self, text: str) -> None:
        """See `Watcher`."""

    def fold(self, name: str, number: int, folds: int) -> None:
        """See `Watcher`."""

    def told(self, told: Told) -> None:
        """See `Watcher`."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What both kinds of training share.

    Attributes
    ----------
    recipe : Recipe
    weights : str
        "imagenet", "lite0", "none" or a weights file to start from.
    seed : int
    test : tuple of str or None
        Test slides; None: see `splits.for_classifier`.
    steps : int or None
        Batches of an epoch at the most.
    side : int
        Side of the crops, px.
    board : bool
        Write logs for TensorBoard.
    """

    recipe: Recipe
    weights: str = "none"
    seed: int = 0
    test: tuple[str, ...] | None = None
    steps: int | None = None
    side: int = 80
    board: bool = False


@dataclass(frozen=True, slots=True)
class Done:
    """A finished run.

    Attributes
    ----------
    out : Path
    table : Path
        ``predictions.csv`` or ``segmentation.csv``.
    about : dict
        The contents of ``run.json``.
    """

    out: Path
    table: Path
    about: dict[str, Any]


def class_weights(counts: Sequence[int]) -> NDArray[np.float32]:
    """Weight of each class: total / (its count x number of classes) (Eq. 1)."""
    n = np.asarray(counts, np.float64)
    return (n.sum() / (n * len(n))).astype(np.float32)


def train_classifier(
    cells: CellSet,
    out: Path,
    network: str,
    settings: Settings,
    segmented: bool = True,
    weighted: bool = False,
    repetitions: int = 5,
    folds: int = 2,
    watch: Watcher | None = None,
) -> Done:
    """Train one network over all folds and test each on the test slides (section 4.3).

    Parameters
    ----------
    cells : CellSet
    out : Path
        Run folder; holding the same run unfinished, that run goes on.
    network : str
        As in `networks.NETWORKS`.
    settings : Settings
    segmented : bool
        Set everything but the cell to zero.
    weighted : bool
        Weight the loss by class (Eq. 1).
    repetitions, folds : int
        5 and 2: 5x2 cross-validation.
    watch : Watcher, optional

    Raises
    ------
    RbcedgeError
        Wherever something does not fit together; nothing that is done is lost.
    """
    watch = watch or Quiet()
    name = networks.network(network).name
    splits.refuse_empty(cells)
    splits.slides_of(cells)
    crops = _read(cells, segmented, False, settings, watch)
    cells = replace(cells, cells=crops.cells)
    split = splits.for_classifier(cells, repetitions, folds, settings.seed, settings.test)
    repeatable(settings.seed)
    about = _about("classifier", name, cells, split, settings, segmented=segmented, weighted=weighted)
    if protocol_files.finished(out, about):
        watch.note(f"{out}: this run is finished already")
        return Done(out, out / "predictions.csv", protocol_files.read(out / "run.json"))
    # Built before anything is written: where weights cannot be had, the folder stays free for the next try.
    model = networks.classifier(
        name, len(cells.codes), settings.weights, settings.side, dropout=settings.recipe.dropout
    )
    protocol_files.begin(out, about)
    _problems(out, cells, crops, split, watch)
    targets = np.array([cells.codes.index(c.code) for c in cells.cells], np.int64)
    columns = protocol_files.prediction_columns(cells.codes)

    def test(trainee: Trainee, rows: NDArray[np.int64], fold: Fold, train_s: float) -> list[dict[str, Any]]:
        guess, test_s = _timed(trainee, crops.pixels[rows])
        same = {
            "fold": fold.fold, "repetition": fold.repetition, "network": name, "segmented": int(segmented),
            "weighted": int(weighted), "train_s": f"{train_s:.2f}", "test_s": f"{test_s:.3f}",
        }  # fmt: skip
        return protocol_files.prediction_rows([cells.cells[i] for i in rows], cells.codes, guess, same)

    def weigh(part: Part) -> NDArray[np.float32] | None:
        return class_weights(np.bincount(part.targets, minlength=len(cells.codes))) if weighted else None

    parts = _Parts(cells, crops.pixels, targets, segmented)
    done = _folds(out, Trainee(model, settings.recipe), parts, split, settings, columns, test, weigh, watch)
    _keep_calibration(out, parts.part([s for f in split.folds for s in f.training]), settings.seed)
    return _finish(out, "predictions.csv", about, model, done, split)


def train_segmenter(cells: CellSet, out: Path, unet: Unet, settings: Settings, watch: Watcher | None = None) -> Done:
    """Train a U-Net on crops with masks, 15/5/5 slides, and test it pixel by pixel (section 4.2).

    Parameters and errors as for `train_classifier`.
    """
    watch = watch or Quiet()
    if settings.side % (1 << unet.depth):
        raise RbcedgeError(
            f"Crops of {settings.side} px: a U-Net of depth {unet.depth} needs multiples of {1 << unet.depth}."
        )
    splits.refuse_empty(cells)
    splits.slides_of(cells)
    crops = _read(cells, False, True, settings, watch)
    assert crops.masks is not None
    masks = crops.masks
    cells = replace(cells, cells=crops.cells)
    split = splits.for_segmenter(cells, settings.seed, settings.test)
    repeatable(settings.seed)
    name = f"unet{unet.width}"
    form = {"width": unet.width, "depth": unet.depth, "upsampling": unet.upsampling, "norm": unet.norm}
    about = _about("segmenter", name, cells, split, settings, unet=form)
    if protocol_files.finished(out, about):
        watch.note(f"{out}: this run is finished already")
        return Done(out, out / "segmentation.csv", protocol_files.read(out / "run.json"))
    model = networks.unet(unet.width, unet.depth, unet.upsampling, (settings.side, settings.side, 3), norm=unet.norm)
    if settings.weights != "none":
        networks.load_weights(model, Path(settings.weights))
    protocol_files.begin(out, about)
    _problems(out, cells, crops, split, watch)

    def test(trainee: Trainee, rows: NDArray[np.int64], fold: Fold, train_s: float) -> list[dict[str, Any]]:
        guess, test_s = _timed(trainee, crops.pixels[rows])
        same = {"network": name, "train_s": f"{train_s:.2f}", "test_s": f"{test_s:.3f}"}
        return protocol_files.segmentation_rows([cells.cells[i] for i in rows], masks[rows], guess >= 0.5, same)

    parts = _Parts(cells, crops.pixels, masks, False)
    columns = protocol_files.SEGMENTATION
    done = _folds(out, Trainee(model, settings.recipe), parts, split, settings, columns, test, lambda part: None, watch)
    return _finish(out, "segmentation.csv", about, model, done, split)


def _read(cells: CellSet, segmented: bool, masks: bool, settings: Settings, watch: Watcher) -> Crops:
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        watch.reading(done, len(cells.cells))

    if not segmented:
        pictures.refuse_segmented(cells.cells)
    cv2.setNumThreads(1)
    return pictures.load(cells.cells, segmented, masks, settings.side, step)


def _about(task: str, network: str, cells: CellSet, split: Split, settings: Settings, **more: Any) -> dict[str, Any]:
    singles = [c for c in cells.cells if c.code == "NOR" and c.mask is not None]
    measured = singles[:: max(1, len(singles) // _MEASURED)]
    diameter = pictures.diameter(pictures.load(measured, masks=True, side=settings.side)) if measured else None
    return {
        "schema": protocol_files.SCHEMA,
        "finished": False,
        "task": task,
        "network": network,
        "codes": list(cells.codes),
        **more,
        "crop_px": settings.side,
        "diameter_px": None if diameter is None else round(diameter, 2),
        "recipe": settings.recipe.as_dict(),
        "steps": settings.steps,
        "weights": _weights(settings.weights),
        "seed": settings.seed,
        "data": {
            "folder": str(cells.folder.resolve()),
            "layout": cells.layout,
            "cells": len(cells.cells),
            "sha256": cells.sha256(),
            "class_map": dict(cells.class_map),
            "counts": cells.counts(),
            "notes": list(cells.notes),
        },
        "split": split.as_dict(),
        "scanners": cells.scanners(),
        "folds": [],
        "versions": protocol_files.versions(),
        "command": " ".join(sys.argv),
        "machine": protocol_files.machine(),
    }


def _weights(weights: str) -> str | dict[str, str]:
    if weights in ("imagenet", imagenet_lite.NAME, "none"):
        return weights
    path = Path(weights)
    if not path.is_file():
        raise RbcedgeError(f"{path}: no such weights file. Give 'imagenet', '{imagenet_lite.NAME}', 'none' or a file.")
    return {"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def _problems(out: Path, cells: CellSet, crops: Crops, split: Split, watch: Watcher) -> None:
    problems = [*cells.problems, *crops.problems]
    if problems:
        write_text(out / "problems.txt", "\n".join(problems) + "\n")
        watch.note(f"{len(problems)} files are odd or unreadable, see {out / 'problems.txt'}; the first: {problems[0]}")
    for text in (*cells.notes, *split.warnings):
        watch.note(text)


class _Parts:
    """Rows of slides."""

    def __init__(
        self, cells: CellSet, pixels: NDArray[np.uint8], targets: NDArray[np.integer], segmented: bool
    ) -> None:
        self._slides = np.array([str(c.slide) for c in cells.cells])
        self._pixels, self._targets, self._segmented = pixels, targets, segmented

    def rows(self, slides: Sequence[str]) -> NDArray[np.int64]:
        return np.flatnonzero(np.isin(self._slides, list(slides)))

    def part(self, slides: Sequence[str]) -> Part:
        rows = self.rows(slides)
        return Part(self._pixels[rows], self._targets[rows], self._segmented)


Test = Callable[[Trainee, NDArray[np.int64], Fold, float], list[dict[str, Any]]]


def _folds(
    out: Path,
    trainee: Trainee,
    parts: _Parts,
    split: Split,
    settings: Settings,
    columns: tuple[str, ...],
    test: Test,
    weigh: Callable[[Part], NDArray[np.float32] | None],
    watch: Watcher,
) -> list[dict[str, Any]]:
    done = []
    rows = parts.rows(split.test)
    for number, fold in enumerate(split.folds, 1):
        folder = out / "folds" / fold.name
        about = protocol_files.fold_done(folder)
        if about is None:
            watch.fold(fold.name, number, len(split.folds))
            training = parts.part(fold.training)
            seed = (settings.seed, fold.repetition, fold.fold)
            fitted = fit(
                trainee, training, parts.part(fold.validation), folder, seed, weigh(training), settings.steps,
                watch.told, settings.board,
            )  # fmt: skip
            lines = test(trainee, rows, fold, fitted.train_s)
            about = {
                "repetition": fold.repetition,
                "fold": fold.fold,
                "epochs": fitted.epochs,
                "best_epoch": fitted.best_epoch,
                "val_loss": fitted.val_loss,
                "train_s": round(fitted.train_s, 2),
                "test_s": float(lines[0]["test_s"]),
                "test_cells": len(rows),
            }
            protocol_files.finish_fold(folder, columns, lines, about)
        done.append(about)
    return done


def _timed(trainee: Trainee, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], float]:
    """Probabilities, and seconds it took once the network was warm."""
    trainee.predict(pixels[:1])
    start = time.perf_counter()
    guess = trainee.predict(pixels)
    return guess, time.perf_counter() - start


def _keep_calibration(out: Path, part: Part, seed: int) -> None:
    """Keep crops of training slides, every class among them, so that a bundle can be made without the data set."""
    rng = np.random.default_rng((seed, 12))
    classes = np.unique(part.targets)
    rows = [rng.permutation(np.flatnonzero(part.targets == k))[: _CALIBRATION // len(classes)] for k in classes]
    crops = part.pixels[rng.permutation(np.concatenate(rows))]
    unfinished = out / ".part-calibration.npz"
    np.savez_compressed(unfinished, crops=crops)
    unfinished.replace(out / "calibration.npz")


def _finish(out: Path, table: str, about: dict[str, Any], model: Any, done: list[dict[str, Any]], split: Split) -> Done:
    protocol_files.join(out, table, [f.name for f in split.folds])
    best = min(range(len(done)), key=lambda i: done[i]["val_loss"])
    model.set_weights(read_weights(out / "folds" / split.folds[best].name / "weights.npz"))
    part = out / ".part-model.keras"
    model.save(part)
    part.replace(out / "model.keras")
    about = {
        **about,
        "finished": True,
        "folds": done,
        "best": split.folds[best].name,
        "parameters": int(model.count_params()),
        "trainable": int(sum(np.prod(v.shape) for v in model.trainable_variables)),
        "model_bytes": (out / "model.keras").stat().st_size,
    }
    protocol_files.write_run(out, about)
    return Done(out, out / table, about)
