"""How a worker is set up: the folder of compiled programs is nobody else's."""

import os
import stat

import pytest

from keras_dropout.bench.execution import machine

CACHE = "JAX_COMPILATION_CACHE_DIR"


@pytest.fixture
def homeless(tmp_path, monkeypatch):
    """The temporary folder of a user without a home."""
    for name in (CACHE, "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(machine.os.path, "expanduser", lambda path: path)
    monkeypatch.setattr(machine.tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_the_cache_is_in_the_home(monkeypatch, tmp_path):
    for name in (CACHE, "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert machine.worker_environment("jax")[CACHE] == str(tmp_path / ".cache" / "keras-dropout" / "jax")
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert machine.worker_environment("jax")[CACHE] == "/elsewhere/keras-dropout/jax"
    monkeypatch.setenv(CACHE, "/mine")
    assert machine.worker_environment("jax")[CACHE] == "/mine"


def test_without_a_home_only_the_user_may_read_and_write_it(homeless):
    before = os.umask(0)
    try:
        found = machine.worker_environment("jax")[CACHE]
    finally:
        os.umask(before)
    (folder,) = homeless.iterdir()
    assert found == str(folder / "jax")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert machine.worker_environment("jax")[CACHE] == found  # which serves the next command


@pytest.mark.parametrize("taken", ["open to all", "a link", "a file", "another's"])
def test_a_folder_that_others_can_write_to_is_not_used(homeless, taken, monkeypatch):
    machine.worker_environment("jax")
    (folder,) = homeless.iterdir()
    if taken == "open to all":
        folder.chmod(0o777)
    elif taken == "another's":
        real = os.getuid()
        folder.rename(folder.with_name(f"keras-dropout-{real + 1}"))
        monkeypatch.setattr(machine.os, "getuid", lambda: real + 1)
    else:
        folder.rmdir()
        folder.symlink_to(homeless) if taken == "a link" else folder.write_text("")
    assert CACHE not in machine.worker_environment("jax")
