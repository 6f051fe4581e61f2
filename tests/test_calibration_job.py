"""From fields to a bundle with INT8 networks: sets, layers kept in float, refusals, nothing half-written."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from cli_help import Cli
from rbcedge.calibration import folder as on_disk
from rbcedge.calibration.chosen import CalibrationSet, CellPicture, FieldPicture, geometry
from rbcedge.calibration.gallery import gallery, worst
from rbcedge.calibration.network import Layer
from rbcedge.calibration.sensitivity import groups, masks_differ
from session_fakes import field_of_discs, write_pictures

from rbcedge.bundle import describe, load
from rbcedge.errors import RbcedgeError

pytest.importorskip("ai_edge_quantizer", reason="the extra 'calibrate' is not installed")
pytest.importorskip("matplotlib", reason="the extra 'report' is not installed")

#: Ten of them are calibrated on, ten judge.
FIELDS = 20


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two bundles, one of which INT8 ruins, and fields."""
    pytest.importorskip("tensorflow", reason="makes the tiny networks")
    pytest.importorskip("tf2onnx", reason="makes the tiny networks")
    from calibration_networks import tiny_bundle

    root = tmp_path_factory.mktemp("calibration")
    tiny_bundle(root / "good")
    tiny_bundle(root / "fragile", outlier=2000.0, onnx=True)
    write_pictures(root / "fields", FIELDS)
    return root


@pytest.fixture
def cli(call: Cli, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Call the command line in an empty folder; returns exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return call


def calibrate(cli, made: Path, *arguments: str, bundle: str = "good", fields: str = "fields"):
    common = ("--scale", "1", "--threads", "1", "--ranges", "min-max", "--cells", "60")
    return cli("calibrate", str(made / fields), "--bundle", str(made / bundle), *common, *arguments)


def test_a_bundle_comes_out_that_runs_at_once(cli, made: Path, tmp_path: Path) -> None:
    code, out, err = calibrate(cli, made, "--out", "new")
    assert (code, err) == (0, "")
    assert "20 countable fields" in out
    bundle = load(tmp_path / "new")
    assert {(a.role, a.precision) for a in bundle.artefacts} == {
        (role, precision) for role in ("segmenter", "classifier") for precision in ("int8", "fp32")
    }
    assert all(a.accepted_loss is None for a in bundle.artefacts)
    found = bundle.manifest["calibration"]
    assert found["agreement"]["tflite"]["labels_agree"] == 1.0
    assert found["fields"]["compared_on_others"] is True
    assert found["set_sha256"] == on_disk.digest(on_disk.load(tmp_path / "new" / "calibration"))
    assert bundle.manifest["made_from"]["name"] == "test"
    page = (tmp_path / "new" / "report.html").read_text()
    assert "Within every tolerance" in page
    assert "http" not in page.replace("http-equiv", ""), "the page needs nothing from elsewhere"
    code, out, err = cli(
        "run", str(made / "fields" / "0.png"), "--bundle", "new", "--precision", "int8", "--scale", "1", "--out", "run"
    )
    assert (code, err) == (0, "")
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["cells"]["counted"] == 12
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == [], "nothing is left lying about"


def test_a_network_that_int8_ruins_is_refused(cli, made: Path, tmp_path: Path) -> None:
    code, _, err = calibrate(cli, made, "--out", "new", "--all-int8", bundle="fragile")
    assert code == 1
    assert "INT8 loses more than is tolerated: mask IoU" in err
    assert "--accept-loss" in err
    assert not (tmp_path / "new").exists()
    refused = tmp_path / "new-refused"
    assert sorted(p.name for p in refused.iterdir()) == ["agreement.json", "report.html"]
    assert "Beyond tolerance" in (refused / "report.html").read_text()
    with pytest.raises(RbcedgeError, match="is not a bundle"):
        load(refused)


def test_an_accepted_loss_stands_in_the_manifest(cli, made: Path, tmp_path: Path) -> None:
    code, _, err = calibrate(cli, made, "--out", "new", "--all-int8", "--accept-loss", bundle="fragile")
    assert (code, err) == (0, "")
    losses = [a.accepted_loss for a in load(tmp_path / "new").artefacts if a.precision == "int8"]
    assert len(losses) == 2
    assert all(loss is not None and loss["date"] and "mask IoU" in loss["beyond"][0] for loss in losses)
    assert all(a.accepted_loss is None for a in load(tmp_path / "new").artefacts if a.precision == "fp32")


def test_the_layers_that_are_ruined_stay_in_float(cli, made: Path, tmp_path: Path) -> None:
    code, out, err = calibrate(cli, made, "--out", "new", "--format", "tflite,onnx", bundle="fragile")
    assert (code, err) == (0, "")
    bundle = load(tmp_path / "new")
    found = bundle.manifest["calibration"]["networks"]
    for format in ("tflite", "onnx"):
        network = found[format]["segmenter"]
        assert 0 < network["float_share_of_arithmetic"] < 0.3
        assert network["final_disagreement"] < 0.002
        assert bundle.find("segmenter", format, ("int8",)) is not None
    assert {"first (conv_2d)", "cell (conv_2d)"} <= set(found["tflite"]["segmenter"]["kept_in_float"])
    assert not any(title.startswith("body") for title in found["tflite"]["segmenter"]["kept_in_float"])
    # Q/DQ stands at the inputs of convolutions: the last one alone must stay.
    assert len(found["onnx"]["segmenter"]["kept_in_float"]) == 1
    assert "in float stay" in out


@pytest.mark.parametrize("goal", [1.0, 1e-9])
def test_goals_are_tightened_until_the_judged_fields_agree(made: Path, tmp_path: Path, goal: float) -> None:
    from dataclasses import replace

    from rbcedge.calibration.fitting import Wanted
    from rbcedge.calibration.job import Options, calibrate

    from rbcedge.sources import open_source

    options = Options(wanted=Wanted(("min-max",), mask_goal=goal), cells=60, scale=1.0, threads=1)
    source = open_source([str(made / "fields")])
    report = calibrate(load(made / "fragile"), source, tmp_path / "new", options)
    found = report.quantised["tflite"]["segmenter"]
    assert report.beyond == []
    assert found.kept, "the goal alone would have kept none"
    # Where the goals suffice they stay as they are; a goal that nothing reaches is no reason to go on.
    assert found.goal in ((0.5, 0.25, 0.125) if goal == 1.0 else (goal,))
    whole = replace(options, wanted=replace(options.wanted, keep_layers=False))
    with pytest.raises(RbcedgeError, match="mask IoU"):
        calibrate(load(made / "fragile"), open_source([str(made / "fields")]), tmp_path / "other", whole)


def test_other_fields_can_judge_but_none_that_was_calibrated_on(cli, made: Path, tmp_path: Path) -> None:
    others = write_pictures(tmp_path / "others", FIELDS)
    for k in range(FIELDS, FIELDS + 12):
        pixels = field_of_discs(k)
        pixels[0, 0] = k  # so it is none of the others
        cv2.imwrite(str(others / f"{k}.png"), pixels)
    code, _, err = calibrate(cli, made, "--out", "new", "--all-int8", "--judge", str(others))
    assert (code, err) == (0, "")
    found = load(tmp_path / "new").manifest["calibration"]
    # Of the fields only twelve differ: k shows what k + 12 shows.
    used = {int(Path(f.source).stem) % 12 for f in on_disk.load(tmp_path / "new" / "calibration").fields}
    assert found["agreement"]["tflite"]["fields"] == 12 + sum(k % 12 not in used for k in range(FIELDS))
    assert (Path(found["source"]).name, Path(found["judged_on"]).name) == ("fields", "others")
    few = tmp_path / "few"
    write_pictures(few, 3)  # the first three of the fields: all are calibrated on, as they are all there is
    code, _, err = cli("calibrate", str(few), "--judge", str(few), "--bundle", str(made / "good"), "--scale", "1",
                       "--out", "none")  # fmt: skip
    assert code == 1
    assert "No field to judge by" in err
    code, _, err = calibrate(cli, made, "--out", "none", "--judge", "nowhere")
    assert code in (1, 2)
    assert "nowhere" in err
    assert not (tmp_path / "none").exists()


def test_float16_onnx_is_enough_for_int8_onnx(cli, made: Path, tmp_path: Path) -> None:
    from rbcedge.convert.onnx import to_float16

    shutil.copytree(made / "fragile", tmp_path / "half")
    manifest = json.loads((tmp_path / "half" / "manifest.json").read_text())
    entries = [e for e in manifest["artefacts"] if e["format"] != "onnx"]
    for role in ("segmenter", "classifier"):
        whole = tmp_path / "half" / f"{role}.fp32.onnx"
        path = tmp_path / "half" / f"{role}.fp16.onnx"
        path.write_bytes(to_float16(whole.read_bytes()))
        whole.unlink()
        entries.append(describe(role, "onnx", "fp16", path).entry())
    (tmp_path / "half" / "manifest.json").write_text(json.dumps({**manifest, "artefacts": entries}))
    code, _, err = cli("calibrate", str(made / "fields"), "--bundle", "half", "--format", "onnx", "--scale", "1",
                       "--ranges", "min-max", "--cells", "60", "--threads", "1", "--out", "new")  # fmt: skip
    assert (code, err) == (0, "")
    bundle = load(tmp_path / "new")
    kept = {(a.role, a.format, a.precision) for a in bundle.artefacts}
    assert {("segmenter", "onnx", "int8"), ("segmenter", "onnx", "fp16")} <= kept
    assert bundle.manifest["calibration"]["agreement"]["onnx"]["reference"] == "litert fp32"


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("--format", "gguf"), 2, "known are tflite and onnx"),
        (("--ranges", "guess"), 2, "known are auto, min-max"),
        (("--scale", "0"), 2, "above zero"),
        (("--format", "onnx"), 1, "has not both networks as float ONNX. Give --format tflite"),
    ],
)
def test_wrong_arguments(cli, made: Path, tmp_path: Path, arguments: tuple[str, str], code: int, text: str) -> None:
    got, _, err = cli(
        "calibrate", str(made / "fields"), "--bundle", str(made / "good"), "--out", "new", "--threads", "1", *arguments
    )
    assert got == code
    assert text in err
    assert not (tmp_path / "new").exists()


def test_a_target_that_holds_something_is_left_alone(cli, made: Path, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "mine.txt").write_text("x")
    code, _, err = calibrate(cli, made, "--out", "new")
    assert code == 2
    assert "exists already" in err
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["mine.txt"]


def test_fields_that_cannot_be_counted_are_named(cli, made: Path, tmp_path: Path) -> None:
    import cv2

    (tmp_path / "empty").mkdir()
    cv2.imwrite(str(tmp_path / "empty" / "white.png"), np.full((240, 320, 3), 230, np.uint8))
    (tmp_path / "empty" / "torn.png").write_bytes(b"\x89PNG nothing")
    code, _, err = cli("calibrate", "empty", "--bundle", str(made / "good"), "--out", "new", "--scale", "1")
    assert code == 1
    assert "calibration set would be empty" in err
    assert "white.png: too sparse" in err
    assert "torn.png" in err
    assert not (tmp_path / "new").exists()


def test_cells_of_one_class_are_refused(cli, made: Path, tmp_path: Path) -> None:
    import cv2
    from session_fakes import disc_picture

    (tmp_path / "same").mkdir()
    for k in range(3):
        discs = [(45 + 60 * i, 40 + 60 * j, 60) for i in range(5) for j in range(3)]
        cv2.imwrite(str(tmp_path / "same" / f"{k}.png"), disc_picture(discs))
    code, _, err = cli("calibrate", "same", "--bundle", str(made / "good"), "--out", "new", "--scale", "1")
    assert code == 1
    assert "one class only: all 45 cells are NOR" in err


def test_too_few_cells_to_judge_are_refused(cli, made: Path, tmp_path: Path) -> None:
    write_pictures(tmp_path / "few", 4)
    code, _, err = cli(
        "calibrate", "few", "--bundle", str(made / "good"), "--out", "new", "--scale", "1", "--ranges", "min-max"
    )
    assert code == 1
    assert "Only 24 whole cells" in err


def test_a_bundle_without_float_networks_is_refused(cli, made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "good", tmp_path / "bare")
    path = tmp_path / "bare" / "manifest.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({**manifest, "artefacts": []}))
    code, _, err = cli("calibrate", str(made / "fields"), "--bundle", "bare", "--out", "new")
    assert code == 1
    assert "no float networks to make INT8 from" in err


def test_a_missing_quantiser_is_said_before_anything_is_done(
    cli, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ai_edge_quantizer", None)
    code, out, err = calibrate(cli, made, "--out", "new")
    assert (code, out) == (1, "")
    assert "pip install 'rbcedge[calibrate]'" in err


def test_labels_give_the_accuracy_and_those_that_fit_nothing_are_said(cli, made: Path, tmp_path: Path) -> None:
    names = "".join(f"{k}.png,45,40,NOR\n" for k in range(FIELDS))
    (tmp_path / "labels.csv").write_text(f"source,x,y,code\n{names}")
    code, out, _ = calibrate(cli, made, "--out", "new", "--all-int8", "--labels", "labels.csv")
    assert code == 0
    assert "accuracy" in out
    figures = json.loads((tmp_path / "new" / "agreement.json").read_text())["agreement"]["tflite"]
    before, after = figures["accuracy_percent"]
    assert before == after
    assert 0 < before < 100, "the first disc of a field is NOR in some fields only"
    (tmp_path / "labels.csv").write_text("source,x,y,code\nelsewhere.png,45,40,NOR\n")
    code, out, _ = calibrate(cli, made, "--out", "other", "--all-int8", "--labels", "labels.csv")
    assert code == 0
    assert "no label of labels.csv lies on a compared cell" in " ".join(out.split())


def test_a_place_that_cannot_be_written_is_named(cli, made: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    code, _, err = calibrate(cli, made, "--out", "file/new")
    assert code == 1
    assert "cannot be written" in err


def test_interrupted_it_leaves_nothing(cli, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("rbcedge.calibration.job.write_report", interrupt)
    code, _, err = calibrate(cli, made, "--out", "new", "--all-int8")
    assert code == 130
    assert "interrupted" in err
    assert [p.name for p in tmp_path.iterdir() if p.name != "state"] == []


def small_set(bundle_folder: Path, codes: tuple[str, ...] = ("NOR", "TEA")) -> CalibrationSet:
    rng = np.random.default_rng(0)
    pictures = [FieldPicture(rng.integers(0, 255, (16, 32, 3), np.uint8), "a.png", 1.0, {"density": 0.2})]
    cells = [CellPicture(rng.integers(0, 255, (8, 8, 3), np.uint8), "a.png", code) for code in codes]
    return CalibrationSet(tuple(pictures), tuple(cells), "test", geometry(load(bundle_folder)), (("b.png", "blurred"),))


def test_a_set_comes_back_as_it_was_saved(made: Path, tmp_path: Path) -> None:
    chosen = small_set(made / "good")
    on_disk.save(chosen, tmp_path / "set")
    again = on_disk.load(tmp_path / "set")
    assert on_disk.digest(again) == on_disk.digest(chosen)
    assert (again.left_out, again.geometry, again.classes) == (chosen.left_out, chosen.geometry, chosen.classes)
    assert again.fields[0].figures == {"density": 0.2}
    again.suits(load(made / "good"))
    with pytest.raises(RbcedgeError, match="not empty"):
        on_disk.save(chosen, tmp_path / "set")


@pytest.mark.parametrize("harm", ["changed", "gone", "outside", "cut"])
def test_a_file_that_is_not_what_it_was_is_named(made: Path, tmp_path: Path, harm: str) -> None:
    index = on_disk.save(small_set(made / "good"), tmp_path / "set")
    victim = tmp_path / "set" / "cells" / "TEA" / "0001.png"
    if harm == "changed":
        data = bytearray(victim.read_bytes())
        data[-20] ^= 1
        victim.write_bytes(data)
    elif harm == "gone":
        victim.unlink()
    elif harm == "outside":
        index.write_text(index.read_text().replace("cells/TEA/0001.png", "../../secret.png"))
    else:
        index.write_text(index.read_text()[:-40])
    with pytest.raises(RbcedgeError, match=r"calibration\.json" if harm in ("outside", "cut") else r"0001\.png"):
        on_disk.load(tmp_path / "set")


def test_empty_and_single_class_sets_are_refused(made: Path, tmp_path: Path) -> None:
    on_disk.save(small_set(made / "good", ("NOR", "NOR")), tmp_path / "one")
    with pytest.raises(RbcedgeError, match="one class only: all 2 cells are NOR"):
        on_disk.load(tmp_path / "one")
    on_disk.save(small_set(made / "good", ()), tmp_path / "none")
    with pytest.raises(RbcedgeError, match=r"holds no cells.*b\.png: blurred"):
        on_disk.load(tmp_path / "none")


def test_a_set_for_other_inputs_is_refused(made: Path, tmp_path: Path) -> None:
    from dataclasses import replace

    chosen = small_set(made / "good")
    with pytest.raises(RbcedgeError, match="segmenter_scale"):
        chosen.suits(replace(load(made / "good"), segmenter_scale=0.5))


def test_many_layers_are_judged_by_block() -> None:
    layers = [Layer(f"net/block{k // 4}_part{k}/conv;x", "CONV_2D", 1) for k in range(60)]
    found = groups(layers)
    assert [g.title for g in found[:2]] == ["block0", "block1"]
    assert sorted(n for g in found for n in g.names) == sorted(x.name for x in layers)
    assert len(groups(layers[:8])) == 8
    # A block that could never be kept as a whole is judged layer by layer.
    large = [Layer(f"Conv__{k}", "Conv", 100, f"net/deep_part{k}/") for k in range(4)]
    assert [g.title for g in groups(layers + large)][-4:] == [f"deep_part{k} (conv)" for k in range(4)]


def test_folded_onnx_layers_are_called_as_in_keras_and_their_work_is_known(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper
    from rbcedge.calibration.onnx import OnnxNetwork

    weights = {"net_1/stem_conv_1/kernel": np.ones((4, 3, 3, 3), np.float32), "w2": np.ones((1, 4, 1, 1), np.float32)}
    nodes = [
        helper.make_node("Transpose", ["pixels"], ["x"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["x", "net_1/stem_conv_1/kernel"], ["y"], name="Conv__7", pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["y", "w2"], ["z"]),
        helper.make_node("Transpose", ["z"], ["cell"], perm=[0, 2, 3, 1]),
    ]
    free = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", "h", "w", c]) for n, c in (("pixels", 3), ("cell", 1))
    ]
    graph = helper.make_graph(
        nodes, "g", free[:1], free[1:], [numpy_helper.from_array(v, k) for k, v in weights.items()]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    network = OnnxNetwork(model, tmp_path)
    first, second = network.layers
    assert (first.title, first.block) == ("stem_conv", "stem")
    assert first.macs / second.macs == pytest.approx(4 * 3 * 9 / 4), "also where the picture's size is free"
    network.calibrate([np.zeros((1, 16, 16, 3), np.uint8) + 9])
    kept = onnx.load_from_string(network.quantised("min-max", [second.name]))
    assert sum(n.op_type == "QuantizeLinear" for n in kept.graph.node) == 2, "a layer without a name can be kept, too"


def test_masks_differ_by_one_minus_iou() -> None:
    a, b = np.array([0.9, 0.9, 0.1, 0.2], np.float32), np.array([0.9, 0.4, 0.6, 0.2], np.float32)
    assert masks_differ(a, b) == pytest.approx(1 - 1 / 3)
    assert masks_differ(b * 0, a * 0) == 0.0


def test_the_gallery_shows_differing_cells_and_nothing_else(made: Path) -> None:
    from dataclasses import replace

    from rbcedge.calibration.agreement import compare_fields, pool
    from session_fakes import CODES, DarkPipeline

    from rbcedge.frame import Frame

    bundle, pipeline = load(made / "good"), DarkPipeline()
    frame = Frame(0, 0.0, field_of_discs(), "a.png")
    field = pipeline.find(frame)
    before = pipeline.classify(field, np.arange(len(field.cells)))
    p = before.cells.probabilities.copy()
    p[[1, 2]] = p[[2, 1]][:, ::-1]
    after = replace(before, cells=replace(before.cells, probabilities=p))
    same = pool([compare_fields(before, before, bundle)], bundle.labels, "a", "b")
    assert gallery(worst(same), lambda _: frame, CODES) is None
    found = worst(pool([compare_fields(before, after, bundle)], bundle.labels, "a", "b"))
    assert len(found) == 2
    picture = gallery(found, lambda _: frame, CODES)
    assert picture is not None
    assert picture.shape[1] > picture.shape[0] > 100
    assert picture.std() > 10
