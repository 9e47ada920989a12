"""What SSH adds to a Host: keys that are pinned, links that break, freeze and come back, pipes and forwards."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from remote import job
from remote.errors import (
    Cancelled,
    HostKeyChanged,
    HostKeyUnknown,
    HostUnreachable,
    LoginRefused,
    RunnerFailed,
)
from remote.ssh.host import KnownKey, SshHost
from remote.ssh.keys import load_key, make_key
from remote.ssh.known_hosts import KnownHosts, fingerprint
from remote.ssh.route import Route, resolve
from remote.ssh.session import script

LAUNCHES = int(os.environ.get("LLMCONSOLE_LAUNCHES", "50"))


@pytest.fixture
def ssh(box) -> Iterator[SshHost]:  # type: ignore[no-untyped-def]
    host = box.host()
    yield host
    host.close()


def until(true: Callable[[], object], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


# Keys.


def test_an_unknown_key_is_shown_pinned_and_then_trusted(box, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    known = KnownHosts(tmp_path / "known_hosts")
    host = SshHost("new", box.route(), KnownKey(known, "new"))
    with pytest.raises(HostKeyUnknown) as caught:
        host.connect()
    keygen = subprocess.run(["ssh-keygen", "-lf", str(box.folder / "host.pub")], capture_output=True, text=True)
    assert caught.value.fingerprint in keygen.stdout
    assert caught.value.fingerprint == fingerprint(box.host_key)
    known.pin("new", caught.value.line)
    assert host.run(["echo", "hi"]).out == b"hi\n"
    assert (known.path.stat().st_mode & 0o777) == 0o600
    host.close()


def test_a_changed_key_is_refused_before_anything_is_sent(box, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    known = KnownHosts(tmp_path / "known_hosts")
    other = make_key(tmp_path / "other")
    known.pin("box", other)
    host = SshHost("box", box.route(), KnownKey(known, "box"))
    with pytest.raises(HostKeyChanged, match="another machine answers there") as caught:
        host.run(["true"])
    assert fingerprint(other) in str(caught.value) and fingerprint(box.host_key) in str(caught.value)
    with pytest.raises(HostKeyChanged):
        list(host.follow("/etc/hosts", 0, threading.Event()))  # trying again would be no use
    with pytest.raises(HostKeyChanged):
        known.pin("box", box.host_key)
    assert known.forget("box") and not known.forget("box")
    known.pin("box", box.host_key)
    assert host.run(["true"]).rc == 0
    host.close()


def test_a_refused_login_names_what_was_tried(box, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    make_key(tmp_path / "stranger")
    known = KnownHosts(tmp_path / "known_hosts")
    known.pin("box", box.host_key)
    route = Route("127.0.0.1", box.port, "root", (tmp_path / "stranger",), only_these_keys=True)
    with pytest.raises(LoginRefused, match="stranger: refused"):
        SshHost("box", route, KnownKey(known, "box")).run(["true"])
    (tmp_path / "stranger").chmod(0o644)
    with pytest.raises(LoginRefused, match="chmod 600"):
        SshHost("box", route, KnownKey(known, "box")).run(["true"])


def test_private_keys_are_made_once_and_locked_ones_are_explained(tmp_path: Path) -> None:
    line = make_key(tmp_path / "keys" / "run1")
    assert line.startswith("ssh-ed25519 ") and make_key(tmp_path / "keys" / "run1") == line
    assert (tmp_path / "keys" / "run1").stat().st_mode & 0o777 == 0o600
    locked = tmp_path / "locked"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", str(locked)], check=True)
    with pytest.raises(LoginRefused, match=r"passphrase.*ssh-add"):
        load_key(locked)
    (tmp_path / "junk").write_text("junk")
    (tmp_path / "junk").chmod(0o600)
    with pytest.raises(LoginRefused, match="not a private key"):
        load_key(tmp_path / "junk")


@pytest.mark.skipif(not shutil.which("ssh-agent"), reason="needs OpenSSH's agent")
def test_a_key_that_is_locked_on_disk_is_taken_from_the_agent(box, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
                                                              ) -> None:  # type: ignore[no-untyped-def]
    locked, agent = tmp_path / "locked", tmp_path / "agent"
    shutil.copy(box.key, locked)
    shutil.copy(box.folder / "id.pub", tmp_path / "locked.pub")
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(agent)], stdout=subprocess.DEVNULL)
    try:
        until(agent.exists)
        monkeypatch.setenv("SSH_AUTH_SOCK", str(agent))
        subprocess.run(["ssh-add", "-q", str(locked)], check=True, stderr=subprocess.DEVNULL)
        subprocess.run(["ssh-keygen", "-q", "-p", "-P", "", "-N", "secret", "-f", str(locked)], check=True,
                       stdout=subprocess.DEVNULL)
        known = KnownHosts(tmp_path / "known_hosts")
        known.pin("box", box.host_key)
        route = Route("127.0.0.1", box.port, box.route().user, (locked,), only_these_keys=True)
        host = SshHost("box", route, KnownKey(known, "box"))
        assert host.run(["echo", "in"]).out == b"in\n"
        host.close()
    finally:
        process.kill()
        process.wait()


def test_the_users_ssh_config_is_honoured_for_addresses_only(tmp_path: Path) -> None:
    (tmp_path / "config").write_text("Host gpu\n  HostName 10.0.0.9\n  Port 2222\n  User ann\n"
                                     f"  IdentityFile {tmp_path / 'key'}\n  IdentitiesOnly yes\n  ProxyJump gate\n"
                                     "  StrictHostKeyChecking no\n")
    make_key(tmp_path / "key")
    found = resolve("gpu", folder=tmp_path)
    assert (found.host, found.port, found.user, found.key_files) == ("10.0.0.9", 2222, "ann", (tmp_path / "key",))
    assert found.only_these_keys and found.proxy_command == "ssh -W [10.0.0.9]:2222 gate"
    assert resolve("gpu", port=9, user="bob", folder=tmp_path).port == 9
    plain = resolve("example.org", user="bob", folder=tmp_path / "none")
    assert (plain.host, plain.port, plain.user, plain.key_files) == ("example.org", 22, "bob", ())


# Commands.


def test_secrets_and_words_reach_the_command_and_no_process_list(ssh: SshHost) -> None:
    secret = "canary-'\"$(touch x)\\ é"
    done = ssh.run(["sh", "-c", 'ps axww -o args= 2>/dev/null || cat /proc/*/cmdline; printf "%s" "$WORD"'],
                   env={"WORD": secret})
    assert done.out.endswith(secret.encode())
    assert done.out.count(b"canary-") == 1
    with pytest.raises(ValueError, match="name of an environment variable"):
        script(["true"], {"A;B": "x"}, None, "m")


def test_input_larger_than_every_window_goes_through(ssh: SshHost) -> None:
    data = random.Random(1).randbytes(5 << 20)
    done = ssh.run(["sh", "-c", "cat; head -c 3000000 /dev/zero >&2"], stdin=data)
    assert done.out == data and len(done.err) == 3_000_000
    assert ssh.run(["true"], stdin=data).rc == 0  # a command that does not read its input


def test_many_sessions_at_once_take_more_than_one_connection(ssh: SshHost) -> None:
    stop = threading.Event()
    pipes = [ssh.open_pipe(["cat"]) for _ in range(14)]  # a server allows ten per connection
    for index, pipe in enumerate(pipes):
        pipe.stdin.write(b"%d\n" % index)
    assert [pipe.stdout.readline() for pipe in pipes] == [b"%d\n" % index for index in range(14)]
    for pipe in pipes:
        pipe.stdin.close()
    assert [pipe.wait(5) for pipe in pipes] == [0] * 14
    stop.set()


def test_a_machine_without_python_says_so(ssh: SshHost) -> None:
    ssh.python = ("python-that-is-not-there",)
    assert ssh.run(["echo", "still"]).out == b"still\n"
    with pytest.raises(RunnerFailed, match=r"Python 3\.9 or newer"):
        ssh.stat("/")


# Links that break.


def test_a_follower_goes_on_through_cuts_with_every_byte_once(box, relay_to, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    relay = relay_to(box.port)
    host = box.host(relay.port)
    path, stop, dice = tmp_path / "log", threading.Event(), random.Random(3)
    text = b"".join(b"%d %s\n" % (n, b"y" * dice.randrange(200)) for n in range(40_000))

    def write() -> None:
        with open(path, "ab", buffering=0) as f:
            for at in range(0, len(text), 20_000):
                f.write(text[at : at + 20_000])
                time.sleep(0.01)

    def cut() -> None:
        last = 0
        while not stop.wait(dice.uniform(0.1, 0.5)):
            if len(seen) > last:  # on a starved machine a connection takes longer to make than that
                last = len(seen)
                relay.cut()

    seen = bytearray()
    for work in (write, cut):
        threading.Thread(target=work, daemon=True).start()
    for piece in host.follow(str(path), 0, stop):
        assert piece.endswith(b"\n")
        seen += piece
        if len(seen) >= len(text):
            stop.set()
    host.close()
    assert hashlib.sha256(seen).digest() == hashlib.sha256(text).digest()
    assert relay.connections >= 3


def test_a_frozen_peer_is_noticed_and_left(box, relay_to) -> None:  # type: ignore[no-untyped-def]
    relay = relay_to(box.port)
    host = box.host(relay.port, beat=0.2, dead_after=0.8, connect_timeout=2)
    assert host.run(["true"]).rc == 0
    relay.frozen.set()
    begun = time.monotonic()
    with pytest.raises(HostUnreachable):
        host.run(["sleep", "30"])
    assert time.monotonic() - begun < 4
    relay.frozen.clear()
    assert host.run(["echo", "back"]).out == b"back\n"
    host.close()


def test_whoever_waits_for_a_frozen_peer_can_leave_at_once(box, relay_to, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    relay = relay_to(box.port)
    (tmp_path / "file").write_bytes(b"x")
    for connected in (False, True):
        host = box.host(relay.port)
        if connected:
            host.connect()
        relay.frozen.set()
        for wait in (lambda stop, host=host: list(host.follow(str(tmp_path / "file"), 0, stop)),
                     lambda stop, host=host: host.get(str(tmp_path / "file"), tmp_path / "copy", stop=stop)):
            stop = threading.Event()
            threading.Timer(0.3, stop.set).start()
            begun = time.monotonic()
            try:
                wait(stop)
            except Cancelled:
                pass
            assert time.monotonic() - begun < 1.3
        begun = time.monotonic()
        threading.Timer(0.3, host.close).start()
        with pytest.raises(HostUnreachable):
            host.run(["true"])
        assert time.monotonic() - begun < 1.3
        relay.frozen.clear()


def test_a_download_goes_on_where_it_was_cut(box, relay_to, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    relay = relay_to(box.port)
    host = box.host(relay.port)
    source, target = tmp_path / "source.bin", tmp_path / "here" / "target.bin"
    source.write_bytes(random.Random(2).randbytes(24 << 20))
    cuts: list[int] = []

    def heard(done: int, total: int) -> None:
        if done > (len(cuts) + 1) * (6 << 20) and len(cuts) < 3:
            cuts.append(done)
            relay.cut()

    host.get(str(source), target, progress=heard)
    assert target.read_bytes() == source.read_bytes() and len(cuts) == 3
    assert [path.name for path in target.parent.iterdir()] == ["target.bin"]
    host.close()


def test_a_part_of_another_file_is_not_gone_on_with(ssh: SshHost, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"a" * 3_000_000)
    stop = threading.Event()
    with pytest.raises(Cancelled):
        ssh.get(str(source), target, stop=stop, progress=lambda done, total: stop.set())
    assert list(tmp_path.glob(".target.*.part"))
    source.write_bytes(b"b" * 2_000_000)
    ssh.get(str(source), target)
    assert target.read_bytes() == b"b" * 2_000_000 and not list(tmp_path.glob(".target.*"))


def test_an_upload_keeps_its_mode_and_tells_why_it_failed(ssh: SshHost, tmp_path: Path) -> None:
    source = tmp_path / "tool"
    source.write_bytes(b"x" * 3_000_000)
    source.chmod(0o750)
    ssh.put(source, str(tmp_path / "deep" / "tool"))
    assert (tmp_path / "deep" / "tool").stat().st_mode & 0o777 == 0o750
    with pytest.raises(OSError, match="box"):
        ssh.put(source, "/proc/nowhere/file")


@pytest.mark.timeout(60 + 2 * LAUNCHES)
def test_launches_whose_replies_are_cut_start_exactly_once(box, relay_to, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    relay = relay_to(box.port)
    host, dice = box.host(relay.port), random.Random(7)
    folder, cuts = tmp_path / "job", 0
    for attempt in range(1, LAUNCHES + 1):
        cutter = threading.Timer(dice.uniform(0.0, 0.12), relay.cut)
        cutter.start()
        while True:
            try:
                job.launch(host, str(folder), attempt, ["sh", "-c", f"echo {attempt} >> starts"])
                break
            except HostUnreachable:
                cuts += 1
        cutter.cancel()
        until(lambda: job.state(box_local(), str(folder)).state == "exited")
    assert (folder / "starts").read_text().split() == [str(n) for n in range(1, LAUNCHES + 1)]
    assert cuts > LAUNCHES / 10
    host.close()


def box_local():  # type: ignore[no-untyped-def]
    from remote.local import LocalHost

    return LocalHost()


def test_a_machine_that_refuses_says_so_and_is_reached_when_it_is_back(box, relay_to) -> None:  # type: ignore[no-untyped-def]
    relay = relay_to(box.port)
    relay.refusing.set()
    host = box.host(relay.port, connect_timeout=3)
    with pytest.raises(HostUnreachable, match="no SSH connection"):
        host.run(["true"])
    relay.refusing.clear()
    assert host.run(["true"]).rc == 0
    host.close()
    with pytest.raises(HostUnreachable, match="closed here"):
        host.run(["true"])


def test_an_address_that_moves_is_asked_for_before_each_connection(box, relay_to) -> None:  # type: ignore[no-untyped-def]
    relay = relay_to(box.port)
    known = KnownHosts(box.folder / "known_hosts")
    known.pin("box", box.host_key)
    routes = [box.route(1), box.route(relay.port)]
    host = SshHost("box", lambda: routes.pop(0), KnownKey(known, "box"))
    with pytest.raises(HostUnreachable):
        host.run(["true"])
    assert host.run(["true"]).rc == 0
    host.close()


# Pipes, forwards, shells.


def test_a_conversation_over_a_pipe(ssh: SshHost) -> None:
    with ssh.open_pipe([sys.executable, "-uc", "import sys\nprint('bad', file=sys.stderr)\n"
                        "for line in sys.stdin: print(line.strip()[::-1], flush=True)\nsys.exit(3)"]) as pipe:
        for word in (b"abc", b"hello"):
            pipe.stdin.write(word + b"\n")
            assert pipe.stdout.readline() == word[::-1] + b"\n"
        assert pipe.poll() is None
        pipe.stdin.close()
        assert pipe.stdout.read() == b"" and pipe.wait(5) == 3
        assert pipe.stderr.read() == b"bad\n"


def test_a_pipe_that_breaks_ends_like_a_process(box, relay_to) -> None:  # type: ignore[no-untyped-def]
    relay = relay_to(box.port)
    host = box.host(relay.port)
    pipe = host.open_pipe(["cat"])
    relay.cut()
    assert pipe.stdout.read() == b""
    with pytest.raises(BrokenPipeError):
        for _ in range(100):
            pipe.stdin.write(b"x" * 1000)
            time.sleep(0.01)
    with pytest.raises(HostUnreachable):
        pipe.wait(5)
    host.close()


def test_a_forwarded_port_leads_there(ssh: SshHost) -> None:
    with socket.create_server(("127.0.0.1", 0)) as there, ssh.forward(there.getsockname()[1]) as forward:
        with socket.create_connection(("127.0.0.1", forward.port), timeout=5) as here:
            far, _ = there.accept()
            here.sendall(b"ping")
            assert far.recv(10) == b"ping"
            far.sendall(b"pong")
            assert here.recv(10) == b"pong"
            far.close()
            assert here.recv(10) == b""


@pytest.mark.skipif(not shutil.which("ssh"), reason="needs OpenSSH's client")
def test_plain_ssh_opens_a_shell_with_our_key_and_our_pin(ssh: SshHost, box) -> None:  # type: ignore[no-untyped-def]
    done = subprocess.run([*ssh.shell_argv(["echo", "in"])], capture_output=True, stdin=subprocess.DEVNULL, timeout=30)
    assert done.stdout.strip() == b"in", done.stderr
