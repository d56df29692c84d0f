"""Read runs, models, studies and examples from a ledger, without creating or changing a file."""

import contextlib
import io
import json
import math
import sqlite3
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from keras_dropout.bench.ledger import schema
from keras_dropout.bench.ledger.schema import (
    ANOTHER,
    Damaged,
    Watch,
    check_header,
    look_up_to_date,
    make_schema,
    refusing,
    select_keys,
)
from keras_dropout.bench.records import Result
from keras_dropout.errors import refuse

MOST_BYTES = 2**32  # limit on data unpacked at once: a small ledger can hold a very long run of one byte
_DEEPEST = 200  # levels of nested JSON; a model inside a model takes about four


def peek(path: str | Path, keys: Iterable[str], each_example: bool = True) -> dict[str, Result]:
    """Return the stored results of these runs; none if there is no ledger. Creates and changes nothing."""
    if not check_readable(path):
        return {}
    with reading(path) as connection:
        return results_of(connection, keys, each_example)


def kept(path: str | Path, keys: Iterable[str]) -> set[str]:
    """Return the keys of those of these runs whose models the ledger has; none if there is no ledger. Changes nothing."""
    if not check_readable(path):
        return set()
    with reading(path) as connection:
        return kept_in(connection, keys)


def in_progress(path: str | Path, keys: Iterable[str]) -> dict[str, int]:
    """Return the epochs at which those of these runs that are not finished have a checkpoint, by key. Changes nothing."""
    if not check_readable(path):
        return {}
    with reading(path) as connection:
        return dict(select_keys(connection, "SELECT key, epoch FROM checkpoints WHERE key IN", keys))


def models(path: str | Path, keys: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    """Yield (key, bytes of a .keras file) for each of these runs whose model is kept, in this order. Changes nothing."""
    if not check_readable(path):
        return
    with reading(path) as connection:
        for key in dict.fromkeys(keys):
            yield from connection.execute("SELECT key, archive FROM models WHERE key = ?", (key,))


def latest_study(path: str | Path, target: str | None = None, number: int | None = None) -> dict[str, Any] | None:
    """Return the latest study in the ledger, the latest of a target, or the study with a number; None if there is none.

    If the latest study is a world of another, that other study is returned. Changes nothing.

    The result has "id", "started", "target", "command", "versions", "machine", "document", "config", "placements" and "runs". The
    runs, in the study's order, are {"key", "variant", "seed", "status", "model"}: "status" is None if the ledger lacks the run, and
    "model" says whether its model is kept. The config comes from `details`, without placement and seed ("data" is a fingerprint,
    "split" also has sizes); it is empty if no run has ended. The placements are those of the variants with an ended run. The
    document is that of `put_study`, or None if an earlier version wrote the study.
    """
    if not check_readable(path):
        return None
    with reading(path) as connection:
        query = "SELECT id, started, target, command, versions, machine, document, runs FROM studies"
        where = "target = ifnull(?, target) AND id = ifnull(?, id)"
        row = connection.execute(f"{query} WHERE {where} ORDER BY started DESC, id DESC LIMIT 1", (target, number)).fetchone()
        if row is None:
            return None
        *about, versions, machine, document, runs = row
        asked = _asked(about[0], runs)
        with decoding(f"study {about[0]} cannot be read"):
            large = {
                "versions": read_object("versions", versions),
                "machine": read_object("machine", machine),
                "document": read_object("document", document) if document else None,
            }
            keys = [run["key"] for run in asked]
            status = dict(select_keys(connection, "SELECT key, status FROM runs WHERE key IN", keys))
            one_each = {run["variant"]: run["key"] for run in asked if run["key"] in status}
            configs = dict(select_keys(connection, "SELECT key, config FROM details WHERE key IN", one_each.values()))
            configs = {variant: read_object("config", configs[key]) for variant, key in one_each.items()}
        have = kept_in(connection, keys)
    world = (large["document"] or {}).get("world")
    if number is None and isinstance(world, dict) and isinstance(of := world.get("of"), int):
        return latest_study(path, target, of) or latest_study(path, target, about[0])
    first: dict[str, Any] = next(iter(configs.values()), {})
    return {
        **dict(zip(("id", "started", "target", "command"), about)),
        **large,
        "config": {name: value for name, value in first.items() if name not in ("placement", "seed")},
        "placements": {variant: config.get("placement") for variant, config in configs.items()},
        "runs": [run | {"status": status.get(run["key"]), "model": run["key"] in have} for run in asked],
    }


def studies(path: str | Path) -> list[dict[str, Any]]:
    """Return the studies in the ledger, the newest last. Changes nothing.

    Each has "number", "started", "target", "variants", the number of its "runs", how many of them are "done", its "command", and
    "resample_split": whether each seed divides the data anew.
    """
    with reading(path) as connection:
        resampled = "CASE WHEN json_valid(document) THEN json_type(document, '$.study.divisions') END IS NOT NULL"
        query = f"SELECT id, started, target, command, {resampled}, runs FROM studies ORDER BY started, id"
        rows = [(*about, _asked(about[0], text)) for *about, text in connection.execute(query)]
        done = {key for (key,) in connection.execute("SELECT key FROM runs WHERE status != 'failed'")}
    found = []
    for number, started, target, command, resampled, runs in rows:
        variants, keys = list(dict.fromkeys(run["variant"] for run in runs)), {run["key"] for run in runs}
        counts = {"variants": variants, "runs": len(keys), "done": len(keys & done)}
        counts |= {"resample_split": bool(resampled)}
        found.append({"number": number, "started": started, "target": target, **counts, "command": command})
    return found


def examples(path: str | Path, data: str) -> tuple[dict[str, Any], dict[str, np.ndarray]] | None:
    """Return the kept test examples of data with this fingerprint, (about, arrays); None if there are none. Changes nothing."""
    with reading(path) as connection:
        row = connection.execute("SELECT about, arrays FROM examples WHERE data = ?", (data,)).fetchone()
        if row is None:
            return None
        with decoding(f"the examples of data {data} cannot be read"):
            return read_object("about", row[0]), read_npz(row[1])


def asked_for(path: str | Path) -> list[set[str]]:
    """Return the keys of the runs that each study asked for, the latest study first; an empty list if there is no ledger."""
    if not check_readable(path):
        return []
    with reading(path) as connection:
        rows = connection.execute("SELECT id, runs FROM studies ORDER BY started DESC, id DESC")
        return [{run["key"] for run in _asked(*row)} for row in rows]


def _asked(study: int, runs: str) -> list[dict[str, Any]]:
    """Return the runs that a study asked for, from the text in its row."""
    with decoding(f"study {study} cannot be read"):
        return read_asked(runs)


def check_readable(path: str | Path) -> bool:
    """Return whether the file exists; refuse one that is no SQLite file."""
    path = Path(path)
    if str(path) == ":memory:" or str(path).startswith("file:"):  # SQLite would use memory, or read options from the name
        refuse(f"the ledger must be the name of a file; got {str(path)!r}.", "Name a file, for example runs.db.")
    if path.is_dir():
        refuse(f"the ledger {path} is a folder.", "Name a file, for example runs.db.")
    if path.exists() and not path.is_file():  # reading a pipe may never end
        refuse(f"the ledger {path} is no file that can be kept.", "Name a file, for example runs.db.")
    try:
        with path.open("rb") as file:
            header = file.read(16)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        refuse(f"the ledger {path} cannot be read: {error.strerror}.", f"Check its permissions. {ANOTHER}")
    if header and header != b"SQLite format 3\0":
        refuse(f"{path} is not a ledger: it is not an SQLite file.", ANOTHER)
    return True


@contextlib.contextmanager
def reading(path: str | Path, strict: bool = True) -> Iterator[sqlite3.Connection]:
    """Yield a connection that sees one state of a ledger and changes nothing; an older file looks like one of this version.

    The contents of the file are not trusted. If `strict`, a file with foreign triggers, views or tables is refused.
    """
    path = Path(path)
    if not check_readable(path):
        refuse(f"there is no ledger {path}.", ANOTHER)
    with refusing(path, "read"), contextlib.closing(_connect_to_read(path.resolve())) as connection:
        watch = Watch(connection)
        with watch.watching():
            connection.execute("BEGIN")
            version = check_header(connection, path, strict)
            if version == 0:  # a command was killed before it created the tables
                with contextlib.closing(sqlite3.connect(":memory:")) as empty:
                    make_schema(empty)
                    yield empty
                return
            watch.limit_values()
            look_up_to_date(connection, version)
            connection.execute("PRAGMA query_only = ON")
            yield connection


@contextlib.contextmanager
def decoding(what: str) -> Iterator[None]:
    """Turn any error from reading stored bytes into `Damaged`, whose text begins with `what`.

    A decoder may raise any exception for malicious bytes, including MemoryError and RecursionError.
    """
    try:
        yield
    except Damaged:
        raise
    except Exception as why:
        raise Damaged(f"{what}: {why}" if str(why) else what) from why


def read_json(text: Any, **how: Any) -> Any:
    """Parse a JSON text. Raises ValueError or RecursionError for one that is nested too deeply."""
    if not isinstance(text, str):
        raise ValueError("it is no text")
    found = json.loads(text, **how)
    _check_depth(found, _DEEPEST)
    return found


def _check_depth(value: Any, left: int) -> None:
    if left == 0:
        raise ValueError("it is nested too deeply")
    if isinstance(value, (dict, list)):
        for each in value.values() if isinstance(value, dict) else value:
            if isinstance(each, (dict, list)):
                _check_depth(each, left - 1)


def read_object(column: str, text: Any) -> dict[str, Any]:
    """Return the JSON object in a column: `metrics` holds numbers, and `curves` holds lists of numbers.

    Raises ValueError for anything else.
    """
    numbers = column in ("metrics", "curves")
    found = read_json(text, parse_int=float if numbers else int)  # a whole number may be too large for a float
    if not isinstance(found, dict):
        raise ValueError(f"its {column} are no JSON object")
    for value in found.values() if numbers else ():
        each = [value] if column == "metrics" else value
        if not isinstance(each, list) or not all(isinstance(number, float) for number in each):
            raise ValueError(f"its {column} are not numbers")
    return found


def read_asked(text: Any) -> list[dict[str, Any]]:
    """Return the runs that a study asked for, {"key", "variant", "seed"}; early versions stored only the key."""
    found = read_json(text)
    kinds = {"key": str, "variant": str, "seed": int}
    for run in found if isinstance(found, list) else [None]:
        if not isinstance(run, dict) or not all(isinstance(run.get(name, kind()), kind) for name, kind in kinds.items()):
            raise ValueError("its runs are no list of keys, variants and seeds")
    return [{name: run[name] for name in kinds if name in run} for run in found]


def unpack(packed: bytes, most: int | None = None) -> bytes:
    """Decompress zlib data to at most `most` bytes. Raises ValueError for more bytes, and for truncated data."""
    stream = zlib.decompressobj()
    content = stream.decompress(packed, MOST_BYTES if most is None else max(1, most))
    if not stream.eof:
        raise ValueError("what is packed is cut off, or too large")
    return content


def read_losses(packed: bytes, most: int | None = None) -> np.ndarray:
    """Return the array in a `test_losses` column."""
    return np.frombuffer(unpack(packed, most), "<f4")


def read_npy(content: bytes) -> np.ndarray:
    """Return the array in a .npy file. Raises ValueError for an array of objects, and for a size that differs from the header."""
    file = io.BytesIO(content)
    version = np.lib.format.read_magic(file)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
    shape, _, kind = read(file)
    if kind.hasobject:
        raise ValueError("an array holds objects")
    if kind.itemsize * math.prod(shape) != len(content) - file.tell() or not kind.itemsize:
        raise ValueError("an array is not of the size that its header says")
    return np.load(io.BytesIO(content), allow_pickle=False)


def read_npz(content: bytes) -> dict[str, np.ndarray]:
    """Return the arrays in a .npz file, by name."""
    with zipfile.ZipFile(io.BytesIO(content)) as files:
        check_archive(files, len(content))
        # Read at most the size in the header: `ZipFile.read()` would unpack everything before it cuts the result.
        members = ((each.filename.removesuffix(".npy"), files.open(each).read(each.file_size)) for each in files.infolist())
        return {name: read_npy(array) for name, array in members}


def check_archive(files: zipfile.ZipFile, size: int) -> None:
    """Raise ValueError for an archive of `size` bytes whose members use another compression, or are too large when unpacked."""
    members = files.infolist()
    if any(each.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for each in members):
        raise ValueError("it is packed in a way that keras-dropout does not use")
    if sum(each.file_size for each in members) > min(MOST_BYTES, 1100 * size):  # deflate cannot exceed this ratio
        raise ValueError("it is too large when it is unpacked")


def _connect_to_read(path: Path) -> sqlite3.Connection:
    def connect(how: str) -> sqlite3.Connection:
        return sqlite3.connect(f"{path.as_uri()}?{how}", uri=True, timeout=schema.PATIENCE, isolation_level=None)

    connection = connect("mode=rw")  # if writing is allowed, SQLite removes its two files beside the ledger again
    try:
        connection.execute("SELECT 1 FROM sqlite_master LIMIT 1")
    except sqlite3.OperationalError as error:
        connection.close()
        if not any(words in str(error) for words in ("unable to open", "readonly")):
            raise
        # In a read-only folder, SQLite cannot make the index of the write-ahead log. Without a log it needs none.
        log = path.with_name(f"{path.name}-wal")
        if log.exists() and log.stat().st_size:
            refuse(
                f"the ledger {path} cannot be read: its last command was killed, and what it wrote is still in {log.name}.",
                "Copy both files to a folder that you can write to, and read them there.",
            )
        return connect("immutable=1")
    return connection


def kept_in(connection: sqlite3.Connection, keys: Iterable[str]) -> set[str]:
    return {key for (key,) in select_keys(connection, "SELECT key FROM models WHERE key IN", keys)}


def results_of(connection: sqlite3.Connection, keys: Iterable[str], each_example: bool) -> dict[str, Result]:
    keys = list(keys)
    large = "test_losses, predictions, calibration" if each_example else "NULL, NULL, NULL"
    columns = f"key, status, seconds, epochs, metrics, curves, {large}, error, best_epoch, log"
    query = f"SELECT {columns} FROM runs JOIN details USING (key) WHERE key IN"
    found, left = {}, MOST_BYTES
    for row in select_keys(connection, query, keys):
        key, status, seconds, epochs, metrics, curves, losses, predictions, calibration, error, best, log = row
        with decoding(f"run {key}"):
            values = None if losses is None else read_losses(losses, left)
            predicted = None if predictions is None else read_npy(unpack(predictions, left))
            left -= sum(0 if each is None else each.nbytes for each in (values, predicted))
            found[key] = Result(
                status,
                seconds,
                epochs,
                read_object("metrics", metrics),
                read_object("curves", curves),
                test_losses=values,
                error=error,
                best_epoch=best,
                log=log,
                predictions=predicted,
                calibration=None if calibration is None else read_object("calibration", calibration),
            )
    return {key: found[key] for key in keys if key in found}
