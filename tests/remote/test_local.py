"""What the Host protocol promises, kept by this machine and by one that is reached over SSH."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from remote.errors import CommandTimeout, FileReplaced, NoSuchFile, RemoteError
from remote.host import Completed, Host
from remote.local import LocalHost


@pytest.fixture
def host(any_host: Host) -> Host:
    return any_host


pytestmark = pytest.mark.parametrize("any_host", ["local", "ssh", "pod"], indirect=True)


def test_a_command_answers_with_code_and_output(host: Host, tmp_path: Path) -> None:
    script = "read x; echo $x $WORD $(pwd); echo bad >&2; exit 3"
    done = host.run(["sh", "-c", script], stdin=b"in\n", env={"WORD": "env"}, cwd=str(tmp_path))
    assert done == Completed(3, f"in env {tmp_path}\n".encode(), b"bad\n")
    assert host.run(["sh", "-c", "kill -9 $$"]).rc == -9


def test_a_command_that_takes_too_long_is_ended_with_its_children(host: Host) -> None:
    begun = time.monotonic()
    with pytest.raises(CommandTimeout, match=r"sh did not end within 0\.2 s"):
        host.run(["sh", "-c", "sleep 30 & sleep 30"], timeout=0.2)
    assert time.monotonic() - begun < 10


def test_python_there_has_our_packages_and_scripts_need_none(host: Host, tmp_path: Path) -> None:
    assert host.run([*host.python, "-c", "import engine.recipe"]).rc == 0
    script = tmp_path / "say.py"
    script.write_text("import sys; print(sys.argv[1], sys.stdin.read(), 'site' in sys.modules)")
    assert host.run_script(script, ["a b"], stdin=b"in").out == b"a b in False\n"


def test_files_are_read_by_offset(host: Host, tmp_path: Path) -> None:
    path = str(tmp_path / "file")
    Path(path).write_bytes(b"0123456789")
    assert (host.read(path), host.read(path, 4), host.read(path, 4, 3)) == (b"0123456789", b"456789", b"456")
    assert (host.read(path, 10), host.read(path, 99)) == (b"", b"")
    found = host.stat(path)
    assert found is not None and (found.size, found.inode) == (10, Path(path).stat().st_ino)
    assert host.listdir(str(tmp_path)) == ["file"]


def test_absence_is_an_answer(host: Host, tmp_path: Path) -> None:
    nowhere = str(tmp_path / "none")
    assert host.stat(nowhere) is None
    for ask in (lambda: host.read(nowhere), lambda: host.listdir(nowhere), lambda: host.get(nowhere, tmp_path / "x")):
        with pytest.raises(NoSuchFile, match="none"):
            ask()
    assert issubclass(NoSuchFile, RemoteError)


def test_copies_appear_whole_or_not_at_all(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = tmp_path / "source", tmp_path / "deep" / "down" / "target"
    source.write_bytes(b"x" * 100_000)
    host.put(source, str(target))
    assert target.read_bytes() == source.read_bytes()
    source.write_bytes(b"new")

    def refuse(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", refuse)
    with pytest.raises(OSError, match="No space"):
        host.get(str(source), target)
    assert target.read_bytes() == b"x" * 100_000
    assert [path.name for path in target.parent.iterdir()] == ["target"]


def test_following_gives_every_byte_once_in_whole_lines(host: Host, tmp_path: Path) -> None:
    path, stop = tmp_path / "log", threading.Event()
    text = b"".join(b"%d %s\n" % (n, b"x" * (n % 300)) for n in range(3000))

    def write() -> None:
        time.sleep(0.05)  # the file is not there at first
        with open(path, "ab", buffering=0) as f:
            for at in range(0, len(text), 777):
                f.write(text[at : at + 777])

    writer = threading.Thread(target=write)
    writer.start()
    seen = b""
    for piece in host.follow(str(path), 0, stop):
        assert piece.endswith(b"\n")
        seen += piece
        if len(seen) == len(text):
            stop.set()
    writer.join()
    assert seen == text


def test_following_goes_on_from_an_offset_and_hands_over_endless_lines_in_parts(host: Host, tmp_path: Path) -> None:
    path, stop = tmp_path / "log", threading.Event()
    path.write_bytes(b"old\n" + b"y" * (3 << 20) + b"\nend\ntorn")
    seen = b""
    for piece in host.follow(str(path), 4, stop):
        seen += piece
        if seen.endswith(b"end\n"):
            stop.set()
    assert seen == b"y" * (3 << 20) + b"\nend\n"


@pytest.mark.parametrize("replace", [
    lambda path: path.write_bytes(b"s\n"),
    lambda path: (path.with_name("new").write_bytes(b"another, longer\n"), path.with_name("new").replace(path)),
])
def test_a_file_that_was_cut_or_replaced_is_told(host: Host, tmp_path: Path,
                                                   replace: Callable[[Path], object]) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"long line\n")
    pieces = host.follow(str(path), 0, threading.Event())
    assert next(pieces) == b"long line\n"
    replace(path)
    with pytest.raises(FileReplaced):
        next(pieces)


def test_following_stops_when_told(host: Host, tmp_path: Path) -> None:
    stop = threading.Event()
    threading.Timer(0.05, stop.set).start()
    assert list(host.follow(str(tmp_path / "never"), 0, stop)) == []


def test_the_room_knows_no_other_room(any_host: Host) -> None:
    code = ("import sys, remote.local, remote.job, remote.errors\n"
            "print(sorted({'torch', 'engine', 'console', 'textual', 'psutil'} & set(sys.modules)))")
    assert LocalHost().run([sys.executable, "-c", code]).out == b"[]\n"
