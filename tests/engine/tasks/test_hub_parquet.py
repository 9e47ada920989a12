"""Downloads from a Hub that cuts, flips, drops and refuses; what is on disk afterwards is the file or nothing."""

from __future__ import annotations

import hashlib
import json
import resource

import pytest

from engine.context import StageError
from engine.tasks.hub_parquet import HubSplit, download, local_files, manifests, table

SPLIT = HubSplit("some/set", "main", "train")
ROWS = [{"question": f"q{i}" * 500, "answer": f"#### {i}"} for i in range(300)]


def silent(_text: str) -> None:
    pass


def test_a_split_is_fetched_verified_and_then_used_without_network(small_hub, tmp_path):
    first, second = (small_hub.add("some/set", "main", "train", ROWS, number) for number in (0, 1))
    small_hub.add("some/set", "main", "test", ROWS[:3])
    small_hub.add("some/set", "other", "train", ROWS[:3])
    assert table(SPLIT, tmp_path, log=silent).num_rows == 600
    asked = len(small_hub.requests)
    assert asked == 3
    [manifest] = manifests(tmp_path)
    assert manifest["commit"] == "c" * 40 and manifest["revision"] == "refs/convert/parquet"
    assert [f["sha256"] for f in manifest["files"].values()] == [hashlib.sha256(d).hexdigest() for d in (first, second)]
    small_hub.server.shutdown()
    assert table(SPLIT, tmp_path).column("answer")[299].as_py() == "#### 299"
    assert len(small_hub.requests) == asked


@pytest.mark.parametrize("fault", [500, 503, 429, "cut", "flip", "drop"])
def test_a_fault_while_fetching_is_overcome(small_hub, tmp_path, fault):
    data = small_hub.add("some/set", "main", "train", ROWS)
    small_hub.faults = [fault, "ok", fault, fault]
    said = []
    [path] = download(SPLIT, tmp_path, log=said.append)
    assert path.read_bytes() == data and any("again in" in line for line in said)
    assert not list(path.parent.glob("*.part*"))


def test_what_was_cut_off_is_gone_on_with(small_hub, tmp_path):
    data = small_hub.add("some/set", "main", "train", ROWS)
    small_hub.faults = ["ok", "cut", 403]
    with pytest.raises(StageError):
        download(SPLIT, tmp_path, log=silent)
    part = SPLIT.folder(tmp_path) / "0000.parquet.part"
    have = part.stat().st_size
    assert 0 < have < len(data) and not local_files(SPLIT, tmp_path)
    assert download(SPLIT, tmp_path, log=silent)[0].read_bytes() == data
    assert small_hub.requests[-1][1] == f"bytes={have}-"


def test_a_wrong_leftover_is_not_trusted(small_hub, tmp_path):
    data = small_hub.add("some/set", "main", "train", ROWS)
    folder = SPLIT.folder(tmp_path)
    folder.mkdir(parents=True)
    for junk in (b"x" * 100, b"x" * len(data), b"x" * (len(data) + 10)):
        (folder / "0000.parquet.part").write_bytes(junk)
        assert download(SPLIT, tmp_path, log=silent)[0].read_bytes() == data
        (folder / "manifest.json").unlink()


def test_without_network_and_cache_it_says_what_is_missing_and_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(StageError, match=r"some/set main/train is not on this machine") as error:
        download(SPLIT, tmp_path, log=silent)
    assert "task_data/some--set" in error.value.next
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(StageError, match="HF_HUB_OFFLINE"):
        download(SPLIT, tmp_path, log=silent)


def test_a_gated_set_names_licence_page_and_token(small_hub, tmp_path, monkeypatch):
    small_hub.add("some/set", "main", "train", ROWS)
    small_hub.gated["some/set"] = "hf_secret"
    gated = HubSplit("some/set", "main", "train", gate="its owners ask you to accept a licence")
    with pytest.raises(StageError, match="accept a licence") as error:
        download(gated, tmp_path, log=silent)
    assert f"{small_hub.url}/datasets/some/set" in error.value.next and "no token" in error.value.next
    assert error.value.code == "gated"
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    said = []
    assert download(gated, tmp_path, log=said.append)
    assert "hf_secret" not in json.dumps(said) + (gated.folder(tmp_path) / "manifest.json").read_text()


def test_a_missing_set_and_a_missing_split_are_no_reason_to_retry(small_hub, tmp_path):
    said = []
    with pytest.raises(StageError, match="not on the Hub"):
        download(SPLIT, tmp_path, log=said.append)
    small_hub.add("some/set", "main", "test", ROWS)
    with pytest.raises(StageError, match="no such parquet files"):
        download(SPLIT, tmp_path, log=said.append)
    assert not any("again in" in line for line in said)


def test_a_damaged_cache_is_named(small_hub, tmp_path):
    data = small_hub.add("some/set", "main", "train", ROWS)
    [path] = download(SPLIT, tmp_path, log=silent)
    path.write_bytes(b"\0" * len(data))
    with pytest.raises(StageError, match="cannot be read"):
        table(SPLIT, tmp_path)
    path.write_bytes(data[:-1])  # a size that is wrong means: not complete, fetch again
    assert table(SPLIT, tmp_path, log=silent).num_rows == 300


def test_a_full_disk_is_said_and_what_has_arrived_is_kept(small_hub, tmp_path):
    data = small_hub.add("some/set", "main", "train", ROWS)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))  # Python ignores the signal, so that write() fails
    try:
        with pytest.raises(StageError, match=r"cannot write below .*some--set") as error:
            download(SPLIT, tmp_path, log=silent)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert error.value.code == "disk" and "free some disk space" in error.value.next
    assert (SPLIT.folder(tmp_path) / "0000.parquet.part").stat().st_size == 2000 < len(data)
    assert download(SPLIT, tmp_path, log=silent)[0].read_bytes() == data
    assert small_hub.requests[-1][1] == "bytes=2000-"
