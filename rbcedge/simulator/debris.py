"""Things on a slide that are not red cells: platelets, leucocytes, dirt, ghosts."""

from __future__ import annotations

import cv2
import numpy as np

from rbcedge.simulator.look import Look
from rbcedge.simulator.paint import smooth_noise

KINDS = ("platelet", "leucocyte", "dirt", "ghost")


def reach(kind: str, size: float) -> int:
    """Return how far (px) a thing of `size` px diameter may extend from its centre."""
    return int(np.ceil(size * (1.0 if kind == "leucocyte" else 1.3))) + 3


def draw_size(rng: np.random.Generator, kind: str, cell_px: float) -> float:
    """Draw the diameter of a thing, px."""
    ratio = {
        "platelet": (0.16, 0.42),
        "leucocyte": (1.25, 2.0),
        "dirt": (0.04, 0.16),
        "ghost": (0.7, 1.1),
    }[kind]
    return float(rng.uniform(*ratio) * cell_px)


def paint_debris(kind: str, size: float, seed: int, look: Look) -> np.ndarray:
    """Paint a thing centred in a square patch.

    Parameters
    ----------
    kind
        One of `KINDS`.
    size
        Diameter, px.
    seed
        Seeds its form.
    look
        Appearance.

    Returns
    -------
    layers
        (3, n, n) float32, n = 2 * reach + 1: eosin, azure and dirt, relative density.
    """
    rng = np.random.default_rng(seed)
    r = reach(kind, size)
    n = 2 * r + 1
    layers = np.zeros((3, n, n), np.float32)
    if kind == "platelet":
        blob = _blob(rng, n, size / 2, 0.16, max(0.09 * size, 0.5))
        if rng.random() < 0.15:  # a small heap
            blob = np.maximum(blob, np.roll(blob, (round(size * 0.35), round(-size * 0.3)), (0, 1)))
        granules = np.clip(0.7 + 0.35 * smooth_noise(rng, (n, n), max(4, n // 3)), 0.2, 1.5)
        layers[1] = blob * granules * rng.uniform(0.35, 0.95)
        layers[0] = blob * rng.uniform(0.05, 0.4)
    elif kind == "ghost":
        blob = _blob(rng, n, size / 2, 0.06, max(0.05 * size, 0.8))
        layers[0] = blob * rng.uniform(0.03, 0.09) * (1 + 0.3 * smooth_noise(rng, (n, n), 5))
    elif kind == "dirt":
        blob = _blob(rng, n, size / 2, 0.25, 0.6)
        layers[2 if rng.random() < 0.6 else 1] = blob * rng.uniform(0.4, 1.8)
    else:
        _leucocyte(rng, layers, size)
    return layers


def _blob(
    rng: np.random.Generator, n: int, radius: float, rough: float, soft: float, dx: float = 0, dy: float = 0
) -> np.ndarray:
    theta = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    r = np.ones(60)
    for k in range(2, 6):
        r += rough * rng.normal() / k * 1.6 * np.cos(k * theta + rng.uniform(0, 2 * np.pi))
    aspect = np.exp(rng.normal(0, rough))
    points = np.stack([radius * aspect * r * np.cos(theta), radius / aspect * r * np.sin(theta)], axis=1)
    points += (n // 2 + dx, n // 2 + dy)
    canvas = np.zeros((n, n), np.uint8)
    cv2.fillPoly(canvas, [np.rint(points * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    return np.asarray(cv2.GaussianBlur(canvas.astype(np.float32) / 255.0, (0, 0), soft))


def _leucocyte(rng: np.random.Generator, layers: np.ndarray, size: float) -> None:
    n = layers.shape[1]
    r = size / 2
    soft = max(0.02 * size, 0.7)
    kind = rng.random()
    body = _blob(rng, n, r * 0.95, 0.05, soft)
    nucleus = np.zeros_like(body)
    if kind < 0.55:  # granulocyte: two to five lobes
        lobes = int(rng.integers(2, 6))
        start = rng.uniform(0, 2 * np.pi)
        for k in range(lobes):
            at = start + k * rng.uniform(0.9, 1.3)
            spot = _blob(rng, n, r * rng.uniform(0.26, 0.38), 0.12, soft, 0.42 * r * np.cos(at), 0.42 * r * np.sin(at))
            nucleus = np.maximum(nucleus, spot)
        grains = np.clip(1 + 0.4 * smooth_noise(rng, body.shape, max(8, n // 3)), 0, 2)
        eosinophil = rng.random() < 0.15
        layers[0] += body * grains * (0.8 if eosinophil else 0.22)
        layers[1] += body * 0.06
    elif kind < 0.85:  # lymphocyte: a round nucleus nearly fills the cell
        nucleus = _blob(rng, n, r * rng.uniform(0.72, 0.86), 0.06, soft, rng.normal(0, 0.06) * r, 0)
        layers[1] += body * rng.uniform(0.12, 0.25)
    else:  # monocyte: folded nucleus
        nucleus = _blob(rng, n, r * 0.66, 0.12, soft, -0.1 * r, 0)
        nucleus *= 1 - 0.8 * _blob(rng, n, r * 0.3, 0.1, soft * 2, 0.45 * r, 0.1 * r)
        layers[1] += body * 0.18
        layers[0] += body * 0.1
    chromatin = np.clip(1 + 0.14 * smooth_noise(rng, body.shape, max(8, n // 4)), 0.5, 1.5)
    layers[1] += nucleus * chromatin * rng.uniform(0.85, 1.2)
