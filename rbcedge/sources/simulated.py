"""The simulated microscope as a source: ``sim:?seed=1&bur=0.2&pan=raster``."""

from __future__ import annotations

import atexit
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from threading import Event, Lock, Thread
from typing import TypeVar
from urllib.parse import parse_qsl

import numpy as np

from rbcedge.errors import UsageError
from rbcedge.frame import Frame, Gap
from rbcedge.simulator.composition import CODES, Composition
from rbcedge.simulator.look import Look
from rbcedge.simulator.smear import Smear
from rbcedge.simulator.stage import PROGRAMS, Pose, program
from rbcedge.simulator.view import View
from rbcedge.sources.base import Kind
from rbcedge.sources.slot import Slot

Number = TypeVar("Number", int, float)

# Full names may be written as well as codes.
_SPOKEN = {
    "normal": "NOR",
    "oval": "OVA",
    "teardrop": "TEA",
    "fragmented": "FRA",
    "burr": "BUR",
    "other": "OTH",
}
_OTHERS = ("seed", "pan", "size", "fps", "frames", "speed", "diameter", "density", "look", "strength")


@dataclass(frozen=True, slots=True)
class Script:
    """What the simulated microscope shows.

    Attributes
    ----------
    seed : int
        Which slide, and which walk over it.
    shares : mapping of class code to share
        Shares of all objects, 0 to 1; classes not named share the rest in their usual proportions.
    pan : str
        Stage program: "raster", "rest" or "wander".
    width, height : int
        px.
    fps : float
    frames : int
        How many pictures the camera takes; 0 is endless.
    realtime : bool
        Paced like a camera, the newest picture wins; otherwise as fast as they are wanted, every one.
    diameter : float or None
        Diameter of a normal cell in px; None leaves it to the look.
    density : float or None
        Objects per 100 x 100 µm; None is the usual.
    look : int or None
        Seed of a random stain, light and camera; None is the plain look.
    strength : float
        How far a random look strays, 0 to 1.
    """

    seed: int = 0
    shares: dict[str, float] = field(default_factory=dict)
    pan: str = "raster"
    width: int = 640
    height: int = 480
    fps: float = 30.0
    frames: int = 0
    realtime: bool = True
    diameter: float | None = None
    density: float | None = None
    look: int | None = None
    strength: float = 1.0

    def composition(self) -> Composition:
        """What is on the slide."""
        usual = Composition()
        if self.shares:
            rest = {code: usual.fractions[code] for code in CODES if code not in self.shares}
            left = 1.0 - sum(self.shares.values())
            total = sum(rest.values())
            mix = {**self.shares, **{code: left * f / total for code, f in rest.items()}}
        else:
            mix = dict(usual.fractions)
        return Composition(fractions=mix, density=usual.density if self.density is None else self.density)

    def appearance(self) -> Look:
        """How it looks."""
        plain = Look()
        chosen = plain if self.look is None else Look.sample(np.random.default_rng(self.look), self.strength)
        if self.diameter is None:
            return chosen
        # The same slide under another objective: a pixel covers more or less of it.
        um = chosen.um_per_px * chosen.cell_px / self.diameter
        return replace(chosen, cell_px=self.diameter, um_per_px=um)


def parse(uri: str) -> Script:
    """Read ``sim:`` or ``sim:?name=value&...``.

    Raises
    ------
    UsageError
        Naming the unknown parameter or the bad value, and what is known.
    """
    query = uri[len("sim:") :].removeprefix("//")
    if query and not query.startswith("?"):
        raise UsageError(f"{uri}: parameters of sim: stand after a question mark, as in sim:?seed=1&bur=0.2")
    try:
        pairs = parse_qsl(query[1:], keep_blank_values=True, strict_parsing=bool(query[1:]))
    except ValueError as error:
        raise UsageError(f"{uri}: parameters are written name=value, joined by &") from error
    classes = {code.lower(): code for code in CODES} | _SPOKEN
    given: dict[str, str] = {}
    shares: dict[str, float] = {}
    for name, value in pairs:
        if name not in classes and name not in _OTHERS:
            known = ", ".join((*_OTHERS, *classes))
            raise UsageError(f"{uri}: sim: has no parameter {name!r}. It has: {known}")
        if name in given or classes.get(name) in shares:
            raise UsageError(f"{uri}: {name} is given twice")
        if name in classes:
            shares[classes[name]] = _number(uri, name, value, float, 0.0, 1.0)
        else:
            given[name] = value
    total = sum(shares.values())
    if total > 1 + 1e-9 or (len(shares) == len(CODES) and total == 0):
        raise UsageError(f"{uri}: the shares of the classes add up to {total:g}; they must not exceed 1")

    def whole(name: str, default: int, low: int, high: int) -> int:
        return _number(uri, name, given[name], int, low, high) if name in given else default

    def real(name: str, low: float, high: float) -> float | None:
        return _number(uri, name, given[name], float, low, high) if name in given else None

    width, height = _size(uri, given.get("size", "640x480"))
    fps, strength = real("fps", 0.1, 1000.0), real("strength", 0.0, 1.0)
    return Script(
        seed=whole("seed", 0, 0, 2**31 - 1),
        shares=shares,
        pan=_choice(uri, "pan", given.get("pan", "raster"), PROGRAMS),
        width=width,
        height=height,
        fps=30.0 if fps is None else fps,
        frames=whole("frames", 0, 0, 10**9),
        realtime=_choice(uri, "speed", given.get("speed", "realtime"), ("realtime", "max")) == "realtime",
        diameter=real("diameter", 12.0, 200.0),
        density=real("density", 0.0, 200.0),
        look=whole("look", 0, 0, 2**31 - 1) if "look" in given else None,
        strength=1.0 if strength is None else strength,
    )


def _number(uri: str, name: str, text: str, kind: Callable[[str], Number], low: Number, high: Number) -> Number:
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or not low <= value <= high:
        what = "a whole number" if kind is int else "a number"
        raise UsageError(f"{uri}: {name} must be {what} from {low} to {high}, not {text!r}")
    return value


def _choice(uri: str, name: str, text: str, known: tuple[str, ...]) -> str:
    if text not in known:
        raise UsageError(f"{uri}: {name} must be one of {', '.join(known)}, not {text!r}")
    return text


def _size(uri: str, text: str) -> tuple[int, int]:
    width, by, height = text.partition("x")
    if not by:
        raise UsageError(f"{uri}: size is written as width x height, for example 640x480, not {text!r}")
    return _number(uri, "size", width, int, 16, 8192), _number(uri, "size", height, int, 16, 8192)


def simulated(uri: str) -> Simulated:
    """Open ``sim:…``."""
    return Simulated(parse(uri), uri)


class Simulated:
    """A microscope that is drawn: with exact truth, and no glass.

    In real time it behaves like a camera: pictures come at the frame rate whether anybody looks or not, the
    newest wins, the others are counted as dropped. At full speed it is a video: every picture, the same in
    every run.

    Parameters
    ----------
    script : Script
    name : str
    """

    def __init__(self, script: Script, name: str = "sim:") -> None:
        self.script = script
        self._name = name
        self._smear = Smear(script.seed, script.composition(), script.appearance())
        self._slot: Slot[tuple[Frame, View]] = Slot()
        self._stop = Event()
        self._camera = Thread(target=self._film, name="rbcedge-simulated", daemon=True)
        self._lock = Lock()
        self._started = False
        self._missed = 0
        self._error: Exception | None = None
        self._last_view: View | None = None

    @property
    def name(self) -> str:
        return self._name

    @property
    def kind(self) -> Kind:
        return "live" if self.script.realtime else "video"

    @property
    def description(self) -> str:
        s = self.script
        length = f", {s.frames} frames" if s.frames else ""
        pace = "" if s.realtime else ", as fast as it is read"
        picture = f"{s.width}x{s.height} at {s.fps:g} fps{length}"
        return f"simulated microscope, {picture}, {s.pan}, seed {s.seed}{pace}"

    @property
    def dropped(self) -> int:
        """Pictures taken and never handed out."""
        return self._slot.dropped + self._missed

    @property
    def last_view(self) -> View | None:
        """The truth of the frame handed out last: labels, objects, place on the slide."""
        return self._last_view

    def __len__(self) -> int:
        return 0 if self.script.realtime else self.script.frames

    def poses(self) -> Iterator[Pose]:
        """Where every picture is taken, in order; endless if the script is."""
        s = self.script
        poses = program(s.pan, s.width, s.height, s.seed, self._smear.extent).poses(s.fps)
        return islice(poses, s.frames) if s.frames else poses

    def _draw(self, index: int, pose: Pose) -> View:
        s = self.script
        return self._smear.view(
            pose.x, pose.y, s.width, s.height, focus=pose.focus, motion=pose.motion, noise_seed=index
        )

    def frames(self) -> Iterator[Frame | Gap]:
        with self._lock:
            if self._started or self._stop.is_set():
                return
            self._started = True
        yield from self._live() if self.script.realtime else self._every()

    def _every(self) -> Iterator[Frame | Gap]:
        for index, pose in enumerate(self.poses()):
            if self._stop.is_set():
                return
            view = self._draw(index, pose)
            self._last_view = view
            yield Frame(index, pose.time_s, view.pixels, self._name)

    def _live(self) -> Iterator[Frame | Gap]:
        atexit.register(self.close)
        self._camera.start()
        try:
            while (shot := self._slot.take()) is not None:
                frame, self._last_view = shot
                yield frame
            if self._error is not None:
                raise self._error
        finally:
            self.close()

    def _film(self) -> None:
        """Take pictures on time; those whose time passed while one was drawn are missed."""
        begun: float | None = None
        try:
            for index, pose in enumerate(self.poses()):
                if begun is not None:
                    late = time.monotonic() - begun - pose.time_s
                    if late > 1.0 / self.script.fps and not self._is_last(index):
                        self._missed += 1
                        continue
                    if self._stop.wait(max(0.0, -late)):
                        return
                view = self._draw(index, pose)
                if begun is None:
                    # The first picture takes longest, as the slide around it is drawn: the clock starts then.
                    begun = time.monotonic() - pose.time_s
                self._slot.put((Frame(index, begun + pose.time_s, view.pixels, self._name), view))
                if self._stop.is_set():
                    return
        except Exception as error:  # raised again where the pictures are read
            self._error = error
        finally:
            self._slot.end()

    def _is_last(self, index: int) -> bool:
        return index + 1 == self.script.frames

    def close(self) -> None:
        self._stop.set()
        self._slot.end(discard=True)
        if self._camera.is_alive():
            self._camera.join(timeout=5.0)
        atexit.unregister(self.close)
