"""ONNX to a TensorRT engine, for TensorRT 8.6, 10 and 11, by one path.

The precision is in the ONNX: float16 weights and casts, or Q/DQ nodes. From 10 on the network is strongly typed, so
TensorRT computes what the ONNX says. 8.6 knows no such thing: there the flags FP16 and INT8 allow what the ONNX
holds, and TensorRT may choose a layer's precision within that. There is no calibrator and no other precision flag.

`main` is the builder's process: `rbcedge.engines.tensorrt_building` starts it, gives it one line of JSON, and reads
lines of JSON and, after the last of them, the engine.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock, Thread
from typing import Any

from rbcedge.engines.tensorrt_api import check_driver, import_tensorrt, make_logger, one_line
from rbcedge.engines.tensorrt_building import Built
from rbcedge.engines.tensorrt_shapes import Profile
from rbcedge.errors import RbcedgeError

Report = Callable[[dict[str, Any]], None]

#: Seconds between two reports of progress, at least.
_EVERY = 0.2


def build(onnx: bytes, precision: str, profiles: Sequence[Profile], timings: bytes, report: Report) -> Built:
    """Build an engine in this process. Needs a GPU: ask `rbcedge.engines.tensorrt_api.problem` before.

    Parameters
    ----------
    onnx : bytes
        One input (N, H, W, 3), one output.
    precision : str
        What the ONNX is expected to hold: "fp32", "fp16" or "int8".
    profiles : sequence of Profile
        Dimensions that are fixed in the ONNX stay as they are there.
    timings : bytes
        An earlier timing cache, b"" for none. One of another GPU or version is left aside.
    report : callable (dict)
        Gets {"phase": text} and {"log": text}.

    Raises
    ------
    RbcedgeError
        In plain words.
    """
    trt = import_tensorrt()
    logger = make_logger(trt, lambda line: report({"log": line}))
    try:
        builder = trt.Builder(logger)
    except TypeError as e:  # what the bindings make of a null pointer
        check_driver(logger)
        raise RbcedgeError(f"TensorRT does not start ({logger.last_error or 'it gives no reason'}).") from e
    check_driver(logger)
    network = builder.create_network(_creation_flags(trt))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(onnx):
        raise RbcedgeError(_parse_errors(parser, logger))
    found = _held_precision(trt, network)
    if found != precision:
        raise RbcedgeError(
            f"the ONNX holds {found}, {precision} was expected. TensorRT takes the precision from the ONNX: "
            f"make one with 'rbcedge convert onnx DIR --precision {precision}'."
        )
    config = builder.create_builder_config()
    _set_flags(trt, config, precision)
    _set_shapes(builder, network, config, profiles)
    cache = config.create_timing_cache(timings)
    if not config.set_timing_cache(cache, False):
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, False)
    logger.last_error = None
    monitor = _watch(trt, config, report)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise RbcedgeError(f"TensorRT could not build the engine: {logger.last_error or 'it gives no reason'}")
    built = Built(bytes(plan), bytes(cache.serialize()))
    # The monitor must outlive what uses it.
    del config, builder, monitor
    return built


def _creation_flags(trt: Any) -> int:
    """8.x must be told that the batch is a dimension like others; from 10 on types are binding."""
    kinds = trt.NetworkDefinitionCreationFlag
    if hasattr(kinds, "STRONGLY_TYPED"):
        return 1 << int(kinds.STRONGLY_TYPED)
    return 1 << int(kinds.EXPLICIT_BATCH)


def _set_flags(trt: Any, config: Any, precision: str) -> None:
    # float32 means float32: without this, matrix products are rounded to 10 bits of mantissa.
    config.clear_flag(trt.BuilderFlag.TF32)
    if hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED"):
        return
    if precision == "fp16":
        config.set_flag(trt.BuilderFlag.FP16)
    if precision == "int8":
        config.set_flag(trt.BuilderFlag.INT8)


def _held_precision(trt: Any, network: Any) -> str:
    """Return the lowest precision among a parsed network's layers."""
    half = False
    for i in range(network.num_layers):
        layer = network.get_layer(i)
        if layer.type == trt.LayerType.QUANTIZE:
            return "int8"
        half = half or any(layer.get_output(k).dtype == trt.DataType.HALF for k in range(layer.num_outputs))
    return "fp16" if half else "fp32"


def _set_shapes(builder: Any, network: Any, config: Any, profiles: Sequence[Profile]) -> None:
    """Fix what does not change over all profiles, and add profiles for what does."""
    if network.num_inputs != 1 or network.num_outputs != 1:
        raise RbcedgeError(
            f"a network with one input and one output is needed; this one has {network.num_inputs} and "
            f"{network.num_outputs}."
        )
    tensor = network.get_input(0)
    shape = tuple(int(n) for n in tensor.shape)
    if len(shape) != 4 or shape[3] != 3:
        written = "x".join("?" if n < 0 else str(n) for n in shape)
        raise RbcedgeError(f"the input must be (N, H, W, 3), this one is {written}.")
    fitted = [p for p in (fit(wanted, shape) for wanted in profiles) if p is not None]
    if not fitted:
        asked = ", ".join(str(p) for p in profiles)
        written = "x".join("any" if n < 0 else str(n) for n in shape)
        raise RbcedgeError(f"the network takes {written}, which none of the shapes asked for allows ({asked}).")
    settled = [len({n for p in fitted for n in (p.least[d], p.largest[d])}) == 1 for d in range(4)]
    if shape != (target := tuple(fitted[0].least[d] if settled[d] else shape[d] for d in range(4))):
        tensor.shape = target
    if all(settled):
        return
    for p in dict.fromkeys(fitted):
        profile = builder.create_optimization_profile()
        profile.set_shape(tensor.name, p.least, p.usual, p.largest)
        config.add_optimization_profile(profile)


def fit(wanted: Profile, shape: Sequence[int]) -> Profile | None:
    """Return the profile with the network's fixed dimensions (those not -1) in it, None where that is not possible."""
    low, usual, high = list(wanted.least), list(wanted.usual), list(wanted.largest)
    for d, n in enumerate(shape):
        if n < 0:
            continue
        if not low[d] <= n <= high[d]:
            return None
        low[d] = usual[d] = high[d] = n
    return Profile((*low,), (*usual,), (*high,))


def _parse_errors(parser: Any, logger: Any) -> str:
    """Name the node and operator of the first error, and how many more there are."""
    if parser.num_errors == 0:
        return f"TensorRT cannot read the ONNX: {logger.last_error or 'it gives no reason'}"
    error = parser.get_error(0)
    node = f"node {error.node()}"
    if hasattr(error, "node_name"):  # from 10 on
        node += f" '{error.node_name()}', operator {error.node_operator()}"
    more = f" (and {parser.num_errors - 1} more errors)" if parser.num_errors > 1 else ""
    return f"TensorRT cannot use {node}: {one_line(error.desc())}{more}"


def _watch(trt: Any, config: Any, report: Report) -> Any:
    """Report TensorRT's own progress where the version has it (10 and newer); return what must be kept alive."""
    if not hasattr(trt, "IProgressMonitor"):
        return None

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.steps: dict[str, int] = {}
            self.reported = 0.0

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            if parent_phase is None:
                self.steps.clear()
            self.steps[phase_name] = num_steps
            report({"phase": phase_name})

        def step_complete(self, phase_name: str, step: int) -> bool:
            steps = self.steps.get(phase_name, 0)
            # Inner loops finish thousands of steps; a few signs of life a second are enough.
            if steps and time.monotonic() - self.reported > _EVERY:
                self.reported = time.monotonic()
                report({"phase": f"{phase_name} {step + 1}/{steps}"})
            return True

        def phase_finish(self, phase_name: str) -> None:
            self.steps.pop(phase_name, None)

    monitor = Monitor()
    config.progress_monitor = monitor
    return monitor


def main() -> None:
    """Build what the request on stdin asks for; end when stdin does."""
    # Libraries print to stdout as they like: keep it for ourselves.
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    request = json.loads(sys.stdin.buffer.readline())
    Thread(target=_end_with_parent, daemon=True).start()
    lock = Lock()

    def report(message: dict[str, Any]) -> None:
        with lock:  # TensorRT reports from several threads
            out.write(json.dumps(message).encode() + b"\n")
            out.flush()

    try:
        timings = b""
        if request["timings"] is not None and Path(request["timings"]).is_file():
            timings = Path(request["timings"]).read_bytes()
        profiles = [Profile(*(tuple(p[k]) for k in ("least", "usual", "largest"))) for p in request["profiles"]]
        built = build(Path(request["onnx"]).read_bytes(), request["precision"], profiles, timings, report)
        report({"plan": len(built.plan), "timings": len(built.timings)})
        out.write(built.plan)
        out.write(built.timings)
        out.flush()
    except RbcedgeError as e:
        report({"error": str(e)})
    except Exception as e:
        report({"error": f"{type(e).__name__}: {one_line(str(e))}"})
    # Without a device TensorRT's destructors may end the process with a signal: everything has been said.
    out.flush()
    os._exit(0)


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(3)
