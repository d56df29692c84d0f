"""The files around the code: what they name exists, and what is said once is said once."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

import keras_dropout

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def commands(workflow):
    return [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]


def test_the_workflow_runs_what_the_makefile_has():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "tests.yml").read_text())
    found = commands(workflow)
    assert {"make test", "make dist", "make smoke"} <= set(found)
    assert {command.removeprefix("make ") for command in found} <= TARGETS
    pythons = workflow["jobs"]["test"]["strategy"]["matrix"]["python"]
    assert PROJECT["project"]["requires-python"] == f">={pythons[0]}"
    classifiers = [each.rpartition(" :: ")[2] for each in PROJECT["project"]["classifiers"] if ":: 3." in each]
    assert classifiers[-1] == pythons[-1]


@pytest.mark.parametrize("path", sorted((ROOT / ".github" / "workflows").iterdir()), ids=lambda path: path.stem)
def test_workflows_name_actions_by_the_hash_of_their_commits_and_may_write_nothing(path):
    workflow = yaml.safe_load(path.read_text())
    used = [step["uses"] for job in workflow["jobs"].values() for step in job["steps"] if "uses" in step]
    assert used
    assert all(re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", each) for each in used), used
    assert workflow["permissions"] == {"contents": "read"}
    rights = [job["permissions"] for job in workflow["jobs"].values() if "permissions" in job]
    assert rights in ([], [{"id-token": "write"}])  # what uploads a release
    for job in workflow["jobs"].values():
        assert "permissions" not in job or not any("run" in step for step in job["steps"])


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "README.md", "README.zh-CN.md"])
def test_targets_that_are_told_of_exist(page):
    told = set(re.findall(r"(?:^|`)make ([a-z-]+)", (ROOT / page).read_text(), re.MULTILINE))
    assert told
    assert told <= TARGETS


def test_the_citation():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= set(cited)
    assert cited["cff-version"] == "1.2.0"
    assert cited["authors"] == [{"name": "The keras-dropout developers"}]
    assert cited["license"] == PROJECT["project"]["license"]


def test_the_version_is_in_one_place():
    """And in the history of releases."""
    assert "version" not in PROJECT["project"]
    files = [path for path in ROOT.glob("*") if path.is_file() and path.suffix in (".md", ".cff", ".toml", ".yml")]
    files.remove(ROOT / "CHANGELOG.md")
    assert [path.name for path in files if keras_dropout.__version__ in path.read_text()] == []


def test_the_sdist_has_what_the_tests_need():
    named = PROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    for pattern in named:
        assert list(ROOT.glob(pattern.lstrip("/"))), pattern
    needed = {"src", "tests", "docs", "examples", "benchmarks", "Makefile", "constraints.txt", "LICENSE"}
    assert needed <= set(named)


def test_what_is_tested_has_its_version_in_the_constraints():
    pinned = {line.partition("==")[0].lower().replace("_", "-") for line in (ROOT / "constraints.txt").read_text().splitlines()}
    extras = PROJECT["project"]["optional-dependencies"]
    wanted = [*PROJECT["project"]["dependencies"], *(each for extra in extras.values() for each in extra)]
    names = {re.match(r"[A-Za-z0-9.-]+", each)[0].lower() for each in wanted}
    assert names - {"keras-dropout", "tensorflow"} <= pinned  # tensorflow-cpu stands for the latter
    assert "tensorflow-cpu" in pinned
    everything = {extra for extra in extras if extra not in ("dev", "tensorflow", "torch")}
    assert everything == set(re.search(r"\[(.*)\]", extras["dev"][0])[1].split(","))
