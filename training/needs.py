"""What training needs besides the run time."""

from __future__ import annotations

import os

from rbcedge.errors import RbcedgeError


def keras_or_error() -> None:
    """Import TensorFlow and Keras.

    Raises
    ------
    RbcedgeError
        Where they are not installed.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        import keras
        import tensorflow
    except ImportError as e:
        raise RbcedgeError(
            f"Training needs TensorFlow and Keras ({e}). Install them: pip install 'rbcedge[train]'."
        ) from e
    if keras.backend.backend() != "tensorflow":
        raise RbcedgeError(
            f"Keras runs on {keras.backend.backend()}; set KERAS_BACKEND=tensorflow ({tensorflow.__version__})."
        )
