"""What a source of pictures is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, Protocol

from rbcedge.frame import Frame, Gap

Kind = Literal["live", "video", "stills"]


class Source(Protocol):
    """Where frames come from.

    ``live``: pictures arrive in their own time and the newest wins; ``video``: every picture is processed, in
    order, and neighbours show the same field; ``stills``: each picture is a field of its own.
    """

    @property
    def name(self) -> str:
        """Short name for titles and records."""

    @property
    def kind(self) -> Kind:
        """How the pictures relate to each other."""

    @property
    def description(self) -> str:
        """One line for people: what was opened, at what size and frame rate, known after opening."""

    @property
    def dropped(self) -> int:
        """Pictures of a live source that came and were never handed out, so far; 0 for files."""

    def __len__(self) -> int:
        """Number of pictures where it is known beforehand, otherwise 0."""

    def frames(self) -> Iterator[Frame | Gap]:
        """Yield frames in order and a `Gap` for whatever was lost. May be called once."""

    def close(self) -> None:
        """Release the device or file. Safe to call twice and from another thread; ends `frames`."""
