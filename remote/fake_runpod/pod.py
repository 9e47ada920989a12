"""A container that only pretends to be one: the start command really runs, in a folder of its own, as this user.

Its image's start program prints the host key's fingerprint and asks for sshd, as the real one does, so a start command
that does not end in it leaves a pod that nobody can reach. Ending it kills every process that ever started in it.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from remote.fake_runpod.sshd import PodSshd
from remote.ssh.keys import make_key
from remote.ssh.known_hosts import fingerprint

MARK = "LLMCONSOLE_FAKE_POD"  # in the environment of all that runs in a pod: its folder

_START = """#!/bin/sh
echo 'Starting SSH server...'
echo 'SSH host keys:'
echo 'ED25519 key fingerprint:'
echo '256 {fingerprint} root@pod (ED25519)'
echo > {wanted}
echo 'Start script(s) finished, Pod is ready to use.'
while :; do sleep 3600; done
"""

_NVIDIA_SMI = """#!/bin/sh
# The GPUs of a pretended pod; they can be listed and nothing else.
case "$*" in
  -L) for i in {indices}; do echo "GPU $i: {name} (UUID: GPU-demo-$i)"; done ;;
  *--query-gpu=index,name,memory.total,driver_version*)
    for i in {indices}; do echo "$i, {name}, 81559, 580.95.05"; done ;;
  *) exit 6 ;;
esac
"""


class FakePod:
    """One container: `start` it, reach its sshd at `port`, `end` it. `say` gets each line that it prints."""

    def __init__(self, folder: Path, env: Mapping[str, str], command: Sequence[str], gpu: str, count: int,
                 say: Callable[[str], None]) -> None:
        self.folder, self._command, self._say = folder, list(command), say
        self.home, self._bin = folder / "root", folder / "bin"
        self._wanted, self._host_key = folder / "sshd-wanted", folder / "ssh_host_ed25519_key"
        self._gpu, self._count = gpu, count
        path = os.pathsep.join([str(self._bin), str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
        self.env = {"PATH": path, "HOME": str(self.home), "LANG": os.environ.get("LANG", "C.UTF-8"), "SHELL": "/bin/sh",
                    "USER": os.environ.get("USER", "root"), **env, MARK: str(folder),
                    "POD_START_PROGRAM": str(folder / "start.sh")}
        self._sshd: PodSshd | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Lay the container out anew and run its start command: what was on its disk is gone, its host key is new."""
        shutil.rmtree(self.folder, ignore_errors=True)
        for path in (self.home, self._bin, self.folder / "workspace"):
            path.mkdir(parents=True)
        line = make_key(self._host_key)
        self._write("start.sh", _START.format(fingerprint=fingerprint(line), wanted=shlex.quote(str(self._wanted))))
        self._write("bin/nvidia-smi", _NVIDIA_SMI.format(indices=" ".join(map(str, range(self._count))),
                                                         name=self._gpu))
        self._process = subprocess.Popen(self._command or [str(self.folder / "start.sh")], stdin=subprocess.DEVNULL,
                                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=self.env,
                                         cwd=self.home, start_new_session=True)
        threading.Thread(target=self._listen, args=(self._process,), name="pod-log", daemon=True).start()

    @property
    def exited(self) -> bool:
        return self._process is not None and self._process.poll() is not None

    @property
    def port(self) -> int | None:
        """Where its sshd listens, once its start program has asked for one and a key may log in."""
        if self._sshd is None and self._wanted.exists() and self.env.get("PUBLIC_KEY") and not self.exited:
            self._sshd = PodSshd(self._host_key, self.env["PUBLIC_KEY"], self.env, self.home)
        return self._sshd.port if self._sshd else None

    def restart(self) -> None:
        """Its command has ended: what it left running is killed, its disk is wiped, it starts anew."""
        self.end()
        self.start()

    def move_port(self) -> None:
        """A restart of the network: the same sshd, another public port."""
        if self._sshd is not None:
            self._sshd.close()
            self._sshd = None

    def drop(self) -> None:
        """Cut every SSH connection."""
        if self._sshd is not None:
            self._sshd.drop()

    def end(self) -> None:
        """Kill everything in it and delete its disk."""
        if self._sshd is not None:
            self._sshd.close()
            self._sshd = None
        kill_marked(self.folder)
        if self._process is not None:
            self._process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)
        (self.folder / name).chmod(0o755)

    def _listen(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self._say(line.decode("utf-8", "replace").rstrip("\r\n"))


def kill_marked(folder: Path) -> None:
    """SIGKILL to every process of a pod in or below `folder`, until none is left."""
    import psutil

    for _ in range(20):
        found = [process for process in psutil.process_iter() if _belongs(process, folder)]
        if not found:
            return
        for process in found:
            with contextlib.suppress(psutil.Error):
                process.send_signal(signal.SIGKILL)
        psutil.wait_procs(found, timeout=1)


def _belongs(process: object, folder: Path) -> bool:
    import psutil

    try:
        if process.status() == psutil.STATUS_ZOMBIE:  # type: ignore[attr-defined]
            return False
        mark = process.environ().get(MARK, "")  # type: ignore[attr-defined]
    except (psutil.Error, OSError):
        return False
    return bool(mark) and (mark == str(folder) or mark.startswith(f"{folder}{os.sep}"))
