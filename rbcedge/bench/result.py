"""What a measurement gives, as values, and its file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from rbcedge.bench.hardware import Machine
from rbcedge.bench.layers import Layer, Profile
from rbcedge.bench.sensors import Watched
from rbcedge.bench.statistics import Distribution, describe
from rbcedge.errors import RbcedgeError, UsageError
from rbcedge.pipeline.gpu.base import Transfers

SCHEMA = 1
KIND = "rbcedge bench"
TOTAL = "capture to count"


@dataclass(frozen=True, slots=True)
class Case:
    """What was measured. Two results are compared where all but `threads` and `source` agree.

    Attributes
    ----------
    source : str
    engine, precision : str
    width, height : int
        Of the pictures, px.
    cells : int or None
        Cells drawn into each simulated field; None for other sources.
    threads : int
    """

    source: str
    engine: str
    precision: str
    width: int
    height: int
    cells: int | None
    threads: int

    @property
    def key(self) -> tuple[str, str, int, int, int | None]:
        """What must agree for two results to be compared."""
        return self.engine, self.precision, self.width, self.height, self.cells

    @property
    def title(self) -> str:
        """One line: what was measured."""
        cells = "" if self.cells is None else f", {self.cells} cells"
        return f"{self.engine} {self.precision}, {self.width}x{self.height}{cells}"


@dataclass(frozen=True, slots=True)
class Network:
    """A network file that was run; `sha256` is "" where the engine was built here and is no file of the bundle."""

    role: str
    format: str
    precision: str
    file: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Loop:
    """Raw times of one loop, in order, warm-up left out.

    Attributes
    ----------
    total_ms : tuple of float
        For each picture from its capture until its count is on disk.
    stages_ms : mapping of str to tuple of float
        In the order of the pipeline; a stage that did not run for some picture has fewer values. "draw" comes
        after the count and is not part of the total.
    cells : tuple of int
        Found in each picture.
    seconds : float
        Wall time of the whole loop.
    dropped, skipped : int
        Pictures of a live source never looked at; pictures that could not be read or processed.
    """

    total_ms: tuple[float, ...]
    stages_ms: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    cells: tuple[int, ...] = ()
    seconds: float = 0.0
    dropped: int = 0
    skipped: int = 0

    @property
    def total(self) -> Distribution:
        """Distribution of the total."""
        return describe(self.total_ms)

    @property
    def stages(self) -> dict[str, Distribution]:
        """Distribution of each stage."""
        return {name: describe(values) for name, values in self.stages_ms.items() if values}

    @property
    def per_second(self) -> float:
        """Pictures per second, one after another; what comes after the count (drawing) is left out."""
        return 1e3 * len(self.total_ms) / sum(self.total_ms) if self.total_ms and sum(self.total_ms) > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Run:
    """One case, measured.

    Attributes
    ----------
    case : Case
    networks : tuple of Network
    pictures : int
        Different pictures that were shown in turn; 0 where each was a new one.
    warm_up : int
        Pictures before the first that counts.
    fresh : Loop
        Every picture another one, every cell classified.
    resting : Loop or None
        One field held still in the run loop; None where no picture was fit to be counted.
    peak_bytes : int or None
        Largest resident memory of the process while it was measured.
    device_bytes : int or None
        Largest memory in use on the device that was seen, other programs' included.
    watched : Watched
    scale : float
        Native px per source px that was used.
    diagnosis : tuple of str
    layers : tuple of Profile
        Times of each layer, where they were asked for.
    by_stage : Loop or None
        On a device: as many pictures of the source in a second pass that waits after each stage, and so tells the
        stages apart.
    moved : Transfers or None
        On a device: copies and bytes of all pictures of `fresh` together, without those for drawing.
    """

    case: Case
    networks: tuple[Network, ...]
    pictures: int
    warm_up: int
    fresh: Loop
    resting: Loop | None
    peak_bytes: int | None
    device_bytes: int | None
    watched: Watched
    scale: float
    diagnosis: tuple[str, ...] = ()
    layers: tuple[Profile, ...] = ()
    by_stage: Loop | None = None
    moved: Transfers | None = None

    @property
    def staged(self) -> Loop:
        """The loop that tells the stages apart."""
        return self.by_stage or self.fresh


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that was measured in one command.

    `skipped` says in words what was asked and could not be measured.
    """

    created: str
    versions: Mapping[str, str]
    machine: Machine
    bundle: str
    bundle_sha256: str
    runs: tuple[Run, ...]
    skipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def write(report: Report, path: Path) -> None:
    """Write a report with all raw samples as JSON, in one step.

    Raises
    ------
    RbcedgeError
        It cannot be written.
    """
    content = {"kind": KIND, "schema": SCHEMA, **asdict(report)}
    for run, whole in zip(report.runs, content["runs"], strict=True):
        for name in ("fresh", "resting", "by_stage"):
            loop: Loop | None = getattr(run, name)
            if loop is not None:
                whole[name]["figures_ms"] = {
                    **{stage: asdict(d) for stage, d in loop.stages.items()},
                    TOTAL: asdict(loop.total),
                }
                whole[name]["per_second"] = loop.per_second
    temporary = path.with_name(path.name + ".part")
    try:
        temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")
        temporary.replace(path)
    except OSError as e:
        raise RbcedgeError(f"{path} cannot be written: {e.strerror}.") from e


def read(path: Path) -> Report:
    """Read what `write` wrote.

    Raises
    ------
    UsageError
        There is no such file.
    RbcedgeError
        It cannot be read, is none of ours, or is of another schema.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as e:
        raise UsageError(f"{path}: no such file. Give a file written by 'rbcedge bench --json FILE'.") from e
    except (OSError, UnicodeDecodeError) as e:
        raise RbcedgeError(f"{path} cannot be read ({getattr(e, 'strerror', None) or 'not text'}).") from e
    try:
        content = json.loads(text)
        if not isinstance(content, dict) or content.get("kind") != KIND:
            raise ValueError
    except ValueError as e:
        raise RbcedgeError(f"{path} is no result of 'rbcedge bench --json FILE'.") from e
    if content.get("schema") != SCHEMA:
        raise RbcedgeError(
            f"{path} has schema {content.get('schema')}, this version of rbcedge reads {SCHEMA}. "
            "Measure again with this version."
        )
    try:
        return _report(content)
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        what = f"{e.args[0]!r} is missing" if isinstance(e, KeyError) else str(e)
        raise RbcedgeError(f"{path} is damaged: {what}. Measure again.") from e


def _report(c: Mapping[str, Any]) -> Report:
    return Report(
        created=str(c["created"]),
        versions={str(k): str(v) for k, v in c["versions"].items()},
        machine=Machine(**_known(Machine, c["machine"])),
        bundle=str(c["bundle"]),
        bundle_sha256=str(c["bundle_sha256"]),
        runs=tuple(_run(r) for r in c["runs"]),
        skipped=tuple(c["skipped"]),
        notes=tuple(c["notes"]),
    )


def _run(r: Mapping[str, Any]) -> Run:
    return Run(
        case=Case(**_known(Case, r["case"])),
        networks=tuple(Network(**_known(Network, n)) for n in r["networks"]),
        pictures=int(r["pictures"]),
        warm_up=int(r["warm_up"]),
        fresh=_loop(r["fresh"]),
        resting=None if r["resting"] is None else _loop(r["resting"]),
        peak_bytes=r["peak_bytes"],
        device_bytes=r["device_bytes"],
        watched=Watched(**_known(Watched, r["watched"])),
        scale=float(r["scale"]),
        diagnosis=tuple(r["diagnosis"]),
        layers=tuple(_profile(p) for p in r["layers"]),
        # Files from before these were measured lack them.
        by_stage=None if r.get("by_stage") is None else _loop(r["by_stage"]),
        moved=None if r.get("moved") is None else Transfers(**_known(Transfers, r["moved"])),
    )


def _profile(p: Mapping[str, Any]) -> Profile:
    layers = tuple(Layer(**_known(Layer, layer)) for layer in p["layers"])
    return Profile(**{**_known(Profile, p), "layers": layers})


def _loop(c: Mapping[str, Any]) -> Loop:
    total = tuple(float(v) for v in c["total_ms"])
    if not total:
        raise ValueError("a loop without samples")
    stages = {str(k): tuple(float(v) for v in values) for k, values in c["stages_ms"].items()}
    cells = tuple(int(v) for v in c["cells"])
    return Loop(total, stages, cells, float(c["seconds"]), int(c["dropped"]), int(c["skipped"]))


def _known(kind: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a dataclass from `values`; all must be there, others are left out."""
    return {f.name: _plain(values[f.name]) for f in fields(kind)}


def _plain(value: Any) -> Any:
    return tuple(_plain(v) for v in value) if isinstance(value, list) else value
