"""The ledger: every cell of the slide is counted once, however often and in whatever order it is seen."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from rbcedge.counting.constellation import (
    Match,
    Points,
    Window,
    candidates_anywhere,
    candidates_near,
    distinct,
    refine,
    trials,
    trials_anywhere,
)
from rbcedge.counting.motion import Course, Motion, Tracker
from rbcedge.counting.places import Places, Shapes, covered, shapes_of, touching
from rbcedge.field import Field
from rbcedge.frame import Frame


@dataclass(frozen=True, slots=True)
class Config:
    """What the ledger takes for the same place and the same cell. Lengths are native px.

    Attributes
    ----------
    diameter_px : float
        Diameter of a single red cell (`Bundle.diameter_px`).
    moving_px_per_s : float
        Faster than this the slide is moving.
    certainty : float
        A place is recognised when its likelihood ratio exceeds that of the best chance match by exp(certainty).
    margin : float
        ... and that of the second best place by exp(margin).
    same_centre : float
        Cells of like area are one if their centres are nearer than this share of their diameter.
    same_place : float
        Cells are one if this share of either is covered by the other: a cell that was counted is not
        counted again as a part of a clump, nor a clump in parts.
    """

    diameter_px: float = 38.0
    moving_px_per_s: float = 100.0
    certainty: float = 6.0
    margin: float = 8.0
    same_centre: float = 0.35
    same_place: float = 0.35


@dataclass(frozen=True, slots=True, eq=False)
class Placement:
    """Where a field lies, and which of its cells are new.

    Attributes
    ----------
    ids : (N,) int64
        For each cell of the field the number under which it is counted, stable for the whole run; -1 for
        cells that are not (touching the border and never seen whole).
    new : (N,) bool
        Counted now for the first time: classify these, then `Ledger.commit`.
    patch : int
        Which of the unconnected patches of slide coordinates.
    offset : (float, float)
        Position of the field's corner in the patch, native px.
    recognised : int
        Stored cells found again where they should be.
    retracted : (M,) int64
        Ids that turned out to be cells counted before under another id: take them back. It happens where two
        patches meet of which nobody could know that they overlap.
    """

    ids: NDArray[np.int64]
    new: NDArray[np.bool_]
    patch: int
    offset: tuple[float, float]
    recognised: int
    retracted: NDArray[np.int64]
    _cells: Shapes = field(repr=False)
    _merge: _Merge | None = field(repr=False)
    _course: Course | None = field(repr=False)
    _commits: int = field(repr=False)


@dataclass(frozen=True, slots=True, eq=False)
class _Merge:
    """Patch `gone` becomes part of another, displaced; `ids` there are the same cells as `others`."""

    gone: int
    by: NDArray[np.float64]
    ids: NDArray[np.int64]
    others: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Anchor:
    """The field that was placed last."""

    patch: int
    offset: tuple[float, float]
    course: Course | None
    scale: float
    size: tuple[int, int]


class Ledger:
    """Counts once.

    For each frame `observe`; for a frame that rests and is countable `place`, classify the new cells, `commit`.

    Examples
    --------
    >>> ledger = Ledger(Config(diameter_px=38))
    >>> motion = ledger.observe(frame)                           # doctest: +SKIP
    >>> placement = ledger.place(field)                          # doctest: +SKIP
    >>> ledger.commit(placement, classified)                     # doctest: +SKIP
    """

    def __init__(self, config: Config = Config()) -> None:
        self._config = config
        self._tracker = Tracker(config.moving_px_per_s)
        self._places = Places()
        self._anchor: _Anchor | None = None
        self._patches = 0
        self._unsearched = 0
        self._commits = 0

    def __len__(self) -> int:
        """Number of cells counted and not taken back."""
        return int((self._places.patches >= 0).sum())

    @property
    def patches(self) -> int:
        """Number of unconnected patches of the slide seen so far."""
        own = self._places.patches
        return len(np.unique(own[own >= 0]))

    def observe(self, frame: Frame, scale: float = 1.0) -> Motion:
        """Register a frame with those before it; about a millisecond, without segmentation.

        Parameters
        ----------
        frame : Frame
        scale : float
            Native px per source px (`Pipeline.scale`).
        """
        return self._tracker.observe(frame, scale)

    def place(self, field: Field) -> Placement:
        """Find out where a field lies on the slide and which of its cells were never counted.

        Nothing is stored before `commit`; a field may be placed and dropped.
        """
        self._correct(field)
        cells = shapes_of(field)
        whole = np.flatnonzero(~field.cells.on_border)
        view = _View(cells.take(whole), field, self._config)
        course = self._tracker.course(field.frame)
        patch, match = self._locate(view, field.scale, course)
        offset = np.array(match.offset)
        merge = self._meet(view, patch, offset)
        ids = self._known(cells, patch, offset, merge)
        new = (ids < 0) & ~field.cells.on_border
        ids[new] = len(self._places) + np.arange(new.sum())
        return Placement(
            ids=ids,
            new=new,
            patch=patch,
            offset=match.offset,
            recognised=match.pairs,
            retracted=np.zeros(0, np.int64) if merge is None else merge.ids,
            _cells=cells.moved(offset),
            _merge=merge,
            _course=course,
            _commits=self._commits,
        )

    def commit(self, placement: Placement, field: Field) -> None:
        """Store the new cells of a placement with their class probabilities.

        Raises
        ------
        ValueError
            If another field was committed since the placement was made.
        """
        if placement._commits != self._commits:
            raise ValueError("another field was committed since this placement was made")
        self._commits += 1
        merge = placement._merge
        if merge is not None:
            self._places.identify(merge.ids, merge.others)
            self._places.move(merge.gone, placement.patch, merge.by)
        rows = np.flatnonzero(placement.new)
        self._places.add(placement._cells.take(rows), placement.patch, field.cells.probabilities[rows])
        self._patches = max(self._patches, placement.patch + 1)
        self._unsearched += len(rows)
        self._anchor = _Anchor(placement.patch, placement.offset, placement._course, field.scale, field.frame.size)

    def known(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the (len(ids), K) class probabilities of counted cells, NaN for -1."""
        return self._places.probabilities(ids)

    def _correct(self, field: Field) -> None:
        """Bring stored cells to a magnification that is known better now than when they were stored.

        The first fields of a run are measured one by one. The same camera at the same picture size still sees
        the slide as before: what changed is the length of a native px in source px.
        """
        anchor = self._anchor
        if anchor is None or anchor.scale == field.scale or anchor.size != field.frame.size:
            return
        factor = field.scale / anchor.scale
        self._places.stretch(factor)
        offset = (anchor.offset[0] * factor, anchor.offset[1] * factor)
        self._anchor = replace(anchor, offset=offset, scale=field.scale)

    def _locate(self, view: _View, scale: float, course: Course | None) -> tuple[int, Match]:
        """Say where the field lies: followed from the last place, recognised, or a new patch."""
        anchor = self._anchor
        if anchor is not None and anchor.scale == scale:
            followed = self._follow(view, anchor, course)
            if followed is not None:
                return anchor.patch, followed
            # Focus lost and found, or a jerk: most often still or again the same place.
            back = self._search_near(view, anchor.patch, np.array(anchor.offset), self._config.diameter_px)
            if back is not None and back.score > np.log(trials(self._config.diameter_px)) + 5:
                return anchor.patch, back
        found = self._search_anywhere(view, np.flatnonzero(self._places.patches >= 0))
        return found if found is not None else (self._patches, Match((0.0, 0.0), 0.0, 0))

    def _follow(self, view: _View, anchor: _Anchor, course: Course | None) -> Match | None:
        """Where the field lies if the way since the last placed field was followed without a break."""
        start = anchor.course
        if course is None or start is None or course.leg != start.leg:
            return None
        way = np.array([course.x - start.x, course.y - start.y]) * anchor.scale
        expected = np.array(anchor.offset) - way
        # The way is measured well, but errors add up while no cell can be recognised.
        radius = min(self._config.diameter_px, 5.0 + 0.03 * (course.way - start.way) * anchor.scale)
        best = self._search_near(view, anchor.patch, expected, radius)
        if best is None:
            return Match((float(expected[0]), float(expected[1])), 0.0, 0)
        if best.score > 0:
            return best
        # A few cells that went missing, or a segmentation that failed, say less than the way does.
        if best.score > -6 or len(view.points) < best.expected / 2:
            return Match((float(expected[0]), float(expected[1])), best.score, 0)
        return None

    def _search_near(self, view: _View, patch: int, offset: NDArray[np.float64], radius: float) -> Match | None:
        """Return the best match near a guess; None if no stored cell should be in view there."""
        reach = radius + self._config.diameter_px
        ids = self._places.in_patch(patch, offset - reach, offset + view.size + reach)
        stored = self._places.points(ids)
        if not view.window.holds(stored.positions, offset).any():
            return None
        guesses = candidates_near(view.points, stored, offset, radius)
        matches = [refine(view.points, stored, guess, view.window, view.crowd) for guess in guesses]
        within = [m for m in matches if np.abs(np.array(m.offset) - offset).max() <= radius + 5]
        return max(within or matches[:1], key=lambda m: m.score)

    def _search_anywhere(self, view: _View, ids: NDArray[np.intp]) -> tuple[int, Match] | None:
        """Recognise the field among stored cells, beyond reasonable doubt; None otherwise."""
        if len(view.points) < 4 or not len(ids):
            return None
        stored, patches = self._places.points(ids), self._places.patches[ids]
        matches: list[tuple[int, Match]] = []
        for patch, offset in candidates_anywhere(view.points, stored, patches):
            reach = self._config.diameter_px
            own = self._places.points(self._places.in_patch(patch, offset - reach, offset + view.size + reach))
            matches.append((patch, refine(view.points, own, offset, view.window, view.crowd)))
        if not matches:
            return None
        matches.sort(key=lambda m: -m[1].score)
        patch, best = matches[0]
        others = [m for p, m in matches[1:] if p != patch or distinct(m, best)]
        second = max((m.score for m in others), default=0.0)
        chance = np.log(trials_anywhere(stored, patches, (float(view.size[0]), float(view.size[1]))))
        if best.score < chance + self._config.certainty or best.score < second + self._config.margin:
            return None
        return patch, best

    def _meet(self, view: _View, patch: int, offset: NDArray[np.float64]) -> _Merge | None:
        """Find another patch that this field also shows: then the two are one."""
        others = np.flatnonzero((self._places.patches >= 0) & (self._places.patches != patch))
        # A place that begins a patch was just looked for everywhere.
        if not len(others) or patch == self._patches:
            return None
        near = self._places.in_patch(patch, offset, offset + view.size)
        # Each search costs; it is worth it when enough cells are in view that were not there at the last one.
        if self._unsearched + max(0, len(view.points) - len(near)) < 6:
            return None
        self._unsearched = 0
        found = self._search_anywhere(view, others)
        if found is None:
            return None
        gone, match = found
        by = offset - np.array(match.offset)
        theirs, ours = self._shared(gone, by, patch)
        return _Merge(gone, by, theirs, ours)

    def _shared(self, gone: int, by: NDArray[np.float64], patch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return ids of a patch displaced by `by` and the ids in another patch of the same cells."""
        theirs, ours = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        every = np.flatnonzero(self._places.patches == gone)
        # Piece by piece: pairs of all with all would not fit into memory on a long run.
        order = np.argsort(self._places.points(every).positions[:, 0], kind="stable")
        for piece in np.array_split(every[order], max(1, len(every) // 256)):
            cells = self._places.shapes(piece).moved(by)
            reach = 2 * self._config.diameter_px
            near = self._places.in_patch(patch, cells.centres.min(0) - reach, cells.centres.max(0) + reach)
            same = _same(cells, self._places.shapes(near), self._config)
            theirs.append(piece[same >= 0].astype(np.int64))
            ours.append(near[same[same >= 0]].astype(np.int64))
        return np.concatenate(theirs), np.concatenate(ours)

    def _known(self, cells: Shapes, patch: int, offset: NDArray[np.float64], merge: _Merge | None) -> NDArray[np.int64]:
        """Return the stored id of each cell of the field, -1 where there is none."""
        size = cells.boxes[:, :2] + cells.boxes[:, 2:]
        low = offset - 2 * self._config.diameter_px
        high = offset + (size.max(0) if len(cells) else 0) + 2 * self._config.diameter_px
        ids = self._places.in_patch(patch, low, high)
        stored = self._places.shapes(ids)
        if merge is not None:
            more = self._places.in_patch(merge.gone, low - merge.by, high - merge.by)
            more = more[~np.isin(more, merge.ids)]
            ids, stored = (
                np.concatenate([ids, more]),
                stored.joined(self._places.shapes(more).moved(merge.by)),
            )
        same = _same(cells.moved(offset), stored, self._config)
        return np.where(same >= 0, ids[same] if len(ids) else -1, -1).astype(np.int64)


class _View:
    """A field as the search sees it: its whole cells, its size and how crowded it is."""

    def __init__(self, whole: Shapes, field: Field, config: Config) -> None:
        w, h = field.frame.size
        self.size = np.array([w, h]) * field.scale
        self.points: Points = whole.points
        # Stored cells are surely whole in view only some way from the border.
        m = 0.75 * config.diameter_px
        self.window = Window(m, m, float(self.size[0]) - m, float(self.size[1]) - m)
        self.crowd = max(len(whole), 1) / float(np.prod(self.size))


def _same(cells: Shapes, stored: Shapes, config: Config) -> NDArray[np.intp]:
    """Return for each cell the row of the stored cell it is, or -1. Both in the same coordinates."""
    result = np.full(len(cells), -1, np.intp)
    if not len(cells) or not len(stored):
        return result
    rows, columns = touching(cells, stored)
    own, other = cells.areas[rows], stored.areas[columns]
    smaller, larger = np.minimum(own, other), np.maximum(own, other)
    apart = ((cells.centres[rows] - stored.centres[columns]) ** 2).sum(1)
    centred = (larger < 1.6 * smaller) & (apart < config.same_centre**2 * smaller * (4 / np.pi))
    found = np.zeros(len(cells), np.bool_)
    found[rows[centred]] = True
    # Most cells are found by their centres. For the others, cut or joined differently, look at the extent.
    unclear = ~found[rows]
    rows, columns = (
        np.concatenate([rows[centred], rows[unclear]]),
        np.concatenate([columns[centred], columns[unclear]]),
    )
    nearness = np.concatenate([2 - apart[centred] / smaller[centred], np.zeros(unclear.sum())])
    if unclear.any():
        r, c = rows[centred.sum() :], columns[centred.sum() :]
        share, back = covered(cells, stored, r, c), covered(stored, cells, c, r)
        # A cell may be covered by several stored ones together, each of them too little.
        together = np.bincount(r, share, len(cells))[r]
        same = ((together >= config.same_place) & (share > 0)) | (back >= config.same_place)
        nearness[centred.sum() :] = np.where(same, np.maximum(share, back), -1)
    order = np.argsort(nearness, kind="stable")
    order = order[nearness[order] >= 0]
    # The nearest is written last and stays.
    result[rows[order]] = columns[order]
    return result
