"""Which cases to measure: engines, sizes and numbers of cells, and the pictures for each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rbcedge.bench.fields import USUAL_CELLS, Drawn, exact_fields, usual_cells
from rbcedge.bundle import Bundle
from rbcedge.engines.loading import RUNTIMES
from rbcedge.errors import UsageError
from rbcedge.sources import SourceOptions, open_source
from rbcedge.sources.base import Source
from rbcedge.sources.simulated import Script, parse

USUAL_SIZE = (640, 480)
# Different simulated pictures at the usual size; fewer of larger ones, as each takes its time to draw.
_PICTURES, _FEWEST = 12, 4


@dataclass(frozen=True, slots=True)
class Pictures:
    """Pictures to measure on: `opener` opens them anew, given the buffers to decode into, if any.

    `cells` is known of simulated fields only.

    `scale` is native px per source px of simulated fields, None for others.
    """

    opener: Callable[..., Source]
    cells: int | None
    scale: float | None


def sizes_of(text: str) -> tuple[tuple[int, int], ...]:
    """Read "640x480,1280x960".

    Raises
    ------
    UsageError
        For anything else.
    """
    found = []
    for part in text.split(","):
        w, x, h = part.strip().lower().partition("x")
        if not (x and w.isdecimal() and h.isdecimal() and 64 <= int(w) <= 8192 and 64 <= int(h) <= 8192):
            raise UsageError(f"--sizes {text}: write sizes of 64 to 8192 px joined by commas, as 640x480,1280x960.")
        found.append((int(w), int(h)))
    return tuple(dict.fromkeys(found))


def cells_of(text: str) -> tuple[int, ...]:
    """Read "25,75,150".

    Raises
    ------
    UsageError
        For anything else.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(p.isdecimal() and 1 <= int(p) <= 20_000 for p in parts):
        raise UsageError(f"--cells {text}: write numbers from 1 to 20000 joined by commas, as 25,75,150.")
    return tuple(dict.fromkeys(int(p) for p in parts))


def engines_of(bundle: Bundle, engine: str, precision: str) -> tuple[tuple[tuple[str, str], ...], tuple[str, ...]]:
    """Say which engines and precisions to measure, and why others are left out.

    "all" is every engine with every precision that the bundle and the machine offer; anything else is one.
    """
    if engine != "all":
        return ((engine, precision),), ()
    chosen, left_out = [], []
    for runtime in RUNTIMES:
        wanted = runtime.precisions if precision == "auto" else (precision,)
        served = [p for p in wanted if runtime.serves(bundle, (p,))]
        problem = runtime.problem() if served else None
        if not served:
            left_out.append(f"{runtime.title}: the bundle has no {runtime.format} networks for it.")
        elif problem is not None:
            left_out.append(f"{runtime.title}: {problem}")
        else:
            chosen += [(runtime.name, p) for p in served]
    return tuple(chosen), tuple(left_out)


def pictures(
    uris: Sequence[str],
    sizes: Sequence[tuple[int, int]],
    cells: Sequence[int],
    frames: int,
    bundle: Bundle,
    options: SourceOptions | None = None,
) -> tuple[tuple[Pictures, ...], tuple[str, ...]]:
    """Say what to measure on.

    Parameters
    ----------
    uris : sequence of str
        Sources as `rbcedge run` takes them; none, or one `sim:`: fields are drawn beforehand.
    sizes, cells : sequence
        Of simulated fields; empty for the usual ones. Every size with every number of cells.
    frames : int
        Pictures that will be measured.
    bundle : Bundle
    options : SourceOptions, optional
        For cameras.

    Returns
    -------
    pictures : tuple of Pictures
    left_out : tuple of str
        Combinations that do not fit, in words.

    Raises
    ------
    UsageError
        Sizes or cells with a source that is what it is; no combination fits.
    """
    simulated = not uris or (len(uris) == 1 and uris[0].lower().startswith("sim:"))
    if not simulated:
        if sizes or cells:
            raise UsageError(
                f"{'--sizes' if sizes else '--cells'} is for simulated fields; {uris[0]} is what it is. Leave it out."
            )
        return (Pictures(lambda buffers=None: open_source(list(uris), options, buffers), None, None),), ()
    script = parse(uris[0]) if uris else Script()
    given = sizes or ((script.width, script.height),)
    found, left_out = [], []
    for width, height in given:
        for wanted in cells or (_usual(script, width, height),):
            try:
                drawn = _drawn(script, width, height, wanted, frames)
            except UsageError as e:
                left_out.append(str(e))
                continue
            scale = bundle.diameter_px / script.appearance().cell_px
            found.append(Pictures(lambda buffers=None, drawn=drawn: drawn.into(buffers), wanted, scale))
    if not found:
        raise UsageError(left_out[0])
    return tuple(found), tuple(left_out)


def _usual(script: Script, width: int, height: int) -> int:
    look = script.appearance()
    if script.density is not None:
        return max(1, round(script.density * width * height * (look.um_per_px / 100.0) ** 2))
    return max(1, round(usual_cells(width, height) * (38.0 / look.cell_px) ** 2))


def _drawn(script: Script, width: int, height: int, cells: int, frames: int) -> Drawn:
    area = width * height / (USUAL_SIZE[0] * USUAL_SIZE[1]) * max(1.0, cells / USUAL_CELLS) ** 0.5
    count = max(2, min(frames, max(_FEWEST, round(_PICTURES / max(1.0, area)))))
    return exact_fields(width, height, cells, count, script.seed, script.composition(), script.appearance())
