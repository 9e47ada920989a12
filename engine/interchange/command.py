"""`python -m engine export` and `import`: a checkpoint to transformers' format and back, one JSON line on stdout.

What goes wrong is one JSON line too, with the words for a person; the exit code is 1 then. Imports torch when it runs.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


def export_main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m engine export", allow_abbrev=False)
    parser.add_argument("--base", type=Path, required=True, help="a base directory")
    parser.add_argument("--source", required=True, help="base, mid, sft or rl")
    parser.add_argument("--tag", help="such as d20; the deepest without it")
    parser.add_argument("--step", type=int, help="the newest without it")
    parser.add_argument("--out", type=Path, required=True, help="a folder that does not exist yet")
    asked = parser.parse_args(list(argv))

    def work() -> dict[str, Any]:
        from engine.interchange.exporting import export

        done = export(asked.base, asked.source, asked.tag, asked.step, asked.out.absolute())
        return {"folder": str(done.folder), "tensors": done.tensors, "bytes": done.bytes}

    return _tell(work)


def import_main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m engine import", allow_abbrev=False)
    parser.add_argument("--from", dest="origin", type=Path, required=True, help="a folder in transformers' format")
    parser.add_argument("--base", type=Path, required=True, help="the base directory that it goes below")
    parser.add_argument("--source", help="base, mid, sft or rl; default: what it was")
    parser.add_argument("--tag", help="default: what it was, or its depth")
    asked = parser.parse_args(list(argv))

    def work() -> dict[str, Any]:
        from engine.interchange.exporting import import_folder

        done = import_folder(asked.origin.absolute(), asked.base.absolute(), asked.source, asked.tag)
        return {"folder": str(done.folder), "source": done.source, "step": done.step}

    return _tell(work)


def _tell(work: Callable[[], dict[str, Any]]) -> int:
    from safetensors import SafetensorError

    from engine.config import ConfigError
    from engine.context import StageError

    try:
        reply, code = work(), 0
    except StageError as error:
        reply, code = {"error": str(error), "next": error.next}, 1
    except (ConfigError, SafetensorError, OSError, ValueError) as error:  # a full disk is a SafetensorError, too
        reply, code = {"error": str(error), "next": ""}, 1
    print(json.dumps(reply), flush=True)
    return code
