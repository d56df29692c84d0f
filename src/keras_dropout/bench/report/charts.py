"""Draw the report's charts as SVG text: made with Altair, rendered by vl-convert, nothing fetched.

Each chart has role="img" and its figures in words. Colours are the page's CSS variables, so that one SVG serves light, dark and
print. The data-tip of a mark is its tooltip. Curves have at most `MOST_EPOCHS` points for any length of training.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

import altair as alt
import numpy as np
import vl_convert
from markupsafe import Markup

from keras_dropout import schedules
from keras_dropout.bench.statistics import mean_interval
from keras_dropout.characters import clean, cleaned

Run = Mapping[str, Sequence[float]]
Curves = Mapping[str, Sequence[Run]]
Pairs = Mapping[str, Sequence[float | None]]

MOST_EPOCHS = 60
# If there are more variants, each has its own chart.
MOST_TOGETHER = 6
FEWEST_IN_BIN = 5  # fewest examples of a point in a reliability diagram
# Placeholder colours that no chart uses otherwise, and their CSS variables; page.css gives each a light and a dark colour.
_COLORS = {f"#0000c{n}": f"--c{n}" for n in range(8)} | {
    "#000001": "--ink",
    "#000002": "--quiet",
    "#000003": "--line",
    "#0000b1": "--better",
    "#0000b2": "--worse",
}
_SAYS_NOTHING = {"role", "aria-roledescription", "aria-hidden", "pointer-events", "font-family", "version"}
_INK, _QUIET, _LINE, _BETTER, _WORSE = "#000001", "#000002", "#000003", "#0000b1", "#0000b2"
_BASELINE, *_OTHERS = [f"#0000c{n}" for n in range(8)]
_CONFIG = {
    "axis": {
        "labelColor": _QUIET,
        "titleColor": _QUIET,
        "gridColor": _LINE,
        "tickColor": _LINE,
        "domainColor": _LINE,
        "labelFontSize": 11,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "labelLimit": 170,
        "labelSeparation": 6,
        "aria": False,
    },
    "legend": {"labelColor": _INK, "labelFontSize": 12, "labelLimit": 240, "aria": False, "symbolOpacity": 1, "orient": "top"},
    "view": {"stroke": None},
    "background": None,
    "padding": {"left": 10, "right": 12, "top": 6, "bottom": 4},  # the reader's font may be wider than the font used for layout
    "font": "sans-serif",
}


def chosen_epochs(epochs: int) -> list[int]:
    """Return the epochs, counted from 1, at which curves are drawn: all, or `MOST_EPOCHS` including the first and the last."""
    if epochs <= MOST_EPOCHS:
        return list(range(1, epochs + 1))
    return np.unique(np.linspace(1, epochs, MOST_EPOCHS).round().astype(int)).tolist()


def paired_differences(comparisons: Sequence[Mapping[str, Any]], pairs: Pairs, metric: str, higher_is_better: bool) -> Markup:
    """Draw a forest plot: the mean difference with its 95 % interval, and below it a dot for each seed's pair."""
    chosen = [row for row in comparisons if row["metric"] == metric and row["difference"] is not None]
    names, baseline = [row["variant"] for row in chosen], chosen[0]["baseline"]
    said = {row["variant"]: f"{row['variant']}: {row['difference']:+.4g}{_between(row['interval'])}" for row in chosen}
    dots = [
        {"variant": name, "x": value, "tip": f"{name}, pair {number}: {value:+.4g}"}
        for name in names
        for number, value in enumerate(pairs[name], 1)
        if value is not None
    ]
    means = [
        {"variant": r["variant"], "x": r["difference"], "color": _tone(r["verdict"]), "tip": said[r["variant"]]} for r in chosen
    ]
    bars = [mean | dict(zip(("x", "end"), row["interval"])) for mean, row in zip(means, chosen) if row["interval"]]
    towards = ("worse", "better") if higher_is_better else ("better", "worse")
    title = [f"{_title(metric)}, difference to {_short(baseline)}", f"← {towards[0]}\u2003\u2003{towards[1]} →"]
    place = alt.X("x:Q", title=title, axis=alt.Axis(tickCount=4))
    row = alt.Y("variant:N", sort=names, title=None, axis=alt.Axis(grid=False, ticks=False, domain=False))
    tip, color = alt.Description("tip:N"), alt.Color("color:N", scale=None)
    zero = _base([{"x": 0}]).mark_rule(color=_QUIET, aria=False).encode(x=place)
    interval = _base(bars).mark_rule(strokeWidth=5, opacity=0.55).encode(y=row, x=place, x2="end:Q", color=color, description=tip)
    mean = _base(means).mark_point(shape="diamond", filled=True, size=120, opacity=1)
    seeds = _base(dots).mark_circle(size=30, opacity=0.6, color=_INK, yOffset=13).encode(y=row, x=place, description=tip)
    chart = zero + interval + mean.encode(y=row, x=place, color=color, description=tip) + seeds
    label = f"Paired differences in {_title(metric)} to {baseline}, with 95 % intervals. {'; '.join(said.values())}."
    return _svg(chart.properties(width=330, height=alt.Step(46)), label)


def worlds(found: Sequence[Mapping[str, Any]]) -> dict[str, Markup]:
    """Draw a forest plot for each variant: a row for each world, with the mean difference and its 95 % interval."""
    charts = {}
    names = [world["name"] for world in found if world["comparisons"]]
    rows = [(world["name"], row) for world in found for row in world["comparisons"] if row["difference"] is not None]
    for variant in dict.fromkeys(row["variant"] for _, row in rows):
        chosen = [(name, row) for name, row in rows if row["variant"] == variant]
        said = {name: f"{name}: {row['difference']:+.4g}{_between(row['interval'])}, {row['verdict']}" for name, row in chosen}
        means = [{"world": name, "x": row["difference"], "color": _tone(row["verdict"]), "tip": said[name]} for name, row in chosen]
        bars = [mean | dict(zip(("x", "end"), row["interval"])) for mean, (_, row) in zip(means, chosen) if row["interval"]]
        metric, baseline = _title(chosen[0][1]["metric"]), _short(chosen[0][1]["baseline"])
        towards = ("worse", "better") if chosen[0][1]["higher_is_better"] else ("better", "worse")
        title = [f"{metric}, difference to {baseline}", f"← {towards[0]}\u2003\u2003{towards[1]} →"]
        place = alt.X("x:Q", title=title, axis=alt.Axis(tickCount=4))
        line = alt.Y("world:N", sort=names, title=None, axis=alt.Axis(grid=False, ticks=False, domain=False))
        tip, color = alt.Description("tip:N"), alt.Color("color:N", scale=None)
        zero = _base([{"x": 0}]).mark_rule(color=_QUIET, aria=False).encode(x=place)
        bar = _base(bars).mark_rule(strokeWidth=5, opacity=0.55).encode(y=line, x=place, x2="end:Q", color=color, description=tip)
        mean = _base(means).mark_point(shape="diamond", filled=True, size=120, opacity=1)
        chart = zero + bar + mean.encode(y=line, x=place, color=color, description=tip)
        label = f"{variant} in other worlds, {metric} against {baseline}, with 95 % intervals. {'; '.join(said.values())}."
        charts[variant] = _svg(chart.properties(width=330, height=alt.Step(26)), label)
    return charts


def arms(figures: Sequence[Mapping[str, Any]]) -> dict[str, Markup]:
    """Draw for each metric the runs of each arm of a reproduction as dots, with their mean and its 95 % interval."""
    several = len({row["part"] for row in figures}) > 1
    found = {}
    for metric in dict.fromkeys(row["metric"] for row in figures):
        rows = [row for row in figures if row["metric"] == metric and row["mean"] is not None]
        means, dots, bars = [], [], []
        for row in rows:
            arm = f"{row['part']}: {row['variant']}" if several else row["variant"]
            values = np.array([value for value in row["runs"] if value is not None])
            interval = mean_interval(values)
            means.append({"arm": arm, "x": row["mean"], "tip": f"{arm}: {row['mean']:.4g}{_between(interval)}"})
            dots += [{"arm": arm, "x": float(value), "tip": f"{arm}: {value:.4g}"} for value in values]
            bars += [means[-1] | dict(zip(("x", "end"), interval))] if interval else []
        if means:
            place = alt.X("x:Q", title=_title(metric), scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=4))
            line = alt.Y("arm:N", sort=[mean["arm"] for mean in means], title=None, axis=alt.Axis(ticks=False, domain=False))
            tip = alt.Description("tip:N")
            bar = _base(bars).mark_rule(strokeWidth=5, opacity=0.55, color=_BETTER)
            mean = _base(means).mark_point(shape="diamond", filled=True, size=120, opacity=1, color=_BETTER)
            runs = _base(dots).mark_circle(size=24, opacity=0.6, color=_INK, yOffset=9).encode(y=line, x=place, description=tip)
            chart = bar.encode(y=line, x=place, x2="end:Q", description=tip) + mean.encode(y=line, x=place, description=tip) + runs
            label = f"{_title(metric)} of each arm, with 95 % intervals. {'; '.join(mean['tip'] for mean in means)}."
            found[metric] = _svg(chart.properties(width=330, height=alt.Step(32)), label)
    return found


def pairs_of_values(variants: Sequence[Mapping[str, Any]], values: Mapping[str, Sequence[float | None]], title: str) -> Markup:
    """Draw each run as a dot, joined to the runs of its seed under the other variants; the first variant is the baseline.

    `values` has one number per seed, None if it is missing.
    """
    names = list(values)
    seeds = [run["seed"] for run in variants[0]["runs"]]
    rows = [
        {"variant": name, "value": value, "seed": seed, "tip": f"{name}, seed {seed}: {value:.4g}"}
        for name in names
        for seed, value in zip(seeds, values[name])
        if value is not None
    ]
    angle = 0 if len(names) <= 4 else -35
    axis = alt.Axis(labelAngle=angle, labelLimit=110, grid=False, ticks=False, labelPadding=6)
    place = alt.X("variant:N", sort=names, title=None, axis=axis, scale=alt.Scale(padding=0.35))
    level = alt.Y("value:Q", title=title, scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=5))
    base = _base(rows).encode(x=place, y=level)
    lines = base.mark_line(color=_QUIET, strokeWidth=1, opacity=0.55, aria=False).encode(detail="seed:O")
    dots = base.mark_circle(size=42, opacity=0.9, color=_OTHERS[0]).encode(description=alt.Description("tip:N"))
    if len(names) <= MOST_TOGETHER:  # more colours are hard to tell apart
        dots = dots.encode(color=_variant_color(names, legend=False))
    said = "; ".join(f"{name} {_range([v for v in values[name] if v is not None])}" for name in names)
    label = f"{title} of each run, the runs of one seed joined; lowest to highest: {said}."
    return _svg((lines + dots).properties(width=alt.Step(max(34, min(120, 360 // len(names)))), height=230), label)


def learning_curves(curves: Curves, metric: str) -> dict[str, Markup]:
    """Draw training, validation, and validation minus training by epoch: means over seeds, bands from the lowest to the highest.

    With few variants there is one chart for each of the three. With more than `MOST_TOGETHER` variants, there is one chart for each
    variant together with the first, which is the baseline.
    """
    parts = {
        "training": {name: _values(runs, metric) for name, runs in curves.items()},
        "validation": {name: _values(runs, f"validation_{metric}") for name, runs in curves.items()},
        "gap": {name: _values(runs, f"validation_{metric}", metric) for name, runs in curves.items()},
    }
    parts = {part: {name: values for name, values in by.items() if values.size} for part, by in parts.items()}
    if not any(parts.values()):
        return {}
    both = np.concatenate([values.ravel() for part in ("training", "validation") for values in parts[part].values()])
    domain, title = [float(both.min()), float(both.max())], _title(metric)
    if len(curves) <= MOST_TOGETHER:
        found = {part: _curves(by, f"{part} {title}", domain, among=list(curves)) for part, by in list(parts.items())[:2] if by}
        gap = _curves(parts["gap"], f"{title}: validation − training", None, list(curves)) if parts["gap"] else None
        return found | ({"gap": gap} if gap else {})
    baseline, *others = curves
    found = {}
    for name in others:
        lines = {
            f"{baseline}, validation": parts["validation"].get(baseline),
            f"{name}, validation": parts["validation"].get(name),
            f"{name}, training": parts["training"].get(name),
        }
        if lines := {line: values for line, values in lines.items() if values is not None}:
            found[name] = _curves(lines, title, domain, [f"{baseline}, validation", *lines])
    return found


def logged_curves(curves: Curves) -> dict[str, Markup]:
    """Draw each figure that a training function logged by epoch: means over seeds, bands from the lowest to the highest."""
    names = dict.fromkeys(name for runs in curves.values() for run in runs for name in run)
    found = {}
    for name in names:
        by_variant = {variant: values for variant, runs in curves.items() if (values := _values(runs, name)).size}
        if by_variant:
            ends = np.concatenate([values.ravel() for values in by_variant.values()])
            found[name] = _curves(by_variant, _title(name), [float(ends.min()), float(ends.max())], among=list(curves))
    return found


def rates(variants: Sequence[Mapping[str, Any]], epochs: int) -> Markup:
    """Draw the rate over training for each variant's schedules; sites with the same schedule share a line."""
    rows, lines = [], {}
    for variant in variants:
        together: dict[str, list[str]] = {}
        for site, text in (variant["schedule"] or {}).items():
            together.setdefault(text, []).append(site)
        for text, sites in together.items():
            lines[f"{variant['name']}: {', '.join(sites)}"] = text
            progress = np.linspace(0, 1, 201)
            points = zip((epochs * progress).tolist(), schedules.parse(text)(progress).round(5).tolist())
            rows += [{"variant": list(lines)[-1], "epoch": epoch, "rate": rate} for epoch, rate in points]
    place = {
        "x": alt.X("epoch:Q", title="epochs done", axis=alt.Axis(tickCount=6, tickMinStep=1, format="d")),
        "y": alt.Y("rate:Q", title="rate", axis=alt.Axis(tickCount=5)),
    }
    colors = [_OTHERS[number % len(_OTHERS)] for number in range(len(lines))]
    scale = alt.Scale(domain=list(lines), range=colors)
    color = alt.Color("variant:N", title=None, scale=scale, legend=alt.Legend(columns=1, labelLimit=420))
    chart = _base(rows).mark_line(strokeWidth=2, aria=False).encode(color=color, **place)
    label = f"The rate over training. {'; '.join(f'{line}: {text}' for line, text in lines.items())}."
    return _svg(chart.properties(width=460, height=200), label)


def trials(found: Sequence[Mapping[str, Any]]) -> dict[str, Markup]:
    """Draw for each site the validation loss of each trial against its rate at the site."""
    done = [trial for trial in found if trial["validation_loss"] is not None]
    sites = list(dict.fromkeys(site for trial in done for site in trial["placement"]))
    if not done:
        return {}
    losses = [trial["validation_loss"] for trial in done]
    most = max(trial["epochs"] for trial in done)
    scale = alt.Scale(zero=False, domain=[min(losses), max(losses)], nice=True)
    charts = {}
    for site in sites:
        rows = []
        for trial in done:
            spec = trial["placement"].get(site, {"kind": "none"})
            tip = f"trial {trial['number']}, {spec['kind']} {spec.get('rate', '')}: {trial['validation_loss']:.4g}"
            row = {"rate": spec.get("rate", 0.0), "loss": trial["validation_loss"], "kind": spec["kind"]}
            rows.append(row | {"share": trial["epochs"] / most, "tip": f"{tip} after {trial['epochs']} epochs"})
        kinds = list(dict.fromkeys(row["kind"] for row in rows))
        shape = alt.Shape("kind:N", title=None, legend=alt.Legend(symbolFillColor=_QUIET) if len(kinds) > 1 else None)
        opacity = alt.Opacity("share:Q", scale=alt.Scale(domain=[0, 1], range=[0.15, 0.9]), legend=None)
        level = alt.Y("loss:Q", title="validation loss", scale=scale, axis=alt.Axis(tickCount=5))
        chart = _base(rows).mark_point(filled=True, size=60, color=_OTHERS[0])
        chart = chart.encode(
            x=alt.X("rate:Q", title=f"rate at {_short(site)}", axis=alt.Axis(tickCount=5)),
            y=level,
            shape=shape,
            opacity=opacity,
            description=alt.Description("tip:N"),
        )
        best = min(rows, key=lambda row: row["loss"])
        label = f"Validation loss of {len(rows)} trials against the rate at {site}; the lowest is {best['tip']}."
        charts[site] = _svg(chart.properties(width=260, height=200), label)
    return charts


def expectation(optimistic: float, fresh: Mapping[str, Any], runs: Sequence[float]) -> Markup:
    """Draw the winner's validation loss in the search, and on fresh seeds with its 95 % interval and each run."""
    names = ["in the search", "on fresh seeds"]
    row = alt.Y("where:N", sort=names, title=None, axis=alt.Axis(grid=False, ticks=False, domain=False))
    place = alt.X("x:Q", title="validation loss", scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=5))
    tip, color = alt.Description("tip:N"), alt.Color("color:N", scale=None)
    said = [f"in the search {optimistic:.4g}", f"on fresh seeds {fresh['mean']:.4g}{_between(fresh['interval'])}"]
    points = [
        {"where": name, "x": x, "tip": words, "color": tone}
        for name, x, words, tone in zip(names, (optimistic, fresh["mean"]), said, (_WORSE, _OTHERS[0]))
    ]
    bars = [points[1] | dict(zip(("x", "end"), fresh["interval"]))] if fresh["interval"] else []
    dots = [{"where": names[1], "x": value, "tip": f"a fresh run: {value:.4g}"} for value in runs]
    interval = _base(bars).mark_rule(strokeWidth=5, opacity=0.55).encode(y=row, x=place, x2="end:Q", color=color, description=tip)
    seeds = _base(dots).mark_circle(size=30, opacity=0.6, color=_INK, yOffset=13).encode(y=row, x=place, description=tip)
    mean = _base(points).mark_point(shape="diamond", filled=True, size=120, opacity=1)
    chart = interval + mean.encode(y=row, x=place, color=color, description=tip) + seeds
    return _svg(chart.properties(width=330, height=alt.Step(46)), f"The winner's validation loss: {'; '.join(said)}.")


def response(curve: Mapping[str, Any], metric: str) -> Markup:
    """Draw a smooth curve over the rate with its interval, and the runs, each without its seed's own level."""
    ends = ("rate", "mean", "low", "high")
    columns = [curve[name] or curve["mean"] for name in ends]
    band = [dict(zip(ends, values)) for values in zip(*columns)]
    place = alt.X("rate:Q", title="rate", axis=alt.Axis(tickCount=7))
    scale = alt.Scale(zero=False)
    base = _base(band).encode(x=place)
    level = alt.Y("mean:Q", scale=scale, title=_title(metric), axis=alt.Axis(tickCount=5))
    area = base.mark_area(opacity=0.18, color=_OTHERS[0], aria=False).encode(
        y=alt.Y("low:Q", scale=scale, title=_title(metric)), y2="high:Q"
    )
    line = base.mark_line(strokeWidth=2.2, color=_OTHERS[0], aria=False).encode(y=level)
    dots = [
        {"rate": rate, "mean": value, "tip": f"rate {rate:.4g}: {value:.4g}"}
        for row in curve["runs"]
        for rate, value in zip(curve["rates"], row)
    ]
    dots = _base(dots).mark_circle(size=26, opacity=0.55, color=_INK).encode(x=place, y=level, description=alt.Description("tip:N"))
    best = _base([{"rate": curve["best"]}]).mark_rule(color=_QUIET, strokeDash=[3, 3], aria=False).encode(x=place)
    label = f"{_title(metric)} by rate, with a smooth curve; the mean is smallest at {curve['best']:.3g}."
    return _svg((area + best + dots + line).properties(width=400, height=250), label)


def confusion(names: Sequence[str], counts: Sequence[Sequence[float]], variant: str, paired: bool) -> Markup:
    """Draw a heat map of mean counts, with true classes as rows; if `paired`, of differences, with improvements in blue."""
    names = [clean(name) for name in names]  # also here: an expression holds them escaped, so that they look clean to `_svg`
    size = len(names)
    most = max((abs(v) for row in counts for v in row), default=0) or 1
    rows: list[dict[str, Any]] = []
    for i, row in enumerate(counts):
        whole = most if paired else sum(row) or 1
        for j, value in enumerate(row):
            good = (value > 0) == (i == j) if paired else i == j
            text = (
                f"{value:+.1f}".replace("-", "−")
                if paired
                else f"{value:.0f}"
                if value >= 10
                else f"{value:.1f}".removesuffix(".0")
            )
            text = text if abs(value) >= 0.05 else ""
            tip = f"{names[i]} predicted as {names[j]}: {value:{'+' if paired else ''}.1f}"
            tone = _QUIET if value == 0 else _BETTER if good else _WORSE
            rows.append({"i": i, "j": j, "share": abs(value) / whole, "text": text, "tone": tone, "tip": tip})
    bare: dict[str, Any] = {"grid": False, "ticks": False, "domain": False, "labelLimit": 90}
    named: dict[str, Any] = {"labelExpr": f"{json.dumps(list(names))}[datum.value]", **bare}
    across = alt.X("j:O", title="predicted", axis=alt.Axis(labelAngle=-45, **named), scale=alt.Scale(padding=0.04))
    down = alt.Y("i:O", title="true class", axis=alt.Axis(**named), scale=alt.Scale(padding=0.04))
    base = _base(rows).encode(x=across, y=down)
    shade = alt.Opacity("share:Q", scale=alt.Scale(domain=[0, 1], range=[0.04, 0.6]), legend=None)
    cells = base.mark_rect().encode(color=alt.Color("tone:N", scale=None), opacity=shade, description=alt.Description("tip:N"))
    numbers = base.mark_text(fontSize=10, color=_INK, aria=False).encode(text="text:N")
    right = sum(counts[i][i] for i in range(size))
    what = f"{right:+.1f} right answers against the baseline" if paired else f"{right:.1f} right answers"
    largest = max((row for row in rows if row["i"] != row["j"]), key=lambda row: row["share"], default=None)
    label = f"Confusion matrix of {variant}: {what}." + (f" Largest off the diagonal: {largest['tip']}." if largest else "")
    return _svg((cells + numbers).properties(width=alt.Step(36), height=alt.Step(28)), label)


def reliability(found: Mapping[str, Any], variant: str) -> Markup:
    """Draw accuracy against confidence by bin, plain and Monte-Carlo: the mean over seeds, a band from the lowest to the highest.

    Bins with fewer than `FEWEST_IN_BIN` examples per seed are left out, because their shares are too noisy.
    """
    rows, said = [], []
    for name, each in found.items():
        runs = each["reliability"]["runs"]
        for bin_ in range(len(each["reliability"]["edges"]) - 1):
            seen = [run for run in runs if run["count"][bin_]]
            if sum(run["count"][bin_] for run in seen) >= FEWEST_IN_BIN * len(runs):
                right = [run["accuracy"][bin_] for run in seen]
                confidence = sum(run["confidence"][bin_] for run in seen) / len(seen)
                count = sum(run["count"][bin_] for run in seen) / len(seen)
                mean = sum(right) / len(right)
                tip = f"{_predictions(name)}: confidence {confidence:.3f}, right {mean:.3f}, {count:.0f} examples"
                row = {"variant": _predictions(name), "x": confidence, "mean": mean, "low": min(right), "high": max(right)}
                rows.append(row | {"count": count, "tip": tip})
        mine = [row for row in rows if row["variant"] == _predictions(name)]
        if total := sum(row["count"] for row in mine):
            gap = sum(row["count"] * abs(row["mean"] - row["x"]) for row in mine) / total
            said.append(f"{_predictions(name)} {gap:.4f}")
    diagonal = _base([{"x": 0, "mean": 0}, {"x": 1, "mean": 1}]).mark_line(color=_QUIET, strokeDash=[3, 3], aria=False)
    unit = alt.Scale(domain=[0, 1])
    place = alt.X("x:Q", title="confidence", scale=unit, axis=alt.Axis(tickCount=5))
    level = alt.Y("mean:Q", title="share that is right", scale=unit, axis=alt.Axis(tickCount=5))
    color = _variant_color([_predictions(name) for name in found])
    base = _base(rows).encode(x=place, color=color)
    area = base.mark_area(opacity=0.16, aria=False).encode(y=alt.Y("low:Q", scale=unit, title="share that is right"), y2="high:Q")
    line = base.mark_line(strokeWidth=1.8, aria=False).encode(y=level)
    dots = base.mark_circle(opacity=0.9, size=34).encode(y=level, description=alt.Description("tip:N"))
    label = f"Reliability of {variant}; mean distance from the diagonal, weighted by examples: {', '.join(said)}."
    return _svg((diagonal.encode(x=place, y=level) + area + line + dots).properties(width=260, height=260), label)


def risk_coverage(found: Mapping[str, Any], variant: str) -> Markup:
    """Draw risk against coverage: the error among the most certain examples, plain and Monte-Carlo, with bands over seeds."""
    rows, said = [], []
    for name, each in found.items():
        curve = each["risk_coverage"]
        for coverage, of_runs in zip(curve["coverage"], zip(*curve["runs"])):
            if values := [value for value in of_runs if value is not None]:
                mean = sum(values) / len(values)
                tip = f"{_predictions(name)}: {mean:.4f} wrong among the surest {coverage:.0%}"
                row = {"variant": _predictions(name), "x": coverage, "mean": mean, "low": min(values), "high": max(values)}
                rows.append(row | {"tip": tip})
        mine = [row for row in rows if row["variant"] == _predictions(name)]
        said += [row["tip"] for row in mine if math.isclose(row["x"], 0.8)] + [row["tip"] for row in mine[-1:]]
    place = alt.X("x:Q", title="coverage: share of the examples that is answered", axis=alt.Axis(tickCount=5, format="%"))
    level = alt.Y("mean:Q", title="risk: share wrong", axis=alt.Axis(tickCount=5))
    base = _base(rows).encode(x=place, color=_variant_color([_predictions(name) for name in found]))
    area = base.mark_area(opacity=0.16, aria=False).encode(y=alt.Y("low:Q", title="risk: share wrong"), y2="high:Q")
    line = base.mark_line(strokeWidth=1.8, aria=False).encode(y=level)
    dots = base.mark_circle(opacity=0.9, size=22).encode(y=level, description=alt.Description("tip:N"))
    return _svg((area + line + dots).properties(width=300, height=260), f"Risk by coverage of {variant}. {'; '.join(said)}.")


def _curves(lines: Mapping[str, np.ndarray], title: str, domain: list[float] | None, among: Sequence[str]) -> Markup:
    """Draw means over seeds as lines, with bands from the lowest to the highest; `lines` are (seeds, epochs) by variant.

    `among` are all variants, for the colours. Without a `domain` the figures are differences, and a line marks zero.
    """
    names, rows, said = list(lines), [], []
    for name, values in lines.items():
        for epoch in chosen_epochs(values.shape[1]):
            now = values[:, epoch - 1]
            row = {"variant": name, "epoch": epoch, "mean": float(now.mean()), "low": float(now.min()), "high": float(now.max())}
            rows.append(row | {"tip": f"{name}, epoch {epoch}: {row['mean']:.4g} ({row['low']:.4g} to {row['high']:.4g})"})
        said.append(f"{name} {_range(values[:, -1].tolist())}")
    scale = alt.Scale(zero=False, domain=domain, nice=True) if domain else alt.Scale(zero=True)
    place = alt.X("epoch:Q", title="epoch", axis=alt.Axis(tickCount=5, grid=False, format="d"))
    level = alt.Y("mean:Q", scale=scale, title=title, axis=alt.Axis(tickCount=5))
    base = _base(rows).encode(x=place, color=_variant_color(names, among))
    area = base.mark_area(opacity=0.2, aria=False).encode(y=alt.Y("low:Q", scale=scale, title=title), y2="high:Q")
    line = base.mark_line(strokeWidth=1.8, aria=False).encode(y=level)
    chart = area + line
    if not domain:
        chart = _base([{"mean": 0}]).mark_rule(color=_QUIET, aria=False).encode(y=level) + chart
    if len(rows) <= 200:  # tooltips; more of them would make the page too large
        chart += base.mark_circle(size=60, opacity=0).encode(y=level, description=alt.Description("tip:N"))
    label = f"{title} by epoch. At the end, lowest to highest over seeds: {'; '.join(said)}."
    return _svg(chart.properties(width=225, height=200), label)


def _values(runs: Sequence[Run], name: str, minus: str | None = None) -> np.ndarray:
    """Return (seeds, epochs) of the complete runs; a run that diverged early would shorten the mean of the others."""
    rows = []
    for run in runs:
        row, less = (np.array(run.get(each, ()), dtype=float) for each in (name, minus or name))
        rows += [row if minus is None else row - less] if len(row) == len(less) else []
    length = max(map(len, rows), default=0)
    values = np.array([row for row in rows if len(row) == length]).reshape(-1, length or 1)
    return values[np.isfinite(values).all(axis=1)]


def _base(rows: Sequence[Mapping[str, Any]]) -> alt.Chart:
    return alt.Chart(alt.Data(values=list(rows)))


def _variant_color(names: Sequence[str], among: Sequence[str] | None = None, legend: bool = True) -> alt.Color:
    """Colour each name by its position `among` all; the first name is the baseline and grey."""
    order = list(dict.fromkeys(among or names))
    colors = {name: _OTHERS[(number - 1) % len(_OTHERS)] if number else _BASELINE for number, name in enumerate(order)}
    scale = alt.Scale(domain=list(names), range=[colors[name] for name in names])
    shown = alt.Legend(columns=1 if max(map(len, names)) > 16 else 3) if legend else None
    return alt.Color("variant:N", title=None, scale=scale, legend=shown)


def _tone(verdict: str) -> str:
    return _BETTER if verdict.startswith("better") else _WORSE if verdict.startswith("worse") else _QUIET


def _between(interval: Sequence[float] | None) -> str:
    return f" (95 % interval {interval[0]:+.4g} to {interval[1]:+.4g})" if interval else ""


def _range(values: Iterable[float]) -> str:
    values = list(values)
    return f"{min(values):.4g} to {max(values):.4g}" if values else "no run"


def _predictions(name: str) -> str:
    return name.replace("monte_carlo", "Monte-Carlo")


def _short(name: str, most: int = 28) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"


def _title(metric: str) -> str:
    return metric.replace("_", " ")


def _svg(chart: Any, label: str) -> Markup:
    """Return the chart as SVG with its figures in words, colours as CSS variables, and no superfluous elements or attributes.

    Unsafe characters are removed first, because the renderer would abort the process on them.
    """
    spec = cleaned(chart.to_dict(validate=False) | {"config": _CONFIG})
    root = ElementTree.fromstring(vl_convert.vegalite_to_svg(spec))
    for parent in list(root.iter()):
        for child in [each for each in parent if each.get("class") in ("background", "foreground")]:
            parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        element.attrib = dict(_attribute(*each) for each in element.items() if each[0] not in _SAYS_NOTHING)
    root.attrib = {"role": "img", "aria-label": clean(label), "xmlns": "http://www.w3.org/2000/svg"} | root.attrib
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _attribute(name: str, value: str) -> tuple[str, str]:
    """Convert an attribute of the renderer for the page."""
    if name == "aria-label":
        return "data-tip", value
    if name in ("d", "transform"):
        return name, re.sub(r"(\.\d\d)\d+", r"\1", value)
    return name, f"var({_COLORS[value]})" if name in ("fill", "stroke") and value in _COLORS else value
