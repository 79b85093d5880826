"""Imports point one way."""

import ast
from pathlib import Path

import pytest

import ppnmf

ROOT = Path(ppnmf.__file__).parent
LAYERS = [
    {
        "checks",
        "compilation",
        "disk",
        "distributions",
        "equality",
        "fingerprints",
        "matching",
        "memory",
        "nndsvd",
        "progress",
        "protocols",
        "rng",
        "settings",
        "threads",
    },
    {"factored", "known", "priors"},
    {"data", "kernels"},
    {"gaussian", "nn", "poisson"},
    {"models"},
    {
        "posterior",
        "imputation",
        "predictive",
        "joining",
        "required",
        "selection",
        "projection",
        "reconstructed",
        "tables",
        "saving",
        "surveyed",
        "arviz",
        "components",
        "identified",
        "classified",
        "labelling",
        "weighting",
    },
    {"inference"},
    {"diagnostics", "evidence"},
    {"anndata", "plots", "report", "estimator", "cli", "zoo", "recipes", "cards"},
]
EXCEPTIONS = {
    ("posterior", "report"): "a notebook asks the posterior itself how it looks",
    ("evidence", "report"): "and the table of ranks",
}
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


def imported(path: Path) -> set[str]:
    """First names below ppnmf that a file imports, but for type checkers alone."""
    tree = ast.parse(path.read_text())
    typing_only = {
        node
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    names = set()
    for node in ast.walk(tree):
        if node in typing_only:
            continue
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "ppnmf":
            names |= {node.module} if node.module != "ppnmf" else {f"ppnmf.{alias.name}" for alias in node.names}
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names if alias.name.startswith("ppnmf.")}
    return {name.split(".")[1] for name in names if "." in name}


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path):
    own = path.relative_to(ROOT).parts[0].removesuffix(".py")
    if own in ("__init__", "__main__", "_models"):
        return
    allowed = {name for name, level in LEVEL.items() if level <= LEVEL[own]}
    excepted = {upper for lower, upper in EXCEPTIONS if lower == own}
    assert imported(path) - {"__version__"} <= allowed | excepted, "also inside functions"


def test_no_test_of_ours_names_a_layer_that_is_not_there():
    modules = {path.stem if path.is_file() else path.name for path in ROOT.iterdir() if path.name[0] not in "_."}
    assert {name for name in modules if name != "py"} <= set(LEVEL) | {"py.typed"}


def test_the_picture_of_the_house_is_of_today():
    from tests import rooms

    assert rooms.PLACE.read_text() == rooms.picture(), "draw it anew: python -m tests.rooms"
