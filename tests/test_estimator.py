"""The scikit-learn estimator."""

import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler
from sklearn.utils.estimator_checks import check_estimator

import ppnmf
from ppnmf import NMF
from ppnmf.models import ExponentialGaussian

QUICK = {"draws": 60, "warmup": 60, "chains": 2, "random_state": 0}


def drawn(seed=0, N=40, D=9, K=2, noise=0.1):
    generator = np.random.default_rng(seed)
    return np.abs(
        generator.exponential(1, (N, K)) @ generator.exponential(1, (K, D)) + generator.normal(0, noise, (N, D))
    )


@pytest.fixture(scope="module")
def fitted():
    return NMF(2, **QUICK).fit(pd.DataFrame(drawn()).add_prefix("gene "))


@pytest.mark.parametrize("inference", ["icm", "gibbs"])
def test_scikit_learn_s_own_checks_pass_without_exception(inference):
    few = {"options": {"restarts": 1}} if inference == "icm" else {"draws": 20, "warmup": 20, "chains": 1}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = check_estimator(NMF(2, inference=inference, **few), on_fail=None, on_skip=None)
    failed = [(check["check_name"], check["exception"]) for check in found if check["status"] == "failed"]
    assert not failed
    assert not [check for check in found if check["status"] == "xfail"]
    skipped = {check["check_name"] for check in found if check["status"] == "skipped"}
    assert skipped <= {"check_array_api_input"} and len(found) > 40


def test_it_gives_what_fit_gives(fitted):
    X = drawn()
    post = ppnmf.fit("exponential_gaussian", X, rank=2, draws=60, warmup=60, chains=2, seed=0, progress=False)
    assert np.array_equal(fitted.posterior_.draws["H"].numpy(), post.draws["H"].numpy())
    assert np.array_equal(fitted.components_, post.point()["H"].numpy())
    assert fitted.reconstruction_err_ == pytest.approx(
        float(np.linalg.norm(X - post.reconstruction().numpy())), rel=0.02
    )


def test_names_go_in_and_out(fitted):
    frame = pd.DataFrame(drawn()).add_prefix("gene ")
    assert list(fitted.feature_names_in_) == list(frame.columns) == fitted.posterior_.names["columns"]
    assert list(fitted.get_feature_names_out()) == ["nmf0", "nmf1"]
    table = clone(fitted).set_output(transform="pandas").fit(frame).transform(frame)
    assert list(table.columns) == ["nmf0", "nmf1"] and table.shape == (40, 2)


def test_loadings_and_components_rebuild_the_data(fitted):
    X = drawn()
    W = fitted.transform(pd.DataFrame(X).add_prefix("gene "))
    assert np.sqrt(((fitted.inverse_transform(W) - X) ** 2).mean()) < 0.12  # the noise is 0.1
    assert fitted.components_std_.shape == (2, 9) and (fitted.components_std_ < 0.2 * fitted.components_.max()).all()
    with pytest.raises(ValueError, match="loadings \\(n_samples, 2\\)"):
        fitted.inverse_transform(W[:, :1])


def test_samples_are_spread_like_the_data(fitted):
    X, new = drawn(), fitted.sample(4000)
    assert np.allclose(new.mean(0), X.mean(0), atol=5 * X.std(0).max() / np.sqrt(4000) + 0.05)


@pytest.mark.filterwarnings("ignore:icm. .* component.s. died")
def test_a_search_finds_the_number_of_components():
    X = drawn(3, N=60, D=12, K=3, noise=0.05)
    search = GridSearchCV(NMF(1, inference="icm", random_state=0), {"n_components": [1, 2, 3, 5]}, cv=3).fit(X)
    assert search.best_params_ == {"n_components": 3}


def test_it_works_in_a_pipeline_and_on_sparse_rows():
    X = np.where(np.random.default_rng(0).random((40, 9)) > 0.5, drawn(), 0.0)
    pipe = make_pipeline(MaxAbsScaler(), NMF(2, inference="icm", random_state=0))
    dense, sparse = pipe.fit_transform(X), pipe.fit_transform(scipy.sparse.csr_array(X))
    assert np.allclose(dense, sparse, rtol=1e-5, atol=1e-8)


def test_rows_of_another_floating_type_are_taken():
    X = drawn()
    found = NMF(2, inference="icm", random_state=0).fit(X.astype("float32"))
    assert np.allclose(found.transform(X), found.transform(X.astype("float32")), rtol=1e-4)


def test_missing_entries_are_left_out():
    X = drawn()
    X[3, 4] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        NMF(2, inference="icm").fit(X)
    found = NMF(2, inference="icm", missing="nan", random_state=0).fit(X)
    assert np.isfinite(found.transform(X)).all() and np.isfinite(found.score(X))


@pytest.mark.filterwarnings("ignore:icm. 1 of 1 restart.s. had not converged")
@pytest.mark.parametrize("inference", ["gibbs", "icm"])
@pytest.mark.parametrize("model", ["tri_factor", ppnmf.models.Hierarchical((3, 2))], ids=str)
def test_models_of_several_factors_are_taken(model, inference):
    K = 2 if isinstance(model, str) else None
    short = {"draws": 10, "warmup": 10, "chains": 2} if inference == "gibbs" else {}
    found = NMF(K, model=model, inference=inference, random_state=0, **short)
    W = found.fit_transform(drawn())
    error = np.linalg.norm(drawn() - W @ found.components_)
    assert W.shape == (40, 2) and error < 1.5 * found.reconstruction_err_


def test_what_a_file_held_is_taken_with_its_names(tmp_path):
    frame = pd.DataFrame(drawn()).add_prefix("gene ").rename(lambda i: f"cell {i}")
    frame.to_csv(tmp_path / "x.csv", index_label="cell")
    table = ppnmf.read(tmp_path / "x.csv")
    assert list(NMF(2, inference="icm").fit(table).feature_names_in_) == list(frame.columns)
    post = ppnmf.fit("exponential_gaussian", table, rank=2, method="icm", progress=False)
    assert post.names == {"rows": list(frame.index), "columns": list(frame.columns)}
    assert post.transform(table).names["rows"] == list(frame.index)


def test_a_criterion_chooses_the_number():
    X = drawn(3, N=60, D=12, K=3, noise=0.05)
    found = NMF("bic", ranks=[2, 3, 4], inference="icm", random_state=0).fit(X)
    assert found.n_components_ == 3 and found.rank_table_.best == 3


def test_a_model_of_one_s_own_and_an_autoencoder_are_taken():
    X = drawn()
    found = NMF(None, model=ExponentialGaussian(2, 0.5, 0.5), inference="icm", random_state=0).fit(X)
    assert found.posterior_.model == ExponentialGaussian(2, 0.5, 0.5)
    auto = NMF(2, model="pae_nmf", inference="svi", random_state=0, options={"steps": 50}).fit(X)
    assert np.allclose(auto.transform(X), auto.posterior_.model.encode(X).mean.numpy())


def test_the_score_of_an_autoencoder_is_that_of_least_squares_and_a_single_column_has_none():
    X = drawn()
    auto = NMF(2, model="pae_nmf", inference="svi", random_state=0, options={"steps": 300}).fit(X)
    one = NMF(1, model="pae_nmf", inference="svi", random_state=0, options={"steps": 300}).fit(X)
    plain = NMF(2, inference="icm", random_state=0).fit(X)
    assert one.score(X) < auto.score(X) < plain.score(X) + 0.5 and auto.score(X) > plain.score(X) - 2
    with pytest.raises(ValueError, match="X has 1 column; score predicts each from others"):
        NMF(1, inference="icm", random_state=0).fit(X[:, :1]).score(X[:, :1])


def test_what_an_earlier_fit_chose_is_gone():
    found = NMF("bic", ranks=[1, 2], inference="icm", random_state=0).fit(drawn())
    assert not hasattr(found.set_params(n_components=2).fit(drawn()), "rank_table_")


def test_sparse_loadings_go_back_to_the_data(fitted):
    W = np.array([[0.0, 1.0], [2.0, 0.0]])
    assert np.array_equal(fitted.inverse_transform(scipy.sparse.csr_array(W)), fitted.inverse_transform(W))


@pytest.mark.parametrize(
    "options,sentence",
    [
        ({"n_components": "nothing"}, "n_components is 'nothing'"),
        ({"n_components": None}, "give a number"),
        ({"inference": "icm", "draws": 5}, "draws: icm has no such option"),
        ({"model": ExponentialGaussian(3)}, "n_components is 2 and the model's rank 3"),
    ],
)
def test_bad_parameters_get_a_sentence(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        NMF(**{"n_components": 2, **options}).fit(drawn())


def test_negative_entries_are_refused_unless_told():
    X = drawn()
    X[0, 0] = -0.1
    with pytest.raises(ValueError, match="Negative values in data passed to NMF"):
        NMF(2, inference="icm").fit(X)
    with pytest.warns(UserWarning, match="1 negative"):
        NMF(2, inference="icm", allow_negative=True, random_state=0).fit(X)
