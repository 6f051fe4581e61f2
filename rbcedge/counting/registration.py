"""Registration of two pictures of a slide: how far did the content move? Phase correlation, checked."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

# Long side of the reduced picture; a field of 20 cells across still has 9 px per cell.
_SIDE = 180
# Slower changes than this (reduced px) are light, not cells.
_HIGH_PASS_PX = 10.0
# Finer changes than this (reduced px) are noise, not cells.
_LOW_PASS_PX = 1.2
# Least share of the picture that both must show, and correlation there.
_OVERLAP, _CORRELATION = 0.12, 0.35
# At rest the shift is no surprise: this correlation suffices within this share of the picture.
_NEAR, _NEAR_CORRELATION = 0.04, 0.7
# Correlation of independent pictures scatters with one over the root of their independent places; the best of
# some ten thousand shifts must exceed this many times that.
_SIGMAS = 5.5
_PX_PER_PLACE = 24.0
_CANDIDATES = 3


@dataclass(frozen=True, slots=True, eq=False)
class Reduced:
    """A picture made ready for registration.

    Attributes
    ----------
    factor : int
        Source px per reduced px.
    detail : (h, w) float32
        Green channel without slow changes of light.
    spectrum : (h, w, 2) float32
        Fourier transform of the windowed detail.
    """

    factor: int
    detail: NDArray[np.float32]
    spectrum: NDArray[np.float32]


def reduce(pixels: NDArray[np.uint8]) -> Reduced:
    """Make a (H, W, 3) uint8 BGR picture ready for `shift_between`."""
    h, w = pixels.shape[:2]
    factor = max(1, round(max(h, w) / _SIDE))
    # Even sizes of small prime factors transform fast; a few px at the right and lower edge are left out.
    small_h, small_w = _fast(max(2, h // factor)), _fast(max(2, w // factor))
    green = cv2.extractChannel(pixels, 1)[: min(h, small_h * factor), : min(w, small_w * factor)]
    small = cv2.resize(green, (small_w, small_h), interpolation=cv2.INTER_AREA).astype(np.float32)
    slow = cv2.blur(small, (int(2 * _HIGH_PASS_PX) + 1, int(2 * _HIGH_PASS_PX) + 1))
    detail = small - slow
    spectrum = cv2.dft(detail * _window(small_h, small_w), flags=cv2.DFT_COMPLEX_OUTPUT)
    return Reduced(factor, detail, spectrum)


def shift_between(before: Reduced, after: Reduced) -> tuple[float, float] | None:
    """Return how far the content moved, x and y in source px, or None if the pictures have nothing in common.

    A peak of the phase correlation is only believed where the two pictures really look alike at that shift.
    """
    if before.detail.shape != after.detail.shape or before.factor != after.factor:
        return None
    cross = cv2.mulSpectrums(after.spectrum, before.spectrum, 0, conjB=True)
    size = cv2.magnitude(cross[:, :, 0], cross[:, :, 1])
    # Half-way between correlation and phase correlation: sharp peaks without raising the noise.
    weight = _band(*size.shape) / (size + np.float32(1e-3) * size.mean() + np.float32(1e-12))
    cross *= weight[:, :, None]
    surface = cv2.idft(cross, flags=cv2.DFT_REAL_OUTPUT | cv2.DFT_SCALE)
    for _ in range(_CANDIDATES):
        _, _, _, (px, py) = cv2.minMaxLoc(surface)
        shift = _believed(before.detail, after.detail, px, py)
        if shift is not None:
            dx, dy = _subpixel(surface, px, py)
            return (shift[0] + dx) * after.factor, (shift[1] + dy) * after.factor
        rows = np.arange(py - 2, py + 3) % surface.shape[0]
        columns = np.arange(px - 2, px + 3) % surface.shape[1]
        surface[np.ix_(rows, columns)] = -1
    return None


def _believed(before: NDArray[np.float32], after: NDArray[np.float32], px: int, py: int) -> tuple[int, int] | None:
    """Return the shift meant by a peak (the transform is periodic, so up to four) if the pictures agree."""
    h, w = before.shape
    for dx in (px, px - w) if px else (0,):
        for dy in (py, py - h) if py else (0,):
            if (w - abs(dx)) * (h - abs(dy)) < _OVERLAP * w * h:
                continue
            a = before[max(0, -dy) : h - max(0, dy), max(0, -dx) : w - max(0, dx)]
            b = after[max(0, dy) : h - max(0, -dy), max(0, dx) : w - max(0, -dx)]
            if _alike(a, b, near=abs(dx) < _NEAR * w and abs(dy) < _NEAR * w):
                return dx, dy
    return None


def _alike(a: NDArray[np.float32], b: NDArray[np.float32], near: bool) -> bool:
    aa, bb = a * a, b * b
    energy = float(np.sqrt(aa.sum(dtype=np.float64) * bb.sum(dtype=np.float64)))
    if energy <= 0:
        return False
    correlation = float((a * b).sum(dtype=np.float64)) / energy
    if near and correlation >= _NEAR_CORRELATION:
        return True
    # Few cells on an empty ground are few independent places, however large the picture: count by energy.
    places = energy**2 / max(float((aa * bb).sum(dtype=np.float64)), 1e-30) / _PX_PER_PLACE
    spread = float(aa.sum(dtype=np.float64)) ** 2 / max(float((aa * aa).sum(dtype=np.float64)), 1e-30)
    places = min(places, spread / _PX_PER_PLACE * 3)
    return correlation >= _CORRELATION and correlation * places**0.5 >= _SIGMAS


def _subpixel(surface: NDArray[np.float32], px: int, py: int) -> tuple[float, float]:
    h, w = surface.shape
    middle = float(surface[py, px])
    return (
        _vertex(float(surface[py, px - 1]), middle, float(surface[py, (px + 1) % w])),
        _vertex(float(surface[py - 1, px]), middle, float(surface[(py + 1) % h, px])),
    )


def _vertex(left: float, middle: float, right: float) -> float:
    """Where a parabola through three points has its top, -0.5 to 0.5."""
    bend = left - 2 * middle + right
    return max(-0.5, min(0.5, (left - right) / (2 * bend))) if bend < 0 else 0.0


def _window(h: int, w: int) -> NDArray[np.float32]:
    return np.outer(np.hanning(h + 2)[1:-1], np.hanning(w + 2)[1:-1]).astype(np.float32)


def _band(h: int, w: int) -> NDArray[np.float32]:
    y, x = np.fft.fftfreq(h)[:, None], np.fft.fftfreq(w)[None, :]
    return np.exp(-2 * (np.pi * _LOW_PASS_PX) ** 2 * (x * x + y * y)).astype(np.float32)


def _fast(n: int) -> int:
    """The largest size up to `n` that transforms fast: even, of the primes 2, 3 and 5."""
    for size in range(n - n % 2, 1, -2):
        rest = size
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return size
    return n
