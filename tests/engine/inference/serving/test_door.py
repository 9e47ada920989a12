"""Who is let in: names, origins, tokens, sizes, patience; and what the start says when it cannot begin."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

ROOT = Path(__file__).parents[4]
BODY = {"messages": [{"role": "user", "content": "hello"}], "model": "sft/d1@2", "max_tokens": 4096}


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/chat/completions", "/v1/models", "/stats", "/"])
def test_foreign_pages_get_nothing(server: Any, path: str) -> None:
    method = "POST" if path.endswith("completions") else "GET"

    def ask(**headers: str) -> int:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        body = BODY if method == "POST" else None
        return httpx.request(method, server.url + path, headers=names, json=body).status_code

    assert ask(host="evil.example") == 400
    assert ask(host="localhost.evil.example:80") == 400
    assert ask(origin="http://evil.example") == 403 and ask(origin="null") == 403
    assert ask(origin=f"http://127.0.0.1:{server.port + 1}") == 403
    assert server.idle()


def test_preflights_are_not_answered(server: Any) -> None:
    reply = httpx.options(f"{server.url}/v1/chat/completions", headers={
        "origin": "http://evil.example", "access-control-request-method": "POST"})
    assert reply.status_code == 403 and not any(name.startswith("access-control") for name in reply.headers)


def test_only_json_comes_in(server: Any) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        reply = httpx.post(f"{server.url}/chat/completions", content=b"{}", headers={"content-type": kind})
        assert reply.status_code == 415


def test_the_page_may_run_nothing_else(server: Any) -> None:
    reply = httpx.get(server.url)
    policy = reply.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and policy.count("sha256-") == 2
    assert reply.headers["x-content-type-options"] == "nosniff" and reply.headers["x-frame-options"] == "DENY"
    assert "://" not in reply.text.replace("http://www.w3.org", "")


def test_a_large_body_is_refused_unread(server: Any) -> None:
    before = server.memory()
    for declared in (True, False):
        def chunks() -> Any:
            for _ in range(50):
                yield b"x" * (1 << 20)

        headers = {"content-type": "application/json", **({"content-length": str(50 << 20)} if declared else {})}
        try:
            reply = httpx.post(f"{server.url}/v1/chat/completions", content=chunks(), headers=headers, timeout=20)
            assert reply.status_code == 413
        except httpx.TransportError:
            pass  # it hung up while we were still sending: as good
    grown = server.memory() - before
    print(f"two bodies of 50 MB: {grown / (1 << 20):+.1f} MB")
    assert grown < 50 << 20 and server.idle()


def test_a_thousand_slow_clients(server: Any) -> None:
    head = (b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            b"Content-Length: 400000\r\n\r\n{")
    before, slow = server.memory(), []
    for number in range(1000):
        slow.append(socket.create_connection(("127.0.0.1", server.port)))
        try:
            slow[-1].sendall(head + b"x" * 60_000 if number % 2 else head[:60])
        except OSError:
            pass  # refused, as those beyond the limit are
    time.sleep(0.5)
    grown = server.memory() - before
    print(f"1,000 slow clients: {grown / (1 << 20):+.1f} MB")
    assert grown < 50 << 20
    for one in slow:
        one.close()
    deadline = time.monotonic() + 10
    while True:
        try:
            assert server.idle()
            return
        except (httpx.TransportError, ValueError):
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_a_token_is_needed_where_one_is_set(start: Callable[..., Any], model_base: Path) -> None:
    server = start(model_base, "--model=sft/d1@1", token="canary-7")
    ask = lambda **headers: httpx.get(f"{server.url}/v1/models", headers=headers).status_code  # noqa: E731
    assert ask() == 401 and ask(authorization="Bearer wrong") == 401 and ask(authorization="Basic canary-7") == 401
    assert ask(authorization="Bearer canary-7") == 200
    assert httpx.get(server.url).status_code == 200 and "canary" not in httpx.get(server.url).text
    assert "canary" not in " ".join(Path(f"/proc/{server.process.pid}/cmdline").read_text().split("\0"))
    code, err = server.stop()
    assert code == 0 and "canary" not in err + "".join(server.lines)


def test_sigterm_lets_the_answer_finish(start: Callable[..., Any], model_base: Path) -> None:
    server = start(model_base, "--model=sft/d1@2")
    with httpx.stream("POST", f"{server.url}/v1/chat/completions", json={**BODY, "stream": True, "max_tokens": 600},
                      timeout=30) as reply:
        lines = reply.iter_lines()
        next(lines)
        server.process.terminate()
        assert [line for line in lines if line][-1] == "data: [DONE]"
    assert server.process.wait(20) == 0


def run(base: Path, *flags: str, **more: str) -> tuple[int, str]:
    environment = {**os.environ, "NANOCHAT_BASE_DIR": str(base), "OMP_NUM_THREADS": "1", **more}
    done = subprocess.run([sys.executable, "-m", "engine", "serve", *flags], cwd=ROOT, env=environment,
                          capture_output=True, text=True, timeout=60)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr


def test_what_the_start_refuses(model_base: Path, tmp_path: Path) -> None:
    readable = tmp_path / "token"
    readable.write_text("x")
    readable.chmod(0o644)
    cases = [(["--host=0.0.0.0"], 2, "needs a token"), (["--model=sft/d2@1"], 2, "did you mean sft/d1@1"),
             (["--token-file", str(readable)], 2, "chmod 600"), (["--port=99999"], 2, "at most 65535"),
             (["--host=nowhere.invalid"], 1, "no address")]
    for flags, code, words in cases:
        token = {"LLMCONSOLE_SERVE_TOKEN": "x"} if code == 1 else {}
        assert (found := run(model_base, *flags, **token))[0] == code and words in found[1]
    code, err = run(tmp_path)
    assert code == 1 and "no trained model" in err and "run start tiny" in err
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        code, err = run(model_base, f"--port={taken.getsockname()[1]}")
    assert code == 1 and "Address already in use" in err and "--port=" in err


def test_a_broken_checkpoint_is_one_sentence(save_chain: Callable[..., Any], tmp_path: Path) -> None:
    folder, _ = save_chain(tmp_path, 1, [65])
    path = folder / "model_000001.pt"
    path.write_bytes(path.read_bytes()[:-5000] + b"x" * 5000)
    code, err = run(tmp_path, "--port=0")
    assert code == 1 and "cannot be loaded" in err and len(err.splitlines()) <= 3


def test_a_checkpoint_that_breaks_meanwhile_is_told_and_the_server_goes_on(
        start: Callable[..., Any], save_chain: Callable[..., Any], tmp_path: Path) -> None:
    folder, _ = save_chain(tmp_path, 1, [65, 260])
    save_chain(tmp_path, 2, [66, 260])
    server = start(tmp_path, "--model=sft/d1@1,sft/d1@2")
    path = folder / "model_000002.pt"
    path.write_bytes(path.read_bytes()[:-5000] + b"x" * 5000)

    def ask(model: str) -> httpx.Response:
        body = {"model": model, "messages": [{"role": "user", "content": "hello"}]}
        return httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=30)

    broken = ask("sft/d1@2")
    assert broken.status_code == 503 and "cannot be loaded" in broken.json()["error"]["message"]
    assert ask("sft/d1@1").json()["choices"][0]["message"]["content"] == "A"
    assert ask("d1@1").json()["model"] == "sft/d1@1"  # part of a name is enough
    code, err = server.stop()
    assert code == 0 and "Traceback" not in err


def test_only_so_many_models_stay_in_memory(start: Callable[..., Any], save_chain: Callable[..., Any],
                                            tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save_chain(tmp_path, step, [64 + step, 260])
    server = start(tmp_path, "--keep=2")
    for step in (1, 2, 3, 1):
        body = {"model": f"sft/d1@{step}", "messages": [{"role": "user", "content": "hello"}]}
        reply = httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=30).json()
        assert reply["choices"][0]["message"]["content"] == chr(64 + step)
        loaded = [m["id"] for m in httpx.get(f"{server.url}/v1/models").json()["data"] if m["loaded"]]
        assert f"sft/d1@{step}" in loaded and len(loaded) <= 2
