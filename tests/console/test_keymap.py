"""A person's own keys: read from keys.toml in every way TOML can say it, and refused with the line when they clash."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from console.errors import UsageProblem
from console.keymap import known_bindings, load


def write(folder: Path, text: str) -> Path:
    path = folder / "keys.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("text", ['run.stop = "ctrl+x"', '[run]\nstop = "ctrl+x"', '"run.stop" = "ctrl+x"'])
def test_three_ways_to_say_it(tmp_path: Path, text: str) -> None:
    assert load(write(tmp_path, text)) == {"run.stop": "ctrl+x"}


def test_no_file_no_keys(tmp_path: Path) -> None:
    assert load(tmp_path / "keys.toml") == {}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('\nrun.stpo = "k"', "keys.toml:2: no action is called 'run.stpo'; did you mean run.stop"),
        ('run.stop = 3', "needs a key in quotes"),
        ('run.stop = "crtl+x"', "'crtl+x' is no key that a terminal sends"),
        ('run.stop = "x,nokey"', "'nokey' is no key"),
        ('run.stop = "v"', "run.stop and run.log_scale (Log scale of the focused chart, or the first) would both"),
        ('run.stop = "q"', "run.stop and app.quit"),
        ('app.target = "w"', "app.target and "),
        ('run.stop = "j"', "run.stop and log.down"),
        ('# a\nrun.stop = "?"', "keys.toml:2: run.stop and app.help"),
        ("run.stop = ", "not TOML"),
    ],
)
def test_what_cannot_be_is_said_with_its_place(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(UsageProblem) as refused:
        load(write(tmp_path, text))
    assert told in str(refused.value)


def test_two_actions_may_swap_keys_and_apart_screens_may_share_one(tmp_path: Path) -> None:
    text = 'run.stop = "v"\nrun.log_scale = "x"\ncheckpoints.prune = "v"\nlog.follow = "end,F"'
    assert load(write(tmp_path, text))["log.follow"] == "end,F"


def test_the_usual_keys_do_not_clash_among_themselves(tmp_path: Path) -> None:
    known = known_bindings()
    assert len(known) > 60
    text = "\n".join(f'"{name}" = "{",".join(each.keys)}"' for name, each in known.items())
    assert len(load(write(tmp_path, text))) == len(known)


def test_the_verb_lists_them_and_reports_a_clash(tmp_path: Path, cli_json: Any) -> None:
    home = tmp_path / "home"
    home.mkdir(exist_ok=True)
    write(home, 'run.stop = "ctrl+x"')
    code, found = cli_json("config", "keys")
    (stop,) = [row for row in found["keys"] if row["id"] == "run.stop"]
    assert code == 0 and stop["keys"] == "ctrl+x" and stop["usual"] == "x"
    write(home, 'run.stop = "s"')
    assert cli_json("config", "keys")[0] == 2
