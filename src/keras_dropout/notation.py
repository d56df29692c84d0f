"""The text form of a site's dropout: the same on the command line, in study files and in Python.

0.2    linear(0.5, 0.0)    GaussianDropout(0.3)    DropBlock2D(0.1, block_size=5)    Standout()
"""

import ast
import re
from collections.abc import Mapping
from typing import Any

from keras_dropout import schedules
from keras_dropout.errors import refuse


def split(text: str, at: str = ",") -> list[str]:
    """Return the parts between commas, or other separators, outside parentheses."""
    parts, depth = [""], 0
    for character in text:
        depth += (character == "(") - (character == ")")
        if character == at and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def spec_text(spec: Mapping[str, Any]) -> str:
    """Return a spec as it is written at a site: a rate, a schedule, or Kind(rate, option=…)."""
    rate = str(schedules.from_document(spec["schedule"])) if "schedule" in spec else repr(spec["rate"]) if "rate" in spec else ""
    options = [f"{name}={value!r}" for name, value in spec.items() if name not in ("kind", "rate", "schedule")]
    return rate if spec["kind"] == "Dropout" and not options else f"{spec['kind']}({', '.join(filter(None, [rate, *options]))})"


def parse(text: str) -> Any:
    """Return the rate or schedule in the text, or the spec of a layer written Kind(rate, option=…)."""
    text = text.strip()
    call = re.fullmatch(r"(\w+)\((.*)\)", text, re.DOTALL)
    if not call:
        try:
            return float(text)
        except ValueError:
            return text
    if call[1] in schedules.KINDS:
        return schedules.parse(text)
    try:
        node = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        node = None
    if not isinstance(node, ast.Call):
        refuse(f"cannot read the layer {text!r}.", "Write Kind(rate, option=value) with plain numbers, strings and tuples.")
    options = {keyword.arg: _option(keyword.value) for keyword in node.keywords}
    rates = [_option(value) for value in node.args]
    if len(rates) > 1:
        refuse(f"the layer {text!r} has more than one value without a name.", "Write Kind(rate, option=value).")
    return {"kind": call[1], **({"rate": rates[0]} if rates else {}), **options}


def _option(node: ast.expr) -> Any:
    if isinstance(node, ast.Call):
        return schedules.parse(ast.unparse(node))
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError):
        refuse(f"cannot read the option {ast.unparse(node)!r}.", "Write plain numbers, strings and tuples, or a schedule.")
