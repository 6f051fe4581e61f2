"""Rasterising specimens: exact label masks, and stain layers that absorb light."""

from __future__ import annotations

import cv2
import numpy as np

from rbcedge.simulator.look import Look
from rbcedge.simulator.specimens import Member, Specimen

EOSIN, AZURE, DIRT = 0, 1, 2
"""Stain layers: haemoglobin and cytoplasm, nuclei and platelets, opaque dirt."""

_UP = 3


def bounds(outline: np.ndarray, margin: int) -> tuple[int, int, int, int]:
    """Return the box x, y, w, h (px) around an outline with a margin."""
    lo = np.floor(outline.min(axis=0)).astype(int) - margin
    hi = np.ceil(outline.max(axis=0)).astype(int) + margin + 1
    return int(lo[0]), int(lo[1]), int(hi[0] - lo[0]), int(hi[1] - lo[1])


def _large(outline: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    """Return the filled outline, `_UP` times enlarged, 0 or 255 uint8."""
    x, y, w, h = box
    big = np.zeros((h * _UP, w * _UP), np.uint8)
    points = (outline - (x, y) + 0.5) * _UP - 0.5
    cv2.fillPoly(big, [np.rint(points * 16).astype(np.int32)], 255, shift=4)
    return big


def mask_of(specimen: Specimen) -> tuple[np.ndarray, int, int]:
    """Return the union mask of a specimen, (h, w) 0/1 uint8, and its corner x, y (px).

    The mask is one 8-connected region, cut tight to its box.
    """
    every = np.vstack([m.outline for m in specimen.members])
    box = bounds(every, 1)
    union = np.zeros((box[3], box[2]), np.uint8)
    for member in specimen.members:
        cover = cv2.resize(_large(member.outline, box), (box[2], box[3]), interpolation=cv2.INTER_AREA)
        union |= (cover >= 128).astype(np.uint8)
    union = largest_part(union)
    x, y, w, h = cv2.boundingRect(union)
    return np.ascontiguousarray(union[y : y + h, x : x + w]), box[0] + x, box[1] + y


def largest_part(mask: np.ndarray) -> np.ndarray:
    """Return the largest 8-connected part of a 0/1 mask."""
    count, parts, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    if count <= 2:
        return mask
    keep = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    return np.asarray(parts == keep, dtype=np.uint8)


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], nodes: int) -> np.ndarray:
    """Return slow noise, (h, w) float32, standard deviation about 1, with `nodes` bumps across."""
    coarse = rng.standard_normal((nodes, nodes)).astype(np.float32)
    return np.asarray(cv2.resize(coarse, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC))


def _step(value: np.ndarray, at: float, width: float) -> np.ndarray:
    t = np.clip((value - at) / max(width, 1e-3) + 0.5, 0.0, 1.0)
    return np.asarray(t * t * (3.0 - 2.0 * t))


def paint_cell(member: Member, look: Look) -> tuple[np.ndarray, int, int]:
    """Paint one red cell.

    Parameters
    ----------
    member
        The cell; its outline may carry a sub-pixel position.
    look
        Appearance.

    Returns
    -------
    layers
        (2, h, w) float32: eosin and azure, relative density.
    x, y
        Corner of the patch, px.
    """
    rng = np.random.default_rng(member.seed)
    box = bounds(member.outline, max(3, round(look.cell_px * 0.12)))
    x, y, w, h = box
    big = _large(member.outline, box)
    cover = cv2.resize(big, (w, h), interpolation=cv2.INTER_AREA).astype(np.float32) / 255.0
    depth = cv2.distanceTransform(big, cv2.DIST_L2, 5)
    depth = cv2.resize(depth, (w, h), interpolation=cv2.INTER_AREA) / np.float32(_UP)
    deepest = float(depth.max())
    soft = cv2.GaussianBlur(depth, (0, 0), max(0.05 * look.cell_px, 0.6))
    q = np.clip(soft / max(float(soft.max()), 1e-3), 0.0, 1.0)

    centre = member.outline.mean(axis=0) - (x, y)
    xs = (np.arange(w, dtype=np.float32) - np.float32(centre[0]))[None, :]
    ys = (np.arange(h, dtype=np.float32) - np.float32(centre[1]))[:, None]
    radius = max(deepest, 2.0)

    rim = max(look.rim * look.cell_px / 2, 0.4)
    body = 0.55 + 0.45 * _step(depth, rim * 0.5, rim)
    body = body + look.edge * np.exp(-((depth / (0.07 * look.cell_px)) ** 2))
    missing = _missing(member, look, rng, q, xs, ys, radius)
    eosin = member.density * cover * body * (1.0 - missing)
    if look.texture > 0:
        amount = look.texture * (3.0 if member.style == "speckled" else 1.0)
        nodes = max(4, round(max(w, h) / look.cell_px * (9 if member.style == "speckled" else 6)))
        eosin *= np.clip(1.0 + amount * smooth_noise(rng, (h, w), nodes), 0.2, 2.0)
    spread = cv2.GaussianBlur(cover, (0, 0), max(0.035 * look.cell_px, 0.8))
    if look.relief:
        gx = cv2.Sobel(spread, cv2.CV_32F, 1, 0, scale=0.125)
        gy = cv2.Sobel(spread, cv2.CV_32F, 0, 1, scale=0.125)
        lit = gx * np.float32(np.cos(look.light_angle)) + gy * np.float32(np.sin(look.light_angle))
        eosin += look.relief * 6.0 * lit
    if look.halo:
        density = max(look.eosin[1], 0.05)
        eosin -= look.halo / density * 4.0 * spread * (1.0 - cover)
    azure = member.azure * cover * (0.6 + 0.4 * body)
    return np.stack([eosin, azure]).astype(np.float32), x, y


def paint_specimen(specimen: Specimen, look: Look) -> tuple[np.ndarray, int, int]:
    """Paint all cells of a specimen; returns as `paint_cell`."""
    parts = [paint_cell(member, look) for member in specimen.members]
    if len(parts) == 1:
        return parts[0]
    left, top = min(p[1] for p in parts), min(p[2] for p in parts)
    right = max(x + layers.shape[2] for layers, x, _ in parts)
    bottom = max(y + layers.shape[1] for layers, _, y in parts)
    most = np.zeros((2, bottom - top, right - left), np.float32)
    added = np.zeros_like(most)
    for layers, x, y in parts:
        here = np.s_[:, y - top : y - top + layers.shape[1], x - left : x - left + layers.shape[2]]
        added[here] += layers
        np.maximum(most[here], layers, out=most[here])
    shown = added + (look.overlap - 1.0) * np.clip(added - most, 0.0, None)
    return shown.astype(np.float32), left, top


def _missing(
    member: Member,
    look: Look,
    rng: np.random.Generator,
    q: np.ndarray,
    xs: np.ndarray,
    ys: np.ndarray,
    radius: float,
) -> np.ndarray:
    """Return the share of haemoglobin missing at each pixel, 0 to 1."""
    depth = float(np.clip(look.pallor_depth + member.pallor_depth, 0.0, 0.95))
    size = float(np.clip(look.pallor_size + member.pallor_size, 0.08, 0.9))
    width = max(look.pallor_softness, 0.08)
    shift = rng.normal(0, 0.09, 2)
    leaned = q + (shift[0] * xs + shift[1] * ys) / radius * 0.8
    leaned = leaned + 0.05 * smooth_noise(rng, q.shape, 4)
    if member.style == "flat":
        return 0.25 * depth * _step(leaned, 0.8, 0.8)
    if member.style == "target":
        depth = float(np.clip(depth, 0.35, 0.8))
        ring = _step(leaned, rng.uniform(0.28, 0.4), 0.25) * (1 - _step(leaned, rng.uniform(0.62, 0.76), 0.25))
        return np.asarray(depth * ring)
    if member.style == "slit":
        depth = float(np.clip(depth + 0.15, 0.4, 0.9))
        angle = rng.uniform(0, np.pi)
        u = (np.cos(angle) * xs + np.sin(angle) * ys) / radius
        v = (-np.sin(angle) * xs + np.cos(angle) * ys) / radius
        v = v + rng.normal(0, 0.25) * u * u
        far = np.sqrt((u / rng.uniform(0.5, 0.75)) ** 2 + (v / rng.uniform(0.14, 0.28)) ** 2)
        return depth * (1.0 - _step(far, 0.9, 0.7))
    pale = depth * _step(leaned, 1.0 - size, width)
    if member.style == "blotch":
        rough = leaned + 0.16 * smooth_noise(rng, q.shape, 6)
        depth = float(np.clip(depth + rng.uniform(0.1, 0.35), 0.3, 0.95))
        return np.maximum(pale * 0.5, depth * _step(rough, 1.0 - size * rng.uniform(0.7, 1.1), 0.12))
    if member.style == "fold":
        angle = rng.uniform(0, np.pi)
        across = (-np.sin(angle) * xs + np.cos(angle) * ys) / radius + rng.normal(0, 0.15)
        along = (np.cos(angle) * xs + np.sin(angle) * ys) / radius
        bar = np.exp(-(((across + rng.normal(0, 0.3) * along**2) / rng.uniform(0.1, 0.22)) ** 2))
        depth = float(np.clip(depth + 0.15, 0.3, 0.9))
        return np.asarray(depth * _step(leaned, 0.85 - size, 0.35) * (1.0 - 0.9 * bar))
    if member.style == "speckled":
        return 0.7 * pale
    return pale
