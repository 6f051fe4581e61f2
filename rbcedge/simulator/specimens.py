"""From a class code to one specimen: outlines, and how haemoglobin is spread inside them."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from rbcedge.simulator import outlines
from rbcedge.simulator.composition import CODES, Composition


@dataclass(frozen=True, eq=False)
class Member:
    """One red cell of a specimen.

    Attributes
    ----------
    outline
        (N, 2) float64, px relative to the specimen's origin.
    style
        Inner structure: disc, flat, target, slit, blotch, fold or speckled.
    density
        Haemoglobin relative to a normal cell, about 0.4 to 1.5.
    azure
        Share of blue stain (polychromasia), 0 to about 0.25.
    pallor_depth, pallor_size
        Added to the look's values, dimensionless.
    seed
        Seeds the inner structure.
    """

    outline: np.ndarray
    style: str
    density: float
    azure: float
    pallor_depth: float
    pallor_size: float
    seed: int


@dataclass(frozen=True, eq=False)
class Specimen:
    """One object of the slide: a single cell, or cells that lie over one another."""

    code: int
    members: tuple[Member, ...]


def draw_specimen(
    rng: np.random.Generator, code: int, composition: Composition, cell_px: float, direction: float
) -> Specimen:
    """Draw a specimen of a class.

    Parameters
    ----------
    rng
        Source of randomness.
    code
        Index into `CODES`.
    composition
        Shares of kinds within the class.
    cell_px
        Mean cell diameter, px.
    direction
        Direction of spreading on this slide, radians.
    """
    name = CODES[code]
    if name == "TWO":
        return Specimen(code, _overlapping(rng, 2, composition, cell_px, direction))
    if name == "THR":
        return Specimen(code, _overlapping(rng, 3, composition, cell_px, direction))
    if name == "OTH" and rng.random() < composition.clumps:
        count = int(rng.integers(4, 6))
        return Specimen(code, _overlapping(rng, count, composition, cell_px, direction))
    return Specimen(code, (_single(rng, name, composition, cell_px, direction),))


def _diameter(rng: np.random.Generator, composition: Composition) -> float:
    return float(np.clip(rng.normal(1.0, composition.size_spread), 0.8, 1.25))


def _single(rng: np.random.Generator, name: str, composition: Composition, cell_px: float, direction: float) -> Member:
    d = _diameter(rng, composition)
    style, density = "disc", float(np.exp(rng.normal(0, 0.09)))
    azure = float(rng.uniform(0.05, 0.18)) if rng.random() < 0.03 else 0.0
    depth, size = float(rng.normal(0, 0.14)), float(rng.normal(0, 0.09))
    if name == "NOR":
        kinds = (
            composition.macrocytes,
            composition.microcytes,
            composition.spherocytes,
            composition.hypochromic,
        )
        kind = int(np.searchsorted(np.cumsum(kinds), rng.random(), side="right"))
        if kind == 0:
            d *= rng.uniform(1.12, 1.3)
            azure += rng.uniform(0, 0.08)
        elif kind == 1:
            d *= rng.uniform(0.68, 0.85)
        elif kind == 2:
            d *= rng.uniform(0.72, 0.9)
            style, density = "flat", density * rng.uniform(1.15, 1.45)
        elif kind == 3:
            density *= rng.uniform(0.62, 0.95)
            depth, size = depth + rng.uniform(0.3, 0.6), size + rng.uniform(0.15, 0.35)
        out = outlines.round_cell(rng, d)
    elif name == "OVA":
        out = outlines.oval_cell(rng, d * rng.uniform(0.9, 1.08))
        if rng.random() < 0.25:
            style = "flat"
    elif name == "TEA":
        out = outlines.teardrop(rng, d * rng.uniform(0.78, 1.02))
    elif name == "FRA":
        out = outlines.fragment(rng, d)
        style = "flat" if rng.random() < 0.6 else "disc"
        depth -= 0.1
    elif name == "BUR":
        out, _ = outlines.burr(rng, d * rng.uniform(0.85, 1.08))
        style = "speckled"
    else:
        odd = rng.random()
        if odd < 0.34:
            out, style = outlines.round_cell(rng, d * rng.uniform(0.95, 1.12), 0.02), "target"
        elif odd < 0.58:
            out, style = outlines.round_cell(rng, d, 0.02), "slit"
        elif odd < 0.78:
            out = outlines.angular_cell(rng, d)
        else:
            out = outlines.false_teardrop(rng, d * rng.uniform(0.85, 1.0), direction)
    if style == "disc" and rng.random() < composition.artefacts:
        style = "blotch" if rng.random() < 0.6 else "fold"
    seed = int(rng.integers(2**31))
    if composition.roughness and name != "BUR":
        out = outlines.wavy(out, rng, composition.roughness * 2.5, 6, 14)
    return Member(out * cell_px, style, density, azure, depth, size, seed)


def _overlapping(
    rng: np.random.Generator, count: int, composition: Composition, cell_px: float, direction: float
) -> tuple[Member, ...]:
    names = rng.choice(["NOR", "OVA", "BUR", "FRA", "TEA"], size=count, p=[0.84, 0.1, 0.03, 0.015, 0.015])
    cells = [_single(rng, str(n), composition, cell_px, direction) for n in names]
    side = int(cell_px * (2.4 * count + 1.0))
    placed = [(cells[0], np.zeros(2))]
    masks = [_fill(cells[0].outline, side)]
    for cell in cells[1:]:
        for _ in range(40):
            anchor, at = placed[int(rng.integers(len(placed)))]
            angle = rng.uniform(0, 2 * np.pi)
            reach = np.sqrt(outlines.area(anchor.outline) / np.pi) + np.sqrt(outlines.area(cell.outline) / np.pi)
            centre = at + reach * rng.uniform(0.42, 0.96) * np.array([np.cos(angle), np.sin(angle)])
            mask = _fill(cell.outline + centre, side)
            size = np.count_nonzero(mask)
            shares = [np.count_nonzero(mask & m) / min(size, np.count_nonzero(m)) for m in masks]
            if 0.05 <= max(shares) <= 0.6 and sum(s > 0.02 for s in shares) <= 2:
                placed.append((cell, centre))
                masks.append(mask)
                break
        else:  # cannot happen for ordinary cells; fall back to a fixed overlap
            anchor, at = placed[-1]
            reach = np.sqrt(outlines.area(anchor.outline) / np.pi) * 1.5
            centre = at + np.array([reach, 0.0])
            placed.append((cell, centre))
            masks.append(_fill(cell.outline + centre, side))
    middle = np.mean([at for _, at in placed], axis=0)
    return tuple(
        Member(c.outline + (at - middle), c.style, c.density, c.azure, c.pallor_depth, c.pallor_size, c.seed)
        for c, at in placed
    )


def _fill(outline: np.ndarray, side: int) -> np.ndarray:
    mask = np.zeros((side, side), np.uint8)
    cv2.fillPoly(mask, [np.rint(outline + side / 2).astype(np.int32)], 1)
    return mask
