"""Which module of a crate uses which: from `use` statements, paths in the code, what a module calls in its children, and macros of a module above that
are used without a path.
"""

import pathlib
import re

from source import code_of

Module = tuple[str, ...]


def module_of(path: pathlib.Path, root: pathlib.Path) -> Module:
    parts = path.relative_to(root).with_suffix("").parts
    return parts[:-1] if parts[-1] in ("mod", "lib") else parts


def leaves(tree: str, prefix: Module = ()) -> list[Module]:
    """`a::{b, c::{self, d}}` as (a, b), (a, c), (a, c, d)."""
    path, brace, rest = tree.strip().partition("{")
    at = prefix + tuple(word for word in re.sub(r"\s+as\s+\w+", "", path).split("::") if word.strip())
    at = tuple(word.strip() for word in at)
    if not brace:
        return [at[:-1] if at[-1:] == ("self",) and len(at) > 1 else at]
    parts, depth, part = [], 0, ""
    for letter in rest.rstrip()[:-1]:
        depth += {"{": 1, "}": -1}.get(letter, 0)
        if letter == "," and not depth:
            parts.append(part)
            part = ""
        else:
            part += letter
    return [leaf for part in [*parts, part] if part.strip() for leaf in leaves(part, at)]


def absolute(path: Module, module: Module) -> Module | None:
    if path[0] == "crate":
        return path[1:]
    if path[0] not in ("self", "super"):
        return None
    at = list(module)
    for word in path:
        if word == "super":
            at.pop()
        elif word != "self":
            break
    return (*at, *(word for word in path if word not in ("self", "super")))


def uses(paths: list[pathlib.Path], root: pathlib.Path) -> dict[Module, set[Module]]:
    modules = {module_of(path, root): path for path in paths}
    codes = {module: code_of(path) for module, path in modules.items()}
    # A macro that its module gives a path by `use` is counted by that.
    macros = {
        module: {name for name in re.findall(r"\bmacro_rules!\s*(\w+)", code) if not re.search(rf"\buse {name}\b", code)}
        for module, code in codes.items()
    }
    found: dict[Module, set[Module]] = {}
    for module, code in codes.items():
        statement = re.compile(r"^\s*(?:pub(?:\([^)]*\))? )?use ([^;]+);", re.MULTILINE)
        wanted = [leaf for match in statement.finditer(code) for leaf in leaves(match[1])]
        rest = statement.sub("", code)
        wanted += [(match[1], *match[2].strip(":").split("::")) for match in re.finditer(r"\b(crate|super|self)((?:::\w+)+)", rest)]
        targets = [target for leaf in wanted if (target := absolute(leaf, module)) is not None]
        children = [child for child in modules if module and child[:-1] == module]
        targets += [child for child in children if re.search(rf"(?<![\w:]){child[-1]}::", rest)]
        targets += [(*module, *leaf) for leaf in wanted if (*module, leaf[0]) in children]
        own = set(re.findall(r"\bmacro_rules!\s*(\w+)", code))
        called = set(re.findall(r"(?<![\w:])(\w+)!\s*[(\[{]", rest)) - own - {leaf[-1] for leaf in wanted}
        targets += [above for n in range(len(module)) if (above := module[:n]) in modules and called & macros[above]]
        known = [next((t[:n] for n in range(len(t), 0, -1) if t[:n] in modules), None) for t in targets]
        found[module] = {target for target in known if target is not None and target != module}
    return found


def names(code: str, module: Module, target: Module) -> bool:
    """Whether the code of a module reaches another: by a path, a `use` of any form, or a `use` of all there is beside it."""
    statement = re.compile(r"\buse ([^;]+);")
    reached = [leaf for match in statement.finditer(code) for leaf in leaves(match[1])]
    reached += [tuple(match[0].split("::")) for match in re.finditer(r"\b(?:crate|super|self)(?:::\w+)+", code)]
    known = [path for leaf in reached if (path := absolute(leaf, module)) is not None]
    return (
        any(path[: len(target)] == target or path == (*target[:-1], "*") for path in known)
        or re.search(rf"\b{'::'.join(target[-2:])}\b", code) is not None
    )


def circles(graph: dict[Module, set[Module]]) -> list[list[Module]]:
    """Modules that reach one another, by Tarjan's algorithm."""
    index: dict[Module, int] = {}
    low: dict[Module, int] = {}
    stack: list[Module] = []
    found = []

    def visit(module: Module) -> None:
        index[module] = low[module] = len(index)
        stack.append(module)
        for target in graph.get(module, ()):
            if target not in index:
                visit(target)
                low[module] = min(low[module], low[target])
            elif target in stack:
                low[module] = min(low[module], index[target])
        if low[module] == index[module]:
            at = stack.index(module)
            if len(stack) - at > 1:
                found.append(sorted(stack[at:]))
            del stack[at:]

    for module in graph:
        if module not in index:
            visit(module)
    return found
