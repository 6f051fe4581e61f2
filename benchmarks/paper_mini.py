"""The whole of the paper in miniature: 25 simulated slides, 5x2 folds, every table and every figure.

    python benchmarks/paper_mini.py OUT
    python benchmarks/paper_mini.py OUT --data CELLS --side 80 --folds 1x2 --epochs 2 --steps 40

Draws a set in the paper's layout (25 slides, four scanners, Table 2), trains a small U-Net, EfficientNetB0 with and
without segmentation and with class weights, and one more network, all over 5x2 folds cut short, and evaluates them:
OUT/segmentation/report.md (Table 3) and OUT/classification/report.md (Tables 4 to 8, Figures 6 to 8). With `--data`
the same commands run over a set that is there: cells of Chula-RBC-12 ('rbcedge train cut'), or the paper's. Without
the limits on crops and batches they reproduce the paper.

In place of ImageNet weights, which must be downloaded, the classifiers start from weights of their own, learnt on
other simulated slides (--pretraining, epochs; 0: from random weights). They see a few hundred small crops for a few
batches: that everything works is shown, not how good it can get. Called again it goes on where it was. Every command
is printed before it runs.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

#: Of the slides that first weights are learnt on; the set itself has seed 0.
_OTHER_SEED = 1


def main() -> None:
    """Run every step that is not done yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", type=Path, help="a set in the layout 'elsafty'; default: one is simulated")
    parser.add_argument("--cells", type=int, default=40, help="cells of each simulated slide")
    parser.add_argument("--folds", default="5x2")
    parser.add_argument("--side", type=int, default=48, help="side of the crops, px")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--steps", type=int, default=10, help="batches of an epoch at the most")
    parser.add_argument("--pretraining", type=int, default=20, help="epochs on other simulated slides")
    parser.add_argument("--other", default="mobilenetv3small", help="networks beside EfficientNetB0, comma-separated")
    args = parser.parse_args()
    out: Path = args.out
    runs = out / "runs"
    begun = time.monotonic()
    cells = args.data or simulated(out / "cells", args.cells, 0)
    side = ["--side", args.side, "--norm-momentum", 0.9]
    short = [*side, "--epochs", args.epochs, "--steps", args.steps]

    def classifiers(name: str, *more: object) -> None:
        """Train over all folds, from first weights that were learnt in the same way."""
        weights: object = "none"
        if args.pretraining:
            first = out / "first" / name.removesuffix("-weighted")
            others = simulated(out / "other-cells", args.cells, _OTHER_SEED)
            start = ["--recipe", "rbcedge", "--weights", "none", "--folds", "1x1", "--epochs", args.pretraining]
            same = [word for word in more if word != "--weighted"]
            rbcedge("train", "classifier", "--data", others, *start, *side, *same, "--out", first)
            weights = first / "model.keras"
        run = ["--folds", args.folds, "--weights", weights, *short, *more, "--out", runs / name]
        rbcedge("train", "classifier", "--data", cells, *run)

    unet = ["--epochs", 10 * args.epochs, "--steps", args.steps]
    rbcedge("train", "segmenter", "--data", cells, "--recipe", "rbcedge", *side, *unet, "--out", runs / "unet")
    classifiers("b0")
    classifiers("b0-weighted", "--weighted")
    classifiers("b0-not-segmented", "--no-segmentation")
    for network in filter(None, args.other.split(",")):
        classifiers(network, "--network", network)
    rbcedge("evaluate", "segmenter", runs, "--tables", "--figures", "--out", out / "segmentation")
    rbcedge("evaluate", "classifier", runs, "--tables", "--figures", "--out", out / "classification")
    print(f"{time.monotonic() - begun:.0f} s")


def simulated(folder: Path, cells: int, seed: int) -> Path:
    """Write a simulated set where it is not there yet."""
    if not (folder / "scanners.json").is_file():
        rbcedge("train", "simulate", folder, "--cells", cells, "--seed", seed)
    return folder


def rbcedge(*arguments: object) -> None:
    """Run one command as a user would; end where it fails."""
    words = [str(a) for a in arguments]
    print(f"rbcedge {' '.join(words)}", flush=True)
    done = subprocess.run([sys.executable, "-m", "rbcedge", *words], check=False)
    if done.returncode:
        sys.exit(done.returncode)


if __name__ == "__main__":
    main()
