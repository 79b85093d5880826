"""How near to long tempered Monte Carlo are Chib's evidence, plain and with the bridge, and stepping stones, and at what cost?

X (50, 40) is drawn with W, H ~ Exponential(1) at rank 4 and a noise variance of 1 and of 25; every method then gives log p(X)
at ranks 1 to 6 under the same priors. `long` is SMC with four times the particles: the yardstick. With --seeds, Chib alone
then chooses the rank of that many other matrices. Prints tables, and writes JSON with --out.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import warnings

import ppnmf
from ppnmf.data.toy import draw
from ppnmf.models import ExponentialGaussian

METHODS = {
    "chib plain": {"method": "chib", "bridge": False},
    "chib": {"method": "chib"},
    "chib, 4 x draws": {"method": "chib", "draws": 4000},
    "stepping stones": {"method": "stepping_stone"},
    "smc": {"method": "smc", "replicates": 4},
}


def measure(X, rank: int, options: dict, quick: bool) -> ppnmf.Evidence:  # type: ignore[no-untyped-def]
    sizes = {"draws": 50, "warmup": 50} if options["method"] == "chib" else {"particles": 20}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ppnmf.log_evidence(
            ExponentialGaussian(rank), X, **{**options, **(sizes if quick else {})}, progress=sys.stderr.isatty()
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small matrix, few ranks, short runs")
    parser.add_argument("--out", help="JSON file for the figures")
    parser.add_argument("--seed", type=int, default=0, help="of the drawn matrix")
    parser.add_argument("--seeds", type=int, default=0, help="other matrices of each variance, by Chib alone")
    parser.add_argument("--particles", type=int, default=2000, help="of the yardstick")
    options = parser.parse_args()
    N, D, K, ranks = (15, 12, 2, range(1, 4)) if options.quick else (50, 40, 4, range(1, 7))
    yardstick = {"method": "smc", "replicates": 4, "particles": options.particles}
    rows = []
    for variance in (1.0, 25.0):
        X = draw(N, D, K, noise=variance, seed=options.seed)[0]
        print(
            f"X ({N}, {D}), true rank {K}, noise variance {variance:g}: log p(X) less the yardstick's (errors; seconds)"
        )
        print(f"{'rank':>4} {'long smc':>20} " + " ".join(f"{name:>28}" for name in METHODS))
        best: dict[str, tuple[float, int]] = {}
        for rank in ranks:
            long = measure(X, rank, yardstick, options.quick)
            found = {name: measure(X, rank, chosen, options.quick) for name, chosen in METHODS.items()}
            for name, one in {"long": long, **found}.items():
                best[name] = max(best.get(name, (-math.inf, 0)), (one.log_evidence, rank))
                rows.append(
                    {
                        "variance": variance,
                        "rank": rank,
                        "method": name,
                        "log_evidence": one.log_evidence,
                        "mcse": one.mcse,
                        "gap": one.gap,
                        "seconds": one.seconds,
                    }
                )
            cells = [
                f"{one.log_evidence - long.log_evidence:+.2f} (± {one.mcse:.2f}; {one.seconds:.1f} s)"
                for one in found.values()
            ]
            yard = f"{long.log_evidence:.2f} ± {long.mcse:.2f}"
            print(f"{rank:4d} {yard:>20} " + " ".join(f"{cell:>28}" for cell in cells), flush=True)
        print("best rank: " + ", ".join(f"{name} {rank}" for name, (_, rank) in best.items()) + "\n")
        for seed in range(options.seed + 1, options.seed + 1 + options.seeds):
            X = draw(N, D, K, noise=variance, seed=seed)[0]
            own = [measure(X, rank, METHODS["chib"], options.quick) for rank in ranks]
            values = ", ".join(f"{one.log_evidence:.1f} ± {one.mcse:.1f}" for one in own)
            chosen = max(own, key=lambda one: one.log_evidence).rank
            print(
                f"seed {seed}: rank {chosen}; log p(X) by Chib at ranks {ranks[0]} to {ranks[-1]}: {values}", flush=True
            )
    if options.out:
        with open(options.out, "w") as file:
            json.dump(rows, file, indent=2)


if __name__ == "__main__":
    main()
