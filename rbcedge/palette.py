"""Colours of the classes, the same on the screen and in pictures."""

from __future__ import annotations

import colorsys

RGB = tuple[int, int, int]

# Told apart by most colour-blind people, and from pink cells on white glass.
_FIRST: tuple[RGB, ...] = (
    (0, 158, 115),
    (0, 114, 178),
    (213, 94, 0),
    (204, 0, 153),
    (230, 159, 0),
    (40, 140, 215),
    (102, 51, 153),
    (120, 90, 40),
)


def colours(classes: int) -> list[RGB]:
    """Return a colour for each of `classes` labels, in their order: red, green, blue, 0 to 255."""
    more = (colorsys.hsv_to_rgb(k * 0.618 % 1, 0.9, 0.75) for k in range(max(0, classes - len(_FIRST))))
    made = [(round(255 * r), round(255 * g), round(255 * b)) for r, g, b in more]
    return [*_FIRST[:classes], *made]
