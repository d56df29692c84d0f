"""Study files: all settings of `compare`, in TOML."""

import re
import shlex
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from keras_dropout.bench.settings import CompareSettings, DataOptions, SearchSettings, Settings, by_class, rows
from keras_dropout.characters import clean_line
from keras_dropout.errors import meant, refuse
from keras_dropout.models.atlas import Advice

_SOURCE = '.npz, "x.npy,y.npy", .csv, .parquet, a folder or archive of class folders, file.py:function'
# Setting -> its commented-out value in a fresh study file, and what it means.
SETTINGS = {name: (row.in_file, row.help) for name, row in rows(CompareSettings).items() if row.in_file}
SETTINGS["report"] = ('"report.html"', "The page to write.")
DATA = {"source": ('"table.csv"', _SOURCE)} | {name: (row.in_file, row.help) for name, row in rows(DataOptions).items()}
TUNE = tuple(name for name in rows(SearchSettings) if name not in (*rows(Settings), "space"))


def read(path: str | Path, tuning: bool = False) -> dict[str, Any]:
    """Read the settings in a study file: those of `compare`, `target`, `variants`, and the settings of data as "data_options".

    With `tuning`, the result also has "space", a mapping from sites to texts, and the entries of [tune]. A variant is a text as
    after `--variant NAME=`, a table from sites to rates, texts or {kind, rate, …}, or true for a ready variant.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            content = tomllib.load(file)
    except FileNotFoundError:
        refuse(f"the study file {path} does not exist.", f"keras-dropout init TARGET -o {shlex.quote(str(path))} writes one.")
    except OSError as error:
        refuse(f"the study file {path} cannot be read: {error.strerror}.", "Check its permissions.")
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        refuse(
            f"the study file {path} is no TOML: {error}.", "Texts stand in quotes, and a table is headed by its name: [variants]"
        )
    data, variants = content.pop("data", {}), content.pop("variants", {})
    space, tune = content.pop("space", {}), content.pop("tune", {})
    for name, table in (("data", data), ("variants", variants), ("space", space), ("tune", tune)):
        if not isinstance(table, Mapping):
            refuse(f"{path}: {name} must be a table; got {table!r}.", f"Head it with [{name}].")
    _check_names(path, content, ("target", *SETTINGS), "")
    _check_names(path, data, tuple(DATA), "in [data] ")
    _check_names(path, tune, TUNE, "in [tune] ")
    _check_places(path, content, ("target", "data_dir", "ledger", "report"), "")
    _check_places(path, data, ("source", "test_data"), "in [data] ")
    if (space or tune) and not tuning:
        refuse(
            f"{path}: [space] and [tune] are for a search; got a comparison.", "keras-dropout tune --study FILE, or take them out."
        )
    settings: dict[str, Any] = content | tune | ({"space": space} if space else {})
    if data:
        settings["data"] = data.pop("source", None)
        if settings["data"] is None:
            refuse(f"{path}: [data] has no source.", 'Write source = "table.csv".')
        settings["data_options"] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
    if isinstance(weights := settings.get("class_weight"), Mapping):
        settings["class_weight"] = by_class(f"{path}: class_weight", weights)
    if variants:
        settings["variants"] = variants
    return settings


def write(
    target: str,
    sites: Sequence[Any],
    data: str | None = None,
    data_options: Mapping[str, Any] | None = None,
    advice: Advice | None = None,
) -> str:
    """Return a commented study file for a target with these sites, with the source and options of its data, and with advice.

    Names of layers come from untrusted files: each stays inside one comment or one string, whatever characters it has.
    """
    said = {**({"source": data} if data else {}), **(data_options or {})}
    inputs = [site.name for site in sites if site.group == "input"]
    hidden = [site for site in sites if site.group == "hidden"]
    first = hidden[0].name if hidden else inputs[0]
    begin = dict(advice.placement or {}) if advice else {}
    lines = [
        "# A study: keras-dropout compare --study FILE. What is commented out has the value shown, or is left to the model.",
        f"target = {_quote(target)}",
        "",
        *map(_commented, SETTINGS.items()),
        "",
        "[data]" if data else "# [data]",
        *(f"{name} = {_toml(value)}" for name, value in said.items()),
        *(_commented(each) for each in DATA.items() if each[0] not in said),
        "",
        "# What is compared with the baseline, the model without dropout. Sites are input, hidden, last, all, a class of layers,",
        "# a glob, or one of these; a group means those of its sites where the method fits:",
        *(
            clean_line(f"#   {site.name}  ({site.kind}, {site.group}{', last' if site.last else ''}): {', '.join(site.methods)}")
            for site in sites
        ),
        "[variants]",
        *(f"# {clean_line(sentence)}" for sentence in (advice.sentences if advice else ())),
        *([f"begin = {_placed(begin)}"] if begin else []),
        'hidden = "hidden=0.2"' if hidden else f"input = {_placed({first: 0.2})}",
        *(['last = "last=0.5"'] if hidden else []),
        "# as-built = true                    # with the dropout that the model has",
        f"# both = {_placed({inputs[0]: 0.1, 'hidden': 0.3})}",
        '# early = "hidden=early(0.1, until=0.25)"',
        "",
        "# [variants.mixed]                   # the same, one line for each site",
        f"# {_quote(first)} = 0.3",
        '# last = { kind = "GaussianDropout", rate = 0.5 }',
    ]
    return "\n".join(lines) + "\n"


def _commented(setting: tuple[str, tuple[str, str]]) -> str:
    """Return the line of a setting that is commented out."""
    name, (value, meaning) = setting
    return f"{f'# {name} = {value}':34} # {meaning.removesuffix(' Repeatable.')}"


def _check_names(path: Path, table: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    for name in table:
        if name not in known:
            refuse(f"{path}: unknown name {name!r} {where}".rstrip() + ".", f"{meant(name, known)}Use: {', '.join(known)}.")


def _check_places(path: Path, table: Mapping[str, Any], names: Sequence[str], where: str) -> None:
    for name in names:
        value = table.get(name, "")
        if not isinstance(value, str) or "\0" in value:
            refuse(f"{path}: {where}{name} must name a file, folder or function; got {value!r}.", f'Write {name} = "…".')


def _toml(value: str | Sequence[str]) -> str:
    return _quote(value) if isinstance(value, str) else f"[{', '.join(map(_quote, value))}]"


def _placed(places: Mapping[str, float]) -> str:
    """Return a placement as a text, or as a table if a site's name has characters that the text form may misread."""
    if all(re.fullmatch(r"[\w./*-]+", site) for site in places):
        return _quote(", ".join(f"{site}={rate:g}" for site, rate in places.items()))
    return "{ " + ", ".join(f"{_quote(site)} = {rate:g}" for site, rate in places.items()) + " }"


def _quote(text: str) -> str:
    """Return a text as a TOML string on one line."""
    if any("\ud800" <= each <= "\udfff" for each in text):
        refuse(f"{text!r} cannot be written to a study file: TOML has no half characters.", "Rename the file or the layer.")
    quoted = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(each if clean_line(each) == each else f"\\U{ord(each):08x}" for each in quoted) + '"'
