"""Pictures on which a converted network is compared with what it was made from: a simulated field and its cells."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from rbcedge.bundle import Bundle
from rbcedge.cells import components, crops
from rbcedge.simulator import Composition, Look, View, render_field

#: Width and height of the field, native px.
_SIZE = (640, 480)
_CELLS = 8


def probes(bundle: Bundle, role: str, size: tuple[int | None, int | None]) -> list[NDArray[np.uint8]]:
    """Return batches (n, H, W, 3) uint8 RGB as the network of this role sees them.

    Parameters
    ----------
    bundle : Bundle
        Gives working resolution, crop sides and rim.
    role : str
        The segmenter gets one field, the classifier one batch of cells for each of its sides.
    size : (int or None, int or None)
        Height and width that the network is fixed to, None where free.
    """
    view = _view()
    height, width = size
    if role == "segmenter":
        scale = bundle.segmenter_scale
        w, h = (round(v * scale / 32) * 32 for v in _SIZE)
        picture = cv2.resize(view.pixels, (width or w, height or h), interpolation=cv2.INTER_AREA)
        return [cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)[None]]
    labels, cells = components((view.labels > 0).astype(np.uint8), len(bundle.labels), 200)
    rows = np.flatnonzero(~cells.on_border)[:_CELLS]
    rgb = np.ascontiguousarray(view.pixels[..., ::-1])
    return [crops(rgb, labels, cells, rows, 1.0, side, bundle.rim_px) for side in sides(bundle, height)]


def sides(bundle: Bundle, fixed: int | None) -> list[int]:
    """Sides of the crops the classifier will meet, px; smaller first."""
    return [fixed] if fixed else sorted({bundle.small_crop_px, bundle.crop_px})


@lru_cache(1)
def _view() -> View:
    composition = Composition(fractions={"NOR": 8, "OVA": 2, "TEA": 1, "BUR": 1}, density=45)
    return render_field(np.random.default_rng(5), *_SIZE, look=Look(), composition=composition)
