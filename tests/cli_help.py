"""Runs by the command line, and what they leave."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

#: Calls the command line; gives exit code, stdout and stderr.
Cli = Callable[..., tuple[int, str, str]]


def run(cli: Cli, *arguments: str) -> tuple[int, str, str]:
    """Count with the made-up bundle at scale 1."""
    return cli("run", "--bundle", "bundle", "--scale", "1", *arguments)


def rows(path: Path) -> list[dict[str, str]]:
    """Read a CSV file."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def summary(folder: Path) -> dict:
    """Read the summary of a run."""
    return json.loads((folder / "summary.json").read_text())
