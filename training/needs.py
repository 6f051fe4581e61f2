"""What training needs besides the run time."""

from __future__ import annotations

import os

from rbcedge.errors import RbcedgeError


def keras_or_error(backends: tuple[str, ...] = ("tensorflow", "jax")) -> None:
    """Import Keras and what it runs on.

    Parameters
    ----------
    backends : tuple of str
        Those that will do. What was trained on either loads on the other; conversion needs TensorFlow.

    Raises
    ------
    RbcedgeError
        Where they are not installed, or Keras runs on another.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        import keras
    except ImportError as e:
        raise RbcedgeError(
            f"Keras and its backend are needed ({e}). Install them: pip install 'rbcedge[train]'."
        ) from e
    backend = keras.backend.backend()
    if backend not in backends:
        raise RbcedgeError(f"Keras runs on {backend}; set KERAS_BACKEND={backends[0]}.")
