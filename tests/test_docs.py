"""What the documents say is run: examples in docstrings, programs of README and pages, commands; and the site is built."""

import doctest
import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import keras
import numpy as np
import pytest
import typer

import keras_dropout
from keras_dropout import catalogue, cli, layers
from keras_dropout.bench.data import public_sets
from keras_dropout.models import atlas
from keras_dropout.models.evidence import AUDITED

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
jax_only = pytest.mark.skipif(keras.backend.backend() != "jax", reason="the documents are about the default backend")


GROUPS = sorted(file.stem for file in Path(layers.__file__).parent.glob("[a-z]*.py") if file.stem not in ("adopted", "base"))
OTHERS = ("models.in_place", "models.placement", "testing", "thinning", "ensemble", "bench.own_scores")
MODULES = [*(f"keras_dropout.layers.{group}" for group in GROUPS), *(f"keras_dropout.{module}" for module in OTHERS)]


@pytest.mark.parametrize("module", MODULES)
def test_examples_in_docstrings(module):
    found = doctest.testmod(importlib.import_module(module), extraglobs={"np": np})
    assert found.attempted > 0
    assert found.failed == 0


def loaded(name):
    """A module of docs/."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def generate():
    return loaded("generate")


@jax_only
def test_the_page_of_methods_is_fresh(generate):
    page = generate.page(catalogue.methods())
    assert (generate.HERE / "layers.md").read_text() == page, "run make docs"
    assert (generate.HERE / "reference" / "layers.md").read_text() == generate.reference(catalogue.methods()), "run make docs"
    for linked in re.findall(r"\]\((pictures/[^)]+)\)", page):
        assert (generate.HERE / linked).exists(), linked
    anchors = {"#" + title.lower() for title in re.findall(r"^### (.*)$", page, re.MULTILINE)}
    assert set(re.findall(r"\]\((#[^)]+)\)", page)) == anchors


def test_the_picture_of_the_modules_has_all_of_them():
    picture = loaded("module_picture")
    kept = (ROOT / "docs" / "pictures" / "design" / "modules.svg").read_text()
    drawn = set(re.findall(r"<title>(.+): [0-9]+ imports from (.+)</title>", kept))
    assert drawn == set(picture.imports()), "run make docs"
    order = list(picture.PARTS)
    assert all(order.index(upper) < order.index(lower) for upper, lower in drawn)
    page = (ROOT / "docs" / "design.md").read_text()
    for names in picture.PARTS.values():
        assert all(f"`{name}`" in page for name in names if name != "__init__")


@jax_only
def test_the_page_of_methods_compared_is_fresh(generate):
    page = loaded("methods_page").page(json.loads(generate.METHODS.read_text()))
    assert (generate.HERE / "methods.md").read_text() == page, "run make docs"


@jax_only
def test_the_page_of_the_reach_is_fresh_and_its_faults_are_the_known_ones(generate):
    stored = json.loads(generate.REACH.read_text())
    page = loaded("reach_page").page(stored)
    assert (generate.HERE / "reach.md").read_text() == page, "run make docs"
    outcomes: dict[str, set] = {}
    for row in stored["rows"]:
        outcomes.setdefault(row["model"], set()).update(each["outcome"] for each in row.values() if isinstance(each, dict))
    assert set().union(*outcomes.values()) <= {"ok", "refused", "WRONG"}
    wrong = {model for model, found in outcomes.items() if "WRONG" in found}
    assert wrong == {"DeiTImageClassifier", "Gemma3nCausalLM", "StableDiffusion3Backbone"}  # to be mended: docs/limits.md


@jax_only
def test_the_page_of_the_audit_is_fresh_and_has_all_rules(generate):
    page = loaded("audit_page").page(json.loads(generate.AUDIT.read_text()))
    assert (generate.HERE / "audit.md").read_text() == page, "run make docs"
    assert all(f"| `{rule}` |" in page for rule in AUDITED)


@jax_only
def test_the_page_of_reproductions_is_fresh(generate):
    assert (generate.HERE / "reproductions.md").read_text() == loaded("reproduction_page").page(), "run make docs"


@jax_only
def test_pictures_are_fresh_small_and_well_formed(generate):
    drawn = generate.pictures(catalogue.methods())
    kept = {path.stem: path.read_text() for path in (generate.HERE / "pictures").glob("*.svg")}
    assert kept.keys() == drawn.keys(), "run make docs"
    for name, text in kept.items():
        assert text == drawn[name], f"{name}: run make docs"
        assert len(text.encode()) < 6000, name
        assert ElementTree.fromstring(text).findall("{*}path"), name


def test_the_page_of_the_atlas_and_the_packages_copy_are_of_the_stored_result(generate):
    document = json.loads(generate.ATLAS.read_text())
    assert (generate.HERE / "atlas.md").read_text() == generate.atlas_page.page(document), "run make docs"
    packaged, stored = atlas.read(), document["rows"]
    assert [atlas.title(study) for study in packaged] == [atlas.title(study) for study in stored]
    for ours, theirs in zip(packaged, stored):
        for one, other in zip(ours["rows"], theirs["rows"], strict=True):
            (*ours_loss, verdict), (*stored_loss, stored_verdict) = one["test_loss"], other["test_loss"]
            assert ours_loss == pytest.approx(stored_loss, rel=1e-3), "benchmarks/atlas.py --package was not given"
            assert verdict == stored_verdict


def test_a_picture_has_a_square_for_each_value(generate):
    """Blue, pale and orange lengths add up to the grid's counts."""
    grid = np.array([[2.0, 0, 0, -1], [2, 2, 2, 2]])
    text = generate.svg(generate.Picture([[("", grid)]], ""), "a")
    squares = {
        (kind, float(opacity)): sum((int(length) + 2) // 12 for length in re.findall(r"h(\d+)", path))
        for kind, opacity, path in re.findall(r'class="(\w)" opacity="([\d.]+)" d="([^"]+)"', text)
    }
    assert squares == {("p", 1.0): 5, ("z", 0.2): 2, ("n", 0.4): 1}


@jax_only
def test_the_readmes_program_runs(tmp_path):
    """On one seed and one epoch; Keras finds the images where we found them."""
    cache = tmp_path / "home" / "datasets" / "fashion-mnist"
    cache.mkdir(parents=True)
    for file in public_sets._find_fashion_mnist(None).glob("*.gz"):
        (cache / file.name).symlink_to(file)
    program = next(block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "compare(" in block)
    assert "epochs=10" in program
    program = program.replace("epochs=10", "epochs=1, seeds=1, quiet=True")
    environment = os.environ | {"KERAS_BACKEND": "jax", "KERAS_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "strong" in done.stdout
    assert (tmp_path / "report.html").exists()


# The pages of docs/

BACKENDS = ("jax", "tensorflow", "torch")
PAGES = {path.relative_to(ROOT / "docs").as_posix(): path.read_text() for path in sorted((ROOT / "docs").rglob("*.md"))}
PROGRAM = re.compile(r"^```python\n(.*?)^```\n(?:\n```output\n(.*?)^```\n)?", re.MULTILINE | re.DOTALL)
# Runs the programs of pages, those of a page one after the other with the same names, in a folder of its own, and prints what each
# prints. One process for many pages: Keras is imported once.
RUN = """
import contextlib, io, json, linecache, os, sys, tempfile, traceback
pages, found = json.load(sys.stdin), {}
os.sched_setaffinity(0, list(os.sched_getaffinity(0))[:1])  # a study starts a worker for each core
for page, programs in pages.items():
    names, found[page] = {"__name__": "__main__"}, []
    if "keras" in sys.modules:
        sys.modules["keras"].utils.clear_session()  # layers are named as in a program of its own
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        for number, program in enumerate(programs):
            where, printed = f"{page}, program {number + 1}", io.StringIO()
            linecache.cache[where] = (len(program), None, program.splitlines(True), where)
            try:
                with contextlib.redirect_stdout(printed):
                    exec(compile(program, where, "exec"), names)
            except BaseException:
                found[page].append(traceback.format_exc())
                break
            found[page].append(printed.getvalue())
print("FOUND" + json.dumps(found))
"""


def backend_of(page):
    named = re.search(r'^os.environ\["KERAS_BACKEND"\] = "(\w+)"', PAGES[page], re.MULTILINE)
    return named[1] if named else "jax"


@jax_only
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_programs_of_the_pages_print_what_stands_below_them(backend):
    programs = {page: PROGRAM.findall(text) for page, text in PAGES.items() if backend_of(page) == backend}
    programs = {page: found for page, found in programs.items() if found}
    assert programs
    environment = os.environ | {"KERAS_BACKEND": backend, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    given = json.dumps({page: [program for program, _ in found] for page, found in programs.items()})
    done = subprocess.run([sys.executable, "-c", RUN], input=given, env=environment, capture_output=True, text=True, timeout=300)
    assert "FOUND" in done.stdout, done.stderr
    printed = json.loads(done.stdout.rpartition("FOUND")[2])
    for page, found in programs.items():
        for number, (program, expected) in enumerate(found):
            assert number < len(printed[page]), f"{page}: {printed[page][-1]}"
            if expected:
                assert printed[page][number].strip() == expected.strip(), f"{page}, below\n{program}"
        assert not printed[page][-1].startswith("Traceback"), f"{page}: {printed[page][-1]}"


def command_lines(text):
    """Every `keras-dropout …` of a page: in fenced blocks, with lines that go on, and in running text, there perhaps cut short."""
    fences = re.findall(r"^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    blocks = "\n".join(block for kind, block in fences if kind in ("", "sh")).replace("\\\n", " ")
    running = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    inline = [" ".join(code.split()) for code in re.findall(r"`(keras-dropout [^`]*)`", running)]
    return [(line, False) for line in re.findall(r"^(keras-dropout .*)$", blocks, re.MULTILINE)] + [(line, True) for line in inline]


def parse(line, short=False):
    """As the command does, as far as it does before anything is looked at; `short` allows arguments to be missing."""
    name, *words = shlex.split(line, comments=True)
    command, context = typer.main.get_command(cli.app), None
    while hasattr(command, "list_commands") and words and not words[0].startswith("-"):
        context = typer.Context(command, info_name=name, parent=context)
        name, *words = words
        command = command.get_command(context, name)
        assert command, f"No such command {name}"
    if not hasattr(command, "list_commands"):
        command.make_context(name, words, parent=context, resilient_parsing=short and not words)


def test_the_pages_commands_and_options_exist():
    pages = PAGES | {"README.md": README}
    lines = [(page, *line) for page, text in pages.items() for line in command_lines(text)]
    assert len(lines) > 50
    wrong = []
    for page, line, short in lines:
        try:
            parse(line, short)
        except (Exception, SystemExit) as error:
            wrong.append(f"{page}: {line}: {error}")
    assert not wrong, "\n".join(wrong)
    targets = (ROOT / "Makefile").read_text()
    for page, text in pages.items():
        for target in re.findall(r"`make ([a-z-]+)", text):
            assert f"\n{target}:" in targets, f"{page}: make {target}"


@pytest.mark.parametrize("line", ["keras-dropout compara digits-mlp", "keras-dropout runs lost", "keras-dropout tune x --sed 3"])
def test_a_command_that_does_not_exist_is_seen(line):
    with pytest.raises(Exception, match=r"No such|Missing"):
        parse(line)


@jax_only
def test_the_page_of_commands_is_fresh(generate):
    assert PAGES["commands.md"] == generate.commands(), "run make docs"


DOCSTRING = """Drop *units*.

    y = x * m,    m ~ Bernoulli(1 - rate)

Shapes:        any shape -> the same.
Arguments:     rate: fraction dropped, in [0, 1]; 1
               gives zeros. data_format, seed: as in `SpatialDropout`.

    entropy     H(mean)        all of it
    variance    of the passes  and what
                               goes with it

>>> Dropout(0.5)
"""
MARKDOWN = r"""Drop \*units\*.

```text
y = x * m,    m ~ Bernoulli(1 - rate)
```

- **Shapes**: any shape -\> the same.
- **Arguments**
    - `rate`: fraction dropped, in [0, 1]; 1 gives zeros.
    - `data_format`, `seed`: as in `SpatialDropout`.

|  |  |  |
| --- | --- | --- |
| **entropy** | H(mean) | all of it |
| **variance** | of the passes | and what goes with it |

```pycon
>>> Dropout(0.5)
```"""


def test_a_docstring_of_plain_text_becomes_markdown():
    assert loaded("docstrings").markdown(DOCSTRING) == MARKDOWN


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built as `make site` does; any warning fails."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@jax_only
def test_the_site_is_built_and_fetches_nothing(site):
    pages = {path.relative_to(site).as_posix() for path in site.rglob("*.html")}
    assert {page.removesuffix(".md") + ".html" for page in PAGES} <= pages
    for page in pages:
        fetched = re.findall(
            r'<(?:script|img|iframe|link)\b[^>]*?(?:src|href)="?((?:https?:)?//[^">\s]*)', (site / page).read_text()
        )
        assert not fetched, f"{page}: {fetched}"


def test_what_the_page_of_statistics_says_of_its_pictures():
    """But for the picture of looks, whose simulation takes minutes."""
    pictures = loaded("statistics_pictures")
    page = PAGES["statistics.md"]
    assert "six of them, in orange" in page
    assert pictures.coverage()[1] == 6
    assert "2 / 64 = 0.031" in page
    assert pictures.signs()[1] == 2 / 64
    drawn = ("pairing", pictures.pairing()), ("coverage", pictures.coverage()[0]), ("signs", pictures.signs()[0])
    for name, chart in drawn:
        kept = ElementTree.parse(ROOT / "docs" / "pictures" / "statistics" / f"{name}.svg").getroot()
        assert marks(kept) == marks(ElementTree.fromstring(pictures.svg(chart))), f"{name}: python docs/statistics_pictures.py"
        assert f"pictures/statistics/{name}.svg" in page


def marks(svg):
    """The shapes of a chart, without its texts, whose widths are those of the fonts that there are."""
    return [each.get("aria-label") for each in svg.iter() if each.get("aria-roledescription")]


@jax_only
def test_every_public_name_is_in_the_reference(site):
    text = "".join(path.read_text() for path in (site / "reference").glob("*.html"))
    documented = set(re.findall(r'id="(keras_dropout\.[\w.]+)"', text))
    for name in keras_dropout.__all__:
        value = getattr(keras_dropout, name)
        path = value.__name__ if isinstance(value, ModuleType) else f"{value.__module__}.{value.__qualname__}"
        assert any(each == path or each.startswith(path + ".") for each in documented), name
