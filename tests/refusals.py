"""What the package tells its user to do, found in its source: the fixes of its refusals, warnings and mistakes."""

import ast
import functools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

SOURCE = Path(__file__).parents[1] / "src" / "keras_dropout"
# The functions that say something to a user, and the argument that is the way out: its name and its place.
SAY = {"refuse": {"fix": 1}, "warn": {"message": 0}, "note": {"line": 0}, "Known": {"fix": 2}}
# A way out that can be followed as it stands: a command, an option, a call, an argument with its value, a line for a shell.
FOLLOWED = re.compile(r"keras-dropout [a-z]|(?<![\w-])--[a-z]|(?<![\w>])\w+=|\w\((?!s\))|file\.py:|pip |iconv|mkdir|python -c")

Trees = dict[str, ast.Module]  # by path
Sayers = dict[str, dict[str, int | None]]


class Scope(NamedTuple):
    """Where an expression stands."""

    function: ast.AST
    module: ast.Module
    trees: Trees
    functions: dict[str, list[tuple[ast.FunctionDef, ast.Module]]]  # of the package, by name


def sources() -> Trees:
    """The package's modules."""
    return {path.relative_to(SOURCE).as_posix(): ast.parse(path.read_text()) for path in sorted(SOURCE.rglob("*.py"))}


def ways_out(found: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """Of what `fixes` gives, the ways out that can be followed, and those of each mistake."""
    return {(path, text) for path, text in found if path == "models/evidence.py" or FOLLOWED.search(text)}


def fixes(trees: Trees) -> set[tuple[str, str]]:
    """(module, text) of each way out; what is known only when it is said stands as {} in the text."""
    said = _sayers(trees)
    functions: dict[str, list] = {}
    for module in trees.values():
        for function in _nodes(module, ast.FunctionDef):
            functions.setdefault(function.name, []).append((function, module))
    found = set()
    for path, module in trees.items():
        for function in (module, *_nodes(module, ast.FunctionDef)):
            for call in _calls(function, said):
                for argument in _arguments(call, said[_name(call)]):
                    found |= {(path, text) for text in _texts(argument, Scope(function, module, trees, functions))}
    return found


def strings(trees: Trees) -> Iterator[tuple[str, str]]:
    """(module, text) of every string of the package, docstrings and help too."""
    for path, module in trees.items():
        joined = list(_nodes(module, ast.JoinedStr))
        parts = {part for each in joined for part in each.values}
        for node in (*joined, *(each for each in _nodes(module, ast.Constant) if each not in parts)):
            if isinstance(node, ast.JoinedStr):
                yield path, "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
            elif isinstance(node.value, str):
                yield path, node.value


def _sayers(trees: Trees) -> Sayers:
    """`SAY`, and each function that hands an argument of its own on as a way out, such as `errors.check_whole`."""
    found: Sayers = dict(SAY)
    functions = [function for module in trees.values() for function in _nodes(module, ast.FunctionDef)]
    while True:
        more: Sayers = {}
        for function in functions:
            names = [argument.arg for argument in function.args.args]
            own = {name: place - (names[0] in ("self", "cls")) for place, name in enumerate(names)}
            own |= dict.fromkeys(argument.arg for argument in function.args.kwonlyargs)
            for call in _calls(function, found):
                for argument in _arguments(call, found[_name(call)]):
                    for name in own.keys() & {each.id for each in _alternatives(argument) if isinstance(each, ast.Name)}:
                        more.setdefault(function.name, {})[name] = own[name]
        if more.keys() <= found.keys():
            return found
        found = more | found


def _alternatives(expression: ast.AST) -> list[ast.AST]:
    """The expressions of which one is the value."""
    if isinstance(expression, ast.BoolOp):
        return [each for value in expression.values for each in _alternatives(value)]
    if isinstance(expression, ast.IfExp):
        return [*_alternatives(expression.body), *_alternatives(expression.orelse)]
    return [expression]


def _texts(expression: ast.AST, scope: Scope, seen: frozenset[str] = frozenset()) -> Iterator[str]:
    """The texts that an expression may be, also by names that are assigned, and by functions of the package."""
    for each in _alternatives(expression):
        if isinstance(each, ast.Constant):
            yield from [each.value] if isinstance(each.value, str) else []
        elif isinstance(each, ast.JoinedStr):
            yield "".join(_part(part, scope, seen) for part in each.values)
        elif isinstance(each, ast.Name | ast.Attribute):
            name = each.id if isinstance(each, ast.Name) else each.attr
            if name not in seen:
                for value, where in _values(each, name, scope):
                    yield from _texts(value, where, seen | {name})
        elif isinstance(each, ast.Call) and _name(each) == "join":
            yield from _texts(each.args[0], scope, seen)
        elif isinstance(each, ast.Call) and _name(each) not in seen:
            named = scope.functions.get(_name(each), ())
            own = [found for found in named if found[1] is scope.module] if isinstance(each.func, ast.Name) else []
            for function, module in own or named:  # several modules may have one of that name
                for found in _nodes(function, ast.Return):
                    if found.value is not None:
                        yield from _texts(found.value, scope._replace(function=function, module=module), seen | {_name(each)})
        elif isinstance(each, ast.GeneratorExp):
            yield from _texts(each.elt, scope, seen)


def _part(part: ast.AST, scope: Scope, seen: frozenset[str]) -> str:
    """A part of a text with braces: what it is, if it is one text."""
    if isinstance(part, ast.Constant):
        return part.value
    found = list(_texts(part.value, scope, seen)) if isinstance(part.value, ast.Name | ast.Call) else []
    return found[0] if len(found) == 1 else "{}"


def _values(node: ast.AST, name: str, scope: Scope) -> Iterator[tuple[ast.AST, Scope]]:
    """What a name, or an attribute of that name, may be, and where that stands."""
    if isinstance(node, ast.Attribute):  # of a class, or an option of a descriptor
        options = (option.value for call in _nodes(scope.module, ast.Call) for option in call.keywords if option.arg == name)
        yield from ((value, scope) for value in (*_assigned(name, _walk(scope.module)), *options))
        return
    found = [*_assigned(name, _walk(scope.function))] or [*_assigned(name, scope.module.body)]
    yield from ((value, scope) for value in found)
    for imported in _nodes(scope.module, ast.ImportFrom) if not found else ():
        path = (imported.module or "").removeprefix("keras_dropout.").replace(".", "/")
        if name in [alias.name for alias in imported.names] and (module := scope.trees.get(f"{path}.py")):
            yield from ((value, scope._replace(function=module, module=module)) for value in _assigned(name, module.body))


def _assigned(name: str, statements: Sequence[ast.AST]) -> Iterator[ast.AST]:
    for statement in statements:
        if isinstance(statement, ast.Assign | ast.AnnAssign) and statement.value is not None:
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            if name in [getattr(target, "id", getattr(target, "attr", None)) for target in targets]:
                yield statement.value


def _arguments(call: ast.Call, wanted: dict[str, int | None]) -> Iterator[ast.AST]:
    for name, place in wanted.items():
        if place is not None and place < len(call.args):
            yield call.args[place]
        yield from (option.value for option in call.keywords if option.arg == name)


def _calls(function: ast.AST, named: Sayers) -> list[ast.Call]:
    return [call for call in _nodes(function, ast.Call) if _name(call) in named]


def _name(call: ast.Call) -> str:
    return getattr(call.func, "attr", getattr(call.func, "id", ""))


@functools.cache
def _walk(tree: ast.AST) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(tree))


def _nodes(tree: ast.AST, kind: type | tuple[type, ...]) -> Iterator:
    return (node for node in _walk(tree) if isinstance(node, kind))
