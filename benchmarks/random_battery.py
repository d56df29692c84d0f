"""Is the mask random? dieharder's whole battery on its bits in two layouts, and cross-correlations between streams.

dieharder reads the 32-bit words of `masks.bits`, made in numpy: a layer uses the upper 24 bits of each, so that a flaw in any of
them is in what is read, in the alignment that the tests expect; the lower 8 bits are tested on top.

    long     the 2**24 positions of call 0, then those of call 1, ...: a layer with large inputs
    steps    128 positions a call, over as many calls as dieharder reads: a layer of 128 units behind a batch of one

dieharder calls a p-value below 0.005 or above 0.995 WEAK, as it is once in 100 tests of true randomness; each such test is
repeated with 5 times the samples on the bits of another seed. Below 1e-6 it says FAILED.

    correlations    the draws of neighbouring seeds, steps, layers and sub-streams, at every shift against each other, and each bit
                    of the one against each bit of the other

Run: python benchmarks/random_battery.py long|steps|correlations [--seed N] [--tests 0,2,102 | --again]
A layout takes dieharder an hour or more of one core, correlations some minutes.
The figures go to benchmarks/results/random_battery.json as they come, each part to its own entry.
"""

import argparse
import datetime
import functools
import json
import shutil
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from keras_dropout import masks
from keras_dropout.bench.execution import machine
from keras_dropout.bench.execution.scheduler import versions

RESULTS = Path(__file__).parent / "results" / "random_battery.json"
WORDS = masks.Words(constant=np.uint32, shift_right=lambda x, n: x >> np.uint32(n))
BLOCK = 2**16  # words a time: they stay in the cache
CALL = 2**24  # positions of a call in the long layout
UNITS = 128  # positions of a call in the layout of steps
MORE_SAMPLES = 500  # p-samples in a repeated test, where dieharder's default is 100


def bits(seed: int, steps: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """The 32-bit words of `positions` in the calls `steps` (arrays that broadcast)."""
    a0, b0 = (np.uint32(word) for word in masks.seed_words(seed))
    with np.errstate(over="ignore"):
        return masks.bits(positions, masks.call_key((a0, b0, steps), WORDS), WORDS)


def long_stream(seed: int) -> Iterator[np.ndarray]:
    positions = np.arange(BLOCK, dtype=np.uint32)
    for step in range(masks.POSITIONS):
        for first in range(0, CALL, BLOCK):
            yield bits(seed, np.uint32(step), positions + np.uint32(first))


def steps_stream(seed: int) -> Iterator[np.ndarray]:
    positions, steps = np.arange(UNITS, dtype=np.uint32), np.arange(BLOCK // UNITS, dtype=np.uint32)[:, None]
    for first in range(0, masks.POSITIONS, len(steps)):
        yield bits(seed, steps + np.uint32(first), positions)


STREAMS = {"long": long_stream, "steps": steps_stream}


def dieharder(layout: str, seed: int, *arguments: str) -> Iterator[dict[str, Any]]:
    """The tests that `dieharder -g 200 ARGUMENTS` makes on a layout's bits, as they end."""
    command = ["dieharder", "-g", "200", "-D", "default", *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        threading.Thread(target=_feed, args=(process.stdin, STREAMS[layout](seed)), daemon=True).start()
        for line in process.stdout:
            cells = [cell.strip() for cell in line.decode().split("|")]
            if len(cells) == 6 and cells[1].isdigit():
                name, tuple_size, words, samples, p, verdict = cells
                yield {
                    "test": name,
                    "ntuple": int(tuple_size),
                    "tsamples": int(words),
                    "psamples": int(samples),
                    "p": float(p),
                    "verdict": verdict,
                }
    if process.returncode:
        sys.exit(f"dieharder ended with exit status {process.returncode}")


def _feed(pipe: Any, blocks: Iterator[np.ndarray]) -> None:
    try:
        for block in blocks:
            pipe.write(memoryview(np.ascontiguousarray(block)).cast("B"))
    except (BrokenPipeError, ValueError):  # dieharder has read enough, or has ended
        pass


def battery(layout: str, seed: int, tests: list[int]) -> None:
    """Run dieharder on a layout, all tests if none is named, and the weak ones again; store each result as it comes."""
    if not shutil.which("dieharder"):
        sys.exit("this needs dieharder: apt-get install dieharder")
    runs = [["-a"]] if not tests else [["-d", str(test)] for test in tests]
    made()
    entry = {"layout": layout, "seed": seed, "dieharder": [" ".join(["-g", "200", *run]) for run in runs], "complete": False}
    results, repeats = [], []
    for run in runs:
        for result in dieharder(layout, seed, *run):
            results.append(result)
            _store(layout, entry, results, repeats)
    for result in repeated(layout, seed + 1, results):
        repeats.append(result)
        _store(layout, entry, results, repeats)
    _store(layout, entry | {"complete": True}, results, repeats)


def repeated(layout: str, seed: int, results: list[dict]) -> Iterator[dict[str, Any]]:
    """Those of `results` that did not pass, with more samples and on the bits of another seed."""
    numbers = _test_numbers()
    for number, size in sorted({(numbers[r["test"]], r["ntuple"]) for r in results if r["verdict"] != "PASSED"}):
        for result in dieharder(layout, seed, "-d", str(number), "-n", str(size), "-p", str(MORE_SAMPLES)):
            if result["ntuple"] == size:  # some tests report several sizes whatever is asked for
                yield {**result, "seed": seed}


def again(layout: str, seed: int) -> None:
    """Repeat once more what did not pass in the stored results of a layout, and add that to them."""
    for result in repeated(layout, seed, json.loads(RESULTS.read_text())[layout]["tests"]):
        stored = json.loads(RESULTS.read_text())[layout]
        _store(layout, stored, stored["tests"], [*stored["repeated"], result])


def _test_numbers() -> dict[str, int]:
    """dieharder's number of each test, by the name that its results have."""
    groups = {
        0: "birthdays operm5 rank_32x32 rank_6x8 bitstream opso oqso dna count_1s_str count_1s_byt parking_lot 2dsphere 3dsphere "
        "squeeze sums runs craps",
        17: "marsaglia_tsang_gcd",
        100: "sts_monobit sts_runs sts_serial",
        200: "rgb_bitdist rgb_minimum_distance rgb_permutations rgb_lagged_sum rgb_kstest_test",
        205: "dab_bytedistrib dab_dct dab_filltree dab_filltree2 dab_monobit2",
    }
    names = {first + k: name for first, group in groups.items() for k, name in enumerate(group.split())}
    return {f"diehard_{name}" if number < 17 else name: number for number, name in names.items()}


def _store(part: str, entry: dict, results: list[dict], repeats: list[dict]) -> None:
    counts = Counter(result["verdict"] for result in results)
    summary = {verdict: counts[verdict] for verdict in ("PASSED", "WEAK", "FAILED")}
    latest = (repeats or results)[-1]
    print(f"{latest['test']:22} {latest['ntuple']:2}  p = {latest['p']:.8f}  {latest['verdict']}", flush=True)
    write(part, entry | {"summary": summary, "tests": results, "repeated": repeats})


PAIRS = 100
COUNT = 2**20


def correlations(seed: int) -> None:
    """Compare `PAIRS` pairs of neighbouring streams of each kind, `COUNT` draws each."""
    rows = []
    for kind in ("seeds", "steps", "layers", "sub-streams"):
        shifted, crossed = [], []
        for pair in range(PAIRS):
            one, other = (_neighbour(kind, seed, pair + k) for k in (0, 1))
            shifted.append(_any_shift(one, other))
            crossed.append(_any_bits(one, other))
        for what, p in (("at any shift", shifted), ("of any two bits", crossed)):
            # The p-values of independent pairs are uniform: the least of them, and all of them, must look so.
            least = 1 - (1 - min(p)) ** PAIRS
            rows.append({"neighbouring": kind, "correlation": what, "pairs": PAIRS, "draws": COUNT, "p_least": least})
            rows[-1]["p_uniform"] = float(stats.kstest(p, "uniform").pvalue)
            print(f"{kind:12} {what:16} smallest of {PAIRS}: p = {least:.3f}; all of them uniform: p = {rows[-1]['p_uniform']:.3f}")
    write("correlations", {"seed": seed, "complete": True, "rows": rows})


def _neighbour(kind: str, seed: int, number: int) -> np.ndarray:
    """The draws of stream `number` of a kind."""
    words = masks.seed_words({"seeds": seed + number, "layers": masks.derive_seed(seed, "mask", number)}.get(kind, seed))
    state = (*map(np.uint32, words), np.uint32(number if kind == "steps" else 0))
    with np.errstate(over="ignore"):
        if kind == "sub-streams":
            state = (*masks.call_key(state, WORDS), np.uint32(number))
        return masks.draws(np.arange(COUNT, dtype=np.uint32), masks.call_key(state, WORDS), WORDS)


def _any_shift(one: np.ndarray, other: np.ndarray) -> float:
    """The p-value of the largest correlation of two streams, the one shifted against the other by any number of places."""
    first, second = (np.fft.rfft(draws / masks.LEVELS - 0.5) for draws in (one, other))
    z = np.fft.irfft(first * second.conj(), COUNT) / (np.sqrt(COUNT) / 12)
    return _p_of_largest(z, COUNT)


def _any_bits(one: np.ndarray, other: np.ndarray) -> float:
    """The p-value of the largest correlation of a bit of the one stream with a bit of the other, at the same positions."""
    first, second = (2.0 * ((draws >> np.arange(24, dtype=np.uint32)[:, None]) & 1).astype("float32") - 1 for draws in (one, other))
    return _p_of_largest(first @ second.T / np.sqrt(COUNT), 24 * 24)


def _p_of_largest(z: np.ndarray, count: int) -> float:
    return float(-np.expm1(count * np.log1p(-2 * stats.norm.sf(np.abs(z).max()))))


@functools.cache
def made() -> dict[str, Any]:
    """What figures are made by: asked once, since the sources may change before the last figure comes."""
    describe = ["git", "describe", "--always", "--dirty"]
    commit = subprocess.run(describe, capture_output=True, text=True, cwd=RESULTS.parent.parent).stdout.strip()
    return {
        "command": "python benchmarks/random_battery.py " + " ".join(sys.argv[1:]),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "commit": commit,
        "versions": {name: version for name, version in versions().items() if name in ("python", "numpy", "keras-dropout")},
        "machine": machine(),
    }


def write(part: str, entry: dict[str, Any]) -> None:
    """Put a part's entry into the results, with what it was made by."""
    entry = made() | entry  # what was made by an earlier command keeps it
    RESULTS.parent.mkdir(exist_ok=True)
    stored = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    fresh = RESULTS.with_suffix(".part")
    fresh.write_text(json.dumps(stored | {part: entry}, indent=1))
    fresh.replace(RESULTS)


def main() -> None:
    parser = argparse.ArgumentParser(description="Random tests of the mask; see the top of this file.")
    parser.add_argument("part", choices=[*STREAMS, "correlations"])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tests", default="", help="dieharder's numbers of some tests, with commas; all of them if left out")
    parser.add_argument("--again", action="store_true", help="repeat, on this seed, the stored tests that did not pass")
    chosen = parser.parse_args()
    if chosen.again:
        again(chosen.part, chosen.seed)
    elif chosen.part == "correlations":
        correlations(chosen.seed)
    else:
        battery(chosen.part, chosen.seed, [int(number) for number in chosen.tests.split(",") if number])


if __name__ == "__main__":
    main()
