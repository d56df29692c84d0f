"""Maintain ledger files: merge ledgers, delete runs, free space, find damage."""

import io
import json
import shlex
import sqlite3
import zipfile
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from keras_dropout.bench.ledger.checkpoints import Checkpoint
from keras_dropout.bench.ledger.lookup import (
    check_archive,
    decoding,
    read_asked,
    read_losses,
    read_npy,
    read_npz,
    read_object,
    reading,
    unpack,
)
from keras_dropout.bench.ledger.schema import (
    DETAIL_COLUMNS,
    KINDS,
    RUN_COLUMNS,
    STUDY_COLUMNS,
    Damaged,
    NotStored,
    foreign,
    made,
    refusing,
    select_keys,
)
from keras_dropout.bench.ledger.selection import Selection, count, find_key
from keras_dropout.bench.ledger.store import Ledger, check_ledger_path, put_row
from keras_dropout.bench.records import STATUSES
from keras_dropout.errors import refuse

_COLUMNS = f"{RUN_COLUMNS}, {DETAIL_COLUMNS.removeprefix('key, ')}"
# For each table, the name of a row and its columns; the first column identifies the row.
_TABLES = {
    "runs": ("run", RUN_COLUMNS),
    "details": ("run", DETAIL_COLUMNS),
    "models": ("model of run", "key, archive"),
    "checkpoints": ("checkpoint of run", "key, epoch, state, written"),
    "studies": ("study", f"id, {STUDY_COLUMNS}"),
    "examples": ("examples of data", "data, about, arrays"),
}
_DELETE_EXAMPLES_OF_NO_RUN = """DELETE FROM examples
    WHERE data NOT IN (SELECT ifnull(json_extract(config, '$.data'), '') FROM details WHERE json_valid(config))"""
_NAMES = {"key", "data", "target", "variant", "backend", "engine", "status", "started", "finished", "written"}
_LONGEST = 10_000  # characters in a name


@dataclass
class Merged:
    """The result of merging a ledger: numbers of runs copied, failed runs replaced, runs that both had, and models copied.

    `conflicts` lists the keys whose results differ.
    """

    source: str
    copied: int = 0
    replaced: int = 0
    same: int = 0
    models: int = 0
    conflicts: list[str] = field(default_factory=list)


def merge(path: str | Path, sources: Sequence[str | Path]) -> Generator[Merged, None, None]:
    """Copy the runs and studies of other ledgers into the ledger at `path`, each source in one transaction.

    A failed run at `path` is replaced by one that did not fail. Runs with the same key and different results are reported and stay
    unchanged. Models are copied with their runs, and also for identical runs at `path` that lack their model. If `verify` finds a
    damaged row in a source, nothing is copied and no file is created.
    """
    path = Path(path)
    for source in sources:
        with reading(source) as theirs:
            if path.exists() and path.samefile(source):
                refuse(f"{source} is the ledger to merge into.", "Name other ledgers, or another --ledger.")
            _check_rows(theirs, Path(source))
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


def _check_rows(connection: sqlite3.Connection, source: Path) -> None:
    """Refuse a ledger with unreadable rows."""
    found = Verified()
    factory, connection.row_factory = connection.row_factory, None
    _verify_rows(connection, found)
    connection.row_factory = factory
    if found.problems:
        where, what = found.problems[0].values()
        more = f", and {len(found.problems) - 1} more" if found.problems[1:] else ""
        refuse(
            f"nothing is taken of the ledger {source}, which is damaged: {where}: {what}{more}.",
            f"keras-dropout runs verify --ledger {shlex.quote(str(source))} lists all; runs delete KEY takes one out of it.",
        )


def _same(one: Sequence[str], other: Sequence[str]) -> bool:
    """Return whether two outcomes, (status, metrics), are the same, however their JSON is written."""
    if one == other:
        return True
    try:
        written = [json.dumps(read_object("metrics", metrics), sort_keys=True) for _, metrics in (one, other)]
    except ValueError:
        return False
    return one[0] == other[0] and written[0] == written[1]


def delete(
    path: str | Path, keys: Sequence[str], selection: Selection, every: bool = False, sure: bool = False, examples: bool = False
) -> int:
    """Delete runs by the first digits of their keys or by filters, or the test `examples` of all data; return the number deleted.

    Unless `sure`, refuse with this number. The deleted content is also removed from the bytes of the file.
    """
    if bool(keys) + bool(selection) + every + examples != 1:
        fix = "Name keys, or give filters such as --status failed, or --all, or --examples."
        refuse("what to delete must be told in one way.", fix)
    with reading(path):  # so that deleting does not create a ledger
        pass
    with refusing(Path(path), "written"), Ledger(path) as ledger:
        with ledger.transaction() as connection:
            table, what = ("examples", "test examples of {} data set(s)") if examples else ("runs", "{} run(s)")
            if examples:
                number, where, values = connection.execute("SELECT count(data) FROM examples").fetchone()[0], "TRUE", []
            elif keys:
                found = sorted({find_key(connection, key) for key in keys})
                number, where, values = len(found), f"key IN ({', '.join('?' * len(found))})", found
            else:
                number, (where, values) = count(connection, selection), selection.where()
            if number and not sure:
                refuse(f"{what.format(number)} of {path} would be deleted; nothing was.", "Add --yes to delete them.")
            connection.execute(f"DELETE FROM {table} WHERE {where}", values)  # also deletes the details and models of runs
            connection.execute(_DELETE_EXAMPLES_OF_NO_RUN)
        try:
            if number:
                ledger.vacuum()
        except NotStored as error:
            fix = "Free the disk, or wait for the other process, then: keras-dropout runs vacuum --ledger "
            refuse(f"they are deleted, but not yet out of the file's bytes: {error}", fix + shlex.quote(str(ledger.path)))
    return number


def vacuum(path: str | Path) -> tuple[int, int, int]:
    """Drop rows that belong to no run, and free space; return (checkpoints dropped, bytes before, bytes after)."""
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
            # Rows left by other programs, which by default do not delete them together with their runs.
            connection.execute("DELETE FROM details WHERE key NOT IN (SELECT key FROM runs)")
            connection.execute("DELETE FROM models WHERE key NOT IN (SELECT key FROM runs)")
            connection.execute(_DELETE_EXAMPLES_OF_NO_RUN)
        ledger.vacuum()
    return dropped, before, _bytes(path)


def _bytes(path: Path) -> int:
    files = (path, path.with_name(f"{path.name}-wal"))
    return sum(file.stat().st_size for file in files if file.exists())


@dataclass
class Verified:
    """The result of checking a ledger: numbers of runs, models and studies, number of missing runs, and problems."""

    runs: int = 0
    models: int = 0
    studies: int = 0
    missing: int = 0
    problems: list[dict[str, str]] = field(default_factory=list)

    def note(self, where: str, what: str) -> None:
        self.problems.append({"where": where, "what": what})


def verify(path: str | Path) -> Verified:
    """Look for damage in the file, the tables, and every run, model, checkpoint and study. Changes nothing.

    If there are triggers, views or tables that do not belong to a ledger, they are reported and nothing else is read: they can
    change the apparent contents of the file, and reading them may never end.
    """
    found = Verified()
    with reading(path, strict=False) as connection:
        connection.row_factory = None
        connection.text_factory = lambda text: text.decode(errors="replace")
        try:
            _verify_file(connection, found)
            if not any(problem["where"] == "schema" for problem in found.problems):
                _verify_rows(connection, found)
                _verify_checkpoints(connection, found)
        except sqlite3.DatabaseError as error:
            found.note("file", f"cannot be read to the end: {error}")
    return found


def _verify_file(connection: sqlite3.Connection, found: Verified) -> None:
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    for each in foreign(connection, version):
        found.note("schema", f"{each} is not as keras-dropout makes it")
    there = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    for name in made(version).keys() - there:
        found.note("schema", f"{name} is not as keras-dropout makes it: it is not there")
    if found.problems:
        return
    for (line,) in connection.execute("PRAGMA integrity_check"):
        if line != "ok":
            found.note("file", line)


def _verify_rows(connection: sqlite3.Connection, found: Verified) -> None:
    """Check all rows that `merge` copies."""
    _verify_types(connection, found)
    _verify_runs(connection, found)
    _verify_models(connection, found)
    _verify_studies(connection, found)
    _verify_examples(connection, found)


def _verify_types(connection: sqlite3.Connection, found: Verified) -> None:
    """Check types and lengths: SQLite accepts values of any type in a column, and names of any length."""
    types = {str: "text", int: "integer", float: "real", bytes: "blob", type(None): "null"}
    for table, (what, columns) in _TABLES.items():
        names = columns.split(", ")
        looks = ", ".join(f"typeof({name}), {f'length({name})' if name in _NAMES else 0}" for name in names)
        for key, *pairs in connection.execute(f"SELECT {names[0]}, {looks} FROM {table}"):
            for name, kind, length in zip(names, pairs[::2], pairs[1::2]):
                if kind not in [types[each] for each in KINDS[name]]:
                    found.note(f"{what} {_shown(key)}", f"its {name} cannot be of the type {kind}")
                elif kind == "text" and length > _LONGEST:
                    found.note(f"{what} {_shown(key)}", f"its {name} has {length:,} characters")
    for without, other in (("runs", "details"), ("details", "runs")):
        for (key,) in connection.execute(f"SELECT key FROM {without} WHERE key NOT IN (SELECT key FROM {other})"):
            found.note(f"run {_shown(key)}", f"is in {without} but not in {other}")


def _shown(key: Any) -> str:
    """Return a key unchanged, or quoted if it cannot be a key."""
    return key if isinstance(key, str) and key.isprintable() and len(key) <= 64 else f"{key!r:.64}"


def _verify_runs(connection: sqlite3.Connection, found: Verified) -> None:
    counts: dict[str, Counter] = {}
    numbers: list[tuple[str, str, int]] = []
    found.runs = connection.execute("SELECT count(ifnull(key, 0)) FROM runs").fetchone()[0]
    columns = "key, status, metrics, curves, config, versions, machine, calibration, test_losses, predictions"
    query = f"SELECT {columns} FROM runs JOIN details USING (key)"
    for key, status, metrics, curves, config, versions, machine, calibration, losses, predictions in connection.execute(query):
        where = f"run {_shown(key)}"
        if sha256(str(config).encode()).hexdigest()[:32] != key:
            found.note(where, "its key is not the hash of its config")
        if status not in STATUSES:
            found.note(where, f"its status is none of {', '.join(STATUSES)}")
        texts = {"metrics": metrics, "curves": curves, "config": config, "versions": versions, "machine": machine}
        texts |= {} if calibration is None else {"calibration": calibration}
        read = {name: _try(read_object, name, text) for name, text in texts.items()}
        for name, value in read.items():
            if value is None:
                found.note(where, f"its {name} cannot be read")
        if status == "done" and not all(map(isfinite, (read["metrics"] or {}).values())):
            found.note(where, "is done, but has metrics that are no finite numbers")
        if predictions is not None and _try(lambda packed: read_npy(unpack(packed)), predictions) is None:
            found.note(where, "its predictions cannot be read")
        if losses is None:
            continue
        values = _try(read_losses, losses)
        if values is None:
            found.note(where, "its test losses cannot be read")
            continue
        if status == "done" and not np.isfinite(values).all():
            found.note(where, "is done, but has test losses that are not finite")
        data = str((read["config"] or {}).get("data"))
        counts.setdefault(data, Counter())[len(values)] += 1
        numbers.append((where, data, len(values)))
    for where, data, number in numbers:
        usual = counts[data].most_common(1)[0][0]
        if number != usual:
            found.note(where, f"has {number} test losses; other runs on the same data have {usual}")


def _verify_models(connection: sqlite3.Connection, found: Verified) -> None:
    for key, status, archive in connection.execute("SELECT key, status, archive FROM models LEFT JOIN runs USING (key)"):
        found.models += 1
        where = f"model of run {_shown(key)}"
        if status != "done":
            found.note(where, "belongs to no run that is done")
        if broken := _try(_broken_member, archive):
            found.note(where, f"{broken} cannot be read")
        elif broken is None:
            found.note(where, "the archive cannot be read")


def _broken_member(archive: bytes) -> str:
    with zipfile.ZipFile(io.BytesIO(archive)) as files:
        check_archive(files, len(archive))
        return files.testzip() or ""


def _verify_checkpoints(connection: sqlite3.Connection, found: Verified) -> None:
    for key, state in connection.execute("SELECT key, state FROM checkpoints"):
        if _try(Checkpoint.from_bytes, state) is None:
            found.note(f"checkpoint of run {_shown(key)}", "cannot be read; the run will begin anew")


def _verify_examples(connection: sqlite3.Connection, found: Verified) -> None:
    for data, about, arrays in connection.execute("SELECT data, about, arrays FROM examples"):
        where = f"examples of data {_shown(data)}"
        if _try(read_object, "about", about) is None:
            found.note(where, "what they are cannot be read")
        if _try(read_npz, arrays) is None:
            found.note(where, "their arrays cannot be read")


def _try(read: Callable, *stored: Any) -> Any:
    """Return the result of `read` on stored values, or None if it raises anything."""
    with suppress(Damaged), decoding("it"):
        return read(*stored)


def _verify_studies(connection: sqlite3.Connection, found: Verified) -> None:
    known = {key for (key,) in connection.execute("SELECT key FROM runs")}
    asked: set[str] = set()
    query = "SELECT id, versions, machine, ifnull(document, '{}'), runs FROM studies"
    for number, versions, machine, document, runs in connection.execute(query):
        found.studies += 1
        for name, text in {"versions": versions, "machine": machine, "document": document}.items():
            if _try(read_object, name, text) is None:
                found.note(f"study {number}", f"its {name} cannot be read")
        if (listed := _try(read_asked, runs)) is None:
            found.note(f"study {number}", "its runs cannot be read")
        asked |= {run["key"] for run in listed or ()}
    found.missing = len(asked - known)


def _read(connection: sqlite3.Connection, path: Path, query: str, keys: Sequence[str] | None = None) -> Iterator[tuple]:
    """Yield the rows of a query, for these keys if given; blame errors on the source, even inside another file's transaction."""
    with refusing(path, "read"):
        yield from connection.execute(query) if keys is None else select_keys(connection, query, keys)
