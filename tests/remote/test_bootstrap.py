"""Our own program on another machine: packed here, sent, proven there, and not sent twice."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest

from remote import our_wheel
from remote.bootstrap import bootstrap
from remote.errors import Cancelled, RunnerFailed
from remote.survey import Gpu, survey
from remote.uv_words import failure


def test_the_wheel_holds_the_running_code_and_always_the_same_bytes(tmp_path: Path) -> None:
    packed = our_wheel.wheel()
    assert packed.hash == our_wheel.wheel().hash and packed.file_name.endswith(".whl")
    with zipfile.ZipFile(BytesIO(packed.data)) as box:
        names = set(box.namelist())
        assert box.read("remote/bootstrap.py") == Path(our_wheel.__file__).with_name("bootstrap.py").read_bytes()
    assert {"engine/recipes/tiny.toml", "console/app.tcss", "rustbpe/rustbpe.abi3.so"} <= names
    assert not any("__pycache__" in name or "/target/" in name for name in names)
    assert "torch==" in packed.constraints


@pytest.mark.skipif(not shutil.which("uv"), reason="needs uv to install a wheel")
def test_the_wheel_is_one_that_an_installer_takes(tmp_path: Path) -> None:
    packed = our_wheel.wheel()
    (tmp_path / packed.file_name).write_bytes(packed.data)
    subprocess.run(["uv", "pip", "install", "-q", "--no-deps", "--offline", "--target", str(tmp_path / "lib"),
                    "--python", sys.executable, str(tmp_path / packed.file_name)], check=True)
    done = subprocess.run([sys.executable, "-S", "-c", "import rustbpe, remote.host; print(remote.host.__file__)"],
                          env={"PYTHONPATH": str(tmp_path / "lib")}, cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.strip() == str(tmp_path / "lib" / "remote" / "host.py"), done.stderr


def test_the_sources_hold_all_that_a_build_needs() -> None:
    packed = our_wheel.sources()
    assert packed.hash == our_wheel.sources().hash
    with tarfile.open(fileobj=BytesIO(packed.data)) as box:
        names = {name.partition("/")[2] for name in box.getnames()}
    assert {"pyproject.toml", "PKG-INFO", "rustbpe/Cargo.toml", "rustbpe/src/lib.rs", "engine/cpu_step/Cargo.toml",
            "README.md", "LICENSE", "console/app.tcss"} <= names
    assert not any("target/" in name or name.endswith((".pyc", ".so")) for name in names)


def test_a_box_gets_the_program_once_and_is_then_ready_at_once(box) -> None:  # type: ignore[no-untyped-def]
    host = box.host()
    told: list[str] = []
    python = bootstrap(host, None, told.append, python=(sys.executable,))
    assert host.python == python and [text.split(":")[0] for text in told] == [
        "sending", "sending", "unpacking", "unpacking", "checking", "checking"]
    where = host.run([*python, "-c", "import engine.rundir as m; print(m.__file__)"]).out.decode()
    assert where.startswith(str(box.home / ".llmconsole" / "env"))
    told.clear()
    begun = time.monotonic()
    assert bootstrap(host, survey(host), told.append, python=(sys.executable,)) == python
    assert told == ["this version of the program is there already"] and time.monotonic() - begun < 10
    assert host.stat("/etc/hosts") is not None  # files are looked at with the new Python
    host.close()


def test_what_was_cut_is_gone_on_with(box) -> None:  # type: ignore[no-untyped-def]
    shutil.rmtree(box.home / ".llmconsole", ignore_errors=True)
    host, told, stop = box.host(), list[str](), threading.Event()

    def tell(text: str) -> None:
        told.append(text)
        if text.startswith("sending: done"):
            stop.set()

    with pytest.raises(Cancelled):
        bootstrap(host, None, tell, stop, python=(sys.executable,))
    told.clear()
    bootstrap(host, None, told.append, python=(sys.executable,))
    assert told[0] == "the program was sent before"
    marker = next((box.home / ".llmconsole" / "env").glob("*/ready.json"))
    shutil.rmtree(marker.parent / "lib")  # a marker that lies is found out
    bootstrap(host, None, told.append, python=(sys.executable,))
    assert (marker.parent / "lib" / "engine").is_dir()
    host.close()


def test_a_python_without_the_libraries_is_refused_with_its_own_words(box, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "bare")], check=True)
    shutil.rmtree(box.home / ".llmconsole", ignore_errors=True)
    host = box.host()
    with pytest.raises(RunnerFailed, match=r"torch is not installed|No module named"):
        bootstrap(host, None, lambda _: None, python=(str(tmp_path / "bare" / "bin" / "python"),))
    host.close()


UV = """#!/bin/sh
# Does what is asked of uv, with what is installed here.
echo "$*" >> "$HOME/uv.log"
if [ -e "$HOME/own-certificates" ] && [ -z "$UV_SYSTEM_CERTS" ] && [ "$1" = pip ]; then
  echo 'cause: invalid peer certificate: UnknownIssuer' >&2; echo 'hint: try --system-certs' >&2; exit 2; fi
for last; do :; done
case "$1" in
  venv) mkdir -p "$4/bin"; printf '#!/bin/sh\\nexec env PYTHONPATH=%s/lib {python} "$@"\\n' "$4" > "$4/bin/python"
        chmod +x "$4/bin/python" ;;
  pip) case "$last" in *.whl) {python} -m zipfile -e "$last" "$(dirname "$last")/venv/lib" ;; esac ;;
esac
"""


def test_an_environment_is_made_by_uv_and_torch_is_changed_for_an_old_driver(box) -> None:  # type: ignore[no-untyped-def]
    shutil.rmtree(box.home / ".llmconsole", ignore_errors=True)
    uv = box.home / "uv"
    uv.write_text(UV.replace("{python}", sys.executable))
    uv.chmod(0o755)
    host, told = box.host(), list[str]()
    found = replace(survey(host), tools=(("uv", str(uv)),))
    python = bootstrap(host, found, told.append)
    assert python[0].endswith("/venv/bin/python") and host.python == python
    assert host.run([*python, "-c", "import engine.rundir as m; print(m.__file__)"]).out.decode().startswith(
        str(Path(python[0]).parents[1] / "lib"))
    assert bootstrap(host, found, told.append) == python and told[-1] == "this version of the program is there already"
    shutil.rmtree(box.home / ".llmconsole")
    with pytest.raises(RunnerFailed, match=r"torch sees \d of 99 GPUs"):
        bootstrap(host, replace(found, gpus=(Gpu(0, "H100", 80.0),) * 99, driver="570.1"), told.append)
    calls = (box.home / "uv.log").read_text().splitlines()
    assert any("--torch-backend auto" in call for call in calls) and sum("venv --python" in call for call in calls) >= 2
    assert any("made for driver 570.1" in text for text in told)
    host.close()


def test_a_certificate_that_only_the_machine_trusts_is_taken_from_its_own_list(box) -> None:  # type: ignore[no-untyped-def]
    shutil.rmtree(box.home / ".llmconsole", ignore_errors=True)
    uv = box.home / "uv"
    uv.write_text(UV.replace("{python}", sys.executable))
    uv.chmod(0o755)
    (box.home / "own-certificates").touch()
    host, told = box.host(), list[str]()
    found = replace(survey(host), tools=(("uv", str(uv)),), gpus=())
    assert bootstrap(host, found, told.append)[0].endswith("/venv/bin/python")
    assert any("again with the machine's own list" in text for text in told)
    (box.home / "own-certificates").unlink()
    host.close()


@pytest.mark.parametrize(("output", "cause"), [
    ("error: Failed to fetch\n  cause: invalid peer certificate: UnknownIssuer\n\nhint: x", "SSL_CERT_FILE="),
    ("cause: dns error: failed to lookup address information", "HTTPS_PROXY="),
    ("error: failed to write: No space left on device (os error 28)", "disk is full"),
    ("x No solution found when resolving dependencies", "UV_DEFAULT_INDEX="), ("", "no word why")])
def test_what_uv_says_becomes_a_cause_and_a_next_step(output: str, cause: str) -> None:
    said = str(failure("installing", "gpu1", output))
    assert said.startswith("installing on gpu1 failed, so nothing can run there") and cause in said
    assert "hint:" not in said


@pytest.mark.skipif("LLMCONSOLE_BOOTSTRAP" not in os.environ, reason="installs 7 GB; LLMCONSOLE_BOOTSTRAP=1 runs it")
@pytest.mark.timeout(1800)
def test_a_whole_environment_from_nothing(box) -> None:  # type: ignore[no-untyped-def]
    host, told = box.host(), list[str]()
    host.python = ("python3",)
    python = bootstrap(host, None, told.append)
    print("\n".join(told))
    assert python[0].endswith("/venv/bin/python") and host.run([*python, "-m", "engine", "--help"]).rc == 0
    host.close()
