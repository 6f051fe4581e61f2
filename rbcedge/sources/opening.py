"""One grammar for every source."""

from __future__ import annotations

import glob
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from rbcedge.errors import RbcedgeError, UsageError
from rbcedge.sources import images, video
from rbcedge.sources.base import Source
from rbcedge.sources.buffers import Buffers
from rbcedge.sources.images import Stills, is_picture, name_stills, pictures_below
from rbcedge.sources.options import SourceOptions
from rbcedge.sources.quiet import hush
from rbcedge.sources.video import Video

ACCEPTED = (
    "Accepted are pictures, folders, 'slide/*.jpg', a video, a camera (0 or /dev/video0), rtsp://..., http://..., "
    "gst:PIPELINE, sim:"
)


def open_source(
    uris: str | Sequence[str], options: SourceOptions | None = None, buffers: Buffers | None = None
) -> Source:
    """Open what the user named.

    Parameters
    ----------
    uris : str or sequence of str
        One source, or several pictures, folders and globs of pictures. A bare number is a camera; write
        ``./0`` for a folder of that name.
    options : SourceOptions, optional
        Requests for cameras.
    buffers : Buffers, optional
        Pictures that cameras, streams and videos decode into; their frames are then borrowed.

    Raises
    ------
    UsageError
        What was given is no source, or does not go together.
    RbcedgeError
        It cannot be opened; the message says why.
    """
    given = [uris] if isinstance(uris, str) else list(uris)
    if not given:
        raise UsageError(f"no source was given.\n{ACCEPTED}")
    options = SourceOptions() if options is None else options
    hush()
    openers = [(uri, _stream(uri)) for uri in given]
    if len(given) == 1:
        uri, opener = openers[0]
        return _files(given, buffers) if opener is None else opener(uri, options, buffers)
    for uri, opener in openers:
        if opener is not None:
            raise UsageError(
                f"{uri}: a camera, stream or simulation is a source on its own. "
                "Several sources can only be pictures, folders and globs."
            )
    return _files(given, buffers)


_Opener = Callable[[str, SourceOptions, Buffers | None], Source]


def _stream(uri: str) -> _Opener | None:
    """What opens `uri` if it is no file, by its first characters."""
    scheme, colon, _ = uri.partition(":")
    if uri.isascii() and uri.isdecimal():
        return _camera
    path = Path(uri)
    if uri.startswith("/dev/video") or path.is_char_device() or (uri.startswith("/dev/v4l/") and not path.is_dir()):
        return _camera
    if not colon or path.exists():
        return None
    known: dict[str, _Opener] = {
        "camera": _camera,
        "v4l2": _camera,
        "rtsp": _network,
        "rtsps": _network,
        "http": _network,
        "https": _network,
        "gst": _pipeline,
        "sim": _simulated,
    }
    opener = known.get(scheme.lower())
    if opener is None and "://" in uri:
        raise UsageError(f"{uri}: {scheme}:// is no source that is known.\n{ACCEPTED}")
    return opener


def _camera(uri: str, options: SourceOptions, buffers: Buffers | None) -> Source:
    from rbcedge.sources.camera import camera

    return camera(uri, options, buffers=buffers)


def _network(uri: str, options: SourceOptions, buffers: Buffers | None) -> Source:
    from rbcedge.sources.camera import network

    parts = urlsplit(uri)
    if not parts.hostname:
        raise UsageError(f"{uri}: the address names no host, as in {parts.scheme}://192.168.1.20/stream")
    if parts.scheme.startswith("http") and PurePosixPath(parts.path).suffix.lower() in video.SUFFIXES:
        return Video(uri, PurePosixPath(parts.path).name, open_timeout_s=options.open_timeout_s, buffers=buffers)
    return network(uri, options, buffers=buffers)


def _pipeline(uri: str, options: SourceOptions, buffers: Buffers | None) -> Source:
    from rbcedge.sources.camera import pipeline

    return pipeline(uri, options, buffers=buffers)


def _simulated(uri: str, options: SourceOptions, buffers: Buffers | None) -> Source:
    from rbcedge.sources.simulated import simulated

    return simulated(uri)


def _files(given: Sequence[str], buffers: Buffers | None) -> Source:
    """Open files, folders and globs: one video, or any number of pictures."""
    found: list[tuple[Path, Path]] = []
    videos: list[Path] = []
    for uri in given:
        path = Path(uri)
        if path.is_dir():
            inside = pictures_below(path)
            if not inside:
                kinds = ", ".join(sorted(images.SUFFIXES))
                raise RbcedgeError(f"{uri}: no pictures in this folder or below it (looked for {kinds})")
            found += [(path, p) for p in inside]
        elif path.exists():
            if path.suffix.lower() in video.SUFFIXES:
                videos.append(path)
            elif path.suffix.lower() in images.SUFFIXES:
                found.append((path.parent, path))
            else:
                raise UsageError(
                    f"{uri}: neither a picture nor a video by its name. Known are "
                    f"{', '.join(sorted(images.SUFFIXES))} and {', '.join(sorted(video.SUFFIXES))}"
                )
        elif glob.has_magic(uri):
            pictures, films = _matches(uri)
            found += pictures
            videos += films
        else:
            raise RbcedgeError(f"{uri}: no such file or folder.\n{ACCEPTED}")
    if videos and (found or len(videos) > 1):
        raise UsageError(f"{videos[0]}: a video is a source on its own; several sources can only be pictures")
    if videos:
        return Video(str(videos[0]), videos[0].name, buffers=buffers)
    name = given[0] if len(given) == 1 else f"{given[0]} and {len(given) - 1} more"
    return Stills(name_stills(found), name)


def _matches(pattern: str) -> tuple[list[tuple[Path, Path]], list[Path]]:
    """Pictures (with their root) and videos that a glob matches; videos only where no picture does."""
    parts = Path(pattern).parts
    fixed = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    root = Path(*parts[:fixed]) if fixed else Path()
    pictures: list[Path] = []
    videos: list[Path] = []
    for match in glob.glob(pattern, recursive=True):  # noqa: PTH207  (takes absolute patterns too)
        path = Path(match)
        if path.is_dir():
            # `**` lists folders beside the files in them; only a folder matched by name is opened.
            if "**" not in pattern:
                pictures += pictures_below(path)
        elif is_picture(path):
            pictures.append(path)
        elif path.suffix.lower() in video.SUFFIXES:
            videos.append(path)
    if not pictures and not videos:
        raise RbcedgeError(f"{pattern}: no picture or video matches")
    pictures.sort(key=lambda p: [images.natural(part) for part in p.parts])
    return [(root, p) for p in pictures], [] if pictures else videos
