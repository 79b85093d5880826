"""The priors that a command is told, in place of those on the data's scale."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from ppnmf.cli.options import options_given
from ppnmf.cli.reading import options_of

if TYPE_CHECKING:
    from ppnmf.protocols import Model

__all__ = ["AS_FOR_DATA", "Priors", "takes_priors"]

WORDS = {"rate": "--rate", "noise_shape": "--noise-shape", "noise_scale": "--noise-scale", "sigma2": "--noise-variance"}
Rate = Annotated[
    float | None, typer.Option(help="Of the priors of W and H, one over their means; else on DATA's scale.")
]
NoiseShape = Annotated[float | None, typer.Option(help="Of the noise variance's inverse gamma prior; else 1.")]
NoiseScale = Annotated[float | None, typer.Option(help="Of the same, in units of DATA squared; else on DATA's scale.")]
NoiseVariance = Annotated[float | None, typer.Option(help="The noise variance, where it is known.")]


class Priors(NamedTuple):
    """What was said of the priors; a field is an option of every command that `takes_priors`."""

    rate: Rate = None
    noise_shape: NoiseShape = None
    noise_scale: NoiseScale = None
    noise_variance: NoiseVariance = None

    @property
    def given(self) -> dict[str, Any]:
        """By the names of the models' hyperparameters, what was said."""
        said: dict[str, Any] = {"rate": self.rate, "noise_shape": self.noise_shape, "noise_scale": self.noise_scale}
        return options_given(**said, sigma2=self.noise_variance)

    def of(self, model: Model) -> Model:
        """The model with these priors. Raises ValueError, in the command line's words, where it has no such."""
        from ppnmf.models.replaced import replaced

        try:
            return replaced(model, self.given)
        except ValueError as error:
            said = str(error).split(";")[0].split(": give")[0]
            raise ValueError(f"{', '.join(WORDS[name] for name in self.given)}: {said}") from error


AS_FOR_DATA = Priors()
takes_priors = options_of(Priors, "priors")
