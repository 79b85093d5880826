"""The page about a posterior."""

import base64
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import ppnmf
from ppnmf.cli import app
from ppnmf.report import page
from tests import browser

VOID = {"meta", "img", "br"}
EVIL = "<script>alert('gene')</script>"


class Read(HTMLParser):
    """The tags, the text and the pictures; it refuses what is not closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.text, self.pictures = [], [], [], []
        self.feed(text)
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "img":
            self.pictures.append(dict(attrs))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def data():
    generator = np.random.default_rng(0)
    X = generator.exponential(1, (30, 3)) @ generator.exponential(1, (3, 8)) + np.abs(generator.normal(0, 0.1, (30, 8)))
    X[2, 3] = np.nan
    return pd.DataFrame(X, columns=[EVIL, *(f"gene {j}" for j in range(7))])


@pytest.fixture(scope="module")
def post():
    options = {"rank": 3, "missing": "nan", "draws": 60, "warmup": 60, "chains": 2, "seed": 0, "progress": False}
    return ppnmf.fit("exponential_gaussian", data(), **options)


@pytest.fixture(scope="module")
def read(post):
    return Read(page(post))


def test_nothing_is_fetched_and_nothing_runs(read):
    assert not [tag for tag, _ in read.tags if tag in ("script", "link", "iframe", "object")]
    links = [value for _, attrs in read.tags for name, value in attrs.items() if name in ("src", "href")]
    assert links and all(link.startswith("data:image/png;base64,") for link in links)
    for link in links:
        assert base64.b64decode(link.split(",")[1]).startswith(b"\x89PNG")


def test_names_are_text_and_pictures_have_words(read):
    text = "".join(read.text)
    assert EVIL in text and "gene 3" in text
    assert len(read.pictures) >= 2 and all(len(picture["alt"]) > 20 for picture in read.pictures)


def test_it_fits_any_screen(read):
    style = "".join(read.text)
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in read.tags
    assert "prefers-color-scheme: dark" in style and "max-width: 100%" in style and "overflow-x: auto" in style


def test_it_says_what_is_known(post, read):
    text = "".join(read.text)
    assert ppnmf.summary(post).sentence in text and "30 × 8" in text
    assert "missing cells" in text and "congruence" in text and "ppnmf.fit(model, X, method='gibbs'" in text
    found, X = post.interval(), data().to_numpy()
    inside = (found.lower <= X) & (found.upper >= X)
    assert f"predictive bounds\n{inside[~np.isnan(X)].mean():.1%}" in "\n".join(read.text)


@pytest.mark.parametrize("agree,kind", [(True, "good"), (False, "bad")])
def test_a_run_that_did_not_mix_looks_bad(post, agree, kind):
    draws, stats = dict(post.draws), dict(post.stats)
    if agree:
        at = np.random.default_rng(0).integers(0, 60, (2, 800))  # independent draws of one chain
        draws = {site: values[0][at] for site, values in draws.items()}
        stats = {"lp": stats["lp"][0][at]}
    else:
        draws["W"] = draws["W"].clone()
        draws["W"][1] *= 3
    changed = Read(page(replace(post, draws=draws, stats=stats)))
    verdicts = [attrs["class"] for tag, attrs in changed.tags if attrs.get("class", "").startswith("verdict")]
    assert verdicts == [f"verdict {kind}"]


def test_of_modes_and_of_an_autoencoder_there_is_a_page_too():
    X = np.abs(data().to_numpy())[3:]
    for options in ({"method": "icm", "restarts": 2}, {"method": "svi", "steps": 30, "draws": 40}):
        model = ppnmf.models.PAENMF(2) if options["method"] == "svi" else ppnmf.models.ExponentialGaussian(2)
        assert "Components" in "".join(Read(page(ppnmf.fit(model, X, seed=0, progress=False, **options))).text)


def test_a_notebook_shows_the_verdict_and_the_components(post):
    shown = Read(post._repr_html_())
    assert ppnmf.summary(post).sentence in "".join(shown.text)
    assert len(shown.pictures) == 1 and EVIL in shown.pictures[0]["alt"]
    of_some = replace(post, draws={"W": post["W"], "sigma2": post["sigma2"]})
    assert not Read(of_some._repr_html_()).pictures


def test_the_command_writes_it(post, tmp_path):
    post.save(tmp_path / "fit.nc")
    done = CliRunner().invoke(app, ["report", str(tmp_path / "fit.nc")])
    assert done.exit_code == 0, done.output
    assert "verdict" in (tmp_path / "fit.html").read_text()
    assert CliRunner().invoke(app, ["report", str(tmp_path / "nothing.nc")]).exit_code == 2


@pytest.mark.skipif(browser.BROWSER is None, reason="no browser here")
def test_a_browser_shows_it_without_scrolling_sideways(post, read, tmp_path):
    (tmp_path / "page.html").write_text(page(post))
    found, errors = browser.looked_at(tmp_path, ["page.html"])
    assert len(found) == 2 and all(one["wide"] <= one["there"] for one in found)
    assert not [one for one in found if one["broken"] or one["silent"]] and errors == []


@pytest.mark.skipif(browser.BROWSER is None, reason="no browser here")
def test_the_browser_sees_what_is_wrong_with_a_page(tmp_path):
    (tmp_path / "bad.html").write_text(
        "<div style='width: 700px; height: 1px'>wide</div><img src='data:image/png;base64,AAAA'><script>throw Error('no')</script>"
    )
    found, errors = browser.looked_at(tmp_path, ["bad.html"])
    assert [one["wide"] > one["there"] for one in found] == [True, False]
    assert all(one["broken"] and one["silent"] for one in found) and any("Error: no" in line for line in errors)
