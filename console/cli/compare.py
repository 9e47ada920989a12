"""`run compare`: the report cards of several runs as one table."""

from __future__ import annotations

import click

from console.cli.output import emit_json, json_option, note, table
from console.cli.workspace import fresh_workspace
from console.glance import side_of
from console.report_compare import compare


@click.command("compare")
@click.argument("run_ids", nargs=-1, required=True, metavar="RUN RUN...")
@json_option
@click.pass_context
def run_compare(ctx: click.Context, run_ids: tuple[str, ...], as_json: bool) -> None:
    """Report cards side by side: every result of each run; * marks the better one."""
    with fresh_workspace(ctx) as workspace:
        for run_id in run_ids:
            workspace.operator.locate(run_id)
        sides = [side for run_id in run_ids if (side := side_of(workspace, run_id))]
    rows = compare(sides)
    if as_json:
        emit_json({"runs": [side.run.id for side in sides],
                   "results": [{"name": row.name, "values": row.values, "best": row.best,
                                "difference": row.difference} for row in rows]})
    elif not rows:
        note("these runs have no results yet")
    else:
        cells = [[f"{value:.4g}{'*' if number == row.best else ''}" if value is not None else None
                  for number, value in enumerate(row.values)] for row in rows]
        table(("result", *(side.run.id for side in sides), "2nd - 1st"),
              [(row.name, *line, row.difference) for row, line in zip(rows, cells, strict=True)])
