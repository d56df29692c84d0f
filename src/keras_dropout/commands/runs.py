"""The command `keras-dropout runs`: what a ledger holds, shown, written, merged, deleted and verified. Loads no Keras."""

import json
from collections.abc import Callable
from typing import Annotated, Any, TypedDict

import typer
from typer.core import TyperGroup

from keras_dropout.bench.log_places import check_place, is_place
from keras_dropout.bench.settings import Setting
from keras_dropout.commands.options import help_of, takes
from keras_dropout.commands.output import check_output_path, show, working
from keras_dropout.errors import check_whole, refuse

_SHOWN = 100  # rows of the table, unless --limit says otherwise


class _ListUnlessNamed(TyperGroup):
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """`runs` alone, or with options of `list` only, is `runs list`."""
        options_only = not args or (args[0].startswith("-") and args[0] != "--help")
        return super().parse_args(ctx, ["list", *args] if options_only else args)


runs = typer.Typer(
    cls=_ListUnlessNamed,
    add_completion=False,
    rich_markup_mode=None,
    help="""Show, export, merge, delete and verify the runs of a ledger, and take trained models out. Without a name of these: list.

    Every finished run is in the ledger, an SQLite file (--ledger, keras-dropout.db by default); docs/ledger.md describes its
    tables. Exit status: 0 done, 1 problems or conflicts were found, 2 bad input.

    \b
    Examples:
      keras-dropout runs
      keras-dropout runs --status failed --json
      keras-dropout runs show 3f9a
      keras-dropout runs export runs.csv
      keras-dropout runs merge other.db
    """,
)


def _command(name: str | None = None) -> Callable[[Callable], Callable]:
    """A command with its docstring as help."""
    return lambda function: runs.command(name, **help_of(function))(function)


_Ledger = Annotated[str, typer.Option(help="SQLite file that keeps every run.")]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]


class _Filters(TypedDict, total=False):
    """The filters of `ledger.selection.Selection` as options."""

    target: Annotated[list[str], Setting("Only runs of this target. Repeatable.", kind=list[str])]
    variant: Annotated[list[str], Setting("Only runs of this variant. Repeatable.", kind=list[str])]
    status: Annotated[list[str], Setting("Only runs that are done, diverged or failed. Repeatable.", kind=list[str])]
    seed: Annotated[list[int], Setting("Only runs with this seed. Repeatable.", kind=list[int])]
    since: Annotated[str, Setting("Only runs that ended at or after this date or time, UTC: 2026-07-01T12:30.")]


@_command("list")
@takes(_Filters, into="filters")
def list_runs(
    filters: dict[str, Any],
    ledger: _Ledger = "keras-dropout.db",
    limit: Annotated[
        int | None, typer.Option(help=f"Only the newest so many. Default: {_SHOWN}; with --json all.", show_default=False)
    ] = None,
    as_json: _Json = False,
) -> None:
    """List runs, the newest last.

    Examples:
      keras-dropout runs list --variant hidden --since 2026-07-01
      keras-dropout runs list --status failed --json

    The fields of --json, a list of objects: key, target, variant, seed, backend, engine, status (done, diverged, failed),
    seconds, epochs, best_epoch (early stopping), metrics (an object; null for what is no finite number), error, finished (UTC),
    model (whether the trained model is kept).
    """
    from keras_dropout.bench.ledger.lookup import reading
    from keras_dropout.bench.ledger.schema import LARGEST
    from keras_dropout.bench.ledger.selection import Selection, count, find, finite

    if limit is not None:
        check_whole("--limit", limit, 1, "Leave it out for the default, or give 1 or more.", LARGEST)
    chosen = Selection(**filters)
    with reading(ledger) as connection:
        found = find(connection, chosen, limit if limit or as_json else _SHOWN)
        number = count(connection, chosen)
    if as_json:
        print(json.dumps(finite(found), indent=1, allow_nan=False))
        return
    if found:
        show(_table(found))
    print(f"{number} run(s) in {ledger}" + (f", the newest {len(found)} shown" if len(found) < number else ""))


@_command("show")
def show_run(
    key: Annotated[str, typer.Argument(help="The run's key, or how it begins: at least 4 digits.")],
    ledger: _Ledger = "keras-dropout.db",
    log: Annotated[bool, typer.Option("--log", help="Print what the run's worker printed, and nothing else.")] = False,
    as_json: _Json = False,
) -> None:
    """Show everything that is known of one run.

    Examples:
      keras-dropout runs show 3f9a
      keras-dropout runs show 3f9a --log

    The fields of --json, an object: those of `runs list`, and curves (metric -> one number an epoch), config (what the key is a
    hash of), versions, machine, test_losses (count, mean; null where none are kept) and log.
    """
    from keras_dropout.bench.ledger.lookup import reading
    from keras_dropout.bench.ledger.selection import describe, find_key, finite

    with reading(ledger) as connection:
        found = describe(connection, find_key(connection, key))
    if log:
        print(found["log"], end="" if found["log"].endswith("\n") else "\n")
    elif as_json:
        print(json.dumps(finite(found), indent=1, allow_nan=False))
    else:
        show(_everything(found))


@_command("model")
def take_model(
    key: Annotated[str, typer.Argument(help="The run's key, or how it begins: at least 4 digits.")],
    output: Annotated[str, typer.Option("--output", "-o", help="The .keras file to write.")],
    ledger: _Ledger = "keras-dropout.db",
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
) -> None:
    """Write the trained model of a run to a .keras file.

    It is kept where a study was told to: keras-dropout compare … --keep-weights. Load it where keras_dropout is imported, which
    brings its layers: keras.models.load_model("model.keras").

    Examples:
      keras-dropout runs model 3f9a -o model.keras
    """
    from keras_dropout.bench.ledger.lookup import reading
    from keras_dropout.bench.ledger.selection import find_key, find_model
    from keras_dropout.writing import write_whole

    path = check_output_path(output, ".keras", force)
    with reading(ledger) as connection:
        archive = find_model(connection, find_key(connection, key))
    write_whole(path, lambda part: part.write_bytes(archive))
    print(path)


@_command()
@takes(_Filters, into="filters")
def export(
    file: Annotated[
        str, typer.Argument(help="The .csv, .parquet or .json file to write; or tensorboard:DIR, mlflow[:URI], wandb[:PROJECT].")
    ],
    filters: dict[str, Any],
    ledger: _Ledger = "keras-dropout.db",
    curves: Annotated[bool, typer.Option("--curves", help="One row for each epoch of each run.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
) -> None:
    """Write runs to a file for other programs, one row a run, or to TensorBoard, MLflow or Weights & Biases, one run each.

    The columns are the fields of `runs list` with one column for each metric; with --curves key, target, variant, seed, status,
    epoch (from 1) and one column for each curve. Numbers have all their digits. Parquet needs the extra tables. In CSV a name that
    a spreadsheet would compute, one that begins with = + - or @, stands behind an apostrophe.

    In a place that is no file, a run has its variant, seed, placement and rates as parameters, its metrics, and its curves by
    epoch. Runs that are there already, and those that failed, are left out.

    Examples:
      keras-dropout runs export runs.csv --status done
      keras-dropout runs export curves.parquet --curves
    """
    from keras_dropout.bench.ledger.export import ENDINGS, check_can_write, rows_of_epochs, rows_of_runs, write_rows
    from keras_dropout.bench.ledger.lookup import reading
    from keras_dropout.bench.ledger.selection import Selection

    chosen = Selection(**filters)
    if is_place(file):
        from keras_dropout.bench.ledger import trackers

        if curves or force:
            refuse(f"--{'curves' if curves else 'force'} is for files; got {file}.", "Leave it out: a run there has its curves.")
        check_place(file)
        with working(f"writing to {file}"), reading(ledger) as connection:
            new, old = trackers.export(connection, chosen, file)
        print(f"{file}: {new} run(s)" + (f"; {old} were there" if old else ""))
        return
    path = check_output_path(file, ENDINGS, force)
    check_can_write(path)
    with working(f"reading {ledger}") as say:
        with reading(ledger) as connection:
            rows = (rows_of_epochs if curves else rows_of_runs)(connection, chosen)
        say(f"writing {len(rows):,} rows")
        write_rows(rows, path)
    print(f"{path}: {len(rows)} row(s)")


@_command()
def merge(
    others: Annotated[list[str], typer.Argument(help="Ledgers to take runs from; they stay as they are.")],
    ledger: _Ledger = "keras-dropout.db",
) -> None:
    """Take the runs of other ledgers into one. Exit status 1 when there are conflicts.

    Runs that --ledger lacks are copied, failed ones are replaced by those that did not fail, and studies are copied. A run that
    both have, with another status or other metrics, is a conflict: it is told, and --ledger keeps its own. Trained models are
    copied, also for runs that both have; checkpoints are not. The ledger is made when it is not there. Each OTHER is taken whole
    or not at all: nothing is taken of one in which runs verify finds damage.

    Examples:
      keras-dropout runs merge laptop.db server.db --ledger all.db
    """
    from keras_dropout.bench.ledger import admin

    conflicts = 0
    found = admin.merge(ledger, others)
    for other in others:
        with working(f"merging {other}"):
            merged = next(found)
        models = f"; {merged.models} model(s) copied" if merged.models else ""
        print(f"{merged.source}: {merged.copied} run(s) copied, {merged.replaced} replaced, {merged.same} were there{models}")
        for key in merged.conflicts:
            print(f"conflict: run {key} has other results in {merged.source}; {ledger} keeps its own")
        conflicts += len(merged.conflicts)
    found.close()
    if conflicts:
        raise typer.Exit(1)


@_command()
@takes(_Filters, into="filters")
def delete(
    filters: dict[str, Any],
    keys: Annotated[list[str] | None, typer.Argument(help="Keys, or how they begin: at least 4 digits.")] = None,
    ledger: _Ledger = "keras-dropout.db",
    every: Annotated[bool, typer.Option("--all", help="Delete all runs.")] = False,
    examples: Annotated[bool, typer.Option("--examples", help="Delete the test examples kept for reports, and no run.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do it. Without: say how many it would be, and exit with 2.")] = False,
) -> None:
    """Delete runs and their models, named by keys or chosen by filters; they are trained again when a study asks for them.

    What is deleted is overwritten: none of its bytes are left in the ledger. Test examples go with the last run on their data, or
    with --examples; compare --no-examples keeps none.

    Examples:
      keras-dropout runs delete --status failed
      keras-dropout runs delete 3f9a 07c1 --yes
      keras-dropout runs delete --examples --yes
    """
    from keras_dropout.bench.ledger import admin
    from keras_dropout.bench.ledger.selection import Selection

    with working(f"deleting from {ledger}"):
        number = admin.delete(ledger, keys or (), Selection(**filters), every, yes, examples)
    print(f"{f'test examples of {number} data set(s)' if examples else f'{number} run(s)'} deleted from {ledger}")


@_command()
def vacuum(ledger: _Ledger = "keras-dropout.db") -> None:
    """Drop checkpoints that no run will go on from, and give the space of what was deleted back to the disk.

    Examples:
      keras-dropout runs vacuum --ledger old.db
    """
    from keras_dropout.bench.ledger import admin

    with working(f"vacuuming {ledger}"):
        dropped, before, after = admin.vacuum(ledger)
    print(f"{ledger}: {before:,} bytes before, {after:,} after; {dropped} checkpoint(s) dropped")


@_command()
def verify(ledger: _Ledger = "keras-dropout.db", as_json: _Json = False) -> None:
    """Look for damage in a ledger, and change nothing. Exit status 1 when there is some.

    Looked at are the file, its tables, of every run its key (the hash of its config), its JSON and its test losses, every trained
    model that is kept, and every checkpoint: a run begins anew where its checkpoint cannot be read. Triggers, views and tables
    that do not belong to a ledger are reported, and then nothing else is read. The fields of --json, an object: runs, models,
    studies, missing (runs that studies asked for and that are not there, which is no problem), problems (a list of objects: where,
    what).

    Examples:
      keras-dropout runs verify --json
    """
    from keras_dropout.bench.ledger import admin

    with working(f"verifying {ledger}"):
        found = admin.verify(ledger)
    if as_json:
        print(json.dumps(vars(found), indent=1))
    else:
        for problem in found.problems:
            print(f"{problem['where']}: {problem['what']}")
        missing = f" ({found.missing} run(s) asked for are not there)" if found.missing else ""
        models = f", {found.models} model(s)" if found.models else ""
        print(f"{found.runs} run(s){models}, {found.studies} study(s){missing}: {len(found.problems) or 'no'} problem(s)")
    if found.problems:
        raise typer.Exit(1)


def _table(found: list[dict[str, Any]]) -> Any:
    from rich.table import Table
    from rich.text import Text

    measured = {name for run in found for name in run["metrics"] if name.startswith("test_")}
    metrics = sorted(measured, key=lambda name: (name != "test_loss", name))
    table = Table()
    models = ["model"] if any(run["model"] for run in found) else []
    for name in ("key", "target", "variant", "seed", "status", "epochs", "seconds", *metrics, *models, "finished"):
        numbers = name in ("seed", "epochs", "seconds", *metrics)
        table.add_column(
            name.replace("_", " "), justify="right" if numbers else "left", overflow="fold", no_wrap=name in ("key", "finished")
        )
    for run in found:
        values = (f"{run['metrics'][name]:.4f}" if name in run["metrics"] else "-" for name in metrics)
        known = (run["key"][:8], run["target"], run["variant"], str(run["seed"]), run["status"], str(run["epochs"]))
        kept = ("kept" if run["model"] else "" for _ in models)
        table.add_row(*map(Text, known), f"{run['seconds']:.1f}", *values, *kept, run["finished"][:16].replace("T", " "))
    return table


def _everything(run: dict[str, Any]) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False, box=None)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    plain = (
        "key",
        "target",
        "variant",
        "seed",
        "status",
        "error",
        "backend",
        "engine",
        "epochs",
        "best_epoch",
        "seconds",
        "finished",
    )
    for name in plain:
        if run[name] is not None:
            table.add_row(name.replace("_", " "), Text(str(run[name])))
    if run["model"]:
        table.add_row("model", Text(f"kept: keras-dropout runs model {run['key'][:8]} -o model.keras"))
    for name, value in run["metrics"].items():
        table.add_row(name.replace("_", " "), f"{value:.6g}")
    if run["test_losses"]:
        table.add_row("test losses", f"{run['test_losses']['count']} examples")
    for name, values in run["curves"].items():
        table.add_row(
            f"curve {name}".replace("_", " "), ("… " if len(values) > 6 else "") + " ".join(f"{v:.4g}" for v in values[-6:])
        )
    for name in ("versions", "machine"):
        table.add_row(name, Text(", ".join(f"{key} {value}" for key, value in run[name].items())))
    for name, value in run["config"].items():
        text = json.dumps(value)
        table.add_row(f"config {name}".replace("_", " "), Text(text if len(text) <= 300 else f"{text[:300]} … (--json has all)"))
    if run["log"]:
        table.add_row("log", f"{len(run['log'].splitlines())} line(s): --log prints it")
    return table
