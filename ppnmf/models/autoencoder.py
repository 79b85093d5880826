"""The weights of PAE-NMF: an encoder from X to the guide of the loadings, the components H, and the noise."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ppnmf.data.labelled import listed
from ppnmf.models import weibull
from ppnmf.models.encoding import Encoding
from ppnmf.models.ordinary_nmf import LEAST_NOISE, first_noise
from ppnmf.settings import own_settings

__all__ = ["Autoencoder"]


class Autoencoder(nn.Module):
    """The parameters, and what they make of rows of X; it has none until `build` has been told of X's columns.

    H and σ² are kept in units of X's root mean square, so that the steps of an optimiser suit data on any scale.

    Args:
        rank: K, the number of components.
        noise: is there a noise variance a column? And the one that is given; None: it is learned (`published.noise_of`).
        widths: of the encoder's hidden layers.
        encoding: how the encoder reads X, and what makes a guide of its outputs.
    """

    unit: Tensor  # root mean square of X: the parameters below are on this scale
    centre: Tensor  # (D,), the means of X's columns
    basis: Tensor | None  # (D, C), from X - centre to the encoder's coordinates; None: it reads X

    def __init__(
        self, rank: int, noise: tuple[bool, float | None], widths: tuple[int, ...], encoding: Encoding
    ) -> None:
        super().__init__()
        self.rank = rank
        self.per_column, self.fixed_sigma2 = noise
        self.widths = widths
        self.encoding = encoding

    # Building it

    @own_settings()
    def load_state_dict(self, state_dict: Any, *args: Any, **kwargs: Any) -> Any:
        """As any module's; layers that are not there yet are built to fit."""
        if not self.is_initialised:
            self.build(state_dict["centre"], state_dict.get("basis"))
        names = state_dict.get("column_names")
        self.register_buffer("column_names", None if names is None else names.clone())
        return super().load_state_dict(state_dict, *args, **kwargs)

    def build(self, centre: Tensor, basis: Tensor | None) -> None:
        """Buffers, layers and parameters, of the dtype and on the device of these; the parameters' values come later."""
        kind: dict[str, Any] = {"dtype": centre.dtype, "device": centre.device}
        columns = len(centre)
        self.register_buffer("unit", torch.ones((), **kind))
        self.register_buffer("centre", centre.clone())
        self.register_buffer("basis", None if basis is None else basis.clone())
        self.relative_H = nn.Parameter(torch.zeros(self.rank, columns, **kind))
        if self.fixed_sigma2 is None:
            self.log_noise = nn.Parameter(torch.zeros(columns if self.per_column else (), **kind))
        self._build_encoder(columns if basis is None else basis.shape[1], kind)

    def _build_encoder(self, width: int, kind: dict[str, Any]) -> None:
        """The layers, from that many coordinates to the two outputs."""
        layers: list[nn.Module] = []
        for next_width in self.widths:
            layers += [nn.utils.skip_init(nn.Linear, width, next_width, **kind), nn.SiLU()]
            width = next_width
        self.body = nn.Sequential(*layers)
        last: dict[str, Any] = {"bias": self.encoding.bias, **kind}
        self.to_scale = nn.utils.skip_init(nn.Linear, width, self.rank, **last)
        self.to_concentration = nn.utils.skip_init(nn.Linear, width, self.rank, **last)

    def begin_noise(self, errors: Tensor, squares: Tensor, n_observed: Tensor | int) -> Tensor:
        """Set the noise variance where it is learned (`first_noise`); it, relative to unit²."""
        if self.fixed_sigma2 is not None:
            return self.relative_sigma2
        noise = first_noise(errors, squares, n_observed, self.per_column)
        self.log_noise.copy_(noise.log())
        return noise

    # What it knows

    @property
    def columns(self) -> tuple[str, ...] | None:
        """The names of X's columns, where it was fitted to columns with names."""
        names = getattr(self, "column_names", None)
        return None if names is None else tuple(json.loads(bytes(names.tolist())))

    @columns.setter
    def columns(self, names: Sequence[str] | None) -> None:
        encoded = None if names is None else torch.tensor(list(json.dumps(names).encode()), dtype=torch.uint8)
        self.register_buffer(
            "column_names", encoded
        )  # in the state, so that they are saved and loaded with the weights

    @property
    def is_initialised(self) -> bool:
        """Whether it has weights."""
        return hasattr(self, "relative_H")

    @property
    def H(self) -> Tensor:
        """The components (K, D), in X's units. Raises RuntimeError where there are no weights yet."""
        if not self.is_initialised:
            raise RuntimeError("this PAENMF has no weights yet; ppnmf.fit gives them, or initialise(X)")
        return self.unit * self.relative_H

    @property
    def sigma2(self) -> Tensor:
        """The noise variance, learned or given, in units of X squared: () or, per column, (D,)."""
        if self.fixed_sigma2 is not None:
            return self.H.new_tensor(self.fixed_sigma2)
        return self.unit.square() * self.relative_sigma2

    @property
    def relative_sigma2(self) -> Tensor:
        """`sigma2` in units of `unit` squared."""
        if self.fixed_sigma2 is not None:
            return self.fixed_sigma2 / self.unit / self.unit
        return LEAST_NOISE + self.log_noise.exp()

    @property
    def relative_noise(self) -> Tensor:
        """Each column's noise variance over their mean: (D,) or, where they are one, ()."""
        return self.sigma2 / self.sigma2.mean()

    def project(self) -> None:
        """Set the negative entries of H to zero, in place: after each step of an optimiser."""
        with torch.no_grad():
            self.relative_H.clamp_(min=0)

    def coordinates(self, X: Tensor, mask: Tensor | None = None) -> Tensor:
        """What the encoder reads (N, C): X on its principal directions; a missing entry counts as its column's mean."""
        if self.basis is None:
            return X if mask is None else torch.where(mask, X, self.centre)
        deviations = X - self.centre
        return (deviations if mask is None else torch.where(mask, deviations, 0.0)) @ self.basis

    def posterior(self, coordinates: Tensor) -> weibull.Weibull:
        """The guide's distribution of W (N, K), from the encoder's coordinates (N, C)."""
        guide = self.encoding.guide(*self.outputs(coordinates))
        return weibull.Weibull(*guide, validate_args=False)

    def outputs(self, coordinates: Tensor) -> tuple[Tensor, Tensor]:
        """What the two last layers give (N, K): the encoding makes λ of the one and k of the other."""
        features = self.body(coordinates)
        return self.to_scale(features), self.to_concentration(features)

    def quantile(self, outputs: tuple[Tensor, ...]) -> Callable[[Tensor], Tensor]:
        """From uniforms (N, K), float64, to loadings of the guide, in the weights' dtype; never zero."""
        guide = self.encoding.guide(*outputs)
        scale = guide.scale.double()
        power = guide.concentration.double().reciprocal()
        kind = guide.scale.dtype
        return lambda u: (scale * (-u.log()) ** power).to(kind).clamp(min=torch.finfo(kind).tiny)

    def fitted(self) -> dict[str, Tensor]:
        """H (K, D), and sigma2 (), the mean over the columns where they differ."""
        return {"H": self.H.detach(), "sigma2": self.sigma2.detach().mean()}

    def require_columns(self, D: int, names: Sequence[str] | None) -> None:
        """Raise ValueError where it has weights for another number of columns, or for others by their names."""
        if not self.is_initialised:
            return
        if self.H.shape[1] != D:
            raise ValueError(
                f"X has {D} columns and the model has weights for {self.H.shape[1]}; start from a new model"
            )
        if self.columns and names and self.columns != tuple(names):
            raise ValueError(
                f"X's columns ({listed(names)}) are not those that the model was fitted to, in their order "
                f"({listed(self.columns)}): pass X with these columns, or start from a new model"
            )

    def free_parameters(self, D: int) -> int:
        """Those of H, and of σ² where it is learned, for D columns."""
        return D * self.rank + (D if self.per_column else int(self.fixed_sigma2 is None))
