"""What was trained: networks, labels, scale, thresholds, hashes. A bundle is a folder with `manifest.json`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rbcedge.errors import RbcedgeError
from rbcedge.manifest import Section

SCHEMA = 1
MANIFEST = "manifest.json"
ROLES = ("segmenter", "classifier")
FORMATS = ("tflite", "onnx", "keras", "engine")
PRECISIONS = ("fp32", "fp16", "int8")


@dataclass(frozen=True, slots=True)
class Label:
    """A class the classifier can name.

    Attributes
    ----------
    code : str
        Short upper-case code, also a file and column name ("NOR").
    name : str
        For people ("normal, rounded").
    significant : bool
        Clinically significant: its interval decides `--until-ci`.
    cells : int
        Red cells in one such object: 1, or 2 and 3 for overlapped cells, which are left out of percentages.
    """

    code: str
    name: str
    significant: bool = False
    cells: int = 1


@dataclass(frozen=True, slots=True)
class Artefact:
    """One network file of a bundle.

    Attributes
    ----------
    role, format, precision : str
        Of `ROLES`, `FORMATS`, `PRECISIONS`. No two files of a bundle have all three in common.
    file : str
        Name in the bundle's folder.
    bytes : int
    sha256 : str
    accepted_loss : mapping or None
        What this file loses against float32, where that is more than is tolerated and somebody accepted it.
    """

    role: str
    format: str
    precision: str
    file: str
    bytes: int
    sha256: str
    accepted_loss: Mapping[str, Any] | None = None

    def entry(self) -> dict[str, Any]:
        """Return what stands in the manifest."""
        return {key: value for key, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, slots=True)
class Bundle:
    """A trained pair of networks and everything needed to use it.

    Attributes
    ----------
    folder : Path
    name, created, licence : str
    labels : tuple of Label
        In the order of the classifier's outputs.
    diameter_px : float
        Median diameter of a single red cell at native scale, px.
    um_per_px : float
        Size of a native pixel, µm.
    segmenter_scale : float
        Working resolution of the segmenter: its pixels per native pixel (0.5: half resolution).
    crop_px : int
        Side of the classifier's input, native px (the paper: 80).
    small_crop_px : int
        Smaller side on which cells that fit are classified at less cost; equal to `crop_px` where there is none.
    rim_px : int
        Background shown around a cell in its crop, native px.
    mask_threshold : float
        A pixel is cell where the segmenter's probability is at least this.
    confidence_threshold : float
        Cells whose best probability is below are "unclassified".
    temperature : float
        Divides the logarithm of the probabilities before they are used (1: as they are).
    artefacts : tuple of Artefact
    manifest : mapping
        The whole manifest, also what is only for people (training data, measured accuracy).
    sha256 : str
        Of the manifest file: names the bundle in every record.
    """

    folder: Path
    name: str
    created: str
    licence: str
    labels: tuple[Label, ...]
    diameter_px: float
    um_per_px: float
    segmenter_scale: float
    crop_px: int
    small_crop_px: int
    rim_px: int
    mask_threshold: float
    confidence_threshold: float
    temperature: float
    artefacts: tuple[Artefact, ...]
    manifest: Mapping[str, Any]
    sha256: str

    @property
    def codes(self) -> tuple[str, ...]:
        """Codes in the order of the classifier's outputs."""
        return tuple(label.code for label in self.labels)

    def find(self, role: str, format: str, precisions: Iterable[str]) -> Artefact | None:
        """Return the first artefact of this role and format, in the order of `precisions`, or None."""
        for precision in precisions:
            for a in self.artefacts:
                if (a.role, a.format, a.precision) == (role, format, precision):
                    return a
        return None

    def path(self, artefact: Artefact) -> Path:
        """Where the artefact's file is."""
        return self.folder / artefact.file


def default_folder() -> Path:
    """Folder of the bundle that comes with the package."""
    return Path(__file__).parent / "bundles" / "default"


def load(folder: Path, check_files: bool = True) -> Bundle:
    """Read a bundle and check every file's size and hash.

    Raises
    ------
    RbcedgeError
        Naming the file that is missing or wrong, and what to do.
    """
    path = folder / MANIFEST
    try:
        raw = path.read_bytes()
    except OSError as e:
        raise RbcedgeError(
            f"{folder} is not a bundle: {path.name} cannot be read ({e.strerror}). "
            "Give --bundle a folder with a manifest.json and its networks, or leave it out for the default."
        ) from e
    try:
        bundle = parse(folder, json.loads(raw), hashlib.sha256(raw).hexdigest())
    except json.JSONDecodeError as e:
        raise RbcedgeError(
            f"{path}: line {e.lineno}, column {e.colno} is no JSON ({e.msg}). Correct it, or reinstall the bundle."
        ) from e
    except ValueError as e:
        raise RbcedgeError(f"{path}: {e}. Correct it, or reinstall the bundle.") from e
    if check_files:
        for artefact in bundle.artefacts:
            problem = check(bundle, artefact)
            if problem:
                raise RbcedgeError(f"{bundle.path(artefact)}: {problem}. Reinstall the bundle.")
    return bundle


def check(bundle: Bundle, artefact: Artefact) -> str | None:
    """Return what is wrong with an artefact's file, or None where size and hash are right."""
    try:
        data = bundle.path(artefact).read_bytes()
    except OSError as e:
        return f"cannot be read ({e.strerror})"
    if len(data) != artefact.bytes:
        return f"{len(data)} bytes where the manifest says {artefact.bytes}"
    if hashlib.sha256(data).hexdigest() != artefact.sha256:
        return "content differs from the manifest (sha256)"
    return None


def describe(role: str, format: str, precision: str, path: Path) -> Artefact:
    """Make the manifest's entry for a network file."""
    data = path.read_bytes()
    return Artefact(role, format, precision, path.name, len(data), hashlib.sha256(data).hexdigest())


def parse(folder: Path, manifest: Any, sha256: str) -> Bundle:
    """Read a manifest as JSON gives it. Raises ValueError, naming the field that is wrong."""
    m = Section(manifest)
    schema = m.whole("schema", 0)
    if schema != SCHEMA:
        raise ValueError(f"schema {schema}, this version of rbcedge reads {SCHEMA}")
    labels = tuple(read_labels(manifest))
    artefacts = tuple(_artefact(e) for e in m.sections("artefacts"))
    for k, a in enumerate(artefacts):
        if Path(a.file).name != a.file:
            raise ValueError(f"artefacts[{k}].file must be a file of the bundle's own folder, it is '{a.file}'")
        if any((a.role, a.format, a.precision) == (b.role, b.format, b.precision) for b in artefacts[:k]):
            raise ValueError(f"artefacts[{k}]: a second {a.format} {a.role} in {a.precision}")
    scale, segmenter, classifier = m.section("scale"), m.section("segmenter"), m.section("classifier")
    crop = classifier.whole("crop_px", 16, 1024)
    return Bundle(
        folder=folder,
        name=m.text("name"),
        created=m.text("created"),
        licence=m.text("licence"),
        labels=labels,
        diameter_px=scale.number("diameter_px", 0, open_end=True),
        um_per_px=scale.number("um_per_px", 0, open_end=True),
        segmenter_scale=segmenter.number("scale", 1 / 16, 1),
        crop_px=crop,
        small_crop_px=classifier.whole("small_crop_px", 16, crop, default=crop),
        rim_px=classifier.whole("rim_px", 0, 16, default=0),
        mask_threshold=segmenter.number("threshold", 0, 1, open_end=True),
        confidence_threshold=classifier.number("confidence_threshold", 0, 0.999),
        temperature=classifier.number("temperature", 0, open_end=True),
        artefacts=artefacts,
        manifest=m.values,
        sha256=sha256,
    )


def _artefact(entry: Section) -> Artefact:
    loss = entry.values.get("accepted_loss")
    return Artefact(
        entry.text("role", ROLES),
        entry.text("format", FORMATS),
        entry.text("precision", PRECISIONS),
        entry.text("file"),
        entry.whole("bytes", 0),
        entry.text("sha256"),
        None if loss is None else entry.section("accepted_loss").values,
    )


def read_labels(manifest: Any) -> list[Label]:
    """Read the labels of a manifest. Raises ValueError, naming the field that is wrong."""
    labels = [
        Label(e.text("code"), e.text("name"), e.flag("significant", False), e.whole("cells", 1, default=1))
        for e in Section(manifest).sections("labels")
    ]
    check_labels(labels)
    return labels


def check_labels(labels: Sequence[Label]) -> None:
    """Raise ValueError unless there are labels, with different codes that can name a file and a column."""
    codes = [label.code for label in labels]
    if not labels or len(set(codes)) != len(codes):
        raise ValueError("labels must be a list of different codes")
    if not all(code.isidentifier() for code in codes):
        raise ValueError(f"label codes must be plain words, got {codes}")
