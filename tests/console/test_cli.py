"""The command line: what goes to stdout, what to stderr, one exit code per way to end."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from console.cli import logs as cli_logs
from console.cli import wait as cli_wait
from console.cli.main import call
from console.exit_codes import MEANING, Exit
from console.workspace import Workspace

ROOT = Path(__file__).parent.parent.parent
Write = Callable[..., str]
Json = Callable[..., tuple[int, Any]]
Captured = pytest.CaptureFixture[str]


def test_the_numbers_are_a_promise() -> None:
    assert {e.name: int(e) for e in Exit} == {
        "OK": 0, "WORK_FAILED": 1, "USAGE": 2, "UNREACHABLE": 3, "CREDENTIAL": 4, "REFUSED": 5, "NO_CAPACITY": 6,
        "VERIFICATION": 7, "NOT_FOUND": 8, "CONFLICT": 9, "UNHEALTHY": 10, "TIMEOUT": 124, "INTERRUPTED": 130}
    assert set(MEANING) == set(Exit)


def test_the_surface_is_a_promise(capsys: Captured) -> None:
    assert call(["--help"]) == 0
    text = capsys.readouterr().out
    for verb in ("chat", "config", "doctor", "model", "query", "recipe", "run", "stage", "status"):
        assert f"\n  {verb} " in text
        assert call([verb, "--help"]) == 0
    assert call(["run", "--help"]) == 0
    text = capsys.readouterr().out
    verbs = ("start", "list", "show", "wait", "stop", "resume", "metrics", "logs")
    assert all(f"\n  {verb} " in text for verb in verbs)


@pytest.mark.parametrize(("words", "hint"), [
    (["rnu"], "did you mean run?"), (["run", "shwo"], "show"), (["run", "list", "--jsno"], "--json"),
    (["run", "start", "tiny", "--yes", "--set", "base_train.dpth=3"], "did you mean depth?"),
    (["run", "start", "tiny", "--yes", "--set", "depth=3"], "stage.key=value"),
    (["run", "start", "tiny"], "--yes"), (["query", "SELEC 1"], "syntax error"), (["chat", "a", "-p", "b"], "twice")])
def test_wrong_usage_is_exit_2_and_one_sentence(capsys: Captured, words: list[str], hint: str) -> None:
    assert call(words) == Exit.USAGE
    out, err = capsys.readouterr()
    assert out == "" and hint in err and "Traceback" not in err


@pytest.mark.parametrize("words", [["run", "show", "nope"], ["run", "wait", "nope"], ["run", "logs", "nope"],
                                   ["run", "stop", "nope"], ["run", "resume", "nope"], ["run", "metrics", "nope"],
                                   ["run", "show"], ["stage", "show", "base_trian"], ["chat", "hello"],
                                   ["chat", "-m", "x", "hello"], ["recipe", "show", "tinny"],
                                   ["run", "start", "tinny", "--yes"], ["model", "rm", "nope", "--yes"]])
def test_what_is_not_there_is_exit_8(capsys: Captured, words: list[str]) -> None:
    assert call(words) == Exit.NOT_FOUND
    assert capsys.readouterr().err.count("\n") <= 2


def test_a_whole_life(capsys: Captured, stand_in: object, write_recipe: Write, cli_json: Json) -> None:
    write_recipe(title="sleep:0.2")
    assert call(["run", "start", "short", "--yes", "--wait", "--id", "mine"]) == 0
    out, err = capsys.readouterr()
    assert out == "" and "01-base_train begins" in err and "Finished" in err
    code, listed = cli_json("run", "list")
    assert code == 0 and [(r["id"], r["state"]) for r in listed["runs"]] == [("mine", "finished")]
    code, shown = cli_json("run", "show")
    assert shown["stages"][0]["metrics"] == {"loss": 2.6} and shown["exit_code"] == 0
    code, metrics = cli_json("run", "metrics", "mine", "--name", "loss")
    assert [p["step"] for p in metrics["points"]] == [0, 1, 2, 3, 4]
    assert call(["run", "metrics", "mine", "--name", "loss", "--stage", "base-train"]) == 0
    assert capsys.readouterr().out.splitlines()[:2] == ["stage\tstep\tvalue", "01-base_train\t0\t3.0"]
    assert call(["run", "metrics", "mine", "--name", "lsos"]) == Exit.NOT_FOUND
    assert "did you mean loss?" in capsys.readouterr().err
    assert call(["run", "start", "short", "--yes", "--id", "mine"]) == 0  # the same id again changes nothing
    assert capsys.readouterr().out == "mine\n"
    assert cli_json("run", "wait", "mine")[1]["state"] == "finished"
    assert call(["status", "--check"]) == 0


def test_a_failed_run_is_exit_1_and_unhealthy(capsys: Captured, stand_in: object, write_recipe: Write) -> None:
    write_recipe(title="exit:1")
    assert call(["run", "start", "short", "--yes", "--wait", "--id", "bad"]) == Exit.WORK_FAILED
    err = capsys.readouterr().err
    assert "FAILED exit 1 in 01-base_train: loss is NaN at step 4" in err and "line 29" in err and "resume" in err
    assert call(["status", "--check"]) == Exit.UNHEALTHY
    assert call(["status", "--offline"]) == 0
    assert call(["run", "resume", "bad", "--wait"]) == 0
    assert call(["run", "resume", "bad"]) == Exit.CONFLICT
    assert call(["status", "--check"]) == 0


def test_waiting_ends_by_time_or_by_hand_and_the_work_goes_on(capsys: Captured, stand_in: object, write_recipe: Write,
                                                              monkeypatch: pytest.MonkeyPatch, cli_json: Json) -> None:
    write_recipe(title="sleep:30")
    assert call(["run", "start", "short", "--yes", "--id", "long", "--wait", "--timeout", "0.2"]) == Exit.TIMEOUT
    assert "keeps running" in capsys.readouterr().err
    with monkeypatch.context() as patched:
        patched.setattr(cli_wait.time, "sleep", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        assert call(["run", "wait", "long"]) == Exit.INTERRUPTED
        assert "keeps running" in capsys.readouterr().err
        assert call(["run", "logs", "long", "--follow"]) == Exit.INTERRUPTED
        assert "keeps running" in capsys.readouterr().err
    assert cli_json("run", "show", "long")[1]["alive"] is True
    assert call(["run", "stop", "long", "--wait"]) == 0
    assert capsys.readouterr().out == "stopped\n"
    assert call(["run", "stop", "long"]) == 0
    assert "ended already" in capsys.readouterr().err


def test_logs(capsys: Captured, stand_in: object, write_recipe: Write) -> None:
    write_recipe()
    assert call(["run", "start", "short", "--yes", "--wait", "--id", "mine"]) == 0
    capsys.readouterr()
    assert call(["run", "logs", "-n", "3"]) == 0
    out, err = capsys.readouterr()
    assert out == "line 27\nline 28\nline 29\n" and "last 3 lines" in err
    for words in (["-n", "0"], ["-n", "30"], ["--follow"], ["--stage", "base_train"], ["--stage", "01-base-train"]):
        assert call(["run", "logs", "mine", *words]) == 0
        assert capsys.readouterr().out == "".join(f"line {i}\n" for i in range(30))
    assert call(["run", "logs", "--stage", "job"]) == 0
    assert call(["run", "logs", "--stage", "mid"]) == Exit.NOT_FOUND
    assert "01-base_train" in capsys.readouterr().err


@pytest.mark.parametrize("piece", [1, 7, 1 << 18])
def test_the_last_lines_are_found_whatever_the_reading_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: int
                                                            ) -> None:
    from remote.local import LocalHost

    monkeypatch.setattr(cli_logs, "_PIECE", piece)
    file = tmp_path / "x.log"
    for text in ("", "a", "a\n", "a\nb\nc\n", "a\n\n\nb", "one\ntwo\nthree\n"):
        file.write_text(text)
        for lines in range(1, 5):
            start = cli_logs._start(LocalHost(), str(file), lines)
            assert text[start:] == "".join(text.splitlines(keepends=True)[-lines:]), (text, lines)


def test_hostile_text_reaches_the_terminal_as_text(capsys: Captured, make_run: Callable[..., Any]) -> None:
    run, writer = make_run("mine")
    run.stage_log("01-base_train").write_text("\x1b]52;c;aGVsbG8=\x07\x1b[2Jplain [/red] \u202e\x9b31m\n")
    writer.emit("run", {"state": "failed", "exit_code": 1, "reason": "\x1b[31mred\x07"})
    for words in (["run", "logs"], ["run", "show"], ["run", "list"], ["status"], ["run", "show", "--json"],
                  ["query", "SELECT data FROM events"], ["query", "--jsonl", "SELECT char(127, 27, 8238) AS x"]):
        assert call(words) == 0
        out, err = capsys.readouterr()
        bad = [c for c in out + err if (ord(c) < 32 and c not in "\n\t") or 127 <= ord(c) < 160 or c == "\u202e"]
        assert not bad, words
    assert call(["run", "logs"]) == 0
    assert "plain [/red]" in capsys.readouterr().out


def test_another_owner_is_exit_9_for_changes_and_no_trouble_for_looking(
        capsys: Captured, workspace: Workspace, write_recipe: Write, make_run: Callable[..., Any]) -> None:
    _, writer = make_run("mine")
    writer.emit("run", {"state": "failed", "exit_code": 1})
    workspace.ingest()
    write_recipe()
    for words in (["run", "start", "short", "--yes"], ["run", "resume", "mine"], ["run", "stop", "mine"]):
        assert call(words) == Exit.CONFLICT
        assert "another llmconsole" in capsys.readouterr().err
    for words in (["run", "list"], ["status"], ["doctor"], ["query", "SELECT 1"]):
        assert call(words) in (0, 1)
    assert "mine" in capsys.readouterr().out


def test_read_only_and_too_little_disk_are_exit_5(capsys: Captured, workspace: Workspace, write_recipe: Write) -> None:
    workspace.close()
    write_recipe("small")
    assert call(["--read-only", "run", "start", "small", "--yes"]) == Exit.REFUSED
    write_recipe("huge", disk_gb=1e8)
    assert call(["run", "start", "huge", "--yes"]) == Exit.REFUSED
    assert "would stop half way" in capsys.readouterr().err
    assert call(["run", "start", "huge", "--dry-run"]) == Exit.REFUSED
    assert call(["run", "start", "small", "--dry-run"]) == 0


@pytest.mark.parametrize("sql", ["DELETE FROM runs", "CREATE TABLE x (y)", "PRAGMA query_only=OFF", "ATTACH 'x' AS y",
                                 "SELECT load_extension('x')", "VACUUM INTO 'x'", "BEGIN", "", "UPDATE runs SET id = 1",
                                 "SELECT 1; DELETE FROM runs", "SELECT writefile('x', 'y')"])
def test_a_query_cannot_change_anything(capsys: Captured, make_run: Callable[..., Any], sql: str) -> None:
    make_run("mine")
    assert call(["query", sql]) == Exit.USAGE
    assert capsys.readouterr().out == ""
    assert call(["query", "SELECT count(*) FROM runs"]) == 0
    assert capsys.readouterr().out == "count(*)\n1\n"


def test_query_prints_rows_in_three_ways_and_gives_up_in_time(capsys: Captured, make_run: Callable[..., Any]) -> None:
    _, writer = make_run("mine")
    writer.metric(1, loss=2.5)
    writer.metric(2, loss=float("nan"))
    sql = "SELECT run, name, step, value FROM metrics"
    assert call(["query", sql]) == 0
    assert capsys.readouterr().out == "run\tname\tstep\tvalue\nmine\tloss\t1\t2.5\nmine\tloss\t2\t\n"
    assert call(["query", sql, "--jsonl"]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert json.loads(first) == {"run": "mine", "name": "loss", "step": 1, "value": 2.5}
    assert call(["query", sql, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == [["mine", "loss", 1, 2.5], ["mine", "loss", 2, None]]
    assert call(["query", "SELECT count(*) FROM ledger.intents"]) == 0
    endless = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT sum(x) FROM c"
    assert call(["query", endless, "--timeout", "0.1"]) == Exit.TIMEOUT


def test_doctor_finds_what_is_broken(capsys: Captured, cli_json: Json, tmp_path: Path,
                                     monkeypatch: pytest.MonkeyPatch) -> None:
    code, report = cli_json("doctor")
    assert code == 0 and report["healthy"]
    (tmp_path / "home" / "config.toml").write_text("[chat]\ntemprature = 1\n")
    folder = tmp_path / "home" / "recipes"
    folder.mkdir()
    (folder / "mine.toml").write_text("[[stage]]\nstage = \"base_train\"\ndeph = 3\n")
    (tmp_path / "base" / "runs" / "orphan").mkdir(parents=True)
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(tmp_path / "base"))
    code, report = cli_json("doctor")
    texts = {f["name"]: f for f in report["findings"] if f["level"] != "ok"}
    assert code == 1 and not report["healthy"]
    assert "did you mean temperature" in texts["settings"]["text"]
    assert "mine.toml:3" in texts["recipes"]["text"] and "depth" in texts["recipes"]["text"]
    assert "orphan" in texts["runs"]["text"]


def test_lists_and_settings_print_facts(capsys: Captured, cli_json: Json) -> None:
    assert "tiny" in [r["name"] for r in cli_json("recipe", "list")[1]["recipes"]]
    assert [s["stage"] for s in cli_json("recipe", "show", "tiny")[1]["stages"]][-1] == "report"
    assert {s["name"] for s in cli_json("stage", "list")[1]["stages"]} >= {"base_train", "chat_sft"}
    depth = next(s for s in cli_json("stage", "show", "base-train")[1]["settings"] if s["name"] == "depth")
    assert (depth["type"], depth["default"], depth["low"]) == ("int", 20, 1)
    assert cli_json("model", "list")[1] == {"default": None, "models": []}
    assert cli_json("config", "show")[1]["settings"]["run.recipe"]["value"] == "tiny"
    assert cli_json("config", "path")[1]["exists"] is False
    for words in (["recipe", "list"], ["recipe", "show", "tiny"], ["stage", "list"], ["stage", "show", "base_train"],
                  ["model", "list"], ["config", "show"], ["config", "path"], ["--version"],
                  ["run", "list"], ["status"]):
        assert call(words) == 0


def test_help_imports_next_to_nothing() -> None:
    code = ("import sys\nfrom console.cli.main import call\ncall(['--help'])\n"
            "print('|'.join(sys.modules), file=sys.stderr)")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=30,
                          check=True)
    loaded = set(done.stderr.strip().splitlines()[-1].split("|"))
    assert not loaded & {"torch", "textual", "numpy", "pyarrow", "httpx", "sqlite3", "sqlite_utils", "psutil",
                         "asyncio", "platformdirs", "huggingface_hub", "paramiko", "engine.recipe", "console.workspace"}


def test_a_reader_that_leaves_early_is_no_error() -> None:
    done = subprocess.run(f"{sys.executable} -m console stage show base_train | head -1", shell=True, cwd=ROOT,
                          capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.startswith("Base:") and done.stderr == ""
