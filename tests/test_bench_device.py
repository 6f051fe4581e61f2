"""`rbcedge bench` on the device pipeline: the CPU build of the kernels, stand-ins for the networks."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from session_fakes import field_of_discs, make_bundle, write_pictures
from test_bench_measuring import made_report, made_run
from test_gpu_running import SIZE, Dying, on_device, spare

from rbcedge.bench.compare import compare
from rbcedge.bench.diagnosis import shares_of
from rbcedge.bench.fields import Drawn
from rbcedge.bench.gpu import Gpu
from rbcedge.bench.measuring import Plan, measure
from rbcedge.bench.result import Run, read, write
from rbcedge.cli import main
from rbcedge.pipeline import choosing
from rbcedge.pipeline.base import Pipeline
from rbcedge.pipeline.choosing import OnDevice, device_of
from rbcedge.pipeline.gpu.base import Transfers
from rbcedge.pipeline.gpu.cpu import compiler
from rbcedge.pipeline.spare import WithSpare

pytestmark = pytest.mark.skipif(compiler() is None, reason="no C++ compiler here")
NETWORKS = (OnDevice("fp16"), OnDevice("fp16"))
FRAMES = 5
STAGES = ["upload", "illumination", "normalise", "segment", "components", "light", "crop", "classify"]


def measured(folder: Path, pipeline: Pipeline, lent: bool = False, gpu: Gpu | None = None) -> Run:
    pictures = Drawn([field_of_discs(k) for k in range(3)], "discs")
    device = device_of(pipeline)
    assert device is not None
    buffers = device.buffers if lent else None
    bundle = make_bundle(folder / "b")
    try:
        return measure(lambda: pictures.into(buffers), pipeline, NETWORKS, bundle, Plan(FRAMES, 2), gpu=gpu)
    finally:
        pipeline.close()


def test_the_total_is_of_the_ordinary_loop_and_the_stages_of_a_pass_that_waits(tmp_path: Path) -> None:
    pipeline = on_device(make_bundle(tmp_path / "b"))
    run = measured(tmp_path, pipeline)
    ends = ["gate", "count", "store", "draw"]
    assert list(run.fresh.stages_ms) == ["capture", "upload", "device", "classify", *ends]
    assert run.by_stage is not None
    assert list(run.by_stage.stages_ms) == ["capture", *STAGES, *ends]
    for loop in (run.fresh, run.by_stage):
        assert loop.cells == (13,) * FRAMES
        assert all(len(values) == FRAMES for values in (loop.total_ms, *loop.stages_ms.values()))
        parts = [sum(v[k] for s, v in loop.stages_ms.items() if s != "draw") for k in range(FRAMES)]
        assert all(whole >= part for whole, part in zip(loop.total_ms, parts, strict=True))
    assert run.staged is run.by_stage
    first = run.diagnosis[0].split(" takes ")[0]
    assert first == max(shares_of(run.by_stage).items(), key=lambda s: s[1])[0]
    assert any(line.startswith("The stages are of a second pass that waits") for line in run.diagnosis)
    assert not pipeline.by_stage


@pytest.mark.parametrize("lent", [False, True])
def test_copies_of_the_ordinary_loop_are_counted_without_those_for_drawing(tmp_path: Path, lent: bool) -> None:
    pipeline = on_device(make_bundle(tmp_path / "b"))
    run = measured(tmp_path, pipeline, lent)
    moved = run.moved
    assert moved is not None
    picture = SIZE[0] * SIZE[1] * 3
    assert (moved.staged, moved.staged_bytes) == ((0, 0) if lent else (FRAMES, FRAMES * picture))
    assert (moved.uploads, moved.downloads) == (0, 0)
    # Drawing brings labels back (W x H x 4); the list of cells, background, light and probabilities are less.
    assert pipeline.transfers.download_bytes + pipeline.transfers.result_bytes > FRAMES * picture / 24
    assert 0 < moved.back_bytes / FRAMES < 8_000
    assert moved.results >= 2 * FRAMES


def test_transfers_are_added_and_subtracted() -> None:
    a = Transfers().uploaded(5).copied(7)
    b = a.downloaded(3).returned(2)
    assert b - a == Transfers().downloaded(3).returned(2)
    assert a + (b - a) == b


def test_a_report_of_a_device_comes_back_and_is_compared_by_stage(tmp_path: Path) -> None:
    run = measured(tmp_path, on_device(make_bundle(tmp_path / "b")))
    report = made_report(run)
    write(report, tmp_path / "r.json")
    assert read(tmp_path / "r.json") == report
    content = json.loads((tmp_path / "r.json").read_text())
    assert content["runs"][0]["by_stage"]["figures_ms"]["normalise"]["n"] == FRAMES
    (only,), _ = compare(report, report)
    assert {"normalise", "components"} <= {row.stage for row in only.rows}
    total = next(row for row in only.rows if row.stage == "capture to count")
    assert total.now_ms == sorted(run.fresh.total_ms)[FRAMES // 2]


def test_a_report_from_before_is_still_read(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    write(made_report(made_run([1.0, 2.0])), path)
    content = json.loads(path.read_text())
    for name in ("by_stage", "moved"):
        del content["runs"][0][name]
    path.write_text(json.dumps(content))
    assert read(path).runs[0].moved is None


def test_the_largest_memory_in_use_that_was_seen_is_told(tmp_path: Path) -> None:
    class Nvml:
        """Memory grows, then is free again."""

        NVMLError = RuntimeError
        used = iter([100, 900])

        def nvmlDeviceGetHandleByIndex(self, k: int) -> int:
            return k

        def nvmlDeviceGetMemoryInfo(self, device: int) -> SimpleNamespace:
            return SimpleNamespace(used=next(self.used, 300))

        def __getattr__(self, name: str) -> object:
            raise RuntimeError(name)

    run = measured(tmp_path, on_device(make_bundle(tmp_path / "b")), gpu=Gpu(Nvml()))
    assert run.device_bytes == 900


# 2 + 5 fresh pictures, the field at rest once, then the second pass.
@pytest.mark.parametrize(
    ("launches", "said"), [(3, "these figures are not of the GPU alone"), (10, "its stages were not told apart")]
)
def test_a_gpu_that_is_lost_is_told(tmp_path: Path, launches: int, said: str) -> None:
    bundle = make_bundle(tmp_path / "b")
    run = measured(tmp_path, WithSpare(on_device(bundle, Dying("threshold_mask", launches)), spare(bundle)))
    assert run.by_stage is None
    assert (run.moved is None) == (launches == 3)
    assert run.diagnosis[0].startswith("The GPU failed in cuLaunchKernel")
    assert said in run.diagnosis[0]


def test_the_command_shows_both_passes_and_what_was_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    slides = write_pictures(tmp_path / "slides", 3)
    monkeypatch.setattr(choosing, "_on_device", lambda *_: (on_device(bundle), NETWORKS))
    monkeypatch.setattr("rbcedge.bench.series.copy_speed", lambda: 1e10)
    monkeypatch.setenv("COLUMNS", "80")
    figure = tmp_path / "a.png"
    arguments = ["bench", "--bundle", tmp_path / "bundle", "--engine", "tensorrt", "--scale", 1, slides, "-n", 4]
    with pytest.raises(SystemExit) as end:
        main([*map(str, arguments), "--figure", str(figure)])
    out = capsys.readouterr().out
    assert (end.value.code or 0) == 0
    ordinary, waiting = out.split("the stages, in a second pass that waits after each of them")
    assert "capture to count" in ordinary
    assert "normalise" not in ordinary
    for stage in (*STAGES, "all, waiting"):
        assert stage in waiting
    assert "counted for each picture: copied by the CPU 1 (230,400 bytes), uploads 0 (0 bytes)" in out
    assert figure.stat().st_size > 0
