"""Building an engine in a process of its own, with progress.

TensorRT gives no chance to interrupt it before version 10, ends the whole process on some errors, and keeps much
memory after a build. A process of its own solves all three: Ctrl-C ends it at once, a crash becomes one line, and its
memory is given back. What it runs is `rbcedge.convert.tensorrt`; nothing is written to disk here.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import IO, Any, Protocol

from rbcedge.engines.tensorrt_shapes import Profile
from rbcedge.errors import RbcedgeError

_PROGRAM = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from rbcedge.convert.tensorrt import main; main()"
#: Seconds between two signs of life.
_TICK = 0.5
#: Seconds a builder that was told to end is given.
_PATIENCE = 5.0


class Progress(Protocol):
    """Shows that something is going on."""

    def begin(self, what: str, expected: float | None) -> None:
        """A build starts; `expected`: seconds it took last time, None where unknown."""

    def update(self, seconds: float, phase: str) -> None:
        """It has been running for so long, and is doing this ("" where the builder does not say)."""

    def end(self) -> None:
        """It is over, well or not."""

    def tell(self, line: str) -> None:
        """Show a line that stays."""


@dataclass(frozen=True, slots=True)
class Order:
    """What to build.

    Attributes
    ----------
    onnx : Path
    network : str
        For people ("segmenter").
    precision : str
        What the ONNX must hold: "fp32", "fp16" or "int8".
    profiles : tuple of Profile
    timings : Path or None
        TensorRT's timing cache; may be missing or foreign.
    """

    onnx: Path
    network: str
    precision: str
    profiles: tuple[Profile, ...]
    timings: Path | None = None


@dataclass(frozen=True, slots=True)
class Built:
    """What came out.

    Attributes
    ----------
    plan : bytes
        The engine.
    timings : bytes
        The timing cache, with what was learnt added.
    """

    plan: bytes
    timings: bytes


def build(order: Order, progress: Progress, expected: float | None = None) -> Built:
    """Build one engine.

    Raises
    ------
    RbcedgeError
        With TensorRT's reason, or the way in which its process ended.
    KeyboardInterrupt
        At Ctrl-C, when the builder has ended.
    """
    progress.begin(f"{order.network} {order.precision}", expected)
    begun = time.monotonic()
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, json.dumps(sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,  # Ctrl-C is for us to hear
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            # The pipe stays open: when this process dies, its end tells the builder to end too.
            with suppress(BrokenPipeError):
                process.stdin.write(_request(order))
                process.stdin.flush()
            heard: SimpleQueue[dict[str, Any] | Built | None] = SimpleQueue()
            Thread(target=_listen, args=(process.stdout, heard), daemon=True).start()
            phase, last = "", ""
            while True:
                progress.update(time.monotonic() - begun, phase)
                try:
                    message = heard.get(timeout=_TICK)
                except Empty:
                    continue
                if isinstance(message, Built):
                    return message
                if message is None:
                    break
                phase = message.get("phase", phase)
                last = message.get("log", last)
                if "error" in message:
                    raise RbcedgeError(f"{order.onnx.name}: {message['error']}")
            code = process.wait()
            errors.seek(0)
            raise RbcedgeError(f"{order.onnx.name}: {_ended(code, last or _last_line(errors.read()))}")
        finally:
            _end(process)
            progress.end()


def _request(order: Order) -> bytes:
    request = {
        "onnx": str(order.onnx),
        "precision": order.precision,
        "profiles": [asdict(p) for p in order.profiles],
        "timings": None if order.timings is None else str(order.timings),
    }
    return json.dumps(request).encode() + b"\n"


def _listen(pipe: IO[bytes], heard: SimpleQueue[dict[str, Any] | Built | None]) -> None:
    """Pass on what the builder says, line by line; a finished engine follows its line as plain bytes."""
    try:
        while line := pipe.readline():
            message = json.loads(line)
            if "plan" in message:
                plan, timings = pipe.read(message["plan"]), pipe.read(message["timings"])
                if len(plan) == message["plan"] and len(timings) == message["timings"]:
                    heard.put(Built(plan, timings))
                    return
                break
            heard.put(message)
    except (ValueError, OSError):
        pass
    heard.put(None)


def _ended(code: int, last: str) -> str:
    """Say how the builder's process ended."""
    said = f"; its last words: {last}" if last else ""
    if code == -signal.SIGKILL:
        return f"the system stopped the build, probably for lack of memory: close other programs{said}"
    if code < 0:
        with suppress(ValueError):
            return f"TensorRT crashed while it built the engine ({signal.Signals(-code).name}){said}"
    return f"the build ended without a result (code {code}){said}"


def _last_line(text: bytes) -> str:
    lines: Sequence[str] = [line.strip() for line in text.decode(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else ""


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(OSError):
                pipe.close()
