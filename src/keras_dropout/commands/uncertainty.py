"""The command uncertainty: what a model's predictions are worth with dropout off, and with Monte-Carlo dropout."""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from keras_dropout.bench.settings import AssessmentSettings, DataOptions, complete
from keras_dropout.commands.options import (
    AS_READ,
    Backend,
    check_masks,
    choose_backend,
    complete_model_or_ledger,
    takes,
)
from keras_dropout.commands.output import check_output_path, show, working
from keras_dropout.errors import check_choice, refuse
from keras_dropout.models.targets import RECIPES


@takes(DataOptions, *AS_READ, "test_data", into="options")
@takes(AssessmentSettings, into="settings")
def uncertainty(
    model: Annotated[
        str,
        typer.Argument(
            help="A trained .keras file, file.py:function, or a ledger (.db) with kept models.",
            autocompletion=complete_model_or_ledger,
        ),
    ],
    options: dict[str, Any],
    settings: dict[str, Any],
    data: Annotated[
        str | None, typer.Option(help="As in compare, or a recipe's name for its data; a ledger knows its recipe.")
    ] = None,
    data_dir: Annotated[str | None, typer.Option(help="Recipes: folder with the data files. Also: KERAS_DROPOUT_DATA.")] = None,
    variant: Annotated[str | None, typer.Option(help="Ledgers: whose models; all seeds, and their ensemble.")] = None,
    place: Annotated[list[str] | None, typer.Option(help='Put dropout first: "SITE=RATE". Repeatable.')] = None,
    ood: Annotated[
        list[str] | None, typer.Option(help="Images that the model should not know: data, or a recipe. Repeatable.")
    ] = None,
    shift: Annotated[
        list[str] | None, typer.Option(help="Also on test images under rotation, noise, blur, contrast, or all. Repeatable.")
    ] = None,
    output: Annotated[
        str, typer.Option("--output", "-o", help="Write the Monte-Carlo figures of each test example (and seed) to this .csv file.")
    ] = "",
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
    backend: Backend = "jax",
    as_json: Annotated[bool, typer.Option("--json", help="Print an object on stdout.")] = False,
) -> None:
    """Measure a trained model's predictions: plain, and with dropout left on (Monte-Carlo dropout).

    Only dropout acts; batch normalisation and all else stay as at prediction. With a ledger of a study made with --keep-weights,
    all seeds of a variant are measured, intervals are over the seeds, and their deep ensemble is there for nothing.

    Examples:
      keras-dropout uncertainty model.keras --data digits-mlp --temperature
      keras-dropout uncertainty runs.db --variant hidden --ood digits-mlp --shift rotation
      keras-dropout uncertainty bare.keras --data x.npy,y.npy --place "last=0.2" --tune-rate nll
      keras-dropout uncertainty heat.keras --data heat.csv --target load --time at --window 24 --variance-head

    The fields of --json: target, data, task, examples, samples, masks, seeds, methods (method, values by metric, mean, interval,
    ece_of_calibrated, milliseconds an example), differences to plain (method, metric, difference, interval, p, p_adjusted,
    verdict), temperatures, precisions, moments_error, rates, ood, shifts, notes. ece_of_calibrated is the ECE that a calibrated
    model with the same probabilities has by chance. Fields that do not apply are null or empty.
    """
    asked = complete(settings, AssessmentSettings)
    check_masks(asked["masks"], backend)
    path = check_output_path(output, ".csv", force) if output else None
    ledger = model.endswith((".db", ".sqlite"))
    if variant is not None and not ledger:
        refuse("--variant is for a ledger of a study.", "Name the ledger: keras-dropout uncertainty runs.db --variant hidden")
    with working("loading Keras, the model and the data") as say:
        choose_backend(backend)
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        from keras_dropout.bench.records import Variant
        from keras_dropout.bench.study import loading

        placement = dict(Variant.parse(f"place={', '.join(place)}").placement or {}) if place else {}
        shifts = _shifts(shift or ())
        for each in (data, *(ood or ())):
            loading.check_data_name(each)
        if ledger:
            models, study = loading.kept_models(model, variant)
            from_recipe = data is None and study["target"] in RECIPES
            loaded, about = loading.named_data(study["target"] if from_recipe else data, options, data_dir)
            parts, name = loading.as_seen_parts(loaded), f"{study['target']}, {variant}"
        else:
            found, loaded, parts, about = loading.evaluation_data(model, data, options, data_dir)
            models, name = {0: found}, Path(model).name
        from keras_dropout.bench import assessment
        from keras_dropout.models import placement as placing
        from keras_dropout.sampling import contains_dropout

        if place:
            models = {number: placing.place(each, placement) for number, each in models.items()}
        if path is not None:
            try:
                import pandas
            except ImportError:
                refuse("--output needs pandas, which is not installed.", "pip install 'keras-dropout[tables]'")
            if not all(map(contains_dropout, models.values())):
                refuse(
                    "figures of each example are those of Monte-Carlo dropout; there is none in the model.",
                    'Put some in, for example --place "last=0.2", or leave --output out.',
                )
        others = {each: loading.as_seen_parts(loading.named_data(each, {}, data_dir)[0])["test"].x for each in ood or ()}
        notes = []
        regression = about is not None and about.task == "regression"
        fitted = (
            asked["temperature"] or asked["tune_rate"] or (regression and asked["precision"] is None and not asked["variance_head"])
        )
        if fitted and not (ledger and loading.held_out(study, loaded)):
            notes.append(
                f"What is fitted on the {len(parts['validation'].y)} validation examples holds only where they were not trained on."
            )
        measured = assessment.assess(
            models,
            parts["test"],
            parts["validation"],
            target=name,
            data=loaded.name,
            task=about.task if about is not None and isinstance(about.task, str) else None,
            ood=others,
            shifts=shifts,
            notes=notes,
            say=say,
            **settings,
        )
    if path is not None:
        frames = [u.to_frame().assign(seed=number) for number, u in measured.uncertainties.items()]
        pandas.concat(frames).to_csv(path, index_label="example")
    if as_json:
        print(json.dumps(measured.document(), indent=1))
    else:
        show(measured)
    if path is not None:
        print(path, file=sys.stderr)


def _shifts(names: Sequence[str]) -> list[str]:
    """Return the shifts that --shift names."""
    if not names:
        return []
    from keras_dropout.bench.data.shifts import SHIFTS  # loads SciPy

    return [each for name in names for each in (SHIFTS if name == "all" else [check_choice("shift", name, SHIFTS)])]
