"""The page docs/reach.md: what works on models that others wrote (benchmarks/reach.py)."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

HEAD = """# Which models it works on

Models that others wrote, small and with random weights: families of `keras.applications`, backbones and tasks of KerasHub,
and small models in the forms of keras.io's examples, among them a GAN, a VAE and a distillation with a `train_step` of their
own. On each of them every step is tried, and what counts is the effect, as `benchmarks/reach.py` defines it: predictions
equal bit for bit, other masks in each training call, none at rate 0, a saved file that is loaded with the same predictions,
rates and masks.

[How to change a pretrained model](how-to/pretrained.md) has the calls.

- A number says that it worked, in seconds: of the processor, or of the clock where the row has no others. The machine did other
  work beside, so that those of the clock are many times too long.
- Rows are stored model by model: what is not listed has not been tried yet on that backend. XLA compiled without optimising.
- *refused* means two lines: what is wrong, and a way out. The first is below the table.
- *WRONG* means that something else happened, and nothing said so: see below the table. A model that holds values in no variable,
  so that its own library's file loses them, loses them in the copies of `place` and `strip` too.
"""
STEPS = ("sites", "check", "adopt", "set_rate", "saved", "place", "strip", "uncertainty")
TITLES = {"applications": "keras.applications", "hub": "KerasHub", "forms": "The forms of keras.io's examples"}
BACKENDS = {"jax": "JAX", "tensorflow": "TensorFlow", "torch": "PyTorch"}


def page(stored: Mapping[str, Any]) -> str:
    """A table of counts, and for each library and backend a table of models with what was refused."""
    rows = stored["rows"]
    keys = [(group, backend) for group in TITLES for backend in BACKENDS]
    parts = {key: [row for row in rows if (row["group"], row["backend"]) == key] for key in keys}
    parts = {key: found for key, found in parts.items() if found}
    lines = [HEAD, f"| | models | {' | '.join(STEPS)} |", f"|---|---:|{'---:|' * len(STEPS)}"]
    for (group, backend), found in parts.items():
        counts = " | ".join(str(sum(_outcome(row, step) == "ok" for row in found)) for step in STEPS)
        lines.append(f"| {TITLES[group]}, {BACKENDS[backend]} | {len(found)} | {counts} |")
    said = {row["model"]: row.get("place", {}).get("said", "") for row in parts.get(("applications", "jax"), [])}
    itself = {name: found[1] for name, text in said.items() if (found := re.search(r"the call itself: ([0-9.]+) s", text))}
    lines += [
        "",
        "`place` in these tables is the call, two training calls, saving and loading. The call alone, seconds of the processor on "
        f"JAX: {', '.join(f'{name} {seconds}' for name, seconds in itself.items())}.",
    ]
    for (group, backend), found in parts.items():
        lines += ["", f"## {TITLES[group]}, {BACKENDS[backend]}", "", *_table(found)]
    commits = ", ".join(sorted({row["commit"] for row in rows}))
    machine = f"Keras {stored['versions']['keras']}, {stored['machine']['cores']} cores that did other work beside, no GPU"
    return "\n".join([*lines, "", f"Made by `{stored['command']}`, {stored['date']}, commits {commits}, {machine}."]) + "\n"


def _outcome(row: Mapping[str, Any], step: str) -> str:
    return row[step]["outcome"] if step in row else "not made"


def _table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = [f"| model | {' | '.join(STEPS)} |", f"|---|{'---:|' * len(STEPS)}"]
    for row in rows:
        cells = [_cell(row[step]) if step in row else "not made" for step in STEPS]
        lines.append(f"| {row['model']} | {' | '.join(cells)} |")
    said: dict[str, list[str]] = {}
    for row in rows:
        for step in ("made", *STEPS):
            if step in row and row[step]["outcome"] != "ok":
                text = f"{step} {row[step]['outcome']}: {row[step]['said']}"
                said.setdefault(text.replace(row["model"], "the model"), []).append(row["model"])
    return [*lines, "", *(f"- {', '.join(models)}: {text.replace('|', '/').replace('<', '&lt;')}" for text, models in said.items())]


def _cell(tried: Mapping[str, Any]) -> str:
    return f"{tried.get('cpu_seconds', tried['seconds']):g}" if tried["outcome"] == "ok" else tried["outcome"]
