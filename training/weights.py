"""Weights of a network as plain arrays, in the network's own order."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


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
