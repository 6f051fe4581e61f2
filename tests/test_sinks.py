"""What is shown and what is saved."""

from __future__ import annotations

import io
import threading
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from rich.console import Console
from session_fakes import CODES, DarkPipeline, disc_picture, field_of_discs, make_bundle

from rbcedge.bundle import Label
from rbcedge.counting.differential import Tally, differential
from rbcedge.counting.flags import flags
from rbcedge.counting.grading import icsh_2015
from rbcedge.counting.quality import REASONS, Verdict
from rbcedge.field import Field
from rbcedge.frame import Frame, Gap
from rbcedge.palette import colours
from rbcedge.report.overlay import draw
from rbcedge.sinks.base import Start, Status, Update
from rbcedge.sinks.saver import Saver
from rbcedge.sinks.terminal import Lines, Terminal
from rbcedge.sinks.view import live

LABELS = (
    Label("NOR", "normal, rounded"),
    Label("OVA", "ovalocyte", True),
    Label("TEA", "teardrop", True),
    Label("FRA", "fragmented (schistocyte)", True),
    Label("BUR", "burr (crenated)", True),
    Label("OTH", "other, artificial teardrop"),
    Label("TWO", "two overlapped", cells=2),
    Label("THR", "three overlapped", cells=3),
)
COUNT = differential(Tally((812, 60, 2, 11, 12, 20, 35, 7), (5, 3, 0, 1, 0, 9, 2, 1)), LABELS, icsh_2015())


def make_start(tmp_path: Path, **more) -> Start:
    bundle = replace(make_bundle(tmp_path / "bundle"), name="default")
    values = {
        "source": "camera 0",
        "kind": "live",
        "description": "camera 0: 1280x720 MJPG at 30 fps",
        "total": 0,
        "bundle": bundle,
        "engine": "litert",
        "precision": "int8",
        "scale": None,
        "folder": tmp_path / "out",
    }
    return Start(**(values | more))


def make_status(**more) -> Status:
    figures = {"p50": 28.1, "p90": 30.2, "p99": 33.0, "max": 40.0}
    values = {
        "state": "rejected",
        "reason": "blurred",
        "differential": COUNT,
        "flags": flags(COUNT),
        "warnings": ("saved pictures: stopped, the count went on (no space left on device).",),
        "seen": 12345,
        "counted": 40,
        "repeated": 11000,
        "rejected": {"moving": 1200, "blurred": 100, "too dense": 5},
        "dropped": 31,
        "skipped": 2,
        "scale": 0.98,
        "fps": 29.7,
        "elapsed_s": 3723.4,
        "timing_ms": {"register": figures, "segment": figures, "classify": figures, "total": figures},
    }
    return Status(**(values | more))


def shown(renderable: object, width: int, **more) -> list[str]:
    console = Console(width=width, record=True, file=io.StringIO(), **more)
    console.print(renderable)
    return console.export_text().splitlines()


def test_the_live_view_fits_80x24_and_says_everything(tmp_path: Path) -> None:
    lines = shown(live(make_start(tmp_path, until=2000, until_ci=1.0), make_status()), 80)
    assert len(lines) <= 24
    assert max(len(line) for line in lines) <= 80
    text = " ".join(" ".join(lines).split())
    for words in (
        "camera 0: 1280x720 MJPG at 30 fps",
        "bundle default litert int8 scale 0.980 measured (0.186 µm/px)",
        "class count percent 95 % interval grade",
        "NOR normal, rounded 812 88.5 % 86.3 – 90.5",
        "OVA ovalocyte 60 6.5 % 5.0 – 8.3 2+",
        "980 counted: 917 single, 42 overlapped, 21 unclassified; about 1033 red cells",
        "12345 pictures: 40 counted, 11000 nothing new, 31 dropped, 2 skipped",
        "1305 rejected: moving 1200, blurred 100, too dense 5",
        "1:02:03 now rejected: blurred",
        "29.7 fps; ms: ",
        "segment 28.1",
        "total 28.1",
        "980 of 2000 cells, OVA ±1.7 of ±1 points",
        "49 %",
        "! Ovalocytes 6.5 % (above 5 %).",
        "no space left on device",
    ):
        assert words in text
    for label in LABELS:
        assert label.code in text


def test_nothing_moves_while_numbers_grow(tmp_path: Path) -> None:
    start = make_start(tmp_path, until=2000)
    slow = {stage: {"p50": 48084.9} for stage in ("register", "segment", "classify", "store", "total")}
    few = make_status(seen=1, counted=1, repeated=0, rejected={}, dropped=0, skipped=0, state="counted", reason="")
    many = make_status(rejected=dict.fromkeys(REASONS, 123456), dropped=10**7, repeated=10**7, timing_ms=slow)
    places = []
    for status in (few, many):
        lines = shown(live(start, replace(status, flags=(), warnings=())), 80)
        assert max(len(line) for line in lines) <= 80
        words = ("980 counted", "picture", " rejected", " now ", " fps;", " of 2000 ")
        places.append([next(k for k, line in enumerate(lines) if word in line and k) for word in words] + [len(lines)])
    assert places[0] == places[1]
    assert places[0] == sorted(places[0])


def test_the_hand_on_the_stage_is_told_what_to_do(tmp_path: Path) -> None:
    for state, reason, words in (
        ("repeated", "", "now all counted here: move on"),
        ("counted", "", "now counting"),
        ("rejected", "moving", "now moving: hold still to count"),
        ("lost", "unplugged", "now lost: unplugged"),
    ):
        text = "\n".join(shown(live(make_start(tmp_path), make_status(state=state, reason=reason)), 80))
        assert words in text


def test_a_tall_terminal_shows_more_notes(tmp_path: Path) -> None:
    status = make_status(flags=tuple(f"Flag {k}." for k in range(9)), warnings=())
    low, high = (" ".join(shown(live(make_start(tmp_path), status, 80, rows), 80)) for rows in (24, 50))
    assert "Flag 5." in low
    assert "Flag 8." not in low
    assert "and 3 more" in low
    assert "Flag 8." in high
    assert "more" not in high


def test_twelve_classes_and_many_notes_still_fit(tmp_path: Path) -> None:
    labels = tuple(Label(f"C{k}", f"class {k}") for k in range(12))
    count = differential(Tally((50,) * 12, (0,) * 12), labels, icsh_2015())
    status = make_status(differential=count, flags=tuple(f"Flag {k}." for k in range(9)))
    lines = shown(live(make_start(tmp_path, until=2000), status), 80)
    assert len(lines) <= 25
    assert any("more" in line for line in lines)
    assert len(set(colours(12))) == 12


def test_bars_are_as_long_as_their_share(tmp_path: Path) -> None:
    wide = shown(live(make_start(tmp_path), make_status()), 140)
    bars = {line.split()[0]: line.count("█") for line in wide if line.split() and line.split()[0] in ("NOR", "OVA")}
    assert bars["NOR"] / bars["OVA"] == pytest.approx(88.5 / 6.5, rel=0.3)


def test_a_terminal_without_unicode_gets_plain_bars(tmp_path: Path) -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="replace")
    console = Console(width=100, file=out)
    console.print(live(make_start(tmp_path, total=10), make_status()))
    out.flush()
    text = out.buffer.getvalue().decode("ascii")
    assert "####" in text


def test_before_anything_is_counted_no_percentages_are_shown(tmp_path: Path) -> None:
    nothing = differential(Tally.empty(8), LABELS, icsh_2015())
    status = make_status(differential=nothing, flags=(), warnings=(), seen=1, counted=0, repeated=0, rejected={})
    text = " ".join(shown(live(make_start(tmp_path), status), 80))
    assert "0.0 %" not in text
    assert "measured on the first fields" in text
    assert "waiting for the first picture" in " ".join(shown(live(make_start(tmp_path), None), 80))


def test_pictures_of_a_folder_are_its_progress(tmp_path: Path) -> None:
    start = make_start(tmp_path, kind="stills", total=50)
    text = " ".join(shown(live(start, make_status(seen=18, skipped=2)), 80))
    assert "20 of 50 pictures" in text
    assert "40 %" in text


def update_of(picture: np.ndarray, source: str, number: int = 1) -> Update:
    pipeline = DarkPipeline()
    field = pipeline.find(Frame(0, 0.0, picture, source))
    field = pipeline.classify(field, np.arange(len(field.cells)))
    return Update(number, field, Verdict(True, ""), ~field.cells.on_border)


def test_terminal_draws_in_place_and_cleans_up(tmp_path: Path) -> None:
    out = io.StringIO()
    sink = Terminal(Console(file=out, force_terminal=True, width=90, height=30))
    sink.setup(make_start(tmp_path))
    sink.append(update_of(field_of_discs(), "a.png"), make_status())
    sink.skip(Gap("b[0].png", "cannot be decoded"), make_status())
    sink.close()
    sink.close()
    text = out.getvalue()
    assert "980 counted" in text
    assert "skipped b[0].png: cannot be decoded" in text
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1


def test_lines_are_plain_and_few(tmp_path: Path) -> None:
    out = io.StringIO()
    sink = Lines(Console(file=out, width=60), every_s=0.0)
    start = make_start(tmp_path, kind="stills", total=50)
    sink.setup(start)
    sink.tick(Frame(0, 0.0, field_of_discs(), "a"), make_status(seen=18, skipped=2))
    sink.skip(Gap("b[0].png", "cannot be decoded"), make_status())
    quiet = Lines(Console(file=out), every_s=60)
    quiet.setup(start)
    quiet.append(update_of(field_of_discs(), "a.png"), make_status())
    assert out.getvalue().splitlines() == [
        "1:02:03  picture 20 of 50, 980 cells: NOR 88.5 %, OVA 6.5 %, TEA 0.2 %, FRA 1.2 %, BUR 1.3 %, OTH 2.2 %, "
        "TWO 3.6 %, THR 0.7 %",
        "skipped b[0].png: cannot be decoded",
    ]


def save(tmp_path: Path, kinds: list[str], updates: list[Update], kind: str = "stills") -> Path:
    sink = Saver(tmp_path / "out", kinds)
    sink.setup(make_start(tmp_path, kind=kind))
    for update in updates:
        sink.append(update, make_status())
    sink.close()
    sink.close()
    return tmp_path / "out"


def files(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_saved_names(tmp_path: Path) -> None:
    picture = field_of_discs()
    sources = ["a/1.png", "a/1.jpg", "a/1.tif", "A/1.png", "../up.png", "/abs/x.png", "v1.2.png", "we:ird?.png"]
    out = save(tmp_path, ["masks"], [update_of(picture, s) for s in sources])
    assert files(out) == sorted(
        f"masks/{name}.png" for name in ["a/1", "a/1.jpg", "a/1.tif", "A/1.png", "up", "abs/x", "v1.2", "we_ird_"]
    )


def test_saved_names_of_live_sources_carry_the_field(tmp_path: Path) -> None:
    out = save(tmp_path, ["masks"], [update_of(field_of_discs(), "rtsp://host/cam", n) for n in (3, 12)], "live")
    assert files(out) == ["masks/rtsp__host_cam_000003.png", "masks/rtsp__host_cam_000012.png"]


def test_masks_are_0_and_255_of_the_pictures_size(tmp_path: Path) -> None:
    picture = field_of_discs()
    out = save(tmp_path, ["masks"], [update_of(picture, "a.png")])
    mask = cv2.imread(str(out / "masks" / "a.png"), cv2.IMREAD_UNCHANGED)
    assert mask.shape == picture.shape[:2]
    assert mask.dtype == np.uint8
    assert set(np.unique(mask)) == {0, 255}


def test_crops_show_one_cell_on_black(tmp_path: Path) -> None:
    update = update_of(field_of_discs(), "a.png", 7)
    out = save(tmp_path, ["crops"], [update])
    assert files(out) == sorted(f"crops/{CODES[k]}/7_{row + 1}.png" for row, k in enumerate(update.field.cells.best))
    crop = cv2.imread(str(out / "crops" / "OVA" / "7_8.png"))
    assert crop.shape == (80, 80, 3)
    inside = crop.any(axis=2)
    assert inside.sum() == update.field.cells.areas[7]
    assert np.unique(crop[inside]).tolist() == [80]


def test_a_full_disk_is_told_and_holds_nobody_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("rbcedge.sinks.saver.write_picture", full)
    sink = Saver(tmp_path / "out", ["masks"])
    sink.setup(make_start(tmp_path, kind="stills"))
    told: list[int | None] = []
    for k in range(40):  # many more than may wait
        try:
            sink.append(update_of(disc_picture([(40, 40, 60)], (80, 80)), f"{k}.png"), make_status())
        except OSError as error:
            told.append(error.errno)
    try:
        sink.close()
    except OSError as error:
        told.append(error.errno)
    assert told == [28]
    assert not [t for t in threading.enumerate() if t.name == "rbcedge-saver"]


def test_a_saver_that_never_began_closes(tmp_path: Path) -> None:
    Saver(tmp_path, ["masks"]).close()
    with pytest.raises(ValueError, match="known are"):
        Saver(tmp_path, ["films"])


def test_the_overlay_shows_each_cell_in_its_colour() -> None:
    field = update_of(field_of_discs(), "a.png").field
    picture = draw(field, CODES, 0.6)
    factor = picture.shape[1] // 320
    assert factor == 2
    assert picture.shape[0] > 240 * factor
    palette = [c[::-1] for c in colours(4)]
    for row in range(len(field.cells)):
        x, y, w, h = field.cells.boxes[row] * factor
        around = picture[max(0, y - 3) : y + h + 3, max(0, x - 3) : x + w + 3].reshape(-1, 3)
        drawn = [int((around == c).all(1).sum()) for c in palette]
        expected = field.cells.best[row]
        if field.cells.on_border[row]:
            assert max(drawn) == 0
        else:
            assert int(np.argmax(drawn)) == expected
            assert drawn[expected] > 30
    # The cells themselves stay visible.
    middle = (field.cells.centroids[0] * factor).astype(int)
    assert picture[middle[1], middle[0]].tolist() == [60, 60, 60]


@pytest.mark.parametrize("size", [(1, 1), (40, 30), (3000, 200)])
def test_overlays_of_odd_pictures(size: tuple[int, int]) -> None:
    field = DarkPipeline().find(Frame(0, 0.0, disc_picture([], size), "a.png"))
    picture = draw(field, CODES, 0.6)
    assert picture.shape[2] == 3
    assert picture.shape[1] % size[0] == 0
    assert isinstance(field, Field)
