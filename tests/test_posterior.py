from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import ppnmf
from ppnmf.models import ExponentialGaussian
from tests.scenarios import drawn

X = drawn(8, 6, 2, rate=0.3)[0].abs()
MASK = (torch.arange(48) % 5 != 0).reshape(8, 6)
QUICK = {"draws": 6, "warmup": 3, "chains": 2}


def fitted(mask=None, model=None, dtype=torch.float64, **options):
    return ppnmf.fit(model or ExponentialGaussian(2), X.to(dtype), mask=mask, **{**QUICK, **options})


def test_reconstruction_is_the_mean_of_the_products(monkeypatch):
    post = fitted()
    wanted = (post.draws["W"] @ post.draws["H"]).mean((0, 1))
    torch.testing.assert_close(post.reconstruction(), wanted)
    monkeypatch.setattr("ppnmf.reconstructed.AT_ONCE", 2 * 6 * 5)  # five draws and six rows at a time
    torch.testing.assert_close(post.reconstruction(), wanted)
    torch.testing.assert_close(post.reconstruction(range(1, 8)), wanted[1:])
    assert post.reconstruction(range(3, 3)).shape == (0, 6)
    single = fitted(dtype=torch.float32).reconstruction()
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), wanted, rtol=1e-3, atol=1e-3)
    assert post.squared_error() == pytest.approx(float((X - wanted).square().sum()))
    masked = fitted(MASK)
    assert masked.squared_error() == pytest.approx(float((X - masked.reconstruction())[MASK].square().sum()))


class Products(TorchDispatchMode):
    """Counts the matrix products of a block."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += "mm" in str(function)
        return function(*args, **(kwargs or {}))


def test_many_draws_of_a_large_matrix_are_one_product():
    post = fitted()
    W, H = torch.rand(2, 20, 3000, 1), torch.rand(2, 20, 1, 1000)
    large = replace(post, draws={"W": W, "H": H, "sigma2": torch.ones(2, 20)})
    with Products() as products:
        found = large.reconstruction()
    assert products.count == 1
    torch.testing.assert_close(found[:9], (W[:, :, :9] @ H).mean((0, 1)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("mask", [None, MASK], ids=["full", "masked"])
def test_nothing_is_lost_on_disk(mask, dtype, tmp_path):
    model = ExponentialGaussian(2, torch.tensor([0.5, 1.5]), 0.7, 3.0, 4.0)
    post = fitted(mask, model, dtype)
    back = ppnmf.Posterior.load(post.save(tmp_path / "fit.nc"))
    for mine, theirs in ((post.draws, back.draws), (post.stats, back.stats)):
        assert set(mine) == set(theirs)
        assert all(torch.equal(mine[name], theirs[name]) and mine[name].dtype == theirs[name].dtype for name in mine)
    assert torch.equal(post.X.values, back.X.values)
    assert (mask is None and back.X.mask is None) or torch.equal(post.X.mask, back.X.mask)
    assert (back.method, back.seed, back.timings, back.attrs) == (post.method, post.seed, post.timings, post.attrs)
    for name, value in model.config().items():
        assert torch.equal(torch.as_tensor(value), torch.as_tensor(back.model.config()[name]))


def test_a_saved_file_replaces_the_one_before_and_opens_with_xarray(tmp_path):
    import xarray as xr

    post = fitted()
    post.save(tmp_path / "fit.nc", rows=[f"gene {i}" for i in range(8)], columns=list("abcdef"))
    post.save(tmp_path / "fit.nc", rows=[f"gene {i}" for i in range(8)], columns=list("abcdef"))
    with xr.open_datatree(tmp_path / "fit.nc", engine="h5netcdf") as tree:
        assert list(tree["posterior"]["column"].values) == list("abcdef")
        assert tree["posterior"]["W"].dims == ("chain", "draw", "row", "component")


def test_a_foreign_file_is_refused(tmp_path):
    import xarray as xr

    xr.DataTree.from_dict({"/posterior": xr.Dataset({"a": 1.0})}).to_netcdf(tmp_path / "other.nc", engine="h5netcdf")
    with pytest.raises(ValueError, match="holds no ppnmf posterior"):
        ppnmf.Posterior.load(tmp_path / "other.nc")
    with pytest.raises(FileNotFoundError):
        ppnmf.Posterior.load(tmp_path / "none.nc")


def test_a_tree_has_its_groups_and_dimensions():
    tree = fitted(MASK).to_datatree()
    assert tree["posterior"]["H"].dims == ("chain", "draw", "component", "column")
    assert tree["sample_stats"]["lp"].dims == ("chain", "draw")
    assert np.isnan(tree["observed_data"]["X"].values).sum() == 10
    whole = fitted().to_datatree(log_likelihood=True, posterior_predictive=True)
    for group in ("log_likelihood", "posterior_predictive"):
        assert whole[group]["X"].dims == ("chain", "draw", "row", "column")
    assert tree.attrs["inference_library"] == tree["posterior"].attrs["inference_library"] == "ppnmf"


def test_the_pointwise_log_likelihood_sums_to_that_of_the_model():
    post = fitted(MASK)
    pointwise = post.log_likelihood()
    assert pointwise.shape == (2, 6, 8, 6) and float(pointwise[..., ~MASK].abs().max()) == 0
    flat = {site: values.flatten(0, 1) for site, values in post.draws.items()}
    torch.testing.assert_close(
        pointwise.sum((-2, -1)).flatten() + post.model.log_prior(flat), post.stats["lp"].flatten(), rtol=1e-9, atol=0
    )


def test_replicates_come_from_the_likelihood_and_leave_the_global_generator():
    post = fitted(draws=400)
    before = torch.get_rng_state()
    replicates = post.predictive(seed=1)
    assert torch.equal(torch.get_rng_state(), before) and torch.equal(replicates, post.predictive(seed=1))
    z = (replicates - post.draws["W"] @ post.draws["H"]) / post.draws["sigma2"][..., None, None].sqrt()
    assert abs(float(z.mean())) < 4 / z.numel() ** 0.5 and abs(float(z.var()) - 1) < 4 * (2 / z.numel()) ** 0.5


def test_names_of_the_wrong_number_are_refused():
    with pytest.raises(ValueError, match="3 names of rows are given for 8 rows"):
        fitted().to_arviz(rows=list("abc"))


def test_generate_needs_a_model_that_can():
    with pytest.raises(TypeError, match="generate needs a model that draws new rows .* take latent='aggregated'"):
        fitted().generate(3)


@pytest.mark.parametrize("along", [None, "columns", "rows"])
def test_rows_of_any_posterior_are_drawn_from_its_mean_over_rows_and_draws(along, monkeypatch):
    noise = {None: None, "columns": torch.arange(1, 7) ** 2 / 4, "rows": torch.arange(1, 9)[:, None] ** 2 / 4}[along]
    post, n = fitted(noise=None if noise is None else noise.double()), 60_000
    monkeypatch.setattr("ppnmf.reconstructed.AT_ONCE", 2 * 6 * 9999)  # in parts
    rows = post.generate(n, seed=3, latent="aggregated")
    means = (post.draws["W"] @ post.draws["H"]).flatten(0, 2)  # of each row in each draw
    variance = post.draws["sigma2"][..., None, None] * (torch.ones(8, 6) if noise is None else noise.expand(8, 6))
    wanted = means.var(0, correction=0) + variance.flatten(0, 2).mean(0)
    assert ((rows.mean(0) - means.mean(0)).abs() < 5 * (wanted / n).sqrt()).all()
    fourth = ((rows - rows.mean(0)) ** 4).mean(0)
    assert ((rows.var(0) - wanted).abs() < 5 * ((fourth - wanted**2) / n).sqrt()).all()
    assert torch.equal(rows, post.generate(n, seed=3, latent="aggregated"))


def test_names_given_to_save_come_back(tmp_path):
    back = ppnmf.Posterior.load(fitted().save(tmp_path / "fit.nc", columns=list("abcdef")))
    assert back.names == {"columns": list("abcdef")}
    assert list(back.to_datatree()["posterior"]["column"].values) == list("abcdef")
    again = ppnmf.Posterior.load(back.save(tmp_path / "again.nc"))
    assert again.names == back.names


def test_what_was_not_kept_is_named():
    with pytest.raises(KeyError, match="W was not kept"):
        fitted(keep=["sigma2"]).to_arviz(log_likelihood=True)
