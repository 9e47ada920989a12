"""A real server in a process of its own with a small real model, and a real browser that talks over a pipe."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

ROOT = Path(__file__).parents[4]
START_S = 60
ANSWER = b"Hi you,<b>"  # no byte twice: a chain model knows only what follows what
LETTER = ord("~")        # what the endless model repeats


class Server:
    """`python -m engine serve` on a free port."""

    def __init__(self, base: Path, *flags: str, token: str | None = None, threads: int = 1) -> None:
        environment = {**os.environ, "NANOCHAT_BASE_DIR": str(base), "OMP_NUM_THREADS": str(threads),
                       "LLMCONSOLE_THREADS": str(threads)}
        environment.pop("LLMCONSOLE_SERVE_TOKEN", None)
        if token:
            environment["LLMCONSOLE_SERVE_TOKEN"] = token
        self.process = subprocess.Popen([sys.executable, "-m", "engine", "serve", "--port=0", *flags], cwd=ROOT,
                                        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.lines: list[str] = []
        self.url = self._url()

    def _url(self) -> str:
        assert self.process.stdout and self.process.stderr
        for line in self.process.stdout:
            self.lines.append(line)
            if line.startswith("http://"):
                return line.split()[0]
        raise AssertionError(f"the server ended: {self.process.stderr.read()}")

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def memory(self) -> int:
        return psutil.Process(self.process.pid).memory_info().rss

    def idle(self) -> bool:
        """Whether nothing is being answered and nobody waits."""
        models = httpx.get(f"{self.url}/v1/models").json()["data"]
        return not any(model.get("writing") or model.get("waiting") for model in models)

    def stop(self) -> tuple[int, str]:
        """SIGTERM; the exit code and what it wrote to stderr."""
        self.process.send_signal(signal.SIGTERM)
        _, err = self.process.communicate(timeout=30)
        return self.process.returncode, err


@pytest.fixture(scope="session")
def model_base(save_chain: Callable[..., tuple[Path, Path]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Step 1 says ANSWER and ends; step 2 says one letter for ever in a large context."""
    base = tmp_path_factory.mktemp("served")
    end = 256 + 4  # <|assistant_end|> of the byte tokenizer
    save_chain(base, 2, [LETTER], 8192)
    save_chain(base, 1, [*ANSWER, end], 256)
    return base


@pytest.fixture(scope="session")
def server(model_base: Path) -> Iterator[Server]:
    """One server for all tests that leave it as it is: two rows, two may wait."""
    running = Server(model_base, "--model=sft/d1@1,sft/d1@2", "--rows=2", "--queue=2")
    yield running
    code, err = running.stop()
    assert code == 0 and "Traceback" not in err, err


@pytest.fixture
def start() -> Iterator[Callable[..., Server]]:
    """Starts servers that end with the test."""
    running: list[Server] = []

    def begin(*words: Any, **options: Any) -> Server:
        running.append(Server(*words, **options))
        return running[-1]

    yield begin
    for one in running:
        if one.process.poll() is None:
            one.process.kill()
        one.process.communicate()


class Browser:
    """Headless Chromium, driven over the DevTools protocol on a pipe: no port, no driver, no library."""

    def __init__(self, executable: str, profile: Path) -> None:
        to_read, self._write = os.pipe()
        self._read, to_write = os.pipe()

        def pipes() -> None:
            low, high = os.dup(to_read), os.dup(to_write)
            os.dup2(low, 3)
            os.dup2(high, 4)

        words = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
                 "--disable-background-networking", "--disable-component-update", "--disable-sync",
                 "--disable-extensions", "--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"]
        self.process = subprocess.Popen([executable, *words], preexec_fn=pipes, pass_fds=(3, 4),
                                        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(to_read)
        os.close(to_write)
        self._held, self._count = b"", 0
        self.events: list[dict[str, Any]] = []

    def tab(self) -> Page:
        """A fresh tab with a storage of its own."""
        context = self.call("Target.createBrowserContext")["browserContextId"]
        target = self.call("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        return Page(self, context, self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"])

    def call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        self._count += 1
        message = {"id": self._count, "method": method, "params": params, **({"sessionId": session} if session else {})}
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            reply = self._next()
            if reply.get("id") == self._count:
                assert "error" not in reply, reply
                return reply["result"]
            self.events.append(reply)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._held:
            chunk = os.read(self._read, 1 << 16)
            assert chunk, "the browser ended"
            self._held += chunk
        line, _, self._held = self._held.partition(b"\0")
        return json.loads(line)

    def close(self) -> None:
        os.close(self._write)
        os.close(self._read)
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Page:
    """One tab."""

    def __init__(self, browser: Browser, context: str, session: str) -> None:
        self._browser, self._context, self._session = browser, context, session
        browser.events.clear()
        self.events = browser.events
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        self.size(1280, 860)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        return self._browser.call(method, self._session, **params)

    def close(self) -> None:
        self._browser.call("Target.disposeBrowserContext", browserContextId=self._context)

    def eval(self, script: str) -> Any:
        done = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def open(self, url: str) -> None:
        self.call("Page.navigate", url=url)
        self.until("document.readyState === 'complete' && !!document.querySelector('#model option')")

    def until(self, script: str, seconds: float = 20) -> None:
        deadline = time.monotonic() + seconds
        while not self.eval(script):
            assert time.monotonic() < deadline, f"waited in vain for {script}; page: {self.text()}"
            time.sleep(0.05)

    def text(self) -> str:
        return self.eval("document.body.innerText")

    def write(self, text: str, key: str | None = "Enter") -> None:
        """Type into what has the focus, then press a key."""
        self.call("Input.insertText", text=text)
        if key:
            self.press(key)

    def press(self, key: str, code: int = 0) -> None:
        code = code or {"Enter": 13, "Escape": 27, "ArrowUp": 38}[key]
        extra = {"text": "\r"} if key == "Enter" else {}
        self.call("Input.dispatchKeyEvent", type="keyDown" if extra else "rawKeyDown", key=key, code=key,
                  windowsVirtualKeyCode=code, **extra)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key, code=key, windowsVirtualKeyCode=code)

    def size(self, width: int, height: int, mobile: bool = False) -> None:
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    executable = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if executable is None:
        pytest.skip("no Chromium on this machine")
    running = Browser(executable, tmp_path_factory.mktemp("chromium"))
    yield running
    running.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    tab = browser.tab()
    yield tab
    tab.close()
