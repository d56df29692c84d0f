"""Write tests/slow.txt from what `pytest --durations=0` printed: `make slow-tests`, which runs all tests on each backend.

Slow are a test of 6 seconds or more, and of a test with parameters also the cases of 1.5 seconds or more but for the quickest. The
time of a test is that of its slowest backend, with its set-up.
"""

import re
import sys
from collections import defaultdict
from pathlib import Path

ALONE, CASE = 6.0, 1.5  # seconds
# What shows the main job is run each time, whatever it takes.
ALWAYS = (
    "tests/test_cli.py::test_the_whole_way_on_one_worker_and_on_two",
    "tests/test_docs.py::test_the_programs_of_the_pages",
    "tests/bench/report/test_page.py::",
)
HEAD = f"""\
# Run by make test-all only: tests of {ALONE:g} seconds or more, and cases of a test of {CASE:g} or more but for its quickest.
# Measured and written by make slow-tests, on 2 cores.
"""


def seconds_by_test(output: str) -> dict[str, float]:
    """The time of each test in the listing of durations, its set-up and tear-down included."""
    found: dict[str, float] = defaultdict(float)
    for seconds, name in re.findall(r"^([\d.]+)s (?:call|setup|teardown) +(.+?) *$", output, re.MULTILINE):
        found[name] += float(seconds)
    return found


def slow(seconds: dict[str, float]) -> list[str]:
    """Which tests of these are slow."""
    cases = defaultdict(list)
    for name, time in seconds.items():
        cases[name.partition("[")[0]].append((time, name))
    found = []
    for each in map(sorted, cases.values()):
        if each[0][1].startswith(ALWAYS):
            continue
        found += [name for number, (time, name) in enumerate(each) if time >= (CASE if number else ALONE)]
    return sorted(found)


if __name__ == "__main__":
    longest: dict[str, float] = {}
    for file in sys.argv[1:]:
        for name, time in seconds_by_test(Path(file).read_text()).items():
            longest[name] = max(time, longest.get(name, 0.0))
    if not longest:
        sys.exit("There are no durations.\nGive files with what pytest --durations=0 printed.")
    Path(__file__).with_name("slow.txt").write_text(HEAD + "\n".join(slow(longest)) + "\n")
