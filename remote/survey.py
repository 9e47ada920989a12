"""A look at a machine before anything is put on it: what it is, what it has, what is missing. Nothing is written there.

One shell script answers everything, so a machine without Python can be looked at too; what it prints is parsed by a
pure function. What follows from the facts is said in sentences; what to do about them is the caller's business.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from remote.cuda import OLDEST_DRIVER, TORCH_CUDA
from remote.errors import RunnerFailed
from remote.host import Host

OLDEST_PYTHON = (3, 10)
LITTLE_DISK = 20e9     # bytes: the environment alone takes 7 GB
MUCH_SKEW = 60.0       # seconds

SCRIPT = r"""
say() { printf '%s=%s\n' "$1" "$2"; }
say os "$(uname -s)"; say release "$(uname -r)"; say machine "$(uname -m)"; say hostname "$(uname -n)"
say user "$(id -un)"; say uid "$(id -u)"; say home "$HOME"; say now "$(date +%s)"
say cpus "$(getconf _NPROCESSORS_ONLN 2>/dev/null)"
say quota "$(cat /sys/fs/cgroup/cpu.max 2>/dev/null)"
say memory_kb "$(awk '/^MemTotal/ {print $2}' /proc/meminfo 2>/dev/null)"
say memory_bytes "$(sysctl -n hw.memsize 2>/dev/null)"
say memory_limit "$(cat /sys/fs/cgroup/memory.max 2>/dev/null)"
if [ -r /etc/os-release ]; then say distribution "$(. /etc/os-release; echo "$PRETTY_NAME")"; fi
for place in "$HOME" /workspace; do
  if [ -d "$place" ]; then say disk "$place $(df -Pk "$place" | awk 'NR==2 {print $2, $4}')"
    if [ -w "$place" ]; then say writable "$place"; fi; fi
done
for tool in uv git cargo nvidia-smi torchrun tmux; do say "tool_$tool" "$(command -v $tool)"; done
if [ -x "$HOME/.local/bin/uv" ]; then say tool_uv "$HOME/.local/bin/uv"; fi
for python in python3 python3.14 python3.13 python3.12 python3.11 python3.10; do
  if command -v $python >/dev/null; then
    say python "$python $($python -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null)"; fi
done
if command -v nvidia-smi >/dev/null; then
  nvidia-smi --query-gpu=index,name,memory.total,driver_version --format=csv,noheader,nounits | sed 's/^/gpu=/'
fi
say end 1
"""


@dataclass(frozen=True)
class Gpu:
    index: int
    name: str
    memory_gb: float


@dataclass(frozen=True)
class Disk:
    path: str
    total: int  # bytes
    free: int
    writable: bool


@dataclass(frozen=True)
class Survey:
    """What a machine told. `skew` is its clock minus ours in seconds; `cores` is a container's share, rounded up."""

    os: str
    distribution: str
    machine: str
    hostname: str
    user: str
    home: str
    cores: int
    memory: int  # bytes that a process may use
    skew: float
    disks: tuple[Disk, ...] = ()
    gpus: tuple[Gpu, ...] = ()
    driver: str = ""
    pythons: tuple[tuple[str, str], ...] = ()  # (command, version)
    tools: tuple[tuple[str, str], ...] = ()    # (name, path) of those that are there

    @property
    def python(self) -> str:
        """A command that starts a Python new enough, or ""."""
        return next((command for command, version in self.pythons if _version(version) >= OLDEST_PYTHON), "")

    @property
    def facts(self) -> dict[str, Any]:
        """For a JSON file."""
        return asdict(self)

    def problems(self) -> list[str]:
        """Why nothing can be run there."""
        found = []
        if self.os not in ("Linux", "Darwin"):
            found.append(f"{self.os or 'its system'} is not Linux or macOS: the engine does not run there")
        if not any(disk.writable for disk in self.disks):
            found.append(f"{self.user} may write neither to {self.home or 'a home folder'} nor to /workspace")
        return found

    def warnings(self) -> list[str]:
        """What a person should know before sending a run there."""
        found = []
        free = max((disk.free for disk in self.disks if disk.writable), default=0)
        if free < LITTLE_DISK:
            found.append(f"only {free / 1e9:.1f} GB free: the environment takes 7 GB, a d20 run 60 GB more")
        if abs(self.skew) > MUCH_SKEW:
            found.append(f"its clock is {abs(self.skew):,.0f} s {'ahead' if self.skew > 0 else 'behind'}: "
                         "times shown for it are its own")
        if self.gpus and (_version(self.driver) or (0,))[0] < OLDEST_DRIVER:
            found.append(f"driver {self.driver or 'unknown'} is older than {OLDEST_DRIVER}, which the default PyTorch "
                         f"(CUDA {TORCH_CUDA}) needs: another PyTorch, made for that driver, is fetched, which takes "
                         "longer; or update the driver first")
        if not self.gpus and self.os == "Linux":
            found.append("no NVIDIA GPU answers there: training will run on the CPU")
        if not self.python and not dict(self.tools).get("uv"):
            found.append("no Python 3.10 and no uv there: both will be fetched")
        return found


def survey(host: Host, timeout: float = 60.0) -> Survey:
    """Look at a machine. Raises RunnerFailed when its shell did not get to the end, and what the host raises."""
    begun = time.time()
    done = host.run(["/bin/sh", "-s"], stdin=SCRIPT.encode(), timeout=timeout)
    ended = time.time()
    text = done.out.decode("utf-8", "replace")
    if "end=1" not in text:
        words = done.err.decode("utf-8", "replace").strip().splitlines()
        raise RunnerFailed(f"{host.name} did not answer all questions: {words[-1] if words else 'no word why'}")
    return parse(text, (begun + ended) / 2)


def parse(text: str, now: float) -> Survey:
    """The facts in what the script printed. Pure; a line that makes no sense is left out."""
    rows = [line.split("=", 1) for line in text.splitlines() if "=" in line]
    one = {name: value.strip() for name, value in rows}
    every = [(name, value.strip()) for name, value in rows]
    writable = {value for name, value in every if name == "writable"}
    gpus = [found for name, value in every if name == "gpu" and (found := _gpu(value))]
    return Survey(
        os=one.get("os", ""), distribution=one.get("distribution", ""), machine=one.get("machine", ""),
        hostname=one.get("hostname", ""), user=one.get("user", ""), home=one.get("home", ""),
        cores=_cores(one), memory=_memory(one), skew=_number(one.get("now", "")) - now if one.get("now") else 0.0,
        disks=tuple(disk for name, value in every if name == "disk" and (disk := _disk(value, writable))),
        gpus=tuple(gpu for gpu, _ in gpus), driver=gpus[0][1] if gpus else "",
        pythons=tuple((words[0], words[1]) for name, value in every
                      if name == "python" and len(words := value.split()) == 2),
        tools=tuple((name[5:], value) for name, value in one.items() if name.startswith("tool_") and value))


def _gpu(value: str) -> tuple[Gpu, str] | None:
    words = [word.strip() for word in value.split(",")]
    if len(words) != 4 or not words[0].isdigit():
        return None
    return Gpu(int(words[0]), words[1], round(_number(words[2]) / 1024, 1)), words[3]


def _disk(value: str, writable: set[str]) -> Disk | None:
    found = re.fullmatch(r"(.+) (\d+) (\d+)", value)
    return Disk(found[1], int(found[2]) * 1024, int(found[3]) * 1024, found[1] in writable) if found else None


def _cores(one: Mapping[str, str]) -> int:
    """What a container may use, where there is a limit; `nproc` shows the whole machine."""
    cores, quota = int(_number(one.get("cpus", ""))), one.get("quota", "").split()
    if len(quota) == 2 and quota[0].isdigit() and _number(quota[1]) > 0:
        return min(cores or 1 << 20, math.ceil(int(quota[0]) / _number(quota[1])))
    return cores


def _memory(one: Mapping[str, str]) -> int:
    whole = int(_number(one.get("memory_kb", "")) * 1024 or _number(one.get("memory_bytes", "")))
    limit = int(_number(one.get("memory_limit", "")))
    return min(whole, limit) if whole and limit else whole or limit


def _number(text: str) -> float:
    return float(text) if re.fullmatch(r"\d+(\.\d+)?", text) else 0.0


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text)[:3])
