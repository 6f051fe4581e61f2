"""ONNX to INT8: quantise and dequantise nodes around the heavy operators, as TensorRT and ONNX Runtime read them.

Weights are symmetric and per output channel, activations symmetric (zero point 0), biases stay float, weights are
stored in float with their own Q/DQ pair (TensorRT 8 refuses integer initialisers). Only the inputs of convolutions
and matrix products are quantised, as TensorRT's guide asks: pooling, concatenation and activations follow from
their neighbours, and sums, sigmoid and softmax keep their precision.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rbcedge.errors import RbcedgeError

#: How the range of an activation is chosen: all that was seen; least information lost (Kullback-Leibler); all but the
#: outermost 0.001 % (percentile 99.999).
Ranges = Literal["min-max", "entropy", "percentile"]
METHODS: tuple[Ranges, ...] = ("min-max", "entropy", "percentile")
#: Operators whose inputs become INT8.
OPERATORS = ("Conv", "ConvTranspose", "MatMul", "Gemm")
#: Calibration pictures of which all activations are held in memory at once.
_CHUNK = 4


def quantise(
    onnx: bytes,
    calibration: Iterable[NDArray[np.uint8]],
    ranges: Ranges = "min-max",
    exclude_nodes: Sequence[str] = (),
) -> bytes:
    """Quantise a float32 network to INT8.

    Parameters
    ----------
    onnx : bytes
        As `rbcedge.convert.onnx.to_onnx` gives it.
    calibration : iterable of (n, H, W, 3) uint8
        Real pictures as the network sees them at run time, red, green, blue.
    ranges : "min-max", "entropy" or "percentile"
    exclude_nodes : sequence of str
        Names of nodes that stay in float32.

    Returns
    -------
    bytes
        The .onnx file: float32 in and out, opset 17, no operators but standard ones.

    Raises
    ------
    RbcedgeError
        Without calibration pictures, for an unknown node, or where the ranges cannot be found.
    """
    return with_ranges(onnx, activation_ranges(onnx, calibration, ranges), exclude_nodes)


def activation_ranges(
    onnx: bytes, calibration: Iterable[NDArray[np.uint8]], method: Ranges = "min-max"
) -> dict[str, tuple[float, float]]:
    """Find the lowest and highest value of every tensor that is to be quantised.

    Returns
    -------
    dict
        Name of tensor to (low, high), in the tensor's own unit.
    """
    from onnxruntime.quantization import CalibrationMethod
    from onnxruntime.quantization.calibrate import create_calibrator

    if method not in METHODS:
        raise RbcedgeError(f"Unknown ranges '{method}'. Known: {', '.join(METHODS)}.")
    kinds = {
        "min-max": CalibrationMethod.MinMax,
        "entropy": CalibrationMethod.Entropy,
        "percentile": CalibrationMethod.Percentile,
    }
    pictures = [np.asarray(p) for p in calibration]
    if not pictures:
        raise RbcedgeError("INT8 needs calibration pictures, none were given.")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "float.onnx"
        path.write_bytes(onnx)
        try:
            with redirect_stdout(StringIO()):  # the histograms are announced line by line
                calibrator = create_calibrator(
                    path, list(OPERATORS), str(Path(folder) / "watched.onnx"), kinds[method], extra_options={}
                )
                name = calibrator.infer_session.get_inputs()[0].name
                for start in range(0, len(pictures), _CHUNK):
                    calibrator.collect_data(_Reader(name, pictures[start : start + _CHUNK]))
                found = calibrator.compute_data()
        except Exception as e:  # the percentile's histogram: "Too many bins for data range"
            reason = (str(e).strip() or type(e).__name__).splitlines()[0]
            raise RbcedgeError(f"{method} ranges cannot be found ({reason}). Choose other ranges: min-max.") from e
        out = {key: tuple(float(np.asarray(v).min()) for v in data.range_value) for key, data in found.items()}
    return {key: (low, high) for key, (low, high) in out.items()}


def with_ranges(onnx: bytes, ranges: Mapping[str, tuple[float, float]], exclude_nodes: Sequence[str] = ()) -> bytes:
    """Quantise a float32 network with activation ranges that are known; see `quantise`.

    Parameters
    ----------
    ranges : mapping of tensor name to (low, high)
        As `activation_ranges` gives them, perhaps changed.
    """
    import onnx as library
    from onnxruntime.quantization import CalibrationMethod, QuantType
    from onnxruntime.quantization.calibrate import TensorData, TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    model = library.shape_inference.infer_shapes(library.load_from_string(onnx))
    unknown = sorted(set(exclude_nodes) - {n.name for n in model.graph.node})
    if unknown:
        raise RbcedgeError(f"No node {', '.join(unknown)} in this network.")
    known = {
        name: TensorData(lowest=np.array(low, np.float32), highest=np.array(high, np.float32))
        for name, (low, high) in ranges.items()
    }
    quantiser = QDQQuantizer(
        model,
        True,
        False,
        QuantType.QInt8,
        QuantType.QInt8,
        TensorsData(CalibrationMethod.MinMax, known),
        [],
        list(exclude_nodes),
        list(OPERATORS),
        {
            "ActivationSymmetric": True,
            "WeightSymmetric": True,
            "QuantizeBias": False,
            "AddQDQPairToWeight": True,
            "DedicatedQDQPair": True,
            "OpTypesToExcludeOutputQuantization": list(OPERATORS),
        },
    )
    quantiser.quantize_model()
    done = tidy(quantiser.model.model)
    library.checker.check_model(done, full_check=True)
    out: bytes = done.SerializeToString()
    return out


def tidy(model: Any) -> Any:
    """Put an ONNX ModelProto in order, in place: nodes sorted, nothing unused, shapes left to the reader."""
    from onnxruntime.quantization.onnx_model import ONNXModel

    graph = ONNXModel(model)
    graph.topological_sort()
    graph.clean_initializers()
    # Converters declare operator sets of other domains without using them, and TensorRT stumbles over them.
    used = {n.domain for n in model.graph.node}
    kept = [o for o in model.opset_import if o.domain in ("", "ai.onnx") or o.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    del model.graph.value_info[:]
    return model


class _Reader:
    """Gives ONNX Runtime's calibrator one picture after another."""

    def __init__(self, name: str, pictures: list[NDArray[np.uint8]]) -> None:
        self._feeds = iter([{name: p.astype(np.float32) / np.float32(255)} for p in pictures])

    def get_next(self) -> dict[str, Any] | None:
        return next(self._feeds, None)

    def __iter__(self) -> _Reader:
        return self

    def __next__(self) -> dict[str, Any]:
        return next(self._feeds)
