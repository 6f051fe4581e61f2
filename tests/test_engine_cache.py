"""The engine cache with made-up builders: what is kept is what was built, for exactly this machine, or it is said."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rbcedge.engines import engine_cache
from rbcedge.engines.engine_cache import Key, Obtained, Refused, obtain, spare_folder, stored
from rbcedge.errors import RbcedgeError

KEY = Key(
    network="segmenter",
    onnx_sha256="ab" * 32,
    precision="fp16",
    shapes=("1x240x320x3", "1x480x640x3"),
    tensorrt="10.3.0",
    gpu="Orin",
    compute_capability="8.7",
    sm_count=16,
    cuda="12.6",
    recipe=1,
)
GOOD = bytes(range(256)) * 20


class Bench:
    """A builder that counts, a loader that checks, and what the user was told."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.builds: list[float | None] = []
        self.told: list[str] = []

    def build(self, expected: float | None) -> bytes:
        self.builds.append(expected)
        return GOOD

    def load(self, data: bytes) -> bytes:
        if data != GOOD:
            raise Refused("not what was built")
        return data

    def obtain(self, key: Key = KEY, **changes: Any) -> Obtained[bytes]:
        what = {"build": self.build, "load": self.load, **changes}
        return obtain(key, what["build"], what["load"], self.told.append, self.folder)

    @property
    def engine(self) -> Path:
        return self.folder / f"{KEY.stem}.engine"

    @property
    def record(self) -> Path:
        return self.folder / f"{KEY.stem}.json"


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    return Bench(tmp_path / "cache")


def leftovers(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.suffix not in (".engine", ".json", ".lock"))


def test_built_once_then_loaded(bench: Bench) -> None:
    first, second = bench.obtain(), bench.obtain()
    assert (first.built, second.built) == (True, False)
    assert first.engine == second.engine == GOOD
    assert second.path == bench.engine
    assert second.nbytes == len(GOOD)
    assert bench.builds == [None]
    assert bench.told == ["segmenter: there is no engine for this GPU yet; it is built now, once"]
    # The plan is what TensorRT made and nothing else.
    assert bench.engine.read_bytes() == GOOD
    assert leftovers(bench.folder) == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"onnx_sha256": "cd" * 32}, "another ONNX file"),
        ({"tensorrt": "10.13.2"}, "TensorRT 10.3.0 (here 10.13.2)"),
        ({"gpu": "Thor"}, "the GPU Orin (here Thor)"),
        ({"compute_capability": "11.0"}, "compute capability 8.7 (here 11.0)"),
        ({"sm_count": 8}, "SM count 16 (here 8)"),
        ({"cuda": "13.0"}, "CUDA 12.6 (here 13.0)"),
        ({"recipe": 2}, "an earlier rbcedge"),
    ],
)
def test_any_difference_is_named_and_builds_anew(bench: Bench, change: dict[str, Any], told: str) -> None:
    bench.obtain()
    other = bench.obtain(replace(KEY, **change))
    assert other.built
    assert bench.told[-1] == f"segmenter: the engine in the cache was built for {told}; it is built now, once"
    # Two machines that share a home folder do not take turns in building.
    assert not bench.obtain().built
    assert not bench.obtain(replace(KEY, **change)).built


@pytest.mark.parametrize("change", [{"precision": "int8"}, {"shapes": ("1x64x64x3",)}, {"network": "classifier-80"}])
def test_other_networks_and_shapes_are_engines_of_their_own(bench: Bench, change: dict[str, Any]) -> None:
    bench.obtain()
    assert bench.obtain(replace(KEY, **change)).built
    assert "no engine for this GPU yet" in bench.told[-1]


def test_several_differences_are_one_line(bench: Bench) -> None:
    bench.obtain()
    bench.obtain(replace(KEY, gpu="Thor", sm_count=20, tensorrt="11.4.0"))
    assert "TensorRT 10.3.0 (here 11.4.0), the GPU Orin (here Thor), SM count 16 (here 20)" in bench.told[-1]
    assert "\n" not in bench.told[-1]


def truncate(bench: Bench) -> None:
    bench.engine.write_bytes(GOOD[:-1])


def extend(bench: Bench) -> None:
    bench.engine.write_bytes(GOOD + b"\0")


def flip(bench: Bench) -> None:
    bench.engine.write_bytes(GOOD[:99] + bytes([GOOD[99] ^ 1]) + GOOD[100:])


def empty(bench: Bench) -> None:
    bench.engine.write_bytes(b"")


def remove_engine(bench: Bench) -> None:
    bench.engine.unlink()


def remove_record(bench: Bench) -> None:
    bench.record.unlink()


def spoil_record(bench: Bench) -> None:
    bench.record.write_bytes(bench.record.read_bytes()[:-9])


def edit_record(bench: Bench) -> None:
    record = json.loads(bench.record.read_text())
    record["key"]["tensorrt"] = "8.6.1"
    bench.record.write_text(json.dumps(record))


def drop_hash(bench: Bench) -> None:
    record = json.loads(bench.record.read_text())
    del record["engine"]["sha256"]
    bench.record.write_text(json.dumps(record))


def swap(bench: Bench) -> None:
    """Somebody copies another engine over this one, record and all."""
    bench.obtain(replace(KEY, gpu="Thor"))
    other = bench.folder / f"{replace(KEY, gpu='Thor').stem}.json"
    bench.record.write_bytes(other.read_bytes())


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (truncate, "damaged (5119 bytes, 5120 were written)"),
        (extend, "damaged (5121 bytes, 5120 were written)"),
        (flip, "damaged (its content is not what was written)"),
        (empty, "damaged (0 bytes, 5120 were written)"),
        (remove_engine, "the engine's record is in the cache, the engine is not"),
        (remove_record, "the engine in the cache has no record of what it was built for"),
        (spoil_record, "the record beside the engine cannot be read (it is not valid JSON of the expected form)"),
        (edit_record, "was built for TensorRT 8.6.1 (here 10.3.0)"),
        (drop_hash, "the record beside the engine cannot be read ('sha256' is missing)"),
        (swap, "was built for the GPU Thor (here Orin)"),
    ],
)
def test_damage_is_named_and_built_anew(bench: Bench, damage: Any, told: str) -> None:
    bench.obtain()
    damage(bench)
    bench.told.clear()
    again = bench.obtain()
    assert again.built
    assert again.engine == GOOD
    assert len(bench.told) == 1
    assert told in bench.told[0]
    assert not bench.obtain().built


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_damage_ever_gives_another_engine(bench: Bench, data: st.DataObject) -> None:
    """Whatever a byte of engine or record is changed to, what is loaded is what was built."""
    bench.obtain()
    victim = data.draw(st.sampled_from([bench.engine, bench.record]))
    content = bytearray(victim.read_bytes())
    at = data.draw(st.integers(0, 2**32)) % len(content)  # a record's length varies a little with its date
    if data.draw(st.booleans()):
        content[at] = data.draw(st.integers(0, 255))
    else:
        del content[at : at + data.draw(st.integers(1, 50))]
    victim.write_bytes(content)
    seen: list[bytes] = []

    def load(raw: bytes) -> bytes:
        seen.append(raw)
        return raw

    assert bench.obtain(load=load).engine == GOOD
    assert set(seen) == {GOOD}


def test_an_engine_that_is_refused_is_built_anew(bench: Bench) -> None:
    bench.obtain()
    calls = iter(("refuse", "take"))

    def load(data: bytes) -> bytes:
        if next(calls) == "refuse":
            raise Refused("expecting library version 10.3.0.30 got 10.3.0.26, please rebuild")
        return data

    assert bench.obtain(load=load).built
    assert "TensorRT refuses the engine in the cache (expecting library version 10.3.0.30" in bench.told[-1]


def test_a_new_engine_that_is_refused_is_an_error_and_not_kept(bench: Bench) -> None:
    def load(data: bytes) -> bytes:
        raise Refused("Version tag does not match")

    with pytest.raises(RbcedgeError, match=r"segmenter engine was built, but .*Version tag does not match\.$"):
        bench.obtain(load=load)
    assert not bench.engine.exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt, RbcedgeError("no"), MemoryError])
def test_a_build_that_breaks_off_leaves_nothing(bench: Bench, error: Any) -> None:
    def build(expected: float | None) -> bytes:
        raise error

    with pytest.raises(type(error) if isinstance(error, Exception) else error):
        bench.obtain(build=build)
    assert [p.suffix for p in bench.folder.iterdir()] == [".lock"]
    assert bench.obtain().built
    assert not bench.obtain().built


def test_the_last_building_time_is_known(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter((100.0, 163.25, 0.0, 1.0, 0.0, 1.0))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    assert bench.obtain().seconds == 63.25
    bench.obtain(replace(KEY, tensorrt="10.13.2"))  # the same GPU: told
    bench.obtain(replace(KEY, gpu="Thor"))  # another one: says nothing about it
    assert bench.builds == [None, 63.2, None]


def test_old_engines_go(bench: Bench) -> None:
    keys = [replace(KEY, onnx_sha256=f"{i:064d}") for i in range(6)]
    for i, key in enumerate(keys):
        bench.obtain(key)
        os.utime(bench.folder / f"{key.stem}.engine", (i + 1, i + 1))
    bench.obtain(replace(KEY, network="classifier-80"))
    kept = [i for i, key in enumerate(keys) if (bench.folder / f"{key.stem}.engine").exists()]
    assert kept == [2, 3, 4, 5]
    assert len(list(bench.folder.glob("segmenter*.json"))) == 4
    assert not bench.obtain(replace(KEY, network="classifier-80")).built


def test_engines_for_other_shapes_are_found(bench: Bench) -> None:
    bench.obtain()
    wide, foreign = replace(KEY, shapes=("1x544x960x3",)), replace(KEY, shapes=("1x16x16x3",), gpu="Thor")
    spoilt = replace(KEY, shapes=("1x32x32x3",))
    for key in (wide, foreign, spoilt):
        bench.obtain(key)
    (bench.folder / f"{spoilt.stem}.engine").write_bytes(b"short")
    assert {k.shapes for k in stored(KEY, bench.folder)} == {KEY.shapes, wide.shapes}
    assert stored(KEY, bench.folder / "nowhere") == []


# Places that cannot be written.


@pytest.fixture
def plain_user() -> Iterator[None]:
    """Not root: root may write everywhere."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that a plain user can reach, which pytest's own are not."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


def test_a_read_only_cache_falls_back_and_says_so_once(
    open_folder: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    cache, spare = open_folder / "cache", open_folder / "tmp"
    cache.mkdir()
    cache.chmod(0o555)
    spare.mkdir()
    spare.chmod(0o777)
    monkeypatch.setattr(tempfile, "tempdir", str(spare))
    request.getfixturevalue("plain_user")
    bench = Bench(cache)
    first = bench.obtain()
    assert first.built
    assert first.path is not None
    assert first.path.parent == spare_folder()
    assert "cannot be written (Permission denied); engines go to" in bench.told[0]
    assert len(bench.told) == 2
    # The next start finds it there.
    assert not bench.obtain().built


def test_a_read_only_cache_with_the_engine_in_it_is_used(
    open_folder: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    bench = Bench(open_folder / "cache")
    bench.obtain()
    bench.folder.chmod(0o555)
    for path in bench.folder.iterdir():
        path.chmod(0o444)
    bench.told.clear()
    request.getfixturevalue("plain_user")
    assert not bench.obtain().built
    assert bench.told == []


def test_a_spare_folder_of_somebody_else_is_not_used(bench: Bench) -> None:
    """Engines are code: whoever makes our folder in /tmp first must not get theirs run."""
    elsewhere = bench.folder.parent / "trap"
    elsewhere.mkdir()
    spare_folder().symlink_to(elsewhere)
    bench.folder.write_text("a file where the folder should be")
    found = bench.obtain()
    assert found.built
    assert found.path is None
    assert found.engine == GOOD
    assert any("neither the engine cache" in line for line in bench.told)
    assert any("cannot be kept and will be built again" in line for line in bench.told)
    assert list(elsewhere.iterdir()) == []


def test_a_full_disk_while_writing_leaves_no_half_engine(bench: Bench) -> None:
    """The system refuses the engine's write half-way, in both folders; the engine is used all the same."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, hard))
    try:
        found = bench.obtain()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert found.engine == GOOD
    assert found.path is None
    assert any(f"the engine cannot be written to {bench.folder} (File too large)" in line for line in bench.told)
    assert list(bench.folder.glob("*.engine")) == list(bench.folder.glob("*.part")) == []
    assert bench.obtain().built


def test_a_full_cache_falls_back(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    real = engine_cache.write

    def write(path: Path, data: bytes) -> None:
        if path.parent == bench.folder:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path, data)

    monkeypatch.setattr(engine_cache, "write", write)
    found = bench.obtain()
    assert found.path is not None
    assert found.path.parent == spare_folder()
    assert any("No space left on device" in line for line in bench.told)


# Several processes.

_WORKER = """
import json, os, signal, sys, time
from pathlib import Path
from rbcedge.engines.engine_cache import Key, obtain
folder, log, go, die, key = json.loads(sys.argv[1])
good = bytes(range(256)) * 20
def build(expected):
    with open(log, "a") as file:
        file.write("build\\n")
    while not Path(go).exists():
        time.sleep(0.02)
    return good
if die:
    os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)
key = Key(**{**key, "shapes": tuple(key["shapes"])})
found = obtain(key, build, lambda data: data, lambda line: print(line, flush=True), Path(folder))
print(json.dumps([found.built, found.engine == good]), flush=True)
"""


def worker(folder: Path, log: Path, go: Path, die: bool = False) -> subprocess.Popen[str]:
    """Obtain the engine in another process; its build takes until the file `go` is there."""
    arguments = json.dumps([str(folder), str(log), str(go), die, asdict(KEY)])
    return subprocess.Popen([sys.executable, "-c", _WORKER, arguments], stdout=subprocess.PIPE, text=True)


def wait_for(path: Path) -> None:
    until = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_two_processes_build_once(tmp_path: Path) -> None:
    log, go = tmp_path / "log", tmp_path / "go"
    first = worker(tmp_path / "cache", log, go)
    wait_for(log)
    second = worker(tmp_path / "cache", log, go)
    assert second.stdout is not None
    assert second.stdout.readline() == "segmenter: another process is building this engine; waiting for it\n"
    go.touch()
    out = [p.communicate()[0].splitlines() for p in (first, second)]
    assert log.read_text() == "build\n"
    assert [json.loads(lines[-1]) for lines in out] == [[True, True], [False, True]]


def test_a_killed_builder_holds_nobody_up(tmp_path: Path) -> None:
    log = tmp_path / "log"
    first = worker(tmp_path / "cache", log, tmp_path / "never")
    wait_for(log)
    second = worker(tmp_path / "cache", log, log)
    assert second.stdout is not None
    assert "waiting" in second.stdout.readline()
    first.kill()
    first.communicate()
    lines = second.communicate()[0].splitlines()
    assert json.loads(lines[-1]) == [True, True]
    assert log.read_text() == "build\n" * 2


def test_a_process_killed_while_writing_leaves_no_half_engine(bench: Bench) -> None:
    """SIGKILL between the bytes and the name: what is left is a .part, and the next build clears it away."""
    victim = worker(bench.folder, bench.folder.parent / "log", bench.folder.parent, die=True)
    victim.communicate()
    assert victim.returncode == -signal.SIGKILL
    assert [p for p in leftovers(bench.folder) if p.endswith(".part")]
    assert not bench.engine.exists()
    assert bench.obtain().built
    assert leftovers(bench.folder) == []
    assert not bench.obtain().built
