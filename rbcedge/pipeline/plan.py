"""What every pipeline does alike: sizes, limits, which cells go together, what becomes of probabilities."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rbcedge.bundle import Bundle
from rbcedge.errors import RbcedgeError
from rbcedge.field import Field
from rbcedge.pipeline import scale as magnification
from rbcedge.pipeline.illumination import BACKGROUND, Illumination

#: Components below this share of a single cell's area are specks: platelets, dirt, slivers at the picture's edge. Of
#: 15,627 marked cells of Chula-RBC-12, 2 are smaller; of all 55,328 objects found there, some 1,100.
SPECK = 0.1
#: Working pictures are padded to multiples of this (four poolings).
STRIDE = 16
#: Flat-fielded grey value, of the background's, below which something is stained.
STAINED = 0.62 * BACKGROUND
#: Pixels of the largest picture that is searched, at working resolution: U-Net needs about 0.5 KB for each.
LARGEST = 12_000_000

Size = tuple[int, int]


def working_size(bundle: Bundle, size: Size, scale: float) -> Size:
    """Width and height of a picture of `size` source px at the segmenter's resolution, before padding."""
    factor = scale * bundle.segmenter_scale
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def padding(size: Size) -> Size:
    """How many pixels a working picture gets on the right and below."""
    return -size[0] % STRIDE, -size[1] % STRIDE


def searchable(bundle: Bundle, size: Size, scale: float) -> bool:
    """Whether a picture of `size` source px is small enough at this scale."""
    return size[0] * size[1] * (scale * bundle.segmenter_scale) ** 2 <= LARGEST


def require_searchable(bundle: Bundle, size: Size, scale: float) -> None:
    """Raise `RbcedgeError` for a picture that is too large at its scale."""
    if not searchable(bundle, size, scale):
        raise RbcedgeError(
            f"{size[0]}x{size[1]} px at scale {scale:.3g} are too many to search at once. "
            "Check --scale, or cut the picture into fields."
        )


def least_area(bundle: Bundle, scale: float) -> int:
    """Area of the smallest component that is kept, source px²."""
    return max(1, round(SPECK * (np.pi / 4 * (bundle.diameter_px / scale) ** 2)))


def by_side(bundle: Bundle, field: Field, rows: NDArray[np.intp]) -> list[tuple[int, NDArray[np.intp]]]:
    """Share `rows` among the classifier's input sides, native px: each cell to the smallest that holds it."""
    small, large = bundle.small_crop_px, bundle.crop_px
    fits = field.cells.boxes[rows, 2:].max(axis=1) * field.scale + 2 * bundle.rim_px <= small
    return [(side, rows[which]) for side, which in ((small, fits), (large, ~fits)) if which.any()]


def temper(bundle: Bundle, probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    """Apply the bundle's temperature and make rows sum to 1 (integer outputs only nearly do)."""
    p = np.maximum(probabilities, 1e-6) ** np.float32(1 / bundle.temperature)
    out: NDArray[np.float32] = (p / p.sum(axis=1, keepdims=True)).astype(np.float32)
    return out


def warnings(bundle: Bundle, scale: float | None, illumination: Illumination | None) -> Sequence[str]:
    """What the user should know about magnification (None: not known yet) and light, in words."""
    found = [] if scale is None else [magnification.warning(bundle.um_per_px * scale)]
    if illumination is not None:
        found.append(illumination.warning)
    return [w for w in found if w]
