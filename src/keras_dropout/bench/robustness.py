"""Ask the question of a study again in other worlds: other learning rates, epochs, with early stopping, with weight decay.

A world is a study of its own, with the seeds, data, variants and rule of the first and one training setting changed. Its runs are
in the ledger like all others. Its verdicts are a family of their own: docs/statistics.md says what a count of them is worth.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from keras_dropout.bench import own_training
from keras_dropout.bench.comparison import Comparison
from keras_dropout.bench.records import Study
from keras_dropout.bench.study.planning import Plan

AS_ASKED = "as asked"
_NOT_OBEYED = "the optimizer or its schedule is of a kind whose {} cannot be set from outside"


@dataclass(frozen=True)
class World:
    """A world: its name, the settings that are `changed` with their values, and its plan; None where it is left out, with `why`.

    `note` says what does not change with them.
    """

    name: str
    changed: Mapping[str, Any]
    plan: Plan | None
    why: str | None = None
    note: str | None = None


def worlds(plan: Plan) -> list[World]:
    """Return the worlds of a plan beside the world as it was asked for. Loads Keras."""
    from keras_dropout.bench.study import other_training

    study, found = plan.study, []
    for times, factor in (("½", 0.5), ("2", 2.0)):
        found.append(_world(plan, f"learning rate ×{times}", other_training.scaled_rate(study, factor), "learning rate"))
    scheduled = isinstance(own_training.optimizer_config(study.compiled).get("learning_rate"), Mapping)
    note = "the schedule of the learning rate is by steps, and goes on by its formula in the further epochs" if scheduled else None
    if study.epochs == 1:
        found.append(World("epochs ×½", {}, None, "one epoch cannot be halved"))
    else:
        found.append(
            _with_epochs(plan, "epochs ×½", math.ceil(study.epochs / 2), note and "the schedule of the learning rate is cut off")
        )
    found.append(_with_epochs(plan, "epochs ×2", 2 * study.epochs, note))
    if study.early_stopping:
        found.append(_world(plan, "no early stopping", {"early_stopping": None}))
    elif study.split != "held-out":
        why = f"the split {study.split} trains on the validation data"
        found.append(World("early stopping", {}, None, why))
    else:
        found.append(_world(plan, "early stopping", {"early_stopping": other_training.usual_patience(study.epochs)}))
    without = other_training.decay_of(study) is not None
    decay = None if without else other_training.usual_decay(study)
    training = other_training.other_decay(study, decay) if without or decay is not None else None
    found.append(_world(plan, "no weight decay" if without else "weight decay", training, "weight decay"))
    return found


def _world(plan: Plan, name: str, training: Mapping[str, Any] | None, what: str = "") -> World:
    if training is None:
        return World(name, {}, None, _NOT_OBEYED.format(what))
    return World(name, training, _plan(plan, name, plan.study.trained_by(training)))


def _with_epochs(plan: Plan, name: str, epochs: int, note: str | None) -> World:
    return World(name, {"epochs": epochs}, _plan(plan, name, dataclasses.replace(plan.study, epochs=epochs)), note=note)


def _plan(plan: Plan, name: str, study: Study) -> Plan:
    """Return the plan of a world: no models are kept of it, and its study has a target of its own in the ledger."""
    settings = {
        **plan.settings,
        "robust": False,
        "keep_weights": False,
        "epochs": study.epochs,
        "early_stopping": study.early_stopping,
    }
    return dataclasses.replace(plan, study=dataclasses.replace(study, target=f"{study.target}, {name}"), settings=settings)


def told(found: Comparison, world: World | None = None, there: Comparison | None = None) -> dict[str, Any]:
    """Return a world as plain values: the differences on the deciding metric, and whether the verdicts of `found` hold in it.

    `there` is what was found in the world; without a world, it is the world as it was asked for. A world in which no figure differs
    from those as asked is no other world: it is left out.
    """
    world, there = world or World(AS_ASKED, {}, None), found if world is None else there
    facts = {"name": world.name, "changed": dict(world.changed), "note": world.note}
    if there is None:
        return {**facts, "study": None, "left_out": world.why, "failed": 0, "timing": {}, "comparisons": []}
    same = there is not found and _same_figures(found, there)
    as_asked = {row["variant"]: row["verdict"] for row in found.rows(found.deciding)}
    taken = ("variant", "baseline", "metric", "higher_is_better", "difference", "interval", "p_adjusted", "pairs", "verdict")
    rows = [{name: row[name] for name in taken} for row in there.rows(found.deciding)]
    return {
        **facts,
        "study": there.number,
        "left_out": "no figure of any run differs from those as asked" if same else None,
        "failed": len(there.failed),
        "timing": there.timing,
        "comparisons": [row | {"stands": stands(as_asked.get(row["variant"], ""), row["verdict"])} for row in rows],
    }


def stands(as_asked: str, there: str) -> str | None:
    """Return whether a verdict holds in a world: "holds", "opposite" or "not shown"; None if there is none that could.

    A verdict holds where the same direction is shown, and only where the opposite direction is shown, that is the opposite.
    """
    one, other = (next((word for word in ("better", "worse") if each.startswith(word)), None) for each in (as_asked, there))
    if as_asked == "same within the margin":
        return "holds" if there.endswith("within the margin") else "opposite" if other else "not shown"
    if one is None:
        return None
    return "holds" if one == other else "opposite" if other else "not shown"


def _same_figures(found: Comparison, there: Comparison) -> bool:
    """Return whether each run of two studies has the figures of its like in the other."""
    pairs = [
        (found.results.get(found.study.key(variant, seed)), there.results.get(there.study.key(other, seed)))
        for variant, other in zip(found.study.variants, there.study.variants)
        for seed in found.study.seeds
    ]
    return all(one and two and one.status == two.status and one.metrics == two.metrics for one, two in pairs)


def costs(plan: Plan, found: Sequence[World]) -> list[dict[str, Any]]:
    """Return for each world its runs, those that are left to train, and the model-epochs of these if none stops early."""
    told = []
    for world in (World(AS_ASKED, {}, plan), *found):
        facts = {"name": world.name, "changed": dict(world.changed), "left_out": world.why}
        todo = world.plan.todo(world.plan.known(), world.plan.kept()) if world.plan else []
        runs = len({run.key for run in world.plan.study.runs()}) if world.plan else 0
        epochs = len(todo) * world.plan.study.epochs if world.plan else 0
        told.append(facts | {"runs": runs, "to_train": len(todo), "model_epochs": epochs})
    return told


def cost_sentences(told: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say what `costs` returned, a line for each world and one for all together."""
    lines = [
        f"  {each['name']}: "
        + (
            f"{each['to_train']} of {each['runs']} runs to train, {each['model_epochs']} model-epochs"
            if each["left_out"] is None
            else f"left out: {each['left_out']}"
        )
        for each in told
    ]
    return ["worlds:", *lines, f"  together {sum(each['model_epochs'] for each in told)} model-epochs"]
