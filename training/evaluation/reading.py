"""Reads and checks run folders as `rbcedge train` leaves them (docs/training-files.md)."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rbcedge.training.evaluation.runs import ClassifierRun, Fold, SegmenterRun

from rbcedge.errors import RbcedgeError, UsageError

#: How far the probabilities of a cell may be from adding up to 1.
ROUNDING = 0.01


def find(paths: Iterable[Path]) -> list[Path]:
    """Return every run folder at or below `paths`, each once, in order.

    Raises
    ------
    UsageError
        A path does not exist, or there is no run below it.
    """
    out: list[Path] = []
    for path in paths:
        if not path.is_dir():
            raise UsageError(f"{path}: not a folder. Give the --out folder of 'rbcedge train'.")
        found = sorted(p.parent for p in path.rglob("run.json"))
        if not found:
            raise UsageError(f"{path}: no run.json in it or below. Give the --out folder of 'rbcedge train'.")
        out += [p for p in found if p.resolve() not in {o.resolve() for o in out}]
    return out


def about(folder: Path) -> dict[str, Any]:
    """Read `run.json`.

    Raises
    ------
    RbcedgeError
        It cannot be read, or is of another schema.
    """
    path = folder / "run.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise RbcedgeError(f"{path}: cannot be read ({e}).") from e
    if not isinstance(content, dict) or content.get("schema") != 1:
        seen = content.get("schema") if isinstance(content, dict) else None
        raise RbcedgeError(f"{path}: schema {seen}, this version reads 1.")
    return content


def read_classifiers(paths: Iterable[Path]) -> list[ClassifierRun]:
    """Read all classifier runs below `paths` and make sure that they can be compared.

    Segmenter runs below the paths are passed over.

    Raises
    ------
    UsageError, RbcedgeError
        No classifier run; a broken table; runs on different test cells or classes; the same network trained in
        the same way twice.
    """
    runs = [_classifier(f, a) for f, a in _of_task(paths, "classifier", "predictions.csv")]
    _comparable(runs)
    return runs


def read_segmenters(paths: Iterable[Path]) -> list[SegmenterRun]:
    """Read all segmenter runs below `paths`; classifier runs are passed over.

    Raises
    ------
    UsageError, RbcedgeError
        No segmenter run; a broken table; the same network twice; runs on different cells.
    """
    runs = [_segmenter(f, a) for f, a in _of_task(paths, "segmenter", "segmentation.csv")]
    first = runs[0]
    for n, run in enumerate(runs):
        for other in runs[:n]:
            if other.network == run.network:
                raise UsageError(f"{other.folder} and {run.folder} are both {run.network}. Evaluate one at a time.")
        if not np.array_equal(np.sort(first.cells), np.sort(run.cells)):
            raise UsageError(f"{first.folder} and {run.folder} were tested on different cells. Evaluate one at a time.")
    return runs


def _of_task(paths: Iterable[Path], task: str, table: str) -> list[tuple[Path, dict[str, Any]]]:
    folders = [(f, about(f)) for f in find(paths)]
    chosen = [(f, a) for f, a in folders if a.get("task") == task]
    if not chosen:
        tasks = ", ".join(sorted({str(a.get("task")) for _, a in folders}))
        raise UsageError(f"None of the {len(folders)} runs is a {task} (they are: {tasks}).")
    for folder, _ in chosen:
        if not (folder / table).is_file():
            raise RbcedgeError(f"{folder}: no {table}; the run has not finished a fold yet. Resume its training.")
    return chosen


def _comparable(runs: Sequence[ClassifierRun]) -> None:
    first = runs[0]
    for n, run in enumerate(runs):
        for other in runs[:n]:
            if other.variant == run.variant:
                raise UsageError(
                    f"{other.folder} and {run.folder} are the same network trained in the same way. "
                    "Leave one out, or evaluate them one at a time."
                )
        both = f"{first.folder} and {run.folder}"
        if run.codes != first.codes:
            raise UsageError(f"{both} know different classes ({' '.join(first.codes)}; {' '.join(run.codes)}).")
        a, b = (np.argsort(r.folds[0].cells) for r in (first, run))
        if not np.array_equal(first.folds[0].cells[a], run.folds[0].cells[b]):
            raise UsageError(f"{both} were tested on different cells. Runs of one data set and split belong together.")
        if (np.array(first.folds[0].truth)[a] != np.array(run.folds[0].truth)[b]).any():
            raise UsageError(
                f"{both} disagree on the labels of the test cells: the class map was changed between them."
            )


_Rows = list[list[str]]


def _table(path: Path, needed: Sequence[str]) -> tuple[dict[str, int], _Rows]:
    """Header positions and rows of a CSV; every row as long as the header."""
    try:
        with path.open(newline="", encoding="utf-8") as f:
            lines = csv.reader(f)
            header = next(lines, [])
            missing = [c for c in needed if c not in header]
            if missing:
                word = "column" if len(missing) == 1 else "columns"
                raise RbcedgeError(f"{path}: {word} {', '.join(missing)} missing. See docs/training-files.md.")
            rows = [row for row in lines if row]
    except (OSError, UnicodeDecodeError, csv.Error) as e:
        raise RbcedgeError(f"{path}: cannot be read ({e}).") from e
    if not rows:
        raise RbcedgeError(f"{path}: no predictions in it.")
    for number, row in enumerate(rows, 2):
        if len(row) != len(header):
            raise RbcedgeError(f"{path}:{number}: {len(row)} values under {len(header)} columns.")
    return {name: i for i, name in enumerate(header)}, rows


def _numbers(path: Path, rows: _Rows, at: Mapping[str, int], names: Sequence[str]) -> NDArray[np.float64]:
    """(N, len(names)) of the columns; an empty value is NaN."""
    out = np.empty((len(rows), len(names)))
    for k, name in enumerate(names):
        column = [row[at[name]] for row in rows]
        try:
            out[:, k] = [float(v) if v else math.nan for v in column]
        except ValueError:
            number = next(i for i, v in enumerate(column, 2) if v and not _is_number(v))
            raise RbcedgeError(f"{path}:{number}: {name} is {column[number - 2]!r}, not a number.") from None
    return out


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _texts(rows: _Rows, at: Mapping[str, int], name: str) -> NDArray[np.str_]:
    return np.array([row[at[name]] for row in rows], str)


def _classifier(folder: Path, content: Mapping[str, Any]) -> ClassifierRun:
    path = folder / "predictions.csv"
    codes = tuple(str(c) for c in _known(folder, content, "codes"))
    network, segmented, weighted = (_known(folder, content, k) for k in ("network", "segmented", "weighted"))
    columns = [f"p_{c}" for c in codes]
    at, rows = _table(path, ["cell", "slide", "scanner", "truth", *columns, "fold", "repetition"])
    extra = [n for n in at if n.startswith("p_") and n not in columns]
    if extra:
        raise RbcedgeError(f"{path}: {', '.join(extra)} for classes that run.json does not name.")
    for name, value in (
        ("network", str(network)),
        ("segmented", str(int(segmented))),
        ("weighted", str(int(weighted))),
    ):
        if name in at and any(row[at[name]] != value for row in rows):
            raise RbcedgeError(f"{path}: rows of another {name} than run.json says ({value}): runs were mixed.")
    index = {c: i for i, c in enumerate(codes)}
    labels = [row[at["truth"]] for row in rows]
    for number, label in enumerate(labels, 2):
        if label not in index:
            raise RbcedgeError(f"{path}:{number}: truth is {label!r}; the classes are {', '.join(codes)}.")
    truth = np.array([index[label] for label in labels], np.int64)
    p = _numbers(path, rows, at, columns)
    bad = ~((p >= 0).all(1) & (p <= 1 + 1e-6).all(1) & (np.abs(p.sum(1) - 1) <= ROUNDING))
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        raise RbcedgeError(
            f"{path}:{first + 2}: the probabilities add up to {p[first].sum():.3g}, or one is not between 0 and 1 "
            f"({int(bad.sum())} such rows)."
        )
    p /= p.sum(1, keepdims=True)
    when = _numbers(path, rows, at, ["repetition", "fold"])
    times = _numbers(path, rows, at, [n for n in ("train_s", "test_s") if n in at])
    if np.isnan(when).any():
        raise RbcedgeError(f"{path}: repetition or fold is empty.")
    cells, slides, scanners = (_texts(rows, at, n) for n in ("cell", "slide", "scanner"))
    folds = []
    for repetition, fold in sorted(set(map(tuple, when.astype(int).tolist()))):
        own = np.flatnonzero((when == (repetition, fold)).all(1))
        # In the order of the cells' names, so that every fold has the same cell in the same row.
        own = own[np.argsort(cells[own], kind="stable")]
        if len(np.unique(cells[own])) != len(own):
            raise RbcedgeError(f"{path}: a cell occurs twice in repetition {repetition}, fold {fold}.")
        spent = times[own[0]] if times.shape[1] == 2 else (math.nan, math.nan)
        folds.append(
            Fold(repetition, fold, cells[own], slides[own], scanners[own], truth[own], p[own], *map(float, spent))
        )
    for other in folds[1:]:
        if not np.array_equal(other.cells, folds[0].cells):
            raise RbcedgeError(
                f"{path}: repetition {other.repetition}, fold {other.fold} has other test cells than the first."
            )
    return ClassifierRun(folder, content, str(network), bool(segmented), bool(weighted), codes, tuple(folds))


def _segmenter(folder: Path, content: Mapping[str, Any]) -> SegmenterRun:
    path = folder / "segmentation.csv"
    network = str(_known(folder, content, "network"))
    at, rows = _table(path, ["cell", "slide", "scanner", "truth", "tp", "fp", "fn", "tn"])
    pixels = _numbers(path, rows, at, ["tp", "fp", "fn", "tn"])
    bad = ~((pixels >= 0).all(1) & (pixels == np.round(pixels)).all(1))
    if bad.any():
        number = int(np.flatnonzero(bad)[0]) + 2
        raise RbcedgeError(f"{path}:{number}: tp, fp, fn and tn must be whole numbers of pixels.")
    cells, slides, scanners, truth = (_texts(rows, at, n) for n in ("cell", "slide", "scanner", "truth"))
    if len(np.unique(cells)) != len(cells):
        raise RbcedgeError(f"{path}: a cell occurs twice.")
    times = _numbers(path, rows[:1], at, [n for n in ("train_s", "test_s") if n in at])
    spent = times[0] if times.shape[1] == 2 else (math.nan, math.nan)
    return SegmenterRun(
        folder, content, network, cells, slides, scanners, truth, pixels.astype(np.int64), _objects(path, rows, at),
        *map(float, spent),
    )  # fmt: skip


def _objects(path: Path, rows: _Rows, at: Mapping[str, int]) -> NDArray[np.int64] | None:
    """(N, 2) objects and matched; None for a table without them."""
    names = ["objects", "matched"]
    if not set(names) <= set(at):
        return None
    found = _numbers(path, rows, at, names)
    objects, matched = found.T
    bad = ~((objects >= matched) & (objects == np.round(objects)) & np.isin(matched, (0, 1)))
    if bad.any():
        number = int(np.flatnonzero(bad)[0]) + 2
        raise RbcedgeError(f"{path}:{number}: objects must be a whole number, matched 0 or 1 and not above objects.")
    return found.astype(np.int64)


def _known(folder: Path, content: Mapping[str, Any], key: str) -> Any:
    if key not in content:
        raise RbcedgeError(f"{folder / 'run.json'}: '{key}' is missing.")
    return content[key]


def read_readers(path: Path, codes: Sequence[str]) -> tuple[tuple[str, ...], dict[str, tuple[int, ...]]]:
    """Read what several readers called the cells: a column `cell`, then one for each reader.

    Returns
    -------
    names : tuple of str
    calls : dict
        From cell to the index of each reader's class; cells that a reader left empty are not in it.

    Raises
    ------
    RbcedgeError
        No `cell` column, no reader, an unknown class.
    """
    at, rows = _table(path, ["cell"])
    names = tuple(n for n in at if n != "cell")
    if not names:
        raise RbcedgeError(f"{path}: no reader. Columns: cell, then one for each reader.")
    index = {c: i for i, c in enumerate(codes)}
    out: dict[str, tuple[int, ...]] = {}
    for number, row in enumerate(rows, 2):
        calls = [row[at[n]].strip() for n in names]
        unknown = [c for c in calls if c and c not in index]
        if unknown:
            raise RbcedgeError(f"{path}:{number}: {unknown[0]!r}; the classes are {', '.join(codes)}.")
        if all(calls):
            out[row[at["cell"]]] = tuple(index[c] for c in calls)
    return names, out
