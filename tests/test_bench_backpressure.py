"""A pipeline that is slower than the camera: pictures are dropped and counted, and none grows old in a queue."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from threading import Event

import pytest
from fake_camera import FakeCamera
from session_fakes import CODES, DarkPipeline, field_of_discs, make_bundle

from rbcedge.counting.grading import icsh_2015
from rbcedge.counting.quality import Gate
from rbcedge.frame import Frame, Gap
from rbcedge.record import Record, Setup
from rbcedge.session import run
from rbcedge.sinks.base import Start
from rbcedge.sources.live import Live
from rbcedge.sources.options import SourceOptions
from rbcedge.sources.slot import Slot
from rbcedge.store import Store

SHOTS = 4
FIELDS = 12


class Camera:
    """A live source on a slot of one; `shoot` is what the driver does while somebody else is busy."""

    name, kind, description = "camera", "live", "made-up camera"

    def __init__(self) -> None:
        self.slot: Slot[Frame] = Slot()
        self.taken = 0

    def shoot(self, n: int) -> None:
        for _ in range(n):
            self.slot.put(Frame(self.taken, 0.0, field_of_discs(self.taken), self.name))
            self.taken += 1

    @property
    def dropped(self) -> int:
        return self.slot.dropped

    def __len__(self) -> int:
        return 0

    def frames(self) -> Iterator[Frame | Gap]:
        while (frame := self.slot.take(timeout_s=5.0)) is not None:
            yield frame

    def close(self) -> None:
        self.slot.end(discard=True)


class Slow(DarkPipeline):
    """While it looks for cells the camera takes several more pictures."""

    def __init__(self, camera: Camera, fields: int) -> None:
        super().__init__(len(CODES))
        self.camera, self.fields = camera, fields
        self.behind: list[int] = []

    def find(self, frame: Frame):
        # How many pictures newer than this one there are already when work on it begins.
        self.behind.append(self.camera.taken - 1 - frame.index)
        if len(self.behind) < self.fields:
            self.camera.shoot(SHOTS)
        else:
            self.camera.slot.end()
        return super().find(frame)


def count(source, pipeline, folder: Path, bundle) -> None:
    scheme = icsh_2015()
    setup = Setup.of("test", source.name, source.kind, bundle, "fake", "fp32", 1.0, scheme)
    store = Store(folder, setup)
    start = Start(source.name, source.kind, source.description, 0, bundle, "fake", "fp32", 1.0, folder)
    try:
        run(source, pipeline, Gate(), None, scheme, store, [], start, Event())
    finally:
        store.close()


@pytest.mark.parametrize("fields", [FIELDS, 5 * FIELDS])
def test_a_slow_pipeline_drops_counts_and_does_not_fall_behind(tmp_path: Path, fields: int) -> None:
    camera = Camera()
    camera.shoot(1)
    pipeline = Slow(camera, fields)
    count(camera, pipeline, tmp_path / "out", make_bundle(tmp_path / "bundle"))
    # However long it runs, each field that is begun is the newest picture there is.
    assert pipeline.behind == [0] * fields
    assert camera.taken == 1 + SHOTS * (fields - 1)
    assert camera.dropped == camera.taken - fields
    with Record(tmp_path / "out") as record:
        assert record.session.progress["dropped"] == camera.dropped
        assert [row.frame for row in record.fields()] == [SHOTS * k for k in range(fields)]


def test_a_camera_behind_a_driver_behaves_the_same(tmp_path: Path) -> None:
    device = FakeCamera()
    source = Live("camera", device.capture, lambda c, p: "made-up", SourceOptions(silence_s=30.0))
    frames = source.frames()
    seen = []
    try:
        for _ in range(8):
            device.shoot(SHOTS)
            device.settle()
            frame = next(frames)
            assert isinstance(frame, Frame)
            seen.append(frame.index)
        # The picture handed out is the last one taken, whatever was missed meanwhile.
        assert all(b - a == SHOTS for a, b in pairwise(seen))
        assert source.dropped >= (SHOTS - 1) * (len(seen) - 1)
    finally:
        device.finish()
        source.close()
