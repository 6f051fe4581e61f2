"""A bundle as one file, to carry to another machine, and back."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from contextlib import suppress
from pathlib import Path

from rbcedge.bundle import MANIFEST, Bundle, load
from rbcedge.errors import RbcedgeError

#: Every entry bears the earliest time a zip file knows, so that one bundle always gives one and the same file.
_TIME = (1980, 1, 1, 0, 0, 0)
#: Bytes that a packed bundle may unfold to.
LARGEST = 4 << 30


def pack(folder: Path, file: Path) -> Bundle:
    """Write the bundle in `folder` as one zip file: its manifest and the files named there, nothing else.

    The same bundle gives the same bytes, on any machine. Files are stored as they are: weights do not compress.

    Raises
    ------
    RbcedgeError
        Where a file of the bundle is missing or wrong, `file` exists or cannot be written.
    """
    bundle = load(folder)
    if file.exists():
        raise RbcedgeError(f"{file} exists already. Give another name, or remove it first.")
    part = file.with_name(f".{file.name}.part")
    try:
        with zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as archive:
            for name in (MANIFEST, *sorted({a.file for a in bundle.artefacts})):
                entry = zipfile.ZipInfo(name, _TIME)
                entry.create_system = 3  # else it would say on which system it was packed
                entry.external_attr = 0o644 << 16
                archive.writestr(entry, (folder / name).read_bytes())
        part.replace(file)
    except OSError as e:
        raise RbcedgeError(f"{file} cannot be written ({e.strerror}). Choose another place.") from e
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
    return bundle


def unpack(file: Path, folder: Path) -> Bundle:
    """Unfold a packed bundle into a new folder, and check every file in it.

    Raises
    ------
    RbcedgeError
        Where `file` is no packed bundle, or damaged; where `folder` exists. Nothing is left behind then.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RbcedgeError(f"{folder} exists already. Give a new folder.")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(file) as archive, tempfile.TemporaryDirectory(dir=folder.parent, prefix=".rbcedge-") as t:
            part = Path(t) / "bundle"
            part.mkdir()
            _check_names(file, archive.infolist())
            for entry in archive.infolist():
                with archive.open(entry) as source, (part / entry.filename).open("wb") as target:
                    shutil.copyfileobj(source, target)
            try:
                names = {a.file for a in load(part).artefacts} | {MANIFEST}
            except RbcedgeError as e:
                raise RbcedgeError(str(e).replace(str(part), str(file))) from e
            strange = sorted(set(archive.namelist()) - names)
            if strange:
                raise RbcedgeError(f"{file}: holds {', '.join(strange)}, which the manifest does not name.")
            part.rename(folder)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as e:
        raise RbcedgeError(f"{file}: not a packed bundle, or damaged ({e}). Fetch it anew.") from e
    except OSError as e:
        raise RbcedgeError(f"{file} cannot be unpacked to {folder} ({e.strerror or e}).") from e
    return load(folder)


def _check_names(file: Path, entries: list[zipfile.ZipInfo]) -> None:
    """Take nothing that would be written anywhere but into the bundle's own folder, and no more than is sensible."""
    names = [e.filename for e in entries]
    if MANIFEST not in names:
        raise RbcedgeError(f"{file}: not a packed bundle, it holds no {MANIFEST}.")
    for name in names:
        # A back slash or a colon would be a path on Windows.
        if Path(name).name != name or set(name) & set("\\:\0") or name in ("", ".", ".."):
            raise RbcedgeError(f"{file}: '{name}' is no plain file name. This is no packed bundle; do not use it.")
    if len(set(names)) != len(names):
        raise RbcedgeError(f"{file}: names a file twice. This is no packed bundle; do not use it.")
    if sum(e.file_size for e in entries) > LARGEST:
        raise RbcedgeError(f"{file}: unfolds to more than {LARGEST >> 30} GiB, which no bundle does.")
