"""Back up and prove a base directory from the machine that it is on, with nobody watching.

    python -m remote.backup.run --to hub:OWNER/NAME|FOLDER --base DIR [--label RUN]

JSON lines on stdout: {"file", "phase", "done", "total", "note"} at most once a second, and at the end {"proven": [...],
"failed": [...]}. Exit codes: 0 all proven, 7 something is not, 4 the token, 3 no answer, 5 refused. The token is from
the environment (`hub_token`), never from the command line; a fine-grained one for that repository is enough.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from remote.backup.folder import FolderSafekeeper
from remote.backup.hub import HubSafekeeper
from remote.backup.hub_token import find_token
from remote.backup.keeper import Keeper
from remote.errors import CopyRefused, NoSuchFile, RemoteError, TokenRefused
from remote.local import LocalHost
from remote.safekeeping import Transfer

NOT_PROVEN, NO_TOKEN, NO_ANSWER, REFUSED = 7, 4, 3, 5
_EVERY_S = 1.0


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m remote.backup.run", allow_abbrev=False)
    parser.add_argument("--to", required=True, help="hub:OWNER/NAME, or a folder")
    parser.add_argument("--base", required=True, type=Path, help="the base directory")
    parser.add_argument("--label", help="the run's name in the paths of copies")
    asked = parser.parse_args(argv)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        done = keeper(asked.to, asked.base, asked.label).back_up(LocalHost(), str(asked.base), _teller(), stop)
    except TokenRefused as error:
        return _end(NO_TOKEN, error)
    except (CopyRefused, NoSuchFile) as error:
        return _end(REFUSED, error)
    except RemoteError as error:
        return _end(NO_ANSWER, error)
    _say({"proven": [receipt.location for receipt in done.receipts],
          "failed": [{"checkpoint": str(loss.checkpoint), "reason": loss.reason} for loss in done.failed]})
    return NOT_PROVEN if done.failed else 0


def keeper(to: str, base: Path, label: str | None) -> Keeper:
    """The Safekeeper for a place; its receipts stay beside what it keeps."""
    receipts = base / "receipts"
    if not to.startswith("hub:"):
        return FolderSafekeeper(Path(to), receipts, label)
    token = find_token()
    if token is None:
        raise TokenRefused("HF_TOKEN is not set on this machine")
    return HubSafekeeper(to[4:], receipts, token=token, label=label)


def _teller() -> Any:
    last = [0.0]

    def tell(transfer: Transfer) -> None:
        now = time.monotonic()
        if transfer.note or now - last[0] >= _EVERY_S:
            last[0] = now
            _say({"file": transfer.file, "phase": transfer.phase, "done": transfer.done, "total": transfer.total,
                  "note": transfer.note})

    return tell


def _end(code: int, error: RemoteError) -> int:
    _say({"error": str(error)})
    return code


def _say(value: dict[str, Any]) -> None:
    print(json.dumps(value), flush=True)


if __name__ == "__main__":
    sys.exit(main())
