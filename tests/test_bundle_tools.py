"""Bundles as one file and back, and what `rbcedge doctor` says of engines."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from session_fakes import make_bundle

from rbcedge import checks
from rbcedge.bundle import MANIFEST, describe, load
from rbcedge.cli import main
from rbcedge.errors import RbcedgeError
from rbcedge.packing import pack, unpack


def _bundle(folder: Path) -> Path:
    make_bundle(folder)
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["artefacts"] = []
    for role, size in (("segmenter", 300), ("classifier", 700)):
        path = folder / f"{role}.tflite"
        path.write_bytes(np.random.default_rng(size).bytes(size))
        manifest["artefacts"].append(describe(role, "tflite", "fp32", path).entry())
    (folder / MANIFEST).write_text(json.dumps(manifest))
    (folder / "notes.txt").write_text("not part of it")
    return folder


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return _bundle(tmp_path / "mine")


def _left(folder: Path) -> set[str]:
    return {p.name for p in folder.iterdir()}


def test_a_bundle_comes_out_as_it_went_in(bundle: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.zip"
    pack(bundle, file)
    back = unpack(file, tmp_path / "deep" / "back")
    assert back.sha256 == load(bundle).sha256
    assert _left(tmp_path / "deep" / "back") == {MANIFEST, "segmenter.tflite", "classifier.tflite"}
    assert _left(tmp_path / "deep") == {"back"}


def test_the_same_bundle_gives_the_same_file(bundle: Path, tmp_path: Path) -> None:
    pack(bundle, tmp_path / "a.zip")
    for path in bundle.iterdir():
        os.utime(path, (1, 1))
        path.chmod(0o600)
    pack(bundle, tmp_path / "b.zip")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_what_exists_is_not_overwritten(bundle: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.zip"
    pack(bundle, file)
    with pytest.raises(RbcedgeError, match="exists already"):
        pack(bundle, file)
    with pytest.raises(RbcedgeError, match="exists already"):
        unpack(file, bundle)
    (tmp_path / "empty").mkdir()
    assert unpack(file, tmp_path / "empty").name == load(bundle).name


def test_a_broken_bundle_is_not_packed(bundle: Path, tmp_path: Path) -> None:
    (bundle / "segmenter.tflite").write_bytes(b"short")
    with pytest.raises(RbcedgeError, match=r"segmenter\.tflite: 5 bytes where the manifest says 300"):
        pack(bundle, tmp_path / "mine.zip")
    assert _left(tmp_path) == {"mine"}


def test_a_place_that_cannot_be_written_is_said(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(RbcedgeError, match="cannot be written"):
        pack(bundle, tmp_path / "no such folder" / "mine.zip")
    pack(bundle, tmp_path / "mine.zip")
    with pytest.raises(RbcedgeError, match="cannot be unpacked"):
        unpack(tmp_path / "mine.zip", tmp_path / "mine.zip" / "back")


@given(kept=st.floats(0, 0.9999))
@settings(max_examples=30, deadline=None)
def test_a_file_cut_short_is_never_taken_for_a_bundle(tmp_path_factory: pytest.TempPathFactory, kept: float) -> None:
    folder = tmp_path_factory.mktemp("cut")
    whole = folder / "whole.zip"
    pack(_bundle(folder / "mine"), whole)
    data = whole.read_bytes()
    cut = folder / "cut.zip"
    cut.write_bytes(data[: int(kept * len(data))])
    with pytest.raises(RbcedgeError, match=r"cut\.zip"):
        unpack(cut, folder / "back")
    assert _left(folder) == {"mine", "whole.zip", "cut.zip"}


def test_a_changed_byte_is_found(bundle: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.zip"
    pack(bundle, file)
    data = bytearray(file.read_bytes())
    at = data.find((bundle / "classifier.tflite").read_bytes())
    data[at + 50] ^= 1
    file.write_bytes(data)
    with pytest.raises(RbcedgeError, match=r"mine\.zip: not a packed bundle, or damaged"):
        unpack(file, tmp_path / "back")
    assert not (tmp_path / "back").exists()


def _repack(file: Path, change: Callable[[dict[str, bytes]], list[tuple[str, bytes]]]) -> None:
    with zipfile.ZipFile(file) as archive:
        entries = {n: archive.read(n) for n in archive.namelist()}
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in change(entries):
            archive.writestr(zipfile.ZipInfo(name), data)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("../escaped", "no plain file name"),
        ("/tmp/escaped", "no plain file name"),
        ("sub/escaped", "no plain file name"),
        ("..\\escaped", "no plain file name"),
        ("C:escaped", "no plain file name"),
        ("..", "no plain file name"),
        ("escaped", "which the manifest does not name"),
    ],
)
def test_nothing_is_written_outside_of_the_new_folder(bundle: Path, tmp_path: Path, name: str, message: str) -> None:
    file = tmp_path / "mine.zip"
    pack(bundle, file)
    _repack(file, lambda entries: [*entries.items(), (name, b"bad")])
    with pytest.raises(RbcedgeError, match=message):
        unpack(file, tmp_path / "back")
    assert _left(tmp_path) == {"mine", "mine.zip"}
    assert not list(tmp_path.parent.rglob("escaped"))


def test_a_network_changed_before_packing_is_found(bundle: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.zip"
    pack(bundle, file)
    _repack(file, lambda entries: [(n, b"x" * 300 if n == "segmenter.tflite" else d) for n, d in entries.items()])
    with pytest.raises(RbcedgeError, match=r"mine\.zip/segmenter\.tflite: content differs"):
        unpack(file, tmp_path / "back")
    _repack(file, lambda entries: [(n, d) for n, d in entries.items() if n != MANIFEST])
    with pytest.raises(RbcedgeError, match=r"it holds no manifest\.json"):
        unpack(file, tmp_path / "back")


def test_other_files_are_no_packed_bundles(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(b"nothing of the kind")
    with pytest.raises(RbcedgeError, match=r"x\.zip: not a packed bundle"):
        unpack(tmp_path / "x.zip", tmp_path / "back")
    with pytest.raises(RbcedgeError, match="No such file"):
        unpack(tmp_path / "none.zip", tmp_path / "back")


def test_the_commands(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, back = str(tmp_path / "a.zip"), str(tmp_path / "back")
    for arguments, code, text in (
        (("pack", str(bundle), file), 0, "2 networks packed into"),
        (("pack", str(bundle), file), 1, "exists already"),
        (("unpack", file, back), 0, "2 networks, all as in the manifest"),
        (("unpack", file, back), 1, "exists already"),
        (("verify", back), 0, "2 files, all as in the manifest"),
    ):
        with pytest.raises(SystemExit) as end:
            main(["bundle", *arguments])
        shown = capsys.readouterr()
        assert int(end.value.code or 0) == code
        assert text in shown.out + shown.err


def test_an_accepted_loss_is_kept_and_shown(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = json.loads((bundle / MANIFEST).read_text())
    manifest["artefacts"][0]["accepted_loss"] = {"mask IoU": 0.991}
    (bundle / MANIFEST).write_text(json.dumps(manifest))
    artefact = load(bundle).artefacts[0]
    assert artefact.accepted_loss == {"mask IoU": 0.991}
    assert artefact.entry() == manifest["artefacts"][0]
    with pytest.raises(SystemExit):
        main(["bundle", "show", str(bundle)])
    assert 'segmenter.tflite: a loss was accepted: {"mask IoU": 0.991}' in capsys.readouterr().out
    manifest["artefacts"][0]["accepted_loss"] = "yes"
    (bundle / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(RbcedgeError, match=r"artefacts\[0\]\.accepted_loss must be an object"):
        load(bundle)


def test_two_files_for_one_purpose_are_refused(bundle: Path) -> None:
    manifest = json.loads((bundle / MANIFEST).read_text())
    manifest["artefacts"].append(manifest["artefacts"][0])
    (bundle / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(RbcedgeError, match=r"artefacts\[2\]: a second tflite segmenter in fp32"):
        load(bundle)


def test_doctor_lists_every_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from rbcedge.engines import loading

    rows = tuple(
        replace(r, problem=(lambda: "not here.") if r.name == "onnx" else (lambda: None)) for r in loading.RUNTIMES
    )
    monkeypatch.setattr(loading, "RUNTIMES", rows)
    found = {f.subject: (f.level, f.text) for f in checks._engines()}
    assert set(found) == {f"engine {r.name}" for r in rows}
    assert found["engine onnx"] == ("note", "not here.")
    assert found["engine litert"] == ("ok", "can be used")
