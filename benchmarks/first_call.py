"""What does the first call of each method cost, when no kernel has been compiled yet?

Each row is a tiny fit in a fresh process with an empty cache of Numba's, then in another process that finds the cache of
the first one, and once more in that process. Imports are not counted, since they are the same with and without a cache.
Seconds on the clock, and of the processor: on a busy machine trust the latter. Prints a table, and writes JSON with --out.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from typing import Any

METHODS = ("gibbs", "icm", "chib", "smc")
KINDS = ("dense", "masked", "sparse", "float32")
QUICK = (("gibbs", "dense"),)
COLUMNS = ("first", "first, processor", "cached", "again")


def data(kind: str) -> dict[str, Any]:
    """X (30, 20) of this kind and its mask, as `fit` takes them."""
    import numpy as np
    import scipy.sparse

    generator = np.random.default_rng(0)
    X = generator.gamma(1.0, size=(30, 3)) @ generator.gamma(1.0, size=(3, 20))
    kept = generator.random(X.shape) < 0.7
    if kind == "masked":
        return {"X": X, "mask": kept}
    if kind == "sparse":
        return {"X": scipy.sparse.csr_array(np.where(kept, X, 0.0))}
    return {"X": X.astype(np.float32 if kind == "float32" else np.float64)}


def call(method: str, X: Any, mask: Any = None) -> None:
    """A run of a method that is as short as can be."""
    import ppnmf

    model = ppnmf.models.ExponentialGaussian(2)
    options = {"mask": mask, "progress": False, "seed": 0}
    if method == "chib":
        ppnmf.log_evidence(model, X, method="chib", draws=5, warmup=5, replicates=2, **options)
    elif method == "smc":
        ppnmf.fit(model, X, method="smc", particles=10, replicates=2, **options)
    elif method == "icm":
        ppnmf.fit(model, X, method="icm", restarts=2, max_sweeps=5, **options)
    else:
        ppnmf.fit(model, X, method="gibbs", draws=2, warmup=2, chains=2, **options)


def timed_twice(method: str, kind: str) -> list[tuple[float, float]]:
    """Seconds of a call in this process and of one more: on the clock, and of the processor."""
    import warnings

    import ppnmf.evidence.chib
    import ppnmf.inference.icm
    import ppnmf.inference.smc  # noqa: F401

    warnings.simplefilter("ignore")  # such short runs have not converged
    own, times = data(kind), []
    for _ in range(2):
        clock, processor = time.perf_counter(), time.process_time()
        call(method, **own)
        times.append((time.perf_counter() - clock, time.process_time() - processor))
    return times


def measure(method: str, kind: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as cache:
        env = os.environ | {"NUMBA_CACHE_DIR": cache}
        command = [sys.executable, __file__, "--row", method, kind]
        runs = [subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=True) for _ in range(2)]
    (first, _), (cached, again) = (json.loads(run.stdout) for run in runs)
    return dict(zip(COLUMNS, (*first, cached[0], again[0]), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one row")
    parser.add_argument("--out", help="JSON file for the figures")
    parser.add_argument(
        "--row", nargs=2, metavar=("METHOD", "KIND"), help="time one row in this process, print it as JSON"
    )
    options = parser.parse_args()
    if options.row:
        print(json.dumps(timed_twice(*options.row)))
        return
    print(f"seconds; load average {os.getloadavg()[0]:.1f}")
    print(f"{'method':>8} {'X':>8} " + " ".join(f"{name:>16}" for name in COLUMNS))
    rows = []
    for method, kind in QUICK if options.quick else [(method, kind) for kind in KINDS for method in METHODS]:
        times = measure(method, kind)
        print(f"{method:>8} {kind:>8} " + " ".join(f"{times[name]:16.2f}" for name in COLUMNS), flush=True)
        rows.append({"method": method, "X": kind, "seconds": times})
    if options.out:
        with open(options.out, "w") as file:
            json.dump(rows, file, indent=2)


if __name__ == "__main__":
    main()
