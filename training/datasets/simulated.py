"""A simulated set in the paper's form: 25 slides, four scanners as in Table 2, every class on every slide.

Each scanner has its light, optics and camera, each slide its stain and its mixture of cells, so that splits by slide
and by scanner mean what they mean with real data. Masks and classes are exact.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from rbcedge.training.datasets import tree
from rbcedge.training.datasets.scanners import SCANNER_OF

from rbcedge.errors import RbcedgeError
from rbcedge.simulator import CODES, Composition, Look, render_field

_FIELDS = 40


def scanner_look(scanner: str, seed: int) -> Look:
    """Light, optics and camera of a scanner; cells are 38 px wide with all of them."""
    look = Look.sample(np.random.default_rng((seed, 1, int(scanner))), strength=0.45)
    # The fourth scanner of the paper is the blurred one.
    blur = 1.3 if scanner == "4" else min(look.blur, 0.9)
    return replace(look, cell_px=38.0, um_per_px=0.19, blur=blur, saturation=max(look.saturation, 0.6))


def slide_look(slide: int, scanner: str, seed: int) -> Look:
    """A scanner's look with the stain of one slide."""
    look = scanner_look(scanner, seed)
    rng = np.random.default_rng((seed, 2, slide))
    strength, hue = float(np.exp(rng.normal(0, 0.12))), np.exp(rng.normal(0, 0.06, 3))
    blue, green, red = (float(d * strength * h) for d, h in zip(look.eosin, hue, strict=True))
    return replace(look, eosin=(blue, green, red), pallor_depth=float(rng.uniform(0.2, 0.6)))


def slide_composition(slide: int, seed: int) -> Composition:
    """What is on a slide: every class, rare ones enriched as in a labelled set."""
    rng = np.random.default_rng((seed, 3, slide))
    usual = np.array([0.34, 0.18, 0.08, 0.08, 0.08, 0.12, 0.06, 0.06])
    drawn = rng.dirichlet(usual * 60)
    return Composition(
        fractions={c: float(max(v, 0.03)) for c, v in zip(CODES, drawn, strict=True)},
        density=float(rng.uniform(40, 60)),
        touching=float(rng.uniform(0, 0.1)),
        leucocytes=0.0,
    )


def write(
    folder: Path,
    cells: int = 40,
    slides: Sequence[int] = tuple(range(1, 26)),
    seed: int = 0,
    size: tuple[int, int] = (640, 480),
    progress: Callable[[int], None] = lambda slide: None,
) -> None:
    """Write a simulated set.

    Parameters
    ----------
    folder : Path
        Must be new or empty.
    cells : int
        Cells of each slide, at least one of each class.
    slides : sequence of int
        Numbers of the slides; Table 2 says the scanner.
    seed : int
    size : (int, int)
        Width and height of the fields they are cut out of, px.
    progress : callable
        Told each finished slide.

    Raises
    ------
    RbcedgeError
        Where the folder is not empty, fewer cells than classes are wanted, or a slide is not in Table 2.
    """
    if cells < len(CODES):
        raise RbcedgeError(f"{cells} cells for each slide; at least {len(CODES)} are needed, one of each class.")
    foreign = [s for s in slides if str(s) not in SCANNER_OF]
    if foreign:
        raise RbcedgeError(f"No slide {foreign[0]}: Table 2 of the paper has slides 1 to 25.")
    tree.fresh(folder)
    for slide in slides:
        for patch, found in _draw(slide, cells, seed, size):
            tree.write(folder, found, slide, patch)
        progress(slide)
    tree.describe(folder, CODES, {str(s): SCANNER_OF[str(s)] for s in slides})


def _draw(slide: int, cells: int, seed: int, size: tuple[int, int]) -> list[tuple[int, list[tree.CutCell]]]:
    """Fields of a slide until there are enough cells, and of them `cells` in turns of the classes."""
    look, composition = slide_look(slide, SCANNER_OF[str(slide)], seed), slide_composition(slide, seed)
    by_class: dict[str, list[tuple[int, tree.CutCell]]] = {code: [] for code in CODES}
    for patch in range(1, _FIELDS + 1):
        rng = np.random.default_rng((seed, 4, slide, patch))
        view = render_field(rng, *size, look=look, composition=composition)
        for cell in tree.cut(view.pixels, view.dense, [CODES[c] for c in view.objects.codes]):
            by_class[cell.code].append((patch, cell))
        if sum(map(len, by_class.values())) >= cells and all(by_class.values()):
            break
    else:
        raise RbcedgeError(f"Slide {slide}: {_FIELDS} fields hold no {cells} cells of all classes. Ask for fewer.")
    # Each class keeps its share, and at least one cell.
    total = sum(map(len, by_class.values()))
    kept = {code: max(1, len(found) * cells // total) for code, found in by_class.items()}
    spare = cells - sum(kept.values())
    for code in sorted(CODES, key=lambda c: len(by_class[c]) - kept[c], reverse=True):
        step = min(spare, len(by_class[code]) - kept[code]) if spare > 0 else max(spare, 1 - kept[code])
        kept[code] += step
        spare -= step
    patches: dict[int, list[tree.CutCell]] = {}
    for code, found in by_class.items():
        for patch, cell in found[: kept[code]]:
            patches.setdefault(patch, []).append(cell)
    return sorted(patches.items())
