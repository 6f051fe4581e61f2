"""Training of EfficientNetB0 on cells cut out of lessons."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from rbcedge.training.crops import Cut, fits, overlap, present
from rbcedge.training.lessons import CODES
from rbcedge.training.networks import efficientnet
from rbcedge.training.segmenter import read_weights, write_weights

#: Share of drawn cells that are real (the rest is simulated); overlapped cells are also made of real single ones.
REAL = {"NOR": 0.92, "OTH": 0.9, "OVA": 0.9, "BUR": 0.75, "FRA": 0.75, "TEA": 0.6, "TWO": 0.4, "THR": 0.3}
MADE_UP = {"TWO": 0.4, "THR": 0.45}


class Draw:
    """Draws training crops: classes by the square root of their number, each cell changed at random."""

    def __init__(self, real: Sequence[Cut], simulated: Sequence[Cut]) -> None:
        self._real = [[c for c in real if c.code == i] for i in range(len(CODES))]
        self._simulated = [[c for c in simulated if c.code == i] for i in range(len(CODES))]
        singles = [c for c in real if CODES[c.code] in ("NOR", "OVA", "OTH")]
        self._by_field: dict[int, list[Cut]] = {}
        for c in singles:
            self._by_field.setdefault(c.field, []).append(c)
        self._fields = [f for f, cells in self._by_field.items() if len(cells) >= 4]
        share = np.sqrt([max(len(cells), 50) for cells in self._real])
        self.share: NDArray[np.float64] = share / share.sum()

    def one(self, rng: np.random.Generator) -> tuple[NDArray[np.uint8], int]:
        """Return a crop (80, 80, 3) uint8 and its class."""
        code = int(rng.choice(len(CODES), p=self.share))
        name = CODES[code]
        way = rng.random()
        if way < MADE_UP.get(name, 0):
            cells = self._by_field[self._fields[int(rng.integers(len(self._fields)))]]
            picks = rng.choice(len(cells), 2 if name == "TWO" else 3, replace=False)
            cell = overlap(rng, [cells[int(i)] for i in picks], code)
        else:
            pool = self._real[code] if way < MADE_UP.get(name, 0) + REAL[name] else self._simulated[code]
            pool = pool or self._real[code] or self._simulated[code]
            cell = pool[int(rng.integers(len(pool)))]
        return present(rng, cell), code


def batches(
    draw: Draw, seed: int, size: int, small: int, first: int = 0
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
    """Yield batches without end; most crops that fit a square of `small` px come in batches of that side.

    Two sides, because at the microscope single cells are classified on the smaller square at half the cost.
    """
    waiting: dict[int, list[tuple[NDArray[np.uint8], int]]] = {small: [], 80: []}
    edge = (80 - small) // 2
    number = first
    while True:
        rng = np.random.default_rng((seed, number))
        number += 1
        for _ in range(size):
            crop, code = draw.one(rng)
            if rng.random() < 0.8 and fits(crop, small):
                waiting[small].append((crop[edge : edge + small, edge : edge + small], code))
            else:
                waiting[80].append((crop, code))
        for queue in waiting.values():
            while len(queue) >= size:
                part = [queue.pop() for _ in range(size)]
                yield np.stack([c for c, _ in part]).astype(np.float32) / 255, np.array([k for _, k in part])


def train(
    real: Sequence[Cut],
    simulated: Sequence[Cut],
    out: Path,
    steps: int = 3500,
    batch: int = 64,
    small: int = 56,
    weights: str | Path = "imagenet",
    rate: float = 1.5e-3,
    smoothing: float = 0.05,
    seed: int = 0,
) -> None:
    """Train EfficientNetB0; interrupted, it goes on from its last checkpoint in `out`.

    AdamW with warm-up and cosine decay, label smoothing, and an exponential average of the weights, which is
    what is kept, in ``out/weights.npz``.
    """
    import keras

    keras.utils.set_random_seed(seed)
    cv2.setNumThreads(1)
    out.mkdir(parents=True, exist_ok=True)
    (out / "network.json").write_text(json.dumps({"small": small}))
    model = efficientnet(len(CODES), weights, None)
    schedule = keras.optimizers.schedules.CosineDecay(
        1e-5, steps - 300, alpha=0.003, warmup_target=rate, warmup_steps=300
    )
    model.compile(
        keras.optimizers.AdamW(schedule, weight_decay=0.02, clipnorm=1.0),
        keras.losses.CategoricalCrossentropy(label_smoothing=smoothing),
    )
    state = out / "state.weights.h5"
    done = 0
    if state.exists():
        model.train_on_batch(np.zeros((2, 56, 56, 3), np.float32), np.eye(len(CODES), dtype=np.float32)[:2])
        model.load_weights(state)
        done = int((out / "step").read_text())
    average = read_weights(out / "weights.npz") if done else [w.copy() for w in model.get_weights()]
    stream = batches(Draw(real, simulated), seed, batch, small, done)
    eye = np.eye(len(CODES), dtype=np.float32)
    running = 0.0
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(next, stream)
        for step in range(done, steps):
            x, y = waiting.result()
            waiting = pool.submit(next, stream)
            value = float(model.train_on_batch(x, eye[y]))
            running = value if step == done else 0.98 * running + 0.02 * value
            if step % 10 == 0:
                keep = min(0.97, 1 - 1 / (step / 10 + 1))
                average = [keep * a + (1 - keep) * w for a, w in zip(average, model.get_weights(), strict=True)]
            if (step + 1) % 100 == 0 or step + 1 == steps:
                print(f"step {step + 1}/{steps} loss {running:.4f}", flush=True)
                model.save_weights(state)
                write_weights(out / "weights.npz", average)
                (out / "step").write_text(str(step + 1))
