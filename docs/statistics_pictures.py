"""Draw the pictures of docs/statistics.md, in docs/pictures/statistics: `python docs/statistics_pictures.py`, a minute or two.

`pairing` and `signs` are from the study in benchmarks/results/fashion_mnist_mlp.json, which `keras-dropout compare
fashion-mnist-mlp --variant as-published --variant hidden --json` printed; `coverage` and `looks` are simulations with fixed seeds.
What the page says of them in numbers is printed.
"""

import json
from itertools import product
from pathlib import Path

import altair as alt
import numpy as np
import vl_convert

from keras_dropout.bench.racing import sequential_verdict
from keras_dropout.bench.statistics import mean_interval, sign_flip_p, smallest_p

HERE = Path(__file__).resolve().parent
STUDY = HERE.parent / "benchmarks" / "results" / "fashion_mnist_mlp.json"
TEXT, LINES, BLUE, ORANGE = "#57606a", "#d0d7de", "#2f6fbf", "#d9822b"
DARK = {TEXT: "#9198a1", LINES: "#3d444d", BLUE: "#58a6ff", ORANGE: "#f0a050"}
MOST, STUDIES = 30, 1000


def values(metric: str) -> dict[str, np.ndarray]:
    """The metric of each variant of the real study, in the order of the seeds."""
    study = json.loads(STUDY.read_text())
    return {variant["name"]: np.array([run[metric] for run in variant["runs"]]) for variant in study["variants"]}


def pairing() -> alt.TopLevelMixin:
    """Test accuracy of single runs, joined by seed, and their differences with the interval of the mean."""
    found = values("test_accuracy")
    names = ["none", "as-published"]
    rows = [{"variant": name, "seed": seed, "value": value} for name in names for seed, value in enumerate(found[name].tolist())]
    x = alt.X("variant:N", sort=names, title=None, axis=alt.Axis(labelAngle=0))
    y = alt.Y("value:Q", title="test accuracy", scale=alt.Scale(zero=False))
    base = alt.Chart(alt.Data(values=rows)).encode(x=x, y=y)
    dots = base.mark_circle(size=60, color=BLUE, opacity=0.9)
    joined = base.mark_line(color=BLUE, opacity=0.6).encode(detail="seed:N")
    differences = found["as-published"] - found["none"]
    low, high = mean_interval(differences)
    place = alt.Y("difference:Q", title="as-published minus none", scale=alt.Scale(domain=[-0.012, 0.002]))
    zero = alt.Chart(alt.Data(values=[{"difference": 0}])).mark_rule(color=TEXT, strokeDash=[3, 3]).encode(y=place)
    pairs = alt.Chart(alt.Data(values=[{"difference": value} for value in differences.tolist()]))
    interval = alt.Chart(alt.Data(values=[{"difference": low, "high": high}])).mark_rule(color=ORANGE, strokeWidth=3)
    mean = alt.Chart(alt.Data(values=[{"difference": differences.mean()}])).mark_point(
        shape="diamond", filled=True, size=110, color=ORANGE, opacity=1
    )
    dotted = pairs.mark_circle(size=60, color=BLUE, opacity=0.9).encode(y=place, x=alt.value(30))
    right = zero + dotted + interval.encode(y=place, y2="high:Q", x=alt.value(60))
    titled = [
        (dots.properties(width=170, height=220), "as if they had nothing in common"),
        ((joined + dots).properties(width=170, height=220), "joined by seed"),
        ((right + mean.encode(y=place, x=alt.value(60))).properties(width=90, height=220), "differences"),
    ]
    return alt.hconcat(*(chart.properties(title=title) for chart, title in titled))


def coverage() -> tuple[alt.TopLevelMixin, int]:
    """The intervals of 100 studies of six pairs, and how many of them miss the true difference."""
    truth, rows, studies = -0.05, [], 100
    for number, differences in enumerate(np.random.default_rng(0).normal(truth, 0.03, (studies, 6))):
        low, high = mean_interval(differences)
        rows.append({"study": number, "low": low, "high": high, "holds": bool(low <= truth <= high)})
    color = alt.Color("holds:N", scale=alt.Scale(domain=[True, False], range=[BLUE, ORANGE]), legend=None)
    bars = alt.Chart(alt.Data(values=rows)).mark_rule(strokeWidth=2.5)
    bars = bars.encode(
        x=alt.X("study:O", title=f"{studies} studies", axis=alt.Axis(labels=False, ticks=False)),
        y=alt.Y("low:Q", title="95 % interval of the difference"),
        y2="high:Q",
        color=color,
    )
    true = alt.Chart(alt.Data(values=[{"low": truth}])).mark_rule(color=TEXT, strokeDash=[3, 3]).encode(y="low:Q")
    return (bars + true).properties(width=alt.Step(5.5), height=200), sum(not row["holds"] for row in rows)


def signs() -> tuple[alt.TopLevelMixin, float]:
    """The means of the real differences in test loss under all 64 patterns of signs, and p."""
    found = values("test_loss")
    differences = found["hidden"] - found["none"]
    means = [float((differences * pattern).mean()) for pattern in product((1, -1), repeat=len(differences))]
    rows = [{"mean": mean, "seen": bool(mean <= differences.mean() + 1e-12)} for mean in means]
    x = alt.X("mean:Q", bin=alt.Bin(step=0.005), title="mean difference in test loss, with the signs of some seeds flipped")
    color = alt.Color("seen:N", scale=alt.Scale(domain=[True, False], range=[ORANGE, BLUE]), legend=None)
    bars = alt.Chart(alt.Data(values=rows)).mark_bar().encode(x=x, y=alt.Y("count()", title="patterns of signs"), color=color)
    left = bars.properties(width=330, height=180, title="the 64 patterns of six seeds")
    least = [{"seeds": pairs, "p": smallest_p(pairs), "enough": bool(smallest_p(pairs) <= 0.05)} for pairs in range(2, 11)]
    color = alt.Color("enough:N", scale=alt.Scale(domain=[True, False], range=[BLUE, ORANGE]), legend=None)
    y = alt.Y(
        "p:Q", scale=alt.Scale(type="log", domain=[0.001, 1]), axis=alt.Axis(values=[0.001, 0.01, 0.05, 0.1, 1]), title="smallest p"
    )
    dots = alt.Chart(alt.Data(values=least)).mark_circle(size=70, opacity=1)
    dots = dots.encode(x=alt.X("seeds:O", axis=alt.Axis(labelAngle=0)), y=y, color=color)
    limit = alt.Chart(alt.Data(values=[{"p": 0.05}])).mark_rule(color=TEXT, strokeDash=[3, 3]).encode(y=y)
    right = (dots + limit).properties(width=190, height=180, title="what so many seeds can reach")
    return alt.hconcat(left, right).resolve_scale(color="independent"), sign_flip_p([differences])[0]


def looks() -> tuple[alt.TopLevelMixin, dict[str, float]]:
    """The share of studies of nothing with a verdict, by the seeds so far: p looked at each time, and `--seeds auto`."""
    draws = np.random.default_rng(MOST).normal(size=(STUDIES, MOST))
    first = {
        "p looked at after every seed": [_first_small_p(each) for each in draws],
        "--seeds auto": [_decided(each) for each in draws],
    }
    rows = [
        {"seeds": pairs, "method": method, "share": float(np.mean(np.array(found) <= pairs))}
        for method, found in first.items()
        for pairs in range(5, MOST + 1)
    ]
    scale = alt.Scale(domain=list(first), range=[ORANGE, BLUE])
    lines = alt.Chart(alt.Data(values=rows)).mark_line(strokeWidth=2, interpolate="step-after")
    lines = lines.encode(
        x=alt.X("seeds:Q", title="seeds so far", scale=alt.Scale(domain=[5, MOST])),
        y=alt.Y("share:Q", title="false verdicts so far", axis=alt.Axis(format=".0%")),
        color=alt.Color("method:N", scale=scale, title=None, legend=alt.Legend(orient="top")),
    )
    limit = alt.Chart(alt.Data(values=[{"share": 0.05}])).mark_rule(color=TEXT, strokeDash=[3, 3]).encode(y="share:Q")
    return (lines + limit).properties(width=480, height=200), {row["method"]: row["share"] for row in rows if row["seeds"] == MOST}


def _first_small_p(differences: np.ndarray) -> float:
    return next((pairs for pairs in range(6, MOST + 1) if sign_flip_p([differences[:pairs]])[0] <= 0.05), np.inf)


def _decided(differences: np.ndarray) -> float:
    return next((k for k in range(6, MOST + 1) if sequential_verdict(differences[:k], max_pairs=MOST)), np.inf)


def svg(chart: alt.TopLevelMixin) -> str:
    """The chart on no background, in the colours of the reader's scheme."""
    axis = {
        "labelColor": TEXT,
        "titleColor": TEXT,
        "gridColor": LINES,
        "domainColor": LINES,
        "tickColor": LINES,
        "titleFontWeight": "normal",
    }
    styled = chart.configure(background="transparent").configure_axis(**axis).configure_view(stroke=LINES)
    styled = styled.configure_title(color=TEXT, fontWeight="normal", fontSize=12).configure_legend(labelColor=TEXT, labelLimit=300)
    text = vl_convert.vegalite_to_svg(styled.to_dict())
    rules = "".join(f'[fill="{light}"]{{fill:{dark}}}[stroke="{light}"]{{stroke:{dark}}}' for light, dark in DARK.items())
    head, mark, rest = text.partition(">")
    return f"{head}{mark}<style>@media(prefers-color-scheme:dark){{{rules}}}</style>{rest}\n"


def main() -> None:
    folder = HERE / "pictures" / "statistics"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pairing.svg").write_text(svg(pairing()))
    for name, draw in (("coverage", coverage), ("signs", signs), ("looks", looks)):
        chart, said = draw()
        (folder / f"{name}.svg").write_text(svg(chart))
        print(name, said)


if __name__ == "__main__":
    main()
