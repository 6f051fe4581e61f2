"""From light that comes through the slide to the camera's picture."""

from __future__ import annotations

import cv2
import numpy as np

from rbcedge.simulator.look import Look

CLEAR = 225
"""Code of full transmission in a light map; the rest up to 255 is room for bright halos."""


class Camera:
    """Microscope optics and camera with one look; keeps what does not change between pictures.

    Parameters
    ----------
    look
        Appearance.
    seed
        Seeds dust shadows and noise.
    """

    def __init__(self, look: Look, seed: int) -> None:
        self.look = look
        self.seed = seed
        self._light: dict[tuple[int, int], np.ndarray] = {}
        self._noise: dict[tuple[int, int], np.ndarray] = {}
        self._curve = _curve(look)

    def blur_px(self, focus: float) -> float:
        """Return the standard deviation of the blur at a focus error, px."""
        return float(np.hypot(self.look.blur, self.look.defocus * focus * self.look.cell_px / 38.0))

    def margin(self, focus: float, motion: tuple[float, float]) -> int:
        """Return how many pixels around the picture influence it."""
        return int(np.ceil(3 * self.blur_px(focus) + max(abs(motion[0]), abs(motion[1])) / 2)) + 4

    def expose(
        self,
        light: np.ndarray,
        shift: tuple[float, float],
        size: tuple[int, int],
        focus: float,
        motion: tuple[float, float],
        exposure: float,
        noise_seed: int,
    ) -> np.ndarray:
        """Take a picture.

        Parameters
        ----------
        light
            (H + 2m, W + 2m, 3) uint8 transmission around the picture, m from `margin`.
        shift
            Sub-pixel position (x, y), px, -0.5 to 0.5.
        size
            Width and height, px.
        focus
            Focus error.
        motion
            Way of the slide during the exposure, px.
        exposure
            Factor on the light.
        noise_seed
            Which noise.

        Returns
        -------
        pixels
            (H, W, 3) uint8, blue, green, red.
        """
        look = self.look
        width, height = size
        m = (light.shape[0] - height) // 2
        sigma = self.blur_px(focus)
        if np.hypot(*motion) > 0.7:
            kernel, anchor = _streak(motion)
            light = cv2.filter2D(light, -1, kernel, anchor=anchor)
        field = self._illumination(width, height)
        noise = self._noise_at(width, height, noise_seed)
        channels = []
        for c, plane in enumerate(cv2.split(light)):
            along = (1 - c) * look.chromatic / 2
            sx = m + shift[0] + along * np.cos(look.light_angle)
            sy = m + shift[1] + along * np.sin(look.light_angle)
            plane = _blurred(plane, sx, sy, width, height, sigma)
            scale = look.background[c] * exposure / CLEAR
            lit = cv2.multiply(plane, field, scale=scale, dtype=cv2.CV_16S)
            channels.append(cv2.add(lit, noise[c], dtype=cv2.CV_8U))
        pixels = cv2.merge(channels)
        if look.sharpen > 0:
            soft = cv2.GaussianBlur(pixels, (0, 0), 1.2)
            pixels = cv2.addWeighted(pixels, 1 + look.sharpen, soft, -look.sharpen, 0)
        if self._curve is not None:
            pixels = cv2.LUT(pixels, self._curve)
        if look.saturation != 1.0:
            s = look.saturation
            grey = (1 - s) * np.array([0.114, 0.587, 0.299])
            pixels = cv2.transform(pixels, np.eye(3) * s + grey[None, :])
        if look.jpeg:
            ok, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, look.jpeg])
            if ok:
                pixels = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), dtype=np.uint8)
        return np.asarray(pixels, dtype=np.uint8)

    def _illumination(self, width: int, height: int) -> np.ndarray:
        """Return the light falling on each pixel, (H, W) float32, 1 at most places."""
        key = (width, height)
        if key not in self._light:
            look = self.look
            x = np.linspace(-1, 1, max(width, 2), dtype=np.float32)[:width][None, :]
            y = np.linspace(-1, 1, max(height, 2), dtype=np.float32)[:height][:, None]
            rng = np.random.default_rng([self.seed, 11])
            cx, cy = (float(v) for v in rng.normal(0, 0.15, 2))
            field = 1.0 - look.vignette * ((x - cx) ** 2 + (y - cy) ** 2) / 2
            field = field + look.gradient * (
                float(np.cos(look.gradient_angle)) * x + float(np.sin(look.gradient_angle)) * y
            )
            for _ in range(look.shadows):
                sx, sy = rng.uniform(-1, 1, 2)
                r = rng.uniform(0.008, 0.03) * max(width, height)
                dark = rng.uniform(0.02, 0.14)
                px, py = int((sx + 1) * width / 2), int((sy + 1) * height / 2)
                a, c = max(px - int(3 * r), 0), max(py - int(3 * r), 0)
                here = np.s_[c : py + int(3 * r) + 1, a : px + int(3 * r) + 1]
                far = np.hypot((x[:, here[1]] - sx) * width / 2, (y[here[0]] - sy) * height / 2) / r
                field[here] *= (1.0 - dark * np.exp(-(far**2))).astype(np.float32)
            self._light = {key: np.ascontiguousarray(field, dtype=np.float32)}
        return self._light[key]

    def _noise_at(self, width: int, height: int, seed: int) -> list[np.ndarray]:
        key = (width, height)
        room = 64
        if key not in self._noise:
            rng = np.random.default_rng([self.seed, 13])
            shape = (3, height + room, width + room)
            planes = rng.standard_normal(shape, dtype=np.float32)
            planes = 0.6 * planes + 0.8 * rng.standard_normal(shape[1:], dtype=np.float32)
            if self.look.noise_px > 0.2:
                planes = np.stack([cv2.GaussianBlur(p, (0, 0), self.look.noise_px) for p in planes])
            planes *= self.look.noise / max(float(planes.std()), 1e-6)
            self._noise = {key: np.rint(planes).astype(np.int16)}
        dx, dy = (int(v) for v in np.random.default_rng(seed).integers(0, room, 2))
        return [p[dy : dy + height, dx : dx + width] for p in self._noise[key]]


def _blurred(plane: np.ndarray, sx: float, sy: float, width: int, height: int, sigma: float) -> np.ndarray:
    """Return the window at (sx, sy), blurred; the sub-pixel part of the shift is in the kernel."""
    x, y = round(sx), round(sy)
    along_x, along_y = _point_spread(sx - x, sigma), _point_spread(sy - y, sigma)
    blurred = cv2.sepFilter2D(plane, -1, along_x, along_y)
    return np.asarray(blurred[y : y + height, x : x + width])


def _point_spread(offset: float, sigma: float) -> np.ndarray:
    sigma = max(sigma, 0.35)
    half = int(np.ceil(2.7 * sigma)) + 1
    kernel = np.exp(-(((np.arange(-half, half + 1) - offset) / sigma) ** 2) / 2)
    return np.asarray(kernel / kernel.sum(), dtype=np.float32)


def _streak(motion: tuple[float, float]) -> tuple[np.ndarray, tuple[int, int]]:
    """Return the path of a point during the exposure as a kernel that sums to one, and its anchor."""
    motion = (motion[0] if abs(motion[0]) > 0.4 else 0.0, motion[1] if abs(motion[1]) > 0.4 else 0.0)
    half = int(np.ceil(max(abs(motion[0]), abs(motion[1])) / 2)) + 1
    kernel = np.zeros((2 * half + 1,) * 2, np.float32)
    steps = 8 * half
    for t in np.linspace(-0.5, 0.5, steps):
        x, y = half + t * motion[0], half + t * motion[1]
        i, j = int(np.floor(y)), int(np.floor(x))
        fy, fx = y - i, x - j
        for di, wy in ((0, 1 - fy), (1, fy)):
            for dj, wx in ((0, 1 - fx), (1, fx)):
                if wy * wx > 0:
                    kernel[i + di, j + dj] += wy * wx
    x, y, w, h = cv2.boundingRect((kernel > 0).astype(np.uint8))
    kernel = kernel[y : y + h, x : x + w]
    return np.asarray(kernel / kernel.sum()), (half - x, half - y)


def _curve(look: Look) -> np.ndarray | None:
    """Return the camera's response: the empty slide keeps its grey level."""
    if look.gamma == 1.0:
        return None
    curve = np.zeros((1, 256, 3), np.float64)
    for c in range(3):
        level = max(look.background[c], 1.0)
        curve[0, :, c] = level * (np.arange(256) / level) ** look.gamma
    return np.clip(np.rint(curve), 0, 255).astype(np.uint8)
