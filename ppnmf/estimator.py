"""NMF as a scikit-learn estimator: any of our models and methods inside pipelines and searches."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, check_non_negative, validate_data

from ppnmf.checks import one_of
from ppnmf.data.files import Table
from ppnmf.data.labelled import Labelled
from ppnmf.evidence.rank import CRITERIA, select_rank
from ppnmf.inference import fit, method_named
from ppnmf.models import ExponentialGaussian
from ppnmf.posterior import Kind, Posterior
from ppnmf.protocols import Amortised, Model, made_up

__all__ = ["NMF"]

RANKS = range(1, 11)
FOLDS = 5  # of columns, each hidden in turn from the rows that are scored
Array = np.ndarray[Any, np.dtype[Any]]


class NMF(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Probabilistic non-negative matrix factorisation, X (n_samples, n_features) ≈ W @ components_.

    `fit_transform`, `transform` and `components_` give one pair of factors (`Posterior.point`); everything else that the
    fit knows, errors and convergence above all, is in `posterior_`.

    Args:
        n_components: how many; or the name of a criterion by which the number is chosen among `ranks`, such as
            "heldout", "chib" or "bic" (`ppnmf.select_rank`); "evidence" is the one that suits the model.
        model: a registered model's name, whose priors are then set on the scale of the data; or a model, whose rank is
            then taken and `n_components` must be None or the same.
        inference: a method's name: "gibbs", "icm", "svi" ... (`ppnmf.fit`). "icm", the mode, is the quickest.
        ranks: to choose from; None: 1 to 10.
        draws, warmup, chains: of methods that draw; None leaves the method's own.
        init: where a run starts; None leaves the method's own.
        missing: "error", or "nan" where NaN entries are missing ones.
        allow_negative: take negative entries, which scikit-learn's own NMF refuses, where the model does.
        random_state: of every random number; an integer gives what `ppnmf.fit(..., seed=...)` does.
        options: further options of the method, by their names.

    Attributes:
        components_: (n_components, n_features). components_std_: their standard deviations over the aligned draws.
        n_components_: how many. posterior_: the `ppnmf.Posterior`. rank_table_: where the number was chosen.
        reconstruction_err_: the norm of the residual of the observed entries.
        n_features_in_, feature_names_in_: as in scikit-learn.
    """

    def __init__(
        self,
        n_components: int | str | None = 10,
        *,
        model: str | Model = "exponential_gaussian",
        inference: str = "gibbs",
        ranks: Iterable[int] | None = None,
        draws: int | None = None,
        warmup: int | None = None,
        chains: int | None = None,
        init: Any = None,
        missing: str = "error",
        allow_negative: bool = False,
        random_state: Any = None,
        options: dict[str, Any] | None = None,
    ) -> None:
        self.n_components = n_components
        self.model = model
        self.inference = inference
        self.ranks = ranks
        self.draws = draws
        self.warmup = warmup
        self.chains = chains
        self.init = init
        self.missing = missing
        self.allow_negative = allow_negative
        self.random_state = random_state
        self.options = options

    def fit(self, X: Any, y: Any = None) -> Self:
        """Fit the model to X (n_samples, n_features); y is ignored.

        Raises:
            ValueError: bad input, or a parameter out of its range.
        """
        self.__dict__.pop("rank_table_", None)  # of an earlier fit
        data = self._validated(X, reset=True)
        names = getattr(self, "feature_names_in_", None)
        labelled = Labelled.of(data, None, names)
        seed = self._seed()
        rank = self._rank(labelled, seed)
        by_name = isinstance(self.model, str)
        post = fit(
            self.model,
            labelled,
            rank=rank if by_name else None,
            method=self.inference,
            missing=self.missing,
            seed=seed,
            progress=False,
            **self._options(),
        )
        self.posterior_ = post
        self._point = _as_mode(post)
        self.components_ = self._point.draws["H"][0, 0].cpu().numpy()
        self.components_std_ = _spread(post, self._point)
        self.n_components_ = len(self.components_)
        self.reconstruction_err_ = math.sqrt(self._point.squared_error())
        return self

    def fit_transform(self, X: Any, y: Any = None) -> Array:
        """`fit`, and the loadings (n_samples, n_components) of X's own rows."""
        return self.fit(X).transform(X)

    def transform(self, X: Any) -> Array:
        """The loadings of rows of X, (n_samples, n_components): their mode given `components_`.

        An autoencoder gives the means of its encoder. `posterior_.transform(X)` has the loadings' whole distribution.
        """
        check_is_fitted(self)
        data = self._validated(X, reset=False)
        if isinstance(self.posterior_.model, Amortised):
            seen = ~np.isnan(data) if self.missing == "nan" else None
            return self.posterior_.model.encode(data, seen).mean.cpu().numpy()
        return self._point.transform(data, missing=self.missing).draws["W"][0, 0].cpu().numpy()

    def inverse_transform(self, X: Any) -> Array:
        """Loadings (n_samples, n_components) back in the space of the data: their product with `components_`."""
        check_is_fitted(self)
        W = np.asarray(X.toarray() if hasattr(X, "toarray") else X)
        if W.ndim != 2 or W.shape[1] != self.n_components_:
            raise ValueError(f"X has shape {W.shape}; loadings (n_samples, {self.n_components_}) are needed")
        return W @ self.components_

    def score(self, X: Any, y: Any = None) -> float:
        """How well hidden entries of X are predicted: the mean of their log predictive densities.

        A fifth of the columns at a time is hidden from the loadings, so that more components do not score better by
        themselves; a search over `n_components` may use it. An encoder reads whole rows: in its place loadings are the least
        squares of what is not hidden.

        Raises:
            ValueError: X has one column, so that nothing would be left to predict it from.
        """
        check_is_fitted(self)
        data = self._validated(X, reset=False)
        values = data.toarray() if hasattr(data, "toarray") else data
        if values.shape[1] == 1:
            raise ValueError("X has 1 column; score predicts each from others, so give it at least 2")
        point = self._point
        if isinstance(point.model, Amortised):
            point = replace(point, model=ExponentialGaussian(self.n_components_, 0.0, 0.0))
        seen = ~np.isnan(values)
        total = 0.0
        for fold in range(min(FOLDS, values.shape[1])):
            hidden = np.zeros_like(seen)
            hidden[:, fold::FOLDS] = True
            W = point.transform(values, mask=seen & ~hidden).draws["W"][0]
            params = {**{site: drawn[0] for site, drawn in point.draws.items()}, "W": W}
            logs = self.posterior_.model.likelihood(params).log_prob(torch.from_numpy(np.nan_to_num(values)))[0]
            total += float(logs[torch.from_numpy(hidden & seen)].sum())
        return total / seen.sum()

    def sample(self, n_samples: int = 1) -> Array:
        """New rows (n_samples, n_features), drawn as those that were fitted are spread (`Posterior.generate`)."""
        check_is_fitted(self)
        return self.posterior_.generate(n_samples, seed=self._seed(), latent="aggregated").cpu().numpy()

    @property
    def _n_features_out(self) -> int:
        return self.n_components_

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only = not self.allow_negative
        tags.input_tags.sparse = True
        tags.input_tags.allow_nan = self.missing == "nan"
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def _validated(self, X: Any, reset: bool) -> Any:
        X = _framed(X) if isinstance(X, Table) else X
        finite: Any = "allow-nan" if self.missing == "nan" else True
        kinds = [np.float64, np.float32]
        data = validate_data(self, X, reset=reset, accept_sparse="csr", dtype=kinds, ensure_all_finite=finite)
        if not self.allow_negative:
            check_non_negative(data, "NMF (allow_negative=True takes them)")
        return data

    def _seed(self) -> int:
        if isinstance(self.random_state, int | np.integer):
            return int(self.random_state)
        return int(check_random_state(self.random_state).randint(2**31 - 1))

    def _rank(self, X: Labelled, seed: int) -> int:
        """The number of components, chosen where `n_components` names a criterion."""
        if isinstance(self.model, Model):
            if self.n_components not in (None, self.model.rank):
                raise ValueError(
                    f"n_components is {self.n_components!r} and the model's rank {self.model.rank}: give None"
                )
            return self.model.rank
        if not isinstance(self.n_components, str):
            if self.n_components is None:
                raise ValueError("n_components is None; give a number, or the name of a criterion such as 'heldout'")
            return self.n_components
        criterion = None if self.n_components == "evidence" else one_of("n_components", self.n_components, CRITERIA)
        ranks = RANKS if self.ranks is None else self.ranks
        self.rank_table_ = select_rank(
            self.model, X, ranks, method=criterion, missing=self.missing, seed=seed, progress=False
        )
        return self.rank_table_.best

    def _options(self) -> dict[str, Any]:
        """What the method is told: of the parameters those that it has."""
        known = inspect.signature(method_named(self.inference)).parameters
        own = {name: getattr(self, name) for name in ("draws", "warmup", "chains", "init")}
        given = {name: value for name, value in own.items() if value is not None}
        unknown = [name for name in given if name not in known]
        if unknown:
            raise ValueError(f"{', '.join(unknown)}: {self.inference} has no such option; leave it at None")
        return {**given, **(self.options or {})}


def _framed(table: Table) -> Any:
    """What a file held as scikit-learn takes it, a data frame where columns have names."""
    if table.columns is None or hasattr(table.X, "tocsr"):
        return table.X
    import pandas as pd

    return pd.DataFrame(table.X, table.rows, table.columns)


def _as_mode(post: Posterior) -> Posterior:
    """The posterior's point, as a posterior of one draw that is taken as it is; where factors make up others, the best draw."""
    draws = dict(post.best().draws) if made_up(post.model) else {s: v[None, None] for s, v in post.point().items()}
    nothing = {"lp": torch.zeros(1, 1, dtype=torch.float64)}
    return replace(post, draws=draws, stats=nothing, kind=Kind.MODES, names={})


def _spread(post: Posterior, point: Posterior) -> Array:
    """Standard deviations of the entries of H over draws that are brought to the order and the scale of the point."""
    from ppnmf.diagnostics.alignment import align

    if post.kind is Kind.MODES:
        return np.zeros_like(point.draws["H"][0, 0].cpu().numpy())
    drawn = align(post, reference={site: point.draws[site][0, 0] for site in ("W", "H")}).draws["H"].flatten(0, 1)
    wanted = point.draws["H"][0, 0].sum(-1, keepdim=True)
    total = drawn.sum(-1, keepdim=True)
    scaled = torch.where(total > 0, drawn / total, 0.0) * wanted
    return scaled.std(0, correction=0).cpu().numpy()
