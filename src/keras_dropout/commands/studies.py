"""The commands that train: compare and tune."""

import dataclasses
import json
import sys
from typing import Annotated, Any

import typer

from keras_dropout.bench.settings import DEFAULT_LEDGER, CompareSettings, DataOptions, SearchSettings
from keras_dropout.commands.options import Data, choose_backend, complete_target, takes
from keras_dropout.commands.output import again, check_report, exit_if_failed, show, stored_command, working
from keras_dropout.errors import check_choice, refuse

Details = Annotated[bool, typer.Option("--details", help="Also effect sizes, other tests and power.")]
_MOST_SAID = 4  # checkpoints that are named after an interruption


@takes(DataOptions, into="data_options")
@takes(CompareSettings)
def compare(
    data_options: dict[str, Any],
    target: Annotated[
        str | None,
        typer.Argument(
            help="A recipe (fashion-mnist-mlp, digits-mlp, lora-reviews), a .keras file, file.py:function (of a model, or one "
            "that trains: train(run)), or a table of scores.",
            autocompletion=complete_target,
        ),
    ] = None,
    study: Annotated[str | None, typer.Option(help="A TOML file with all of this; keras-dropout init writes one.")] = None,
    variant: Annotated[
        list[str] | None, typer.Option(help='NAME="SITE=RATE, SITE=Kind(rate, option=…)", or the name of a ready one. Repeatable.')
    ] = None,
    data: Data = None,
    report: Annotated[str | None, typer.Option(help="Write an HTML report to this file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the comparison as JSON on stdout.")] = False,
    details: Details = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and the estimated time; train nothing.")] = False,
    fail_if: Annotated[
        str | None,
        typer.Option(
            help="worse: exit status 1 if a variant diverges, or is worse in any metric (with --primary: in that one) by more "
            "than a --margin."
        ),
    ] = None,
    variant_column: Annotated[
        str | None, typer.Option(help="Scores of your own: the column of variants. Default: variant.")
    ] = None,
    seed_column: Annotated[str | None, typer.Option(help="Scores of your own: the column of seeds. Default: seed.")] = None,
    **settings: Any,
) -> None:
    """Train every variant with every seed, and say which are better than the baseline.

    TARGET is a recipe, which brings its data, or a compiled model of yours with --data. A function may ask for input_shape,
    outputs and vocabulary, which the data tell. Sites are input, hidden, last, all, a class of layers, a layer's name, or a glob.
    Ready variants: none, as-built, hidden, last; of recipes also as-published. What the command line says counts before what
    the study file says. Runs that the ledger has are not trained again; so the same command goes on after an interruption.

    If TARGET is a function with a parameter run, file.py:train, it trains by itself: it is called with each variant and seed,
    and returns metrics. A variant gives rates to the names that it asks for. See docs/how-to/own-training.md.

    If TARGET is a table of scores (.csv, .tsv or .parquet with the columns variant, seed and one for each metric) and there is no
    --data, nothing is trained: its runs are compared. See docs/how-to/own-scores.md.

    Examples:
      keras-dropout compare digits-mlp
      keras-dropout compare fashion-mnist-mlp --variant half="hidden=0.5" --seeds 8
      keras-dropout compare model.py:build --data houses.csv --target price --early-stopping 10
      keras-dropout compare train.py:train --variant half="hidden=0.5"
      keras-dropout compare scores.csv --baseline plain

    With --seeds auto, seeds go to the variants that are not decided yet, until each is shown to be better or worse, or cannot win.

    With --samples, test_nll, test_brier and test_ece (of a regression test_rmse), and test_mc_… of the mean of so many stochastic
    passes, are metrics too; without dropout both are the same. test_scaled_nll is the NLL after temperature scaling, fitted on
    validation data that were not trained on: what dropout gains there is not calibration alone.

    With --keep-weights, runs whose models the ledger lacks are trained once more; keras-dropout runs model takes a model out.

    --robust asks again in six other worlds, each a study of its own in the ledger with one training setting changed, and says in
    how many the verdict holds; the verdict and --fail-if are of the study as asked. Its --json has that as worlds: name, changed
    (the settings), note, study (its number in the ledger), left_out (why it is not counted), failed (runs), timing, and
    comparisons: those of the deciding metric, with stands: holds, opposite, not shown, or null if nothing is shown as asked.

    --dry-run says what the seeds can show, by the spread of runs of this target and data in the ledger, and with --power how
    many seeds a difference takes. Its --json has that as power, which is null if the ledger has no such runs: metric, study,
    epochs, variants, pairs and sd (of the differences in that study), rows (tested together), detectable_difference,
    wanted_difference and pairs_needed, with their intervals. It says which look at the question the study will be.

    The fields of --json: study, variants (placement, schedule, training if it has settings of its own, runs, mean and sd of each
    metric), warnings, timing, and comparisons: variant, baseline, metric, higher_is_better, difference, interval (95 %, new seeds
    on these test examples), p (exact sign flips), p_adjusted (for all variants and metrics), pairs (of mean and interval), seeds
    (whose runs both ended, which the verdict counts), diverged and baseline_diverged (of them), verdict; effect_size (d_z),
    resolution (a smaller difference is none), share_better and share_worse (of the seeds), contrary (seed and difference of a pair
    that contradicts, far from all others), wilcoxon_p and wilcoxon_p_adjusted (Holm), interval_new_examples (95 %, new seeds and
    new test examples; test loss only), detectable_difference (shown by as many seeds with 80 % power), pairs_needed (that show
    wanted_difference: --power, else --margin, else as large as seen), pairs_needed_interval (from the 95 % interval of the spread),
    anytime_p and anytime_p_adjusted (leading metric only; they hold however often one looks), pairing_gain (unpaired variance over
    paired), pairing_gain_interval (95 %), unpaired_seeds (of the same precision), equivalence (with --margin, of the test loss or
    the --primary metric: margin, interval of 90 %, p, p_adjusted, and the probabilities worse, within and better). What does not
    exist is null. docs/statistics.md says what they mean.

    looks: earlier studies in the ledger that asked the same question on fewer or other seeds (number, started, seeds, variants,
    max_seeds); chance_of_looks: of any false verdict in all of them together; placements_judged: how many this test part has
    judged. With --seeds auto each variant has race: seeds (that it was judged by) and stopped ("decided", "cannot win" or "all
    seeds used"). unfinished_curves: variants whose validation loss still falls at the last epoch. With --samples also monte_carlo:
    variant, metric, difference (Monte-Carlo minus plain, paired by seed), interval, pairs.

    Of a training function study has function: name, uses (hashes of files), rising and falling (metrics whose better side was
    given); epochs is null without --epochs, and estimated_seconds of --dry-run before its first run.

    With --resample-split each seed divides the data anew: study has divisions, and overlap (test by training examples); interval
    and detectable_difference allow for the overlap, interval_new_examples is null, and comparisons have interval_without_overlap,
    p_overlap (adjusted), detectable_floor (no number of seeds shows less) and variance (of the loss: total, examples, seed,
    division, whether that is floored at 0, fixed_seeds).
    """
    if fail_if is not None:
        check_choice("--fail-if", fail_if, ("worse",))
    target, report, settings = _asked(settings, data_options, study, target=target, variants=variant, data=data, report=report)
    columns = {"variant_column": variant_column, "seed_column": seed_column}
    columns = {name: value for name, value in columns.items() if value}
    if (found := _compared_scores(target, settings, columns, dry_run)) is not None:
        if report is not None:
            check_report(report)
            found.save_report(report)
        _print_found(found, report, as_json, details)
        _exit_if_worse(found, fail_if)
        return
    with working("loading Keras, the model and the data", quiet):
        choose_backend(settings.get("backend", "jax"))
        from keras_dropout.bench.study.planning import check_settings, check_sources
        from keras_dropout.bench.study.training_function import is_training_function

        ledger = settings.setdefault("ledger", DEFAULT_LEDGER)
        if not is_training_function(target, settings.get("data")):
            check_settings(settings)
            check_sources(target, settings.get("data"), settings)
        check_report(report)
        from keras_dropout.bench.compare import carry_out, make_plan, so_far
        from keras_dropout.bench.ledger.looks import asked_before

        plan = make_plan(target, **settings)
    asked = asked_before(plan.ledger, plan.study, plan.settings["max_seeds"])
    if not quiet:
        _print_notes(plan, asked)
    if dry_run:
        _print_plan(plan, asked, as_json)
        return
    command = stored_command()
    try:
        found = carry_out(plan, quiet=quiet, command=command)
    except KeyboardInterrupt:
        found = so_far(plan, plan.study, plan.known(), command)
        done = len(plan.study.runs()) - found.missing + _done_in_other_worlds(plan)
        if found.results and not as_json:
            show(found.in_race())
        kept = f"{done} finished run(s){_checkpoints(plan)} are kept in {ledger}"
        print(f"Interrupted: {kept}. To go on:\n{again()}", file=sys.stderr)
        raise typer.Exit(130) from None
    if report is not None:
        found.save_report(report)
    _print_found(found, report, as_json, details)
    exit_if_failed(found, ledger)
    _exit_if_worlds_failed(found, ledger)
    _exit_if_worse(found, fail_if)


def _compared_scores(target: str, settings: dict[str, Any], columns: dict[str, Any], dry_run: bool) -> Any:
    """Return the comparison of a table of scores; None for a target that is to be trained."""
    from keras_dropout.bench.own_scores import compare_scores, is_scores

    if not is_scores(target, settings.get("data")):
        if columns:
            option = f"--{next(iter(columns)).replace('_', '-')}"
            refuse(
                f"{option} is for a table of scores; got the target {target}.",
                f"Name a .csv, .tsv or .parquet file, or leave {option} out.",
            )
        return None
    shared = ("baseline", "margin", "primary", "power", "higher_is_better", "lower_is_better")
    taken = {name: settings.pop(name) for name in shared if name in settings}
    if others := [*settings.pop("data_options", ()), *settings, *(["dry_run"] if dry_run else [])]:
        option = f"--{others[0].replace('_', '-').replace('variants', 'variant')}"
        refuse(
            f"{option} says how runs are trained, and {target} is a table of scores, of which nothing is trained.",
            f"Leave {option} out; or name a model as the target, with --data {target} if these are its data.",
        )
    found = compare_scores(target, **taken, **columns)
    found.command = stored_command()
    return found


def _print_found(found: Any, report: str | None, as_json: bool, details: bool) -> None:
    if as_json:
        print(json.dumps(found.document(), indent=1, allow_nan=False))
    else:
        if (t := found.timing).get("model_epochs"):
            print(
                f"{t['model_epochs']} model-epochs in {t['wall_seconds']:.0f} s on {t['workers']} worker(s), ledger {found.ledger}"
            )
        if worlds := [world["timing"] for world in found.more.get("worlds", ()) if world["timing"]]:
            epochs, seconds = (sum(each[name] for each in worlds) for name in ("model_epochs", "wall_seconds"))
            print(f"all worlds together: {epochs} model-epochs in {seconds:.0f} s")
        show(found.with_details() if details else found)
    if report is not None:
        print(f"Report: {report}", file=sys.stderr)


def _exit_if_worse(found: Any, fail_if: str | None) -> None:
    """Exit with status 1 if a variant is worse or diverged.

    The model without dropout is in every study: that it is worse than another baseline is what one hopes for.
    """
    if fail_if is None:
        return
    from keras_dropout.bench.records import BASELINE

    if worse := [f"{name} ({what})" for name, what in found.harmful() if name != BASELINE]:
        print(f"worse: {', '.join(worse)}", file=sys.stderr)
        raise typer.Exit(1)


@takes(DataOptions, into="data_options")
@takes(SearchSettings)
def tune(
    data_options: dict[str, Any],
    target: Annotated[
        str | None, typer.Argument(help="A recipe, a .keras file, or file.py:function.", autocompletion=complete_target)
    ] = None,
    study: Annotated[str | None, typer.Option(help="A TOML file with all of this; keras-dropout init writes one.")] = None,
    variant: Annotated[list[str] | None, typer.Option(help="What is compared with the winner, as in compare. Repeatable.")] = None,
    data: Data = None,
    report: Annotated[str | None, typer.Option(help="Write an HTML report to this file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was found as JSON on stdout.")] = False,
    details: Details = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and the estimated time; train nothing.")] = False,
    **settings: Any,
) -> None:
    """Search for a placement on validation data, and compare what is found with the baseline on fresh seeds.

    The search tries placements on seeds of its own (1000 to 1002) and sees validation losses only: of each nine, the best three are
    trained beyond half of the epochs, and of all, the best three on two more seeds. The winner, as the variant tuned, is then
    compared on --seeds and the test data. With --tune-baseline, the model without dropout has as many trials of its training, and
    the winner is compared with what they find, none, tuned. With --sweep, one rate is varied instead, and the losses are given as a
    smooth curve.

    The other options are those of compare, --keep-weights and --samples for the comparison's runs alone; --variant names what is
    compared with the winner and none, by default the model as it is published or built. In a study file, [space] has a text for
    each site, and [tune] the options above. The same command goes on after an interruption.

    Examples:
      keras-dropout tune digits-mlp
      keras-dropout tune fashion-mnist-mlp --space "input=0:0.2, hidden=0:0.5"
      keras-dropout tune digits-mlp --sweep hidden=0:0.6:13 --report sweep.html
    """
    target, report, settings = _asked(
        settings, data_options, study, tuning=True, target=target, variants=variant, data=data, report=report
    )
    with working("loading Keras, the model and the data", quiet):
        choose_backend(settings.get("backend", "jax"))
        from keras_dropout.bench.ledger.looks import asked_before
        from keras_dropout.bench.study.planning import check_sources
        from keras_dropout.bench.study.training_function import refuse_in_search
        from keras_dropout.bench.tuning.search import check_search, check_study

        refuse_in_search(target, settings.get("data"))
        ledger = settings.setdefault("ledger", DEFAULT_LEDGER)
        check_study(settings)
        check_search(settings)
        check_sources(target, settings.get("data"), settings)
        check_report(report)
        from keras_dropout.bench.tuning.tune import carry_out_tuning, plan_tuning

        planned = plan_tuning(target, **settings)
    asked = asked_before(planned.plan.ledger, planned.plan.study, planned.plan.settings["max_seeds"])
    if not quiet:
        _print_notes(planned.plan, asked)
    if dry_run:
        _print_search(planned, asked, as_json) if "sweep" not in settings else _print_plan(planned.plan, asked, as_json)
        return
    command = stored_command()
    try:
        found = carry_out_tuning(planned, quiet=quiet, command=command)
    except KeyboardInterrupt:
        print(f"Interrupted: finished runs and checkpoints are kept in {ledger}. To go on:\n{again()}", file=sys.stderr)
        raise typer.Exit(130) from None
    if report is not None:
        found.save_report(report)
        print(f"Report: {report}", file=sys.stderr)
    if as_json:
        print(json.dumps(found.document(), indent=1, allow_nan=False))
    else:
        show(dataclasses.replace(found, comparison=found.comparison.with_details()) if details else found)
    exit_if_failed(found, ledger)


def _asked(
    said: dict[str, Any], data_options: dict[str, Any], study: str | None, tuning: bool = False, **more: Any
) -> tuple[str, str | None, dict[str, Any]]:
    """The target, the report and the settings: what the study file says, and before it what the command line says."""
    from keras_dropout.bench.study import study_file

    settings = study_file.read(study, tuning=tuning) if study is not None else {}
    settings |= said | {name: value for name, value in more.items() if value not in (None, [])}
    if data_options:
        settings["data_options"] = settings.get("data_options", {}) | data_options
    if "target" not in settings:
        refuse("there is no target.", "Name a recipe, a .keras file or file.py:function; or --study FILE with a target.")
    return settings.pop("target"), settings.pop("report", None), settings


def _print_notes(plan: Any, asked: Any) -> None:
    from keras_dropout.bench.report.verdict import asked_sentences

    for note in (*plan.notes, f"engine {plan.engine_reason}") if plan.notes else ():  # a recipe says all by its name
        print(note, file=sys.stderr)
    for sentence in asked_sentences([look.document() for look in asked.looks], asked.placements_judged, len(asked.placements)):
        print(sentence, file=sys.stderr)


def _done_in_other_worlds(plan: Any) -> int:
    """Return how many runs the ledger has of a plan's other worlds."""
    from keras_dropout.bench import robustness

    found = robustness.worlds(plan) if plan.settings["robust"] else []
    return sum(len(world.plan.known()) for world in found if world.plan)


def _checkpoints(plan: Any) -> str:
    """Say from which epochs the unfinished runs of a plan go on."""
    from keras_dropout.bench.ledger.lookup import in_progress

    runs = {run.key: run for run in plan.study.runs()}
    said = [f"{runs[key].variant.name}, seed {runs[key].seed}: {epoch}" for key, epoch in in_progress(plan.ledger, runs).items()]
    more = f" and {len(said) - _MOST_SAID} more" if len(said) > _MOST_SAID else ""
    shown = "; ".join(said[:_MOST_SAID]) + more
    return f" and {len(said)} checkpoint(s) of unfinished runs (epochs of {plan.study.epochs}: {shown})" if said else ""


def _exit_if_worlds_failed(found: Any, ledger: str) -> None:
    failed = [
        f"{world['failed']} run(s) of {world['name']} (study {world['study']})"
        for world in found.more.get("worlds", ())
        if world["failed"]
    ]
    if failed:
        print(f"failed: {', '.join(failed)}. The other runs are kept in {ledger}. To try again:\n{again()}", file=sys.stderr)
        raise typer.Exit(1)


def _print_plan(plan: Any, asked: Any, as_json: bool) -> None:
    from keras_dropout.bench import robustness
    from keras_dropout.bench.compare import so_far
    from keras_dropout.bench.forecast import forecast, forecast_sentences
    from keras_dropout.bench.records import FunctionStudy

    known, worlds = plan.known(), robustness.worlds(plan) if plan.settings["robust"] else []
    study = plan.at_most(so_far(plan, plan.study, known, "").race)
    plan = dataclasses.replace(plan, study=study)
    todo = plan.todo(known, plan.kept())
    again = sum(run.key in known and known[run.key].status == "done" for run in todo)
    runs = {run.key for run in study.runs()}
    costs = robustness.costs(plan, worlds)
    with working("timing a run"):
        seconds = _estimated([plan, *(world.plan for world in worlds)], costs)
    told = forecast(plan)
    shown = {
        "target": study.target,
        "variants": {variant.name: variant.placement for variant in study.variants},
        "seeds": list(study.seeds),
        "epochs": study.epochs or None,
        "workers": plan.workers,
        "runs": len(runs),
        "in_ledger": len(runs) - len(todo) + again,
        "to_train": len(todo),
        "to_train_for_model": again,
        "max_seeds": plan.settings["max_seeds"],
        "estimated_seconds": None if seconds is None else round(seconds, 1),
        "power": told,
        **_asked_before(asked),
        **({} if study.divisions is None else {"resample_split": True}),
    }
    if worlds:
        shown["worlds"] = costs
    if as_json:
        print(json.dumps(shown, indent=1))
        return
    most = "at most " if shown["max_seeds"] else ""
    trained = f"{study.epochs} epochs each, {study.split if study.divisions is None else 'for each seed a new'} split"
    if isinstance(study, FunctionStudy):
        trained = "trained by the function" + (f", {study.epochs} epochs each" if study.epochs else "")
    print(f"{study.target}: {len(study.variants)} variants x {most}{len(study.seeds)} seeds, {trained}")
    for variant in study.variants:
        places = str(variant).partition("=")[2]
        print(f"  {variant.name}: {'as built' if variant.placement is None else places or 'no dropout'}")
    models = f", {again} of them again for their models" if again else ""
    print(
        f"{shown['in_ledger']} of {shown['runs']} runs are in the ledger, {len(todo)} to train on {plan.workers} worker(s){models}"
    )
    for line in robustness.cost_sentences(costs) if worlds else ():
        print(line)
    if seconds is None:
        print("the time is not known before the ledger has a run of this function")
    else:
        print(f"estimated time: {seconds / 60:.1f} minutes" if seconds >= 60 else f"estimated time: {seconds:.0f} s")
    for sentence in forecast_sentences(len(study.seeds), told):
        print(sentence)


def _asked_before(asked: Any) -> dict[str, Any]:
    """Return the fields of a plan that say what the ledger knows of its question."""
    return {"looks": [look.document() for look in asked.looks], "placements_judged": asked.placements_judged}


def _estimated(plans: Any, costs: Any) -> float | None:
    """Estimate the seconds of a plan and those of its worlds, from a short training in the first that has runs left to train.

    The time of a training function is the mean of its runs in the ledger; None if there is none.
    """
    from keras_dropout.bench.execution.timing import estimate_seconds
    from keras_dropout.bench.records import FunctionStudy

    if isinstance(plans[0].study, FunctionStudy):
        known, left = plans[0].known(), len(plans[0].todo(plans[0].known()))
        each = [result.seconds for result in known.values() if result.status == "done"]
        return 0.0 if not left else None if not each else sum(each) / len(each) * -(-left // plans[0].workers)
    for plan, cost in zip(plans, costs):
        if cost["to_train"]:
            seconds = estimate_seconds(plan, plan.todo(plan.known(), plan.kept()))
            return seconds * sum(each["model_epochs"] for each in costs) / cost["model_epochs"]
    return 0.0


def _print_search(search: Any, asked: Any, as_json: bool) -> None:
    from keras_dropout.bench.forecast import forecast, forecast_sentences

    told = forecast(search.plan, len(search.plan.study.variants) + bool(search.baseline))  # the winners are more
    shown = search.document() | {"power": told} | _asked_before(asked)
    if as_json:
        print(json.dumps(shown, indent=1))
        return
    seconds, models = shown["estimated_seconds"], shown["model_epochs"] / search.plan.study.epochs
    print(f"{shown['target']}: {shown['trials']} trials by {shown['sampler']} of {shown['points']} points")
    print(f"  {shown['space']}")
    if baseline := shown["baseline"]:
        print(f"none, tuned: {shown['trials']} trials of {baseline['points']} points")
        print(f"  {baseline['space']}")
    print(f"the search: {shown['model_epochs']} model-epochs, as many as {models:.1f} models; rungs at epochs {shown['rungs']}")
    print(f"then {', '.join(shown['variants'])} x {len(shown['seeds'])} seeds: {shown['comparison_model_epochs']} model-epochs")
    print(f"estimated time: {seconds / 60:.1f} minutes" if seconds >= 60 else f"estimated time: {seconds:.0f} s")
    for sentence in forecast_sentences(len(shown["seeds"]), told):
        print(sentence)
