"""Up-sampling in Keras networks, rewritten so that a .tflite file can be given pictures of another size."""

from __future__ import annotations

from typing import Any

import numpy as np


def merged(model: Any) -> Any:
    """Return the network with "nearest up-sampling by 2, then a 2x2 convolution" as one transposed 3x3 convolution.

    Exactly the same numbers at 9 instead of 16 multiplications: a pixel of the result sees one or two pixels of the
    source in each direction, so the taps that meet the same source pixel can be added beforehand. TFLite writes
    up-sampling as tiles and reshapes of fixed size, which no other picture size fits; a transposed convolution has
    no such limit. Other up-sampling stays as it is.

    Parameters
    ----------
    model : keras.Model
    """
    import keras
    from keras import layers

    pairs = {layer.name: found for layer in model.layers if (found := _convolution(layer)) is not None}
    if not pairs:
        return model
    followers = {c.name for c in pairs.values()}

    def swapped(layer: Any) -> Any:
        if layer.name in pairs:
            c = pairs[layer.name]
            return layers.Conv2DTranspose(
                c.filters, 3, strides=2, activation=c.activation, use_bias=c.use_bias, name=layer.name
            )
        if layer.name in followers:
            return layers.Cropping2D(((1, 0), (1, 0)), name=layer.name)
        return layer.__class__.from_config(layer.get_config())

    copy = keras.models.clone_model(model, clone_function=swapped)
    for layer in model.layers:
        if layer.name in pairs:
            kernel, *bias = pairs[layer.name].get_weights()
            copy.get_layer(layer.name).set_weights([_taps(_taps(kernel, 0), 1).transpose(0, 1, 3, 2), *bias])
        elif layer.name not in followers and layer.get_weights():
            copy.get_layer(layer.name).set_weights(layer.get_weights())
    return copy


def _convolution(layer: Any) -> Any:
    """Return the 2x2 convolution that alone follows a nearest up-sampling by 2, None where that is not so."""
    if type(layer).__name__ != "UpSampling2D" or tuple(layer.size) != (2, 2) or layer.interpolation != "nearest":
        return None
    followers = [node.operation for node in layer._outbound_nodes]
    if len(followers) != 1 or type(followers[0]).__name__ != "Conv2D" or len(followers[0]._inbound_nodes) != 1:
        return None
    c = followers[0]
    plain = (tuple(c.kernel_size), tuple(c.strides), tuple(c.dilation_rate)) == ((2, 2), (1, 1), (1, 1))
    return c if plain and c.padding == "same" and c.groups == 1 else None


def _taps(kernel: Any, axis: int) -> Any:
    """Three taps for two along one axis: what reaches the source pixel from before, from itself, from behind."""
    first, second = (np.take(kernel, k, axis) for k in (0, 1))
    return np.stack([second, first + second, first], axis)
