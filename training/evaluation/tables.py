"""A table as a value, written as Markdown and as CSV."""

from __future__ import annotations

import csv
import io
import math
import re
from dataclasses import dataclass

#: What stands in a table where nothing could be measured.
NOT_AVAILABLE = "n/a"
# What is set flush right.
_FIGURE = re.compile(r"[-+−]?\d[^a-z]*( to [\d.,]+)?( \(.*\))?$|n/a$|–$")


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
        figures = [all(_FIGURE.match(row[i]) for row in self.rows) for i in range(len(self.columns))]
        lines.append("|" + "|".join("---:" if right else "---" for right in figures) + "|")
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


@dataclass(frozen=True, slots=True)
class Missing:
    """A table or figure that these runs cannot give, and why."""

    name: str
    title: str
    why: str


def with_spread(mean: float, sd: float, digits: int = 2) -> str:
    """Render shares of 0 to 1 as "mean ± sd" in percent; without the spread where there is none."""
    if math.isnan(mean) or math.isnan(sd):
        return percent(mean, digits)
    return f"{100 * mean:.{digits}f} ± {100 * sd:.{digits}f}"


def limits(low: float, high: float, digits: int = 2) -> str:
    """Render limits of 0 to 1 as "low to high" in percent."""
    if math.isnan(low) or math.isnan(high):
        return NOT_AVAILABLE
    return f"{100 * low:.{digits}f} to {100 * high:.{digits}f}"
