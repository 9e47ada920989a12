"""`status`: what runs, how the last run ended, who owns the run log; with --check as an exit code for scripts."""

from __future__ import annotations

import time
from typing import Any

import click

from console.cli.output import duration, emit_json, emit_json_line, json_option, line, note, table
from console.cli.workspace import fresh_workspace
from console.exit_codes import Exit
from console.rental.rental import Phase, sentence
from console.runstate import TROUBLE


@click.command()
@click.option("--watch", is_flag=True, help="Print again every two seconds until interrupted.")
@click.option("--check", is_flag=True, help="Exit 10 when a run is silent, or the newest one failed or got lost.")
@click.option("--offline", is_flag=True, help="Say what is known here, without asking any machine.")
@json_option
@click.pass_context
def status(ctx: click.Context, watch: bool, check: bool, offline: bool, as_json: bool) -> int:
    """What runs now, and how the last run ended."""
    while True:
        facts = _facts(ctx, offline)
        if as_json:
            (emit_json_line if watch else emit_json)(facts)
        else:
            _print(facts)
        if not watch:
            return Exit.UNHEALTHY if check and not facts["healthy"] else Exit.OK
        time.sleep(2.0)


def _facts(ctx: click.Context, offline: bool) -> dict[str, Any]:
    with fresh_workspace(ctx) as workspace:
        runs = workspace.queries.runs(1000)
        states = workspace.operator.states(runs, ask=not offline)
        shown = [r for position, r in enumerate(runs) if position == 0 or states[r.id].alive]
        stages = {r.id: {s.id: s for s in workspace.queries.stages(r.id)} for r in shown}
        owner = workspace.owner
        now = time.time()
        rented = [{"run": r.run, "target": r.detail.get("target"), "phase": r.phase, "text": sentence(r, now),
                   "usd": round(r.spent(now), 2), "usd_per_hour": r.usd_per_hour, "safe": r.phase is not Phase.KEPT}
                  for r in workspace.operator.rentals.book.unsettled()]
    rows: list[dict[str, Any]] = []
    for row in shown:
        state, stage = states[row.id], stages[row.id].get(row.last_stage or "")
        rows.append({"run": row.id, "state": state.word, "text": state.text, "next": state.next,
                     "stage": row.last_stage, "fraction": stage.fraction if stage else None,
                     "eta_s": stage.eta_s if stage else None, "stages_done": row.stages_done,
                     "stages_total": row.stages_total, "last_sign": state.last_sign})
    healthy = not any(row["state"] in TROUBLE for row in rows) and all(row["safe"] for row in rented)
    return {"runs": rows, "runs_known": len(runs), "healthy": healthy, "rented": rented,
            "owner": str(owner) if owner else None, "home": str(workspace.home.path)}


def _print(facts: dict[str, Any]) -> None:
    if not facts["runs"]:
        note("no runs yet; `llmconsole run start tiny --wait` starts one")
        return
    table(("run", "state", "stage", "stages", "done", "left"),
          [(r["run"], r["state"], r["stage"], f"{r['stages_done']}/{r['stages_total']}",
            None if r["fraction"] is None else f"{r['fraction']:.0%}", duration(r["eta_s"])) for r in facts["runs"]])
    for row in facts["runs"]:
        line(f"{row['run']}: {row['text']}" + (f"; {row['next']}" if row["next"] else ""))
    if facts["owner"]:
        note(f"the run log is owned by {facts['owner']}; this is what it has read")
