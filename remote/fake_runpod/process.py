"""The double of RunPod as a process of its own, so that it bills on when the console is killed, as the real one would.

    python -m remote.fake_runpod.process FOLDER [--hours 6]
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from remote.fake_runpod.cloud import FakeCloud
from remote.fake_runpod.pod import kill_marked
from remote.fake_runpod.server import FakeRunPod
from remote.secret_text import child_environment


def demo(folder: Path, *, hours: float = 6.0) -> tuple[str, str]:
    """(base URL, API key) of the double that lives in `folder`, started if none does. It ends itself after `hours`."""
    found = _running(folder)
    if found is not None:
        return found
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "log.txt", "ab") as log:
        subprocess.Popen([sys.executable, "-m", "remote.fake_runpod.process", str(folder), "--hours", f"{hours:g}"],
                         stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                         cwd=Path(__file__).parents[2], env=child_environment())
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        found = _running(folder)
        if found is not None:
            return found
        time.sleep(0.05)
    raise OSError(f"the pretended provider did not start; {folder / 'log.txt'} may say why")


def _running(folder: Path) -> tuple[str, str] | None:
    import httpx

    try:
        words = json.loads((folder / "endpoint.json").read_text())
        reply = httpx.get(f"{words['base']}/pods", headers={"Authorization": f"Bearer {words['key']}"}, timeout=5)
        return (words["base"], words["key"]) if reply.status_code == 200 else None
    except (OSError, ValueError, KeyError, httpx.HTTPError):
        return None


def main(argv: list[str]) -> int:
    words = argparse.ArgumentParser(prog="python -m remote.fake_runpod.process", description=__doc__.partition("\n")[0])
    words.add_argument("folder", type=Path)
    words.add_argument("--hours", type=float, default=6.0, help="end by itself after so long, pods and all")
    args = words.parse_args(argv)
    folder: Path = args.folder.absolute()
    kill_marked(folder / "pods")  # of one that was killed before
    with FakeRunPod(FakeCloud(folder / "pods", placing_s=2.0, pulling_s=4.0)) as server:
        endpoint = folder / "endpoint.json"
        text = json.dumps({"base": server.base, "graphql": server.graphql, "key": server.key, "pid": os.getpid()})
        with open(os.open(folder / "endpoint.json.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as f:
            f.write(text)
        os.replace(folder / "endpoint.json.new", endpoint)
        signal.signal(signal.SIGTERM, lambda *_: server.stop.set())
        with suppress(KeyboardInterrupt):
            server.stop.wait(args.hours * 3600)
        endpoint.unlink(missing_ok=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
