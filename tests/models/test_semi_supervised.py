"""Labels beside X: calibrated predictions, and nothing of it where they weigh nothing."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

import ppnmf
from ppnmf.classified import by_regression, regressed, sharpened, without_labels
from ppnmf.data.labels import as_labels
from ppnmf.data.matrix import as_matrix
from ppnmf.inference.labelled import Read, Tried, chosen
from ppnmf.labelling import PredictedLabels
from ppnmf.models import SemiSupervised
from ppnmf.rng import Site, Stream
from tests.scenarios import drawn

X = drawn(30, 8, 2, rate=0.5)[0].abs()
NAMES = ["ALL", "AML", None] * 10
QUICK = {"draws": 10, "warmup": 10, "chains": 2, "progress": False}


def same(one, other):
    return all(torch.equal(one.draws[site], other.draws[site]) for site in one.draws)


def story(seed, N=150, D=12, K=3, c=3, weight=4.0):
    """X, scores Y of which half are unknown, and the model that they are drawn from."""
    u = Stream.of(seed).uniforms(0, Site.DATA, range(2 * N + D + c), max(D + c, K))[0]
    W, H = -u[:N, :K].log(), -u[N : N + D + c, :K].mT.log()
    z = torch.special.ndtri(u[N + D + c :, : D + c])
    noise = torch.tensor([1.0] * D + [1 / weight] * c).sqrt()
    XY = W @ H + 0.7 * noise * z
    Y = XY[:, D:]
    model = SemiSupervised(K, 1.0, 1.0, 5.0, 2.0, label_names=tuple("abc"), weight=weight)
    return XY[:, :D], Y, model


def test_probabilities_are_calibrated_on_data_of_the_model():
    """Of observations whose class has the probability p, a share p has it: within three hundredths, and by their errors."""
    p, hit = [], []
    for seed in range(8):
        X, Y, model = story(seed)
        known = torch.arange(len(Y)) % 2 == 0
        labels = as_labels(torch.where(known[:, None], Y, torch.nan), len(Y), "rows")
        _, data = model.beside(as_matrix(X), labels)
        with pytest.warns(UserWarning, match="negative entries"):
            post = ppnmf.fit(model, data, draws=150, warmup=100, chains=2, seed=seed, progress=False)
        facts = {
            "of": "rows",
            "classes": list("abc"),
            "codes": labels.codes.tolist(),
            "are_names": False,
            "weight": 4.0,
        }
        found = ppnmf.predicted_labels(type(post)(**{**vars(post), "attrs": {"labels": facts}}))
        p.append(found.probabilities[~known])
        hit.append(torch.nn.functional.one_hot(Y.argmax(1), 3)[~known].double())
    p, hit = torch.cat(p).flatten(), torch.cat(hit).flatten()
    assert abs(float(p[hit > 0].mean()) - float(p.square().sum() / p.sum())) < 0.03
    for low in (0.0, 0.2, 0.4, 0.6, 0.8):
        own = (p >= low) & (p < low + 0.2 + (low == 0.8))
        error = float((p * (1 - p))[own].sum().sqrt() / own.sum())
        assert abs(float(hit[own].mean() - p[own].mean())) < max(0.03, 4 * error), low
    z = float((hit - p).sum() / (p * (1 - p)).sum().sqrt())
    assert abs(z) < float(stats.norm.isf(1e-4))


def test_labels_of_no_weight_leave_the_unsupervised_fit_to_the_bit():
    post = ppnmf.fit("semi_supervised", X, rank=2, labels=NAMES, label_weight=0, seed=1, **QUICK)
    assert same(post, ppnmf.fit("exponential_gaussian", X, rank=2, seed=1, **QUICK))
    with pytest.raises(ValueError, match="labels had no say in the fit"):
        ppnmf.predicted_labels(post)


def test_the_data_are_the_columns_of_both():
    labels = as_labels(NAMES, 30, "rows")
    model = SemiSupervised(2, label_names=labels.classes, weight=4.0)
    same_model, data = model.beside(as_matrix(X), labels)
    assert same_model is model
    assert data.shape == (30, 10) and torch.equal(data.values[:, :8], X)
    assert torch.equal(data.noise.variance, torch.tensor([[1.0] * 8 + [0.25] * 2], dtype=torch.float64))
    assert bool(data.mask[:, :8].all()) and torch.equal(data.mask[:, 8], labels.known)
    _, noisy = model.beside(as_matrix(X, noise=np.full((30, 8), 2.0)), labels)
    assert noisy.noise.variance.shape == (30, 10) and float(noisy.noise.variance[3, 9]) == 0.25


@pytest.mark.parametrize("method", ["gibbs", "icm", "vb", "mu", "hals", "nnls"])
@pytest.mark.filterwarnings("ignore:(icm|vb|mu|hals|nnls).*:UserWarning", "ignore:Estimated shape:UserWarning")
def test_every_method_of_the_family_predicts_labels(method, tmp_path):
    options = QUICK if method == "gibbs" else {"max_sweeps": 50, "progress": False}
    post = ppnmf.fit("semi_supervised", X, rank=2, labels=NAMES, label_weight=10.0, method=method, **options)
    found = ppnmf.predicted_labels(post)
    assert found.classes == ("ALL", "AML") and found.known.sum() == 20
    torch.testing.assert_close(found.probabilities.sum(1), torch.ones(30, dtype=torch.float64))
    back = ppnmf.Posterior.load(post.save(tmp_path / "fit.nc"))
    assert back.model == post.model and torch.equal(ppnmf.predicted_labels(back).probabilities, found.probabilities)
    assert back.model.label_names == ("ALL", "AML") and back.model.weight == 10.0


def test_hidden_labels_have_no_say():
    seen = [name if place % 4 else None for place, name in enumerate(NAMES)]
    other = list(seen)
    post = ppnmf.fit("semi_supervised", X, rank=2, labels=seen, seed=1, **QUICK)
    labels = as_labels(NAMES, 30, "rows").without(torch.tensor([name is None for name in seen]))
    again = ppnmf.fit("semi_supervised", X, rank=2, labels=labels, seed=1, **QUICK)
    assert same(post, again) and other == seen


def test_a_class_that_x_shows_is_found_and_the_weight_is_chosen_in_one_call():
    W = torch.zeros(60, 2, dtype=torch.float64)
    truth = ["left" if row % 2 else "right" for row in range(60)]
    W[1::2, 0] = W[::2, 1] = 1.0
    u = Stream.of(3).uniforms(0, Site.DATA, range(62), 10)[0]
    data = (W + 0.2 * u[:60, :2]) @ (3 * u[60:]) + 0.05 * u[:60]
    given = [label if row % 3 else None for row, label in enumerate(truth)]
    post = ppnmf.fit(
        "semi_supervised", data, rank=2, labels=given, label_weight="heldout", method="icm", progress=False
    )
    facts = post.attrs["labels"]
    assert len(facts["tried"]) == 8
    named = [facts[name] for name in ("weight", "reading", "sharpness", "strength")]
    assert named in [one[:4] for one in facts["tried"]]
    for reading in (None, "scores", "loadings"):
        found = ppnmf.predicted_labels(post, reading=reading)
        assert found.accuracy(truth) == 1 and found.brier(truth) < 0.1 and found.log_score(truth) > -0.2
        new = ppnmf.predicted_labels(post, data[:7], reading=reading)
        assert new.labels == truth[:7] and not bool(new.known.any())
    assert str(found).splitlines()[0] == "20 of 60 labels predicted, of left, right"


def test_scores_are_chosen_where_they_are_surely_better():
    base = torch.full((50,), -1.0, dtype=torch.float64)
    lead = torch.linspace(-0.5, 0.7, 50, dtype=torch.float64)  # its mean is 0.1, and its standard error 0.05
    sure = Tried(1.0, Read("scores", 0.1), base + lead + 0.02)
    unsure = Tried(1.0, Read("scores", 0.1), base + lead - 0.02)
    loadings = [Tried(1.0, Read("loadings", 1.0), base), Tried(10.0, Read("loadings", 1.0), base - 1)]
    assert chosen([sure, *loadings]) is sure and chosen([unsure, *loadings]) is loadings[0]
    assert chosen([unsure]) is unsure


def test_the_regression_reads_what_x_alone_says():
    """Loadings at their modes given X, H and σ² alone; the classes' probabilities follow the names that are told."""
    u = Stream.of(5).uniforms(0, Site.DATA, range(43), 12)[0]
    truth = torch.arange(40) % 2
    W = torch.nn.functional.one_hot(truth, 2) + 0.3 * u[:40, :2]
    data = W @ (3 * u[40:42]) + 0.05 * u[:40]
    names = [f"{code}" if row % 4 else None for row, code in enumerate(truth.tolist())]
    post = ppnmf.fit("semi_supervised", data, rank=2, labels=names, seed=1, **QUICK)
    known = torch.tensor([name is not None for name in names])
    own = without_labels(as_matrix(post.X), 2)
    assert own.shape == (40, 12) and torch.equal(own.values, data)
    codes = torch.where(known, truth, -1)
    p = by_regression(post, codes, [own], 1.0)
    assert float((p.argmax(1) == truth).double().mean()) == 1
    torch.testing.assert_close(by_regression(post, codes, [own, own], 1.0), p)
    sharp = by_regression(post, codes, [own], 1.0, 2.0)
    odds = torch.logit(sharpened(regressed(post, codes, [own], 1.0), 2.0)[:, 1])
    torch.testing.assert_close(odds, 2 * torch.logit(regressed(post, codes, [own], 1.0)[:, 1]))
    assert bool((sharp.amax(1) > p.amax(1)).all())
    swapped = by_regression(post, torch.where(known, 1 - truth, -1), [own], 1.0)
    torch.testing.assert_close(swapped, p.flip(1), rtol=0, atol=1e-3)
    z = post.model.loadings(
        own, {"H": post.draws["H"][0, :1].double(), "sigma2": post.draws["sigma2"][0, :1].double()}
    )[0]
    H, s = post.draws["H"][0, 0, :, :12].double(), float(post.draws["sigma2"][0, 0])
    rate = float(post.model.rate_W)
    slope = (data @ H.mT - z @ H @ H.mT) / s - rate
    assert float(slope.max()) < 1e-8 * float((data @ H.mT).max() / s)
    assert float((slope * z).abs().max()) < 1e-6


@pytest.mark.parametrize(
    ("labels", "reading", "match"),
    [
        (NAMES, "loading", "there is no reading 'loading'.*; scores or loadings"),
        (np.arange(60.0).reshape(30, 2), "loadings", "loadings are read for names of X's rows"),
    ],
)
def test_readings_that_there_are_not_are_refused(labels, reading, match):
    post = ppnmf.fit("semi_supervised", X, rank=2, labels=labels, seed=1, **QUICK)
    with pytest.raises(ValueError, match=match):
        ppnmf.predicted_labels(post, reading=reading)


def test_names_of_the_columns_and_the_classes_are_kept():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X.numpy(), index=[f"s{i}" for i in range(30)], columns=[f"g{j}" for j in range(8)])
    post = ppnmf.fit("semi_supervised", frame, rank=2, labels=pandas.Series(NAMES), **QUICK)
    assert post.names["columns"] == [*frame.columns, "ALL", "AML"]
    found = ppnmf.predicted_labels(post).to_pandas()
    assert list(found.columns) == ["ALL", "AML"] and list(found.index) == list(frame.index)
    assert ppnmf.predicted_labels(post, frame.iloc[:3]).names == ("s0", "s1", "s2")
    with pytest.raises(ValueError, match="not named as those of the fit"):
        ppnmf.predicted_labels(post, frame[frame.columns[::-1]])


@pytest.mark.parametrize("reading", ["scores", "loadings"])
def test_new_rows_may_be_of_another_floating_type(reading):
    X, y = np.random.default_rng(0).gamma(1, 1, (12, 5)), ["a", "b"] * 6
    for own, other in (("float64", "float32"), ("float32", "float64")):
        post = ppnmf.fit(
            "semi_supervised", X.astype(own), rank=2, labels=y, draws=4, warmup=4, chains=1, survey=0, progress=False
        )
        wanted = ppnmf.predicted_labels(post, X.astype("float32").astype(own)[:3], reading=reading)
        found = ppnmf.predicted_labels(post, X.astype("float32").astype(other)[:3], reading=reading)
        assert torch.equal(found.probabilities, wanted.probabilities)


def test_scores_are_of_hidden_labels_alone():
    p = torch.tensor([[0.9, 0.1], [0.3, 0.7], [0.6, 0.4]], dtype=torch.float64)
    found = PredictedLabels(("a", "b"), p, torch.tensor([True, False, False]))
    truth = ["b", "b", "b"]
    assert found.accuracy(truth) == 0.5
    assert found.brier(truth) == pytest.approx((2 * 0.09 + 2 * 0.36) / 2)
    assert found.log_score(truth) == pytest.approx((np.log(0.7) + np.log(0.4)) / 2)
    with pytest.raises(ValueError, match="truth has the classes c"):
        found.accuracy(["a", "b", "c"])


@pytest.mark.parametrize(
    ("given", "classes", "known"),
    [
        (["b", "a", None, ""], ("a", "b"), 2),
        (np.array([2.0, 10.0, np.nan, 2.0]), ("2", "10"), 3),
        (torch.tensor([1, 0, 1, 1]), ("0", "1"), 4),
        (np.array([[0.1, 2.0], [np.nan, 1.0], [3.0, 0.0], [0.0, 1.0]]), ("0", "1"), 3),
    ],
)
def test_labels_come_as_they_are(given, classes, known):
    found = as_labels(given, 4, "rows")
    assert found.classes == classes and int(found.known.sum()) == known
    assert bool((found.scores[~found.known] == 0).all()) and found.are_names == (np.ndim(given) == 1)


def test_labels_are_found_by_the_names_of_the_rows():
    names, series = ("u", "v", "w", "x"), pd.Series(list("abba"), list("uvwx"))
    wanted = as_labels(list("abba"), 4, "rows of X").codes.tolist()
    turned = series.iloc[[2, 0, 3, 1]]
    assert as_labels(turned, 4, "rows of X", names=names).codes.tolist() == wanted
    scores = pd.get_dummies(series).astype(float)
    assert as_labels(scores.iloc[::-1], 4, "rows of X", names=names).codes.tolist() == wanted
    counted = pd.Series(list("aabb"), [3, 0, 2, 1])
    assert as_labels(counted, 4, "rows of X", names=tuple("0123")).codes.tolist() == [0, 1, 1, 0]
    for by_position in (turned.reset_index(drop=True), turned.tolist()):
        assert as_labels(by_position, 4, "rows of X", names=names).codes.tolist() == [1, 0, 0, 1]
    assert as_labels(turned, 4, "rows of X").codes.tolist() == [1, 0, 0, 1]
    with pytest.raises(
        ValueError, match="labels are not named as the rows of X are: 'u' is missing and 'y' is unknown"
    ):
        as_labels(series.rename({"u": "y"}), 4, "rows of X", names=names)
    frame = pd.DataFrame(np.random.default_rng(0).gamma(1, 1, (4, 3)), names)
    post = ppnmf.fit(
        "semi_supervised", frame, rank=1, labels=turned, draws=2, warmup=2, chains=1, survey=0, progress=False
    )
    assert post.attrs["labels"]["codes"] == wanted
    assert ppnmf.predicted_labels(post).accuracy(turned) == ppnmf.predicted_labels(post).accuracy(series)


def test_dates_are_classes_by_their_text():
    found = as_labels(pd.Series(pd.to_datetime(["2020-01-01", "2020-03-01", None, "2020-01-01"])), 4, "rows")
    assert found.classes == ("2020-01-01", "2020-03-01") and found.codes.tolist() == [0, 1, -1, 0]


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"labels": NAMES[:5]}, ValueError, "there are 30 rows of X; give one for each"),
        ({"labels": ["a"] * 30}, ValueError, "2 classes are the least"),
        ({"labels": NAMES, "label_weight": -1}, ValueError, "label_weight is -1"),
        ({"labels": NAMES, "label_weight": "best"}, ValueError, "label_weight is 'best'"),
        ({"labels": NAMES, "rank": None}, TypeError, "labels need rank="),
        ({"labels": ["a", "b"] + [None] * 28, "label_weight": "heldout"}, ValueError, "too few labels"),
    ],
)
def test_what_is_no_labelling_is_refused(options, error, match):
    with pytest.raises(error, match=match):
        ppnmf.fit("semi_supervised", X, **{"rank": 2, **QUICK, **options})


def test_labels_for_another_model_are_refused():
    with pytest.raises(TypeError, match="labels go with 'semi_supervised' or 'semi_supervised_counts' and a rank"):
        ppnmf.fit("exponential_gaussian", X, rank=2, labels=NAMES, **QUICK)
