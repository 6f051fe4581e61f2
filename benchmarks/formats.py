"""Every format of a pair of networks beside float32: size, time, and what it changes on held-out real fields.

    python benchmarks/formats.py CHULA [--bundle DIR] [--keras DIR] [--only bundle|fresh] [--every N] [--out FILE]

Two tables: the pair of a bundle, and one that was never trained. With `--keras` (a folder with segmenter.keras and
classifier.keras, as `rbcedge train fields bundle --keras` leaves them) everything is converted anew from float32
Keras. Without, the reference is the bundle's float32 TFLite pair; its own files are measured, and ONNX is made from the
ONNX it has. INT8 is calibrated on training fields. "layers kept" is what `rbcedge calibrate` does.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

import numpy as np
from numpy.typing import NDArray
from rbcedge.calibration.agreement import Agreement, Networks, compare_fields, pool, process
from rbcedge.calibration.chosen import CalibrationSet, choose
from rbcedge.calibration.examine import examine
from rbcedge.calibration.fitting import Wanted, fit
from rbcedge.calibration.job import float_networks
from rbcedge.calibration.marks import Mark
from rbcedge.calibration.onnx import OnnxNetwork
from rbcedge.calibration.reference import ReferenceEngine
from rbcedge.calibration.tflite import TFLiteNetwork
from rbcedge.convert.making import BATCH, MAKES, Pictures, make
from rbcedge.convert.networks import Network, of_bundle, open_network
from rbcedge.training.datasets import chula

from rbcedge.bundle import ROLES, Bundle, default_folder, load
from rbcedge.engines.base import Engine
from rbcedge.engines.litert import LiteRTEngine
from rbcedge.engines.onnx import OnnxEngine
from rbcedge.field import Field
from rbcedge.frame import Frame
from rbcedge.pipeline.host import HostPipeline
from rbcedge.sources import open_source
from rbcedge.sources.images import read_picture

#: Training fields looked at for the calibration set, and those that a random network's share of cell is taken from.
_LOOKED_AT, _CELL = 40, 0.25
_ROUNDS = 15

Files = Mapping[str, bytes]


@dataclass(frozen=True)
class Row:
    """One format of both networks; KB, ms of a call, agreement with the reference, layers in float."""

    format: str
    precision: str
    kb: tuple[float, ...]
    ms: tuple[float, ...]
    agreement: Agreement | None
    kept: str = ""


class Fields:
    """Real fields as the reference sees them, and how others differ.

    Where `finder` is given the cells are those of this segmenter, as a network that was never trained finds none, and
    `cut` is the probability from which on the untrained one says "cell".
    """

    def __init__(
        self,
        bundle: Bundle,
        reference: Networks,
        held_out: Sequence[chula.LabelledField],
        finder: Engine | None = None,
        cut: float = 0.5,
    ) -> None:
        self._finder = finder
        # A class that wins among eight by a hair is below any threshold; the untrained pair is judged without one.
        self._cells = bundle if finder is None else replace(bundle, confidence_threshold=0.0)
        self.bundle = bundle if finder is None else replace(bundle, mask_threshold=cut)
        self._frames = [Frame(0, 0.0, np.asarray(read_picture(f.picture)), f.picture.name) for f in held_out]
        self._marks = [
            [Mark(float(x), float(y), chula.TO_PAPER[int(k)]) for (x, y), k in zip(f.points, f.types, strict=True)]
            for f in held_out
        ]
        self._before = [self._see(reference, frame) for frame in self._frames]
        self._masks = [self._mask(reference, frame) for frame in self._frames] if finder else []

    def agree(self, engines: Networks, name: str = "candidate") -> Agreement:
        """Compare a pair with the reference."""
        after = [self._see(engines, frame) for frame in self._frames]
        found = [
            compare_fields(a, b, self._cells, marks)
            for a, b, marks in zip(self._before, after, self._marks, strict=True)
        ]
        out = pool(found, self.bundle.labels, "float32", name)
        if not self._finder:
            return out
        both = either = 0
        for before, frame in zip(self._masks, self._frames, strict=True):
            mask = self._mask(engines, frame)
            both, either = both + int((before & mask).sum()), either + int((before | mask).sum())
        return replace(out, mask_iou=both / either)

    def _see(self, engines: Networks, frame: Frame) -> Field:
        return process(self._cells, (self._finder or engines[0], engines[1]), frame, 1.0)

    def _mask(self, engines: Networks, frame: Frame) -> NDArray[np.bool_]:
        return HostPipeline(self.bundle, *engines, 1.0).find(frame).mask > 0


def conversions(
    networks: Mapping[str, Network], bundle: Bundle, pictures: Mapping[str, Pictures]
) -> Iterator[tuple[str, str, Files]]:
    """Yield format, precision and both networks, made from Keras or from ONNX."""
    for format, precisions in MAKES.items():
        if format == "tflite" and any(n.keras is None for n in networks.values()):
            continue
        for precision in precisions:
            made = {
                role: next(iter(make(networks[role], bundle, [(format, precision)], pictures[role]))).data
                for role in ROLES
            }
            yield format, precision, made


def shipped(bundle: Bundle) -> Iterator[tuple[str, str, Files]]:
    """Yield what a bundle holds."""
    for format, precisions in MAKES.items():
        for precision in precisions:
            found = [a for a in (bundle.find(role, format, (precision,)) for role in ROLES) if a is not None]
            if len(found) == len(ROLES):
                yield format, precision, {a.role: bundle.path(a).read_bytes() for a in found}


def rows(
    files: Iterator[tuple[str, str, Files]], fields: Fields, chosen: CalibrationSet, folder: Path, threads: int
) -> Iterator[Row]:
    """Measure every format; of each the INT8 with layers kept in float comes last."""
    batches = (chosen.segmenter_batches()[0], chosen.classifier_batches(BATCH)[0])
    whole: dict[str, Files] = {}
    for k, (format, precision, made) in enumerate(files):
        engines = tuple(_engine(folder / f"{k}.{role}.{format}", made[role], format, threads) for role in ROLES)
        if precision == "fp32":
            whole[format] = made
        yield _row(format, precision, made, engines, batches, fields.agree((engines[0], engines[1])))
    for format, made in whole.items():
        kind = TFLiteNetwork if format == "tflite" else OnnxNetwork
        networks = {role: kind(made[role], folder, f"{format}-{role}", threads) for role in ROLES}
        fitted = fit(networks, chosen, fields.bundle, Wanted(), folder, fields.agree, threads)
        small = {role: q.model for role, q in fitted.quantised.items()}
        engines = tuple(_engine(folder / f"kept.{r}.{format}", small[r], format, threads) for r in ROLES)
        kept = "; ".join(
            f"{role}: {', '.join(g.title for g in q.kept) or 'none'} ({100 * q.float_share:.0f} %)"
            for role, q in fitted.quantised.items()
        )
        yield _row(format, "int8, layers kept", small, engines, batches, fitted.agreement, kept)


def _row(
    format: str, precision: str, made: Files, engines: Sequence[Engine], batches: Sequence[NDArray[np.uint8]],
    agreement: Agreement | None, kept: str = "",
) -> Row:  # fmt: skip
    ms = tuple(_time(e, b) for e, b in zip(engines, batches, strict=True))
    return Row(format, precision, tuple(len(made[r]) / 1000 for r in made), ms, agreement, kept)


def _engine(path: Path, data: bytes, format: str, threads: int) -> Engine:
    path.write_bytes(data)
    return (LiteRTEngine if format == "tflite" else OnnxEngine)(path, "", threads)


def _time(engine: Engine, batch: NDArray[np.uint8]) -> float:
    took = []
    for _ in range(_ROUNDS + 2):
        begun = perf_counter()
        engine.infer(batch)
        took.append(1e3 * (perf_counter() - begun))
    return min(took[2:])  # other work on the machine only adds


def fresh(bundle: Bundle, chosen: CalibrationSet) -> dict[str, Network]:
    """A pair that was never trained, with batch statistics taken from real pictures: else the outputs are constant."""
    import keras
    from rbcedge.training.classifier import measure_norm
    from rbcedge.training.networks import efficientnet, unet

    keras.utils.set_random_seed(0)
    pair = {"segmenter": unet(8, 4), "classifier": efficientnet(len(bundle.labels), "none", None, dropout=0.0)}
    batches = {"segmenter": _stacked(chosen.segmenter_batches()), "classifier": chosen.classifier_batches(64)[-1]}
    for role, model in pair.items():
        measure_norm(model, [batches[role].astype(np.float32) / 255])
    return {role: Network(role, "fresh", keras=model) for role, model in pair.items()}


def _stacked(pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    size = pictures[0].shape
    return np.concatenate([p for p in pictures if p.shape == size][:4])


def table(title: str, reference: Row, found: Sequence[Row]) -> str:
    """The rows in Markdown."""
    lines = [
        f"**{title}**\n",
        "| format | precision | U-Net KB | classifier KB | U-Net ms | classifier ms | mask IoU | accuracy | same class "
        "| largest change | in float stay |\n|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for r in (reference, *found):
        kb = " | ".join(f"{v:,.0f}" for v in r.kb) or " | "
        a = r.agreement
        told = " | ".join(["", "", "", ""])
        if a is not None:
            accuracy = "" if a.accuracy is None else f"{a.accuracy[1]:.2f} % ({a.accuracy[1] - a.accuracy[0]:+.2f})"
            low, high = a.largest.change.ci95
            told = (
                f"{100 * a.mask_iou:.2f} % | {accuracy} | {100 * a.labels_agree:.2f} % | "
                f"{a.largest.label.code} {a.largest.change.points:+.2f} [{low:+.2f}, {high:+.2f}]"
            )
        lines.append(f"| {r.format} | {r.precision} | {kb} | {r.ms[0]:.1f} | {r.ms[1]:.1f} | {told} | {r.kept} |")
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("chula", type=Path)
    parser.add_argument("--bundle", type=Path, default=default_folder())
    parser.add_argument("--keras", type=Path, help="folder of segmenter.keras and classifier.keras")
    parser.add_argument("--only", choices=("bundle", "fresh"))
    parser.add_argument("--every", type=int, default=3, help="take every Nth held-out field")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="write the tables there too, and beside it the figures as .json")
    args = parser.parse_args()
    bundle = load(args.bundle)
    training, held_out = chula.split(chula.read(args.chula))
    held_out, told, kept = held_out[:: args.every], [], {}
    floats = float_networks(bundle, args.threads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = open_source([str(f.picture) for f in training])
        seen = examine(source, HostPipeline(bundle, *floats, 1.0), folder / "pictures", _LOOKED_AT)
        source.close()
        chosen, _ = choose(seen, bundle, *floats)
        pictures = {"segmenter": chosen.segmenter_batches(), "classifier": chosen.classifier_batches(BATCH)}
        for which in ("bundle", "fresh"):
            if args.only not in (None, which):
                continue
            networks = None
            if which == "fresh":
                networks = fresh(bundle, chosen)
            elif args.keras:
                networks = {role: open_network(args.keras / f"{role}.keras", role) for role in ROLES}
            if networks is None:
                reference, of = floats, f"float32 {floats[0].name}"
                onnx = {role: of_bundle(bundle, role, ("onnx",)) for role in ROLES}
                files = iter([*shipped(bundle), *_made_from(onnx, bundle, pictures)])
            else:
                reference, of = tuple(ReferenceEngine(networks[role]) for role in ROLES), "float32 Keras"
                files = conversions(networks, bundle, pictures)
            finder = floats[0] if which == "fresh" else None
            cut = 0.5
            if finder is not None:
                outputs = np.concatenate([reference[0].infer(p).ravel() for p in pictures["segmenter"]])
                cut = float(np.quantile(outputs, 1 - _CELL))
            fields = Fields(bundle, reference, held_out, finder, cut)
            first = _row(of, "fp32", {}, reference, [p[0] for p in pictures.values()], fields.agree(reference))
            found = list(rows(files, fields, chosen, folder, args.threads))
            cells = first.agreement.cells[0] if first.agreement else 0
            title = f"{bundle.name if which == 'bundle' else 'never trained'}; {len(held_out)} fields, {cells} cells"
            told.append(table(title, first, found))
            kept[which] = [_figures(r) for r in (first, *found)]
            print(told[-1] + "\n", flush=True)
    print(f"ms: a picture of 320x240 px, {BATCH} crops; the best of {_ROUNDS} calls, {args.threads} threads")
    if args.out:
        args.out.write_text("\n\n".join(told) + "\n", encoding="utf-8")
        args.out.with_suffix(".json").write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


def _made_from(
    onnx: Mapping[str, Network | None], bundle: Bundle, pictures: Mapping[str, Pictures]
) -> Iterator[tuple[str, str, Files]]:
    """ONNX that the bundle lacks, made from the ONNX it has."""
    networks = {role: n for role, n in onnx.items() if n is not None}
    if len(networks) == len(ROLES):
        has = {a.precision for a in bundle.artefacts if a.format == "onnx"}
        yield from (x for x in conversions(networks, bundle, pictures) if x[1] not in has)


def _figures(row: Row) -> dict[str, object]:
    from rbcedge.calibration.report import agreement_figures
    from rbcedge.calibration.tolerances import Tolerances

    agreement = None if row.agreement is None else agreement_figures(row.agreement, Tolerances())
    return {"format": row.format, "precision": row.precision, "kb": row.kb, "ms": row.ms, "kept": row.kept,
            "agreement": agreement}  # fmt: skip


if __name__ == "__main__":
    main()
