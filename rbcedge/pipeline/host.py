"""The pipeline on the CPU."""

from __future__ import annotations

from dataclasses import replace
from time import perf_counter

import cv2
import numpy as np
from numpy.typing import NDArray

from rbcedge.bundle import Bundle
from rbcedge.cells import Cells, components, crops
from rbcedge.engines.base import Engine
from rbcedge.errors import RbcedgeError
from rbcedge.field import Field
from rbcedge.frame import Frame
from rbcedge.pipeline import scale as magnification
from rbcedge.pipeline.illumination import BACKGROUND, Illumination, estimate

#: Components below this share of a single cell's area are specks.
SPECK = 0.05
#: Working pictures are padded to multiples of this (four poolings).
STRIDE = 16
#: Flat-fielded grey value, of the background's, below which something is stained.
STAINED = 0.62
#: Pixels of the largest picture that is searched, at working resolution: U-Net needs about 0.5 KB for each.
LARGEST = 12_000_000


class HostPipeline:
    """Frame to field on the CPU. See `rbcedge.pipeline.base.Pipeline`.

    `find` raises `RbcedgeError` for a picture that is too large at its scale.

    Parameters
    ----------
    bundle : Bundle
    segmenter, classifier : Engine
        Of that bundle.
    scale : float or None
        Native px per source px; None measures it on the first fields, anew for each picture size.
    """

    def __init__(self, bundle: Bundle, segmenter: Engine, classifier: Engine, scale: float | None = None) -> None:
        self.bundle = bundle
        self._segmenter, self._classifier = segmenter, classifier
        self._fixed = scale
        self._scale = scale or 1.0
        self._measured: dict[tuple[int, int], list[tuple[float, int]]] = {}
        self._illumination: Illumination | None = None

    @property
    def scale(self) -> float:
        """Native px per source px of the last frame."""
        return self._scale

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the user should know about magnification and light, in words."""
        found = []
        if self._fixed is not None or self._measured:
            found.append(magnification.warning(self.bundle.um_per_px * self._scale))
        if self._illumination is not None:
            found.append(self._illumination.warning)
        return tuple(w for w in found if w)

    def find(self, frame: Frame) -> Field:
        """Segment `frame` and list its cells, without classes."""
        start = perf_counter()
        self._illumination = estimate(frame.pixels)
        done = perf_counter()
        if self._fixed is None:
            self._scale = self._magnification(frame)
        timings = {"illumination": (done - start) * 1e3}
        scaled = perf_counter()
        if scaled - done > 1e-3:
            timings["scale"] = (scaled - done) * 1e3
        if self._working_pixels(frame, self._scale) > LARGEST:
            w, h = frame.size
            raise RbcedgeError(
                f"{w}x{h} px at scale {self._scale:.3g} are too many to search at once. "
                "Check --scale, or cut the picture into fields."
            )
        probability, foreign = self._segment(frame.pixels, self._scale)
        segmented = perf_counter()
        labels, cells = self._components(frame, probability, self._scale)
        mask = np.where(labels > 0, np.uint8(255), np.uint8(0))
        end = perf_counter()
        timings |= {"segment": (segmented - scaled) * 1e3, "components": (end - segmented) * 1e3}
        return Field(frame, self._scale, mask, labels, cells, foreign, timings)

    def classify(self, field: Field, rows: NDArray[np.intp]) -> Field:
        """Return `field` with probabilities for `rows` of its cells."""
        if not len(rows):
            return field
        start = perf_counter()
        assert self._illumination is not None
        pixels = self._illumination.apply(field.frame.pixels)
        cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB, dst=pixels)
        small, large, rim = self.bundle.small_crop_px, self.bundle.crop_px, self.bundle.rim_px
        fits = field.cells.boxes[rows, 2:].max(axis=1) * field.scale + 2 * rim <= small
        groups = [(side, rows[which]) for side, which in ((small, fits), (large, ~fits)) if which.any()]
        cut = [
            (group, crops(pixels, field.labels, field.cells, group, field.scale, side, rim)) for side, group in groups
        ]
        middle = perf_counter()
        cells = field.cells
        for group, pictures in cut:
            cells = cells.with_probabilities(group, self._temper(self._classifier.infer(pictures)))
        timings = dict(field.timings_ms)
        timings |= {"crop": (middle - start) * 1e3, "classify": (perf_counter() - middle) * 1e3}
        return replace(field, cells=cells, timings_ms=timings)

    def close(self) -> None:
        """Release the networks."""
        self._segmenter.close()
        self._classifier.close()

    def _segment(self, pixels: NDArray[np.uint8], scale: float) -> tuple[NDArray[np.float32], float]:
        """Probability of "red cell" at working resolution, and the share of stained things that are none."""
        assert self._illumination is not None
        h, w = pixels.shape[:2]
        factor = scale * self.bundle.segmenter_scale
        size = (max(1, round(w * factor)), max(1, round(h * factor)))
        method = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
        small = self._illumination.apply(cv2.resize(pixels, size, interpolation=method))
        right, below = -size[0] % STRIDE, -size[1] % STRIDE
        padded = cv2.copyMakeBorder(small, 0, below, 0, right, cv2.BORDER_REPLICATE)
        picture = cv2.cvtColor(padded, cv2.COLOR_BGR2RGB)
        probability = self._segmenter.infer(picture[None])[0, : size[1], : size[0], 0]
        near = cv2.dilate((probability >= self.bundle.mask_threshold).astype(np.uint8), np.ones((5, 5), np.uint8))
        stained = (small[..., 1] < STAINED * BACKGROUND) & (near == 0)
        return probability, float(stained.mean())

    def _working_pixels(self, frame: Frame, scale: float) -> float:
        w, h = frame.size
        return w * h * (scale * self.bundle.segmenter_scale) ** 2

    def _components(
        self, frame: Frame, probability: NDArray[np.float32], scale: float
    ) -> tuple[NDArray[np.int32], Cells]:
        full = cv2.resize(probability, frame.size, interpolation=cv2.INTER_LINEAR)
        mask = (full >= self.bundle.mask_threshold).view(np.uint8)
        single = np.pi / 4 * (self.bundle.diameter_px / scale) ** 2
        return components(mask, len(self.bundle.labels), max(1, round(SPECK * single)))

    def _magnification(self, frame: Frame) -> float:
        seen = self._measured.setdefault(frame.size, [])
        scale, cells = magnification.believed(seen, self.bundle.um_per_px)
        if cells >= magnification.ENOUGH and magnification.plausible(self.bundle.um_per_px * scale):
            return scale

        def measure(at: float) -> tuple[float, int]:
            if self._working_pixels(frame, at) > LARGEST:
                return 0.0, 0
            probability, _ = self._segment(frame.pixels, at)
            return magnification.typical_diameter(self._components(frame, probability, at)[1])

        guess = magnification.guess_diameter(frame.pixels, self._illumination)
        seen.append(magnification.settle(guess, self.bundle.diameter_px, measure))
        del seen[:-20]
        return magnification.believed(seen, self.bundle.um_per_px)[0]

    def _temper(self, probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
        """Apply the bundle's temperature and make rows sum to 1 (integer outputs only nearly do)."""
        p = np.maximum(probabilities, 1e-6) ** np.float32(1 / self.bundle.temperature)
        out: NDArray[np.float32] = (p / p.sum(axis=1, keepdims=True)).astype(np.float32)
        return out
