"""`Posterior`: what every method returns and every diagnostic reads."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor

from ppnmf import __version__
from ppnmf.data.matrix import Dense
from ppnmf.protocols import Model
from ppnmf.rng import forked

if TYPE_CHECKING:
    import xarray

__all__ = ["Posterior"]

DIMS = {"W": ["row", "component"], "H": ["component", "column"], "sigma2": [], "X": ["row", "column"]}
AT_ONCE = 2**22  # entries of W @ H that are formed at a time when averaging over draws


@dataclass(frozen=True, eq=False, kw_only=True)
class Posterior:
    """Draws from a posterior, or modes, or whatever else a method gives as values of the factors.

    Args:
        draws: site -> (chain, draw, *site): W (N, K), H (K, D), sigma2 (). A mode is one draw a restart, each its own
            chain; a parameter that is not random is broadcast.
        stats: name -> (chain, draw); "lp" is the full log joint density.
        model: the fitted model.
        X: the data, with its mask.
        method: the method's name.
        seed: what the draws were made from.
        timings: seconds by stage, "total" among them.
        attrs: facts about the run that JSON can hold: warmup, thin, interrupted, elbo ...
        names: of X's "rows" and "columns", where they have any.
    """

    draws: dict[str, Tensor]
    stats: dict[str, Tensor]
    model: Model
    X: Dense
    method: str
    seed: int
    timings: dict[str, float] = field(default_factory=dict)
    attrs: dict[str, Any] = field(default_factory=dict)
    names: dict[str, list[str]] = field(default_factory=dict)

    @property
    def chains(self) -> int:
        return self.stats["lp"].shape[0]

    @property
    def n_draws(self) -> int:
        """Draws in each chain."""
        return self.stats["lp"].shape[1]

    def __repr__(self) -> str:
        sites = ", ".join(f"{name} {tuple(values.shape)}" for name, values in self.draws.items())
        return (
            f"Posterior({self.model.name} by {self.method}: {self.chains} chain(s) × {self.n_draws} draw(s); {sites})"
        )

    def mean(self, site: str) -> Tensor:
        """Mean over chains and draws; of factors it means something only when their components are aligned."""
        return self._kept(site).mean((0, 1))

    def reconstruction(self) -> Tensor:
        """Mean of W @ H over chains and draws, shape (N, D)."""
        W, H = (self._kept(site).flatten(0, 1) for site in ("W", "H"))
        N, D = self.X.shape
        K, size = W.shape[-1], max(1, AT_ONCE // (N * D))
        total = torch.zeros(N, D, dtype=torch.float64, device=W.device)
        if len(W) * K > 4 * D and size == 1:  # many draws of a large matrix: one product of all components at a time
            size = 16
        for start in range(0, len(W), size):
            left, right = W[start : start + size], H[start : start + size]
            total += left.permute(1, 0, 2).reshape(N, -1).double() @ right.reshape(-1, D).double()
        return (total / len(W)).to(W.dtype)

    def squared_error(self) -> float:
        """Σ (X - reconstruction)² over the observed entries."""
        residual = self.X.values.double() - self.reconstruction().double()
        return float((residual if self.X.mask is None else residual[self.X.mask]).square().sum())

    def best(self) -> Posterior:
        """The single draw with the greatest log joint."""
        at = int(self.stats["lp"].argmax())
        c, d = divmod(at, self.n_draws)
        pick = lambda values: values[c : c + 1, d : d + 1]  # noqa: E731
        return replace(
            self,
            draws={name: pick(values) for name, values in self.draws.items()},
            stats={name: pick(values) for name, values in self.stats.items()},
        )

    def generate(self, n: int, seed: int = 0) -> Tensor:
        """n new rows of X (n, D) from the fitted model: W from its prior, X from the likelihood, H and σ² as fitted.

        A Gaussian likelihood can give negative entries; they are left as they are.

        Raises:
            TypeError: the model cannot draw new rows.
        """
        generate = getattr(self.model, "generate", None)
        if generate is None:
            raise TypeError(f"generate needs a model that draws new rows; {self.model.name} does not")
        return generate(n, seed=seed)

    def predictive(self, seed: int = 0) -> Tensor:
        """Replicates of X from the posterior predictive, shape (chain, draw, N, D)."""
        with forked(seed, self.X.device):
            return self.model.likelihood(self._factors()).sample()

    def log_likelihood(self) -> Tensor:
        """log p(x_ij | draw) for every entry, shape (chain, draw, N, D); zero where missing."""
        values = self.model.likelihood(self._factors()).log_prob(self.X.values)
        return values if self.X.mask is None else values * self.X.mask

    def to_arviz(
        self,
        *,
        log_likelihood: bool = False,
        posterior_predictive: bool = False,
        rows: Sequence[str] | None = None,
        columns: Sequence[str] | None = None,
    ) -> xarray.DataTree:
        """An ArviZ DataTree: posterior, sample_stats, observed_data, constant_data, and the two groups asked for.

        Args:
            log_likelihood: add log p(x_ij | draw), chain × draw × N × D numbers.
            posterior_predictive: add replicates of X, as many numbers.
            rows: names of X's rows; columns: of its columns; by default `names`, or else whole numbers.
        """
        import arviz_base

        groups: dict[str, dict[str, np.ndarray]] = {
            "posterior": {name: _numpy(values) for name, values in self.draws.items()},
            "sample_stats": {name: _numpy(values) for name, values in self.stats.items()},
            "observed_data": {"X": self._observed()},
            "constant_data": {"mask": _numpy(self._mask())},
        }
        if log_likelihood:
            groups["log_likelihood"] = {"X": _numpy(self.log_likelihood())}
        if posterior_predictive:
            groups["posterior_predictive"] = {"X": _numpy(self.predictive(self.seed))}
        N, D = self.X.shape
        rows = self.names.get("rows") if rows is None else rows
        columns = self.names.get("columns") if columns is None else columns
        coords: dict[str, Any] = {"row": _names(rows, N, "rows"), "column": _names(columns, D, "columns")}
        coords["component"] = np.arange(self.model.rank)
        library = {"inference_library": "ppnmf", "inference_library_version": __version__}
        with warnings.catch_warnings():  # several modes are more chains than draws
            warnings.filterwarnings("ignore", message="Found chain dimension to be longer than draw")
            return arviz_base.from_dict(
                groups,
                dims={**DIMS, "mask": DIMS["X"]},
                coords=coords,
                attrs={
                    "/": library,
                    "posterior": {**library, "sampling_time": self.timings.get("total", float("nan"))},
                },
            )

    def save(self, path: str | Path, **names: Sequence[str] | None) -> Path:
        """Write everything to a NetCDF file that ArviZ opens too; `Posterior.load` gives back the same.

        Args:
            names: `rows` and `columns`, as in `to_arviz`; `load` gives them back as the posterior's names.
        """
        tree = self.to_arviz(**names)  # type: ignore[arg-type]
        told = {axis: list(map(str, given)) for axis, given in names.items() if given is not None}
        facts = {
            "model": self.model.name,
            "method": self.method,
            "seed": self.seed,
            "timings": self.timings,
            "attrs": self.attrs,
            "names": self.names | told,
        }
        config, arrays = {}, {}
        for name, value in self.model.config().items():
            if isinstance(value, Tensor):
                arrays[f"config.{name}"] = value
            else:
                config[name] = value
        if isinstance(self.model, torch.nn.Module):
            arrays |= {f"state.{name}": value for name, value in self.model.state_dict().items()}
        tree.attrs["ppnmf"] = json.dumps({**facts, "config": config})
        tree["ppnmf_model"] = _dataset(arrays)
        path = Path(path)
        tree.to_netcdf(path, engine="h5netcdf")
        return path

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote. Raises ValueError when the file is not one of ours."""
        import xarray as xr

        from ppnmf.models import REGISTRY

        with xr.open_datatree(path, engine="h5netcdf") as tree:
            if "ppnmf" not in tree.attrs:
                raise ValueError(f"{path} holds no ppnmf posterior; files written by Posterior.save do")
            facts = json.loads(tree.attrs["ppnmf"])
            sites = {str(k): _tensor(v) for k, v in tree["posterior"].data_vars.items()}
            stats = {str(k): _tensor(v) for k, v in tree["sample_stats"].data_vars.items()}
            arrays = {str(k): _tensor(v) for k, v in tree["ppnmf_model"].data_vars.items()}
            values, mask = _tensor(tree["observed_data"]["X"]), _tensor(tree["constant_data"]["mask"]).bool()
        config = facts["config"] | {k[len("config.") :]: v for k, v in arrays.items() if k.startswith("config.")}
        config = {name: tuple(value) if isinstance(value, list) else value for name, value in config.items()}
        state = {k[len("state.") :]: v for k, v in arrays.items() if k.startswith("state.")}
        model = REGISTRY[facts["model"]](**config)
        if isinstance(model, torch.nn.Module):
            model.load_state_dict(state)
        X = Dense(values, None) if bool(mask.all()) else Dense(torch.where(mask, values, 0.0), mask)
        rest = {name: facts[name] for name in ("method", "seed", "timings", "attrs", "names")}
        return cls(draws=sites, stats=stats, model=model, X=X, **rest)

    def _kept(self, site: str) -> Tensor:
        if site not in self.draws:
            raise KeyError(f"{site} was not kept; kept were {', '.join(self.draws)}: fit with keep=None to keep all")
        return self.draws[site]

    def _factors(self) -> dict[str, Tensor]:
        return {site: self._kept(site) for site in ("W", "H", "sigma2")}

    def _mask(self) -> Tensor:
        return torch.ones(self.X.shape, dtype=torch.bool) if self.X.mask is None else self.X.mask

    def _observed(self) -> np.ndarray:
        values = _numpy(self.X.values)
        return values if self.X.mask is None else np.where(_numpy(self.X.mask), values, np.nan)


def _numpy(values: Tensor) -> np.ndarray:
    return values.detach().cpu().numpy()


def _tensor(values: Any) -> Tensor:
    return torch.from_numpy(np.array(values.values))


def _names(names: Sequence[str] | None, size: int, what: str) -> Any:
    if names is None:
        return np.arange(size)
    if len(names) != size:
        raise ValueError(f"{len(names)} names of {what} are given for {size} {what}; their numbers must be equal")
    return np.asarray(names, dtype=str)


def _dataset(arrays: dict[str, Tensor]) -> xarray.Dataset:
    import xarray as xr

    return xr.Dataset({name: ([f"{name}_{axis}" for axis in range(a.ndim)], _numpy(a)) for name, a in arrays.items()})
