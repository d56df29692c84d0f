"""The picture of the network, in a browser: what is seen is what the document tells, whatever the model and the step."""

import html
import json
import re
import shutil

import jinja2
import numpy as np
import pytest
from markupsafe import Markup

from keras_dropout.bench.report import network
from keras_dropout.masks import derive_seed

sync_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no browser")

PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>a network</title></head><body>
{% include "network.html" %}<script type="application/json" id="data">{{ data }}</script></body></html>"""
HOSTILE = "</svg><img src=x onerror=alert(1)>\"'&{{ 7 * 7 }}"


def node(name, kind, shape, inputs, parameters=0):
    units = None if None in shape else int(np.prod(shape))
    return {"name": name, "kind": kind, "shape": shape, "units": units, "parameters": parameters, "inputs": inputs}


def site(number, nodes, kind="Dropout", rate=0.5, mask=(), schedule=None):
    mask = nodes[number]["shape"] if mask == () else mask
    return {"site": nodes[number]["name"], "kind": kind, "rate": rate, "schedule": schedule, "node": number, "mask": mask}


def document(nodes, variants, count=5):
    """A document with masks of any bits: the picture is to show them, not to know where they come from."""
    steps = {}
    for name, sites in variants.items():
        rows = []
        for step in range(1, count + 1):
            generator = np.random.default_rng(derive_seed(step, name))
            masks = [None if s["mask"] is None else generator.random(int(np.prod(s["mask"]))) > 0.5 for s in sites]
            masks = [None if bits is None else np.packbits(bits).tobytes().hex() for bits in masks]
            rows.append({"step": step * 1000, "rates": [s["rate"] and s["rate"] / step for s in sites], "masks": masks})
        if sites:
            steps[name] = {"seed": 3, "epoch_steps": 600, "steps": rows}
    return {"nodes": nodes, "variants": variants, "steps": steps}


def perceptron():
    nodes = [node("pixels", "Input", [9, 7], []), node("flat", "Flatten", [63], [0]), node("wide", "Dense", [200], [1], 12800)]
    nodes += [node("relu", "Activation", [200], [2]), node("classes", "Dense", [3], [3], 603)]
    linear = site(3, nodes, schedule="linear(0.5, 0.0)")
    return document(nodes, {"none": [], "both": [site(1, nodes), site(3, nodes)], "hidden": [linear]})


def branched():
    nodes = [node("image", "Input", [8, 8, 3], []), node("maps", "Conv2D", [6, 6, 20], [0], 560)]
    nodes += [node("pool", "MaxPooling2D", [3, 3, 20], [1]), node("few", "Conv2D", [3, 3, 20], [2], 3620)]
    nodes += [node("sum", "Add", [3, 3, 20], [2, 3]), node("rows", "Reshape", [9, 20], [4]), node("lstm", "LSTM", [9, 5], [5], 520)]
    nodes += [node("any", "Dense", [None, 4], [6], 24), node("out", "Dense", [2], [7], 10)]
    spatial = [site(1, nodes, "SpatialDropout2D", mask=[1, 1, 20]), site(3, nodes), site(6, nodes, "LockedDropout", mask=[1, 5])]
    return document(
        nodes, {"maps": [*spatial, site(8, nodes, "GaussianDropout", mask=None)], "image": [site(0, nodes), site(4, nodes)]}
    )


def deep():
    nodes = [node("x", "Input", [40], [])]
    nodes += [node(f"dense_{n}", "Dense", [40], [n], 1640) for n in range(30)]
    nodes += [node(f"head_{n}", "Dense", [8], [30], 328) for n in range(6)]
    return document(nodes, {"all": [site(n, nodes) for n in range(len(nodes))]})


def hostile():
    nodes = [node(HOSTILE, "Input", [5], []), node(HOSTILE, HOSTILE, [5], [0], 30)]
    return document(nodes, {HOSTILE: [site(1, nodes, HOSTILE, schedule=HOSTILE)], "other": [site(0, nodes)]})


CASES = {"perceptron": perceptron, "branched": branched, "deep": deep, "hostile": hostile}


def page_of(found):
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("keras_dropout.bench.report", "."), autoescape=True, undefined=jinja2.StrictUndefined
    )
    data = json.dumps({"network": found}).replace("<", "\\u003c")
    return environment.from_string(PAGE).render(network=network.draw(found), data=Markup(data))


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def load(browser, tmp_path):
    """A function that opens the page of a document; nothing may go wrong in it, nor be fetched."""
    opened, wrong = [], []

    def opens(found, **options):
        path = tmp_path / "network.html"
        path.write_text(page_of(found), encoding="utf-8")
        context = browser.new_context(**options)
        opened.append(context)
        page = context.new_page()
        page.on("console", lambda message: wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: wrong.append(request.url) if not request.url.startswith("file://") else None)
        page.goto(path.as_uri())
        return page

    yield opens
    for context in opened:
        context.close()
    assert wrong == []


def over_units(found, variant, number, nodes):
    """Which units of a layer, made of some nodes, are kept at a step, and the text that counts them."""
    sites, step = found["variants"][variant], found["steps"][variant]["steps"][number]
    here = [(s, mask) for s, mask in zip(sites, step["masks"]) if s["node"] in nodes]
    bits = [
        np.unpackbits(np.frombuffer(bytes.fromhex(mask), "uint8"), count=int(np.prod(s["mask"]))).reshape(s["mask"])
        for s, mask in here
        if mask is not None
    ]
    shapes = [found["nodes"][s["node"]]["shape"] for s, mask in here if mask is not None]
    over = [np.broadcast_to(each, shape).ravel() for each, shape in zip(bits, shapes)]
    if not bits:
        return None, "mask not shown" if here else None
    counted = bits[0] if len(bits) == 1 else np.minimum.reduce(over)
    return np.minimum.reduce(over), f"{counted.sum():,} of {counted.size:,} kept"


def check(page, found, variant, number):
    """What is drawn is what the document has for a variant at a step."""
    layers = {}
    seen = page.locator("[data-thinned] .units").evaluate_all(
        "all => all.map(e => ({...e.dataset, classes: [...e.children].map(c => c.getAttribute('class') || '')}))"
    )
    texts = page.locator("[data-kept]").evaluate_all("all => all.map(e => [e.dataset.kept, e.textContent, e.dataset.size])")
    texts = {layer: (text, size) for layer, text, size in texts}
    for facts in seen:
        starts, stride, count = [int(start) for start in facts["starts"].split()], int(facts["stride"]), int(facts["count"])
        over, expected = over_units(found, variant, number, [int(each) for each in facts["nodes"].split()])
        text, size = texts[facts["layer"]]
        assert text == (expected or size)
        states = ["" for _ in starts]
        if over is not None:
            left = [[over[start + n * stride] for n in range(count)] for start in starts]
            states = ["" if all(each) else "part" if any(each) else "gone" for each in left]
        assert facts["classes"] == states
        ends = [tuple(map(int, end.split(":"))) for end in facts["ends"].split()]
        layers[facts["layer"]] = [all(state == "gone" for state in states[first : first + many]) for first, many in ends]
    assert layers
    for facts in page.locator("[data-thinned] .lines").evaluate_all(
        "all => all.map(e => ({...e.dataset, gone: [...e.children].map(c => getComputedStyle(c).display === 'none')}))"
    ):
        begin, end = layers[facts["from"]], layers[facts["to"]]
        pairs = zip(begin, end) if "each" in facts else ((a, b) for a in begin for b in end)
        assert facts["gone"] == [a or b for a, b in pairs]
    marks = page.locator(".marks:visible")
    assert marks.evaluate_all("all => all.map(e => e.dataset.variant)") == [variant]
    for rate in marks.locator("[data-rate]").all():
        value = found["steps"][variant]["steps"][number]["rates"][int(rate.get_attribute("data-rate"))]
        assert rate.text_content() == ("" if value is None else f"rate {value:.3g}")


@pytest.mark.parametrize("name", CASES)
def test_slider_and_chooser_show_what_the_document_has(name, load):
    found = CASES[name]()
    page = load(found)
    slider, names = page.get_by_role("slider", name="Training step"), list(found["steps"])
    check(page, found, names[0], 0)
    slider.focus()
    for _ in range(2):
        page.keyboard.press("ArrowRight")
    check(page, found, names[0], 2)
    said = "step 3,000, epoch 5, seed 3"
    assert slider.get_attribute("aria-valuetext") == page.locator("output").text_content() == said
    assert said in page.locator("svg[data-thinned]").get_attribute("aria-label")
    if len(names) > 1:
        page.get_by_role("combobox", name="Variant").select_option(names[1])
        check(page, found, names[1], 2)
    page.keyboard.press("Tab")
    slider.press("End")
    check(page, found, names[-1], 4)


def classes(page):
    return page.locator("svg[data-thinned]").evaluate(
        "e => [...e.querySelectorAll('.units > *, .lines > *')].map(c => c.getAttribute('class') || '')"
    )


@pytest.mark.parametrize("name", ["perceptron", "branched", "hostile"])
def test_without_javascript_the_first_step_is_drawn(name, load):
    found = CASES[name]()
    with_script, page = load(found), load(found, java_script_enabled=False)
    assert classes(page) == classes(with_script)
    assert "gone" in classes(page)
    assert not page.locator(".controls").is_visible()
    variant = next(iter(found["steps"]))
    page.locator("summary").first.click()
    rows = [row.locator("td").all_text_contents() for row in page.locator("details").first.locator("tbody tr").all()]
    assert [row[:2] for row in rows] == [[f"{n},000", str((1000 * n - 1) // 600 + 1)] for n in range(1, 6)]
    for number, row in enumerate(rows):
        masks = found["steps"][variant]["steps"][number]["masks"]
        for cell, mask, each in zip(row[2:], masks, found["variants"][variant], strict=True):
            count = "–" if mask is None else f"{int(mask, 16).bit_count():,} of {np.prod(each['mask']):,}"
            assert cell.split(", rate")[0] == count


def test_names_are_text(load):
    page = load(hostile())
    assert page.locator("img").count() == 0
    assert page.locator("#network").get_by_text("</svg><img", exact=False).count() > 0
    assert page.get_by_role("combobox", name="Variant").input_value() == HOSTILE


def test_the_picture_fits_a_phone(load):
    page = load(perceptron(), viewport={"width": 360, "height": 700})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    sizes = page.locator("svg text:visible").evaluate_all("all => all.map(e => e.getBoundingClientRect().height)")
    assert min(size for size in sizes if size) > 8


def test_nothing_is_drawn_of_nothing():
    assert network.draw(None) is None
    nodes = [node("x", "Input", [3], []), node("y", "Dense", [1], [0], 4)]
    drawn = network.draw(document(nodes, {"none": []}))
    assert drawn["thinned"] is None
    assert drawn["tables"] == []
    text = html.unescape(re.sub("<[^>]*>", " ", page_of(document(nodes, {"none": []}))))
    assert "Training step" not in text
    assert "x" in text
