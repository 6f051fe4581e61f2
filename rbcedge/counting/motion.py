"""How far the slide moved between pictures, known before anything is segmented."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from rbcedge.counting.registration import Reduced, reduce, shift_between
from rbcedge.frame import Frame

# A new reference picture is taken when the old one has moved by this share of the picture.
_LEAVE = 0.3
# Pictures further apart than this say nothing of speed: the stage may have gone and rested.
_CONTINUOUS_S = 0.15
# Shorter ways are measurement noise, native px.
_NOISE_PX = 1.0
_REMEMBERED = 64


@dataclass(frozen=True, slots=True)
class Motion:
    """Movement from the frame before to this one.

    Attributes
    ----------
    moving : bool
        The slide moves too fast for cells to be read; there is no need to look for them.
    jump : bool
        The two frames could not be registered: another place, or focus lost. (Also the very first frame.)
    shift : (float, float)
        How far the picture's content moved, x and y in source px; (0, 0) for a jump.
    """

    moving: bool = False
    jump: bool = False
    shift: tuple[float, float] = (0.0, 0.0)

    @property
    def pixels(self) -> float:
        """Length of the shift, source px."""
        return float((self.shift[0] ** 2 + self.shift[1] ** 2) ** 0.5)


@dataclass(frozen=True, slots=True)
class Course:
    """Where a frame stands on the way travelled so far.

    Attributes
    ----------
    leg : int
        Number of jumps before it: positions of one leg can be compared.
    x, y : float
        Sum of the content's shifts since the leg began, source px.
    way : float
        Length of the way travelled, source px.
    """

    leg: int
    x: float
    y: float
    way: float


class Tracker:
    """Registers each frame with a reference frame, which is replaced when most of it has left the view.

    A field at rest is thus always compared with the same picture: errors do not add up.
    """

    def __init__(self, moving_px_per_s: float) -> None:
        self._limit = moving_px_per_s
        self._reference: tuple[Reduced, Course] | None = None
        self._last: tuple[Reduced, Course, float] | None = None
        self._courses: OrderedDict[int, Course] = OrderedDict()

    def observe(self, frame: Frame, scale: float) -> Motion:
        """Register a frame; `scale` is native px per source px."""
        reduced = reduce(frame.pixels)
        motion, course = self._follow(reduced, frame, scale)
        # As seldom as can be: every change of reference adds its error to the way.
        if self._reference is None or motion.jump or self._left(reduced, course):
            self._reference = (reduced, course)
        self._last = (reduced, course, frame.time_s)
        self._courses[frame.index] = course
        while len(self._courses) > _REMEMBERED:
            self._courses.popitem(last=False)
        return motion

    def course(self, frame: Frame) -> Course | None:
        """Return where an observed frame stands; None if it was not observed lately."""
        return self._courses.get(frame.index)

    def _follow(self, reduced: Reduced, frame: Frame, scale: float) -> tuple[Motion, Course]:
        if self._last is None or self._reference is None:
            return Motion(jump=True), Course(0, 0.0, 0.0, 0.0)
        last_reduced, last, last_s = self._last
        known, start = self._reference
        shift = shift_between(known, reduced)
        if shift is None and known is not last_reduced:
            shift, start = shift_between(last_reduced, reduced), last
        if shift is None:
            return Motion(jump=True), Course(last.leg + 1, 0.0, 0.0, 0.0)
        x, y = start.x + shift[0], start.y + shift[1]
        step = (x - last.x, y - last.y)
        length = float((step[0] ** 2 + step[1] ** 2) ** 0.5)
        elapsed = frame.time_s - last_s
        native = length * scale
        moving = 0 < elapsed < _CONTINUOUS_S and native > _NOISE_PX and native > self._limit * elapsed
        return Motion(moving, False, step), Course(last.leg, x, y, last.way + length)

    def _left(self, reduced: Reduced, course: Course) -> bool:
        assert self._reference is not None
        h, w = reduced.detail.shape
        start = self._reference[1]
        limit = _LEAVE * reduced.factor
        return bool(abs(course.x - start.x) > limit * w or abs(course.y - start.y) > limit * h)
