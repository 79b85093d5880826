"""Compiled functions are called by their address, and each is compiled once for each precision."""

import os
import subprocess
import sys

import numpy as np
import pytest
from numba import njit, types
from numba.core.errors import NumbaError

from ppnmf.kernels.lanes import COMPILED
from ppnmf.kernels.parts import address_of, called_by_address

UNCACHED = {**COMPILED, "cache": False}


def signature_for(real):
    return types.float64(types.Array(real, 1, "C"), types.UniTuple(types.int64, 2), types.boolean, real)


call = called_by_address(signature_for)


@njit(**UNCACHED)
def part(F, rows, negative, c):
    total = 0.0
    for i in range(rows[0], rows[1]):
        F[i] *= c
        total += F[i]
    return -total if negative else total


@njit(**UNCACHED)
def caller(address, F, lo, negative):
    return call(address, (F, (lo, len(F)), negative, 2))


@njit(**UNCACHED)
def wrong_caller(address, F):
    return call(address, (F, F, True, 2))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("negative", [True, False])
def test_a_part_is_called_with_what_its_caller_has(dtype, negative):
    F = np.arange(5, dtype=dtype)
    address = address_of(part, signature_for, np.dtype(dtype))
    assert caller(address, F, 3, negative) == (-14.0 if negative else 14.0)
    assert F.tolist() == [0, 1, 2, 6, 8]
    assert part(np.arange(5, dtype=dtype), (3, 5), negative, dtype(2)) == (-14.0 if negative else 14.0)
    assert len(part.signatures) == len({str(signature) for signature in part.signatures}) <= 2


def test_a_part_is_not_called_with_other_types():
    address = address_of(part, signature_for, np.dtype(float))
    with pytest.raises((NumbaError, NotImplementedError)):
        wrong_caller(address, np.ones(5))


VARIANTS = """
import numpy as np, ppnmf, scipy.sparse, warnings
from numba.core.dispatcher import Dispatcher
from ppnmf.kernels import grams
from ppnmf.kernels import ascent, csr, scaled
from ppnmf.kernels.cpu import normal, positive, ridge, rows, sweeps, uniforms
warnings.simplefilter("ignore")
X = np.random.default_rng(0).gamma(1.0, size=(60, 4)) @ np.random.default_rng(1).gamma(1.0, size=(4, 15))
few = {"draws": 2, "warmup": 2, "chains": 2, "progress": False, "init": "scaled"}
for rate in (1.0, np.full((60, 3), 2.0)):
    model = ppnmf.models.ExponentialGaussian(3, rate)
    ppnmf.fit(model, X, **few)
    ppnmf.fit(model, X, mask=X > 0.5, **few)
    ppnmf.fit(model, scipy.sparse.csr_array(X), **few)
    ppnmf.fit(model, X, method="icm", restarts=2, max_sweeps=5, progress=False)
for module in (ascent, csr, grams, normal, positive, ridge, rows, scaled, sweeps, uniforms):
    for name, function in vars(module).items():
        if isinstance(function, Dispatcher) and len(function.signatures) > 1:
            print(module.__name__, name, *function.signatures, sep="\\n  ")
"""


def test_every_compiled_function_has_one_variant_whatever_the_method_and_the_data():
    done = subprocess.run([sys.executable, "-c", VARIANTS], env=os.environ, capture_output=True, text=True, check=True)
    assert done.stdout == ""
