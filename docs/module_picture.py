"""docs/pictures/design/modules.svg: the parts of the package, one above the other, and their imports, read from the files.

Imports go down only (a test holds all modules to that); an arc to the right is drawn from a part to each part that it imports, the
thicker the more statements, and tells both where it is pointed at.
"""

import ast
from collections import Counter
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "keras_dropout"
# From the top; modules by the first part of their names below the package.
PARTS = {
    "the command": ("__main__", "cli", "commands"),
    "published experiments": ("reproductions",),
    "the bench": ("bench",),
    "dropout at prediction": ("ensemble", "uncertainty", "thinning", "moments", "sampling"),
    "a model read and changed": ("callbacks", "models", "survey"),
    "layers and what goes with them": ("testing", "catalogue", "companions", "layers"),
    "random quantities, by backend": ("noise", "backends"),
    "without a framework": (
        *("masks", "schedules", "metrics", "calibration", "notation"),
        *("display", "frameworks", "errors", "characters", "examples", "cores", "writing", "__init__"),
    ),
}
PART_OF = {name: part for part, names in PARTS.items() for name in names}
WIDTH, HEIGHT, GAP, MARGIN = 560, 46, 14, 150
STYLE = """<style>
text{font:12px system-ui,sans-serif;fill:#24292f}.small{font-size:11px;fill:#57606a}
rect{fill:#eef3fb;stroke:#2f6fbf}path{fill:none;stroke:#2f6fbf;opacity:.45}path:hover{opacity:1;stroke:#d9822b}
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.small{fill:#9198a1}rect{fill:#1b2636;stroke:#58a6ff}path{stroke:#58a6ff}}
</style>"""


def parts() -> dict[str, list[Path]]:
    """The files of each part. Every file of the package is in one."""
    found: dict[str, list[Path]] = {part: [] for part in PARTS}
    for path in sorted(PACKAGE.rglob("*.py")):
        found[PART_OF[path.relative_to(PACKAGE).with_suffix("").parts[0]]].append(path)
    return found


def imports() -> Counter:
    """How many import statements lead from one part to another."""
    found: Counter = Counter()
    for part, paths in parts().items():
        for path in paths:
            for node in ast.walk(ast.parse(path.read_text())):
                if not (isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "keras_dropout"):
                    continue
                inner = node.module.split(".")[1:]
                for name in [inner[0]] if inner else [alias.name for alias in node.names]:
                    found[part, PART_OF.get(name, PART_OF["__init__"])] += 1
    return Counter({pair: count for pair, count in found.items() if pair[0] != pair[1]})


def svg() -> str:
    top = {part: 2 + number * (HEIGHT + GAP) for number, part in enumerate(PARTS)}
    lines = []
    for (upper, lower), count in sorted(imports().items(), key=lambda item: item[1]):
        start, end = top[upper] + HEIGHT / 2, top[lower] + HEIGHT / 2
        bend = WIDTH + 18 + (end - start) * 0.3
        arc = f"M{WIDTH} {start:g}C{bend:g} {start:g} {bend:g} {end:g} {WIDTH} {end:g}"
        title = f"<title>{upper}: {count} imports from {lower}</title>"
        lines.append(f'<path d="{arc}" stroke-width="{1 + count**0.5 / 2:.1f}">{title}</path>')
    for part, paths in parts().items():
        size = sum(len(path.read_text().splitlines()) for path in paths)
        y = top[part]
        lines.append(f'<rect x="1" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="6"/>')
        lines.append(f'<text x="12" y="{y + 19}">{part}</text>')
        names = " ".join(name for name in PARTS[part] if name != "__init__")
        lines.append(f'<text class="small" x="12" y="{y + 36}">{names}</text>')
        told = f"{len(paths)} files, {round(size, -2):,} lines"
        lines.append(f'<text class="small" x="{WIDTH - 10}" y="{y + 19}" text-anchor="end">{told}</text>')
    width, height = WIDTH + MARGIN, top[list(PARTS)[-1]] + HEIGHT + 2
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">'
    return "\n".join([head, "<title>The parts of keras-dropout and their imports</title>", STYLE, *lines, "</svg>"]) + "\n"
