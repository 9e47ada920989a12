"""Private keys: one made for a run, and those that a person already has. A key file that others may read is refused.

Keys never leave this machine; what goes to a pod is the public line. Knows nothing of connections.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from remote.errors import LoginRefused

if TYPE_CHECKING:
    import paramiko

USUAL_NAMES = ("id_ed25519", "id_ecdsa", "id_rsa")


def make_key(path: Path, comment: str = "llmconsole") -> str:
    """The public line of the ed25519 key at `path`, which is made (0600, `.pub` beside it) when it is not there."""
    if not path.exists():
        from cryptography.hazmat.primitives import serialization as form
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        key = Ed25519PrivateKey.generate()
        private = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.OpenSSH, form.NoEncryption())
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as f:
            f.write(private)
            f.flush()
            os.fsync(f.fileno())
        os.replace(temporary, path)
    line = public_line(path, comment)
    path.with_name(path.name + ".pub").write_text(line + "\n", encoding="ascii")
    return line


def public_line(path: Path, comment: str = "llmconsole") -> str:
    key = load_key(path)
    return f"{key.get_name()} {key.get_base64()} {comment}"


def load_key(path: Path) -> paramiko.PKey:
    """Raises LoginRefused with a sentence when the file is no usable private key."""
    import paramiko

    try:
        found = path.stat()
        if found.st_mode & 0o077:
            raise LoginRefused(f"the private key {path} may be read by others: chmod 600 {path}")
        return paramiko.PKey.from_path(path)
    except FileNotFoundError:
        raise LoginRefused(f"there is no private key {path}") from None
    except paramiko.PasswordRequiredException:
        raise LoginRefused(f"the private key {path} has a passphrase: ssh-add {path} once, then the agent answers"
                           ) from None
    except (paramiko.SSHException, ValueError, OSError, TypeError) as error:
        if "assword" in str(error):  # cryptography says it in its own way
            raise LoginRefused(f"the private key {path} has a passphrase: ssh-add {path} once") from None
        raise LoginRefused(f"{path} is not a private key that can be used: {error}") from None


def agent_keys() -> list[paramiko.AgentKey]:
    """The keys that the user's SSH agent offers; none when there is no agent."""
    import paramiko

    try:
        return list(paramiko.Agent().get_keys())
    except (paramiko.SSHException, OSError):
        return []
