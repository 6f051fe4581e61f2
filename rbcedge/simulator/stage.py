"""A microscope's stage that follows a script: rests, pans, jumps, returns, drifts, refocusing.

Positions are slide pixels of the view's corner, times are seconds, focus is the error of focus (0 is
sharp, 1 is clearly soft).

Examples
--------
>>> stage = Stage([Rest(0.5), Pan(300, 0, 1.0), Rest(0.5)])
>>> [round(pose.x) for pose in stage.poses(fps=2)]
[0, 0, 150, 300]
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from rbcedge.simulator.smear import Smear

State = tuple[float, float, float]
"""Position x, y (px) and focus error."""


@dataclass(frozen=True)
class Pose:
    """Where the stage is when a picture is taken.

    Attributes
    ----------
    time_s
        Seconds since the start.
    x, y
        Slide position of the view's corner, px.
    focus
        Focus error.
    motion
        Way of the slide during the exposure (x, y), px.
    """

    time_s: float
    x: float
    y: float
    focus: float = 0.0
    motion: tuple[float, float] = (0.0, 0.0)

    def still(self, max_motion: float = 0.5, max_focus: float = 0.5) -> bool:
        """Return whether the picture is at rest (px per exposure) and in focus."""
        return float(np.hypot(*self.motion)) <= max_motion and abs(self.focus) <= max_focus


class Move(Protocol):
    """One step of a script."""

    @property
    def seconds(self) -> float:
        """How long it lasts; 0 is instant."""
        ...

    def at(self, start: State, t: float) -> State:
        """Return the state `t` seconds (0 to `seconds`) after beginning at `start`."""
        ...


@dataclass(frozen=True)
class Rest:
    """Stay."""

    seconds: float

    def at(self, start: State, t: float) -> State:
        """See `Move.at`."""
        return start


@dataclass(frozen=True)
class Pan:
    """Move by (dx, dy) px, smoothly speeding up and slowing down."""

    dx: float
    dy: float
    seconds: float

    def at(self, start: State, t: float) -> State:
        """See `Move.at`."""
        s = _smooth(t / self.seconds) if self.seconds > 0 else 1.0
        return start[0] + s * self.dx, start[1] + s * self.dy, start[2]


@dataclass(frozen=True)
class Jump:
    """Be displaced by (dx, dy) px at once."""

    dx: float
    dy: float
    seconds: float = field(default=0.0, init=False)

    def at(self, start: State, t: float) -> State:
        """See `Move.at`."""
        return start[0] + self.dx, start[1] + self.dy, start[2]


@dataclass(frozen=True)
class Goto:
    """Go to the position (x, y) px: at once, or smoothly in `seconds`."""

    x: float
    y: float
    seconds: float = 0.0

    def at(self, start: State, t: float) -> State:
        """See `Move.at`."""
        s = _smooth(t / self.seconds) if self.seconds > 0 else 1.0
        return start[0] + s * (self.x - start[0]), start[1] + s * (self.y - start[1]), start[2]


@dataclass(frozen=True)
class Drift:
    """Creep at a constant speed (vx, vy), px per second."""

    vx: float
    vy: float
    seconds: float

    def at(self, start: State, t: float) -> State:
        """See `Move.at`."""
        return start[0] + t * self.vx, start[1] + t * self.vy, start[2]


@dataclass(frozen=True)
class Refocus:
    """Turn the focus out by `amount` and back."""

    amount: float
    seconds: float

    def at(self, start: State, t: float) -> State:
        """See `Move.at`."""
        turn = np.sin(np.pi * t / self.seconds) ** 2 if self.seconds > 0 else 0.0
        return start[0], start[1], start[2] + float(self.amount * turn)


def _smooth(t: float) -> float:
    t = min(max(t, 0.0), 1.0)
    return t * t * t * (10.0 - 15.0 * t + 6.0 * t * t)


class Stage:
    """A stage that follows a script of moves.

    Parameters
    ----------
    moves
        The script; may be endless, and is read as the poses are.
    x, y
        Where it begins, px.
    jitter
        Standard deviation of the trembling of the hand, px, about one swing in a second.
    exposure_s
        Exposure time, seconds; sets the motion blur.
    seed
        Seeds the jitter.
    """

    def __init__(
        self,
        moves: Iterable[Move],
        x: float = 0.0,
        y: float = 0.0,
        *,
        jitter: float = 0.0,
        exposure_s: float = 0.008,
        seed: int = 0,
    ) -> None:
        self.moves = moves
        self.start: State = (float(x), float(y), 0.0)
        self.jitter = jitter
        self.exposure_s = exposure_s
        rng = np.random.default_rng([seed, 17])
        self._rates = rng.uniform(0.6, 1.6, (2, 3)) * 2 * np.pi
        self._phases = rng.uniform(0, 2 * np.pi, (2, 3))

    def poses(self, fps: float) -> Iterator[Pose]:
        """Yield the pose of every picture, `fps` per second, until the script ends."""
        if not fps > 0:
            raise ValueError("fps must be positive")
        begun, state, index = 0.0, self.start, 0
        for move in self.moves:
            end = begun + move.seconds
            while (time := index / fps) < end - 1e-9:
                t = time - begun
                x, y, focus = move.at(state, t)
                x0, y0, _ = move.at(state, max(t - self.exposure_s / 2, 0.0))
                x1, y1, _ = move.at(state, min(t + self.exposure_s / 2, move.seconds))
                jx, jy = self._tremble(time)
                ax, ay = self._tremble(time - self.exposure_s / 2)
                bx, by = self._tremble(time + self.exposure_s / 2)
                motion = (x1 - x0 + bx - ax, y1 - y0 + by - ay)
                yield Pose(time, x + jx, y + jy, focus, motion)
                index += 1
            state = move.at(state, move.seconds)
            begun = end

    def _tremble(self, time: float) -> tuple[float, float]:
        if not self.jitter:
            return 0.0, 0.0
        swing = np.sin(self._rates * time + self._phases).sum(axis=1) * self.jitter / np.sqrt(1.5)
        return float(swing[0]), float(swing[1])


@dataclass(frozen=True)
class Raster:
    """Snake over the slide, resting at each field: the way a smear is counted.  Endless.

    Blocks of columns lie side by side; after the last that the slide has room for it begins again.

    Attributes
    ----------
    width, height
        Size of the view, px.
    overlap
        Share of a field seen again in the next.
    rest_s, move_s
        Seconds at rest and on the way.
    columns
        Fields in a row.
    extent
        Depth after which the next block of columns begins, px.
    across
        Width of the slide from the start, px: no field reaches beyond it.
    """

    width: int
    height: int
    overlap: float = 0.12
    rest_s: float = 1.2
    move_s: float = 0.7
    columns: int = 12
    extent: float = 80_000.0
    across: float = 160_000.0

    def __iter__(self) -> Iterator[Move]:
        dx, dy = self.width * (1 - self.overlap), self.height * (1 - self.overlap)
        rows = max(1, int(self.extent / dy))
        room = max(1, int((self.across - self.width) / dx) + 1)
        columns = min(self.columns, room)
        side, begin = 1, 0
        while True:
            for row in range(rows):
                yield Rest(self.rest_s)
                for _ in range(columns - 1):
                    yield Pan(side * dx, 0.0, self.move_s)
                    yield Rest(self.rest_s)
                side = -side
                if row + 1 < rows:
                    yield Pan(0.0, dy, self.move_s)
            here = begin + (0 if side > 0 else columns - 1)
            begin = begin + columns if begin + 2 * columns <= room else 0
            yield Pan((begin - here) * dx, -(rows - 1) * dy, 30.0)
            side = 1


@dataclass(frozen=True)
class Wander:
    """Search as a person does: pans, rests, jumps, returns, drifts and refocusing, at random.  Endless.

    Attributes
    ----------
    width, height
        Size of the view, px.
    seed
        Which walk.
    extent
        Farthest position from the start, px.
    """

    width: int
    height: int
    seed: int = 0
    extent: float = 20_000.0

    def __iter__(self) -> Iterator[Move]:
        rng = np.random.default_rng([self.seed, 19])
        x = y = 0.0
        places = [(0.0, 0.0)]
        yield Rest(1.0)
        while True:
            kind = rng.choice(["pan", "jump", "return", "drift", "refocus"], p=[0.56, 0.12, 0.12, 0.1, 0.1])
            if kind == "drift":
                vx, vy, seconds = (float(v) for v in rng.uniform((-3, -3, 1), (3, 3, 3)))
                yield Drift(vx, vy, seconds)
                x, y = x + vx * seconds, y + vy * seconds
            elif kind == "refocus":
                yield Refocus(float(rng.uniform(2, 5) * rng.choice((-1, 1))), float(rng.uniform(0.6, 1.5)))
            elif kind == "return":
                x, y = places[int(rng.integers(len(places)))]
                yield Goto(x, y, float(rng.choice((0.0, 1.5))))
            else:
                far = rng.uniform(0.3, 1.3) if kind == "pan" else rng.uniform(2, 6)
                angle = rng.uniform(0, 2 * np.pi)
                dx, dy = float(far * np.cos(angle) * self.width), float(far * np.sin(angle) * self.height)
                dx = -dx if abs(x + dx) > self.extent else dx
                dy = -dy if abs(y + dy) > self.extent else dy
                yield Pan(dx, dy, float(0.4 + 0.8 * far)) if kind == "pan" else Jump(dx, dy)
                x, y = x + dx, y + dy
            yield Rest(float(rng.uniform(0.6, 1.8)))
            places = [*places[-24:], (x, y)]


# More than any hand's trembling moves the view, px.
_TREMBLE_PX = 16
PROGRAMS = ("raster", "rest", "wander")
"""Names known to `program`."""


def program(name: str, width: int, height: int, seed: int = 0, reach: float = 160_000.0) -> Stage:
    """Return the stage of a named program.

    Parameters
    ----------
    name
        One of `PROGRAMS`.
    width, height
        Size of the view, px.
    seed
        Seeds what is random in it.
    reach
        How far the slide goes from its middle (`Smear.extent`), px; a raster stays within.
    """
    if name == "raster":
        raster = Raster(width, height, extent=min(Raster.extent, reach - height), across=reach - _TREMBLE_PX)
        return Stage(raster, jitter=0.15, seed=seed)
    if name == "wander":
        return Stage(Wander(width, height, seed), jitter=0.15, seed=seed)
    if name == "rest":
        return Stage([Rest(float("inf"))], seed=seed)
    raise ValueError(f"no stage program {name!r}; known: {', '.join(PROGRAMS)}")


def whole_ids(
    smear: Smear,
    poses: Iterable[Pose],
    width: int,
    height: int,
    *,
    max_motion: float = 0.5,
    max_focus: float = 0.5,
    frames: int = 1,
) -> dict[int, int]:
    """Return what a perfect observer counts: each object whole in a resting, sharp view, once.

    Parameters
    ----------
    smear
        The slide.
    poses
        Where the pictures were taken, in order; must end.
    width, height
        Size of the view, px.
    max_motion, max_focus
        Limits of rest (px per exposure) and sharpness.
    frames
        Still pictures in a row before anything counts.

    Returns
    -------
    dict
        Object id to class index, in the order of first sight.
    """
    seen: dict[int, int] = {}
    run, last = 0, None
    for pose in poses:
        run = run + 1 if pose.still(max_motion, max_focus) else 0
        place = (int(np.floor(pose.x + 0.5)), int(np.floor(pose.y + 0.5)))
        if run < frames or place == last:
            continue
        last = place
        for number, code in smear.whole(pose.x, pose.y, width, height):
            seen.setdefault(number, code)
    return seen
