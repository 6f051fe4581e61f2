"""The paper's U-Net (section 4.2), EfficientNetB0 (section 4.3) and the classifiers it is compared with (Table 5)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rbcedge.training import imagenet_lite
from rbcedge.training.weights import read_weights

from rbcedge.errors import RbcedgeError, UsageError

Upsampling = Literal["transpose", "paper"]
Norm = Literal["before", "after"]
Scaling = Literal["0..255", "-1..1", "torch", "caffe"]


def unet(
    width: int = 64,
    depth: int = 4,
    upsampling: Upsampling = "paper",
    shape: tuple[int | None, int | None, int] = (None, None, 3),
    batch: int | None = None,
    norm: Norm = "before",
) -> Any:
    """Build a U-Net (Ronneberger et al. 2015) as in section 4.2 of the paper.

    Contracting path of two 3x3 convolutions per level and 2x2 max pooling, channels doubling; expanding path of
    up-sampling with a 2x2 convolution that halves the channels, the skip, and two 3x3 convolutions.

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
    norm : "before" or "after"
        Where batch norm stands: before the ReLU it costs nothing at run time (it folds into the convolution); after
        it, as the paper has it.

    Returns
    -------
    keras.Model
        (N, H, W, 3) float32 to (N, H, W, 1) float32, the probability of "red cell".
    """
    from keras import Model, layers

    def block(x: Any, channels: int) -> Any:
        for _ in range(2):
            x = layers.Conv2D(channels, 3, padding="same", use_bias=False, kernel_initializer="he_normal")(x)
            if norm == "before":
                x = layers.ReLU()(layers.BatchNormalization(momentum=0.95)(x))
            else:
                x = layers.BatchNormalization(momentum=0.95)(layers.ReLU()(x))
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
    weights : "imagenet", "lite0", "none" or a file
        Where to start: ImageNet (downloaded by Keras; the paper's choice), ImageNet by way of `imagenet_lite`,
        random, or a file as `load_weights` takes it.
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
    from keras import Model, layers

    if side is not None:
        # Keras pads strided convolutions by the parity of the side it is built for; a network that is trained and
        # run on two sides needs one and the same padding, that of an unknown side.
        core = efficientnet(classes, weights, None, None, dropout)
        inputs = layers.Input(shape=(side, side, 3), batch_size=batch, name="pixels")
        return Model(inputs, core(inputs), name="efficientnetb0")
    inputs = layers.Input(shape=(None, None, 3), batch_size=batch, name="pixels")
    return _classifier(NETWORKS["efficientnetb0"], inputs, classes, weights, dropout)


@dataclass(frozen=True, slots=True)
class Network:
    """A classifier of Table 5.

    Attributes
    ----------
    name : str
        As `--network` takes it.
    application : str
        Its builder in `keras.applications`.
    scaling : str
        What the builder expects: pixels 0 to 255 (it scales by itself), -1 to 1, or what ImageNet weights of
        PyTorch ("torch": mean and deviation of the channels) or Caffe ("caffe": blue first, mean taken off) expect.
    parameters_m : float
        Millions of trainable parameters with a layer for eight classes, as Table 5 counts them.
    least_px : int
        Smallest side of a crop.
    """

    name: str
    application: str
    scaling: Scaling
    parameters_m: float
    least_px: int = 32


#: Table 5, in its order.
NETWORKS: Mapping[str, Network] = {
    n.name: n
    for n in (
        Network("mobilenetv3small", "MobileNetV3Small", "0..255", 0.90),
        Network("mobilenetv3large", "MobileNetV3Large", "0..255", 2.90),
        Network("resnet50v2", "ResNet50V2", "-1..1", 23.50),
        Network("resnet50", "ResNet50", "caffe", 23.55),
        Network("densenet121", "DenseNet121", "torch", 6.96),
        Network("xception", "Xception", "-1..1", 20.82, 71),
        Network("convnexttiny", "ConvNeXtTiny", "0..255", 27.8),
        Network("efficientnetv2b0", "EfficientNetV2B0", "0..255", 5.80),
        Network("efficientnetb0", "EfficientNetB0", "0..255", 4.02),
    )
}


def network(name: str) -> Network:
    """Find a classifier by name, in any case.

    Raises
    ------
    UsageError
        Where there is none of this name.
    """
    found = NETWORKS.get(name.lower())
    if found is None:
        raise UsageError(f"No network {name!r}; known: {', '.join(NETWORKS)}.")
    return found


def chosen(name: str) -> tuple[str, ...]:
    """Names of the networks that `--network` asks for; "all" gives all of Table 5.

    Raises
    ------
    UsageError
        Where there is none of this name.
    """
    return tuple(NETWORKS) if name.lower() == "all" else (network(name).name,)


def classifier(
    name: str,
    classes: int,
    weights: str | Path = "imagenet",
    side: int = 80,
    batch: int | None = None,
    dropout: float = 0.0,
) -> Any:
    """Build a classifier of Table 5 for one side of crops: its features, their mean, a softmax (section 4.3).

    Unlike `efficientnet` it is laid out for `side` alone.

    Parameters
    ----------
    name : str
        As in `NETWORKS`.
    classes : int
    weights : "imagenet", "lite0", "none" or a file
        As for `efficientnet`.
    side : int
        Side of the input, px.
    batch : int or None
    dropout : float
        Before the last layer.

    Returns
    -------
    keras.Model
        (N, side, side, 3) float32 in 0 to 1, red, green, blue, to (N, classes) float32 probabilities. Scaling to
        what the network expects is part of it.

    Raises
    ------
    UsageError
        Where the network is unknown, or `side` is too small for it.
    RbcedgeError
        Where weights cannot be had or do not fit.
    """
    from keras import layers

    wanted = network(name)
    if side < wanted.least_px:
        raise UsageError(f"{name} needs crops of {wanted.least_px} px at least, got {side}.")
    inputs = layers.Input(shape=(side, side, 3), batch_size=batch, name="pixels")
    return _classifier(wanted, inputs, classes, weights, dropout)


def _classifier(wanted: Network, inputs: Any, classes: int, weights: str | Path, dropout: float) -> Any:
    from keras import Model, applications, layers

    try:
        base = getattr(applications, wanted.application)(
            include_top=False,
            weights="imagenet" if weights == "imagenet" else None,
            input_tensor=_scaled(inputs, wanted.scaling),
            pooling="avg",
        )
    except Exception as e:  # Keras wraps whatever the download raised
        if weights != "imagenet":
            raise
        raise RbcedgeError(
            f"ImageNet weights of {wanted.application} could not be downloaded ({e}). "
            f"Use --weights {imagenet_lite.NAME} (efficientnetb0 alone), none to start from random weights, or a file."
        ) from e
    x = layers.Dropout(dropout)(base.output) if dropout else base.output
    outputs = layers.Dense(classes, activation="softmax", name="classes", dtype="float32")(x)
    model = Model(inputs, outputs, name=wanted.name)
    if weights == imagenet_lite.NAME:
        if wanted.name != "efficientnetb0":
            raise UsageError(f"--weights {weights} is for efficientnetb0, not {wanted.name}.")
        imagenet_lite.load(model, imagenet_lite.path())
    elif weights not in ("imagenet", "none"):
        load_weights(model, Path(weights))
    return model


def _scaled(inputs: Any, scaling: Scaling) -> Any:
    """Pixels 0 to 1, red first, as a network's ImageNet weights expect them."""
    from keras import layers, ops

    if scaling == "0..255":
        return layers.Rescaling(255.0)(inputs)
    if scaling == "-1..1":
        return layers.Rescaling(2.0, -1.0)(inputs)
    if scaling == "torch":
        mean, deviation = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
        return layers.Rescaling([1 / d for d in deviation], [-m / d for m, d in zip(mean, deviation, strict=True)])(
            inputs
        )
    shifted = layers.Rescaling(255.0, [-123.68, -116.779, -103.939])(inputs)
    return ops.flip(shifted, axis=-1)


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
