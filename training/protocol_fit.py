"""One training of the protocol: epochs, learning rate, early end, checkpoints (paper, section 4.4)."""

from __future__ import annotations

import csv
import io
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rbcedge.training import checkpoint as checkpoints
from rbcedge.training import schedule
from rbcedge.training.checkpoint import Checkpoint
from rbcedge.training.protocol_batches import Batches, Part
from rbcedge.training.recipes import Recipe
from rbcedge.training.weights import read_weights, write_weights

from rbcedge.errors import RbcedgeError

LOG = ("epoch", "loss", "val_loss", "val_accuracy", "rate", "seconds")
#: Pictures in one call where nothing is learnt.
_TOGETHER = 64
#: The running average of weights takes them in every so many batches.
_EVERY = 10


@dataclass(frozen=True, slots=True)
class Told:
    """Progress of a training, after every batch.

    Attributes
    ----------
    epoch, epochs : int
        From 1; at the most.
    batch, batches : int
        From 1.
    loss : float
        Mean of the epoch so far.
    row : dict or None
        The epoch's row of ``log.csv``, after its last batch.
    """

    epoch: int
    epochs: int
    batch: int
    batches: int
    loss: float
    row: dict[str, float] | None = None


@dataclass(frozen=True, slots=True)
class Fitted:
    """What a training came to."""

    epochs: int
    best_epoch: int
    val_loss: float
    train_s: float


def repeatable(seed: int) -> None:
    """Make everything that follows the same for the same seed, on the same machine."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import keras

    keras.utils.set_random_seed(seed)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()


class Trainee:
    """A network with its optimiser, set back to its first weights for every training, so that it is built once.

    Parameters
    ----------
    model : keras.Model
        A classifier, or a U-Net.
    recipe : Recipe
    """

    def __init__(self, model: Any, recipe: Recipe) -> None:
        import keras

        self.model, self.recipe = model, recipe
        self.segmenter = len(model.output.shape) == 4
        self.classes = int(model.output.shape[-1])
        for layer in model.layers:
            if recipe.norm_momentum is not None and isinstance(layer, keras.layers.BatchNormalization):
                layer.momentum = recipe.norm_momentum
        kwargs = {"clipnorm": recipe.clip} if recipe.clip else {}
        if recipe.optimiser == "adamw":
            optimiser = keras.optimizers.AdamW(recipe.rate, weight_decay=recipe.decay, **kwargs)
        else:
            optimiser = keras.optimizers.Adam(recipe.rate, **kwargs)
        if not self.segmenter:
            loss = keras.losses.CategoricalCrossentropy(label_smoothing=recipe.smoothing)
        elif recipe.dice:
            from rbcedge.training.segmenter import loss
        else:
            loss = keras.losses.BinaryCrossentropy()
        # XLA makes TensorFlow slower on CPUs here; without it JAX would run step by step.
        model.compile(optimiser, loss, jit_compile=keras.backend.backend() == "jax")
        optimiser.build(model.trainable_variables)
        self._first = model.get_weights()
        self._moments = [np.array(v) for v in optimiser.variables]
        # Random layers draw from seeds that are no weights; they are set before each batch.
        weights = {id(v) for v in model.weights}
        self._seeds = [v for v in model.variables if id(v) not in weights and "seed" in v.path]

        self._shift: NDArray[np.float32] | None = None
        self._warm = False

    def reset(self, shift: NDArray[np.float32] | None = None) -> None:
        """Back to the first weights; `shift` (K,) is added to the log odds wherever the network is asked."""
        self.model.set_weights(self._first)
        self._set_moments(self._moments)
        self._shift = shift

    def result(self) -> list[NDArray[Any]]:
        """Weights with the shift made part of the last layer."""
        *body, bias = self.model.get_weights()
        return [*body, bias if self._shift is None else bias + self._shift]

    def finish(self, weights: list[NDArray[Any]]) -> None:
        """Take the result of a training."""
        self.model.set_weights(weights)
        self._shift = None

    def _set_moments(self, values: list[NDArray[Any]]) -> None:
        for variable, value in zip(self.model.optimizer.variables, values, strict=True):
            variable.assign(value)

    def warm(self, pixels: NDArray[np.float32], targets: NDArray[np.integer]) -> None:
        """Build the graphs, so that the first training does not take longer than the others; `reset` follows."""
        if not self._warm:
            self.learn(pixels, targets, np.ones(self.classes, np.float32), 0.0, (0, 0))
            self.predict(np.zeros((1, *pixels.shape[1:]), np.uint8))
            self._warm = True

    def groups(self) -> dict[str, list[NDArray[Any]]]:
        """Weights and moments, for a checkpoint."""
        return {"weights": self.model.get_weights(), "moments": [np.array(v) for v in self.model.optimizer.variables]}

    def take(self, found: Checkpoint) -> None:
        """Go on from a checkpoint."""
        self.model.set_weights(list(found.groups["weights"]))
        self._set_moments(list(found.groups["moments"]))

    def learn(
        self,
        pixels: NDArray[np.float32],
        targets: NDArray[np.integer],
        class_weights: NDArray[np.float32] | None,
        rate: float,
        seed: tuple[int, int],
    ) -> float:
        """Take one step and return its loss."""
        for i, variable in enumerate(self._seeds):
            mixed = np.random.SeedSequence((*seed, i)).generate_state(2)
            variable.assign(mixed.astype(np.uint32).reshape(variable.shape))
        self.model.optimizer.learning_rate = rate
        weight = None
        if self.segmenter:
            truth = targets[..., None].astype(np.float32)
            if self.recipe.dice:
                truth = np.concatenate([truth, np.ones_like(truth)], axis=-1)
        else:
            truth = np.eye(self.classes, dtype=np.float32)[targets]
            # Always given, so that there is one graph for both kinds of loss.
            weight = np.ones(len(targets), np.float32) if class_weights is None else class_weights[targets]
        return float(self.model.train_on_batch(pixels, truth, sample_weight=weight))

    def predict(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(N, side, side, 3) uint8 to (N, K), or (N, side, side) for a U-Net, float32 probabilities."""
        parts = []
        for start in range(0, len(pixels), _TOGETHER):
            part = pixels[start : start + _TOGETHER]
            full = np.zeros((_TOGETHER, *part.shape[1:]), np.float32)
            np.multiply(part, np.float32(1 / 255), out=full[: len(part)])
            parts.append(np.asarray(self.model.predict_on_batch(full))[: len(part)])
        whole = np.concatenate(parts)
        if self.segmenter:
            return whole[..., 0]
        if self._shift is not None:
            whole = whole * np.exp(self._shift)
            whole /= whole.sum(1, keepdims=True)
        return whole

    def judge(self, part: Part) -> tuple[float, float]:
        """Cross-entropy and accuracy (of cells, or of pixels) on a part."""
        loss = right = 0.0
        for start in range(0, len(part), 1024):
            guess = np.clip(self.predict(part.pixels[start : start + 1024]), 1e-7, 1 - 1e-7).astype(np.float64)
            truth = part.targets[start : start + 1024]
            if self.segmenter:
                each = -np.where(truth > 0, np.log(guess), np.log1p(-guess)).reshape(len(truth), -1)
                loss += each.mean(1).sum()
                right += ((guess >= 0.5) == (truth > 0)).reshape(len(truth), -1).mean(1).sum()
            else:
                loss -= np.log(guess[np.arange(len(truth)), truth]).sum()
                right += (guess.argmax(1) == truth).sum()
        return float(loss / len(part)), float(right / len(part))


def fit(
    trainee: Trainee,
    training: Part,
    validation: Part,
    folder: Path,
    seed: tuple[int, ...],
    class_weights: NDArray[np.float32] | None = None,
    steps: int | None = None,
    tell: Callable[[Told], None] = lambda told: None,
    board: bool = False,
    every_s: float = 60.0,
) -> Fitted:
    """Train; interrupted at any moment, the next call goes on from the last checkpoint to the same result.

    Afterwards the network has the weights of least validation loss, and they are in ``folder/weights.npz``.

    Parameters
    ----------
    trainee : Trainee
    training, validation : Part
    folder : Path
        Of this fold.
    seed : tuple of int
        Names this training: run's seed, repetition, fold.
    class_weights : (K,) float32, optional
        Eq. 1.
    steps : int, optional
        Batches of an epoch at the most.
    tell : callable
        Told of every batch.
    board : bool
        Write logs for TensorBoard too.
    every_s : float
        Seconds between checkpoints within an epoch; one is written after each epoch anyway.

    Raises
    ------
    RbcedgeError
        Where the checkpoint there is damaged or of another network, or the loss is no number any more.
    """
    recipe, path = trainee.recipe, folder / "checkpoint.npz"
    folder.mkdir(parents=True, exist_ok=True)
    batches = Batches(training, recipe, seed, steps)
    trainee.warm(*batches.make(0, 0))
    trainee.reset(prior(training, recipe, trainee.classes))
    found = checkpoints.read(path, trainee.model.name)
    state: dict[str, Any] = {
        "epoch": 0, "batch": 0, "sum": 0.0, "rate": recipe.rate, "best": None, "best_epoch": 0, "level": None,
        "wait": 0, "since": 0, "seconds": 0.0, "rows": [],
    }  # fmt: skip
    average: list[NDArray[Any]] | None = None
    if found is not None:
        checkpoints.fits(trainee.model, found, path)
        trainee.take(found)
        state = dict(found.state)
        average = list(found.groups["average"]) if recipe.average else None
    elif recipe.average:
        average = trainee.model.get_weights()
    total = batches.number * recipe.epochs
    started = saved = time.monotonic()
    before = state["seconds"]

    def save() -> None:
        state["seconds"] = before + time.monotonic() - started
        groups = trainee.groups()
        if average is not None:
            groups["average"] = average
        checkpoints.write(path, Checkpoint(trainee.model.name, groups, state))

    with ThreadPoolExecutor(1) as pool:
        while state["epoch"] < recipe.epochs and not _ended(state, recipe):
            epoch = state["epoch"]
            waiting = pool.submit(batches.make, epoch, state["batch"])
            for number in range(state["batch"], batches.number):
                pixels, targets = waiting.result()
                if number + 1 < batches.number:
                    waiting = pool.submit(batches.make, epoch, number + 1)
                step = epoch * batches.number + number
                rate = state["rate"] if recipe.schedule == "plateau" else schedule.rate(step, total, recipe.rate)
                state["sum"] += trainee.learn(pixels, targets, class_weights, rate, (_folded(seed), step))
                state["batch"] = number + 1
                if average is not None and (step % _EVERY == 0 or number + 1 == batches.number):
                    keep = kept(step / _EVERY)
                    now = trainee.model.get_weights()
                    average = [(keep * a + (1 - keep) * w).astype(w.dtype) for a, w in zip(average, now, strict=True)]
                if number + 1 < batches.number:
                    tell(Told(epoch + 1, recipe.epochs, number + 1, batches.number, state["sum"] / (number + 1)))
                    if time.monotonic() - saved > every_s:
                        save()
                        saved = time.monotonic()
            plain = trainee.model.get_weights()
            if average is not None:
                trainee.model.set_weights(average)
            value, accuracy = trainee.judge(validation)
            if not np.isfinite(value):
                raise RbcedgeError(
                    f"{folder.name}: the validation loss is not a number after epoch {epoch + 1}; this training has "
                    f"come apart. Try another seed or recipe. {path} still holds the state before it."
                )
            row = {
                "epoch": epoch + 1,
                "loss": state["sum"] / batches.number,
                "val_loss": value,
                "val_accuracy": accuracy,
                "rate": rate,
                "seconds": before + time.monotonic() - started,
            }
            if state["best"] is None or value < state["best"]:
                state["best"], state["best_epoch"] = value, epoch + 1
                write_weights(folder / "weights.npz", trainee.result())
            trainee.model.set_weights(plain)
            _plateau(state, value, recipe)
            state["rows"].append(row)
            state.update(epoch=epoch + 1, batch=0, sum=0.0)
            save()
            saved = time.monotonic()
            write_csv(folder / "log.csv", LOG, state["rows"])
            if board:
                _board(folder / "tensorboard", row)
            tell(Told(epoch + 1, recipe.epochs, batches.number, batches.number, row["loss"], row))
    trainee.finish(read_weights(folder / "weights.npz"))
    return Fitted(state["epoch"], state["best_epoch"], float(state["best"]), float(state["rows"][-1]["seconds"]))


def kept(taken: float) -> float:
    """Share of the running average that stays when weights are taken in after `taken` others.

    At first it looks back over about the last fifth, so that a short training, too, forgets where it began: a plain
    mean of all weights since then is no network at all.
    """
    return min(0.97, taken / (taken + 4))


def prior(training: Part, recipe: Recipe, classes: int) -> NDArray[np.float32] | None:
    """(K,) what to add to the log odds so that drawing rare classes more often does not make them more probable.

    None where classes are drawn as they occur.
    """
    if recipe.balance == 1 or training.targets.ndim != 1:
        return None
    counts = np.maximum(np.bincount(training.targets, minlength=classes), 1)
    shift = (1 - recipe.balance) * np.log(counts / counts.sum())
    return (shift - shift.max()).astype(np.float32)


def _folded(seed: tuple[int, ...]) -> int:
    return int(np.random.SeedSequence(seed).generate_state(1)[0])


def _plateau(state: dict[str, Any], value: float, recipe: Recipe) -> None:
    """Learning rate and early end after an epoch (section 4.4): what counts is a fall by `gain`."""
    if state["level"] is None or value < state["level"] - recipe.gain:
        state.update(level=value, wait=0, since=0)
        return
    state["wait"] += 1
    state["since"] += 1
    if recipe.schedule == "plateau" and state["wait"] >= recipe.patience:
        state.update(rate=state["rate"] / recipe.divide, wait=0)


def _ended(state: dict[str, Any], recipe: Recipe) -> bool:
    return bool(state["since"] >= recipe.stop)


def write_csv(path: Path, columns: tuple[str, ...], rows: list[dict[str, Any]]) -> None:
    """Write a table in one step."""
    text = io.StringIO(newline="")
    out = csv.DictWriter(text, columns)
    out.writeheader()
    out.writerows(rows)
    write_text(path, text.getvalue())


def write_text(path: Path, text: str) -> None:
    """Write a file in one step."""
    part = path.with_name(f".{os.getpid()}-{path.name}")
    part.write_bytes(text.encode())
    part.replace(path)


def _board(folder: Path, row: dict[str, float]) -> None:
    import tensorflow as tf

    writer = tf.summary.create_file_writer(str(folder))
    with writer.as_default(step=int(row["epoch"])):
        for name, value in row.items():
            if name != "epoch":
                tf.summary.scalar(name, value)
    writer.close()
