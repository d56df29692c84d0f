"""Broken input at every door of the command: two lines and exit status 2, or it works; never a traceback, a hang, or half a file.

Study files, variants and placements as texts, tables (CSV), arrays (.npz), IDX files, `.keras` archives and ledgers: texts that are
put together from what the door expects and from what it does not, valid files with bytes changed, inserted, deleted and cut off, or
whole ledgers with any names and runs in any mixture of states, by hypothesis; ledgers also with triggers, views that never end, and
values and documents of all types. Each is given to the command itself, in this process. Looked at: the exit status is 0, 1 or 2; a
refusal is two lines; nothing else is raised; no file of the user is changed, and none is left that was not asked for; it ends in
LIMIT seconds. Exit status 1 when anything is wrong, with the smallest such input.

Run: python benchmarks/fuzz.py [DOOR …] [--examples 1000] [--seed 0] [--json FILE]
"""

import argparse
import contextlib
import io
import json
import os
import signal
import sqlite3
import sys
import tempfile
import time
import tomllib
import traceback
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import hypothesis
import numpy as np
import untrained
from hypothesis import strategies as st
from report import write

from keras_dropout import cli
from keras_dropout.bench.data.public_sets import _FASHION_MNIST
from keras_dropout.bench.study import study_file

_BESIDE = ("-wal", "-shm")
LIMIT = 60  # seconds: the slowest took 9, on a busy machine
MODEL = """
import keras

def build(input_shape, outputs):
    model = keras.Sequential([keras.Input(input_shape), keras.layers.Dense(4, "relu", name="a"), keras.layers.Dense(1, name="b")])
    model.compile("sgd", "mse")
    return model
"""
TABLE = "width,height,price,garden\n" + "".join(f"{n % 7}.5,{n % 5},{3 * n},{'yes' if n % 2 else 'no'}\n" for n in range(60))
STUDY = """
target = "model.py:build"
epochs = 2
seeds = 6
early_stopping = 3

[data]
source = "table.csv"
target = "price"
test_split = 0.25

[variants]
light = "a=0.1"
late = { a = "late(0.3, 0.5)" }
noise = { a = { kind = "GaussianDropout", rate = 0.2 } }
"""


class Fault(Exception):
    """What a door must not do."""


class _Late(BaseException):
    """An alarm that no `except Exception` of the package, or of a library, takes for a failure to read a file."""


@dataclass(frozen=True)
class Door:
    """A command line, the file whose content is fuzzed (none: the text is the word `{}` of the command) and what is given."""

    command: tuple[str, ...]
    given: st.SearchStrategy
    file: str | None = None
    makes: tuple[str, ...] = ()  # what the command may leave, where it ends with 0


def changed(content: bytes) -> st.SearchStrategy[bytes]:
    """`content` with some bytes replaced, inserted, deleted, or the rest cut off."""
    change = st.tuples(st.sampled_from(["replace", "insert", "delete", "cut"]), st.integers(0, len(content)), st.binary(max_size=6))

    def apply(changes: list) -> bytes:
        found = content
        for kind, at, new in changes:
            after = {"replace": at + len(new), "insert": at, "delete": at + 1 + len(new), "cut": len(found)}[kind]
            found = found[:at] + (new if kind in ("replace", "insert") else b"") + found[after:]
        return found

    return st.lists(change, min_size=1, max_size=5).map(apply)


def archives(path: Path) -> st.SearchStrategy[bytes]:
    """The zip archive with changed bytes, or whole but with a member that has changed bytes."""
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}

    def pack(name: str, content: bytes) -> bytes:
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as file:
            for each, old in members.items():
                file.writestr(each, content if each == name else old)
        return packed.getvalue()

    inside = st.sampled_from(sorted(members)).flatmap(lambda name: changed(members[name]).map(lambda content: pack(name, content)))
    return changed(path.read_bytes()) | inside


_ODD = st.text(st.sampled_from("ab=,|.:()[]{}'\"#*\\ \n\0-1eé✓"), max_size=12) | st.text(max_size=6)
_NUMBER = st.sampled_from(["0", "0.2", "0.999", "1", "-0.1", "1e9", "nan", "-inf", "1e-320", "½"]) | st.floats().map(repr)
_SCHEDULE = st.builds(
    "{}({})".format,
    st.sampled_from(["linear", "cosine", "step", "early", "late", "curriculum", "depth", "polynomial", "exponential"]),
    st.lists(_NUMBER, max_size=4).map(", ".join),
)
_KIND = st.builds(
    "{}({})".format,
    st.sampled_from(
        ["Dropout", "GaussianDropout", "DropBlock2D", "SpatialDropout1D", "Standout", "Zoneout", "MaxNorm", "Dense", "__import__"]
    ),
    st.lists(
        _NUMBER
        | _SCHEDULE
        | st.sampled_from(["seed=1", "block_size=3", "noise_shape=(None, 1)", "schedule=1", "x=__import__('os')"]),
        max_size=3,
    ).map(", ".join),
)
_SITE = st.sampled_from(["hidden", "last", "input", "all", "a", "a", "a", "Dense", "*", "a/b", "[ab]"]) | _ODD
_PLACED = st.lists(st.builds("{}={}".format, _SITE, _NUMBER | _SCHEDULE | _KIND | _ODD), min_size=1, max_size=3).map(", ".join)
_SPACE = st.lists(
    st.builds(
        "{}={}".format,
        _SITE,
        st.builds("{}:{}".format, _NUMBER, _NUMBER)
        | st.sampled_from(["0:0.6", "Dropout(0.1:0.4)"])
        | _KIND.map(lambda kind: kind + " | off")
        | _ODD,
    ),
    min_size=1,
    max_size=3,
).map(", ".join)
_TEXT = _PLACED | _ODD

_VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _ODD | _NUMBER | _PLACED,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_ODD, inner, max_size=3),
    max_leaves=5,
)


def _said(texts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Those that a command line can have."""
    return texts.filter(lambda text: "\0" not in text)


def toml(value: object) -> str:
    """A value as TOML; None as a text, for which TOML has no word."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(str(key))} = {toml(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value).replace("NaN", "nan").replace("Infinity", "inf")


def _some(examples: Mapping[str, tuple[str, str]], more: Sequence[str]) -> st.SearchStrategy[dict]:
    """A table with up to three of these names and some more, each with the value of a fresh study file, or any."""
    valid = {name: tomllib.loads(f"x = {text}")["x"] for name, (text, _) in examples.items()}
    pairs = st.sampled_from([*examples, *more]).flatmap(
        lambda name: st.tuples(st.just(name), (st.just(valid[name]) | _VALUE) if name in valid else _VALUE)
    )
    return st.lists(pairs, max_size=3).map(dict)


def studies() -> st.SearchStrategy[bytes]:
    """A valid study file with one to three settings of any value, or with changed bytes."""
    settings = _some(study_file.SETTINGS, ("target", "variants", "space", "colour"))
    columns = _some(study_file.DATA, ("colour",))
    variants = st.dictionaries(_ODD | st.just("light"), _PLACED | st.just("a=0.1") | _VALUE, max_size=2)

    def written(top: dict, data: dict, placed: dict) -> bytes:
        top = {"target": "model.py:build", "epochs": 2} | top
        lines = [f"{name} = {toml(value)}" for name, value in top.items()]
        data = {"source": "table.csv", "target": "price"} | data
        lines += ["[data]", *(f"{name} = {toml(value)}" for name, value in data.items())]
        if placed and "variants" not in top:
            lines += ["[variants]", *(f"{json.dumps(name)} = {toml(value)}" for name, value in placed.items())]
        return "\n".join(lines).encode("utf-8", "surrogatepass")

    return st.builds(written, settings, columns, variants) | changed(STUDY.encode())


def reports(folder: Path) -> st.SearchStrategy[bytes]:
    """Whole ledgers of a study: its runs in any mixture of states, any text for each name."""
    states = st.lists(st.sampled_from(untrained.STATES), min_size=untrained.RUNS, max_size=untrained.RUNS)
    # Halves of characters do not reach a ledger, and a variant is refused for what cannot be shown.
    names = st.text(min_size=1, max_size=9) | st.text("\x1b]0;\x07\u202e\ufffe<>&\"'= ", min_size=1, max_size=9)
    shown = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=9)
    said = st.fixed_dictionaries(
        dict.fromkeys(untrained.NAMES, names) | {"first": shown.map("a{}".format), "second": shown.map("b{}".format)}
    )
    return st.builds(lambda states, names: untrained.write(folder / "untrained.db", states, names).read_bytes(), states, said)


_ENDLESS = "WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL SELECT x FROM n)"
_SQL = [
    "CREATE TRIGGER t AFTER INSERT ON runs BEGIN UPDATE runs SET metrics = '{}'; END",
    f"ALTER TABLE runs RENAME TO r; CREATE VIEW runs AS {_ENDLESS} SELECT r.* FROM r, n",
    f"CREATE VIEW pragma_user_version AS {_ENDLESS} SELECT x AS user_version FROM n",
    "CREATE INDEX i ON details (json_extract(config, '$.x'))",
    "CREATE TABLE f (key REFERENCES runs (key) ON DELETE RESTRICT)",
    "ALTER TABLE details ADD COLUMN g AS (hex(zeroblob(9)))",
    "DROP TABLE examples",
    "DELETE FROM details",
    "ANALYZE",
]
_COLUMNS = {
    "runs": "key target variant seed backend engine status seconds epochs best_epoch metrics error finished",
    "details": "key curves log config versions machine test_losses predictions calibration",
    "studies": "started target command versions machine runs document",
    "examples": "data about arrays",
}
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _ODD,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_ODD | st.just("key"), inner, max_size=3),
    max_leaves=6,
)
_STORED = (
    st.none()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats()
    | st.binary(max_size=20)
    | _ODD
    | _JSON.map(json.dumps)
    | st.integers(1, 100_000).map(lambda depth: "[" * depth + "]" * depth)
    | st.binary(max_size=30).map(zlib.compress)
    | st.integers(0, 10**7).map(lambda size: zlib.compress(bytes(size)))
)
_ON_HOSTILE = {
    ("runs", "list", "--json", "--ledger", "fuzzed.db"): (),
    ("runs", "verify", "--ledger", "fuzzed.db"): (),
    ("runs", "export", "runs.csv", "--ledger", "fuzzed.db"): ("runs.csv",),
    ("runs", "merge", "fuzzed.db", "--ledger", "new.db"): ("new.db",),
    ("report", "fuzzed.db", "--json"): (),
}


def hostile(content: bytes) -> st.SearchStrategy[bytes]:
    """A ledger with what SQLite would run by itself, with values of all types, or with a part of its documents replaced."""
    column = st.sampled_from([(table, name) for table, names in _COLUMNS.items() for name in names.split()])
    inside = st.tuples(
        st.sampled_from(["study", "plan", "timing", "network"]), st.lists(_ODD | st.integers(0, 3), max_size=3), _JSON
    )
    changes = st.lists(st.sampled_from(_SQL) | st.tuples(column, _STORED) | inside, min_size=1, max_size=3)

    def change(connection: sqlite3.Connection, what: Any) -> None:
        if isinstance(what, str):
            connection.executescript(what)
        elif len(what) == 2:
            (table, name), value = what
            connection.execute(f"UPDATE {table} SET {name} = ?", (value,))
        else:
            name, steps, value = what
            document = json.loads(connection.execute("SELECT document FROM studies").fetchone()[0])
            place = document
            for step in (name, *steps):
                inner = (
                    place[step] if not isinstance(step, int) else place[[*place][step]] if isinstance(place, dict) else place[step]
                )
                if not isinstance(inner, (dict, list)) or not inner:
                    break
                place = inner
            place[next(iter(place)) if isinstance(place, dict) else 0] = value
            connection.execute("UPDATE studies SET document = ?", (json.dumps(document),))

    def attacked(whats: list) -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "l.db"
            path.write_bytes(content)
            with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
                connection.execute("PRAGMA ignore_check_constraints = ON")
                for what in whats:
                    with contextlib.suppress(
                        sqlite3.Error, TypeError, LookupError, ValueError
                    ):  # one change may undo another's place
                        change(connection, what)
                connection.execute("PRAGMA journal_mode = DELETE")
            return path.read_bytes()

    return changes.map(attacked)


def doors(folder: Path) -> dict[str, Door]:
    """All, with the valid files that they need in the folder."""
    import keras

    (folder / "model.py").write_text(MODEL)
    (folder / "table.csv").write_text(TABLE)
    np.savez(folder / "arrays.npz", x=np.arange(120.0).reshape(60, 2), y=np.arange(60.0))
    model = keras.Sequential(
        [keras.Input((2,)), keras.layers.Dense(4, "relu", name="a"), keras.layers.Dropout(0.2), keras.layers.Dense(1, name="b")]
    )
    model.compile("sgd", "mse")
    model.save(folder / "model.keras")
    own = ("compare", "model.py:build", "--dry-run", "--quiet", "--engine", "compiled", "--ledger", "none.db")
    table = ("--data", "table.csv", "--target", "price")
    status, said = run(folder, (*own[:2], *table, "--epochs", "1", "--seeds", "1", *own[3:-1], "valid.db"))
    assert status == 0, said
    valid = (folder / "valid.db").read_bytes()
    ledgers = changed(valid)
    (folder / "idx").mkdir()
    return {
        "study file": Door(("compare", "--study", "study.toml", "--dry-run", "--ledger", "none.db"), studies(), "study.toml"),
        "variant": Door((*own, *table, "--variant", "x={}"), _said(_TEXT)),
        "space": Door(("tune", *own[1:], *table, "--space", "{}"), _said(_SPACE)),
        "placement": Door(("place", "model.keras", "--put", "{}", "-o", "new.keras"), _said(_TEXT), makes=("new.keras",)),
        "CSV": Door((*own, "--data", "fuzzed.csv", "--target", "price"), changed(TABLE.encode()), "fuzzed.csv"),
        "npz": Door((*own, "--data", "fuzzed.npz"), archives(folder / "arrays.npz"), "fuzzed.npz"),
        "IDX": Door(
            ("compare", "fashion-mnist-mlp", "--data-dir", "idx", "--dry-run"),
            st.binary(max_size=64) | changed(_idx()),
            f"idx/{next(iter(_FASHION_MNIST))}",
        ),
        "keras archive": Door(("check", "fuzzed.keras"), archives(folder / "model.keras"), "fuzzed.keras"),
        "ledger": Door(("report", "fuzzed.db", "-o", "page.html"), ledgers, "fuzzed.db", makes=("page.html",)),
        "report": Door(("report", "fuzzed.db", "-o", "page.html"), reports(folder), "fuzzed.db", makes=("page.html",)),
        "ledger, listed": Door(("runs", "list", "--ledger", "fuzzed.db"), ledgers, "fuzzed.db"),
        **{
            f"hostile ledger, {command[0]} {command[1]}".removesuffix(" fuzzed.db"): Door(
                command, hostile(valid), "fuzzed.db", makes
            )
            for command, makes in _ON_HOSTILE.items()
        },
    }


def _idx() -> bytes:
    import gzip

    return gzip.compress(bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 2]) + bytes(8), mtime=0)


@contextlib.contextmanager
def inside(folder: Path) -> Iterator[None]:
    """In the folder, with an alarm when it takes too long."""

    def late(*_: object) -> None:
        raise _Late

    before, old = Path.cwd(), signal.signal(signal.SIGALRM, late)
    os.chdir(folder)
    signal.alarm(LIMIT)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, old)
        os.chdir(before)


def run(folder: Path, command: tuple[str, ...]) -> tuple[int, str]:
    """Exit status and stderr of the command, in this process."""
    out, err = io.StringIO(), io.StringIO()
    with inside(folder), mock.patch.object(sys, "argv", ["keras-dropout", *command]):
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                cli.main()
            except SystemExit as end:
                return end.code, err.getvalue()
            except _Late:
                raise Fault(f"it hangs: more than {LIMIT} s") from None
            except Exception:
                raise Fault(traceback.format_exc(limit=-6)) from None
    raise Fault("it ended without an exit status")


def _files(folder: Path) -> dict[str, bytes]:
    """All but what Python and SQLite (where a ledger is damaged) leave beside files that they open."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc" and not path.name.endswith(_BESIDE))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def knock(door: Door, folder: Path, given: str | bytes) -> str:
    """What became of one input, "done" or "refused"; raises Fault for what must not be."""
    command = tuple(given if word == "{}" else word.replace("={}", f"={given}") for word in door.command)
    if door.file is not None:
        for end in _BESIDE:
            (folder / f"{door.file}{end}").unlink(missing_ok=True)
        (folder / door.file).write_bytes(given)
    before = _files(folder)
    status, said = run(folder, command)
    after = _files(folder)
    for name in door.makes:
        (folder / name).unlink(missing_ok=True)
    if status == 2:
        lines = said.splitlines()
        if len(lines) < 2 or not lines[-2].startswith("keras-dropout: "):
            raise Fault(f"a refusal is two lines; got {said!r}")
    elif status not in (0, 1):
        raise Fault(f"exit status {status}: {said!r}")
    if "Traceback" in said:
        raise Fault(said)
    changed_files = {name for name in before if after.get(name) != before[name]}
    left = after.keys() - before.keys() - (set(door.makes) if status in (0, 1) else set())
    if changed_files or left:
        raise Fault(f"changed {sorted(changed_files)}, left {sorted(left)}: exit status {status}")
    return "refused" if status == 2 else "done"


def fuzz(door: Door, folder: Path, examples: int, seed: int = 0) -> tuple[Counter, float, str | None]:
    """How many inputs were done and refused, the seconds of the slowest, and the fault with the smallest input that has it."""
    seen: Counter = Counter()
    faults: list[tuple[int, str]] = []
    slowest = 0.0

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=examples, deadline=None, database=None, suppress_health_check=list(hypothesis.HealthCheck), print_blob=False
    )
    @hypothesis.given(door.given)
    def each(given: str | bytes) -> None:
        nonlocal slowest
        begun = time.perf_counter()
        try:
            seen[knock(door, folder, given)] += 1
        except Fault as fault:
            faults.append((len(given), f"{given!r:.300}\n{fault}"))
            raise
        slowest = max(slowest, time.perf_counter() - begun)

    with contextlib.suppress(Fault, hypothesis.errors.HypothesisException, BaseExceptionGroup):  # what was wrong is in `faults`
        each()
    return seen, slowest, min(faults)[1] if faults else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("doors", nargs="*", metavar="DOOR")
    parser.add_argument("--examples", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json")
    options = parser.parse_args()
    rows, wrong = {}, False
    with tempfile.TemporaryDirectory() as folder:
        known = doors(Path(folder))
        for name, door in known.items():
            if options.doors and name not in options.doors:
                continue
            seen, slowest, fault = fuzz(door, Path(folder), options.examples, options.seed)
            print(f"{name:16} {seen['done']:6} done {seen['refused']:6} refused, slowest {slowest:.1f} s", flush=True)
            if fault:
                wrong = True
                print(fault, file=sys.stderr)
            rows[name] = {**seen, "slowest_seconds": round(slowest, 2), "fault": fault}
    write("fuzz", rows)
    sys.exit(wrong)


if __name__ == "__main__":
    main()
