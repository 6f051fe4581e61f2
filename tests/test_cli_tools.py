"""`rbcedge bundle`, `cameras`, `doctor`, and how the program ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from cli_help import Cli
from numpy.typing import NDArray
from session_fakes import DarkSegmenter, LevelClassifier, fake_engines, make_bundle

from rbcedge import checks
from rbcedge.bundle import describe
from rbcedge.sources.devices import Camera, Mode


@pytest.fixture
def cli(call: Cli, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Call the command line."""
    monkeypatch.setenv("COLUMNS", "120")
    return call


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle with one file in it."""
    folder = tmp_path / "bundle"
    make_bundle(folder)
    (folder / "unet.tflite").write_bytes(b"a network" * 10)
    entry = describe("segmenter", "tflite", "int8", folder / "unet.tflite")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["artefacts"] = [{name: getattr(entry, name) for name in entry.__slots__}]
    manifest["training"] = {"data": "made up [for tests]"}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_help_and_version(cli) -> None:
    code, out, _ = cli("--help")
    assert code == 0
    for command in ("run", "export", "bundle", "cameras", "doctor"):
        assert command in out
    code, out, _ = cli("--version")
    assert code == 0
    assert out.startswith("rbcedge 0.")
    assert cli("no-such-command")[0] == 2
    assert cli("run", "--no-such-option")[0] == 2
    assert cli("run", "sim:", "--until", "0")[0] == 2


def test_bundle_show(cli, bundle: Path) -> None:
    code, out, err = cli("bundle", "show", str(bundle))
    assert (code, err) == (0, "")
    for text in ("ovalocyte", "0.19 µm/px", "unet.tflite", "90", "Apache-2.0", "made up [for tests]"):
        assert text in out


def test_bundle_verify(cli, bundle: Path) -> None:
    code, out, err = cli("bundle", "verify", str(bundle))
    assert (code, err) == (0, "")
    assert "unet.tflite: ok" in out
    (bundle / "unet.tflite").write_bytes(b"another  " * 10)
    code, out, err = cli("bundle", "verify", str(bundle))
    assert code == 1
    assert "unet.tflite: content differs from the manifest (sha256)" in out
    assert "1 of 1 files are wrong" in err
    (bundle / "unet.tflite").unlink()
    assert "cannot be read" in cli("bundle", "verify", str(bundle))[1]
    code, _, err = cli("bundle", "show", str(bundle / "nowhere"))
    assert code == 1
    assert "is not a bundle" in err


def test_cameras(cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rbcedge.sources.devices.list_cameras", lambda: ())
    code, out, _ = cli("cameras")
    assert code == 0
    assert "No camera was found" in out
    found = (
        Camera(0, "/dev/video0", "USB Microscope", (Mode("MJPG", 1280, 720, (30.0, 15.0)), Mode("YUYV", 640, 480, ()))),
        Camera(2, "/dev/video2", "Webcam", (), "permission denied."),
    )
    monkeypatch.setattr("rbcedge.sources.devices.list_cameras", lambda: found)
    _, out, _ = cli("cameras")
    assert out.splitlines() == [
        "0  /dev/video0  USB Microscope",
        "     MJPG 1280x720 at 30, 15 fps",
        "     YUYV 640x480",
        "2  /dev/video2  Webcam",
        "     permission denied.",
    ]


def test_doctor_in_order(cli, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rbcedge.engines.loading.load_engines", fake_engines)
    code, out, err = cli("doctor", "--bundle", str(bundle), "--out", str(tmp_path / "not" / "yet"))
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert {line[:6].strip() for line in lines} <= {"ok", "note"}
    for subject in ("python:", "cpu:", "numpy:", "rich:", "camera", "gpu:", "bundle:", "output:", "self test:"):
        assert any(subject in line for line in lines)
    assert "cells in a simulated picture of 640x480" in out
    assert not (tmp_path / "not").exists()


def test_doctor_names_what_is_broken(cli, bundle: Path, tmp_path: Path) -> None:
    (bundle / "unet.tflite").write_bytes(b"")
    (tmp_path / "file").write_text("")
    code, out, err = cli("doctor", "--bundle", str(bundle), "--out", str(tmp_path / "file"))
    assert code == 1
    assert "not in order: bundle, output, self test" in err
    assert "0 bytes where the manifest says 90" in out


def test_doctor_finds_a_classifier_that_does_not_look(
    cli, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Constant(LevelClassifier):
        def infer(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
            noise = np.random.default_rng(0).normal(0, 0.001, (len(batch), 4))
            return (np.array([0.4, 0.3, 0.2, 0.1]) + noise).astype(np.float32)

    monkeypatch.setattr("rbcedge.engines.loading.load_engines", lambda *_: (DarkSegmenter(), Constant()))
    code, out, err = cli("doctor", "--bundle", str(bundle), "--out", str(tmp_path))
    assert code == 1
    assert "gives every cell the same answer" in out
    assert "not in order: classifier" in err


def test_a_broken_tensorrt_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "_driver_problem", lambda: None)

    def broken(name: str) -> types.ModuleType:
        raise OSError("libnvinfer.so.10: cannot open shared object file")

    monkeypatch.setattr(checks.importlib, "import_module", broken)
    findings = list(checks._gpu())
    assert [f.level for f in findings] == ["ok", "note"]
    assert "cannot be used: libnvinfer.so.10" in findings[1].text


def test_without_a_driver_tensorrt_is_not_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "_driver_problem", lambda: "no NVIDIA driver")
    monkeypatch.setattr(checks.importlib, "import_module", lambda name: pytest.fail("imported"))
    (finding,) = checks._gpu()
    assert finding.level == "note"


def test_a_missing_package_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"numpy": "2.0", "tflite-runtime": "2.14.0", "opencv-python": "4.10", "typer": "1", "rich": "1"}
    monkeypatch.setattr(checks, "_version", versions.get)
    findings = {f.subject: f for f in checks._packages()}
    assert findings["platformdirs"].level == "broken"
    assert "pip install platformdirs" in findings["platformdirs"].text
    assert findings["tflite-runtime"].level == findings["opencv-python"].level == "ok"


WAITING = """
import sys, time
from rbcedge.stopping import stopping
with stopping() as stop:
    print("ready", flush=True)
    stop.wait(60)
    print("stopping", flush=True)
    if len(sys.argv) > 1:
        time.sleep(60)
print("done", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_ends_cleanly_the_second_at_once(number: signal.Signals) -> None:
    for again in (False, True):
        command = [sys.executable, "-c", WAITING, *(["slow"] if again else [])]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.stdout.readline() == "stopping\n"
        if again:
            process.send_signal(number)
        rest = process.stdout.read()
        process.wait(30)
        process.stdout.close()
        assert (process.returncode, rest) == ((128 + number, "") if again else (0, "done\n"))


def test_handlers_are_put_back() -> None:
    from rbcedge.stopping import stopping

    before = signal.getsignal(signal.SIGINT)
    with stopping() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.wait(5)
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_while_the_command_line_is_loaded_ends_quietly(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import builtins

    from rbcedge.__main__ import run

    real = builtins.__import__

    def interrupted(name: str, *rest: object, **more: object) -> object:
        if name == "rbcedge.cli":
            raise KeyboardInterrupt
        return real(name, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", interrupted)
    with pytest.raises(SystemExit) as end:
        run()
    assert end.value.code == 130
    assert capsys.readouterr().err == "rbcedge: interrupted.\n"
