"""Rare shapes made of real round cells: their outline is drawn anew, their texture and stain stay real.

A cell's pixels are moved along the rays from its middle, most at the rim and not at all inside, so that a cell that a
camera saw gets crenated, a tail, or a piece missing. Labelled examples of these shapes are few, and those of a
simulator look like the simulator.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import cv2
import numpy as np
from numpy.typing import NDArray
from rbcedge.training.crops import WINDOW, Cut, glass

Outline = NDArray[np.float32]

_ANGLES = 360
_Y, _X = np.mgrid[:WINDOW, :WINDOW].astype(np.float32)


def reshape(rng: np.random.Generator, cell: Cut, name: str, code: int) -> Cut:
    """Make a cell of the class `name` ("BUR", "TEA", "FRA") out of a round one.

    Parameters
    ----------
    rng : numpy Generator
    cell : Cut
    name : str
    code : int
        Index of the class `name`.
    """
    if name == "FRA" and rng.random() < 0.6:
        return _cut_off(rng, cell, code)
    outline, inner = SHAPES[name](rng)
    ys, xs = np.nonzero(cell.own)
    cy, cx = float(ys.mean()), float(xs.mean())
    dy, dx = _Y - np.float32(cy), _X - np.float32(cx)
    distance = np.hypot(dx, dy)
    turn = (np.degrees(np.arctan2(dy, dx)) % 360).astype(np.float32)
    factor = cv2.remap(outline[None], turn, np.zeros_like(turn), cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    radius = np.float32(np.sqrt(cell.own.sum() / np.pi))
    # How far out on the new cell's ray: inside of `inner` nothing moves, from the rim on everything does.
    out = np.clip((distance / (radius * factor) - inner) / (1 - inner), 0, 1)
    stretch = 1 + (factor - 1) * out
    map_x, map_y = cx + dx / stretch, cy + dy / stretch
    pixels = cv2.remap(cell.pixels, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    own = cv2.remap(cell.own, map_x, map_y, cv2.INTER_NEAREST)
    others = cv2.remap(cell.others, map_x, map_y, cv2.INTER_NEAREST)
    return Cut(pixels, _smooth(own, rng.uniform(0.3, 2.2)), others, code, cell.field)


def _smooth(own: NDArray[np.uint8], sigma: float) -> NDArray[np.uint8]:
    """Blunt an outline by `sigma` px, as a network that works at half resolution does."""
    soft = cv2.GaussianBlur(own.astype(np.float32), (0, 0), sigma)
    _, parts, stats, _ = cv2.connectedComponentsWithStats((soft > 0.5).astype(np.uint8), connectivity=8)
    return np.asarray(parts == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))).astype(np.uint8)


def _burr(rng: np.random.Generator) -> tuple[Outline, float]:
    """Ten to thirty even spicules, blunt or fine as needles."""
    spikes = int(rng.integers(9, 28))
    phase = rng.uniform(0, 2 * np.pi)
    angles = np.linspace(0, 2 * np.pi, _ANGLES, endpoint=False)
    # Spicules are evenly spread, not equally.
    wobble = sum(rng.normal(0, 0.12) * np.cos(k * angles + rng.uniform(0, 2 * np.pi)) for k in (1, 2, 3))
    wave = np.cos(spikes * (angles + wobble / 2) + phase)
    sharp = rng.uniform(1.0, 5.0)
    height = rng.uniform(0.06, 0.19) * (1 + 0.35 * np.cos(angles * rng.integers(1, 5) + rng.uniform(0, 6)))
    spicules = height * ((wave + 1) / 2) ** sharp
    return (1 + spicules - spicules.mean()).astype(np.float32), float(rng.uniform(0.45, 0.75))


def _teardrop(rng: np.random.Generator) -> tuple[Outline, float]:
    """One tail, short and blunt to long and thin, in any direction, at times bent."""
    at, wide = rng.uniform(0, 2 * np.pi), rng.uniform(0.18, 0.45)
    angles = np.linspace(0, 2 * np.pi, _ANGLES, endpoint=False)
    away = np.angle(np.exp(1j * (angles - at)))
    away = np.where(away > 0, away / rng.uniform(0.75, 1.3), away)
    length = rng.uniform(0.45, 1.1)
    tail = length * np.exp(-((np.abs(away) / wide) ** rng.uniform(1.0, 1.7)))
    # The body narrows towards the tail and keeps the cell's area about.
    body = rng.uniform(0.82, 0.95) * (1 + rng.uniform(-0.02, 0.06) * np.cos(away))
    return (body + tail).astype(np.float32), float(rng.uniform(0.15, 0.45))


def _fragment(rng: np.random.Generator) -> tuple[Outline, float]:
    """Small, with two or three corners and straight sides between them."""
    corners = int(rng.integers(2, 4))
    angles = np.linspace(0, 2 * np.pi, _ANGLES, endpoint=False)
    at = rng.uniform(0, 2 * np.pi) + np.arange(corners) * 2 * np.pi / corners + rng.normal(0, 0.35, corners)
    away = np.abs(np.angle(np.exp(1j * (angles[:, None] - at))))
    horns = (rng.uniform(0.25, 0.7, corners) * np.exp(-((away / rng.uniform(0.25, 0.45)) ** 1.3))).sum(1)
    return (rng.uniform(0.5, 0.75) + horns).astype(np.float32), float(rng.uniform(0.1, 0.3))


def _cut_off(rng: np.random.Generator, cell: Cut, code: int) -> Cut:
    """Take away what lies beyond a straight or slightly curved line: helmets, triangles, crescents."""
    ys, xs = np.nonzero(cell.own)
    cy, cx = float(ys.mean()), float(xs.mean())
    radius = np.sqrt(cell.own.sum() / np.pi)
    own = cell.own.copy()
    for _ in range(1 if rng.random() < 0.65 else 2):
        angle = rng.uniform(0, 2 * np.pi)
        along = (_X - cx) * np.cos(angle) + (_Y - cy) * np.sin(angle)
        across = -(_X - cx) * np.sin(angle) + (_Y - cy) * np.cos(angle)
        own[along > radius * rng.uniform(-0.35, 0.4) + rng.uniform(-0.4, 0.6) * across**2 / radius] = 0
    count, parts, stats, _ = cv2.connectedComponentsWithStats(own, connectivity=4)
    if count < 2:
        return cell if cell.code == code else _cut_off(rng, cell, code)
    own = (parts == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))).astype(np.uint8)
    if not 0.18 < own.sum() / cell.own.sum() < 0.75:
        return _cut_off(rng, cell, code)
    # Cells have soft, darker rims: the cut side is blended into glass over about two pixels.
    soft = cv2.GaussianBlur(own.astype(np.float32), (0, 0), rng.uniform(0.7, 1.3))[..., None]
    bare = glass(rng, cell)
    pixels = bare + (cell.pixels - bare) * np.clip(soft * (1 + rng.uniform(0.0, 0.25) * (1 - soft) * 4), 0, 1.15)
    near = np.clip(pixels, 0, 255).astype(np.uint8)
    return Cut(np.where(cell.others[..., None] > 0, cell.pixels, near), own, cell.others, code, cell.field)


#: Class to what draws its outline: radius by degree (360,), 1 as it was, and how far out pixels begin to move.
SHAPES: Mapping[str, Callable[[np.random.Generator], tuple[Outline, float]]] = {
    "BUR": _burr,
    "TEA": _teardrop,
    "FRA": _fragment,
}
