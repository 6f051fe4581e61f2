"""Everything a training needs to go on as if it had never stopped, in one file."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rbcedge.errors import RbcedgeError

Arrays = list[NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """State of a training.

    Attributes
    ----------
    network : str
        Which network this is of; another one refuses it.
    groups : mapping of str to list of arrays
        Weights, moments of the optimiser, best weights so far ...
    state : mapping
        Plain values, as JSON takes them.
    """

    network: str
    groups: Mapping[str, Sequence[NDArray[Any]]]
    state: Mapping[str, Any]


def write(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint in one step: an interruption leaves the former one."""
    text = json.dumps({"network": checkpoint.network, "state": dict(checkpoint.state)})
    arrays = {f"{name}/{i:04d}": a for name, group in checkpoint.groups.items() for i, a in enumerate(group)}
    part = path.with_name(f".{os.getpid()}-{path.name}")
    with part.open("wb") as f:
        np.savez(f, about=np.frombuffer(text.encode(), np.uint8), **arrays)
        f.flush()
        os.fsync(f.fileno())
    part.replace(path)


def read(path: Path, network: str) -> Checkpoint | None:
    """Read a checkpoint; None where there is none.

    Parameters
    ----------
    path : Path
    network : str
        Network that is to go on.

    Raises
    ------
    RbcedgeError
        Where the file is damaged or of another network.
    """
    if not path.exists():
        return None
    try:
        # Opened here: NumPy leaves a damaged file open.
        with path.open("rb") as f, np.load(f) as z:
            about = json.loads(z["about"].tobytes())
            groups: dict[str, Arrays] = {}
            for key in sorted(k for k in z.files if k != "about"):
                groups.setdefault(key.rsplit("/", 1)[0], []).append(z[key])
        found = Checkpoint(about["network"], groups, about["state"])
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as e:
        raise RbcedgeError(f"{path}: not a checkpoint ({e}). Remove it to start this training anew.") from e
    if found.network != network:
        raise RbcedgeError(
            f"{path}: a checkpoint of {found.network}, not of {network}. Give another --out, or remove the file."
        )
    return found


def fits(model: Any, checkpoint: Checkpoint, path: Path) -> None:
    """Refuse weights whose shapes are not the model's.

    Raises
    ------
    RbcedgeError
    """
    have = [tuple(w.shape) for w in checkpoint.groups.get("weights", [])]
    want = [tuple(v.shape) for v in model.weights]
    if have != want:
        raise RbcedgeError(
            f"{path}: a checkpoint of another {model.name} ({len(have)} arrays, not the {len(want)} of this one's "
            "shapes). Give another --out, or remove the file."
        )
