"""The command line.

Bad input, a full disk and want of memory get one sentence and exit code 2, a mistake of ours 3. Ctrl-C leaves what was
done and gives 130, as SIGTERM does with 143 and a closed terminal with 129.
"""

from __future__ import annotations

from collections.abc import Callable

import typer

from ppnmf.cli import compare, data, diagnose, fit, rank, report, tables, zoo
from ppnmf.cli.guard import guarded

__all__ = ["app", "main"]

app = typer.Typer(
    help="Probabilistic non-negative matrix factorisation: fit, compare, choose the rank, and say whether to believe it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
COMMANDS: dict[str, Callable[..., None]] = {
    "compare": compare.compare,
    "fit": fit.fit,
    "rank": rank.choose_rank,
    "diagnose": diagnose.diagnose,
    "report": report.report,
    "tables": tables.tables,
    "transform": tables.transform,
    "generate": tables.generate,
    "run": zoo.run,
}
for name, command in COMMANDS.items():
    app.command(name)(guarded(command))
app.add_typer(data.app, name="data")
app.add_typer(zoo.app, name="zoo")


def main() -> None:
    """The entry point of the `ppnmf` command."""
    app()
