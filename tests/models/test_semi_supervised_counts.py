"""Labels beside counts: exact draws, calibrated predictions, and nothing of it where labels weigh nothing."""

import numpy as np
import pytest
import torch

import ppnmf
from ppnmf.classified import without_labels
from ppnmf.data.labels import as_labels
from ppnmf.data.matrix import as_matrix
from ppnmf.diagnostics.calibration import geweke, sbc
from ppnmf.inference import gibbs
from ppnmf.models import SemiSupervisedCounts
from ppnmf.poisson.divergence import divergence
from ppnmf.poisson.sweep import Story
from ppnmf.rng import Stream
from tests.poisson.test_calibration import logarithms, sampled
from tests.scenarios import LUCK

generator = np.random.default_rng(4)
X = generator.poisson(3 * generator.gamma(0.7, size=(30, 2)) @ generator.gamma(0.7, size=(2, 8)))
NAMES = ["ALL", "AML", None] * 10
QUICK = {"draws": 10, "warmup": 10, "chains": 2, "progress": False}
LABELS = as_labels(NAMES, 30, "rows")
KNOWN = torch.tensor([[True, True, True]] * 2 + [[True, False, False]] * 2)  # X has one column, Y two: half are unknown


def labelled(weight=3):
    """A model of one column of X and two of labels whose exposures differ between rows, and priors between entries."""
    steps = torch.arange(8, dtype=torch.float64).reshape(4, 2) / 8
    exposures = torch.cat([torch.ones(4, 1).double(), weight / torch.tensor([[0.5, 0.5], [2.0, 2.0]] * 2).double()], 1)
    rate_H = torch.tensor([[1.0, 2.0, 0.7], [0.6, 1.0, 3.0]], dtype=torch.float64)
    return SemiSupervisedCounts(2, 0.8 + steps, 1.2, 1.0 - steps / 2, rate_H, exposures, ("a", "b"), weight)


def same(one, other):
    return all(torch.equal(one.draws[site], other.draws[site]) for site in one.draws)


def test_sweeps_with_hidden_labels_leave_the_joint_invariant():
    found = geweke(labelled(), (4, 3), gibbs.step, 30, 1, logarithms, KNOWN, 150)
    assert found.p_value > LUCK, found.worst


@pytest.mark.slow
def test_ranks_of_the_truth_are_uniform_with_hidden_labels():
    found = sbc(labelled(), (4, 3), sampled, 400, seed=1, mask=KNOWN, at_once=100)
    assert found.p_value > LUCK, found.worst


def test_the_weight_is_that_of_a_divergence():
    """-log p differs between parameters as D(X || WH) + λ D(Y || WB / m) does, by SciPy's formula for D."""
    from scipy.special import kl_div

    model, data = SemiSupervisedCounts.for_labelled(as_matrix(X), 2, LABELS, 7).beside(as_matrix(X), LABELS)
    draws = model.prior_draws((30, 10), 2, Stream.of(1))
    W, H = draws["W"].numpy(), draws["H"].numpy()
    seen = LABELS.known.numpy()
    size = X.mean(1, keepdims=True).clip(1 / 8)
    of_X = kl_div(X, W @ H[..., :8]).sum((1, 2))
    of_Y = kl_div(LABELS.scores.numpy()[seen], ((W @ H[..., 8:]) / size)[:, seen]).sum((1, 2))
    fit = model.log_likelihood_at(draws, data).numpy()
    assert fit[0] - fit[1] == pytest.approx((of_X + 7 * of_Y)[1] - (of_X + 7 * of_Y)[0], rel=1e-12)
    loss = divergence(Story(model.prior, model.exposure(draws["W"])), data, draws).numpy()
    np.testing.assert_allclose(loss, of_X + 7 * of_Y, rtol=1e-12)


def test_labels_of_no_weight_leave_the_unsupervised_fit_to_the_bit():
    post = ppnmf.fit("semi_supervised_counts", X, rank=2, labels=NAMES, label_weight=0, seed=1, **QUICK)
    assert same(post, ppnmf.fit("gamma_poisson", X, rank=2, seed=1, **QUICK))
    with pytest.raises(ValueError, match="labels had no say in the fit"):
        ppnmf.predicted_labels(post)


def test_the_data_are_the_counts_of_both_and_rows_of_any_size_have_one_label():
    seen = torch.from_numpy(generator.random((30, 8)) > 0.2)
    model, data = SemiSupervisedCounts.for_labelled(as_matrix(X), 2, LABELS, 5.0).beside(as_matrix(X, seen), LABELS)
    assert torch.equal(data.values[:, 8:], 5 * LABELS.scores) and data.noise is None and model.weight == 5
    assert torch.equal(data.mask[:, :8], seen) and torch.equal(data.mask[:, 9], LABELS.known)
    mean = torch.where(seen, torch.from_numpy(X), 0).sum(1).clamp(min=1) / seen.sum(1)
    expected = torch.cat([torch.ones(30, 8), (5 / mean)[:, None].expand(-1, 2)], 1).double()
    torch.testing.assert_close(model.exposures, expected)
    prior_mean = 2 / (model.rate_W * model.rate_H[0, 8])  # of W B
    assert float(prior_mean / X.mean()) == pytest.approx(0.5)  # labels in a row of mean size, of each of two classes


@pytest.mark.parametrize("method", ["gibbs", "icm", "vb", "mu"])
@pytest.mark.filterwarnings("ignore:(icm|vb|mu).*:UserWarning", "ignore:Estimated shape:UserWarning")
def test_every_method_of_the_family_predicts_labels(method, tmp_path):
    options = QUICK if method == "gibbs" else {"max_sweeps": 50, "progress": False}
    options = {**options, "draws": 20} if method == "vb" else options
    post = ppnmf.fit("semi_supervised_counts", X, rank=2, labels=NAMES, label_weight=10, method=method, **options)
    back = ppnmf.Posterior.load(post.save(tmp_path / "fit.nc"))
    assert back.model == post.model and back.model.weight == 10 and back.model.label_names == ("ALL", "AML")
    for reading in ("scores", "loadings"):
        found = ppnmf.predicted_labels(post, reading=reading)
        assert found.classes == ("ALL", "AML") and found.known.sum() == 20
        torch.testing.assert_close(found.probabilities.sum(1), torch.ones(30, dtype=torch.float64))
        assert torch.equal(ppnmf.predicted_labels(back, reading=reading).probabilities, found.probabilities)
    new = ppnmf.predicted_labels(post, X[:4])
    assert new.probabilities.shape == (4, 2) and not bool(new.known.any())


def test_probabilities_are_calibrated_on_data_of_the_model():
    """Of rows with one label and the probability p of a class, a share p has it: within three hundredths, and by their errors."""
    p, hit = [], []
    for seed in range(5):
        N, D = 400, 12
        size = 1 + torch.arange(N, dtype=torch.float64)[:, None] % 5
        exposures = torch.cat([torch.ones(N, D).double(), (1 / size).expand(-1, 3)], 1)
        shapes, rates = (
            torch.tensor([of_X] * D + [of_B] * 3, dtype=torch.float64).expand(3, -1)
            for of_X, of_B in ((1.0, 0.3), (0.2, 0.8))
        )
        model = SemiSupervisedCounts(3, 0.3, shapes, 1 / size.expand(-1, 3), rates, exposures, tuple("abc"), 1)
        truth = model.prior_draws((N, D + 3), 1, Stream.of(seed))
        drawn = torch.poisson(model.means(truth)[0], generator=torch.Generator().manual_seed(seed))
        mask = torch.ones(N, D + 3, dtype=torch.bool)
        mask[1::2, D:] = False
        post = ppnmf.fit(model, drawn, mask=mask, draws=100, warmup=100, chains=1, survey=0, seed=seed, progress=False)
        codes = torch.where(mask[:, D], drawn[:, D:].argmax(1), -1).tolist()
        facts = {"of": "rows", "classes": list("abc"), "codes": codes, "are_names": False, "weight": 1}
        found = ppnmf.predicted_labels(type(post)(**{**vars(post), "attrs": {"labels": facts}}))
        judged = ~mask[:, D] & (drawn[:, D:].sum(1) == 1)
        p.append(found.probabilities[judged])
        hit.append(drawn[judged, D:])
    p, hit = torch.cat(p).flatten(), torch.cat(hit).flatten()
    for low in (0.0, 0.2, 0.4, 0.6, 0.8):
        own = (p >= low) & (p < low + 0.2 + (low == 0.8))
        error = float((p * (1 - p))[own].sum().sqrt() / own.sum())
        assert abs(float(hit[own].mean() - p[own].mean())) < max(0.03, 4 * error), low
    assert abs(float(p[hit > 0].mean()) - float(p.square().sum() / p.sum())) < 0.03


def test_the_loadings_are_at_the_mode_of_what_counts_alone_say():
    post = ppnmf.fit("semi_supervised_counts", X, rank=2, labels=NAMES, label_weight=10, seed=1, **QUICK)
    own = without_labels(as_matrix(post.X), 2)
    assert torch.equal(own.values, torch.from_numpy(X).double())
    H = post.draws["H"][0, :1]
    z = post.model.loadings(own, {"H": H})[0] * own.values.mean(1, keepdim=True).clamp(min=1 / 8)
    H = H[0, :, :8]
    slope = (own.values / (z @ H)) @ H.mT - H.sum(1) - float(post.model.rate_W)
    unit = H.sum(1) + float(post.model.rate_W)
    inside = z > 1e-3 * z.max()
    assert float((slope / unit)[inside].abs().max()) < 3e-2 and float((slope / unit).max()) < 3e-2


def test_classes_that_counts_show_are_found_whatever_the_rows_sizes():
    truth = ["left" if row % 2 else "right" for row in range(60)]
    size = np.where(np.arange(60) % 3 == 0, 5, 40)
    profile = np.where(np.arange(60)[:, None] % 2 == np.arange(10) % 2, 0.19, 0.01)
    counts = np.random.default_rng(1).poisson(size[:, None] * profile)
    given = [label if row % 5 else None for row, label in enumerate(truth)]
    post = ppnmf.fit(
        "semi_supervised_counts", counts, rank=2, labels=given, label_weight="heldout", method="icm", progress=False
    )
    facts = post.attrs["labels"]
    assert len(facts["tried"]) == 8 and facts["weight"] in (1.0, 10.0, 100.0, 1000.0)
    for reading in (None, "scores", "loadings"):
        found = ppnmf.predicted_labels(post, reading=reading)
        assert found.accuracy(truth) == 1 and found.log_score(truth) > -0.2
        assert ppnmf.predicted_labels(post, 3 * counts[:7], reading=reading).labels == truth[:7]


@pytest.mark.parametrize(
    ("given", "options", "match"),
    [
        (X, {"label_weight": 0.5}, "label_weight is 0.5; it must be a whole number >= 0"),
        (X, {"labels": np.linspace(0, 1, 60).reshape(30, 2)}, "labels have scores that are no counts"),
        (X + 0.5, {}, "semi_supervised_counts needs counts"),
    ],
)
def test_what_is_no_count_is_refused(given, options, match):
    with pytest.raises(ValueError, match=match):
        ppnmf.fit("semi_supervised_counts", given, rank=2, **{"labels": NAMES, **QUICK, **options})


def test_noise_of_counts_is_refused():
    with pytest.raises(ValueError, match="semi_supervised_counts takes counts, which have no noise variance"):
        ppnmf.fit("semi_supervised_counts", X, rank=2, labels=NAMES, noise=np.linspace(1, 2, 8), **QUICK)
