"""Facts of this machine, cheaply: for the run's record, the report, `doctor` and the first screen.

Nothing here imports a tensor library or talks to a driver in this process; GPUs are asked for through nvidia-smi, with
a limit on the wait, and only where that command exists.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

NVIDIA_SMI_WAIT = 2.0  # seconds
_GPU_FIELDS = ("index", "name", "memory.total", "memory.used", "utilization.gpu", "power.draw", "temperature.gpu")


@dataclass(frozen=True)
class Gpu:
    """One GPU right now; what the driver does not tell is None. Memory in GB of 10^9 bytes, power in W, util in %."""

    index: int
    name: str
    mem_total_gb: float | None
    mem_gb: float | None
    util: float | None
    power_w: float | None
    temp_c: float | None


def facts(path: Path) -> dict[str, Any]:
    """What this machine is; `path` says which disk is meant."""
    memory = psutil.virtual_memory()
    found = gpus()
    return {
        "host": platform.node(), "os": f"{platform.system()} {platform.release()}", "arch": platform.machine(),
        "python": platform.python_version(), "torch": version_of("torch"), "software": version_of("llmconsole"),
        "cpu": cpu_model(), "cores": cores(),
        "mem_total_gb": round(memory.total / 1e9, 2), "mem_free_gb": round(memory.available / 1e9, 2),
        "disk_free_gb": round(disk_free_gb(path), 2),
        "gpus": [{"index": gpu.index, "name": gpu.name, "mem_total_gb": gpu.mem_total_gb} for gpu in found],
    }


def memory_free() -> int:
    """Bytes that a new process could use here, without touching swap."""
    return int(psutil.virtual_memory().available)


def version_of(distribution: str) -> str | None:
    """The installed version, read from its metadata without importing it."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_model() -> str:
    """The processor's marketing name where the system tells it, else its architecture."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    if platform.system() == "Darwin":
        query = ["sysctl", "-n", "machdep.cpu.brand_string"]
        asked = subprocess.run(query, capture_output=True, text=True, check=False)
        return asked.stdout.strip() or platform.machine()
    return platform.processor() or platform.machine()


def disk_free_gb(path: Path) -> float:
    """Free space in GB for an ordinary user on the disk where `path` is or would be made."""
    here = path.absolute()
    while not here.exists():
        here = here.parent
    return shutil.disk_usage(here).free / 1e9


def gpus() -> list[Gpu]:
    """The NVIDIA GPUs as nvidia-smi lists them now; empty when there are none or it does not answer in time."""
    if shutil.which("nvidia-smi") is None:
        return []
    query = ["nvidia-smi", f"--query-gpu={','.join(_GPU_FIELDS)}", "--format=csv,noheader,nounits"]
    try:
        asked = subprocess.run(query, capture_output=True, text=True, timeout=NVIDIA_SMI_WAIT, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return parse_gpus(asked.stdout) if asked.returncode == 0 else []


def parse_gpus(listing: str) -> list[Gpu]:
    """nvidia-smi's comma separated lines as Gpu records; lines that are something else are left out."""
    rows = [[cell.strip() for cell in line.split(",")] for line in listing.splitlines()]
    return [Gpu(int(row[0]), row[1], _gb(row[2]), _gb(row[3]), *map(_number, row[4:]))
            for row in rows if len(row) == len(_GPU_FIELDS) and row[0].isdigit()]


def usable_gpus() -> int:
    """How many GPUs a stage would get: CUDA_VISIBLE_DEVICES where it is set, else all of them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return len(gpus()) if visible is None else count_visible(visible)


def count_visible(visible: str) -> int:
    """The devices that a CUDA_VISIBLE_DEVICES value names; like CUDA, it stops at the first that cannot be one."""
    names = [name.strip() for name in visible.split(",")]
    usable = [bool(name) and name != "-1" for name in names]
    return usable.index(False) if False in usable else len(usable)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:  # "[N/A]", "[Not Supported]"
        return None


def _gb(mebibytes: str) -> float | None:
    number = _number(mebibytes)
    return None if number is None else round(number * 1048576 / 1e9, 2)


class Sampler:
    """What the machine and one tree of processes do; the data of a `system` event."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        psutil.cpu_percent()  # the first call only starts the measurement

    def sample(self) -> dict[str, Any]:
        """CPU in percent of all cores since the last sample; memory in GB of 10^9 bytes; GPUs where there are some."""
        memory = psutil.virtual_memory()
        return {"cpu_percent": psutil.cpu_percent(), "rss_gb": round(tree_rss(self._pid) / 1e9, 3),
                "mem_used_gb": round((memory.total - memory.available) / 1e9, 3),
                "mem_total_gb": round(memory.total / 1e9, 3),
                "gpus": [{"index": gpu.index, "power_w": gpu.power_w, "util": gpu.util, "mem_gb": gpu.mem_gb,
                          "temp_c": gpu.temp_c} for gpu in gpus()]}


def paused(pid: int, ranks: bool) -> bool:
    """Whether a process was stopped by a signal (SIGSTOP); with `ranks`, it or one that it started itself."""
    try:
        root = psutil.Process(pid)
        return any(p.status() == psutil.STATUS_STOPPED for p in (root, *(root.children() if ranks else ())))
    except psutil.NoSuchProcess:
        return False


def tree_rss(pid: int) -> int:
    """Resident bytes of a process and everything below it; what ended meanwhile counts nothing."""
    try:
        root = psutil.Process(pid)
        return sum(_rss(process) for process in (root, *root.children(recursive=True)))
    except psutil.NoSuchProcess:
        return 0


def _rss(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return 0
