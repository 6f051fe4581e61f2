"""Does the INT8 pair of a bundle tell the same as its float32 pair? On held-out fields of Chula-RBC-12.

    python benchmarks/int8_agreement.py CHULA [--bundle DIR] [--engine litert|onnx] [--every N] [--labels OUT.csv]

Prints what `rbcedge calibrate` reports of a new bundle, for one that exists. With `--labels` it also writes the marks
of the fields as a table that `rbcedge calibrate --labels` reads.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from rbcedge.calibration.agreement import compare, pool
from rbcedge.calibration.marks import Mark, write
from rbcedge.calibration.report import agreement_figures
from rbcedge.calibration.tolerances import Tolerances
from rbcedge.training.datasets import chula

from rbcedge import bundle
from rbcedge.engines import load_engines
from rbcedge.frame import Frame
from rbcedge.sources.images import read_picture


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("chula", type=Path)
    parser.add_argument("--bundle", type=Path, default=bundle.default_folder())
    parser.add_argument("--engine", default="litert")
    parser.add_argument("--every", type=int, default=1, help="take every Nth held-out field")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--labels", type=Path)
    args = parser.parse_args()
    held_out = chula.split(chula.read(args.chula))[1][:: args.every]
    marks = {
        f.picture.name: [
            Mark(float(x), float(y), chula.TO_PAPER[int(kind)])
            for (x, y), kind in zip(f.points.tolist(), f.types, strict=True)
        ]
        for f in held_out
    }
    if args.labels:
        write(args.labels, marks)
    b = bundle.load(args.bundle)
    small, whole = (load_engines(b, args.engine, p, args.threads) for p in ("int8", "fp32"))
    frames = ((Frame(0, 0.0, np.asarray(read_picture(f.picture)), f.picture.name), 1.0) for f in held_out)
    found = pool(list(compare(b, whole, small, frames, marks)), b.labels, f"{args.engine} fp32", f"{args.engine} int8")
    print(json.dumps(agreement_figures(found, Tolerances()), indent=1))


if __name__ == "__main__":
    main()
