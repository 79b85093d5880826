import warnings

import numpy as np
import pytest
import scipy.sparse
import torch

import ppnmf
from ppnmf.data.matrix import as_matrix, in_memory
from ppnmf.gaussian.statistics import given_H, of_H, of_W, squared_residuals

X = np.arange(12.0).reshape(3, 4)
SEEN = np.array([[True, True, False, True], [True, False, True, True], [False, True, True, True]])


KINDS = {
    "numpy": X,
    "torch": torch.from_numpy(X),
    "integers": X.astype(int),
    "big-endian": X.astype(">f8"),
    "long double": X.astype(np.longdouble),
    "torch sparse": torch.from_numpy(X).to_sparse(),
    "a Dense": as_matrix(X),
    "csr": scipy.sparse.csr_matrix(X),
    "csc array": scipy.sparse.csc_array(X),
    "lists": X.tolist(),
    "negative strides": X[:, ::-1].copy()[:, ::-1],
}


@pytest.mark.parametrize("given", KINDS.values(), ids=KINDS)
def test_every_kind_of_input_gives_the_same_matrix(given):
    data = as_matrix(given)
    assert data.dtype == torch.float64 and data.shape == (3, 4) and data.n_observed == 12
    assert np.array_equal(in_memory(data, "a test").values.numpy(), X)


@pytest.mark.parametrize(
    "given,kept",
    [(np.float32, torch.float32), (np.float64, torch.float64), (np.uint8, torch.float64), (np.float16, torch.float32)],
)
def test_floating_input_keeps_its_type_and_integers_become_double(given, kept):
    assert as_matrix(X.astype(given)).dtype == kept


def test_a_read_only_array_is_taken_and_nothing_is_written_to_the_input():
    given = X.copy()
    given.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        as_matrix(given, SEEN)
    assert np.array_equal(given, X)


@pytest.mark.parametrize(
    "given,options,sentence",
    [
        (X[0], {}, r"X has shape \(4,\)"),
        (X[:0], {}, r"X has shape \(0, 4\)"),
        (np.where(X == 5, np.nan, X), {}, "X has 1 NaN entries; if they are missing"),
        (np.where(X == 5, np.inf, X), {}, "X has 1 infinite entries"),
        (X.astype(complex), {}, "complex128; real numbers"),
        (np.array([["a"]]), {}, "real numbers are needed"),
        (X, {"mask": SEEN.T}, r"mask has shape \(4, 3\)"),
        (X, {"mask": SEEN.astype(int)}, "booleans are needed"),
        (X, {"mask": np.zeros_like(SEEN)}, "no entry of X is observed"),
        (X, {"missing": "zero"}, "missing is 'zero'"),
        (np.ma.masked_greater(X, 5), {}, "X is a masked array"),
        ((1e-22 * X).astype(np.float32), {}, "pass it in double precision"),
        ((1e22 * X).astype(np.float32), {}, "pass it in double precision"),
        (np.where(X == 5, np.nan, X), {"mask": X != 6}, "X has 1 NaN entries"),
    ],
)
def test_bad_input_gets_its_sentence(given, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        as_matrix(given, **options)


def test_what_lies_under_the_mask_does_not_leak():
    dirty = np.where(SEEN, X, np.nan)
    dirty[0, 2] = np.inf
    clean, marked = as_matrix(X, SEEN), as_matrix(dirty, SEEN)
    by_nan = as_matrix(np.where(SEEN, X, np.nan), missing="nan")
    for data in (marked, by_nan):
        assert torch.equal(data.values, clean.values) and torch.equal(data.mask, clean.mask)
    assert clean.n_observed == 9 and clean.sum_of_squares == (X[SEEN] ** 2).sum()
    assert clean.mean() == pytest.approx(X[SEEN].mean()) and clean.variance() == pytest.approx(X[SEEN].var())
    assert clean.column_means().tolist() == [X[SEEN[:, j], j].mean() for j in range(4)]


def test_a_row_or_column_with_nothing_observed_is_a_warning():
    seen = SEEN.copy()
    seen[1] = False
    with pytest.warns(UserWarning, match=r"1 row\(s\) of X have nothing observed"):
        as_matrix(X, seen)


@pytest.mark.parametrize("mask", [None, SEEN])
def test_statistics_over_blocks_are_the_sums_they_stand_for(mask, monkeypatch):
    monkeypatch.setattr("ppnmf.data.dense.BLOCK_ENTRIES", 8)
    data = as_matrix(X, mask)
    assert data.blocks == [range(2), range(2, 3)]
    seen = np.ones_like(SEEN) if mask is None else mask
    W, H = np.random.default_rng(0).random((3, 2)), np.random.default_rng(1).random((2, 4))
    given = given_H(data, torch.from_numpy(H)[None])
    P, Q = zip(*(of_W(data.block(rows), given) for rows in data.blocks), strict=True)
    assert np.allclose(torch.cat(P, 1)[0], (X * seen) @ H.T)
    for i, rows in enumerate(data.blocks):
        wanted = np.einsum("ij,kj,lj->ikl", seen[rows.start : rows.stop], H, H)
        assert np.allclose(np.broadcast_to(Q[i][0].numpy(), wanted.shape), wanted)
    parts = [of_H(data.block(rows), torch.from_numpy(W[rows.start : rows.stop])[None]) for rows in data.blocks]
    assert np.allclose(sum(part.P for part in parts)[0], (X * seen).T @ W)
    wanted = np.einsum("ij,ik,il->jkl", seen, W, W)
    assert np.allclose(np.broadcast_to(sum(part.Q for part in parts)[0].numpy(), wanted.shape), wanted)
    misfit = sum(
        squared_residuals(
            data.block(rows), torch.from_numpy(W[rows.start : rows.stop])[None], torch.from_numpy(H)[None]
        )
        for rows in data.blocks
    )
    assert float(misfit[0]) == pytest.approx((((X - W @ H) * seen) ** 2).sum())


def test_hidden_cells_are_missing():
    data = as_matrix(X, SEEN).hide(torch.from_numpy(X != 0))
    assert data.n_observed == 8 and float(data.values[0, 0]) == 0


def test_a_mask_given_with_a_dense_hides_more():
    both = as_matrix(as_matrix(X, SEEN), X != 3)
    assert torch.equal(both.mask, torch.from_numpy(SEEN & (X != 3)))


def test_sums_do_not_depend_on_the_number_of_threads():
    big = torch.rand(1797, 640, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    threads, found = torch.get_num_threads(), []
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            data = as_matrix(big, big > 0.1)
            found.append((data.mean(), data.variance(), data.sum_of_squares, data.column_means().tolist()))
    finally:
        torch.set_num_threads(threads)
    assert found[0] == found[1] == found[2]


def test_a_row_of_a_reversed_array_is_taken():
    X = np.arange(6.0).reshape(2, 3)
    assert as_matrix(X[::-1][:1]).values.tolist() == [[3, 4, 5]]


def test_arrays_that_may_not_be_written_are_taken_without_a_word():
    frozen = lambda values: np.broadcast_to(values, values.shape)
    X = as_matrix(frozen(np.ones((3, 2))), mask=frozen(np.ones((3, 2), bool)), noise=frozen(np.array([1.0, 2.0])))
    model = ppnmf.models.ExponentialGaussian(1, frozen(np.ones(1)))
    init = {"W": frozen(np.ones((3, 1))), "H": frozen(np.ones((1, 2)))}
    ppnmf.fit(model, X, draws=1, warmup=0, chains=1, init=init, progress=False)


@pytest.mark.parametrize(
    "given",
    [
        {"mask": "m.npy"},
        {"mask": [[None, 1]]},
        {"noise": "a"},
        {"noise": np.ones((3, 2), complex)},
    ],
)
def test_masks_and_noise_of_another_kind_are_refused_in_a_sentence(given):
    with pytest.raises(ValueError, match=r"(mask|noise) (is '|has entries of type)"):
        as_matrix(np.ones((3, 2)), **given)


def test_a_sparse_mask_of_a_dense_matrix_is_a_mask():
    mask = np.array([[True, False], [True, True]])
    assert torch.equal(as_matrix(np.ones((2, 2)), scipy.sparse.csr_array(mask)).mask, torch.from_numpy(mask))


@pytest.mark.filterwarnings("ignore:.*nothing observed")
def test_what_a_matrix_is_already_is_not_asked_of_it_anew():
    S = scipy.sparse.random_array((9, 6), density=0.4, format="csr", rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match="missing is 'unstored' and X is a Sparse already"):
        as_matrix(as_matrix(S), missing="unstored")
    told = as_matrix(S, missing="unstored")
    assert as_matrix(told, missing="unstored") is told


@pytest.mark.filterwarnings("ignore:.*nothing observed")
def test_a_sparse_mask_and_nan_hide_what_either_hides():
    S = scipy.sparse.csr_array(np.array([[1.0, np.nan, 0.0], [2.0, 0.0, 3.0]]))
    mask = scipy.sparse.csr_array(np.array([[True, True, False], [True, False, True]]))
    assert as_matrix(S, mask, missing="nan").n_observed == 3


def test_entries_whose_rounding_has_no_square_are_refused():
    X = np.random.default_rng(0).random((4, 3)).astype(np.float32)
    as_matrix(1e-11 * X)
    with pytest.raises(ValueError, match="too far from 1 for torch.float32: scale X, or pass it in double precision"):
        as_matrix(1e-14 * X)
