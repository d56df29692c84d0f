"""The command report: the page of a study that a ledger has, also while the study runs."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from keras_dropout.commands.output import show, working


def report(
    ledger: Annotated[str, typer.Argument(help="The SQLite file that compare or tune writes to.")] = "keras-dropout.db",
    output: Annotated[str, typer.Option("--output", "-o", help="The HTML file to write.")] = "report.html",
    target: Annotated[str | None, typer.Option(help="The latest study of this target. Default: the latest study.")] = None,
    study: Annotated[int | None, typer.Option(help="The study of this number, as --list shows it.", show_default=False)] = None,
    show_list: Annotated[bool, typer.Option("--list", help="Show the ledger's studies, and write nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what the page shows, or the list, as JSON on stdout.")] = False,
) -> None:
    """Write the page of a study that a ledger has, one HTML file that needs no network. It trains nothing.

    The page of a study that still runs shows what there is so far. A page that is there already is written over. With --json
    nothing is written: the fields are those of compare --json, and curves, pairs (differences to the baseline by metric, variant
    and seed), made, examples, confusion, calibration, network, search, sweep, null or missing where the study has none. Of --list:
    number, started, target, variants, runs, done, resample_split, command.

    Examples:
      keras-dropout report runs.db -o page.html
      keras-dropout report --list
    """
    from keras_dropout.bench.ledger.lookup import studies
    from keras_dropout.bench.report.page import check_report_path
    from keras_dropout.bench.retrieval import retrieve, shown

    if show_list:
        listed = [row for row in studies(ledger) if target in (None, row["target"])]
        print(json.dumps(listed, indent=1)) if as_json else show(_table(listed))
        return
    if not as_json:
        check_report_path(output)
    with working(f"reading {ledger}") as say, shown(ledger):
        found = retrieve(ledger, target, study)
        say("putting the page together")
        written = json.dumps(found.report_document(), indent=1, allow_nan=False) if as_json else found.save_report(Path(output))
    print(written)


def _table(rows: list[dict[str, Any]]) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for name in ("number", "started", "target", "variants", "runs"):
        table.add_column(name, justify="right" if name in ("number", "runs") else "left")
    for row in rows:
        started = row["started"][:16].replace("T", " ")
        runs = f"{row['done']} of {row['runs']}"
        target = row["target"] + (", divided anew for each seed" if row["resample_split"] else "")
        table.add_row(str(row["number"]), started, Text(target), Text(", ".join(row["variants"])), runs)
    return table
