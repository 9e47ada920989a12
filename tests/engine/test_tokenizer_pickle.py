"""tokenizer.pkl: the real ones are read, written byte for byte, and nothing hostile is executed or believed."""

from __future__ import annotations

import ast
import io
import os
import pickle
import pickletools
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.tokenizer import pickled, store
from engine.tokenizer.store import SPECIAL_TOKENS, SPLIT_PATTERN, TokenizerError, Vocabulary

GENUINE = (Path(__file__).parents[1] / "fixtures" / "tokenizer" / "tokenizer.pkl").read_bytes()
STATE = pickled.read_encoding(GENUINE)


def make_ranks(n: int, *extra: bytes) -> dict[bytes, int]:
    singles = [bytes([i]) for i in range(256)]
    longer = [b"t" + i.to_bytes(3, "big") for i in range(n - 256 - len(extra))]
    return {token: i for i, token in enumerate([*singles, *longer, *extra])}


def make_vocabulary(n: int, *extra: bytes) -> Vocabulary:
    ranks = make_ranks(n, *extra)
    return Vocabulary(SPLIT_PATTERN, ranks, {name: n + i for i, name in enumerate(SPECIAL_TOKENS)})


def as_encoding(v: Vocabulary) -> tiktoken.Encoding:
    return tiktoken.Encoding("rustbpe", pat_str=v.pattern, mergeable_ranks=v.ranks, special_tokens=v.specials)


def read(folder: Path, data: bytes) -> Vocabulary:
    (folder / "tokenizer.pkl").write_bytes(data)
    return store.read_vocabulary(folder)


def dump(state: Any, protocol: int = 4) -> bytes:
    """What pickle makes of an Encoding object with any state at all."""
    encoding = tiktoken.Encoding.__new__(tiktoken.Encoding)
    encoding.__dict__["state"] = state

    class Pickler(pickle._Pickler):  # the Python one: its memo and framing differ from C's
        def reducer_override(self, value: Any) -> Any:
            if value is encoding:
                return __import__("copyreg").__newobj__, (tiktoken.Encoding,), state
            return NotImplemented

    out = io.BytesIO()
    Pickler(out, protocol).dump(encoding)
    return out.getvalue()


# ---- genuine files


def test_reads_what_nanochat_wrote(tmp_path: Path) -> None:
    vocabulary = read(tmp_path, GENUINE)
    assert len(vocabulary) == 1024
    assert list(vocabulary.specials) == list(SPECIAL_TOKENS)
    assert vocabulary.specials["<|bos|>"] == 1015
    assert vocabulary.ranks[b" Stu"] == 1006
    assert vocabulary.pattern == SPLIT_PATTERN


def test_writes_what_nanochat_wrote(tmp_path: Path) -> None:
    path = store.write_vocabulary(tmp_path, read(tmp_path, GENUINE))
    assert path.read_bytes() == GENUINE


@pytest.mark.parametrize("n", [256, 257, 999, 1000, 1001, 2000, 9000, 32_759, 65_600])
def test_written_bytes_are_those_of_pickle(tmp_path: Path, n: int) -> None:
    vocabulary = make_vocabulary(n) if n < 300 else make_vocabulary(n, b" " * 300, b"\xff" * 255)
    data = store.write_vocabulary(tmp_path, vocabulary).read_bytes()
    assert data == pickle.dumps(as_encoding(vocabulary), protocol=4)
    assert store.read_vocabulary(tmp_path) == vocabulary
    loaded = pickle.loads(data)
    assert loaded.encode_ordinary("t <|bos|>") == as_encoding(vocabulary).encode_ordinary("t <|bos|>")


@pytest.mark.parametrize("change", [
    lambda data: pickletools.optimize(data),
    lambda data: pickle.dumps(pickle.loads(data), protocol=5),
    lambda data: dump(STATE),
    lambda data: dump(STATE, 5),
], ids=["optimized", "protocol 5", "python pickler", "python pickler 5"])
def test_reads_the_same_from_every_honest_writer(tmp_path: Path, change: Callable[[bytes], bytes]) -> None:
    assert read(tmp_path, change(GENUINE)) == read(tmp_path, GENUINE)


def test_reads_a_usual_size_fast(tmp_path: Path) -> None:
    store.write_vocabulary(tmp_path, make_vocabulary(32_759))
    times = []
    for _ in range(5):
        started = time.perf_counter()
        store.read_vocabulary(tmp_path)
        times.append(time.perf_counter() - started)
    assert min(times) < 0.2  # about 0.03 on an idle machine


def test_hash_depends_on_every_part() -> None:
    v = make_vocabulary(300)
    swapped = dict(v.ranks)
    swapped[b"a"], swapped[b"b"] = swapped[b"b"], swapped[b"a"]
    others = [Vocabulary(store.KNOWN_PATTERNS[1], v.ranks, v.specials), Vocabulary(v.pattern, swapped, v.specials),
              make_vocabulary(301), Vocabulary(v.pattern, v.ranks, {**v.specials, "<|x|>": 309})]
    hashes = {v.sha256(), *(other.sha256() for other in others)}
    assert len(hashes) == 5
    shuffled = Vocabulary(v.pattern, dict(reversed(v.ranks.items())), v.specials)
    assert shuffled.sha256() == v.sha256()


# ---- hostile files

CALL = "open(r'{}', 'w')"
HEAD = b"\x80\x04"
CLASS = b"\x8c\x0dtiktoken.core\x94\x8c\x08Encoding\x94\x93\x94"
OBJECT = HEAD + CLASS + b")\x81\x94"
END = b"b."


class Gadget:
    """Pickles as a call."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def text(value: str) -> bytes:
    raw = value.encode()
    return b"\x8c" + bytes([len(raw)]) + raw


def state_with(**parts: Any) -> dict[str, Any]:
    return {**STATE, **parts}


def without(table: dict[Any, Any], key: Any) -> dict[Any, Any]:
    return {k: v for k, v in table.items() if k != key}


RANKS, SPECIALS = STATE["mergeable_ranks"], STATE["special_tokens"]
STATE_BYTES = GENUINE[GENUINE.index(b"}\x94(\x8c\x04name") : -2]  # the dict, as it stands between NEWOBJ and BUILD
SHUFFLED = dict(zip(RANKS, [*range(1, len(RANKS)), 0], strict=True))


def gadgets(marker: str) -> dict[str, bytes]:
    calls = {
        "system": Gadget(os.system, f"touch {marker}"), "eval": Gadget(eval, CALL.format(marker)),
        "exec": Gadget(exec, CALL.format(marker)), "open": Gadget(open, marker, "w"),
        "popen": Gadget(subprocess.Popen, ["touch", marker]), "import": Gadget(__import__, "os"),
        "registry": Gadget(tiktoken.get_encoding, "gpt2"),
    }
    return {f"{name} protocol {p}": pickle.dumps(call, p) for name, call in calls.items() for p in range(6)}


def by_hand(marker: str) -> dict[str, bytes]:
    shell = text(f"touch {marker}")
    return {
        "reduce": HEAD + text("posix") + text("system") + b"\x93" + shell + b"\x85R.",
        "reduce on the encoding": HEAD + CLASS + STATE_BYTES + b"\x85R.",
        "global": b"\x80\x02cposix\nsystem\nX" + struct.pack("<I", len(shell) - 2) + shell[2:] + b"\x85R.",
        "inst": b"(S'touch " + marker.encode() + b"'\niposix\nsystem\n.",
        "obj": HEAD + b"(" + text("posix") + text("system") + b"\x93" + shell + b"o.",
        "newobj of another class": HEAD + text("subprocess") + text("Popen") + b"\x93)\x81" + STATE_BYTES + END,
        "dotted name": HEAD + text("tiktoken.core") + text("Encoding.__init__") + b"\x93)\x81" + STATE_BYTES + END,
        "dotted module": HEAD + text("tiktoken") + text("core.Encoding") + b"\x93)\x81" + STATE_BYTES + END,
        "newobj with arguments": HEAD + CLASS + shell + b"\x85\x81" + STATE_BYTES + END,
        "newobj_ex": HEAD + CLASS + b")}\x92" + STATE_BYTES + END,
        "ext1": HEAD + b"\x82\x01)\x81" + STATE_BYTES + END, "ext2": HEAD + b"\x83\x01\x00)\x81" + STATE_BYTES + END,
        "ext4": HEAD + b"\x84\x01\x00\x00\x00)\x81" + STATE_BYTES + END,
        "persid": HEAD + b"Pfile\n.", "binpersid": HEAD + shell + b"Q.",
        "next buffer": b"\x80\x05\x97.", "read-only buffer": b"\x80\x05\x97\x98.",
        "bytearray": b"\x80\x05\x96" + struct.pack("<Q", 1 << 60) + b".",
        "text of 2^62 bytes": HEAD + b"\x8d" + struct.pack("<Q", 1 << 62) + b".",
        "bytes of 4 GiB": HEAD + b"B\xff\xff\xff\xff.", "long4": HEAD + b"\x8b\xff\xff\xff\x7f.",
        "put at 2^32": HEAD + b"}r\xff\xff\xff\xff.", "put": b"\x80\x04}p4000000000\n.",
        "memo entry that is not there": HEAD + b"h\x07.", "memo entry of the class": HEAD + CLASS + b"h\x02)\x81" + END,
        "frame longer than the file": HEAD + b"\x95" + struct.pack("<Q", 1 << 40) + GENUINE[11:],
        "frame cut": HEAD + b"\x95\x00\x00", "second pickle": GENUINE + GENUINE, "trailing byte": GENUINE + b"\x00",
        "no stop": GENUINE[:-1], "no build": OBJECT + STATE_BYTES + b"0.", "state only": HEAD + STATE_BYTES + b".",
        "object without state": OBJECT + b".", "two builds": OBJECT + STATE_BYTES + b"b}b.",
        "build on the class": HEAD + CLASS + STATE_BYTES + END, "build on a dict": HEAD + b"}" + STATE_BYTES + END,
        "items without mark": HEAD + b"}" + text("a") + b"K\x01u.", "items into nothing": HEAD + b"(K\x01K\x02u.",
        "odd items": HEAD + b"}(K\x01u.", "dict as key": HEAD + b"}(}K\x01u.", "pop": HEAD + b"}0.",
        "dup": HEAD + b"}2.", "pop mark": HEAD + b"(1.", "stack of marks": HEAD + b"(" * 300_000 + b".",
        "dicts": HEAD + b"}" * 300_000 + b".",
        "memo flood": HEAD + b"K\x01" + b"\x94" * (1 << 21) + b".", "not utf-8": HEAD + b"\x8c\x02\xff\xfe.",
        "nothing": b"", "one byte": b"\x80", "zeros": bytes(100), "newline": b"\n", "a zip": b"PK\x03\x04" + bytes(50),
        "too large": GENUINE + bytes(pickled.MAX_BYTES), "bool": OBJECT + b"}(" + text("name") + b"\x88u" + END,
        "none": OBJECT + b"N" + END, "float": OBJECT + b"}(" + text("name") + b"G" + bytes(8) + b"u" + END,
        "a key twice": OBJECT + b"}(" + text("name") + text("a") + text("name") + text("b") + b"u" + END,
    }


def wrong_states() -> dict[str, Any]:
    return {
        "name of a registered encoding": "gpt2", "list": [1], "empty": {}, "slots": (None, STATE),
        "evil pattern": state_with(pat_str=r"(a+)+$"), "pattern as a number": state_with(pat_str=3),
        "pattern with one letter more": state_with(pat_str=SPLIT_PATTERN + "|"), "one part more": state_with(extra="x"),
        **{f"without {key}": without(STATE, key) for key in STATE},
        "gap": state_with(mergeable_ranks=without(RANKS, b" Stu")), "no tokens": state_with(mergeable_ranks={}),
        "byte missing": state_with(mergeable_ranks={**without(RANKS, b"\x00"), b"zzzzz": 0}),
        "rank twice": state_with(mergeable_ranks={**RANKS, b" Stu": 5}),
        "negative rank": state_with(mergeable_ranks={**RANKS, b" Stu": -1}),
        "huge rank": state_with(mergeable_ranks={**RANKS, b" Stu": 2**31 - 1}),
        "text as token": state_with(mergeable_ranks={**without(RANKS, b" Stu"), " Stu": 1006}),
        "text as rank": state_with(mergeable_ranks={**RANKS, b" Stu": "1006"}),
        "empty token": state_with(mergeable_ranks={**without(RANKS, b" Stu"), b"": 1006}),
        "tokens as text": state_with(mergeable_ranks="x"), "specials as text": state_with(special_tokens="x"),
        "no specials": state_with(special_tokens={}),
        "special below": state_with(special_tokens={**SPECIALS, "<|bos|>": 3}),
        "special missing": state_with(special_tokens=without(SPECIALS, "<|output_end|>")),
        "special without a name": state_with(special_tokens={**SPECIALS, "": 1024}),
        "special as bytes": state_with(special_tokens={**SPECIALS, b"x": 1024}),
        "nested": state_with(name={"a": {"b": 1}}),
    }


def test_refuses_every_attack_and_runs_none(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    attacks = {**gadgets(str(marker)), **by_hand(str(marker)), **{k: dump(v) for k, v in wrong_states().items()}}
    assert len(attacks) > 100
    accepted = []
    for name, data in attacks.items():
        try:
            read(tmp_path, data)
            accepted.append(name)
        except TokenizerError as error:
            assert "tokenizer.pkl is not a nanochat tokenizer: " in str(error), name
    assert accepted == []
    assert not marker.exists()


def test_the_attacks_are_real(tmp_path: Path) -> None:
    """Python's own loader runs them, and what they are cut from is accepted: nothing is refused for a typo here."""
    marker = tmp_path / "ran"
    assert read(tmp_path, OBJECT + STATE_BYTES + END) == read(tmp_path, GENUINE)
    pickle.loads(by_hand(str(marker))["reduce"])
    assert marker.exists()


def test_ranks_in_any_order_are_a_tokenizer(tmp_path: Path) -> None:
    """What is checked is that it is a vocabulary, not that it is a good one."""
    assert read(tmp_path, dump(state_with(mergeable_ranks=SHUFFLED))).ranks == SHUFFLED


def test_refuses_every_truncation() -> None:
    for length in [*range(300), *range(300, len(GENUINE), 17), *range(len(GENUINE) - 20, len(GENUINE))]:
        with pytest.raises(pickled.PickleError):
            pickled.read_encoding(GENUINE[:length])


@settings(max_examples=400, deadline=None)
@given(changes=st.lists(st.tuples(st.integers(0, len(GENUINE) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_damage_gives_an_error_or_a_vocabulary(changes: list[tuple[int, int]]) -> None:
    data = bytearray(GENUINE)
    for place, value in changes:
        data[place] = value
    try:
        v = store.check_state(pickled.read_encoding(bytes(data)))
    except (TokenizerError, pickled.PickleError):
        return
    assert sorted(v.ranks.values()) == list(range(len(v.ranks)))
    assert all(bytes([i]) in v.ranks for i in range(256))


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=200))
def test_noise_gives_an_error(data: bytes) -> None:
    for stream in (data, HEAD + data, OBJECT + data, HEAD + data + STATE_BYTES + END):
        with pytest.raises(pickled.PickleError):
            pickled.read_encoding(stream)


def test_what_is_no_file_is_not_opened(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        store.read_vocabulary(tmp_path)
    os.mkfifo(tmp_path / "tokenizer.pkl")
    with pytest.raises(FileNotFoundError):
        store.read_vocabulary(tmp_path)


def test_writes_only_what_it_would_read(tmp_path: Path) -> None:
    v = make_vocabulary(300)
    with pytest.raises(TokenizerError, match="pattern"):
        store.write_vocabulary(tmp_path, Vocabulary(r"\w+", v.ranks, v.specials))
    assert not (tmp_path / "tokenizer.pkl").exists()


def test_no_pickle_and_no_torch_behind_a_tokenizer(fixtures: Path) -> None:
    for module in (pickled, store):
        imported = {name for node in ast.walk(ast.parse(Path(module.__file__).read_text()))
                    for name in ([a.name for a in node.names] if isinstance(node, ast.Import) else
                                 [node.module] if isinstance(node, ast.ImportFrom) else [])}
        assert not imported & {"pickle", "_pickle", "copyreg", "marshal"}
    code = ("import sys; from engine.tokenizer.bpe import Tokenizer; import engine.tokenizer.chat_format;"
            f"Tokenizer.from_directory({str(fixtures / 'tokenizer')!r}).encode('a');"
            "assert 'torch' not in sys.modules and 'rustbpe' not in sys.modules")
    subprocess.run([sys.executable, "-c", code], check=True)
