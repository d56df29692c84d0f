"""The command: parses, calls one function, prints. Data go to stdout, everything else to stderr."""

import json
import os
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from keras_dropout import __version__
from keras_dropout.errors import BadInput, refuse

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
_Model = Annotated[str, typer.Argument(help="A .keras file, or file.py:function.")]
_Backend = Annotated[str, typer.Option(help="jax, tensorflow or torch.")]
_UsageError: type = typer.BadParameter.__mro__[1]  # what typer raises for a bad command line; it has no public name there


@app.callback(invoke_without_command=True)
def _keras_dropout(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Whether, where and how much dropout a model wants, with proof."""
    if version:
        print(__version__)
        raise typer.Exit


@app.command()
def compare(
    target: Annotated[str, typer.Argument(help="A recipe: fashion-mnist-mlp or digits-mlp.")],
    variant: Annotated[
        list[str] | None, typer.Option(help='NAME="SITE=RATE, SITE=Kind(rate, option=…)", or the name of a ready one. Repeatable.')
    ] = None,
    baseline: Annotated[str, typer.Option(help="The variant that the others are compared with.")] = "none",
    seeds: Annotated[int, typer.Option(help="Runs per variant, with the seeds 0, 1, 2, …")] = 6,
    epochs: Annotated[int | None, typer.Option(help="Default: the recipe's.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Default: the recipe's.")] = None,
    optimizer: Annotated[str | None, typer.Option(help="A Keras optimizer, for example adam. Default: the recipe's.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Default: the recipe's, or that of --optimizer.")] = None,
    split: Annotated[str, typer.Option(help="held-out, or as-published (validation examples are trained on too).")] = "held-out",
    data_dir: Annotated[str | None, typer.Option(help="Folder with the data files. Also: KERAS_DROPOUT_DATA.")] = None,
    backend: _Backend = "jax",
    engine: Annotated[str, typer.Option(help="auto, compiled (jax only) or reference (Keras fit).")] = "auto",
    workers: Annotated[int | None, typer.Option(help="Processes of one thread each. Default: one per core.")] = None,
    ledger: Annotated[str, typer.Option(help="SQLite file that keeps every finished run.")] = "keras-dropout.db",
    report: Annotated[str | None, typer.Option(help="Write an HTML report to this file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the comparison as JSON on stdout.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and the estimated time; train nothing.")] = False,
) -> None:
    """Train every variant with every seed, and say which are better than the baseline.

    Sites are input, hidden, last, all, a layer's name, or a glob. Ready variants: none, as-published, hidden, last.
    Runs that the ledger has are not trained again; so the same command goes on after an interruption.

    Examples: keras-dropout compare digits-mlp · keras-dropout compare fashion-mnist-mlp --variant half="hidden=0.5" --seeds 8
    """
    _choose_backend(backend)
    from keras_dropout.bench.comparison import Comparison, carry_out, check_report_path
    from keras_dropout.bench.planning import make_plan
    from keras_dropout.bench.records import Variant

    if report is not None:
        check_report_path(report)
    plan = make_plan(
        target,
        variants=[Variant.parse(text) if "=" in text else text for text in variant or []],
        baseline=baseline,
        seeds=seeds,
        epochs=epochs,
        batch_size=batch_size,
        optimizer=optimizer,
        learning_rate=learning_rate,
        split=split,
        data_dir=data_dir,
        backend=backend,
        engine=engine,
        workers=workers,
        ledger=ledger,
    )
    if dry_run:
        _print_plan(plan, as_json)
        return
    command = shlex.join(["keras-dropout", *sys.argv[1:]])
    try:
        found = carry_out(plan, quiet=quiet, command=command)
    except KeyboardInterrupt:
        found = Comparison(plan.study, plan.known(), command=command)
        done = len(plan.study.runs()) - found.missing
        if found.results and not as_json:
            _print(found)
        print(f"Interrupted: {done} finished run(s) are kept in {ledger}. To go on:\n{command}", file=sys.stderr)
        raise typer.Exit(130) from None
    if report is not None:
        found.save_report(report)
    if as_json:
        print(json.dumps(found.document(), indent=1, allow_nan=False))
    else:
        _print(found)
        if found.timing["model_epochs"]:
            t = found.timing
            print(f"{t['model_epochs']} model-epochs in {t['wall_seconds']:.0f} s on {t['workers']} worker(s), ledger {ledger}")
    if report is not None:
        print(f"Report: {report}", file=sys.stderr)
    for run, error in found.failed:
        print(f"failed: {run.variant.name}, seed {run.seed}: {error}", file=sys.stderr)
    if found.failed:
        print(f"The other runs are kept in {ledger}. To try the failed ones again:\n{command}", file=sys.stderr)
        raise typer.Exit(1)


@app.command()
def sites(
    model: _Model,
    backend: _Backend = "jax",
    as_json: Annotated[bool, typer.Option("--json", help="Print a list of objects on stdout.")] = False,
) -> None:
    """Show every place in a model where dropout is or could go, in the order of the data.

    The fields of --json: name, kind (of layer), group (input, hidden, output, normalisation), last (feeds an output), shape
    (without the batch), dtype, parameters, behind (the activations and normalisations that dropout is put behind), dropout (what
    there is: layer, kind, rate), methods (those of the catalogue that fit).

    Examples: keras-dropout sites model.keras · keras-dropout sites train.py:build_model --json
    """
    _choose_backend(backend)
    from keras_dropout import placement
    from keras_dropout.targets import load_model

    found = placement.sites(load_model(model))
    if as_json:
        print(json.dumps([site.document() for site in found], indent=1))
    else:
        _print(_sites_table(found))


@app.command()
def place(
    model: _Model,
    put: Annotated[list[str] | None, typer.Option(help='"SITE=RATE, SITE=Kind(rate, option=…)". Repeatable.')] = None,
    strip: Annotated[bool, typer.Option("--strip", help="Put nothing: only take out what there is.")] = False,
    output: Annotated[str, typer.Option("--output", "-o", help="The .keras file to write.")] = "",
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
    backend: _Backend = "jax",
) -> None:
    """Write a model with other dropout: the same weights, the same predictions.

    What dropout there is, is taken out first: a placement describes a model completely. Compile settings and the state of the
    optimizer are kept.

    Examples: keras-dropout place model.keras --put "hidden=0.2, input=0.1" -o new.keras ·
    keras-dropout place model.keras --strip -o bare.keras
    """
    from keras_dropout.bench.records import Variant

    if not put and not strip:
        refuse("nothing to put.", 'Write --put "hidden=0.2", or --strip to take out the dropout there is.')
    if put and strip:
        refuse("--put and --strip together.", "--put takes out what there is by itself: leave --strip out.")
    placement = dict(Variant.parse(f"put={', '.join(put)}").placement) if put else {}
    path = _output_path(output, ".keras", force)
    _choose_backend(backend)
    from keras_dropout import placement as placing
    from keras_dropout.targets import load_model

    old = load_model(model)
    new = placing.place(old, placement)
    new.save(path)
    print(path)
    _print(_sites_table(placing.sites(new)), file=sys.stderr)


@app.command()
def layers(
    name: Annotated[str | None, typer.Argument(help="One method, in full.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a list of objects on stdout.")] = False,
) -> None:
    """List every dropout method of the library, or show one in full.

    The fields of --json: name, group, summary, reference, differs (from the paper and from other code), and example (a call, with
    the library's names and keras), input_shape and input_dtype (a batch that it accepts): null for what is no layer.

    Examples: keras-dropout layers · keras-dropout layers DropBlock2D
    """
    os.environ["KERAS_BACKEND"] = "numpy"  # to read docstrings, no framework need be installed
    from keras_dropout import catalogue

    shown = catalogue.methods() if name is None else {name: catalogue.method(name)}
    if as_json:
        print(json.dumps([method.document() for method in shown.values()], indent=1))
    elif name is not None:
        print(shown[name])
    else:
        width = max(map(len, shown))
        for group in dict.fromkeys(method.group for method in shown.values()):
            print(catalogue.title(group))
            print(*(f"  {m.name:{width}}  {m.summary}" for m in shown.values() if m.group == group), sep="\n")


def _choose_backend(backend: str) -> None:
    from keras_dropout.bench.execution import check_backend

    os.environ["KERAS_BACKEND"] = check_backend(backend)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # Keras loads TensorFlow where it is installed; this keeps it silent


def _output_path(path: str, ending: str, force: bool) -> Path:
    """Refuse a file that cannot be written, before anything is done."""
    if not path.endswith(ending):
        refuse(f"the output must be a {ending} file; got {path!r}.", f"For example: -o new{ending}")
    found = Path(path)
    if found.exists() and not force:
        refuse(f"{path} is there already.", "Choose another -o, or write over it with --force.")
    if not found.parent.is_dir() or not os.access(found.parent, os.W_OK):
        refuse(f"{path} cannot be written there.", "Name a file in a folder that exists and that you can write to.")
    return found


def _sites_table(found: Any) -> Any:
    """The sites as a tree, what is in a nested model set in below its name; then which methods fit where."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for name in ("site", "layer", "group", "shape", "parameters", "dropout", "fits"):
        table.add_column(name, justify="right" if name == "parameters" else "left", overflow="fold")
    fits = {methods: number for number, methods in enumerate(dict.fromkeys(site.methods for site in found), 1)}
    above: list[str] = []
    for site in found:
        *models, name = site.name.split("/")
        for depth, model in enumerate(models):
            if above[: depth + 1] != models[: depth + 1]:
                table.add_row(Text(f"{'  ' * depth}{model}/", style="bold"))
        above = models
        dropout = ", ".join(d["kind"] + ("" if d["rate"] is None else f" {d['rate']:g}") for d in site.dropout)
        group = "hidden, last" if site.last else site.group
        shape = " x ".join("?" if size is None else str(size) for size in site.shape)
        cells = (f"{'  ' * len(models)}{name}", site.kind, group, shape, f"{site.parameters:,}", dropout)
        table.add_row(*map(Text, cells), str(fits[site.methods]))
    return Group(table, *(Text(f"fits {number}: {', '.join(methods) or 'none'}") for methods, number in fits.items()))


def _print(found: Any, file: Any = None) -> None:
    from rich.console import Console

    console = Console(file=file)
    # A pipe has no width of its own: wide enough that no cell is cut.
    (console if console.is_terminal else Console(width=120, file=file)).print(found)


def _print_plan(plan: Any, as_json: bool) -> None:
    study, known = plan.study, plan.known()
    todo = plan.todo(known)
    runs = {run.key for run in study.runs()}
    seconds = plan.estimate_seconds(todo)
    shown = {
        "target": study.target,
        "variants": {variant.name: variant.placement for variant in study.variants},
        "seeds": list(study.seeds),
        "epochs": study.epochs,
        "workers": plan.workers,
        "runs": len(runs),
        "in_ledger": len(runs) - len(todo),
        "to_train": len(todo),
        "estimated_seconds": round(seconds, 1),
    }
    if as_json:
        print(json.dumps(shown, indent=1))
        return
    print(
        f"{study.target}: {len(study.variants)} variants x {len(study.seeds)} seeds, "
        f"{study.epochs} epochs each, {study.split} split"
    )
    for variant in study.variants:
        places = ", ".join(f"{site}={spec['kind']}({spec['rate']})" for site, spec in (variant.placement or {}).items())
        print(f"  {variant.name}: {'as built' if variant.placement is None else places or 'no dropout'}")
    print(
        f"{shown['in_ledger']} of {shown['runs']} runs are in the ledger, {shown['to_train']} to train on {plan.workers} worker(s)"
    )
    print(f"estimated time: {seconds / 60:.1f} minutes" if seconds >= 60 else f"estimated time: {seconds:.0f} s")


def main() -> None:
    """Run the command; bad input is two lines on stderr and exit status 2, without a traceback."""
    try:
        status = app(sys.argv[1:] or ["--help"], standalone_mode=False)
    except BadInput as error:
        print(f"keras-dropout: {error}", file=sys.stderr)
        sys.exit(2)
    except _UsageError as error:
        try:
            refuse(error.format_message(), "See keras-dropout --help, or keras-dropout compare --help.")
        except BadInput as shown:
            print(f"keras-dropout: {shown}", file=sys.stderr)
        sys.exit(2)
    except (KeyboardInterrupt, typer.Abort):
        print("Interrupted: nothing was started.", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output has gone, as in `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(0)
    sys.exit(status if isinstance(status, int) else 0)


if __name__ == "__main__":
    main()
