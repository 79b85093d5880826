"""What a type checker says of uses of ppnmf: `make lint` runs `mypy --strict` on it, and nothing runs the functions.

Where an error is wanted it is named; without it mypy complains of an ignore that is not needed.
"""

from __future__ import annotations

from typing import assert_type

import numpy as np
from torch import Tensor

import ppnmf
from ppnmf.diagnostics.printed import Summary
from ppnmf.evidence.table import RankTable
from ppnmf.models import PAENMF, ExponentialGaussian
from ppnmf.report import Comparison

X = np.ones((4, 3))


def fits() -> None:
    model = ExponentialGaussian(rank=2, rate_W=[1.0, 2.0], rate_H=np.ones((2, 3)))
    assert_type(ppnmf.models.ExponentialGaussian.scaled_to(X, rank=2), ExponentialGaussian)
    assert_type(ppnmf.models.PAENMF.paper(2), PAENMF)
    post = ppnmf.fit(model, X, method="gibbs", draws=10, warmup=10, chains=2, keep=["H"], init={"W": X, "H": X})
    assert_type(post, ppnmf.Posterior)
    assert_type(ppnmf.fit("half_normal_gaussian", X, rank=2, draws=10), ppnmf.Posterior)
    assert_type(post.draws["W"], Tensor)
    assert_type(post.mean("sigma2"), Tensor)
    assert_type(ppnmf.align(post), ppnmf.Posterior)
    assert_type(ppnmf.Posterior.load(post.save("fit.nc", rows=["a"], columns=["b"])), ppnmf.Posterior)
    assert_type(ppnmf.summary(post), Summary)
    assert_type(ppnmf.compare({"gibbs": post, "nuts": "too slow"}, X), Comparison)
    assert_type(ppnmf.plots.traces(post), ppnmf.plots.Panels)
    ppnmf.fit(PAENMF(2, encoder=(64, 32)), X, method="svi", steps=10, batch_size=None, objective="sampled", polish=3)
    ppnmf.fit(model, X, method="icm", restarts=4, tol=1e-6, max_sweeps=5, init=post, device="cpu", mask=X > 0)


def evidence() -> None:
    found = ppnmf.log_evidence(ExponentialGaussian(2), X, method="chib", draws=10, replicates=3)
    assert_type(found, ppnmf.Evidence)
    assert_type(found.log_evidence, float)
    assert_type(ppnmf.select_rank(ExponentialGaussian(2), X, range(1, 4)), RankTable)
    table = ppnmf.select_rank(ExponentialGaussian, X, [1, 2], method=["chib", "heldout"], folds=4, chib={"draws": 10})
    assert_type(table.best, int)
    assert_type(ppnmf.plots.rank(table), ppnmf.plots.Panels)
    assert_type(ppnmf.datasets.names(), list[str])


def mistakes(post: ppnmf.Posterior) -> None:
    ppnmf.fit(ExponentialGaussian(2), X, colums=["a"])  # type: ignore[call-arg]
    ppnmf.fit(ExponentialGaussian(2), X, draw=10)  # type: ignore[call-arg]
    ppnmf.fit(ExponentialGaussian(2), X, draws="10")  # type: ignore[arg-type]
    ppnmf.fit(ExponentialGaussian(2), X, draws=1.5)  # type: ignore[arg-type]
    ppnmf.fit(ExponentialGaussian(2), X, keep=5)  # type: ignore[arg-type]
    ppnmf.fit(ExponentialGaussian(2), X, seed=None)  # type: ignore[arg-type]
    ppnmf.fit(ExponentialGaussian(2), X, method=ppnmf)  # type: ignore[arg-type]
    ppnmf.fit(X, ExponentialGaussian(2))  # type: ignore[arg-type]
    ppnmf.fit(ExponentialGaussian, X)  # type: ignore[arg-type]
    ppnmf.fit(5, X)  # type: ignore[arg-type]
    ppnmf.fitt(ExponentialGaussian(2), X)  # type: ignore[attr-defined]
    ExponentialGaussian(2, noise_scale=[1.0, 2.0])  # type: ignore[arg-type]
    ExponentialGaussian(2, rate=1.0)  # type: ignore[call-arg]
    ExponentialGaussian("5")  # type: ignore[arg-type]
    ExponentialGaussian.scaled_to(X, None)  # type: ignore[arg-type]
    PAENMF(2, encoder=5)  # type: ignore[arg-type]
    post.save("fit.nc", colums=["a"])  # type: ignore[call-arg]
    post.to_arviz(colums=["a"])  # type: ignore[call-arg]
    post.reconstruction(5)  # type: ignore[arg-type]
    post.meen("W")  # type: ignore[attr-defined]
    ppnmf.summary("fit.nc")  # type: ignore[arg-type]
    ppnmf.compare([post], X)  # type: ignore[arg-type]
    ppnmf.log_evidence(ExponentialGaussian(2), X, restarts=3)  # type: ignore[call-arg]
    ppnmf.select_rank(ExponentialGaussian(2), X, 5)  # type: ignore[arg-type]
    ppnmf.select_rank(ExponentialGaussian(2), X, chib=["draws"])  # type: ignore[arg-type]
    ppnmf.select_rank(ExponentialGaussian(2), X, colums=["a"])  # type: ignore[call-arg]
    ppnmf.plots.traces([post])  # type: ignore[arg-type]
