"""Fixtures of several test files."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_help import Cli
from session_fakes import fake_engines, make_bundle

from rbcedge.cli import main


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Cli:
    """Call the command line; returns exit code, stdout and stderr."""

    def called(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main([str(a) for a in arguments])
        shown = capsys.readouterr()
        return int(end.value.code or 0), shown.out, shown.err

    return called


@pytest.fixture
def cli(call: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Call the command line in a folder that holds a bundle of made-up networks."""
    make_bundle(tmp_path / "bundle")
    monkeypatch.setattr("rbcedge.engines.loading.load_engines", fake_engines)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.chdir(tmp_path)
    return call
