"""Do the INT8 networks tell the same as the float32 ones? On the held-out fields of Chula-RBC-12.

    python benchmarks/int8_agreement.py CHULA

Prints mask IoU of INT8 against float32, the share of cells given the same class on the same masks, and the largest
change of any class's share in percentage points.
"""

import argparse
import os
from pathlib import Path

import cv2
import numpy as np
from rbcedge.training.datasets import chula

from rbcedge import bundle
from rbcedge.engines import load_engines
from rbcedge.frame import Frame
from rbcedge.pipeline.host import HostPipeline


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("chula", type=Path)
    args = parser.parse_args()
    b = bundle.load(bundle.default_folder())
    threads = len(os.sched_getaffinity(0))
    small, whole = (
        HostPipeline(b, *load_engines(b, precision=p, threads=threads), scale=1.0) for p in ("int8", "fp32")
    )
    both = either = 0
    classes: list[np.ndarray] = []
    for field in chula.split(chula.read(args.chula))[1]:
        frame = Frame(0, 0.0, cv2.imread(str(field.picture)), field.picture.name)
        a, f = small.find(frame), whole.find(frame)
        both += int(((a.mask > 0) & (f.mask > 0)).sum())
        either += int(((a.mask > 0) | (f.mask > 0)).sum())
        rows = np.flatnonzero(~f.cells.on_border)
        classes.append(np.stack([p.classify(f, rows).cells.best[rows] for p in (small, whole)], 1))
    pairs = np.concatenate(classes)
    shares = [np.bincount(pairs[:, k], minlength=len(b.codes)) / len(pairs) for k in (0, 1)]
    change = 100 * (shares[0] - shares[1])
    worst = int(np.abs(change).argmax())
    print(f"mask IoU, INT8 against float32: {both / either:.4f}")
    print(f"same class: {(pairs[:, 0] == pairs[:, 1]).mean():.4f} of {len(pairs)} cells")
    print(f"largest change of a class: {b.codes[worst]} {change[worst]:+.2f} points")


if __name__ == "__main__":
    main()
