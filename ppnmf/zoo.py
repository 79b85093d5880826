"""The zoo: a folder a model, models/<name>/, with its card, a recipe, measured results and a picture of its plates.

What is read here is text, so that listing the zoo is quick; `ppnmf.recipes` follows the recipes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Entry", "entries", "folder", "reference_beside"]


@dataclass(frozen=True)
class Entry:
    """One folder of the zoo."""

    name: str
    path: Path

    @property
    def card(self) -> str:
        return (self.path / "README.md").read_text(encoding="utf-8")

    @property
    def title(self) -> str:
        """The card's first line."""
        return self.card.splitlines()[0].removeprefix("#").strip()

    @property
    def recipe(self) -> Path:
        return self.path / "recipe.toml"

    @property
    def reference(self) -> dict[str, dict[str, float]]:
        """Name -> {"value", "error", "replicates"} of what was measured; empty when nothing was."""
        return _reference(self.path)


def folder() -> Path:
    """Where the entries lie: in the installed package, or in the checkout beside it.

    Raises:
        FileNotFoundError: there is neither.
    """
    here = Path(__file__).parent
    for path in (here / "_models", here.parent / "models"):
        if path.is_dir():
            return path
    raise FileNotFoundError(
        f"the zoo's entries are neither in {here / '_models'} nor beside the package: install it again"
    )


def entries() -> list[Entry]:
    """The entries by name."""
    return [Entry(path.name, path) for path in sorted(folder().iterdir()) if path.is_dir()]


def reference_beside(recipe: str | Path) -> dict[str, dict[str, float]]:
    """The reference in the folder of a recipe, or in a recipe's folder that is named itself; empty when there is none."""
    path = Path(recipe)
    return _reference(path if path.is_dir() else path.parent)


def _reference(path: Path) -> dict[str, dict[str, float]]:
    """The results, each with the number of replicates that its error comes from."""
    file = path / "reference.json"
    if not file.exists():
        return {}
    facts = json.loads(file.read_text(encoding="utf-8"))
    return {name: {**known, "replicates": facts["replicates"]} for name, known in facts["results"].items()}
