"""Bundles: what is right loads, what is wrong is named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from rbcedge import bundle
from rbcedge.errors import RbcedgeError


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    shutil.copytree(bundle.default_folder(), folder)
    return folder


def _edit(folder: Path, **changes: Any) -> None:
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest.update(changes)
    path.write_text(json.dumps(manifest))


def test_the_shipped_bundle_is_whole_and_has_the_papers_classes() -> None:
    b = bundle.load(bundle.default_folder())
    assert set(b.codes) == {"NOR", "OVA", "TEA", "FRA", "BUR", "TWO", "THR", "OTH"}
    assert {x.code: x.cells for x in b.labels if x.cells > 1} == {"TWO": 2, "THR": 3}
    for role in bundle.ROLES:
        assert b.find(role, "tflite", ("int8",)) is not None
    assert b.manifest["training"]["data"], "the manifest says what the networks were trained on"


@pytest.mark.parametrize("role", bundle.ROLES)
def test_a_changed_byte_is_found_and_the_file_named(copy: Path, role: str) -> None:
    artefact = bundle.load(copy).find(role, "tflite", ("int8",))
    assert artefact is not None
    path = copy / artefact.file
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(RbcedgeError, match=rf"{artefact.file}.*sha256"):
        bundle.load(copy)


def test_a_truncated_file_is_found(copy: Path) -> None:
    artefact = bundle.load(copy).artefacts[0]
    path = copy / artefact.file
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(RbcedgeError, match=f"{artefact.bytes - 1} bytes where the manifest says {artefact.bytes}"):
        bundle.load(copy)


def test_a_missing_file_is_found(copy: Path) -> None:
    artefact = bundle.load(copy).artefacts[0]
    (copy / artefact.file).unlink()
    with pytest.raises(RbcedgeError, match=f"{artefact.file}: cannot be read"):
        bundle.load(copy)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": 99}, "schema 99"),
        ({"labels": []}, "labels must be"),
        ({"labels": [{"code": "A", "name": "a"}, {"code": "A", "name": "b"}]}, "different codes"),
        ({"labels": [{"code": "../A", "name": "a"}]}, "plain words"),
        ({"scale": {"diameter_px": 0, "um_per_px": 0.19}}, r"scale\.diameter_px must be a number above 0, it is 0"),
        ({"scale": {}}, "'diameter_px' is missing in scale"),
        ({"scale": {"diameter_px": 38, "um_per_px": "0.19"}}, r"scale\.um_per_px must be .*, it is '0\.19'"),
        ({"scale": [38, 0.19]}, r"scale must be an object in braces, it is \[38"),
        ({"artefacts": [{}]}, r"'role' is missing in artefacts\[0\]"),
        ({"artefacts": {}}, "artefacts must be a list in brackets"),
        ({"labels": [{"code": "A", "name": "a", "significant": "yes"}]}, r"labels\[0\]\.significant must be true or"),
        ({"labels": [{"code": "A", "name": "a", "cells": 1.5}]}, r"labels\[0\]\.cells must be a whole number"),
        ({"segmenter": {"scale": 0.5, "threshold": 1}}, r"segmenter\.threshold must be a number between 0 and 1"),
        ({"segmenter": {"scale": 1e400, "threshold": 0.5}}, r"segmenter\.scale must be a number from"),
        ({"name": 3}, "name must be a text in quotes, it is 3"),
    ],
)
def test_a_manifest_edited_by_hand_is_refused_in_words(copy: Path, changes: dict[str, Any], message: str) -> None:
    _edit(copy, **changes)
    with pytest.raises(RbcedgeError, match=message):
        bundle.load(copy)


def test_an_artefact_outside_of_the_folder_is_refused(copy: Path) -> None:
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["artefacts"][0]["file"] = "../secret"
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(RbcedgeError, match="own folder"):
        bundle.load(copy)


def test_garbage_and_nothing_are_no_bundles(tmp_path: Path) -> None:
    with pytest.raises(RbcedgeError, match=r"not a bundle: manifest\.json cannot be read"):
        bundle.load(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(RbcedgeError, match=r"manifest\.json"):
        bundle.load(tmp_path)
