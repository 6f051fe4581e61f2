"""What may be asked of a source."""

from __future__ import annotations

from dataclasses import dataclass

from rbcedge.errors import UsageError


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """Requests for live sources; files and pictures are what they are and ignore them.

    A camera grants what it can. What was really got stands in the source's description.

    Attributes
    ----------
    width, height : int or None
        Picture size in px. Both or neither.
    fps : float or None
        Pictures per second.
    fourcc : str or None
        Pixel format as four characters, for example "MJPG" or "YUYV".
    exposure_ms : float or None
        Exposure time in ms; turns automatic exposure off unless `auto_exposure` is True.
    gain : float or None
        In the camera's own units.
    auto_exposure : bool or None
        None leaves the camera as it is.
    open_timeout_s : float
        How long the first picture may take.
    silence_s : float
        A camera that gives no picture for so long counts as lost.
    retry_first_s, retry_longest_s : float
        Pause before the first attempt to reconnect; it doubles up to the longest.
    retries : int or None
        Failed attempts in a row before giving up; None is for ever.
    """

    width: int | None = None
    height: int | None = None
    fps: float | None = None
    fourcc: str | None = None
    exposure_ms: float | None = None
    gain: float | None = None
    auto_exposure: bool | None = None
    open_timeout_s: float = 10.0
    silence_s: float = 5.0
    retry_first_s: float = 0.5
    retry_longest_s: float = 10.0
    retries: int | None = None

    def __post_init__(self) -> None:
        if (self.width is None) != (self.height is None):
            raise UsageError("a picture size needs both width and height, for example 1280x720")
        for name in ("width", "height", "fps", "exposure_ms", "open_timeout_s", "silence_s", "retry_first_s"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UsageError(f"{name} must be above zero, not {value}")
        if self.fourcc is not None and (len(self.fourcc) != 4 or not self.fourcc.isascii()):
            raise UsageError(f'a pixel format has four characters, for example "MJPG"; not "{self.fourcc}"')
        if self.retry_longest_s < self.retry_first_s:
            raise UsageError("retry_longest_s must not be below retry_first_s")

    @property
    def size(self) -> tuple[int, int] | None:
        """Requested width and height in px."""
        return None if self.width is None or self.height is None else (self.width, self.height)
