"""The walls between the rooms, as tests: who may import whom, and what must not be loaded at start."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("console", "engine", "remote")
ALLOWED = {"console": {"remote", "engine"}, "engine": {"rustbpe"}, "remote": set()}
HEAVY = ("torch", "pyarrow", "transformers", "huggingface_hub")
TORCH_HALF = {"device", "dist"}  # beside most folders of engine/; every other module directly in it is torch-free
TORCH_FREE_FOLDERS = ("settings", "tokenizer")  # so `llmconsole tokens` needs no tensors
TORCH_FREE = sorted({p.stem for p in (ROOT / "engine").glob("*.py")} - TORCH_HALF - {"__init__"})
VAGUE = {"utils", "util", "helpers", "helper", "common", "misc"}


def modules(room: str) -> list[Path]:
    return sorted((ROOT / room).rglob("*.py"))


def imported_names(path: Path) -> set[str]:
    """Top-level packages that a file imports anywhere, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_import_only_what_the_plan_allows(room: str) -> None:
    ours = {*ROOMS, "rustbpe"} - {room}
    for path in modules(room):
        crossed = (imported_names(path) & ours) - ALLOWED[room]
        assert not crossed, f"{path.relative_to(ROOT)} imports {', '.join(sorted(crossed))}"


def test_rustbpe_is_imported_in_one_place_per_purpose() -> None:
    users = [p.relative_to(ROOT).as_posix() for p in modules("engine") if "rustbpe" in imported_names(p)]
    assert users == ["engine/inference/native.py", "engine/model/row_kernels.py", "engine/tokenizer/bpe.py"]


def test_the_console_never_imports_the_torch_half() -> None:
    for path in modules("console"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = (
                [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else [a.name for a in node.names]
                if isinstance(node, ast.Import)
                else []
            )
            for name in names:
                parts = name.split(".")
                if parts[0] == "engine" and len(parts) > 1:
                    assert parts[1] in (*TORCH_FREE, *TORCH_FREE_FOLDERS), f"{path.relative_to(ROOT)} imports {name}"


def loaded_after(code: str) -> set[str]:
    """Top-level packages in sys.modules after running `code` in a fresh interpreter."""
    script = f"{code}\nimport sys; print(' '.join(sorted({{m.split('.')[0] for m in sys.modules}})))"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    return set(done.stdout.splitlines()[-1].split())


def test_the_torch_free_half_of_the_engine_is_torch_free() -> None:
    folders = [(name, ROOT / "engine" / name) for name in TORCH_FREE_FOLDERS]
    inside = [f"{name}.{p.stem}" for name, folder in folders for p in folder.glob("[a-z]*.py")]
    names = [name for name in (*TORCH_FREE, *inside) if name != "__main__"]
    loaded = loaded_after("\n".join(f"import engine.{name}" for name in names))
    assert not loaded & {*HEAVY, "textual", "numpy"}


def test_the_screen_starts_without_the_heavy_libraries() -> None:
    assert not loaded_after("import console.app") & {*HEAVY, "numpy", "paramiko", "httpx"}


def test_the_command_line_starts_with_next_to_nothing() -> None:
    code = "import console.door, sys\nsys.argv[1:] = ['--help']\ntry: console.door.main()\nexcept SystemExit: pass"
    assert not loaded_after(code) & {*HEAVY, "textual", "numpy", "sqlite_utils", "httpx", "paramiko"}


def test_no_module_has_a_name_that_says_nothing() -> None:
    for room in ROOMS:
        for path in modules(room):
            assert path.stem not in VAGUE and path.parent.name not in VAGUE, path


def test_every_module_says_why_it_exists() -> None:
    for room in ROOMS:
        for path in modules(room):
            if path.read_text().strip():
                assert ast.get_docstring(ast.parse(path.read_text())), f"{path.relative_to(ROOT)} has no docstring"


def test_the_package_inits_are_empty() -> None:
    for room in ROOMS:
        assert not (ROOT / room / "__init__.py").read_text().strip()
