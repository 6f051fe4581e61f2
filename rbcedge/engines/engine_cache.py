"""Engines built once for this machine, kept, and never trusted blindly.

Beside each engine lies a record (JSON) of everything it depends on. An engine is used only where its record says
exactly what is wanted here and its bytes are those that were recorded; otherwise one line says what differs and it
is built anew. Nothing is written into the engine itself, so that NVIDIA's own tools read it. Nothing here knows
TensorRT: who builds and who loads is handed in.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Generic, TypeVar

from rbcedge.errors import RbcedgeError

T = TypeVar("T")

_SCHEMA = 1
#: Engines kept for one network and its shapes; the longest unused go first.
_KEPT = 4


@dataclass(frozen=True, slots=True)
class Key:
    """Everything an engine depends on. Two engines with equal keys do the same.

    Attributes
    ----------
    network : str
        What it is for, part of the file's name ("segmenter").
    onnx_sha256 : str
        Of the ONNX file it was built from.
    precision : str
        "fp32", "fp16" or "int8".
    shapes : tuple of str
        Input shapes it serves, one entry for each optimisation profile.
    tensorrt : str
        TensorRT's version.
    gpu, compute_capability, sm_count, cuda
        As in `rbcedge.engines.cuda.Gpu`.
    recipe : int
        Counts up whenever engines are built in another way.
    """

    network: str
    onnx_sha256: str
    precision: str
    shapes: tuple[str, ...]
    tensorrt: str
    gpu: str
    compute_capability: str
    sm_count: int
    cuda: str
    recipe: int

    @property
    def slot(self) -> str:
        """What stays the same over machines, versions and trainings: the start of the file's name."""
        shapes = hashlib.sha256(" ".join(self.shapes).encode()).hexdigest()[:6]
        return f"{self.network}.{self.precision}.{shapes}"

    @property
    def stem(self) -> str:
        """The file's name without its suffix."""
        whole = json.dumps(asdict(self), sort_keys=True).encode()
        return f"{self.slot}.{hashlib.sha256(whole).hexdigest()[:12]}"


class Refused(Exception):
    """An engine cannot be loaded; the text says why. Raised by loaders."""


@dataclass(frozen=True, slots=True)
class Obtained(Generic[T]):
    """A loaded engine.

    Attributes
    ----------
    engine : T
        What the loader made of it.
    path : Path or None
        Where it is kept, None where it could not be.
    built : bool
        Whether it was built just now.
    sha256 : str
        Of the engine's bytes.
    nbytes : int
    seconds : float
        What building took, then or now.
    """

    engine: T
    path: Path | None
    built: bool
    sha256: str
    nbytes: int
    seconds: float


def default_folder() -> Path:
    """The user's engine cache."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("rbcedge")) / "engines"


def spare_folder() -> Path:
    """Where engines go when the cache cannot be written: gone after a restart of the machine, but not before."""
    return Path(tempfile.gettempdir()) / f"rbcedge-engines-{os.geteuid()}"


def obtain(
    key: Key,
    build: Callable[[float | None], bytes],
    load: Callable[[bytes], T],
    tell: Callable[[str], None],
    folder: Path | None = None,
) -> Obtained[T]:
    """Load an engine from the cache, or build, keep and load it.

    Two processes that want the same engine build it once: the second waits. Where `folder` cannot be written the
    engine goes into `spare_folder()`, with a warning, and where that fails too it is only used.

    Parameters
    ----------
    key : Key
    build : callable (seconds or None) -> bytes
        Builds the engine; is told how long it took last time on this GPU, if that is known. What it raises is passed
        on, with nothing written.
    load : callable (bytes) -> T
        Raises `Refused` with the reason.
    tell : callable (str)
        Gets one line for everything the user should know.
    folder : Path or None
        None: `default_folder()`.

    Raises
    ------
    RbcedgeError
        Where an engine that was built just now is refused.
    """
    first = default_folder() if folder is None else folder
    found = _load(first, key, load)
    if isinstance(found, Obtained):
        return found
    place = _writable(first, tell)
    if place is not None and place != first:
        spare = _load(place, key, load)
        if isinstance(spare, Obtained):
            return spare
    with _locked(place, key, tell) as waited:
        if waited and place is not None:
            # Somebody else has built it in the meantime.
            again = _load(place, key, load)
            if isinstance(again, Obtained):
                return again
        tell(f"{key.network}: {found}; it is built now, once")
        begun = time.monotonic()
        data = build(_last_time(first, key))
        seconds = time.monotonic() - begun
        try:
            engine = load(data)
        except Refused as e:
            raise RbcedgeError(f"The {key.network} engine was built, but TensorRT does not load it: {e}.") from e
        path = _keep(place, key, data, seconds, tell)
        if path is None and place == first:
            path = _keep(_writable(spare_folder(), tell), key, data, seconds, tell)
        if path is None:
            tell(f"{key.network}: the engine cannot be kept and will be built again next time")
    return Obtained(engine, path, True, hashlib.sha256(data).hexdigest(), len(data), seconds)


def stored(key: Key, folder: Path | None = None) -> list[Key]:
    """Keys of the engines in the cache that differ from `key` in their shapes only, and are not damaged."""
    place = default_folder() if folder is None else folder
    found = []
    for record in sorted(place.glob(f"{key.network}.{key.precision}.*.json")):
        other = _recorded(record)
        if (
            isinstance(other, dict)
            and set(_differences(key, other["key"])) <= {"shapes"}
            and (other_key := _key(other["key"])) is not None
            and isinstance(_read(place, other_key), bytes)
        ):
            found.append(other_key)
    return found


def _load(folder: Path, key: Key, load: Callable[[bytes], T]) -> Obtained[T] | str:
    """Return the engine, or in words why there is none."""
    data = _read(folder, key)
    if isinstance(data, str):
        return data
    try:
        engine = load(data)
    except Refused as e:
        return f"TensorRT refuses the engine in the cache ({e})"
    path = folder / f"{key.stem}.engine"
    with suppress(OSError):
        os.utime(path)
    record = _recorded(path.with_suffix(".json"))
    seconds = float(record["built"]["seconds"]) if isinstance(record, dict) else 0.0
    return Obtained(engine, path, False, hashlib.sha256(data).hexdigest(), len(data), seconds)


def _read(folder: Path, key: Key) -> bytes | str:
    """Return the bytes of a sound engine for `key`, or in words why there is none."""
    path = folder / f"{key.stem}.engine"
    record = _recorded(path.with_suffix(".json"))
    if record is None and not path.exists():
        return _nearest(folder, key)
    if record is None:
        return "the engine in the cache has no record of what it was built for"
    if isinstance(record, str):
        return f"the record beside the engine cannot be read ({record})"
    differences = _differences(key, record["key"])
    if differences:
        return f"the engine in the cache was built for {_in_words(differences)}"
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return "the engine's record is in the cache, the engine is not"
    except OSError as e:
        return f"the engine in the cache cannot be read ({e.strerror})"
    expected = record["engine"]
    if len(data) != expected["bytes"]:
        return f"the engine in the cache is damaged ({len(data)} bytes, {expected['bytes']} were written)"
    if hashlib.sha256(data).hexdigest() != expected["sha256"]:
        return "the engine in the cache is damaged (its content is not what was written)"
    return data


def _recorded(path: Path) -> dict[str, Any] | str | None:
    """Return the record, or in words what is wrong with it, or None where there is none."""
    try:
        record = json.loads(path.read_bytes())
        if record["schema"] != _SCHEMA:
            return f"schema {record['schema']}, this version reads {_SCHEMA}"
        engine, built = record["engine"], record["built"]
        if not isinstance(record["key"], dict):
            return "the key is no object"
        int(engine["bytes"]), str(engine["sha256"]), float(built["seconds"])
    except FileNotFoundError:
        return None
    except OSError as e:
        return str(e.strerror)
    except (ValueError, KeyError, TypeError) as e:
        return f"'{e.args[0]}' is missing" if isinstance(e, KeyError) else "it is not valid JSON of the expected form"
    assert isinstance(record, dict)
    return record


def _key(recorded: dict[str, Any]) -> Key | None:
    try:
        return Key(**{**recorded, "shapes": tuple(recorded["shapes"])})
    except (TypeError, KeyError):
        return None


def _differences(key: Key, recorded: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return what differs: name to (recorded, wanted)."""
    wanted = {**asdict(key), "shapes": list(key.shapes)}
    return {
        f.name: (recorded.get(f.name), wanted[f.name]) for f in fields(Key) if recorded.get(f.name) != wanted[f.name]
    }


def _in_words(differences: dict[str, tuple[Any, Any]]) -> str:
    """Say what an engine was built for and what is here, as one line."""
    titles = {
        "onnx_sha256": "another ONNX file",
        "tensorrt": "TensorRT",
        "gpu": "the GPU",
        "compute_capability": "compute capability",
        "sm_count": "SM count",
        "cuda": "CUDA",
        "recipe": "an earlier rbcedge",
    }
    parts = []
    for name, (was, now) in differences.items():
        title = titles.get(name, name)
        parts.append(title if name in ("onnx_sha256", "recipe") else f"{title} {was} (here {now})")
    return ", ".join(parts)


def _nearest(folder: Path, key: Key) -> str:
    """Say why there is no engine, in comparison with the most similar one."""
    candidates = []
    for path in folder.glob(f"{key.slot}.*.json"):
        record = _recorded(path)
        if isinstance(record, dict):
            candidates.append(_differences(key, record["key"]))
    candidates = [c for c in candidates if c]
    if not candidates:
        return "there is no engine for this GPU yet"
    return f"the engine in the cache was built for {_in_words(min(candidates, key=len))}"


def _last_time(folder: Path, key: Key) -> float | None:
    """Seconds the newest engine for these shapes took to build on a GPU of this kind, None where unknown."""
    times = []
    for path in folder.glob(f"{key.slot}.*.json"):
        record = _recorded(path)
        if isinstance(record, dict) and not {"gpu", "sm_count"} & set(_differences(key, record["key"])):
            times.append((path.stat().st_mtime, float(record["built"]["seconds"])))
    return max(times)[1] if times else None


def _writable(folder: Path, tell: Callable[[str], None]) -> Path | None:
    """Return `folder` if files can be made in it, else the spare one, else None; say so."""
    reason = _cannot_write(folder)
    if reason is None:
        return folder
    spare = spare_folder()
    if folder == spare:
        return None
    if _cannot_write(spare) is None:
        tell(f"the engine cache {folder} cannot be written ({reason}); engines go to {spare} until the next restart")
        return spare
    tell(f"neither the engine cache {folder} nor {spare} can be written ({reason})")
    return None


def _cannot_write(folder: Path) -> str | None:
    """Return why no file can be made in `folder`, None where one can. Makes the folder, for this user only."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Engines hold code that runs on load: a folder that somebody else made in /tmp is not ours to use.
        if folder == spare_folder() and (folder.is_symlink() or folder.stat().st_uid != os.geteuid()):
            return "it belongs to somebody else"
        with tempfile.TemporaryFile(dir=folder):
            return None
    except OSError as e:
        return e.strerror or str(e)


@contextmanager
def _locked(folder: Path | None, key: Key, tell: Callable[[str], None]) -> Iterator[bool]:
    """Hold the lock for building `key`; yields whether somebody else held it. It ends with the process, however."""
    descriptor = None
    waited = False
    if folder is not None:
        with suppress(OSError):
            descriptor = os.open(folder / f"{key.stem}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if descriptor is not None:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                tell(f"{key.network}: another process is building this engine; waiting for it")
                waited = True
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            except OSError:
                # Some network file systems cannot lock. Engines are still replaced in one step.
                pass
        yield waited
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _keep(folder: Path | None, key: Key, data: bytes, seconds: float, tell: Callable[[str], None]) -> Path | None:
    """Write engine and record, each in one step; return where, None where it cannot be."""
    if folder is None:
        return None
    path = folder / f"{key.stem}.engine"
    record = {
        "schema": _SCHEMA,
        "engine": {"file": path.name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()},
        "key": asdict(key),
        "built": {"date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M:%S"), "seconds": round(seconds, 1)},
    }
    try:
        for left in folder.glob(f"{key.stem}.*.part"):  # of a build that was killed; ours is the only one now
            left.unlink(missing_ok=True)
        # The engine first: a record without its engine, or with an older one, is noticed; the reverse as well.
        write(path, data)
        write(path.with_suffix(".json"), (json.dumps(record, indent=1, ensure_ascii=False) + "\n").encode())
    except OSError as e:
        tell(f"the engine cannot be written to {folder} ({e.strerror})")
        return None
    _prune(folder, key)
    return path


def write(path: Path, data: bytes) -> None:
    """Write a file in one step, on disk before it has its name.

    Raises
    ------
    OSError
        With nothing left behind.
    """
    descriptor, name = tempfile.mkstemp(prefix=f"{path.stem}.", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(name).unlink()
        raise


def _prune(folder: Path, key: Key) -> None:
    """Delete engines of this network and these shapes beyond the newest `_KEPT`."""
    with suppress(OSError):
        engines: Sequence[Path] = sorted(
            folder.glob(f"{key.slot}.*.engine"), key=lambda p: p.stat().st_mtime, reverse=True
        )
        for path in engines[_KEPT:]:
            for suffix in (".engine", ".json", ".lock"):
                path.with_suffix(suffix).unlink(missing_ok=True)
