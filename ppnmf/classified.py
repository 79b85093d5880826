r"""Classes read off loadings: logistic regression of the known names on what X alone says of each row's loadings.

The model's own scores W B are linear in non-negative loadings with non-negative coefficients, and the loadings of a row whose
label is known have seen it, which those of other rows have not. This reading has neither trait. For a draw of H and σ² each
row's loadings are

.. math:: z_i = \arg\max_{w \ge 0} \; p(w) \, p(x_i \mid w, H, \sigma^2),

of x_i without its label (for counts there is no σ²); the known names are regressed on z (multinomial, with a ridge penalty), and
the probabilities of all rows are averaged over draws. The penalty and the average make them too modest: where hidden labels say so
they are sharpened, p(c) ∝ p̄(c)^q, which is scaling by a temperature 1 / q. It is no part of the model: labels shape H there, and
are read here. By Laplace's rule of succession of n + 2 labels, n of them known, one goes to a class at random, as for the scores
(`labelling`).

Reference: Guo, Pleiss, Sun, Weinberger (2017), "On calibration of modern neural networks", arXiv:1706.04599, for q.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ppnmf.data.dense import Dense
from ppnmf.data.matrix import as_matrix
from ppnmf.threads import single_threaded

if TYPE_CHECKING:
    from ppnmf.posterior import Posterior

__all__ = [
    "DRAWS",
    "SHARPER",
    "STRENGTHS",
    "by_regression",
    "draws_of",
    "regressed",
    "sharpened",
    "succeeded",
    "without_labels",
]

DRAWS = 10  # of H that are read, at most, and their probabilities averaged
STRENGTHS = (0.1, 1.0, 10.0, 100.0)  # inverses of the ridge penalty that are tried
SHARPER = (0.7, 1.0, 1.4, 2.0, 3.0)  # q that are tried with each of them
MOST_STEPS = 5000  # of the regression


def without_labels(data: Dense, classes: int) -> Dense:
    """X of the columns [X, Y], of which so many are Y's."""
    D = data.shape[1] - classes
    mask = None if data.mask is None else data.mask[:, :D]
    noise = None if data.noise is None else data.noise.variance[:, :D]
    return as_matrix(data.values[:, :D], None if mask is None or bool(mask.all()) else mask, noise=noise)


def by_regression(
    post: Posterior, codes: Tensor, rows: list[Dense], strength: float, sharpness: float = 1.0, draws: int = DRAWS
) -> Tensor:
    """Probabilities (n, c) of the classes of the last of some `rows`, sharpened, and one label of n + 2 at random.

    The arguments are those of `regressed`, and `sharpness`, q.
    """
    p = sharpened(regressed(post, codes, rows, strength, draws), sharpness)
    return succeeded(p, int((codes >= 0).sum()))


def regressed(post: Posterior, codes: Tensor, rows: list[Dense], strength: float, draws: int = DRAWS) -> Tensor:
    """The regressions' mean probabilities (n, c) of the classes of the last of some `rows`, on the CPU.

    Args:
        post: a fit of [X, Y], of several modes the best; c comes from its model.
        codes: (N,), the numbers of the fitted rows' classes, -1 where they are not known.
        rows: X (N, D) of the fit without labels, and after it new rows (M, D), if any.
        strength: the inverse of the ridge penalty on components of unit spread.
        draws: that are read, at most, evenly spaced.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    drawn = draws_of(post)
    model: Any = post.model
    classes = len(model.label_names)
    known = codes >= 0
    total = torch.zeros(rows[-1].shape[0], classes, dtype=torch.float64)
    S = len(drawn["H"])
    at = torch.arange(0, S, -(-S // draws))
    with single_threaded(), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        given = {site: values[at.to(values.device)] for site, values in drawn.items() if site != "W"}
        for z in zip(*(model.loadings(own, given) for own in rows), strict=True):
            spread = z[0].std(0, correction=0)
            spread = torch.where(spread > 0, spread, 1.0)
            told = LogisticRegression(C=strength, max_iter=MOST_STEPS)
            told.fit((z[0][known] / spread).numpy(), codes[known].numpy())
            found = told.predict_proba((z[-1] / spread).numpy())
            total[:, torch.from_numpy(told.classes_)] += torch.from_numpy(found)
    return total / len(at)


def sharpened(p: Tensor, sharpness: float) -> Tensor:
    """Probabilities ∝ p^q, (n, c); a class of no probability keeps none, and q = 1 leaves all as they are, to the bit."""
    return p if sharpness == 1.0 else torch.softmax(sharpness * p.log(), -1)


def draws_of(post: Posterior) -> dict[str, Tensor]:
    """All draws (S, *site) of each site of a fit, float64; of several modes those of the best."""
    shown = post.typical()
    return {site: shown._kept(site).flatten(0, 1).double() for site in post.model.sites(*post.X.shape)}


def succeeded(p: Tensor, n_known: int) -> Tensor:
    """Probabilities (n, c) of which one of n_known + 2 goes to a class at random."""
    at_random = 1 / (n_known + 2)
    return (1 - at_random) * p + at_random / p.shape[-1]
