"""How a picture looks: stain, optics and camera."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Look:
    """Everything about appearance.  Colours are blue, green, red.

    Attributes
    ----------
    cell_px
        Diameter of a normal cell, px.
    um_per_px
        Width of a pixel on the slide, µm.
    background
        Grey level of the empty slide, 0 to 255 per channel.
    eosin
        Optical density of a normal cell per channel (Beer-Lambert, natural logarithm).
    azure
        Optical density of nuclei and platelets per channel.
    pallor_depth, pallor_size, pallor_softness
        Central pallor: share of density missing (0 to 1), radius as a share of the cell's (0 to 1),
        width of its border (same unit).
    rim
        Width over which density rises at the cell's edge, as a share of the radius.
    edge
        Additional density of the outermost line (refraction), relative.
    halo
        Bright line around cells, optical density.
    overlap
        How far absorption adds up where cells lie over one another: 1 adds fully, 0 not at all.
    relief
        Side lighting: one flank brighter, the other darker; relative density.
    light_angle
        Direction of side lighting and of chromatic shift, radians.
    mottle, grain
        Uneven plasma background, optical density: slow and fine part.
    texture
        Uneven haemoglobin inside cells, relative.
    vignette, gradient
        Loss of light towards the corners, and from side to side, as shares.
    gradient_angle
        Direction of the gradient, radians.
    shadows
        Number of blurred dust shadows fixed to the camera.
    blur
        Standard deviation of the point spread at best focus, px.
    defocus
        Added blur per unit of focus error, px.
    sharpen
        In-camera unsharp masking, 0 to 2.
    chromatic
        Shift between the red and the blue picture, px.
    noise
        Standard deviation of camera noise, grey levels.
    noise_px
        Correlation length of the noise, px.
    gamma
        Exponent of the camera's response.
    saturation
        Colour strength, 1 as it is, 0 grey.
    jpeg
        JPEG quality, 0 for none.
    """

    cell_px: float = 38.0
    um_per_px: float = 0.19
    background: Colour = (174.0, 182.0, 168.0)
    eosin: Colour = (0.255, 0.47, 0.15)
    azure: Colour = (0.3, 1.1, 0.62)
    pallor_depth: float = 0.5
    pallor_size: float = 0.42
    pallor_softness: float = 0.35
    rim: float = 0.14
    edge: float = 0.15
    halo: float = 0.015
    overlap: float = 0.85
    relief: float = 0.04
    light_angle: float = 1.3
    mottle: float = 0.012
    grain: float = 0.006
    texture: float = 0.03
    vignette: float = 0.06
    gradient: float = 0.03
    gradient_angle: float = 0.5
    shadows: int = 2
    blur: float = 0.7
    defocus: float = 1.0
    sharpen: float = 0.0
    chromatic: float = 0.3
    noise: float = 1.2
    noise_px: float = 0.6
    gamma: float = 1.0
    saturation: float = 1.0
    jpeg: int = 0

    def __post_init__(self) -> None:
        if not 12.0 <= self.cell_px <= 200.0:
            raise ValueError(f"cell_px must lie between 12 and 200, not {self.cell_px}")
        if not self.um_per_px > 0:
            raise ValueError("um_per_px must be positive")

    @classmethod
    def sample(cls, rng: np.random.Generator, strength: float = 1.0) -> Look:
        """Draw a random look.

        Parameters
        ----------
        rng
            Source of randomness.
        strength
            0 keeps to the looks of one ordinary laboratory, 1 goes far beyond any of them.
        """

        def between(typical: tuple[float, float], wide: tuple[float, float]) -> float:
            lo, hi = (a + (b - a) * strength for a, b in zip(typical, wide, strict=True))
            return float(rng.uniform(lo, hi))

        def often(probability: float) -> bool:
            return bool(rng.random() < probability * strength)

        light = between((140, 205), (110, 252))
        tint = np.exp(rng.normal(0, 0.03 + 0.09 * strength, 3))
        tint /= tint.max()
        background = light * tint
        green = float(np.exp(between((np.log(0.25), np.log(0.62)), (np.log(0.18), np.log(1.05)))))
        eosin = (
            green * between((0.45, 0.65), (0.2, 1.05)),
            green,
            green * between((0.14, 0.42), (0.04, 0.85)),
        )
        dark = between((0.9, 1.2), (0.7, 1.6))
        azure = (
            dark * between((0.22, 0.36), (0.1, 0.55)),
            dark,
            dark * between((0.48, 0.68), (0.35, 0.95)),
        )
        cell_px = float(np.clip(38.0 * np.exp(rng.normal(0, 0.05 + 0.1 * strength)), 27.0, 54.0))
        return cls(
            cell_px=cell_px,
            um_per_px=7.22 / cell_px,
            background=(float(background[0]), float(background[1]), float(background[2])),
            eosin=eosin,
            azure=azure,
            pallor_depth=between((0.25, 0.6), (0.0, 0.92)),
            pallor_size=between((0.3, 0.5), (0.15, 0.75)),
            pallor_softness=between((0.25, 0.5), (0.08, 0.8)),
            rim=between((0.08, 0.2), (0.03, 0.4)),
            edge=between((0.0, 0.2), (-0.1, 0.55)),
            halo=between((0.0, 0.03), (-0.02, 0.1)),
            overlap=between((0.6, 1.0), (0.35, 1.0)),
            relief=between((0.0, 0.08), (0.0, 0.3)),
            light_angle=float(rng.uniform(0, 2 * np.pi)),
            mottle=min(between((0.0, 0.02), (0.0, 0.06)), 0.12 * green),
            grain=min(between((0.0, 0.01), (0.0, 0.03)), 0.1 * green),
            texture=between((0.01, 0.05), (0.0, 0.14)),
            vignette=between((0.0, 0.12), (0.0, 0.4)),
            gradient=between((0.0, 0.06), (0.0, 0.25)),
            gradient_angle=float(rng.uniform(0, 2 * np.pi)),
            shadows=int(rng.integers(0, 4 + int(4 * strength))),
            blur=between((0.5, 0.95), (0.35, 1.9)) * cell_px / 38.0,
            sharpen=between((0.3, 1.0), (0.3, 1.8)) if often(0.35) else 0.0,
            chromatic=between((0.0, 0.6), (0.0, 1.3)),
            noise=min(between((0.7, 1.8), (0.2, 6.0)), 0.11 * green * light),
            noise_px=between((0.4, 0.8), (0.0, 1.2)),
            gamma=between((0.95, 1.05), (0.7, 1.4)),
            saturation=between((0.9, 1.1), (0.6, 1.5)) if not often(0.06) else 0.0,
            jpeg=int(between((80, 96), (35, 98))) if rng.random() < 0.7 else 0,
        )
