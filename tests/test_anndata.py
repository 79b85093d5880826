from types import SimpleNamespace

import numpy as np
import pytest

import ppnmf
import ppnmf.anndata

anndata = pytest.importorskip("anndata")

QUICK = {"draws": 8, "warmup": 8, "chains": 2, "init": "scaled", "progress": False}


def cells(sparse=False):
    from scipy.sparse import csr_array, csr_matrix

    generator = np.random.default_rng(0)
    counts = generator.poisson(generator.gamma(1.0, 1.0, (12, 2)) @ generator.gamma(1.0, 1.0, (2, 7))).astype(float)
    adata = anndata.AnnData(csr_matrix(counts) if sparse else counts)
    adata.obs_names = [f"cell {i}" for i in range(12)]
    adata.var_names = [f"gene {j}" for j in range(7)]
    adata.layers["twice"] = csr_array(2 * counts) if sparse else 2 * counts
    return adata


@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse"])
def test_factors_and_their_errors_are_written_and_survive_the_file(sparse, tmp_path):
    adata = cells(sparse)
    post = ppnmf.anndata.fit(adata, 2, model="gamma_poisson", **QUICK)
    np.testing.assert_array_equal(adata.obsm["X_ppnmf"], post.loadings().mean)
    np.testing.assert_array_equal(adata.varm["ppnmf_sd"], post.components().sd.T)
    assert post.names == {"rows": list(adata.obs_names), "columns": list(adata.var_names)}
    adata.write_h5ad(tmp_path / "cells.h5ad")
    read = anndata.read_h5ad(tmp_path / "cells.h5ad")
    np.testing.assert_array_equal(read.varm["ppnmf"], post.components().mean.T)
    np.testing.assert_array_equal(read.obsm["X_ppnmf_sd"], post.loadings().sd)
    facts = read.uns["ppnmf"]
    assert facts["model"] == "gamma_poisson"
    assert facts["summary"] == ppnmf.summary(post).sentence
    np.testing.assert_array_equal(facts["congruence"], post.components().congruence)


def test_a_layer_is_fitted_in_place_of_x():
    adata = cells()
    of_layer = ppnmf.anndata.fit(adata, 2, layer="twice", key="twice", **QUICK)
    assert of_layer.X.mean() == pytest.approx(2 * ppnmf.as_matrix(adata).mean())
    assert "X_twice" in adata.obsm and of_layer.names["rows"][0] == "cell 0"


def test_a_backed_file_is_fitted_too(tmp_path):
    cells().write_h5ad(tmp_path / "cells.h5ad")
    backed = anndata.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    post = ppnmf.anndata.fit(backed, 2, method="icm", restarts=1, progress=False)
    np.testing.assert_array_equal(backed.obsm["X_ppnmf"], post.loadings().mean)


def multimodal(kind, rna):
    """A MuData of two modalities, or something like one."""
    modalities = {"rna": rna, "protein": cells()[:9].copy()}
    modalities["protein"].var_names = [f"protein {j}" for j in range(7)]
    if kind == "like":
        return SimpleNamespace(mod=modalities)
    mudata = pytest.importorskip("mudata")
    if hasattr(mudata, "set_options"):
        mudata.set_options(pull_on_update=False)  # as later versions do, and without a warning
    return mudata.MuData(modalities)


@pytest.mark.parametrize("kind", ["like", "mudata"])
def test_a_modality_is_fitted_and_written_into(kind, tmp_path):
    data = multimodal(kind, cells(sparse=True))
    options = {"model": "gamma_poisson", "layer": "twice", "seed": 3, **QUICK}
    post = ppnmf.anndata.fit(data, 2, modality="rna", **options)
    alone = cells(sparse=True)
    ppnmf.anndata.fit(alone, 2, **options)
    if kind == "mudata":
        data.write(tmp_path / "cells.h5mu")
        data = pytest.importorskip("mudata").read(tmp_path / "cells.h5mu")
    np.testing.assert_array_equal(data.mod["rna"].obsm["X_ppnmf"], post.loadings().mean)
    np.testing.assert_array_equal(data.mod["rna"].varm["ppnmf"], alone.varm["ppnmf"])
    assert "ppnmf" not in data.mod["protein"].uns and data.mod["rna"].uns["ppnmf"]["rank"] == 2
    ppnmf.anndata.write(post, data, "again", modality="rna")
    np.testing.assert_array_equal(data.mod["rna"].obsm["X_again"], post.loadings().mean)


def test_a_modality_has_to_be_named():
    data = multimodal("like", cells())
    with pytest.raises(ValueError, match="name one of the modalities, rna, protein, by modality="):
        ppnmf.anndata.fit(data, 2)
    with pytest.raises(ValueError, match="no modality 'rnaa' .did you mean 'rna'.*there are rna, protein"):
        ppnmf.anndata.fit(data, 2, modality="rnaa")
    with pytest.raises(ValueError, match="AnnData has no modalities: leave it out"):
        ppnmf.anndata.fit(cells(), 2, modality="rna")
    with pytest.raises(TypeError, match="fit takes an AnnData"):
        ppnmf.anndata.fit(SimpleNamespace(mod={"rna": np.ones((3, 3))}), 2, modality="rna")


def test_several_modalities_are_no_matrix():
    with pytest.raises(ValueError, match="X is a MuData of 'rna', 'protein'; pass one of them"):
        ppnmf.fit("gamma_poisson", multimodal("mudata", cells()), rank=2)


def test_mistakes_are_sentences():
    with pytest.raises(TypeError, match="takes an AnnData"):
        ppnmf.anndata.fit(np.ones((3, 3)), 2)
    with pytest.raises(ValueError, match="no layer 'twise' .did you mean 'twice'"):
        ppnmf.anndata.fit(cells(), 2, layer="twise")
    post = ppnmf.anndata.fit(cells(), 2, method="icm", restarts=1, progress=False)
    with pytest.raises(ValueError, match="give what was fitted"):
        ppnmf.anndata.write(post, cells()[:5])


def test_a_posterior_is_written_into_cells_of_its_order_alone():
    adata = cells()
    post = ppnmf.anndata.fit(adata, 2, method="icm", restarts=1, progress=False)
    with pytest.raises(ValueError, match="adata's rows are not named as those of the fit"):
        ppnmf.anndata.write(post, adata[::-1].copy())
    with pytest.raises(ValueError, match="labels make columns"):
        ppnmf.anndata.fit(adata, 2, labels=["a"] * adata.n_obs)
