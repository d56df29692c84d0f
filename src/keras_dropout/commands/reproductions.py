"""The command reproduce: published experiments, carried out."""

import json
import sys
from typing import Annotated, Any

import typer

from keras_dropout.commands.options import choose_backend, complete_reproduction
from keras_dropout.commands.output import again, check_report, exit_if_failed, show, stored_command, working
from keras_dropout.errors import refuse


def reproduce(
    name: Annotated[
        str | None, typer.Argument(help="One of those that --list shows.", autocompletion=complete_reproduction)
    ] = None,
    show_list: Annotated[bool, typer.Option("--list", help="Show what can be reproduced.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Smaller studies: a few minutes at most.")] = False,
    seeds: Annotated[
        int | None, typer.Option(help="Runs per variant. Default: the reproduction's own, 12 of most, 8 with --quick.")
    ] = None,
    data_dir: Annotated[str | None, typer.Option(help="Folder with the data files. Also: KERAS_DROPOUT_DATA.")] = None,
    workers: Annotated[int | None, typer.Option(help="Workers of one thread each. Default: one per core.")] = None,
    on: Annotated[str | None, typer.Option(help="Where workers are: here (default), ray, or ray:HOST:PORT.")] = None,
    ledger: Annotated[str | None, typer.Option(help="SQLite file that keeps every run. Default: keras-dropout.db.")] = None,
    report: Annotated[
        str | None, typer.Option(help="Write an HTML report to this file; further parts beside it, as FILE-PART.html.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcome, or the list, as JSON on stdout.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and the estimated time; train nothing.")] = False,
) -> None:
    """Carry out a published experiment, and say whether its claim came out.

    Each is studies like those of compare, with the same ledger, statistics and report, and with expectations: that a mean over
    seeds lies above or below a bound, or that a published figure could be one more of ours. The verdict is reproduced (each is
    shown), compatible (a figure could be one more of ours, but so could others further off than its tolerance), not reproduced
    (the contrary of one is shown) or undecided. Runs that the ledger has are not trained again; so the same command goes on after
    an interruption. The exit status does not depend on the verdict.

    Examples:
      keras-dropout reproduce --list
      keras-dropout reproduce srivastava-rate --quick
      keras-dropout reproduce tutorial-recipe --report tutorial.html

    The fields of --json: name, title, claim, source, differs (from what was published), changed (after a first run), verdict,
    sentence; measured, interval and published of the first expectation; expectations: says, published, above, below, figure,
    tolerance, measured, interval (95 %), p, runs
    (a number a seed), verdict; figures: part, variant, metric, mean, sd, runs; data, quick, seeds, timing, command, and studies,
    by part as compare --json has them. Of --list: name, title, claim, source, quick_seconds.
    """
    if show_list:
        with working("loading Keras"):
            choose_backend("jax")
            from keras_dropout import reproductions

            listed = [reproductions.find(each) for each in reproductions.names()]
        rows = [{field: getattr(each, field) for field in ("name", "title", "claim", "source", "quick_seconds")} for each in listed]
        print(json.dumps(rows, indent=1)) if as_json else show(_table(rows))
        return
    if name is None:
        refuse("there is no name of a reproduction.", "Name one of those that keras-dropout reproduce --list shows.")
    with working("loading Keras, the models and the data", quiet):
        choose_backend("jax")
        from keras_dropout import reproductions
        from keras_dropout.bench.settings import DEFAULT_LEDGER
        from keras_dropout.bench.study.planning import check_settings

        reproductions.check_name(name)
        ledger = ledger or DEFAULT_LEDGER
        given: dict[str, Any] = {"workers": workers, "on": on, "data_dir": data_dir, "report": report}
        settings = {option: value for option, value in given.items() if value is not None}
        check_settings(settings | {"seeds": 1 if seeds is None else seeds, "ledger": ledger})
        check_report(report)
        from keras_dropout.reproductions.framework import carry_out_reproduction, plan_reproduction

        chosen = reproductions.find(name)
        planned = plan_reproduction(chosen, quick=quick, seeds=seeds, ledger=ledger, **settings)
    if dry_run:
        _print_plan(planned, as_json)
        return
    try:
        found = carry_out_reproduction(planned, quiet=quiet, command=stored_command())
    except KeyboardInterrupt:
        print(f"Interrupted: finished runs and checkpoints are kept in {ledger}. To go on:\n{again()}", file=sys.stderr)
        raise typer.Exit(130) from None
    pages = [] if report is None else found.save_report(report)
    print(json.dumps(found.document(), indent=1, allow_nan=False)) if as_json else show(found)
    if pages:
        print(f"Report: {', '.join(map(str, pages))}", file=sys.stderr)
    exit_if_failed(found, ledger)


def _table(rows: list[dict[str, Any]]) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for name in ("name", "claim", "source", "quick"):
        table.add_column(name, justify="right" if name == "quick" else "left", overflow="fold")
    for row in rows:
        table.add_row(row["name"], Text(row["claim"]), Text(row["source"]), f"{row['quick_seconds']} s")
    return table


def _print_plan(planned: Any, as_json: bool) -> None:
    from keras_dropout.bench.execution.timing import estimate_seconds

    parts = []
    for name, plan in planned.plans.items():
        todo = plan.todo(plan.known(), plan.kept())
        with working(f"timing a run of {name}"):
            seconds = estimate_seconds(plan, todo)
        study = plan.study
        parts.append(
            {
                "part": name,
                "target": study.target,
                "data": study.data.name,
                "variants": [variant.name for variant in study.variants],
                "epochs": study.epochs,
                "runs": len({run.key for run in study.runs()}),
                "to_train": len(todo),
                "estimated_seconds": round(seconds, 1),
            }
        )
    total = sum(part["estimated_seconds"] for part in parts)
    if as_json:
        print(json.dumps({"name": planned.reproduction.name, "seeds": list(planned.seeds), "parts": parts}, indent=1))
        return
    print(f"{planned.reproduction.name}: {planned.reproduction.claim}")
    for part in parts:
        print(
            f"  {part['part']}: {part['target']} on {part['data']}, {', '.join(part['variants'])} x {len(planned.seeds)} seeds, "
            f"{part['epochs']} epochs; {part['to_train']} of {part['runs']} runs to train"
        )
    print(f"estimated time: {total / 60:.1f} minutes" if total >= 60 else f"estimated time: {total:.0f} s")
