"""Pictures show what they say; no test here looks at pixels."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from scipy import stats

import ppnmf
from ppnmf import plots
from ppnmf.data import toy
from ppnmf.evidence.table import RankTable
from ppnmf.models import PAENMF, ExponentialGaussian
from ppnmf.plots import densities, places, predicted

N, D, K = 12, 64, 3


@pytest.fixture(scope="module")
def X():
    return toy.draw(N, D, rank=K, noise=0.1, seed=5).X.clamp(min=0)


@pytest.fixture(scope="module")
def fits(X):
    model = ExponentialGaussian.scaled_to(X, K)
    quiet = {"progress": False, "seed": 0}
    return {
        "gibbs": ppnmf.fit(model, X, draws=30, warmup=30, chains=2, **quiet),
        "icm": ppnmf.fit(model, X, method="icm", tol=1e-4, **quiet),
        "pae": ppnmf.fit(PAENMF(K), X, method="svi", steps=40, draws=400, **quiet),
    }


def shown(axes):
    return [ax for ax in axes if ax.axison]


def test_components_are_pictures_in_the_order_of_their_strength(fits):
    figure = plots.components(fits["gibbs"], (8, 8)).figure
    axes = shown(figure.axes)
    assert len(axes) == K and all(len(ax.images) == 1 for ax in axes)
    shares = [int(ax.get_title().split(":")[1].strip("% ")) for ax in axes]
    assert shares == sorted(shares, reverse=True) and abs(sum(shares) - 100) <= 2
    H = fits["icm"].draws["H"][0, 0].numpy()
    pictures = [ax.images[0].get_array() for ax in shown(plots.components(fits["icm"], (16, 4), order="F").figure.axes)]
    assert any(np.allclose(pictures[0], (row / row.sum()).reshape(4, 16).T) for row in H)


def test_a_square_row_without_names_is_a_picture_and_one_with_names_is_not(fits):
    assert shown(plots.components(fits["icm"]).figure.axes)[0].images
    names = [f"gene {j}" for j in range(D)]
    assert not shown(plots.components(fits["icm"], columns=names).figure.axes)[0].images


def test_a_picture_of_the_wrong_shape_is_refused(fits):
    with pytest.raises(ValueError, match="64 cells"):
        plots.components(fits["icm"], (7, 7))


def test_traces_have_a_line_a_chain(fits):
    figure = plots.traces(fits["gibbs"]).figure
    assert [len(ax.lines) for ax in figure.axes if ax.get_ylabel()] == [2, 2, 2, 2]
    assert figure.axes[0].get_ylabel() == "log joint (nats)"


def test_the_loss_curve_is_the_elbo_per_cell(fits):
    curve = plots.loss(fits["pae"]).figure.axes[0].lines[0].get_ydata()
    np.testing.assert_allclose(curve * N * D, fits["pae"].attrs["elbo_curve"])
    with pytest.raises(ValueError, match="a fit by svi does"):
        plots.loss(fits["icm"])


def test_loadings_show_every_method_once(fits):
    figure = plots.latent_densities(fits, rows=[0, 5], components=2).figure
    assert len(figure.axes) == 4
    assert [text.get_text() for text in figure.legends[0].texts] == ["gibbs", "icm (mode)", "pae (its Weibull)"]


def test_the_weibull_curve_is_the_density_of_the_guides_draws(fits):
    post = fits["pae"]
    matched = densities._matched({"pae": post})["pae"]
    for row, k in ((0, 0), (7, 2)):
        draws = matched.draws["W"][0, :, row, k].numpy()
        grid = np.linspace(0, draws.max() * 3, 20_001)[1:]
        density = densities._weibull_density(grid, post, matched, row, k)
        cumulative = np.cumsum(density) * (grid[1] - grid[0])
        result = stats.kstest(draws, lambda x, g=grid, c=cumulative: np.interp(x, g, c))
        assert result.pvalue > 1e-4


def test_a_kernel_density_integrates_to_one_even_at_zero():
    draws = np.random.default_rng(0).exponential(size=500)
    x, density = densities._kernel_density(draws)
    assert x[0] == 0 and np.trapezoid(density, x) == pytest.approx(1, abs=0.02)
    x, density = densities._kernel_density(np.full(10, 3.0))
    assert np.isfinite(density).all()


def test_components_are_matched_between_methods(X, fits):
    matched = densities._matched(fits)
    first = matched["gibbs"].mean("H")
    for post in matched.values():
        own = post.mean("H")
        fit = (first / first.norm(dim=1, keepdim=True)) @ (own / own.norm(dim=1, keepdim=True)).mT
        assert fit.argmax(1).tolist() == list(range(K))


@pytest.mark.parametrize("picture", [None, (8, 8)])
def test_reconstructions_mark_the_hidden_cells(X, fits, picture):
    seen = np.ones((N, D), bool)
    seen[0, ::9] = False
    figure = plots.reconstructions(fits, X.numpy(), seen, [0, 3], picture).figure
    if picture is None:
        hidden = figure.axes[0].lines[1].get_ydata()
        assert np.isfinite(hidden).sum() == (~seen[0]).sum()
    else:
        (_, marks) = figure.axes[2].images
        assert np.isfinite(marks.get_array().filled(np.nan)).sum() == (~seen[0]).sum()


@dataclass(frozen=True)
class Score:
    value: float
    error: float = 0.5
    priors: dict = field(default_factory=dict)
    seconds: float = 0.0
    warnings: tuple = ()
    failed: str = ""
    label: ClassVar[str] = "log evidence"
    sign: ClassVar[int] = 1

    def is_clearly_better_than(self, other):
        return self.value > other.value


def test_the_best_rank_is_marked_and_the_others_say_how_far_off_they_are():
    scores = {"chib": {1: Score(-30.0), 2: Score(-10.0), 3: Score(-12.0)}, "other": {1: Score(-3.0, float("nan"))}}
    table = RankTable(scores=scores, failed={"chib": {}, "other": {}}, shape=(5, 4), seed=0, seconds=0.0)
    ax = plots.rank(table).figure.axes[0]
    (above,) = ax.child_axes
    assert [text.get_text() for text in above.get_xticklabels()] == ["-20", "best", "-2"]
    assert ax.get_title(loc="left") == "chib: best at 2" and ax.get_ylabel() == "log evidence (nats)"
    (ring,) = [line for line in ax.lines if line.get_markersize() == 12]
    assert ring.get_xydata().tolist() == [[2, -10]]


def test_failed_estimates_are_drawn_where_there_are_no_others():
    failed = {rank: Score(-10.0 * rank, failed="the replicates lie 60 nats apart") for rank in (1, 2, 3)}
    scores = {"chib": failed | {4: Score(float("inf"), failed="an estimate is not finite")}, "bic": {1: Score(-3.0)}}
    table = RankTable(scores=scores, failed={"chib": {}, "bic": {}}, shape=(5, 4), seed=0, seconds=0.0)
    of_chib, of_bic = plots.rank(table).figure.axes[:2]
    assert of_chib.get_title(loc="left") == "chib: every estimate failed"
    assert of_bic.get_title(loc="left") == "bic: best at 1"
    (crosses,) = of_chib.lines
    assert crosses.get_marker() == "x" and crosses.get_xydata()[:3].tolist() == [[1, -10], [2, -20], [3, -30]]
    assert [text.get_text() for text in of_chib.get_xticklabels()] == ["1", "2", "3", "4"]
    without = RankTable(scores={"chib": {}}, failed={"chib": {1: "no"}}, shape=(5, 4), seed=0, seconds=0.0)
    with pytest.raises(ValueError, match="no score of any rank"):
        plots.rank(without)


PLACED = {
    "components": plots.components,
    "traces": plots.traces,
    "ranks": plots.ranks,
    "loadings": plots.loadings,
    "similarity": plots.similarity,
    "uncertainty": plots.uncertainty,
    "predictive": plots.predictive,
    "latent densities": lambda post, ax: plots.latent_densities({"gibbs": post}, [0], ax=ax),
    "reconstructions": lambda post, ax: plots.reconstructions(
        {"gibbs": post}, post.X.values.numpy(), np.ones((N, D), bool), [0, 1], ax=ax
    ),
}


@pytest.mark.parametrize("draw", PLACED.values(), ids=PLACED)
def test_every_picture_is_drawn_where_it_is_told(fits, draw):
    figure = Figure(figsize=(16, 8), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot([0, 1])
    drawn = np.asarray(draw(fits["gibbs"], ax=right), dtype=object).ravel()
    figure.canvas.draw()
    assert len(drawn) and all(places.figure_of(ax) is figure for ax in drawn)
    assert left.lines and all(ax.get_window_extent().x0 > left.get_window_extent().x1 for ax in drawn)


def test_a_place_that_cannot_be_divided_is_refused(fits):
    by_hand = Figure().add_axes((0, 0, 1, 1))
    with pytest.raises(ValueError, match="ax does not lie in a grid"):
        plots.traces(fits["gibbs"], ax=by_hand)
    with pytest.raises(TypeError, match="ax is .*; give matplotlib axes"):
        plots.similarity(fits["gibbs"], ax=Figure())
    with pytest.raises(TypeError, match="a figure, axes or an array of axes is needed"):
        plots.png("components.png")


def test_axes_show_their_picture_in_a_notebook(fits):
    for drawn in (plots.traces(fits["gibbs"]), plots.similarity(fits["gibbs"])):
        assert drawn._repr_png_().startswith(b"\x89PNG")
    assert plots.traces(fits["gibbs"]).shape == (4, 2)


def test_a_prediction_counts_the_observed_cells_and_its_band_holds_replicates():
    generator = np.random.default_rng(0)
    C = generator.poisson(generator.gamma(1, 3, (20, 2)) @ generator.gamma(1, 1, (2, 9)))
    mask = generator.random(C.shape) > 0.2
    options = {"draws": 50, "warmup": 50, "chains": 2, "init": "scaled", "progress": False}
    post = ppnmf.fit("gamma_poisson", C, rank=2, mask=mask, **options)
    ax = plots.predictive(post)
    (points,) = ax.lines
    small = points.get_xdata() <= 5
    wanted = [(C[mask] == k).sum() for k in range(6)]
    assert points.get_ydata()[small].tolist() == wanted
    found = predicted.replicates(post, 0)
    own = (found.predicted == 0).sum(1)
    band = ax.patches[0].get_data()
    np.testing.assert_allclose([band.baseline[0], band.values[0]], np.quantile(own, [0.05, 0.95]))
    with pytest.raises(ValueError, match="icm left modes alone"):
        plots.predictive(ppnmf.fit("exponential_gaussian", C, rank=2, method="icm", restarts=1, progress=False))


def test_a_prediction_is_of_rows_in_which_something_is_observed(monkeypatch):
    X = np.random.default_rng(0).gamma(1, 1, (9, 4))
    X[[0, 4]] = np.nan
    quiet = {"missing": "nan", "draws": 3, "warmup": 3, "chains": 1, "survey": 0, "progress": False}
    with pytest.warns(UserWarning, match="2 row"):
        post = ppnmf.fit("exponential_gaussian", X, rank=1, **quiet)
    assert predicted.observed_rows(post.X, 1) == [1] and predicted.observed_rows(post.X, 3) == [1, 5, 8]
    monkeypatch.setattr(predicted, "ENTRIES", 12)
    assert predicted.replicates(post, 0).observed.tolist() == X[1].tolist()


def test_components_lie_as_the_pictures_of_the_data_set_do(fits):
    post = replace(fits["icm"], attrs={"picture": {"shape": [4, 16], "order": "F"}})
    shape = [ax.get_images()[0].get_array().shape for ax in shown(plots.components(post))]
    assert shape == [(4, 16)] * K and plots.components(post, (8, 8))[0].get_images()[0].get_array().shape == (8, 8)
    H = post.components().mean[0]
    np.testing.assert_allclose(
        shown(plots.components(post))[0].get_images()[0].get_array(), H.reshape(4, 16, order="F")
    )
    X = ppnmf.datasets.Dataset(np.eye(6), None, "", picture=(2, 3), order="F")
    fitted = ppnmf.fit("exponential_gaussian", X, rank=1, method="icm", restarts=1, progress=False)
    assert fitted.attrs["picture"] == {"shape": [2, 3], "order": "F"}


def test_names_of_fits_and_of_crowded_columns_can_be_read(fits, X):
    drawn = plots.reconstructions({"a $_$ b": fits["icm"]}, X.numpy(), np.ones((N, D), bool), [0], columns=["c"] * D)
    places.png(drawn)
    few = replace(
        fits["icm"], draws={**fits["icm"].draws, "H": fits["icm"]["H"][..., :12]}, X=ppnmf.as_matrix(X[:, :12])
    )
    figure = Figure(figsize=(10, 4))
    narrow = plots.components(few, columns=[f"gene {j}" for j in range(12)], ax=figure.subplots(1, 2)[1])
    assert narrow[-1].get_xticklabels()[0].get_rotation() == 90


def test_a_gaussian_fit_to_counts_is_seen_to_be_wrong():
    C = np.random.default_rng(1).poisson(0.3, (30, 20))
    post = ppnmf.fit("exponential_gaussian", C, rank=1, draws=30, warmup=30, chains=1, init="scaled", progress=False)
    ax = plots.predictive(post)
    below = ax.lines[0].get_xdata() < -0.2
    band = ax.patches[0].get_data()
    assert below.any() and (band.baseline[below] > ax.lines[0].get_ydata()[below]).mean() > 0.3


def test_shares_of_a_row_sum_to_one_and_alike_chains_are_one(fits):
    (image,) = plots.loadings(fits["gibbs"]).images
    np.testing.assert_allclose(np.asarray(image.get_array()).sum(1), 1)
    post = fits["gibbs"]
    order = [2, 0, 1]
    other = {"W": post["W"][1, :, :, order], "H": post["H"][1][:, order]}
    both = {site: torch.stack([post[site][1], other[site]]) for site in other}
    twins = replace(post, draws={**post.draws, **both})
    (image,) = plots.similarity(twins).images
    np.testing.assert_allclose(np.asarray(image.get_array()), 1, atol=1e-9)
    both["H"][1, :, 0] = both["H"][1, :, 0].flip(-1)
    (image,) = plots.similarity(replace(post, draws={**post.draws, **both})).images
    assert np.asarray(image.get_array())[0, 1] < 0.98
    with pytest.raises(ValueError, match="left one chain"):
        plots.similarity(post.select(chains=[0]))


def test_bounds_of_the_largest_entries_are_those_of_the_table(fits):
    table = fits["gibbs"].components(level=0.8)
    axes = plots.uncertainty(fits["gibbs"], entries=4, level=0.8)
    strongest = int(fits["gibbs"].loadings().mean.sum(0).argmax())
    largest = np.argsort(-table.mean[strongest], kind="stable")[:4]
    (bounds,) = axes[0].collections
    drawn = np.array([segment[:, 0] for segment in bounds.get_segments()])
    np.testing.assert_allclose(drawn, np.stack([table.lower, table.upper], -1)[strongest, largest])
    assert [text.get_text() for text in axes[0].get_yticklabels()] == [str(j) for j in largest]


def test_chains_of_one_draw_each_have_a_density_together(fits):
    last = fits["gibbs"].select(draws=-1)
    (panel, *_) = plots.latent_densities({"gibbs": last}, [0])[0]
    assert last.chains > 1 and len(panel.lines) == 1


def test_ranks_of_a_chain_that_is_elsewhere_are_uneven(fits):
    post = fits["gibbs"]
    lp = torch.stack([torch.arange(30.0), 30 + torch.arange(30.0)])
    heights = [patch.get_data().values for patch in plots.ranks(replace(post, stats={"lp": lp}))[0].patches]
    half = len(heights[0]) // 2
    assert heights[0][half:].sum() == 0 and heights[1][:half].sum() == 0 and heights[0].sum() == 30


def test_pictures_are_saved_without_pyplot(fits, tmp_path):
    before = dict(matplotlib.rcParams)
    path = plots.save(plots.traces(fits["gibbs"]), tmp_path / "traces.svg")
    assert path.read_text().startswith("<?xml")
    assert dict(matplotlib.rcParams) == before
    assert not any("pyplot" in path.read_text() for path in Path(plots.__file__).parent.glob("*.py"))


def test_components_show_the_bounds_of_their_draws():
    generator = np.random.default_rng(0)
    X = generator.exponential(1, (20, 2)) @ generator.exponential(1, (2, 6)) + 0.1
    post = ppnmf.fit(ExponentialGaussian(2), X, draws=100, warmup=50, chains=2, init="scaled", progress=False)
    table = post.components(level=0.9)
    strongest = int(post.loadings().mean.sum(0).argmax())
    _, bounds = plots.components(post).figure.axes[0].collections
    drawn = np.array([segment[:, 1] for segment in bounds.get_segments()])
    np.testing.assert_allclose(drawn, np.stack([table.lower[strongest], table.upper[strongest]], 1), rtol=1e-6)
    mode = ppnmf.fit(ExponentialGaussian(2), X, method="icm", restarts=1, progress=False)
    assert len(plots.components(mode).figure.axes[0].collections) == 1, "a mode has no bounds"
