"""What a count gives reason to look at, in words."""

from __future__ import annotations

from dataclasses import dataclass

from rbcedge.counting.differential import Differential


@dataclass(frozen=True, slots=True)
class Rules:
    """When a flag is raised. Percentages are of the assessable single cells.

    Attributes
    ----------
    ovalocytes : float
        Above this share in percent; goes with almost all anaemias (paper, section 1).
    schistocytes : float
        From this share in percent on (ICSH).
    schistocyte_cells : int
        Cells to count before a share of schistocytes is reported (ICSH: 1,000).
    burr : float
        Above this share in percent the stain is suspected (paper, section 1).
    overlap : float
        Above this ratio of overlapped to single objects the area is too thick (paper, section 4.1).
    unclassified : float
        Above this share in percent of the counted objects the pictures do not suit the classifier.
    few : int
        Below this number of single cells the percentages say little.
    """

    ovalocytes: float = 5.0
    schistocytes: float = 1.0
    schistocyte_cells: int = 1000
    burr: float = 20.0
    overlap: float = 0.5
    unclassified: float = 20.0
    few: int = 200


DEFAULT_RULES = Rules()


def flags(count: Differential, rules: Rules = DEFAULT_RULES) -> tuple[str, ...]:
    """Return the flags of a count, each one plain line, the most serious first.

    Only classes that the bundle has are spoken of.
    """
    found = [
        *_schistocytes(count, rules),
        *_teardrops(count),
        *_ovalocytes(count, rules),
        *_burr(count, rules),
        *_smear(count, rules),
    ]
    return tuple(found)


def _schistocytes(count: Differential, rules: Rules) -> list[str]:
    seen = count.by_code("FRA")
    if seen is None or not seen.count or seen.percent < rules.schistocytes:
        return []
    if count.single < rules.schistocyte_cells:
        return [
            f"Schistocytes {seen.percent:.1f} % of {count.single} cells: "
            f"count at least {rules.schistocyte_cells} before relying on it."
        ]
    return [f"Schistocytes {seen.percent:.1f} % (from {rules.schistocytes:g} % on significant)."]


def _teardrops(count: Differential) -> list[str]:
    seen = count.by_code("TEA")
    if seen is None or not seen.count:
        return []
    cells = "1 teardrop cell" if seen.count == 1 else f"{seen.count} teardrop cells"
    return [f"{cells} ({seen.percent:.1f} %): look at them."]


def _ovalocytes(count: Differential, rules: Rules) -> list[str]:
    seen = count.by_code("OVA")
    if seen is None or seen.percent <= rules.ovalocytes:
        return []
    return [f"Ovalocytes {seen.percent:.1f} % (above {rules.ovalocytes:g} %)."]


def _burr(count: Differential, rules: Rules) -> list[str]:
    seen = count.by_code("BUR")
    if seen is None or seen.percent <= rules.burr:
        return []
    return [f"Burr cells {seen.percent:.1f} %: check the stain and the age of the sample."]


def _smear(count: Differential, rules: Rules) -> list[str]:
    found = []
    if count.overlap_ratio > rules.overlap:
        found.append(f"Overlapped to single cells {count.overlapped} : {count.single}: move on to a thinner area.")
    if count.counted and 100 * count.unclassified / count.counted > rules.unclassified:
        share = 100 * count.unclassified / count.counted
        found.append(f"{share:.0f} % of the cells could not be classified: check focus, stain and scale.")
    if count.counted and count.single < rules.few:
        found.append(f"Only {count.single} single cells counted: percentages are rough.")
    return found
