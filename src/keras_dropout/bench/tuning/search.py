"""The search behind `tune`: Optuna suggests trials in rounds, rungs stop the worse trials early, the ledger stores the runs.

Results must not depend on which worker finishes first, nor on interruptions of the search. So trials are suggested in rounds of a
fixed size, and a run's loss at a rung is read from its curve, even if the run has been trained further since.
"""

import bisect
import dataclasses
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from keras_dropout.bench.compare import make_plan
from keras_dropout.bench.execution import scheduler, timing
from keras_dropout.bench.execution.machine import machine, versions
from keras_dropout.bench.execution.progress import Display
from keras_dropout.bench.ledger.checkpoints import Checkpoint
from keras_dropout.bench.ledger.schema import refusing
from keras_dropout.bench.ledger.store import Ledger
from keras_dropout.bench.own_training import training_text
from keras_dropout.bench.records import BASELINE, Run, Study, Variant
from keras_dropout.bench.settings import SearchSettings, Settings, complete, rows
from keras_dropout.bench.study.planning import AS_BUILT, Plan, check_settings
from keras_dropout.bench.study.training_function import refuse_in_search
from keras_dropout.bench.tuning import spaces, training_space
from keras_dropout.bench.tuning.spaces import Space
from keras_dropout.bench.tuning.training_space import TrainingSpace
from keras_dropout.errors import check_whole, refuse

TRIALS = 18
ROUND = 9
REDUCTION = 3  # one in REDUCTION of the trials at a rung goes on
SEARCH_SEED = 1000  # seed of every trial's run
FINAL_SEEDS = (1001, 1002)  # seeds of the finalists' further runs
FINALISTS = 3
OF_SEARCH = set(rows(SearchSettings)) - set(rows(Settings))  # settings of the search only, not of the study
TUNED = "tuned"  # name of the winner's variant
TUNED_BASELINE = f"{BASELINE}, tuned"  # name of the baseline with the training that its own search found


@dataclass(frozen=True)
class Trial:
    """A tried placement: its validation loss at each rung, {epochs: loss}; `done` if it was trained to the end.

    `finals` are a finalist's losses on the further seeds.
    """

    number: int
    variant: Variant
    losses: Mapping[int, float]
    done: bool
    error: str | None = None
    finals: tuple[float, ...] = ()

    @property
    def loss(self) -> float:
        """The last validation loss, infinite for a run that diverged or failed."""
        return list(self.losses.values())[-1] if self.losses else math.inf

    @property
    def score(self) -> float:
        """The mean validation loss over the search's seeds, by which the winner is chosen."""
        return sum((self.loss, *self.finals)) / (1 + len(self.finals))

    @property
    def text(self) -> str:
        """The placement as written after --variant NAME=, empty if nothing is dropped; of a trial of training, its settings."""
        if self.variant.training is not None:
            return training_text(self.variant.training) or "as it is"
        return str(self.variant).partition("=")[2]

    def document(self) -> dict[str, Any]:
        """Return the trial as plain values."""
        return {
            "number": self.number,
            "placement": self.variant.placement,
            **({} if self.variant.training is None else {"training": dict(self.variant.training)}),
            "text": self.text,
            "epochs": max(self.losses, default=0),
            "validation_loss": self.loss if math.isfinite(self.loss) else None,
            "finals": [loss if math.isfinite(loss) else None for loss in self.finals],
            "status": "failed" if self.error else "diverged" if math.isinf(self.loss) else "done" if self.done else "stopped",
            "error": self.error,
        }


@dataclass(frozen=True)
class Search:
    """A checked search: its space, sampler, number of trials, and the plan of the comparison that follows.

    `baseline` is the search for the training of the model without dropout, with as many trials, if there is one.
    """

    plan: Plan
    space: Space | TrainingSpace
    sampler: str
    trials: int
    seed: int
    rungs: tuple[int, ...]
    baseline: "Search | None" = None

    @property
    def study(self) -> Study:
        """The study of the search's own runs, which use only validation losses."""
        return dataclasses.replace(self.plan.study, seeds=(SEARCH_SEED, *FINAL_SEEDS), samples=None)

    @property
    def model_epochs(self) -> int:
        """The cost of the search if the ledger has none of its runs and no run stops early, with that of the baseline's."""
        return _cost(self.trials, self.rungs) * (1 if self.baseline is None else 2)

    def document(self) -> dict[str, Any]:
        """Return the plan as plain values, with the time for an empty ledger, estimated from a short training."""
        study = self.plan.study
        added = [TUNED, *([TUNED_BASELINE] if self.baseline else [])]
        after = (len(study.variants) + len(added)) * len(study.seeds) * study.epochs
        start, each = timing.time_runs(study, self.plan.data, study.runs()[:1])
        seconds = start + each * (self.model_epochs + after) / study.epochs / self.plan.workers
        return {
            "target": study.target,
            "space": str(self.space),
            "points": self.space.size,
            "sampler": self.sampler,
            "trials": self.trials,
            "rungs": list(self.rungs),
            "model_epochs": self.model_epochs,
            "baseline": self.baseline and {"space": str(self.baseline.space), "points": self.baseline.space.size},
            "variants": [*(variant.name for variant in study.variants), *added],
            "seeds": list(study.seeds),
            "comparison_model_epochs": after,
            "workers": self.plan.workers,
            "estimated_seconds": round(seconds, 1),
        }


def check_search(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return all settings of a search, with `kinds` as a tuple and `space` parsed; refuse wrong ones. Loads no framework.

    Names missing in `settings` get their defaults. `settings` may also hold other names.
    """
    found = complete(settings, SearchSettings)
    kinds, space = found["kinds"], found["space"]
    kinds = (kinds,) if isinstance(kinds, str) else kinds
    if not isinstance(kinds, Sequence) or not all(isinstance(kind, str) for kind in kinds):
        refuse(f"kinds must be names of methods; got {kinds!r}.", 'For example ["Dropout", "GaussianDropout"].')
    if space is not None and kinds:
        refuse("a search space and kinds together.", 'Name the kinds in the space: "hidden=Dropout|GaussianDropout(0:0.6)".')
    return found | {"kinds": tuple(kinds), "space": None if space is None else spaces.parse(space)}


def check_study(settings: Mapping[str, Any]) -> None:
    """Refuse settings of a study that no search or sweep can use. Loads no framework."""
    checked = check_settings(settings)
    if settings.get("split") == "as-published":
        refuse("the split as-published trains on the validation data; got a search that chooses by them.", "Use --split held-out.")
    if checked["robust"]:
        refuse(
            "robust asks the question of a comparison again; got a search.",
            "Leave --robust out, and give what is found to a comparison: keras-dropout compare TARGET --variant … --robust",
        )
    if checked["callbacks"] is not None:
        refuse(
            "callbacks are for compare: a search stops runs and goes on with them, and a checkpoint lacks the state of callbacks.",
            "Leave callbacks out of tune, and compare what it finds with them.",
        )
    if settings.get("resample_split"):
        refuse(
            "resample_split is for compare: a search chooses on validation data that other divisions test on.",
            "Leave it out of tune, and compare placements that were not chosen on these data.",
        )
    if settings.get("seeds") == "auto" and settings.get("sweep") is not None:
        refuse("a sweep trains each rate with each seed; got auto.", "Give a number of seeds, for example 6.")
    for name, of in ((TUNED, "the winner's"), (TUNED_BASELINE, "that of the baseline's own search")):
        if any(isinstance(each, Variant) and each.name == name for each in checked["variants"]):
            refuse(f"the name {name} is {of}; got a variant with it.", "Give the variant another name.")
    for seed in (SEARCH_SEED, *FINAL_SEEDS):
        if seed in checked["seeds"]:
            refuse(f"the seed {seed} is the search's own; got it among the seeds of the comparison.", "Use others: 0, 1, 2, …")


def plan_search(target: Any, data: Any = None, **settings: Any) -> Search:
    """Check everything and plan the search; see `tune`. Raises `BadInput`."""
    asked = check_search(settings)
    plan = fresh_plan(target, data, settings)
    space, sampler, trials, budget = (asked[name] for name in ("space", "sampler", "trials", "budget"))
    model = build(plan.study)
    if space is None:
        space = spaces.default(model, asked["kinds"] or ("Dropout",))
    space.check(model)
    if sampler == "grid":
        check_whole("the number of the grid's points", space.size, 2, "Write fewer, such as hidden=0:0.6:4.", spaces.MOST_POINTS)
    rungs = _rungs(plan.study.epochs) if asked["halving"] else (plan.study.epochs,)
    if sampler == "grid" and trials is not None and trials < space.size:
        refuse(
            f"the grid has {space.size} points; got {trials} trials.",
            "Write fewer, such as hidden=0:0.6:4, or use --sampler random.",
        )
    number = space.size if sampler == "grid" else trials or (TRIALS if budget is None else budget)
    if budget is not None:
        paid = bisect.bisect_right(range(1, number + 1), budget, key=lambda n: _cost(n, rungs))
        least = number if sampler == "grid" else 1
        if paid < least:
            words = f"the budget must be at least {_cost(least, rungs)} model-epochs here; got {budget}."
            refuse(words, "Give more, or fewer epochs or points.")
        number = paid
    _load_optuna()
    found = Search(plan, space, sampler, number, asked["seed"], rungs)
    if not asked["tune_baseline"]:
        return found
    # A grid of placements has no like among settings of training.
    drawn = "random" if sampler == "grid" else sampler
    return dataclasses.replace(found, baseline=dataclasses.replace(found, space=training_space.of_study(plan.study), sampler=drawn))


def winner_of(trials: Sequence[Trial]) -> Trial:
    """Return the finalist with the smallest mean validation loss over the search's seeds; without finals, the best trial."""
    finalists = [trial for trial in trials if trial.finals] or [trial for trial in trials if trial.done]
    return min(finalists, key=lambda trial: trial.score)


def note_search(search: Search, command: str) -> None:
    """Put the study of a search that begins into the ledger, still without its winner."""
    with refusing(search.plan.ledger, "written"), Ledger(search.plan.ledger) as ledger:
        ledger.put_study(search.plan.study, command, versions(), machine())


def carry_out_search(search: Search, quiet: bool) -> list[Trial]:
    """Train the trials and return them. After an interrupt, finished runs stay in the ledger."""
    optuna = _load_optuna()
    plan, memory = search.plan, _memory(search)
    model = build(plan.study)
    trials: list[Trial] = []
    with refusing(plan.ledger, "written"), Ledger(plan.ledger) as ledger:
        for size in _rounds(search.trials):
            asked = [memory.ask() for _ in range(size)]
            variants = [search.space.suggest(each, model, f"trial {each.number}") for each in asked]
            for each, trial in zip(asked, _train_round(search, variants, len(trials), ledger, quiet)):
                for epoch, loss in trial.losses.items():
                    if math.isfinite(loss):
                        each.report(loss, epoch)
                # A diverged trial is pruned without a value, which the sampler ranks as the worst result.
                pruned = not trial.done or math.isinf(trial.loss)
                state = optuna.trial.TrialState.PRUNED if pruned else optuna.trial.TrialState.COMPLETE
                memory.tell(each, None if pruned else trial.loss, state=state)
                trials.append(trial)
        if not any(math.isfinite(trial.loss) for trial in trials if trial.done):
            why = next((trial.error for trial in trials if trial.error), "all diverged")
            refuse(f"no trial could be trained to the end: {why}.", "Fix the model or the space.")
        return _train_finals(search, trials, ledger, quiet)


def _memory(search: Search) -> Any:
    """Return the Optuna study that suggests the placements; for a grid, all its points are enqueued."""
    optuna = _load_optuna()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if search.sampler == "tpe":
            more = {"n_startup_trials": ROUND, "multivariate": True, "group": True, "constant_liar": True}
            sampler = optuna.samplers.TPESampler(seed=search.seed, **more)
        else:
            sampler = optuna.samplers.RandomSampler(seed=search.seed)
    memory = optuna.create_study(sampler=sampler, direction="minimize")
    space = search.space
    for point in space.points() if isinstance(space, Space) and search.sampler == "grid" else space.first:
        memory.enqueue_trial(point)
    return memory


def _train_round(search: Search, variants: Sequence[Variant], first: int, ledger: Ledger, quiet: bool) -> list[Trial]:
    """Train a round from rung to rung; at each rung only the best third goes on."""
    study = dataclasses.replace(search.study, variants=(*search.study.variants, *variants))
    runs = {variant.name: Run(study.key(variant, SEARCH_SEED), variant, SEARCH_SEED) for variant in variants}
    losses: dict[str, dict[int, float]] = {name: {} for name in runs}
    errors: dict[str, str] = {}
    left = list(runs)
    for rung in search.rungs:
        keys = {runs[name].key: runs[name] for name in left}  # two trials may be the same run
        known = _train(search, study, keys, rung, ledger, quiet)
        for name in left:
            losses[name][rung] = known.get(runs[name].key, math.inf)
        stored = ledger.get(set(keys) - set(known))  # the failed runs
        errors |= {name: stored[runs[name].key].error or "" for name in left if runs[name].key in stored}
        left.sort(key=lambda name: losses[name][rung])  # stable: among equal losses, the trial suggested first
        if rung != search.rungs[-1]:
            left = [name for name in left[: math.ceil(len(left) / REDUCTION)] if math.isfinite(losses[name][rung])]
    return [
        Trial(first + number, variant, losses[variant.name], variant.name in left, errors.get(variant.name))
        for number, variant in enumerate(variants)
    ]


def _train_finals(search: Search, trials: Sequence[Trial], ledger: Ledger, quiet: bool) -> list[Trial]:
    """Train the best trials on further seeds; a placement that was tried twice is trained once."""
    ranked = sorted((trial for trial in trials if trial.done and math.isfinite(trial.loss)), key=lambda trial: trial.loss)
    unlike: dict[str, Trial] = {}
    for trial in ranked:
        unlike.setdefault(trial.text, trial)
    finalists = list(unlike.values())[:FINALISTS]
    if len(finalists) < 2:
        return list(trials)
    study = dataclasses.replace(search.study, variants=(*search.study.variants, *(trial.variant for trial in finalists)))
    runs = [Run(study.key(trial.variant, seed), trial.variant, seed) for seed in FINAL_SEEDS for trial in finalists]
    known = _train(search, study, {run.key: run for run in runs}, study.epochs, ledger, quiet)
    finals = {
        trial.number: tuple(known.get(study.key(trial.variant, seed), math.inf) for seed in FINAL_SEEDS) for trial in finalists
    }
    return [dataclasses.replace(trial, finals=finals.get(trial.number, ())) for trial in trials]


def _train(search: Search, study: Study, runs: Mapping[str, Run], rung: int, ledger: Ledger, quiet: bool) -> dict[str, float]:
    """Train runs, given by key, up to `rung` epochs, and return their validation losses there, without failed runs."""
    known = _reached(study, ledger, runs, rung)
    todo, until = [run for key, run in runs.items() if key not in known], None if rung == study.epochs else rung
    settings = {**search.plan.settings, "keep_weights": False}
    with Display(rung, quiet, metric="validation_loss") as display:
        display.expect(len(todo))
        scheduler.execute(dataclasses.replace(search.plan, study=study, settings=settings), todo, ledger, display, until)
        known = _reached(study, ledger, runs, rung)
        if todo and known:
            losses = known.values()
            display.note(f"epoch {rung} of {len(known)} run(s): validation loss {min(losses):.4f} to {max(losses):.4f}")
    return known


def _reached(study: Study, ledger: Ledger, keys: Mapping[str, Run], rung: int) -> dict[str, float]:
    """Return the validation loss after `rung` epochs of each run that has come that far or has ended; infinite if it diverged.

    The loss is read from the curve at that epoch, even if the run has been trained further. So a repeated search takes the same
    steps.
    """
    found = {}
    results = {key: result for key, result in ledger.get(keys).items() if result.status != "failed"}
    for key, (epoch, state) in ledger.checkpoints(set(keys) - set(results)).items():
        with suppress(ValueError):  # unreadable checkpoint: the run starts over
            if epoch >= rung:
                found[key] = Checkpoint.from_bytes(state).curves["validation_loss"][:rung]
    for key, result in results.items():
        losses = list(result.curves.get("validation_loss", ()))[:rung]
        diverged = result.status == "diverged" and (len(losses) < rung or rung == study.epochs)
        found[key] = [math.inf] if diverged else losses
    return {key: min(losses) if study.of(keys[key].variant).early_stopping else losses[-1] for key, losses in found.items()}


def fresh_plan(target: Any, data: Any, settings: Mapping[str, Any]) -> Plan:
    """Return the plan of the comparison, still without the winner."""
    check_study(settings)
    refuse_in_search(target, data)
    plan = make_plan(target, data, **{name: value for name, value in settings.items() if name not in OF_SEARCH})
    study = plan.study
    if not settings.get("variants"):
        kept = (BASELINE, "as-published", AS_BUILT)
        study = dataclasses.replace(study, variants=tuple(v for v in study.variants if v.name in kept))
    return dataclasses.replace(plan, study=study)


def build(study: Study) -> Any:
    """Build the study's model to inspect its sites."""
    from keras_dropout.bench.study import own_classes
    from keras_dropout.models import graph

    with own_classes.known(study.objects):
        return graph.make(study.model)


def _rungs(epochs: int) -> tuple[int, ...]:
    """Return the epochs at which trials are ranked, including the last epoch."""
    # No rung earlier: dropout slows the first epochs, and helps only when models without it begin to overfit.
    return tuple(dict.fromkeys((math.ceil(epochs / 2), epochs)))


def _rounds(trials: int) -> Iterator[int]:
    """Yield the sizes of the rounds."""
    while trials > 0:
        yield min(ROUND, trials)
        trials -= ROUND


def _cost(trials: int, rungs: Sequence[int]) -> int:
    total = done = 0
    for size in _rounds(trials):
        for before, rung in zip((0, *rungs), rungs):
            total += size * (rung - before)
            last, size = size, math.ceil(size / REDUCTION)
        done += last
    finalists = min(FINALISTS, done)
    return total + (finalists * len(FINAL_SEEDS) * rungs[-1] if finalists > 1 else 0)


def _load_optuna() -> Any:
    try:
        import optuna
    except ImportError:
        refuse("tuning needs Optuna, which is not installed.", "pip install 'keras-dropout[tune]'")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
