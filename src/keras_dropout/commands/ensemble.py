"""The command ensemble: what a network trained with dropout is worth against the average of its thinned networks."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from keras_dropout.bench.settings import DataOptions
from keras_dropout.commands.options import (
    AS_READ,
    Backend,
    Data,
    Model,
    check_masks,
    choose_backend,
    takes,
)
from keras_dropout.commands.output import check_output_path, show, working
from keras_dropout.errors import check_whole, refuse
from keras_dropout.models import targets


@takes(DataOptions, *(name for name in AS_READ if name != "task"), into="options")
def ensemble(
    model: Model,
    options: dict[str, Any],
    data: Data = None,
    samples: Annotated[int, typer.Option(help="Thinned networks that are drawn.")] = 100,
    seed: Annotated[int, typer.Option(help="Of their masks.")] = 0,
    masks: Annotated[str, typer.Option(help="shared: a network for all examples (JAX); independent: one for each.")] = "shared",
    logits: Annotated[bool, typer.Option("--logits", help="The model ends without its softmax or sigmoid.")] = False,
    epochs: Annotated[
        int | None,
        typer.Option(help="Of the training whose networks are counted. Default: the recipe's, or 20."),
    ] = None,
    examples: Annotated[int | None, typer.Option(help="Of an epoch of it. Default: those that the data have for training.")] = None,
    thin: Annotated[bool, typer.Option("--thin", help="Write one thinned network to --output.")] = False,
    sample: Annotated[int, typer.Option(help="Which one, from 0 on.")] = 0,
    output: Annotated[str, typer.Option("--output", "-o", help="The .keras file to write.")] = "",
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
    backend: Backend = "jax",
    as_json: Annotated[bool, typer.Option("--json", help="Print an object on stdout.")] = False,
) -> None:
    """Compare a network with dropout to the average of its thinned networks, on test data; or write one of them.

    Dropout trains many thinned networks with shared weights; dropout off (weight scaling) stands for their average. Shown: how many
    there are, how many a training meets, and error and NLL of 1, 3, 10, … of them averaged, arithmetically and geometrically, as
    mean ± standard deviation over disjoint groups. With --thin alone no data are needed. A recipe is not trained: only its
    counts say something.

    Examples:
      keras-dropout ensemble model.keras --data digits.npz --divide-by 16
      keras-dropout ensemble model.keras --thin -o thinned.keras --sample 3
      keras-dropout ensemble digits-mlp --samples 10

    The fields of --json: model, examples, classes, samples, seed, masks, weight_scaling (error, nll), averages (networks, groups,
    error, nll and their sd, members_nll, and geometric_ of each), networks (layers, decisions, log2_networks, networks,
    coincidence), visited (draws, expected, lower, upper), notes; with --thin thinned (file, sample, before and after: layer, kind,
    units, parameters). Fields that do not apply are null.
    """
    check_whole("samples", samples, 1, "It is the number of thinned networks; 100 is a usual one.")
    check_whole("seed", seed, 0, "It is the seed of the masks.")
    check_whole("sample", sample, 0, "It is the number of one thinned network, from 0 on.")
    for name, value in (("epochs", epochs), ("examples", examples)):
        if value is not None:
            check_whole(name, value, 1, f"Leave --{name} out for the default.")
    if output and not thin:
        refuse("--output is for --thin.", "Add --thin, or leave --output out.")
    check_masks(masks, "jax" if thin and data is None else backend)  # what is thinned alone draws no masks
    path = check_output_path(output, ".keras", force) if thin else None
    with working("loading Keras, the model and the data") as say:
        choose_backend(backend)
        targets.check(model)
        from keras_dropout.bench.study import loading

        found, document = None, {}
        if thin and data is None:
            loaded, *_ = loading.load_target(model, None, options)
        else:
            loaded, everything, parts, about = loading.evaluation_data(model, data, options)
            from keras_dropout import ensemble as averaging
            from keras_dropout.bench.study import recipes

            test = parts["test"]
            if about is not None and about.task != "classification":
                refuse(
                    "averages of networks are compared on classes; the data are not labelled with classes.", "Give class labels."
                )
            if isinstance(test.y, (dict, tuple)):
                refuse("the data have several answers for each example.", "Give one: the class.")
            found = averaging.average(loaded, test.x, test.y, samples=samples, seed=seed, masks=masks, logits=logits, say=say)
            own = targets.names_model(model)
            found = replace(found, model=Path(model).name if own else model)
            if found.networks is not None:
                usual = 20 if own else recipes.find(model).epochs
                count = examples or len(everything.train.y) - everything.validation
                found = replace(found, visited=found.networks.visited((epochs or usual) * count))
            if not model.endswith(".keras") and _untrained(loaded):  # a file may hold weights without what trained them
                found = replace(found, notes=(*found.notes, "The model is not trained: its optimizer has made no step."))
            document = found.document()
        if path is not None:
            document["thinned"] = _thin(loaded, path, seed, sample)
    if as_json:
        print(json.dumps(document, indent=1))
        return
    if found is not None:
        show(found)
    if path is not None:
        print(path)
        show(_sizes_table(document["thinned"]), file=sys.stderr)


def _untrained(model: Any) -> bool:
    optimizer = getattr(model, "optimizer", None)
    return optimizer is not None and int(optimizer.iterations) == 0


def _thin(model: Any, path: Any, seed: int, sample: int) -> dict[str, Any]:
    """Write one thinned network, and tell its sizes beside those of the whole one."""
    from keras_dropout import thinning

    thinned = thinning.thin(model, seed, sample)
    thinned.save(path)
    names = ("layer", "kind", "units", "parameters")
    before, after = ([dict(zip(names, row)) for row in thinning.sizes(each)] for each in (model, thinned))
    return {"file": str(path), "sample": sample, "before": before, "after": after}


def _sizes_table(thinned: dict[str, Any]) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=f"thinned network {thinned['sample']}", title_justify="left")
    for name in ("layer", "kind", "units", "thinned", "parameters", "thinned"):
        table.add_column(name, justify="left" if name in ("layer", "kind") else "right")
    for old, new in zip(thinned["before"], thinned["after"], strict=True):
        sizes = (f"{each[name]:,}" for name in ("units", "parameters") for each in (old, new))
        table.add_row(Text(old["layer"]), old["kind"], *sizes)
    total = (f"{sum(each['parameters'] for each in thinned[when]):,}" for when in ("before", "after"))
    table.add_section()
    table.add_row("all", "", "", "", *total)
    return table
