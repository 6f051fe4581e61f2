"""Random fields for training."""

from __future__ import annotations

import numpy as np

from rbcedge.simulator.composition import Composition
from rbcedge.simulator.look import Look
from rbcedge.simulator.overlays import with_random_overlays
from rbcedge.simulator.smear import Smear
from rbcedge.simulator.view import View


def render_field(
    rng: np.random.Generator,
    width: int,
    height: int,
    look: Look | None = None,
    composition: Composition | None = None,
    overlays: bool = False,
) -> View:
    """Draw one field of a new random slide.

    Parameters
    ----------
    rng
        Source of randomness.
    width, height
        Size, px.
    look, composition
        Fixed values; drawn at random where None.
    overlays
        Whether scale bars, arrows and pointers may lie over the picture.
    """
    if look is None:
        look = Look.sample(rng, strength=float(rng.uniform(0.0, 1.0)))
    if composition is None:
        composition = Composition.sample(rng)
    inset = round(0.75 * look.cell_px)  # cells cut by the border come from a little way beyond it
    size = (width + 2 * inset, height + 2 * inset)
    smear = Smear(int(rng.integers(2**31)), composition, look, size=size)
    focus = abs(float(rng.normal(0, 0.6)))
    view = smear.view(inset, inset, width, height, focus=focus, noise_seed=int(rng.integers(2**31)))
    return with_random_overlays(view, rng) if overlays else view
