"""A small SSH server for pods that only pretend to be rented: real shells, as this user, in a folder of their own.

It serves what our own client and a plain `ssh` use (commands, a shell on a terminal, forwarding to loopback) and is
meant for loopback alone. It is no wall: whoever may log in is the person who started it.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import pty
import signal
import socket
import struct
import subprocess
import termios
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import paramiko
from paramiko.common import cMSG_CHANNEL_REQUEST

_PIECE = 1 << 16


class PodSshd:
    """Listens on a free port of 127.0.0.1 until `close`. `keys` are the public lines that may log in."""

    def __init__(self, host_key: Path, keys: str, env: Mapping[str, str], home: Path) -> None:
        self._key = paramiko.PKey.from_path(host_key)
        self._allowed = {tuple(line.split()[:2]) for line in keys.splitlines() if len(line.split()) >= 2}
        self.env, self.home = dict(env), home
        self._transports: set[paramiko.Transport] = set()
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._socket.getsockname()[1]
        logging.getLogger(__name__).addHandler(logging.NullHandler())
        threading.Thread(target=self._accept, name="pod-sshd", daemon=True).start()

    def allows(self, key: paramiko.PKey) -> bool:
        return (key.get_name(), key.get_base64()) in self._allowed

    def drop(self) -> None:
        """Cut every connection, as a bad link would."""
        for transport in list(self._transports):
            transport.close()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self.drop()

    def _accept(self) -> None:
        while True:
            try:
                found, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(found,), daemon=True).start()

    def _serve(self, found: socket.socket) -> None:
        found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        transport = paramiko.Transport(found)
        transport.daemon = True
        transport.set_log_channel(__name__)
        transport.add_server_key(self._key)
        self._transports.add(transport)
        try:
            transport.start_server(server=_Server(self, transport))
            transport.join()
        except (paramiko.SSHException, OSError, EOFError):
            transport.close()  # whoever called was no SSH client, or has gone
        finally:
            self._transports.discard(transport)


class _Server(paramiko.ServerInterface):  # type: ignore[misc]
    """What one client may ask for."""

    def __init__(self, sshd: PodSshd, transport: paramiko.Transport) -> None:
        self._sshd, self._transport = sshd, transport
        self._terminals: dict[int, tuple[str, int, int]] = {}
        self._sizes: dict[int, Callable[[int, int], None]] = {}

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        return paramiko.AUTH_SUCCESSFUL if self._sshd.allows(key) else paramiko.AUTH_FAILED

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return paramiko.OPEN_SUCCEEDED if kind == "session" else paramiko.OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        words = ["/bin/sh", "-c", os.fsdecode(command)]
        threading.Thread(target=self._run, args=(channel, words), daemon=True).start()
        return True

    def check_channel_pty_request(self, channel: paramiko.Channel, term: bytes, width: int, height: int,
                                  pixelwidth: int, pixelheight: int, modes: bytes) -> bool:
        self._terminals[channel.get_id()] = (term.decode("ascii", "replace"), width, height)
        return True

    def check_channel_shell_request(self, channel: paramiko.Channel) -> bool:
        words = [os.environ.get("SHELL", "/bin/sh"), "-l"]
        threading.Thread(target=self._run, args=(channel, words), daemon=True).start()
        return True

    def check_channel_window_change_request(self, channel: paramiko.Channel, width: int, height: int, pixelwidth: int,
                                            pixelheight: int) -> bool:
        resize = self._sizes.get(channel.get_id())
        if resize is not None:
            resize(width, height)
        return resize is not None

    def check_channel_direct_tcpip_request(self, chanid: int, origin: Any, destination: Any) -> int:
        if destination[0] not in ("127.0.0.1", "localhost"):
            return paramiko.OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED
        try:
            far = socket.create_connection(("127.0.0.1", destination[1]), timeout=5)
        except OSError:
            return paramiko.OPEN_FAILED_CONNECT_FAILED
        far.settimeout(None)
        threading.Thread(target=self._forward, args=(far,), daemon=True).start()
        return paramiko.OPEN_SUCCEEDED

    def _forward(self, far: socket.socket) -> None:
        channel = self._transport.accept(10)
        if channel is None:
            far.close()
            return
        back = threading.Thread(target=_pump, args=(far.recv, channel.sendall, channel.shutdown_write), daemon=True)
        back.start()
        _pump(channel.recv, far.sendall, lambda: far.shutdown(socket.SHUT_WR))
        back.join()
        channel.close()
        far.close()

    def _run(self, channel: paramiko.Channel, words: list[str]) -> None:
        terminal = self._terminals.get(channel.get_id())
        try:
            code = self._on_terminal(channel, words, *terminal) if terminal else self._on_pipes(channel, words)
        except OSError:
            code = 126  # the pod's folder has gone, or there are no processes left
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            _say_end(channel, code)
            channel.close()

    def _on_pipes(self, channel: paramiko.Channel, words: list[str]) -> int:
        process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   env=self._sshd.env, cwd=self._sshd.home, start_new_session=True)
        assert process.stdin and process.stdout and process.stderr
        threading.Thread(target=_pump, args=(channel.recv, _writer(process.stdin), process.stdin.close),
                         daemon=True).start()
        outs = [threading.Thread(target=_pump, args=(_reader(pipe), send, pipe.close), daemon=True)
                for pipe, send in ((process.stdout, channel.sendall), (process.stderr, channel.sendall_stderr))]
        for each in outs:
            each.start()
        code = process.wait()
        for each in outs:
            each.join()
        return code

    def _on_terminal(self, channel: paramiko.Channel, words: list[str], term: str, width: int, height: int) -> int:
        ours, theirs = pty.openpty()

        def resize(columns: int, rows: int) -> None:
            fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

        resize(width, height)
        self._sizes[channel.get_id()] = resize
        process = subprocess.Popen(words, stdin=theirs, stdout=theirs, stderr=theirs, cwd=self._sshd.home,
                                   env={**self._sshd.env, "TERM": term}, start_new_session=True)
        os.close(theirs)
        threading.Thread(target=_pump, daemon=True, args=(
            channel.recv, lambda data: os.write(ours, data), lambda: _hang_up(process))).start()
        _pump(lambda n: os.read(ours, n), channel.sendall, lambda: None)
        return process.wait()


def _pump(read: Callable[[int], bytes], write: Callable[[bytes], Any], end: Callable[[], Any]) -> None:
    """Carry bytes until either side closes."""
    with contextlib.suppress(OSError, EOFError, ValueError):
        while data := read(_PIECE):
            write(data)
    with contextlib.suppress(OSError, EOFError, ValueError):
        end()


def _reader(pipe: IO[bytes]) -> Callable[[int], bytes]:
    return lambda n: os.read(pipe.fileno(), n)


def _writer(pipe: IO[bytes]) -> Callable[[bytes], None]:
    def write(data: bytes) -> None:
        pipe.write(data)
        pipe.flush()

    return write


def _hang_up(process: subprocess.Popen[bytes]) -> None:
    """The terminal's other end has gone."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGHUP)


def _say_end(channel: paramiko.Channel, code: int) -> None:
    """An exit code, or the name of the signal that ended the command, as sshd says it."""
    if code >= 0:
        channel.send_exit_status(code)
        return
    message = paramiko.Message()
    message.add_byte(cMSG_CHANNEL_REQUEST)
    message.add_int(channel.remote_chanid)
    message.add_string("exit-signal")
    message.add_boolean(False)
    message.add_string(signal.Signals(-code).name.removeprefix("SIG"))
    message.add_boolean(False)
    message.add_string("")
    message.add_string("")
    channel.get_transport()._send_user_message(message)
