"""What is on a slide: how many cells, of which classes, and what lies between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

CODES = ("NOR", "OVA", "TEA", "FRA", "BUR", "TWO", "THR", "OTH")
"""Class codes the simulator draws; a class index is a position in this tuple."""

_MOSTLY_NORMAL = {
    "NOR": 0.78,
    "OVA": 0.06,
    "TEA": 0.01,
    "FRA": 0.01,
    "BUR": 0.01,
    "TWO": 0.08,
    "THR": 0.02,
    "OTH": 0.03,
}


@dataclass(frozen=True)
class Composition:
    """What a smear is made of.

    All rates are per 100 x 100 µm of slide.

    Attributes
    ----------
    fractions
        Relative weight of each class code among the objects; need not sum to one.
    density
        Objects wanted per 100 x 100 µm, 0 to about 160 (a crowded slide holds fewer than asked).
    touching
        Share of objects pushed against a neighbour, 0 to 1.
    size_spread
        Standard deviation of the diameter as a fraction of it (anisocytosis).
    macrocytes, microcytes, spherocytes, hypochromic
        Shares of these kinds among rounded cells; the rest is normal.
    roughness
        Fine irregularity of every outline, as a share of the diameter, 0 to about 0.01.
    clumps
        Share of OTH that are clumps of four or more cells.
    artefacts
        Share of cells with a refractile blotch or a fold instead of a smooth pallor.
    platelets, leucocytes, dirt, ghosts
        Rates of things that are not red cells.
    """

    fractions: Mapping[str, float] = field(default_factory=lambda: dict(_MOSTLY_NORMAL))
    density: float = 62.0
    touching: float = 0.12
    size_spread: float = 0.06
    macrocytes: float = 0.04
    microcytes: float = 0.04
    spherocytes: float = 0.02
    hypochromic: float = 0.02
    roughness: float = 0.002
    clumps: float = 0.15
    artefacts: float = 0.04
    platelets: float = 5.0
    leucocytes: float = 0.1
    dirt: float = 2.0
    ghosts: float = 0.2

    def __post_init__(self) -> None:
        unknown = sorted(set(self.fractions) - set(CODES))
        if unknown:
            raise ValueError(f"unknown class codes {unknown}; known: {', '.join(CODES)}")
        weights = self.weights()
        if not np.isfinite(weights).all() or (weights < 0).any() or weights.sum() <= 0:
            raise ValueError("class fractions must be finite, not negative, and not all zero")
        for name in ("density", "platelets", "leucocytes", "dirt", "ghosts"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative")
        if not 0 <= self.touching <= 1:
            raise ValueError("touching is a share between 0 and 1")

    def weights(self) -> np.ndarray:
        """Return the class weights in the order of `CODES`, (8,) float64, not normalised."""
        return np.array([float(self.fractions.get(code, 0.0)) for code in CODES])

    @classmethod
    def sample(cls, rng: np.random.Generator) -> Composition:
        """Draw a composition for training: rare classes enriched, sparse to crowded.

        Parameters
        ----------
        rng
            Source of randomness.
        """
        base = np.array([0.34, 0.14, 0.09, 0.09, 0.09, 0.10, 0.07, 0.09])
        drawn = rng.dirichlet(base * 8.0)
        crowded = rng.random() < 0.2
        return cls(
            fractions=dict(zip(CODES, (float(v) for v in drawn), strict=True)),
            density=float(rng.uniform(80, 150) if crowded else rng.uniform(12, 85)),
            touching=float(rng.beta(1.2, 3.0)),
            size_spread=float(rng.uniform(0.03, 0.14)),
            macrocytes=float(rng.uniform(0, 0.2)),
            microcytes=float(rng.uniform(0, 0.2)),
            spherocytes=float(rng.uniform(0, 0.15)),
            hypochromic=float(rng.beta(0.6, 2.5)),
            roughness=float(rng.beta(0.7, 3.0) * 0.008),
            clumps=float(rng.uniform(0, 0.3)),
            artefacts=float(rng.beta(0.5, 3.0)),
            platelets=float(rng.gamma(1.2, 5.0)),
            leucocytes=float(rng.gamma(0.5, 0.6)),
            dirt=float(rng.gamma(0.7, 4.0)),
            ghosts=float(rng.gamma(0.4, 0.8)),
        )
