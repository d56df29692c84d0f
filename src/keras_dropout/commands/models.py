"""The commands about models and layers: sites, place, check, init and layers."""

import json
import os
import sys
import warnings
from typing import Annotated, Any

import typer

from keras_dropout import frameworks
from keras_dropout.bench.settings import DataOptions
from keras_dropout.commands.options import (
    AS_READ,
    METHODS,
    Backend,
    Data,
    Model,
    choose_backend,
    complete_target,
    one_of,
    takes,
)
from keras_dropout.commands.output import again, check_output_path, show, working
from keras_dropout.errors import meant, refuse
from keras_dropout.models import targets


@takes(DataOptions, "target", "text", "time", "sheet", "window", "horizon", into="options")
def sites(
    model: Model,
    options: dict[str, Any],
    data: Data = None,
    backend: Backend = "jax",
    as_json: Annotated[bool, typer.Option("--json", help="Print a list of objects on stdout.")] = False,
) -> None:
    """Show every place in a model where dropout is or could go, in the order of the data.

    --data are for a function that asks for input_shape, outputs or vocabulary.

    Examples:
      keras-dropout sites model.keras
      keras-dropout sites train.py:build_model --json

    The fields of --json: name, kind (of layer), group (input, hidden, output, normalisation), last (feeds an output), shape
    (without the batch), dtype, parameters, behind (the activations and normalisations that dropout is put behind), dropout (what
    there is: layer, kind, rate), methods (those of the catalogue that fit).
    """
    with working("loading Keras and the model"):
        choose_backend(backend)
        from keras_dropout.bench.study import loading

        loaded, *_ = loading.load_target(model, data, options)
        from keras_dropout.models import placement

        found = placement.sites(loaded)
    if as_json:
        print(json.dumps([site.document() for site in found], indent=1))
    else:
        show(found)


def place(
    model: Model,
    put: Annotated[list[str] | None, typer.Option(help='"SITE=RATE, SITE=Kind(rate, option=…)". Repeatable.')] = None,
    strip: Annotated[bool, typer.Option("--strip", help="Put nothing: only take out what there is.")] = False,
    output: Annotated[str, typer.Option("--output", "-o", help="The .keras file to write.")] = "",
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
    backend: Backend = "jax",
) -> None:
    """Write a model with other dropout: the same weights, the same predictions.

    What dropout there is, is taken out first: a placement describes a model completely. Compile settings and the state of the
    optimizer are kept.

    Examples:
      keras-dropout place model.keras --put "hidden=0.2, input=0.1" -o new.keras
      keras-dropout place model.keras --strip -o bare.keras
    """
    from keras_dropout.bench.records import Variant

    if not put and not strip:
        refuse("nothing to put.", 'Write --put "hidden=0.2", or --strip to take out the dropout there is.')
    if put and strip:
        refuse("--put and --strip together.", "--put takes out what there is by itself: leave --strip out.")
    placement = dict(Variant.parse(f"put={', '.join(put)}").placement or {}) if put else {}
    path = check_output_path(output, ".keras", force)
    with working("loading Keras and the model") as say:
        choose_backend(backend)
        targets.check(model)
        from keras_dropout.models import placement as placing

        old = targets.load_model(model)
        say("placing dropout")
        new = placing.place(old, placement)
        say("writing the model")
        new.save(path)
    print(path)
    show(placing.sites(new), file=sys.stderr)


@takes(DataOptions, *AS_READ, into="options")
def check(
    model: Model,
    options: dict[str, Any],
    data: Data = None,
    run: Annotated[bool, typer.Option("--run", help="Run the model instead: does its dropout drop?")] = False,
    backend: Backend = "jax",
    as_json: Annotated[bool, typer.Option("--json", help="Print a list of objects on stdout; with --run an object.")] = False,
) -> None:
    """Find known mistakes with dropout in a model. Exit status 1 when there are some.

    With --data, what can be measured (such as the shift of the variance at a batch normalisation) is measured on them, and below
    stands where to begin with dropout, by the nearest studies of the atlas (docs/atlas.md). The fields of --json: rule, layer,
    what, evidence, source, mend.

    With --run, the model is run in training and at prediction, on --data or on made-up inputs, and each dropout layer is measured:
    whether it drops, the share of its rate, the mean, whether predictions depend on it, and whether masks hold (docs/audit.md).
    --json then has mistakes, layers (layer, kind, rate, calls, share, low, high, factor, draws, verdict) and notes.

    Examples:
      keras-dropout check model.keras
      keras-dropout check model.keras --run
      keras-dropout check train.py:build --data x.npy,y.npy --json
    """
    with working("loading Keras and the model") as say:
        choose_backend(backend)
        from keras_dropout.bench.study import loading

        loaded, inputs, examples = loading.load_target(model, data, options)
        from keras_dropout.models import first_placement, mistakes

        if run:
            say("running the model")
            audited = mistakes.check(loaded, inputs, run=True)
    if run:
        print(json.dumps(audited.document(), indent=1)) if as_json else show(audited)
        raise typer.Exit(1 if audited else 0)
    with working("looking for mistakes"):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = mistakes.check(loaded, inputs)
            advice = first_placement.advise_on(loaded, inputs, examples)
    for warning in caught:
        if "single layers" in str(warning.message):
            print(f"keras-dropout: {warning.message}", file=sys.stderr)
    if as_json:
        print(json.dumps([mistake.document() for mistake in found], indent=1))
    else:
        print(found, *([] if data is None else ["", advice]), sep="\n")
    if found:
        raise typer.Exit(1)


@takes(DataOptions, "target", "text", "time", "sheet", "window", "horizon", into="options")
def init(
    target: Annotated[str, typer.Argument(help="A recipe, a .keras file, or file.py:function.", autocompletion=complete_target)],
    options: dict[str, Any],
    data: Data = None,
    output: Annotated[str, typer.Option("--output", "-o", help="The .toml file to write.")] = "study.toml",
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
    backend: Backend = "jax",
) -> None:
    """Write a commented study file from a model's sites, for compare --study.

    With --data, a variant in it is where to begin by the nearest studies of the atlas (docs/atlas.md), with their names.

    Examples:
      keras-dropout init model.py:build --data houses.csv --target price
      keras-dropout init digits-mlp -o digits.toml
    """
    path = check_output_path(output, ".toml", force)
    with working("loading Keras and the model"):
        choose_backend(backend)
        from keras_dropout.bench.study import loading, study_file

        loaded, inputs, examples = loading.load_target(target, data, options)
        from keras_dropout.models import first_placement, placement

        advice = first_placement.advise_on(loaded, inputs, examples)
        path.write_text(study_file.write(target, placement.sites(loaded), data, options, advice), "utf-8")
    print(path)
    print(f"Read it, change it, and then: {again('compare', '--study', output)}", file=sys.stderr)


def layers(
    name: Annotated[str | None, typer.Argument(help="One method, in full.", autocompletion=one_of(*METHODS))] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a list of objects on stdout.")] = False,
) -> None:
    """List every dropout method of the library, or show one in full.

    Examples:
      keras-dropout layers
      keras-dropout layers DropBlock2D

    The fields of --json: name, group, summary, reference, differs (from the paper and from other code), and example (a call, with
    the library's names and keras), input_shape and input_dtype (a batch that it accepts): null for what is no layer.
    """
    if name is not None and name not in METHODS:
        refuse(f"unknown method {name!r}.", f"{meant(name, METHODS)}{again('layers')} lists all.")
    if "jax" in frameworks.installed():  # which Keras's NumPy backend needs; it loads the fastest, to read docstrings
        os.environ["KERAS_BACKEND"] = "numpy"
    frameworks.choose()
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
