"""docs/atlas.md from benchmarks/results/atlas.json: an interactive map in plain HTML, and tables without JavaScript."""

import html
import json
from collections.abc import Mapping, Sequence
from typing import Any

from keras_dropout.models import atlas

WORDS = {"test_loss": "test loss", "test_accuracy": "test accuracy"}

SCRIPT = """
(() => {
  const map = document.getElementById("atlas-map"), told = document.getElementById("atlas-told");
  const studies = JSON.parse(document.getElementById("atlas-data").textContent);
  const choices = Object.fromEntries(["study", "metric"].map(name => [name, document.getElementById("atlas-" + name)]));
  const make = (tag, text, on) => { const e = document.createElement(tag); e.textContent = text; on.append(e); return e; };
  const signed = value => value === null ? "-" : (value > 0 ? "+" : "") + value.toFixed(4);
  const draw = () => {
    const study = studies[choices.study.value], metric = choices.metric.value, lower = metric === "test_loss";
    const places = [...new Set(study.rows.map(row => row.kind + ", " + row.site))];
    const rates = [...new Set(study.rows.map(row => row.rate))].sort((a, b) => a - b);
    const most = Math.max(...study.rows.map(row => Math.abs(row[metric][0] ?? 0)), 1e-12);
    map.replaceChildren();
    const head = map.createTHead().insertRow();
    ["", ...rates].forEach(text => make("th", text, head).scope = "col");
    const body = map.createTBody();
    for (const place of places) {
      const line = body.insertRow();
      make("th", place, line).scope = "row";
      for (const rate of rates) {
        const row = study.rows.find(row => row.kind + ", " + row.site === place && row.rate === rate);
        const cell = line.insertCell();
        if (!row) continue;
        const [mean, low, high, verdict] = row[metric], good = (mean < 0) === lower;
        const button = make("button", signed(mean), cell);
        button.className = "atlas-" + (good ? "better" : "worse") + (["better", "worse"].includes(verdict) ? " atlas-shown" : "");
        button.style.setProperty("--strength", Math.round(100 * Math.min(1, Math.abs(mean ?? 0) / most)) + "%");
        const tell = () => { told.textContent = place + ", rate " + rate + ": " + signed(mean) + " (95 % interval " + signed(low)
          + " to " + signed(high) + "), " + verdict + "."; };
        ["focus", "mouseenter", "click"].forEach(event => button.addEventListener(event, tell));
      }
    }
    told.textContent = "Without dropout: test loss " + study.none.test_loss.toFixed(4) + ", accuracy "
      + study.none.test_accuracy.toFixed(4) + ", gap " + study.gap.toFixed(4) + ". Point at a cell for its interval.";
  };
  Object.values(choices).forEach(choice => choice.addEventListener("change", draw));
  document.getElementById("atlas").hidden = false;
  draw();
})();
"""


def page(document: Mapping[str, Any]) -> str:
    """The page of an atlas as `benchmarks/atlas.py --json` wrote it."""
    studies = document["rows"]
    return "\n\n".join([introduction(document), overview(studies), interactive(studies), *map(table, studies)]) + "\n"


def introduction(document: Mapping[str, Any]) -> str:
    studies, machine = document["rows"], document["machine"]
    made = f"`{document['command']}` ({document['date']}, commit {document['commit']}"
    where = f"on {machine['cores']} cores of {machine['processor']})"
    if before := document.get("before"):
        where += f", the other sets by `{before['command']}` ({before['date']}, commit {before['commit']})"
    return f"""# The atlas

Where should dropout go, of what kind and how much, by size of the net and of the data? Studies: {len(studies)}, each of one
perceptron with two hidden layers on the first images of a set, each placement against none with {studies[0]["seeds"]} paired seeds.
`keras-dropout check` and `init` begin with what the studies say that are nearest to a model in parameters per training example,
and name them.

Made by `make docs` from the result of {made}, {where}.
A verdict (**better**, **worse**) allows for all placements of its study; how, and what intervals are, is told in
[Statistics](statistics.md). Intervals speak for new seeds, not for other images or other kinds of nets."""


def overview(studies: Sequence[Mapping[str, Any]]) -> str:
    lines = [
        "## The studies",
        "",
        "The gap is test loss minus train loss of `none`. Best is the placement of Dropout with the smallest mean test loss: it",
        "was chosen for that, so its figure is optimistic.",
        "",
        "| study | parameters per image | test loss of none | gap | shown better / worse | best, and its difference |",
        "|---|---|---|---|---|---|",
    ]
    for study in sorted(studies, key=atlas.ratio):
        verdicts = [row["test_loss"][3] for row in study["rows"]]
        best = min((row for row in study["rows"] if row["kind"] == "Dropout"), key=lambda row: row["test_loss"][0])
        lines.append(
            f"| [{atlas.title(study)}](#{anchor(study)}) | {atlas.ratio(study):.3g} | {study['none']['test_loss']:.4f} "
            f"| {study['gap']:.4f} | {verdicts.count('better')} / {verdicts.count('worse')} of {len(verdicts)} "
            f"| {best['site']} {best['rate']:g}: {difference(best['test_loss'])} |"
        )
    return "\n".join(lines)


def interactive(studies: Sequence[Mapping[str, Any]]) -> str:
    """The map: hidden until its script, which fetches nothing, shows it."""
    rows = "".join(f'<option value="{n}">{html.escape(atlas.title(study))}</option>' for n, study in enumerate(studies))
    metrics = "".join(f'<option value="{metric}">{words}</option>' for metric, words in WORDS.items())
    shown = [{name: study[name] for name in ("none", "gap", "rows")} for study in studies]
    rounded = json.loads(json.dumps(shown), parse_float=lambda text: float(f"{float(text):.4g}"))
    data = json.dumps(rounded, separators=(",", ":")).replace("<", "\\u003c")
    script = "".join(line.strip() + "\n" for line in SCRIPT.strip().splitlines())
    return (
        "## The map\n\n"
        "Blue is better than none, orange worse, the stronger the larger the difference; a frame is a verdict. Without\n"
        "JavaScript the tables below say the same.\n\n"
        f'<div id="atlas" hidden>\n<p><label>Study <select id="atlas-study">{rows}</select></label>\n'
        f'<label>Difference in <select id="atlas-metric">{metrics}</select></label></p>\n'
        '<table id="atlas-map" aria-label="differences to none by place and rate"></table>\n'
        '<p id="atlas-told" aria-live="polite"></p>\n</div>\n'
        f'<script type="application/json" id="atlas-data">{data}</script>\n<script>\n{script}</script>'
    )


def table(study: Mapping[str, Any]) -> str:
    lines = [f'<a id="{anchor(study)}"></a>', "", f"### {atlas.title(study)}", ""]
    lines += ["| kind | site | rate | test loss | test accuracy |", "|---|---|---|---|---|"]
    for row in study["rows"]:
        cells = [row["kind"], row["site"], f"{row['rate']:g}", *(difference(row[metric]) for metric in WORDS)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def difference(found: Sequence[Any]) -> str:
    mean, low, high, verdict = found
    if mean is None or low is None:
        return "-"
    said = f", **{verdict}**" if verdict in ("better", "worse") else ""
    return f"{mean:+.4f} ({low:+.4f} to {high:+.4f}){said}"


def anchor(study: Mapping[str, Any]) -> str:
    name = "".join(letter if letter.isalnum() else "-" for letter in study["data"].lower())
    return f"{name}-{study['train']}-{'-'.join(map(str, study['hidden']))}"
