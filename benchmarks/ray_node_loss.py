"""What the loss of a node costs: a study on three Ray nodes of a core each, one of them killed with -9 when all are training.

The nodes are real Ray nodes, processes on this machine. The same study is then trained undisturbed, in processes here, and the
results are compared byte by byte.
Run: python benchmarks/ray_node_loss.py [--json FILE]
"""

import tempfile
import time
from pathlib import Path

import numpy as np
from ray.cluster_utils import Cluster
from report import write

from keras_dropout.bench.compare import make_plan
from keras_dropout.bench.execution import scheduler
from keras_dropout.bench.ledger.store import Ledger

NODES, SETTINGS = 3, {"variants": ["hidden"], "seeds": 3, "epochs": 1500, "checkpoint_every": 100}


class Watch:
    """Kills a node when all are training, and counts."""

    def __init__(self, node=None):
        self.node, self.reached, self.trained, self.ends, self.given_again, self.killed = node, {}, 0, [], 0, None

    def started(self, worker, run, epoch):
        pass

    def epoch(self, worker, run, epoch, logs):
        self.trained += 1
        self.reached[run.key] = epoch
        if self.node and self.killed is None and len(self.reached) == NODES and min(self.reached.values()) > 150:
            self.node.kill_raylet()
            self.killed = time.perf_counter()

    def paused(self, worker, run):
        pass

    def ended(self, worker, run, result):
        self.ends.append(run.key)

    def note(self, text):
        self.given_again += 1


def train(folder: str, on: str, watch: Watch) -> tuple[dict, float]:
    """The results by key, and the wall time."""
    plan = make_plan("digits-mlp", ledger=Path(folder) / f"{on.partition(':')[0]}.db", on=on, workers=NODES, **SETTINGS)
    started = time.perf_counter()
    with Ledger(plan.ledger) as ledger:
        runs = plan.todo({})
        scheduler.execute(plan, runs, ledger, watch)
        return ledger.get([run.key for run in runs]), time.perf_counter() - started


def same_bytes(one: dict, two: dict) -> bool:
    return one.keys() == two.keys() and all(
        (each.metrics, each.curves) == (two[key].metrics, two[key].curves)
        and np.array_equal(each.test_losses, two[key].test_losses)
        for key, each in one.items()
    )


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        cluster = Cluster()
        try:
            cluster.add_node(num_cpus=0, include_dashboard=False)
            nodes = [cluster.add_node(num_cpus=1) for _ in range(NODES)]
            watch = Watch(nodes[0])
            lost, lost_seconds = train(folder, f"ray:{cluster.address}", watch)
        finally:
            cluster.shutdown()
        whole, whole_seconds = train(folder, "here", Watch())
    needed = len(whole) * SETTINGS["epochs"]
    row = {
        "nodes": NODES,
        "nodes_killed": int(watch.killed is not None),
        "runs": len(whole),
        "runs_done": sum(result.status == "done" for result in lost.values()),
        "runs_ended_more_than_once": len(watch.ends) - len(set(watch.ends)),
        "runs_given_again": watch.given_again,
        "epochs_needed": needed,
        "epochs_trained_again": watch.trained - needed,
        "same_bytes_as_undisturbed": same_bytes(lost, whole),
        "wall_seconds_with_the_loss": round(lost_seconds, 1),
        "wall_seconds_undisturbed_here": round(whole_seconds, 1),
    }
    for name, value in row.items():
        print(f"{name.replace('_', ' '):32} {value}")
    write("ray_node_loss", [row])


if __name__ == "__main__":
    main()
