"""Print comparisons, reproductions and assessments on the terminal: tables and sentences."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Group
from rich.table import Table
from rich.text import Text

from keras_dropout.bench.comparison import Comparison
from keras_dropout.bench.metric_names import SAMPLED, is_monte_carlo, plain_metric
from keras_dropout.bench.power import MOST_PAIRS
from keras_dropout.bench.records import FunctionStudy
from keras_dropout.bench.report import resampled
from keras_dropout.bench.report.verdict import (
    expected,
    monte_carlo_sentences,
    race_words,
    seeds_sentences,
    verdict,
    worlds_sentences,
)
from keras_dropout.bench.statistics import finite_mean, finite_sd

_SHORT = {"ece_debiased": "less bias", "ms/example": "ms each"}  # eight columns must fit the page width


def comparison(found: Comparison, details: bool = False) -> Group:
    """Return the terminal output of a `Comparison`: its tables, with `details` also effect sizes and power, and the answer last."""
    parts: list[Any] = [*comparison_tables(found), *([_race_table(found)] if found.max_seeds and found.others else [])]
    parts += _details(found) if details or found.margin or found.power else []  # what is asked for is told
    parts += [Text(sentence) for sentence in monte_carlo_sentences(found.study.samples, found.monte_carlo())]
    if worlds := found.more.get("worlds"):
        parts += [_worlds_table(worlds, found.deciding), *map(Text, worlds_sentences(worlds))]
    parts += [Text(f"! {warning}", style="yellow") for warning in found.warnings()]
    said = verdict(found.document())
    return Group(*parts, Text(f"{said.headline} {said.advice}", style="bold"))


def _details(found: Comparison) -> list[Any]:
    shown = dict.fromkeys((*found.own_metrics, *({found.deciding} & set(found.metrics))))
    figures = {metric: found.figures(metric) for metric in shown} if found.others else {}
    parts: list[Any] = [_figures_table(figures)] if figures else []
    parts += [Text(sentence) for sentence in seeds_sentences(figures.get(found.deciding, {}), found.deciding)]
    return parts + [Text(sentence) for sentence in resampled.sentences(figures, found.deciding, found.command)]


def comparison_tables(found: Comparison, running: bool = False) -> list[Table]:
    """Return the tables of means and differences, which are cheap enough to draw while a study runs.

    In a `running` study a variant has no p and no verdict before all of its seeds have ended.
    """
    tables = [_means_table(found), *([_sampled_table(found)] if found.sampled_metrics else [])]
    tables += [_differences_table(found, metric, running) for metric in found.own_metrics if found.others]
    return [*tables, *([_sampled_differences_table(found)] if found.sampled_metrics and found.others else [])]


def reproduction(summary: Mapping[str, Any]) -> Group:
    """Return the terminal output of `keras-dropout reproduce` for the summary of an `Outcome`."""
    parts: list[Any] = [Text(f"{summary['claim']}\n{summary['source']}\n")]
    if figures := _reproduction_figures(summary["figures"]):
        parts.append(figures)
    table = Table(title="What was expected", title_justify="left")
    for name in ("expectation", "published", "mean", "95 % interval", "p", "verdict"):
        table.add_column(name, justify="right" if name in ("mean", "95 % interval", "p") else "left")
    for row in summary["expectations"]:
        interval = "-" if row["interval"] is None else " to ".join(f"{end:+.4g}" for end in row["interval"])
        measured = "-" if row["measured"] is None else f"{row['measured']:+.4g}"
        cells = (Text(expected(row)), Text(row["published"]), measured, interval, f"{row['p']:.2g}", row["verdict"])
        table.add_row(*cells)
    said = [summary["sentence"], f"Other than published: {summary['differs']}"]
    said += [f"Changed after a first run: {summary['changed']}"] if summary["changed"] else []
    return Group(*parts, table, *map(Text, said))


def _reproduction_figures(rows: Sequence[Mapping[str, Any]]) -> Table | None:
    """Return a table of mean and standard deviation over seeds, one row for each part and variant."""
    if not rows:
        return None
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    several = len({row["part"] for row in rows}) > 1
    table = Table(title="Mean ± standard deviation over seeds", title_justify="left")
    for name in (*(["part"] if several else []), "variant", *metrics):
        table.add_column(name.replace("_", " "), justify="right" if name in metrics else "left", overflow="fold")
    for part, variant in dict.fromkeys((row["part"], row["variant"]) for row in rows):
        of_it = {row["metric"]: row for row in rows if (row["part"], row["variant"]) == (part, variant)}
        cells = [_significant(of_it[metric]) if metric in of_it else "" for metric in metrics]
        table.add_row(*([part] if several else []), variant, *cells)
    return table


def _significant(row: Mapping[str, Any]) -> str:
    """Format a mean to four significant digits, with its standard deviation."""
    if row["mean"] is None:
        return "-"
    return f"{row['mean']:.4g}" + ("" if row["sd"] is None else f" ± {row['sd']:.2g}")


def assessment(assessed: Any) -> Group:
    """Return the terminal output of `keras-dropout uncertainty` for an `Assessment`."""
    many = len(assessed.seeds) > 1
    over = f"mean of {len(assessed.seeds)} seeds, 95 % interval over seeds" if many else "95 % interval over examples"
    title = f"{assessed.target} on {assessed.data}: {assessed.examples:,} test examples, {assessed.samples} samples ({over})"
    parts: list[Any] = [_methods_table(assessed, title)]
    parts += [Text(sentence) for sentence in _assessment_sentences(assessed)]
    if assessed.rates:
        parts.append(_table("Rates, on validation data", assessed.rates))
    if assessed.ood:
        parts.append(_table("Other data: how well a score tells them from the test data", assessed.ood))
    if assessed.shifts:
        parts.append(_table("Shifted test images", assessed.shifts))
    parts += [Text(f"! {note}", style="yellow") for note in assessed.notes]
    return Group(*parts)


def _methods_table(assessed: Any, title: str) -> Table:
    shown = [name for name in next(iter(assessed.values.values())) if name != "smooth_ece"]  # not all fit on a line
    table = Table(title=Text(title), title_justify="left")
    table.add_column("method", no_wrap=True)
    for name in (*shown, "ms/example"):
        table.add_column(_SHORT.get(name, name), justify="right", no_wrap=True)
    for method, found in assessed.values.items():
        cells = []
        for name in shown:
            interval = assessed.intervals[method].get(name)
            cells.append(f"{np.mean(found[name]):.4f}" + (f"\n{interval[0]:.3f}–{interval[1]:.3f}" if interval else ""))
        time_taken = assessed.milliseconds.get(method)
        table.add_row(method, *cells, "" if time_taken is None else f"{time_taken:.3f}")
    return table


def _assessment_sentences(assessed: Any) -> list[str]:
    found = []
    for each in assessed.differences:
        if each["metric"] in ("nll", "ece") and each["interval"]:
            low, high = each["interval"]
            verdict = f": {each['verdict']}" if each["verdict"] else ""
            found.append(
                f"{each['method']} against plain, {each['metric']}: {each['difference']:+.4f} "
                f"(95 % {low:+.4f} to {high:+.4f}){verdict}"
            )
    if assessed.calibrated:
        by_method = ", ".join(f"{value:.4f} ({method})" for method, value in assessed.calibrated.items())
        found.append(f"ECE that a calibrated model with the same probabilities has by chance: {by_method}")
    if assessed.temperatures:
        found.append(f"Temperature, fitted on validation data: {', '.join(f'{t:.3f}' for t in assessed.temperatures)}")
    if assessed.precisions:
        found.append(f"Precision of the noise: {', '.join(f'{t:.4g}' for t in assessed.precisions)}")
    if assessed.moments_error is not None:
        found.append(
            f"Moment propagation differs from {assessed.samples} samples by {assessed.moments_error:.4f} a probability (mean)."
        )
    return found


def _table(title: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(title=Text(title), title_justify="left")
    for name in rows[0]:
        table.add_column(name.replace("_", " "), justify="left" if isinstance(rows[0][name], str) else "right")
    for row in rows:
        table.add_row(*(Text(_cell(value)) for value in row.values()))
    return table


def _cell(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return " to ".join(map(_cell, value))
    if value is None or isinstance(value, bool):
        return "chosen" if value else ""
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _means_table(found: Comparison) -> Table:
    table = Table(
        title=Text(f"{found.study.target}: mean and standard deviation over {len(found.study.seeds)} seeds"), title_justify="left"
    )
    table.add_column("variant")
    table.add_column("runs", justify="right")
    repeated = {plain_metric(metric) for metric in found.sampled_metrics if is_monte_carlo(metric)}
    shown = [metric for metric in found.own_metrics if metric not in repeated]  # the repeated ones have a table
    for metric in shown:
        table.add_column(metric.replace("_", " "), justify="right")
    # Scores of one's own have no training loss, and a training function returns what it likes.
    trained = found.study.epochs > 0 and not isinstance(found.study, FunctionStudy)
    for name in ("train loss", "gap (test - train loss)") if trained else ():
        table.add_column(name, justify="right")
    for variant in found.study.variants:
        loss, train = found.values(variant, "test_loss"), found.values(variant, "train_loss")
        cells = [_mean_and_sd(found.values(variant, metric)) for metric in shown]
        cells += [_mean_and_sd(train), _mean_and_sd(loss - train)] if trained else []
        runs = max((int(np.isfinite(found.values(variant, metric)).sum()) for metric in shown), default=0)
        table.add_row(Text(variant.name), str(runs), *cells)
    return table


def _differences_table(found: Comparison, metric: str, running: bool) -> Table:
    better = "higher" if found.higher_is_better(metric) else "lower"
    overlapping = found.study.divisions is not None
    paired = "paired by seed and division of the data" if overlapping else "paired by seed"
    title = f"{metric.replace('_', ' ')} against {found.study.baseline}, {paired} ({better} is better)"
    table = Table(title=Text(title), title_justify="left")
    differences = found.differences(metric)
    some = any(each.pairs < len(found.study.seeds) for each in differences.values())  # a run diverged, failed or is missing
    p = ("p", "p adjusted", *(["p overlap"] if overlapping else []))
    for name in ("variant", *(["pairs"] if some else []), "difference", "95 % interval", *p, "verdict"):
        table.add_column(name, justify="left" if name in ("variant", "verdict") else "right")
    for name, each in differences.items():
        interval = f"{each.interval[0]:+.4f} to {each.interval[1]:+.4f}" if each.interval else "-"
        mean = f"{each.mean:+.4f}" if each.pairs else "-"
        pairs = [str(each.pairs)] if some else []
        values = (each.p, each.p_adjusted, *([each.p_overlap] if overlapping else []))
        seeds = len(found.study.seeds)
        if running and (ended := found.divergence(name)["seeds"]) < seeds:
            table.add_row(Text(name), *pairs, mean, interval, *("" for _ in values), f"{ended} of {seeds} seeds")
            continue
        table.add_row(Text(name), *pairs, mean, interval, *("-" if p is None else f"{p:.3f}" for p in values), each.verdict)
    return table


def _race_table(found: Comparison) -> Table:
    """Return how many seeds each variant got, and why no more."""
    table = Table(title=f"Seeds added, at most {found.max_seeds}", title_justify="left")
    for name in ("variant", "seeds", "then"):
        table.add_column(name, justify="right" if name == "seeds" else "left")
    for name, each in found.raced().items():
        table.add_row(Text(name), str(each["seeds"]), race_words(each))
    return table


def _sampled_table(found: Comparison) -> Table:
    """Return a table of plain and Monte-Carlo predictions, one below the other; one row if both are the same."""
    title = f"test data: plain predictions, and the mean of {found.study.samples} with dropout on (Monte-Carlo)"
    table = Table(title=Text(title), title_justify="left")
    several = [metric for metric in found.sampled_metrics if is_monte_carlo(metric)]
    for name in ("variant", "predictions", *(plain_metric(metric).removeprefix("test_") for metric in several)):
        table.add_column(name, justify="left" if name in ("variant", "predictions") else "right")
    for variant in found.study.variants:
        table.add_row(
            Text(variant.name), "plain", *(_mean_and_sd(found.values(variant, plain_metric(metric))) for metric in several)
        )
        if found.is_sampled(variant):
            table.add_row("", "Monte-Carlo", *(_mean_and_sd(found.values(variant, metric)) for metric in several))
    return table


def _sampled_differences_table(found: Comparison) -> Table:
    better_higher = " and ".join(name for name, row in SAMPLED.items() if row.higher_is_better)
    said = f"mc: Monte-Carlo (lower is better, but for {better_higher})"
    title = f"more metrics against {found.study.baseline}, paired by seed; {said}"
    table = Table(title=Text(title), title_justify="left")
    for name in ("variant", "metric", "difference", "95 % interval", "p adjusted", "verdict"):
        table.add_column(name, justify="left" if name in ("variant", "metric", "verdict") else "right")
    by_metric = {metric: found.differences(metric) for metric in found.sampled_metrics if metric not in found.repeated}
    for name in found.others:
        for number, (metric, differences) in enumerate(by_metric.items()):
            each = differences[name]
            interval = f"{each.interval[0]:+.4f} to {each.interval[1]:+.4f}" if each.interval else "-"
            mean = f"{each.mean:+.4f}" if each.pairs else "-"
            words = metric.removeprefix("test_").replace("_", " ")
            table.add_row(Text("" if number else name), words, mean, interval, f"{each.p_adjusted:.3f}", each.verdict)
    return table


def _worlds_table(worlds: Sequence[Mapping[str, Any]], metric: str) -> Table:
    """Return a table with a row for each variant in each world."""
    table = Table(title=f"{metric.replace('_', ' ')} in other worlds", title_justify="left")
    for name in ("variant", "world", "study", "difference", "95 % interval", "verdict", "as asked"):
        table.add_column(name, justify="left" if name in ("variant", "world", "verdict", "as asked") else "right")
    for place, first in enumerate(worlds[0]["comparisons"]):
        for number, world in enumerate(worlds):
            cells = Text("" if number else first["variant"]), Text(_changed(world))
            if not world["comparisons"]:
                table.add_row(*cells, "", "", "", "left out", "")
                continue
            row = world["comparisons"][place]
            interval = " to ".join(f"{end:+.4f}" for end in row["interval"]) if row["interval"] else "-"
            difference = "-" if row["difference"] is None else f"{row['difference']:+.4f}"
            stands = "" if not number else "not counted" if world["left_out"] else row["stands"] or ""
            table.add_row(*cells, str(world["study"] or ""), difference, interval, row["verdict"], stands)
    return table


def _changed(world: Mapping[str, Any]) -> str:
    """Return the name of a world, with the value of what is changed if the name does not say it."""
    value = world["changed"].get("early_stopping") or world["changed"].get("weight_decay")
    return world["name"] if not value else f"{world['name']} ({value:g})"


def _figures_table(figures: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Table:
    table = Table(title="How large, and how sure (docs/statistics.md)", title_justify="left")
    common = not any("detectable_floor" in each for by_name in figures.values() for each in by_name.values())  # test examples
    new = ["95 %, new examples too"] if common else []
    for name in ("variant", "metric", "d", "seeds better", "p Wilcoxon", *new, "seeds needed"):
        table.add_column(name, justify="left" if name in ("variant", "metric") else "right")
    for metric, by_name in figures.items():
        for name, each in by_name.items():
            d, share, interval = each["effect_size"], each["share_better"], each["interval_new_examples"]
            table.add_row(
                Text(name),
                metric.replace("_", " "),
                "-" if d is None else f"{d:+.2f}",
                "-" if share is None else f"{share:.0%}",
                f"{each['wilcoxon_p']:.3f}",
                *([f"{interval[0]:+.4f} to {interval[1]:+.4f}" if interval else "-"] if common else []),
                _seeds_needed(each),
            )
    return table


def _seeds_needed(each: Mapping[str, Any]) -> str:
    """Return the seeds that the difference needs, and their range."""
    if each["pairs_needed_interval"] is None:
        return "-"
    most = "none" if each.get("detectable_floor") else f">{MOST_PAIRS}"
    needed, low, high = (most if end is None else str(end) for end in (each["pairs_needed"], *each["pairs_needed_interval"]))
    return needed if low == high else f"{needed} ({low}–{high})"


def _mean_and_sd(values: np.ndarray) -> str:
    mean, sd = finite_mean(values), finite_sd(values)
    return "-" if np.isnan(mean) else f"{mean:.4f}" if np.isnan(sd) else f"{mean:.4f} ± {sd:.4f}"
