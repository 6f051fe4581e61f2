"""A folder of tables (Markdown and CSV), figures (PNG), and `report.md`, which shows them all on one page."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rbcedge.training.evaluation.tables import Missing, Table

from rbcedge.errors import RbcedgeError, UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE = "report.md"
_OURS = re.compile(r"(table|figure|extra)-[\w-]+\.(md|csv|png)")


@dataclass(frozen=True, slots=True)
class Picture:
    """A figure to be drawn.

    Attributes
    ----------
    name : str
        File name without its ending.
    title : str
    draw : callable
        Makes the figure; called once, when it is written.
    notes : tuple of str
    """

    name: str
    title: str
    draw: Callable[[], Figure]
    notes: tuple[str, ...] = ()


Item = Table | Picture | Missing


def check_folder(folder: Path) -> None:
    """Refuse a folder that holds something else than an earlier report.

    Raises
    ------
    UsageError
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file. Give --out a folder.")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / PAGE).is_file():
        raise UsageError(f"{folder} is not empty and holds no {PAGE}. Give --out a new folder.")


def write_report(
    folder: Path, title: str, intro: Sequence[str], items: Sequence[Item], dpi: int = 150
) -> tuple[Path, list[Missing]]:
    """Write every table and figure and the page; return the page's path and what is missing.

    Tables and figures of an earlier report in the same folder that are not written now are removed: nothing there
    is from other runs than the page names.

    Raises
    ------
    UsageError, RbcedgeError
        The folder holds something else, or cannot be written.
    """
    check_folder(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        written = set()
        body: list[str] = []
        index = ["| what | where |", "|---|---|"]
        for item in items:
            if isinstance(item, Missing):
                index.append(f"| {item.title} | not made: {item.why} |")
                continue
            if isinstance(item, Table):
                stem = _stem(item.name)
                written |= {f"{stem}.md", f"{stem}.csv"}
                write_text(folder / f"{stem}.md", item.markdown(1) + "\n")
                write_text(folder / f"{stem}.csv", item.csv())
                index.append(f"| {item.title} | [below](#{_anchor(item.title)}), [CSV]({stem}.csv) |")
                body += [item.markdown(), ""]
            else:
                file = f"{_stem(item.name)}.png"
                written.add(file)
                write_figure(folder / file, item.draw(), dpi)
                index.append(f"| {item.title} | [{file}]({file}) |")
                body += [f"## {item.title}", "", f"![{item.title}]({file})", ""]
                body += [line for note in item.notes for line in (note, "")]
        for path in folder.iterdir():
            if _OURS.fullmatch(path.name) and path.name not in written:
                path.unlink()
        lines = [f"# {title}", "", *[line for text in intro for line in (text, "")], *index, "", *body]
        write_text(folder / PAGE, "\n".join(lines).rstrip() + "\n")
    except OSError as e:
        raise RbcedgeError(f"{folder} cannot be written ({e.strerror}). Choose another --out.") from e
    return folder / PAGE, [item for item in items if isinstance(item, Missing)]


def _stem(name: str) -> str:
    return name if name.startswith(("table-", "figure-")) else f"extra-{name}"


def _anchor(title: str) -> str:
    """The anchor that Markdown viewers give a heading."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def write_text(path: Path, text: str) -> None:
    """Write a file as a whole: beside its place, then into it."""
    part = path.with_name(f"{path.name}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def write_figure(path: Path, figure: Figure, dpi: int = 150) -> None:
    """Write a PNG as a whole."""
    part = path.with_name(f"{path.name}.part")
    # No version in the file: the same figures give the same bytes.
    figure.savefig(part, format="png", dpi=dpi, metadata={"Software": None})
    part.replace(path)
