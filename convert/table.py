"""`python -m rbcedge.convert.table`: every format of a pair of networks, with size, time and distance from float32.

Times are processor times of one thread, which other programs on the machine change little.
"""

from __future__ import annotations

import platform
import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import process_time
from typing import Annotated

import typer
from rbcedge.convert.making import MAKES, Made, Pictures, make
from rbcedge.convert.networks import Network, open_network
from rbcedge.convert.probe import probes

from rbcedge.bundle import ROLES, Bundle, default_folder, load
from rbcedge.engines.base import Engine


@dataclass(frozen=True, slots=True)
class Row:
    """One format of one network: processor time of one call on one thread, ms, median; pictures in that call."""

    made: Made
    variant: str
    ms: float
    pictures: int


def formats_table(network: Network, bundle: Bundle, calibration: Pictures, rounds: int = 15) -> Iterator[Row]:
    """Convert a Keras network to every format and measure each on simulated pictures.

    Parameters
    ----------
    calibration : sequence of (n, H, W, 3) uint8
        For INT8.
    rounds : int
        Timed calls, after two that are not.
    """
    for format, precisions in MAKES.items():
        wanted = [(format, variant) for variant in precisions]
        for made, variant in zip(make(network, bundle, wanted, calibration), precisions, strict=True):
            yield Row(made, variant, *_time(made, network, bundle, rounds))


def _time(made: Made, network: Network, bundle: Bundle, rounds: int) -> tuple[float, int]:
    from rbcedge.engines.litert import LiteRTEngine
    from rbcedge.engines.onnx import OnnxEngine

    batch = probes(bundle, made.role, network.size)[0]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / made.file
        path.write_bytes(made.data)
        engine: Engine = (LiteRTEngine if made.format == "tflite" else OnnxEngine)(path, made.precision)
        times = []
        for _ in range(rounds + 2):
            begun = process_time()
            engine.infer(batch)
            times.append(1e3 * (process_time() - begun))
        engine.close()
    return statistics.median(times[2:]), len(batch)


def fresh(role: str, bundle: Bundle) -> Network:
    """Return a network that was never trained: U-Net of width 16, the paper's up-sampling, or EfficientNetB0."""
    from rbcedge.training.networks import efficientnet, unet

    model = unet(16, 4, "paper") if role == "segmenter" else efficientnet(len(bundle.labels), "none", None, dropout=0.0)
    return Network(role, "fresh", keras=model)


def main(
    bundle: Annotated[Path | None, typer.Option(metavar="DIR", help="Gives sizes and labels.")] = None,
    segmenter: Annotated[Path | None, typer.Option(metavar="FILE", help="Keras; default: a fresh one.")] = None,
    classifier: Annotated[Path | None, typer.Option(metavar="FILE", help="Keras; default: a fresh one.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Timed calls.")] = 15,
) -> None:
    """Print a Markdown table. INT8 is calibrated on the simulated field itself: for sizes and times, not accuracy."""
    chosen = load(default_folder() if bundle is None else bundle)
    typer.echo(f"{platform.machine()}, one thread, processor time, median of {rounds} calls\n")
    typer.echo("| network | format | precision | KB | CPU ms | from float32 Keras |\n|---|---|---|---|---|---|")
    for role, path in zip(ROLES, (segmenter, classifier), strict=True):
        network = fresh(role, chosen) if path is None else open_network(path, role)
        calibration = probes(chosen, role, network.size)
        for row in formats_table(network, chosen, calibration, rounds):
            m = row.made
            typer.echo(
                f"| {role}, {row.pictures} picture{'s' * (row.pictures > 1)} | {m.format} | {row.variant} | "
                f"{len(m.data) / 1000:,.0f} | {row.ms:.1f} | {m.deviation:.2g} |"
            )


if __name__ == "__main__":
    typer.run(main)
