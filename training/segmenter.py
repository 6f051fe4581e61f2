"""Training of the U-Net on lessons."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rbcedge.training import augment
from rbcedge.training.networks import Upsampling, load_weights, unet
from rbcedge.training.steps import Steps, resume

Lesson = dict[str, NDArray[Any]]

#: How much more a pixel in the gap between two cells weighs: too little, and touching cells are found as one.
GAP = 8.0


def target(labels: NDArray[np.int32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Make the segmenter's target and weights from instances.

    Cells that touch are parted by background; pixels in the narrow gap between two cells weigh more, because
    few pixels there decide how many cells are counted (as in Ronneberger et al. 2015, section 3).

    Parameters
    ----------
    labels : (H, W) int32
        0 background, instances above.

    Returns
    -------
    cell : (H, W) float32, 0 or 1
    weight : (H, W) float32, 1 or more
    """
    ids = labels.astype(np.float32)
    top = cv2.dilate(ids, np.ones((3, 3), np.uint8))
    low = cv2.erode(np.where(ids > 0, ids, 1e9).astype(np.float32), np.ones((3, 3), np.uint8))
    meet = (low < 1e9) & (top != low)
    cell = ((labels > 0) & ~meet).astype(np.float32)
    wide = np.ones((5, 5), np.uint8)
    top = cv2.dilate(ids, wide)
    low = cv2.erode(np.where(ids > 0, ids, 1e9).astype(np.float32), wide)
    gap = (low < 1e9) & (top != low) & (cell == 0)
    return cell, np.where(gap, GAP, 1.0).astype(np.float32)


def sample(
    rng: np.random.Generator, lesson: Lesson, side: int, scale: float
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Cut a random turned square of `side` px at working resolution out of a lesson.

    Returns
    -------
    pixels : (side, side, 3) uint8
    truth : (side, side, 2) float32
        Cell (0 or 1) and weight (0: nobody knows).
    """
    h, w = lesson["labels"].shape
    zoom = scale * float(np.exp(rng.uniform(np.log(0.75), np.log(1.33))))
    span = side / zoom
    m = augment.turn(rng, 0, side, (zoom, zoom))
    spot = np.array(
        [
            rng.uniform(min(span / 2, w / 2), max(w - span / 2, w / 2)),
            rng.uniform(min(span / 2, h / 2), max(h - span / 2, h / 2)),
        ]
    )
    m[:, 2] = side / 2 - 0.5 - m[:, :2] @ spot
    sharp = lesson["pixels"]
    if zoom < 0.85:
        # Area averaging, as the pipeline's down-scaling does it.
        sharp = cv2.blur(sharp, (2, 2)) if zoom > 0.4 else cv2.blur(sharp, (3, 3))
    pixels = cv2.warpAffine(sharp, m, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    labels = cv2.warpAffine(
        lesson["labels"].astype(np.float32), m, (side, side), flags=cv2.INTER_NEAREST, borderMode=cv2.BORDER_REFLECT_101
    )
    ignore = cv2.warpAffine(lesson["ignore"].astype(np.uint8), m, (side, side), flags=cv2.INTER_NEAREST)
    cell, weight = target(labels.astype(np.int32))
    pixels = augment.optics(rng, augment.stain(rng, pixels), 0.7)
    return pixels, np.dstack([cell, weight * (ignore == 0)])


def loss(truth: Any, guess: Any) -> Any:
    """Weighted cross-entropy plus soft Dice over what is known. truth (N, H, W, 2), guess (N, H, W, 1)."""
    from keras import ops

    cell, weight = truth[..., :1], truth[..., 1:]
    guess = ops.clip(guess, 1e-6, 1 - 1e-6)
    entropy = -(cell * ops.log(guess) + (1 - cell) * ops.log(1 - guess))
    known = ops.cast(weight > 0, "float32")
    both = ops.sum(known * cell * guess)
    dice = 1 - (2 * both + 1) / (ops.sum(known * (cell + guess)) + 1)
    return ops.sum(entropy * weight) / (ops.sum(weight) + 1) + 0.5 * dice


def train(
    real: Sequence[Lesson],
    simulated: Sequence[Lesson],
    out: Path,
    width: int,
    depth: int = 4,
    upsampling: Upsampling = "transpose",
    scale: float = 0.5,
    steps: int = 4000,
    batch: int = 8,
    side: int = 160,
    weights: Path | None = None,
    rate: float = 2e-3,
    seed: int = 0,
) -> None:
    """Train a U-Net, from random weights or those of a file; interrupted, it goes on from its last checkpoint in `out`.

    Real and simulated fields take turns half and half. Adam with a cosine decay from `rate`; the exponential
    average of the weights is what is kept, in ``out/weights.npz``.
    """
    import keras

    keras.utils.set_random_seed(seed)
    out.mkdir(parents=True, exist_ok=True)
    network = {"width": width, "depth": depth, "upsampling": upsampling, "scale": scale}
    (out / "network.json").write_text(json.dumps(network))
    model = unet(width, depth, upsampling, (side, side, 3))
    if weights is not None:
        load_weights(model, weights)
    done, found = resume(out, model.name)
    model.compile(keras.optimizers.Adam(rate, clipnorm=1.0), loss)
    training = Steps(model, out, steps, rate, found)
    cv2.setNumThreads(1)

    def make(step: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        rng = np.random.default_rng((seed, step))
        pairs = []
        for k in range(batch):
            pool = real if k % 2 == 0 or not simulated else simulated
            pairs.append(sample(rng, pool[int(rng.integers(len(pool)))], side, scale))
        x = np.stack([p for p, _ in pairs]).astype(np.float32) / 255
        return x, np.stack([t for _, t in pairs]).astype(np.float32)

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(make, done)
        for step in range(done, steps):
            x, y = waiting.result()
            waiting = pool.submit(make, step + 1)
            training.learn(step, x, y)
