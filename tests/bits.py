"""Hashes and values of every sampler with fixed seeds, to compare two versions of the code.

    python -m tests.bits > before.json
    python -m tests.bits before.json     # after a change: says which differ, and by how much

Exponential-Gaussian factors (dense, masked, noisy, sparse, stored, blocked, sharded; gibbs, icm, smc, chib, one step by
hand) and the objectives of PAE-NMF. "to rounding" means equal to a part in a million: over processes and where the order
of sums changed.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
import torch

import ppnmf
from ppnmf.data import toy
from ppnmf.data.matrix import as_matrix
from ppnmf.inference import gibbs, svi
from ppnmf.models import PAENMF, ExponentialGaussian
from ppnmf.protocols import Held
from ppnmf.rng import Stream
from tests.scenarios import per_entry_model

ROUNDING = 1e-6
N, D, K = 40, 30, 3


def kinds(folder: Path) -> dict[str, Any]:
    """Name -> a matrix of each kind, of the same few numbers."""
    X = toy.draw(N, D, rank=K, noise=0.1, seed=1).X.clamp(min=0).numpy()
    generator = np.random.default_rng(0)
    seen = generator.random((N, D)) > 0.2
    zeros = np.where(generator.random((N, D)) > 0.5, X, 0.0)
    np.save(folder / "x.npy", X)
    return {
        "dense": as_matrix(X),
        "single precision": as_matrix(X.astype(np.float32)),
        "masked": as_matrix(X, seen),
        "noise a column": as_matrix(X, noise=0.5 + generator.random(D)),
        "noise an entry": as_matrix(X, noise=0.5 + generator.random((N, D))),
        "sparse": as_matrix(scipy.sparse.csr_array(zeros)),
        "stored": as_matrix(scipy.sparse.csr_array(zeros), missing="unstored"),
        "blocked": as_matrix(folder / "x.npy"),
        "sharded": ppnmf.shard(X),
    }


def found(folder: Path) -> Iterator[tuple[str, list[torch.Tensor]]]:
    """Name -> the numbers that a version of the code gives."""
    every = kinds(folder)
    one_rate, per_entry = ExponentialGaussian(K, 1.0, 1.5, 2.0, 0.5), per_entry_model(N, D, K)
    short: dict[str, Any] = {"draws": 6, "warmup": 4, "chains": 2, "seed": 3, "progress": False}
    for name, X in every.items():
        for which, model in (("one rate", one_rate), ("a rate an entry", per_entry)):
            for moves in (True, False):
                post = ppnmf.fit(model, X, method="gibbs", moves=moves, init="scaled", **short)
                yield f"gibbs, {name}, {which}, moves {moves}", [*post.draws.values(), post.stats["lp"]]
            mode = ppnmf.fit(model, X, method="icm", restarts=2, max_sweeps=60, seed=3, progress=False)
            yield f"icm, {name}, {which}", [*mode.draws.values(), mode.stats["lp"]]
    stream = Stream.of(5, 3)
    begun = gibbs.init(one_rate, every["dense"], stream, "prior")
    for power, first in ((0.3, (0, 0)), (1.0, (1, 2))):
        state, info = gibbs.step(one_rate, begun, every["dense"], stream, power=power, held=Held(*first))
        yield f"a step at power {power}, first {first}", [*state.params.values(), info.lp]
    short_runs: dict[str, Any] = {"replicates": 3, "seed": 4, "progress": False}
    for name in ("dense", "masked", "sparse"):
        few = ppnmf.fit(one_rate, every[name], method="smc", particles=20, **short_runs)
        yield f"smc, {name}", [*few.draws.values(), few.stats["lp"], torch.tensor(few.attrs["log_evidence"])]
    for name, model in (("dense", one_rate), ("masked", one_rate), ("dense", per_entry)):
        options = {"draws": 30, "warmup": 30, **short_runs}
        evidence = ppnmf.log_evidence(model, every[name], method="chib", **options)
        numbers = torch.tensor([*evidence.replicates, evidence.attrs["forward"], evidence.attrs["reverse"]])
        yield f"chib, {name}, {'a rate an entry' if model is per_entry else 'one rate'}", [numbers]
    for name in ("dense", "masked"):
        for objective in ("analytic", "sampled"):
            pae = ppnmf.fit(PAENMF(K), every[name], method="svi", steps=60, draws=5, seed=2, objective=objective)
            exact = torch.tensor([svi.elbo(pae.model, every[name])], dtype=torch.float64)
            curve = torch.tensor(pae.attrs["elbo_curve"], dtype=torch.float64)
            yield f"svi, {name}, {objective}", [curve, exact, pae.draws["W"], pae.draws["H"]]


def table() -> dict[str, dict[str, Any]]:
    """Name -> the hash of the bits, and a few numbers that show a difference to rounding."""
    rows = {}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, numbers in found(Path(folder)):
            raw = b"".join(values.detach().contiguous().numpy().tobytes() for values in numbers)
            sums = [float(values.double().sum()) for values in numbers]
            rows[name] = {"hash": hashlib.sha256(raw).hexdigest()[:16], "sums": sums}
    return rows


def main(before: str | None) -> int:
    rows = table()
    if before is None:
        print(json.dumps(rows, indent=1))  # noqa: T201
        return 0
    known = json.loads(Path(before).read_text(encoding="utf-8"))
    off = 0
    for name, row in known.items():
        if rows[name]["hash"] == row["hash"]:
            continue
        apart = max(abs(a - b) / max(abs(b), 1e-300) for a, b in zip(rows[name]["sums"], row["sums"], strict=True))
        off += apart > ROUNDING
        print(f"{name}: sums differ by {apart:.2g}" + ("" if apart > ROUNDING else ", to rounding"))  # noqa: T201
    print(f"{len(known)} rows compared, {off} differ")  # noqa: T201
    return int(off > 0)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2] or [None]))
