"""An NVIDIA GPU's own account of itself (NVML), where its driver and the package nvidia-ml-py are there."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, TypeVar

T = TypeVar("T")
# Bits of nvmlDeviceGetCurrentClocksEventReasons that say heat or power holds the clocks down.
_REASONS = {
    0x04: "GPU power cap",
    0x08: "GPU hardware slowdown",
    0x20: "GPU thermal slowdown",
    0x40: "GPU hardware thermal slowdown",
    0x80: "GPU power brake",
}


class Gpu:
    """The first GPU. On Jetson NVML knows the name and little more; what it does not know is left out.

    Parameters
    ----------
    nvml : module
        `pynvml`, initialised.
    """

    def __init__(self, nvml: Any) -> None:
        self._nvml = nvml
        self._device = nvml.nvmlDeviceGetHandleByIndex(0)

    @property
    def name(self) -> str:
        """Name and driver."""
        name = self._ask(lambda n, d: n.nvmlDeviceGetName(d)) or "NVIDIA GPU"
        driver = self._ask(lambda n, d: n.nvmlSystemGetDriverVersion())
        return f"{name}, driver {driver}" if driver else str(name)

    def memory_bytes(self) -> int | None:
        """Memory in use on the device."""
        used = self._ask(lambda n, d: n.nvmlDeviceGetMemoryInfo(d).used)
        return None if used is None else int(used)

    def clocks_mhz(self) -> dict[str, float]:
        """Clock of the multiprocessors, MHz."""
        mhz = self._ask(lambda n, d: n.nvmlDeviceGetClockInfo(d, n.NVML_CLOCK_SM))
        return {} if mhz is None else {"GPU": float(mhz)}

    def temperatures_c(self) -> dict[str, float]:
        """Temperature of the chip, °C."""
        heat = self._ask(lambda n, d: n.nvmlDeviceGetTemperature(d, n.NVML_TEMPERATURE_GPU))
        return {} if heat is None else {"GPU": float(heat)}

    def energy_j(self) -> float | None:
        """Energy used since the driver was loaded, J."""
        spent = self._ask(lambda n, d: n.nvmlDeviceGetTotalEnergyConsumption(d))
        return None if spent is None else float(spent) / 1e3

    def throttled(self) -> tuple[str, ...]:
        """Why the clocks are held down now, in words."""
        bits = self._ask(lambda n, d: n.nvmlDeviceGetCurrentClocksThrottleReasons(d)) or 0
        return tuple(word for bit, word in _REASONS.items() if bits & bit)

    def _ask(self, question: Callable[[Any, Any], T]) -> T | None:
        try:
            return question(self._nvml, self._device)
        except self._nvml.NVMLError:
            return None


def first_gpu() -> Gpu | None:
    """Return the first GPU, None without driver, device or package."""
    try:
        pynvml: Any = import_module("pynvml")
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        return Gpu(pynvml)
    except pynvml.NVMLError:
        return None
