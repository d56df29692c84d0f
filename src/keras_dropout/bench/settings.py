"""The settings of a study and of its data, one row each. Python, study files and the command all read this table.

A row holds the name, the type, the default, the check, the text of the command's help and the line of a fresh study file.
To add a setting, add a row and use the value: `Plan.settings` and the task of each worker hold it.
"""

import functools
import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypedDict, get_type_hints

from keras_dropout.bench.log_places import check_place
from keras_dropout.bench.metric_names import TUNED_BY
from keras_dropout.errors import check_choice, check_flag, check_path, check_positive, check_share, check_whole, refuse
from keras_dropout.frameworks import BACKENDS

DEFAULT_LEDGER = "keras-dropout.db"
HERE, RAY = "here", "ray"
SPLITS = ("held-out", "as-published")
ENGINES = ("compiled", "reference", "stacked")
SAMPLERS = ("tpe", "random", "grid")
MASKS = ("independent", "shared")


@dataclass(frozen=True)
class Setting:
    """The definition of one setting.

    `help` is the help text of the command's option, and the comment in a fresh study file, where `in_file` is the commented-out
    value; a setting without `help` has no option. The option is named after the setting, unless `flag` gives another name. `kind`
    is the type of the option's value, `choices` lists the allowed values if they are limited, and `read` converts the value to
    what Python takes. `check` refuses a value or returns it in the form in which it is used.
    """

    help: str = ""
    in_file: str = ""
    default: Any = None
    check: Callable[[Any], Any] | None = None
    kind: Any = str
    choices: tuple[str, ...] = ()
    flag: str = ""
    metavar: str | None = None
    read: Callable[[Any], Any] | None = None


def rows(table: Any) -> dict[str, Setting]:
    """Return the rows of a table of settings, by name."""
    return {name: hint.__metadata__[0] for name, hint in get_type_hints(table, include_extras=True).items()}


def complete(settings: Mapping[str, Any], table: Any) -> dict[str, Any]:
    """Return all settings of a table, checked: the given values, and defaults for the others."""
    found = {}
    for name, row in rows(table).items():
        value = settings.get(name, row.default)
        left_open = value is None and row.default is None
        found[name] = value if left_open or row.check is None else row.check(value)
    return found


def _count(name: str, help: str, in_file: str = "") -> Setting:
    """Return the row of a whole number that may be left out."""
    fix = f"Leave {name} out for the default, or give 1 or more."
    return Setting(help, in_file, check=lambda value: check_whole(name, value, 1, fix, 2**31 - 1), kind=int)


def _one_of(name: str, choices: Sequence[str]) -> Callable[[Any], str]:
    return lambda value: check_choice(name, value, tuple(choices))


def ray_address(on: Any) -> str | None:
    """Return the address of the Ray cluster that `on` or RAY_ADDRESS names, or None to start a cluster here."""
    fix = f"Use {HERE}, {RAY} (the cluster of RAY_ADDRESS, or one that is started), or {RAY}:HOST:PORT."
    if not isinstance(on, str) or not re.fullmatch(rf"{RAY}(:[^/\s]+:\d+)?", on):
        refuse(f"workers cannot be on {on!r}.", fix)
    address = on.partition(":")[2] or os.environ.get("RAY_ADDRESS", "")
    if "://" in address:
        refuse(f"a client of Ray cannot have workers; got the address {address}.", fix)
    return None if address in ("", "local") else address


def _check_on(on: Any) -> str:
    if on != HERE:
        ray_address(on)
    return on


def _check_log(places: Any) -> tuple[str, ...]:
    if not isinstance(places, str | Sequence):
        check_place(places)
    return tuple(map(check_place, [places] if isinstance(places, str) else places))


def _check_folder(folder: Any) -> Any:
    if not Path(check_path("data_dir", folder, "data")).is_dir():
        refuse(f"the data folder {folder} does not exist.", "Name a folder that holds the files of the data set, or leave it out.")
    return folder


def _check_weights(from_weights: Any) -> Any:
    """Return True or the file of weights that every run starts from; None if there is neither."""
    if from_weights is False:
        return None
    fix = "Give True, or the path of a file made by save_weights (.weights.h5) or save (.keras)."
    if from_weights is not True:
        if not isinstance(from_weights, str | Path) or not str(from_weights).endswith((".weights.h5", ".keras")):
            refuse(f"from_weights must be True or a file of weights; got {from_weights!r:.200}.", fix)
        if not Path(from_weights).is_file():
            refuse(f"the file of weights {from_weights} does not exist.", fix)
    return from_weights


def _check_data_options(options: Any) -> Any:
    if not isinstance(options, Mapping):
        refuse(f"data_options must be a mapping; got {options!r}.", 'For example {"target": "price"}.')
    return options


def _check_names(what: str, names: Any) -> tuple[str, ...]:
    """Return names as a tuple; one alone may stand without a list."""
    found = [names] if isinstance(names, str | Path) else names
    if not isinstance(found, Collection) or isinstance(found, Mapping) or not all(isinstance(name, str | Path) for name in found):
        refuse(f"{what} must be a list of names; got {names!r:.200}.", f'For example {what}=["a name"].')
    return tuple(dict.fromkeys(map(str, found)))


def _check_uses(paths: Any) -> tuple[str, ...]:
    found = _check_names("uses", paths)
    for path in found:
        if not Path(path).exists():
            refuse(f"{path}, which the training function uses, does not exist.", "Name a file or folder, or leave it out.")
    return found


def _check_callbacks(callbacks: Any) -> Any:
    listed = isinstance(callbacks, list | tuple) and callbacks and all(hasattr(each, "on_epoch_end") for each in callbacks)
    if not (isinstance(callbacks, str) and re.search(r".:[^\W\d]\w*$", callbacks)) and not callable(callbacks) and not listed:
        refuse(
            f"callbacks must be a list of Keras callbacks, or a function that returns one; got {callbacks!r:.200}.",
            "For example callbacks=[keras.callbacks.ReduceLROnPlateau()]; on the command line --callbacks FILE.PY:FUNCTION",
        )
    return callbacks


def _check_primary(metric: Any) -> str:
    if not isinstance(metric, str) or not re.fullmatch(r"test_\S+", metric):
        refuse(f"primary must name a metric on the test data; got {metric!r:.200}.", "For example test_loss.")
    return metric


def _read_seeds(text: str) -> int | str:
    try:
        return int(text)
    except ValueError:
        return text


def by_class(where: str, weights: Mapping[str, Any]) -> dict[int, Any]:
    """Return weights by class number; the names in `weights` are these numbers as text."""
    try:
        return {int(name): weight for name, weight in weights.items()}
    except ValueError:
        refuse(f"{where} must map class numbers to weights; got {', '.join(weights)}.", "Number the classes 0, 1, …, or: balanced")


def _read_class_weight(text: str) -> Any:
    if "=" not in text:
        return text
    try:
        weights = {name.strip(): float(weight) for name, _, weight in (each.partition("=") for each in text.split(","))}
    except ValueError:
        refuse(f"--class-weight cannot be read: {text!r}.", 'Write balanced, or "0=1, 1=5".')
    return by_class("--class-weight", weights)


def _read_size(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(each) for each in text.lower().split("x"))
    except ValueError:
        refuse(f"--image-size must be HEIGHTxWIDTH; got {text!r}.", "For example 32x32.")


class Settings(TypedDict, total=False):
    """The settings that `compare` and `tune` share. `compare` documents them."""

    split: Annotated[
        str,
        Setting(
            "Recipes: held-out, or as-published (validation examples are trained on too).",
            '"held-out"',
            default=SPLITS[0],
            check=_one_of("split", SPLITS),
        ),
    ]
    data_dir: Annotated[
        str | None, Setting("Recipes: folder with the data files. Also: KERAS_DROPOUT_DATA.", '"data"', check=_check_folder)
    ]
    baseline: Annotated[str, Setting("The variant that the others are compared with. Default: none.", '"none"', default="none")]
    seeds: Annotated[
        int | Sequence[int] | str,
        Setting(
            "Runs per variant, with the seeds 0, 1, 2, …; auto: more for those that are undecided. Default: 6.",
            "6",
            default=6,
            read=_read_seeds,
        ),
    ]
    max_seeds: Annotated[int | None, Setting("With --seeds auto: the most. Default: 30.", "30", kind=int)]
    margin: Annotated[
        float | None,
        Setting(
            "A smaller difference in test loss, or in the --primary metric, does not matter to you.",
            "0.005",
            check=lambda value: check_positive("margin", value, "Give the difference that would matter to you, for example 0.005."),
            kind=float,
        ),
    ]
    primary: Annotated[
        str | None,
        Setting(
            "The metric that leads verdict, margin and --fail-if, for example test_accuracy. Default: the test loss.",
            '"test_accuracy"',
            check=_check_primary,
            metavar="METRIC",
        ),
    ]
    power: Annotated[
        float | None,
        Setting(
            "A difference in test loss, or in the --primary metric, that the study should show: how many seeds does it take?",
            "0.01",
            check=lambda value: check_positive(
                "power", value, "Give the difference that the study should be able to show, for example 0.01."
            ),
            kind=float,
        ),
    ]
    resample_split: Annotated[
        bool,
        Setting(
            "Divide the data anew for each seed: differences then hold for other training and test data too.",
            "true",
            default=False,
            check=lambda value: check_flag("resample_split", value),
            kind=bool,
        ),
    ]
    robust: Annotated[
        bool,
        Setting(
            "The verdict again in six other worlds: learning rate and epochs ×½ and ×2, with early stopping, with weight decay.",
            "true",
            default=False,
            check=lambda value: check_flag("robust", value),
            kind=bool,
        ),
    ]
    samples: Annotated[
        int | None,
        _count(
            "samples",
            "Stochastic forward passes on the test data: Monte-Carlo metrics beside the plain ones, for example 50.",
            "50",
        ),
    ]
    epochs: Annotated[int | None, _count("epochs", "Default: the recipe's, or 20.", "20")]
    batch_size: Annotated[int | None, _count("batch size", "Default: the recipe's, or 32.", "32")]
    optimizer: Annotated[str | None, Setting("A Keras optimizer, for example adam. Default: the model's.", '"adam"')]
    learning_rate: Annotated[
        float | None,
        Setting(
            "Default: the model's, or that of --optimizer.",
            "0.001",
            check=lambda value: check_positive(
                "learning rate", value, "For example 0.01. A schedule goes into the optimizer that the model is compiled with."
            ),
            kind=float,
        ),
    ]
    early_stopping: Annotated[
        int | None, _count("early stopping", "Epochs to wait for a smaller validation loss; the best epoch is measured.", "5")
    ]
    steps_per_epoch: Annotated[
        int | None, _count("steps per epoch", "Training batches of an epoch; the next one goes on from there. Default: all.", "100")
    ]
    callbacks: Annotated[
        Any,
        Setting(
            "file.py:function, which returns the Keras callbacks of a run; it may take seed and variant. Needs Keras's fit.",
            '"model.py:callbacks"',
            check=_check_callbacks,
            metavar="FILE.PY:FUNCTION",
        ),
    ]
    class_weight: Annotated[
        Mapping[int, float] | str | None, Setting('balanced, or "CLASS=WEIGHT, …".', '"balanced"', read=_read_class_weight)
    ]
    from_weights: Annotated[
        bool | str | Path | None,
        Setting("Fine-tuning: every run starts from the model's own weights.", "true", check=_check_weights, kind=bool),
    ]
    backend: Annotated[
        str | None,
        Setting(
            "jax (default; with convolutions the faster of jax and tensorflow), tensorflow or torch.",
            '"jax"',
            check=_one_of("backend", BACKENDS),
            choices=BACKENDS,
        ),
    ]
    engine: Annotated[
        str,
        Setting(
            "compiled (jax only), reference (Keras fit), stacked (jax: many runs at once on a GPU) or auto (default: the fastest).",
            '"auto"',
            default="auto",
            check=_one_of("engine", ("auto", *ENGINES)),
            choices=("auto", *ENGINES),
        ),
    ]
    workers: Annotated[int | None, _count("workers", "Workers of one thread each. Default: one per core; one with stacked.", "2")]
    on: Annotated[
        str, Setting("Where workers are: here (default), ray, or ray:HOST:PORT.", '"here"', default=HERE, check=_check_on)
    ]
    ledger: Annotated[
        str | Path,
        Setting(
            "SQLite file that keeps every run. Default: keras-dropout.db.",
            '"keras-dropout.db"',
            default=DEFAULT_LEDGER,
            check=lambda value: Path(check_path("ledger", value, "runs.db")),
        ),
    ]
    checkpoint_every: Annotated[
        int | None,
        Setting(
            "Epochs between checkpoints, from which an interrupted run goes on; 0: none. Default: about every 30 seconds.",
            "10",
            check=lambda value: check_whole(
                "checkpoint every", value, 0, "Leave it out for about every 30 seconds, or give epochs; 0: none.", 2**31 - 1
            ),
            kind=int,
        ),
    ]
    keep_weights: Annotated[
        bool,
        Setting(
            "Keep each run's trained model in the ledger.",
            "true",
            default=False,
            check=lambda value: check_flag("keep_weights", value),
            kind=bool,
        ),
    ]
    keep_examples: Annotated[
        bool,
        Setting(
            "Keep no test examples in the ledger: reports then show none.",
            "false",
            default=True,
            check=lambda value: check_flag("keep_examples", value),
            kind=bool,
            flag="--no-examples",
        ),
    ]
    log: Annotated[
        Sequence[str] | str,
        Setting(
            "Write each run to tensorboard:DIR, mlflow, mlflow:URI, wandb or wandb:PROJECT, too. Repeatable.",
            '["tensorboard:logs"]',
            default=(),
            check=_check_log,
            kind=list[str],
            metavar="PLACE",
        ),
    ]
    validation_split: Annotated[float, Setting(default=0.1, check=functools.partial(check_share, "validation_split"))]
    validation_data: Annotated[Any, Setting()]
    data_options: Annotated[Mapping[str, Any] | None, Setting(check=_check_data_options)]


class CompareSettings(Settings, total=False):
    """The settings of `compare` that a search lacks. `compare` documents them."""

    uses: Annotated[
        Sequence[str],
        Setting(
            "Training function: a file or folder that it reads; runs of other contents are other runs. Repeatable.",
            '["data.csv"]',
            default=(),
            check=_check_uses,
            kind=list[str],
        ),
    ]
    higher_is_better: Annotated[
        Sequence[str],
        Setting(
            "Training function or own scores: a metric of which a higher value is better. Repeatable.",
            '["bleu"]',
            default=(),
            check=functools.partial(_check_names, "higher_is_better"),
            kind=list[str],
            metavar="METRIC",
        ),
    ]
    lower_is_better: Annotated[
        Sequence[str],
        Setting(
            "Training function or own scores: a metric of which a lower value is better. Repeatable.",
            '["latency"]',
            default=(),
            check=functools.partial(_check_names, "lower_is_better"),
            kind=list[str],
            metavar="METRIC",
        ),
    ]


class SearchSettings(Settings, total=False):
    """The settings of a search, added to those of its study. `tune` documents them."""

    space: Annotated[
        str | Mapping[str, str] | None, Setting('What is tried: "SITE=LOW:HIGH, SITE=Kind(LOW:HIGH) | linear(LOW:HIGH, 0)".')
    ]
    kinds: Annotated[
        Sequence[str],
        Setting("A method to try at each site, in place of --space. Repeatable.", default=(), kind=list[str], flag="--kind"),
    ]
    sampler: Annotated[str, Setting("tpe (default), random or grid.", default="tpe", check=_one_of("sampler", SAMPLERS))]
    trials: Annotated[int | None, _count("trials", "Placements that are tried. Default: 18; of a grid all.")]
    seed: Annotated[
        int,
        Setting(
            "Of the sampler. Default: 0.",
            default=0,
            check=lambda value: check_whole("seed", value, 0, "It is the seed of the sampler, for example 0.", 2**32 - 1),
            kind=int,
        ),
    ]
    budget: Annotated[int | None, _count("budget", "Model-epochs that the search may cost.")]
    halving: Annotated[
        bool,
        Setting(
            "Train every trial to the end.",
            default=True,
            check=lambda value: check_flag("halving", value),
            kind=bool,
            flag="--no-halving",
        ),
    ]
    tune_baseline: Annotated[
        bool,
        Setting(
            "As many trials for the model without dropout: of learning rate, weight decay and early stopping. Doubles the cost.",
            default=False,
            check=lambda value: check_flag("tune_baseline", value),
            kind=bool,
        ),
    ]
    sweep: Annotated[str | None, Setting("No search: each rate of SITE=START:STOP:COUNT with each seed.")]


class DataOptions(TypedDict, total=False):
    """The options for reading data. `bench.data.files.load` documents and checks them."""

    target: Annotated[
        str | list[str],
        Setting(
            "Tables: the column to predict. Repeatable.",
            '"price"',
            kind=list[str],
            metavar="COLUMN",
            read=lambda names: names[0] if len(names) == 1 else names,
        ),
    ]
    text: Annotated[str, Setting("Tables: the column with the text.", '"review"')]
    group: Annotated[str, Setting("Tables: a column; no group is in two parts.", '"patient"')]
    time: Annotated[str, Setting("Tables: a column; the test data are the latest.", '"date"')]
    weight: Annotated[str, Setting("Tables: a column with the weight of each example in the loss.", '"weight"')]
    sheet: Annotated[str, Setting("Spreadsheets: the sheet to read, if there are several.", '"Sheet1"')]
    window: Annotated[
        int, Setting("Tables: an example is so many rows of a series, the latest for testing.", "24", kind=int, metavar="ROWS")
    ]
    horizon: Annotated[
        int, Setting("Rows from the end of a window to the target to predict. Default: 1.", "1", kind=int, metavar="ROWS")
    ]
    test_data: Annotated[str, Setting("Data to test on. Default: a part of --data.", '"test.csv"')]
    test_split: Annotated[float, Setting("Share of the data to test on. Default: 0.2.", "0.2", kind=float)]
    validation_split: Annotated[float, Setting("Share of the rest to validate on. Default: 0.1.", "0.1", kind=float)]
    task: Annotated[str, Setting("auto, classification or regression.", '"auto"')]
    image_size: Annotated[tuple[int, ...], Setting("Images: HEIGHTxWIDTH, for example 32x32.", "[32, 32]", read=_read_size)]
    divide_by: Annotated[float, Setting("The model sees x / this, for example 255.", "255", kind=float)]
    vocabulary: Annotated[int, Setting("Text: words that are told apart. Default 10000.", "10000", kind=int)]
    length: Annotated[int, Setting("Text: words of an example. Default 200.", "200", kind=int)]


class AssessmentSettings(TypedDict, total=False):
    """The settings by which predictions are measured. `bench.assessment.assess` documents them."""

    samples: Annotated[
        int,
        Setting(
            "Stochastic forward passes. Default: 100.",
            default=100,
            check=lambda value: check_whole(
                "samples", value, 1, "It is the number of stochastic forward passes; 100 is a usual one."
            ),
            kind=int,
        ),
    ]
    seed: Annotated[
        int,
        Setting(
            "Of the masks. Default: 0.",
            default=0,
            check=lambda value: check_whole("seed", value, 0, "It is the seed of the masks."),
            kind=int,
        ),
    ]
    masks: Annotated[
        str,
        Setting(
            "independent for each example (default), or shared: one for all in a sample (JAX).",
            default="independent",
            check=_one_of("masks", MASKS),
            choices=MASKS,
        ),
    ]
    logits: Annotated[bool | None, Setting("The model ends without its softmax or sigmoid.", kind=bool)]
    temperature: Annotated[bool, Setting("Also temperature scaling, fitted on validation data.", default=False, kind=bool)]
    use_moments: Annotated[
        bool, Setting("Also moment propagation: one pass in place of many.", default=False, kind=bool, flag="--moments")
    ]
    tune_rate: Annotated[
        str | None,
        Setting(
            "Choose the rate on validation data by nll, brier or ece.",
            check=_one_of("metric to tune the rate by", TUNED_BY),
            choices=TUNED_BY,
        ),
    ]
    variance_head: Annotated[
        bool,
        Setting("Regression: the model gives means, and then the logarithms of their variances.", default=False, kind=bool),
    ]
    precision: Annotated[
        float | None,
        Setting(
            "Regression: 1 / variance of the noise. Default: fitted.",
            check=lambda value: check_positive("precision", value, "It is 1 / the variance of the noise."),
            kind=float,
        ),
    ]
