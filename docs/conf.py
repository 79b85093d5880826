"""How the documentation is built: `make docs`, without a network, warnings being errors."""

import ast
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import ppnmf  # noqa: E402

project = "ppnmf"
author = "The ppnmf developers"
copyright = author
release = ppnmf.__version__
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinxcontrib.bibtex",
]
myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_heading_anchors = 3
bibtex_bibfiles = ["references.bib"]
html_theme = "furo"
html_title = f"ppnmf {release}"
html_static_path: list[str] = []
templates_path: list[str] = []
exclude_patterns = ["_build"]
autodoc_typehints = "none"  # the docstrings give shapes, which types do not
autodoc_member_order = "bysource"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_param = False  # names, shapes and units as they stand
napoleon_use_rtype = False
nitpicky = True
default_role = "literal"  # `name` in a docstring is code, as in the source
suppress_warnings = ["myst.xref_missing"]  # cards link to source files of the repository, which are no pages


def as_written(app, what, name, thing, options, lines) -> None:
    """Docstrings are plain text: a star in `(*C, N, D)` and a last underscore in components_ are no markup."""
    for number, line in enumerate(lines):
        if "\\" in line:  # mathematics
            continue
        parts = line.split("`")
        parts[::2] = [re.sub(r"(?<=\w)_(?!\w)", r"\_", part.replace("*", r"\*")) for part in parts[::2]]
        lines[number] = "`".join(parts)


def setup(app) -> None:
    app.connect("autodoc-process-docstring", as_written, priority=400)  # before the sections are read


def write_model_pages() -> None:
    """A page a zoo entry, which includes its card; made anew, so that a new model needs no page of its own."""
    for card in sorted((ROOT / "models").glob("*/README.md")):
        place = f"../../models/{card.parent.name}/README.md"
        text = f"```{{include}} {place}\n:relative-images:\n```\n"
        (ROOT / "docs" / "models" / f"{card.parent.name}.md").write_text(text)


def write_example_pages() -> None:
    """A page an example: its first lines, and its text; the tests run every one."""
    for example in sorted((ROOT / "examples").glob("*.py")):
        question, _, rest = (ast.get_docstring(ast.parse(example.read_text())) or "").partition("\n\n")
        title = " ".join(question.split())
        code = f"```{{literalinclude}} ../../examples/{example.name}\n:language: python\n```"
        (ROOT / "docs" / "examples" / f"{example.stem}.md").write_text(f"# {title}\n\n{rest}\n\n{code}\n")


write_model_pages()
write_example_pages()
