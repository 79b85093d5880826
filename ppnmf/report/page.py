"""One page about a posterior, the choice of a rank or a comparison: HTML by itself, or Markdown with pictures beside it."""

from __future__ import annotations

from pathlib import Path

from ppnmf.disk import replacing, try_folder, try_to_write, write_text
from ppnmf.evidence.table import RankTable
from ppnmf.posterior import Posterior
from ppnmf.report.compared import compared
from ppnmf.report.comparison import Comparison
from ppnmf.report.document import Document
from ppnmf.report.fitted import fitted
from ppnmf.report.html import html
from ppnmf.report.markdown import markdown
from ppnmf.report.ranked import ranked
from ppnmf.required import require_posterior
from ppnmf.settings import own_settings

__all__ = ["page", "try_page", "write_page"]

About = Posterior | RankTable | Comparison | Document
HTML = (".html", ".htm")
MARKDOWN = (".md", ".markdown")


@own_settings()
def page(about: About, picture: tuple[int, int] | None = None, order: str = "C") -> str:
    """The page as HTML: no script, nothing that is fetched, readable on a phone, in the dark, and in print.

    Of a posterior: what was fitted and how; whether to trust it, in words; the components with their uncertainty; where the
    starts of the chains ended; how the fit predicts cells of X; convergence; the lines that do it again. Of the table of
    `ppnmf.select_rank`: how firm the choice is; what failed; the scores with their errors; what the priors do to it. Of the
    table of `ppnmf.compare`: what predicts best, and whether to trust each fit. Or what a `Document` says.

    Args:
        picture, order: shape of a row of X that is a picture, and how its pixels lie (`plots.components`).
    """
    return html(_document(about, picture, order))


@own_settings()
def write_page(about: About, path: str | Path, picture: tuple[int, int] | None = None, order: str = "C") -> Path:
    """Write the page to a file, whole or not at all: HTML, or Markdown where its name ends in .md.

    The pictures of `fit.md` lie in the folder `fit_files` beside it, and are written first.

    Raises:
        ValueError: the name ends in neither.
        OSError: it cannot be written, in a sentence.
    """
    path = Path(path)
    _require_suffix(path)
    document = _document(about, picture, order)
    if not _is_markdown(path):
        return write_text(path, html(document))
    folder = _pictures_of(path)
    folder.mkdir(exist_ok=True)
    for each in document.pictures:
        with replacing(folder / f"{each.name}.png") as file:
            file.write(each.png)
    return write_text(path, markdown(document, folder.name))


def try_page(path: Path) -> None:
    """Find out, before the work, whether `write_page` can write there. Nothing is left. Raises as it does."""
    _require_suffix(path)
    try_to_write(path)
    if _is_markdown(path):
        try_folder(_pictures_of(path))


def _pictures_of(path: Path) -> Path:
    """The folder of the pictures of a page that is Markdown."""
    return path.with_name(f"{path.stem}_files")


def _is_markdown(path: Path) -> bool:
    return path.suffix.lower() in MARKDOWN


def _require_suffix(path: Path) -> None:
    if path.suffix.lower() not in HTML + MARKDOWN:
        raise ValueError(f"{path} is no name for a page: let it end in .html, or in .md for Markdown")


def _document(about: About, picture: tuple[int, int] | None, order: str) -> Document:
    if isinstance(about, Document):
        return about
    if isinstance(about, RankTable):
        return ranked(about)
    if isinstance(about, Comparison):
        return compared(about)
    require_posterior("page", about)
    return fitted(about, picture, order)
