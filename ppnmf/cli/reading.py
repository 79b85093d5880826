"""How DATA is read: the options of it, which several commands have."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple, get_type_hints

import typer

from ppnmf.cli.options import options_given

__all__ = ["AS_IT_IS", "Reading", "options_of", "reads_data"]

AllowNegative = Annotated[bool, typer.Option("--allow-negative", help="Take a file with negative entries.")]
Missing = Annotated[
    str, typer.Option(help="'nan': empty cells and NaN are missing values; 'error': they are a mistake.")
]
Header = Annotated[
    bool | None,
    typer.Option(
        "--header/--no-header", help="The first line of a text names the columns, or it does not.", show_default=False
    ),
]
RowNames = Annotated[
    str | None,
    typer.Option(metavar="COLUMN", help="The column that names the rows, by its name or its number from 1; or none."),
]
NoRowNames = Annotated[bool, typer.Option("--no-row-names", help="No column names the rows.")]
Transpose = Annotated[bool, typer.Option("--transpose", help="Columns of the file are observations.")]
Layer = Annotated[str | None, typer.Option(help="Of an .h5ad file, or the array of an .npz file.")]


class Reading(NamedTuple):
    """What was said of the file; a field is an option of every command that `reads_data`."""

    allow_negative: AllowNegative = False
    missing: Missing = "error"
    header: Header = None
    row_names: RowNames = None
    no_row_names: NoRowNames = False
    transpose: Transpose = False
    layer: Layer = None

    def for_files(self) -> dict[str, Any]:
        """What `data.files.read` takes of it, as far as it was said. Raises ValueError for what contradicts itself."""
        if self.no_row_names and self.row_names is not None:
            raise ValueError(f"--row-names is {self.row_names}, and there is --no-row-names: give one of them")
        names = False if self.no_row_names or self.row_names == "none" else self.row_names
        return options_given(header=self.header, row_names=names, transpose=self.transpose or None, layer=self.layer)


AS_IT_IS = Reading()


def options_of(record: Any, parameter: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """What gives a command the fields of a NamedTuple as options, in place of a parameter that is one."""
    kinds = get_type_hints(record, include_extras=True)
    options = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kinds[name])
        for name, default in record._field_defaults.items()
    ]

    def with_options(command: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(command, eval_str=True)
        others = [own for name, own in signature.parameters.items() if name != parameter]

        @functools.wraps(command)
        def run(**given: Any) -> Any:
            said = record(**{name: given.pop(name) for name in record._fields if name in given})
            return command(**given, **{parameter: said})

        parameters = [own.replace(kind=inspect.Parameter.KEYWORD_ONLY) for own in others] + options
        run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        return run

    return with_options


reads_data = options_of(Reading, "reading")
