import random

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from ppnmf.rng import Site, Stream, _philox, forked, uniform_pair


def test_philox_gives_the_published_words():
    """Random123's known answers for philox4x32-10."""
    zero, ones = torch.zeros(1, dtype=torch.int64), torch.full((1,), 0xFFFFFFFF)
    pi = [torch.tensor([word]) for word in (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344, 0xA4093822, 0x299F31D0)]
    answers = {
        0: (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8),
        1: (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
        2: (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    }
    inputs = [((zero,) * 4, (zero,) * 2), ((ones,) * 4, (ones,) * 2), (tuple(pi[:4]), tuple(pi[4:]))]
    for case, (counter, key) in enumerate(inputs):
        assert tuple(int(word) for word in _philox(counter, key)) == answers[case]


def test_numba_and_torch_give_the_same_numbers():
    stream = Stream.of(7, chains=3)
    table = stream.uniforms(11, Site.H, range(4, 9), 5)
    for c, key in enumerate(stream.keys):
        for row in range(4, 9):
            pairs = [u for pair in range(3) for u in uniform_pair(*key, pair, row, 11, int(Site.H))]
            assert table[c, row - 4].tolist() == pairs[:5]


def test_a_number_depends_on_its_address_alone():
    whole = Stream.of(3, chains=4, replicates=2).uniforms(5, Site.W, range(10), 6)
    part = Stream.of(3, chains=[2], replicates=[1]).uniforms(5, Site.W, range(7, 9), 3)
    assert torch.equal(whole[4 + 2, 7:9, :3], part[0])


def test_uniforms_are_uniform_and_addresses_independent():
    stream = Stream.of(0, chains=2)
    u = torch.stack([stream.uniforms(step, site, range(50), 21) for step in (0, 1) for site in (Site.W, Site.H)])
    assert 0 < float(u.min()) and float(u.max()) < 1
    assert kstest(u.flatten().numpy(), "uniform").pvalue > 1e-4
    columns = u.flatten(0, 2)
    correlation = np.corrcoef(columns.numpy().T) - np.eye(21)
    assert np.abs(correlation).max() < 5 / len(columns) ** 0.5
    assert len(u.unique()) == u.numel()


@pytest.mark.parametrize("seed", [-1, 1.5, "a", True])
def test_a_bad_seed_is_refused(seed):
    with pytest.raises(ValueError, match="seed is"):
        Stream.of(seed)


def test_forked_leaves_the_global_generators_as_found():
    before = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    with forked(5):
        first = torch.rand(3), np.random.rand(), random.random()
    with forked(5):
        assert torch.equal(first[0], torch.rand(3)) and first[1:] == (np.random.rand(), random.random())
    assert random.getstate() == before[0] and (np.random.get_state()[1] == before[1]).all()
    assert torch.equal(torch.get_rng_state(), before[2])
