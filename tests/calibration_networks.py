"""Two tiny networks that read the pictures of `session_fakes`, and a bundle of them; one pair is ruined by INT8."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from session_fakes import CODES, LEVELS, make_bundle

from rbcedge.bundle import Bundle, describe, load

CROP = 80
#: Share of a crop that a disc of radius 18 covers.
_AREA = 1009 / CROP**2


def segmenter(outlier: float = 0.0) -> Any:
    """Cell is what is darker than about 0.7; most of the arithmetic is in "body", which is harmless.

    With `outlier` a second channel between "first" and "cell" has values that many times larger, and no say in the
    result: one INT8 range for both leaves nothing of the first.
    """
    import keras
    from keras import layers

    inputs = layers.Input(shape=(240, 320, 3), batch_size=1)
    x = layers.Conv2D(8, 3, padding="same", activation="relu", name="body")(inputs)
    x = layers.Conv2D(2, 1, activation="relu", name="first")(x)
    outputs = layers.Conv2D(1, 1, activation="sigmoid", name="cell")(x)
    model = keras.Model(inputs, outputs, name="tiny")
    body = np.zeros((3, 3, 3, 8), np.float32)
    body[1, 1, 1, :2] = [-1, 1]
    first = np.zeros((1, 1, 8, 2), np.float32)
    first[0, 0, 0, 0], first[0, 0, 1, 1] = 1, outlier
    last = np.zeros((1, 1, 2, 1), np.float32)
    last[0, 0, 0, 0] = 60
    darkness = np.array([1, 0, 0, 0, 0, 0, 0, 0], np.float32)
    model.set_weights([body, darkness, first, np.zeros(2, np.float32), last, np.array([-18], np.float32)])
    return model


def classifier() -> Any:
    """The class is told by the mean of a crop: nearest grey level, as a softmax of parabolas."""
    import keras
    from keras import layers

    inputs = layers.Input(shape=(CROP, CROP, 3), batch_size=8)
    x = layers.Conv2D(1, 1, name="green")(inputs)
    x = layers.GlobalAveragePooling2D(name="mean")(x)
    outputs = layers.Dense(len(CODES), activation="softmax", name="classes")(x)
    model = keras.Model(inputs, outputs, name="tiny")
    green = np.zeros((1, 1, 3, 1), np.float32)
    green[0, 0, 1, 0] = 1 / _AREA
    # The flat field lifts the background from 230 to 235.
    levels = np.array(LEVELS, np.float32) * 235 / 230 / 255
    steep = 1500.0
    dense = (2 * steep * levels)[None].astype(np.float32)
    model.set_weights([green, np.zeros(1, np.float32), dense, (-steep * levels**2).astype(np.float32)])
    return model


def tiny_bundle(folder: Path, outlier: float = 0.0, onnx: bool = False) -> Bundle:
    """Write a bundle with float .tflite (and .onnx) networks for the pictures of `session_fakes`."""
    from rbcedge.convert.tflite import convert

    make_bundle(folder)
    entries = []
    for role, model in (("segmenter", segmenter(outlier)), ("classifier", classifier())):
        made = {"tflite": convert(lambda model=model: model, model.get_weights(), "fp32")}
        if onnx:
            from rbcedge.convert.onnx import to_onnx

            made["onnx"] = to_onnx(model)
        for format, data in made.items():
            path = folder / f"{role}.fp32.{format}"
            path.write_bytes(data)
            entries.append(describe(role, format, "fp32", path).entry())
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "artefacts": entries}))
    return load(folder)
