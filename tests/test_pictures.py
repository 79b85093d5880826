"""Every plot, with what real data and careless names bring: nothing is cut off, covered or without words."""

import functools
from dataclasses import dataclass, field, replace
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

import ppnmf
from ppnmf import plots
from ppnmf.data.matrix import as_matrix
from ppnmf.diagnostics.modes import Masses
from ppnmf.evidence.table import RankTable
from ppnmf.models import PAENMF, ExponentialGaussian
from ppnmf.posterior import Kind, Posterior
from ppnmf.surveyed import Survey
from tests import pictures

N = 12
LONG = "a column with a name that goes on and on, the {}"
NAMINGS = {
    "none": None,
    "short": "g{}",
    "long": LONG,
    "dollars": "price in $ of {} in $",
    "lines": "two\nlines {}",
}


def posterior(D=30, K=3, chains=2, draws=20, seed=0, naming="none", masked=False):
    """Draws about one truth, with a component of one column that is much the largest."""
    generator = torch.Generator().manual_seed(seed)
    random = lambda *size: torch.rand(chains, draws, *size, generator=generator, dtype=torch.float64)
    H = torch.rand(K, D, generator=generator, dtype=torch.float64)
    H[-1, D // 2] += 3 * D
    W = torch.rand(N, K, generator=generator, dtype=torch.float64) * (1 + torch.arange(K).flip(0))
    found = {"W": W * (1 + 0.1 * random(N, K)), "H": H * (1 + 0.1 * random(K, D)), "sigma2": 1e-4 * (1 + random())}
    mask = torch.rand(N, D, generator=generator) > 0.2 if masked else None
    label = NAMINGS[naming]
    names = {}
    if label is not None:
        names = {"rows": [label.format(i) for i in range(N)], "columns": [label.format(j) for j in range(D)]}
    return Posterior(
        draws=found,
        stats={"lp": -123_456 + 100 * random()},
        model=ExponentialGaussian(K),
        X=as_matrix(W @ H, mask=mask),
        method="gibbs" if draws > 1 else "icm",
        kind=Kind.CHAINS if draws > 1 else Kind.MODES,
        seed=0,
        names=names,
    )


@functools.cache
def guide():
    X = posterior(64).X.values
    return ppnmf.fit(PAENMF(3), X, method="svi", steps=40, draws=50, seed=0, progress=False)


def data(post, share=0.8):
    values = post.X.values.numpy()
    return values, np.random.default_rng(0).random(values.shape) < share


@dataclass(frozen=True)
class Score:
    value: float
    error: float = 0.5
    label: str = "log evidence"
    sign: int = 1
    priors: dict = field(default_factory=dict)
    seconds: float = 0.0
    warnings: tuple = ()
    failed: str = ""

    def is_clearly_better_than(self, other):
        return self.sign * (self.value - other.value) > 3 * max(self.error, other.error)


def table(**scores):
    return RankTable(scores=scores, failed={name: {} for name in scores}, shape=(5, 4), seed=0, seconds=0.0)


def hill(ranks, top, error, height=1e5, **kind):
    return {k: Score(-height - 50.0 * (k - top) ** 2, error, **kind) for k in ranks}


RANKS = {
    "errors wider than steps": table(chib=hill(range(1, 9), 5, 300.0)),
    "one rank": table(chib={4: Score(-30.0)}),
    "sixty ranks": table(chib=hill(range(1, 61), 26, 300.0)),
    "uneven ranks": table(chib=hill((1, 2, 3, 4, 5, 10, 20, 50, 100), 20, 3.0)),
    "no errors": table(bic={k: Score(9e6 + 3e3 * k, float("nan"), "BIC", -1) for k in range(1, 9)}),
    "small numbers": table(heldout={k: Score(1e-6 * k, 1e-8, "mean squared error on held-out cells", -1) for k in (1, 2)}),
    "five criteria": table(**{f"criterion {i}": hill(range(1, 8), 4, 90.0) for i in range(5)}),
    "all failed": table(chib={k: Score(1e6 * k, 3e4, failed="apart") for k in (1, 2, 3, 4, 5, 10, 20, 50, 100)}),
}  # fmt: skip

DRAWINGS = {
    f"components of {D} columns, {K}, names {naming}": functools.partial(
        lambda **about: plots.components(posterior(**about)), D=D, K=K, naming=naming
    )
    for D, K, naming in (
        (2, 1, "none"), (2, 2, "long"), (30, 3, "short"), (30, 7, "long"), (30, 3, "dollars"), (38, 13, "none"),
        (64, 1, "none"), (64, 3, "lines"), (64, 40, "none"), (96, 3, "long"), (361, 16, "none"), (2000, 3, "none"),
        (2000, 7, "long"),
    )
}  # fmt: skip
DRAWINGS |= {
    "components, flat pictures": lambda: plots.components(posterior(64), (4, 16)),
    "components, a long title": lambda: plots.components(posterior(64, 1), title="a title that tells a story " * 4),
    "components of modes": lambda: plots.components(posterior(draws=1)),
    "traces of one chain": lambda: plots.traces(posterior(chains=1, draws=19)),
    "traces of eight": lambda: plots.traces(posterior(chains=8)),
    "traces of twenty, rank one": lambda: plots.traces(posterior(chains=20, K=1)),
    "training": lambda: plots.loss(guide()),
}
DRAWINGS |= {f"rank, {name}": functools.partial(plots.rank, table) for name, table in RANKS.items()}


def surveyed(starts=24, left=13):
    """Chains that began at the two best of so many starts, of which some ended elsewhere."""
    here = starts - left
    found = Survey(
        climbed=tuple(-1e5 - 90.0 * s for s in range(starts)),
        reached=tuple(-1e5 - 99.0 * s for s in range(starts)),
        below=tuple(99.0 * s for s in range(starts)),
        sweeps=(33,) * starts,
        apart=(0.0,) * here + (0.4,) * left,
        near=0.1,
        chosen=(0, 1),
    )
    return replace(posterior(), attrs={"survey": found.to_dict()})


MASSES = Masses(groups=((1,), (0,)), log_mass=(-301706.7, -303012.4), error=(1.7, 2.2))
DRAWINGS |= {
    "survey": lambda: plots.survey(surveyed()),
    "survey, all in one mode": lambda: plots.survey(surveyed(6, 0)),
    "survey, with masses": lambda: plots.survey(surveyed(), masses=MASSES),
    "survey of many": lambda: plots.survey(surveyed(96, 60), "a title that tells a story " * 4),
}


@functools.cache
def counts(scale=1):
    """A fit of counts, of which most are small or none is."""
    generator = np.random.default_rng(0)
    X = generator.poisson(scale * generator.gamma(1, 3, (N, 2)) @ generator.gamma(1, 1, (2, 9)) + 50 * (scale - 1))
    options = {"draws": 20, "warmup": 10, "chains": 2, "init": "scaled", "seed": 0, "progress": False}
    return ppnmf.fit("gamma_poisson", X, rank=2, **options)


WHOLE = {
    "loadings, all rows": lambda naming="none": plots.loadings(posterior(naming=naming)),
    "similarity": lambda naming="none": plots.similarity(posterior(naming=naming, chains=5)),
    "uncertainty": lambda naming="none": plots.uncertainty(posterior(naming=naming, K=5)),
    "ranks": lambda naming="none": plots.ranks(posterior(naming=naming, draws=40, chains=4)),
    "prediction": lambda naming="none": plots.predictive(posterior(naming=naming, masked=True)),
}
DRAWINGS |= WHOLE | {f"{name}, long names": functools.partial(draw, "long") for name, draw in WHOLE.items()}
DRAWINGS |= {
    "prediction of counts": lambda: plots.predictive(counts()),
    "prediction of great counts": lambda: plots.predictive(counts(20)),
    "ranks of many": lambda: plots.ranks(posterior(K=1, chains=12)),
    "similarity of modes": lambda: plots.similarity(posterior(draws=1)),
}


def test_a_survey_shows_where_chains_began_and_what_was_left_out():
    axes = plots.survey(surveyed())
    sizes = {line.get_label(): len(line.get_xdata()) for line in axes.lines}
    assert sizes == {"where a chain began": 2, "in the mode of a chain": 9, "left out": 13}
    lines = plots.survey(surveyed(), masses=MASSES).lines
    places = {line.get_label(): list(line.get_xdata()) for line in lines if "mass" in line.get_label()}
    assert places == {
        "mode 0 began, log mass -301706.7 ± 1.7": [2],
        "mode 1 began, log mass -303012.4 ± 2.2": [1],
    }
    with pytest.raises(ValueError, match=r"masses are of 1 chain\(s\), and 2 began at starts"):
        plots.survey(surveyed(), masses=replace(MASSES, groups=((0,),)))
    with pytest.raises(ValueError, match="gibbs made no survey of starts: fit with init='survey'"):
        plots.survey(posterior())


def loadings(naming="none", components=3, **about):
    post = posterior(64, naming=naming, **about)
    return plots.latent_densities(
        {"gibbs": post, "a mode": posterior(64, draws=1), "pae": guide()}, [0, 5], None, components
    )


def rebuilt(picture=None, fits=("gibbs", "another"), share=0.8, rows=(0, 4, 7), **about):
    post = posterior(**about)
    return plots.reconstructions(dict.fromkeys(fits, post), *data(post, share), rows, picture)


DRAWINGS |= {
    "loadings": loadings,
    "loadings, long names": lambda: loadings("long", chains=8),
    "loadings, one panel": lambda: plots.latent_densities({"gibbs": posterior(64, 1)}, [3]),
    "loadings, a mode alone": lambda: plots.latent_densities({"icm": posterior(64, draws=1)}, [3]),
    "rebuilt pictures": lambda: rebuilt((8, 8), D=64, naming="long", rows=range(10)),
    "rebuilt, one picture": lambda: rebuilt((8, 8), ("gibbs",), D=64, rows=[3]),
    "rebuilt curves": lambda: rebuilt(D=300, masked=True),
    "rebuilt, few columns": lambda: rebuilt(D=2, naming="long", share=1.0),
    "rebuilt, named columns": lambda: rebuilt(fits=("gibbs", "another"), rows=[0, 4], D=96, naming="long"),
    "rebuilt, many named columns": lambda: rebuilt(D=2000, naming="long"),
}


@pytest.mark.parametrize("draw", DRAWINGS.values(), ids=DRAWINGS)
def test_nothing_is_cut_off_covered_or_without_words(draw):
    assert pictures.faults(draw()) == {}


def labels(ax):
    return [text.get_text() for text in ax.get_xticklabels()]


def test_names_of_columns_come_from_the_posterior_and_those_given_win():
    post = posterior(5, naming="short")
    assert labels(pictures.panels(plots.components(post))[-1]) == [f"g{j}" for j in range(5)]
    assert labels(pictures.panels(plots.components(post, columns=list("abcde")))[-1]) == list("abcde")
    X, seen = data(post)
    assert labels(pictures.panels(plots.reconstructions({"gibbs": post}, X, seen, [0]))[-1]) == [
        f"g{j}" for j in range(5)
    ]


def test_names_of_rows_come_from_the_posterior_and_those_given_win():
    post = posterior(64, naming="short")
    X, seen = data(post)
    for draw in (
        lambda **own: plots.latent_densities({"gibbs": post}, [4], **own),
        lambda **own: plots.reconstructions({"gibbs": post}, X, seen, [4], **own),
    ):
        assert pictures.panels(draw())[0].get_title(loc="left").startswith("g4")
        named = draw(names=[f"row number {i}" for i in range(N)])
        assert pictures.panels(named)[0].get_title(loc="left").startswith("row number 4")


def test_of_very_many_columns_some_are_named_and_each_component_says_its_largest():
    ax = pictures.panels(pictures.drawn(plots.components(posterior(2000, naming="short"))))[-1]
    shown = [label.get_text() for label in ax.get_xticklabels() if label.get_text()]
    assert shown and all(name.startswith("g") for name in shown)
    assert "largest: g1000," in " ".join(panel.get_title(loc="left") for panel in ax.figure.axes)


def test_names_that_are_not_one_for_each_are_refused():
    with pytest.raises(ValueError, match="columns holds 3 names and X has 30 columns"):
        plots.components(posterior(), columns=list("abc"))
    with pytest.raises(ValueError, match="rows holds 3 names and X has 12 rows"):
        plots.latent_densities({"gibbs": posterior()}, [0], names=list("abc"))


def test_names_that_number_pixels_leave_a_row_a_picture():
    post = posterior(64)
    numbered = replace(post, names={"columns": [f"pixel_{j // 8}_{j % 8}" for j in range(64)]})
    assert pictures.panels(plots.components(numbered))[0].images
    assert not pictures.panels(plots.components(replace(post, names={"columns": [f"gene {j}" for j in range(64)]})))[
        0
    ].images


def test_every_chain_has_its_trace():
    figure = plots.traces(posterior(chains=8)).figure
    assert len(figure.axes[0].lines) == len(figure.legends[0].texts) == 8
    assert len({line.get_color() for line in figure.axes[0].lines}) == 8


def test_a_mode_has_no_trace():
    with pytest.raises(ValueError, match="a trace needs two"):
        plots.traces(posterior(draws=1))


def test_a_picture_reaches_from_white_to_black():
    for ax in pictures.panels(plots.components(posterior(64, 5))):
        (image,) = ax.images
        assert image.get_clim() == (0, image.get_array().max())


def test_a_row_and_its_reconstructions_are_of_one_grey_scale():
    axes = pictures.panels(rebuilt((8, 8), D=64, share=1.0))
    for column in range(3):
        assert len({ax.images[0].get_clim() for ax in axes[column::3]}) == 1


def test_each_fit_has_its_own_panel():
    axes = pictures.panels(rebuilt(D=300, fits=("one", "two")))
    assert [ax.get_title(loc="left") for ax in axes[:2]] == ["row 0, one", "row 0, two"]
    assert all(ax.get_ylim() == axes[0].get_ylim() for ax in axes[:2])


def test_hidden_cells_are_in_the_legend_only_where_there_are_some():
    said = [[text.get_text() for text in rebuilt(D=20, share=share).figure.legends[0].texts] for share in (0.8, 1.1)]
    assert [any("hidden" in text for text in texts) for texts in said] == [True, False]


def test_a_dead_component_is_drawn():
    post = posterior(draws=1, chains=1)
    H = post.draws["H"].clone()
    H[..., 1, :] = 0
    figure = plots.components(replace(post, draws={**post.draws, "H": H}))
    assert pictures.faults(figure) == {}
    assert [ax.get_title(loc="left").endswith(": 0%") for ax in pictures.panels(figure)] == [False, False, True]


def test_draws_that_are_not_finite_leave_the_rest_of_a_trace():
    post = posterior()
    lp = post.stats["lp"].clone()
    lp[0, 3] = -torch.inf
    assert len(pictures.drawn(plots.traces(replace(post, stats={"lp": lp}))).axes[0].lines) == 2


def test_a_readers_own_style_changes_no_picture_and_is_put_back(tmp_path):
    draw = lambda name: plots.save(plots.traces(posterior()), tmp_path / name).read_bytes()
    ours = draw("ours.png")
    with matplotlib.rc_context(
        {"axes.facecolor": "black", "text.color": "white", "axes.labelsize": 30, "axes.grid": True}
    ):
        own = dict(matplotlib.rcParams)
        assert draw("theirs.png") == ours
        assert dict(matplotlib.rcParams) == own


def test_an_overview_takes_the_names_of_the_posterior():
    post = posterior(20, naming="short")
    figures = plots.overview({"gibbs": post}, *data(post))
    assert set(figures) == {"components-gibbs", "traces-gibbs", "reconstructions", "loadings"}
    assert pictures.panels(figures["loadings"])[0].get_title(loc="left").startswith("g0")
    assert labels(pictures.panels(figures["components-gibbs"])[-1])[3] == "g3"


# The judge itself


def bars(top):
    """What `components` did before: the limit is set while the first of two panels that share it is drawn."""
    figure = Figure(layout="constrained")
    for height, ax in zip((1, top), figure.subplots(2, 1, sharey=True), strict=True):
        ax.vlines([0, 1], 0, [height, height / 2])
        ax.set(xlabel="x", ylabel="y")
        ax.set_ylim(bottom=0)
    return figure


def test_the_judge_sees_bars_that_are_cut():
    assert "cut" in pictures.faults(bars(2)) and pictures.faults(bars(0.5)) == {}


def test_the_judge_sees_text_on_data_on_text_and_beyond_the_page():
    figure = bars(0.5)
    figure.axes[0].annotate("here", (0.5, 0.5), xycoords="axes fraction")
    figure.axes[1].set_xticks([0, 0.001], ["one name", "another"])
    figure.suptitle("a title much too long for its page " * 5)
    found = pictures.faults(figure)
    assert (
        found["on data"] == ["here"] and ("one name", "another") in found["overlapping"] and len(found["clipped"]) == 1
    )


def test_the_judge_sees_axes_without_words():
    figure = bars(0.5)
    for ax in figure.axes:
        ax.set(xlabel="", ylabel="")
    found = pictures.faults(figure)["unlabelled"]
    assert found == ["x of panel 0", "y of panel 0", "x of panel 1", "y of panel 1"]


def test_no_module_of_the_plots_makes_windows_or_is_long():
    for path in Path(plots.__file__).parent.glob("*.py"):
        assert "pyplot" not in path.read_text() and len(path.read_text().splitlines()) < 300
