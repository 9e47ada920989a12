"""Which secrets the stages of a run need, and how they come to where it runs: only those, and never written down.

A secret of this machine travels through the launch's standard input into the environment of that one process. One that
RunPod keeps (`rent.secrets`) never passes through here: the pod has it in the environment of its first process, from
where the run reads it. What is put together here is shown by no verb.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from console.errors import UsageProblem

# Gives the run what the provider put into the environment of the container's first process; only names are in argv.
_TAKE = ('names=$1; shift; for name in $names; do value=$(tr "\\0" "\\n" < /proc/1/environ 2>/dev/null | '
         'sed -n "s/^$name=//p" | head -n 1); [ -z "$value" ] || export "$name=$value"; done; exec "$@"')
_REFERENCE = re.compile(r"\s*([A-Z][A-Z0-9_]*)\s*=\s*([A-Za-z_][A-Za-z0-9_.\-/]{0,190})\s*")
_NO_MIRROR = ("", "dummy")  # values of --run that ask for no Weights & Biases


def needed(description: Mapping[str, Any], env: Mapping[str, str]) -> list[str]:
    """Names of the secrets that this run's stages use; `env` is what else its machine is given."""
    stages = [(str(row.get("stage")), dict(row.get("args") or {})) for row in description.get("stages") or ()]
    found = []
    if any(stage == "backup" and str(args.get("to", "")).startswith("hub:") for stage, args in stages):
        found.append("HF_TOKEN")
    if env.get("WANDB_RUN") or any(str(args.get("run") or "") not in _NO_MIRROR for _, args in stages):
        found.append("WANDB_API_KEY")
    return found


def values(names: Sequence[str], home: Path) -> dict[str, str]:
    """Those of the named secrets that this machine has, revealed; a stage says itself what it misses."""
    from console.credentials import find

    held = {name: find(name, home) for name in names}
    return {name: secret.reveal() for name, secret in held.items() if secret is not None}


def references(text: str) -> dict[str, str]:
    """`HF_TOKEN=my_token,WANDB_API_KEY=wandb` as {variable: name of a RunPod secret}. Raises UsageProblem."""
    found = {}
    for part in filter(str.strip, text.split(",")):
        match = _REFERENCE.fullmatch(part)
        if match is None:
            raise UsageProblem("rent.secrets wants VARIABLE=name of a RunPod secret, with commas between",
                               "write the names, never the values: HF_TOKEN=my_hf_token")
        found[match[1]] = match[2]
    return found


def as_environment(found: Mapping[str, str]) -> dict[str, str]:
    """What RunPod replaces when the pod boots; no secret itself."""
    return {variable: f"{{{{ RUNPOD_SECRET_{name} }}}}" for variable, name in found.items()}


def taking(names: Sequence[str], argv: Sequence[str]) -> list[str]:
    """The command with these variables taken from the container's first process."""
    return ["/bin/sh", "-c", _TAKE, "sh", " ".join(names), *argv] if names else list(argv)
