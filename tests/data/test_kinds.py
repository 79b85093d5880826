"""Every kind of matrix tells a sweep what its definition says, and what a dense one of the same data tells."""

import numpy as np
import pytest
import scipy.sparse
import torch

import ppnmf
from ppnmf.data.matrix import Blocked, Dense, Sparse, as_matrix
from ppnmf.gaussian.statistics import given_H, of_all_columns, of_H, of_W, squared_residuals
from ppnmf.inference import gibbs
from ppnmf.inference.gibbs import log_joint
from ppnmf.kernels import grams
from ppnmf.models import ExponentialGaussian
from ppnmf.rng import Stream

N, D, K, C = 61, 23, 4, 2
rng = np.random.default_rng(0)
FULL = rng.random((N, K)) @ rng.random((K, D)) + 0.1 * rng.random((N, D))
ZEROS = np.where(rng.random((N, D)) < 0.7, 0.0, FULL)
SEEN = rng.random((N, D)) > 0.3
SEEN[:, 3] = rng.random(N) > 0.9  # most of a column is missing
EVERY = np.ones((N, D), dtype=bool)
W, H = torch.from_numpy(rng.random((C, N, K))), torch.from_numpy(rng.random((C, K, D)))
NOISE = {
    "equal": None,
    "a row": np.exp(rng.normal(size=(N, 1))),
    "a column": np.exp(rng.normal(size=D)),
    "an entry": np.exp(rng.normal(size=(N, D))),
}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr("ppnmf.data.sparse.LEAST_ROWS", 16)
    monkeypatch.setattr("ppnmf.data.sparse.MOST_BLOCKS", 4)
    monkeypatch.setattr("ppnmf.data.sparse.FEW_BLOCKS", 4)
    monkeypatch.setattr("ppnmf.data.dense.BLOCK_ENTRIES", 300)
    monkeypatch.setattr("ppnmf.data.dense.FEW_BLOCKS", 5)
    monkeypatch.setattr("ppnmf.data.blocked.BLOCK_ENTRIES", 300)
    monkeypatch.setattr("ppnmf.kernels.grams.TABLE", 90)  # nine rows of products at a time


def stored(values, where, kind=scipy.sparse.coo_array):
    return kind((values[where], np.nonzero(where)), shape=values.shape)


def saved(path, values):
    np.save(path, values)
    return path


def mapped(path, values, order="C"):
    return np.load(saved(path, np.asarray(values, order=order)), mmap_mode="r")


def zarred(path, values):
    zarr = pytest.importorskip("zarr")
    array = zarr.create_array(path, shape=values.shape, chunks=(7, 5), dtype=values.dtype)
    array[:] = values
    return array


# name -> (folder, dtype) -> (X, options, the dense values, where they are observed)
KINDS = {
    "dense": lambda at, t: (FULL.astype(t), {}, FULL, EVERY),
    "dense, mask": lambda at, t: (np.where(SEEN, FULL, np.nan).astype(t), {"mask": SEEN}, FULL, SEEN),
    "csr": lambda at, t: (scipy.sparse.csr_array(ZEROS.astype(t)), {}, ZEROS, EVERY),
    "csc": lambda at, t: (scipy.sparse.csc_matrix(ZEROS.astype(t)), {}, ZEROS, EVERY),
    "torch sparse": lambda at, t: (torch.from_numpy(ZEROS.astype(t)).to_sparse(), {}, ZEROS, EVERY),
    "ratings": lambda at, t: (stored(ZEROS.astype(t), SEEN), {"missing": "unstored"}, ZEROS, SEEN),
    "csr, sparse mask": lambda at, t: (
        scipy.sparse.csr_array(ZEROS.astype(t)),
        {"mask": scipy.sparse.csc_array(SEEN)},
        ZEROS,
        SEEN,
    ),
    "memory map": lambda at, t: (mapped(at / "x.npy", FULL.astype(t)), {}, FULL, EVERY),
    "columns first on disk": lambda at, t: (mapped(at / "x.npy", FULL.astype(t), "F"), {}, FULL, EVERY),
    "part of a map": lambda at, t: (
        mapped(at / "x.npy", np.pad(FULL, ((5, 1), (2, 3))).astype(t))[5:-1, 2:-3],
        {},
        FULL,
        EVERY,
    ),
    "path": lambda at, t: (saved(at / "x.npy", FULL.astype(t)), {}, FULL, EVERY),
    "memory map, mask": lambda at, t: (mapped(at / "x.npy", FULL.astype(t)), {"mask": SEEN}, FULL, SEEN),
    "memory map, mapped mask": lambda at, t: (
        mapped(at / "x.npy", FULL.astype(t)),
        {"mask": mapped(at / "m.npy", SEEN)},
        FULL,
        SEEN,
    ),
    "memory map, nan": lambda at, t: (
        mapped(at / "x.npy", np.where(SEEN, FULL, np.nan).astype(t)),
        {"missing": "nan"},
        FULL,
        SEEN,
    ),
    "zarr": lambda at, t: (zarred(at / "x.zarr", FULL.astype(t)), {}, FULL, EVERY),
    "zarr, a path": lambda at, t: (zarred(at / "x.zarr", FULL.astype(t)) and at / "x.zarr", {}, FULL, EVERY),
}


def of_kind(name, at, dtype=np.float64, **more):
    X, options, values, seen = KINDS[name](at, dtype)
    return as_matrix(X, **options, **more), np.where(seen, values, 0.0), seen


def each_row(Q, rows, like):
    return Q if Q.ndim == like.ndim + 1 else Q[:, None].expand(-1, rows, -1, -1)


def statistics(X, W, H):
    """P and Q of W's rows, P and Q of H's, and the residual sum of squares, over the blocks of X."""
    given, rows, columns, misfit = given_H(X, H), [], [], 0
    for numbers in X.blocks:
        own, block = W[:, numbers.start : numbers.stop], X.block(numbers)
        about_W = of_W(block, given)
        rows.append((about_W.P, each_row(about_W.Q, len(numbers), about_W.P)))
        about_H = of_H(block, own)
        columns.append((about_H.P, each_row(about_H.Q, D, about_H.P)))
        misfit = misfit + squared_residuals(block, own, H)
    assert of_all_columns(X, W).P.mT.is_contiguous()
    over_rows = [torch.cat(parts, 1) for parts in zip(*rows, strict=True)]
    return *over_rows, *(sum(parts) for parts in zip(*columns, strict=True)), misfit


def by_definition(values, seen, variance):
    w, x = torch.from_numpy(seen / variance), torch.from_numpy(values)
    return (
        (w * x) @ H.mT,
        torch.einsum("ij,ckj,clj->cikl", w, H, H),
        (w * x).mT @ W,
        torch.einsum("ij,cik,cil->cjkl", w, W, W),
        ((x - W @ H).square() * w).sum((-2, -1)),
    )


def variance_of(noise):
    return np.broadcast_to(np.ones(()) if noise is None else noise, (N, D))


def close(found, wanted, rounding):
    for one, other in zip(found, wanted, strict=True):
        assert float((one.double() - other).abs().max()) <= rounding * float(other.abs().max())


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("noise", NOISE.values(), ids=NOISE)
@pytest.mark.parametrize("name", KINDS)
def test_statistics_are_the_sums_they_stand_for(name, noise, dtype, tmp_path):
    if name in ("csr", "csc", "torch sparse") and noise is not None and noise.shape == (N, D):
        with pytest.raises(ValueError, match="noise for every entry of a sparse X would be dense"):
            of_kind(name, tmp_path, dtype, noise=noise)
        return
    X, values, seen = of_kind(name, tmp_path, dtype, noise=noise)
    assert (
        len(X.blocks) > 1 and X.shape == (N, D) and X.dtype == (torch.float64 if dtype == np.float64 else torch.float32)
    )
    rounding = 1e-13 if dtype == np.float64 else 1e-5
    variance = variance_of(noise)
    close(statistics(X, W.to(X.dtype), H.to(X.dtype)), by_definition(values, seen, variance), rounding)
    mean = values.sum() / seen.sum()
    figures = {
        "n_observed": (X.n_observed, seen.sum()),
        "squares": (X.sum_of_squares, (values**2 / variance).sum()),
        "mean": (X.mean(), mean),
        "variance": (X.variance(), ((values - mean) ** 2 / variance)[seen].mean()),
        "log noise": (X.log_noise, np.log(variance)[seen].sum()),
        "negative": (X.n_negative, 0),
    }
    for found, wanted in figures.values():
        assert found == pytest.approx(wanted, rel=max(rounding, 1e-12) * 10)
    assert np.allclose(X.column_means(), values.sum(0) / np.maximum(seen.sum(0), 1), rtol=rounding * 10)
    assert np.allclose(X.part(range(3, 40)).values, values[3:40], rtol=1e-6)


@pytest.mark.parametrize("noise", NOISE.values(), ids=NOISE)
@pytest.mark.parametrize("name", ["dense, mask", "csr", "ratings"])
def test_products_of_whole_matrices_tell_the_same(name, noise, tmp_path, monkeypatch):
    monkeypatch.setenv("PPNMF_KERNEL", "reference")
    if name == "csr" and noise is not None and noise.shape == (N, D):
        return
    X, values, seen = of_kind(name, tmp_path, noise=noise)
    close(statistics(X, W, H), by_definition(values, seen, variance_of(noise)), 1e-13)


def swept(X, sweeps=4, dtype=torch.float64):
    model, stream = ExponentialGaussian(K, noise_scale=0.1), Stream.of(3, C)
    state = gibbs.init(model, X, stream, {"W": W.to(dtype), "H": H.to(dtype)})
    for _ in range(sweeps):
        state, info = gibbs.step(model, state, X, stream)
    return *(state.params[site] for site in ("W", "H", "sigma2")), info.lp


@pytest.mark.parametrize("noise", [None, NOISE["a column"], NOISE["a row"]], ids=["equal", "a column", "a row"])
@pytest.mark.parametrize("name", [name for name in KINDS if name != "dense"])
def test_sweeps_agree_with_those_of_a_dense_matrix(name, noise, tmp_path):
    X, values, seen = of_kind(name, tmp_path, noise=noise)
    alone = Dense(torch.from_numpy(values), None if seen.all() else torch.from_numpy(seen))
    for found, wanted in zip(swept(X), swept(as_matrix(alone, noise=noise)), strict=True):
        assert torch.allclose(found, wanted, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("name", ["dense, mask", "csr", "ratings", "memory map", "memory map, nan"])
def test_nothing_depends_on_the_number_of_threads(name, tmp_path, monkeypatch):
    monkeypatch.setattr("ppnmf.threads.WORTH_A_THREAD", 0)
    monkeypatch.setattr("ppnmf.gaussian.sweep.SMALL", 0)
    threads, found = torch.get_num_threads(), []
    try:
        for number in (1, 3):
            torch.set_num_threads(number)
            found.append(swept(of_kind(name, tmp_path, noise=NOISE["a column"])[0]))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


@pytest.mark.parametrize("missing", ["error", "unstored"])
def test_numbers_about_x_do_not_depend_on_threads(missing, tmp_path, monkeypatch):
    """Of a matrix so large that torch would add it up on several threads."""
    X = scipy.sparse.random(700, 600, 0.5, format="csr", random_state=3)
    np.save(tmp_path / "X.npy", X.toarray())
    for kind in ("sparse.LEAST_ROWS", "dense.BLOCK_ENTRIES", "blocked.BLOCK_ENTRIES"):
        monkeypatch.setattr(f"ppnmf.data.{kind}", 2**20)
    threads, found = torch.get_num_threads(), []
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            kinds = [as_matrix(X, missing=missing)]
            kinds += [as_matrix(X.toarray()), as_matrix(tmp_path / "X.npy")] if missing == "error" else []
            found.append([(own.sum_of_squares, own.mean(), own.variance()) for own in kinds])
    finally:
        torch.set_num_threads(threads)
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("noise", NOISE.values(), ids=NOISE)
@pytest.mark.parametrize("mask", [None, SEEN], ids=["complete", "mask"])
def test_the_log_joint_is_that_of_normals_with_the_known_variances(noise, mask):
    X = as_matrix(FULL, mask, noise=noise)
    model, sigma2 = ExponentialGaussian(K), torch.tensor([0.3, 2.0], dtype=torch.float64)
    params = {"W": W, "H": H, "sigma2": sigma2}
    scale = (sigma2[:, None, None] * torch.from_numpy(variance_of(noise).copy())).sqrt()
    each = torch.distributions.Normal(W @ H, scale).log_prob(torch.from_numpy(FULL))
    seen = torch.from_numpy(EVERY if mask is None else mask)
    wanted = (each * seen).sum((-2, -1)) + model.log_prior(params)
    assert torch.allclose(log_joint(model, X, params), wanted, rtol=1e-12)


@pytest.mark.parametrize("noise", NOISE.values(), ids=NOISE)
@pytest.mark.parametrize("site", ["W", "H"])
def test_conditionals_are_slices_of_the_joint(site, noise):
    """The log joint along one entry is a parabola whose coefficients are those of the conditional."""
    X, model = as_matrix(FULL, SEEN, noise=noise), ExponentialGaussian(K)
    params = {"W": W[:1], "H": H[:1], "sigma2": torch.tensor([0.3], dtype=torch.float64)}
    found = model.conditional(site, params, X, component=1)
    at = (0, 5, 1) if site == "W" else (0, 1, 5)

    def along(value):
        moved = {**params, site: params[site].clone()}
        moved[site][at] = value
        return float(log_joint(model, X, moved))

    low, middle, high = along(0.5), along(1.0), along(1.5)
    assert float(found.precision[0, 5]) == pytest.approx(-(high - 2 * middle + low) / 0.25, rel=1e-6)
    assert float(found.linear[0, 5]) == pytest.approx((high - low) + float(found.precision[0, 5]), rel=1e-6)


@pytest.mark.parametrize("missing", [0.02, 0.5, 0.97, 0.999])
@pytest.mark.parametrize("spread", [0, 12])
def test_a_gram_matrix_from_the_fewer_is_as_exact_as_the_sum(missing, spread):
    """Entries of F over many orders of magnitude: what is left may be next to nothing of the whole."""
    generator = np.random.default_rng(1)
    mask = generator.random((40, 150)) > missing
    F = torch.from_numpy(np.exp(spread * generator.normal(size=(1, 5, 150))))
    F[0, 4] = 0.0  # a component that is gone
    found = grams.grams(F, grams.listed(mask))
    wanted = torch.einsum("ij,ckj,clj->cikl", torch.from_numpy(mask).double(), F, F)
    diagonal = wanted.diagonal(dim1=-2, dim2=-1)
    assert bool((found.diagonal(dim1=-2, dim2=-1) >= 0).all())
    scale = (diagonal[..., :, None] * diagonal[..., None, :]).sqrt()
    assert bool(((found - wanted).abs() <= 1e-11 * scale).all())


def test_the_fewer_entries_are_listed():
    mask = np.array([[True, True, True, False], [False, True, False, False]])
    lists = grams.listed(mask)
    assert (
        lists.missing.tolist() == [True, False]
        and lists.entries.tolist() == [3, 1]
        and lists.starts.tolist() == [0, 1, 2]
    )


@pytest.mark.parametrize(
    "name,kind", [("csr", Sparse), ("ratings", Sparse), ("memory map", Blocked), ("zarr", Blocked), ("dense", Dense)]
)
def test_each_input_becomes_its_kind(name, kind, tmp_path):
    assert type(of_kind(name, tmp_path)[0]) is kind


@pytest.mark.parametrize(
    "given,options,sentence",
    [
        (FULL, {"missing": "unstored"}, "is for sparse matrices"),
        (FULL, {"noise": np.ones(N)}, r"noise has shape \(61,\)"),
        (FULL, {"noise": np.zeros(D)}, "positive and finite"),
        (FULL, {"noise": np.full(D, np.nan)}, "positive and finite"),
        (scipy.sparse.csr_array(ZEROS), {"mask": scipy.sparse.csr_array(SEEN.astype(float))}, "booleans are needed"),
        (scipy.sparse.csr_array(ZEROS), {"mask": scipy.sparse.csr_array(SEEN[:-1])}, "they must be equal"),
        (scipy.sparse.csr_array((3, 2)), {"missing": "unstored"}, "no entry of X is observed"),
        (scipy.sparse.csr_array(np.where(ZEROS > 1, np.nan, ZEROS)), {}, "NaN entries"),
        ("nowhere.csv", {}, "there is no file nowhere.csv"),
    ],
)
def test_what_a_kind_cannot_take_gets_its_sentence(given, options, sentence):
    with pytest.raises((ValueError, FileNotFoundError), match=sentence):
        as_matrix(given, **options)


def test_blocks_on_disk_are_checked_once_and_whole(tmp_path):
    for bad, sentence in ((np.nan, "X has 1 NaN entries; if they are missing"), (np.inf, "X has 1 infinite entries")):
        values = FULL.copy()
        values[40, 7] = bad
        with pytest.raises(ValueError, match=sentence):
            as_matrix(mapped(tmp_path / "bad.npy", values))
    values = FULL.copy()
    values[50, 2] = -3.0
    X = as_matrix(mapped(tmp_path / "negative.npy", values))
    assert (X.n_negative, X.least) == (1, -3.0)


def test_one_sweep_reads_the_file_once(tmp_path, monkeypatch):
    X, _, _ = of_kind("memory map", tmp_path)
    read, rows = type(X.source).read, []
    monkeypatch.setattr(type(X.source), "read", lambda self, own: rows.append(own) or read(self, own))
    model, stream = ExponentialGaussian(K), Stream.of(0, 1)
    state = gibbs.State({"W": W[:1], "H": H[:1], "sigma2": torch.ones(1, dtype=torch.float64)}, 1)
    gibbs.step(model, state, X, stream)
    assert rows == X.blocks


def fitted(X, **options):
    return ppnmf.fit(ExponentialGaussian(K), X, draws=3, warmup=2, chains=2, seed=0, progress=False, **options)


@pytest.mark.parametrize("noise", [None, NOISE["a column"]], ids=["equal", "a column"])
@pytest.mark.parametrize("name", ["dense, mask", "csr", "ratings", "memory map", "memory map, nan", "zarr"])
def test_a_posterior_of_every_kind_is_saved_and_says_the_same(name, noise, tmp_path):
    X, options, values, seen = KINDS[name](tmp_path, np.float64)
    post = fitted(X, noise=noise, **options)
    back = ppnmf.Posterior.load(post.save(tmp_path / "fit.nc"))
    assert type(back.X) is type(post.X) and back.X.n_observed == post.X.n_observed
    for one in (post, back):
        residual = np.where(seen, values - one.reconstruction().numpy(), 0.0)
        assert one.squared_error() == pytest.approx((residual**2 / variance_of(noise)).sum())
    assert torch.equal(post.log_likelihood(), back.log_likelihood())
    lp = post.log_likelihood().sum((-2, -1)) + post.model.log_prior(post.draws)
    assert torch.allclose(lp, post.stats["lp"])
    assert str(ppnmf.summary(back)) == str(ppnmf.summary(post))


def test_a_saved_posterior_of_a_file_that_changed_says_so_when_it_is_read(tmp_path):
    post = fitted(mapped(tmp_path / "x.npy", FULL))
    path = post.save(tmp_path / "fit.nc")
    np.save(tmp_path / "x.npy", FULL + 1)
    changed = ppnmf.Posterior.load(path)
    assert torch.equal(changed.draws["W"], post.draws["W"])
    with pytest.raises(ValueError, match="which has changed since"):
        changed.squared_error()
    (tmp_path / "x.npy").unlink()
    with pytest.raises(ValueError, match="cannot be read now"):
        ppnmf.Posterior.load(path).squared_error()


@pytest.mark.parametrize("method", ["svi", "nuts"])
def test_methods_that_run_the_program_refuse_noise_in_one_sentence(method):
    model = ppnmf.models.PAENMF(2) if method == "svi" else ExponentialGaussian(2)
    with pytest.raises(TypeError, match=f"{method} takes all entries of X as equally noisy"):
        ppnmf.fit(model, FULL, method=method, noise=NOISE["a row"], progress=False)


def test_a_large_sparse_matrix_is_never_made_dense_silently():
    X = scipy.sparse.random_array((40_000, 3_000), density=1e-5, rng=np.random.default_rng(0))
    for method in ("svi", "nuts"):
        model = ppnmf.models.PAENMF(2) if method == "svi" else ExponentialGaussian(2)
        with pytest.raises(TypeError, match=f"{method} needs X in memory as a dense matrix"):
            ppnmf.fit(model, X, method=method, progress=False)


def test_noise_in_the_data_shifts_the_fit_to_the_columns_that_are_sure():
    """Columns with a thousandfold variance hardly count: a wild value there changes nothing that is seen."""
    wild, noise = FULL.copy(), np.ones(D)
    wild[:, 0] += 50.0
    noise[0] = 1e6
    climb = lambda X, **known: ppnmf.fit(ExponentialGaussian(K), X, method="icm", seed=0, progress=False, **known)
    calm, told, untold = climb(FULL[:, 1:]), climb(wild, noise=noise), climb(wild)
    error = lambda post, first: float(
        (post.reconstruction()[:, first:] - torch.from_numpy(FULL[:, 1:])).square().mean()
    )
    assert error(told, 1) < 1.2 * error(calm, 0) < error(untold, 1)
