"""Outlines of red cells: closed polygons in units of the mean cell diameter.

Every function returns an outline, (N, 2) float64, x to the right and y down, around the origin. A
round cell of normal size has a diameter of 1.
"""

from __future__ import annotations

import numpy as np

Outline = np.ndarray
_N = 144
_ANGLES = np.linspace(0.0, 2.0 * np.pi, _N, endpoint=False)


def turned(outline: Outline, angle: float) -> Outline:
    """Return the outline turned by `angle` radians about the origin."""
    c, s = np.cos(angle), np.sin(angle)
    return np.asarray(outline @ np.array([[c, s], [-s, c]]))


def centred(outline: Outline) -> Outline:
    """Return the outline moved so that the centroid of its area is at the origin."""
    x, y = outline[:, 0], outline[:, 1]
    after = np.concatenate([outline[1:], outline[:1]])
    xn, yn = after[:, 0], after[:, 1]
    cross = x * yn - xn * y
    area = cross.sum() / 2.0
    centre = np.array([((x + xn) * cross).sum(), ((y + yn) * cross).sum()]) / (6.0 * area)
    return np.asarray(outline - centre)


def area(outline: Outline) -> float:
    """Return the enclosed area, in units of the outline squared."""
    x, y = outline[:, 0], outline[:, 1]
    after = np.concatenate([outline[1:], outline[:1]])
    return float(abs((x * after[:, 1] - after[:, 0] * y).sum()) / 2.0)


def resampled(corners: Outline, n: int = _N) -> Outline:
    """Return `n` points at equal steps along a closed polygon."""
    closed = np.vstack([corners, corners[:1]])
    steps = np.hypot(*np.diff(closed, axis=0).T)
    at = np.concatenate([[0.0], np.cumsum(steps)])
    wanted = np.linspace(0.0, at[-1], n, endpoint=False)
    return np.stack([np.interp(wanted, at, closed[:, k]) for k in (0, 1)], axis=1)


def rounded(outline: Outline, softness: float) -> Outline:
    """Return the outline with its corners rounded by a Gaussian of `softness` points."""
    z = np.fft.fft(outline[:, 0] + 1j * outline[:, 1])
    f = np.fft.fftfreq(len(outline))
    z = np.fft.ifft(z * np.exp(-2.0 * (np.pi * f * softness) ** 2))
    return np.stack([z.real, z.imag], axis=1)


def wavy(outline: Outline, rng: np.random.Generator, amount: float, lowest: int = 2, highest: int = 7) -> Outline:
    """Return the outline with small random harmonics, so that nothing is a perfect ellipse."""
    k = np.arange(lowest, highest + 1)
    weights = amount * rng.standard_normal(len(k)) * np.exp(1j * rng.uniform(0, 2 * np.pi, len(k)))
    weights = weights / (np.sqrt(k) if lowest > 4 else k - 0.5)
    z = outline[:, 0] + 1j * outline[:, 1]
    z = z / np.maximum(np.abs(z), 1e-9)
    wave = np.zeros_like(z)
    for weight in weights[::-1]:  # Horner's scheme for the sum of weights[i] z^(lowest + i)
        wave = wave * z + weight
    factor = 1.0 + (wave * z**lowest).real
    return np.asarray(outline * factor[:, None])


def ellipse(diameter: float, aspect: float) -> Outline:
    """Return an ellipse with the area of a disc of `diameter`, long axis along x."""
    a, b = diameter / 2 * np.sqrt(aspect), diameter / 2 / np.sqrt(aspect)
    return np.stack([a * np.cos(_ANGLES), b * np.sin(_ANGLES)], axis=1)


def round_cell(rng: np.random.Generator, diameter: float, waviness: float = 0.017) -> Outline:
    """Return a rounded cell."""
    aspect = 1.0 + min(abs(rng.normal(0, 0.055)), 0.12)
    return turned(wavy(ellipse(diameter, aspect), rng, waviness), rng.uniform(0, 2 * np.pi))


def oval_cell(rng: np.random.Generator, diameter: float) -> Outline:
    """Return an ovalocyte: oval, egg-shaped or elliptocyte (aspect 1.28 to 2.3)."""
    aspect = float(np.clip(1.28 + rng.gamma(1.6, 0.2), 1.28, 2.3))
    out = ellipse(diameter, aspect)
    kind = rng.random()
    if kind < 0.3:  # egg: one end narrower
        out[:, 1] *= 1.0 + rng.uniform(0.1, 0.25) * out[:, 0] / np.abs(out[:, 0]).max()
    elif kind < 0.5:  # rod with straight sides
        power = rng.uniform(0.7, 0.9)
        half = np.abs(out).max(axis=0)
        out = np.sign(out) * half * (np.abs(out) / half) ** power
    if rng.random() < 0.25:  # slightly bent
        length = np.abs(out[:, 0]).max()
        out[:, 1] += rng.uniform(-0.12, 0.12) * diameter * (out[:, 0] / length) ** 2
    out = wavy(resampled(out), rng, 0.006)
    return turned(centred(out), rng.uniform(0, 2 * np.pi))


def _from_profile(u: np.ndarray, half: np.ndarray, bend: np.ndarray) -> Outline:
    upper = np.stack([u, bend - half], axis=1)
    lower = np.stack([u, bend + half], axis=1)[::-1]
    return resampled(np.vstack([upper, lower]), 192)


def teardrop(rng: np.random.Generator, diameter: float) -> Outline:
    """Return a true teardrop: a round or oval body and one tapered tail."""
    r = diameter / 2 * rng.uniform(0.86, 1.0)
    length = r * (0.75 + min(rng.gamma(1.8, 0.4), 2.2))
    tip = 0.03 + 0.03 * rng.random()
    u = (2 * r + length) * (1 - np.cos(np.linspace(0, np.pi, 160))) / 2 - r
    body = np.sqrt(np.clip(r * r - u * u, 0, None))
    s = np.clip(u / (r + length), 0, 1)
    power = rng.uniform(1.2, 2.4)
    base = r * rng.uniform(0.75, 1.0)
    tail = np.where(u > 0, base * (1 - s) ** power + tip * np.sqrt(1 - s**6), 0.0)
    sharp = 6.0
    half = (body**sharp + tail**sharp) ** (1 / sharp)
    half *= np.sqrt(np.clip((u + r) / (0.02 * r), 0, 1))
    bend = rng.normal(0, 0.22) * length * s**2
    out = rounded(_from_profile(u, half, bend), 1.6)
    out = out * np.array([1.0, rng.uniform(0.85, 1.05)])
    return turned(centred(wavy(out, rng, 0.006)), rng.uniform(0, 2 * np.pi))


def false_teardrop(rng: np.random.Generator, diameter: float, direction: float) -> Outline:
    """Return an artefact of spreading: a blunt or angled end, along `direction` radians."""
    r = diameter / 2
    length = r * rng.uniform(0.25, 0.6)
    blunt = r * rng.uniform(0.16, 0.3)
    arc = np.linspace(0.75, 2 * np.pi - 0.75, 60) + rng.normal(0, 0.08)
    body = np.stack([r * np.cos(arc), r * np.sin(arc)], axis=1)
    skew = rng.normal(0, 0.25) * r
    end = np.array([[r + length, skew - blunt], [r + length * rng.uniform(0.7, 1.1), skew + blunt]])
    out = rounded(resampled(np.vstack([body, end])), rng.uniform(1.5, 3.0))
    return turned(centred(wavy(out, rng, 0.008)), direction + rng.normal(0, 0.1))


def angular_cell(rng: np.random.Generator, diameter: float) -> Outline:
    """Return a polygonal cell with four to six soft corners."""
    n = int(rng.integers(4, 7))
    at = (np.arange(n) + rng.normal(0, 0.12, n)) * 2 * np.pi / n
    r = diameter / 2 * rng.uniform(1.02, 1.25, n)
    corners = np.stack([r * np.cos(at), r * np.sin(at)], axis=1)
    out = rounded(resampled(corners), rng.uniform(4.0, 8.0))
    return turned(centred(wavy(out, rng, 0.03)), rng.uniform(0, 2 * np.pi))


def burr(rng: np.random.Generator, diameter: float) -> tuple[Outline, int]:
    """Return a crenated cell and the number of its spicules (8 to 24)."""
    n = int(rng.integers(8, 25))
    theta = np.linspace(0.0, 2.0 * np.pi, 288, endpoint=False)
    knots = np.linspace(0.0, 2.0 * np.pi, n + 1)

    def between_knots(values: np.ndarray) -> np.ndarray:
        return np.asarray(np.interp(theta, knots, np.append(values, values[0])))

    phase = n * theta + between_knots(rng.normal(0, rng.uniform(0.1, 0.6), n))
    wave = (0.5 + 0.5 * np.cos(phase)) ** rng.uniform(0.7, 2.0)
    height = rng.uniform(0.08, 0.16) * np.sqrt(12 / max(n, 10))
    heights = height * between_knots(rng.uniform(1 - (uneven := rng.uniform(0.1, 0.45)), 1 + uneven, n))
    aspect = 1.0 + rng.gamma(1.2, 0.09)
    a, b = diameter * 0.47 * np.sqrt(aspect), diameter * 0.47 / np.sqrt(aspect)
    body = np.stack([a * np.cos(theta), b * np.sin(theta)], axis=1)
    out = wavy(body * (1.0 + heights * (wave - 0.4))[:, None], rng, 0.012)
    return turned(centred(out), rng.uniform(0, 2 * np.pi)), n


def helmet(rng: np.random.Generator, diameter: float) -> Outline:
    """Return a cell cut off along a straight or hollow line with two sharp corners."""
    r = diameter / 2
    half = rng.uniform(0.75, 1.45)
    arc = np.linspace(half, 2 * np.pi - half, 70)
    body = np.stack([r * np.cos(arc), r * rng.uniform(0.8, 1.0) * np.sin(arc)], axis=1)
    a, b = body[-1], body[0]
    s = np.linspace(0, 1, 20)[1:-1, None]
    hollow = rng.uniform(-0.05, 0.3) * r
    cut = a + (b - a) * s + np.array([-1.0, 0.0]) * hollow * np.sin(np.pi * s)
    out = np.vstack([body, cut])
    if rng.random() < 0.5:  # horns
        for corner in (0, len(body) - 1):
            out[corner] += np.array([rng.uniform(0.1, 0.35) * r, 0.0])
    return rounded(resampled(out), rng.uniform(0.8, 1.6))


def triangle(rng: np.random.Generator, diameter: float) -> Outline:
    """Return a three-cornered fragment with bulging or hollow sides."""
    at = np.array([0.0, 2.1, 4.2]) + rng.normal(0, 0.25, 3)
    r = diameter / 2 * rng.uniform(0.9, 1.35, 3)
    corners = np.stack([r * np.cos(at), r * np.sin(at)], axis=1)
    sides = []
    for k in range(3):
        a, b = corners[k], corners[(k + 1) % 3]
        s = np.linspace(0, 1, 16, endpoint=False)[:, None]
        normal = np.array([b[1] - a[1], a[0] - b[0]])
        sides.append(a + (b - a) * s + normal * rng.uniform(-0.14, 0.24) * np.sin(np.pi * s))
    return rounded(resampled(np.vstack(sides)), rng.uniform(1.2, 3.6))


def horned(rng: np.random.Generator, diameter: float) -> Outline:
    """Return a keratocyte: a bite out of the rim that leaves two horns."""
    r = diameter / 2
    half = rng.uniform(0.35, 0.7)
    arc = np.linspace(half, 2 * np.pi - half, 80)
    body = np.stack([r * np.cos(arc), r * np.sin(arc)], axis=1)
    body[0] *= rng.uniform(1.05, 1.3)
    body[-1] *= rng.uniform(1.05, 1.3)
    depth = r * rng.uniform(0.35, 0.75)
    s = np.linspace(0, np.pi, 24)[1:-1]
    bite = np.stack([r * np.cos(half) - depth * np.sin(s), -r * np.sin(half) * np.cos(s)], axis=1)
    return rounded(resampled(np.vstack([body, bite])), rng.uniform(0.8, 1.5))


def crescent(rng: np.random.Generator, diameter: float) -> Outline:
    """Return a sickle-like sliver with two points."""
    r = diameter / 2 * rng.uniform(0.95, 1.25)
    span = rng.uniform(1.0, 1.5)
    outer = np.linspace(-span, span, 50)
    thick = rng.uniform(0.45, 0.8)
    a = np.stack([r * np.cos(outer), r * np.sin(outer)], axis=1)
    inner = outer[::-1][1:-1]
    width = thick * r * np.cos(inner / span * np.pi / 2) ** 0.8
    b = np.stack([(r - width) * np.cos(inner), (r - width * 0.5) * np.sin(inner)], axis=1)
    return rounded(resampled(np.vstack([a, b])), rng.uniform(0.8, 1.4))


def chip(rng: np.random.Generator, diameter: float) -> Outline:
    """Return a small fragment with a few angles."""
    n = int(rng.integers(3, 7))
    at = np.sort(rng.uniform(0, 2 * np.pi) + (np.arange(n) + rng.uniform(-0.3, 0.3, n)) * 2 * np.pi / n)
    r = diameter / 2 * rng.uniform(0.7, 1.35, n)
    corners = np.stack([r * np.cos(at) * rng.uniform(1.0, 1.6), r * np.sin(at)], axis=1)
    return rounded(resampled(corners), rng.uniform(1.8, 4.5))


def fragment(rng: np.random.Generator, diameter: float) -> Outline:
    """Return a schistocyte of a random kind."""
    kind = rng.random()
    if kind < 0.28:
        out = helmet(rng, diameter * rng.uniform(0.7, 1.0))
    elif kind < 0.5:
        out = triangle(rng, diameter * rng.uniform(0.55, 0.95))
    elif kind < 0.65:
        out = horned(rng, diameter * rng.uniform(0.75, 1.0))
    elif kind < 0.77:
        out = crescent(rng, diameter * rng.uniform(0.75, 1.05))
    else:
        out = chip(rng, diameter * rng.uniform(0.38, 0.68))
    return turned(centred(wavy(centred(out), rng, 0.025)), rng.uniform(0, 2 * np.pi))
