"""Write runs to TensorBoard, MLflow or Weights & Biases: one run there for each run of the ledger.

A run has its variant, seed, placement and rate as parameters, its metrics, and its curves with an epoch as a step. A run that is
there already, by its key, is left as it is.
"""

import math
import os
import re
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from keras_dropout import notation
from keras_dropout.bench.ledger.lookup import decoding, read_asked, read_object, reading
from keras_dropout.bench.ledger.schema import select_keys
from keras_dropout.bench.ledger.selection import Selection, describe, find
from keras_dropout.bench.log_places import check_place
from keras_dropout.errors import BadInput, first_line, refuse

_KEY = "keras-dropout.key"
_PROJECT = "keras-dropout"
_AT_ONCE = 1000  # metrics that MLflow takes in one call


class Tracker(Protocol):
    """A place where runs are written. `with` opens it; `write` returns False for a run that is there already."""

    def write(self, run: "Logged") -> bool: ...


class Logged:
    """A run as trackers show it: its name, parameters, metrics, curves and times."""

    def __init__(self, found: Mapping[str, Any], placement: Mapping[str, Any] | None):
        self.key, self.target, self.status = found["key"], found["target"], found["status"]
        self.name = f"{found['variant']}, seed {found['seed']}"
        self.error = found["error"]
        self.end = datetime.fromisoformat(found["finished"]).timestamp()
        self.start = self.end - found["seconds"]
        self.metrics = {name: value for name, value in found["metrics"].items() if _is_number(value)}
        self.curves = {f"epoch/{name}": [*map(float, curve)] for name, curve in found["curves"].items()}
        self.parameters = _parameters(found, placement)

    def at(self, epoch: int) -> float:
        """Return the time of an epoch: the ledger has that of the whole run, and epochs take equally long."""
        epochs = max(map(len, self.curves.values()), default=1)
        return self.start + (self.end - self.start) * epoch / max(1, epochs)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _parameters(found: Mapping[str, Any], placement: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what decides a run, as numbers and texts. `rate` is the one rate of its placement; 0 for no dropout."""
    config = found["config"]
    shown = {name: found[name] for name in ("key", "target", "variant", "seed", "backend", "engine", "epochs")}
    shown |= {name: config[name] for name in ("batch_size",) if name in config}
    optimizer = (config.get("compiled") or {}).get("optimizer") or {}
    if isinstance(optimizer, dict) and "class_name" in optimizer:
        shown["optimizer"] = optimizer["class_name"]
        rate = (optimizer.get("config") or {}).get("learning_rate")
        shown |= {"learning_rate": rate} if _is_number(rate) else {}
    if placement is None:
        return shown | {"placement": "as built"}
    rates = {site: spec.get("rate") if "schedule" not in spec else notation.spec_text(spec) for site, spec in placement.items()}
    shown["placement"] = ", ".join(f"{site}={notation.spec_text(spec)}" for site, spec in placement.items()) or "no dropout"
    shown |= {f"rate of {site}": rate for site, rate in rates.items() if rate is not None}
    alone = set(map(str, rates.values()))
    return shown | ({"rate": next(iter(rates.values()), 0.0)} if len(alone) < 2 and None not in rates.values() else {})


def write(ledger: str | Path, keys: Iterable[str], place: str) -> None:
    """Write those of these runs to a place that are in the ledger and not there yet."""
    with reading(ledger) as connection:
        runs = _read(connection, list(keys))
    _write(runs, place)


def export(connection: sqlite3.Connection, selection: Selection, place: str) -> tuple[int, int]:
    """Write the selected runs to a place; return (runs written, runs that were there already)."""
    runs = _read(connection, [run["key"] for run in find(connection, selection)])
    if not runs:
        refuse(
            "no such run is in the ledger; nothing was written.",
            "Look with keras-dropout runs, with the same --ledger, and give other filters.",
        )
    try:
        new = _write(runs, place)
    except BadInput:
        raise
    except Exception as error:  # the packages raise errors of their own, and of the network
        refuse(f"{place} has not taken all runs: {first_line(error)}", "Those that it has are left out the next time.")
    return new, len(runs) - new


def _read(connection: sqlite3.Connection, keys: Sequence[str]) -> list["Logged"]:
    """Return the runs of these keys, without failed ones, which may still be trained; with the placements that studies name."""
    there = {key for (key,) in select_keys(connection, "SELECT key FROM runs WHERE status != 'failed' AND key IN", keys)}
    placements = _placements(connection, keys)
    runs = (describe(connection, key) for key in dict.fromkeys(keys) if key in there)
    return [Logged(run, placements.get(run["key"], run["config"].get("placement"))) for run in runs]


def _placements(connection: sqlite3.Connection, keys: Sequence[str]) -> dict[str, Any]:
    """Return the placement of each run, by key, from the studies that asked for it."""
    found: dict[str, Any] = {}
    of_one = ("WHERE instr(runs, ?)", keys) if len(keys) == 1 else ("", ())
    for number, runs, document in connection.execute(f"SELECT id, runs, document FROM studies {of_one[0]}", of_one[1]):
        with decoding(f"study {number} cannot be read"):
            study = read_object("document", document).get("study", {}) if document else {}
            variants = {each["name"]: each["placement"] for each in study.get("variants", ())}
            found |= {run["key"]: variants[run["variant"]] for run in read_asked(runs) if run["variant"] in variants}
    return found


def _write(runs: Sequence["Logged"], place: str) -> int:
    return sum(map(_tracker(place).write, runs))


def _tracker(place: str) -> Tracker:
    kind, _, rest = check_place(place).partition(":")
    kinds: dict[str, Callable[[str], Tracker]] = {"tensorboard": _TensorBoard, "mlflow": _MLflow, "wandb": _Wandb}
    return kinds[kind](rest)


class _TensorBoard:
    """Event files, one folder a run, with the parameters for the page HPARAMS."""

    def __init__(self, folder: str):
        self._folder = Path(folder)

    def write(self, run: Logged) -> bool:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2
        from tensorboard.summary.writer.record_writer import RecordWriter

        folder = self._folder / _file_name(run.target) / f"{_file_name(run.name)}-{run.key[:8]}"
        if folder.is_dir() and any(folder.iterdir()):
            return False
        folder.mkdir(parents=True, exist_ok=True)

        def of_hparams(tag: str, **data: Any) -> Any:
            content = metadata.create_summary_metadata(plugin_data_pb2.HParamsPluginData(**data))
            return Summary(value=[Summary.Value(tag=tag, metadata=content, tensor=metadata.NULL_TENSOR)])

        status = api_pb2.STATUS_SUCCESS if run.status == "done" else api_pb2.STATUS_FAILURE
        start = plugin_data_pb2.SessionStartInfo(group_name=run.key, start_time_secs=run.start)
        for name, value in run.parameters.items():
            if _is_number(value):
                start.hparams[name].number_value = value
            else:
                start.hparams[name].string_value = str(value)
        end = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=run.end)
        events = [
            Event(wall_time=run.start, file_version="brain.Event:2"),
            Event(wall_time=run.start, summary=of_hparams(metadata.SESSION_START_INFO_TAG, session_start_info=start)),
        ]
        for name, curve in run.curves.items():
            for epoch, value in enumerate(curve, 1):
                one = Summary.Value(tag=name, simple_value=value)
                events.append(Event(wall_time=run.at(epoch), step=epoch, summary=Summary(value=[one])))
        final = [Summary.Value(tag=name, simple_value=value) for name, value in run.metrics.items()]
        epochs = int(run.parameters["epochs"])
        events.append(Event(wall_time=run.end, step=epochs, summary=Summary(value=final)))
        events.append(Event(wall_time=run.end, summary=of_hparams(metadata.SESSION_END_INFO_TAG, session_end_info=end)))
        part = folder / ".unfinished"  # TensorBoard reads files with tfevents in their names
        with part.open("wb") as file:
            writer = RecordWriter(file)
            for event in events:
                writer.write(event.SerializeToString())
        part.replace(folder / f"events.out.tfevents.{int(run.start)}.keras-dropout")
        return True


class _MLflow:
    """Runs of the experiment that has the name of the target."""

    def __init__(self, uri: str):
        os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
        from mlflow import MlflowClient

        self._client = MlflowClient(tracking_uri=uri or None)

    def write(self, run: Logged) -> bool:
        from mlflow.entities import Metric, Param

        client = self._client
        experiment = client.get_experiment_by_name(run.target)
        number = experiment.experiment_id if experiment else client.create_experiment(run.target)
        if client.search_runs([number], f"tags.`{_KEY}` = '{run.key}' and attributes.status != 'RUNNING'", max_results=1):
            return False
        tags = {_KEY: run.key, **({"keras-dropout.error": run.error} if run.error else {})}
        begun = client.create_run(number, int(1000 * run.start), tags, run.name).info.run_id
        parameters = [Param(_allowed(name), str(value)[:500]) for name, value in run.parameters.items()]
        client.log_batch(begun, params=parameters)
        steps = [
            Metric(_allowed(name), value, int(1000 * run.at(epoch)), epoch)
            for name, curve in run.curves.items()
            for epoch, value in enumerate(curve, 1)
        ]
        epochs = int(run.parameters["epochs"])
        steps += [Metric(_allowed(name), value, int(1000 * run.end), epochs) for name, value in run.metrics.items()]
        for first in range(0, len(steps), _AT_ONCE):
            client.log_batch(begun, metrics=steps[first : first + _AT_ONCE])
        client.set_terminated(begun, "FINISHED" if run.status == "done" else "FAILED", int(1000 * run.end))
        return True


class _Wandb:
    """Runs of a project, whose ids are the keys. Offline (WANDB_MODE=offline), one that was written before is written again."""

    def __init__(self, project: str):
        self._project = project or _PROJECT

    def write(self, run: Logged) -> bool:
        import wandb

        if os.environ.get("WANDB_MODE", "online") == "online" and self._has(run):
            return False
        begun = wandb.init(
            project=self._project,
            id=run.key,
            name=run.name,
            group=run.target,
            config={**run.parameters, "status": run.status},
            reinit="create_new",
            settings=wandb.Settings(silent=True, console="off", disable_git=True, x_disable_stats=True),
        )
        for epoch in range(max(map(len, run.curves.values()), default=0)):
            values = {name: curve[epoch] for name, curve in run.curves.items() if epoch < len(curve)}
            begun.log({**values, "epoch": epoch + 1}, step=epoch + 1)
        begun.summary.update(run.metrics)
        begun.finish(exit_code=0 if run.status == "done" else 1)
        return True

    def _has(self, run: Logged) -> bool:
        import wandb

        try:
            return bool(wandb.Api().run(f"{self._project}/{run.key}"))
        except (ValueError, wandb.errors.CommError):
            return False


def _file_name(text: str) -> str:
    return re.sub(r"[^\w.-]+", "_", text).strip("._") or "run"


def _allowed(name: str) -> str:
    """Return a name with the characters that MLflow takes."""
    return re.sub(r"[^\w\-. /:]", "_", name)
