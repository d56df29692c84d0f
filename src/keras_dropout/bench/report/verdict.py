"""Say the results of a study in sentences for terminal, notebook and page: the verdict, the code to apply it, and figures."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from keras_dropout import notation
from keras_dropout.bench.looking import ordinal
from keras_dropout.bench.metric_names import is_monte_carlo
from keras_dropout.bench.own_training import training_text
from keras_dropout.bench.power import MOST_PAIRS
from keras_dropout.bench.racing import FUTILE
from keras_dropout.bench.statistics import NO_DIFFERENCE, fewest_pairs

DECIDING = "test_loss"  # unless a primary metric is named
_WIDTH = 88


@dataclass(frozen=True)
class Verdict:
    """The verdict at the top of the page. `tone` is better, worse, same or open; `code` is None if nothing should change."""

    tone: str
    headline: str
    more: Sequence[str]
    advice: str
    code: str | None = None


def verdict(document: Mapping[str, Any]) -> Verdict:
    """Return the verdict of a document: on the deciding metric, with what the other metrics of plain predictions contradict.

    While learning curves still fall, it advises to train on, and no change of the model.
    """
    found = _of_differences(document)
    if said := looks_sentence(document.get("looks", ())):
        found = replace(found, headline=f"{found.headline} {said}.")
    if not (falling := document.get("unfinished_curves")):
        return found
    advice = f"Train on before you act on it: the validation loss still falls at the last epoch ({', '.join(falling)})."
    return replace(found, advice=f"{advice} Give more epochs, or early stopping.", code=None)


def looks_sentence(looks: Sequence[Mapping[str, Any]], this: str = "This is") -> str:
    """Say the how-manieth look at a question this is, after so many seeds; nothing if no earlier look could give a verdict."""
    counts = [len(look["seeds"]) for look in looks if len(look["seeds"]) >= fewest_pairs()]
    if not counts:
        return ""
    before = f"{', '.join(map(str, counts[:-1]))} and {counts[-1]}" if counts[1:] else str(counts[0])
    after = f"{'looks' if counts[1:] else 'one'} with {before} seeds"
    return f"{this} the {ordinal(len(counts) + 1)} look at this question, after {after}"


def race_words(raced: Mapping[str, Any]) -> str:
    """Say why a variant in a race got no more seeds: "decided", "stopped: cannot win", "all seeds used", or "still racing"."""
    return f"stopped: {FUTILE}" if raced["stopped"] == FUTILE else raced["stopped"] or "still racing"


def asked_sentences(looks: Sequence[Mapping[str, Any]], judged: int | None, own: int) -> list[str]:
    """Say before a study begins which look it will be, and how many placements its test part will have judged."""
    found = []
    if said := looks_sentence(looks, "this will be"):
        found.append(f"{said}; p-values and verdicts are those of a single look")
    if judged is not None and judged > own:
        found.append(f"with this study, the test part will have judged {judged} placements; its verdicts allow for its own {own}")
    return found


def _of_differences(document: Mapping[str, Any]) -> Verdict:
    study, deciding = document["study"], _deciding(document)
    baseline, variants = study["baseline"], {variant["name"]: variant for variant in document["variants"]}
    rows = {row["variant"]: row for row in document["comparisons"] if row["metric"] == deciding and _is_there(row)}
    if variants[baseline].get("training"):  # another training without dropout is no placement
        rows = {name: row for name, row in rows.items() if variants[name]["placement"] != {}} or rows
    unfinished = progress(document)
    if len(variants) < 2:
        return Verdict("open", f"Only {baseline} was trained.", unfinished, "There is nothing to compare; name a variant.")
    if not rows:
        return Verdict("open", "There is nothing to compare yet.", unfinished, "Let the study go on.")
    if not (rows := {name: row for name, row in rows.items() if row["verdict"] != "identical"}):
        if not _is_trained(study):
            headline = f"All variants have exactly the scores of {baseline}."
            return Verdict("open", headline, unfinished, "Check the table: they are the same runs.")
        headline = f"All variants trained the same model as {baseline}: no figure of any run differs."
        fix = "give a rate above 0 at a site of the model."
        if study.get("function"):
            fix = "have the function use what run.rate and run.place return, and give rates above 0."
        return Verdict("open", headline, unfinished, f"The warnings say why; {fix}")
    shown = {name: _shown(document, name) for name in rows}
    worse = {name: [each for each in others if each["verdict"].startswith("worse")] for name, others in shown.items()}
    if document.get("sweep") and (found := _of_sweep(document, variants, rows)):
        name, more = found
    else:
        name, more = _named(rows, worse), []
    if name == baseline:
        headline = f"The best rate is that of {baseline}."
        return Verdict("worse", headline, [*more, *unfinished], *_leave_out(baseline, variants, study))
    row, word = rows[name], rows[name]["verdict"]
    what, kind = (described(variants[name]), "placement") if _is_trained(study) else (f"the variant {name}", "variant")
    headline = _headline(row, what, baseline) + _but(row, shown[name])
    more += [text for text in worlds_sentences(document.get("worlds") or ()) if text.startswith(f"{name}, ")]
    more, alone = [*more, *unfinished], len(rows) == 1 or document.get("sweep")
    counts = f"if the {_words(deciding)} is what counts for you."
    if word.startswith("better"):
        others = [other for other, each in rows.items() if other != name and each["verdict"].startswith("better")]
        if others and not document.get("sweep"):
            more.append(
                f"Also better than {baseline}: {', '.join(others)}. Each was compared with {baseline}, not with the others; "
                "the one with the largest gain is named first, and such a choice is a little optimistic."
            )
        if word.endswith("within the margin"):
            advice = f"It is better, but by less than the {study['margin']:g} that was said to matter. Take it or leave it."
            return Verdict("same", headline, more, *_put_in(row, variants[name], advice, study))
        advice = f"Put it into your model {counts}" if worse[name] else _advice(word)
        tone = "open" if worse[name] and not study.get("primary") else "better"
        return Verdict(tone, headline, more, *_put_in(row, variants[name], advice, study))
    if all(each["verdict"].startswith("worse") for each in rows.values()):
        if len(rows) > 1:
            more.insert(0, f"Every {kind} is worse than {baseline}; this one is the least so.")
        return Verdict("worse", headline, more, *_leave_out(baseline, variants, study))
    if all(each["verdict"].startswith("worse") or worse[other] for other, each in rows.items()):
        if not alone:
            more.insert(
                0,
                f"Every {kind} is shown to be worse than {baseline} in some metric, and none better in the {_words(deciding)}.",
            )
        return Verdict("worse", headline, more, *_leave_out(baseline, variants, study))
    if all(each["verdict"] == "same within the margin" for each in rows.values()):
        return Verdict("same", headline, more, *_leave_out(baseline, variants, study))
    if not alone:
        more.insert(0, f"No {kind} is shown to be better than {baseline}; this one came nearest.")
    if harmful := [other for other, each in rows.items() if each["verdict"].startswith("worse") or worse[other]]:
        more.insert(0, f"Shown to be worse than {baseline}: {', '.join(harmful)}.")
    if shown[name] and not worse[name]:
        gained = " and ".join(_words(each["metric"]) for each in shown[name])
        return Verdict(
            "open",
            headline,
            more,
            *_put_in(row, variants[name], f"Put it into your model if the {gained} counts.", study),
        )
    return Verdict("open", headline, more, _undecided(document, row, bool(harmful)))


def _deciding(document: Mapping[str, Any]) -> str:
    return document["study"].get("deciding") or DECIDING


def _is_trained(study: Mapping[str, Any]) -> bool:
    """Return whether the runs of a study were trained here; scores of one's own were trained elsewhere."""
    return study["epochs"] is not None or bool(study.get("function"))


def progress(document: Mapping[str, Any]) -> list[str]:
    """Return a sentence on the progress of an unfinished study, else nothing."""
    runs = [run for variant in document["variants"] for run in variant["runs"] if _is_trained(document["study"])]
    ended = sum(run["status"] != "missing" for run in runs)
    return [] if ended == len(runs) else [f"So far, {ended} of {len(runs)} runs have ended: all this may still change."]


def became(row: Mapping[str, Any], was: str = "was ") -> str:
    """Say how a metric changed under a variant: "the test loss was lower by 0.056 (95 % interval 0.048 to 0.063)"."""
    return f"the {_words(row['metric'])} {was}{_change(row)}"


def _change(row: Mapping[str, Any]) -> str:
    interval = row["interval"]
    digits = decimals(row["difference"], *(interval or ()))
    words = f"{'lower' if row['difference'] < 0 else 'higher'} by {_size(row['difference'], digits)}"
    if interval and interval[0] * interval[1] > 0:
        low, high = sorted(map(abs, interval))
        words += f" (95 % interval {_size(low, digits)} to {_size(high, digits)})"
    elif interval:
        words += f" (95 % interval from {-interval[0]:.{digits}f} lower to {interval[1]:.{digits}f} higher)"
    return words


def _size(value: float, digits: int) -> str:
    """Format an absolute value with so many decimals; a value that would be 0 then, with one digit and its power of ten."""
    text = f"{abs(value):.{digits}f}"
    return text if not value or float(text) else f"{abs(value):.0e}"


def decimals(*values: float) -> int:
    """Return the number of decimals that shows two digits of the first value, at most six."""
    size = abs(values[0]) or max(map(abs, values))
    return 0 if not size else min(6, max(0, 1 - math.floor(math.log10(size))))


def described(variant: Mapping[str, Any]) -> str:
    """Describe a variant in a phrase: "Dropout 0.2 at hidden_1 and hidden_2"."""
    if variant.get("training"):
        return f"{described({**variant, 'training': None})}, trained with {training_text(variant['training'])},"
    placement = variant["placement"]
    if placement is None:
        return f"the model as it is built ({variant['name']})"
    together: dict[str, list[str]] = {}
    for site, spec in placement.items():
        text = notation.spec_text(spec)
        together.setdefault(text if text.startswith(spec["kind"]) else f"Dropout {text}", []).append(site)
    parts = [f"{text} at {_sites(sites)}" for text, sites in together.items()]
    if not parts:
        return f"the model without dropout ({variant['name']})"
    return parts[0] if len(parts) == 1 else f"the placement {variant['name']} ({'; '.join(parts)})"


def code(variant: Mapping[str, Any], epochs: int) -> str | None:
    """Return Python code that makes the variant from a model `model`.

    Return None for the model as it is built, and for studies of earlier versions, where layers have numbers instead of names.

    Rates that change over training need a `RateScheduler`, which finds layers by name. So the layers get names, unless all follow
    the same schedule.
    """
    placement = variant["placement"]
    if placement is None or any(re.fullmatch(r"#\d+", site) for site in placement):
        return None
    if not placement:
        return "import keras_dropout\n\nmodel = keras_dropout.strip(model)"
    scheduled = {site: {"kind": "Dropout", "schedule": spec["schedule"]} for site, spec in placement.items() if "schedule" in spec}
    moving = {site: notation.spec_text(spec) for site, spec in scheduled.items()}
    named = len(set(moving.values())) > 1 or 0 < len(moving) < len(placement)
    names = {site: f"scheduled_{number}" for number, site in enumerate(moving, 1)} if named else {}
    values = []
    for site, spec in placement.items():
        spec = {name: value for name, value in spec.items() if name not in ("schedule", "over_depth")}
        if site in names:
            spec["name"] = names[site]
        text = notation.spec_text(spec)
        plain = spec["kind"] == "Dropout" and "(" not in text
        values.append(f"{_quoted(site)}: {text if plain else _quoted(text)}")
    lines = ["import keras_dropout", "", _call("model = keras_dropout.place(model, {", values, "})")]
    if moving:
        if named:
            lines.append(
                _call(
                    "rates = keras_dropout.RateScheduler({", [f"{_quoted(names[s])}: {_quoted(t)}" for s, t in moving.items()], "})"
                )
            )
        else:
            lines.append(f"rates = keras_dropout.RateScheduler({_quoted(next(iter(moving.values())))})")
        lines.append(f"model.fit(x, y, epochs={epochs}, callbacks=[rates])")
    return "\n".join(lines)


def seeds_sentences(figures: Mapping[str, Mapping[str, Any]], metric: str = DECIDING) -> list[str]:
    """Say what the number of seeds can show and what the margin implies, one sentence each, from `Comparison.figures`."""
    found = []
    for name, each in figures.items():
        said, margin = [], each["equivalence"]
        if each["detectable_difference"] is not None:
            said.append(f"as many seeds show a {_words(metric)} difference of {each['detectable_difference']:.4f} with 80 % power")
        if each["pairs_needed"] is not None:
            said.append(f"one of {each['wanted_difference']:.4f} takes {seeds_between(each)}")
        elif each.get("detectable_floor") and each["wanted_difference"]:
            said.append(f"one of {each['wanted_difference']:.4f} is shown by no number of seeds")
        if each["pairing_gain"] is not None:
            gain, low, high = (f"{float(f'{factor:.2g}'):g}" for factor in (each["pairing_gain"], *each["pairing_gain_interval"]))
            said.append(f"pairing divided the variance by {gain} (95 % interval {low} to {high})")
        found += [f"{name}: {'; '.join(said)}."] if said else []
        if margin:
            low, high = margin["interval"]
            found.append(
                f"{name}, margin {margin['margin']:g}: 90 % interval {low:+.4f} to {high:+.4f}; better by more with probability "
                f"{margin['better']:.3f}, within {margin['within']:.3f}, worse by more {margin['worse']:.3f}."
            )
    return found


def seeds_between(row: Mapping[str, Any]) -> str:
    """Return the seeds that a difference needs with their range: "25 seeds (between 9 and 140: the spread is uncertain)"."""
    most = "infinitely many" if row.get("detectable_floor") else f"more than {MOST_PAIRS:,}"
    needed, low, high = (most if n is None else str(n) for n in (row["pairs_needed"], *row["pairs_needed_interval"]))
    return f"{needed} seeds" + (f" (between {low} and {high}: the spread is uncertain)" if low != high else "")


def worlds_sentences(worlds: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say in how many worlds each verdict holds, one sentence for each variant, and what such a count is not."""
    counted, found = [world for world in worlds if world["left_out"] is None], []
    for place, as_asked in enumerate(worlds[0]["comparisons"] if worlds else ()):
        stands: dict[str | None, list[str]] = {}
        shown: dict[str, list[str]] = {}
        for world in counted:
            row = world["comparisons"][place]
            stands.setdefault(row["stands"], []).append(world["name"])
            shown.setdefault(row["verdict"].split()[0].strip(","), []).append(world["name"])
        name, words, among = as_asked["variant"], _words(as_asked["metric"]), f"of {_number_of(len(counted), 'world')}"
        if None not in stands:
            parts = [f"{name}, {words}: {as_asked['verdict']} as asked, and this holds in {len(stands['holds'])} {among}"]
            parts += [f"{text} in {len(each)} ({', '.join(each)})" for way, text in _OTHERWISE.items() if (each := stands.get(way))]
        else:
            parts = [f"{name}, {words}: {as_asked['verdict']} as asked"]
            ways = [(way, each) for way in ("better", "worse") if (each := shown.get(way))]
            parts += [f"{way} in {len(each)} {among} ({', '.join(each)})" for way, each in ways] or [f"nor in any {among}"]
        found.append(f"{'; '.join(parts)}.")
    left_out = [f"{world['name']} ({world['left_out']})" for world in worlds if world["left_out"] is not None]
    found += [f"Not counted: {'; '.join(left_out)}."] if left_out else []
    found += [f"{world['name']}: {world['note']}." for world in worlds if world["note"] and world["left_out"] is None]
    if found:
        found.append(
            "Each world has the same seeds and test examples, and verdicts of its own, of which any is false in at most 5 of 100 "
            "studies: over several worlds that is more. Not shown is not the opposite, and the worlds are no sample of all that "
            "could be."
        )
    return found


_OTHERWISE = {"not shown": "not shown", "opposite": "the opposite is shown"}


def monte_carlo_sentences(samples: int | None, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say how Monte-Carlo predictions change each variant's NLL or RMSE, one sentence each, from `Comparison.monte_carlo`."""
    found = []
    for row in rows:
        if row["metric"] in ("test_nll", "test_rmse") and row["pairs"]:
            between = " (95 % interval {:+.4f} to {:+.4f})".format(*row["interval"]) if row["interval"] else ""
            found.append(
                f"{row['variant']}: {samples} samples against its own plain predictions, paired over {row['pairs']} seed(s): "
                f"{row['metric'].removeprefix('test_')} {row['difference']:+.4f}{between}."
            )
    return found


def expected(row: Mapping[str, Any]) -> str:
    """Return an expectation of a reproduction with its bounds, such as "test loss, none minus hidden > 0"."""
    if row["figure"] is not None:
        near = f", to {row['tolerance']:g}" if row.get("tolerance") is not None else ""
        return f"{row['says']}: {row['figure']:g} could be one more{near}"
    if row["above"] is None and row["below"] is None:
        return row["says"]
    if row["above"] is not None and row["below"] is not None:
        return f"{row['says']}: between {row['above']:g} and {row['below']:g}"
    return f"{row['says']} > {row['above']:g}" if row["below"] is None else f"{row['says']} < {row['below']:g}"


def _named(rows: Mapping[str, Mapping[str, Any]], worse: Mapping[str, Sequence[Any]]) -> str:
    """Return the variant for the headline: the best verdict first, then one with no other metric worse, then the largest gain."""
    order = ("better", "better in most runs", "better on average", "better, but", NO_DIFFERENCE, "same within the margin")

    def rank(name: str) -> tuple[int, bool, float]:
        word, change = rows[name]["verdict"], rows[name]["difference"]
        word = "better, but" if word.startswith("better") and word.endswith("margin") else word
        side = -1 if rows[name]["higher_is_better"] else 1
        return (
            (order.index(word) if word in order else len(order)),
            bool(worse[name]),
            math.inf if change is None else side * change,
        )

    return min(rows, key=rank)


def _of_sweep(document: Mapping[str, Any], variants: Mapping[str, Any], rows: Mapping[str, Any]) -> tuple[str, list[str]] | None:
    """Return the variant nearest to the best rate on validation data, and the sweep's sentences."""
    sweep = document["sweep"]
    if "validation_loss" not in sweep["curves"]:
        return None
    best = sweep["curves"]["validation_loss"]["best"]
    name = min(sweep["variants"], key=lambda each: abs(sweep["variants"][each] - best))
    name = name if name in rows else document["study"]["baseline"]
    return name, list(sweep["sentences"])


def _is_there(row: Mapping[str, Any]) -> bool:
    """Return whether there is anything to compare: a pair of figures, or of runs of which one diverged."""
    return bool(row["pairs"] or row.get("diverged") or row.get("baseline_diverged"))


def _shown(document: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    """Return the other comparisons of a variant, on metrics of plain predictions that repeat no other, that show a difference."""
    left_out = {_deciding(document), *(document["sampled"]["repeated"] if document.get("sampled") else ())}
    rows = [row for row in document["comparisons"] if row["variant"] == name and _is_there(row) and row["metric"] not in left_out]
    return [row for row in rows if row["verdict"].startswith(("better", "worse")) and not is_monte_carlo(row["metric"])]


def _headline(row: Mapping[str, Any], what: str, baseline: str) -> str:
    """Say the result of a variant on the deciding metric in a sentence, and what contradicts it."""
    word, metric, capital = row["verdict"], _words(row["metric"]), what[:1].upper() + what[1:]
    if row["difference"] is None:
        said = f"There is no pair of runs with a {metric}, as runs diverged. Verdict on {what}: {word}."
    elif word == NO_DIFFERENCE:
        said = f"No difference is shown: with {what} {became(row)}, over {_pairs(row)}."
    elif "in most runs" in word:
        side = "higher" if word.startswith("better") == row["higher_is_better"] else "lower"
        said = f"{capital} makes the {metric} {side} in most runs (on average {_change(row)}): {word}.{_seeds(row)}"
    else:
        said = f"{capital} makes {became(row, '')}: {word}.{_seeds(row)}"
    seeds, diverged, of_baseline = _count(row), row.get("diverged"), row.get("baseline_diverged")
    if diverged:
        said += f" {diverged} of its {_number_of(seeds, 'run')} diverged, which counts as the worst of all."
    if of_baseline:
        said += f" {of_baseline} of {_number_of(seeds, 'run')} of {baseline} diverged."
    if (diverged or of_baseline) and row["pairs"]:
        said += f" The mean is that of the {_number_of(row['pairs'], 'pair')} in which neither did."
    contrary = row.get("contrary")
    if contrary and contrary["difference"] is not None:
        by = _size(contrary["difference"], decimals(contrary["difference"]))
        side = "lower" if contrary["difference"] < 0 else "higher"
        said += f" Seed {contrary['seed']} says the opposite, and by far: {side} by {by}."
    return said


def _but(row: Mapping[str, Any], shown: Sequence[Mapping[str, Any]]) -> str:
    """Say which other metrics contradict the deciding one."""
    contrary = [each for each in shown if each["verdict"].split()[0].strip(",") != row["verdict"].split()[0].strip(",")]
    said = [f"{became(each, 'is ') if each['pairs'] else 'the ' + _words(each['metric'])}: {each['verdict']}" for each in contrary]
    return f" But {'; '.join(said)}." if said else ""


def _advice(word: str) -> str:
    """Return the advice for a placement that is shown to be better."""
    if "in most runs" in word:
        return "It helps in most runs, not in all. Put it into your model if you can train again where a run goes wrong."
    if "on average" in word:
        return "It helps on average, but not in most runs. Put it into your model if you average over several."
    return "Put it into your model."


def _count(row: Mapping[str, Any]) -> int:
    """Return the number of seeds whose runs both ended."""
    return row.get("seeds", row["pairs"])


def _pairs(row: Mapping[str, Any]) -> str:
    """Say of how many seeds the mean is."""
    of_all = f"{row['pairs']} of " if row["pairs"] < _count(row) else ""
    return of_all + _number_of(_count(row), "seed")


def _seeds(row: Mapping[str, Any]) -> str:
    """Say how many seeds agree with the verdict."""
    better = row["verdict"].startswith("better")
    share = row.get("share_better" if better else "share_worse")
    if not row["verdict"].startswith(("better", "worse")) or share is None:
        return f" This is the mean of {_pairs(row)}."
    return f" Shown by {round(share * _count(row))} of {_number_of(_count(row), 'seed')}."


def _undecided(document: Mapping[str, Any], row: Mapping[str, Any], harmful: bool) -> str:
    """Say what is needed to decide; not where other verdicts already advise against it."""
    baseline, fewest = document["study"]["baseline"], fewest_pairs()
    trained = _is_trained(document["study"])
    stay = "leave dropout out for now" if baseline == "none" and trained else f"stay with {baseline} for now"
    if _count(row) < fewest:
        return (
            f"Undecided: {_number_of(_count(row), 'seed')} cannot show a difference, whatever it is. Train at least {fewest}"
            f"{', of which the ledger has those that are trained' if trained else ''}, and {stay}."
        )
    if harmful:
        return f"Nothing is shown to be better than {baseline}, and something to be worse: {stay}."
    if row.get("diverged") or row.get("baseline_diverged"):
        how = ", for example with a smaller learning rate" if trained else ""
        return f"Undecided, as runs diverged: {stay}, and find out why{how}."
    if abs(row["difference"]) < row.get("resolution", 0):
        return f"The difference is as small as the rounding of the figures, which is none: {stay}."
    raced = next((each.get("race") for each in document["variants"] if each["name"] == row["variant"]), None)
    if raced and raced["stopped"] == FUTILE:
        most = document["study"]["max_seeds"]
        return f"Stopped: cannot win. With all {most} seeds it is unlikely to be shown to be better: {stay}."
    needed, what = row["pairs_needed"], f"a difference of {row['wanted_difference']:.{decimals(row['wanted_difference'])}f}"
    if needed is None and row.get("detectable_floor"):
        return f"Undecided, and no number of new divisions of these data would often show {what}: that takes more data; {stay}."
    if needed is None:
        return f"Undecided, and a difference this small would take more than 10,000 seeds to show: {stay}."
    if needed <= row["pairs"]:
        return f"Undecided: {needed} seeds would often be enough to show {what}, and these were not. More seeds may; {stay}."
    return f"Undecided: {stay}. To show {what} takes {seeds_between(row)}, for 80 % power; these were {row['pairs']}."


def _put_in(row: Mapping[str, Any], variant: Mapping[str, Any], advice: str, study: Mapping[str, Any]) -> tuple[str, str | None]:
    if row.get("diverged"):
        advice += f" With it, {row['diverged']} of {_number_of(_count(row), 'run')} diverged."
    if not _is_trained(study):
        return advice.replace("Put it into your model", "Take it"), None
    if study.get("function"):
        return advice.replace("Put it into your model", "Train with it"), None
    if variant["placement"] is None:
        return "Leave the model as it is built: its dropout is worth having." if advice == _advice("better") else advice, None
    if (text := code(variant, study["epochs"])) is None:
        return f"{advice} It is the placement that the command calls {variant['name']}.", None
    return advice, text


def _leave_out(baseline: str, variants: Mapping[str, Any], study: Mapping[str, Any]) -> tuple[str, str | None]:
    if study.get("function"):  # of which no model is known
        return "Leave dropout out." if variants[baseline]["placement"] == {} else f"Stay with {baseline}.", None
    if training := variants[baseline].get("training"):
        return f"Leave dropout out, and train with {training_text(training)}. Without dropout:", code(variants[baseline], 1)
    if variants[baseline]["placement"] == {}:
        return "Leave dropout out. If your model has some, this takes it out:", code(variants[baseline], 1)
    return f"Stay with {baseline}.", code(variants[baseline], 1) if variants[baseline]["placement"] else None


def _quoted(text: str) -> str:
    """Return a string as a Python literal in double quotes."""
    return json.dumps(text, ensure_ascii=False)


def _call(head: str, items: Sequence[str], tail: str) -> str:
    """Join the call in one line, or with one line for each item if one line would be too long."""
    line = f"{head}{', '.join(items)}{tail}"
    if len(line) <= _WIDTH:
        return line
    return "\n".join([head, *(f"    {item}," for item in items), tail])


def _sites(sites: Sequence[str]) -> str:
    if len(sites) > 4:
        return f"{len(sites)} sites ({sites[0]} to {sites[-1]})"
    return sites[0] if len(sites) == 1 else f"{', '.join(sites[:-1])} and {sites[-1]}"


def _words(metric: str) -> str:
    return metric.replace("_", " ")


def _number_of(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
