"""The documentation builds, without a network, and every warning is an error."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import browser

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("sphinx")
    place = tmp_path_factory.mktemp("site") / "html"
    away = {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
    command = [sys.executable, "-m", "sphinx", "--fail-on-warning", "--quiet", "docs", str(place)]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | away, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return place


def test_the_pages_build(site):
    pages = {path.stem for path in (site / "models").glob("*.html")}
    assert pages >= {card.parent.name for card in (ROOT / "models").glob("*/README.md")}


@pytest.mark.skipif(browser.BROWSER is None, reason="no browser here")
def test_no_page_scrolls_sideways_lacks_a_picture_or_has_an_error(site):
    pages = sorted(str(path.relative_to(site)) for path in site.rglob("*.html") if "_" not in path.parts[0])
    assert len(pages) > 20
    found, errors = browser.looked_at(site, pages)
    assert len(found) == 2 * len(pages)
    assert [one for one in found if one["wide"] > one["there"] or one["broken"]] == []
    ours = [
        line for line in errors if "ERR_" not in line and "Failed to load resource" not in line
    ]  # mathematics comes by the network
    assert ours == []
