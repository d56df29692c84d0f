"""Live streams: batches that a run iterates itself, as Keras's `fit` does, so that they may shuffle, augment and exceed memory.

A function gives the streams. Each run calls it anew, with all random seeds set from the seed of the run, and each epoch iterates
the training stream anew. Two variants with the same seed then see the same batches; `LiveData.looked` checks this.
"""

import contextlib
import hashlib
import inspect
import random
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import cloudpickle
import numpy as np

from keras_dropout.bench.data import arrays
from keras_dropout.bench.data.dataset import Data, Part, is_part
from keras_dropout.bench.data.streams import as_array, is_stream, kind_of
from keras_dropout.bench.records import DataFacts
from keras_dropout.errors import BadInput, check_whole, first_line, refuse, refused
from keras_dropout.masks import derive_seed
from keras_dropout.models import targets

PARTS = ("train", "validation", "test")
_STEPS = "steps_per_epoch"
FORM = (
    'Return (train, validation, test), or {"train": …, "validation": …, "test": …}: streams of batches (x, y) or (x, y, weights); '
    "the last two may be arrays (x, y)."
)
_ROLES = {"train": "training", "validation": "validation", "test": "test"}
_ROWS = 256  # examples in a batch made from arrays


@dataclass(frozen=True)
class Given:
    """A function of the user's, or an object, for other processes: by its `target` (file.py:function), or by value as `packed`.

    `code` is a hash of its source and of the user's own code that it uses.
    """

    name: str
    code: str
    target: str | None = None
    packed: bytes | None = field(default=None, repr=False)

    def get(self, **facts: Any) -> Any:
        """Return a fresh copy of the object, or what the function returns for those of `facts` that its parameters name."""
        if self.target is not None:
            return targets.call(self.target, facts)
        assert self.packed is not None  # one of the two is given
        (found,) = cloudpickle.loads(self.packed).values()
        if is_stream(found) or not callable(found):
            return found
        taken = {name: value for name, value in facts.items() if name in parameters(found)}
        with refused(f"{self.name} failed", "Call it in Python to see where."):
            return found(**taken)


def parameters(function: Callable) -> Mapping[str, inspect.Parameter]:
    """Return the parameters of a function; none if Python cannot tell."""
    with contextlib.suppress(TypeError, ValueError):
        return inspect.signature(function).parameters
    return {}


def is_live(value: Any) -> bool:
    """Return whether a value has the form of live streams: a dict of the three parts, or three of which the first is a stream."""
    if isinstance(value, Mapping):
        return {*PARTS} <= set(value) <= {*PARTS, _STEPS} and not isinstance(value["train"], Mapping)
    return isinstance(value, tuple | list) and len(value) == 3 and _is_iterated(value[0]) and not hasattr(value[0], "shape")


def _is_iterated(value: Any) -> bool:
    return is_stream(value) or hasattr(value, "__next__") or (callable(value) and not isinstance(value, type))


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and the loaded frameworks, from which unseeded streams draw."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - programs draw from this one
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(seed)
    if "tensorflow" in sys.modules:
        sys.modules["tensorflow"].random.set_seed(seed)


class Streams:
    """The streams of one run. `batches` iterates a part once; a training stream with `steps` goes on where the last epoch ended."""

    def __init__(self, value: Any, name: str, seed: int, steps: int | None):
        if not is_live(value):
            refuse(f"{name} gave {type(value).__name__} this time, not three streams.", FORM)
        found = dict(value) if isinstance(value, Mapping) else dict(zip(PARTS, value))
        self.name = name
        self.steps = steps if steps is not None else found.pop(_STEPS, None)
        if self.steps is not None:
            check_whole(_STEPS, self.steps, 1, "It is the number of training batches in an epoch, for example 100.")
        self._given = {part: found[part] for part in PARTS}
        self._order = np.random.default_rng(derive_seed(seed, "order"))
        self._going: Iterator[Any] | None = None

    def batches(self, part: str) -> Iterator[Part]:
        """Yield the batches of one pass over "validation" or "test", or of one epoch of "train"."""
        steps = self.steps if part == "train" else None
        pieces = self._pass(part, steps is not None) if steps is None else self._go_on(steps)
        empty = True
        for piece in pieces:
            empty = False
            yield self._batch(part, piece)
        if empty:
            refuse(
                f"the {_ROLES[part]} stream of {self.name} is empty, or gave its batches before and gives them only once.",
                f"Give what can be iterated again: a Dataset, DataLoader or PyDataset, or the function that makes the generator; "
                f"for an endless training stream also {_STEPS}.",
            )

    def _go_on(self, steps: int) -> Iterator[Any]:
        """Yield so many batches of the training stream; begin it anew when it ends within them, as long as it gives any."""
        for number in range(steps):
            piece = None if self._going is None else next(self._going, None)
            if piece is None:
                self._going = self._pass("train", True)
                piece = next(self._going, None)
            if piece is None:
                refuse(
                    f"the training stream of {self.name} ended after {number} of {steps} batches of an epoch.",
                    f"Make it endless, give the function that makes it, or a smaller {_STEPS}.",
                )
            yield piece

    def _pass(self, part: str, stepped: bool) -> Iterator[Any]:
        """Yield the elements of one pass over a stream."""
        data = self._given[part]
        if part != "train" and not is_stream(data) and is_part(data):
            whole = Part(*(arrays.each(as_array, each) for each in data))
            for start in range(0, arrays.count(whole.y), _ROWS):
                yield tuple(each for each in whole.take(slice(start, start + _ROWS)) if each is not None)
            return
        kind = kind_of(data)
        if kind is None and callable(data):
            data = data()
        elif kind == "tf":
            if int(data.cardinality()) == -1 and not stepped:
                self._refuse_endless(part)
            data = data.as_numpy_iterator()
        elif kind == "keras":
            yield from self._keras(data, part, stepped)
            return
        yield from data

    def _keras(self, data: Any, part: str, stepped: bool) -> Iterator[Any]:
        """Yield the batches of a PyDataset; those of training in a random order, as in fit."""
        count = data.num_batches
        if count is None and not stepped:
            self._refuse_endless(part)
        getattr(data, "on_epoch_begin", lambda: None)()
        if count is None:
            number = 0
            while True:
                yield data[number]
                number += 1
        for number in self._order.permutation(count) if part == "train" else range(count):
            yield data[int(number)]
        data.on_epoch_end()

    def _refuse_endless(self, part: str) -> None:
        fix = (
            f'Return {_STEPS} too: {{"train": …, "{_STEPS}": 100, …}}.'
            if part == "train"
            else "Let it end after one pass over its examples."
        )
        refuse(f"the {_ROLES[part]} stream of {self.name} never ends.", fix)

    def _batch(self, part: str, piece: Any) -> Part:
        if not isinstance(piece, (tuple, list)) or len(piece) not in (2, 3):
            got = f"a {type(piece).__name__}" + (f" of {len(piece)}" if isinstance(piece, (tuple, list)) else "")
            refuse(f"the {_ROLES[part]} stream of {self.name} gives {got} where a batch (x, y) is expected.", FORM)
        found = Part(*arrays.each(as_array, tuple(piece)))
        every = [array for each in found if each is not None for array in arrays.leaves(each)]
        if not all(array.ndim for array in every) or len({len(array) for array in every}) != 1:
            shapes = " and ".join(str(array.shape) for array in every[:3])
            refuse(
                f"the {_ROLES[part]} stream of {self.name} gives arrays of the shapes {shapes}, which are no batch.",
                "Put examples together into batches, for example with dataset.batch(32) of tf.data.",
            )
        for array in every:
            if array.dtype.kind not in "biuf":
                refuse(
                    f"the {_ROLES[part]} stream of {self.name} holds {array.dtype}, not numbers.",
                    "Convert it to numbers in the stream.",
                )
        return found


class Digest:
    """A hash of the batches of a pass in their order, and the number of their examples."""

    def __init__(self) -> None:
        self._hash, self.examples = hashlib.blake2b(digest_size=16), 0

    def add(self, batch: Part) -> Part:
        """Count a batch in, and return it."""
        for role, value in batch._asdict().items():
            for name, array in arrays.named(value) if value is not None else ():
                self._hash.update(f"{role}{name}{array.dtype.str}{array.shape}".encode())
                self._hash.update(np.ascontiguousarray(array).tobytes())
        self.examples += arrays.count(batch.y)
        return batch

    def text(self) -> str:
        """Return the hash so far."""
        return self._hash.hexdigest()


@dataclass(frozen=True)
class Live:
    """Streams as a worker gets them: how to ask for them, a first batch of each part, and the digests that must be found again."""

    source: Given
    samples: Mapping[str, Part] = field(repr=False)
    steps: int | None = None
    batch_size: int | None = None
    batches: int | None = None  # of training, in the first epoch at seed 0
    digests: Mapping[str, str] = field(default_factory=dict)

    def ask(self, seed: int) -> Streams:
        """Return the streams of a run with this seed."""
        facts: dict[str, Any] = {"seed": seed}
        if self.batch_size is not None:
            facts["batch_size"] = self.batch_size
        if self.source.target is not None:
            targets.load_function(self.source.target)  # what its file draws when it is run comes before the seed
        seed_everything(derive_seed(seed, "data") % 2**31)
        return Streams(self.source.get(**facts), self.source.name, seed, self.steps)

    def check(self, part: str, digest: Digest) -> None:
        """Refuse a pass over "validation" or "test" that has other batches than the others."""
        if part in self.digests and digest.text() != self.digests[part]:
            refuse(
                f"the {_ROLES[part]} stream of {self.source.name} gives other batches than before; every variant, seed and epoch "
                "needs the same.",
                f"Leave shuffling and augmentation out of the {part} stream, and divide with a fixed seed.",
            )


@dataclass(frozen=True)
class LiveData(Data):
    """Live streams as the data of a study. `train` and `test` are the first batches; `looked` counts and checks all of them."""

    live: Live | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)
    mark: str = ""
    notes: tuple[str, ...] = ()

    whole: ClassVar[bool] = False

    def parts(self, split: str) -> dict[str, Part]:
        """Return the first batch of each part."""
        assert self.live is not None
        return dict(self.live.samples)

    def sent(self, split: str) -> Any:
        """Return what a worker gets as its data."""
        return self.live

    def facts(self, split: str) -> DataFacts:
        """Return the name, fingerprint and sizes; the fingerprint is that of the code and of what `looked` saw."""
        return DataFacts(self.name, self.mark, **self.sizes)

    def fingerprint(self) -> str:
        """Return a hash of the function's code, of validation and test batches, and of the first training batches."""
        return self.mark

    def looked(self, check: Callable[[str, Part], Any]) -> "LiveData":
        """Return the data with sizes and fingerprint, after passes over all streams; `check` gets each batch: ("training", batch).

        Refuse validation and test batches that differ between passes or depend on the seed.
        """
        assert self.live is not None
        first, again = self.live.ask(0), Digest()
        sizes, digests, head, batches = {}, {}, [], 0
        for part in PARTS:
            digest = Digest()
            for number, batch in enumerate(first.batches(part)):
                check(_ROLES[part], digest.add(batch))
                batches = max(batches, number + 1) if part == "train" else batches
                if part == "train" and number < 3:
                    head.append(digest.text())
            sizes[part], digests[part] = digest.examples, digest.text()
        live = replace(self.live, batches=batches, digests={part: digests[part] for part in PARTS[1:]})
        second_epoch = Digest()
        for _, batch in zip(head, first.batches("train")):
            second_epoch.add(batch)
        anew = second_epoch.text() != head[-1]
        for streams in (first, live.ask(1)):
            for part in PARTS[1:]:
                digest = Digest()
                for batch in streams.batches(part):
                    digest.add(batch)
                live.check(part, digest)
        for batch in live.ask(0).batches("train"):
            again.add(batch)
        paired = again.text() == digests["train"]
        other = Digest()
        for _, batch in zip(head, live.ask(1).batches("train")):
            other.add(batch)
        how = "in each epoch anew" if anew else "the same in each epoch"
        notes = [
            f"{sizes['train']:,} training examples an epoch, {how}, {sizes['validation']:,} validation and {sizes['test']:,} test"
        ]
        if not paired:
            notes.append(
                f"{live.source.name} gives other training batches each time for the same seed: the variants of a seed share their "
                "initial weights only, so pairs gain less. Have it take seed=, and pass that to whatever draws"
            )
        elif other.text() == head[-1]:
            notes.append("the training batches are the same for every seed: seeds differ in weights and masks only")
        seen = [
            live.source.code,
            *map(str, sizes.values()),
            *live.digests.values(),
            digests["train"] if paired else "",
            str(first.steps),
            str(live.batch_size),
        ]
        mark = hashlib.sha256("\n".join(seen).encode()).hexdigest()[:32]
        return replace(self, live=live, sizes=sizes, mark=mark, notes=tuple(notes))


def live_data(source: Given, value: Any, steps: int | None, batch_size: int | None) -> LiveData:
    """Return the data of live streams, of which `value` is one asking, with the first batch of each part."""
    streams = Streams(value, source.name, 0, steps)
    samples = {}
    for part in PARTS:
        try:
            samples[part] = next(streams.batches(part))
        except BadInput:
            raise
        except (ValueError, KeyError, TypeError, IndexError) as error:
            refuse(f"the {_ROLES[part]} stream of {source.name} fails: {first_line(error)}", "Iterate it in Python to see where.")
    live = Live(source, samples, steps, batch_size)
    return LiveData(source.name, samples["train"], samples["test"], 0, live=live)
