"""The peak memory of a worker that trains on a folder of images, by the number of images, under a limit.

Each study runs in a process of its own whose data segment, with that of its workers, is limited (RLIMIT_DATA). The images are made:
JPEG files of 128x128 pixels. `worker_mb` is the highest resident size of the worker (VmHWM), `decoded_mb` the size of all images.

Run: python benchmarks/folder_memory.py [--json FILE]
"""

import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from report import write

# Keras's fit holds small parts, such as the test data, as floats.
LIMITS = {"compiled": 1_500_000_000, "reference": 2_500_000_000}
SIDE, EPOCHS = 128, 1
COUNTS = (5_000, 20_000)


def make(folder: Path, count: int) -> None:
    """Make images of two classes, of which one is brighter above."""
    from PIL import Image

    random = np.random.default_rng(0)
    for number in range(count):
        label = number % 2
        place = folder / str(label)
        place.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 160, (8, 8, 3)).astype(np.uint8)
        pixels[:4] += 40 * label
        Image.fromarray(pixels).resize((SIDE, SIDE)).save(place / f"{number:06}.jpg")


def peak(process: int) -> int:
    """Return the highest resident size of a process so far, in kB; 0 if it is gone."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)


def study(folder: str, engine: str) -> None:
    """Run one study under the limit, and print the peak memory of this process and of its worker as JSON."""
    resource.setrlimit(resource.RLIMIT_DATA, (LIMITS[engine], LIMITS[engine]))
    peaks, over = {}, threading.Event()

    def watch() -> None:
        while not over.is_set():
            for task in Path(f"/proc/{os.getpid()}/task").iterdir():
                with contextlib.suppress(OSError):  # the thread has ended
                    for child in (task / "children").read_text().split():
                        peaks[child] = max(peaks.get(child, 0), peak(int(child)))
            time.sleep(0.02)

    watcher = threading.Thread(target=watch)
    watcher.start()
    import keras

    import keras_dropout

    model = keras.Sequential(
        [
            keras.Input((SIDE, SIDE, 3)),
            keras.layers.AveragePooling2D(8),
            keras.layers.Flatten(),
            keras.layers.Dense(32, activation="relu", name="hidden"),
            keras.layers.Dense(2, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    with tempfile.TemporaryDirectory() as place:
        found = keras_dropout.compare(
            model,
            folder,
            variants={"half": {"hidden": 0.5}},
            data_options={"divide_by": 255},
            seeds=1,
            epochs=EPOCHS,
            engine=engine,
            backend="jax",
            workers=1,
            ledger=Path(place, "l.db"),
            quiet=True,
        )
    over.set()
    watcher.join()
    done = all(result.status == "done" for result in found.results.values())
    for result in found.results.values():
        print(result.error or "", result.log or "", file=sys.stderr)
    print(json.dumps({"done": done, "worker_mb": round(max(peaks.values()) / 1e3), "main_mb": round(peak(os.getpid()) / 1e3)}))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--study"]:
        study(*sys.argv[2:])
        sys.exit()
    rows = []
    with tempfile.TemporaryDirectory() as place:
        for count in COUNTS:
            make(Path(place, str(count)), count)
            for engine in LIMITS:
                command = [sys.executable, __file__, "--study", str(Path(place, str(count))), engine]
                ran = subprocess.run(command, capture_output=True, text=True)
                assert ran.returncode == 0, ran.stderr
                row = {
                    "images": count,
                    "engine": engine,
                    "decoded_mb": count * SIDE * SIDE * 3 // 10**6,
                    "limit_mb": LIMITS[engine] // 10**6,
                }
                rows.append(row | json.loads(ran.stdout.splitlines()[-1]))
                print(rows[-1], flush=True)
    write("folder_memory", rows)
