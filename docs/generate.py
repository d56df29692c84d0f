"""Write the pages and pictures that are made of something else: `make docs`.

docs/layers.md, docs/reference/layers.md and docs/pictures from the docstrings and the layers, docs/commands.md from the command,
the picture of the design from the imports, and docs/reproductions.md, docs/atlas.md, docs/methods.md
and docs/audit.md from stored results.

The picture of a method is what its example makes of ones, one square a unit; a few methods, whose example says little on ones, are
drawn from calls of their own in `SPECIAL`.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

import keras
import numpy as np
import typer

import keras_dropout as kd
from keras_dropout import catalogue, cli
from keras_dropout.catalogue import Method

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
import atlas_page  # noqa: E402 - files beside this one
import audit_page  # noqa: E402
import methods_page  # noqa: E402
import module_picture  # noqa: E402
import reach_page  # noqa: E402
import reproduction_page  # noqa: E402
from docstrings import escaped, markdown  # noqa: E402

ATLAS = HERE.parent / "benchmarks" / "results" / "atlas.json"
METHODS = ATLAS.with_name("methods.json")
AUDIT = ATLAS.with_name("audit.json")
REACH = ATLAS.with_name("reach.json")
CELL, GAP, SPACE, TOP = 10, 2, 14, 18
LEVELS = 5

STYLE = """<style>
text{font:11px system-ui,sans-serif;fill:#57606a}
path{fill:none;stroke-width:10;stroke-dasharray:10 2}
.p{stroke:#2f6fbf}.n{stroke:#d9822b}.z{stroke:#8c959f}
@media(prefers-color-scheme:dark){text{fill:#9198a1}.p{stroke:#58a6ff}.n{stroke:#f0a050}}
</style>"""


class Picture(NamedTuple):
    """Rows of panels, each a title and a grid of factors; and what rows and columns are."""

    panels: list[list[tuple[str, np.ndarray]]]
    caption: str


def pictures(methods: dict[str, Method]) -> dict[str, str]:
    """The SVG of each method that is no other name for one."""
    return {name: svg(picture(method), name) for name, method in methods.items() if not method.alias}


def picture(method: Method) -> Picture:
    return SPECIAL[method.name]() if method.name in SPECIAL else of_ones(method)


def of_ones(method: Method) -> Picture:
    """What the example makes of ones, by the rank of the input."""
    keras.utils.set_random_seed(0)  # the weights of a layer in it
    y = array(method.make()(np.ones(method.input_shape, method.input_dtype), training=True))
    if y.ndim == 2:
        return Picture([[("", y)]], "rows: examples, columns: units")
    if y.ndim == 3:
        axes = {"DropEdge": "nodes, columns: nodes", "ModalityDropout": "modalities, columns: features"}
        axes |= dict.fromkeys(("TokenDropout", "NEFTune"), "tokens, columns: features")
        return Picture([numbered("example", y)], f"rows: {axes.get(method.name, 'steps, columns: channels')}")
    if (y == y[..., :1]).all():
        return Picture([numbered("example", y[..., 0])], "rows: height, columns: width, all channels alike")
    maps, word = (y, "an example") if y.ndim == 4 else (y[0], "a depth, of one example")
    rows = [numbered("channel", np.moveaxis(image, -1, 0)) for image in maps]
    return Picture(rows, f"one row of maps: {word}; rows: height, columns: width")


def numbered(word: str, panels: np.ndarray) -> list[tuple[str, np.ndarray]]:
    return [(f"{word} {i}", panel) for i, panel in enumerate(panels, 1)]


def array(x) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(x), "float64")


def patches() -> Picture:
    """Tokens carry their number, so that those that are left can be told."""
    method = catalogue.method("PatchDropout")
    tokens = method.input_shape[1]
    x = np.broadcast_to(np.arange(tokens, dtype="float32")[None, :, None], method.input_shape)
    left = array(method.make()(x, training=True))[..., 0]
    return Picture(
        [[("", np.array([[t in row for t in range(tokens)] for row in left], float))]], "rows: examples, columns: tokens"
    )


def scheduled_paths() -> Picture:
    layer = kd.ScheduledDropPath(0.8, steps=20, seed=1)
    steps = [array(layer(np.ones((8, 1), "float32"), training=True))[:, 0] > 0 for _ in range(32)]
    return Picture([[("", np.stack(steps, axis=1))]], "rows: examples, columns: training steps; full rate from step 20")


def shake_shake() -> Picture:
    branch = np.ones((8, 8), "float32")
    rows = [array(kd.ShakeShake(seed=1)(pair, training=True)) for pair in ([branch, 0 * branch], [0 * branch, branch])]
    return Picture([[("share of branch 1", rows[0]), ("share of branch 2", rows[1])]], "rows: examples, columns: units")


def layer_drop() -> Picture:
    """A layer that triples: what is still 1 has skipped it."""
    layers = [kd.LayerDrop(0.1 * depth, keras.layers.Rescaling(3.0), seed=depth) for depth in range(1, 7)]
    runs = [[float(array(layer(np.ones((1, 1), "float32"), training=True)).item() == 3) for _ in range(28)] for layer in layers]
    return Picture([[("", np.array(runs))]], "rows: six layers with rates 0.1 to 0.6, columns: training steps")


def linear_decay() -> Picture:
    rates = catalogue.method("linear_decay").make()
    heights = np.arange(10, 0, -1)[:, None] / 20
    return Picture(
        [[("", (np.array(rates) >= heights - 1e-9).astype(float))]], "columns: blocks of the network, height: rate, up to 0.5"
    )


def two_passes() -> Picture:
    keras.utils.set_random_seed(1)
    model = kd.RDrop(keras.Sequential([keras.Input((14,)), kd.Dropout(0.3, seed=1)]))
    passes = [array(model(np.ones((8, 14), "float32"), training=True)) for _ in range(2)]
    return Picture([[("pass 1", passes[0]), ("pass 2", passes[1])]], "the same batch twice; rows: examples, columns: units")


def samples() -> Picture:
    same = keras.layers.Identity
    y = array(kd.MultiSampleDropout(0.3, same(), same(), samples=4, seed=1)(np.ones((6, 8), "float32"), training=True))
    return Picture(
        [numbered("sample", y.reshape(4, 6, 8))], "the same features under four masks; rows: examples, columns: features"
    )


def norms() -> Picture:
    kernel = np.random.default_rng(1).normal(size=(12, 14)).astype("float32")
    bars = []
    for weights in (kernel, array(kd.MaxNorm(3.0)(kernel))):
        norm = np.sqrt((weights.astype("float64") ** 2).sum(axis=0))
        bars.append((norm >= np.arange(10, 0, -1)[:, None] / 2 - 1e-3).astype(float))
    return Picture([[("before", bars[0]), ("after, limit 3", bars[1])]], "columns: units, height: norm of their weights, in halves")


def kernel_of(layer: keras.Layer, inputs: int = 8) -> np.ndarray:
    """The kernel of the Dense layer in `layer`, as it is in a call: a unit vector brings up one row of it."""
    return array(layer(np.eye(inputs, dtype="float32"), training=True))


def dense(units: int = 24, kernel: str | keras.initializers.Initializer = "ones") -> keras.layers.Dense:
    return keras.layers.Dense(units, kernel_initializer=kernel, use_bias=False)


def drop_connect() -> Picture:
    kernel = kernel_of(kd.DropConnect(0.3, dense(), per="batch", seed=1))
    return Picture([[("", kernel)]], 'a kernel, per="batch"; rows: inputs, columns: units')


def mixout() -> Picture:
    """A kernel of ones that was 0.4 in the first step."""
    layer = kd.Mixout(0.3, dense(kernel=keras.initializers.Constant(0.4)), seed=1)
    kernel_of(layer)
    layer.layer.set_weights([np.ones((8, 24))])
    kernel = kernel_of(layer)
    return Picture([[("", kernel)]], "rows: inputs, columns: outputs of a Dense layer; light: the weights of the start")


def dare() -> Picture:
    (left,) = kd.dare([np.ones((8, 24))], [np.zeros((8, 24))], 0.5, seed=1)
    return Picture([[("", left)]], "what is left of the change of a kernel; rows: inputs, columns: units")


def targeted() -> Picture:
    keras.utils.set_random_seed(1)
    layer = kd.TargetedDropout(0.66, dense(kernel="random_uniform"), targeted=0.75, seed=1)
    return Picture([[("", np.abs(kernel_of(layer)))]], "the sizes of a kernel's weights; rows: inputs, columns: units")


def sparse_variational() -> Picture:
    layer = kd.SparseVariationalDropout(dense(), kl_weight=0.0, log_variance=-2.0, seed=1)
    return Picture([[("", kernel_of(layer))]], "a kernel of ones; rows: inputs, columns: units")


def lora() -> Picture:
    layer = kd.LoRADropout(0.3, keras.layers.Dense(24, kernel_initializer="zeros", lora_rank=24), seed=1)
    layer.build((None, 24))
    for adapter in (layer.layer.lora_kernel_a, layer.layer.lora_kernel_b):
        adapter.assign(np.eye(24))
    y = array(layer(np.ones((8, 24), "float32"), training=True))
    return Picture([[("", y)]], "rows: examples, columns: inputs of the adapter")


def of_inputs(layer: keras.Layer) -> Picture:
    """A layer with the identity as kernel shows what becomes of its inputs."""
    return Picture(
        [[("", array(layer(np.ones((8, 24), "float32"), training=True)))]], "rows: examples, columns: inputs of the layer"
    )


def concrete() -> Picture:
    return of_inputs(kd.ConcreteDropout(0.3, dense(kernel="identity"), seed=1))


def variational() -> Picture:
    return of_inputs(kd.VariationalDropout(0.3, dense(kernel="identity"), kl_weight=0.0, seed=1))


def standout() -> Picture:
    layer = kd.Standout(dense(kernel="identity"), alpha=1.0, seed=1)
    x = np.broadcast_to(np.linspace(-3, 3, 24, dtype="float32"), (8, 24))
    kept = array(layer(x, training=True)) != 0
    return Picture([[("", kept.astype(float))]], "rows: examples, columns: units, from -3 to 3 before the activation")


def simple(wrapper: type, rate: float, kernel: str, recurrent: str, x: np.ndarray, **options) -> np.ndarray:
    """States of a linear recurrent layer of 12 units."""
    rnn = keras.layers.SimpleRNN(
        12,
        activation="linear",
        kernel_initializer=kernel,
        recurrent_initializer=recurrent,
        use_bias=False,
        return_sequences=True,
    )
    return array(wrapper(rate, rnn, seed=1, **options)(x.astype("float32"), training=True))


def weight_drop() -> Picture:
    """A unit vector at the first step, and nothing at the second, brings up a row of the recurrent kernel."""
    x = np.stack([np.eye(12), np.zeros((12, 12))], axis=1)
    y = simple(kd.WeightDrop, 0.3, "identity", "ones", x)
    return Picture([[("", y[:, 1])]], "a recurrent kernel; rows and columns: units")


def variational_rnn() -> Picture:
    x = np.ones((2, 7, 12))
    inputs = simple(kd.VariationalRNNDropout, 0.3, "identity", "zeros", x, recurrent_rate=0.0) > 0
    x[:, 1:] = 0
    hidden = simple(kd.VariationalRNNDropout, 0.0, "identity", "identity", x, recurrent_rate=0.3) > 0
    titles = ("inputs", "hidden state", "inputs", "hidden state")
    grids = (inputs[0], hidden[0], inputs[1], hidden[1])
    return Picture([list(zip(titles, grids))], "two examples; rows: steps, columns: units")


def recurrent_dropout() -> Picture:
    """Gates open to the update and closed to the past: the cell is the update."""
    lstm = keras.layers.LSTM(12, kernel_initializer="zeros", recurrent_initializer="zeros", return_sequences=True)
    layer = kd.RecurrentDropout(0.3, lstm, seed=1)
    layer.build((None, 7, 1))
    lstm.cell.bias.assign(np.repeat([50.0, -50.0, 50.0, 50.0], 12))
    y = array(layer(np.ones((3, 7, 1), "float32"), training=True))
    return Picture([numbered("example", y)], "updates of an LSTM; rows: steps, columns: units")


def zoneout() -> Picture:
    x = np.broadcast_to(np.arange(1.0, 8.0)[None, :, None], (3, 7, 12))
    new = simple(kd.Zoneout, 0.3, "identity", "zeros", x) == x
    return Picture(
        [numbered("example", new.astype(float))], "blue: new state, pale: that of the step before; rows: steps, columns: units"
    )


def embedding() -> Picture:
    ids = (np.arange(8)[:, None] + np.arange(24)) % 8
    layer = kd.EmbeddingDropout(0.3, keras.layers.Embedding(8, 1, embeddings_initializer="ones"), seed=1)
    y = array(layer(ids, training=True))[..., 0]
    return Picture([[("", y)]], "the same eight words in every sentence, each time one further; rows: sentences, columns: words")


def words() -> Picture:
    ids = np.full((8, 24), 5, "int32")
    kept = array(kd.WordDropout(0.3, unknown=2, seed=1)(ids, training=True)) == ids
    return Picture([[("", kept.astype(float))]], "pale: the unknown word; rows: sentences, columns: words")


def attention_weights(wrapper: type) -> Picture:
    """Queries and keys of zeros give even weights; values of unit vectors bring them up."""
    tokens = 12
    attention = keras.layers.MultiHeadAttention(1, tokens, use_bias=False)
    layer = wrapper(0.3, attention, seed=1)
    x = np.broadcast_to(np.eye(tokens, dtype="float32"), (3, tokens, tokens))
    layer(x)
    zeros, one = np.zeros((tokens, 1, tokens)), np.eye(tokens)
    attention.set_weights([zeros, zeros, one[:, None], one[None]])
    return Picture([numbered("example", array(layer(x, training=True)))], "weights of one head; rows: queries, columns: keys")


def attention_dropout() -> Picture:
    return attention_weights(kd.AttentionDropout)


def drop_key() -> Picture:
    return attention_weights(kd.DropKey)


def drop_head() -> Picture:
    """Head h hands feature h on."""
    heads = 12
    attention = keras.layers.MultiHeadAttention(heads, 1, use_bias=False)
    layer = kd.DropHead(0.3, attention, seed=1)
    x = np.ones((8, 1, heads), "float32")
    layer(x)
    zeros, one = np.zeros((heads, heads, 1)), np.eye(heads)
    attention.set_weights([zeros, zeros, one[..., None], one[:, None]])
    return Picture([[("", array(layer(x, training=True))[:, 0])]], "rows: examples, columns: heads")


SPECIAL: dict[str, Callable[[], Picture]] = {
    "PatchDropout": patches,
    "ScheduledDropPath": scheduled_paths,
    "ShakeShake": shake_shake,
    "LayerDrop": layer_drop,
    "linear_decay": linear_decay,
    "DropConnect": drop_connect,
    "Mixout": mixout,
    "dare": dare,
    "WeightDrop": weight_drop,
    "LoRADropout": lora,
    "VariationalRNNDropout": variational_rnn,
    "RecurrentDropout": recurrent_dropout,
    "Zoneout": zoneout,
    "EmbeddingDropout": embedding,
    "WordDropout": words,
    "AttentionDropout": attention_dropout,
    "DropKey": drop_key,
    "DropHead": drop_head,
    "ConcreteDropout": concrete,
    "VariationalDropout": variational,
    "SparseVariationalDropout": sparse_variational,
    "Standout": standout,
    "TargetedDropout": targeted,
    "RDrop": two_passes,
    "MultiSampleDropout": samples,
    "MaxNorm": norms,
}


def svg(picture: Picture, name: str) -> str:
    """The squares of a row that look alike are one dashed line: a file of some kilobytes."""
    largest = max(float(np.abs(grid).max()) for row in picture.panels for _, grid in row)
    pitch, y, width = CELL + GAP, 0, 0
    lines: dict[tuple[str, float], list[str]] = {}
    texts = []
    for row in picture.panels:
        x = 0
        titled = TOP if any(title for title, _ in row) else 2
        for title, grid in row:
            texts += [f'<text x="{x}" y="{y + 12}">{title}</text>'] if title else []
            for i, values in enumerate(grid):
                for style, first, count in runs([look(value / largest) for value in values]):
                    at = f"M{x + first * pitch} {y + titled + i * pitch + CELL // 2}h{count * pitch - GAP}"
                    lines.setdefault(style, []).append(at)
            # A title may be wider than its grid.
            x += max(grid.shape[1] * pitch, 6 * len(title)) + SPACE
        y += titled + max(len(grid) for _, grid in row) * pitch
        width = max(width, x - SPACE)
    height = y + TOP
    width = max(width, 6 * len(picture.caption))
    texts.append(f'<text x="0" y="{height - 5}">{picture.caption}</text>')
    paths = [path(kind, opacity, parts) for (kind, opacity), parts in sorted(lines.items())]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">'
    return "\n".join([head, f"<title>{name}</title>", STYLE, *paths, *texts, "</svg>"]) + "\n"


def path(kind: str, opacity: float, parts: list[str]) -> str:
    return f'<path class="{kind}" opacity="{opacity:g}" d="' + "".join(parts) + '"/>'


def look(share: float) -> tuple[str, float]:
    """The class and opacity of a square for a factor as a share of the largest: blue, orange where negative, pale where 0."""
    if share == 0:
        return "z", 0.2
    return "p" if share > 0 else "n", round(max(1, round(abs(share) * LEVELS)) / LEVELS, 2)


def runs(looks: list) -> list[tuple[tuple, int, int]]:
    """(look, first, count) of each stretch of squares that look alike."""
    found = []
    for n, each in enumerate(looks):
        if found and found[-1][0] == each:
            found[-1][2] += 1
        else:
            found.append([each, n, 1])
    return [tuple(run) for run in found]


def page(methods: dict[str, Method]) -> str:
    """docs/layers.md."""
    parts = [
        "# The methods",
        "Made from the docstrings by `make docs`; `keras-dropout layers` prints the same in a terminal. Each picture is\n"
        "what the layer itself does: to ones, with the seed of its example, unless the caption says otherwise. Blue is kept,\n"
        "the stronger the larger the factor; pale is dropped; orange is negative.",
    ]
    groups = list(dict.fromkeys(method.group for method in methods.values()))
    for group in groups:
        names = [name for name, method in methods.items() if method.group == group]
        parts.append(
            f"{catalogue.title(group)}\n\n" + " · ".join(f"[{name}](#{methods[name].value.__name__.lower()})" for name in names)
        )
    for group in groups:
        parts.append(f"## {group.capitalize()}")
        parts += [section(method) for method in methods.values() if method.group == group and not method.alias]
    return "\n\n".join(parts) + "\n"


def reference(methods: dict[str, Method]) -> str:
    """docs/reference/layers.md: what MkDocs makes the reference of, module by module."""
    parts = [
        "# Layers",
        "[The methods](../layers.md) shows each with its formula and a picture. `rate` comes first, `seed` last; every rate can be "
        "read and\nset at any time, and takes effect at the next step.",
    ]
    for group in dict.fromkeys(method.group for method in methods.values()):
        named = [method for method in methods.values() if method.group == group and not method.alias]
        names = ", ".join(method.name for method in named)
        parts.append(f"## {group.capitalize()}")
        parts.append(f'::: {named[0].value.__module__}\n    options: {{members: [{names}], filters: ["!^[a-z_]"]}}')
    return "\n\n".join(parts) + "\n"


def section(method: Method) -> str:
    shape = f" on `{method.input_dtype}` of shape `{method.input_shape}`" if method.input_shape else ""
    rows = [f"- **{name}**: {escaped(text)}" for name, text in method.sections.items()]
    return "\n".join(
        [
            f"### {method.name}\n",
            f"{escaped(method.summary)}\n",
            f"![{method.name}](pictures/{method.name}.svg)\n",
            f"```text\n{method.formula}\n```\n",
            *rows,
            f"- **Example**: `{method.example}`{shape}",
        ]
    )


def commands() -> str:
    """docs/commands.md: what `--help` of every command says."""
    parts = [
        "# The command",
        "Made from `--help` of each command by `make docs`. Data go to stdout, everything else to stderr. Exit status: 0 done,\n"
        "1 some runs failed, mistakes were found, or `--fail-if` says so, 2 bad input, 130 interrupted by Ctrl-C, 143 by SIGTERM, "
        "129 by SIGHUP.",
    ]
    root = typer.main.get_command(cli.app)
    for words, command, context in _commands(root, typer.Context(root, info_name="keras-dropout"), ()):
        usage = " ".join(["keras-dropout", *words, *command.collect_usage_pieces(context)])
        parts += [f"## {' '.join(words)}", f"```text\n{usage}\n```"]
        text, _, examples = command.help.partition("\b\nExamples:\n")
        parts.append(markdown(text))
        if examples:
            parts.append("\n".join(["```", *(line.strip() for line in examples.splitlines() if line.strip()), "```"]))
        if command.epilog:
            parts.append(markdown(command.epilog))
        records = [record for each in command.get_params(context) if (record := each.get_help_record(context))]
        parts.append("\n".join(["| | |", "|---|---|", *(f"| {_option(left)} | {escaped(right)} |" for left, right in records)]))
    return "\n\n".join(parts) + "\n"


def _commands(group: typer.core.TyperGroup, context: typer.Context, words: tuple[str, ...]) -> Iterator[tuple]:
    """(words, command, context) of each, those of a group after the group."""
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        inner = typer.Context(command, info_name=name, parent=context)
        yield (*words, name), command, inner
        if hasattr(command, "list_commands"):
            yield from _commands(command, inner, (*words, name))


def _option(left: str) -> str:
    """`--option` <kind>, in a cell of a table."""
    return "`" + left.replace("|", "\\|") + "`"


def main() -> None:
    methods = catalogue.methods()
    (HERE / "layers.md").write_text(page(methods))
    (HERE / "reference" / "layers.md").write_text(reference(methods))
    (HERE / "commands.md").write_text(commands())
    (HERE / "reproductions.md").write_text(reproduction_page.page())
    (HERE / "methods.md").write_text(methods_page.page(json.loads(METHODS.read_text())))
    (HERE / "audit.md").write_text(audit_page.page(json.loads(AUDIT.read_text())))
    (HERE / "reach.md").write_text(reach_page.page(json.loads(REACH.read_text())))
    (HERE / "atlas.md").write_text(atlas_page.page(json.loads(ATLAS.read_text())))
    (HERE / "pictures" / "design").mkdir(exist_ok=True)
    (HERE / "pictures" / "design" / "modules.svg").write_text(module_picture.svg())
    folder = HERE / "pictures"
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.svg"):
        old.unlink()
    for name, text in pictures(methods).items():
        (folder / f"{name}.svg").write_text(text)


if __name__ == "__main__":
    main()
