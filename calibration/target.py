"""The new bundle on disk: staged beside its place, and put there in one step."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from rbcedge.bundle import Artefact, Bundle, describe, load
from rbcedge.errors import RbcedgeError, UsageError


def check_free(out: Path) -> None:
    """Refuse a target that holds something.

    Raises
    ------
    UsageError
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} exists already. Give --out a new folder.")


@contextmanager
def staging(out: Path) -> Iterator[Path]:
    """Yield a hidden folder on the disk of `out` that is removed in the end, whatever happens.

    It holds no manifest until all else is written, so a process that is killed leaves nothing that loads.

    Raises
    ------
    RbcedgeError
        The place cannot be written.
    """
    parent = out.absolute().parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.part-", dir=parent))
    except OSError as error:
        raise RbcedgeError(f"{parent}: cannot be written ({error.strerror}). Choose another --out.") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_bundle(
    folder: Path,
    base: Bundle,
    name: str,
    models: Mapping[tuple[str, str], bytes],
    losses: Mapping[str, Mapping[str, Any]],
    described: Mapping[str, Any],
) -> Bundle:
    """Write a copy of `base` with new INT8 networks.

    Parameters
    ----------
    folder : Path
        May hold the report and the calibration set already.
    base : Bundle
    name : str
        Of the new bundle.
    models : mapping of (role, format) to bytes
        Replace the INT8 networks of that format.
    losses : mapping of format to figures
        What was accepted beyond the tolerances.
    described : mapping
        What the manifest says besides: "calibration", "measured".

    Raises
    ------
    RbcedgeError
        The disk takes it not, or what was written cannot be loaded again.
    """
    try:
        kept = [a for a in base.artefacts if (a.role, a.format) not in models or a.precision != "int8"]
        for artefact in kept:
            shutil.copyfile(base.path(artefact), folder / artefact.file)
        made: list[Artefact] = []
        for (role, format), data in models.items():
            path = folder / f"{role}.int8.{format}"
            path.write_bytes(data)
            made.append(replace(describe(role, format, "int8", path), accepted_loss=losses.get(format)))
        manifest = {
            **base.manifest,
            "name": name,
            "created": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
            **described,
            "artefacts": [a.entry() for a in (*made, *kept)],
        }
        (folder / "manifest.json").write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", "utf-8")
    except OSError as error:
        raise RbcedgeError(f"{folder.parent}: the bundle cannot be written ({error.strerror}).") from error
    return load(folder)


def put(folder: Path, out: Path, parts: Sequence[str] = ()) -> None:
    """Move a staged folder (or only some parts of it) to its place.

    Raises
    ------
    RbcedgeError
    """
    try:
        if parts:
            out.mkdir(parents=True, exist_ok=True)
            for part in parts:
                (folder / part).replace(out / part)
        else:
            if out.exists():
                out.rmdir()
            folder.rename(out)
            out.chmod(0o755)
    except OSError as error:
        raise RbcedgeError(f"{out}: cannot be written ({error.strerror}).") from error
