"""The documentation builds, without a network, and every warning is an error."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_the_pages_build(tmp_path):
    pytest.importorskip("sphinx")
    away = {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
    command = [sys.executable, "-m", "sphinx", "--fail-on-warning", "--quiet", "docs", str(tmp_path / "html")]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | away, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    pages = {path.stem for path in (tmp_path / "html" / "models").glob("*.html")}
    assert pages >= {card.parent.name for card in (ROOT / "models").glob("*/README.md")}
