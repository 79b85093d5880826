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
from torch.distributions import Distribution, Normal

from ppnmf import __version__
from ppnmf.checks import whole_number
from ppnmf.data.dense import IN_MEMORY, Dense, in_memory
from ppnmf.data.saved import facts_and_arrays, restored
from ppnmf.protocols import Matrix, Model, Params
from ppnmf.rng import Site, Stream, forked

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
    X: Matrix
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

    def reconstruction(self, rows: range | None = None) -> Tensor:
        """Mean of W @ H over chains and draws, shape (N, D); or some rows of it."""
        W, H = (self._kept(site).flatten(0, 1) for site in ("W", "H"))
        if rows is not None:
            W = W[:, rows.start : rows.stop]
        N, D = W.shape[1], H.shape[2]
        K, size = W.shape[-1], max(1, AT_ONCE // max(1, N * D))
        total = torch.zeros(N, D, dtype=torch.float64, device=W.device)
        if len(W) * K > 4 * D and size == 1:  # many draws of a large matrix: one product of all components at a time
            size = 16
        for start in range(0, len(W), size):
            left, right = W[start : start + size], H[start : start + size]
            total += left.permute(1, 0, 2).reshape(N, -1).double() @ right.reshape(-1, D).double()
        return (total / len(W)).to(W.dtype)

    def squared_error(self) -> float:
        """Σ (X - reconstruction)² over the observed entries, each over its relative noise variance; row block by row block."""
        total = 0.0
        for rows in self.X.blocks:
            size = max(1, AT_ONCE // self.X.shape[1])
            for start in range(rows.start, rows.stop, size):
                own = range(start, min(start + size, rows.stop))
                part = self.X.part(own)
                squared = (part.values.double() - self.reconstruction(own).double()).square()
                total += float(part.over_noise(squared if part.mask is None else squared * part.mask).sum())
        return total

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

    def generate(self, n: int, seed: int = 0, latent: str = "prior") -> Tensor:
        """n new rows of X (n, D).

        A Gaussian likelihood can give negative entries; they are left as they are.

        Args:
            latent: "prior": W from its prior, X from the likelihood, H and σ² as fitted. "aggregated": from the mean of
                the rows' posteriors, that is a row of X and a draw are picked at random, and X is drawn from the
                likelihood at that row's W (with its noise, where that is known) and that draw's H and σ².

        Raises:
            TypeError: "prior", and the model cannot draw new rows.
            ValueError: n below 0, another `latent`.
        """
        n = whole_number("n", n, 0)
        if latent == "aggregated":
            return self._resampled(n, seed)
        if latent != "prior":
            raise ValueError(f"latent is {latent!r}; it must be 'prior' or 'aggregated'")
        generate = getattr(self.model, "generate", None)
        if generate is None:
            raise TypeError(
                f"generate needs a model that draws new rows from its prior; {self.model.name} does not: "
                "take latent='aggregated'"
            )
        return generate(n, seed=seed)

    def _resampled(self, n: int, seed: int) -> Tensor:
        W, H, sigma2 = (values.flatten(0, 1) for values in self._factors().values())
        u = Stream.of(seed).uniforms(0, Site.RESAMPLING, range(n), 2, W.device)[0]
        draw, row = (u * u.new_tensor(W.shape[:2])).long().unbind(1)
        drawn = W.new_empty(n, H.shape[2])
        with forked(seed, W.device):
            for at in torch.arange(n, device=W.device).split(max(1, AT_ONCE // H[0].numel())):
                s, i = draw[at], row[at]
                own = self.model.likelihood({"W": W[s, i][:, None], "H": H[s], "sigma2": sigma2[s]})
                drawn[at] = self._as_noisy(own, i).sample()[:, 0]
        return drawn

    def predictive(self, seed: int = 0) -> Tensor:
        """Replicates of X from the posterior predictive, shape (chain, draw, N, D)."""
        with forked(seed, self.X.device):
            return self.likelihood(self._factors()).sample()

    def log_likelihood(self) -> Tensor:
        """log p(x_ij | draw) for every entry, shape (chain, draw, N, D); zero where missing."""
        X = in_memory(self.X, "log_likelihood")
        values = self.likelihood(self._factors()).log_prob(X.values)
        return values if X.mask is None else values * X.mask

    def likelihood(self, params: Params) -> Distribution:
        """The model's distribution of X given the factors, (*C, N, D), with the known noise of X's entries."""
        return self._as_noisy(self.model.likelihood(params))

    def _as_noisy(self, of_model: Any, rows: Tensor | None = None) -> Distribution:
        """The model's distribution with the known noise of X's entries, or of some rows' (B, 1, D)."""
        if getattr(self.X, "noise", None) is None:
            return of_model
        noise: Any = in_memory(self.X, "the likelihood").noise
        variance = noise.variance.expand(self.X.shape)
        return Normal(of_model.loc, of_model.scale * (variance if rows is None else variance[rows, None]).sqrt())

    def to_arviz(
        self,
        *,
        log_likelihood: bool = False,
        posterior_predictive: bool = False,
        rows: Sequence[str] | None = None,
        columns: Sequence[str] | None = None,
    ) -> xarray.DataTree:
        """An ArviZ DataTree: posterior, sample_stats, observed_data, constant_data, and the two groups asked for.

        Of an X that is not a dense matrix and is too large for one, observed_data and constant_data are left out.

        Args:
            log_likelihood: add log p(x_ij | draw), chain × draw × N × D numbers.
            posterior_predictive: add replicates of X, as many numbers.
            rows: names of X's rows; columns: of its columns; by default `names`, or else whole numbers.
        """
        import arviz_base

        groups: dict[str, dict[str, np.ndarray]] = {
            "posterior": {name: _numpy(values) for name, values in self.draws.items()},
            "sample_stats": {name: _numpy(values) for name, values in self.stats.items()},
        }
        if self.X.shape[0] * self.X.shape[1] <= IN_MEMORY or isinstance(self.X, Dense):
            X = in_memory(self.X, "to_arviz")
            mask = torch.ones(X.shape, dtype=torch.bool) if X.mask is None else X.mask
            values = np.where(_numpy(mask), _numpy(X.values), np.nan)
            groups |= {"observed_data": {"X": values}, "constant_data": {"mask": _numpy(mask)}}
            if X.noise is not None:
                groups["constant_data"]["noise"] = _numpy(X.noise.variance.expand(X.shape))
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
                dims={**DIMS, "mask": DIMS["X"], "noise": DIMS["X"]},
                coords=coords,
                attrs={
                    "/": library,
                    "posterior": {**library, "sampling_time": self.timings.get("total", float("nan"))},
                },
            )

    def save(self, path: str | Path, **names: Sequence[str] | None) -> Path:
        """Write everything to a NetCDF file that ArviZ opens too; `Posterior.load` gives back the same.

        A sparse X is written as the entries that it stores. One that is read from disk is not copied: the file says
        where it is, and the loaded posterior's X can be read as long as it is there, unchanged.

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
        about_X, parts_of_X = facts_and_arrays(self.X)
        if about_X["kind"] != "dense":
            for group in ("observed_data", "constant_data"):
                if group in tree.children:
                    del tree[group]
        tree.attrs["ppnmf"] = json.dumps({**facts, "config": config, "X": about_X})
        tree["ppnmf_model"] = _dataset(arrays)
        tree["ppnmf_data"] = _dataset(parts_of_X)
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
            parts = (
                {str(k): _tensor(v) for k, v in tree["ppnmf_data"].data_vars.items()} if "ppnmf_data" in tree else {}
            )
            about_X = facts.get("X", {"kind": "dense"})
            if about_X["kind"] == "dense":
                parts |= {"values": _tensor(tree["observed_data"]["X"]), "mask": _tensor(tree["constant_data"]["mask"])}
        config = facts["config"] | {k[len("config.") :]: v for k, v in arrays.items() if k.startswith("config.")}
        config = {name: tuple(value) if isinstance(value, list) else value for name, value in config.items()}
        state = {k[len("state.") :]: v for k, v in arrays.items() if k.startswith("state.")}
        model = REGISTRY[facts["model"]](**config)
        if isinstance(model, torch.nn.Module):
            model.load_state_dict(state)
        X = restored(about_X, parts)
        rest = {name: facts[name] for name in ("method", "seed", "timings", "attrs", "names")}
        return cls(draws=sites, stats=stats, model=model, X=X, **rest)

    def _kept(self, site: str) -> Tensor:
        if site not in self.draws:
            raise KeyError(f"{site} was not kept; kept were {', '.join(self.draws)}: fit with keep=None to keep all")
        return self.draws[site]

    def _factors(self) -> dict[str, Tensor]:
        return {site: self._kept(site) for site in ("W", "H", "sigma2")}


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
