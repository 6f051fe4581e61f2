"""Weights of a network as plain arrays, in the network's own order."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rbcedge.errors import RbcedgeError


def write_weights(path: Path, weights: Sequence[NDArray[np.float32]]) -> None:
    """Keep a network's weights, in order, as float32."""
    temporary = path.with_name(f".{os.getpid()}-{path.name}")
    np.savez(temporary, *[w.astype(np.float32) for w in weights])
    temporary.replace(path)


def read_weights(path: Path) -> list[NDArray[np.float32]]:
    """Read what `write_weights` kept.

    Raises
    ------
    OSError, KeyError, ValueError
        Where the file cannot be read, holds something else, or is damaged.
    """
    try:
        # Opened here: NumPy leaves a damaged file open.
        with path.open("rb") as f, np.load(f) as z:
            return [z[f"arr_{i}"] for i in range(len(z.files))]
    except (zipfile.BadZipFile, EOFError) as e:
        raise ValueError(f"damaged: {e}") from e


def mean(folders: Sequence[Path], out: Path) -> None:
    """Write the mean of the weights of trained networks, and what kind of network it is, to the new folder `out`.

    Parameters
    ----------
    folders : sequence of Path
        Trained from one another: means of weights that were trained apart are worth nothing.
    out : Path

    Raises
    ------
    RbcedgeError
        Where the networks differ, or `out` is there already.
    """
    parts = [read_weights(folder / "weights.npz") for folder in folders]
    kinds = {(folder / "network.json").read_text() for folder in folders}
    if len(kinds) > 1 or len({tuple(w.shape for w in part) for part in parts}) > 1:
        raise RbcedgeError(f"{', '.join(map(str, folders))}: not trainings of one and the same network.")
    if out.exists():
        raise RbcedgeError(f"{out} is there already. Give a new folder.")
    out.mkdir(parents=True)
    (out / "network.json").write_text(kinds.pop())
    write_weights(out / "weights.npz", [np.mean(ws, axis=0) for ws in zip(*parts, strict=True)])
