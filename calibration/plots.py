"""Figures of the report, as PNG files in memory. Needs matplotlib (the extra "report")."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np
from rbcedge.calibration.agreement import Agreement
from rbcedge.calibration.sensitivity import Finding

from rbcedge.errors import RbcedgeError
from rbcedge.palette import colours

#: Groups in the figure of the sensitivity.
SHOWN = 16


def check_available() -> None:
    """Raise RbcedgeError where matplotlib is not installed."""
    _figure(1, 1)


def bland_altman(agreement: Agreement) -> bytes:
    """Difference against mean of each class's percentage, a point for each field (Bland and Altman 1986)."""
    columns = min(4, len(agreement.classes))
    rows = -(-len(agreement.classes) // columns)
    figure = _figure(2.6 * columns, 2.3 * rows)
    palette = [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in colours(len(agreement.classes))]
    for k, c in enumerate(agreement.classes):
        axes = figure.add_subplot(rows, columns, k + 1)
        mean, difference = c.by_field.mean(axis=1), c.by_field[:, 1] - c.by_field[:, 0]
        axes.axhline(0, color="#bbbbbb", linewidth=0.8)
        axes.axhline(c.bias, color=palette[k], linewidth=1.2)
        if np.isfinite(c.sd):
            for limit in c.limits:
                axes.axhline(limit, color=palette[k], linewidth=0.8, linestyle=(0, (4, 3)))
        axes.scatter(mean, difference, s=14, color=palette[k], alpha=0.55, linewidths=0)
        span = max(1.0, 1.25 * float(np.abs([*difference, *np.nan_to_num(c.limits)]).max(initial=0)))
        axes.set_ylim(-span, span)
        axes.set_title(c.label.code, fontsize=9, loc="left", fontweight="bold")
        axes.tick_params(labelsize=7)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        if k % columns == 0:
            axes.set_ylabel("after − before, points", fontsize=7)
        if k // columns == rows - 1:
            axes.set_xlabel("mean of both, %", fontsize=7)
    return _png(figure)


def sensitivity(findings: Sequence[Finding], kept: Sequence[str]) -> bytes:
    """Share that each group has in the noise of the output, all groups together 100 %; those kept in float are dark."""
    noise = np.array([10 ** (-f.effect.sqnr_db / 10) for f in findings])
    percent = 100 * noise / noise.sum()
    shown = range(min(len(findings), SHOWN))
    figure = _figure(6.2, 0.6 + 0.24 * len(shown))
    axes = figure.add_subplot(1, 1, 1)
    tones = ["#1f4e79" if findings[k].group.title in kept else "#a9c4de" for k in shown]
    axes.barh(list(shown), [percent[k] for k in shown], color=tones, height=0.7)
    axes.set_yticks(list(shown), [findings[k].group.title for k in shown])
    axes.invert_yaxis()
    axes.set_xlabel("share of the quantisation noise in the output, %", fontsize=8)
    axes.tick_params(labelsize=7)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return _png(figure)


def _figure(width: float, height: float) -> Any:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise RbcedgeError("The report needs matplotlib. Install it: pip install 'rbcedge[report]'.") from error
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _png(figure: Any) -> bytes:
    out = BytesIO()
    figure.savefig(out, format="png", dpi=160)
    return out.getvalue()
