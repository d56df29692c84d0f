"""What results may depend on beside their key: the versions of packages and the kind of machine; and how a worker is set up."""

import contextlib
import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

_TELLING = ("keras-dropout", "keras", "numpy", "jax", "jaxlib", "tensorflow", "tensorflow-cpu", "torch")


def usable_cores() -> int:
    """The number of cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def versions() -> dict[str, str]:
    """The versions of the packages that decide results, and of Python."""
    found = {"python": platform.python_version()}
    for name in _TELLING:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def machine() -> dict[str, Any]:
    """The kind of machine: system, processor, usable cores. No name of its own."""
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as file:
        model = next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), model)
    return {"system": platform.system(), "architecture": platform.machine(), "processor": model, "cores": usable_cores()}


def worker_environment(backend: str) -> dict[str, str]:
    """One thread and no accelerator, to be set before the framework starts: a run's bytes then depend on its key alone."""
    flags = os.environ.get("XLA_FLAGS", "")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "keras-dropout" / "jax"
    return {
        # What one worker has compiled serves the next one, and the next command; JAX keeps it by content, flags and version.
        "JAX_COMPILATION_CACHE_DIR": os.environ.get("JAX_COMPILATION_CACHE_DIR", str(cache)),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "KERAS_BACKEND": backend,
        "XLA_FLAGS": f"{flags} --xla_cpu_multi_thread_eigen=false".strip(),
        "NPROC": "1",
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "TF_NUM_INTRAOP_THREADS": "1",
        "TF_NUM_INTEROP_THREADS": "1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": "-1",
        "JAX_PLATFORMS": "cpu",
    }
