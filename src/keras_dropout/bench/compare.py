"""The public `compare`: plan the study, train the missing runs, compare."""

import dataclasses
import shlex
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Unpack

from rich.console import Group

from keras_dropout.bench import robustness
from keras_dropout.bench.comparison import Comparison
from keras_dropout.bench.data.example_store import shown
from keras_dropout.bench.execution.engine_choice import choose_engine
from keras_dropout.bench.execution.machine import machine, versions
from keras_dropout.bench.execution.progress import Display
from keras_dropout.bench.execution.scheduler import Execution, count_cores
from keras_dropout.bench.ledger import trackers
from keras_dropout.bench.ledger.schema import NotStored, refusing
from keras_dropout.bench.ledger.store import Ledger
from keras_dropout.bench.racing import Race
from keras_dropout.bench.records import FunctionStudy, Result, Study, Variant
from keras_dropout.bench.report import tables
from keras_dropout.bench.report.page import check_report_path
from keras_dropout.bench.report.shown_comparison import ShownComparison
from keras_dropout.bench.settings import CompareSettings, Settings, rows
from keras_dropout.bench.study.planning import (
    Plan,
    check_names,
    check_settings,
    check_sources,
    leaves_target_unchanged,
    plan_study,
    without_random_numbers,
)
from keras_dropout.bench.study.training_function import is_training_function, plan_function
from keras_dropout.errors import check_path, first_line, refuse


def so_far(plan: Plan, study: Study, results: Mapping[str, Result], command: str) -> ShownComparison:
    """Return the comparison of the results that a plan's study has so far."""
    return ShownComparison(
        study,
        dict(results),
        command=command,
        engine_reason=plan.engine_reason,
        notes=plan.notes,
        max_seeds=plan.settings["max_seeds"],
        margin=plan.settings["margin"],
        primary=plan.settings["primary"],
        power=plan.settings["power"],
        ledger=plan.ledger,
    )


def check_primary(primary: str, metrics: Sequence[str]) -> None:
    """Refuse a primary metric that is not among the metrics of a study, as far as they are known."""
    if metrics and primary not in metrics:
        refuse(f"the study has no metric {primary}.", f"Use one of {', '.join(metrics)}.")


def check_metrics(found: Comparison) -> None:
    """Refuse a primary metric that the runs lack; and a training function's metric whose better side nobody said."""
    if found.primary is not None:
        check_primary(found.primary, found.metrics)
    if isinstance(found.study, FunctionStudy):
        for metric in found.metrics:
            if found.study.direction(metric) is None:
                quoted = shlex.quote(metric)
                refuse(
                    f"whether a higher or a lower {metric!r} is better is not known.",
                    f"Use --higher-is-better {quoted} or --lower-is-better {quoted}; in Python higher_is_better=[{metric!r}]. "
                    "The runs that ended are kept.",
                )


@leaves_target_unchanged
@without_random_numbers()
def make_plan(target: Any, data: Any = None, *, variants: Any = None, **settings: Unpack[CompareSettings]) -> Plan:
    """Plan a study, and choose its engine, which may time short trainings. A training function has no engine."""
    if is_training_function(target, data):
        plan = plan_function(target, data, variants=variants, **settings)
        return dataclasses.replace(plan, workers=plan.settings["workers"] or count_cores(plan.settings["on"]))
    asked = check_settings({**settings, "variants": variants})
    check_sources(target, data, asked)
    cores = count_cores(asked["on"])
    of_model: Any = {name: value for name, value in settings.items() if name in rows(Settings)}
    plan = plan_study(target, data, variants=variants, **of_model)
    if plan.study.samples is not None:
        from keras_dropout.bench.training.trainer import check_samples  # loads Keras

        check_samples(plan.study, plan.data)
    if asked["primary"] is not None:
        from keras_dropout.bench.training.trainer import metrics_before_training

        check_primary(asked["primary"], metrics_before_training(plan.study, plan.data))
    return choose_engine(plan, cores)


def carry_out(plan: Plan, quiet: bool = False, command: str = "") -> ShownComparison:
    """Train the runs that are missing in the ledger, and compare. After an interrupt, finished runs stay in the ledger.

    With `max_seeds`, seeds are added in rounds until no variant is racing: see `racing.race`. Decisions depend only on the results,
    so a repeated command continues where it stopped.
    """
    started = time.perf_counter()
    more_of_it = plan.document() | {"network": _portrait(plan.study)}
    trained: dict[str, Result] = {}
    found = so_far(plan, plan.study, {}, command)

    def table() -> Group:
        return Group(*tables.comparison_tables(found, running=True))

    with refusing(plan.ledger, "written"), Ledger(plan.ledger) as ledger:
        fingerprint = plan.study.data.fingerprint
        keep = (
            plan.settings["keep_examples"] and plan.divisions is None and plan.data.whole
        )  # otherwise each seed has test examples of its own
        if keep and not ledger.has_examples(fingerprint) and (some := shown(plan.data)):
            with suppress(NotStored):  # the runs matter more
                ledger.put_examples(fingerprint, *some)
        with Display(plan.study.epochs, quiet, table) as display, Execution(plan, ledger, display) as execution:
            log = _Log(plan, display)
            number, study = None, plan.round(_race_before(plan, ledger))
            while number is None or study.counts != found.study.counts:
                number = ledger.put_study(study, command, versions(), machine(), more_of_it, number)
                keys = {run.key for run in study.runs()}
                found = so_far(plan, study, ledger.get(keys, each_example=False), command)
                found.number, found.more = number, {"network": more_of_it["network"]}
                if isinstance(study, FunctionStudy):
                    check_metrics(found)
                todo = dataclasses.replace(plan, study=study).todo(found.results, ledger.kept(keys))
                todo = [run for run in todo if run.key not in trained]  # only the next command tries failed runs again
                log.write(found.results.keys() - {run.key for run in todo})
                display.expect(len(todo))
                for run, result in execution.train(todo):
                    found.results[run.key] = trained[run.key] = result
                    log.write([run.key])
                    check_metrics(found)
                if (race := found.race) is not None and race.racing:
                    study = plan.round(race)
            if (kept := found.in_race()) is not found:
                found = kept
                ledger.put_study(found.study, command, versions(), machine(), more_of_it, number)
        wall = time.perf_counter() - started
        epochs = sum(result.epochs for result in trained.values())
        found.timing = {
            "wall_seconds": round(wall, 2),
            "model_epochs": epochs,
            "seconds_per_model_epoch": round(wall / epochs, 4) if epochs else None,
            "workers": plan.workers,
            "compilations": sum(result.compilations for result in trained.values()),
        }
        assert found.number is not None  # set with the first round
        with suppress(NotStored):
            ledger.add_to_study(found.number, {"timing": found.timing})
    if plan.settings["robust"]:
        _ask_in_other_worlds(found, plan, quiet, command)
    return found


def _portrait(study: Study) -> dict[str, Any] | None:
    """Return the network of a study for its page; None for a training function, which has none that is known."""
    if isinstance(study, FunctionStudy):
        return None
    from keras_dropout.bench.report.network_data import portrait  # loads Keras

    return portrait(study)


class _Log:
    """Writes runs of the ledger where the setting `log` says. A place that fails is told, and left out from then on."""

    def __init__(self, plan: Plan, display: Display):
        self._ledger, self._places, self._display = plan.ledger, list(plan.settings["log"]), display

    def write(self, keys: Iterable[str]) -> None:
        for place in list(self._places):
            try:
                trackers.write(self._ledger, keys, place)
            except Exception as error:  # the packages raise errors of their own, and of the network
                self._places.remove(place)
                again = shlex.join(["keras-dropout", "runs", "export", place, "--ledger", str(self._ledger)])
                self._display.note(f"{place} takes no runs: {first_line(error)}. They are in the ledger; afterwards: {again}")


def _race_before(plan: Plan, ledger: Ledger) -> Race | None:
    """Return the race as far as the ledger has its runs; failed runs are tried again."""
    most, seeds = plan.settings["max_seeds"], 8
    while most is not None:  # a key takes time, so only as many as are needed
        study = dataclasses.replace(plan.study, seeds=plan.study.seeds[:seeds])
        known = ledger.get({run.key for run in study.runs()}, each_example=False)
        race = so_far(plan, study, {key: each for key, each in known.items() if each.status != "failed"}, "").race
        if race is None or race.looked < seeds or not race.racing or seeds >= most:
            return race
        seeds *= 2
    return None


def _ask_in_other_worlds(found: ShownComparison, plan: Plan, quiet: bool, command: str) -> None:
    """Train and compare in each world, one after the other, and add to the study what is found there as soon as it is."""
    told, worlds = [robustness.told(found)], robustness.worlds(plan)
    for number, world in enumerate(worlds, 2):
        there = None
        if world.plan is not None:
            if not quiet:
                print(f"{world.name} (world {number} of {len(worlds) + 1})", file=sys.stderr)
            one_of_them = {"name": world.name, "of": found.number}
            there = carry_out(dataclasses.replace(world.plan, world=one_of_them), quiet=quiet, command=command)
        told.append(robustness.told(found, world, there))
        keep(found, {"worlds": told})


def keep(found: ShownComparison, more: Mapping[str, Any]) -> None:
    """Add the results of a search, a sweep or other worlds to their study, in memory and in the ledger."""
    assert found.ledger is not None  # both are set by `carry_out`
    assert found.number is not None
    found.more = {**found.more, **more}
    with suppress(NotStored), Ledger(found.ledger) as ledger:
        ledger.add_to_study(found.number, more)


def compare(
    target: Any,
    data: Any = None,
    *,
    variants: Mapping[str, Any] | Sequence[Variant | str] | None = None,
    report: str | Path | None = None,
    quiet: bool = False,
    **settings: Unpack[CompareSettings],
) -> ShownComparison:
    """Train every variant of a study with every seed, and say which are better than the baseline.

    A training function of your own is a target too: `train(run)`, or "file.py:train". It is called with each variant and seed and
    returns metrics, without `data`: see docs/how-to/own-training.md and `bench.training.function_trainer.TrainingRun`. Its own
    settings are uses (files that it reads, as part of the runs' keys), higher_is_better and lower_is_better (metrics).

    `target` is a recipe's name; a compiled Keras model; a `.keras` file; or "file.py:function" or "module:function", a function
    that returns a compiled model. The function may take `input_shape`, `outputs` and `vocabulary`, which are read from the data.
    All targets except recipes need `data`: ((x_train, y_train), (x_test, y_test)); or (x, y), of which a fifth is split off for
    testing; or the path of a file or folder; or "file.py:function", a function that returns arrays. `data_options` are the options
    of `bench.data.files.load`, such as {"target": "price"}; for (x, y) "test_split". x and y may be dicts or tuples of arrays for
    several inputs and outputs. Each pair may have sample weights as a third member. A tf.data.Dataset, torch DataLoader or Keras
    PyDataset may replace a pair, if it yields the same examples in each pass (see `bench.data.from_arrays`). A function, or its
    name, may return (train, validation, test) instead: streams that each run asks for with its seed, and that Keras's `fit`
    iterates anew in each epoch; see docs/how-to/streams.md.

    `variants` maps names to placements {site: rate, schedule, their text or dropout layer}, or to their text, such as
    "hidden=0.2, last=0.5". A site is "input", "hidden", "last", "all", a class of layers, a layer's name or a glob. None means the
    model as it is built. A list of names, such as ["hidden", "last"], selects ready-made variants. The baseline "none", the model
    without dropout, is always included. The model itself is not changed. It is trained as it was compiled: optimizer, its
    learning-rate schedule, losses, metrics and augmentation layers are kept. Each run starts from new weights.

    `settings`: seeds (a number, the seeds themselves, or "auto": seeds are added until each variant has a verdict on the primary
    metric or cannot win, or there are max_seeds, by default 30); primary (the metric that leads the verdict, by default
    "test_loss"; when named, such as "test_accuracy", its verdicts are a family of their own); margin (a smaller difference in the
    primary metric does not matter: see docs/statistics.md); power (a difference that the study should show: pairs_needed is then
    for it); epochs, batch_size, optimizer, learning_rate; class_weight ({class: weight}, or "balanced");
    early_stopping (epochs to wait for a smaller validation loss; then the epoch with the smallest loss is measured);
    samples (stochastic forward passes on the test data, which add the metrics test_nll, test_brier and test_ece, for a regression
    test_rmse, and test_mc_… of the mean of the passes, and for a classifier test_scaled_nll, the NLL after temperature scaling;
    all examples have equal weight there, and the model must have one output);
    robust (True to ask again in other worlds, each a study of its own: learning rate and epochs halved and doubled, with early
    stopping, with weight decay; see docs/statistics.md);
    from_weights (True to start every run from the model's own weights, or a .weights.h5 or .keras file; frozen layers stay
    frozen); validation_data ((x, y), beside arrays); callbacks (a list of Keras callbacks, or a function that returns one for
    each run and may take seed and variant; Keras's `fit` calls them); steps_per_epoch (training batches of an epoch; the next one
    goes on from there); split ("held-out" or "as-published", for recipes), resample_split (True to divide undivided data, or those
    of a recipe, anew for each seed: verdicts then hold for other divisions too; see docs/statistics.md), validation_split (for your
    own data), data_dir, baseline; log (a place, or several, where each run is also written: "tensorboard:DIR", "mlflow",
    "mlflow:URI", "wandb" or "wandb:PROJECT");
    backend ("jax", "tensorflow", "torch"), engine ("compiled", "reference", "stacked": many runs at once on a GPU, or "auto":
    stacked if JAX has a GPU or TPU; otherwise a few steps of your own model are timed in the other engines, for a model with
    convolutions also on TensorFlow, unless a backend is given); workers, on (the place of the workers:
    "here", "ray" or "ray:HOST:PORT"; see docs/ray.md), checkpoint_every (epochs between checkpoints, from which an interrupted
    run continues: None for one about every 30 seconds, 0 for none); keep_weights (True to keep each run's trained model in the
    ledger: get it with `keras-dropout runs model` or `bench.ledger.lookup.models`), keep_examples (False to keep no test examples
    in the ledger: reports then show none).
    Runs in the ledger are not trained again, unless their model is requested and missing.

    Raises `BadInput`, before anything is trained, for invalid input.
    """
    check_names("compare", settings, CompareSettings.__optional_keys__)
    if report is not None:
        check_report_path(check_path("report", report, "report.html"))
    plan = make_plan(target, data, variants=variants, **settings)
    found = carry_out(plan, quiet=quiet, command="keras_dropout.compare(…) in Python")
    if report is not None:
        found.save_report(report)
    return found
