"""Describe what results may depend on apart from their key: package versions and the kind of machine; set up workers."""

import contextlib
import importlib.metadata
import importlib.util
import os
import platform
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from keras_dropout.cores import usable_cores

_ACCELERATORS = ("jax-cuda12-plugin", "jax-cuda13-plugin", "jax-rocm60-plugin", "jax-rocm7-plugin", "libtpu")
_TELLING = ("keras-dropout", "keras", "numpy", "jax", "jaxlib", "tensorflow", "tensorflow-cpu", "torch")


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that affect results."""
    found = {"python": platform.python_version()}
    for name in _TELLING:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def machine() -> dict[str, Any]:
    """Return the kind of machine: system, processor, usable cores, and the accelerator if JAX uses one; never the host name."""
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as file:
        model = next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), model)
    found = {"system": platform.system(), "architecture": platform.machine(), "processor": model, "cores": usable_cores()}
    jax = sys.modules.get("jax")
    if jax and has_accelerator_plugin() and jax.default_backend() != "cpu":
        found["accelerator"] = jax.devices()[0].device_kind
    return found


def has_accelerator_plugin() -> bool:
    """Return whether a package is installed that lets JAX use a GPU or TPU."""
    return any(importlib.util.find_spec(name.replace("-", "_")) for name in _ACCELERATORS)


def accelerator() -> str | None:
    """Return the kind of GPU or TPU that JAX finds here; None if there is none.

    A separate process looks for it, because this process would keep the device's memory.
    """
    if not has_accelerator_plugin():
        return None
    code = "import jax; print(jax.default_backend(), jax.devices()[0].device_kind, sep='|')"
    environment = {**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    ended = subprocess.run([sys.executable, "-c", code], check=False, env=environment, capture_output=True, text=True)
    lines = ended.stdout.splitlines()
    platform_name, _, kind = lines[-1].partition("|") if lines else ("cpu", "", "")
    return None if platform_name == "cpu" else kind


def worker_environment(backend: str, engine: str = "compiled") -> dict[str, str]:
    """Return the variables to set before the framework starts: one thread, no accelerator.

    So the bytes of a run depend only on its key. The stacked engine is for accelerators: it sees them, and all cores compile.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    # Workers and later commands share compiled programs. JAX looks them up by content, flags and version.
    cache = os.environ.get("JAX_COMPILATION_CACHE_DIR") or _cache()
    found = {
        **({"JAX_COMPILATION_CACHE_DIR": str(cache)} if cache else {}),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "KERAS_BACKEND": backend,
        "XLA_FLAGS": f"{flags} --xla_cpu_multi_thread_eigen=false".strip(),
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "TF_NUM_INTRAOP_THREADS": "1",
        "TF_NUM_INTEROP_THREADS": "1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    return found if engine == "stacked" else found | {"NPROC": "1", "CUDA_VISIBLE_DEVICES": "-1", "JAX_PLATFORMS": "cpu"}


def _cache() -> Path | None:
    """Return the folder for programs compiled by JAX.

    Compiled programs are code. So for a user without a home the folder is in the temporary folder, and only this user may write
    to it. Return None if another user owns a folder with that name.
    """
    home = os.path.expanduser("~")  # stays "~" for a user without a home
    if (caches := os.environ.get("XDG_CACHE_HOME")) or home != "~":
        return Path(caches or f"{home}/.cache", "keras-dropout", "jax")
    folder = Path(tempfile.gettempdir(), f"keras-dropout-{os.getuid()}")
    try:
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        found = folder.lstat()
    except OSError:
        return None
    ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077
    return folder / "jax" if ours else None
