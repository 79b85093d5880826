import torch

from ppnmf.nndsvd import leading_singular, nndsvd
from ppnmf.rng import Stream
from tests.scenarios import drawn

X = drawn(30, 20, 4, noise=1e-18)[0].abs()


def test_leading_singular_vectors_are_the_exact_ones():
    U, s, V = leading_singular(X, 4, Stream.of(0))
    torch.testing.assert_close(s, torch.linalg.svdvals(X)[:4])
    torch.testing.assert_close((U * s) @ V, X, rtol=0, atol=1e-6)


def test_the_first_component_is_the_leading_pair_and_the_others_are_its_positive_parts():
    W, H = nndsvd(X, 4, Stream.of(0))
    U, s, V = torch.linalg.svd(X)
    torch.testing.assert_close(torch.outer(W[:, 0], H[0]), s[0] * torch.outer(U[:, 0], V[0]), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(W[:, 0].norm(), H[0].norm())
    assert float(W.min()) > 0 and float(H.min()) > 0
    lifted = W[:, 2] == W[:, 2].min()
    sign = 1 if bool((U[~lifted, 2] > 0).all()) else -1
    assert 0 < int(lifted.sum()) < 30 and bool((sign * U[~lifted, 2] > 0).all())


def test_a_rank_above_the_matrix_gets_small_components_that_differ():
    W, H = nndsvd(X[:, :3], 5, Stream.of(0))
    assert W.shape == (30, 5) and len(W[:, 3:].unique(dim=1).T) == 2 and float(H.min()) > 0


def test_the_start_does_not_depend_on_the_order_in_which_a_library_gives_singular_vectors(monkeypatch):
    wanted = nndsvd(X, 4, Stream.of(0))
    whole = torch.linalg.svd

    def least_first(A, full_matrices=True):
        U, s, V = whole(A, full_matrices=full_matrices)
        return U.flip(1), s.flip(0), V.flip(0)

    monkeypatch.setattr(torch.linalg, "svd", least_first)
    for own, other in zip(nndsvd(X, 4, Stream.of(0)), wanted, strict=True):
        torch.testing.assert_close(own, other)
