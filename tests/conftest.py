"""Where tests run (`--device`, `--dtype`), and the real data they may read."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from ppnmf.diagnostics import calibration

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs, and theirs, ignore Ctrl-C


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", default="cpu", help="device of the device-generic tests")
    parser.addoption("--dtype", default="float64", help="their floating type")


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> torch.device:
    return torch.device(request.config.getoption("--device"))


@pytest.fixture(scope="session")
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return getattr(torch, request.config.getoption("--dtype"))


@pytest.fixture(scope="session")
def real_data():
    """A function: path in the data folder -> its NumPy archive; skips where there is none, unless told to fail."""
    folder = os.environ.get("PPNMF_DATA", "")

    def load(path: str):
        if folder and (Path(folder) / path).exists():
            return np.load(Path(folder) / path)
        message = f"{path} is needed: set PPNMF_DATA to the folder that holds it"
        if os.environ.get("PPNMF_REQUIRE_DATA"):
            pytest.fail(message)
        return pytest.skip(message)

    return load


@pytest.fixture(autouse=True)
def fewer_independent_draws(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Geweke's short chains, worth a few thousand draws, are held against 25 000 of the joint distribution, not 100 000."""
    if request.node.get_closest_marker("slow") is None:
        monkeypatch.setattr(calibration, "REFERENCE", 25_000)
