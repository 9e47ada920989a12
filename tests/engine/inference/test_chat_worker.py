"""The chat worker as its clients meet it: a process, lines in, lines out."""

from __future__ import annotations

import io
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.inference.chat_worker import Worker
from engine.inference.protocol import Channel, Load
from engine.train import manifest

ROOT = Path(__file__).parents[3]
HELLO = [{"role": "user", "content": "hello"}]
WAIT = 60


class Client:
    """Starts a worker and speaks its protocol."""

    def __init__(self) -> None:
        environment = {**os.environ, "LLMCONSOLE_THREADS": "1", "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen([sys.executable, "-m", "engine", "chat", "--json"], cwd=ROOT, env=environment,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.lines: queue.Queue[bytes] = queue.Queue()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.lines.put(line)

    def send(self, **request: Any) -> None:
        self.raw(json.dumps(request).encode() + b"\n")

    def raw(self, data: bytes) -> None:
        assert self.process.stdin
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def receive(self) -> dict[str, Any]:
        return json.loads(self.lines.get(timeout=WAIT))

    def until(self, event: str) -> list[dict[str, Any]]:
        """Events up to and including the first `event`; an error ends the wait as well."""
        events = [self.receive()]
        while events[-1]["event"] not in (event, "error"):
            events.append(self.receive())
        return events

    def load(self, paths: tuple[Path, Path], step: int, **more: Any) -> dict[str, Any]:
        self.send(op="load", path=str(paths[0]), step=step, tokenizer=str(paths[1]), **more)
        return self.receive()

    def end(self) -> tuple[int, str]:
        """Close stdin; exit code and stderr once the process has ended by itself and all it said is in `lines`."""
        assert self.process.stdin and self.process.stderr
        self.process.stdin.close()
        code = self.process.wait(WAIT)
        self.reader.join(WAIT)
        return code, self.process.stderr.read().decode()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.reader.join(WAIT)
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert pipe
            pipe.close()


@pytest.fixture
def start() -> Iterator[Callable[[], Client]]:
    clients: list[Client] = []

    def make() -> Client:
        clients.append(Client())
        assert clients[-1].receive() == {"v": 1, "event": "ready"}
        return clients[-1]

    yield make
    for client in clients:
        client.kill()


SCRIPT, LOOP, WRONG = 1, 2, 3


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, save_chain) -> tuple[Path, Path]:
    """Step 1 says «Q: ⟨2*3 -> 6⟩ ok é», step 2 says «ab» without end, step 3 belongs to another tokenizer."""
    base = tmp_path_factory.mktemp("chat")
    special = {name: 256 + i for i, name in enumerate(
        ("bos", "user_start", "user_end", "assistant_start", "assistant_end", "python_start", "python_end",
         "output_start", "output_end"))}
    script = [*b"Q:", special["python_start"], *b"2*3", special["python_end"], special["output_end"], *" oké".encode(),
              special["assistant_end"]]
    paths: tuple[Path, Path] = save_chain(base, SCRIPT, script)
    save_chain(base, LOOP, b"ab", context=20_000)
    save_chain(base, WRONG, b"x")
    written = manifest.read_manifest(paths[0], WRONG)
    manifest.write(paths[0], WRONG, written["source"], written["files"], "f00" + written["tokenizer_sha256"])
    return paths


@pytest.fixture(scope="module")
def worker(models: tuple[Path, Path]) -> Iterator[Client]:
    """One worker for all tests that leave it as it was: idle, with or without a model."""
    client = Client()
    assert client.receive() == {"v": 1, "event": "ready"}
    yield client
    client.send(op="quit")
    code, errors = client.end()
    client.kill()
    assert code == 0 and "Traceback" not in errors


def test_ready_comes_before_any_tensor_library(start: Callable[[], Client]) -> None:
    client = start()
    maps = Path(f"/proc/{client.process.pid}/maps")
    if maps.exists():
        assert "libtorch" not in maps.read_text()
    client.send(op="quit")
    assert client.end() == (0, "")


def test_load_tells_what_it_loaded(worker: Client, models: tuple[Path, Path]) -> None:
    loaded = worker.load(models, SCRIPT, name="my model")
    assert loaded["event"] == "loaded"
    seconds = loaded["model"].pop("seconds")
    assert 0 < seconds < WAIT
    n_params = 2 * 265 * 266 + 12 * 266**2
    assert loaded["model"] == {"name": "my model", "source": "sft", "step": SCRIPT, "n_params": n_params, "n_layer": 1,
                               "n_embd": 266, "vocab_size": 265, "context": 256, "device": "cpu", "dtype": "float32",
                               "bytes": 4 * n_params, "backend": "native", "backend_reason": ""}
    assert worker.load(models, SCRIPT)["model"]["name"] == f"sft/d1@{SCRIPT}"


def test_an_answer_with_a_tool_block(worker: Client, models: tuple[Path, Path]) -> None:
    worker.load(models, SCRIPT)
    worker.send(op="generate", id="g1", messages=HELLO, temperature=0, max_tokens=60)
    first, *said, done = worker.until("done")
    assert first == {"event": "begin", "id": "g1", "prompt_tokens": 9, "dropped_turns": 0, "context": 256}
    assert all(event["id"] == "g1" for event in [*said, done])
    assert "".join(event["text"] for event in said if event["event"] == "token") == "Q: oké"
    assert [(e["phase"], e["text"]) for e in said if e["event"] == "tool"] == [("input", "2*3"), ("output", "6")]
    stats = done["stats"]
    assert done["finish"] == "stop"
    assert (stats["prompt_tokens"], stats["completion_tokens"], stats["context"]) == (9, 15, 256)
    assert stats["context_used"] == 24 and stats["dropped_turns"] == 0
    assert 0 < stats["ttft_ms"] <= 1000 * stats["seconds"] and stats["tok_per_s"] > 0
    times = [ms for event in said for ms in event["ms"]]
    assert times[0] == pytest.approx(stats["ttft_ms"], abs=0.01) and len(times) == 16, "told while it is written"


@pytest.mark.parametrize(("max_tokens", "finish", "count"), [(4, "length", 4), (100_000, "context", 247)])
def test_an_answer_that_is_cut(worker: Client, models: tuple[Path, Path], tmp_path: Path, save_chain, max_tokens: int,
                               finish: str, count: int) -> None:
    worker.load(save_chain(tmp_path, 1, b"ab"), 1)
    worker.send(op="generate", id="g", messages=HELLO, temperature=0, max_tokens=max_tokens)
    done = worker.until("done")[-1]
    assert (done["finish"], done["stats"]["completion_tokens"]) == (finish, count)


def test_stop_takes_effect_at_once_and_answers_wait_in_line(worker: Client, models: tuple[Path, Path]) -> None:
    worker.load(models, LOOP)
    for name in ("one", "two", "three"):
        worker.send(op="generate", id=name, messages=HELLO, max_tokens=19_000)
    assert worker.receive()["event"] == "begin"
    one = worker.receive()
    assert (one["event"], one["id"], one["text"], len(one["ms"])) == ("token", "one", "a", 1)
    worker.send(op="stop", id="two")
    worker.send(op="stop", id="nobody")
    begin = time.monotonic()
    worker.send(op="stop", id="one")
    done = worker.until("done")[-1]
    assert (done["id"], done["finish"]) == ("one", "cancelled") and time.monotonic() - begin < 2
    assert done["stats"]["completion_tokens"] < 19_000
    begun, done = worker.until("done")
    assert begun["event"] == "begin"
    assert (done["id"], done["finish"], done["stats"]["completion_tokens"]) == ("two", "cancelled", 0)
    assert worker.receive()["id"] == "three"
    worker.send(op="generate", id="three", messages=HELLO)
    refused = worker.until("error")[-1]
    assert (refused["code"], refused["id"]) == ("bad_request", "three")
    worker.send(op="stop")
    assert worker.until("done")[-1]["finish"] == "cancelled"


@pytest.mark.parametrize(("line", "code"), [
    (b"{]\n", "bad_request"), (b"\xff\xfe\n", "bad_request"), (b'"hi"\n', "bad_request"),
    (b'{"op":"dance"}\n', "bad_request"),
    (b'{"op":"generate","id":"g","messages":[]}\n', "messages"),
    (b'{"op":"generate","id":"g","messages":[{"role":"assistant","content":"x"}]}\n', "messages"),
    (json.dumps({"op": "generate", "id": "g", "messages": [{"role": "user", "content": "x" * 999}]}).encode() + b"\n",
     "context"),
])
def test_a_bad_line_is_answered_and_the_next_one_served(worker: Client, models: tuple[Path, Path], line: bytes,
                                                        code: str) -> None:
    worker.load(models, SCRIPT)
    worker.raw(b"\n")
    worker.raw(line)
    error = worker.receive()
    assert (error["event"], error["code"]) == ("error", code) and error["message"] and error["next"]
    worker.send(op="generate", id="g", messages=HELLO, temperature=0)
    assert worker.until("done")[-1]["finish"] == "stop"


def test_unload_and_what_cannot_be_loaded(worker: Client, models: tuple[Path, Path], tmp_path: Path,
                                          save_chain) -> None:
    folder, tokenizer = models
    worker.load(models, SCRIPT)
    worker.send(op="unload")
    assert worker.receive() == {"event": "unloaded"}
    worker.send(op="generate", id="g", messages=HELLO)
    assert worker.receive()["code"] == "no_model"
    broken, _ = save_chain(tmp_path, 1, b"x")
    with open(broken / "model_000001.pt", "r+b") as f:
        f.truncate(5000)
    foreign, _ = save_chain(tmp_path / "foreign", 1, b"x")
    (foreign / "manifest_000001.json").unlink()
    (foreign / "model_000001.pt").write_bytes(b"")
    other = tmp_path / "other"
    other.mkdir()
    (other / "tokenizer.pkl").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    for paths, step, code, says in (
        ((tmp_path / "nowhere", tokenizer), 1, "checkpoint", "nowhere"),
        ((folder, tokenizer), 99, "checkpoint", "000099"),
        ((broken, tokenizer), 1, "checkpoint", "does not match its manifest"),
        ((foreign, tokenizer), 1, "checkpoint", "cannot be read"),
        ((folder, tmp_path), SCRIPT, "tokenizer", "no tokenizer"),
        ((folder, other), SCRIPT, "tokenizer", "not a nanochat tokenizer"),
        ((folder, tokenizer), WRONG, "tokenizer", "another tokenizer"),
    ):
        error = worker.load(paths, step)
        assert (error["event"], error["code"]) == ("error", code), error
        assert says in error["message"] and error["next"] and "Traceback" not in json.dumps(error)


def test_unloading_lets_the_model_go(models: tuple[Path, Path]) -> None:
    idle = Worker(Channel(io.BytesIO()))
    idle._load(Load(models[0], SCRIPT, models[1], "cpu", "float32", None))
    assert idle._chat is not None
    model = weakref.ref(idle._chat.model)
    idle._unload()
    assert model() is None


def test_a_tokenizer_of_another_size_is_refused(worker: Client, tmp_path: Path, save_chain, byte_tokenizer) -> None:
    from engine.tokenizer.bpe import Tokenizer
    from engine.tokenizer.store import Vocabulary

    folder, tokenizer = save_chain(tmp_path, 1, b"x")
    (folder / "manifest_000001.json").unlink()  # as nanochat saves: nothing tells which tokenizer it was
    bytes_only = byte_tokenizer(257).vocabulary
    Tokenizer(Vocabulary(bytes_only.pattern, {**bytes_only.ranks, b"ab": 256}, bytes_only.specials)).save(tokenizer)
    error = worker.load((folder, tokenizer), 1)
    assert error["code"] == "tokenizer" and "265 tokens" in error["message"] and "266" in error["message"]


@pytest.mark.parametrize("busy", [False, True])
def test_the_end_of_stdin_ends_it(start: Callable[[], Client], models: tuple[Path, Path], busy: bool) -> None:
    client = start()
    if busy:
        assert client.load(models, LOOP)["event"] == "loaded"
        client.send(op="generate", id="g", messages=HELLO, max_tokens=19_000)
        client.receive()
        client.process.stdin.close()
        assert client.until("done")[-1]["finish"] == "cancelled"
    else:
        client.process.send_signal(signal.SIGINT)  # a ctrl-c in the terminal is not for the worker
        client.raw(b'{"op":"torn')
    code, errors = client.end()
    assert code == 0 and "Traceback" not in errors


def test_it_ends_when_nobody_listens() -> None:
    process = subprocess.Popen([sys.executable, "-m", "engine", "chat"], cwd=ROOT, stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdin and process.stdout and process.stderr
    assert b"ready" in process.stdout.readline()
    process.stdout.close()
    process.stdin.write(b'{"op":"unload"}\n')
    process.stdin.flush()
    assert process.wait(WAIT) == 0
    assert b"Traceback" not in process.stderr.read()
    process.stdin.close()
    process.stderr.close()


def test_prints_of_libraries_do_not_reach_the_stream() -> None:
    code = ("import os, sys\nfrom engine.inference import chat_worker as w\n"
            "class Loud(w.Worker):\n"
            "    def _obey(self, request, inbox):\n"
            "        print('stray'); sys.stdout.flush(); os.system('echo child'); os.write(1, b'raw')\n"
            "        raise RuntimeError('on purpose')\n"
            "w.Worker = Loud\nsys.exit(w.main(['--json']))\n")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, input=b'{"op":"unload"}\n', capture_output=True,
                          check=True)
    ready, error = map(json.loads, done.stdout.splitlines())
    assert ready["event"] == "ready" and error["code"] == "internal" and "on purpose" in error["message"]
    assert all(word in done.stderr for word in (b"stray", b"child", b"raw", b"Traceback"))


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc to read a process's CPU time")
def test_idle_costs_no_cpu(worker: Client) -> None:
    def ticks() -> list[str]:
        return Path(f"/proc/{worker.process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]

    time.sleep(0.1)
    before = ticks()
    time.sleep(0.4)
    assert ticks() == before


def test_it_counts_tokens(worker: Client, models: tuple[Path, Path]) -> None:
    worker.send(op="unload")
    worker.send(op="tokens", text="hé")
    assert worker.receive()["event"] == "unloaded" and worker.receive()["code"] == "no_model"
    worker.load(models, SCRIPT)
    worker.send(op="tokens", text="hé")
    assert worker.receive() == {"event": "tokens", "count": 3, "characters": 2, "context": 256}


def test_it_tells_which_models_there_are(save_chain: Callable[..., tuple[Path, Path]], tmp_path: Path,
                                         monkeypatch: pytest.MonkeyPatch) -> None:
    folder, tokenizer = save_chain(tmp_path, 4, b"x")
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(tmp_path))
    out = io.BytesIO()
    Worker(Channel(out)).serve(io.BytesIO(b'{"op":"models"}\n'))
    told = json.loads(out.getvalue().splitlines()[1])
    [row], place = told["models"], told["place"]
    assert place["kind"] in ("cpu", "cuda", "mps") and (place["free"] is None or place["free"] > 1e6)
    assert row["config"]["sequence_len"] == 256 and "window_pattern" not in row["config"]
    assert (row["ref"], row["path"], row["tokenizer"]) == ("sft/d1@4", str(folder), str(tokenizer))
    assert row["problem"] is None


def test_a_model_may_be_named_at_the_start(save_chain: Callable[..., tuple[Path, Path]], tmp_path: Path) -> None:
    save_chain(tmp_path, 4, b"x")
    environment = {**os.environ, "NANOCHAT_BASE_DIR": str(tmp_path), "OMP_NUM_THREADS": "1"}

    def run(*flags: str) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-m", "engine", "chat", "--json", *flags]
        return subprocess.run(words, cwd=ROOT, env=environment, input="", capture_output=True, text=True, timeout=WAIT)

    done = run("--source=sft", "--backend=torch")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [e["event"] for e in events] == ["ready", "loaded"] and events[1]["model"]["name"] == "sft/d1@4"
    for flags, said in (("--source=rl",), "no usable model of source rl"), (("--sorce=sft",), "did you mean source"):
        done = run(*flags)
        assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr
