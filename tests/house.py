"""How the house reads, in figures: `python -m tests.house [FOLDER ...]` puts checkouts of ppnmf side by side, this one first.

Syntax nodes are those of `ast.walk`, docstrings left out; a function's are without those of functions inside it. Parameters
count `self`. An arrow upward is a module's import, also inside a function, from a layer above its own (`tests/test_layers.py`);
a name that no layer holds, as in an older checkout, counts in no arrow.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median, quantiles

from tests.test_layers import LEVEL, imported

LONG = 400  # lines; a module that is longer often has two subjects
Function = ast.FunctionDef | ast.AsyncFunctionDef
Documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def docstring(node: ast.AST) -> ast.Expr | None:
    """The statement that is the node's docstring."""
    if not isinstance(node, Documented) or ast.get_docstring(node, clean=False) is None:
        return None
    first = node.body[0]
    assert isinstance(first, ast.Expr)
    return first


def own_nodes(function: Function) -> Iterator[ast.AST]:
    """The nodes of a function, but for its docstring and the functions inside it."""
    waiting: list[ast.AST] = [function]
    described = docstring(function)
    while waiting:
        node = waiting.pop()
        yield node
        waiting += [
            child for child in ast.iter_child_nodes(node) if child is not described and not isinstance(child, Function)
        ]


def n_parameters(function: Function) -> int:
    """How many parameters a function has, `*args` and `**kwargs` among them."""
    taken = function.args
    several = [one for one in (taken.vararg, taken.kwarg) if one is not None]
    return len(taken.posonlyargs + taken.args + taken.kwonlyargs + several)


def arrows_upward(package: Path, path: Path) -> int:
    """How many layers above its own a module imports from."""
    own = path.relative_to(package).parts[0].removesuffix(".py")
    if own not in LEVEL:
        return 0
    return sum(LEVEL.get(name, 0) > LEVEL[own] for name in imported(path))


def is_paired_assignment(node: ast.AST) -> bool:
    """Whether a statement is `a, b = x, y`: two statements on a line."""
    return isinstance(node, ast.Assign) and isinstance(node.value, ast.Tuple) and isinstance(node.targets[0], ast.Tuple)


def figures(root: Path) -> dict[str, str]:
    """The figures of one checkout."""
    package = root / "ppnmf"
    paths = sorted(package.rglob("*.py"))
    lines = {path: len(path.read_text().splitlines()) for path in paths}
    total = sum(lines.values())
    nodes = [node for path in paths for node in ast.walk(ast.parse(path.read_text()))]
    functions = [node for node in nodes if isinstance(node, Function)]
    sizes = [sum(1 for _ in own_nodes(function)) for function in functions]
    parameters = [n_parameters(function) for function in functions]
    described = [found for node in nodes if (found := docstring(node)) is not None]
    of_docstrings = sum((node.end_lineno or node.lineno) - node.lineno + 1 for node in described)
    of_tests = sum(len(path.read_text().splitlines()) for path in (root / "tests").rglob("*.py"))
    return {
        "modules": str(len(paths)),
        "lines": str(total),
        "lines a module, median": f"{median(lines.values()):.0f}",
        f"modules over {LONG} lines": str(sum(n > LONG for n in lines.values())),
        "functions": str(len(functions)),
        "syntax nodes a function, median": f"{median(sizes):.0f}",
        "syntax nodes a function, 90 %": f"{quantiles(sizes, n=10)[-1]:.0f}",
        "parameters a function, 90 %": f"{quantiles(parameters, n=10)[-1]:.0f}",
        "parameters a function, most": str(max(parameters)),
        "imports upward": str(sum(arrows_upward(package, path) for path in paths)),
        "`a, b = x, y` in 1000 lines": f"{1000 * sum(map(is_paired_assignment, nodes)) / total:.1f}",
        "docstrings, share of lines": f"{of_docstrings / total:.0%}",
        "lines of tests a line": f"{of_tests / total:.2f}",
    }


def table(roots: list[Path]) -> str:
    """The figures of checkouts, a column each, and the long modules of the first."""
    columns = [figures(root) for root in roots]
    said = [f"{'':<34}" + "".join(f"{root.resolve().name[-14:]:>16}" for root in roots)]
    for name in columns[0]:
        said.append(f"{name:<34}" + "".join(f"{column[name]:>16}" for column in columns))
    said.append(f"\nModules over {LONG} lines, in the first:")
    package = roots[0] / "ppnmf"
    for path in sorted(package.rglob("*.py")):
        n_lines = len(path.read_text().splitlines())
        if n_lines > LONG:
            said.append(f"{path.relative_to(package)!s:<34}{n_lines:>16}")
    return "\n".join(said)


if __name__ == "__main__":
    print(table([Path(__file__).parents[1], *map(Path, sys.argv[1:])]))  # noqa: T201
