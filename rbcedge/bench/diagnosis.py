"""What the times say, in words; only what they support."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from rbcedge.bench.operations import operations
from rbcedge.bench.result import Loop, Run
from rbcedge.bench.statistics import ENOUGH, slope
from rbcedge.bundle import Bundle
from rbcedge.errors import RbcedgeError
from rbcedge.pipeline.plan import padding, working_size

#: Coefficient of variation above which a measurement is called unstable (as NVIDIA's trtexec does).
UNSTABLE = 0.025
#: Change of the median from the first to the last quarter that is told.
DRIFT = 0.05
#: Programs waiting, per core, before the measurement: above, other work disturbs it.
BUSY = 0.25
#: Share of the time that does not grow with pixels or cells above which a case is called launch-bound.
FIXED = 0.5
#: Share of the machine's copying speed above which a network is called memory-bound.
SATURATED = 0.6
#: Bytes of a number in each precision.
ELEMENT_BYTES = {"int8": 1, "fp16": 2, "fp32": 4}
_ON_CPU = ("litert", "onnx")
#: What comes after the count.
_NOT_STAGES = ("draw",)


def diagnose(run: Run, refused: Mapping[str, int] | None = None) -> tuple[str, ...]:
    """Say what dominates a run and what makes its figures doubtful.

    Parameters
    ----------
    run : Run
    refused : mapping of str to int
        Pictures the quality gate refused, by reason.
    """
    return tuple(
        line
        for line in (
            _dominant(run.staged),
            _outside(run.staged),
            _waiting(run),
            _spread(run.fresh),
            _drift(run.fresh),
            _throttled(run),
            _busy(run),
            _dropped(run.fresh),
            _refused(run.fresh, refused or {}),
            _at_rest(run),
            _few(run.fresh),
        )
        if line
    )


def _dominant(loop: Loop) -> str:
    shares = shares_of(loop)
    if not shares:
        return ""
    (first, most), *others = sorted(shares.items(), key=lambda s: -s[1])
    line = f"{first} takes {most:.0%} of the time"
    if others and others[0][1] >= 0.2:
        line += f", {others[0][0]} {others[0][1]:.0%}"
    return line + "."


def shares_of(loop: Loop) -> dict[str, float]:
    """Return each stage's share of the total time, without what comes after the count."""
    whole = sum(loop.total_ms)
    return {
        stage: sum(values) / whole
        for stage, values in loop.stages_ms.items()
        if stage not in _NOT_STAGES and values and whole > 0
    }


def _outside(loop: Loop) -> str:
    rest = 1 - sum(shares_of(loop).values()) if loop.stages_ms else 0.0
    return f"{rest:.0%} of the time is in none of the stages." if rest > 0.1 else ""


def _waiting(run: Run) -> str:
    if run.by_stage is None:
        return ""
    slower = run.by_stage.total.p50 / run.fresh.total.p50 - 1
    return (
        "The stages are of a second pass that waits after each of them; "
        f"its median is {abs(slower):.0%} {'longer' if slower >= 0 else 'shorter'}. Capture to count is of the first."
    )


def _spread(loop: Loop) -> str:
    total = loop.total
    if total.cv <= UNSTABLE:
        return ""
    line = f"Unstable: the coefficient of variation is {total.cv:.1%} (steady is below {UNSTABLE:.1%})"
    if len(loop.cells) == len(loop.total_ms) and len(set(loop.cells)) > 1 and np.std(loop.total_ms) > 0:
        r = float(np.corrcoef(loop.cells, loop.total_ms)[0, 1])
        if r > 0.3:
            line += f"; {r * r:.0%} of the variance follows the number of cells"
    return line + "."


def _drift(loop: Loop) -> str:
    change = slope(loop.total_ms)
    if abs(change) < DRIFT:
        return ""
    way = "slower" if change > 0 else "faster"
    return f"It became {abs(change):.0%} {way} from the first to the last quarter."


def _throttled(run: Run) -> str:
    watched = run.watched
    if watched.throttled:
        hot = max((high for _, high in watched.temperatures_c.values()), default=0.0)
        heat = f", up to {hot:.0f} °C" if hot else ""
        return f"Throttled: {', '.join(watched.throttled)}{heat}. Cool it, or lower the power mode."
    return ""


def _busy(run: Run) -> str:
    if run.watched.load_before <= BUSY:
        return ""
    return (
        f"Other work ran on this machine ({run.watched.load_before:.1f} programs for each core): times are too long; "
        "ratios within this report are fairer."
    )


def _dropped(loop: Loop) -> str:
    if not loop.dropped:
        return ""
    share = loop.dropped / (loop.dropped + len(loop.total_ms))
    return (
        f"{loop.dropped} pictures ({share:.0%}) came while another was in hand and were dropped: the source is faster "
        "than the pipeline, and the newest picture wins."
    )


def _refused(loop: Loop, refused: Mapping[str, int]) -> str:
    total = sum(refused.values())
    if not total:
        return ""
    reason = max(refused, key=lambda k: refused[k])
    return f"{total} of {len(loop.total_ms)} pictures were not fit to be counted ({reason}); they cost the same."


def _at_rest(run: Run) -> str:
    if run.resting is None or not run.resting.total_ms:
        return ""
    rest = run.resting.total.p50
    return f"A field at rest costs {rest:.2g} ms, a fresh one {run.fresh.total.p50 / rest:.0f} times as much."


def _few(loop: Loop) -> str:
    n = len(loop.total_ms)
    return (
        f"p99 of {n} pictures is hardly more than the maximum; give --frames {ENOUGH[99]} or more."
        if (n < ENOUGH[99])
        else ""
    )


def traffic(run: Run, bundle: Bundle, copied_per_s: float, cache_bytes: int) -> tuple[str, ...]:
    """Say how fast the two networks work, and whether memory holds them up.

    Multiplications and bytes are counted from the bundle's .tflite files, every tensor and weight read and written
    once. Memory is named only where it can be the reason: on a CPU, where the largest layer of a call does not fit its
    cache, and the bytes move nearly as fast as this machine copies. Cells are taken to fit the smaller crop, so the
    classifier's figures are lower bounds.

    Parameters
    ----------
    run : Run
    bundle : Bundle
    copied_per_s : float
        Bytes read and written by a plain copy in a second; see `rbcedge.bench.operations.copy_speed`.
    cache_bytes : int
        Size of the last cache before the memory; 0 where it is not known.

    Returns
    -------
    tuple of str
        Empty where the bundle has no .tflite files or they cannot be counted.
    """
    width, height = working_size(bundle, (run.case.width, run.case.height), run.scale)
    right, below = padding((width, height))
    sides = {"segmenter": (height + below, width + right), "classifier": (bundle.small_crop_px,) * 2}
    stages = {"segmenter": "segment", "classifier": "classify"}
    pictures = {"segmenter": 1.0, "classifier": float(np.mean(run.fresh.cells))}
    lines = []
    for network in run.networks:
        artefact = bundle.find(network.role, "tflite", ("int8", "fp32"))
        stage, size = stages[network.role], sides[network.role]
        if artefact is None or stage not in run.staged.stages_ms:
            continue
        try:
            counted = operations(bundle.path(artefact), size)
        except RbcedgeError:
            continue
        batch = counted[0].inputs / (3 * size[0] * size[1])
        calls = pictures[network.role] / batch
        seconds = run.staged.stages[stage].p50 / 1e3
        macs = calls * sum(o.macs for o in counted)
        line = f"{stage}: {macs / 1e9:.2f} GMAC at {macs / seconds / 1e9:.0f} GMAC/s"
        element = ELEMENT_BYTES[network.precision]
        share = calls * sum(o.bytes(element) for o in counted) / seconds / copied_per_s
        uncached = 0 < cache_bytes < max(o.bytes(element) for o in counted)
        if run.case.engine in _ON_CPU and uncached and share >= SATURATED:
            line += f"; memory-bound: its bytes move at {share:.0%} of the speed at which this machine copies"
        lines.append(line + ".")
    return tuple(lines)


def growth(runs: Sequence[Run]) -> str:
    """Say how the time of one engine grows with picture size and cells, by least squares over a sweep.

    Parameters
    ----------
    runs : sequence of Run
        Of one engine and precision, at three or more sizes or cell counts.

    Returns
    -------
    str
        "" where the cases are too few or too much alike to tell.
    """
    points = [
        (1.0, r.case.width * r.case.height / 1e6, float(np.median(r.fresh.cells)), r.fresh.total.p50)
        for r in runs
        if r.fresh.cells
    ]
    if len(points) < 3:
        return ""
    table = np.array(points)
    columns = [0] + [k for k in (1, 2) if np.ptp(table[:, k]) > 0]
    known = table[:, columns]
    if len(points) <= len(columns) or np.linalg.matrix_rank(known) < len(columns):
        columns = columns[:2]
        known = table[:, columns]
    if len(columns) < 2 or len(points) <= len(columns):
        return ""
    solved = np.linalg.lstsq(known, table[:, 3], rcond=None)[0]
    off = table[:, 3] - known @ solved
    spread = float(((table[:, 3] - table[:, 3].mean()) ** 2).sum())
    fit = 1 - float((off**2).sum()) / spread if spread > 0 else 0.0
    if fit < 0.9 or (solved < 0).any():
        return ""
    words = {0: "{:.1f} ms fixed", 1: "{:.1f} ms for each megapixel", 2: "{:.3f} ms for each cell"}
    line = " + ".join(words[c].format(v) for c, v in zip(columns, solved, strict=True))
    title = f"{runs[0].case.engine} {runs[0].case.precision}"
    text = f"{title}: the median is about {line} (fit explains {fit:.0%})."
    least = float(table[:, 3].min())
    if solved[0] > FIXED * least:
        text += f" Launch-bound where little is to do: {solved[0] / least:.0%} of the smallest case is fixed cost."
    return text
