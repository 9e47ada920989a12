"""A model server on another machine as if it were here: started there on its loopback, reached through SSH.

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

from console.chat.launch import prepared
from console.errors import ConsoleError
from console.text import clean_line
from remote.errors import HostUnreachable, RemoteError

if TYPE_CHECKING:
    from console.machines.hosts import Hosts

TOKEN_VARIABLE = "LLMCONSOLE_SERVE_TOKEN"
SILENCE_S, BEAT_S = 60, 5.0  # so long the server waits for a word from us, and so often it gets one
_END_S = 15.0  # answers under way may finish
_URL = re.compile(rb"http://127\.0\.0\.1:(\d{1,5})\b")
_LAST_WORDS = 20


class FarServer:
    """`start` returns once the page can be opened; `wait` returns when the server has ended; `close` ends it."""

    def __init__(self, hosts: Hosts, name: str, words: Sequence[str], here: int = 0) -> None:
        self._hosts, self._name, self._words, self._here = hosts, name, words, here
        self._heard: deque[str] = deque(maxlen=_LAST_WORDS)
        self._pipe: Any = None
        self._forward: Any = None
        self._ended = threading.Event()
        self.about = ""  # what the server says of its first model

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._forward.port}"

    def start(self) -> None:
        """Raises ConsoleError when our port is taken, or with the server's own words when it does not come up, and
        NotFound, HostUnreachable."""
        there = prepared(self._hosts, self._name)
        host: Any = self._hosts.get(self._name)
        self._listening(lambda: socket.create_server(("127.0.0.1", self._here)).close())  # before anything slow
        env = {"NANOCHAT_BASE_DIR": there.base} if there.base else {}
        if token := os.environ.get(TOKEN_VARIABLE):
            env[TOKEN_VARIABLE] = token
        self._pipe = host.open_pipe([*there.python, "-m", "engine", "serve", "--port=0",
                                     f"--heartbeat={SILENCE_S}", *self._words], env=env)
        threading.Thread(target=self._beat, daemon=True, name="heartbeat").start()
        listener = threading.Thread(target=self._listen, daemon=True, name="server words")
        listener.start()
        port = self._port()
        if port is None:
            listener.join(1)
            raise ConsoleError(f"the server on {self._name} ended: {' '.join(self._heard) or 'without a word'}",
                               f"llmconsole target up {self._name} puts this version's code there")
        self._forward = self._listening(lambda: host.forward(port, here=self._here))

    def wait(self) -> None:
        """Until the server ends by itself. Raises HostUnreachable when the connection is lost, ConsoleError."""
        for _ in self._pipe.stdout:
            continue
        try:
            code = self._pipe.wait(_END_S)
        except RemoteError as error:
            raise HostUnreachable(f"{error}; the server there ends within {SILENCE_S} s") from None
        raise ConsoleError(f"the server on {self._name} ended (exit {code}): {' '.join(self._heard)}", "")

    def close(self) -> None:
        """End it and wait a moment for that; what cannot be reached any more ends by itself."""
        self._ended.set()
        if self._forward is not None:
            self._forward.close()
        if self._pipe is not None:
            with suppress(RemoteError, OSError, subprocess.TimeoutExpired):
                self._pipe.stdin.close()
                self._pipe.wait(_END_S)
            self._pipe.close()

    def _port(self) -> int | None:
        """Where it listens there; None when it ends instead."""
        for line in self._pipe.stdout:
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

    def _beat(self) -> None:
        with suppress(OSError, ValueError):
            while not self._ended.wait(BEAT_S):
                self._pipe.stdin.write(b"\n")

    def _listen(self) -> None:
        with suppress(OSError, ValueError):
            for raw in self._pipe.stderr:
                self._heard.append(clean_line(raw.decode("utf-8", "replace"), 300))
