"""A table as a value, written as Markdown and as CSV."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass

#: What stands in a table where nothing could be measured.
NOT_AVAILABLE = "n/a"


@dataclass(frozen=True, slots=True)
class Table:
    """Text in rows and columns.

    Attributes
    ----------
    name : str
        File name without its ending.
    title : str
    columns : tuple of str
    rows : tuple of tuples of str
        Each as long as `columns`.
    notes : tuple of str
        Shown below the table in Markdown.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"table {self.name}: a row of {len(row)} under {len(self.columns)} columns")

    def markdown(self, level: int = 2) -> str:
        """Heading, table and notes."""
        lines = [f"{'#' * level} {self.title}", "", _line(self.columns)]
        lines.append("|" + "|".join("---" if i == 0 else "---:" for i in range(len(self.columns))) + "|")
        lines += [_line(row) for row in self.rows]
        for note in self.notes:
            lines += ["", note]
        return "\n".join(lines)

    def csv(self) -> str:
        """Comma-separated, with a line of column names."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows(self.rows)
        return out.getvalue()


def _line(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |"


def percent(share: float, digits: int = 2) -> str:
    """Render a share of 0 to 1 in percent, "n/a" where it could not be measured."""
    return number(100 * share, digits)


def number(value: float, digits: int = 2) -> str:
    """Render a number, "n/a" where it could not be measured."""
    return NOT_AVAILABLE if math.isnan(value) else f"{value:.{digits}f}"
