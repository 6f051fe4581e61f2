"""The report on a calibration as one HTML page, with everything in it."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import cv2
from rbcedge.calibration import plots
from rbcedge.calibration.agreement import Agreement
from rbcedge.calibration.gallery import contact_sheet, gallery, worst
from rbcedge.calibration.sensitivity import Quantised
from rbcedge.calibration.tolerances import Tolerances

from rbcedge.frame import Frame

if TYPE_CHECKING:
    from rbcedge.calibration.report import Report, Speed

_WORDS = {"within": "within", "beyond": "BEYOND", "noise": "within chance"}


def html(report: Report, frame: Callable[[str], Frame]) -> str:
    """Render the whole report as one HTML page that needs nothing else."""
    parts = [_head(report)]
    for format, a in report.agreements.items():
        title = f"{format} INT8 against {a.reference}"
        parts += [f"<h2>{escape(title)}</h2>", _verdict(a, report), _summary(a), _classes(a, report.tolerances)]
        parts.append(
            _figure(
                plots.bland_altman(a),
                f"Bland–Altman: change of each class's percentage in each of {len(a.fields)} fields. Solid: mean "
                "difference; dashed: limits of agreement (mean ± 1.96 standard deviations).",
            )
        )
        found = worst(a)
        picture = gallery(found, frame, [x.code for x in report.bundle.labels])
        differing = sum(p.named_before != p.named_after for f in a.fields for p in f.pairs)
        if picture is None:
            parts.append("<p>No cell was named differently.</p>")
        else:
            which = (
                f"The {differing} cells named differently"
                if len(found) == differing
                else f"Of {differing} cells named differently the {len(found)} of which both networks were surest"
            )
            text = f"{which}. Before: float; after: INT8; a question mark: below the confidence threshold."
            parts.append(_figure(_png(picture), text))
        for role, q in report.quantised[format].items():
            parts.append(_layers(role, q, report.speeds[format][role]))
    parts.append(_set(report))
    return _PAGE.replace("@TITLE@", escape(f"Calibration of {report.bundle.name}")).replace("@BODY@", "\n".join(parts))


def _head(report: Report) -> str:
    a = report.examined
    others = "on other fields than those" if report.held_out else "on the same fields (there are fewer than four)"
    if report.judged_on != report.source:
        others = f"on {escape(report.judged_on)}, other fields than those"
    return (
        f"<h1>Calibration of {escape(report.bundle.name)}</h1>"
        f'<p class="meta">{escape(report.created)} &middot; fields: {escape(report.source)} &middot; '
        f"{len(a.candidates)} countable, {len(a.left_out)} left out &middot; "
        f"{len(report.chosen.fields)} fields and {len(report.chosen.cells)} cells chosen; INT8 judged {others} it was "
        "calibrated on. For research; not a medical device.</p>"
    )


def _verdict(a: Agreement, report: Report) -> str:
    checks = a.checks(report.tolerances)
    beyond = [c for c in checks if c.verdict == "beyond"]
    noise = [c for c in checks if c.verdict == "noise"]
    if beyond:
        text, kind = f"Beyond tolerance: {', '.join(escape(c.name) for c in beyond)}.", "bad"
    elif noise:
        text = (
            f"Within tolerance as far as {a.cells[2]} cells can tell. Beyond it, but explained by chance: "
            f"{', '.join(escape(c.name) for c in noise)}. More fields would decide it."
        )
        kind = "unsure"
    else:
        text, kind = "Within every tolerance.", "good"
    return f'<p class="verdict {kind}">{text}</p>'


def _summary(a: Agreement) -> str:
    rows = [
        ("mask IoU, INT8 against float", f"{100 * a.mask_iou:.2f} %"),
        ("distance between outlines", f"mean {a.boundary_mean:.3f} px, 95th percentile {a.boundary_p95:.2f} px"),
        ("whole cells: float, INT8, in both", f"{a.cells[0]}, {a.cells[1]}, {a.cells[2]}"),
        ("cells given the same class", f"{100 * a.labels_agree:.2f} %"),
        ("unclassified: float, INT8", f"{a.unclassified[0]:.2f} %, {a.unclassified[1]:.2f} %"),
    ]
    if a.accuracy is not None and a.accuracy_change is not None:
        c = a.accuracy_change
        rows.append(
            (
                f"accuracy on {c.n} labelled cells: float, INT8",
                f"{a.accuracy[0]:.2f} %, {a.accuracy[1]:.2f} % (95 % interval of the change "
                f"{c.ci95[0]:+.2f} to {c.ci95[1]:+.2f})",
            )
        )
    return _table(("", ""), rows)


def _classes(a: Agreement, tolerances: Tolerances) -> str:
    verdicts = {c.name: c for c in a.checks(tolerances)}
    rows = []
    for c in a.classes:
        check = verdicts[f"percentage of {c.label.code}"]
        rows.append(
            (
                c.label.code,
                f"{c.before:.2f}", f"{c.after:.2f}", f"{c.change.points:+.2f}",
                f"{c.change.ci95[0]:+.2f} to {c.change.ci95[1]:+.2f}",
                f"+{c.change.gained} −{c.change.lost} of {c.change.n}",
                f"{c.bias:+.2f} ({c.limits[0]:+.2f} to {c.limits[1]:+.2f})",
                _WORDS[check.verdict],
            )
        )  # fmt: skip
    head = ("class", "float %", "INT8 %", "change", "95 % interval", "cells", "bias (limits) by field", "")
    lines = "; ".join(
        f"{escape(c.name)} {c.measured:.2f} of {c.tolerance:g} points ({_WORDS[c.verdict]})"
        for c in a.checks(tolerances)
        if not c.name.startswith("percentage")
    )
    return (
        f"<p>Lost of what is tolerated: {lines}. Percentages may change by {tolerances.percentage:g} points; one whose "
        "interval holds 0 is within chance. Cells: how many came into the class and went out of it.</p>"
        + _table(head, rows)
    )


def _layers(role: str, q: Quantised, speed: Speed) -> str:
    ways = ", ".join(f"{m} {e.sqnr_db:.1f} dB" for m, e in q.methods)
    kept = (
        f"In float stay <b>{escape(', '.join(g.title for g in q.kept))}</b>: {100 * q.float_share:.1f} % of the "
        "arithmetic."
        if q.kept
        else "All layers are INT8."
    )
    text = (
        f"<h3>{escape(role)}</h3><p>Ranges: {escape(q.method)} ({escape(ways)}). {kept} Signal to noise "
        f"{q.effect.sqnr_db:.1f} dB, {100 * q.effect.disagreement:.2f} % "
        f"{'of the mask' if role == 'segmenter' else 'of the labels'} differ on the calibration pictures, "
        f"{100 * q.goal:.3g} % were aimed at. "
        f"{len(q.model) / 1e6:.2f} MB. A call takes {speed.int8_ms:.1f} ms here, {speed.float_ms:.1f} ms in float"
        f"{f', {speed.all_int8_ms:.1f} ms with all layers in INT8' if q.kept else ''}"
        f"{'; INT8 saves no time on this machine' if speed.int8_ms >= speed.float_ms else ''}.</p>"
    )
    if not q.findings:
        return text
    picture = plots.sensitivity(q.findings, [g.title for g in q.kept])
    shown = "The parts that lose most" if len(q.findings) > plots.SHOWN else "What each part loses"
    return text + _figure(
        picture, f"{shown}, each measured as the only one in INT8; dark ones stay in float.", narrow=True
    )


def _set(report: Report) -> str:
    classes = ", ".join(f"{k} {n}" for k, n in sorted(report.chosen.classes.items()))
    picture = contact_sheet([f.pixels for f in report.chosen.fields])
    left = "".join(f"<li>{escape(s)}: {escape(r)}</li>" for s, r in report.examined.left_out[:40])
    more = len(report.examined.left_out) - 40
    return (
        "<h2>Calibration set</h2>"
        f"<p>{len(report.chosen.fields)} fields, chosen farthest from each other in stain, light, geometry and "
        f"classes; cells by (predicted) class: {escape(classes)}.</p>"
        + _figure(_png(picture), "The chosen fields as the segmenter sees them.")
        + (f"<h3>Left out</h3><ul>{left}</ul>" if left else "")
        + (f"<p>and {more} more</p>" if more > 0 else "")
        + f'<p class="meta">{escape(", ".join(f"{k} {v}" for k, v in report.versions.items()))}; bundle sha256 '
        f"{escape(report.bundle.sha256)}</p>"
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f"<th>{escape(h)}</th>" for h in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(v)}</td>" for v in row) + "</tr>" for row in rows)
    kind = "" if any(head) else " class=pairs"
    return f"<table{kind}>{f'<thead><tr>{top}</tr></thead>' if any(head) else ''}<tbody>{body}</tbody></table>"


def _figure(png: bytes, caption: str, narrow: bool = False) -> str:
    data = base64.b64encode(png).decode()
    return (
        f'<figure><img{" class=narrow" if narrow else ""} src="data:image/png;base64,{data}" '
        f'alt="{escape(caption)}"><figcaption>{escape(caption)}</figcaption></figure>'
    )


def _png(bgr: Any) -> bytes:
    ok, data = cv2.imencode(".png", bgr)
    assert ok, "PNG can hold any 8-bit picture"
    return bytes(data)


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>@TITLE@</title><style>
body{font:15px/1.5 system-ui,sans-serif;color:#222;max-width:60rem;margin:2rem auto;padding:0 1.2rem}
h1{font-size:1.6rem;margin:0 0 .3rem}h2{font-size:1.2rem;margin:2.2rem 0 .6rem;border-bottom:1px solid #ddd}
h3{font-size:1rem;margin:1.6rem 0 .3rem}.meta{color:#666;font-size:.85rem}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums;font-size:.88rem;margin:.8rem 0}
th,td{text-align:right;padding:.28rem .5rem;border-bottom:1px solid #eee;white-space:nowrap}
th:first-child,td:first-child{text-align:left}table.pairs{width:auto}table.pairs td{text-align:left;white-space:normal}
th{color:#666;font-weight:600}
.verdict{padding:.6rem .9rem;border-left:5px solid;font-weight:600}
.good{border-color:#009e73;background:#eef8f4}.bad{border-color:#c0392b;background:#fbeeec}
.unsure{border-color:#e69f00;background:#fdf6e7}
figure{margin:1.2rem 0}img{max-width:100%;height:auto}img.narrow{width:38rem}
figcaption{color:#666;font-size:.85rem;margin-top:.3rem}
@page{margin:14mm}
@media print{body{margin:0;padding:0;max-width:none;font-size:9.5pt}table{font-size:7.5pt}th,td{padding:.15rem .3rem}
h2,h3{break-after:avoid}figure,table{break-inside:avoid}img{max-height:17cm}img.narrow{width:10.5cm}}
</style></head><body>
@BODY@
</body></html>
"""
