"""The records that the parts of the bench exchange: Variant, Study, Run, Result. Frozen, of plain values, checked when made.

A *study* is model + data + training settings + variants + seeds. A *run* is one training of one variant with one seed. A run is
identified by its key, a hash of everything that decides its result.
"""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from keras_dropout import notation, schedules
from keras_dropout.bench import own_training
from keras_dropout.bench.metric_names import known_direction
from keras_dropout.bench.settings import ENGINES
from keras_dropout.characters import clean_line
from keras_dropout.errors import check_choice, check_whole, refuse
from keras_dropout.frameworks import BACKENDS

BASELINE = "none"
# Increased when a code change alters the numbers of the same run: old runs are then trained again.
NUMERIC_VERSION = 2
STATUSES = ("done", "diverged", "failed")


@dataclass(frozen=True)
class Variant:
    """A named placement: site -> {"kind": layer class, "rate": rate, …}. With `placement` None the model stays as built.

    A "schedule" in a spec is a mapping {"kind": …}, documented in `schedules`; the spec's "rate" is then the schedule's highest
    rate. A spec with "over_depth": True is spread over its sites once the model is known: see `schedules.spread_over_depth`.

    `training` are settings that take the place of the study's own for this variant: see `own_training`.
    """

    name: str
    placement: Mapping[str, Mapping[str, Any]] | None
    training: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if not self.name or not isinstance(self.name, str):
            refuse(f"a variant needs a name; got {self.name!r}.", 'Write NAME="SITE=RATE, …".')
        if clean_line(self.name) != self.name:
            refuse(f"the name of a variant has characters that cannot be shown: {self.name!r}.", "Rename it.")
        for site, spec in (self.placement or {}).items():
            where = f"variant {self.name!r}, site {site!r}"
            rate = check_study_rate(where, spec["rate"]) if "rate" in spec else None
            if "schedule" in spec and rate != schedules.from_document(spec["schedule"]).peak:
                refuse(
                    f"{where}: the rate {rate} is not the schedule's highest.",
                    'Give the schedule as "rate" and leave the other out.',
                )

    def own_training(self) -> dict[str, Any]:
        """Return the entry of a document for training settings of the variant's own, if it has some."""
        return {"training": dict(self.training)} if self.training else {}

    def __str__(self) -> str:
        """Return the text that `parse` reads as this variant; the name alone if nothing is placed."""
        places = ", ".join(f"{site}={notation.spec_text(spec)}" for site, spec in (self.placement or {}).items())
        return f"{self.name}={places}" if places else self.name

    @classmethod
    def of(cls, name: str, placement: Mapping[str, Any] | None) -> "Variant":
        """Make a variant from rates, schedules, their texts, dropout layers or {"kind", "rate", …} mappings by site."""
        return cls(name, None if placement is None else {site: _spec(name, site, value) for site, value in placement.items()})

    @classmethod
    def parse(cls, text: str) -> "Variant":
        """Parse NAME="SITE=RATE, SITE=Kind(rate, option=…)"; a rate can be a schedule such as linear(0.5, 0.0)."""
        name, equals, places = text.partition("=")
        fix = 'Write NAME="SITE=RATE, SITE=Kind(rate, option=…)", for example half="hidden=0.5".'
        if not equals or not places.strip():
            refuse(f"variant {text!r} has no placement.", fix)
        placement: dict[str, Any] = {}
        for place in notation.split(places):
            site, equals, value = (part.strip() for part in place.partition("="))
            if not site or not value:
                refuse(f"variant {name.strip()!r}: {place.strip()!r} is not SITE=RATE.", fix)
            placement[site] = value
        return cls.of(name.strip(), placement)


def _spec(variant: str, site: str, value: Any) -> dict[str, Any]:
    if isinstance(value, str):
        value = notation.parse(value)
    if hasattr(value, "get_config"):
        options = {k: v for k, v in value.get_config().items() if k not in ("name", "trainable", "dtype", "seed")}
        value = {"kind": type(value).__name__, **options}
    elif not isinstance(value, Mapping):
        value = {"kind": "Dropout", "rate": value}
    where = f"variant {variant!r}, site {site!r}"
    if not isinstance(value.get("kind"), str):
        refuse(f"{where}: {dict(value)!r} names no kind of layer.", 'Write {"kind": "Dropout", "rate": 0.2}.')
    if "rate" not in value:  # a method that learns its rates
        return dict(value)
    rate, options = value["rate"], {name: option for name, option in value.items() if name not in ("kind", "rate")}
    if isinstance(rate, str) and "(" in rate:
        rate = schedules.parse(rate)
    if isinstance(rate, schedules.Schedule):
        # A constant schedule is stored as a rate, so that both give the run the same key.
        options |= {} if isinstance(rate, schedules.Constant) else {"schedule": rate.document()}
        rate = rate.peak
    return {"kind": value["kind"], "rate": check_study_rate(where, rate), **options}


def check_study_rate(where: str, rate: Any) -> float:
    """Return the rate as a float, or refuse one outside [0, 1): a rate of 1 leaves nothing to train."""
    if isinstance(rate, (int, float, np.number)) and not isinstance(rate, bool) and 0 <= float(rate) < 1:
        return float(rate)
    refuse(
        f"{where}: rate must be a number in [0, 1); got {rate!r}.",
        "rate is the fraction that is dropped: to keep 80 % of the units write 0.2.",
    )


def check_variant_names(names: Sequence[str], baseline: Any) -> None:
    """Refuse duplicate names of variants, and a baseline that is none of them."""
    if twice := sorted(name for name, count in Counter(names).items() if count > 1):
        refuse(f"two variants have the same name: {', '.join(twice)}.", "Rename one.")
    check_choice("baseline", baseline, tuple(names), f"Use the name of a variant: {', '.join(names)}.")


def check_seeds(seeds: Sequence[int]) -> None:
    """Refuse an empty list of seeds, and duplicate seeds."""
    if not seeds:
        refuse("seeds must be a whole number of at least 1; got 0.", "Six are the fewest that can reach significance.")
    if twice := [seed for seed, count in Counter(seeds).items() if count > 1]:
        refuse(f"the seeds must differ; got {twice[0]} more than once.", "The same seed is the same run: it adds nothing.")


@dataclass(frozen=True)
class DataFacts:
    """A study's description of its data: a name, a fingerprint of the contents, and the sizes of the three parts."""

    name: str
    fingerprint: str
    train: int
    validation: int
    test: int


@dataclass(frozen=True)
class Run:
    """One training of one variant with one seed."""

    key: str
    variant: Variant
    seed: int


@dataclass(frozen=True)
class Study:
    """The full definition of a comparison, in plain values only, so that it can be stored and sent to a worker.

    `data` describes the data as divided once. If they are divided anew for each seed, `divisions` describes each seed's division,
    and `comparable` says whether a study with the data divided once has the same model.
    `model` and `compiled` are the output of Keras's serialisation; `seeds` lists the seeds themselves. `class_weight` maps classes
    to weights in training; `early_stopping` is the patience in epochs; `samples` is the number of stochastic forward passes for
    Monte-Carlo metrics on the test data. Every run starts from `weights`, in the order of the model's weights. A worker imports
    `modules` and the Python file `source` before it makes the model; `objects` are the classes and functions sent to it. In a race,
    `counts` says how many of the seeds each variant gets. `steps_per_epoch` are the training batches of an epoch, if they are not
    all; `callbacks` (a `bench.data.live.Given`) makes the callbacks of each run.
    """

    target: str
    data: DataFacts
    model: Mapping[str, Any]
    compiled: Mapping[str, Any]
    split: str
    backend: str
    engine: str
    epochs: int
    batch_size: int
    seeds: tuple[int, ...]
    variants: tuple[Variant, ...]
    baseline: str = BASELINE
    class_weight: Mapping[int, float] | None = None
    early_stopping: int | None = None
    samples: int | None = None
    divisions: Mapping[int, DataFacts] | None = field(default=None, repr=False)
    comparable: bool = True
    weights: Sequence[np.ndarray] | None = field(default=None, repr=False, compare=False)
    modules: tuple[str, ...] = field(default=(), repr=False)
    source: str | None = None
    objects: bytes | None = field(default=None, repr=False)
    objects_hash: str | None = field(default=None, repr=False)
    counts: Mapping[str, int] | None = None
    steps_per_epoch: int | None = None
    callbacks: Any = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.early_stopping is not None:
            check_whole("early stopping", self.early_stopping, 1, "Give the epochs to wait for a better validation loss, or None.")
        if self.samples is not None:
            check_whole("samples", self.samples, 1, "It is the number of stochastic forward passes, for example 50; or None.")
        check_whole("epochs", self.epochs, 1, "Give at least one epoch.")
        check_whole("batch size", self.batch_size, 1, "Give at least one example a step, for example 32.")
        check_choice("backend", self.backend, BACKENDS)
        check_choice("engine", self.engine, ENGINES)
        check_variant_names([variant.name for variant in self.variants], self.baseline)
        check_seeds(self.seeds)

    def seeds_of(self, variant: Variant) -> tuple[int, ...]:
        """Return the seeds that a variant gets: all of them, or in a race the first ones."""
        return self.seeds if self.counts is None else self.seeds[: self.counts[variant.name]]

    def with_counts(self, counts: Mapping[str, int]) -> "Study":
        """Return the study with so many seeds of each variant, and of the baseline as many as the variant with the most."""
        most = max(counts.values())
        found = replace(self, seeds=self.seeds[:most], counts={**counts, self.baseline: most})
        vars(found).update({name: value for name, value in vars(self).items() if name in ("_keys", "_fixed_keys", "weights_hash")})
        return found

    def data_of(self, seed: int) -> DataFacts:
        """Return the facts about the data of this seed's runs."""
        return self.data if self.divisions is None else self.divisions[seed]

    def runs(self) -> list[Run]:
        """Return all runs, by seed and then by variant, so that complete pairs come early."""
        return [
            Run(self.key(variant, seed), variant, seed)
            for place, seed in enumerate(self.seeds)
            for variant in self.variants
            if self.counts is None or place < self.counts[variant.name]
        ]

    def deciding(self, variant: Variant, seed: int) -> dict[str, Any]:
        """Return everything that decides a run's result, as plain values; positions replace the names of layers.

        Names decide nothing, and Keras makes up new ones each time. Only names are replaced: in a layer named "relu", the
        activation "relu" stays. A variant's own training settings count as if they were the study's.
        """
        if variant.training:
            return self.of(variant).deciding(replace(variant, training=None), seed)
        placement, data = variant.placement, self.data_of(seed)
        class_weight = None if self.class_weight is None else {str(n): float(w) for n, w in self.class_weight.items()}
        # Included only where used, so that the keys of other studies do not change.
        options = {
            "class_weight": class_weight,
            "early_stopping": self.early_stopping,
            "samples": self.samples,
            "weights": self.weights_hash,
            "source": self._source_hash,
            "objects": self.objects_hash,
            "steps_per_epoch": self.steps_per_epoch,
            "callbacks": None if self.callbacks is None else self.callbacks.code,
            # Early versions did not weight test losses; this gives the runs different keys.
            "weighted_loss": True if self.compiled.get("loss_weights") is not None else None,
        }
        return {
            "numeric_version": NUMERIC_VERSION,
            **self._architecture,
            "placement": placement and {self._path(site): _plain(spec) for site, spec in placement.items()},
            "data": data.fingerprint,
            "split": [self.split, data.train, data.validation],
            "backend": self.backend,
            "engine": self.engine,
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "seed": seed,
            **{name: value for name, value in options.items() if value is not None},
        }

    def trained_by(self, training: Mapping[str, Any]) -> "Study":
        """Return the study with some training settings changed: see `own_training`."""
        patience = training.get("early_stopping", self.early_stopping)
        return replace(self, compiled=own_training.compiled_with(self.compiled, training), early_stopping=patience)

    def of(self, variant: Variant) -> "Study":
        """Return the study with the training settings of a variant."""
        if not variant.training:
            return self
        known, text = self._with_training, json.dumps(variant.training, sort_keys=True)
        if text not in known:
            known[text] = self.trained_by(variant.training)
        return known[text]

    def key(self, variant: Variant, seed: int) -> str:
        """Return the run's key: 32 hexadecimal digits of a hash of everything that decides its result."""
        return self._keys[variant.name, seed]

    def fixed_key(self, variant: Variant, seed: int) -> str | None:
        """Return the key of the run with the data as divided once; None if it is not known."""
        return self._fixed_keys.get((variant.name, seed))

    def document(self) -> dict[str, Any]:
        """Describe the study in plain values: everything except the model and the weights."""
        resampled = {
            "divisions": [{"seed": seed, **vars(self.data_of(seed))} for seed in self.seeds],
            "fixed_keys": [{"variant": name, "seed": seed, "key": key} for (name, seed), key in self._fixed_keys.items()],
        }
        return {
            **{name: getattr(self, name) for name in _SAID},
            "data": dict(vars(self.data)),
            "compiled": dict(self.compiled),
            "seeds": list(self.seeds),
            "variants": [
                {"name": variant.name, "placement": variant.placement, **variant.own_training()} for variant in self.variants
            ],
            "class_weight": self.class_weight and {str(number): weight for number, weight in self.class_weight.items()},
            "from_weights": self.weights_hash,
            **({} if self.counts is None else {"counts": dict(self.counts)}),
            **(resampled if self.divisions is not None else {}),
        }

    @classmethod
    def from_document(cls, said: Mapping[str, Any], keys: Mapping[tuple[str, int], str]) -> "Study":
        """Rebuild a finished study for reading: it has no model, and takes its keys, by (variant, seed), from `keys`."""
        kind, more = (FunctionStudy, FunctionStudy.fields_from(said["function"])) if "function" in said else (cls, {})
        study = kind(
            **more,
            **{name: said[name] for name in _SAID},
            data=DataFacts(**said["data"]),
            model={},
            compiled=said["compiled"],
            seeds=tuple(said["seeds"]),
            variants=tuple(Variant(**variant) for variant in said["variants"]),
            class_weight=said["class_weight"] and {int(number): weight for number, weight in said["class_weight"].items()},
            counts=said.get("counts"),
            divisions=_divisions(said["divisions"]) if "divisions" in said else None,
        )
        fixed = {(each["variant"], each["seed"]): each["key"] for each in said.get("fixed_keys", ())}
        # Set in place of the cached properties.
        vars(study).update(_keys=dict(keys), _fixed_keys=fixed, weights_hash=said["from_weights"])
        return study

    @cached_property
    def _with_training(self) -> dict[str, "Study"]:
        """The study with the training settings of its variants, by the text of these."""
        return {}

    @cached_property
    def _fixed_keys(self) -> dict[tuple[str, int], str]:
        return {} if self.divisions is None or not self.comparable else replace(self, divisions=None)._keys

    @cached_property
    def _position(self) -> dict[str, str]:
        """The text that replaces each layer's name."""
        return {layer["config"].get("name", ""): f"#{number}" for number, layer in enumerate(_layers(self.model))}

    def _path(self, site: str) -> str:
        return "/".join(self._position.get(step, step) for step in site.split("/"))

    @cached_property
    def _architecture(self) -> dict[str, Any]:
        """The model and its compile settings, which all runs share."""

        def by_output(value: Any) -> Any:
            if isinstance(value, Mapping) and "class_name" not in value:
                return {self._position.get(output, output): _plain(v) for output, v in value.items()}
            return _plain(value)

        layers = {id(layer) for layer in _layers(self.model)}
        compiled = {name: by_output(value) for name, value in self.compiled.items()}
        return {"model": _plain(self.model, self._position, layers), "compiled": compiled}

    @cached_property
    def weights_hash(self) -> str | None:
        """A hash of the weights that every run starts from."""
        if self.weights is None:
            return None
        digest = hashlib.sha256()
        for array in self.weights:
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(np.asarray(array).tobytes())
        return digest.hexdigest()[:32]

    @cached_property
    def _source_hash(self) -> str | None:
        return None if self.source is None else hashlib.sha256(Path(self.source).read_bytes()).hexdigest()[:32]

    @cached_property
    def _keys(self) -> dict[tuple[str, int], str]:
        def key(variant: Variant, seed: int) -> str:
            text = json.dumps(self.deciding(variant, seed), sort_keys=True, default=repr)
            return hashlib.sha256(text.encode()).hexdigest()[:32]

        return {(variant.name, seed): key(variant, seed) for variant in self.variants for seed in self.seeds}


@dataclass(frozen=True)
class Scores(Study):
    """The scores of runs that were trained elsewhere: as much of a study as a comparison needs, without a model or training.

    `metrics` are the names of the scores in their order, and `rising` those of which a higher value is better. Seeds may be texts.
    """

    metrics: tuple[str, ...] = ()
    rising: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        check_variant_names([variant.name for variant in self.variants], self.baseline)

    def key(self, variant: Variant, seed: Any) -> str:
        """Return a name of the run."""
        return json.dumps([variant.name, seed])


@dataclass(frozen=True)
class FunctionStudy(Study):
    """A study of a training function: the user's own training, which is called with each variant and seed. It has no model.

    `function` names it as "file.py:function" or "module:function"; a function that was given in Python is in `objects`. `uses` maps
    the files that it reads to hashes of their contents. `rising` and `falling` are the metrics whose better side the user said.
    `epochs` is 0 if the user gave none.
    """

    function: str = ""
    uses: Mapping[str, str] = field(default_factory=dict)
    rising: tuple[str, ...] = ()
    falling: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_choice("backend", self.backend, BACKENDS)
        check_variant_names([variant.name for variant in self.variants], self.baseline)
        check_seeds(self.seeds)

    def direction(self, metric: str) -> bool | None:
        """Return whether a higher value of a metric is better: as the user said, else by its name; None if neither says it."""
        if metric in self.rising or metric in self.falling:
            return metric in self.rising
        return known_direction(metric)

    def deciding(self, variant: Variant, seed: int) -> dict[str, Any]:
        """Return all that is known to decide a run's result. Data that the function reads count only if `uses` names them."""
        options = {"source": self._source_hash, "objects": self.objects_hash, "epochs": self.epochs or None}
        return {
            "numeric_version": NUMERIC_VERSION,
            "function": self.function.rpartition(":")[2],
            "uses": sorted(self.uses.values()),
            "placement": variant.placement and {site: _plain(spec) for site, spec in variant.placement.items()},
            "backend": self.backend,
            "seed": seed,
            **{name: value for name, value in options.items() if value is not None},
        }

    def document(self) -> dict[str, Any]:
        """Describe the study in plain values."""
        own = {"name": self.target, "uses": dict(self.uses), "rising": list(self.rising), "falling": list(self.falling)}
        return super().document() | {"function": own}

    @classmethod
    def fields_from(cls, own: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields of its own from the entry "function" of a document."""
        sides = {side: tuple(str(name) for name in own[side]) for side in ("rising", "falling")}
        return {"function": str(own["name"]), "uses": dict(own["uses"]), **sides}


def _divisions(rows: Sequence[Mapping[str, Any]]) -> dict[int, DataFacts]:
    """Return the facts about each seed's division from a study's document."""
    return {row["seed"]: DataFacts(**{name: row[name] for name in DataFacts.__dataclass_fields__}) for row in rows}


_SAID = ("target", "split", "backend", "engine", "epochs", "batch_size", "baseline", "early_stopping", "samples")


_OF_NAMES = ("keras_history", "input_layers", "output_layers")  # entries of a serialised model that consist of layer names


def _layers(value: Any, listed: bool = True) -> Iterator[Mapping[str, Any]]:
    """Yield the layers of a serialised model: the model first, nested layers included."""
    if isinstance(value, (list, tuple)):
        for each in value:
            yield from _layers(each, listed)
    elif isinstance(value, Mapping):
        config = value.get("config")
        if isinstance(config, Mapping) and (listed or {"name", "trainable"} <= set(config)):
            yield value
        for name, each in value.items():
            yield from _layers(each, name == "layers")


def _plain(value: Any, position: Mapping[str, str] | None = None, layers: Collection[int] = ()) -> Any:
    """Return part of a serialised model as plain values; positions replace the names of `layers`, which are given by id."""
    if isinstance(value, (list, tuple)):
        return [_plain(v, position, layers) for v in value]
    if not isinstance(value, Mapping):
        return value
    said = {
        k: _renamed(v, position or {}) if k in _OF_NAMES else _plain(v, position, layers)
        for k, v in value.items()
        if k != "shared_object_id"
    }
    if id(value) in layers:
        for named in (said, said["config"]):
            if "name" in named:
                named["name"] = _renamed(named["name"], position or {})
    return said


def _renamed(value: Any, position: Mapping[str, str]) -> Any:
    """Return nested names of layers with each name replaced by its position."""
    if isinstance(value, Mapping):
        return {position.get(k, k): _renamed(v, position) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_renamed(v, position) for v in value]
    return position.get(value, value) if isinstance(value, str) else value


@dataclass(frozen=True)
class Result:
    """The outcome of a run.

    `metrics`: values after the last epoch (with early stopping: `best_epoch`), {"test_loss": …, "train_accuracy": …}, measured with
    dropout off. Only "test_mc_…", of a study with samples, is measured on the mean of stochastic passes.
    `curves`: for each metric a list with one value per epoch ("loss" is the running mean in training, dropout on).
    `test_losses`: one loss per test example.
    `predictions`: for each test example the predicted class, a whole number, or the predicted value, where it is one number.
    `calibration`: in a study with samples, the curves of "plain" and "monte_carlo" predictions (see `scoring.curves`).
    `seconds`: time spent, including compilation. For runs trained together: the wall time divided by their number.
    `log`: the printed output of the process that trained the run.
    `model`: the trained model as the bytes of a .keras file, if it is to be kept.
    """

    status: str
    seconds: float
    epochs: int
    metrics: Mapping[str, float] = field(default_factory=dict)
    curves: Mapping[str, list[float]] = field(default_factory=dict)
    test_losses: np.ndarray | None = field(default=None, repr=False, compare=False)
    error: str | None = None
    compilations: int = field(default=0, compare=False)
    best_epoch: int | None = None
    log: str = field(default="", repr=False, compare=False)
    model: bytes | None = field(default=None, repr=False, compare=False)
    predictions: np.ndarray | None = field(default=None, repr=False, compare=False)
    calibration: Mapping[str, Any] | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_choice("status", self.status, STATUSES)
        if self.status == "done" and not all(math.isfinite(value) for value in self.metrics.values()):
            raise ValueError(f"a run that is done has finite metrics; got {dict(self.metrics)}")
        if self.status == "failed" and not self.error:
            raise ValueError("a run that failed says why")
