"""Three factors: found again, the same by every kind of matrix, planted mistakes shown, and GDSC as published."""

import numpy as np
import pytest
import scipy.sparse
import torch

import ppnmf
from ppnmf.data.matrix import as_matrix
from ppnmf.diagnostics.calibration import geweke
from ppnmf.gaussian import ridge, statistics, three
from ppnmf.models import ExponentialGaussian, TriFactor
from ppnmf.protocols import Address, Held, Statistics, Sweeps
from ppnmf.rng import Site, Stream
from tests.scenarios import example, held_out_errors

N, D, K, L = 40, 30, 3, 2
U = Stream.of(7).uniforms(0, Site.DATA, range(N + D + K), D)[0]
W, G, S = -U[:N, :K].log(), -U[N : N + D, :L].mT.log(), -U[N + D :, :L].log()
X = W @ S @ G + 0.1 * torch.special.ndtri(Stream.of(8).uniforms(0, Site.DATA, range(N), D)[0]).abs()
HIDDEN = (torch.arange(N * D) % 7 != 0).reshape(N, D)
MODEL = TriFactor(K, L, 1.0, 0.8, 1.2, 2.0, 0.1)


def test_the_product_is_found_and_hidden_cells_with_it():
    post = ppnmf.fit(MODEL, X, mask=HIDDEN, draws=100, warmup=300, chains=2, survey=4, seed=1, progress=False)
    hidden = (post.reconstruction() - W @ S @ G)[~HIDDEN]
    assert float(hidden.square().mean().sqrt()) < 0.15
    assert torch.allclose(post.draws["H"], post.draws["S"] @ post.draws["G"])
    aligned = ppnmf.align(post)
    torch.testing.assert_close(aligned.draws["S"] @ aligned.draws["G"], aligned.draws["H"])
    torch.testing.assert_close(aligned.reconstruction(), post.reconstruction(), rtol=1e-8, atol=1e-8)
    new = post.transform(X[:4], draws=10)
    assert new.draws["W"].shape == (2, 5, 4, K) and float((new.reconstruction() - X[:4]).square().mean()) < 0.05
    assert ppnmf.summary(post).table and ppnmf.clusters(post).together.shape == (N, N)


def test_with_a_middle_that_is_given_it_is_two_factors():
    """W's half of a sweep, S and G held, is that of the model with H = S G, but for rounding."""
    stream = Stream.of(1, 2)
    own = MODEL.begin(as_matrix(X, HIDDEN), stream, "scaled")
    asked, at = Sweeps(held=Held(H=K, others=True), moves=False), Address(stream, 3)
    one = MODEL.sweep(own, as_matrix(X, HIDDEN), asked, at)
    two = {site: own[site] for site in ("W", "H", "sigma2")}
    two = ExponentialGaussian(K, 1.0).sweep(two, as_matrix(X, HIDDEN), asked, at)
    torch.testing.assert_close(one.params["W"], two.params["W"], rtol=1e-9, atol=1e-12)
    assert torch.equal(one.params["S"], own["S"])


@pytest.mark.parametrize("mask", [None, HIDDEN], ids=["full", "masked"])
def test_what_is_told_about_the_middle_is_the_squared_error(mask):
    """½ s Q s - P · s is half of ‖X - W S G‖² but for a constant, in every direction of S."""
    data, seen = as_matrix(X, mask), torch.ones_like(X) if mask is None else mask.double()
    told = three.about_S(statistics.of_all_columns(data, W[None]), G[None])
    loss = lambda middle: 0.5 * float((seen * (X - W @ middle @ G).square()).sum())
    form = lambda s: float(0.5 * s @ told.Q[0] @ s - told.P[0, 0] @ s)
    zero = loss(torch.zeros_like(S))
    for middle in (S, S.flip(0), torch.rand(K, L).double()):
        assert form(middle.reshape(-1)) == pytest.approx(loss(middle) - zero, rel=1e-9)


def kinds(folder):
    np.save(folder / "x.npy", X.numpy())
    return {
        "dense": (X, {}),
        "masked": (X, {"mask": HIDDEN}),
        "noise an entry": (X, {"noise": 0.5 + X}),
        "sparse": (scipy.sparse.csr_array(X.numpy()), {}),
        "stored": (scipy.sparse.csr_array((X * HIDDEN).numpy()), {"missing": "unstored"}),
        "blocked": (folder / "x.npy", {}),
    }


@pytest.mark.filterwarnings("ignore:(icm|vb).*had not converged", "ignore:icm.*died")
@pytest.mark.parametrize("method", ["gibbs", "icm", "vb"])
def test_every_kind_of_matrix_gives_the_same(method, tmp_path):
    options = {
        "gibbs": {"draws": 4, "warmup": 3, "chains": 2},
        "icm": {"max_sweeps": 20},
        "vb": {"draws": 20, "max_sweeps": 20},
    }
    found = {}
    for kind, (data, given) in kinds(tmp_path).items():
        told = {"init": "scaled", "seed": 2, "progress": False}
        found[kind] = ppnmf.fit(MODEL, data, method=method, **told, **given, **options[method])
    for kind, same in (("sparse", "dense"), ("blocked", "dense"), ("stored", "masked")):
        torch.testing.assert_close(found[kind].stats["lp"], found[same].stats["lp"], rtol=1e-5, atol=0)


def turned(told, G):
    """The mistake of a middle that is read the other way round."""
    P, Q = RIGHT(told, G)
    return Statistics(P.flip(-1), Q)


RIGHT = three.about_S


def between_W_and_G(story, X, own, at):
    W, G = ridge.scale_move(
        own.W, own.G[:, :2], ridge.Priors(*(story.priors[s].natural("cpu") for s in ("W", "G"))), at.stream, at.step
    )
    return three.Three(W, own.S, torch.cat([G, own.G[:, 2:]], 1))


MISTAKES = {
    "the middle the other way round": lambda patch: patch.setattr(three, "about_S", turned),
    "moves between W and G": lambda patch: patch.setattr(three, "_moved", between_W_and_G),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_planted_mistake_is_found(mistake, monkeypatch):
    MISTAKES[mistake](monkeypatch)
    found = geweke(example("tri_factor", 4, 3, 2), (4, 3), sweeps=40, chains=200, seed=1)
    assert found.p_value < 1e-6, found.worst


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: TriFactor(2, 0), "column_rank is 0; it must be a whole number >= 1"),
        (lambda: TriFactor(2, rate_S=0.0), "rate_S is 0.0; it must be a positive number"),
        (lambda: ppnmf.fit(MODEL, X, init={"W": W, "H": S @ G}), "three factors need W, S and G"),
        (lambda: ppnmf.fit(MODEL, X, init="nndsvd"), "three factors begin 'scaled', at the 'prior'"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()


def test_known_entries_and_rows_over_processes_are_refused():
    with pytest.raises(TypeError, match="tri_factor cannot hold entries of its factors"):
        ppnmf.fit(MODEL, X, fixed={"W": W})
    with pytest.raises(TypeError, match="spread over processes"):
        ppnmf.fit(MODEL, ppnmf.shard(X), init="scaled", draws=2, warmup=1)


@pytest.mark.slow
def test_held_out_cells_of_gdsc_are_predicted_as_published(real_data):
    """Ten folds, 200 sweeps of which 180 are warm-up, as in Brouwer and Lió; nested cross-validation gave 711.8."""
    told = {"draws": 10, "thin": 2, "warmup": 180, "chains": 1, "init": "prior", "progress": False}
    made = lambda X, mask: TriFactor(8, 8, 0.1, 0.1, 0.1)
    errors = held_out_errors(made, real_data("drug_sensitivity/gdsc_ic50.npz")["R"], **told)
    assert abs(np.mean(errors) - 712) < 25, errors
