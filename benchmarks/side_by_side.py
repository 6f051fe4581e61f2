"""rbcedge beside what a user would pick instead: one run, the same pictures, ratios.

    pip install 'rbcedge[train]' -r benchmarks/requirements.txt
    python benchmarks/side_by_side.py [PICTURES...] [--rounds 3] [--only 'NAME;NAME'] [--out benchmarks/results]
    python benchmarks/side_by_side.py --rounds 1 --fields 2 --only 'watershed;onnxruntime'      # seconds

Pictures of 640x480 (fields of Chula-RBC-12, say); without any, 12 simulated fields of 75 cells. Every row is one way
to treat a picture, installed from its own package; one whose package, GPU or bundle is missing is skipped by name.
Rows take turns picture by picture, so that other work on the machine disturbs all alike, and each row's figure is its
median over all pictures and rounds, divided by rbcedge's in the same run. The slow ones are shown fewer pictures (the
column n says how many samples each has), so that the whole takes minutes. Beside the time on the clock stands the CPU
time of the process: on a machine that others use too, and with --threads 1, that is the fairer one. Networks that
rbcedge does not ship have random weights: their speed is measured, not what they find.

| row | what it does to a picture |
|---|---|
| paper, width 64 | Keras `predict` on the picture's crops, float32: its U-Net (31 M parameters), EfficientNetB0 |
| paper, width 8 | the same with the shipped width and transposed up-sampling |
| ..., one by one | the same with a `predict` for each cell |
| onnxruntime | the shipped width and EfficientNetB0 in float32, whole picture and all crops at once |
| openvino int8 | the shipped .tflite files, all cells on 80 px |
| yolo11n-seg | ultralytics, from its yaml: its network alone; finds, outlines and names |
| cellpose | its network alone, without its flow dynamics; finds only |
| watershed | OpenCV: Otsu, distance transform, watershed; finds only |
| gpu, host copies | TensorRT through copies to and from the device |
| gpu, zero copy | rbcedge's loop on the device |
| rbcedge | everything: light, find, cells, crops, classes |
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from importlib import metadata
from pathlib import Path
from time import perf_counter, process_time

import cv2
import numpy as np
from numpy.typing import NDArray

from rbcedge import bundle as bundles
from rbcedge.bench.fields import exact_fields
from rbcedge.bench.hardware import machine
from rbcedge.cells import components, crops
from rbcedge.engines.loading import cores, load_engines
from rbcedge.errors import RbcedgeError
from rbcedge.field import Field
from rbcedge.frame import Frame
from rbcedge.pipeline.choosing import choose
from rbcedge.pipeline.host import HostPipeline
from rbcedge.pipeline.illumination import estimate
from rbcedge.pipeline.plan import padding, working_size

OURS = "rbcedge"
_SIDE = 80
Way = Callable[[NDArray[np.uint8], Field], object]


class Missing(Exception):
    """Why a row cannot be measured here."""


@dataclass(frozen=True)
class Row:
    """One way to treat a picture: `make` builds it once and raises `Missing`; `most` limits its pictures."""

    name: str
    does: str
    packages: tuple[str, ...]
    make: Callable[[bundles.Bundle, int], Way]
    most: int = 0


def ours(bundle: bundles.Bundle, threads: int) -> Way:
    """The whole pipeline."""
    pipeline = HostPipeline(bundle, *load_engines(bundle, threads=threads), scale=1.0)

    def run(picture: NDArray[np.uint8], field: Field) -> object:
        found = pipeline.find(Frame(0, 0.0, picture, "picture"))
        return pipeline.classify(found, np.arange(len(found.cells)))

    return run


def paper(width: int, upsampling: str, batch: int) -> Callable[[bundles.Bundle, int], Way]:
    """Keras on crops, as the paper's tests: `predict` of the U-Net on the cells of a picture, then of the classifier.

    `batch` is 32, the paper's, or 1: a `predict` for each cell, which mostly pays for the call.
    """

    def make(bundle: bundles.Bundle, threads: int) -> Way:
        tensorflow(threads)
        from rbcedge.training.networks import efficientnet, unet

        segmenter = unet(width, upsampling=upsampling, shape=(_SIDE, _SIDE, 3))
        classifier = efficientnet(len(bundle.labels), "none", _SIDE)

        def both(x: NDArray[np.float32]) -> object:
            mask = segmenter.predict(x, batch_size=32, verbose=0) >= 0.5
            return classifier.predict(x * mask, batch_size=32, verbose=0)

        def run(picture: NDArray[np.uint8], field: Field) -> object:
            x = squares(picture, field).astype(np.float32) / 255
            return both(x) if batch > 1 else [both(crop[None]) for crop in x]

        return run

    return make


def onnx(bundle: bundles.Bundle, threads: int) -> Way:
    """The same networks in float32, converted by tf2onnx."""
    runtime = module("onnxruntime")
    folder = Path(tempfile.gettempdir()) / "rbcedge-side-by-side"
    files = onnx_files(bundle, folder, threads)
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    first, second = (runtime.InferenceSession(str(f), options, providers=["CPUExecutionProvider"]) for f in files)

    def run(picture: NDArray[np.uint8], field: Field) -> object:
        small = working(bundle, picture).astype(np.float32) / 255
        cells = squares(picture, field).astype(np.float32) / 255
        mask = first.run(None, {first.get_inputs()[0].name: small[None]})
        return mask, second.run(None, {second.get_inputs()[0].name: cells})

    return run


def onnx_files(bundle: bundles.Bundle, folder: Path, threads: int) -> tuple[Path, Path]:
    """Convert networks of the shipped sizes with random weights, once."""
    paths = (folder / "unet8.onnx", folder / f"efficientnet{len(bundle.labels)}.onnx")
    if all(p.is_file() for p in paths):
        return paths
    tf = tensorflow(threads)
    tf2onnx = module("tf2onnx")
    from rbcedge.training.networks import efficientnet, unet

    folder.mkdir(parents=True, exist_ok=True)
    networks = (unet(8, upsampling="transpose"), efficientnet(len(bundle.labels), "none", _SIDE))
    for network, path in zip(networks, paths, strict=True):
        signature = (tf.TensorSpec((None, *network.inputs[0].shape[1:]), tf.float32, name="pixels"),)
        part = path.with_suffix(".part")
        tf2onnx.convert.from_keras(network, input_signature=signature, opset=17, output_path=str(part))
        part.replace(path)
    return paths


def openvino(bundle: bundles.Bundle, threads: int) -> Way:
    """The shipped INT8 files."""
    ov = module("openvino")
    core = ov.Core()
    compiled = []
    h, w = working(bundle, np.zeros((480, 640, 3), np.uint8)).shape[:2]
    for role, shape in (("segmenter", (1, h, w, 3)), ("classifier", None)):
        artefact = bundle.find(role, "tflite", ("int8",))
        if artefact is None:
            raise Missing(f"the bundle has no INT8 .tflite {role}")
        try:
            model = core.read_model(str(bundle.path(artefact)))
        except RuntimeError as e:  # constants behind the description, as calibration writes them, are not found
            raise Missing(f"OpenVINO cannot read {artefact.file}") from e
        if shape is None:  # the file is laid out at a side of its own
            shape = (int(model.inputs[0].shape[0]), _SIDE, _SIDE, 3)
        if tuple(model.inputs[0].shape) != shape:
            model.reshape(shape)
        compiled.append(core.compile_model(model, "CPU", {"INFERENCE_NUM_THREADS": threads}))
    batch = int(compiled[1].inputs[0].shape[0])

    def run(picture: NDArray[np.uint8], field: Field) -> object:
        mask = compiled[0](working(bundle, picture)[None])
        cells = squares(picture, field)
        missing = -len(cells) % batch
        cells = np.concatenate([cells, np.zeros((missing, *cells.shape[1:]), np.uint8)])
        return mask, [compiled[1](cells[k : k + batch]) for k in range(0, len(cells), batch)]

    return run


def yolo(bundle: bundles.Bundle, threads: int) -> Way:
    """An instance segmenter of the kind one would train on labelled cells."""
    # It looks for a network connection and for fonts where it is not told otherwise.
    os.environ.update(YOLO_OFFLINE="true", YOLO_AUTOINSTALL="false", YOLO_VERBOSE="false")
    torch = module("torch")
    ultralytics = module("ultralytics")
    torch.set_num_threads(threads)
    network = ultralytics.YOLO("yolo11n-seg.yaml").model.eval()

    def run(picture: NDArray[np.uint8], field: Field) -> object:
        # 640 px on the long side, its working size. What random weights find says nothing, so that the choice among
        # overlapping boxes and the masks, whose time depends on it, are left out.
        rgb = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
        x = torch.from_numpy(rgb).permute(2, 0, 1)[None].float() / 255
        with torch.no_grad():
            return network(x)

    return run


def cellpose(bundle: bundles.Bundle, threads: int) -> Way:
    """The network of cellpose 3 at its own working diameter; its later versions need a download of 1 GB."""
    torch = module("torch")
    module("cellpose")
    torch.set_num_threads(threads)
    try:
        from cellpose.resnet_torch import CPnet
    except ImportError as e:
        raise Missing(f"this version of cellpose has no CPnet ({metadata.version('cellpose')})") from e
    network = CPnet([2, 32, 64, 128, 256], nout=3, sz=3).eval()
    factor = 30 / bundle.diameter_px

    def run(picture: NDArray[np.uint8], field: Field) -> object:
        green = cv2.resize(picture[..., 1], None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
        h, w = green.shape
        padded = cv2.copyMakeBorder(green, 0, -h % 16, 0, -w % 16, cv2.BORDER_REPLICATE).astype(np.float32) / 255
        x = np.stack([padded, np.zeros_like(padded)])[None]
        with torch.no_grad():
            return network(torch.from_numpy(x))[0].numpy()

    return run


def watershed(bundle: bundles.Bundle, threads: int) -> Way:
    """Classical segmentation."""
    kernel = np.ones((3, 3), np.uint8)

    def run(picture: NDArray[np.uint8], field: Field) -> object:
        flat = estimate(picture).apply(picture)
        green = cv2.GaussianBlur(flat[..., 1], (0, 0), 1.0)
        _, mask = cv2.threshold(green, 0, 255, cv2.THRESH_BINARY_INV | cv2.THRESH_OTSU)
        mask = cv2.morphologyEx(mask, cv2.MORPH_OPEN, kernel)
        distance = cv2.distanceTransform(mask, cv2.DIST_L2, 5)
        _, seeds = cv2.threshold(distance, 0.5 * distance.max(), 255, cv2.THRESH_BINARY)
        _, markers = cv2.connectedComponents(seeds.astype(np.uint8))
        markers = markers + 1
        markers[(mask > 0) & (seeds == 0)] = 0
        return components((cv2.watershed(flat, markers) > 1).astype(np.uint8), 1, 57)

    return run


def gpu_host_copies(bundle: bundles.Bundle, threads: int) -> Way:
    """TensorRT behind the host pipeline: pictures are copied to the device and results back, stage by stage."""
    try:
        pipeline = HostPipeline(bundle, *load_engines(bundle, "tensorrt", "fp16"), scale=1.0)
    except RbcedgeError as e:
        raise Missing(str(e)) from e

    def run(picture: NDArray[np.uint8], field: Field) -> object:
        found = pipeline.find(Frame(0, 0.0, picture, "picture"))
        return pipeline.classify(found, np.arange(len(found.cells)))

    return run


def gpu_zero_copy(bundle: bundles.Bundle, threads: int) -> Way:
    """The loop on the device. Copying a picture into page-locked memory stands for the camera that decodes into it."""
    try:
        pipeline = choose(bundle, "tensorrt", "fp16", scale=1.0).pipeline
    except RbcedgeError as e:
        raise Missing(str(e)) from e
    buffer = pipeline.pictures(640, 480)[0]

    def run(picture: NDArray[np.uint8], field: Field) -> object:
        np.copyto(buffer, picture)
        found = pipeline.find(Frame(0, 0.0, buffer, "picture"))
        return pipeline.classify(found, np.arange(len(found.cells)))

    return run


_KERAS = "find and classify crops, Keras float32"
ROWS = (
    Row(OURS, "light, find, crop, classify", ("ai-edge-litert",), ours),
    Row("paper, width 64", _KERAS, ("keras", "tensorflow"), paper(64, "paper", 32), 2),
    Row("paper, width 8", _KERAS, ("keras", "tensorflow"), paper(8, "transpose", 32), 2),
    Row("paper, width 64, one by one", _KERAS, ("keras", "tensorflow"), paper(64, "paper", 1), 1),
    Row("paper, width 8, one by one", _KERAS, ("keras", "tensorflow"), paper(8, "transpose", 1), 1),
    Row("onnxruntime", "find and classify, float32, at once", ("onnxruntime",), onnx),
    Row("openvino int8", "find and classify, INT8, at once", ("openvino",), openvino),
    Row("yolo11n-seg", "find and classify, random weights, network only", ("ultralytics",), yolo, 4),
    Row("cellpose", "find only, random weights, network only", ("cellpose",), cellpose, 4),
    Row("watershed", "find only", ("opencv-python-headless",), watershed),
    Row("gpu, host copies", "light, find, crop, classify, FP16", ("tensorrt",), gpu_host_copies),
    Row("gpu, zero copy", "light, find, crop, classify, FP16", ("tensorrt",), gpu_zero_copy),
)


def module(name: str):
    """Import a package or say that it is not there."""
    try:
        return __import__(name)
    except Exception as e:  # broken installations raise anything
        raise Missing(f"{name} is not installed" if isinstance(e, ImportError) else f"{name}: {e}") from e


def tensorflow(threads: int):
    """Import TensorFlow, held to so many threads."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    tf = module("tensorflow")
    # They can be set only before the first network runs; later calls want what is set already.
    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    except RuntimeError:
        pass
    return tf


def squares(picture: NDArray[np.uint8], field: Field) -> NDArray[np.uint8]:
    """Cells cut out, RGB."""
    rgb = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
    return crops(rgb, field.labels, field.cells, np.arange(len(field.cells)), 1.0, _SIDE)


def working(bundle: bundles.Bundle, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The picture at the segmenter's resolution, padded, RGB."""
    h, w = picture.shape[:2]
    size = working_size(bundle, (w, h), 1.0)
    right, below = padding(size)
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(cv2.copyMakeBorder(small, 0, below, 0, right, cv2.BORDER_REPLICATE), cv2.COLOR_BGR2RGB)


def fields(
    paths: list[Path], count: int, bundle: bundles.Bundle, threads: int
) -> list[tuple[NDArray[np.uint8], Field]]:
    """Pictures with their cells, so that every row treats the same ones; `count` simulated ones without `paths`."""
    if paths:
        read = [cv2.imread(str(p)) for p in paths]
        shown = [p for p in read if p is not None and p.shape == (480, 640, 3)]
        if not shown:
            raise SystemExit("side_by_side: none of these is a picture of 640x480.")
    else:
        shown = [frame.pixels for frame in exact_fields(640, 480, 75, count).frames()]
    pipeline = HostPipeline(bundle, *load_engines(bundle, threads=threads), scale=1.0)
    found = [(p, pipeline.find(Frame(0, 0.0, p, "picture"))) for p in shown]
    pipeline.close()
    full = [pair for pair in found if len(pair[1].cells)]
    if not full:
        raise SystemExit("side_by_side: no cells in these pictures.")
    return full


def measure(
    ways: dict[str, tuple[Row, Way]], pictures: list[tuple[NDArray[np.uint8], Field]], rounds: int
) -> dict[str, list[tuple[float, float]]]:
    """Time every way on the same pictures in turn: clock and CPU, ms."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for name, (_, way) in list(ways.items()):
        try:
            way(*pictures[0])  # warms up
        except Exception as e:
            print(f"{name}: failed, {type(e).__name__}: {str(e).splitlines()[0] if str(e) else ''}", file=sys.stderr)
            del ways[name], times[name]
    for _ in range(rounds):
        for k, pair in enumerate(pictures):
            for name, (row, way) in ways.items():
                if row.most and k >= row.most:
                    continue
                begun, spent = perf_counter(), process_time()
                way(*pair)
                times[name].append((1e3 * (perf_counter() - begun), 1e3 * (process_time() - spent)))
    return times


def version(packages: tuple[str, ...]) -> str:
    """Versions of the packages that are installed."""
    found = []
    for name in packages:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return ", ".join(found)


def markdown(result: dict) -> str:
    """The result as a page."""
    lines = [
        f"# Side by side, {result['date']}",
        "",
        f"`{result['command']}`",
        "",
        f"{result['machine']}. {result['threads']} threads. {result['pictures']} pictures of 640x480, "
        f"{result['cells']:.0f} cells each (median), {result['rounds']} rounds, rows in turn.",
        f"Programs running or waiting for each core, before and after: {result['load'][0]:.1f} and "
        f"{result['load'][1]:.1f}. Where "
        "that is not near 0, only the ratios mean something, those of CPU time first.",
        "",
        "| way | does | n | clock ms | CPU ms | CPU, times rbcedge | 95 % limits | clock, times rbcedge | 95 % limits "
        "| versions |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        cpu, clock = ("{:.2f} | {:.2f}-{:.2f}".format(*row[f"{kind}_ratio"]) for kind in ("cpu", "clock"))
        lines.append(
            f"| {row['name']} | {row['does']} | {row['n']} | {row['clock_ms']:.1f} | {row['cpu_ms']:.1f} "
            f"| {cpu} | {clock} | {row['versions']} |"
        )
    if result["skipped"]:
        lines += ["", "Skipped:", ""] + [f"- {name}: {why}" for name, why in result["skipped"].items()]
    return "\n".join(lines) + "\n"


def ratio(a: NDArray[np.float64], b: NDArray[np.float64]) -> tuple[float, float, float]:
    """Ratio of the medians of two series, and its 95 % limits by resampling pictures."""
    rng = np.random.default_rng(0)
    tops = np.median(a[rng.integers(0, len(a), (2000, len(a)))], axis=1)
    bottoms = np.median(b[rng.integers(0, len(b), (2000, len(b)))], axis=1)
    low, high = np.percentile(tops / bottoms, (2.5, 97.5))
    return float(np.median(a) / np.median(b)), float(low), float(high)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", type=Path, nargs="*")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--fields", type=int, default=12, help="simulated fields, where no pictures are given")
    parser.add_argument("--threads", type=int, default=cores())
    parser.add_argument("--only", help="names of rows, joined by ';'")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if min(args.rounds, args.fields, args.threads) < 1:
        parser.error("--rounds, --fields and --threads are 1 or more")
    only = None if args.only is None else {name.strip() for name in args.only.split(";")} | {OURS}
    unknown = sorted((only or set()) - {row.name for row in ROWS})
    if unknown:
        parser.error(f"no row {unknown[0]!r}; there are {'; '.join(row.name for row in ROWS)}")
    bundle = bundles.load(bundles.default_folder())
    pictures = fields(args.pictures, args.fields, bundle, args.threads)
    before = os.getloadavg()[0] / cores()
    ways: dict[str, tuple[Row, Way]] = {}
    skipped: dict[str, str] = {}
    for row in ROWS:
        if only is not None and row.name not in only:
            continue
        try:
            ways[row.name] = (row, row.make(bundle, args.threads))
        except Missing as e:
            skipped[row.name] = str(e)
            print(f"skipped: {row.name}: {e}", file=sys.stderr)
    times = measure(ways, pictures, args.rounds)
    for row in ROWS:
        if row.name in times or row.name in skipped or (only is not None and row.name not in only):
            continue
        skipped[row.name] = "failed, see the error stream"
    ours_clock, ours_cpu = (np.array(v) for v in zip(*times[OURS], strict=True))
    rows = []
    for name, values in times.items():
        clock, cpu = (np.array(v) for v in zip(*values, strict=True))
        row = ways[name][0]
        rows.append(
            {
                "name": name,
                "does": row.does,
                "n": len(values),
                "clock_ms": float(np.median(clock)),
                "cpu_ms": float(np.median(cpu)),
                "clock_ratio": ratio(clock, ours_clock),
                "cpu_ratio": ratio(cpu, ours_cpu),
                "versions": version(row.packages),
                "samples_ms": values,
            }
        )
    rows.sort(key=lambda r: r["cpu_ratio"])
    result = {
        "date": date.today().isoformat(),
        "command": "python benchmarks/side_by_side.py"
        + (" PICTURES" if args.pictures else f" --fields {args.fields}")
        + f" --rounds {args.rounds} --threads {args.threads}"
        + (f" --only '{args.only}'" if args.only else ""),
        "machine": f"{machine().lines[0]}, Python {platform.python_version()}",
        "bundle": bundle.sha256[:12],
        "threads": args.threads,
        "pictures": len(pictures),
        "cells": float(np.median([len(field.cells) for _, field in pictures])),
        "rounds": args.rounds,
        "load": [before, os.getloadavg()[0] / cores()],
        "rows": rows,
        "skipped": skipped,
    }
    text = markdown(result)
    print(text)
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        name = f"side-by-side-{result['date']}"
        for suffix, content in ((".json", json.dumps(result, indent=1)), (".md", text)):
            part = args.out / (name + ".part")
            part.write_text(content, encoding="utf-8")
            part.replace(args.out / (name + suffix))


if __name__ == "__main__":
    main()
