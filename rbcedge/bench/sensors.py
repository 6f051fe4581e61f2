"""Clocks, temperatures, power and throttling while something runs, where the machine tells."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from time import perf_counter
from typing import Any

from rbcedge.bench.gpu import Gpu
from rbcedge.bench.hardware import ROOT, number, text

_PERIOD_S = 0.2


@dataclass(frozen=True, slots=True)
class Watched:
    """What the sensors said while something ran. Empty or None: there is no such sensor.

    Attributes
    ----------
    seconds : float
    energy_j : float or None
        Energy of the whole board, or of what `energy_of` names.
    energy_of : str
    clocks_mhz : mapping of str to (float, float)
        Least and largest clock seen of each unit.
    temperatures_c : mapping of str to (float, float)
        At the start, and the largest.
    throttled : tuple of str
        Reasons the system gave for holding its clocks down, in words.
    load_before : float
        Programs that wanted to run in the minute before, by the number of cores: other work on this machine.
    """

    seconds: float = 0.0
    energy_j: float | None = None
    energy_of: str = ""
    clocks_mhz: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    temperatures_c: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    throttled: tuple[str, ...] = ()
    load_before: float = 0.0


def clocks_mhz(root: Path = ROOT) -> dict[str, float]:
    """Return the mean clock of the CPU's cores and the clock of a Jetson's GPU, MHz."""
    cpus = [number(p) for p in (root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_cur_freq")]
    known = [v for v in cpus if v]
    out = {"CPU": sum(known) / len(known) / 1e3} if known else {}
    for device in sorted((root / "sys/class/devfreq").glob("*")):
        # 17000000.gpu on newer releases, 17000000.ga10b on older ones.
        if device.name.endswith((".gpu", ".ga10b", ".gv11b", ".gb10b")):
            hertz = number(device / "cur_freq")
            if hertz:
                out["GPU"] = hertz / 1e6
    return out


def temperatures_c(root: Path = ROOT) -> dict[str, float]:
    """Return temperature by zone, °C; zones without a reading are left out."""
    out: dict[str, float] = {}
    for zone in sorted((root / "sys/class/thermal").glob("thermal_zone*")):
        milli = number(zone / "temp")
        if milli is not None and milli > 0:
            out[text(zone / "type").strip() or zone.name] = milli / 1e3
    for chip in sorted((root / "sys/class/hwmon").glob("hwmon*")):
        name = text(chip / "name").strip()
        if name in ("k10temp", "coretemp"):
            milli = number(chip / "temp1_input")
            if milli is not None and milli > 0:
                out[name] = milli / 1e3
    return out


def power_w(root: Path = ROOT) -> dict[str, float]:
    """Return the power of each rail of a Jetson's INA3221 monitors, W (voltage by current).

    Labels are the board's own: VDD_IN is the whole module on Orin Nano and NX; AGX Orin has VDD_GPU_SOC,
    VDD_CPU_CV and VIN_SYS_5V0.
    """
    out: dict[str, float] = {}
    for chip in sorted((root / "sys/class/hwmon").glob("hwmon*")):
        if text(chip / "name").strip() != "ina3221":
            continue
        for k in (1, 2, 3):
            label = text(chip / f"in{k}_label").strip()
            millivolt, milliampere = number(chip / f"in{k}_input"), number(chip / f"curr{k}_input")
            # Channel "sum of shunt voltages" and unused inputs have no name that says what they feed.
            if label and label != "NC" and millivolt is not None and milliampere is not None:
                out[label] = millivolt * milliampere * 1e-6
    return out


def board_power_w(rails: Mapping[str, float]) -> tuple[float, str] | None:
    """Return the power of the whole board and what it is made of, from its rails; None where there are none."""
    if not rails:
        return None
    if "VDD_IN" in rails:
        return rails["VDD_IN"], "VDD_IN"
    return sum(rails.values()), " + ".join(sorted(rails))


def rapl_uj(root: Path = ROOT) -> dict[str, tuple[int, int]]:
    """Return energy counter and range of each x86 package (RAPL), µJ; {} where they cannot be read (root only)."""
    out = {}
    for domain in sorted((root / "sys/class/powercap").glob("intel-rapl:[0-9]*")):
        if domain.name.count(":") > 1:
            continue  # a part of a package
        now, top = number(domain / "energy_uj"), number(domain / "max_energy_range_uj")
        if now is not None and top:
            out[text(domain / "name").strip() or domain.name] = (now, top)
    return out


def rapl_spent_j(before: Mapping[str, tuple[int, int]], after: Mapping[str, tuple[int, int]]) -> float | None:
    """Return the energy between two readings, J; a counter that began anew is followed once."""
    spent = [(after[name][0] - start) % (top + 1) for name, (start, top) in before.items() if name in after]
    return sum(spent) / 1e6 if spent else None


def throttle_marks(root: Path = ROOT) -> dict[str, int]:
    """Return counters that grow and states above zero when clocks are held down, by their name."""
    out: dict[str, int] = {}
    for core in (root / "sys/devices/system/cpu").glob("cpu[0-9]*/thermal_throttle"):
        for name in ("core_throttle_count", "package_throttle_count"):
            out["CPU thermal throttling"] = out.get("CPU thermal throttling", 0) + (number(core / name) or 0)
    for device in sorted((root / "sys/class/thermal").glob("cooling_device*")):
        kind = text(device / "type").strip()
        if kind.endswith("-throttle-alert") or kind == "hot-surface-alert":
            out[kind] = number(device / "cur_state") or 0
    return out


class Watch:
    """Reads the sensors from a thread of its own while a `with` block runs; `result` is there after it.

    Five readings a second cost nothing that could be measured. What cannot be read is left out. `device_bytes` is the
    largest memory in use on the GPU that was seen, other programs' included.
    """

    def __init__(self, root: Path = ROOT, gpu: Gpu | None = None) -> None:
        self._root, self._gpu = root, gpu
        self._stop = Event()
        self._thread = Thread(target=self._follow, name="rbcedge-sensors", daemon=True)
        self._powers: list[tuple[float, float, str]] = []
        self._clocks: dict[str, tuple[float, float]] = {}
        self._temperatures: dict[str, tuple[float, float]] = {}
        self._throttled: dict[str, None] = {}
        self.device_bytes: int | None = None
        self.result = Watched()

    def __enter__(self) -> Watch:
        self._load = _load()
        self._marks = throttle_marks(self._root)
        self._rapl = rapl_uj(self._root)
        self._device_j = self._gpu.energy_j() if self._gpu else None
        self._begun = perf_counter()
        self._look()
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join(timeout=5.0)
        self._look()
        energy, of = self._energy()
        for name, now in throttle_marks(self._root).items():
            if now > self._marks.get(name, 0):
                self._throttled[name] = None
        self.result = Watched(
            perf_counter() - self._begun,
            energy,
            of,
            self._clocks,
            self._temperatures,
            tuple(self._throttled),
            self._load,
        )

    def _follow(self) -> None:
        while not self._stop.wait(_PERIOD_S):
            with suppress(OSError):
                self._look()

    def _look(self) -> None:
        readings: dict[str, Any] = {"clocks": clocks_mhz(self._root), "heat": temperatures_c(self._root)}
        if self._gpu is not None:
            readings["clocks"] |= self._gpu.clocks_mhz()
            readings["heat"] |= self._gpu.temperatures_c()
            self._throttled |= dict.fromkeys(self._gpu.throttled())
            used = self._gpu.memory_bytes()
            if used is not None:
                self.device_bytes = max(used, self.device_bytes or 0)
        for name, mhz in readings["clocks"].items():
            low, high = self._clocks.get(name, (mhz, mhz))
            self._clocks[name] = (min(low, mhz), max(high, mhz))
        for name, heat in readings["heat"].items():
            first, high = self._temperatures.get(name, (heat, heat))
            self._temperatures[name] = (first, max(high, heat))
        for name, state in throttle_marks(self._root).items():
            if name.endswith("alert") and state > 0:
                self._throttled[name] = None
        power = board_power_w(power_w(self._root))
        if power is not None:
            self._powers.append((perf_counter(), *power))

    def _energy(self) -> tuple[float | None, str]:
        """Energy of the board where it is metered, else of the CPU packages and the GPU."""
        if self._powers:
            # Trapezoids between readings.
            energy = sum(
                (b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in zip(self._powers, self._powers[1:], strict=False)
            )
            return energy, self._powers[0][2]
        parts: list[tuple[float, str]] = []
        package = rapl_spent_j(self._rapl, rapl_uj(self._root))
        if package is not None:
            parts.append((package, "CPU package"))
        device = self._gpu.energy_j() if self._gpu else None
        if device is not None and self._device_j is not None:
            parts.append((device - self._device_j, "GPU"))
        return (sum(j for j, _ in parts), " + ".join(n for _, n in parts)) if parts else (None, "")


def _load() -> float:
    try:
        return os.getloadavg()[0] / (os.cpu_count() or 1)
    except OSError:
        return 0.0
