"""A latency budget for Jetson boards. PROJECTED by roofline, not measured: none of these boards was at hand.

    python benchmarks/jetson_budget.py [--size 640x480] [--cells 75] [--precision fp16] [--write docs/jetson-budget.md]

Operations and bytes of every layer are counted from the shipped networks (.tflite) at the picture's working size;
bytes of the kernels between the networks follow from their formulas below, which list what each kernel of
rbcedge/pipeline/gpu/kernels.cu reads and writes. For each layer or kernel

    floor  = max(operations / peak, bytes / bandwidth)
    budget = max(operations / (COMPUTE * peak), bytes / (MEMORY * bandwidth)) + LAUNCH

Every tensor is taken to go to memory and back: only what a cache keeps can beat the floor. The budget assumes what
small networks usually reach; its three constants are assumptions. Cells are taken to fit the smaller crop; the
classifier's batch is the bucket the number of cells falls into.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rbcedge import bundle as bundles
from rbcedge.bench.cases import sizes_of
from rbcedge.bench.fields import usual_cells
from rbcedge.bench.operations import Operation, operations
from rbcedge.bundle import Bundle
from rbcedge.pipeline.plan import padding, working_size

#: Shares of the peaks that are allowed for, and the cost of starting a kernel in a CUDA graph, s. Assumptions.
COMPUTE, MEMORY, LAUNCH = 0.30, 0.60, 3e-6
BUCKETS = (32, 64, 128, 256, 512)
#: Dense operations (2 for each multiplication with addition) of one multiprocessor in one clock.
AMPERE = {"fp16": 2048, "int8": 4096}
#: For Blackwell the vendor names FP8, no dense INT8: INT8 is taken at the FP16 rate here.
BLACKWELL = {"fp16": 8192, "int8": 8192}
ELEMENT = {"fp16": 2, "int8": 1}


@dataclass(frozen=True)
class Board:
    """A module in one power mode: W, multiprocessors, GHz, operations per clock, GB/s, and where these were read.

    `unread` names what no source at hand confirmed and stands as the vendor's published figure from memory.
    """

    name: str
    watts: str
    multiprocessors: int
    ghz: float
    rate: dict[str, int]
    bandwidth: float
    source: str
    unread: str = "-"

    def peak(self, precision: str) -> float:
        """Dense operations a second."""
        return self.multiprocessors * self.ghz * 1e9 * self.rate[precision]


#: Looked up in November 2026: the vendor's own documents where they could be read, else pages that quote them.
BOARDS = (
    Board(
        "Orin Nano 8GB",
        "15",
        8,
        0.625,
        AMPERE,
        68.0,
        "NVIDIA, Jetson Orin Nano Series data sheet: 1024 cores, 625 MHz, 20 dense and 40 sparse INT8 TOPS; bandwidth "
        "from brojogopalsapui.com, which quotes it",
    ),
    Board(
        "Orin Nano 8GB Super",
        "25",
        8,
        1.020,
        AMPERE,
        102.0,
        "brojogopalsapui.com, which quotes NVIDIA, Jetson Orin Nano Super Developer Kit data sheet: 1.02 GHz, "
        "102 GB/s, 67 sparse INT8 TOPS",
    ),
    Board(
        "Orin NX 16GB",
        "25",
        8,
        0.918,
        AMPERE,
        102.4,
        "NVIDIA, Jetson Orin NX Series data sheet (short form): 100 sparse INT8 TOPS with its two DLA, 10 to 25 W",
        "918 MHz, 102.4 GB/s",
    ),
    Board(
        "AGX Orin 64GB",
        "60 (MAXN)",
        16,
        1.300,
        AMPERE,
        204.8,
        "NVIDIA, Jetson AGX Orin Series technical brief, as quoted by mzph.cn: 16 multiprocessors, 4 MB cache, "
        "5.3 FP32 TFLOPS, 170 sparse INT8 TOPS on the GPU; 15 to 60 W from blog.us.fixstars.com",
        "204.8 GB/s",
    ),
    Board(
        "Thor T5000",
        "130",
        20,
        1.575,
        BLACKWELL,
        273.0,
        "NVIDIA developer forum, threads 356355 and 357535: 20 multiprocessors, 32 MB cache, 130 W; torring.dev: 2048 "
        "dense FP16 operations a clock in each of 4 tensor cores, 1.57 GHz; huggingface.co/hardware/jetson-t5000: "
        "258.5 TFLOPS",
        "273 GB/s",
    ),
)


@dataclass(frozen=True)
class Piece:
    """Work of one kernel: operations (2 for each multiplication with addition) and bytes."""

    operations: float
    bytes: float


Stages = dict[str, list[Piece]]


def network(counted: Sequence[Operation], precision: str) -> list[Piece]:
    """Kernels of a network: layers with multiplications, pooling and means; the rest is fused into them."""
    kept = ("MAX_POOL_2D", "MEAN", "CONCATENATION", "SOFTMAX")
    return [Piece(2.0 * o.macs, o.bytes(ELEMENT[precision])) for o in counted if o.macs or o.kind in kept]


def stages(bundle: Bundle, size: tuple[int, int], cells: int, precision: str) -> Stages:
    """Work of each stage for one picture of `size` (width, height) with `cells` fresh cells."""
    width, height = size
    pixels = float(width * height)
    work_w, work_h = working_size(bundle, size, 1.0)
    right, below = padding((work_w, work_h))
    work = float((work_w + right) * (work_h + below))
    element = ELEMENT[precision]
    side = bundle.small_crop_px
    files = {role: bundle.find(role, "tflite", ("int8", "fp32")) for role in ("segmenter", "classifier")}
    if None in files.values():
        raise SystemExit("jetson_budget: the bundle has no .tflite networks to count.")
    segmenter, classifier = (bundle.path(files[role]) for role in ("segmenter", "classifier"))
    batches = buckets(cells)
    return {
        # Each byte of the picture crosses memory in shrink and in normalise; the rest is small.
        "normalise": [
            Piece(0, 3 * pixels),
            Piece(0, 1e4),
            Piece(0, 1e4),
            Piece(0, 3 * pixels + work * (3 * element + 1)),
        ],
        "segment": network(operations(segmenter, (work_h + below, work_w + right), 1), precision),
        "components": [
            Piece(0, 5 * work),  # count_foreign: probability and green
            Piece(0, 4 * work + 9 * pixels),  # threshold_mask: cell, parent, area
            Piece(0, 10 * pixels),  # join_runs: cell twice, parent read and written
            Piece(0, 0),  # mark_open: the edge only
            Piece(0, 9 * pixels),  # fill_holes: cell, parent, area
            Piece(0, 1 * pixels),  # join_holes: cell, holes only
            Piece(0, 13 * pixels),  # count_areas: cell, parent read and written, area
            Piece(0, 9 * pixels),  # keep_large: cell, parent, area
            Piece(0, pixels / 8),  # number_rows: a bit each
            Piece(0, 13 * pixels),  # label_cells: cell, parent, area, labels
        ],
        "crop": [Piece(0, cells * side * side * (3 + 4 + 3 * element))],
        "classify": [p for b in batches for p in network(operations(classifier, (side, side), b), precision)],
        "results": [Piece(0, 64.0 * cells)],
    }


def buckets(cells: int) -> list[int]:
    """Batches that `cells` are classified in: full ones of the largest, then the smallest that holds the rest."""
    full, rest = divmod(cells, BUCKETS[-1])
    return [BUCKETS[-1]] * full + ([next(b for b in BUCKETS if b >= rest)] if rest else [])


def floor_s(board: Board, piece: Piece, precision: str) -> float:
    """Least time of a kernel, s."""
    return max(piece.operations / board.peak(precision), piece.bytes / (board.bandwidth * 1e9))


def budget_s(board: Board, piece: Piece, precision: str) -> float:
    """Time to allow for a kernel, s."""
    return (
        max(piece.operations / (COMPUTE * board.peak(precision)), piece.bytes / (MEMORY * board.bandwidth * 1e9))
        + LAUNCH
    )


def limit(board: Board, pieces: list[Piece], precision: str) -> str:
    """What holds a stage up: the largest part of its budget."""
    launch = LAUNCH * len(pieces)
    compute = memory = 0.0
    for p in pieces:
        c = p.operations / (COMPUTE * board.peak(precision))
        m = p.bytes / (MEMORY * board.bandwidth * 1e9)
        compute, memory = (compute + c, memory) if c > m else (compute, memory + m)
    return max((compute, "compute"), (memory, "memory"), (launch, "launches"))[1]


def table(work: Stages, precision: str) -> list[str]:
    """The budget of every board, Markdown."""
    lines = ["| board | " + " | ".join(work) + " | all, floor | all, budget |", "|" + "---|" * (len(work) + 3)]
    for board in BOARDS:
        cells, low, high = [], 0.0, 0.0
        for pieces in work.values():
            a = 1e3 * sum(floor_s(board, p, precision) for p in pieces)
            b = 1e3 * sum(budget_s(board, p, precision) for p in pieces)
            low, high = low + a, high + b
            cells.append(f"{a:.2f} / {b:.2f} ({limit(board, pieces, precision)})")
        lines.append(f"| {board.name} | " + " | ".join(cells) + f" | {low:.2f} | **{high:.2f}** |")
    return lines


def page(cases: Sequence[tuple[tuple[int, int], int]], precisions: Sequence[str]) -> str:
    """The whole document."""
    bundle = bundles.load(bundles.default_folder())
    lines = [
        "# Jetson latency budget: a projection",
        "",
        "**Projected, not measured.** None of these boards was at hand. Every time below is worked out by "
        "`python benchmarks/jetson_budget.py --write docs/jetson-budget.md` from counted operations and bytes and from "
        "published peaks; the script holds the arithmetic. Measure on the board with `rbcedge bench` before you rely "
        "on any of it.",
        "",
        "For each layer or kernel: floor = max(operations / peak, bytes / bandwidth), with every tensor going to "
        "memory and back, so that only what a cache keeps (4 MB on AGX Orin, 32 MB on Thor) can beat it; budget = "
        f"max(operations / ({COMPUTE:.0%} of peak), bytes / ({MEMORY:.0%} of bandwidth)) + {LAUNCH * 1e6:.0f} µs to "
        "start it. Those three constants are assumptions, not findings. Not in it: exposure and transfer of the "
        "camera, decoding, registration, ledger and record on the CPU, a clock held down by heat or power.",
        "",
        "## Boards",
        "",
        "| board | W | multiprocessors | GHz | dense FP16 TFLOPS | dense INT8 TOPS | GB/s | read in | not confirmed |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for b in BOARDS:
        lines.append(
            f"| {b.name} | {b.watts} | {b.multiprocessors} | {b.ghz:g} | {b.peak('fp16') / 1e12:.1f} "
            f"| {b.peak('int8') / 1e12:.1f} | {b.bandwidth:g} | {b.source} | {b.unread} |"
        )
    lines += [
        "",
        "Peaks are multiprocessors x clock x operations per clock (Ampere: 2048 in FP16, 4096 in INT8; Blackwell: 8192 "
        "in FP16). They agree with the figures read: 20 dense TOPS, and the sparse 67 and 170 halved; 258.5 TFLOPS. "
        "For Thor no dense INT8 figure was found; INT8 is taken at the FP16 rate. W is the power mode that the clock "
        "belongs to; smaller modes hold clocks lower. The last column names the vendor's published figures that no "
        "source at hand confirmed. None was checked on a device.",
        "",
        f"## Work of a picture (bundle {bundle.name} {bundle.sha256[:12]})",
        "",
        "| picture | fresh cells | precision | stage | kernels | GMAC | MB |",
        "|---|---|---|---|---|---|---|",
    ]
    budgets: list[str] = []
    for size, cells in cases:
        for precision in precisions:
            work = stages(bundle, size, cells, precision)
            title = f"{size[0]}x{size[1]} | {cells} | {precision.upper()}"
            for stage, pieces in work.items():
                macs = sum(p.operations for p in pieces) / 2e9
                moved = sum(p.bytes for p in pieces) / 1e6
                lines.append(f"| {title} | {stage} | {len(pieces)} | {macs:.3f} | {moved:.2f} |")
            budgets += ["", f"### {size[0]}x{size[1]}, {cells} fresh cells, {precision.upper()}", ""]
            budgets += table(work, precision)
    lines += [
        "",
        "## Projected times, ms: floor / budget (what limits it)",
    ]
    return "\n".join(lines + budgets) + "\n"


def main() -> None:
    """Work it out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="640x480,1920x1080")
    parser.add_argument("--cells", type=int, help="fresh cells; default: as many as a usual field of that size holds")
    parser.add_argument("--precision", choices=("fp16", "int8", "both"), default="both")
    parser.add_argument("--write", type=Path)
    args = parser.parse_args()
    cases = [(size, args.cells or usual_cells(*size)) for size in sizes_of(args.size)]
    text = page(cases, ("fp16", "int8") if args.precision == "both" else (args.precision,))
    if args.write is None:
        print(text, end="")
        return
    part = args.write.with_name(args.write.name + ".part")
    part.write_text(text, encoding="utf-8")
    part.replace(args.write)


if __name__ == "__main__":
    main()
