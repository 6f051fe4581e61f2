"""One processed frame: what was found in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rbcedge.cells import Cells
from rbcedge.frame import Frame
from rbcedge.light import Light


@dataclass(frozen=True, slots=True)
class Field:
    """A frame with its cells.

    Attributes
    ----------
    frame : Frame
        The source picture; positions of `cells` are in its pixels.
    scale : float
        Factor from source pixels to the bundle's native scale (native = source * scale).
    mask : (H, W) uint8
        0 background, 255 red cell, at the source picture's size.
    labels : (H, W) int32
        0 background, i + 1 for row i of `cells`, at the source picture's size.
    cells : Cells
        One row for each connected component.
    foreign : float
        Share of the picture covered by stained things that are not red cells (leucocytes, clumps, dirt), 0 to 1.
    timings_ms : mapping of str to float
        Wall time by stage.
    light : Light or None
        Edges and light, where the pipeline has measured them with the rest.
    grids : (N, 64) bool or None
        Which of 8 x 8 points, spread evenly over each cell's box, lie in the cell; where the pipeline has looked.
    """

    frame: Frame
    scale: float
    mask: NDArray[np.uint8]
    labels: NDArray[np.int32]
    cells: Cells
    foreign: float = 0.0
    timings_ms: Mapping[str, float] = field(default_factory=dict)
    light: Light | None = None
    grids: NDArray[np.bool_] | None = None
