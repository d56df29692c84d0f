"""The commands that train: compare and tune."""

import functools
import inspect
import json
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from keras_dropout.commands.options import (
    BACKEND,
    DATA_OPTIONS,
    Data,
    DivideBy,
    ImageSize,
    Length,
    Target,
    Task,
    Text,
    Vocabulary,
    choose_backend,
    complete_target,
    data_options,
    one_of,
    read_seeds,
)
from keras_dropout.commands.output import Working, again, check_report, show, stored_command
from keras_dropout.errors import check_choice, refuse

# What a command does with a study, and not what the study is.
_OF_THE_COMMAND = ("as_json", "quiet", "dry_run", "fail_if")


def compare(
    target: Annotated[
        str | None,
        typer.Argument(
            help="A recipe (fashion-mnist-mlp, digits-mlp), a .keras file, or file.py:function.", autocompletion=complete_target
        ),
    ] = None,
    data: Data = None,
    study: Annotated[str | None, typer.Option(help="A TOML file with all of this; keras-dropout init writes one.")] = None,
    variant: Annotated[
        list[str] | None, typer.Option(help='NAME="SITE=RATE, SITE=Kind(rate, option=…)", or the name of a ready one. Repeatable.')
    ] = None,
    baseline: Annotated[str | None, typer.Option(help="The variant that the others are compared with. Default: none.")] = None,
    seeds: Annotated[
        str | None,
        typer.Option(help="Runs per variant, with the seeds 0, 1, 2, …; auto: more until there are verdicts. Default: 6."),
    ] = None,
    max_seeds: Annotated[int | None, typer.Option(help="With --seeds auto: the most. Default: 30.", show_default=False)] = None,
    margin: Annotated[float | None, typer.Option(help="A smaller difference in test loss does not matter to you.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Default: the recipe's, or 20.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Default: the recipe's, or 32.")] = None,
    optimizer: Annotated[str | None, typer.Option(help="A Keras optimizer, for example adam. Default: the model's.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Default: the model's, or that of --optimizer.")] = None,
    early_stopping: Annotated[
        int | None, typer.Option(help="Epochs to wait for a smaller validation loss; the best epoch is measured.")
    ] = None,
    class_weight: Annotated[str | None, typer.Option(help='balanced, or "CLASS=WEIGHT, …".')] = None,
    from_weights: Annotated[
        bool, typer.Option("--from-weights", help="Fine-tuning: every run starts from the model's own weights.")
    ] = False,
    column: Target = None,
    text: Text = None,
    group: Annotated[str | None, typer.Option(help="Tables: a column; no group is in two parts.")] = None,
    time: Annotated[str | None, typer.Option(help="Tables: a column; the test data are the latest.")] = None,
    weight: Annotated[str | None, typer.Option(help="Tables: a column with the weight of each example in the loss.")] = None,
    test_data: Annotated[str | None, typer.Option(help="Data to test on. Default: a part of --data.")] = None,
    test_split: Annotated[float | None, typer.Option(help="Share of the data to test on. Default: 0.2.")] = None,
    validation_split: Annotated[float | None, typer.Option(help="Share of the rest to validate on. Default: 0.1.")] = None,
    task: Task = None,
    image_size: ImageSize = None,
    divide_by: DivideBy = None,
    vocabulary: Vocabulary = None,
    length: Length = None,
    split: Annotated[
        str | None, typer.Option(help="Recipes: held-out, or as-published (validation examples are trained on too).")
    ] = None,
    data_dir: Annotated[str | None, typer.Option(help="Recipes: folder with the data files. Also: KERAS_DROPOUT_DATA.")] = None,
    backend: Annotated[
        str | None,
        typer.Option(
            help="jax (default; with convolutions the faster of jax and tensorflow), tensorflow or torch.", autocompletion=BACKEND
        ),
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(
            help="compiled (jax only), reference (Keras fit), stacked (jax: many runs at once on a GPU), or auto (default: stacked "
            "where jax has a GPU or TPU, else the faster of the others, by timing).",
            autocompletion=one_of("auto", "compiled", "reference", "stacked"),
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Workers of one thread each. Default: one per core; one with stacked.")
    ] = None,
    on: Annotated[str | None, typer.Option(help="Where workers are: here (default), ray, or ray:HOST:PORT.")] = None,
    checkpoint_every: Annotated[
        int | None, typer.Option(help="Epochs between checkpoints, from which a run that was interrupted goes on.")
    ] = None,
    keep_weights: Annotated[bool, typer.Option("--keep-weights", help="Keep each run's trained model in the ledger.")] = False,
    no_examples: Annotated[
        bool, typer.Option("--no-examples", help="Keep no test examples in the ledger: reports then show none.")
    ] = False,
    samples: Annotated[
        int | None,
        typer.Option(help="Stochastic forward passes on the test data: Monte-Carlo metrics beside the plain ones, for example 50."),
    ] = None,
    ledger: Annotated[str | None, typer.Option(help="SQLite file that keeps every run. Default: keras-dropout.db.")] = None,
    report: Annotated[str | None, typer.Option(help="Write an HTML report to this file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the comparison as JSON on stdout.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and the estimated time; train nothing.")] = False,
    fail_if: Annotated[
        str | None,
        typer.Option(help="worse: exit status 1 if a variant diverges, or is worse in any metric, by more than a --margin."),
    ] = None,
) -> None:
    """Train every variant with every seed, and say which are better than the baseline.

    TARGET is a recipe, which brings its data, or a compiled model of yours with --data. A function may ask for input_shape,
    outputs and vocabulary, which the data tell. Sites are input, hidden, last, all, a class of layers, a layer's name, or a glob.
    Ready variants: none, as-built, hidden, last; of recipes also as-published. What the command line says counts before what
    the study file says. Runs that the ledger has are not trained again; so the same command goes on after an interruption. With
    --keep-weights, runs whose models it lacks are trained once more; keras-dropout runs model takes a model out. With --samples,
    test_nll, test_brier and test_ece (of a regression test_rmse), and test_mc_… of the mean of so many stochastic passes, are
    metrics too; without dropout both are the same.

    The fields of --json: study, variants (placement, schedule, runs, mean and sd of each metric), warnings, timing, and
    comparisons: variant, baseline, metric, difference, interval (95 %, new seeds on these test examples), p (exact sign flips),
    p_adjusted (for all variants), pairs, verdict; effect_size (d_z), share_better (of the seeds), wilcoxon_p and
    wilcoxon_p_adjusted (Holm), interval_new_examples (95 %, new seeds and new test examples; test loss only),
    detectable_difference (shown by as many seeds with 80 % power), pairs_needed (that show one as large as seen, or --margin),
    pairing_gain (unpaired variance over paired), unpaired_seeds (of the same precision), equivalence (with --margin, test loss
    only: margin, interval of 90 %, p, and the probabilities worse, within and better). What does not exist is null.
    docs/statistics.md says what they mean. With --samples also monte_carlo: variant, metric, difference (Monte-Carlo minus plain,
    paired by seed), interval, pairs.

    Examples:
      keras-dropout compare digits-mlp
      keras-dropout compare fashion-mnist-mlp --variant half="hidden=0.5" --seeds 8
      keras-dropout compare model.py:build --data houses.csv --target price --early-stopping 10
    """
    options = dict(locals())
    if fail_if is not None:
        check_choice("--fail-if", fail_if, ("worse",))
    settings = _settings(options)
    target, report = _take_target(settings), settings.pop("report", None)
    with Working("loading Keras, the model and the data", quiet):
        choose_backend(settings.get("backend", "jax"))
        from keras_dropout.bench.study.planning import DEFAULT_LEDGER, check_settings, check_sources, make_plan

        ledger = settings.setdefault("ledger", DEFAULT_LEDGER)
        check_settings(settings)
        check_sources(target, settings.get("data"), settings)
        check_report(report)
        plan = make_plan(target, **settings)
        from keras_dropout.bench.compare import carry_out, so_far
        from keras_dropout.bench.records import BASELINE
    if not quiet:
        _print_notes(plan)
    if dry_run:
        _print_plan(plan, as_json)
        return
    command = stored_command()
    try:
        found = carry_out(plan, quiet=quiet, command=command)
    except KeyboardInterrupt:
        found = so_far(plan, plan.study, plan.known(), command)
        done = len(plan.study.runs()) - found.missing
        if found.results and not as_json:
            show(found)
        print(f"Interrupted: {done} finished run(s) are kept in {ledger}. To go on:\n{again()}", file=sys.stderr)
        raise typer.Exit(130) from None
    if report is not None:
        found.save_report(report)
    if as_json:
        print(json.dumps(found.document(), indent=1, allow_nan=False))
    else:
        show(found)
        if found.timing["model_epochs"]:
            t = found.timing
            print(f"{t['model_epochs']} model-epochs in {t['wall_seconds']:.0f} s on {t['workers']} worker(s), ledger {ledger}")
    if report is not None:
        print(f"Report: {report}", file=sys.stderr)
    _exit_if_failed(found, ledger)
    if fail_if:
        verdicts = [(name, metric, word) for name, by_metric in found.verdicts.items() for metric, word in by_metric.items()]
        failing = [(name, metric) for name, metric, word in verdicts if word == fail_if]
        failing += [(name, "diverged") for name in found.diverged]
        # The model without dropout is in every study: that it is worse than another baseline is what one hopes for.
        if worse := [f"{name} ({what})" for name, what in failing if name != BASELINE]:
            print(f"worse: {', '.join(worse)}", file=sys.stderr)
            raise typer.Exit(1)


def _also_takes(other: Callable, without: tuple[str, ...] = ()) -> Callable[[Callable], Callable]:
    """A command that takes the options of another beside its own; they come as keywords."""

    def extend(own: Callable) -> Callable:
        mine = {name: p for name, p in inspect.signature(own).parameters.items() if p.kind is not p.VAR_KEYWORD}
        theirs = {name: p for name, p in inspect.signature(other).parameters.items() if name not in (*without, *mine)}

        @functools.wraps(own)
        def command(**options: Any) -> None:
            own(**options)

        order = [p.replace(kind=p.KEYWORD_ONLY) for p in (*theirs.values(), *mine.values())]
        command.__signature__ = inspect.Signature(order)  # type: ignore[attr-defined]  # a function may have one: PEP 362
        command.__annotations__ = {p.name: p.annotation for p in order}
        return command

    return extend


@_also_takes(compare, without=("fail_if",))
def tune(
    space: Annotated[
        str | None, typer.Option(help='What is tried: "SITE=LOW:HIGH, SITE=Kind(LOW:HIGH) | linear(LOW:HIGH, 0)".')
    ] = None,
    kind: Annotated[list[str] | None, typer.Option(help="A method to try at each site, in place of --space. Repeatable.")] = None,
    sampler: Annotated[str | None, typer.Option(help="tpe (default), random or grid.")] = None,
    trials: Annotated[int | None, typer.Option(help="Placements that are tried. Default: 18; of a grid all.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the sampler. Default: 0.")] = None,
    budget: Annotated[int | None, typer.Option(help="Model-epochs that the search may cost.")] = None,
    no_halving: Annotated[bool, typer.Option("--no-halving", help="Train every trial to the end.")] = False,
    sweep: Annotated[str | None, typer.Option(help="No search: each rate of SITE=START:STOP:COUNT with each seed.")] = None,
    **options: Any,
) -> None:
    """Search for a placement on validation data, and compare what is found with the baseline on fresh seeds.

    The search tries placements on seeds of its own (1000 to 1002) and sees validation losses only: of each nine, the best three are
    trained beyond half of the epochs, and of all, the best three on two more seeds. The winner, as the variant tuned, is then
    compared on --seeds and the test data. With --sweep, one rate is varied instead, and the losses are given as a smooth curve.

    The other options are those of compare, --keep-weights and --samples for the comparison's runs alone; --variant names what is
    compared with the winner and none, by default the model as it is published or built. In a study file, [space] has a text for
    each site, and [tune] the options above. The same command goes on after an interruption.

    Examples:
      keras-dropout tune digits-mlp
      keras-dropout tune fashion-mnist-mlp --space "input=0:0.2, hidden=0:0.5"
      keras-dropout tune digits-mlp --sweep hidden=0:0.6:13 --report sweep.html
    """
    options |= {"space": space, "sampler": sampler, "trials": trials, "seed": seed, "budget": budget, "sweep": sweep}
    options |= {"kinds": kind or None, "halving": False if no_halving else None}
    as_json, quiet, dry_run = (options[name] for name in ("as_json", "quiet", "dry_run"))
    settings = _settings(options, tuning=True)
    target, report = _take_target(settings), settings.pop("report", None)
    with Working("loading Keras, the model and the data", quiet):
        choose_backend(settings.get("backend", "jax"))
        from keras_dropout.bench.study.planning import DEFAULT_LEDGER, check_sources
        from keras_dropout.bench.tuning.search import check_search, check_study

        ledger = settings.setdefault("ledger", DEFAULT_LEDGER)
        check_study(settings)
        check_search(settings)
        check_sources(target, settings.get("data"), settings)
        check_report(report)
        from keras_dropout.bench.tuning.tune import carry_out_tuning, plan_tuning

        planned = plan_tuning(target, **settings)
    if not quiet:
        _print_notes(planned.plan)
    if dry_run:
        _print_search(planned, as_json) if "sweep" not in settings else _print_plan(planned.plan, as_json)
        return
    command = stored_command()
    try:
        found = carry_out_tuning(planned, quiet=quiet, command=command)
    except KeyboardInterrupt:
        print(f"Interrupted: finished runs are kept in {ledger}. To go on:\n{again()}", file=sys.stderr)
        raise typer.Exit(130) from None
    if report is not None:
        found.save_report(report)
        print(f"Report: {report}", file=sys.stderr)
    if as_json:
        print(json.dumps(found.document(), indent=1, allow_nan=False))
    else:
        show(found)
    _exit_if_failed(found, ledger)


def _settings(options: dict[str, Any], tuning: bool = False) -> dict[str, Any]:
    """What a study is made of: what its file says, and before it what the command line says."""
    from keras_dropout.bench.study import study_file

    said = {name: value for name, value in options.items() if name not in _OF_THE_COMMAND}
    file, variants = said.pop("study"), said.pop("variant") or []
    data = data_options(target=said.pop("column"), **{name: said.pop(name) for name in DATA_OPTIONS})
    said |= {
        "variants": variants or None,
        "seeds": read_seeds(said["seeds"]),
        "class_weight": _class_weight(said["class_weight"]),
        "from_weights": said["from_weights"] or None,
        "keep_weights": said["keep_weights"] or None,
        "keep_examples": False if said.pop("no_examples") else None,
    }
    settings = study_file.read(file, tuning=tuning) if file is not None else {}
    settings |= {name: value for name, value in said.items() if value is not None}
    if data:
        settings["data_options"] = settings.get("data_options", {}) | data
    return settings


def _take_target(settings: dict[str, Any]) -> str:
    if "target" not in settings:
        refuse("there is no target.", "Name a recipe, a .keras file or file.py:function; or --study FILE with a target.")
    return settings.pop("target")


def _print_notes(plan: Any) -> None:
    for note in (*plan.notes, f"engine {plan.engine_reason}") if plan.notes else ():  # a recipe says all by its name
        print(note, file=sys.stderr)


def _exit_if_failed(found: Any, ledger: str) -> None:
    for run, error in found.failed:
        print(f"failed: {run.variant.name}, seed {run.seed}: {error}", file=sys.stderr)
    if found.failed:
        print(f"The other runs are kept in {ledger}. To try the failed ones again:\n{again()}", file=sys.stderr)
        raise typer.Exit(1)


def _class_weight(text: str | None) -> Any:
    if text is None or "=" not in text:
        return text
    from keras_dropout.bench.study.study_file import class_weight

    try:
        weights = {name.strip(): float(weight) for name, _, weight in (each.partition("=") for each in text.split(","))}
    except ValueError:
        refuse(f"--class-weight cannot be read: {text!r}.", 'Write balanced, or "0=1, 1=5".')
    return class_weight("--class-weight", weights)


def _print_plan(plan: Any, as_json: bool) -> None:
    study, known = plan.study, plan.known()
    todo = plan.todo(known, plan.kept())
    again = sum(run.key in known and known[run.key].status == "done" for run in todo)
    runs = {run.key for run in study.runs()}
    with Working("timing a run"):
        seconds = plan.estimate_seconds(todo)
    shown = {
        "target": study.target,
        "variants": {variant.name: variant.placement for variant in study.variants},
        "seeds": list(study.seeds),
        "epochs": study.epochs,
        "workers": plan.workers,
        "runs": len(runs),
        "in_ledger": len(runs) - len(todo) + again,
        "to_train": len(todo),
        "to_train_for_model": again,
        "max_seeds": plan.max_seeds,
        "estimated_seconds": round(seconds, 1),
    }
    if as_json:
        print(json.dumps(shown, indent=1))
        return
    print(
        f"{study.target}: {len(study.variants)} variants x {'at most ' if plan.max_seeds else ''}{len(study.seeds)} seeds, "
        f"{study.epochs} epochs each, {study.split} split"
    )
    for variant in study.variants:
        places = str(variant).partition("=")[2]
        print(f"  {variant.name}: {'as built' if variant.placement is None else places or 'no dropout'}")
    models = f", {again} of them again for their models" if again else ""
    print(
        f"{shown['in_ledger']} of {shown['runs']} runs are in the ledger, {len(todo)} to train on {plan.workers} worker(s){models}"
    )
    print(f"estimated time: {seconds / 60:.1f} minutes" if seconds >= 60 else f"estimated time: {seconds:.0f} s")


def _print_search(search: Any, as_json: bool) -> None:
    shown = search.document()
    if as_json:
        print(json.dumps(shown, indent=1))
        return
    seconds, models = shown["estimated_seconds"], shown["model_epochs"] / search.plan.study.epochs
    print(f"{shown['target']}: {shown['trials']} trials by {shown['sampler']} of {shown['points']} points")
    print(f"  {shown['space']}")
    print(f"the search: {shown['model_epochs']} model-epochs, as many as {models:.1f} models; rungs at epochs {shown['rungs']}")
    print(f"then {', '.join(shown['variants'])} x {len(shown['seeds'])} seeds: {shown['comparison_model_epochs']} model-epochs")
    print(f"estimated time: {seconds / 60:.1f} minutes" if seconds >= 60 else f"estimated time: {seconds:.0f} s")
