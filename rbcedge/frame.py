"""One picture from a source, and the gaps between pictures."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture.

    Attributes
    ----------
    index : int
        Number within the source, from 0, without holes for files; for live sources the number of
        pictures captured before this one (so that a dropped picture leaves a hole).
    time_s : float
        Seconds on a monotonic clock at capture; for video files the position in the file.
    pixels : (H, W, 3) uint8
        Blue, green, red, contiguous.
    source : str
        Name of where the picture came from, unique within a run for still pictures
        (a path relative to the opened folder), otherwise the source's name.
    borrowed : bool
        The pixels lie in memory that the source uses again when the next frame is asked for: whoever keeps the
        frame longer takes `kept`.
    """

    index: int
    time_s: float
    pixels: NDArray[np.uint8]
    source: str
    borrowed: bool = False

    def __post_init__(self) -> None:
        p = self.pixels
        if p.dtype != np.uint8 or p.ndim != 3 or p.shape[2] != 3 or p.shape[0] < 1 or p.shape[1] < 1:
            raise ValueError(f"a frame needs (H, W, 3) uint8 pixels, got {p.shape} {p.dtype}")

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in px."""
        return self.pixels.shape[1], self.pixels.shape[0]

    def kept(self) -> Frame:
        """Return this frame, with pixels of its own."""
        return replace(self, pixels=self.pixels.copy(), borrowed=False) if self.borrowed else self


@dataclass(frozen=True, slots=True)
class Gap:
    """Something that should have been a frame and was not: it is named and recorded, never filled.

    Attributes
    ----------
    source : str
        File or device the loss belongs to.
    reason : str
        One line: what was wrong.
    frames : int
        How many pictures were lost, 0 where it cannot be known (a camera unplugged).
    seconds : float
        How long nothing came, 0 for files.
    """

    source: str
    reason: str
    frames: int = 1
    seconds: float = 0.0
