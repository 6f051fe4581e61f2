"""From trained weights to the bundle that runs at the microscope."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rbcedge.calibration.descriptors import stain
from rbcedge.calibration.selection import balanced, farthest
from rbcedge.convert.bundle import build
from rbcedge.convert.making import BATCH, LAYOUT
from rbcedge.convert.networks import Network
from rbcedge.training.classifier import BALANCE
from rbcedge.training.crops import RIM, Cut, centred, cut
from rbcedge.training.lessons import CELLS, CODES, load
from rbcedge.training.networks import efficientnet, unet
from rbcedge.training.weights import read_weights

from rbcedge.bundle import Label
from rbcedge.errors import RbcedgeError

NAMES = {
    "NOR": "normal, rounded",
    "OVA": "ovalocyte",
    "TEA": "teardrop",
    "FRA": "fragmented (schistocyte)",
    "BUR": "burr (crenated)",
    "OTH": "other",
    "TWO": "two overlapped",
    "THR": "three overlapped",
}
SIGNIFICANT = ("OVA", "TEA", "FRA", "BUR")


def labels() -> list[Label]:
    """The paper's eight classes as bundle labels, in the order people read them: that of `NAMES`."""
    return [Label(c, name, c in SIGNIFICANT, CELLS.get(c, 1)) for c, name in NAMES.items()]


def prior(cuts: Sequence[Cut]) -> NDArray[np.float32]:
    """(K,) what to add to the log odds of each class, in the order of `CODES`.

    Training draws rare classes more often than they occur (`Draw`: number to the power `BALANCE`), so the network
    expects them more often. This takes it back, so that a probability means the share among the real cells.
    """
    counts = np.maximum(np.bincount([c.code for c in cuts], minlength=len(CODES)), 50)
    shift = (1 - BALANCE) * np.log(counts / counts.sum())
    return (shift - shift.max()).astype(np.float32)


def final_layer(weights: list[NDArray[np.float32]], shift: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """Shift the classifier's log odds and put its outputs, trained in the order of `CODES`, in that of `labels`."""
    order = [CODES.index(label.code) for label in labels()]
    *body, kernel, bias = weights
    return [*body, kernel[:, order], (bias + shift)[order]]


def calibration(
    lessons: list[dict[str, NDArray[Any]]],
    cuts: Sequence[Cut],
    scale: float,
    seed: int = 0,
    fields: int = 24,
    cells: int = 512,
) -> tuple[list[NDArray[np.uint8]], list[NDArray[np.uint8]]]:
    """Choose calibration pictures: fields at working resolution, and batches of crops with every class in them.

    Fields are chosen farthest from each other in stain and density, cells evenly over the classes.
    """
    cell = [x["labels"] > 0 for x in lessons]
    looks = np.stack([[*stain(x["pixels"][c]), c.mean()] for x, c in zip(lessons, cell, strict=True)])
    chosen = [lessons[i] for i in farthest(looks / np.maximum(looks.std(axis=0), 1e-9), fields)]
    h, w = (round(v * scale) for v in chosen[0]["labels"].shape)
    pictures = [cv2.resize(x["pixels"], (w, h), interpolation=cv2.INTER_AREA)[None] for x in chosen]
    codes = np.array([c.code for c in cuts])
    missing = [code for k, code in enumerate(CODES) if k not in codes]
    if missing:
        raise RbcedgeError(f"No {', '.join(missing)} among the lessons: INT8 cannot be calibrated on every class.")
    rows = np.random.default_rng(seed).permutation(balanced(codes, cells, seed))
    crops = [centred(c.pixels, c.own, c.others, LAYOUT) for c in (cuts[int(i)] for i in rows)]
    return pictures, [np.stack(crops[k : k + BATCH]) for k in range(0, len(crops), BATCH)]


def export(
    segmenter: Path,
    classifier: Path,
    lessons: Path,
    folder: Path,
    onnx: bool = False,
    keras: Path | None = None,
    **described: Any,
) -> None:
    """Convert trained weights to TFLite, INT8 and float32, and write the bundle `folder`.

    Parameters
    ----------
    segmenter, classifier : Path
        Folders as `train` leaves them (``weights.npz``, ``network.json``).
    lessons : Path
        Folder of real training lessons to calibrate on.
    folder : Path
    onnx : bool
        Add float16 ONNX networks: what TensorRT engines are made from on the device.
    keras : Path or None
        Folder in which both networks are kept as ``segmenter.keras`` and ``classifier.keras``, outputs and all as in
        the bundle: for `rbcedge convert`.
    described : dict
        What the manifest says besides: name, licence, training, measured, temperature, confidence_threshold.
    """
    shape = json.loads((segmenter / "network.json").read_text())
    width, depth, upsampling, scale = (shape[k] for k in ("width", "depth", "upsampling", "scale"))
    small = json.loads((classifier / "network.json").read_text())["small"]
    real = load(sorted(lessons.glob("[0-9]*.npz")))
    cuts = cut(real)
    shift = prior(cuts)
    pictures, crops = calibration(real, cuts, scale)
    unet_model = unet(width, depth, upsampling)
    unet_model.set_weights(read_weights(segmenter / "weights.npz"))
    efficientnet_model = efficientnet(len(CODES), "none", None, dropout=0.0)
    efficientnet_model.set_weights(final_layer(read_weights(classifier / "weights.npz"), shift))
    if keras is not None:
        keras.mkdir(parents=True, exist_ok=True)
        unet_model.save(keras / "segmenter.keras")
        efficientnet_model.save(keras / "classifier.keras")
    digest = hashlib.sha256()
    for path in sorted(lessons.glob("[0-9]*.npz")):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    training = dict(described.get("training", {}), lessons_sha256=digest.hexdigest())
    build(
        folder,
        {
            "segmenter": (Network("segmenter", str(segmenter), keras=unet_model), pictures),
            "classifier": (Network("classifier", str(classifier), keras=efficientnet_model), crops),
        },
        {
            "name": described.get("name", "default"),
            "licence": described.get("licence", "Apache-2.0"),
            "training": training,
            "scale": {"diameter_px": 38.0, "um_per_px": 0.19},
            "segmenter": {
                "network": f"U-Net, width {width}, depth {depth}, {upsampling} up-sampling",
                "scale": scale,
                "threshold": 0.5,
                "input": "RGB 0-255 after flat field (background at 235)",
            },
            "classifier": {
                "network": "EfficientNetB0",
                "crop_px": 80,
                "small_crop_px": small,
                "rim_px": RIM,
                "confidence_threshold": described.get("confidence_threshold", 0.5),
                "temperature": described.get("temperature", 1.0),
                "input": "RGB 0-255 after flat field, zero beyond a rim around the cell and on other cells",
            },
            "measured": described.get("measured", {}),
        },
        labels(),
        [("tflite", "int8"), ("tflite", "fp32"), *([("onnx", "fp16")] if onnx else [])],
    )
