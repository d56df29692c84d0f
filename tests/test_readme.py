"""README and tutorial in two languages: the same programs, figures, pictures and links; and each short program of them runs."""

import os
import re
import subprocess
import sys
import tokenize
from collections import Counter
from io import StringIO
from pathlib import Path

import keras
import pytest

ROOT = Path(__file__).resolve().parents[1]
LANGUAGES = {"en": (ROOT / "README.md").read_text(encoding="utf-8"), "zh": (ROOT / "README.zh-CN.md").read_text(encoding="utf-8")}
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(text):
    """(language, code without its comments)."""
    return [(kind, "\n".join(without_comment(line, kind) for line in code.splitlines())) for kind, code in BLOCK.findall(text)]


def without_comment(line, kind):
    if kind == "python":
        tokens = tokenize.generate_tokens(StringIO(line).readline)
        try:
            comment = next((token.start[1] for token in tokens if token.type == tokenize.COMMENT), None)
        except tokenize.TokenError:  # a bracket that a later line closes
            comment = None
        return line[:comment].rstrip()
    return re.sub(r"\s+# .*", "", line).rstrip()


def figures(text):
    """How often each number stands in what is no block of code."""
    return Counter(re.findall(r"[+-]?\d*[.,]?\d+", BLOCK.sub("", text)))


def links(text):
    found = [target.replace(".zh-CN", "") for target in re.findall(r"\]\(([^)]+)\)", text)]
    return [target for target in found if not target.startswith(("README", "tutorial"))]


TUTORIAL = {name: (ROOT / "docs" / f"tutorial{end}.md").read_text(encoding="utf-8") for name, end in (("en", ""), ("zh", ".zh-CN"))}


@pytest.mark.parametrize("pages", [LANGUAGES, TUTORIAL], ids=["readme", "tutorial"])
def test_both_have_the_same_code(pages):
    english, chinese = map(blocks, pages.values())
    assert len(english) >= 8
    assert english == chinese


@pytest.mark.parametrize("pages", [LANGUAGES, TUTORIAL], ids=["readme", "tutorial"])
def test_both_have_the_same_figures_headings_and_links(pages):
    assert figures(pages["en"]) == figures(pages["zh"])
    heads = [[len(marks) for marks in re.findall(r"^(#+) ", text, re.MULTILINE)] for text in pages.values()]
    assert heads[0] == heads[1]
    assert links(pages["en"]) == links(pages["zh"])


def test_another_figure_would_be_seen():
    assert figures(LANGUAGES["en"].replace("0.3264", "0.3265")) != figures(LANGUAGES["zh"])


@pytest.mark.parametrize("language", LANGUAGES)
def test_links_lead_to_files(language):
    text = LANGUAGES[language]
    found = links(text)
    missing = [target for target in found if not (ROOT / target.partition("#")[0]).exists()]
    assert not missing
    assert ("README.zh-CN.md" if language == "en" else "README.md") in text


SHORT = [code for kind, code in blocks(LANGUAGES["en"]) if kind == "python" and "compare(" not in code]


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="the documents are about the default backend")
@pytest.mark.parametrize("number", range(len(SHORT)))
def test_the_short_programs_run(number, capsys):
    exec(compile(SHORT[number], "README.md", "exec"), {})


PAGES = {path.name: path.read_text(encoding="utf-8") for path in [*ROOT.glob("README*.md"), *(ROOT / "docs").rglob("*.md")]}


@pytest.mark.parametrize("page", [name for name, text in PAGES.items() if re.search(r"^(import|from) keras$", text, re.MULTILINE)])
def test_the_first_program_of_a_page_says_the_backend_before_keras_is_imported(page):
    """Where only JAX is installed, Keras fails without: it takes TensorFlow."""
    for code in (code for kind, code in blocks(PAGES[page]) if kind == "python" and "import keras\n" in code):
        assert "KERAS_BACKEND" in code.partition("import keras\n")[0]
        break  # the others of the page go on from there


ONLY_JAX = """
import sys
class Missing:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in ("tensorflow", "torch"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
"""


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="the documents are about the default backend")
def test_the_first_example_starts_where_only_jax_is_installed(tmp_path):
    first = next(code for kind, code in blocks(LANGUAGES["en"]) if kind == "python")
    imports = first[: first.index("import keras_dropout\n")] + "import keras_dropout; keras_dropout.Dropout(0.2)\n"
    environment = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"} | {"KERAS_HOME": str(tmp_path)}

    def run(program):
        command = [sys.executable, "-c", ONLY_JAX + program]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)

    assert run(imports).returncode == 0
    assert "No module named 'tensorflow'" in run("import keras").stderr  # what it would end in
