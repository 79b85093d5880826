"""`Posterior`: what every method returns and every diagnostic reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from torch import Tensor
from torch.distributions import Distribution

from ppnmf import arviz, imputation, predictive, projection, reconstructed, saving, selection, tables, weighting
from ppnmf.checks import meant
from ppnmf.components import LiveComponents, live_components
from ppnmf.protocols import Matrix, Model, Params
from ppnmf.settings import own_settings
from ppnmf.surveyed import Survey

if TYPE_CHECKING:
    import xarray

__all__ = ["Kind", "Posterior"]


class Kind(StrEnum):
    """What the draws of a posterior are; readers ask it, and never guess."""

    CHAINS = "chains"  # of a Markov chain: to be judged by R-hat
    MODES = "modes"  # one a restart, each its own chain: no average joins them
    INDEPENDENT = "independent"  # of independent particles
    APPROXIMATION = "approximation"  # of a fitted distribution


@dataclass(frozen=True, eq=False, kw_only=True)
class Posterior:
    """Draws from a posterior, or modes, or whatever else a method gives as values of the factors.

    Args:
        draws: site -> (chain, draw, *site), of the model's sites: W (N, K), H (K, D), sigma2 () ... A parameter that is not
            random is broadcast.
        stats: name -> (chain, draw); "lp" is the full log joint density, "loss" what ordinary NMF lowers.
        model: the fitted model.
        X: the data, with its mask.
        method: the method's name.
        seed: what the draws were made from.
        timings: seconds by stage, "total" among them.
        attrs: facts about the run that JSON can hold: warmup, thin, interrupted, elbo ...; "asked", the arguments of `fit` as
            Python writes them, long ones by their names; "picture", how a data set's rows are pictures.
        names: of X's "rows" and "columns", where they have any.
        kind: what the draws are.
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
    kind: Kind = Kind.CHAINS

    @property
    def chains(self) -> int:
        return self.stats["lp"].shape[0]

    @property
    def n_draws(self) -> int:
        """Draws in each chain."""
        return self.stats["lp"].shape[1]

    @property
    def survey(self) -> Survey | None:
        """What the survey found at whose best starts the chains began; None where there was none."""
        facts = self.attrs.get("survey")
        return None if facts is None else Survey.of(facts)

    def __repr__(self) -> str:
        sites = ", ".join(f"{name} {tuple(values.shape)}" for name, values in self.draws.items())
        return (
            f"Posterior({self.model.name} by {self.method}: {self.chains} chain(s) × {self.n_draws} draw(s); {sites})"
        )

    def _repr_html_(self) -> str:
        """What a notebook shows: whether to trust it, and the components."""
        from ppnmf.report.notebook import notebook

        return notebook(self)

    def __getitem__(self, site: str) -> Tensor:
        """The draws of a site, (chain, draw, *site). Raises KeyError, with the sites that there are."""
        return self._kept(site)

    def select(self, chains: selection.Which = None, draws: selection.Which = None, thin: int = 1) -> Posterior:
        """Some chains, and some of the draws of each, with the statistics and facts that belong to them.

        Args:
            chains, draws: a number, a slice such as slice(500, None), or a list of numbers; all by default. Numbers
                below zero count from the end.
            thin: keep every thin-th of those draws, the last of each so many.

        Raises:
            ValueError: a number beyond the last, or nothing would remain.
        """
        return selection.selected(self, chains, draws, thin)

    def mean(self, site: str) -> Tensor:
        """Mean over chains and draws; of factors it means something only when their components are aligned."""
        return self._kept(site).mean((0, 1))

    def std(self, site: str) -> Tensor:
        """Standard deviation over chains and draws, with the same caution."""
        return self._kept(site).double().flatten(0, 1).std(0, correction=0)

    def quantile(self, site: str, q: float | Sequence[float]) -> Tensor:
        """Quantiles over chains and draws, of the site's shape, with a leading axis where several are asked for.

        Raises:
            ValueError: a q that does not lie in [0, 1].
        """
        return tables.quantile(self._kept(site), q)

    @own_settings()
    def reconstruction(self, rows: range | None = None) -> Tensor:
        """Mean of W @ H over chains and draws, shape (N, D), times the model's exposures; or some rows of it."""
        return reconstructed.reconstruction(self, rows)

    @own_settings()
    def squared_error(self) -> float:
        """Σ (X - reconstruction)² over the observed entries, each over its relative noise variance; row block by row block."""
        return reconstructed.squared_error(self)

    @own_settings()
    def point(self) -> dict[str, Tensor]:
        """One pair of factors that stands for all draws: W (N, K) and H (K, D), and the means of sites such as sigma2; what goes
        by component, such as an ARD model's rates, is the best draw's. Factors that make up W or H are left out.

        Their product is as near to the mean of W @ H as a product of non-negative factors of this rank can be, by least
        squares from the best draw on. The means of W and H are no such pair: each draw has its own order and scale of
        components, and moves along the ridge where W @ H stays, so that E[W] E[H] is not E[W H]. Of modes it is the best.
        """
        return projection.point(self)

    @own_settings()
    def transform(
        self,
        X: Any,
        *,
        mask: Any = None,
        missing: str = "error",
        noise: Any = None,
        exposures: Any = None,
        draws: int | None = None,
        sweeps: int = projection.SWEEPS,
        seed: int = 0,
    ) -> Posterior:
        """The posterior of the loadings of new rows: their W given the H, and all else, of each draw.

        The new rows say nothing to H here: p(W | X, H) is averaged over the posterior of H that the fit has. W starts at
        its mode, the only one given all else, and is swept from there; of modes it stays at it; an autoencoder encodes.

        Args:
            X: new rows (M, D), of the columns that were fitted. Where both have names the columns are found by them, in
                any order.
            mask, missing, noise: as in `ppnmf.fit`, of the new rows.
            exposures: of the new rows, for counts, matched with X as noise is; those of the fit by default, where all rows
                have the same.
            draws: of this posterior that are used, at most, spread evenly; 1000 by default. At least one of each chain.
            sweeps: of W for each of them.
            seed: of the draws.

        Returns: a Posterior whose draws of W are of the new rows, and whose X they are: what can be asked of the fit
            (`loadings`, its components in the fit's places; `reconstruction`, `predictive`, `mean`) can be asked of it.

        Raises:
            ValueError: X has other columns, or priors of W are given for each row of the fit's X.
            TypeError: the model has neither full conditionals nor an encoder, has further sites for each row, or has no
                exposures.
        """
        return projection.transform(self, X, mask, missing, noise, draws, sweeps, seed, exposures)

    @property
    def small_sites(self) -> list[str]:
        """The sites that neither rows nor columns have one each of, such as sigma2."""
        return [site for site, dims in self.dimensions.items() if not {"row", "column"} & set(dims)]

    def typical(self) -> Posterior:
        """Itself; of modes, which no average joins, the best one."""
        return self.best() if self.kind is Kind.MODES else self

    @own_settings()
    def weighted(self, weights: Any, seed: int = 0) -> Posterior:
        """The same with the draws drawn anew, a chain in proportion to its weight; everything that is asked of it follows.

        So mean, reconstruction, predictive, and what ArviZ is given count each chain by its weight, to one draw in all. The
        chains of what is returned are mixtures: whether the sampler's chains agree they do not tell. attrs["weighted"] says so.

        Args:
            weights: one a chain, such as the `chain_weights` of `ppnmf.mode_masses`, or what it gave itself.

        Raises:
            ValueError: not one a chain, negative or not finite ones, or none above zero.
        """
        return weighting.weighted(self, weights, seed)

    @property
    def height(self) -> Tensor:
        """The log joint, which makes one draw better than another, (chain, draw); less loss for ordinary NMF, which looks at
        no prior."""
        return -self.stats["loss"] if "loss" in self.stats else self.stats["lp"]

    def best(self) -> Posterior:
        """The single draw with the greatest log joint, or with the least loss where that is what was lowered."""
        chain, draw = divmod(int(self.height.argmax()), self.n_draws)
        return self.select(chain, draw)

    @own_settings()
    def live_components(self) -> LiveComponents:
        """How many components each draw has a use for: those stronger than the strongest that its noise alone would make.

        An ARD model empties the others; how firm their number is, `probability` says.

        Raises:
            TypeError: the model has no noise variance.
            KeyError: W or H was not kept.
        """
        if "sigma2" not in self.dimensions:
            raise TypeError(f"live_components measures against sigma2, and {self.model.name} has none")
        sigma2 = self._kept("sigma2").double()
        deviation = (sigma2 if sigma2.ndim == 2 else sigma2.flatten(2).mean(-1)).sqrt()
        N, D = self.X.shape
        return live_components(self._kept("W"), self._kept("H"), deviation, self.X.n_observed / (N * D))

    @own_settings()
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
        return predictive.generate(self, n, seed, latent)

    @own_settings()
    def predictive(
        self, seed: int = 0, rows: Sequence[int | str] | None = None, columns: Sequence[int | str] | None = None
    ) -> Tensor:
        """Replicates of X from the posterior predictive, shape (chain, draw, N, D), or of some rows and columns of it.

        Args:
            rows, columns: numbers or names; nothing else is formed.
        """
        return predictive.replicates(self, rows, columns, seed)

    @own_settings()
    def interval(
        self,
        site: str = "X",
        rows: Sequence[int | str] | None = None,
        columns: Sequence[int | str] | None = None,
        level: float = 0.9,
        seed: int = 0,
    ) -> tables.Interval:
        """Bounds that hold a share of the draws: of cells of X, missing ones above all, or of a site.

        Args:
            site: "X": the posterior predictive of its cells, noise included, of modes the best one's; otherwise a site's own draws.
            rows, columns: of X, as in `predictive`.
            level: the share between the bounds.

        Returns: arrays `mean`, `lower`, `upper`, (rows, columns), or of the site's shape.
        """
        if site != "X":
            return tables.interval(self._kept(site).flatten(0, 1), level)
        if self.kind is Kind.MODES:
            return imputation.of_mode(self, rows, columns, level, seed)
        return tables.interval(self.predictive(seed, rows, columns).flatten(0, 1), level)

    @own_settings()
    def imputed(self, level: float = 0.9, seed: int = 0) -> imputation.Imputed:
        """The missing cells of X, each with the mean and the bounds of its predictive distribution, noise included.

        Of modes they are the best one's: its noise about W @ H is in the bounds, what else is not known is not.

        Args:
            level: the share of the draws between the bounds.
            seed: of the noise.
        """
        return imputation.imputed(self, level, seed)

    @own_settings()
    def components(self, *, scale: bool = True, level: float = 0.9) -> tables.Table:
        """The components (K, D) over the draws, the strongest first, with deviations, intervals and how sure each is.

        Args:
            scale: make each component sum to one in every draw. The data know a component up to its scale alone, and
                moves along the ridge change it, so that without this the intervals are mostly of the scale.
            level: the share of the draws between the bounds.
        """
        return tables.components(self, scale, level)

    @own_settings()
    def loadings(self, *, scale: bool = True, level: float = 0.9) -> tables.Table:
        """The loadings (N, K) over the draws, as `components`; `scale` takes the scale that these give up."""
        return tables.loadings(self, scale, level)

    @own_settings()
    def log_likelihood(self) -> Tensor:
        """log p(x_ij | draw) for every entry, shape (chain, draw, N, D); zero where missing."""
        return predictive.log_likelihood(self)

    @own_settings()
    def log_likelihood_at(self, rows: Tensor, columns: Tensor) -> Tensor:
        """log p(x_ij | draw) of M entries by their rows and columns, (chain, draw, M), float64."""
        return predictive.log_likelihood_at(self, rows, columns)

    def likelihood(self, params: Params) -> Distribution:
        """The model's distribution of X given the factors, (*C, N, D), with the known noise of X's entries."""
        return predictive.likelihood(self, params)

    @own_settings()
    def to_arviz(
        self,
        *,
        log_likelihood: bool = False,
        posterior_predictive: bool = False,
        rows: Sequence[str] | None = None,
        columns: Sequence[str] | None = None,
    ) -> Any:
        """What the functions of the installed `arviz` take: `to_datatree` from ArviZ 1 on, the same as InferenceData before."""
        tree = self.to_datatree(
            log_likelihood=log_likelihood, posterior_predictive=posterior_predictive, rows=rows, columns=columns
        )
        return arviz.for_arviz(tree)

    def to_datatree(
        self,
        *,
        log_likelihood: bool = False,
        posterior_predictive: bool = False,
        rows: Sequence[str] | None = None,
        columns: Sequence[str] | None = None,
    ) -> xarray.DataTree:
        """A DataTree: posterior, sample_stats, observed_data, constant_data, and the two groups asked for.

        Entries of X that were not observed are NaN in observed_data. With either of the two groups they are left out, for
        ArviZ would count them: X is then one dimension, `cell`, in each group that has it, with the coordinates `row` and
        `column`. Of an X that is not a dense matrix and is too large for one, observed_data and constant_data are left out.

        Args:
            log_likelihood: add log p(x_ij | draw), chain × draw × N × D numbers.
            posterior_predictive: add replicates of X, as many numbers.
            rows: names of X's rows; columns: of its columns; by default `names`, or else whole numbers.
        """
        return arviz.datatree(
            self,
            log_likelihood=log_likelihood,
            posterior_predictive=posterior_predictive,
            rows=rows,
            columns=columns,
        )

    @own_settings()
    def save(
        self, path: str | Path, *, rows: Sequence[str] | None = None, columns: Sequence[str] | None = None
    ) -> Path:
        """Write everything to a NetCDF file that ArviZ opens too; `Posterior.load` gives back the same.

        A sparse X is written as the entries that it stores. One that is read from disk is not copied: the file says
        where it is, and the loaded posterior's X can be read as long as it is there, unchanged.

        Args:
            rows, columns: names, as in `to_datatree`; `load` gives them back as the posterior's names.
        """
        return saving.write(self, path, {"rows": rows, "columns": columns})

    @classmethod
    @own_settings()
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote. Raises ValueError when the file is not one of ours."""
        parts = saving.read(path)
        return cls(**{**parts, "kind": Kind(parts["kind"])})

    def _kept(self, site: str) -> Tensor:
        if not isinstance(site, str) or site not in {*self.draws, *self.dimensions}:
            raise KeyError(f"there is no site {site!r}{meant(site, self.draws)}; there are {', '.join(self.draws)}")
        if site not in self.draws:
            raise KeyError(f"{site} was not kept; kept were {', '.join(self.draws)}: fit with keep=None to keep all")
        return self.draws[site]

    def _sites(self) -> dict[str, Tensor]:
        return {site: self._kept(site) for site in self.dimensions}

    @property
    def dimensions(self) -> dict[str, list[str]]:
        """Each site's name -> its dimensions' names."""
        return {site: list(dims) for site, dims in self.model.sites(*self.X.shape).items()}
