"""GDSC drug response against the published figures of a Gibbs sampler of the same model (Brouwer and Lió)."""

import numpy as np
import torch

import ppnmf
from ppnmf.models import ExponentialGaussian


def test_the_training_error_of_gibbs_is_the_published_one(real_data):
    """Rank 20, rates 0.1, noise (1, 1), start from the prior; published 534.6 at sweep 200, still falling a little."""
    R = real_data("drug_sensitivity/gdsc_ic50.npz")["R"]
    R = R[(~np.isnan(R)).sum(1) >= 3]
    assert R.shape == (705, 139) and (~np.isnan(R)).sum() == 79_259
    model = ExponentialGaussian(20, rate_W=0.1, rate_H=0.1)
    post = ppnmf.fit(model, R, missing="nan", method="gibbs", init="prior", draws=21, warmup=179, chains=1, seed=0)
    residual = (post.X.values - post.draws["W"] @ post.draws["H"])[0][:, post.X.mask]
    errors = residual.square().mean(-1)
    assert 518 < float(errors.mean()) < 545
    assert torch.isclose(errors.mean(), post.draws["sigma2"][0].mean(), rtol=0.01)
