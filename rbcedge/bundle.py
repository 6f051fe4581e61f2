"""What was trained: networks, labels, scale, thresholds, hashes. A bundle is a folder with `manifest.json`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rbcedge.errors import RbcedgeError

SCHEMA = 1
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
    """One network file of a bundle."""

    role: str
    format: str
    precision: str
    file: str
    bytes: int
    sha256: str


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
    path = folder / "manifest.json"
    try:
        raw = path.read_bytes()
    except OSError as e:
        raise RbcedgeError(
            f"{folder} is not a bundle: {path.name} cannot be read ({e.strerror}). "
            "Give --bundle a folder with a manifest.json and its networks, or leave it out for the default."
        ) from e
    try:
        bundle = _parse(folder, json.loads(raw), hashlib.sha256(raw).hexdigest())
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        what = f"'{e.args[0]}' is missing" if isinstance(e, KeyError) else str(e)
        raise RbcedgeError(f"{path}: {what}. Reinstall the bundle.") from e
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


def _parse(folder: Path, m: dict[str, Any], sha256: str) -> Bundle:
    if m["schema"] != SCHEMA:
        raise ValueError(f"schema {m['schema']}, this version reads {SCHEMA}")
    labels = tuple(
        Label(str(e["code"]), str(e["name"]), bool(e.get("significant", False)), int(e.get("cells", 1)))
        for e in m["labels"]
    )
    codes = [label.code for label in labels]
    if not labels or len(set(codes)) != len(codes):
        raise ValueError("labels must be a list of different codes")
    if not all(code.isidentifier() for code in codes):
        raise ValueError(f"label codes must be plain words, got {codes}")
    artefacts = tuple(
        Artefact(e["role"], e["format"], e["precision"], e["file"], int(e["bytes"]), e["sha256"])
        for e in m["artefacts"]
    )
    for a in artefacts:
        if a.role not in ROLES or a.format not in FORMATS or a.precision not in PRECISIONS:
            raise ValueError(f"artefact {a.file}: unknown role, format or precision")
        if Path(a.file).name != a.file:
            raise ValueError(f"artefact {a.file}: must be a file of the bundle's own folder")
    bundle = Bundle(
        folder=folder,
        name=str(m["name"]),
        created=str(m["created"]),
        licence=str(m["licence"]),
        labels=labels,
        diameter_px=float(m["scale"]["diameter_px"]),
        um_per_px=float(m["scale"]["um_per_px"]),
        segmenter_scale=float(m["segmenter"]["scale"]),
        crop_px=int(m["classifier"]["crop_px"]),
        small_crop_px=int(m["classifier"].get("small_crop_px", m["classifier"]["crop_px"])),
        rim_px=int(m["classifier"].get("rim_px", 0)),
        mask_threshold=float(m["segmenter"]["threshold"]),
        confidence_threshold=float(m["classifier"]["confidence_threshold"]),
        temperature=float(m["classifier"]["temperature"]),
        artefacts=artefacts,
        manifest=m,
        sha256=sha256,
    )
    if not (bundle.diameter_px > 0 and bundle.um_per_px > 0 and 0 < bundle.segmenter_scale <= 1):
        raise ValueError("scale must be positive")
    if not 16 <= bundle.small_crop_px <= bundle.crop_px:
        raise ValueError("small_crop_px must lie between 16 and crop_px")
    if not 0 <= bundle.rim_px <= 16:
        raise ValueError("rim_px must lie between 0 and 16")
    if not (0 < bundle.mask_threshold < 1 and 0 <= bundle.confidence_threshold < 1 and bundle.temperature > 0):
        raise ValueError("thresholds must lie between 0 and 1, the temperature above 0")
    return bundle
