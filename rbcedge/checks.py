"""What `rbcedge doctor` looks at. Every check gives findings and none raises."""

from __future__ import annotations

import ctypes
import importlib
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from time import perf_counter
from typing import Literal

NEEDED = ("numpy", "opencv-python-headless", "ai-edge-litert", "typer", "rich", "platformdirs")
# Class probabilities of sixty different cells that differ by less than this do not depend on the cell.
_SAME = 0.05
# Other names under which the same module is installed.
_INSTEAD = {
    "opencv-python-headless": ("opencv-python", "opencv-contrib-python-headless", "opencv-contrib-python"),
    "ai-edge-litert": ("tflite-runtime",),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report. "broken": counting will not work; "note": something optional is not there."""

    level: Literal["ok", "note", "broken"]
    subject: str
    text: str


def examine(bundle_folder: Path, out: Path) -> Iterator[Finding]:
    """Yield findings one by one, quick ones first.

    Parameters
    ----------
    bundle_folder : Path
        Bundle to verify and to try.
    out : Path
        Folder in which results would be written.
    """
    checks: tuple[tuple[str, Callable[[], Iterator[Finding]]], ...] = (
        ("python", _python),
        ("packages", _packages),
        ("cameras", _cameras),
        ("gpu", _gpu),
        ("engines", _engines),
        ("pipeline", lambda: _pipeline(bundle_folder)),
        ("bundle", lambda: _bundle(bundle_folder)),
        ("output", lambda: _output(out)),
        ("self test", lambda: _self_test(bundle_folder)),
    )
    for subject, check in checks:
        try:
            yield from check()
        except Exception as error:
            yield Finding("broken", subject, _plain(error))


def _python() -> Iterator[Finding]:
    supported = sys.version_info >= (3, 10)
    yield Finding(
        "ok" if supported else "broken",
        "python",
        f"{platform.python_version()} on {platform.platform()}" + ("" if supported else "; 3.10 or newer is needed"),
    )
    yield Finding("ok", "cpu", f"{_cpu_name()}, {_cores()} cores")


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("model name", "Model")):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _packages() -> Iterator[Finding]:
    yield Finding("ok", "rbcedge", metadata.version("rbcedge"))
    for name in NEEDED:
        found = next(((n, v) for n in (name, *_INSTEAD.get(name, ())) if (v := _version(n))), None)
        if found is None:
            yield Finding("broken", name, f"not installed: pip install {name}")
        else:
            yield Finding("ok", *found)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _cameras() -> Iterator[Finding]:
    from rbcedge.sources.devices import list_cameras

    cameras = list_cameras()
    if not cameras:
        yield Finding("note", "cameras", "none found; pictures, videos and network streams work without one")
    for camera in cameras:
        yield Finding(
            "note" if camera.problem else "ok",
            f"camera {camera.number}",
            f"{camera.name} ({camera.path})" + (f": {camera.problem}" if camera.problem else ""),
        )


def _gpu() -> Iterator[Finding]:
    problem = _driver_problem()
    if problem is not None:
        # TensorRT is not even imported then: without a driver its first calls may end the process.
        yield Finding("note", "gpu", f"{problem}; the CPU does the work")
        return
    yield Finding("ok", "gpu", "NVIDIA driver found")
    try:
        tensorrt = importlib.import_module("tensorrt")
    except ImportError:
        yield Finding("note", "tensorrt", "not installed; the CPU does the work")
    except Exception as error:  # a broken container raises OSError
        yield Finding("note", "tensorrt", f"installed, but cannot be used: {_plain(error)}")
    else:
        yield Finding("ok", "tensorrt", str(getattr(tensorrt, "__version__", "unknown version")))


def _driver_problem() -> str | None:
    """Ask the driver by itself whether there is a GPU; None where there is."""
    try:
        code = int(ctypes.CDLL("libcuda.so.1").cuInit(0))
    except OSError:
        return "no NVIDIA driver"
    return None if code == 0 else f"the NVIDIA driver reports error {code}"


def _pipeline(folder: Path) -> Iterator[Finding]:
    """Say which pipeline `rbcedge run` takes; on a computer without a GPU there is no question."""
    from rbcedge.bundle import load
    from rbcedge.pipeline.choosing import device_problem, has_gpu

    if not has_gpu():
        yield Finding("ok", "pipeline", "CPU")
        return
    problem = device_problem(load(folder))
    if problem is None:
        yield Finding("ok", "pipeline", "GPU: pictures are not copied; the CPU goes on should it fail")
    else:
        yield Finding("note", "pipeline", f"CPU; the GPU is left out: {problem}")


def _engines() -> Iterator[Finding]:
    from rbcedge.engines.loading import RUNTIMES

    for runtime in RUNTIMES:
        problem = runtime.problem()
        yield Finding("ok" if problem is None else "note", f"engine {runtime.name}", problem or "can be used")


def _bundle(folder: Path) -> Iterator[Finding]:
    from rbcedge.bundle import load

    bundle = load(folder)
    yield Finding("ok", "bundle", f"{bundle.name}, {len(bundle.artefacts)} files as in the manifest ({folder})")


def _output(out: Path) -> Iterator[Finding]:
    folder = out
    while not folder.exists():
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"rbcedge")
    except OSError as error:
        yield Finding("broken", "output", f"{folder} cannot be written: {error.strerror}. Choose another folder.")
        return
    stat = os.statvfs(folder)
    free = stat.f_bavail * stat.f_frsize / 2**30
    low = free < 0.5
    yield Finding("note" if low else "ok", "output", f"{out}, {free:.1f} GiB free" + (", little" if low else ""))


def _self_test(bundle_folder: Path) -> Iterator[Finding]:
    """Count a simulated picture with the networks of the bundle, twice: the second time is the speed."""
    import numpy as np

    from rbcedge.bundle import load
    from rbcedge.frame import Frame
    from rbcedge.pipeline.choosing import choose
    from rbcedge.sources import open_source

    bundle = load(bundle_folder)
    chosen = choose(bundle)
    pipeline = chosen.pipeline
    source = open_source("sim:?seed=1&pan=rest&frames=1")
    try:
        frame = next(item for item in source.frames() if isinstance(item, Frame))
        for _ in range(2):
            begun = perf_counter()
            field = pipeline.find(frame)
            field = pipeline.classify(field, np.arange(len(field.cells)))
            took = 1000 * (perf_counter() - begun)
    finally:
        source.close()
        pipeline.close()
    cells = len(field.cells)
    width, height = frame.size
    # The simulated field holds some sixty cells; networks that find less than half of that are not in order.
    yield Finding(
        "ok" if cells >= 30 else "broken",
        "self test",
        f"{cells} cells in a simulated picture of {width}x{height}, {took:.0f} ms "
        f"({chosen.networks[0].name} {chosen.precision})",
    )
    if cells and float(np.ptp(field.cells.probabilities, axis=0).max()) < _SAME:
        yield Finding(
            "broken", "classifier", "it gives every cell the same answer: it is not trained, or was converted wrongly"
        )


def _plain(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
