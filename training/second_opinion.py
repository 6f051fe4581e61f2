"""Soft targets from a trained classifier: for cells that nobody marked, and beside labels that may be wrong.

Only part of the cells is marked in many fields, and where two experts would disagree one label is as good as another.
A network that was trained on the labels gives its opinion on every cell; training goes on from both (as in Xie et al.
2020, noisy student).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rbcedge.training.crops import Cut, Example, centred, fits, plain
from rbcedge.training.lessons import CODES
from rbcedge.training.networks import efficientnet
from rbcedge.training.weights import read_weights

#: Weight of the label where there is one; the rest is the network's opinion.
LABEL = 0.7
#: A cell that nobody marked is learnt from where the network is at least so sure.
SURE = 0.6

_VIEWS = ((1, 1), (1, -1), (-1, 1), (-1, -1))


def second_opinion(
    trained: Path, marked: Sequence[Cut], unmarked: Sequence[Cut], progress: Callable[[str], None] = print
) -> tuple[list[Example], list[Example]]:
    """Ask the classifier in the folder `trained`, as `classifier.train` leaves it, about every cell.

    Returns
    -------
    marked, unmarked : lists of Example
    """
    model = efficientnet(len(CODES), "none", None, dropout=0.0)
    model.set_weights(read_weights(trained / "weights.npz"))
    small = json.loads((trained / "network.json").read_text())["small"]
    sure = named(unmarked, opinions(model, unmarked, small))
    guess = opinions(model, marked, small)
    agree = float(np.mean(guess.argmax(1) == [c.code for c in marked]))
    progress(
        f"second opinion: {agree:.1%} of {len(marked)} labels shared; sure of {len(sure)} of {len(unmarked)} others"
    )
    return advised(marked, guess), sure


def opinions(model: Any, cuts: Sequence[Cut], small: int, batch: int = 128) -> NDArray[np.float32]:
    """Return (N, K) probabilities of each cell, the mean over the cell and its mirror images.

    Parameters
    ----------
    model : keras.Model
        As `networks.efficientnet` builds it for any side.
    cuts : sequence of Cut
    small : int
        Side of the crops of cells that fit it, px; the others have 80.
    batch : int
    """
    crops = [centred(c.pixels, c.own, c.others, 80) for c in cuts]
    fit = np.array([fits(c, small) for c in crops], bool)
    out = np.empty((len(cuts), model.output_shape[-1]), np.float32)
    for side in (small, 80):
        rows = np.flatnonzero(fit == (side == small))
        inner = slice((80 - side) // 2, (80 + side) // 2)
        for start in range(0, len(rows), batch):
            some = rows[start : start + batch]
            x = np.stack([crops[i][inner, inner] for i in some]).astype(np.float32) / 255
            views = [np.asarray(model.predict_on_batch(x[:, ::a, ::b])) for a, b in _VIEWS]
            out[some] = np.mean(views, axis=0)
    return out


def advised(cuts: Sequence[Cut], guess: NDArray[np.float32]) -> list[Example]:
    """Lay the label of each cell and the opinion on it together; each of `cuts` has a label."""
    classes = guess.shape[1]
    return [
        Example(e.cell, LABEL * e.target + (1 - LABEL) * opinion)
        for e, opinion in zip(plain(cuts, classes), guess, strict=True)
    ]


def named(cuts: Sequence[Cut], guess: NDArray[np.float32]) -> list[Example]:
    """Give cells that nobody marked the class and the target that the opinion is sure of; the others are left out."""
    return [
        Example(replace(cell, code=int(opinion.argmax())), opinion)
        for cell, opinion in zip(cuts, guess, strict=True)
        if opinion.max() >= SURE
    ]
