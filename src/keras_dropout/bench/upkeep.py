"""What is done to ledgers as files: one taken into another, runs deleted, space given back, damage found."""

import io
import json
import sqlite3
import zipfile
import zlib
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from hashlib import sha256
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from keras_dropout.bench.checkpoints import Checkpoint
from keras_dropout.bench.ledger import Ledger, check_ledger_path, put_row
from keras_dropout.bench.lookup import read_npy, read_object, reading
from keras_dropout.bench.schema import DETAIL_COLUMNS, RUN_COLUMNS, STUDY_COLUMNS, make_schema, refusing, select_keys
from keras_dropout.bench.selection import Selection, count, find_key
from keras_dropout.errors import refuse

_COLUMNS = f"{RUN_COLUMNS}, {DETAIL_COLUMNS.removeprefix('key, ')}"


@dataclass
class Merged:
    """What came of merging a ledger: runs copied, failed runs replaced, runs that both had, models copied; keys whose results
    differ."""

    source: str
    copied: int = 0
    replaced: int = 0
    same: int = 0
    models: int = 0
    conflicts: list[str] = field(default_factory=list)


def merge(path: str | Path, sources: Sequence[str | Path]) -> Generator[Merged, None, None]:
    """Take the runs and studies of other ledgers into the one at `path`, each source in one transaction.

    A run that failed here is replaced by one that did not. Runs of one key with other results are told, and stay as they are.
    Models come with the runs that are taken, and to those here that are the same and lack theirs.
    """
    path = Path(path)
    for source in sources:
        with reading(source):
            pass
        if path.exists() and path.samefile(source):
            refuse(f"{source} is the ledger to merge into.", "Name other ledgers, or another --ledger.")
    with refusing(path, "written"), Ledger(path) as ledger:
        for source in sources:
            with reading(source) as theirs, ledger.transaction() as ours:
                merged = _merge(ours, theirs, Path(source))
            yield merged


def _merge(ours: sqlite3.Connection, theirs: sqlite3.Connection, source: Path) -> Merged:
    merged = Merged(str(source))
    here = {key: outcome for key, *outcome in ours.execute("SELECT key, status, metrics FROM runs")}
    wanted = []
    for key, *outcome in _read(theirs, source, "SELECT key, status, metrics FROM runs"):
        if key not in here:
            merged.copied += 1
            wanted.append(key)
        elif here[key][0] == "failed" != outcome[0]:
            merged.replaced += 1
            wanted.append(key)
        elif outcome[0] == "failed" or _same(here[key], outcome):
            merged.same += 1
        else:
            merged.conflicts.append(key)
    for row in _read(theirs, source, f"SELECT {_COLUMNS} FROM runs JOIN details USING (key) WHERE key IN", wanted):
        put_row(ours, dict(zip(_COLUMNS.split(", "), row)))
    have = {*merged.conflicts, *(key for (key,) in ours.execute("SELECT key FROM models"))}
    theirs_have = [key for (key,) in _read(theirs, source, "SELECT key FROM models JOIN runs USING (key) WHERE status = 'done'")]
    lacking = [key for key in theirs_have if key not in have]
    for row in _read(theirs, source, "SELECT key, archive FROM models WHERE key IN", lacking):
        ours.execute("INSERT INTO models VALUES (?, ?)", row)
        merged.models += 1
    ours.execute("DELETE FROM checkpoints WHERE key IN (SELECT key FROM runs WHERE status != 'failed')")
    known = set(ours.execute("SELECT started, target, command, versions, machine, runs FROM studies"))
    for *study, document in _read(theirs, source, f"SELECT {STUDY_COLUMNS} FROM studies ORDER BY id"):
        if tuple(study) not in known:
            ours.execute(f"INSERT INTO studies ({STUDY_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)", (*study, document))
    for row in _read(theirs, source, "SELECT data, about, arrays FROM examples"):
        ours.execute("INSERT OR IGNORE INTO examples VALUES (?, ?, ?)", row)
    return merged


def _same(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether two outcomes, (status, metrics), are the same, however their JSON is written."""
    if one == other:
        return True
    try:
        written = [json.dumps(json.loads(metrics), sort_keys=True) for _, metrics in (one, other)]
    except ValueError:
        return False
    return one[0] == other[0] and written[0] == written[1]


def delete(path: str | Path, keys: Sequence[str], selection: Selection, every: bool = False, sure: bool = False) -> int:
    """Delete runs by the beginnings of their keys, or by filters; the number deleted. Refuses, with that number, unless `sure`."""
    if bool(keys) + bool(selection) + every != 1:
        refuse("what to delete must be told in one way.", "Name keys, or give filters such as --status failed, or --all.")
    with reading(path):  # not made by being cleared
        pass
    with refusing(Path(path), "written"), Ledger(path) as ledger, ledger.transaction() as connection:
        if keys:
            found = sorted({find_key(connection, key) for key in keys})
            number, where, values = len(found), f"key IN ({', '.join('?' * len(found))})", found
        else:
            number, (where, values) = count(connection, selection), selection.where()
        if number and not sure:
            refuse(f"{number} run(s) of {path} would be deleted; nothing was.", "Add --yes to delete them.")
        connection.execute(f"DELETE FROM runs WHERE {where}", values)  # and their details and models with them
    return number


def vacuum(path: str | Path) -> tuple[int, int, int]:
    """Drop what belongs to no run, and give free space back: checkpoints dropped, bytes before and after."""
    with reading(path):
        pass
    path = check_ledger_path(path)
    before = _bytes(path)
    with refusing(path, "written"), Ledger(path) as ledger:
        with ledger.transaction() as connection:
            asked = """SELECT json_extract(value, '$.key')
                FROM studies, json_each(CASE WHEN json_valid(studies.runs) THEN studies.runs ELSE '[]' END)"""
            finished = "SELECT key FROM runs WHERE status != 'failed'"
            query = f"DELETE FROM checkpoints WHERE key IN ({finished}) OR key NOT IN ({asked})"
            dropped = connection.execute(query).rowcount
            # Left by other programs, which do not delete them with their runs unless told to.
            connection.execute("DELETE FROM details WHERE key NOT IN (SELECT key FROM runs)")
            connection.execute("DELETE FROM models WHERE key NOT IN (SELECT key FROM runs)")
            used = "SELECT json_extract(config, '$.data') FROM details WHERE json_valid(config)"
            connection.execute(f"DELETE FROM examples WHERE data NOT IN ({used})")
        ledger.vacuum()
    return dropped, before, _bytes(path)


def _bytes(path: Path) -> int:
    files = (path, path.with_name(f"{path.name}-wal"))
    return sum(file.stat().st_size for file in files if file.exists())


@dataclass
class Verified:
    """What a look at every run, model and study of a ledger found: their numbers, runs asked for that are not there, problems."""

    runs: int = 0
    models: int = 0
    studies: int = 0
    missing: int = 0
    problems: list[dict[str, str]] = field(default_factory=list)

    def note(self, where: str, what: str) -> None:
        self.problems.append({"where": where, "what": what})


def verify(path: str | Path) -> Verified:
    """Look for damage: in the file, the tables, and every run, model, checkpoint and study. Changes nothing."""
    found = Verified()
    with reading(path) as connection:
        connection.text_factory = lambda text: text.decode(errors="replace")
        try:
            _verify_file(connection, found)
            _verify_runs(connection, found)
            _verify_models(connection, found)
            _verify_checkpoints(connection, found)
            _verify_studies(connection, found)
            _verify_examples(connection, found)
        except sqlite3.DatabaseError as error:
            found.note("file", f"cannot be read to the end: {error}")
    return found


def _verify_file(connection: sqlite3.Connection, found: Verified) -> None:
    for (line,) in connection.execute("PRAGMA integrity_check"):
        if line != "ok":
            found.note("file", line)
    if connection.execute("PRAGMA user_version").fetchone()[0] == 1:
        return  # was checked to be a ledger; its one table is read below
    with closing(sqlite3.connect(":memory:")) as sound:
        make_schema(sound)
        names = [name for (name,) in sound.execute("SELECT name FROM sqlite_master WHERE sql IS NOT NULL")]
        for name in names:
            columns, expected = _columns(connection, name), _columns(sound, name)
            # What an older file lacks looks as if it were there, without a type.
            untyped = [(column, kind or expected.get(column)) for column, kind in columns.items()]
            if untyped != [*expected.items()]:
                found.note("schema", f"{name} is not as keras-dropout makes it")
    for without, other in (("runs", "details"), ("details", "runs")):
        for (key,) in connection.execute(f"SELECT key FROM {without} WHERE key NOT IN (SELECT key FROM {other})"):
            found.note(f"run {key}", f"is in {without} but not in {other}")


def _columns(connection: sqlite3.Connection, table: str) -> dict[str, str]:
    return {name: kind for _, name, kind, *_ in connection.execute(f"PRAGMA table_info({table})")}


def _verify_runs(connection: sqlite3.Connection, found: Verified) -> None:
    counts: dict[str, Counter] = {}
    numbers: list[tuple[str, str, int]] = []
    found.runs = connection.execute("SELECT count(*) FROM runs").fetchone()[0]
    columns = "key, status, metrics, curves, config, versions, machine, calibration, test_losses, predictions"
    query = f"SELECT {columns} FROM runs JOIN details USING (key)"
    for key, status, metrics, curves, config, versions, machine, calibration, losses, predictions in connection.execute(query):
        where = f"run {key}"
        if sha256(str(config).encode()).hexdigest()[:32] != key:
            found.note(where, "its key is not the hash of its config")
        texts = {"metrics": metrics, "curves": curves, "config": config, "versions": versions, "machine": machine}
        texts |= {} if calibration is None else {"calibration": calibration}
        read = {name: _read_object(name, text) for name, text in texts.items()}
        for name, value in read.items():
            if value is None:
                found.note(where, f"its {name} cannot be read")
        if status == "done" and not all(map(isfinite, (read["metrics"] or {}).values())):
            found.note(where, "is done, but has metrics that are no finite numbers")
        if predictions is not None:
            try:
                read_npy(predictions)
            except (ValueError, TypeError, EOFError, zlib.error):
                found.note(where, "its predictions cannot be read")
        if losses is None:
            continue
        try:
            values = np.frombuffer(zlib.decompress(losses), "<f4")
        except (ValueError, TypeError, zlib.error):
            found.note(where, "its test losses cannot be read")
            continue
        if status == "done" and not np.isfinite(values).all():
            found.note(where, "is done, but has test losses that are not finite")
        data = str((read["config"] or {}).get("data"))
        counts.setdefault(data, Counter())[len(values)] += 1
        numbers.append((key, data, len(values)))
    for key, data, number in numbers:
        usual = counts[data].most_common(1)[0][0]
        if number != usual:
            found.note(f"run {key}", f"has {number} test losses; other runs on the same data have {usual}")


def _verify_models(connection: sqlite3.Connection, found: Verified) -> None:
    for key, status, archive in connection.execute("SELECT key, status, archive FROM models LEFT JOIN runs USING (key)"):
        found.models += 1
        where = f"model of run {key}"
        if status != "done":
            found.note(where, "belongs to no run that is done")
        try:
            with zipfile.ZipFile(io.BytesIO(archive)) as files:
                broken = files.testzip()
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, TypeError):
            broken = "the archive"
        if broken is not None:
            found.note(where, f"{broken} cannot be read")


def _verify_checkpoints(connection: sqlite3.Connection, found: Verified) -> None:
    for key, state in connection.execute("SELECT key, state FROM checkpoints"):
        try:
            Checkpoint.from_bytes(state)
        except ValueError:
            found.note(f"checkpoint of run {key}", "cannot be read; the run will begin anew")


def _verify_examples(connection: sqlite3.Connection, found: Verified) -> None:
    for data, about, arrays in connection.execute("SELECT data, about, arrays FROM examples"):
        where = f"examples of data {data}"
        if _read_object("about", about) is None:
            found.note(where, "what they are cannot be read")
        try:
            with np.load(io.BytesIO(arrays)) as read:
                dict(read)
        except (ValueError, TypeError, OSError, EOFError, zipfile.BadZipFile, zlib.error):
            found.note(where, "their arrays cannot be read")


def _read_object(column: str, text: Any) -> dict[str, Any] | None:
    try:
        return read_object(column, text)
    except (ValueError, TypeError):
        return None


def _verify_studies(connection: sqlite3.Connection, found: Verified) -> None:
    known = {key for (key,) in connection.execute("SELECT key FROM runs")}
    asked: set[str] = set()
    query = "SELECT id, versions, machine, ifnull(document, '{}'), runs FROM studies"
    for number, versions, machine, document, runs in connection.execute(query):
        found.studies += 1
        for name, text in {"versions": versions, "machine": machine, "document": document}.items():
            if _read_object(name, text) is None:
                found.note(f"study {number}", f"its {name} cannot be read")
        try:
            asked |= {run["key"] for run in json.loads(runs)}
        except (ValueError, TypeError, KeyError):
            found.note(f"study {number}", "its runs cannot be read")
    found.missing = len(asked - known)


def _read(connection: sqlite3.Connection, path: Path, query: str, keys: Sequence[str] | None = None) -> Iterator[tuple]:
    """The rows of a query, of these keys where given; an error is the source's, whatever transaction it happens in."""
    with refusing(path, "read"):
        yield from connection.execute(query) if keys is None else select_keys(connection, query, keys)
