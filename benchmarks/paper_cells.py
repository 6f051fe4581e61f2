"""The paper's 17,954 test cells through the classifier (its Table 5: 11.0 s for EfficientNetB0 on a T4).

    python benchmarks/paper_cells.py [--cells 17954] [--engine auto] [--precision auto] [--threads N]

Classification alone, on each crop side, of pixels that mean nothing: the time does not depend on them. Everything
else that a picture costs is measured by `rbcedge bench`.
"""

from __future__ import annotations

import argparse
from time import perf_counter, process_time

import numpy as np

from rbcedge import bundle as bundles
from rbcedge.bench.hardware import machine
from rbcedge.engines.loading import ENGINES, PRECISIONS, cores, load_engines

PAPER_CELLS, PAPER_S = 17_954, 11.0
_PART = 1024


def classify(engine: str, precision: str, threads: int, cells: int) -> list[tuple[str, int, float, float]]:
    """Time `cells` crops on each side; return network, side, seconds on the clock and of CPU."""
    bundle = bundles.load(bundles.default_folder())
    segmenter, classifier = load_engines(bundle, engine, precision, threads)
    segmenter.close()
    rng = np.random.default_rng(0)
    rows = []
    for side in sorted({bundle.small_crop_px, bundle.crop_px}):
        part = rng.integers(0, 256, (_PART, side, side, 3), np.uint8)
        classifier.infer(part[:64])
        begun, spent = perf_counter(), process_time()
        for start in range(0, cells, _PART):
            classifier.infer(part[: min(_PART, cells - start)])
        rows.append((f"{classifier.name} {classifier.precision}", side, perf_counter() - begun, process_time() - spent))
    classifier.close()
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=PAPER_CELLS)
    parser.add_argument("--engine", choices=ENGINES, default="auto")
    parser.add_argument("--precision", choices=PRECISIONS, default="auto")
    parser.add_argument("--threads", type=int, default=cores())
    args = parser.parse_args()
    if args.cells < 1 or args.threads < 1:
        parser.error("--cells and --threads are 1 or more")
    print(
        f"{machine().lines[0]}, {args.threads} threads; the paper, 80 px, T4: {PAPER_S} s for {PAPER_CELLS:,} cells\n"
    )
    print("| network | crop px | cells | s | CPU s | cells/s |\n|---|---|---|---|---|---|")
    for name, side, clock, cpu in classify(args.engine, args.precision, args.threads, args.cells):
        print(f"| {name} | {side} | {args.cells:,} | {clock:.2f} | {cpu:.2f} | {args.cells / clock:.0f} |")


if __name__ == "__main__":
    main()
