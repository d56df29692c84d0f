"""Does a test pass where the package does nothing? The tests, while every function of keras_dropout returns None.

What a test needs before it is set up by the real functions; then their code is taken away, also in the processes that it starts.
Those that pass all the same are printed: they say nothing of the package, or look at its files alone.

Run: python benchmarks/empty.py [TEST …] [--json FILE]
"""

import argparse
import ast
import gc
import os
import shutil
import signal
import sys
import tempfile
import types
from collections import Counter
from pathlib import Path

import pytest
from report import write

SECONDS = 20  # for a test
ROOT = Path(__file__).resolve().parents[1]


def nothing(*args, **kwargs):
    """What every function is meanwhile."""


def is_ours(each):
    return (
        isinstance(each, types.FunctionType) and str(each.__module__).startswith("keras_dropout") and not each.__code__.co_freevars
    )


def too_late(*_):
    pytest.fail("waits for ever")


class Empty:
    """The plugin: the package without its functions, from the call of a test to its end."""

    def __init__(self, hollow: Path):
        self.hollow, self.count, self.passed = str(hollow), 0, []
        self.modules, self.functions = 0, []
        signal.signal(signal.SIGALRM, too_late)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item):
        if len(sys.modules) != self.modules:
            self.modules, self.functions = len(sys.modules), [each for each in gc.get_objects() if is_ours(each)]
        before = [(each, each.__code__, each.__defaults__, each.__kwdefaults__) for each in self.functions]
        path = os.environ.get("PYTHONPATH")
        try:
            os.environ["PYTHONPATH"] = self.hollow
            for each in self.functions:
                each.__code__ = nothing.__code__
            signal.alarm(SECONDS)
            return (yield)
        finally:
            signal.alarm(0)
            for each, code, defaults, named in before:
                each.__code__, each.__defaults__, each.__kwdefaults__ = code, defaults, named
            del os.environ["PYTHONPATH"]
            os.environ |= {"PYTHONPATH": path} if path else {}

    def pytest_runtest_logreport(self, report):
        if report.when == "call" and not report.skipped:
            self.count += 1
            self.passed += [report.nodeid] * report.passed


class _Hollow(ast.NodeTransformer):
    def visit_FunctionDef(self, node):
        node.body = [ast.Return(ast.Constant(None))]
        return node


def hollow(folder: Path) -> Path:
    """A copy of the package, every function of which returns None."""
    shutil.copytree(ROOT / "src" / "keras_dropout", folder / "keras_dropout")
    for file in folder.rglob("*.py"):
        file.write_text(ast.unparse(ast.fix_missing_locations(_Hollow().visit(ast.parse(file.read_text())))))
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tests", nargs="*")
    parser.add_argument("--json")
    options = parser.parse_args()
    os.chdir(ROOT)
    with tempfile.TemporaryDirectory() as folder:
        plugin = Empty(hollow(Path(folder)))
        pytest.main(
            [
                "-q",
                "--tb=no",
                "-rN",
                "-m",
                "not slow",
                "-p",
                "no:cacheprovider",
                "--hypothesis-profile",
                "first-failure",
                *options.tests,
            ],
            plugins=[plugin],
        )
    passed = Counter(name.partition("[")[0] for name in plugin.passed)
    print(f"{len(plugin.passed)} of {plugin.count} tests pass on a package that does nothing:")
    print(*(f"{count:5} {name}" for name, count in passed.items()), sep="\n")
    write("empty", {"tests": plugin.count, "passed": len(plugin.passed), "by_function": passed})


if __name__ == "__main__":
    main()
