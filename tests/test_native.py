"""Native libraries are silent, Python's errors are not."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import os, sys
from rbcedge.native import native_silence
os.write(2, b"before\\n")
with native_silence():
    os.write(2, b"native noise\\n")
    print("python", file=sys.stderr)
os.write(2, b"after\\n")
print("python again", file=sys.stderr)
"""


def test_only_native_output_is_silenced() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines() == ["before", "python", "after", "python again"]


def test_without_an_error_stream() -> None:
    code = "import sys\nsys.stderr = None\nfrom rbcedge.native import native_silence\nwith native_silence():\n print(1)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"
