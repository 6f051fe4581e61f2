"""Batches of the protocol: the same for the same seed, epoch and number, whenever they are asked for."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from rbcedge.training import augment
from rbcedge.training.recipes import Recipe

Pixels = NDArray[np.uint8]

#: Largest turn of "flips and rotations", degrees (section 4.3).
TURN = 36.0


@dataclass(frozen=True, slots=True)
class Part:
    """Pictures of one part of a split; parallel arrays.

    Attributes
    ----------
    pixels : (N, side, side, 3) uint8
    targets : (N,) int64 classes, or (N, side, side) uint8 masks
    segmented : bool
        Beyond the cell the pixels are zero and stay so.
    """

    pixels: Pixels
    targets: NDArray[np.integer]
    segmented: bool

    def __len__(self) -> int:
        return len(self.pixels)


class Batches:
    """Training batches.

    Parameters
    ----------
    part : Part
    recipe : Recipe
    seed : sequence of int
        Names this training.
    steps : int or None
        Batches of an epoch at the most.
    """

    def __init__(self, part: Part, recipe: Recipe, seed: tuple[int, ...], steps: int | None = None) -> None:
        self._part, self._recipe, self._seed = part, recipe, seed
        self._count = len(part) * (2 if recipe.originals else 1)
        self.number = -(-self._count // recipe.batch)
        if steps is not None:
            self.number = min(self.number, steps)
        self._share: NDArray[np.float64] | None = None
        if recipe.balance != 1 and part.targets.ndim == 1:
            counts = np.bincount(part.targets)
            each = np.maximum(counts, 1) ** (recipe.balance - 1.0)
            share = each[part.targets]
            self._share = share / share.sum()

    def rows(self, epoch: int) -> NDArray[np.int64]:
        """(batches, batch) indices of an epoch; from N on: the changed picture of that index less N."""
        rng = np.random.default_rng((*self._seed, 1, epoch))
        if self._share is None:
            order = rng.permutation(self._count)
        else:
            order = rng.choice(len(self._part), self._count, p=self._share)
            if self._recipe.originals:
                order += len(self._part) * rng.integers(0, 2, self._count)
        # The last batch is filled up from the beginning, so that all are of one size.
        return np.resize(order, (-(-self._count // self._recipe.batch), self._recipe.batch))[: self.number]

    def make(self, epoch: int, number: int) -> tuple[NDArray[np.float32], NDArray[np.integer]]:
        """Return pixels (batch, side, side, 3) float32 in 0 to 1, and targets."""
        rows = self.rows(epoch)[number]
        n = len(self._part)
        rng = np.random.default_rng((*self._seed, 2, epoch, number))
        pixels, targets = self._part.pixels[rows % n].copy(), self._part.targets[rows % n].copy()
        for k, row in enumerate(rows):
            if row >= n or not self._recipe.originals:
                mask = targets[k] if targets.ndim == 3 else None
                changed, moved = change(rng, pixels[k], mask, self._recipe.change, self._part.segmented)
                pixels[k] = changed
                if moved is not None:
                    targets[k] = moved
        return pixels.astype(np.float32) / np.float32(255), targets


def change(
    rng: np.random.Generator, pixels: Pixels, mask: NDArray[np.uint8] | None, how: str, segmented: bool
) -> tuple[Pixels, NDArray[np.uint8] | None]:
    """Change one picture at random, and its mask with it.

    Parameters
    ----------
    rng : Generator
    pixels : (side, side, 3) uint8
    mask : (side, side) uint8 of 0 and 1, or None
    how : str
        As `Recipe.change`.
    segmented : bool
        Beyond the cell the picture is zero and stays so; else what turning brings in is mirrored at the edge.

    Returns
    -------
    pixels, mask
    """
    side = pixels.shape[0]
    edge = cv2.BORDER_CONSTANT if segmented else cv2.BORDER_REFLECT_101
    if how == "microscopes":
        matrix = augment.turn(rng, side, side, (0.88, 1.14))
    else:
        mirror = np.where(rng.random(2) < 0.5, -1.0, 1.0)
        angle = np.deg2rad(rng.uniform(-TURN, TURN)) if how == "flips and rotations" else 0.0
        linear = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * mirror
        centre = np.full(2, side / 2 - 0.5)
        matrix = np.hstack([linear, (centre - linear @ centre)[:, None]]).astype(np.float32)
    out: Pixels = cv2.warpAffine(pixels, matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=edge)
    if mask is not None:
        mask = cv2.warpAffine(mask, matrix, (side, side), flags=cv2.INTER_NEAREST, borderMode=edge)
    if how == "microscopes":
        shown = out.any(axis=2)
        out = augment.optics(rng, augment.stain(rng, out))
        if segmented:
            out[~shown] = 0
    return out, mask
