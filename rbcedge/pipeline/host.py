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
from rbcedge.field import Field
from rbcedge.frame import Frame
from rbcedge.pipeline import plan
from rbcedge.pipeline.illumination import Illumination, estimate
from rbcedge.pipeline.scale import Search, guess_diameter, typical_diameter


class HostPipeline:
    """Frame to field on the CPU. See `rbcedge.pipeline.base.Pipeline`.

    `find` raises `RbcedgeError` for a picture that is too large at its scale.

    Parameters
    ----------
    bundle : Bundle
    segmenter, classifier : Engine
        Of that bundle.
    scale : float, Search or None
        Native px per source px; None measures it on the first fields, anew for each picture size; a `Search` that
        another pipeline began is carried on.
    """

    def __init__(
        self, bundle: Bundle, segmenter: Engine, classifier: Engine, scale: float | Search | None = None
    ) -> None:
        self.bundle = bundle
        self._segmenter, self._classifier = segmenter, classifier
        self._search = scale if isinstance(scale, Search) else Search(bundle.diameter_px, bundle.um_per_px, scale)
        self._illumination: Illumination | None = None

    @property
    def scale(self) -> float:
        """Native px per source px of the last frame."""
        return self._search.scale

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the user should know about magnification and light, in words."""
        return tuple(plan.warnings(self.bundle, self._search.known, self._illumination))

    def find(self, frame: Frame) -> Field:
        """Segment `frame` and list its cells, without classes."""
        start = perf_counter()
        self._illumination = estimate(frame.pixels)
        done = perf_counter()
        if not self._search.settled(frame.size):
            self._measure(frame)
        scale = self._search.scale
        timings = {"illumination": (done - start) * 1e3}
        scaled = perf_counter()
        if scaled - done > 1e-3:
            timings["scale"] = (scaled - done) * 1e3
        plan.require_searchable(self.bundle, frame.size, scale)
        probability, foreign = self._segment(frame.pixels, scale)
        segmented = perf_counter()
        labels, cells = self._components(frame, probability, scale)
        mask = (labels > 0).view(np.uint8) * np.uint8(255)
        end = perf_counter()
        timings |= {"segment": (segmented - scaled) * 1e3, "components": (end - segmented) * 1e3}
        return Field(frame, scale, mask, labels, cells, foreign, timings)

    def classify(self, field: Field, rows: NDArray[np.intp]) -> Field:
        """Return `field` with probabilities for `rows` of its cells."""
        if not len(rows):
            return field
        start = perf_counter()
        assert self._illumination is not None
        pixels = self._illumination.apply(field.frame.pixels)
        cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB, dst=pixels)
        cut = [
            (group, crops(pixels, field.labels, field.cells, group, field.scale, side, self.bundle.rim_px))
            for side, group in plan.by_side(self.bundle, field, rows)
        ]
        middle = perf_counter()
        cells = field.cells
        for group, pictures in cut:
            cells = cells.with_probabilities(group, plan.temper(self.bundle, self._classifier.infer(pictures)))
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
        size = plan.working_size(self.bundle, (w, h), scale)
        method = cv2.INTER_AREA if scale * self.bundle.segmenter_scale < 1 else cv2.INTER_LINEAR
        small = self._illumination.apply(cv2.resize(pixels, size, interpolation=method))
        right, below = plan.padding(size)
        padded = cv2.copyMakeBorder(small, 0, below, 0, right, cv2.BORDER_REPLICATE)
        picture = cv2.cvtColor(padded, cv2.COLOR_BGR2RGB)
        probability = self._segmenter.infer(picture[None])[0, : size[1], : size[0], 0]
        near = cv2.dilate((probability >= self.bundle.mask_threshold).astype(np.uint8), np.ones((5, 5), np.uint8))
        stained = (small[..., 1] < plan.STAINED) & (near == 0)
        return probability, float(stained.mean())

    def _components(
        self, frame: Frame, probability: NDArray[np.float32], scale: float
    ) -> tuple[NDArray[np.int32], Cells]:
        full = cv2.resize(probability, frame.size, interpolation=cv2.INTER_LINEAR)
        mask = (full >= self.bundle.mask_threshold).view(np.uint8)
        return components(mask, len(self.bundle.labels), plan.least_area(self.bundle, scale))

    def _measure(self, frame: Frame) -> None:
        def measure(scale: float) -> tuple[float, int]:
            if not plan.searchable(self.bundle, frame.size, scale):
                return 0.0, 0
            probability, _ = self._segment(frame.pixels, scale)
            return typical_diameter(self._components(frame, probability, scale)[1])

        self._search.add(frame.size, guess_diameter(frame.pixels, self._illumination), measure)
