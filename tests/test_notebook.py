"""The notebook of first steps runs from start to end, shows what it says that it shows, and is kept without outputs."""

import os
from pathlib import Path

import keras
import nbformat
import pytest
from nbclient import NotebookClient

FILE = Path(__file__).resolve().parents[1] / "examples" / "first_steps.ipynb"
pytestmark = pytest.mark.skipif(keras.backend.backend() != "jax", reason="the notebook is of the default backend")


def test_it_is_kept_without_outputs():
    notebook = nbformat.read(FILE, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


@pytest.mark.slow
def test_it_runs(tmp_path, monkeypatch):
    notebook = nbformat.read(FILE, as_version=4)
    monkeypatch.setenv("JAX_PLATFORMS", os.environ.get("JAX_PLATFORMS", "cpu"))
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = {cell.source.splitlines()[-1]: cell.outputs for cell in notebook.cells if cell.cell_type == "code"}

    def shown(last_line):
        return "".join(
            output["data"].get("text/html", "") for output in outputs[last_line] if output.output_type == "execute_result"
        )

    assert "hidden_1" in shown("keras_dropout.sites(plain)")
    assert "<svg" in shown("found")
    assert "paired by seed" in shown("found")
    assert "mutual information" in shown("u")
    assert "dropout-after-softmax" in shown("keras_dropout.check(mistaken)")
    assert (tmp_path / "first_steps.db").exists()
    for cell_outputs in outputs.values():
        assert all(output.output_type != "error" for output in cell_outputs)
        assert not any("WARNING" in output.get("text", "") for output in cell_outputs)
