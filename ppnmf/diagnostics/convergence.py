"""Whether the chains agree, judged on what is identified (`ppnmf.identified`) and said in words."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict

import torch
from torch import Tensor

from ppnmf.diagnostics.crawling import Crawling, crawling
from ppnmf.diagnostics.guides import LEAST, row_k_hats
from ppnmf.diagnostics.printed import Summary
from ppnmf.identified import (
    AGREE,
    ESS_PER_CHAIN,
    LEAST_DRAWS,
    MIXED,
    Diagnosis,
    Quantity,
    chosen_cells,
    diagnose,
    entries,
    identified,
    strengths,
)
from ppnmf.posterior import Kind, Posterior
from ppnmf.protocols import Amortised
from ppnmf.required import require_posterior
from ppnmf.settings import own_settings

__all__ = [
    "Diagnosis",
    "Quantity",
    "Summary",
    "chosen_cells",
    "diagnose",
    "entries",
    "identified",
    "nested_rhat",
    "strengths",
    "summary",
]

SAME_MODE = 0.01  # relative distance of W @ H below which two modes count as one


@own_settings()
def summary(post: Posterior, n: int = 100, seed: int = 0) -> Summary:
    """Judge a posterior, and say the judgement in a sentence.

    Chains are compared by rank-normalised split R-hat of the log joint, sigma2, the sorted strengths and n entries of
    W @ H; modes by their log joint and W @ H. Draws that are independent by construction are said to be so.

    Args:
        n, seed: how many entries of W @ H, and which choice of them.

    References: Vehtari et al. (2021), doi:10.1214/20-BA1221.
    """
    require_posterior("summary", post)
    if post.kind is Kind.MODES:
        return _of_modes(post)
    found = diagnose(post, n, seed)
    independent = post.kind is Kind.APPROXIMATION or bool(post.attrs.get("weighted"))  # no chain to judge
    if post.attrs.get("weighted"):
        sentence = _about_weights(post)
    elif post.kind is Kind.APPROXIMATION:
        sentence = _about_guide(post)
    elif post.kind is Kind.INDEPENDENT:
        sentence = _about_particles(found)
    else:
        sentence = _about_chains(found, _short(post, found, n, seed))
    return Summary(
        heading=_heading(post),
        table=tuple(asdict(q) for q in found.quantities),
        sentence=" ".join([sentence, *_remarks(post)]),
        agree=None if independent else found.agree,
        worst_rhat=None if independent else found.worst_rhat,
        least_ess=found.least_ess,
    )


@own_settings()
def nested_rhat(post: Posterior, superchains: Sequence[int], n: int = 100, seed: int = 0) -> dict[str, float]:
    """ArviZ's nested R-hat of the identified quantities, for many short chains: quantity -> figure, never below one.

    Chains that began at the same place are a superchain; what is compared is superchains, so that chains need not be long.

    Args:
        superchains: the number of its superchain, for each chain; equally many chains in each.
        n, seed: as in `summary`.

    Raises:
        TypeError: the draws are not of chains.
        ValueError: the numbers are not one a chain, or superchains are fewer than two or of unequal sizes.

    References: Margossian et al. (2024), doi:10.1214/24-BA1453.
    """
    require_posterior("nested_rhat", post)
    if post.kind is not Kind.CHAINS:
        raise TypeError(f"nested_rhat compares chains; {post.method} left {post.kind.value}")
    sizes = Counter(superchains)
    if len(superchains) != post.chains or len(sizes) < 2 or len(set(sizes.values())) > 1:
        raise ValueError(
            f"superchains is {list(superchains)}; give a number for each of the {post.chains} chains, of two superchains or "
            "more that have equally many"
        )
    import arviz_stats

    found = arviz_stats.rhat_nested(identified(post, n, seed), superchain_ids=list(superchains))
    named = [(name, found[name].values.ravel()) for name in found.data_vars]
    return {
        str(name) if len(figures) == 1 else f"{name}[{k}]": float(figure)
        for name, figures in named
        for k, figure in enumerate(figures)
    }


def _short(post: Posterior, found: Diagnosis, n: int, seed: int) -> Crawling | None:
    """What the chains are too short for, where that is all; only chains of both factors can tell."""
    judged = post.kind is Kind.CHAINS and {"W", "H"} <= set(post.draws)
    return crawling(post, found, n, seed) if judged else None


def _about_crawling(chains: int, draws: int, short: Crawling) -> str:
    others = f" and {short.others} more" if short.others else ""
    return (
        f"The {chains} chains are in one mode but too short for {short.name}{others}: R-hat is {_number(short.rhat)} with "
        f"{short.ess:.0f} effective draws, no more than chains so slow give by chance. What else is judged agrees. Run longer: "
        f"about {short.draws} draws of each chain instead of {draws}."
    )


def _about_particles(found: Diagnosis) -> str:
    worst, rhat = found.worst, found.worst_rhat
    if found.chains == 1 or worst is None or rhat is None:
        return "The draws are particles of one run: nothing shows whether another would end where it did. Take several replicates."
    figure = f"R-hat of {worst.name} over the {found.chains} runs is {_number(rhat)}"
    if rhat > AGREE:
        return (
            f"The runs differ by more than their particles do: {figure}. Take more particles or sweeps, or doubt them."
        )
    return f"The draws are particles of independent runs, which end alike: {figure}, the worst."


def _about_chains(found: Diagnosis, short: Crawling | None = None) -> str:
    if short is not None:
        return _about_crawling(found.chains, found.draws, short)
    worst, rhat = found.worst, found.worst_rhat
    if worst is None or rhat is None:
        return (
            f"{found.draws} draw(s) in each of {found.chains} chain(s) are too few to judge: R-hat needs "
            f"{LEAST_DRAWS if found.chains > 1 else 2 * LEAST_DRAWS}, "
            f"and {ESS_PER_CHAIN} effective ones a chain to be trusted."
        )
    chains = f"The {found.chains} chains" if found.chains > 1 else "The chain"
    figure = f"R-hat of {worst.name} is {_number(rhat)}"
    if rhat > AGREE and found.chains > 1:
        bad = sum((q.rhat or 0) > AGREE for q in found.quantities)
        return (
            f"{chains} do not agree: {figure} ({bad} of {len(found.quantities)} quantities exceed {AGREE}): run longer, "
            "or doubt it."
        )
    if rhat > AGREE:
        return f"{chains} does not even agree with itself: {figure} between its parts: run longer, or doubt it."
    figures = f"worst R-hat {_number(rhat)} ({worst.name}), {_scarcity(found)}"
    if found.chains == 1:
        return (
            f"One chain cannot show that it found the whole posterior: its parts agree ({figures}), but run several "
            "from different starts."
        )
    if not found.enough:
        wanted = ESS_PER_CHAIN * found.chains
        return f"{chains} agree: {figures}; but effective draws are few ({wanted} are wanted): run longer for exact averages."
    return f"{chains} agree{' well' if rhat <= MIXED else ''}: {figures}."


def _scarcity(found: Diagnosis) -> str:
    scarcest, tail = found.scarcest, found.least_tail_ess
    if scarcest is None or scarcest.ess_bulk is None or tail is None:
        return "no effective sample size"
    return f"least bulk ESS {scarcest.ess_bulk:.0f} ({scarcest.name}), least tail ESS {tail:.0f}"


TRUSTED = 0.7  # k-hat up to which an approximation can stand for the posterior (Yao et al. 2018, arXiv:1802.02538)


def _about_approximation(post: Posterior) -> str:
    """Of draws that carry their log density: what k-hat says of it."""
    shape, late = post.attrs.get("k_hat"), ""
    if not post.attrs.get("converged", True):
        late = f"The ascent had not converged after {post.attrs.get('steps', 'its')} sweeps: raise max_sweeps, or doubt it. "
    what = "The draws are independent ones from the fitted approximation, not from the posterior"
    if shape is None:
        return f"{late}{what}; k-hat, which would say how near it is, needs 100 of them."
    if shape > TRUSTED:
        return f"{late}{what}: it is too narrow to stand for it (k-hat {shape:.2f}, at most {TRUSTED} can be trusted)."
    return f"{late}{what}, to which it is near (k-hat {shape:.2f}, at most {TRUSTED} can be trusted)."


def _about_guide(post: Posterior) -> str:
    if "k_hat" in post.attrs:
        return _about_approximation(post)
    if not post.attrs.get("converged", True):
        return (
            f"The training had not converged after {post.attrs.get('steps', 'its')} steps: train longer, or doubt it. "
            "The draws are independent ones from the guide, so R-hat and ESS say nothing about that."
        )
    return (
        "The draws are independent ones from the fitted guide: there are no chains to agree, and R-hat and ESS say nothing "
        f"about how near the guide is to the posterior. {_about_rows(post)}Its ELBO does, between fits: train from several "
        "seeds and compare."
    )


def _about_rows(post: Posterior) -> str:
    """In how many rows the guide can stand for the posterior, where draws suffice to say so."""
    if not isinstance(post.model, Amortised) or post.n_draws < LEAST or "W" not in post.draws:
        return ""
    figures = row_k_hats(post)
    good = int((figures <= TRUSTED).sum())
    return f"k-hat does, row by row: in {good} of {len(figures)} rows looked at the guide can stand for it (at most {TRUSTED}). "


def _about_weights(post: Posterior) -> str:
    weights = ", ".join(f"{weight:.3g}" for weight in post.attrs["weighted"])
    return (
        f"The draws were drawn anew, the sampler's chains by their weights ({weights}): R-hat and ESS of what is there now "
        "say nothing, so judge the posterior from which it was made."
    )


def _about_length(post: Posterior) -> str:
    """Which end came first of a run of unknown length."""
    facts = post.attrs
    sweeps = f"{facts['sweeps']} sweeps of each chain"
    wanted = f"R-hat <= {MIXED} and {facts['target_ess']:g} effective draws of all that is judged"
    if facts["ended"] == "agree":
        return f"The run ended after {sweeps}, when there were {wanted}."
    if facts["ended"] == "time":
        return f"The time, {facts['max_seconds']:g} s, was up after {sweeps}, before there were {wanted}."
    return f"The run was to go on for {wanted}, and ended after {sweeps}."


def _remarks(post: Posterior) -> list[str]:
    remarks = [] if post.survey is None else [str(post.survey)]
    if post.attrs.get("until"):
        remarks.append(_about_length(post))
    if post.attrs.get("interrupted"):
        remarks.append("The run was interrupted, so this is less than was asked for.")
    if not {"W", "H"} <= set(post.draws):
        remarks.append("W or H was not kept: strengths and entries of W @ H could not be judged.")
    if post.attrs.get("lp_without_prior_constant"):
        remarks.append(
            "A rate is zero, so the log joint lacks its prior's constant: compare it with others of the same model only."
        )
    divergences = post.attrs.get("divergences")
    if divergences and sum(divergences):
        remarks.append(f"{sum(divergences)} transitions diverged.")
    return remarks


def _of_modes(post: Posterior) -> Summary:
    """Restarts of an optimiser: which is best, and whether the others reached the same W @ H."""
    lp = post.stats["lp"][:, 0].double()
    small = {site: post._kept(site)[:, 0].double() for site in post.small_sites if post._kept(site).ndim == 2}
    height = post.height[:, 0].double()
    best, distance = int(height.argmax()), _distances(post)
    short = height[best] - height
    unit = "of its loss" if "loss" in post.stats else "nats"
    table = [
        {
            "restart": c,
            "lp": float(lp[c]),
            "below_best": float(short[c]),
            **{site: float(values[c]) for site, values in small.items()},
            "distance": float(distance[c]),
        }
        for c in range(post.chains)
    ]
    same = int((distance < SAME_MODE).sum())
    if not bool(lp.isfinite().all()):
        sentence, agree = "The log joint of a restart is not finite: the run failed.", False
    elif post.chains == 1:
        sentence, agree = "One restart reached one mode: more restarts would show whether there are better ones.", None
    elif same == post.chains:
        sentence, agree = (
            f"All {post.chains} restarts reached the same W @ H, within {SAME_MODE:.0%}; restart {best} is best.",
            True,
        )
    else:
        others = (
            f"{same} of {post.chains} restarts reached its W @ H (within {SAME_MODE:.0%})"
            if same > 1
            else "no other reached its W @ H"
        )
        sentence, agree = (
            (
                f"The restarts do not agree: restart {best} is best (lp {_number(float(lp[best]))}), {others}, and the worst falls "
                f"{_number(float(short.max()))} {unit} short of it: there are several modes."
            ),
            False,
        )
    late = post.attrs.get("converged", []).count(False) if isinstance(post.attrs.get("converged"), list) else 0
    dead = max(post.attrs.get("dead_components", [0]), default=0)
    remarks = ["A mode has no spread: it says nothing about uncertainty."]
    if late:
        remarks.append(f"{late} of {post.chains} restart(s) had not converged: raise max_sweeps.")
    if dead:
        remarks.append(f"{dead} component(s) died in the worst restart.")
    text = " ".join([sentence, *remarks, *_remarks(post)])
    return Summary(_heading(post), tuple(table), text, agree, None, None)


def _distances(post: Posterior) -> Tensor:
    """‖W H - best W H‖ / ‖best W H‖ of each restart, shape (chain,), from Gram matrices."""
    W, H = post._kept("W")[:, 0].double(), post._kept("H")[:, 0].double()
    best = int(post.height[:, 0].argmax())
    inner = lambda A, B, F, G: ((A.mT @ F) * (B @ G.mT)).sum((-2, -1))  # noqa: E731  # <A B, F G>
    size = inner(W[best], H[best], W[best], H[best])
    square = inner(W, H, W, H) - 2 * inner(W, H, W[best], H[best]) + size
    square[best] = 0.0
    return (square.clamp(min=0) / size.clamp(min=torch.finfo(size.dtype).tiny)).sqrt()


def _heading(post: Posterior) -> str:
    (N, D), each = post.X.shape, "restart" if post.kind is Kind.MODES else "chain"
    size = f"{post.chains} {each}{'s' if post.chains > 1 else ''}"
    draws = "" if each == "restart" else f" × {post.n_draws} draws"
    return f"{post.model.name} by {post.method}: X {N} × {D}, rank {post.model.rank}; {size}{draws}"


def _number(value: float) -> str:
    if not math.isfinite(value):
        return "infinite" if value == math.inf else str(value)
    return f"{value:.3f}" if 0.9 < value < 1.1 else f"{value:.2f}" if abs(value) < 100 else f"{value:.6g}"
