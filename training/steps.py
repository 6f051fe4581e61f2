"""Training by steps, as both networks of a bundle learn from lessons: rate, running average, checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rbcedge.training import checkpoint as checkpoints
from rbcedge.training import schedule
from rbcedge.training.checkpoint import Checkpoint
from rbcedge.training.weights import write_weights

#: Steps between two checkpoints; between two weights that enter the running average.
EVERY, AVERAGE_EVERY = 100, 10
#: Share of the running average that each time stays, once there is enough of it.
KEEP = 0.97


class Steps:
    """What a training by steps carries from one step to the next.

    The exponential average of the weights is what is kept, in ``out/weights.npz``; ``out/checkpoint.npz`` is where an
    interrupted training goes on.

    Parameters
    ----------
    model : keras.Model
        Compiled. Weights and moments become those of `found`.
    out : Path
        Folder of the training.
    steps : int
        Number of steps in all.
    rate : float
        Largest learning rate.
    found : Checkpoint or None
        As `resume` gives it.
    """

    def __init__(self, model: Any, out: Path, steps: int, rate: float, found: Checkpoint | None) -> None:
        self._model, self._out, self._steps, self._rate = model, out, steps, rate
        self._since, self._loss = 0, float("nan")
        if found is not None:
            checkpoints.fits(model, found, out / "checkpoint.npz")
            model.set_weights(found.groups["weights"])
            # The optimiser's moments are there only once it is built.
            model.optimizer.build(model.trainable_variables)
            for variable, value in zip(model.optimizer.variables, found.groups["moments"], strict=True):
                variable.assign(value)
            self._since, self._loss = found.state["since"], found.state["loss"]
        self._average = [*found.groups["average"]] if found else [w.copy() for w in model.get_weights()]

    def start_anew(self, step: int) -> None:
        """Forget the average so far: at `step` the network has changed, and its optimiser is a new one."""
        self._since = step
        self._average = [w.copy() for w in self._model.get_weights()]

    def learn(self, step: int, x: NDArray[np.float32], y: NDArray[np.float32]) -> None:
        """Learn one batch; keep a checkpoint and print the loss at every `EVERY`-th step and the last."""
        model, since = self._model, step - self._since
        model.optimizer.learning_rate = schedule.rate(step, self._steps, self._rate, since)
        value = float(model.train_on_batch(x, y))
        self._loss = value if np.isnan(self._loss) else 0.98 * self._loss + 0.02 * value
        if step % AVERAGE_EVERY == 0:
            keep = min(KEEP, 1 - 1 / (since / AVERAGE_EVERY + 1))
            self._average = [keep * a + (1 - keep) * w for a, w in zip(self._average, model.get_weights(), strict=True)]
        if (step + 1) % EVERY == 0 or step + 1 == self._steps:
            print(f"step {step + 1}/{self._steps} loss {self._loss:.4f}", flush=True)
            self._keep(step + 1)

    def _keep(self, done: int) -> None:
        write_weights(self._out / "weights.npz", self._average)
        groups = {
            "weights": self._model.get_weights(),
            "moments": [np.array(v) for v in self._model.optimizer.variables],
            "average": self._average,
        }
        state = {"done": done, "since": self._since, "loss": self._loss}
        checkpoints.write(self._out / "checkpoint.npz", Checkpoint(self._model.name, groups, state))


def resume(out: Path, network: str) -> tuple[int, Checkpoint | None]:
    """Return how many steps are done in the folder `out`, and the checkpoint to go on from.

    Raises
    ------
    RbcedgeError
        Where the checkpoint is damaged or of another network.
    """
    found = checkpoints.read(out / "checkpoint.npz", network)
    return (found.state["done"] if found else 0), found
