"""Named ways to train. Frozen: what a name means does not change with the data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from rbcedge.training.networks import Norm, Upsampling

from rbcedge.errors import UsageError


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a network is trained.

    Attributes
    ----------
    name : str
    optimiser : "adam" or "adamw"
    rate : float
        Learning rate, at its largest.
    schedule : "plateau" or "cosine"
        "plateau": divided by `divide` where the validation loss has not fallen by `gain` for `patience` epochs.
        "cosine": a warm-up, then down along a cosine over all epochs.
    batch : int
    epochs : int
        At the most.
    stop : int
        Epochs without a fall by `gain` after which training ends.
    change : "flips", "flips and rotations" or "microscopes"
        What is done to a picture at random: mirrored; also turned by up to 36 degrees; or whatever other stains,
        lenses and cameras do (`rbcedge.training.augment`), turned at will.
    originals : bool
        The changed pictures are added to the originals in each epoch (section 4.3); else they replace them.
    patience, gain, divide
        See `schedule`.
    smoothing : float
        Of labels.
    balance : float
        Classes are drawn in proportion to their number to this power; what that does to the network's expectation
        is taken back in its last layer. 1: as they occur.
    dropout : float
        Before the last layer.
    average : bool
        Keep a running average of the weights instead of the weights.
    decay : float
        Weight decay of "adamw".
    clip : float or None
        Largest norm of a gradient.
    dice : bool
        Segmenter: soft Dice beside cross-entropy.
    norm_momentum : float or None
        Of batch norm; None: the network's own, meant for very long trainings.
    """

    name: str
    optimiser: Literal["adam", "adamw"] = "adam"
    rate: float = 4e-4
    schedule: Literal["plateau", "cosine"] = "plateau"
    batch: int = 32
    epochs: int = 100
    stop: int = 10
    change: Literal["flips", "flips and rotations", "microscopes"] = "flips and rotations"
    originals: bool = True
    patience: int = 4
    gain: float = 1e-4
    divide: float = 10.0
    smoothing: float = 0.0
    balance: float = 1.0
    dropout: float = 0.0
    average: bool = False
    decay: float = 0.0
    clip: float | None = None
    dice: bool = False
    norm_momentum: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Unet:
    """Form of a U-Net; see `rbcedge.training.networks.unet`."""

    width: int
    depth: int
    upsampling: Upsampling
    norm: Norm


#: Section 4.3 and 4.4. The paper gives no limit of epochs, and no dropout.
CLASSIFIER: Mapping[str, Recipe] = {
    "paper": Recipe("paper"),
    "rbcedge": Recipe(
        "rbcedge",
        optimiser="adamw",
        rate=1.5e-3,
        schedule="cosine",
        batch=64,
        epochs=30,
        stop=30,
        change="microscopes",
        originals=False,
        smoothing=0.05,
        balance=0.7,
        dropout=0.2,
        average=True,
        decay=0.02,
        clip=1.0,
        norm_momentum=0.97,
    ),
}

#: Section 4.2 and 4.4. Flips on the fly: the changed pictures replace the originals.
SEGMENTER: Mapping[str, tuple[Recipe, Unet]] = {
    "paper": (Recipe("paper", change="flips", originals=False), Unet(64, 4, "paper", "after")),
    "rbcedge": (
        Recipe(
            "rbcedge",
            rate=2e-3,
            schedule="cosine",
            epochs=30,
            stop=30,
            change="microscopes",
            originals=False,
            average=True,
            clip=1.0,
            dice=True,
        ),
        Unet(8, 4, "transpose", "before"),
    ),
}


def classifier_recipe(name: str, weighted: bool = False) -> Recipe:
    """Find a recipe for classifiers.

    Raises
    ------
    UsageError
        Where there is none of this name, or class weights make no sense with it.
    """
    recipe = _find(CLASSIFIER, name)
    if weighted and recipe.balance != 1:
        raise UsageError(f"The recipe '{name}' balances classes by drawing; --weighted goes with the recipe 'paper'.")
    return recipe


def segmenter_recipe(name: str, width: int | None = None) -> tuple[Recipe, Unet]:
    """Find a recipe for segmenters, with another width where one is given.

    Raises
    ------
    UsageError
        Where there is none of this name, or the width is below 1.
    """
    recipe, unet = _find(SEGMENTER, name)
    if width is not None and width < 1:
        raise UsageError(f"--width {width}: a U-Net has a channel at least.")
    return recipe, unet if width is None else replace(unet, width=width)


def limited(recipe: Recipe, epochs: int | None = None, norm_momentum: float | None = None) -> Recipe:
    """Return the recipe with fewer or more epochs, or another momentum of batch norm, where these are given.

    Raises
    ------
    UsageError
        Where a value makes no sense.
    """
    if epochs is not None:
        if epochs < 1:
            raise UsageError(f"--epochs {epochs}: at least one is needed.")
        recipe = replace(recipe, epochs=epochs)
    if norm_momentum is not None:
        if not 0 <= norm_momentum < 1:
            raise UsageError(f"--norm-momentum {norm_momentum}: must be at least 0 and below 1.")
        recipe = replace(recipe, norm_momentum=norm_momentum)
    return recipe


def _find(table: Mapping[str, Any], name: str) -> Any:
    if name not in table:
        raise UsageError(f"No recipe {name!r}; known: {', '.join(table)}.")
    return table[name]
