"""Reading a machine from its own files: made-up trees of a Jetson and of a PC, and a made-up GPU."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from rbcedge.bench.gpu import Gpu
from rbcedge.bench.hardware import last_cache_bytes, machine, power_mode
from rbcedge.bench.sensors import (
    Watch,
    board_power_w,
    clocks_mhz,
    power_w,
    rapl_spent_j,
    rapl_uj,
    temperatures_c,
    throttle_marks,
)


def put(root: Path, **files: str) -> None:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


@pytest.fixture
def jetson(tmp_path: Path) -> Path:
    """An Orin Nano in its 15 W mode."""
    chip = "sys/class/hwmon/hwmon1"
    put(
        tmp_path,
        **{
            "proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
            "proc/cpuinfo": "processor : 0\nmodel name : ARMv8 Processor rev 1 (v8l)\nFeatures : fp asimd asimddp\n",
            "proc/meminfo": "MemTotal:        7802000 kB\nMemFree: 1 kB\n",
            "etc/nvpmodel.conf": "# comment\n< POWER_MODEL ID=0 NAME=MAXN >\n< POWER_MODEL ID=2 NAME=15W >\n",
            "var/lib/nvpmodel/status": "pmode:0002",
            "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 1, BOARD: generic\n",
            "etc/os-release": 'PRETTY_NAME="Ubuntu 22.04.5 LTS"\n',
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1510400\n",
            "sys/devices/system/cpu/cpu1/cpufreq/scaling_cur_freq": "729600\n",
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "schedutil\n",
            "sys/class/devfreq/17000000.gpu/cur_freq": "624750000\n",
            "sys/class/devfreq/15340000.vic/cur_freq": "1\n",
            "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
            "sys/class/thermal/thermal_zone0/temp": "48375\n",
            "sys/class/thermal/thermal_zone1/type": "cv0-thermal\n",
            "sys/class/thermal/thermal_zone1/temp": "-256000\n",
            "sys/class/thermal/cooling_device3/type": "gpu-throttle-alert\n",
            "sys/class/thermal/cooling_device3/cur_state": "0\n",
            "sys/class/thermal/cooling_device0/type": "pwm-fan\n",
            "sys/class/thermal/cooling_device0/cur_state": "3\n",
            f"{chip}/name": "ina3221\n",
            f"{chip}/in1_label": "VDD_IN\n",
            f"{chip}/in1_input": "5040\n",
            f"{chip}/curr1_input": "1000\n",
            f"{chip}/in2_label": "VDD_CPU_GPU_CV\n",
            f"{chip}/in2_input": "5040\n",
            f"{chip}/curr2_input": "400\n",
            f"{chip}/in3_label": "NC\n",
            f"{chip}/in3_input": "5040\n",
            f"{chip}/curr3_input": "9\n",
            "sys/class/hwmon/hwmon0/name": "nvme\n",
        },
    )
    return tmp_path


def test_a_jetson_is_described(jetson: Path) -> None:
    m = machine(jetson)
    assert m.board == "NVIDIA Jetson Orin Nano Developer Kit"
    assert m.cpu == "ARMv8 Processor rev 1 (v8l)"
    assert m.instructions == "asimddp"
    assert (m.power_mode, m.governor) == ("15W", "schedutil")
    assert m.memory_bytes == 7802000 * 1024
    assert m.system == "Ubuntu 22.04.5 LTS, L4T 36.4.3"
    assert any("power mode 15W" in line for line in m.lines)


def test_a_mode_without_a_name_keeps_its_number(jetson: Path) -> None:
    (jetson / "etc/nvpmodel.conf").unlink()
    assert power_mode(jetson) == "mode 2"


def test_clocks_heat_and_power_of_a_jetson(jetson: Path) -> None:
    assert clocks_mhz(jetson) == {"CPU": pytest.approx((1510.4 + 729.6) / 2), "GPU": pytest.approx(624.75)}
    assert temperatures_c(jetson) == {"cpu-thermal": 48.375}
    rails = power_w(jetson)
    assert rails == {"VDD_IN": pytest.approx(5.04), "VDD_CPU_GPU_CV": pytest.approx(2.016)}
    assert board_power_w(rails) == (pytest.approx(5.04), "VDD_IN")


def test_rails_of_a_board_without_a_total_are_added() -> None:
    assert board_power_w({"VDD_CPU_CV": 3.0, "VDD_GPU_SOC": 5.0}) == (8.0, "VDD_CPU_CV + VDD_GPU_SOC")
    assert board_power_w({}) is None


def test_energy_is_power_by_time(jetson: Path) -> None:
    with Watch(jetson) as watch:
        # Long beside what reading the sensors takes.
        time.sleep(0.6)
    result = watch.result
    assert result.energy_of == "VDD_IN"
    assert result.energy_j == pytest.approx(5.04 * result.seconds, rel=0.3)
    assert result.clocks_mhz["GPU"] == (pytest.approx(624.75), pytest.approx(624.75))
    assert result.temperatures_c["cpu-thermal"] == (48.375, 48.375)
    assert result.throttled == ()


def test_throttling_that_begins_meanwhile_is_named(jetson: Path) -> None:
    assert throttle_marks(jetson) == {"gpu-throttle-alert": 0}
    with Watch(jetson) as watch:
        (jetson / "sys/class/thermal/cooling_device3/cur_state").write_text("1\n")
    assert watch.result.throttled == ("gpu-throttle-alert",)


def test_a_pc_counts_throttling_and_package_energy(tmp_path: Path) -> None:
    put(
        tmp_path,
        **{
            "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": "4\n",
            "sys/class/powercap/intel-rapl:0/name": "package-0\n",
            "sys/class/powercap/intel-rapl:0/energy_uj": "900\n",
            "sys/class/powercap/intel-rapl:0/max_energy_range_uj": "999\n",
            "sys/class/powercap/intel-rapl:0:0/name": "core\n",
            "sys/class/powercap/intel-rapl:0:0/energy_uj": "5\n",
            "sys/class/powercap/intel-rapl:0:0/max_energy_range_uj": "999\n",
        },
    )
    assert rapl_uj(tmp_path) == {"package-0": (900, 999)}
    with Watch(tmp_path) as watch:
        (tmp_path / "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count").write_text("9\n")
        (tmp_path / "sys/class/powercap/intel-rapl:0/energy_uj").write_text("100\n")
    assert watch.result.throttled == ("CPU thermal throttling",)
    assert watch.result.energy_j == pytest.approx(200e-6)
    assert watch.result.energy_of == "CPU package"


def test_a_counter_that_began_anew_is_followed() -> None:
    assert rapl_spent_j({"p": (900_000, 999_999)}, {"p": (100_000, 999_999)}) == pytest.approx(0.2)
    assert rapl_spent_j({}, {}) is None


def test_an_empty_tree_is_no_error(tmp_path: Path) -> None:
    assert machine(tmp_path).power_mode == ""
    assert clocks_mhz(tmp_path) == temperatures_c(tmp_path) == power_w(tmp_path) == throttle_marks(tmp_path) == {}
    with Watch(tmp_path) as watch:
        pass
    assert watch.result.energy_j is None


def test_unreadable_numbers_are_left_out(jetson: Path) -> None:
    (jetson / "sys/class/hwmon/hwmon1/curr1_input").write_text("oops")
    (jetson / "sys/class/thermal/thermal_zone0/temp").write_text("")
    assert set(power_w(jetson)) == {"VDD_CPU_GPU_CV"}
    assert temperatures_c(jetson) == {}


class NvmlError(Exception):
    pass


def made_up_nvml(bits: int = 0) -> SimpleNamespace:
    def refuse(*_: object) -> float:
        raise NvmlError

    spent = iter(range(1000, 100_000, 500))
    return SimpleNamespace(
        NVMLError=NvmlError,
        NVML_CLOCK_SM=1,
        NVML_TEMPERATURE_GPU=0,
        nvmlDeviceGetHandleByIndex=lambda k: f"gpu {k}",
        nvmlDeviceGetName=lambda d: "Made-up GPU",
        nvmlSystemGetDriverVersion=lambda: "600.1",
        nvmlDeviceGetMemoryInfo=lambda d: SimpleNamespace(used=5 * 2**20),
        nvmlDeviceGetClockInfo=lambda d, c: 1410,
        nvmlDeviceGetTemperature=refuse,
        nvmlDeviceGetTotalEnergyConsumption=lambda d: next(spent),
        nvmlDeviceGetCurrentClocksThrottleReasons=lambda d: bits,
    )


def test_a_gpu_tells_what_it_knows(tmp_path: Path) -> None:
    gpu = Gpu(made_up_nvml(bits=0x20 | 0x1))
    assert gpu.name == "Made-up GPU, driver 600.1"
    assert gpu.memory_bytes() == 5 * 2**20
    assert gpu.temperatures_c() == {}
    assert gpu.throttled() == ("GPU thermal slowdown",)
    with Watch(tmp_path, gpu) as watch:
        pass
    assert watch.result.throttled == ("GPU thermal slowdown",)
    assert watch.result.clocks_mhz["GPU"] == (1410, 1410)
    assert watch.result.energy_j == pytest.approx(0.5)
    assert watch.result.energy_of == "GPU"


def test_the_last_cache_is_the_largest(tmp_path: Path) -> None:
    assert last_cache_bytes(tmp_path) == 0
    cache = "sys/devices/system/cpu/cpu0/cache"
    put(tmp_path, **{f"{cache}/index0/size": "32K\n", f"{cache}/index3/size": "4M\n", f"{cache}/index2/size": "?"})
    assert last_cache_bytes(tmp_path) == 4 * 2**20
