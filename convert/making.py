"""One float32 network in, the same network in other formats and precisions out, each compared with the first."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rbcedge.convert import tflite
from rbcedge.convert.networks import Network
from rbcedge.convert.onnx import Ranges, quantise, to_float16, to_onnx
from rbcedge.convert.probe import probes, sides
from rbcedge.convert.upsampling import merged

from rbcedge.bundle import Bundle
from rbcedge.engines.base import Engine
from rbcedge.errors import RbcedgeError, UsageError

#: What can be made of a network; "int8-float" is INT8 with float input and output.
MAKES = {"tflite": tflite.PRECISIONS, "onnx": ("fp32", "fp16", "int8")}
#: Cells classified in one call of a .tflite file. Small, so that a field with few new cells does not wait for a
#: padded batch.
BATCH = 8
#: Side a .tflite classifier of two crop sides is laid out for, px. The converter fixes what it can reckon from that
#: side: it folds the padding of strided convolutions into them where the side they meet is even, and leaves out means
#: over a single pixel. EfficientNetB0 meets 88, 44, 22, then 11 and 5, and ends at 2: padding folded where it is even
#: at 56 and 80 px too (not beyond 20), and every mean is kept. From 56 px, which ends at 1, 80 px would come out wrong.
LAYOUT = 88
#: Picture for which a .tflite segmenter is laid out where nothing says otherwise, native px; others work too.
_PICTURE = (480, 640)
#: Difference in probability that another order of summing explains; a wrong padding makes more.
_FLOAT32 = 1e-3

Pictures = Sequence[NDArray[np.uint8]]


class OneSizeError(RbcedgeError):
    """A .tflite segmenter that takes only the picture size it was laid out for, of a network that takes any."""


@dataclass(frozen=True, slots=True)
class Made:
    """A converted network.

    Attributes
    ----------
    role, format, precision : str
        As the manifest will say.
    file : str
        Name it should have.
    data : bytes
    deviation : float
        Largest difference in probability from the float32 network on simulated pictures. For what INT8 does to counts
        see `rbcedge calibrate`.
    """

    role: str
    format: str
    precision: str
    file: str
    data: bytes
    deviation: float


def make(
    network: Network,
    bundle: Bundle,
    wanted: Sequence[tuple[str, str]],
    calibration: Pictures = (),
    ranges: Ranges = "min-max",
    tell: Callable[[str], None] = lambda what: None,
) -> Iterator[Made]:
    """Convert one network to each of the formats and precisions wanted.

    Parameters
    ----------
    network : Network
    bundle : Bundle
        Gives the sizes at which the network will work.
    wanted : sequence of (format, precision)
        As in `MAKES`.
    calibration : sequence of (n, H, W, 3) uint8
        Real pictures as the network sees them, red, green, blue; needed for INT8.
    ranges : str
        How activation ranges are chosen for INT8 in ONNX.
    tell : callable
        Is told what is being done.

    Raises
    ------
    RbcedgeError, UsageError
        For a network that cannot be converted, that comes out wrong, or a format it cannot be turned to.
    """
    onnx = network.onnx
    for format, precision in wanted:
        if precision not in MAKES.get(format, ()):
            raise UsageError(
                f"Nothing makes {format} in {precision}; known: "
                + ", ".join(f"{f} {p}" for f, ps in MAKES.items() for p in ps)
            )
        tell(f"{network.role}: {format} {precision}")
        if "int8" in precision and not calibration:
            raise UsageError(
                "INT8 is calibrated on real pictures: give --calibration a folder that 'rbcedge calibrate' made."
            )
        if format == "tflite":
            data = _tflite(network, bundle, precision, calibration)
        else:
            if onnx is None:
                onnx = to_onnx(network.keras)
            data = onnx
            if precision == "fp16":
                data = to_float16(onnx)
            elif precision == "int8":
                data = quantise(onnx, calibration, ranges)
        deviation = compare(network, bundle, format, precision, data)
        file = f"{network.role}.{precision}.{format}"
        yield Made(network.role, format, precision.partition("-")[0], file, data, deviation)


def compare(network: Network, bundle: Bundle, format: str, precision: str, data: bytes) -> float:
    """Run a converted network beside the one it was made from; return the largest difference in probability.

    Raises
    ------
    RbcedgeError
        Where a float32 network differs by more than rounding, or a result is not a number.
    """
    from rbcedge.engines.litert import LiteRTEngine
    from rbcedge.engines.onnx import OnnxEngine

    worst = 0.0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"network.{format}"
        path.write_bytes(data)
        engine: Engine = (LiteRTEngine if format == "tflite" else OnnxEngine)(path, precision)
        try:
            for batch in _trials(bundle, network):
                try:
                    got = engine.infer(batch)
                except RbcedgeError as e:
                    if network.role == "classifier" or format != "tflite":
                        raise
                    raise OneSizeError(
                        f"{network.origin} as TFLite works on one picture size only: something in it is laid out for "
                        "that size, as up-sampling is. Use transposed convolutions, or ONNX."
                    ) from e
                away = float(np.abs(got - network.run(batch)).max()) if np.isfinite(got).all() else float("inf")
                if not np.isfinite(away) or (precision == "fp32" and away > _FLOAT32):
                    shape = "x".join(str(v) for v in batch.shape[1:3])
                    raise RbcedgeError(
                        f"The {format} {network.role} in {precision} differs by {away:.2g} from {network.origin} on "
                        f"pictures of {shape} px: it was converted wrongly and is not kept."
                        + (_TWO_SIDES if network.role == "classifier" and format == "tflite" else "")
                    )
                worst = max(worst, away)
        finally:
            engine.close()
    return worst


def _trials(bundle: Bundle, network: Network) -> Pictures:
    """Return the pictures to compare on; for a segmenter of free size a second, smaller one."""
    found = probes(bundle, network.role, network.size)
    if network.role == "segmenter" and network.size == (None, None):
        found.append(np.ascontiguousarray(found[0][:, 64:, :-32]))
    return found


_TWO_SIDES = (
    " A .tflite file fixes the padding of strided convolutions by the parity of the side. "
    "Give crop_px and small_crop_px the same value, or use ONNX."
)


def _tflite(network: Network, bundle: Bundle, precision: str, calibration: Pictures) -> bytes:
    if network.keras is None:
        raise UsageError(
            f"TFLite is made from Keras; {network.origin} is ONNX. Give --{network.role} a .keras file, "
            "or use the network as it is with --engine onnx."
        )
    height, width = network.size
    if network.role == "segmenter":
        batch = 1
        h, w = (round(v * bundle.segmenter_scale / 16) * 16 for v in _PICTURE)
    else:
        batch = BATCH
        several = sides(bundle, height)
        h = w = LAYOUT if len(several) > 1 else several[0]
        calibration = [_framed(p, h) for p in calibration] if len(several) > 1 else calibration
    if precision.startswith("int8"):
        h, w = _most(calibration, (height, width), (h, w) if network.role == "classifier" else None)
    else:
        h, w = height or h, width or w
    model = tflite.fixed(merged(network.keras), batch, h, w)
    chosen = batches([p for p in calibration if p.shape[1:3] == (h, w)], batch) if precision.startswith("int8") else []
    return tflite.convert(lambda: model, model.get_weights(), _known(precision), chosen)


def batches(pictures: Pictures, size: int) -> list[NDArray[np.uint8]]:
    """Put pictures (n, H, W, 3) of one size together to batches of `size`; the last is filled with the first."""
    if not pictures:
        return []
    every = np.concatenate(list(pictures))
    short = -len(every) % size
    every = np.concatenate([every, np.resize(every, (short, *every.shape[1:]))]) if short else every
    return list(every.reshape(-1, size, *every.shape[1:]))


def _framed(crops: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Put crops (n, H, W, 3) that are smaller than `side` px in the middle of black squares."""
    low = [max(side - v, 0) // 2 for v in crops.shape[1:3]]
    high = [max(side - v, 0) - a for v, a in zip(crops.shape[1:3], low, strict=True)]
    return np.pad(crops, ((0, 0), *zip(low, high, strict=True), (0, 0)))


def _most(
    calibration: Pictures, fixed: tuple[int | None, int | None], preferred: tuple[int, int] | None
) -> tuple[int, int]:
    """Return the size (height, width) that most calibration pictures have, among those the network takes."""
    found: Counter[tuple[int, int]] = Counter()
    for p in calibration:
        h, w = p.shape[1:3]
        if (fixed[0] or h, fixed[1] or w) == (h, w):
            found[h, w] += len(p)
    if not found:
        raise RbcedgeError(f"No calibration picture has the size the network takes ({fixed[1]}x{fixed[0]} px).")
    if preferred in found:
        return preferred
    return found.most_common(1)[0][0]


def _known(precision: str) -> tflite.Precision:
    return next(p for p in tflite.PRECISIONS if p == precision)
