"""How far the slide moved between two frames."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Motion:
    """Movement from the frame before to this one.

    Attributes
    ----------
    moving : bool
        The slide moved too far within the time of a frame for cells to be read or placed.
    jump : bool
        The two frames could not be registered: nothing in common, or focus lost.
    shift : (float, float)
        How far the picture's content moved, x and y in source px; (0, 0) for a jump.
    """

    moving: bool = False
    jump: bool = False
    shift: tuple[float, float] = (0.0, 0.0)

    @property
    def pixels(self) -> float:
        """Length of the shift, source px."""
        return float((self.shift[0] ** 2 + self.shift[1] ** 2) ** 0.5)
