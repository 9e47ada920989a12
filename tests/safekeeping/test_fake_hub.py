"""The Hub on loopback, held to account by clients that nobody here wrote."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from checkpoint_world import tensor_file, write
from fake_hub import FakeHub

from remote.backup.hub_wire import HubWire
from remote.backup.layouts import checkpoints
from remote.backup.sources import HubSource

CLIENT = """
import sys
from huggingface_hub import HfApi, hf_hub_download, snapshot_download, __version__
api, folder, back = HfApi(), sys.argv[1], sys.argv[2]
assert api.whoami()["name"] == "me"
api.create_repo("me/theirs", private=True, exist_ok=True)
first = api.upload_folder(repo_id="me/theirs", folder_path=folder, path_in_repo="sft/d20")
api.upload_file(repo_id="me/theirs", path_or_fileobj=b"tokens", path_in_repo="tokenizer/latest/tokenizer.pkl")
assert api.repo_info("me/theirs").private is True
assert [f.rfilename for f in api.list_repo_tree("me/theirs", recursive=True)].count("sft/d20/model_000650.pt") == 1
snapshot_download("me/theirs", local_dir=back)
print(__version__, hf_hub_download("me/theirs", "sft/d20/meta_000650.json", revision=first.oid))
"""


def pythons() -> list[str]:
    """This one, and on demand one with an old client: LLMCONSOLE_OLD_HUB_PYTHON names its interpreter."""
    old = os.environ.get("LLMCONSOLE_OLD_HUB_PYTHON")
    return [sys.executable, *([old] if old else [])]


@pytest.mark.parametrize("python", pythons())
@pytest.mark.parametrize("multipart", [None, 2000])
def test_the_real_client_uploads_and_downloads(fake_hub: FakeHub, tmp_path: Path, python: str,
                                               multipart: int | None) -> None:
    fake_hub.multipart = multipart
    origin = {"model_000650.pt": tensor_file(1, 9000), "meta_000650.json": b'{"model_config": {"n_layer": 20}}'}
    for name, data in origin.items():
        write(tmp_path / "theirs" / name, data)
    done = subprocess.run([python, "-c", CLIENT, str(tmp_path / "theirs"), str(tmp_path / "back")],
                          capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr[-2000:]
    assert {name: (tmp_path / "back/sft/d20" / name).read_bytes() for name in origin} == origin
    (found,) = checkpoints(HubSource(HubWire("me/theirs", fake_hub.token)))
    assert (found.stage, found.tag, found.step, found.has_tokenizer) == ("sft", "d20", 650, True)
