"""Keys and tokens: where each is found, and that none is ever shown.

Looked for in this order: the environment, a `.env` in the current folder, the system's keyring, and a file that only
its owner may read in the console's folder. A Secret prints as a mask; whoever needs the value calls `reveal`, and from
then on the value is struck out of everything that `console.crash.redact` writes.
"""

from __future__ import annotations

import json
import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from console.errors import ConsoleError, UsageProblem
from console.exit_codes import Exit
from console.paths import Home, home
from remote.secret_text import Secret

NAMES = ("RUNPOD_API_KEY", "HF_TOKEN", "WANDB_API_KEY", "OPENROUTER_API_KEY")
_ALIASES = {"HF_TOKEN": ("HF_TOKEN", "HUGGINGFACE_TOKEN")}
_SERVICE = "llmconsole"
_LONGEST = 4096


class MissingCredential(ConsoleError):
    exit = Exit.CREDENTIAL


@dataclass(frozen=True)
class Credential:
    """A secret with its name and where it was found."""

    name: str
    secret: Secret
    origin: str

    def reveal(self) -> str:
        """The value itself, for the one call that needs it."""
        return self.secret.reveal()

    @property
    def hint(self) -> str:
        """The last four characters, for telling one key from another."""
        value = self.secret.reveal()
        return f"…{value[-4:]}" if len(value) >= 12 else "…"


def find(name: str, folder: Path | None = None) -> Credential | None:
    """The secret of this name, or None. Raises ConsoleError for a secrets file that others could read."""
    for variable in _ALIASES.get(name, (name,)):
        if value := os.environ.get(variable, "").strip():
            return Credential(name, Secret(value), f"${variable}")
        if value := _dotenv(Path.cwd() / ".env").get(variable, ""):
            return Credential(name, Secret(value), ".env")
    if value := _from_keyring(name):
        return Credential(name, Secret(value), "keyring")
    if value := _stored(_file(folder)).get(name, ""):
        return Credential(name, Secret(value), str(_file(folder)))
    return None


def require(name: str, folder: Path | None = None) -> Credential:
    """Like `find`, and raises MissingCredential (exit 4) when there is none."""
    found = find(name, folder)
    if found is None:
        raise MissingCredential(f"{name} is not set, so nothing can be asked of its service",
                                f"llmconsole config set-secret {name}, or set it in the environment")
    return found


def present(folder: Path | None = None) -> dict[str, str]:
    """Where each secret was found, '' for those that are not there; never a value."""
    found = {name: find(name, folder) for name in NAMES}
    return {name: f"{secret.origin} ({secret.hint})" if secret else "" for name, secret in found.items()}


def store(name: str, value: str, folder: Path | None = None) -> str:
    """Keep a secret in the keyring, else in our own file; where it went. An empty value forgets it."""
    if name not in NAMES:
        raise UsageProblem(f"{name!r} is no secret that is used here", f"there are: {', '.join(NAMES)}")
    value = value.strip()
    if len(value) > _LONGEST or any(not character.isprintable() for character in value):
        raise UsageProblem(f"that cannot be a value of {name}: it has control characters or is too long")
    if _to_keyring(name, value):
        return "keyring"
    path = _file(folder)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    kept = {key: text for key, text in {**_stored(path), name: value}.items() if text}
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as f:
        json.dump(kept, f)
        f.flush()
        os.fsync(f.fileno())
    os.replace(temporary, path)
    return str(path)


def _file(folder: Path | None) -> Path:
    return Home(folder or home()).path / "secrets.json"


def _stored(path: Path) -> dict[str, str]:
    try:
        found = path.stat()
        if found.st_mode & (stat.S_IRWXG | stat.S_IRWXO) or found.st_uid != os.getuid():
            raise ConsoleError(f"{path} may be read by others, so it is not used", f"chmod 600 {path}")
        return {str(key): str(value) for key, value in json.loads(path.read_bytes()).items()}
    except FileNotFoundError:
        return {}
    except (ValueError, AttributeError) as error:
        raise ConsoleError(f"{path} cannot be read ({error})", "set its secrets again after moving it away") from None


def _dotenv(path: Path) -> dict[str, str]:
    """The lines NAME=value of a .env file that are about our secrets."""
    wanted = {variable for name in NAMES for variable in _ALIASES.get(name, (name,))}
    found = {}
    with suppress(OSError, UnicodeDecodeError):
        for line in path.read_text(encoding="utf-8").splitlines()[:1000]:
            name, equals, value = line.strip().removeprefix("export ").partition("=")
            if equals and name.strip() in wanted:
                found[name.strip()] = value.strip().strip("'\"")
    return found


def _from_keyring(name: str) -> str:
    """'' where there is no keyring; a locked one is none."""
    if os.environ.get("PYTHON_KEYRING_BACKEND") == "keyring.backends.null.Keyring":
        return ""
    try:
        import keyring
        from keyring.errors import KeyringError
    except ImportError:
        return ""
    try:
        return keyring.get_password(_SERVICE, name) or ""
    except (KeyringError, RuntimeError, OSError):
        return ""


def _to_keyring(name: str, value: str) -> bool:
    """Whether the keyring took it."""
    try:
        import keyring
        from keyring.errors import KeyringError, PasswordDeleteError
    except ImportError:
        return False
    try:
        if value:
            keyring.set_password(_SERVICE, name, value)
            return keyring.get_password(_SERVICE, name) == value
        with suppress(PasswordDeleteError):
            keyring.delete_password(_SERVICE, name)
        return False  # the file may have one too
    except (KeyringError, RuntimeError, OSError):
        return False
