"""A model server that belongs to this process, here or on another machine: there on its loopback, reached through SSH.

It lives as long as this process says so: it ends when its stdin does, which a killed console's does at once, or when
nothing was written to it for a while, as when a laptop sleeps or a network is gone. It knows no HTTP.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from console.chat.launch import ChatProcess, launcher
from console.errors import ConsoleError
from console.machines.targets import LOCAL
from console.text import clean_line
from remote.errors import HostUnreachable, RemoteError

if TYPE_CHECKING:
    from console.machines.hosts import Hosts

TOKEN_VARIABLE = "LLMCONSOLE_SERVE_TOKEN"
SILENCE_S, BEAT_S = 60, 5.0  # so long the server waits for a word from us, and so often it gets one
_END_S = 15.0  # answers under way may finish
_URL = re.compile(rb"http://127\.0\.0\.1:(\d{1,5})\b")
_LAST_WORDS = 20


class ModelServer:
    """`start` returns once the page can be opened; `wait` returns when the server has ended; `close` ends it.

    `words` are settings of `python -m engine serve`, `here` the port on this machine, 0 for a free one.
    """

    def __init__(self, hosts: Hosts, target: str, words: Sequence[str] = (), here: int = 0) -> None:
        self._hosts, self._target, self._words, self._here = hosts, target, words, here
        self._heard: deque[str] = deque(maxlen=_LAST_WORDS)
        self._process: ChatProcess | None = None
        self._forward: Any = None
        self._closed = threading.Event()
        self.about = self.url = ""  # what it says of its first model; where its page is

    def start(self) -> None:
        """Raises ConsoleError when our port is taken, or with the server's own words when it does not come up, and
        NotFound, HostUnreachable."""
        self._listening(lambda: socket.create_server(("127.0.0.1", self._here)).close())  # before anything slow
        far = self._target != LOCAL
        token = os.environ.get(TOKEN_VARIABLE)
        launch = launcher(self._target, self._hosts, ("-m", "engine", "serve", f"--port={0 if far else self._here}",
                                                      f"--heartbeat={SILENCE_S}", *self._words),
                          {TOKEN_VARIABLE: token} if token else {})
        process = self._process = launch()
        threading.Thread(target=self._beat, args=(process,), daemon=True, name="heartbeat").start()
        listener = threading.Thread(target=self._listen, args=(process,), daemon=True, name="server words")
        listener.start()
        port = self._port(process)
        if port is None:
            listener.join(1)
            raise ConsoleError(f"the server on {self._target} ended: {' '.join(self._heard) or 'without a word'}",
                               f"llmconsole target up {self._target} puts this version's code there" if far else "")
        if far:
            host: Any = self._hosts.get(self._target)
            self._forward = self._listening(lambda: host.forward(port, here=self._here))
            port = self._forward.port
        self.url = f"http://127.0.0.1:{port}"

    def wait(self) -> None:
        """Until the server ends by itself, which it should not: raises ConsoleError, or HostUnreachable when the
        connection is lost."""
        assert self._process is not None
        for _ in self._process.stdout:
            continue
        try:
            code = self._process.wait(_END_S)
        except RemoteError as error:
            raise HostUnreachable(f"{error}; the server there ends within {SILENCE_S} s") from None
        raise ConsoleError(f"the server on {self._target} ended (exit {code}): {' '.join(self._heard)}", "")

    def close(self, patience: float = _END_S) -> None:
        """End it and wait a moment for that; what cannot be reached any more ends by itself."""
        self._closed.set()
        if self._forward is not None:
            self._forward.close()
        if self._process is not None:
            with suppress(RemoteError, OSError, subprocess.TimeoutExpired):
                self._process.stdin.close()
                self._process.wait(patience)
            self._process.close()

    def _port(self, process: ChatProcess) -> int | None:
        """Where it listens; None when it ends instead."""
        for line in process.stdout:
            if found := _URL.search(line):
                return int(found[1])
            self.about = clean_line(line.decode("utf-8", "replace"), 300)
        return None

    def _listening(self, take: Callable[[], Any]) -> Any:
        """What `take` returns. Raises ConsoleError when our port cannot be had."""
        try:
            return take()
        except OSError as error:
            raise ConsoleError(f"cannot listen on port {self._here} here: {error.strerror}",
                               f"another port: --port={self._here + 1}, or --port=0 for a free one") from None

    def _beat(self, process: ChatProcess) -> None:
        with suppress(OSError, ValueError):
            while not self._closed.wait(BEAT_S):
                process.stdin.write(b"\n")
                process.stdin.flush()

    def _listen(self, process: ChatProcess) -> None:
        with suppress(OSError, ValueError):
            for raw in process.stderr:
                self._heard.append(clean_line(raw.decode("utf-8", "replace"), 300))
