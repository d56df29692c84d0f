"""The report's charts, as SVG text: made with Altair, rendered by vl-convert, nothing fetched."""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np
import vl_convert

from keras_dropout import schedules

Curves = Mapping[str, Sequence[Mapping[str, Sequence[float]]]]
Pairs = Mapping[str, Sequence[float | None]]


def learning_curves(curves: Curves, metric: str) -> str:
    """Training and validation by epoch: a line for the mean over seeds, a band from the lowest to the highest seed."""
    rows = []
    for variant, runs in curves.items():
        for part, name in (("training, dropout on", metric), ("validation", f"validation_{metric}")):
            for epoch, values in enumerate(zip(*(run[name] for run in _longest(runs, name))), 1):
                mean = sum(values) / len(values)
                rows.append(
                    {"variant": variant, "part": part, "epoch": epoch, "mean": mean, "low": min(values), "high": max(values)}
                )
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=alt.X("epoch:Q", title="epoch"), color=_variant_color(list(curves)), detail=["variant:N", "part:N"]
    )
    scale = alt.Scale(zero=False)
    band = base.mark_area(opacity=0.18).encode(y=alt.Y("low:Q", scale=scale, title=metric), y2="high:Q")
    dash = alt.StrokeDash(
        "part:N", title=None, scale=alt.Scale(domain=["validation", "training, dropout on"], range=[[1, 0], [4, 3]])
    )
    line = base.mark_line(strokeWidth=1.6).encode(y=alt.Y("mean:Q", scale=scale), strokeDash=dash)
    return _svg((band + line).properties(width=400, height=260))


def final_values(variants: Sequence[Mapping[str, Any]], metric: str) -> str:
    """Each run as a dot, the mean as a tick."""
    rows = [
        {"variant": variant["name"], "value": run[metric], "seed": run["seed"]}
        for variant in variants
        for run in variant["runs"]
        if run.get(metric) is not None
    ]
    names = [variant["name"] for variant in variants]
    base = alt.Chart(alt.Data(values=rows)).encode(
        y=alt.Y("variant:N", sort=names, title=None), x=alt.X("value:Q", scale=alt.Scale(zero=False), title=_title(metric))
    )
    dots = base.mark_circle(size=45, opacity=0.65).encode(color=_variant_color(names, legend=False))
    mean = base.mark_tick(thickness=2, size=22, color="black").encode(x="mean(value):Q")
    return _svg((dots + mean).properties(width=400, height=alt.Step(34)))


def paired_differences(comparisons: Sequence[Mapping[str, Any]], pairs: Pairs, metric: str) -> str:
    """Forest plot: the mean difference with its 95 % interval, and each seed's pair as a dot."""
    chosen = [row for row in comparisons if row["metric"] == metric]
    names = [row["variant"] for row in chosen]
    dots = [{"variant": name, "difference": value} for name in names for value in pairs[name]]
    bars = [{"variant": r["variant"], "low": r["interval"][0], "high": r["interval"][1]} for r in chosen if r["interval"]]
    means = [{"variant": row["variant"], "difference": row["difference"]} for row in chosen if row["difference"] is not None]
    row = alt.Y("variant:N", sort=names, title=None)
    title = f"difference in {_title(metric)} to {chosen[0]['baseline'] if chosen else 'the baseline'}"
    place = alt.X("difference:Q", title=title, scale=alt.Scale(zero=True), axis=alt.Axis(tickCount=5))
    zero = alt.Chart(alt.Data(values=[{"difference": 0}])).mark_rule(color="#777", strokeDash=[3, 3]).encode(x=place)
    interval = (
        alt.Chart(alt.Data(values=bars))
        .mark_rule(strokeWidth=2.5)
        .encode(y=row, x=alt.X("low:Q", title=title, axis=alt.Axis(tickCount=5)), x2="high:Q")
    )
    mean = (
        alt.Chart(alt.Data(values=means)).mark_point(shape="diamond", filled=True, size=110, color="black").encode(y=row, x=place)
    )
    seeds = alt.Chart(alt.Data(values=dots)).mark_circle(size=40, opacity=0.55, color="#d1495b").encode(y=row, x=place)
    return _svg((zero + interval + seeds + mean).properties(width=400, height=alt.Step(34)))


def rates(variants: Sequence[Mapping[str, Any]], epochs: int) -> str:
    """The rate over training of each variant's schedules; sites that share one share its line."""
    rows, lines = [], []
    for variant in variants:
        together: dict[str, list[str]] = {}
        for site, text in (variant["schedule"] or {}).items():
            together.setdefault(text, []).append(site)
        for text, sites in together.items():
            lines.append(f"{variant['name']}: {', '.join(sites)}")
            progress = np.linspace(0, 1, 301)
            points = zip((epochs * progress).tolist(), schedules.parse(text)(progress).tolist())
            rows += [{"line": lines[-1], "epoch": epoch, "rate": rate} for epoch, rate in points]
    chart = alt.Chart(alt.Data(values=rows)).mark_line(strokeWidth=1.6)
    color = alt.Color("line:N", title=None, scale=alt.Scale(domain=lines, scheme="tableau10"))
    place = {"x": alt.X("epoch:Q", title="epochs done"), "y": alt.Y("rate:Q", title="rate")}
    return _svg(chart.encode(color=color, **place).properties(width=400, height=200))


def trials(found: Sequence[Mapping[str, Any]]) -> str:
    """Each trial's validation loss against its rate, a panel for each site."""
    sites = list(dict.fromkeys(site for trial in found for site in trial["placement"]))
    rows = [
        {
            "site": site,
            "rate": trial["placement"].get(site, {}).get("rate", 0.0),
            "loss": trial["validation_loss"],
            "kind": trial["placement"].get(site, {}).get("kind", "none"),
            "epochs": trial["epochs"],
        }
        for trial in found
        for site in sites
        if trial["validation_loss"] is not None
    ]
    chart = alt.Chart(alt.Data(values=rows)).mark_point(filled=True, size=55, opacity=0.75)
    chart = chart.encode(
        x=alt.X("rate:Q", title="rate"),
        y=alt.Y("loss:Q", title="validation loss", scale=alt.Scale(zero=False)),
        color=alt.Color("epochs:O", title="epochs", scale=alt.Scale(scheme="blues")),
        shape=alt.Shape("kind:N", title=None),
    )
    return _svg(chart.properties(width=200, height=180).facet(facet=alt.Facet("site:N", title=None, sort=sites), columns=4))


def response(curve: Mapping[str, Any], metric: str) -> str:
    """A smooth curve over the rate with its interval, and the runs, each without its seed's own level."""
    ends = ("rate", "mean", "low", "high")
    columns = [curve[name] or curve["mean"] for name in ends]
    band = [dict(zip(ends, values)) for values in zip(*columns)]
    place = alt.X("rate:Q", title="rate")
    scale = alt.Scale(zero=False)
    base = alt.Chart(alt.Data(values=band)).encode(x=place)
    area = base.mark_area(opacity=0.2).encode(y=alt.Y("low:Q", scale=scale, title=_title(metric)), y2="high:Q")
    line = base.mark_line(strokeWidth=1.8).encode(y=alt.Y("mean:Q", scale=scale))
    dots = [{"rate": rate, "mean": value} for row in curve["runs"] for rate, value in zip(curve["rates"], row)]
    dots = alt.Chart(alt.Data(values=dots)).mark_circle(size=28, opacity=0.5, color="#d1495b")
    dots = dots.encode(x=place, y=alt.Y("mean:Q", scale=scale))
    best = alt.Chart(alt.Data(values=[{"rate": curve["best"]}])).mark_rule(color="#777", strokeDash=[3, 3]).encode(x=place)
    return _svg((area + best + dots + line).properties(width=400, height=260))


def _longest(runs: Sequence[Mapping[str, Sequence[float]]], name: str) -> list[Mapping[str, Sequence[float]]]:
    """The runs that went all the way; one that diverged early would cut the mean of the others short."""
    length = max((len(run.get(name, ())) for run in runs), default=0)
    return [run for run in runs if length and len(run.get(name, ())) == length]


def _variant_color(names: list[str], legend: bool = True) -> alt.Color:
    more = {} if legend else {"legend": None}
    return alt.Color("variant:N", title=None, scale=alt.Scale(domain=names, scheme="tableau10"), **more)


def _title(metric: str) -> str:
    return metric.replace("_", " ")


def _svg(chart: alt.Chart) -> str:
    return vl_convert.vegalite_to_svg(chart.configure_view(stroke="#ddd").configure_legend(labelLimit=300).to_dict())
