"""`doctor`: the console's own examination, as text or JSON; exit 1 when it found a problem."""

from __future__ import annotations

import click

from console.cli.output import emit_json, json_option, line, note
from console.exit_codes import Exit


@click.command()
@json_option
@click.pass_context
def doctor(ctx: click.Context, as_json: bool) -> int:
    """Check this machine and the console's own files; exit 1 when something needs repair."""
    from console.doctor import PROBLEM, Finding, examine
    from console.errors import ConsoleError
    from console.paths import Home, home
    from console.runstate import TROUBLE
    from console.workspace import Workspace

    place = Home(home())
    findings = []
    owner = ""
    try:
        with Workspace.open(read_only=ctx.find_root().obj["read_only"], patience=0.0) as workspace:
            owner = str(workspace.owner or "")
            findings += [Finding(PROBLEM, "run log", notice) for notice in workspace.notices]
            workspace.ingest()
            states = workspace.operator.states(workspace.queries.runs(1000))
            lost = [run for run, state in states.items() if state.word in TROUBLE]
            worry = f"; {len(lost)} failed, silent or lost: {', '.join(lost[:3])}" if lost else ""
            hint = "llmconsole run show RUN says why" if lost else ""
            findings.append(Finding("ok", "runs", f"{len(states)} known{worry}", hint))
    except (ConsoleError, OSError) as error:
        findings.append(Finding(PROBLEM, "run log", str(error), getattr(error, "next", "")))
    findings = [*examine(place, owner), *findings]
    healthy = all(finding.level != PROBLEM for finding in findings)
    if as_json:
        emit_json({"healthy": healthy, "findings": findings})
    else:
        marks = {"ok": "ok  ", "warning": "WARN", PROBLEM: "BAD "}
        for finding in findings:
            line(f"{marks[finding.level]}  {finding.name:<10} {finding.text}")
            if finding.next:
                line(f"      {'':<10} {finding.next}")
        note("nothing needs repair" if healthy else "something needs repair, see BAD above")
    return Exit.OK if healthy else Exit.WORK_FAILED
