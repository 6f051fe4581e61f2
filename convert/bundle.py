"""Putting bundles together: networks converted, checked, hashed, and described in a manifest."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from rbcedge.convert.making import Made, OneSizeError, Pictures, make
from rbcedge.convert.networks import Network
from rbcedge.convert.probe import probes

from rbcedge.bundle import (
    MANIFEST,
    ROLES,
    SCHEMA,
    Artefact,
    Bundle,
    Label,
    check_labels,
    default_folder,
    describe,
    load,
    parse,
)
from rbcedge.errors import RbcedgeError, UsageError

#: How far the sum of a classifier's probabilities may be from 1.
_SUM = 0.02

Tell = Callable[[str], None]


def build(
    folder: Path,
    networks: Mapping[str, tuple[Network, Pictures]],
    manifest: Mapping[str, Any],
    labels: Sequence[Label],
    wanted: Sequence[tuple[str, str]] = (("tflite", "int8"), ("tflite", "fp32")),
    tell: Tell = lambda what: None,
) -> tuple[Bundle, list[Made]]:
    """Convert both networks and write a bundle. One that stands in `folder` is replaced.

    Parameters
    ----------
    folder : Path
        Made where it is missing. Nothing is written before every network is converted and checked.
    networks : mapping of role to (Network, calibration pictures)
        Calibration pictures: see `rbcedge.convert.making.make`.
    manifest : mapping
        Everything but schema, creation date, labels and artefacts.
    labels : sequence of Label
        In the order of the classifier's outputs.
    wanted : sequence of (format, precision)
        What is made of each network; TFLite is left out for a network that is ONNX, and, where ONNX is made, for a
        segmenter that would be tied to one picture size.

    Returns
    -------
    Bundle
    list of Made
        What was converted, with its deviation.
    """
    whole = {
        "schema": SCHEMA,
        "created": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        **manifest,
        "labels": [asdict(label) for label in labels],
        "artefacts": [],
    }
    try:
        check_labels(labels)
        draft = parse(folder, whole, "")
    except ValueError as e:
        raise UsageError(f"The bundle cannot be described: {e}.") from e
    done = []
    for role in ROLES:
        network, calibration = networks[role]
        tell(f"{role}: checking {network.origin}")
        check_results(network, draft)
        onnx = [(f, p) for f, p in wanted if f != "tflite"]
        if network.keras is not None:
            try:
                done += make(network, draft, [(f, p) for f, p in wanted if f == "tflite"], calibration, tell=tell)
            except OneSizeError as e:
                if not onnx:
                    raise
                tell(f"{role}: left out, {e}")
        done += make(network, draft, onnx, calibration, tell=tell)
    _install(folder, whole, [], done)
    return load(folder), done


def add(base: Bundle, folder: Path, made: Sequence[Made]) -> Bundle:
    """Add converted networks to a bundle.

    Parameters
    ----------
    base : Bundle
        What stands in `folder`, or, where that is new, what it shall be a copy of.
    folder : Path
    made : sequence of Made
        Take the place of those of the same role, format and precision.

    Raises
    ------
    RbcedgeError
    """
    check_target(folder)
    kept = [a for a in base.artefacts if not any(_same(a, m) for m in made)]
    manifest = dict(base.manifest)
    with _writable(folder):
        if folder.resolve() != base.folder.resolve():
            folder.mkdir(parents=True, exist_ok=True)
            for a in kept:
                _put(folder / a.file, base.path(a).read_bytes())
    _install(folder, manifest, kept, made)
    bundle = load(folder)
    for old in {a.file for a in base.artefacts} - {a.file for a in bundle.artefacts}:
        (folder / old).unlink(missing_ok=True)
    return bundle


def check_target(folder: Path) -> None:
    """Refuse the shipped bundle, and folders that hold something else."""
    if folder.resolve() == default_folder().resolve():
        raise UsageError(f"{folder} is the bundle that comes with the package; give another folder.")
    if folder.exists() and not (folder / MANIFEST).exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} exists and is not a bundle; give another folder.")


def check_results(network: Network, bundle: Bundle) -> None:
    """Run a network on a simulated field and see whether what it gives is what its role needs.

    Raises
    ------
    RbcedgeError
        For a wrong shape, a number of classes that is not that of the labels, or values that are no probabilities.
    """
    height, width = network.size
    if network.role == "classifier" and height is not None:
        own = {bundle.small_crop_px, bundle.crop_px}
        if height != width or own != {height}:
            raise UsageError(
                f"{network.origin} takes crops of {width}x{height} px only; the bundle has "
                f"{' and '.join(str(v) for v in sorted(own))} px. Give a square network its side as --crop-px."
            )
    for batch in probes(bundle, network.role, network.size):
        n, h, w = batch.shape[:3]
        try:
            out = network.run(batch)
        except Exception as e:  # whatever Keras or ONNX Runtime says of a shape
            reason = (str(e).strip() or type(e).__name__).splitlines()[0]
            raise RbcedgeError(f"{network.origin} fails on pictures of {w}x{h} px ({reason}).") from e
        if network.role == "segmenter":
            if out.shape != (n, h, w, 1):
                raise RbcedgeError(
                    f"{network.origin}: a segmenter gives one probability for each pixel, {(n, h, w, 1)}; "
                    f"this one gives {out.shape}."
                )
        elif out.shape != (n, len(bundle.labels)):
            given = f"{out.shape[1]} classes" if out.ndim == 2 else f"shape {out.shape}"
            raise RbcedgeError(
                f"{network.origin} gives {given}, but there are {len(bundle.labels)} labels "
                f"({', '.join(bundle.codes)}). Give one label for each output, in its order."
            )
        if not np.isfinite(out).all() or out.min() < -1e-3 or out.max() > 1 + 1e-3:
            raise RbcedgeError(
                f"{network.origin} gives values from {out.min():.3g} to {out.max():.3g}, which are no probabilities. "
                f"Let it end with a {'sigmoid' if network.role == 'segmenter' else 'softmax'}."
            )
        if network.role == "classifier" and np.abs(out.sum(axis=1) - 1).max() > _SUM:
            raise RbcedgeError(
                f"{network.origin}: the probabilities of a cell add up to {out.sum(axis=1).max():.3g}. "
                "Let it end with a softmax."
            )


def _install(folder: Path, manifest: Mapping[str, Any], kept: Sequence[Artefact], made: Sequence[Made]) -> None:
    """Write files and manifest; everything is on disk in full before the first old file gives way."""
    with _writable(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".part-") as t:
            staged = Path(t)
            described = []
            for m in made:
                (staged / m.file).write_bytes(m.data)
                described.append(describe(m.role, m.format, m.precision, staged / m.file))
            whole = {**manifest, "artefacts": [a.entry() for a in (*kept, *described)]}
            text = json.dumps(whole, indent=1, ensure_ascii=False) + "\n"
            (staged / MANIFEST).write_text(text, encoding="utf-8")
            for m in made:
                (staged / m.file).replace(folder / m.file)
            (staged / MANIFEST).replace(folder / MANIFEST)


def _put(path: Path, data: bytes) -> None:
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(data)
    part.replace(path)


def _same(artefact: Artefact, made: Made) -> bool:
    mine = (artefact.role, artefact.format, artefact.precision)
    return mine == (made.role, made.format, made.precision)


@contextmanager
def _writable(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        raise RbcedgeError(f"{folder} cannot be written ({e.strerror}). Choose another folder.") from e
