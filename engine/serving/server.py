"""`python -m engine serve`: load a model, listen, answer until told to stop.

What can go wrong at the start is said in one sentence: no such model, a broken one, a port in use, no token.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import stat
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType

import uvicorn

from engine.catalog import ModelInfo, find, list_models
from engine.config import ConfigError, from_argv, options
from engine.context import StageError
from engine.rundir import base_dir
from engine.settings.serving import Serve

TOKEN_VARIABLE = "LLMCONSOLE_SERVE_TOKEN"
_GRACE_S = 10  # answers under way may finish for so long after SIGTERM


def main(argv: Sequence[str]) -> int:
    """Serve until SIGTERM or ctrl-c. Raises ConfigError for words that are no settings of ours."""
    if any(word in ("-h", "--help") for word in argv):
        print("\n".join(f"  {o.flag:<16}{o.help} [{o.default or 'none'}]" for o in options(Serve).values()))
        return 0
    settings = from_argv(Serve, argv)
    try:
        token = read_token(settings)
        if token is None and not is_loopback(settings.host):
            raise ConfigError(f"--host={settings.host} can be reached by others, so it needs a token: set "
                              f"{TOKEN_VARIABLE}, or --token-file with a file that only you can read")
        wanted = choose(settings)
        if settings.heartbeat:
            threading.Thread(target=_until_silence, args=(settings.heartbeat,), daemon=True).start()
        with listening(settings) as listener:
            return serve(settings, token, wanted, listener)
    except StageError as error:
        print(f"llmconsole serve: {error}" + (f"\n  {error.next}" if error.next else ""), file=sys.stderr)
        return 1
    except ConfigError as error:
        print(f"llmconsole serve: {error}", file=sys.stderr)
        return 2


def read_token(settings: Serve) -> str | None:
    """The token from the environment or from a file that nobody else can read. Raises ConfigError."""
    token = os.environ.get(TOKEN_VARIABLE, "").strip()
    if token or not settings.token_file:
        return token or None
    path = Path(settings.token_file).expanduser()
    try:
        mode = path.stat()
        token = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--token-file={path} cannot be read: {type(error).__name__}") from None
    if stat.S_IMODE(mode.st_mode) & 0o077 or mode.st_uid != os.getuid():
        raise ConfigError(f"--token-file={path} can be read by others; chmod 600 it")
    if not token:
        raise ConfigError(f"--token-file={path} is empty")
    return token


def is_loopback(host: str) -> bool:
    return host == "localhost" or host == "::1" or host.startswith("127.")


def choose(settings: Serve) -> list[str]:
    """Refs of the models that were asked for, all usable; empty for every model. Raises ConfigError, StageError."""
    known = list_models(base_dir())
    names = [name.strip() for name in settings.model.split(",") if name.strip()]
    chosen = [find(known, name) for name in names]
    for model in chosen:
        if model.problem:
            raise StageError(f"{model.ref} cannot be used: {model.problem}", "llmconsole model list shows the others")
    if not any(model.problem is None for model in known):
        raise StageError(f"there is no trained model below {base_dir()} yet",
                         "llmconsole run start tiny --wait makes one in a few minutes")
    return [model.ref for model in chosen]


@contextlib.contextmanager
def listening(settings: Serve) -> Iterator[socket.socket]:
    """The socket, taken before anything slow. Raises StageError when it cannot be had."""
    try:
        kind, _, _, _, address = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0]
    except OSError:
        raise StageError(f"there is no address {settings.host!r} here", "use --host=127.0.0.1") from None
    with socket.socket(kind, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
            listener.listen(256)
        except OSError as error:
            raise StageError(f"cannot listen on {settings.host} port {settings.port}: {error.strerror}",
                             f"another port: --port={settings.port + 1}, or --port=0 for a free one") from None
        yield listener


def serve(settings: Serve, token: str | None, wanted: list[str], listener: socket.socket) -> int:
    """Load the first model, say where to go, serve."""
    import asyncio

    from engine.serving.app import build
    from engine.serving.connections import PatientConnection
    from engine.serving.loading import describe_model, load_copies
    from engine.serving.shelf import Shelf

    def offered() -> list[ModelInfo]:
        known = list_models(base_dir())
        return [m for m in known if m.problem is None and (not wanted or m.ref in wanted)]

    shelf = Shelf(offered, lambda info: load_copies(info, settings), describe_model, settings)

    async def run() -> None:
        served = await shelf.get(wanted[0] if wanted else None)
        host, port = listener.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        about = served.description
        print(f"{served.info.ref}: {about['n_params']:,} parameters on {about['device']} in {about['dtype']} by "
              f"{about['backend']}\n"
              f"http://{shown}:{port}  a page to chat; /v1 speaks OpenAI's API"
              + ("; every request needs the token" if token else ""), flush=True)
        app = build(shelf, token, settings.allow_host.split(","))
        config = uvicorn.Config(app, http=PatientConnection, ws="none", lifespan="on", log_config=None,
                                access_log=False, server_header=False, timeout_keep_alive=10, proxy_headers=False,
                                timeout_graceful_shutdown=_GRACE_S, h11_max_incomplete_event_size=16 << 10)
        await _Server(config).serve(sockets=[listener])

    from engine.serving.errors import ApiError

    try:
        asyncio.run(run())
    except ApiError as error:
        raise StageError(str(error), "llmconsole model list shows the others") from None
    return 0


def _until_silence(seconds: int) -> None:
    """End this process once whoever started it is gone: stdin has ended, or nothing came on it for so long."""
    while select.select([sys.stdin], [], [], seconds)[0] and os.read(sys.stdin.fileno(), 4096):
        pass
    with contextlib.suppress(OSError):  # most likely nobody hears it
        print("llmconsole serve: whoever asked for this server is gone", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGTERM)  # at once while a model is being loaded, else after the answers under way
    time.sleep(2 * _GRACE_S)
    os._exit(1)


class _Server(uvicorn.Server):
    """uvicorn's, which ends with 0 after a graceful stop instead of dying by the signal once more."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        before = {number: signal.signal(number, self._stop) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.handle_exit(number, frame)
