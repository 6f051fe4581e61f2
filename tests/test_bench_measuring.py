"""The run loop with its taps, on a made-up pipeline; what a measurement says, its file, and comparisons."""

from __future__ import annotations

import json
from dataclasses import replace
from io import StringIO
from pathlib import Path
from threading import Event

import pytest
from rich.console import Console
from session_fakes import CODES, DarkPipeline, LevelClassifier, ListSource, disc_picture, field_of_discs, make_bundle
from session_fakes import DarkSegmenter as Segmenter

from rbcedge.bench.compare import compare
from rbcedge.bench.diagnosis import diagnose, growth, shares_of
from rbcedge.bench.fields import Drawn
from rbcedge.bench.hardware import Machine
from rbcedge.bench.measuring import Plan, measure
from rbcedge.bench.result import TOTAL, Case, Loop, Report, Run, read, write
from rbcedge.bench.sensors import Watched
from rbcedge.bench.view import comparison_view, opening, overview, run_view
from rbcedge.bundle import Bundle
from rbcedge.errors import RbcedgeError, UsageError
from rbcedge.frame import Frame, Gap
from rbcedge.report.overlay import draw

ENGINES = (Segmenter(), LevelClassifier())


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return make_bundle(tmp_path / "bundle")


def drawn(n: int = 3) -> Drawn:
    return Drawn([field_of_discs(k) for k in range(n)], "discs")


def measured(bundle: Bundle, frames: int = 7, warm_up: int = 2, source: object | None = None, **more: object) -> Run:
    pipeline = DarkPipeline(len(CODES))
    opener = drawn if source is None else source
    return measure(opener, pipeline, ENGINES, bundle, Plan(frames, warm_up), **more)


def test_every_picture_is_fresh_and_counted_into_a_record(bundle: Bundle) -> None:
    pipeline = DarkPipeline(len(CODES))
    run = measure(drawn, pipeline, ENGINES, bundle, Plan(7, 2), cells=13, threads=3)
    assert len(run.fresh.total_ms) == 7
    assert run.fresh.cells == (13,) * 7
    assert run.pictures == 3
    # Nine fresh pictures, each searched and classified whole; at rest one more search, nothing classified twice.
    assert pipeline.searched == 10
    assert pipeline.classified == 13 * 9 + 12
    assert set(run.fresh.stages_ms) >= {
        "capture",
        "segment",
        "components",
        "classify",
        "gate",
        "count",
        "store",
        "draw",
    }
    assert next(iter(run.fresh.stages_ms)) == "capture"
    assert all(len(values) == 7 for values in run.fresh.stages_ms.values())
    assert run.case == Case("discs", "litert", "int8", 320, 240, 13, 3)


def test_the_total_holds_the_loop_and_not_the_drawing(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    monkeypatch.setattr("rbcedge.bench.loops.draw", lambda *a: order.append("draw") or draw(*a))
    run = measured(bundle)
    assert len(order) == 7
    loop = run.fresh
    own = [sum(loop.stages_ms[s][k] for s in ("capture", "gate", "count", "store")) for k in range(7)]
    assert all(total >= part for total, part in zip(loop.total_ms, own, strict=True))
    assert "draw" not in shares_of(loop)


def test_a_field_at_rest_is_searched_once(bundle: Bundle) -> None:
    run = measured(bundle)
    assert run.resting is not None
    assert len(run.resting.total_ms) == 7


def test_no_rest_is_measured_where_no_field_can_be_counted(bundle: Bundle) -> None:
    dark = Drawn([(p * 0.1).astype(p.dtype) for p in (field_of_discs(0), field_of_discs(1))], "dark")
    run = measured(bundle, source=lambda: dark)
    assert run.resting is None
    assert any("not fit to be counted" in line for line in run.diagnosis)


def test_one_picture_is_not_enough(bundle: Bundle) -> None:
    with pytest.raises(RbcedgeError, match="discs holds one picture"):
        measured(bundle, source=lambda: drawn(1))


def test_pictures_that_cannot_be_read_are_named(bundle: Bundle) -> None:
    with pytest.raises(RbcedgeError, match=r"no picture could be read. a.png: damaged"):
        measured(bundle, source=lambda: ListSource([Gap("a.png", "damaged")]))


def test_some_gaps_are_counted_and_do_no_harm(bundle: Bundle) -> None:
    items = [Frame(0, 0.0, field_of_discs(0), "0"), Gap("a.png", "damaged"), Frame(1, 0.0, field_of_discs(1), "1")]
    run = measured(bundle, frames=4, warm_up=0, source=lambda: ListSource(items))
    assert len(run.fresh.total_ms) == 4
    assert run.fresh.skipped >= 1


def test_pictures_without_cells_are_refused(bundle: Bundle) -> None:
    empty = Drawn([disc_picture([]), disc_picture([])], "glass")
    with pytest.raises(RbcedgeError, match="glass: no cell was found in 7 pictures"):
        measured(bundle, source=lambda: empty)


def test_a_camera_that_drops_pictures_is_told(bundle: Bundle) -> None:
    class Camera(ListSource):
        """Drops three pictures for each it hands out."""

        def frames(self):
            for item in super().frames():
                self.dropped += 3
                yield item

    frames = [Frame(k, 0.0, field_of_discs(k), "camera") for k in range(20)]
    run = measured(bundle, frames=6, warm_up=2, source=lambda: Camera(frames, kind="live"))
    assert run.fresh.dropped == 18
    assert run.pictures == 0
    assert any(line.startswith("18 pictures (75%)") for line in run.diagnosis)


def test_a_stop_keeps_what_was_measured(bundle: Bundle) -> None:
    stop = Event()

    def progress(done: int) -> None:
        if done == 5:
            stop.set()

    run = measured(bundle, frames=100, warm_up=2, stop=stop, progress=progress)
    assert len(run.fresh.total_ms) == 3
    assert run.resting is None


# Values made up from here on.

MACHINE = Machine("", "made-up CPU", "x86_64", "avx2", 2, 8 * 2**30, "", "", (), "Linux")


def made_run(times: list[float], cells: int = 75, size: tuple[int, int] = (640, 480), **watched: object) -> Run:
    segment = tuple(0.7 * t for t in times)
    classify = tuple(0.2 * t for t in times)
    loop = Loop(tuple(times), {"segment": segment, "classify": classify}, (cells,) * len(times), 1.0)
    case = Case("sim", "litert", "int8", *size, cells, 2)
    return Run(case, (), 3, 1, loop, None, 100 * 2**20, None, Watched(1.0, **watched), 1.0)


def made_report(*runs: Run, **more: object) -> Report:
    return replace(Report("2026-01-01", {"python": "3"}, MACHINE, "test", "ab" * 32, runs), **more)


def test_a_report_comes_back_as_it_was_written(bundle: Bundle, tmp_path: Path) -> None:
    run = measured(bundle)
    report = made_report(run, made_run([1.0, 2.0]))
    write(report, tmp_path / "r.json")
    assert read(tmp_path / "r.json") == report
    content = json.loads((tmp_path / "r.json").read_text())
    assert content["runs"][1]["fresh"]["figures_ms"][TOTAL]["p50"] == 1.5
    assert list(tmp_path.glob("*.part")) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe\x00", "cannot be read"),
        (b"no json", "is no result"),
        (b"[1]", "is no result"),
        (b'{"kind": "other"}', "is no result"),
        (b'{"kind": "rbcedge bench", "schema": 99}', "has schema 99"),
        (b'{"kind": "rbcedge bench", "schema": 1}', "damaged: 'created' is missing"),
    ],
)
def test_files_that_are_no_result_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "r.json"
    path.write_bytes(content)
    with pytest.raises(RbcedgeError, match=message):
        read(path)


def test_a_missing_file_and_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        read(tmp_path / "none.json")
    with pytest.raises(RbcedgeError, match="cannot be written"):
        write(made_report(made_run([1.0])), tmp_path / "no" / "r.json")


def test_damaged_samples_are_named(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    write(made_report(made_run([1.0, 2.0])), path)
    content = json.loads(path.read_text())
    content["runs"][0]["fresh"]["total_ms"] = []
    path.write_text(json.dumps(content))
    with pytest.raises(RbcedgeError, match="damaged: a loop without samples"):
        read(path)


def test_a_comparison_gives_ratios_of_every_stage() -> None:
    now, before = made_report(made_run([2.0] * 50)), made_report(made_run([1.0] * 50))
    (only,), doubts = compare(now, before)
    assert [row.stage for row in only.rows] == ["segment", "classify", TOTAL]
    assert all(row.p50 is not None and row.p50.value == pytest.approx(2) for row in only.rows)
    assert doubts == ()


def test_another_machine_bundle_or_source_is_a_warning() -> None:
    now = made_report(made_run([2.0] * 20))
    other = replace(now.runs[0], case=replace(now.runs[0].case, source="slides", threads=8))
    before = replace(now, runs=(other,), machine=replace(MACHINE, cpu="other"), bundle_sha256="cd" * 32)
    text = " ".join(compare(now, before)[1])
    for part in ("Another machine", "Another bundle", "Another number of threads", "Another source"):
        assert part in text


def test_nothing_in_common_is_refused() -> None:
    now, before = made_report(made_run([1.0])), made_report(made_run([1.0], size=(1280, 960)))
    with pytest.raises(UsageError, match="1280x960"):
        compare(now, before)


def test_the_diagnosis_says_what_the_samples_show() -> None:
    steady = " ".join(diagnose(made_run([10.0] * 200)))
    assert "segment takes 70% of the time, classify 20%." in steady
    for word in ("Unstable", "Throttled", "slower", "Other work", "dropped", "p99 of"):
        assert word not in steady
    shaken = " ".join(diagnose(made_run([10.0, 20.0] * 20, throttled=("GPU thermal slowdown",), load_before=1.5)))
    for word in ("Unstable", "Throttled: GPU thermal slowdown", "Other work", "p99 of 40 pictures"):
        assert word in shaken
    assert "40% slower" in " ".join(diagnose(made_run([10.0] * 50 + [14.0] * 50)))


def test_growth_finds_fixed_cost_and_cost_per_cell() -> None:
    runs = [made_run([20.0 + 0.5 * n] * 5, n) for n in (10, 20, 40, 80)]
    text = growth(runs)
    assert "20.0 ms fixed + 0.500 ms for each cell" in text
    assert "Launch-bound where little is to do: 80%" in text
    both = [
        made_run([1.0 + 30 * w * h / 1e6 + 0.1 * n] * 5, n, (w, h))
        for w, h in ((640, 480), (1280, 960), (1920, 1080))
        for n in (50, 150)
    ]
    assert "30.0 ms for each megapixel + 0.100 ms for each cell" in growth(both)
    assert "Launch-bound" not in growth(both)
    assert growth(runs[:2]) == ""
    assert growth([made_run([t] * 5, n) for n, t in ((10, 9.0), (20, 3.0), (40, 8.0), (80, 2.0))]) == ""


def test_what_is_shown_fits_eighty_columns(bundle: Bundle) -> None:
    run = measured(bundle)
    slow = made_run([1234.5, 2345.6] * 60, 1234, (1920, 1080))
    slow = replace(slow, case=replace(slow.case, engine="tensorrt", precision="fp16"))
    shown = StringIO()
    console = Console(file=shown, width=80, highlight=False)
    comparisons, doubts = compare(made_report(slow), made_report(slow))
    for part in (run_view(run), run_view(slow), overview([run, slow]), opening(made_report(slow))):
        console.print(part)
    console.print(comparison_view(comparisons, doubts))
    lines = shown.getvalue().splitlines()
    assert max(len(line) for line in lines) <= 80
    assert "…" not in shown.getvalue()
    for word in ("capture to count", "a field at rest", "95 % limits", "1920x1080"):
        assert word in shown.getvalue()


def test_a_camera_that_says_nothing_is_left_at_once(bundle: Bundle) -> None:
    stop = Event()

    class Silent(ListSource):
        """Gives three pictures, then waits until it is closed."""

        over = Event()

        def frames(self):
            yield from super().frames()
            stop.set()
            assert self.over.wait(20)

        def close(self) -> None:
            super().close()
            self.over.set()

    frames = [Frame(k, 0.0, field_of_discs(k), "camera") for k in range(3)]
    run = measured(bundle, frames=50, warm_up=0, stop=stop, source=lambda: Silent(frames, kind="live"))
    assert len(run.fresh.total_ms) == 3
