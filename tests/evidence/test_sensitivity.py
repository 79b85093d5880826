"""What another noise scale would do to the evidence, from draws, against evidence worked out with it."""

from dataclasses import replace

import pytest

import ppnmf
from ppnmf.evidence import Evidence
from ppnmf.evidence.sensitivity import SCALES, to_noise
from ppnmf.evidence.table import RankTable
from ppnmf.models import ExponentialGaussian, GammaPoisson
from ppnmf.rng import Stream
from tests.evidence.exact import rank_one
from tests.scenarios import drawn

MODEL = ExponentialGaussian(1, rate_W=0.8, rate_H=1.3, noise_shape=2.0, noise_scale=1.5)
pytestmark = [
    pytest.mark.filterwarnings("ignore:X has .* negative entries"),
    pytest.mark.filterwarnings("ignore:log_evidence by"),  # short runs
]


@pytest.mark.parametrize("method", ["chib", "stepping_stone", "smc"])
def test_the_change_is_that_of_quadrature(method):
    X = drawn(30, 3, 1, seed=3)[0]
    sizes = {"chib": {"draws": 400, "thin": 1}, "smc": {"particles": 400}}.get(method, {"particles": 300, "draws": 400})
    evidence = ppnmf.log_evidence(MODEL, X, method=method, warmup=100, replicates=4, progress=False, **sizes)
    for factor in SCALES:
        exact = rank_one(replace(MODEL, noise_scale=1.5 * factor), X) - rank_one(MODEL, X)
        assert evidence.attrs["noise_scale"][f"{factor:g}"] == pytest.approx(exact, abs=0.05 + 0.05 * abs(exact))


def test_what_has_no_scale_tells_nothing():
    known = replace(MODEL, sigma2=1.0)
    assert to_noise(known, known.prior_draws((4, 3), 2, Stream.of(0))) == {}
    counts = GammaPoisson(1)
    assert to_noise(counts, counts.prior_draws((4, 3), 2, Stream.of(0))) == {}


def table(changes, sensitivity=()):
    facts = {"method": "chib", "priors": {}, "seconds": 0.0, "mcse": 0.1, "replicates": (0.0, 0.0)}
    scores = {
        rank: Evidence(log_evidence=value, rank=rank, attrs={"noise_scale": {"10": change, "0.1": 0.0}}, **facts)
        for rank, (value, change) in changes.items()
    }
    return RankTable(
        scores={"chib": scores},
        failed={"chib": {}},
        shape=(5, 4),
        seed=0,
        seconds=0.0,
        sensitivity={"chib": {2.0: scores}} if sensitivity else {},
    )


def test_a_table_says_when_the_choice_hangs_on_the_noise_scale_and_all_of_it_when_asked():
    firm, loose = table({1: (-10.0, -1.0), 2: (-5.0, -1.0)}), table({1: (-10.0, -1.0), 2: (-5.0, -9.0)})
    assert "the noise scale, chib" not in str(firm)
    assert (
        "With ten times the noise scale, chib's log evidence changes by (rank: nats) 1: -1, 2: -9; rank 1 is then"
        in str(loose)
    )
    assert "no longer 2" in str(loose) and "a tenth of the noise scale, chib" not in str(loose)
    assert "With a tenth of the noise scale, chib's log evidence changes" in str(
        table({1: (-10.0, -1.0), 2: (-5.0, -1.0)}, "asked")
    )
    assert loose.to_dict()["noise_scale"]["chib"]["10"] == {"1": -11.0, "2": -14.0}
    assert loose.with_noise_scale("chib", 10.0) == {1: -11.0, 2: -14.0}
