"""Choose the engine and backend of a study: the requested one, the one used before, or the fastest on the study itself."""

import dataclasses
import importlib.util
import itertools
import json
import re
from collections.abc import Iterator

from keras_dropout.bench.data.dataset import Data
from keras_dropout.bench.execution import timing
from keras_dropout.bench.execution.machine import accelerator
from keras_dropout.bench.ledger.lookup import asked_for
from keras_dropout.bench.records import Run, Study
from keras_dropout.bench.study.planning import Plan
from keras_dropout.errors import refuse


def choose_engine(plan: Plan, cores: int) -> Plan:
    """Return the plan with its study's engine, the reason for this choice, and the number of workers for `cores` cores.

    If no backend was requested, the choice may change the backend. An open choice is measured, unless the ledger shows an earlier
    choice: so noise never changes it.
    """
    study, reason = _chosen(plan)
    workers = plan.settings["workers"] or (1 if study.engine == "stacked" else cores)
    return dataclasses.replace(plan, study=study, engine_reason=reason, workers=workers)


def _chosen(plan: Plan) -> tuple[Study, str]:
    study, data, recipe, asked = plan.study, plan.data, plan.of_recipe, plan.settings["engine"]
    if not data.whole or study.callbacks is not None:
        why = "Keras's fit calls the callbacks" if data.whole else "Keras's fit iterates the streams"
        return dataclasses.replace(study, engine="reference"), f"reference: {why}"
    if study.backend != "jax":
        return dataclasses.replace(study, engine="reference"), f"reference: the only engine on {study.backend}"
    if asked != "auto":
        if asked != "reference" and not recipe and (error := _why_not_compiled(study, data)):
            refuse(f"the {asked} engine cannot train this model: {error}", "Use --engine reference, or fix the model.")
        return dataclasses.replace(study, engine=asked), f"{asked}: asked for"
    device = accelerator()
    if recipe and not device:
        return dataclasses.replace(study, engine="compiled"), "compiled: the recipe's own"
    candidates = list(_candidates(study, plan.settings["backend"] is None))
    stacked = dataclasses.replace(study, engine="stacked")
    keys = [(each, {run.key for run in each.runs()}) for each in (*candidates, stacked)]
    for earlier in asked_for(plan.ledger):
        for each, its_own in keys:
            if its_own & earlier:
                return each, f"{_name(each, study)}: as for the runs of this study that are in the ledger"
    if device and (recipe or not _why_not_compiled(study, data)):
        return stacked, f"stacked: JAX has an accelerator here ({device})"
    return _fastest(study, data, candidates)


def _candidates(study: Study, any_backend: bool) -> Iterator[Study]:
    """Yield the study with each engine that runs on a CPU."""
    for engine in ("compiled", "reference"):
        yield dataclasses.replace(study, engine=engine)
    # XLA's convolutions are several times slower on a CPU than TensorFlow's; for other models the compiled engine is the fastest.
    if any_backend and _convolves(study) and importlib.util.find_spec("tensorflow"):
        yield dataclasses.replace(study, backend="tensorflow", engine="reference")


def _fastest(study: Study, data: Data, candidates: list[Study]) -> tuple[Study, str]:
    times: dict[str, float] = {}
    failed: dict[str, str] = {}
    for variant in (study.variants[-1], study.variants[0]):  # if the last variant cannot be trained, time the first one
        run = Run("", variant, study.seeds[0])
        for _, same_backend in itertools.groupby(candidates, key=lambda each: each.backend):
            group = list(same_backend)
            for each, found in zip(group, timing.time_engines(group[0], data, run, [each.engine for each in group]).values()):
                if isinstance(found, float):
                    times[_name(each, study)] = found
                else:
                    failed[_name(each, study)] = found
        if times:
            break
    else:
        refuse(f"the model {study.target!r} cannot be trained: {failed['reference']}", "Try model.fit on the same data.")
    best = min(candidates, key=lambda each: times.get(_name(each, study), float("inf")))
    name = _name(best, study)
    others = [f"{time * 1e3:.3g} ms in {other}" for other, time in times.items() if other != name]
    others += [f"{other} cannot train this model ({why})" for other, why in failed.items() if other not in times]
    return best, f"{name}: {times[name] * 1e3:.3g} ms a step, {', '.join(others)} (measured)"


def _name(each: Study, study: Study) -> str:
    return each.engine if each.backend == study.backend else f"{each.engine} on {each.backend}"


def _convolves(study: Study) -> bool:
    return re.search(r'"class_name": "\w*Conv\d', json.dumps(study.model, default=repr)) is not None


def _why_not_compiled(study: Study, data: Data) -> str | None:
    import keras

    if keras.backend.backend() != "jax":  # this process cannot check it; a worker can
        found = timing.time_engines(study, data, Run("", study.variants[0], study.seeds[0]), ("compiled",))["compiled"]
        return found if isinstance(found, str) else None
    from keras_dropout.bench.training.trainer import why_not_compiled

    return why_not_compiled(study, data)
