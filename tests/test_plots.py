"""Pictures show what they say; no test here looks at pixels."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import matplotlib
import numpy as np
import pytest
from scipy import stats

import ppnmf
from ppnmf import plots
from ppnmf.data import toy
from ppnmf.evidence.table import RankTable
from ppnmf.models import PAENMF, ExponentialGaussian
from ppnmf.plots import densities

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
    figure = plots.components(fits["gibbs"], (8, 8))
    axes = shown(figure.axes)
    assert len(axes) == K and all(len(ax.images) == 1 for ax in axes)
    shares = [int(ax.get_title().split(":")[1].strip("% ")) for ax in axes]
    assert shares == sorted(shares, reverse=True) and abs(sum(shares) - 100) <= 2
    H = fits["icm"].draws["H"][0, 0].numpy()
    pictures = [ax.images[0].get_array() for ax in shown(plots.components(fits["icm"], (16, 4), order="F").axes)]
    assert any(np.allclose(pictures[0], (row / row.sum()).reshape(4, 16).T) for row in H)


def test_a_square_row_without_names_is_a_picture_and_one_with_names_is_not(fits):
    assert shown(plots.components(fits["icm"]).axes)[0].images
    names = [f"gene {j}" for j in range(D)]
    assert not shown(plots.components(fits["icm"], columns=names).axes)[0].images


def test_a_picture_of_the_wrong_shape_is_refused(fits):
    with pytest.raises(ValueError, match="64 cells"):
        plots.components(fits["icm"], (7, 7))


def test_traces_have_a_line_a_chain(fits):
    figure = plots.traces(fits["gibbs"])
    assert [len(ax.lines) for ax in figure.axes if ax.get_ylabel()] == [2, 2, 2, 2]
    assert figure.axes[0].get_ylabel() == "log joint (nats)"


def test_the_loss_curve_is_the_elbo_per_cell(fits):
    curve = plots.loss(fits["pae"]).axes[0].lines[0].get_ydata()
    np.testing.assert_allclose(curve * N * D, fits["pae"].attrs["elbo_curve"])
    with pytest.raises(ValueError, match="a fit by svi does"):
        plots.loss(fits["icm"])


def test_loadings_show_every_method_once(fits):
    figure = plots.latent_densities(fits, rows=[0, 5], components=2)
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
    figure = plots.reconstructions(fits, X.numpy(), seen, [0, 3], picture)
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
    label: ClassVar[str] = "log evidence"
    sign: ClassVar[int] = 1

    def is_clearly_better_than(self, other):
        return self.value > other.value


def test_the_best_rank_is_marked_and_the_others_say_how_far_off_they_are():
    scores = {"chib": {1: Score(-30.0), 2: Score(-10.0), 3: Score(-12.0)}, "other": {1: Score(-3.0, float("nan"))}}
    table = RankTable(scores=scores, failed={"chib": {}, "other": {}}, shape=(5, 4), seed=0, seconds=0.0)
    ax = plots.rank(table).axes[0]
    (above,) = ax.child_axes
    assert [text.get_text() for text in above.get_xticklabels()] == ["-20", "best", "-2"]
    assert ax.get_title(loc="left") == "chib: best at 2" and ax.get_ylabel() == "log evidence (nats)"
    (ring,) = [line for line in ax.lines if line.get_markersize() == 12]
    assert ring.get_xydata().tolist() == [[2, -10]]


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
    _, bounds = plots.components(post).axes[0].collections
    drawn = np.array([segment[:, 1] for segment in bounds.get_segments()])
    np.testing.assert_allclose(drawn, np.stack([table.lower[strongest], table.upper[strongest]], 1), rtol=1e-6)
    mode = ppnmf.fit(ExponentialGaussian(2), X, method="icm", restarts=1, progress=False)
    assert len(plots.components(mode).axes[0].collections) == 1, "a mode has no bounds"
