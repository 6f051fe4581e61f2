"""Keep the libraries below OpenCV from writing on the user's terminal."""

from __future__ import annotations

import os

import cv2


def hush() -> None:
    """Silence OpenCV and FFmpeg for this process, unless the user set their log levels in the environment.

    Every failure they report also comes back as a return value, and is told in our own words. FFmpeg's level
    is read once, when OpenCV first opens a video, so this is called before any source is opened.
    """
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # AV_LOG_QUIET
    if "OPENCV_LOG_LEVEL" not in os.environ:
        # OpenCV 5 moved it.
        set_level = cv2.setLogLevel if hasattr(cv2, "setLogLevel") else cv2.utils.logging.setLogLevel
        set_level(0)
