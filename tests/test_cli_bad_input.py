"""What the command line says to pictures, options, bundles and folders that are of no use."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import cv2
import pytest
from cli_help import run, summary
from session_fakes import field_of_discs, make_bundle, write_pictures

from rbcedge.cli import main


def test_nothing_readable_is_an_error(cli, tmp_path: Path) -> None:
    (tmp_path / "empty.png").write_bytes(b"")
    code, _, err = run(cli, "empty.png", "--out", "out")
    assert code == 1
    assert "nothing could be read" in err
    assert summary(tmp_path / "out")["fields"]["seen"] == 0


def test_a_second_run_into_the_same_folder_is_refused(cli, tmp_path: Path) -> None:
    write_pictures(tmp_path / "slide", 1)
    assert run(cli, "slide", "--out", "out")[0] == 0
    before = {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()}
    code, _, err = run(cli, "slide", "--out", "out")
    assert code == 2
    assert "already holds the results of a run" in err
    assert "--out out-2" in err
    assert {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()} == before


def test_a_failed_start_leaves_no_session(cli, tmp_path: Path) -> None:
    assert run(cli, "no-such.png", "--out", "out")[0] == 1
    assert not (tmp_path / "out").exists()


def test_a_run_that_counted_nothing_leaves_its_folder_free(cli, tmp_path: Path) -> None:
    write_pictures(tmp_path / "slide", 1)
    (tmp_path / "slide" / "0.png").rename(tmp_path / "good.png")
    (tmp_path / "zero.png").write_bytes(b"")
    assert run(cli, "zero.png", "--out", "out")[0] == 1
    assert run(cli, "good.png", "--out", "out")[0] == 0
    assert summary(tmp_path / "out")["cells"]["counted"] == 12
    assert run(cli, "good.png", "--out", "out")[0] == 2


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
