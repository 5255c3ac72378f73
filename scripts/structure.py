"""Print the structure of the six packages: sizes, rooms, arrows, levels, names that clash.

``tests/architecture/test_structure.py`` holds these figures to their limits.

    python scripts/structure.py
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("kernels", "model", "sandboxes", "tools", "agent", "evals")
TOWERS = (("kernels", "model"), ("sandboxes", "tools"), ("agent", "evals"))
LONG_FUNCTION = 60

Trees = Mapping[Path, ast.Module]


def read(package: str, root: Path = ROOT) -> dict[Path, ast.Module]:
    """Return the syntax tree of every file of ``package``, by its path from ``root``."""
    paths = sorted((root / package).rglob("*.py"))
    return {p.relative_to(root): ast.parse(p.read_text("utf-8")) for p in paths}


def lines(package: str, root: Path = ROOT) -> int:
    """Count the lines of the package's Python files."""
    return sum(len(p.read_text("utf-8").splitlines()) for p in (root / package).rglob("*.py"))


def entries(package: str, root: Path = ROOT) -> list[str]:
    """List the files and folders at the package's root."""
    return sorted(
        path.name
        for path in (root / package).iterdir()
        if path.suffix == ".py" or any(path.glob("*.py"))
    )


def rooms(trees: Trees) -> dict[str, set[str]]:
    """Return which room of a package imports which: its folders and its root's files."""
    edges: dict[str, set[str]] = defaultdict(set)
    for path, tree in trees.items():
        package, room = path.parts[0], Path(path.parts[1]).stem
        if room == "__init__":
            continue
        edges[room] |= {
            target.split(".")[1]
            for target in imports(tree)
            if target.startswith(f"{package}.") and target.split(".")[1] != room
        }
    names = set(edges)
    return {room: targets & names for room, targets in sorted(edges.items())}


def imports(tree: ast.Module) -> Iterator[str]:
    """Yield what a file imports as dotted names, wherever the import stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def levels(edges: Mapping[str, set[str]]) -> dict[str, int]:
    """Return each room's level: 1 if it imports none, else one above the highest it imports.

    Raises ``ValueError`` if rooms import each other in a ring.
    """
    found: dict[str, int] = {}
    while len(found) < len(edges):
        ready = {room for room in edges.keys() - found.keys() if edges[room] <= found.keys()}
        if not ready:
            raise ValueError(f"rooms in a ring: {', '.join(sorted(edges.keys() - found.keys()))}")
        found |= {room: 1 + max((found[t] for t in edges[room]), default=0) for room in ready}
    return found


def callables(trees: Trees) -> list[str]:
    """List the parameters and fields whose annotation is a callable, by place and name."""
    known = {"Callable"} | {
        node.targets[0].id
        for tree in trees.values()
        for node in tree.body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and ast.unparse(node.value).startswith("Callable[")
    }

    def is_callable(annotation: ast.expr | None) -> bool:
        nodes = ast.walk(annotation) if annotation is not None else ()
        return any(isinstance(n, ast.Name) and n.id in known for n in nodes)

    found = []
    for path, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                found += [f"{path}:{a.lineno} {a.arg}" for a in given if is_callable(a.annotation)]
            elif isinstance(node, ast.ClassDef):
                found += [
                    f"{path}:{field.lineno} {ast.unparse(field.target)}"
                    for field in node.body
                    if isinstance(field, ast.AnnAssign) and is_callable(field.annotation)
                ]
    return found


def default_lambdas(trees: Trees) -> list[str]:
    """List the places where a parameter or field has a lambda for its default."""
    found = []
    for path, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                defaults = [*node.args.defaults, *node.args.kw_defaults]
            elif isinstance(node, ast.ClassDef):
                defaults = [f.value for f in node.body if isinstance(f, ast.AnnAssign)]
            else:
                continue
            found += [f"{path}:{d.lineno}" for d in defaults if isinstance(d, ast.Lambda)]
    return found


def long_functions(trees: Trees, most: int = LONG_FUNCTION) -> list[str]:
    """List the functions with more than ``most`` lines, by place, name and length."""
    return [
        f"{path}:{node.lineno} {node.name} {node.end_lineno - node.lineno + 1}"
        for path, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno >= most
    ]


def clashes(packages: tuple[str, ...], root: Path = ROOT) -> dict[str, list[str]]:
    """Return the names that two modules, or two public classes, of ``packages`` share."""
    places: dict[str, list[str]] = defaultdict(list)
    for package in packages:
        for path, tree in read(package, root).items():
            if path.stem != "__init__":
                places[f"module {path.stem}"].append(str(path))
            for node in tree.body:
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    places[f"class {node.name}"].append(f"{path}:{node.lineno}")
    return {name: found for name, found in sorted(places.items()) if len(found) > 1}


def main() -> None:
    """Print all figures."""
    total = 0
    for package in PACKAGES:
        total += (count := lines(package))
        long = long_functions(read(package))
        print(f"{package:10} {count:6} lines, {len(long)} functions over {LONG_FUNCTION} lines")
        for place in long if package != "kernels" else ():
            print(f"           {place}")
    print(f"{'together':10} {total:6} lines\n")
    agent = read("agent")
    edges = rooms(agent)
    heights = levels(edges)
    print(f"agent/: {len(entries('agent'))} files or folders at its root")
    print(f"        {max(heights.values())} import levels")
    print(f"        {sum(map(len, edges.values()))} arrows between them")
    for room in sorted(edges, key=lambda name: (-heights[name], name)):
        print(f"        {heights[room]} {room:10} -> {', '.join(sorted(edges[room]))}")
    print(f"        {len(callables(agent))} parameters and fields that are callables")
    print(f"        {len(default_lambdas(agent))} default lambdas")
    for tower in TOWERS:
        for name, places in clashes(tower).items():
            print(f"{' + '.join(tower)}: {name}: {', '.join(places)}")


if __name__ == "__main__":
    main()
