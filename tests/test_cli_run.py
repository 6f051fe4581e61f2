"""The command line from end to end, with stand-ins for the two networks."""

from __future__ import annotations

import csv
import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from session_fakes import CODES, fake_engines, field_of_discs, make_bundle, write_pictures

from rbcedge.cli import main

TESTS = Path(__file__).parent


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Call the command line; returns exit code, stdout and stderr."""
    make_bundle(tmp_path / "bundle")
    monkeypatch.setattr("rbcedge.engines.loading.load_engines", fake_engines)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main(arguments)
        shown = capsys.readouterr()
        return int(end.value.code or 0), shown.out, shown.err

    return call


def run(cli, *arguments: str) -> tuple[int, str, str]:
    return cli("run", "--bundle", "bundle", "--scale", "1", *arguments)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def summary(folder: Path) -> dict:
    return json.loads((folder / "summary.json").read_text())


def test_a_folder_of_pictures(cli, tmp_path: Path) -> None:
    write_pictures(tmp_path / "slide", 3)
    code, out, err = run(cli, "slide", "--out", "out")
    assert (code, err) == (0, "")
    for text in ("slide: 3 pictures", "bundle   test, litert int8", "1.000 given (0.190 µm/px)", "36 counted"):
        assert text in out
    assert f"results: {tmp_path / 'out'}" in out
    result = summary(tmp_path / "out")
    assert result["differential"]["NOR"] == {"count": 21, "percent": 70.0, "ci95": [50.6041, 85.2655], "grade": ""}
    assert result["cells"] == {
        "detected": 39,
        "counted": 36,
        "single": 30,
        "overlapped": 3,
        "unclassified": 3,
        "estimated_red_cells": 42,
    }
    assert result["fields"] == {"seen": 3, "counted": 3, "rejected": {}, "dropped": 0, "repeated": 0}
    assert result["engine"] == {"name": "litert", "precision": "int8"}
    assert result["bundle"]["name"] == "test"
    assert (result["schema"], result["scale"], result["outcome"]) == (1, 1.0, "finished")
    assert any(flag.startswith("Ovalocytes 20.0 %") for flag in result["flags"])
    assert {"p50", "p90", "p99", "max"} == set(result["timing_ms"]["total"])


def test_cells_csv_column_by_column(cli, tmp_path: Path) -> None:
    write_pictures(tmp_path / "slide", 2)
    run(cli, "slide", "--out", "out")
    path = tmp_path / "out" / "cells.csv"
    header = path.read_text().splitlines()[0]
    assert header == (
        "field,source,cell,x,y,w,h,cx,cy,area_px,diameter_um,code,confidence,unclassified,counted,"
        "p_NOR,p_OVA,p_TEA,p_TWO,border"
    )
    cells = rows(path)
    assert len(cells) == 26
    assert [c["source"] for c in cells] == ["0.png"] * 13 + ["1.png"] * 13
    assert [int(c["field"]) for c in cells] == [1] * 13 + [2] * 13
    assert [int(c["cell"]) for c in cells[:13]] == list(range(1, 14))
    first = cells[0]
    assert (float(first["cx"]), float(first["cy"])) == (45.0, 40.0)
    assert [int(first[k]) for k in "xywh"] == [45 - 18, 40 - 18, 37, 37]
    area = int(first["area_px"])
    assert area == int((cv2.circle(np.zeros((50, 50), np.uint8), (25, 25), 18, 1, -1, cv2.LINE_8)).sum())
    assert float(first["diameter_um"]) == pytest.approx(2 * (area / np.pi) ** 0.5 * 0.19, abs=1e-3)
    assert first["code"] == "NOR"
    assert float(first["confidence"]) == pytest.approx(0.91, abs=1e-3)
    assert (first["unclassified"], first["counted"], first["border"]) == ("0", "1", "0")
    for cell in cells:
        p = [float(cell[f"p_{code}"]) for code in CODES]
        assert sum(p) == pytest.approx(1, abs=1e-4)
        assert CODES[int(np.argmax(p))] == cell["code"]
        assert float(cell["confidence"]) == max(p)
    doubtful = [c for c in cells if c["unclassified"] == "1"]
    assert [(c["code"], c["counted"]) for c in doubtful] == [("TWO", "1")] * 2
    edge = [c for c in cells if c["border"] == "1"]
    assert [(c["x"], c["counted"], c["code"]) for c in edge] == [("0", "0", "NOR")] * 2


def test_fields_csv_and_unreadable_pictures(cli, tmp_path: Path) -> None:
    write_pictures(tmp_path / "slide", 2)
    (tmp_path / "slide" / "0b.png").write_bytes(b"")
    (tmp_path / "slide" / "1b.jpg").write_bytes(b"no picture")
    cv2.imwrite(str(tmp_path / "slide" / "2.png"), field_of_discs() // 8)
    code, out, err = run(cli, "slide", "--out", "out")
    assert (code, err) == (0, "")
    assert "skipped 0b.png" in out
    assert "2 skipped" in out
    assert "1 rejected: too dark 1" in out
    header = (tmp_path / "out" / "fields.csv").read_text().splitlines()[0].split(",")
    expected = "field,source,index,time_s,verdict,reason,sharpness,density,overlap_ratio,cells,new_cells"
    assert ",".join(header[:11]) == expected
    assert header[-2:] == ["frames", "scale"]
    assert {"segment_ms", "components_ms", "classify_ms"} <= set(header[11:-2])
    fields = rows(tmp_path / "out" / "fields.csv")
    assert [(f["source"], f["verdict"]) for f in fields] == [
        ("0.png", "counted"),
        ("0b.png", "skipped"),
        ("1.png", "counted"),
        ("1b.jpg", "skipped"),
        ("2.png", "rejected"),
    ]
    assert [f["field"] for f in fields] == ["1", "", "2", "", "3"]
    assert [f["index"] for f in fields] == ["0", "", "1", "", "2"]
    assert [f["cells"] for f in fields][::2] == ["13", "13", fields[4]["cells"]]
    assert [f["new_cells"] for f in fields] == ["12", "0", "12", "0", "0"]
    assert fields[4]["reason"] == "too dark"
    assert 0 < float(fields[0]["density"]) < 0.5
    assert float(fields[0]["sharpness"]) > 0.1
    # One TWO (and one doubtful cell, most like TWO) among twelve whole ones.
    assert float(fields[0]["overlap_ratio"]) == pytest.approx(2 / 10)
    skipped = summary(tmp_path / "out")["skipped"]
    assert [g["source"] for g in skipped] == ["0b.png", "1b.jpg"]
    assert all(g["reason"] for g in skipped)
    # The rejected picture's cells are listed and classified all the same.
    rejected = [c for c in rows(tmp_path / "out" / "cells.csv") if c["source"] == "2.png"]
    assert {c["counted"] for c in rejected} <= {"0"}


def test_in_a_log_each_message_is_one_line(cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    write_pictures(tmp_path / "slide", 1)
    (tmp_path / "slide" / "a name of some length.png").write_bytes(b"no picture")
    for arguments in (
        ("run", "slide", "--bundle", "bundle", "--scale", "1", "--no-live", "--out", "o"),
        ("export", "o"),
    ):
        lines = cli(*arguments)[1].splitlines()
        (told,) = (line for line in lines if line.startswith("! skipped"))
        assert told.endswith("(its first bytes are those of no known kind)")
        assert any(line == "finished; grades: after ICSH 2015" for line in lines)


def test_nothing_readable_is_an_error(cli, tmp_path: Path) -> None:
    (tmp_path / "empty.png").write_bytes(b"")
    code, _, err = run(cli, "empty.png", "--out", "out")
    assert code == 1
    assert "nothing could be read" in err
    assert summary(tmp_path / "out")["fields"]["seen"] == 0


@pytest.mark.parametrize("shape", [(1, 1), (480, 640)])
def test_pictures_without_cells(cli, tmp_path: Path, shape: tuple[int, int]) -> None:
    cv2.imwrite(str(tmp_path / "plain.png"), np.full((*shape, 3), 230, np.uint8))
    code, out, err = run(cli, "plain.png", "--out", "out", "--save", "masks,overlays,crops")
    assert (code, err) == (0, "")
    assert "1 rejected" in out
    assert rows(tmp_path / "out" / "cells.csv") == []
    mask = cv2.imread(str(tmp_path / "out" / "masks" / "plain.png"), cv2.IMREAD_UNCHANGED)
    assert mask.shape == shape
    assert not mask.any()


def test_save(cli, tmp_path: Path) -> None:
    write_pictures(tmp_path / "slide" / "a", 1)
    write_pictures(tmp_path / "slide" / "b", 1)
    cv2.imwrite(str(tmp_path / "slide" / "b" / "0.bmp"), field_of_discs(3))
    code, _, err = run(cli, "slide", "--out", "out", "--save", "masks, overlays,crops", "--quiet")
    assert (code, err) == (0, "")
    out = tmp_path / "out"
    masks = sorted(p.relative_to(out / "masks").as_posix() for p in (out / "masks").rglob("*.png"))
    assert masks == ["a/0.png", "b/0.png", "b/0.png.png"]
    truth = np.where(field_of_discs(0)[..., 1] < 180, 255, 0).astype(np.uint8)
    mask = cv2.imread(str(out / "masks" / "a" / "0.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(mask, truth)
    assert len(list((out / "overlays").rglob("*.jpg"))) == 3
    crops = {p.parent.name: [] for p in (out / "crops").rglob("*.png")}
    assert set(crops) == set(CODES)
    cells = rows(out / "cells.csv")
    for cell in cells:
        crop = cv2.imread(str(out / "crops" / cell["code"] / f"{cell['field']}_{cell['cell']}.png"))
        assert crop.shape == (80, 80, 3)
        assert int((crop.any(axis=2)).sum()) == int(cell["area_px"])
    assert len(list((out / "crops").rglob("*.png"))) == len(cells)
    assert not list(out.rglob("*.part"))


def test_a_second_run_into_the_same_folder_is_refused(cli, tmp_path: Path) -> None:
    write_pictures(tmp_path / "slide", 1)
    assert run(cli, "slide", "--out", "out")[0] == 0
    before = {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()}
    code, _, err = run(cli, "slide", "--out", "out")
    assert code == 2
    assert "already holds the results of a run" in err
    assert "--out out-2" in err
    assert {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()} == before


def test_the_default_folder_is_a_new_one_each_time(cli, tmp_path: Path) -> None:
    write_pictures(tmp_path / "slide", 1)
    for _ in range(2):
        code, out, _ = run(cli, "slide")
        assert code == 0
    assert str(tmp_path / "data" / "rbcedge" / "sessions") in out
    assert len(list((tmp_path / "data" / "rbcedge" / "sessions").iterdir())) == 2


def test_a_failed_start_leaves_no_session(cli, tmp_path: Path) -> None:
    assert run(cli, "no-such.png", "--out", "out")[0] == 1
    assert not (tmp_path / "out").exists()


def test_until(cli, tmp_path: Path) -> None:
    write_pictures(tmp_path / "slide", 9)
    code, out, _ = run(cli, "slide", "--out", "out", "--until", "20")
    assert code == 0
    assert "until    20 cells" in out
    result = summary(tmp_path / "out")
    assert (result["cells"]["counted"], result["fields"]["seen"], result["outcome"]) == (24, 2, "goal reached")


def test_quiet_and_no_live(cli, tmp_path: Path) -> None:
    write_pictures(tmp_path / "slide", 2)
    assert run(cli, "slide", "--out", "a", "--quiet") == (0, "", "")
    code, out, _ = run(cli, "slide", "--out", "b", "--no-live")
    assert code == 0
    assert out.count("24 counted") == 1


def test_measured_scale(cli, tmp_path: Path) -> None:
    write_pictures(tmp_path / "slide", 2)
    large = cv2.resize(field_of_discs(), None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
    cv2.imwrite(str(tmp_path / "large.png"), large)
    cli("run", "large.png", "--bundle", "bundle", "--out", "out")
    result = summary(tmp_path / "out")
    assert result["scale"] == pytest.approx(38 / (2 * 37), rel=0.1)
    # The same discs, whatever the enlargement: a pixel is half as large.
    sizes = [float(c["diameter_um"]) for c in rows(tmp_path / "out" / "cells.csv") if c["border"] == "0"]
    assert np.median(sizes) == pytest.approx(38 * 0.19, rel=0.05)


def test_um_per_px_sets_the_scale(cli, tmp_path: Path) -> None:
    write_pictures(tmp_path / "slide", 1)
    code, out, _ = cli("run", "slide", "--bundle", "bundle", "--out", "out", "--um-per-px", "0.095")
    assert code == 0
    assert "0.500 given (0.095 µm/px)" in out
    assert summary(tmp_path / "out")["scale"] == 0.5
    cell = rows(tmp_path / "out" / "cells.csv")[0]
    assert float(cell["diameter_um"]) == pytest.approx(2 * (int(cell["area_px"]) / np.pi) ** 0.5 * 0.095, abs=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "o"], "What shall be counted?"),
        (["a.png", "--camera", "0"], "either a SOURCE or --camera"),
        (["--camera", "-1"], "numbered from 0"),
        (["slide", "--save", "masks,pictures"], "'pictures' is not known. Known: masks, overlays, crops"),
        (["slide", "--scale", "big"], "give 'auto' or a number"),
        (["slide", "--scale", "nan"], "give 'auto' or a number"),
        (["slide", "--um-per-px", "-1"], "0.03 to 1 µm"),
        (["slide", "--scale", "1", "--um-per-px", "0.2"], "give one of them"),
        (["slide", "--until-ci", "0"], "between 0 and 50"),
        (["slide", "--grading", "nowhere.json"], "no such scheme or file"),
        (["slide", "--size", "big"], "for example 1280x720"),
        (["slide", "--size", "640x480"], "--size is for cameras"),
        (["sim:", "--fps", "10"], "--fps is for cameras"),
        (["slide", "--fourcc", "MJ"], "four characters"),
        (["ftp://x/y"], "no source that is known"),
        (["slide", "--grading", "slide"], "no such scheme or file"),
        (["slide", "--until", "many"], "Invalid value for '--until'"),
        (["slide", "--until", "0"], "Invalid value for '--until'"),
        (["slide", "--until"], "requires an argument"),
        (["--nope"], "No such option"),
    ],
)
def test_bad_options(cli, tmp_path: Path, arguments: list[str], message: str) -> None:
    write_pictures(tmp_path / "slide", 1)
    code, _, err = cli("run", "--bundle", "bundle", *arguments)
    assert code == 2
    assert message in err
    assert len(err.splitlines()) <= 2
    assert "Traceback" not in err
    assert not (tmp_path / "data").exists()


def test_bad_engine_names_come_from_the_loader(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_bundle(tmp_path / "bundle")
    for option, word in (("--engine", "engine"), ("--precision", "precision")):
        with pytest.raises(SystemExit) as end:
            main(["run", "sim:", "--bundle", str(tmp_path / "bundle"), option, "odd", "--out", str(tmp_path / "o")])
        assert end.value.code == 2
        assert f"Unknown {word} 'odd'" in capsys.readouterr().err


def test_damaged_bundle(cli, tmp_path: Path) -> None:
    write_pictures(tmp_path / "slide", 1)
    (tmp_path / "bundle" / "manifest.json").write_text("{")
    code, _, err = run(cli, "slide", "--out", "out")
    assert code == 1
    assert "manifest.json" in err


def test_a_fault_of_ours_is_one_line_and_a_log(cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pictures(tmp_path / "slide", 1)

    def broken(*_: object) -> None:
        raise ZeroDivisionError("seven\nby nothing")

    monkeypatch.setattr("rbcedge.engines.loading.load_engines", broken)
    code, _, err = run(cli, "slide", "--out", "out")
    assert code == 1
    first, second = err.splitlines()
    assert first == "rbcedge: unexpected ZeroDivisionError: seven by nothing"
    log = Path(second.split("Details: ")[1])
    assert "Traceback" in log.read_text()
    assert tmp_path in log.parents


def test_a_grading_file_is_used_and_recorded(cli, tmp_path: Path) -> None:
    write_pictures(tmp_path / "slide", 1)
    steps = {"OVA": {"few": 1, "moderate": 2, "many": 3}}
    (tmp_path / "ours.json").write_text(json.dumps({"name": "ours", "steps": steps}))
    run(cli, "slide", "--out", "out", "--grading", "ours.json")
    assert summary(tmp_path / "out")["differential"]["OVA"]["grade"] == "3+"
    (tmp_path / "ours.json").unlink()
    (tmp_path / "out" / "summary.json").unlink()
    assert cli("export", "out")[0] == 0
    again = summary(tmp_path / "out")
    assert (again["grading"], again["differential"]["OVA"]["grade"]) == ("ours", "3+")


def test_export_gives_the_same_files_again(cli, tmp_path: Path) -> None:
    write_pictures(tmp_path / "slide", 2)
    run(cli, "slide", "--out", "out")
    names = ("cells.csv", "fields.csv", "summary.json")
    before = {name: (tmp_path / "out" / name).read_bytes() for name in names}
    for name in names:
        (tmp_path / "out" / name).unlink()
    code, out, _ = cli("export", "out")
    assert code == 0
    assert "24 counted" in out
    assert {name: (tmp_path / "out" / name).read_bytes() for name in names} == before


def test_export_of_what_is_no_session(cli, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    code, _, err = cli("export", "empty")
    assert code == 1
    assert "holds no session" in err
    (tmp_path / "empty" / "session.db").write_text("not a database, but long enough to look like one" * 30)
    code, _, err = cli("export", "empty")
    assert code == 1
    assert "damaged or not a session" in err
    assert "Traceback" not in err


def test_export_of_another_version(cli, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    db = sqlite3.connect(tmp_path / "new" / "session.db")
    db.execute("PRAGMA user_version=99")
    db.execute("CREATE TABLE sessions (id)")
    db.close()
    code, _, err = cli("export", "new")
    assert code == 1
    assert "schema 99" in err


def test_output_folder_that_cannot_be_written(cli, tmp_path: Path) -> None:
    write_pictures(tmp_path / "slide", 1)
    (tmp_path / "file").write_text("")
    code, _, err = run(cli, "slide", "--out", "file/out")
    assert code == 1
    assert "cannot be used" in err


CHILD = """
import sys
sys.path.insert(0, sys.argv.pop(1))
import rbcedge.engines.loading
from session_fakes import fake_engines
rbcedge.engines.loading.load_engines = fake_engines
from rbcedge.cli import main
main()
"""


def child(tmp_path: Path, *arguments: str) -> subprocess.Popen[str]:
    make_bundle(tmp_path / "bundle")
    return subprocess.Popen(
        [sys.executable, "-u", "-c", CHILD, str(TESTS), "run", "--bundle", "bundle", "--scale", "1", *arguments],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "COLUMNS": "100"},
    )


def wait_for_fields(tmp_path: Path, process: subprocess.Popen[str], least: int) -> int:
    """Wait until so many fields are recorded; returns how many there are."""
    import time

    end = time.monotonic() + 60
    while time.monotonic() < end and process.poll() is None:
        if (tmp_path / "out" / "session.db").exists():
            try:
                db = sqlite3.connect(tmp_path / "out" / "session.db", timeout=5)
                n = int(db.execute("SELECT count(*) FROM fields").fetchone()[0])
                db.close()
            except sqlite3.OperationalError:
                n = 0
            if n >= least:
                return n
        time.sleep(0.02)
    raise AssertionError(f"{least} fields did not come: {process.communicate()}")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_with_a_result(tmp_path: Path, number: signal.Signals) -> None:
    process = child(tmp_path, "sim:?seed=1", "--out", "out")
    wait_for_fields(tmp_path, process, 1)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert "counted" in out
    assert "results: " in out
    result = summary(tmp_path / "out")
    assert result["outcome"] == "interrupted"
    assert result["fields"]["seen"] >= 1


def test_kill_9_then_export(tmp_path: Path, cli) -> None:
    write_pictures(tmp_path / "slide", 400)
    process = child(tmp_path, "slide", "--out", "out", "--no-live")
    least = wait_for_fields(tmp_path, process, 20)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "out" / "summary.json").exists()
    code, _out, err = cli("export", "out")
    assert (code, err) == (0, "")
    result = summary(tmp_path / "out")
    fields = rows(tmp_path / "out" / "fields.csv")
    assert least <= len(fields) < 400
    assert [int(f["field"]) for f in fields] == list(range(1, len(fields) + 1))
    assert result["cells"]["counted"] == 12 * len(fields)
    assert len(rows(tmp_path / "out" / "cells.csv")) == 13 * len(fields)
    assert (result["outcome"], result["ended"]) == (None, None)
    # The folder is taken, killed or not.
    assert run(cli, "slide", "--out", "out")[0] == 2


def test_nobody_reads_the_output_and_the_count_goes_on(tmp_path: Path) -> None:
    write_pictures(tmp_path / "slide", 5)
    (tmp_path / "slide" / "1b.png").write_bytes(b"")
    process = child(tmp_path, "slide", "--out", "out")
    assert process.stdout is not None
    # The heading has come: from now on nobody listens.
    while not process.stdout.readline().startswith("results"):
        assert process.poll() is None
    process.stdout.close()
    process.wait(60)
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.stderr.close()
    result = summary(tmp_path / "out")
    assert result["cells"]["counted"] == 60
    assert result["outcome"] == "finished"
    assert result["warnings"] == ["screen: stopped, the count went on (nobody reads the output any more)."]


def test_a_picture_too_large_for_the_memory_is_skipped(cli, tmp_path: Path) -> None:
    write_pictures(tmp_path / "slide", 2)
    big = cv2.resize(field_of_discs(), (2600, 1900), interpolation=cv2.INTER_NEAREST)
    cv2.imwrite(str(tmp_path / "slide" / "big.png"), big)
    code, out, err = cli("run", "slide", "--bundle", "bundle", "--scale", "2", "--out", "out")
    assert (code, err) == (0, "")
    assert "skipped big.png: 2600x1900 px at scale 2 are too many" in " ".join(out.split())
    assert summary(tmp_path / "out")["fields"]["seen"] == 2
    code, _, err = cli("run", "slide/big.png", "--bundle", "bundle", "--scale", "20", "--out", "out2")
    assert code == 1
    assert "Check --scale" in err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_output_that_takes_nothing_loses_no_count(tmp_path: Path) -> None:
    write_pictures(tmp_path / "slide", 2)
    command = [sys.executable, "-c", CHILD, str(TESTS), "run", "--bundle", "bundle", "--scale", "1", "slide"]
    make_bundle(tmp_path / "bundle")
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([*command, "--out", "a"], cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert done.stderr == (
        f"rbcedge: The result cannot be shown: No space left on device. It is in {tmp_path / 'a'}.\n"
    )
    assert summary(tmp_path / "a")["cells"]["counted"] == 24
    # A service may start it with no output at all.
    closed = [sys.executable, "-c", "import os, sys; os.close(1); os.close(2); os.execv(sys.argv[1], sys.argv[1:])"]
    assert subprocess.run([*closed, *command, "--out", "b"], cwd=tmp_path).returncode == 0
    assert summary(tmp_path / "b")["cells"]["counted"] == 24


def test_a_run_that_counted_nothing_leaves_its_folder_free(cli, tmp_path: Path) -> None:
    write_pictures(tmp_path / "slide", 1)
    (tmp_path / "slide" / "0.png").rename(tmp_path / "good.png")
    (tmp_path / "zero.png").write_bytes(b"")
    assert run(cli, "zero.png", "--out", "out")[0] == 1
    assert run(cli, "good.png", "--out", "out")[0] == 0
    assert summary(tmp_path / "out")["cells"]["counted"] == 12
    assert run(cli, "good.png", "--out", "out")[0] == 2


def test_a_full_disk_while_running(cli, tmp_path: Path) -> None:
    """Results on a file system of 300 KiB; needs the right to mount one."""
    write_pictures(tmp_path / "slide", 60)
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(small)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small file system is not allowed here")
    try:
        code, out, err = run(cli, "slide", "--out", "small/out", "--save", "masks")
        assert code == 1
        assert "the disk is full" in err
        assert "fields before are kept" in err
        assert "Make room, then write the tables with 'rbcedge export small/out'." in err
        assert len(err.splitlines()) == 2
        assert "Traceback" not in out + err
        # Pictures stop before they take the last room; what was counted is shown though no table can be written.
        assert "saved pictures: stopped, the count went on (less than 64 MB are free on the disk" in " ".join(
            out.split()
        )
        assert not (small / "out" / "masks").exists()
        db = sqlite3.connect(small / "out" / "session.db")
        fields = db.execute("SELECT count(*) FROM fields").fetchone()[0]
        cells = db.execute("SELECT count(*) FROM cells").fetchone()[0]
        db.close()
        assert fields > 0
        assert cells == 13 * fields
        assert f"{12 * fields} counted" in out
        # With room again everything comes out.
        subprocess.run(["mount", "-o", "remount,size=8m", str(small)], check=True)
        assert cli("export", "small/out")[0] == 0
        assert summary(small / "out")["cells"]["counted"] == 12 * fields
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)
