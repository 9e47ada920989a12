"""Recipes: the shipped ones load, every mistake is named with its line, and run.json keeps what was asked."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import recipe
from engine.config import ConfigError
from engine.estimate import training_costs
from engine.plan import planned, stage_argv
from engine.recipe import RecipeError
from engine.toml_lines import line_numbers, loads

ONE = '[[stage]]\nstage = "report"\n'


def test_every_shipped_recipe_makes_command_lines() -> None:
    shipped = recipe.builtin_recipes()
    assert {"tiny", "runcpu", "d4", "d8", "speedrun", "d26", "run1000", "modern"} == {each.name for each in shipped}
    for each in shipped:
        assert each.title and each.summary and each.disk_gb and each.memory_gb and training_costs(each)
        for step in planned(recipe.to_run_json(each, "r")):
            assert stage_argv(step)[1:4] == ["-m", "engine", step.stage]


def test_tiny_has_every_stage_of_the_real_pipeline() -> None:
    stages = [step.stage for step in recipe.find("tiny").stages]
    assert stages == ["dataset", "tok_train", "tok_eval", "base_train", "base_eval", "mid_train", "chat_sft",
                      "chat_eval", "report"]


@pytest.mark.parametrize(("text", "line", "key", "words"), [
    ('titel = "x"\n' + ONE, 1, "titel", "did you mean title"),
    (ONE + '\n[[stage]]\nstage = "base_trian"\n', 5, "stage", "did you mean base_train"),
    (ONE + '\n[[stage]]\n# depth\nstage = "base_train"\ndetph = 4\n', 7, "detph", "base_train: .*did you mean depth"),
    ('title = """\ndetph = 1\n"""\n[[stage]]\nstage = "base_train"\n  "detph" = 4\n', 6, "detph", "depth"),
    ('[[stage]]\nstage = "base_train"\nmodel_tag = """\ndepth = 0"""\ndepth = 0\n', 5, "depth", "at least 1"),
    ('[[stage]]\nstage = "base_train"\ndevice_type = "gpu"\n', 3, "device_type", "not one of"),
    ('stage = [{stage = "tok_train"}, {stage = "tok_train", vocab = 1}]\n', 1, "vocab", "unknown setting"),
    ('stage = "base_train"\n', 1, "stage", r"at least one \[\[stage\]\]"),
    ('title = "x"\n', None, "stage", "at least one"),
    (ONE + "[[stage]]\ndepth = 4\n", 3, "stage", "number 2 needs a name"),
    ("[minutes]\ncpux = 8\n" + ONE, 2, "cpux", "did you mean cpu"),
    ("disk_gb = -1\n" + ONE, 1, "disk_gb", "must be a number"),
    ("disk_gb = nan\n" + ONE, 1, "disk_gb", "must be a number"),
    ("title = 3\n" + ONE, 1, "title", "must be text"),
    (ONE + "x = \n", 3, None, "not TOML"),
])
def test_mistakes_name_file_line_and_key(text: str, line: int | None, key: str | None, words: str) -> None:
    with pytest.raises(RecipeError, match=words) as caught:
        recipe.parse(text, Path("mine.toml"))
    assert (caught.value.line, caught.value.key) == (line, key)
    assert str(caught.value).startswith("mine.toml:" if line is None else f"mine.toml:{line}: ")
    assert isinstance(caught.value, ConfigError)


def test_find_prefers_the_persons_own_folder_and_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text('title = "Mine"\n' + ONE)
    (tmp_path / "broken.toml").write_text("x = \n")
    assert recipe.find("tiny", [tmp_path]).title == "Mine"
    assert recipe.find(str(tmp_path / "tiny.toml")).title == "Mine"
    with pytest.raises(RecipeError, match="unknown recipe 'tinny'; did you mean tiny"):
        recipe.find("tinny", [tmp_path])
    with pytest.raises(RecipeError, match="No such file"):
        recipe.find(str(tmp_path / "none.toml"))
    usable, broken = recipe.list_recipes([tmp_path, tmp_path / "missing"])
    assert [each.title for each in usable if each.name == "tiny"] == ["Mine"]
    assert [error.file for error in broken] == [tmp_path / "broken.toml"]


def test_hostile_files_are_refused(tmp_path: Path) -> None:
    for name, data in (("binary", b"a = 1\n\xff\xfe"), ("large", b"#" * 300_000), ("deep", b"a = " + b"[" * 50_000)):
        path = tmp_path / f"{name}.toml"
        path.write_bytes(data)
        with pytest.raises(RecipeError, match=name):
            recipe.load(path)
    (tmp_path / "a b.toml").write_text(ONE)
    with pytest.raises(RecipeError, match="may hold only"):
        recipe.load(tmp_path / "a b.toml")


def test_overrides_change_one_stage_and_are_checked() -> None:
    tiny = recipe.find("tiny")
    changed = recipe.with_overrides(tiny, ["base_train.depth=6", "base-train.save-every=none"])
    args = {step.stage: step.args for step in changed.stages}
    assert (args["base_train"]["depth"], args["base_train"]["save_every"]) == (6, None)
    assert args["mid_train"] == {step.stage: step.args for step in tiny.stages}["mid_train"]


OPTIONAL = """
[[stage]]
stage = "chat_sft"
[[stage]]
stage = "chat_eval"
[[stage]]
stage = "chat_rl"
enabled = false
[[stage]]
stage = "chat_eval"
source = "rl"
enabled = "chat_rl"
[[stage]]
stage = "backup"
enabled = false
"""


@pytest.mark.parametrize(("overrides", "names"), [
    ([], ["chat_sft", "chat_eval"]),
    (["chat_rl.enabled=true"], ["chat_sft", "chat_eval", "chat_rl", "chat_eval"]),
    (["chat_rl.num_epochs=2"], ["chat_sft", "chat_eval", "chat_rl", "chat_eval"]),
    (["chat_eval.max_problems=5"], ["chat_sft", "chat_eval"]),
    (["backup.to=hub:me/mine"], ["chat_sft", "chat_eval", "backup"]),
    (["chat_eval.enabled=false"], ["chat_sft"]),
    (["backup.to=/x", "backup.enabled=false"], ["chat_sft", "chat_eval"]),
])
def test_stages_that_are_off_until_somebody_wants_them(overrides: list[str], names: list[str]) -> None:
    found = recipe.with_overrides(recipe.parse(OPTIONAL, Path("optional.toml")), overrides)
    body = recipe.to_run_json(found, "r")
    assert [step["stage"] for step in body["stages"]] == names
    for step in planned(body):
        stage_argv(step)


def test_a_backup_to_nowhere_is_refused_before_anything_starts() -> None:
    found = recipe.with_overrides(recipe.parse(OPTIONAL, Path("optional.toml")), ["backup.enabled=true"])
    with pytest.raises(ConfigError, match="--to is needed: hub:OWNER/NAME"):
        [stage_argv(step) for step in planned(recipe.to_run_json(found, "r"))]


@pytest.mark.parametrize("value", ["1", '"chat_lr"', "[1]", '"true"'])
def test_what_enables_a_stage_is_checked(value: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"x.toml:3: enabled = .*true, false, or the stage"):
        recipe.parse(f'[[stage]]\nstage = "report"\nenabled = {value}\n', Path("x.toml"))


@pytest.mark.parametrize(("text", "words"), [
    ("report.enabled=maybe", "report: enabled=maybe: expected true or false"),
    ("base_train.detph=6", "base_train: .*did you mean depth"), ("basetrain.depth=6", "did you mean base_train"),
    ("chat_rl.depth=6", "no stage"), ("depth=6", "stage.key=value"), ("base_train.depth", "stage.key=value"),
])
def test_overrides_that_fit_nothing_are_named(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        recipe.with_overrides(recipe.find("tiny"), [text])


def test_run_json_numbers_repeated_stages_apart() -> None:
    text = '[[stage]]\nstage = "tok_train"\nvocab-size = 512\n' * 2
    body = recipe.to_run_json(recipe.parse(text, Path("two.toml")), "two-1", created=5.0, software="1")
    assert body["recipe"] == "two" and body["created"] == 5.0
    assert body["stages"][1] == {"id": "02-tok_train", "stage": "tok_train", "title": "Tokenizer",
                                 "args": {"vocab_size": 512}}


KEYS = st.text("abcdef_", min_size=1, max_size=8)
VALUES = st.sampled_from(["1", '"x"', '"""\na = 1\n[b]\n"""', "'''\n]\n'''", "[\n1,\n2 # ]\n]", '{x = 1, y = "#"}'])


@given(st.lists(st.tuples(st.dictionaries(KEYS, VALUES, max_size=5), st.integers(0, 3)), max_size=5), st.booleans())
def test_lines_are_where_the_keys_are(tables: list[tuple[dict[str, str], int]], crlf: bool) -> None:
    text, expected = "", {}
    for index, (table, blank) in enumerate(tables):
        text += "\n" * blank + "# [[stage]]\n"
        expected[("stage", index)] = text.count("\n") + 1
        text += "[[stage]] # x = 1\n"
        for key, value in table.items():
            expected[("stage", index, key)] = text.count("\n") + 1
            text += f"  {key} = {value}\n"
    text = text.replace("\n", "\r\n") if crlf else text
    loads(text)
    found = {path: line for path, line in line_numbers(text).items() if len(path) < 4 and path != ("stage",)}
    assert found == expected


def test_recipes_cost_no_tensor_library() -> None:
    code = "import sys, engine.recipe as r; r.builtin_recipes(); print(bool({'torch', 'pyarrow'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout.strip() == b"False"
