"""One SSH connection that is kept: made when needed, watched for signs of life, made again after it broke.

Several channels share it. A peer that has gone silent is noticed within `dead_after` seconds, because a loop on the
other side ticks all the time and any byte counts as life; the library's own keepalive waits for nobody. Who connects
while another connects waits for the same attempt, and everybody who waits can leave at once.

It knows keys, addresses and time-outs; what is done over a channel is the business of others.
"""

from __future__ import annotations

import functools
import logging
import random
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import paramiko
from paramiko.common import MSG_CHANNEL_REQUEST

from remote.errors import Cancelled, HostRefused, HostUnreachable, LoginRefused
from remote.ssh.keys import agent_keys, load_key
from remote.ssh.route import Route

WINDOW, PACKET = 64 << 20, 256 << 10  # bytes; the usual 2 MiB window caps every client at 40 MB/s over 50 ms
_CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes128-ctr", "aes256-ctr")
_REKEY_BYTES = 1 << 36    # the library's 512 MiB would stop every large copy several times
_LOOK = 0.2               # seconds between looks at whoever may have given up
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 15.0


class Pin(Protocol):
    """Decides which host key is right."""

    def key_types(self) -> list[str]:
        """The types of the keys that would be accepted; [] for any."""

    def check(self, line: str) -> None:
        """Raises HostRefused unless this key ("type base64") is the right one."""


class SshLink:
    """A connection to wherever `route()` says at the time. `beat` is how often, in seconds, the other side ticks."""

    def __init__(self, route: Callable[[], Route], pin: Pin, *, beat: float = 3.0, dead_after: float = 12.0,
                 connect_timeout: float = 15.0) -> None:
        self._route, self._pin = route, pin
        self._beat, self._dead_after, self._connect_timeout = beat, dead_after, connect_timeout
        self._guard = threading.Lock()
        self._attempt: _Attempt | None = None
        self._closed = False
        self.connects = 0
        logging.getLogger(__name__).addHandler(logging.NullHandler())  # else the library writes to stderr

    def transport(self, stop: threading.Event | None = None) -> paramiko.Transport:
        """The living connection, made if need be, in one attempt. Raises HostUnreachable, Cancelled when `stop`."""
        with self._guard:
            if self._closed:
                raise HostUnreachable("the connection was closed here")
            attempt = self._attempt
            if attempt is None or attempt.failed or (attempt.transport and not attempt.transport.is_active()):
                attempt = self._attempt = _Attempt()
                threading.Thread(target=self._connect, args=(attempt,), name="ssh-connect", daemon=True).start()
        while not attempt.done.wait(_LOOK):
            if stop is not None and stop.is_set():
                raise Cancelled("not connected: given up while connecting")
            if self._closed:
                raise HostUnreachable("the connection was closed here")
        if attempt.transport is None:
            assert attempt.error is not None
            raise type(attempt.error)(*attempt.error.args, **_extras(attempt.error))
        return attempt.transport

    @property
    def alive(self) -> bool:
        attempt = self._attempt
        return attempt is not None and attempt.transport is not None and attempt.transport.is_active()

    def drop(self) -> None:
        """Let the present connection go; the next use makes a new one."""
        attempt = self._attempt
        if attempt is not None and attempt.transport is not None:
            attempt.transport.close()

    def close(self) -> None:
        self._closed = True
        self.drop()

    # Connecting: its own thread, so that whoever waits can leave.

    def _connect(self, attempt: _Attempt) -> None:
        try:
            attempt.transport = self._dial()
            self.connects += 1
        except HostUnreachable as error:
            attempt.error = error
        except (paramiko.SSHException, OSError, EOFError) as error:
            attempt.error = HostUnreachable(f"no SSH connection: {error or type(error).__name__}")
        except Exception as error:  # noqa: BLE001 - the waiting threads must hear of it, whatever it is
            attempt.error = HostUnreachable(f"no SSH connection: {type(error).__name__}: {error}")
        finally:
            attempt.done.set()
        if self._closed:
            self.drop()

    def _dial(self) -> paramiko.Transport:
        route = self._route()
        wire = _Wire(self._socket(route))
        transport = _Transport(wire)
        try:
            self._settle(transport)
            transport.start_client(timeout=self._connect_timeout)
            key = transport.get_remote_server_key()
            self._pin.check(f"{key.get_name()} {key.get_base64()}")
            _log_in(transport, route)
            self._watch(transport, wire)
        except BaseException:
            transport.close()
            raise
        return transport

    def _socket(self, route: Route) -> Any:
        if route.proxy_command:
            return paramiko.ProxyCommand(route.proxy_command)
        try:
            found = socket.create_connection((route.host, route.port), timeout=self._connect_timeout)
        except OSError as error:
            raise HostUnreachable(f"{route} does not answer: {error}") from None
        found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return found

    def _settle(self, transport: paramiko.Transport) -> None:
        transport.daemon = True
        transport.set_log_channel(__name__)
        transport.banner_timeout = transport.auth_timeout = transport.handshake_timeout = self._connect_timeout
        transport.channel_timeout = self._connect_timeout
        transport.packetizer.REKEY_BYTES = _REKEY_BYTES
        options = transport.get_security_options()
        options.ciphers = [name for name in _CIPHERS if name in options.ciphers]
        wanted = [name for kind in self._pin.key_types() for name in _signatures(kind) if name in options.key_types]
        if wanted:
            options.key_types = wanted

    # Signs of life.

    def _watch(self, transport: paramiko.Transport, wire: _Wire) -> None:
        channel = transport.open_session(timeout=self._connect_timeout)
        channel.exec_command(f"exec /bin/sh -c 'while echo; do sleep {self._beat:g}; done'")
        threading.Thread(target=self._listen, args=(transport, channel, wire), name="ssh-watch", daemon=True).start()

    def _listen(self, transport: paramiko.Transport, channel: paramiko.Channel, wire: _Wire) -> None:
        """Close a connection that has been silent for too long, which wakes everybody who waits on it."""
        channel.settimeout(min(self._beat, 1.0))
        while transport.is_active():
            try:
                if not channel.recv(4096) and transport.is_active():
                    time.sleep(_LOOK)  # the ticker was ended there; other channels' bytes still count
            except TimeoutError:
                pass
            except OSError:
                break
            if time.monotonic() - wire.heard > self._dead_after:
                break
        transport.close()


class _Attempt:
    """One try to connect, shared by all who wait for it."""

    def __init__(self) -> None:
        self.done = threading.Event()
        self.transport: paramiko.Transport | None = None
        self.error: HostUnreachable | None = None

    @property
    def failed(self) -> bool:
        return self.error is not None


class _Wire:
    """A socket that remembers when something was last heard."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.heard = time.monotonic()

    def recv(self, n: int) -> bytes:
        data = self._inner.recv(n)
        if data:
            self.heard = time.monotonic()
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class _Transport(paramiko.Transport):  # type: ignore[misc]
    """The library's transport, which also understands that a command was ended by a signal (as a negative code)."""


def _request(channel: paramiko.Channel, message: paramiko.Message) -> None:
    at = message.packet.tell()
    kind = message.get_text()
    channel.told_its_end = kind in ("exit-signal", "exit-status")
    if kind == "exit-signal":
        message.get_boolean()
        number = getattr(signal, f"SIG{message.get_text()}", signal.SIGKILL)
        channel.exit_status = -int(number)
        channel.status_event.set()
        return
    message.packet.seek(at)
    channel._handle_request(message)


def ended(channel: paramiko.Channel) -> bool:
    """Whether the other side has said how the command ended; a lost connection sets the library's own flag too."""
    return getattr(channel, "told_its_end", False)


_Transport._channel_handler_table = {**paramiko.Transport._channel_handler_table, MSG_CHANNEL_REQUEST: _request}


def _signatures(key_type: str) -> list[str]:
    """The algorithms that a server may prove a key of this type with."""
    return ["rsa-sha2-512", "rsa-sha2-256"] if key_type == "ssh-rsa" else [key_type]


def _log_in(transport: paramiko.Transport, route: Route) -> None:
    """Offer the keys in turn. Raises LoginRefused with what was tried."""
    tried: list[str] = []
    for name, make in _keys(route):
        try:
            key = make()
        except LoginRefused as error:
            tried.append(str(error))
            continue
        try:
            if not transport.auth_publickey(route.user, key):  # a list: the server wants a second proof
                return
            tried.append(f"{name}: accepted, but the server asks for more")
        except paramiko.AuthenticationException:
            tried.append(f"{name}: refused")
        if not transport.is_active():
            raise HostUnreachable(f"{route} hung up after {len(tried)} keys: " + "; ".join(tried))
    raise LoginRefused(f"{route} accepts none of our keys ({'; '.join(tried) or 'there is none'})")


def _keys(route: Route) -> Iterator[tuple[str, Callable[[], paramiko.PKey]]]:
    """The agent's keys, then the files; a file is read only when its turn comes.

    With `only_these_keys` the agent is asked only for keys whose public half lies beside a named file: it may hold one
    that is locked on disk.
    """
    named = {_public_half(path) for path in route.key_files}
    for key in agent_keys():
        if not route.only_these_keys or key.get_base64() in named:
            yield f"agent's {key.get_name()}", functools.partial(_itself, key)
    for path in route.key_files:
        yield str(path), functools.partial(load_key, path)


def _public_half(path: Path) -> str:
    """The base64 text of `<path>.pub`; "" when there is none."""
    try:
        return path.with_name(path.name + ".pub").read_text(encoding="ascii").split()[1]
    except (OSError, ValueError, IndexError):
        return ""


def _itself(key: paramiko.PKey) -> paramiko.PKey:
    return key


def _extras(error: HostUnreachable) -> dict[str, Any]:
    """The fields of an error that its message does not hold, so that every waiting thread gets its own copy."""
    return {name: vars(error)[name] for name in ("fingerprint", "line") if name in vars(error)}


def pause(tries: int) -> float:
    """Seconds before the next try: longer each time, capped, and never in step with others."""
    return min(FIRST_PAUSE * 2 ** min(tries, 8), LONGEST_PAUSE) * random.uniform(0.5, 1.0)


def keep_trying(error: HostUnreachable, tries: int, stop: threading.Event) -> None:
    """Wait before the next try. Raises the error when trying again is no use, Cancelled when `stop` is set."""
    if isinstance(error, HostRefused):
        raise error
    if stop.wait(pause(tries)):
        raise Cancelled("given up while waiting to connect again") from None
