"""What a far run leaves on this machine when its own machine is gone."""

from __future__ import annotations

from pathlib import Path

from console.machines.mirror import Mirror
from console.paths import Home
from remote.local import LocalHost


def test_events_logs_and_the_report_survive_the_machine(tmp_path: Path) -> None:
    far = tmp_path / "far" / "runs" / "r1"
    for name, text in {"events.jsonl": "{}\n", "logs/01-x.log": "one\n", "base/report/report.md": "# old",
                       "base/report/chat-sft.json": "{}", "base/report/core": "no page"}.items():
        (far / name).parent.mkdir(parents=True, exist_ok=True)
        (far / name).write_text(text)
    mirror = Mirror(Home(tmp_path / "home"), "r1", LocalHost(), str(far))
    mirror.pull_all()
    (far / "base/report/new").write_text("# new")
    (far / "base/report/new").replace(far / "base/report/report.md")  # as the report stage writes it
    with open(far / "logs/01-x.log", "a") as f:
        f.write("two\n")
    mirror.pull_all()
    here = tmp_path / "home" / "mirror" / "r1"
    assert (here / "base/report/report.md").read_text() == "# new"
    assert (here / "logs/01-x.log").read_text() == "one\ntwo\n" and (here / "base/report/chat-sft.json").exists()
    assert not (here / "base/report/core").exists()
