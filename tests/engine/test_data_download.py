"""Public shards over HTTP: a server on loopback that cuts, stalls, lies and refuses; whole and verified in the end."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from engine.context import StageContext, StageError, Stopped
from engine.data import download, fetch, shards, sources
from engine.data.fetch import Order
from engine.data.sources import SHARD_SOURCES, shard_name
from engine.events import EventWriter, parse_line
from engine.settings.data import Dataset
from engine.stages import dataset

SMALL = dataclasses.replace(SHARD_SOURCES["fineweb_edu"], shards=20, shard_bytes=1000)


class Mirror:
    """Serves files below /data/, and does to each request what `faults` says of the file, one fault per request."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files, self.faults, self.asked = files, dict[str, list[str]](), Counter[str]()
        self.ranges: list[tuple[str, str]] = []
        mirror = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *words: Any) -> None:
                pass

            def do_GET(self) -> None:
                mirror.answer(self, self.path.rsplit("/", 1)[-1])

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/data"
        self.release = threading.Event()

    def answer(self, request: BaseHTTPRequestHandler, name: str) -> None:
        self.asked[name] += 1
        fault = self.faults[name].pop(0) if self.faults.get(name) else ""
        body = self.files.get(name)
        if body is None or fault.isdecimal():
            request.send_response(int(fault or 404))
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        tag = hashlib.sha256(body).hexdigest()
        if fault == "lie":
            body = body[:-1] + bytes([body[-1] ^ 1])
        first = self._first(request, name, f'"{tag}"')
        request.send_response(206 if first else 200)
        if first:
            request.send_header("Content-Range", f"bytes {first}-{len(body) - 1}/{len(body)}")
        if fault != "chunked":
            request.send_header("Content-Length", str(len(body) - first))
        request.send_header("ETag", f'"{tag}"')
        request.send_header("Connection", "close")
        request.end_headers()
        part = body[first:]
        if fault == "cut":
            request.wfile.write(part[: len(part) // 2])
        elif fault == "stall":
            request.wfile.write(part[: len(part) // 2])
            request.wfile.flush()
            self.release.wait(10)
        else:
            request.wfile.write(part)
        request.close_connection = True

    def _first(self, request: BaseHTTPRequestHandler, name: str, tag: str) -> int:
        wanted = request.headers.get("Range", "")
        if not wanted or request.headers.get("If-Range") != tag:
            return 0
        self.ranges.append((name, wanted))
        return int(wanted.removeprefix("bytes=").rstrip("-"))


@pytest.fixture(scope="module")
def shard_bodies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("bodies")
    bodies = {}
    for number in (*range(5), 19):
        path = folder / shard_name(number)
        shards.write_shard(path, [f"document {number} {i} " + hashlib.md5(str(i).encode()).hexdigest() * 20
                                  for i in range(300)])
        bodies[path.name] = path.read_bytes()
    return bodies


@pytest.fixture
def mirror(shard_bodies: dict[str, bytes]) -> Iterator[Mirror]:
    mirror = Mirror(dict(shard_bodies))
    yield mirror
    mirror.release.set()
    mirror.server.shutdown()
    mirror.server.server_close()


@pytest.fixture
def data_context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StageContext:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setattr(download, "TIMEOUT_S", 1.0)
    return StageContext(tmp_path / "b", EventWriter(tmp_path / "events.jsonl", stage="01-dataset"), "dataset")


def order(mirror: Mirror, num_files: int | None = 5, **changed: Any) -> Order:
    return Order(dataclasses.replace(SMALL, **changed), num_files, mirror.url, 3, first_wait_s=0.01)


def bodies_of(base: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in shards.shard_files(base)}


@pytest.mark.parametrize("faults", [
    [], ["500"], ["503", "429", "502"], ["cut"], ["cut", "cut", "500", "cut"], ["lie"], ["chunked"], ["stall"],
    ["cut", "lie"],
])
def test_whatever_the_line_does_the_shards_are_whole(mirror: Mirror, data_context: StageContext, faults: list[str],
                                                     shard_bodies: dict[str, bytes], tmp_path: Path) -> None:
    mirror.faults = {shard_name(1): [*faults], shard_name(3): [*faults]}
    facts = fetch.fetch(order(mirror), data_context)
    assert bodies_of(data_context.base_dir) == {name: body for name, body in shard_bodies.items() if "19" not in name}
    assert facts["Shards"] == 5 and facts["Fetched now"] == 5
    folder = data_context.base_dir / "base_data"
    assert sorted(path.name for path in folder.iterdir() if path.suffix != ".parquet") == [".source", "manifest.json"]
    entry = json.loads((folder / "manifest.json").read_bytes())["files"]["base_data/shard_00001.parquet"]
    body = shard_bodies["shard_00001.parquet"]
    assert entry == {"bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}
    if "cut" in faults:
        assert mirror.ranges, "a cut line is gone on with, not begun again"
    events = [parse_line(line) for line in (tmp_path / "events.jsonl").read_bytes().splitlines()]
    assert events[-1].data["done"] == events[-1].data["total"] == 5


def test_what_is_here_is_not_asked_for_again_and_what_is_torn_is(mirror: Mirror, data_context: StageContext) -> None:
    fetch.fetch(order(mirror), data_context)
    path = data_context.base_dir / "base_data" / shard_name(2)
    path.write_bytes(path.read_bytes()[:-50])
    mirror.asked.clear()
    fetch.fetch(order(mirror), data_context)
    assert mirror.asked == {shard_name(2): 1}


def test_climbmix_brings_its_validation_shard(mirror: Mirror, data_context: StageContext) -> None:
    fetch.fetch(order(mirror, 2, last_is_validation=True), data_context)
    assert [path.name for path in shards.shard_files(data_context.base_dir)] == [shard_name(n) for n in (0, 1, 19)]
    assert shards.val_file(data_context.base_dir).name == shard_name(19)


def test_a_missing_shard_and_an_absent_server_are_said_with_what_to_do(mirror: Mirror,
                                                                       data_context: StageContext) -> None:
    del mirror.files[shard_name(4)]
    with pytest.raises(StageError, match=r"1 of 5 shards of fineweb_edu are missing \(shard_00004.parquet\).*404") as e:
        fetch.fetch(dataclasses.replace(order(mirror), workers=1), data_context)
    assert e.value.code == "network" and all(word in e.value.next for word in ("--base-url", "--source=folder", "4 sh"))
    assert mirror.asked[shard_name(4)] == 1, "what is not there is not asked for again"
    mirror.server.shutdown()
    mirror.server.server_close()
    with pytest.raises(StageError, match="1 of 5 shards"):
        fetch.fetch(order(mirror), data_context)
    assert not (data_context.base_dir / "base_data" / "manifest.json").exists()


def test_no_room_is_said_before_anything_is_fetched(mirror: Mirror, data_context: StageContext) -> None:
    with pytest.raises(StageError, match=r"5 shards need about .* GB") as error:
        fetch.fetch(order(mirror, shard_bytes=10**17), data_context)
    assert error.value.code == "disk-full" and not mirror.asked


def test_a_wish_to_stop_keeps_what_has_arrived(mirror: Mirror, data_context: StageContext) -> None:
    mirror.faults = {shard_name(0): ["stall"]}
    data_context.stop_requested = True
    with pytest.raises(Stopped):
        fetch.fetch(order(mirror), data_context)
    data_context.stop_requested = False
    fetch.fetch(order(mirror), data_context)
    assert len(bodies_of(data_context.base_dir)) == 5


def test_a_file_that_changed_on_the_server_is_begun_anew(mirror: Mirror, data_context: StageContext) -> None:
    """The part is of the old file; its tag tells the server so."""
    mirror.faults = {shard_name(0): ["cut", *["404"]]}
    with pytest.raises(StageError):
        fetch.fetch(dataclasses.replace(order(mirror), workers=1), data_context)
    mirror.files[shard_name(0)] = mirror.files[shard_name(19)]
    fetch.fetch(order(mirror), data_context)
    assert bodies_of(data_context.base_dir)[shard_name(0)] == mirror.files[shard_name(19)]


def test_texts_of_two_sources_never_mix(mirror: Mirror, data_context: StageContext, tmp_path: Path) -> None:
    (tmp_path / "own.txt").write_text("text")
    fetch.fetch(order(mirror), data_context)
    before = bodies_of(data_context.base_dir)
    for other in (Dataset(), Dataset(source="folder", path=str(tmp_path / "own.txt")),
                  Dataset(source="climbmix")):
        with pytest.raises(StageError, match="another source, fineweb_edu") as error:
            dataset.run(other, data_context)
        assert "NANOCHAT_BASE_DIR" in error.value.next
    assert bodies_of(data_context.base_dir) == before


def test_addresses_and_numbers_are_nanochats(monkeypatch: pytest.MonkeyPatch) -> None:
    fineweb, climbmix = SHARD_SOURCES["fineweb_edu"], SHARD_SOURCES["climbmix"]
    assert fineweb.url(None, shard_name(7), "https://hub") == (
        "https://hub/datasets/karpathy/fineweb-edu-100b-shuffle/resolve/main/shard_00007.parquet")
    monkeypatch.setenv(sources.BASE_URL, "http://mirror/x/")
    assert climbmix.url(None, shard_name(0), "https://hub") == "http://mirror/x/shard_00000.parquet"
    assert climbmix.url("http://flag", shard_name(0), "https://hub") == "http://flag/shard_00000.parquet"
    assert fineweb.numbers(240)[-1] == 239 and len(fineweb.numbers(None)) == 1823
    assert climbmix.numbers(2) == [0, 1, 6542] and len(climbmix.numbers(None)) == 6543


def test_a_redirect_to_a_line_without_encryption_is_not_followed(tmp_path: Path,
                                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(str(request.url))
        return httpx.Response(302, headers={"Location": "http://elsewhere.example/x"})

    monkeypatch.setattr(httpx.HTTPTransport, "handle_request", lambda self, request: answer(request))
    with pytest.raises(download.DownloadError, match="without encryption"), download.open_line(print) as line:
        line.fetch("https://data.example/x", tmp_path / "x")
    assert seen == ["https://data.example/x"]


def test_a_server_that_sends_for_ever_does_not_fill_the_disk(mirror: Mirror, tmp_path: Path) -> None:
    mirror.files["big"] = bytes(5000)
    with pytest.raises(download.DownloadError, match="more than 1,000 bytes"), download.open_line(print) as line:
        line.fetch(f"{mirror.url}/big", tmp_path / "big", known=download.Known(1000))
    assert not (tmp_path / "big").exists() and (tmp_path / "big.part").stat().st_size <= 1000
