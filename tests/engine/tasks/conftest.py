"""A small Hub on this machine: the API paths that a download uses, real parquet files, and faults on demand."""

from __future__ import annotations

import hashlib
import io
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.tokenizer.bpe import Tokenizer
from engine.tokenizer.store import SPECIAL_TOKENS, SPLIT_PATTERN, Vocabulary

COMMIT = "c" * 40


class SmallHub:
    """`files[repo][path]` are bytes; `faults` are taken one per request: a status, 'cut', 'flip' or 'drop'."""

    def __init__(self) -> None:
        self.files: dict[str, dict[str, bytes]] = {}
        self.faults: list[int | str] = []
        self.gated: dict[str, str] = {}  # repo -> token that opens it
        self.requests: list[tuple[str, str | None]] = []  # path, Range
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                hub.answer(self)

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def add(self, repo: str, subset: str, split: str, rows: list[dict[str, object]], number: int = 0) -> bytes:
        buffer = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows), buffer)
        self.files.setdefault(repo, {})[f"{subset}/{split}/{number:04d}.parquet"] = buffer.getvalue()
        return buffer.getvalue()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path, byte_range = unquote(urlsplit(request.path).path), request.headers.get("Range")
        self.requests.append((path, byte_range))
        fault = self.faults.pop(0) if self.faults else None
        repo, body = self.find(path)
        if repo in self.gated and request.headers.get("Authorization") != f"Bearer {self.gated[repo]}":
            return self.reply(request, 401, b"{}")
        if isinstance(fault, int):
            return self.reply(request, fault, b"{}")
        if body is None:
            return self.reply(request, 404, b"{}")
        if fault == "drop":
            request.close_connection = True
            return None
        first = int(re.findall(r"\d+", byte_range)[0]) if byte_range else 0
        if byte_range and first >= len(body):
            return self.reply(request, 416, b"")
        part = body[first:]
        if fault == "flip":
            part = bytes([part[0] ^ 255]) + part[1:]
        self.reply(request, 206 if byte_range else 200, part, cut=fault == "cut",
                   part_of=f"bytes {first}-{len(body) - 1}/{len(body)}" if byte_range else "")

    def find(self, path: str) -> tuple[str, bytes | None]:
        if listed := re.fullmatch(r"/api/datasets/([^/]+/[^/]+)/revision/refs/convert/parquet", path):
            files = self.files.get(listed[1])
            if files is None:
                return listed[1], None
            siblings = [{"rfilename": name, "size": len(data), "lfs": {"size": len(data), "sha256":
                         hashlib.sha256(data).hexdigest()}} for name, data in files.items()]
            return listed[1], json.dumps({"sha": COMMIT, "siblings": siblings}).encode()
        if file := re.fullmatch(rf"/datasets/([^/]+/[^/]+)/resolve/{COMMIT}/(.+)", path):
            return file[1], self.files.get(file[1], {}).get(file[2])
        return "", None

    def reply(self, request: BaseHTTPRequestHandler, status: int, body: bytes, cut: bool = False,
              part_of: str = "") -> None:
        request.send_response(status)
        if part_of:
            request.send_header("Content-Range", part_of)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body[: len(body) // 2] if cut else body)
        if cut:
            request.close_connection = True


@pytest.fixture
def small_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[SmallHub]:
    hub = SmallHub()
    thread = threading.Thread(target=hub.server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_TOKEN_PATH", "/nonexistent/token")
    yield hub
    hub.server.shutdown()
    hub.server.server_close()


@pytest.fixture
def plain_tokenizer() -> Tokenizer:
    """One token per byte and the special ones behind them."""
    specials = {name: 256 + i for i, name in enumerate(SPECIAL_TOKENS)}
    return Tokenizer(Vocabulary(SPLIT_PATTERN, {bytes([i]): i for i in range(256)}, specials))
