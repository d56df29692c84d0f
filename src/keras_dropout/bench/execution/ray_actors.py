"""Workers on a Ray cluster, one actor each. This module loads Ray, so `execution` imports it only on request."""

import contextlib
import dataclasses
import functools
import logging
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError

from keras_dropout.bench.data.dataset import Data
from keras_dropout.bench.execution.machine import worker_environment
from keras_dropout.bench.execution.worker import Task, Worker, one_line
from keras_dropout.bench.records import Study
from keras_dropout.bench.training.messages import Died, Told
from keras_dropout.cores import usable_cores
from keras_dropout.errors import refuse

PATIENCE = 60.0  # seconds that runs wait while the cluster has no worker
_KNOCK, _ANSWER = 5.0, 30.0  # seconds for an address to accept a connection, and to prove to be a cluster that we can join
_QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
# When Ray's node on this machine is lost, Ray ends the connected process without a message.
_LAST_WORDS = """
import sys
if not sys.stdin.read():
    print("keras-dropout: the connection to Ray is lost: its node on this machine, or its head, is gone.", file=sys.stderr)
    print("What is finished is kept in the ledger; fix the cluster, then run the command again.", file=sys.stderr)
"""
_LOCAL: dict[str, Any] = {"num_cpus": usable_cores(), "include_dashboard": False}
_JOIN = f"import ray, sys; ray.init(sys.argv[1], **{_QUIET}); print(int(ray.cluster_resources().get('CPU', 0)))"


def count_cores(address: str | None) -> int:
    """Return the cores of the cluster at an address, or of this machine without one; refuse a cluster that cannot be joined."""
    if ray.is_initialized():
        return max(1, int(ray.cluster_resources().get("CPU", 0)))
    if address is None:
        return usable_cores()
    fix = f"Give the address that `ray start --head` printed; and this machine must be a node: ray start --address={address}"
    host, _, port = address.rpartition(":")
    try:
        if host:
            socket.create_connection((host.strip("[]"), int(port)), _KNOCK).close()
        # In a process that can be ended: Ray tries for minutes if something other than Ray answers.
        joined = subprocess.run([sys.executable, "-c", _JOIN, address], capture_output=True, text=True, timeout=_ANSWER)
    except (OSError, ValueError, OverflowError) as error:
        refuse(f"the Ray cluster at {address} does not answer: {error}.", fix)
    except subprocess.TimeoutExpired:
        refuse(f"what answers at {address} is no Ray cluster that can be joined within {_ANSWER:.0f} s.", fix)
    if joined.returncode:
        refuse(f"the Ray cluster at {address} cannot be joined: {one_line(joined.stderr.strip().rpartition(chr(10))[2])}", fix)
    return max(1, int(joined.stdout.split()[-1]))


def _ask_for_a_token() -> None:
    """Protect the cluster that is started here with a token, because Ray listens on all interfaces and runs code.

    A mode or token set by the user is kept. A new token is known only to this process and to the processes that Ray starts for it.
    """
    if os.environ.get("RAY_AUTH_MODE"):
        return
    if not any(map(os.environ.get, ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"))) and not os.path.exists(
        os.path.expanduser("~/.ray/auth_token")
    ):
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    os.environ["RAY_AUTH_MODE"] = "token"
    # Ray reads the environment only when it is imported, and has no public way to read it again.
    ray._raylet.Config.initialize("")  # type: ignore[attr-defined]


@contextlib.contextmanager
def keeps_sigterm() -> Iterator[None]:
    """Keep the handler of SIGTERM, which Ray replaces by its own for good, also after it is shut down."""
    handler, here = signal.getsignal(signal.SIGTERM), threading.current_thread() is threading.main_thread()
    try:
        yield
    finally:
        if here and handler is not None:  # None is one that was not set in Python
            signal.signal(signal.SIGTERM, handler)


@dataclass(eq=False)
class Actor:
    """A worker as seen by the process that the user started."""

    number: int
    handle: Any
    stream: Any = None  # the messages about its task
    placed: bool = False  # whether it has found a node


class Actors:
    """Workers of one study on the cluster at `address`, or on a cluster started on this machine. Use with `with`."""

    def __init__(self, study: Study, data: Data, address: str | None = None):
        self._address = address
        # Without the folder of JAX's cache, which each node chooses itself.
        given = worker_environment(study.backend, study.engine).items()
        self._environment = {name: value for name, value in given if name != "JAX_COMPILATION_CACHE_DIR"}
        self._given = (study, {run.key for run in study.runs()}, data.sent(study.split), data.divide_by)
        self._unfit: dict[str, str] = {}  # nodes that cannot train the study, and why
        self.workers: list[Actor] = []
        # Runs lost with a node may succeed on another one. Ray may use the lost node again before it notices the loss.
        self.retries = 3

    def __enter__(self) -> "Actors":
        self._joined = not ray.is_initialized()  # a program that already uses Ray keeps its connection
        if self._joined:
            where = {"address": self._address} if self._address else {"address": "local", **_LOCAL}
            if not self._address:
                _ask_for_a_token()
            try:
                with warnings.catch_warnings():
                    warnings.filterwarnings("ignore", "os.fork", RuntimeWarning)  # JAX warns of every fork once it is loaded
                    with keeps_sigterm():
                        ray.init(**where, **_QUIET)
            except (OSError, RuntimeError, ValueError) as error:
                refuse(f"Ray cannot be started: {one_line(error)}", "Try it alone: python -c 'import ray; ray.init()'")
        self._quiet = contextlib.redirect_stdout(_WithoutRay(sys.stdout))
        self._quiet.__enter__()
        self._watcher = subprocess.Popen([sys.executable, "-c", _LAST_WORDS], stdin=subprocess.PIPE, start_new_session=True)
        self._sent = ray.put(self._given)  # once, not with every task
        self._without_worker_since = time.monotonic()
        return self

    def __exit__(self, *_: Any) -> None:
        try:
            for worker in list(self.workers):
                self.end(worker)
            if self._joined:
                ray.shutdown()
        finally:
            self._quiet.__exit__(None, None, None)
            self._watcher.communicate(b"ended")

    def start(self) -> Actor:
        """Ask for one more worker; Ray starts it where a CPU is free."""
        free = set(range(len(self.workers) + 1)) - {worker.number for worker in self.workers}
        where = {"label_selector": {"ray.io/node-id": f"!in({','.join(self._unfit)})"}} if self._unfit else {}
        made = _actor_class().options(runtime_env={"env_vars": self._environment}, **where)
        worker = Actor(min(free), made.remote())
        self.workers.append(worker)
        return worker

    def give(self, worker: Actor, task: Task) -> None:
        """Send the worker a task; the worker answers with messages."""
        # Packed with `ray.put`, so that the worker unpacks the task itself and can report what is missing.
        worker.stream = worker.handle.messages.options(num_returns="streaming").remote([self._sent], [ray.put(task)])

    def end(self, worker: Actor) -> None:
        """End a worker, even a busy one."""
        worker.stream = None
        ray.kill(worker.handle)
        self.workers.remove(worker)

    def messages(self) -> Iterator[tuple[Actor, Told | Died]]:
        """Wait at most one second for messages of workers and yield them; yield `Died` for a worker that is dead."""
        if any(worker.stream is not None and not worker.placed for worker in self.workers):
            for worker in [worker for worker in self.workers if worker.stream is None and worker.placed]:
                self.end(worker)  # no run is left for it, and it holds a CPU for which a worker with a run may wait
        by_stream = {worker.stream: worker for worker in self.workers if worker.stream is not None}
        ready: list[Any]  # streams, which are missing in Ray's own types
        ready, _ = ray.wait(list(by_stream), timeout=1.0)
        if ready:  # one message from each ready stream, so that a busy worker does not delay the others
            ready, _ = ray.wait(list(by_stream), num_returns=len(by_stream), timeout=0)
        for stream in ready:
            worker = by_stream[stream]
            try:
                told = ray.get(next(stream))
            except StopIteration:  # the worker has finished its task and has no other yet
                worker.stream = None
                continue
            except RayError as error:
                told = Died(_why(error))
            match told:
                case ("placed",):
                    worker.placed = True
                case ("unfit", address, node, why):
                    self._unfit[node] = f"node {address} cannot train this study: {why}"
                    yield worker, Died(self._unfit[node])
                case _:
                    yield worker, told
        now = time.monotonic()
        if any(worker.placed for worker in self.workers):
            self._without_worker_since = now
        elif now - self._without_worker_since > PATIENCE:
            self.retries = 0
            why = f"no node of the Ray cluster had a CPU for a worker for {PATIENCE:.0f} s"
            why += "".join(f"; {each}" for each in list(self._unfit.values())[-1:])
            for worker in list(self.workers):
                yield worker, Died(why)


@functools.cache
def _actor_class() -> Any:
    """Return the actor class. It is made in a function so that Ray sends its code, and a node without this package can say so."""

    @ray.remote(num_cpus=1, scheduling_strategy="SPREAD")
    class KerasDropoutWorker:
        def __init__(self) -> None:
            self.worker: Worker | None = None

        def messages(self, given: list, wanted: list) -> Iterator[Any]:
            # A node may lack this package, so it answers with tuples, which every Python can read.
            try:
                if self.worker is None:
                    from keras_dropout.bench.execution.machine import worker_environment
                    from keras_dropout.bench.execution.worker import Worker

                    study, keys, parts, divide_by = ray.get(given[0])
                    if {run.key for run in dataclasses.replace(study).runs()} != keys:
                        raise RuntimeError(f"{study.source or 'keras-dropout'} is not what it is where the study was planned")
                    os.environ.update(worker_environment(study.backend, study.engine))
                    self.worker = Worker(study, parts, divide_by)
                task = ray.get(wanted[0])
            except Exception as error:
                lines = str(error).strip().splitlines() or [""]
                node = ray.get_runtime_context().get_node_id()
                yield "unfit", ray.util.get_node_ip_address(), node, f"{type(error).__name__}: {lines[-1]}"
                return
            yield ("placed",)
            yield from self.worker.messages(task)

    return KerasDropoutWorker


class _WithoutRay:
    """Standard output without Ray's messages about lost nodes, because standard output is for data."""

    def __init__(self, stream: Any):
        self._stream = stream

    def write(self, text: str) -> int:
        return len(text) if threading.current_thread().name.startswith("ray_") else self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _why(error: RayError) -> str:
    """Return in one line why the worker is gone; Ray's own message has many lines."""
    if isinstance(error, ray.exceptions.ActorUnavailableError):
        return "the worker on Ray cannot be reached"
    text = one_line(error)
    because = re.search(r"because (.*?)(\.|$)", text)
    return f"the worker on Ray died: {because[1] if because else text}"
