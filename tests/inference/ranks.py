"""What each of several processes does for `test_distributed.py`: `python ranks.py FOLDER` with torchrun's variables set.

Every run below is also made in one process by the test, which compares the two.
"""

from __future__ import annotations

import os
import signal
import sys
import warnings
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
import torch
import torch.distributed as dist

import ppnmf
from ppnmf.data import processes
from ppnmf.data.labelled import Labelled
from ppnmf.data.sharded import shard
from ppnmf.models import PAENMF, ExponentialGaussian

ROWS, COLUMNS, RANK = 11, 6, 3
CUTS = (0, 7, 11)  # unequal shares


def data(dtype: torch.dtype = torch.float64) -> torch.Tensor:
    g = torch.Generator().manual_seed(0)
    W, H = (-torch.rand(*shape, generator=g).log() for shape in ((ROWS, RANK), (RANK, COLUMNS)))
    return (W @ H + 0.3 * torch.rand(ROWS, COLUMNS, generator=g)).to(dtype)


def hidden() -> torch.Tensor:
    """A mask that hides entries of the second share alone, a whole column of it among them."""
    mask = torch.ones(ROWS, COLUMNS, dtype=torch.bool)
    mask[8, 1] = mask[10, 4] = False
    mask[CUTS[1] :, 2] = False
    return mask


def rates_of_entries() -> ExponentialGaussian:
    g = torch.Generator().manual_seed(1)
    rate_W, rate_H = (0.5 + torch.rand(*shape, generator=g) for shape in ((ROWS, RANK), (RANK, COLUMNS)))
    return ExponentialGaussian(RANK, rate_W, rate_H, 2.0, 0.5)


def noise() -> torch.Tensor:
    return 0.5 + torch.rand(ROWS, COLUMNS, generator=torch.Generator().manual_seed(2))


ON_DISK = "X.npy"  # in the folder of the run, which the test makes
SPARSE = scipy.sparse.csr_matrix(data().numpy() * (data() > 1).numpy())
PLAIN = ExponentialGaussian(RANK, 1.0, 0.7, 2.0, 0.5)
GIBBS: dict[str, Any] = {"draws": 4, "warmup": 0, "chains": 2, "seed": 3}
RUNS: dict[str, dict[str, Any]] = {  # name -> model, X, mask, and the options of `fit`
    "gibbs": {"model": PLAIN, "X": data(), **GIBBS},
    "gibbs without moves": {"model": PLAIN, "X": data(), "moves": False, **GIBBS},
    "gibbs in single precision": {"model": PLAIN, "X": data(torch.float32), **GIBBS, "draws": 2},
    "gibbs with a mask": {"model": PLAIN, "X": data(), "mask": hidden(), **GIBBS},
    "gibbs with a rate per entry": {"model": rates_of_entries(), "X": data(), **GIBBS, "init": "prior"},
    "gibbs with noise per entry": {"model": PLAIN, "X": data(), "noise": noise(), **GIBBS},
    "gibbs of a sparse X": {"model": PLAIN, "X": SPARSE, **GIBBS},
    "gibbs of stored entries": {"model": PLAIN, "X": SPARSE, "missing": "unstored", **GIBBS},
    "gibbs of a matrix on disk": {"model": PLAIN, "X": ON_DISK, **GIBBS},
    "gibbs by the reference": {"model": PLAIN, "X": data(), **GIBBS},
    "icm": {"model": PLAIN, "X": data(), "method": "icm", "restarts": 2, "tol": 0.0, "max_sweeps": 6},
    "icm with a mask": {"model": PLAIN, "X": data(), "mask": hidden(), "method": "icm", "tol": 0.0, "max_sweeps": 6},
    "svi": {"model": PAENMF(2), "X": data(), "method": "svi", "steps": 5, "draws": 3},
    "svi with a mask": {
        "model": PAENMF(2, sigma2=0.1),
        "X": data(),
        "mask": hidden(),
        "method": "svi",
        "steps": 5,
        "draws": 3,
    },
}
APART: dict[
    str, dict[str, Any]
] = {  # draws that depend on the number of processes; H and σ² are still the same everywhere
    "gibbs for long": {"model": PLAIN, "X": data(), **GIBBS, "draws": 150},
    "gibbs after a survey": {"model": PLAIN, "X": data(), **GIBBS, "survey": 4},
    "svi by mini-batches": {"model": PAENMF(2), "X": data(), "method": "svi", "steps": 12, "batch_size": 2, "draws": 3},
    "svi as in the paper": {
        "model": PAENMF(2),
        "X": data(),
        "method": "svi",
        "steps": 5,
        "draws": 3,
        "objective": "sampled",
    },
}


def fitted(name: str, folder: Path, share: slice | None = None) -> dict[str, Any]:
    """Draws, lp and facts of a run: in one process, or of this one's share of the rows."""
    options = dict({**RUNS, **APART}[name])
    X = options.pop("X")
    X = np.load(folder / X, mmap_mode="r") if isinstance(X, str) else X
    if share is not None:
        cut = {word: options.pop(word)[share] for word in ("mask", "noise") if word in options}
        X = shard(X[share], **cut, missing=options.pop("missing", "error"))
    os.environ["PPNMF_KERNEL"] = "reference" if "reference" in name else ""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="icm: .* had not converged")
        post = ppnmf.fit(options.pop("model"), X, progress=False, **options)
    os.environ["PPNMF_KERNEL"] = ""
    return {**post.draws, "lp": post.stats["lp"], "attrs": post.attrs, "model": post.model.config()}


def with_local_row_numbers(X: torch.Tensor) -> dict[str, Any]:
    """The mistake that rows are counted from each share's first."""
    X = replace(shard(X), first_row=0)
    return ppnmf.fit(PLAIN, X, progress=False, **GIBBS).draws


def without_minimum(X: torch.Tensor) -> dict[str, Any]:
    """The mistake that a rank shears by the least ratio of its own rows."""
    X = shard(X)
    honest = X.ranks.gathered

    def gathered(part: torch.Tensor) -> torch.Tensor:
        every = honest(part)
        if part.shape[-1] == 2 and part.ndim == 3:
            every[..., 1] = part[..., 1]
        return every

    X.ranks.gathered = gathered
    return ppnmf.fit(PLAIN, X, progress=False, **GIBBS).draws


def refusal(*args: Any, **options: Any) -> str:
    try:
        ppnmf.fit(PLAIN, shard(*args), progress=False, **options)
    except (ValueError, TypeError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}"
    return "none"


def no_evidence(mine: torch.Tensor) -> str:
    try:
        ppnmf.log_evidence(PLAIN, shard(mine), progress=False)
    except TypeError as error:
        return str(error)
    return "none"


def refusals(rank: int, mine: torch.Tensor) -> dict[str, str]:
    nan = mine.clone()
    nan[0, 0] = torch.nan
    return {
        "columns": refusal(mine[:, : COLUMNS - rank]),
        "names": refusal(Labelled.of(mine, None, [f"gene {j + rank}" for j in range(COLUMNS)])),
        "dtype": refusal(mine if rank else mine.float()),
        "one rank's rows": refusal(nan if rank else mine),
        "nuts": refusal(mine, method="nuts"),
        "evidence": no_evidence(mine),
        "nndsvd": refusal(mine, init="nndsvd"),
    }


def interrupted(rank: int, X: torch.Tensor) -> dict[str, Any]:
    """A long run that rank 1 is told to end, by Ctrl-C."""
    X = shard(X)
    honest, calls = X.ranks.gathered, 0

    def gathered(part: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if rank == 1 and calls == 200:
            os.kill(os.getpid(), signal.SIGINT)
        return honest(part)

    X.ranks.gathered = gathered
    post = ppnmf.fit(PLAIN, X, draws=100_000, warmup=0, chains=1, progress=False)
    return {"draws": post.n_draws, "attrs": post.attrs, "handler": signal.getsignal(signal.SIGINT).__name__}


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", timeout=timedelta(seconds=120))
    rank = dist.get_rank()
    share = slice(*CUTS[rank : rank + 2])
    mine = data()[share]
    told: dict[str, Any] = {name: fitted(name, folder, share) for name in (*RUNS, *APART)}
    told["again"] = fitted("gibbs", folder, share)
    X = shard(mine)
    told["numbers"] = [X.shape, X.n_observed, X.sum_of_squares, X.mean(), X.variance(), X.log_noise, X.rows]
    noisy = shard(mine, noise=noise()[share])
    told["noisy"] = [noisy.sum_of_squares, noisy.mean(), noisy.variance(), noisy.log_noise]
    told["scaled_to"] = ExponentialGaussian.scaled_to(X, RANK).config()
    processes.FEW, processes.FEW_RANKS = 0, 1
    part = torch.from_numpy(np.random.default_rng(rank).random((7, 3)))
    told["sum in pieces"] = X.ranks.add_up(part)
    processes.FEW, processes.FEW_RANKS = 4096, 2
    told["local row numbers"], told["no minimum"] = with_local_row_numbers(mine), without_minimum(mine)
    told["refusals"] = refusals(rank, mine)
    told["interrupted"] = interrupted(rank, mine)
    if rank == 0:
        try:
            for _ in range(100):
                X.ranks.gathered(mine.sum())
        except ConnectionError as error:
            told["death"] = str(error)
    torch.save(told, folder / f"rank{rank}.pt")
    if rank == 0:
        dist.destroy_process_group()
    os._exit(0)  # rank 1 goes without a word


if __name__ == "__main__":
    main(Path(sys.argv[1]))
