"""The topic tree, and predicted labels with their probabilities."""

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

import ppnmf
from ppnmf import plots
from ppnmf.labelling import PredictedLabels
from ppnmf.models import Hierarchical
from tests import pictures
from tests.scenarios import drawn

X = drawn(20, 15, 3, rate=0.5, noise=0.01)[0].clamp(min=0)


@pytest.fixture(scope="module")
def deep():
    return ppnmf.fit(Hierarchical((5, 3, 2)), X, method="deep", tol=1e-3, progress=False)


@pytest.mark.parametrize("layer", [1, 2])
def test_every_component_is_shared_out_among_the_wider_ones(deep, layer):
    figure = plots.topics(deep, layer)
    (image,) = pictures.panels(figure)[0].images
    shares = np.asarray(image.get_array())
    assert shares.shape == ((5, 3), (3, 2))[layer - 1]
    np.testing.assert_allclose(shares.sum(1), 1)
    largest = shares.argmax(1)
    assert (np.diff(largest) >= 0).all(), "those that go the same way lie side by side"


def test_shares_are_of_what_a_wider_component_has_in_x(deep):
    own = {site: values.clone() for site, values in deep.draws.items()}
    own["A2"] *= torch.tensor([3.0, 0.5])
    own["H"] /= torch.tensor([3.0, 0.5])[:, None]
    import dataclasses

    scaled = dataclasses.replace(deep, draws=own)
    one, other = (np.asarray(pictures.panels(plots.topics(p, 2))[0].images[0].get_array()) for p in (deep, scaled))
    np.testing.assert_allclose(one, other, rtol=1e-9)


def predicted(n=30, c=4, known=0.5):
    p = torch.from_numpy(np.random.default_rng(1).dirichlet(np.ones(c), n))
    return PredictedLabels(tuple(f"class {k}" for k in range(c)), p, torch.arange(n) < known * n)


def test_unknown_labels_are_shown_and_all_where_none_is_unknown():
    for share, rows in ((0.5, 15), (1.0, 30)):
        (image,) = pictures.panels(plots.labels(predicted(known=share)))[0].images
        assert image.get_array().shape == (rows, 4)


@pytest.mark.parametrize("n", [3, 30, 300])
def test_pictures_have_no_faults(deep, n):
    assert pictures.faults(plots.labels(predicted(n))) == {}
    assert pictures.faults(plots.topics(deep, names=[f"topic {k} of many words" for k in range(5)])) == {}


def test_they_draw_where_they_are_told(deep):
    left, right = Figure().subplots(1, 2)
    assert plots.topics(deep, ax=left) is left and plots.labels(predicted(), ax=right) is right
    assert left.images and right.images


def test_what_cannot_be_drawn_is_refused(deep):
    with pytest.raises(ValueError, match="hierarchical has no layer 3"):
        plots.topics(deep, 3)
    with pytest.raises(ValueError, match="wider holds 1 names and there are 3 components"):
        plots.topics(deep, wider=["one"])
