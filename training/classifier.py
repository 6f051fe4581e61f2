"""Training of EfficientNetB0 on cells cut out of lessons."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from rbcedge.training.crops import Cut, Example, fits, overlap, plain, present
from rbcedge.training.lessons import CELLS, CODES
from rbcedge.training.networks import efficientnet
from rbcedge.training.reshape import SHAPES, reshape
from rbcedge.training.steps import Steps, resume

from rbcedge.errors import RbcedgeError

T = TypeVar("T")

#: Share of drawn cells that are as they were labelled, and of those made of other real cells: overlapped ones of
#: single ones (`overlap`), rare shapes of round ones (`reshape`). The rest is simulated.
REAL = {"NOR": 0.92, "OTH": 0.9, "OVA": 0.9, "BUR": 0.5, "FRA": 0.55, "TEA": 0.4, "TWO": 0.4, "THR": 0.3}
MADE_UP = {"TWO": 0.4, "THR": 0.45, "BUR": 0.3, "FRA": 0.3, "TEA": 0.4}


#: Classes are drawn in proportion to their number to this power: 1 as they occur, 0 all alike.
BALANCE = 0.5

#: Share of real cells that nobody marked, where there are such (`second_opinion`).
UNMARKED = 0.4

#: Half of the crops look much as they came, half as other microscopes may show them.
STRENGTHS = (0.3, 1.0)


class Draw:
    """Draws training crops: classes by a root of their number, each cell changed at random."""

    def __init__(self, real: Sequence[Example], simulated: Sequence[Example], unmarked: Sequence[Example] = ()) -> None:
        self._real, self._simulated, self._unmarked = (_by_class(x) for x in (real, simulated, unmarked))
        self._round = [e.cell for e in self._real[CODES.index("NOR")]]
        singles = [e.cell for e in real if CODES[e.cell.code] in ("NOR", "OVA", "OTH")]
        self._by_field: dict[int, list[Cut]] = {}
        for c in singles:
            self._by_field.setdefault(c.field, []).append(c)
        self._fields = [f for f, cells in self._by_field.items() if len(cells) >= 3]
        if not self._fields:
            raise RbcedgeError("No lesson has three single cells: there is nothing to learn from.")
        share = (
            np.array([max(len(r), 50) if r or s else 0 for r, s in zip(self._real, self._simulated, strict=True)])
            ** BALANCE
        )
        self.share: NDArray[np.float64] = share / share.sum()

    def one(self, rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Return a crop (80, 80, 3) uint8 and its target (K,)."""
        code = int(rng.choice(len(CODES), p=self.share))
        name = CODES[code]
        way = rng.random()
        made = self._made(rng, name, code) if way < MADE_UP.get(name, 0) else None
        if made is not None:
            (example,) = plain([made], len(CODES))
        else:
            pool = self._real[code] if way < MADE_UP.get(name, 0) + REAL[name] else self._simulated[code]
            if pool is self._real[code] and self._unmarked[code] and rng.random() < UNMARKED:
                pool = self._unmarked[code]
            example = _any(rng, pool or self._real[code] or self._simulated[code])
        return present(rng, example.cell, float(rng.choice(STRENGTHS))), example.target

    def _made(self, rng: np.random.Generator, name: str, code: int) -> Cut | None:
        """Make a cell of other real ones; None where the class is not made so, or there is nothing to make it of."""
        if name in CELLS:
            cells = self._by_field[_any(rng, self._fields)]
            picks = rng.choice(len(cells), CELLS[name], replace=False)
            return overlap(rng, [cells[int(i)] for i in picks], code)
        return reshape(rng, _any(rng, self._round), name, code) if name in SHAPES and self._round else None


def _by_class(examples: Sequence[Example]) -> list[list[Example]]:
    out: list[list[Example]] = [[] for _ in CODES]
    for e in examples:
        out[e.cell.code].append(e)
    return out


def _any(rng: np.random.Generator, things: Sequence[T]) -> T:
    return things[int(rng.integers(len(things)))]


def batches(
    draw: Draw, seed: int, size: int, small: int, first: int = 0
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Yield batches without end: crops (N, side, side, 3) 0 to 1 and targets (N, K).

    Most crops that fit a square of `small` px come in batches of that side. Two sides, because at the microscope
    single cells are classified on the smaller square at half the cost.
    """
    waiting: dict[int, list[tuple[NDArray[np.uint8], NDArray[np.float32]]]] = {small: [], 80: []}
    edge = (80 - small) // 2
    number = first
    while True:
        rng = np.random.default_rng((seed, number))
        number += 1
        for _ in range(size):
            crop, target = draw.one(rng)
            if rng.random() < 0.9 and fits(crop, small):
                waiting[small].append((crop[edge : edge + small, edge : edge + small], target))
            else:
                waiting[80].append((crop, target))
        for queue in waiting.values():
            while len(queue) >= size:
                part = [queue.pop() for _ in range(size)]
                yield np.stack([c for c, _ in part]).astype(np.float32) / 255, np.stack([t for _, t in part])


def train(
    draw: Draw,
    out: Path,
    steps: int = 3200,
    settle: float = 0.5,
    batch: int = 64,
    small: int = 56,
    weights: str | Path = "imagenet",
    rate: float = 1.5e-3,
    smoothing: float = 0.05,
    norm_batches: int = 40,
    seed: int = 0,
) -> None:
    """Train EfficientNetB0; interrupted, it goes on from its last checkpoint in `out`.

    AdamW with warm-up and one cosine decay, label smoothing, and an exponential average of the weights, which is
    what is kept, in ``out/weights.npz``. After the share `settle` of the steps batch norm is measured over
    `norm_batches` of both crop sides and then held fixed: a batch has crops of one side only, so its own statistics
    would differ from what the network meets at the microscope.
    """
    import keras

    keras.utils.set_random_seed(seed)
    cv2.setNumThreads(1)
    out.mkdir(parents=True, exist_ok=True)
    (out / "network.json").write_text(json.dumps({"small": small}))
    model = efficientnet(len(CODES), weights, None)
    done, found = resume(out, model.name)
    stream = batches(draw, seed, batch, small, done)
    turn = round(settle * steps)

    def compile_(frozen: bool) -> None:
        for layer in model.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.trainable = not frozen
        loss = keras.losses.CategoricalCrossentropy(label_smoothing=smoothing)
        model.compile(keras.optimizers.AdamW(rate, weight_decay=0.02, clipnorm=1.0), loss)

    compile_(done > turn)
    training = Steps(model, out, steps, rate, found)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(next, stream)
        for step in range(done, steps):
            x, y = waiting.result()
            if step == turn:
                measure_norm(model, [next(stream)[0] for _ in range(norm_batches)])
                compile_(True)
                training.start_anew(step)
            waiting = pool.submit(next, stream)
            training.learn(step, x, y)


def measure_norm(model: Any, pictures: Sequence[NDArray[np.float32]]) -> None:
    """Set every batch norm's mean and variance to their average over batches, all counting alike."""
    import keras

    layers = [x for x in model.layers if isinstance(x, keras.layers.BatchNormalization)]
    usual = [x.momentum for x in layers]
    for k, batch in enumerate(pictures):
        for layer in layers:
            layer.momentum = k / (k + 1)
        model(batch, training=True)
    for layer, momentum in zip(layers, usual, strict=True):
        layer.momentum = momentum
