"""Learning rate over a training: warm-up, then one cosine down."""

from __future__ import annotations

import numpy as np


def rate(step: int, steps: int, peak: float, since: int | None = None, warm_up: int = 200) -> float:
    """Return the learning rate of `step` (from 0) of `steps`.

    Parameters
    ----------
    step, steps : int
    peak : float
        Largest rate.
    since : int or None
        Steps since the optimiser started anew, where that was not at 0.
    warm_up : int
        Steps over which the rate rises; a tenth of the training where that is shorter.
    """
    warm = max(1, min(warm_up, steps // 10))
    decay = 0.5 * (1 + np.cos(np.pi * step / steps))
    return float(peak * min(1.0, ((step if since is None else since) + 1) / warm) * max(decay, 0.003))
