"""The whole of the paper in miniature: 25 simulated slides, 5x2 folds, every table and every figure.

    python benchmarks/paper_mini.py OUT

Draws a set in the paper's layout (25 slides, four scanners, Table 2), trains a small U-Net, EfficientNetB0 with and
without segmentation and with class weights, and one more network, all over 5x2 folds cut short, and evaluates them:
OUT/segmentation/report.md (Table 3) and OUT/classification/report.md (Tables 4 to 8, Figures 6 to 8). With the
paper's data in place of OUT/cells, and without the limits on crops and batches, the same commands reproduce the paper.

The networks see a few hundred small crops for a few batches: that everything works is shown, not how good it can get.
Called again it goes on where it was. Every command is printed before it runs.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path


def main() -> None:
    """Run every step that is not done yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--cells", type=int, default=40, help="cells of each slide")
    parser.add_argument("--folds", default="5x2")
    parser.add_argument("--side", type=int, default=48, help="side of the crops, px")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--steps", type=int, default=10, help="batches of an epoch at the most")
    parser.add_argument("--other", default="mobilenetv3small", help="networks beside EfficientNetB0, comma-separated")
    args = parser.parse_args()
    out: Path = args.out
    cells, runs = out / "cells", out / "runs"
    short = ["--side", args.side, "--epochs", args.epochs, "--steps", args.steps, "--norm-momentum", 0.9]
    classifier = ["train", "classifier", "--data", cells, "--weights", "none", "--folds", args.folds, *short]
    begun = time.monotonic()
    if not (cells / "scanners.json").is_file():
        rbcedge("train", "simulate", cells, "--cells", args.cells)
    rbcedge("train", "segmenter", "--data", cells, "--recipe", "rbcedge", "--out", runs / "unet", *short)
    rbcedge(*classifier, "--out", runs / "b0")
    rbcedge(*classifier, "--weighted", "--out", runs / "b0-weighted")
    rbcedge(*classifier, "--no-segmentation", "--out", runs / "b0-not-segmented")
    for network in args.other.split(","):
        rbcedge(*classifier, "--network", network, "--out", runs / network)
    rbcedge("evaluate", "segmenter", runs, "--tables", "--figures", "--out", out / "segmentation")
    rbcedge("evaluate", "classifier", runs, "--tables", "--figures", "--out", out / "classification")
    print(f"{time.monotonic() - begun:.0f} s")


def rbcedge(*arguments: object) -> None:
    """Run one command as a user would; end where it fails."""
    words = [str(a) for a in arguments]
    print(f"rbcedge {' '.join(words)}", flush=True)
    done = subprocess.run([sys.executable, "-m", "rbcedge", *words], check=False)
    if done.returncode:
        sys.exit(done.returncode)


if __name__ == "__main__":
    main()
