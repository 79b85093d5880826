"""How many effective draws a second does `fit` give, against NumPyro's NUTS on the same posterior?

The least bulk ESS over the log joint, sigma2, the sorted strengths and 50 entries of W @ H, four chains each, with the worst
R-hat of the same quantities: where that is above 1.05 the sampler has not converged, and its ESS is not to be believed.
Seconds are those of compiling (for us: of a new process's first fit, its compiled code read from Numba's cache), of warm-up
and of sampling. NUTS runs its chains in one vectorised program, or on two or four devices as which the CPU poses, whichever
makes most gradients a second in a short trial that is not charged. NumPyro is optional: without it ours stands alone. Prints
a table, and writes JSON with --out.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

import ppnmf
from ppnmf.data.matrix import as_matrix
from ppnmf.data.toy import draw
from ppnmf.diagnostics.convergence import AGREE, diagnose
from ppnmf.gaussian.noise import log_likelihood
from ppnmf.models import ExponentialGaussian
from ppnmf.posterior import Posterior
from ppnmf.progress import bar

CHAINS, ENTRIES = 4, 50
FIRST_FIT = """
import time, torch, ppnmf
began = time.perf_counter()
ppnmf.fit(ppnmf.models.ExponentialGaussian(2), torch.rand(8, 6).double(), draws=1, warmup=0, progress=False)
print(time.perf_counter() - began)
"""


class Problem(NamedTuple):
    N: int
    D: int
    K: int
    warmup: int  # ours
    draws: int
    thin: int
    nuts_warmup: int
    nuts_draws: int
    budget: float  # seconds for NUTS, compiling and warm-up included

    @property
    def model(self) -> ExponentialGaussian:
        return ExponentialGaussian(self.K)

    @property
    def X(self) -> torch.Tensor:
        return draw(self.N, self.D, self.K).X.abs()


PROBLEMS = [
    Problem(20, 15, 3, 1000, 10_000, 1, 1000, 2000, 300.0),
    Problem(100, 80, 10, 5000, 5000, 10, 300, 10**9, 300.0),
]
QUICK = [Problem(8, 6, 2, 200, 1000, 1, 50, 50, 10.0)]


@dataclass(frozen=True)
class Run:
    """What a sampler did, in seconds and effective draws."""

    how: str
    draws: int  # a chain
    ess: float
    scarcest: str
    rhat: float
    worst: str
    compiling: float
    warmup: float
    sampling: float
    processor: float  # seconds of all threads while sampling (and, for us, warming up)
    remark: str = ""

    @classmethod
    def of(
        cls,
        how: str,
        post: Posterior,
        compiling: float,
        warmup: float,
        sampling: float,
        processor: float,
        remark: str = "",
    ) -> Run:
        found = diagnose(post, ENTRIES)
        ess, rhat = found.least_ess or 0.0, found.worst_rhat or float("inf")
        scarcest, worst = (q.name if q is not None else "-" for q in (found.scarcest, found.worst))
        return cls(how, post.n_draws, ess, scarcest, rhat, worst, compiling, warmup, sampling, processor, remark)

    @property
    def whole(self) -> float:
        return self.compiling + self.warmup + self.sampling

    def __str__(self) -> str:
        seconds = f"{self.compiling:8.1f} {self.warmup:8.1f} {self.sampling:8.1f} {self.processor:8.1f}"
        rates = f"{self.ess / self.sampling:10.3g} {self.ess / self.whole:10.3g}"
        figures = f"{self.draws:7d} {self.ess:8.0f} {self.scarcest:12} {self.rhat:6.3f} {self.worst:12}"
        return f"  {self.how:18} {figures} {seconds} {rates}  {self.remark}"


HEAD = (
    f"  {'':18} {'draws':>7} {'ESS':>8} {'least of':12} {'R-hat':>6} {'worst of':12} "
    f"{'compile':>8} {'warm-up':>8} {'sample s':>8} {'CPU s':>8} {'ESS/s':>10} {'whole':>10}"
)


def first_fit(cold: bool) -> float:
    """Seconds of a fit of one sweep in a new process, with the code compiled before, or (cold) compiled for this."""
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | ({"NUMBA_CACHE_DIR": folder} if cold else {})
        done = subprocess.run([sys.executable, "-c", FIRST_FIT], env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return float(done.stdout)


def ours(problem: Problem, compiled: float) -> Run:
    X, model = problem.X, problem.model
    plan = {"draws": problem.draws, "warmup": problem.warmup, "thin": problem.thin}
    ppnmf.fit(model, X, draws=1, warmup=0, progress=False)  # what `compiled` has been charged for
    busy = time.process_time()
    post = ppnmf.fit(model, X, chains=CHAINS, seed=1, **plan)
    busy, warmup = time.process_time() - busy, post.timings["warmup"]
    remark = f"one in {problem.thin} sweeps kept" if problem.thin > 1 else ""
    return Run.of("ppnmf", post, compiled, warmup, post.timings["total"] - warmup, busy, remark)


class NUTS:
    """NumPyro's kernel on the same model, its draws taken some at a time until the clock says stop.

    Args:
        devices: as which the CPU is used, each with as many of the chains, vectorised.
    """

    def __init__(self, problem: Problem, devices: int, warmup: int) -> None:
        import jax
        import numpyro
        import numpyro.distributions as dist

        model, X = problem.model, problem.X.numpy()

        def story() -> None:
            sigma2 = numpyro.sample("sigma2", dist.InverseGamma(model.noise_shape, model.noise_scale))
            W = numpyro.sample("W", dist.Exponential(model.rate_W).expand([problem.N, problem.K]).to_event(2))
            H = numpyro.sample("H", dist.Exponential(model.rate_H).expand([problem.K, problem.D]).to_event(2))
            numpyro.sample("X", dist.Normal(W @ H, sigma2**0.5), obs=X)

        kernel = numpyro.infer.NUTS(story)
        keys = jax.random.split(jax.random.PRNGKey(1), CHAINS).reshape(devices, CHAINS // devices, 2)
        self.jax, self.kernel, self.devices = jax, kernel, devices
        self.mapped = (
            (lambda chain: jax.pmap(jax.vmap(chain)))
            if devices > 1
            else lambda chain: jax.jit(jax.vmap(jax.vmap(chain)))
        )
        self.state = self.mapped(lambda key: kernel.init(key, warmup, None, (), {}))(keys)

    @property
    def how(self) -> str:
        return "NUTS, vectorised" if self.devices == 1 else f"NUTS, {self.devices} devices"

    def prepare(self, n: int) -> None:
        """Compile the program of n draws of every chain, which `run` then runs."""
        jax, kernel = self.jax, self.kernel

        def one(state: Any, _: None) -> tuple[Any, Any]:
            state = kernel.sample(state, (), {})
            return state, (kernel.postprocess_fn((), {})(state.z), state.num_steps, state.diverging)

        self.program = self.mapped(lambda state: jax.lax.scan(one, state, None, n)).lower(self.state).compile()

    def run(self) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
        """More draws: the sites (C, n, *site), the gradients of each draw (C, n), and which diverged (C, n)."""
        self.state, told = self.program(self.state)
        return self.jax.tree.map(lambda of: np.asarray(of).reshape(CHAINS, *of.shape[2:]), told)


def best_devices(problem: Problem) -> int:
    """As how many devices the CPU makes most gradients a second, in a short trial."""
    rates = {}
    for devices in (1, 2, 4):
        nuts = NUTS(problem, devices, 40)
        nuts.prepare(20)
        nuts.run()
        began = time.perf_counter()
        _, steps, _ = nuts.run()
        rates[devices] = steps.sum() / (time.perf_counter() - began)
        print(f"{nuts.how}: {rates[devices]:.3g} gradients a second", file=sys.stderr)
    return max(rates, key=rates.__getitem__)


def theirs(problem: Problem, devices: int) -> Run:
    began = time.perf_counter()
    nuts, lot = NUTS(problem, devices, problem.nuts_warmup), max(1, problem.nuts_warmup // 10)
    nuts.prepare(lot)
    compiled = time.perf_counter()
    with bar(problem.nuts_warmup, "NUTS, warm-up") as ticker:
        for _ in range(problem.nuts_warmup // lot):
            nuts.run()
            ticker.update(lot)
    warm, busy = time.perf_counter(), time.process_time()
    lots: list[tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]] = []
    with bar(int(problem.budget), "NUTS, seconds") as ticker:
        while len(lots) * lot < problem.nuts_draws and (not lots or time.perf_counter() - began < problem.budget):
            lots.append(nuts.run())
            ticker.update(int(time.perf_counter() - began) - ticker.n)
    done, busy = time.perf_counter(), time.process_time() - busy
    draws = {site: np.concatenate([sites[site] for sites, _, _ in lots], 1) for site in lots[0][0]}
    steps, diverged = (np.mean([told[i] for told in lots]) for i in (1, 2))
    remark = f"{steps:.0f} gradients a draw, {diverged:.1%} diverged"
    return Run.of(nuts.how, posterior(problem, draws), compiled - began, warm - compiled, done - warm, busy, remark)


def posterior(problem: Problem, draws: dict[str, np.ndarray]) -> Posterior:
    """NUTS's draws, with the log joint that ours have."""
    sites = {site: torch.from_numpy(np.array(values)) for site, values in draws.items()}
    X, model = problem.X, problem.model
    misfit = torch.stack([(X - W @ H).square().sum((-2, -1)) for W, H in zip(sites["W"], sites["H"], strict=True)])
    lp = log_likelihood(misfit, sites["sigma2"], X.numel()) + model.log_prior(sites)
    return Posterior(draws=sites, stats={"lp": lp}, model=model, X=as_matrix(X), method="nuts", seed=1)


def has_numpyro() -> bool:
    """Whether NumPyro is here; if so, in double precision, and the CPU plays a device a chain."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    try:
        import numpyro
    except ImportError:
        return False
    numpyro.set_host_device_count(CHAINS)
    numpyro.enable_x64()
    return True


def compare(problem: Problem, compiled: float, against: bool, quick: bool) -> dict[str, Any]:
    print(f"{problem.N} x {problem.D}, K = {problem.K}\n{HEAD}")
    own = ours(problem, compiled)
    print(own, flush=True)
    result: dict[str, Any] = {"problem": problem._asdict(), "ppnmf": asdict(own)}
    if not against:
        return result
    peer = theirs(problem, 1 if quick else best_devices(problem))
    ratios = {
        "sampling": (own.ess / own.sampling) / (peer.ess / peer.sampling),
        "the whole run": (own.ess / own.whole) / (peer.ess / peer.whole),
        "CPU": (own.ess / own.processor) / (peer.ess / peer.processor),
    }
    bound = "" if peer.rhat <= AGREE else "at least "
    told = ", ".join(f"{bound}{ratio:.0f} x by {what}" for what, ratio in ratios.items())
    print(f"{peer}\n  ppnmf / NUTS, effective draws a second: {told}", flush=True)
    return {**result, "nuts": asdict(peer), "ratios": ratios}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small problem and short runs")
    parser.add_argument("--out", help="JSON file for the figures")
    parser.add_argument("--threads", type=int, default=2, help="of ppnmf")
    parser.add_argument("--budget", type=float, help="seconds for NUTS on each problem")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    against, load = has_numpyro(), os.getloadavg()[0]
    print(f"float64, {CHAINS} chains, ppnmf on {options.threads} thread(s); load average {load:.1f}")
    if not against:
        print("NumPyro is not installed (pip install numpyro), so there is nothing to compare with.")
    compiled = first_fit(cold=False)
    cold = None if options.quick else first_fit(cold=True)
    if cold is not None:
        print(
            f"ppnmf's first fit on a machine compiles for {cold:.0f} s; that of a later process takes {compiled:.1f} s"
        )
    problems = [p._replace(budget=options.budget or p.budget) for p in (QUICK if options.quick else PROBLEMS)]
    results = [compare(problem, compiled, against, options.quick) for problem in problems]
    if options.out:
        with open(options.out, "w") as file:
            json.dump(
                {
                    "threads": options.threads,
                    "load": load,
                    "first fit": {"cold": cold, "warm": compiled},
                    "rows": results,
                },
                file,
                indent=2,
            )


if __name__ == "__main__":
    main()
