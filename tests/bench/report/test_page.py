"""The report in a real browser, offline: it draws, works by mouse and keyboard, and asks for nothing."""

import base64
import csv
import importlib
import io
import itertools
import json
import os
import re
import shutil
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import sync_playwright

from keras_dropout import BadInput, compare
from keras_dropout.bench.report import charts
from keras_dropout.bench.report.page import LARGE, check_report_path, number, picture, write_page
from keras_dropout.bench.retrieval import retrieve

NASTY = "<img src=x onerror=alert(1)> & \"<script>alert(2)</script>' var(--c1)"
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def document(tmp_path_factory):
    """Of a real study with two seeds."""
    folder = tmp_path_factory.mktemp("study")
    variants = {"hidden": {"hidden": 0.2}, NASTY: {"hidden": "linear(0.3, 0.0)"}}
    found = compare("digits-mlp", variants=variants, seeds=2, epochs=2, workers=1, ledger=folder / "r.db", quiet=True)
    return json.loads(json.dumps(found.report_document(), allow_nan=False))


@pytest.fixture(scope="module")
def plain(document, tmp_path_factory):
    """The page of the study."""
    return write_page(tmp_path_factory.mktemp("plain") / "report.html", document)


@pytest.fixture(scope="module")
def full(document, tmp_path_factory):
    """The page of a document that has every part."""
    return write_page(tmp_path_factory.mktemp("full") / "report.html", document | every_part(document))


@pytest.fixture(scope="module")
def browser():
    """One Chromium for all: that on the PATH, or Playwright's own."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(browser):
    """Open a file without a network; the test fails on a request, an error in the console, a dialog."""
    faults, contexts = [], []

    def go(path, faults=faults, **options):
        context = browser.new_context(**({"viewport": {"width": 1280, "height": 900}} | options))
        contexts.append(context)
        context.set_offline(True)
        address = Path(path).as_uri()

        def route(route):
            own = route.request.url.partition("#")[0] == address
            if not own:
                faults.append(f"request: {route.request.url}")
            route.continue_() if own else route.abort()

        context.route("**/*", route)
        page = context.new_page()
        page.on("console", lambda message: faults.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("dialog", lambda dialog: (faults.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.goto(address)
        return page

    yield go
    for context in contexts:
        context.close()
    assert faults == []


def embedded(path):
    text = Path(path).read_text("utf-8")
    return json.loads(text.partition('id="data">')[2].partition("</script>")[0])


def every_part(document):
    """What a study of images, with samples, a search and a sweep would have beside."""
    rng, names = np.random.default_rng(0), [variant["name"] for variant in document["variants"]]
    classes = ["T-shirt", NASTY, "bag"]
    disputed = [
        {
            "index": index,
            "answer": index % 3,
            "variants": {name: {"loss": 0.5, "predictions": [index % 3, (index + 1) % 3]} for name in names},
            "pixels": rng.integers(0, 256, (8, 8) if index else (8, 8, 3)).tolist() if index < 3 else None,
            "row": None,
        }
        for index in range(4)
    ]
    counts = {name: rng.integers(0, 50, (3, 3)).tolist() for name in names}
    difference = {name: (np.array(counts[name]) - counts["none"]).tolist() for name in names[1:]}
    edges, coverage = np.linspace(0, 1, 16), np.linspace(0.05, 1, 20)
    accuracy = (edges[1:] * 0.95).tolist()
    runs = [
        {"count": [0] + [9] * 14, "confidence": [None, *edges[2:].tolist()], "accuracy": [None, *accuracy[1:]]} for _ in range(2)
    ]
    calibrated = {
        "reliability": {"edges": edges.tolist(), "runs": runs},
        "risk_coverage": {"coverage": coverage.tolist(), "runs": [(coverage**2).tolist()] * 2},
    }
    curve = {
        "rates": [0.0, 0.2, 0.4],
        "runs": [[0.4, 0.3, 0.5], [0.5, 0.4, 0.6]],
        "rate": [0.0, 0.2, 0.4],
        "mean": [0.45, 0.35, 0.55],
    }
    curve |= {"low": [0.4, 0.3, 0.5], "high": [0.5, 0.4, 0.6], "knots": 3, "best": 0.2, "best_interval": [0.1, 0.3]}
    trial = {"placement": {"hidden_1": {"kind": "Dropout", "rate": 0.2}}, "text": "hidden_1=0.2", "error": None, "finals": [0.4]}
    arms = [
        {"part": part, "variant": name, "metric": "test_loss", "mean": 0.5, "sd": 0.1, "runs": [0.4, None, 0.6]}
        for part in ("one", NASTY)
        for name in names
    ]
    expectations = [
        {"says": f"loss of {NASTY}", "published": NASTY, "above": above, "below": below, "figure": figure, "measured": 0.5}
        | {"interval": [0.4, 0.6], "p": 0.03, "runs": [0.5], "verdict": verdict}
        for above, below, figure, verdict in (
            (0.0, None, None, "reproduced"),
            (None, 0.0, None, "not reproduced"),
            (0.0, 1.0, None, "undecided"),
            (None, None, 0.4, "reproduced"),
            (None, None, None, "measured only"),
        )
    ]
    return {
        "reproduction": {
            "title": f"A title {NASTY}",
            "claim": NASTY,
            "source": NASTY,
            "differs": NASTY,
            "verdict": "not reproduced",
            "changed": NASTY,
            "sentence": "Not reproduced.",
            "expectations": expectations,
            "figures": arms,
            "seeds": [0, 1],
            "part": "one",
            "pages": [{"part": "one", "file": "page.html"}, {"part": NASTY, "file": f"page-{NASTY}.html"}],
        },
        "examples": {"kind": "images", "names": classes, "columns": None, "count": 360, "stored": 100, "disputed": disputed},
        "confusion": {"names": classes, "mean": counts, "difference": difference},
        "calibration": {name: {"plain": calibrated, "monte_carlo": calibrated} for name in names},
        "sweep": {
            "site": "hidden",
            "variants": {"hidden": 0.2},
            "curves": {"validation_loss": curve},
            "sentences": [f"Best: {NASTY}"],
        },
        "search": {
            "space": NASTY,
            "sampler": "tpe",
            "seed": 0,
            "run_seeds": [1000],
            "rungs": [1, 2],
            "trials": [trial | {"number": n, "epochs": 1 + n % 2, "validation_loss": 0.4 + n / 10} for n in range(4)],
            "winner": {
                "text": "hidden_1=0.2",
                "optimistic": {"validation_loss": 0.3},
                "fresh": {"validation_loss": {"mean": 0.4, "interval": [0.35, 0.45]}, "test_loss": {"mean": 0.4, "interval": None}},
            },
            "sentences": ["The search found hidden_1=0.2."],
        },
    }


@pytest.mark.parametrize("which", ["plain", "full"])
def test_the_page_opens_from_disk_and_asks_for_nothing(which, visit, request):
    path = request.getfixturevalue(which)
    page = visit(path)
    assert page.locator("h2").first.is_visible()
    assert path.stat().st_size < 1_000_000
    targets = page.eval_on_selector_all(".contents a", "links => links.map(link => link.getAttribute('href').slice(1))")
    assert targets == page.eval_on_selector_all("section[id]", "parts => parts.map(part => part.id)")


def test_what_would_be_fetched_or_run_is_refused(visit, plain, tmp_path):
    """Markup planted in the page: its policy stops the picture, the sheet and the script."""
    address = "https://example.org/a"
    planted = f'<img src="{address}.png"><link rel="stylesheet" href="{address}.css"><script>window.ran = 1</script>'
    (tmp_path / "planted.html").write_text(plain.read_text("utf-8").replace("</main>", f"{planted}</main>"), "utf-8")
    faults = []
    page = visit(tmp_path / "planted.html", faults)
    assert page.evaluate("window.ran") is None
    assert len(faults) >= 3
    assert all("Content Security Policy" in fault for fault in faults)


def test_every_run_and_pair_is_a_mark(visit, plain, document):
    page = visit(plain)

    def tips(id):
        return page.eval_on_selector_all(f"#{id} [data-tip]", "marks => marks.map(mark => mark.dataset.tip)")

    for number_, metric in enumerate(document["pairs"], 1):
        pairs = [value for values in document["pairs"][metric].values() for value in values if value is not None]
        rows = [row for row in document["comparisons"] if row["metric"] == metric]
        assert len(pairs) == 4
        seen = tips(f"difference-{number_}")
        assert sum(", pair " in tip for tip in seen) == len(pairs)
        assert len(seen) == len(pairs) + len(rows) + sum(row["interval"] is not None for row in rows)
        runs = [run for variant in document["variants"] for run in variant["runs"] if run[metric] is not None]
        assert len(tips(f"pairs-{number_}")) == len(runs) == 6
    # Training, validation and gap of two metrics, with a line and a band for each variant.
    figures = page.locator("#curves .three figure")
    assert figures.count() == 6
    for figure in figures.all():
        assert figure.locator(".mark-line path").count() == figure.locator(".mark-area path").count() == 3


def test_every_chart_is_drawn_and_said_in_words(visit, full):
    page = visit(full)
    page.eval_on_selector_all("details", "all => all.forEach(each => { each.open = true; })")
    ids = page.eval_on_selector_all("[id]", "all => all.map(each => each.id)")
    assert len(set(ids)) == len(ids)
    figures = page.locator("figure[id]")
    assert figures.count() >= 24
    for figure in figures.all():
        svg, box = figure.locator("svg"), figure.locator("svg").bounding_box()
        assert min(box["width"], box["height"]) > 80
        assert len(svg.get_attribute("aria-label")) > 40
        assert svg.locator("path, line, rect, text").count() > 8
        assert figure.locator("figcaption").inner_text().strip()
        colors = svg.evaluate("svg => [...svg.querySelectorAll('[fill^=var], [stroke^=var]')].map(e => getComputedStyle(e).fill)")
        assert colors
    assert page.locator(".examples img").count() == 3
    assert page.locator(".examples img").first.evaluate("img => img.naturalWidth") == 8
    assert page.locator("#confusion-2-2 [data-tip]").count() == 9


def test_the_runs_are_sorted_by_mouse_and_keyboard(visit, plain, document):
    page = visit(plain)
    column = 5  # test loss
    shown = "rows => rows.map(row => row.cells[5].dataset.value)"
    losses = sorted(run["test_loss"] for variant in document["variants"] for run in variant["runs"])
    head = page.locator("table.runs th[data-name=test_loss]")
    assert head.evaluate("head => head.cellIndex") == column
    head.get_by_role("button").click()
    assert [float(v) for v in page.eval_on_selector_all("table.runs tbody tr", shown)] == losses
    assert head.get_attribute("aria-sort") == "ascending"
    head.get_by_role("button").press("Enter")
    assert [float(v) for v in page.eval_on_selector_all("table.runs tbody tr", shown)] == losses[::-1]
    assert head.get_attribute("aria-sort") == "descending"
    page.locator("table.runs th[data-name=variant] button").press("Space")
    assert head.get_attribute("aria-sort") is None
    first = page.locator("table.runs tbody th").all_inner_texts()
    assert first == sorted(first, key=str.lower)
    assert len(first) == 6


def test_the_runs_are_filtered_and_downloaded_as_csv(visit, plain, document):
    page = visit(plain)

    def download():
        with page.expect_download() as waited:
            page.get_by_role("button", name="Download as CSV").click()
        assert waited.value.suggested_filename.endswith("-runs.csv")
        return list(csv.DictReader(io.StringIO(waited.value.path().read_text("utf-8"))))

    runs = {(v["name"], str(run["seed"])): run for v in document["variants"] for run in v["runs"]}
    rows = download()
    assert {(row["variant"], row["seed"]) for row in rows} == runs.keys()
    for row in rows:
        run = runs[row["variant"], row["seed"]]
        for name in ("test_loss", "test_accuracy", "train_loss", "validation_loss", "seconds", "epochs"):
            assert float(row[name]) == run[name]
    page.get_by_label("Filter").fill("HIDDEN done")
    assert page.locator("table.runs tbody tr:visible").count() == 2
    assert page.locator("#made output").inner_text() == "2 of 6 runs"
    assert [row["variant"] for row in download()] == ["hidden", "hidden"]
    page.get_by_label("Filter").fill("")
    assert page.locator("table.runs tbody tr:visible").count() == 6


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_charts_are_downloaded_in_the_colours_that_are_seen(visit, plain, scheme):
    page = visit(plain, color_scheme=scheme)
    figure = page.locator("#pairs-1")
    size = figure.locator("svg").evaluate("svg => [svg.width.baseVal.value, svg.height.baseVal.value]")
    with page.expect_download() as waited:
        figure.get_by_role("button", name="SVG").click()
    text = waited.value.path().read_text("utf-8")
    marks = [e for e in ElementTree.fromstring(text).findall(".//{*}path") if e.get("fill")]
    assert len(marks) >= 6
    assert "data-tip" not in text
    assert not re.search(r'(fill|stroke)="var', text)
    with page.expect_download() as waited:
        figure.get_by_role("button", name="PNG").click()
    image = Image.open(waited.value.path()).convert("RGB")
    assert list(image.size) == [3 * int(side) for side in size]
    assert (sum(image.getpixel((0, 0))) > 600) == (scheme == "light")
    assert len(image.getcolors(1 << 24)) > 20


def test_names_of_users_are_text(visit, full):
    page = visit(full)
    assert page.locator("main img[src=x]").count() == 0
    assert page.locator("table.runs tbody th", has_text=NASTY).count() == 2
    assert page.locator(f"svg text:text-is({json.dumps(NASTY)})").count() + page.locator("svg text", has_text="<img").count() > 0
    assert embedded(full)["search"]["space"] == NASTY
    mark = page.locator("#pairs-1 [data-tip*=onerror]").first
    mark.hover()
    assert page.locator("#tip").inner_text() == mark.get_attribute("data-tip")
    page.mouse.move(1, 1)
    assert not page.locator("#tip").is_visible()


@pytest.mark.parametrize("which", ["plain", "full"])
def test_a_phone_needs_no_sideways_scroll(which, visit, request):
    page = visit(request.getfixturevalue(which), viewport={"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    wide = page.locator("table.runs").bounding_box()["width"]
    assert wide > 360  # it scrolls in a region of its own


def test_the_keyboard_reaches_all_that_can_be_used(visit, full):
    page = visit(full)
    selector = "a[href], button, input, select, summary, [tabindex='0']"
    numbered = "(e, number) => { e.dataset.number = number; return String(number); }"
    wanted = page.eval_on_selector_all(selector, f"all => all.filter(e => e.checkVisibility()).map({numbered})")
    reached = []
    for _ in wanted:
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.dataset.number"))
    assert reached == wanted
    assert len(wanted) > 60


def test_all_is_there_without_scripts(visit, full, document):
    page = visit(full, java_script_enabled=False)
    text = page.locator("body").inner_text()
    for words in ("Verdict", "Paired differences to none", "Learning curves", "Test examples", "Calibration", "How it was made"):
        assert words in text
    assert document["study"]["data"]["fingerprint"] in text
    assert page.get_by_role("button").count() == 0
    assert page.locator("#made input").is_hidden()
    assert page.locator("table.runs tbody tr:visible").count() == 6
    assert page.locator("svg[role=img]").first.is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(visit, full, scheme):
    page = visit(full, color_scheme=scheme, bypass_csp=True)
    page.eval_on_selector_all("details", "all => all.forEach(each => { each.open = true; })")

    def serious():
        violations = Axe().run(page).response["violations"]
        return [(each["id"], each["nodes"][0]["html"]) for each in violations if each["impact"] in ("serious", "critical")]

    assert serious() == []
    page.evaluate("document.querySelector('.headline').style.color = 'var(--line)'")
    assert [name for name, _ in serious()] == ["color-contrast"]  # it looks


def test_words_in_charts_can_be_read_in_both_schemes(visit, plain):
    """Contrast of text in charts, which axe leaves out: at least 4.5 to the page's ground (WCAG 2.2, 1.4.3)."""
    fills = "all => all.map(each => getComputedStyle(each).fill)"
    for scheme in ("light", "dark"):
        page = visit(plain, color_scheme=scheme)
        ground = luminance(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        assert (ground > 0.5) == (scheme == "light")
        found = set(page.eval_on_selector_all("figure svg text", fills))
        assert found
        for color in found:
            high, low = sorted([luminance(color), ground], reverse=True)
            assert (high + 0.05) / (low + 0.05) >= 4.5, color


def luminance(color):
    values = np.array([int(v) for v in re.findall(r"\d+", color)[:3]]) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def test_on_paper_there_are_no_controls(visit, full):
    page = visit(full, color_scheme="dark")
    page.emulate_media(media="print")
    assert luminance(page.evaluate("getComputedStyle(document.body).backgroundColor")) > 0.9
    assert page.get_by_role("navigation").is_hidden()
    assert page.locator("[data-save]").first.is_hidden()
    assert page.locator("table.runs").is_visible()


def test_a_study_that_has_not_begun_is_a_page(visit, document, tmp_path):
    bare = {"status": "missing", "epochs": None, "seconds": None}
    variants = [
        variant | {"runs": [bare | {name: run[name] for name in ("key", "seed")} for run in variant["runs"]], "mean": {}, "sd": {}}
        for variant in document["variants"]
    ]
    nothing = {"variants": variants, "comparisons": [], "pairs": {}, "curves": {}}
    nothing |= dict.fromkeys(("examples", "confusion", "calibration", "network"))
    page = visit(write_page(tmp_path / "r.html", document | nothing))
    assert "nothing to compare yet" in page.locator(".headline").inner_text()
    assert "So far, 0 of 6 runs" in page.locator(".verdict").inner_text()
    assert page.locator("figure").count() == 1  # the schedule, which is known before
    assert page.locator("table.runs tbody tr").count() == 6


def test_rows_and_quantities_are_a_table(visit, document, tmp_path):
    names = [variant["name"] for variant in document["variants"]]
    each = {"index": 7, "answer": 151.0, "variants": {n: {"loss": 2.5, "predictions": [150.5, None]} for n in names}}
    each |= {"pixels": None, "row": [0.25, NASTY, None]}
    examples = {"kind": "rows", "names": None, "columns": ["age", "<b>", "bmi"], "count": 9, "stored": 9, "disputed": [each]}
    page = visit(write_page(tmp_path / "r.html", document | {"examples": examples}))
    cells = page.locator("#examples tbody tr").locator("th, td").all_inner_texts()
    assert cells[:5] == ["7", "0.250", NASTY, "–", "151.0"]
    assert cells[5] == "150.5 (150.5 to 150.5)"


def test_many_epochs_and_seeds_stay_small_and_too_much_is_said(document, tmp_path):
    rng = np.random.default_rng(0)
    names = [variant["name"] for variant in document["variants"]]
    metrics = ("loss", "accuracy", "validation_loss", "validation_accuracy")
    curves = {name: [{metric: rng.random(200).tolist() for metric in metrics} for _ in range(30)] for name in names}
    study = document["study"] | {"epochs": 200, "seeds": list(range(30))}
    path = write_page(tmp_path / "r.html", document | {"study": study, "curves": curves})
    assert path.stat().st_size < 1_000_000
    kept = embedded(path)
    assert len(kept["curve_epochs"]) == 60
    assert kept["curves"]["none"][0]["loss"] == [
        pytest.approx(curves["none"][0]["loss"][epoch - 1], rel=1e-4) for epoch in kept["curve_epochs"]
    ]


def test_a_page_that_is_too_large_is_said(document, tmp_path):
    made = document["made"] | {"command": "x" * LARGE}
    with pytest.warns(UserWarning, match=r"has \d\.\d MB"):
        write_page(tmp_path / "r.html", document | {"pairs": {}, "curves": {}, "made": made})


@pytest.mark.parametrize("shape", [(5, 7), (4, 4, 3), (130, 96, 3), (28, 28, 1)])
def test_a_picture_shows_the_pixels(shape):
    pixels = np.random.default_rng(0).integers(0, 256, shape)
    image = np.asarray(Image.open(io.BytesIO(decoded(picture(pixels.tolist())))))
    if max(shape) <= 64:
        assert (image == pixels.reshape(image.shape)).all()
    else:  # means of squares of 3×3
        assert image.shape == (43, 32, 3)
        assert image[0, 0] == pytest.approx(pixels[:3, :3].mean(axis=(0, 1)), abs=0.51)


def decoded(address):
    return base64.b64decode(address.removeprefix("data:image/png;base64,"))


def test_numbers_keep_their_digits():
    assert [number(v) for v in (0.12345, -1.5, 2900.123, 0.0, None)] == ["0.1235", "−1.5000", "2900.1", "0.0000", "–"]
    assert number(0.5, 2, "+") == "+0.50"


@pytest.fixture(scope="module")
def untrained():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        yield importlib.import_module("untrained")


PARTS = ["verdict", "network", "differences", "curves", "rates", "examples", "calibration", "made"]


def test_a_failed_run_beside_others_is_a_row_with_its_error(untrained, visit, tmp_path):
    states = ("done", "failed", "diverged", "diverged at once", "missing", "done")
    path = untrained.write(tmp_path / "r.db", states, untrained.NAMES | {"error": "it failed <b>"})
    found = retrieve(path)
    page = visit(found.save_report(tmp_path / "r.html"))
    rows = [row.locator("th, td").all_inner_texts() for row in page.locator("table.runs tbody tr").all()]
    assert [(row[0], row[1], row[2], row[-1]) for row in rows] == [
        ("none", "0", "done", ""),
        ("none", "1", "diverged", ""),
        ("first", "0", "failed", "it failed <b>"),
        ("first", "1", "missing", ""),
        ("second", "0", "diverged", ""),
        ("second", "1", "done", ""),
    ]
    assert "1 run(s) failed" in page.locator("#verdict").inner_text()


def mixtures(states):
    """Each state of the baseline's run beside each of another variant's, in eight studies."""
    found = [(base, *others[:2], base, *others[2:]) for base in states for others in [states[:4]]]
    last = states[-1]
    return [*found, *((one, last, last, other, last, last) for one, other in zip(states[::2], [*states[1::2], last]))]


def test_every_mixture_of_states_is_a_page(untrained, tmp_path, monkeypatch):
    """Charts are specified, and some are drawn."""
    drawn, empty = charts.vl_convert.vegalite_to_svg, '<svg xmlns="http://www.w3.org/2000/svg"><g/></svg>'
    tried = mixtures(untrained.STATES)
    assert {(row[at], row[at + n]) for row in tried for at in (0, 3) for n in (1, 2)} == {
        *itertools.product(untrained.STATES, repeat=2)
    }
    for number_, states in enumerate(tried):
        specified = lambda spec: json.dumps(spec, allow_nan=False) and empty  # noqa: E731
        monkeypatch.setattr(charts.vl_convert, "vegalite_to_svg", drawn if number_ == 2 else specified)
        found = retrieve(untrained.write(tmp_path / "r.db", states, untrained.NAMES | {"error": "it failed"}))
        text = found.save_report(tmp_path / "r.html").read_text("utf-8")
        shown = re.findall(r'<section id="([a-z]+)"', text)
        assert [part for part in PARTS if part in shown] == shown, states
        assert {"verdict", "network", "rates", "made"} <= set(shown), states
        assert ("examples" in shown) == ("calibration" in shown) == ("done" in states), states
        assert text.count('<td class="words">it failed</td>') == states.count("failed"), states
        assert ("run(s) failed" in str(found)) == ("failed" in states), states


def test_the_page_is_clean_whatever_the_names(untrained, visit, tmp_path):
    evil = 'a\x1b]0;x\x07\u202e\ufffe fill="#0000ff" role="x" "var(--c1)" </script><img src=x onerror=alert(1)>'
    names = {name: f"{name} {evil}" for name in untrained.NAMES}
    shown = {"first": 'a  "var(--c1)" 层', "second": "__proto__"}  # two blanks, and a name that JavaScript has for something
    path = untrained.write(tmp_path / "r.db", ("done",) * 5 + ("failed",), names | shown)
    report = retrieve(path).save_report(tmp_path / "r.html")
    assert not set("\x1b\x07\u202e\ufffe") & set(report.read_text("utf-8"))
    page = visit(report)
    assert page.locator("img[src=x]").count() == 0
    said = page.locator("#made").inner_text()
    assert r"note a\x1b]0;x\x07\u202e\ufffe fill=" in said
    for name in shown.values():  # which a browser would give back with its blanks collapsed
        page.locator("#network select").select_option(name)
        page.locator("#network input").fill("1")
        assert "step 9" in page.locator("#network output").inner_text()
        assert page.locator("#network [data-variant-name]").text_content() == name
    with page.expect_download() as waited:
        page.locator("#pairs-1").get_by_role("button", name="SVG").click()
    saved = ElementTree.fromstring(waited.value.path().read_text("utf-8"))
    assert shown["first"] in [text.text for text in saved.findall(".//{*}text")]
    assert not [each for each in saved.iter() if "var(" in each.get("fill", "") + each.get("stroke", "")]
    assert embedded(report)["study"]["target"] == names["target"]


def test_names_in_a_csv_file_are_no_formulas(untrained, visit, tmp_path):
    names = untrained.NAMES | {"first": "=1+1", "error": "-2+3 cmd"}
    path = untrained.write(tmp_path / "r.db", ("done", "done", "done", "failed", "done", "done"), names)
    page = visit(retrieve(path).save_report(tmp_path / "r.html"))
    with page.expect_download() as waited:
        page.get_by_role("button", name="Download as CSV").click()
    rows = list(csv.DictReader(io.StringIO(waited.value.path().read_text("utf-8"))))
    assert {row["variant"] for row in rows} == {"none", "'=1+1", "second"}
    assert {row["error"] for row in rows} == {"", "'-2+3 cmd"}


def test_the_permissions_of_the_page_follow_the_umask(document, tmp_path):
    for mask, mode in ((0o022, 0o644), (0o077, 0o600), (0o002, 0o664)):
        before = os.umask(mask)
        try:
            path = write_page(tmp_path / f"{mask}.html", document | {"pairs": {}, "curves": {}})
        finally:
            os.umask(before)
        assert path.stat().st_mode & 0o777 == mode
    assert {each.suffix for each in tmp_path.iterdir()} == {".html"}


@pytest.mark.parametrize("name", ["data.npz", "model.keras", "runs.db", "table.csv", "page"])
def test_a_page_is_not_written_over_what_is_no_page(document, tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"worth keeping")
    for write in (lambda: write_page(path, document), lambda: check_report_path(path), lambda: compare("digits-mlp", report=path)):
        with pytest.raises(BadInput, match=r"must be an \.html file"):
            write()
    assert path.read_bytes() == b"worth keeping"
