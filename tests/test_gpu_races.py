"""Races between the threads of one launch, as ThreadSanitizer sees them in the build for the CPU."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from rbcedge.pipeline.gpu import cpu

#: Everything from the probabilities to the list of cells and the light, with four threads at a time.
SCRIPT = textwrap.dedent("""
    import cv2
    import numpy as np
    from rbcedge.pipeline.gpu import cpu
    from rbcedge.pipeline.gpu.finding import Finding, Result
    from rbcedge.pipeline.gpu.measuring import Measuring
    from rbcedge.pipeline.gpu.memory import Pool, load_kernels

    cpu._FLAGS = (*cpu._FLAGS, "-O1", "-g", "-fsanitize=thread")
    cv2.setNumThreads(1)
    device = cpu.CpuDevice(workers=4)
    stream, kernels = device.stream(), load_kernels(device)
    rng = np.random.default_rng(0)
    mask = (cv2.GaussianBlur(rng.random((200, 260)).astype(np.float32), (0, 0), 2) > 0.5).astype(np.float32)
    pixels = rng.integers(0, 256, (*mask.shape, 3), np.uint8)
    size = mask.shape[::-1]
    pool = Pool(device, stream)
    result = Result.allocate(pool, size, 5)
    finding = Finding(device, stream, kernels, size, size, size[0], 0.5, 5)
    finding.begin()
    finding.launch(pool.table(mask), result)
    Measuring(device, stream, kernels, size, 1.0).launch(pool.table(pixels).address, result)
    print(len(result.read(size, 8).cells), "cells")
""")


def _sanitizer() -> str | None:
    """Path of ThreadSanitizer's library, None where the compiler has none."""
    program = cpu.compiler()
    if program is None:
        return None
    found = subprocess.run([program, "-print-file-name=libtsan.so"], capture_output=True, text=True, check=False)
    path = Path(found.stdout.strip())
    return str(path.resolve()) if path.is_absolute() and path.exists() else None


def test_threads_of_a_launch_do_not_race(tmp_path: Path) -> None:
    library = _sanitizer()
    if library is None:
        pytest.skip("no ThreadSanitizer here")
    environment = {
        **os.environ,
        "LD_PRELOAD": library,
        "OPENBLAS_NUM_THREADS": "1",
        "TSAN_OPTIONS": "exitcode=0",
        "XDG_CACHE_HOME": str(tmp_path),
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=False, timeout=250
    )
    if "FATAL: ThreadSanitizer" in done.stderr:
        pytest.skip(f"ThreadSanitizer does not start here: {done.stderr.strip()[:200]}")
    assert done.stdout.split()[1:] == ["cells"], done.stderr[-2000:]
    assert "WARNING: ThreadSanitizer" not in done.stderr, done.stderr[:4000]
