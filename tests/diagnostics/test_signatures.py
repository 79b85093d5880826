"""Components beside known signatures: channels by their names, cosines over the posterior, mixtures, mutations of each row."""

import dataclasses
import itertools

import numpy as np
import pandas as pd
import pytest
import torch

import ppnmf
from ppnmf import plots
from ppnmf.diagnostics.signatures import _best_pair, channel
from ppnmf.plots.signatures import CLASSES, COLOURS
from tests import pictures

generator = np.random.default_rng(3)
KNOWN = generator.dirichlet(np.full(96, 0.2), 6)
NAMES = [f"S{r + 1}" for r in range(6)]
REFERENCE = pd.DataFrame(KNOWN, index=NAMES, columns=CLASSES)
MIXED = 0.6 * KNOWN[2] + 0.4 * KNOWN[4]
TRUE = np.stack([KNOWN[0], KNOWN[1], MIXED])
LOADINGS = generator.gamma(0.8, 1.0, size=(40, 3)) * np.array([3000, 1500, 800])
EXPOSURES = 0.5 + generator.random((40, 1))
COUNTS = generator.poisson(EXPOSURES * (LOADINGS @ TRUE))
ROWS = [f"tumour {i}" for i in range(40)]
X = pd.DataFrame(COUNTS, index=ROWS, columns=CLASSES)


@pytest.fixture(scope="module")
def post():
    model = ppnmf.models.GammaPoisson(3, 0.8, 0.2, 0.8 / 1500, 0.2 * 96, exposures=EXPOSURES)
    return ppnmf.fit(model, X, draws=100, warmup=200, chains=2, seed=0, init="scaled", progress=False)


def test_components_are_named_and_a_mixture_is_said_to_be_one(post):
    found = ppnmf.signatures(post, REFERENCE)
    assert found.nearest[:2] == ("S1", "S2")
    best = found.cosines.mean.max(1)
    assert (best[:2] > 0.97).all() and best[2] < 0.95
    assert found.mixtures[:2] == (None, None) and found.mixtures[2].names == ("S3", "S5")
    share = found.mixtures[2].share
    assert share.lower - 0.05 < 0.6 < share.upper + 0.05 and share.upper - share.lower < 0.2
    assert "a mixture: " in str(found) and "S3 with S5" in found.to_frame().loc["component 3", "mixture"]


def test_cosines_are_those_of_each_draw(post):
    found = ppnmf.signatures(post, REFERENCE)
    H = ppnmf.align(post, scale=True).draws["H"].flatten(0, 1)[:, list(found.order)].numpy()
    own = np.einsum(
        "skd,rd->skr", H / np.linalg.norm(H, axis=2, keepdims=True), KNOWN / np.linalg.norm(KNOWN, axis=1)[:, None]
    )
    np.testing.assert_allclose(found.draws, own, rtol=1e-9)
    assert (found.cosines.lower <= found.cosines.mean).all() and (found.cosines.mean <= found.cosines.upper).all()


def test_mutations_add_up_to_the_counts_with_their_exposures(post):
    found = ppnmf.signatures(post, REFERENCE)
    np.testing.assert_allclose(found.mutations.mean.sum(1), COUNTS.sum(1), rtol=0.05)
    true = EXPOSURES * LOADINGS
    inside = (found.mutations.lower < true) & (true < found.mutations.upper)
    assert inside.mean() > 0.75, "90 % bounds, some of which share the error of a signature"
    frame = found.mutations_frame()
    assert frame.loc[("tumour 3", "component 2"), "mean"] == found.mutations.mean[3, 1]


@pytest.mark.parametrize("turned", [False, True], ids=["rows", "columns"])
def test_channels_are_matched_by_name_whatever_their_order_and_spelling(post, turned):
    shuffled = REFERENCE[[*reversed(CLASSES)]].rename(columns=lambda name: f"{name[2:5]}:{name[0]}{name[2]}{name[-1]}")
    expected = ppnmf.signatures(post, REFERENCE)
    found = ppnmf.signatures(post, shuffled.T if turned else shuffled)
    np.testing.assert_array_equal(found.draws, expected.draws)
    assert found.references == tuple(NAMES)


def test_unknown_names_are_refused_with_the_names(post):
    with pytest.raises(
        ValueError, match=r"reference's columns are not those of the fit: 'A\[C>A\]A' is missing and 'odd' is unknown"
    ):
        ppnmf.signatures(post, REFERENCE.rename(columns={CLASSES[0]: "odd"}))
    with pytest.raises(ValueError, match="the reference's columns have no names, and signatures are matched by name"):
        ppnmf.signatures(post, KNOWN)
    nameless = dataclasses.replace(post, names={})
    with pytest.raises(ValueError, match="the fit's columns have no names"):
        ppnmf.signatures(nameless, REFERENCE)


@pytest.mark.parametrize("name", ["A[C>T]G", "ACG>ATG", "C>T:ACG", "C>T ACG", "ACG:T", "a[c>t]g"])
def test_a_class_has_many_spellings(name):
    assert channel(name) == "A[C>T]G"


def test_other_names_are_no_classes():
    assert [channel(name) for name in ("A[C>C]G", "TP53", "A[G>T]C", "")] == [None] * 4


def test_the_best_pair_is_that_of_trying_all():
    from scipy.optimize import nnls

    unit = KNOWN / np.linalg.norm(KNOWN, axis=1, keepdims=True)
    for h in (MIXED, TRUE.mean(0), KNOWN[5]):
        pairs = list(itertools.combinations(range(6), 2))
        left = [nnls(unit[list(pair)].T, h)[1] for pair in pairs]
        one, other = _best_pair(torch.from_numpy(h / np.linalg.norm(h)), torch.from_numpy(unit))
        assert left[pairs.index((one, other))] == pytest.approx(min(left), abs=1e-12)


def test_the_references_of_cosmic_are_at_hand(post, real_data):
    real_data("mutations/cosmic_v3.3.1_sbs_grch37.npz")
    found = ppnmf.signatures(post)
    assert found.draws.shape[1:] == (3, 79) and found.references[0] == "SBS1"


def test_a_picture_has_the_96_classes_in_six_colours(post):
    figure = pictures.drawn(plots.signatures(post, REFERENCE))
    panels = pictures.panels(figure)
    assert len(panels) == 3
    for ax in panels:
        bars = [bar for bar in ax.patches if bar.get_width() == 0.7]
        assert len(bars) == 96 and len({bar.get_facecolor() for bar in bars}) == len(COLOURS)
        assert sum(bar.get_height() for bar in bars) == pytest.approx(100)
    assert "nearest S1" in panels[0].get_title(loc="left") and "a mixture" in panels[2].get_title(loc="left")
    assert panels[0].get_title(loc="left").split(";")[0] == plots_title(plots.signatures(post), 0)


def plots_title(figure, n):
    return pictures.panels(figure)[n].get_title(loc="left")


def test_other_columns_have_no_such_picture():
    post = ppnmf.fit("gamma_poisson", COUNTS, rank=2, draws=5, warmup=5, chains=1, init="scaled", progress=False)
    with pytest.raises(ValueError, match="needs the 96 substitution classes as X's columns"):
        plots.signatures(post)
