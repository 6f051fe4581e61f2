"""Runs that are ended from outside: by a signal, a full disk, a closed output."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cli_help import rows, run, summary
from session_fakes import make_bundle, write_pictures

TESTS = Path(__file__).parent


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
