"""What machine this is, read from the system's own files. Every reader takes the root of the file tree."""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/")
# Instructions that decide how fast integer networks run, best first.
_INSTRUCTIONS = ("avx512_vnni", "avx_vnni", "avx512f", "avx2", "i8mm", "asimddp", "asimd", "neon")


@dataclass(frozen=True, slots=True)
class Machine:
    """A computer.

    Attributes
    ----------
    board : str
        Name of a board computer, "" where it is none.
    cpu : str
    architecture : str
        "x86_64", "aarch64".
    instructions : str
        The best set of vector instructions that matters here, "" where none is known.
    cores : int
        That this process may use.
    memory_bytes : int
    governor : str
        Policy of the CPU's clock ("performance", "schedutil"), "" where it is not to be seen.
    power_mode : str
        Of a Jetson ("MAXN", "15W"), "" elsewhere.
    gpus : tuple of str
    system : str
    """

    board: str
    cpu: str
    architecture: str
    instructions: str
    cores: int
    memory_bytes: int
    governor: str
    power_mode: str
    gpus: tuple[str, ...]
    system: str

    @property
    def identity(self) -> tuple[str, str, str, int, str, tuple[str, ...]]:
        """What must agree for times to be comparable."""
        return self.board, self.cpu, self.instructions, self.cores, self.power_mode, self.gpus

    @property
    def lines(self) -> tuple[str, ...]:
        """For people: one or two short lines."""
        speed = f" ({self.instructions})" if self.instructions else ""
        first = f"{self.board + ', ' if self.board else ''}{self.cpu}{speed}, {self.cores} cores"
        second = [f"{self.memory_bytes / 2**30:.0f} GB"]
        second += [f"governor {self.governor}"] if self.governor else []
        second += [f"power mode {self.power_mode}"] if self.power_mode else []
        second += list(self.gpus)
        return first, ", ".join([*second, self.system])


def machine(root: Path = ROOT, gpus: tuple[str, ...] = ()) -> Machine:
    """Describe this computer; what cannot be read is left empty."""
    info = text(root / "proc/cpuinfo")
    return Machine(
        board=text(root / "proc/device-tree/model").strip("\0\n "),
        cpu=_cpu(info),
        architecture=platform.machine(),
        instructions=_instructions(info),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory_bytes=_memory(text(root / "proc/meminfo")),
        governor=_governor(root),
        power_mode=power_mode(root),
        gpus=gpus,
        system=_system(root),
    )


def last_cache_bytes(root: Path = ROOT) -> int:
    """Return the size of the first core's largest cache, 0 where it is not to be seen."""
    sizes = []
    for entry in (root / "sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        found = re.fullmatch(r"(\d+)([KM]?)", text(entry).strip())
        if found:
            sizes.append(int(found[1]) * {"": 1, "K": 2**10, "M": 2**20}[found[2]])
    return max(sizes, default=0)


def power_mode(root: Path = ROOT) -> str:
    """Return the name of a Jetson's power mode, or "" where it cannot be read.

    `/var/lib/nvpmodel/status` holds the number as "pmode:0002", `/etc/nvpmodel.conf` the names as
    "< POWER_MODEL ID=2 NAME=15W >".
    """
    found = re.search(r"pmode:\s*(\d+)", text(root / "var/lib/nvpmodel/status"))
    if found is None:
        return ""
    number = int(found[1])
    named = re.findall(r"<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+)", text(root / "etc/nvpmodel.conf"))
    return next((name for n, name in named if int(n) == number), f"mode {number}")


def text(path: Path) -> str:
    """Return the text of a small file, "" where it cannot be read."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def number(path: Path) -> int | None:
    """Return the whole number in a file of the system, None where there is none."""
    try:
        return int(path.read_text().strip())
    except (OSError, ValueError):
        return None


def _cpu(info: str) -> str:
    names = {line.partition(":")[2].strip() for line in info.splitlines() if line.startswith("model name")}
    return " ".join(sorted(names)) or platform.processor() or platform.machine()


def _instructions(info: str) -> str:
    flags = next((line.split() for line in info.splitlines() if line.startswith(("flags", "Features"))), [])
    return next((name for name in _INSTRUCTIONS if name in flags), "")


def _memory(info: str) -> int:
    found = re.search(r"MemTotal:\s+(\d+) kB", info)
    return int(found[1]) * 1024 if found else 0


def _governor(root: Path) -> str:
    policies = (root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_governor")
    return " ".join(sorted({text(p).strip() for p in policies} - {""}))


def _system(root: Path) -> str:
    found = re.search(r'^PRETTY_NAME="?([^"\n]+)', text(root / "etc/os-release"), re.M)
    release = re.search(r"R(\d+).*?REVISION:\s*([\d.]+)", text(root / "etc/nv_tegra_release"))
    name = found[1] if found else platform.system()
    return f"{name}, L4T {release[1]}.{release[2]}" if release else name
