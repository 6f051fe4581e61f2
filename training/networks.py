"""The two networks: the paper's U-Net (section 4.2) and EfficientNetB0 (section 4.3)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from rbcedge.training.weights import read_weights

from rbcedge.errors import RbcedgeError

Upsampling = Literal["transpose", "paper"]


def unet(
    width: int = 64,
    depth: int = 4,
    upsampling: Upsampling = "paper",
    shape: tuple[int | None, int | None, int] = (None, None, 3),
    batch: int | None = None,
) -> Any:
    """Build a U-Net (Ronneberger et al. 2015) as in section 4.2 of the paper.

    Contracting path of two 3x3 convolutions per level and 2x2 max pooling, channels doubling; expanding path of
    up-sampling with a 2x2 convolution that halves the channels, the skip, and two 3x3 convolutions. Batch norm
    stands between convolution and ReLU, where it costs nothing at run time (it folds into the convolution).

    Parameters
    ----------
    width : int
        Channels of the first level; 64 is the paper's network (31 M parameters).
    depth : int
        Number of poolings; height and width must be multiples of 2**depth.
    upsampling : "paper" or "transpose"
        "paper": nearest up-sampling, then the 2x2 convolution. "transpose": the same as one transposed 2x2
        convolution of stride 2, at a quarter of the work.
    shape : tuple
        Height, width, channels of the input, values 0 to 1.
    batch : int or None
        A fixed batch, as the TFLite converter wants it.

    Returns
    -------
    keras.Model
        (N, H, W, 3) float32 to (N, H, W, 1) float32, the probability of "red cell".
    """
    from keras import Model, layers

    def block(x: Any, channels: int) -> Any:
        for _ in range(2):
            x = layers.Conv2D(channels, 3, padding="same", use_bias=False, kernel_initializer="he_normal")(x)
            x = layers.BatchNormalization(momentum=0.95)(x)
            x = layers.ReLU()(x)
        return x

    inputs = layers.Input(shape=shape, batch_size=batch, name="pixels")
    x = inputs
    skips = []
    for level in range(depth):
        x = block(x, width << level)
        skips.append(x)
        x = layers.MaxPooling2D(2)(x)
    x = block(x, width << depth)
    for level in reversed(range(depth)):
        channels = width << level
        if upsampling == "transpose":
            x = layers.Conv2DTranspose(channels, 2, strides=2, padding="same")(x)
        else:
            x = layers.UpSampling2D(2)(x)
            x = layers.Conv2D(channels, 2, padding="same")(x)
        x = layers.Concatenate()([skips[level], x])
        x = block(x, channels)
    outputs = layers.Conv2D(1, 1, activation="sigmoid", name="cell", dtype="float32")(x)
    return Model(inputs, outputs, name=f"unet{width}")


def efficientnet(
    classes: int,
    weights: str | Path = "imagenet",
    side: int | None = 80,
    batch: int | None = None,
    dropout: float = 0.2,
) -> Any:
    """Build EfficientNetB0 with a softmax over `classes` (section 4.3).

    Parameters
    ----------
    classes : int
    weights : "imagenet", "none" or a file
        Where to start: ImageNet (downloaded by Keras; the paper's choice), random, or a file as `load_weights`
        takes it.
    side : int or None
        Side of the input, px; None for any.
    batch : int or None
    dropout : float
        Before the last layer.

    Returns
    -------
    keras.Model
        (N, side, side, 3) float32 in 0 to 1, red, green, blue, to (N, classes) float32 probabilities.

    Raises
    ------
    RbcedgeError
        Where weights cannot be had or do not fit.
    """
    from keras import Model, applications, layers

    if side is not None:
        # Keras pads strided convolutions by the parity of the side it is built for; a network that is trained and
        # run on two sides needs one and the same padding, that of an unknown side.
        core = efficientnet(classes, weights, None, None, dropout)
        inputs = layers.Input(shape=(side, side, 3), batch_size=batch, name="pixels")
        return Model(inputs, core(inputs), name="efficientnetb0")
    inputs = layers.Input(shape=(None, None, 3), batch_size=batch, name="pixels")
    try:
        base = applications.EfficientNetB0(
            include_top=False,
            weights="imagenet" if weights == "imagenet" else None,
            input_tensor=layers.Rescaling(255.0)(inputs),
            pooling="avg",
        )
    except Exception as e:  # Keras wraps whatever the download raised
        if weights != "imagenet":
            raise
        raise RbcedgeError(
            f"ImageNet weights of EfficientNetB0 could not be downloaded ({e}). "
            "Use --weights none to start from random weights, or --weights FILE."
        ) from e
    x = layers.Dropout(dropout)(base.output) if dropout else base.output
    outputs = layers.Dense(classes, activation="softmax", name="classes", dtype="float32")(x)
    model = Model(inputs, outputs, name="efficientnetb0")
    if weights not in ("imagenet", "none"):
        load_weights(model, Path(weights))
    return model


def load_weights(model: Any, path: Path) -> None:
    """Load a `.npz`, `.weights.h5` or `.keras` file into `model`.

    Raises
    ------
    RbcedgeError
        Where the file cannot be read or belongs to another network.
    """
    if not path.is_file():
        raise RbcedgeError(f"{path}: no such weights file.")
    try:
        if path.suffix == ".keras":
            import keras

            model.set_weights(keras.saving.load_model(path, compile=False).get_weights())
        elif path.suffix == ".npz":
            model.set_weights(read_weights(path))
        else:
            model.load_weights(path)
    except (ValueError, OSError, KeyError) as e:
        raise RbcedgeError(f"{path}: these are not weights of {model.name} ({str(e).splitlines()[0]}).") from e
