"""The playground draws the masks that the library draws: the program that it shows is run, and its mask compared bit by bit."""

import shutil
from pathlib import Path
from urllib.parse import urlencode

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from keras import ops

from keras_dropout import layers
from keras_dropout.masks import seed_words

sync_api = pytest.importorskip("playwright.sync_api")
PAGE = Path(__file__).parents[1] / "docs" / "playground.html"
CHROMIUM = shutil.which("chromium")

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")

# Which entries of its input a layer kept, from the program's input and output; `y != 0` unless it stands here.
KEPT = {
    "AlphaDropout": lambda x, y: y > 0,
    "FeatureAlphaDropout": lambda x, y: y > 0,
    "WordDropout": lambda x, y: y == x,
    "EmbeddingDropout": lambda x, y: (y != 0).any(axis=-1),
    "PatchDropout": lambda x, y: np.array([np.isin(np.arange(x.shape[1]), row[:, 0]) for row in y]),
}
OTHER_SHAPES = {2: "5,7", 3: "2,5,9", 4: "2,7,9,3"}


@pytest.fixture(scope="module")
def page():
    """The page in a browser; nothing may go wrong in it, nor be fetched."""
    wrong = []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.on("console", lambda message: wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda request: wrong.append(request.url) if not request.url.startswith("file://") else None)
        page.goto(PAGE.as_uri())
        yield page
        browser.close()
    assert wrong == []


def shown_layers():
    table = PAGE.read_text(encoding="utf-8").split("const LAYERS = {")[1].split("\n};")[0]
    return [name for name in layers.__all__ if f"\n  {name}: [" in table]


def show(page, **asked):
    """Ask the page for a mask; return it, its shape and the program that the page shows."""
    page.goto(f"{PAGE.as_uri()}#{urlencode(asked)}")
    page.wait_for_function("step => window.shown && window.shown.step === Number(step)", arg=str(asked.get("step", 0)))
    assert page.text_content("#wrong") == ""
    shown = page.evaluate("({...shown, mask: [...shown.mask]})")
    assert shown["name"] == asked["layer"]
    return np.array(shown["mask"], bool).reshape(shown["shape"]), page.text_content("#python")


def ran(program, name):
    """Return the mask of a program: True where the library kept an entry."""
    found = {}
    exec(program, found)
    x, y = found["x"], ops.convert_to_numpy(found["y"])
    return KEPT.get(name, lambda x, y: y != 0)(x, y)


@pytest.mark.parametrize("name", shown_layers())
def test_the_mask_is_that_of_the_library(page, name):
    rank = None
    for asked in ({"rate": 0.5}, {"rate": 0.1, "seed": 12345678901234567890, "step": 3}, {"rate": 0.37, "seed": -4, "step": 1}):
        mask, program = show(page, layer=name, **asked, **({"shape": OTHER_SHAPES[rank]} if rank else {}))
        rank = mask.ndim
        kept = ran(program, name)
        assert asked["rate"] != 0.5 or 0 < kept.mean() < 1
        np.testing.assert_array_equal(np.broadcast_to(kept, mask.shape), mask)


def test_seeds_are_hashed_alike(page):
    for seed in (0, 1, -1, 7, 2**31, 2**64 + 5, 10**30):
        assert page.evaluate("seed => seedWords(seed)", str(seed)) == list(seed_words(seed))


def test_what_is_drawn_is_the_mask(page):
    mask, _ = show(page, layer="SpatialDropout2D", shape="2,5,4,3", rate=0.5, seed=2)
    data, width, height = page.evaluate(
        """() => { const canvas = document.getElementById("canvas"), {width, height} = canvas;
        return [[...canvas.getContext("2d").getImageData(0, 0, width, height).data], width, height]; }"""
    )
    pixels, cell = np.array(data).reshape(height, width, 4), width // (3 * 5 - 1)
    drawn = [tuple(pixels[cell * (b * 6 + y) + 1, cell * (c * 5 + x) + 1]) for b, y, x, c in np.ndindex(mask.shape)]
    assert len(set(drawn)) == 2
    seen = np.array([colour == drawn[int(mask.ravel().argmax())] for colour in drawn]).reshape(mask.shape)
    np.testing.assert_array_equal(seen, mask)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"shape": "4"}, "The shape needs 2 whole numbers above 0: example, unit."),
        ({"shape": "4000,4000"}, "at most 100000"),
        ({"rate": "x"}, "The rate must be a number from 0 to 1."),
        ({"layer": "AlphaDropout", "rate": 1}, "must be below 1"),
        ({"seed": "two"}, "The seed must be a whole number."),
        ({"step": -1}, "The call must be a whole number"),
        ({"layer": "DropBlock2D", "shape": "1,2,9,1"}, "at least 3 rows"),
    ],
)
def test_a_wrong_field_is_told(page, asked, told):
    page.goto(f"{PAGE.as_uri()}#{urlencode({'layer': 'Dropout', **asked})}")
    assert told in page.text_content("#wrong")


def test_it_can_be_used_without_sight(page):
    show(page, layer="Dropout")
    found = Axe().run(page)
    assert [violation["id"] for violation in found.response["violations"]] == []
