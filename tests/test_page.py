"""The page about a posterior."""

import base64
from dataclasses import replace
from html.parser import HTMLParser
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest
from markdown_it import MarkdownIt
from typer.testing import CliRunner

import ppnmf
from ppnmf.cli import app
from ppnmf.evidence.estimate import Evidence
from ppnmf.evidence.table import RankTable
from ppnmf.report import page, write_page
from tests import browser

VOID = {"meta", "img", "br"}
EVIL = "<script>alert('gene')</script>"
WILD = r"a|b [c](d) _e_ `f` **g** &lt; \.h #i ~~j~~"


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

    @property
    def words(self):
        """What a reader sees, whatever it is laid out as."""
        return " ".join(self.text).split()


def as_shown(path):
    """Markdown as GitHub shows it, but that HTML in it would run."""
    return Read(MarkdownIt("commonmark", {"html": True, "xhtmlOut": False}).enable("table").render(path.read_text()))


def body(text):
    """A page without its head."""
    return Read(text[text.index("<body>") : text.index("</html>")])


def data():
    generator = np.random.default_rng(0)
    X = generator.exponential(1, (30, 3)) @ generator.exponential(1, (3, 8)) + np.abs(generator.normal(0, 0.1, (30, 8)))
    X[2, 3] = np.nan
    return pd.DataFrame(X, columns=[EVIL, WILD, *(f"gene {j}" for j in range(6))])


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
    assert "missing cells" in text and "congruence" in text
    assert "ppnmf.fit('exponential_gaussian', X, rank=3, method='gibbs'" in text
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


def test_a_mode_has_no_bounds_and_no_chains():
    X = np.abs(data().to_numpy())[3:]
    text = "".join(
        Read(page(ppnmf.fit("exponential_gaussian", X, rank=2, method="icm", restarts=2, progress=False))).text
    )
    assert "nan" not in text and "Bounds hold" not in text and "chains agree" not in text and "congruence" not in text


@pytest.mark.parametrize("method", ["gibbs", "icm", "vb"])
def test_the_lines_on_the_page_make_the_fit_again(method):
    X = np.abs(data().to_numpy())
    own = {"gibbs": {"draws": 5, "warmup": 5, "chains": 1}, "icm": {"restarts": 2}, "vb": {"draws": 5}}[method]
    model = ppnmf.models.ExponentialGaussian(2, rate_W=0.7)
    post = ppnmf.fit(model, X, method=method, missing="nan", seed=3, progress=False, **own)
    text = "".join(Read(page(post)).text)
    lines = text[text.index("# ppnmf") :].split("\nIt took")[0]
    known = {"ppnmf": ppnmf, "X": X, "ExponentialGaussian": ppnmf.models.ExponentialGaussian}
    exec(lines, known)
    assert np.array_equal(known["post"]["H"], post["H"])


def test_errors_are_in_the_units_of_X_and_known_entries_are_counted():
    X, H = np.abs(data().to_numpy())[3:], np.full((1, 8), np.nan)
    H[0, :2] = 0.5
    options = {"noise": np.linspace(1, 25, 8), "fixed": {"H": H}, "method": "icm", "restarts": 1, "progress": False}
    post = ppnmf.fit("exponential_gaussian", X, rank=2, **options)
    error = np.sqrt(((X - post.reconstruction().numpy()) ** 2).mean())
    text = "".join(Read(page(post)).text)
    assert f"{error:.4g}" in text and "2, held as they are" in text


def test_a_page_about_labelled_rows_is_about_X():
    X = np.abs(data().to_numpy())[3:]
    labels = ["left", "right", None] * 9
    options = {"labels": labels, "draws": 4, "warmup": 4, "chains": 1, "survey": 0, "progress": False}
    post = ppnmf.fit("semi_supervised", X, rank=2, **options)
    text = "".join(Read(page(post)).text)
    assert "27 × 8" in text and "of 18 of the 27 rows: left, right" in text and f"{X.mean():.4g}" in text
    assert post.components().columns[-3:] == ["7", "left", "right"] and post.imputed().columns[:2] == ["left", "right"]


def test_a_notebook_shows_the_verdict_and_the_components(post):
    shown = Read(post._repr_html_())
    assert ppnmf.summary(post).sentence in "".join(shown.text)
    assert len(shown.pictures) == 1 and EVIL in shown.pictures[0]["alt"]
    of_some = replace(post, draws={"W": post["W"], "sigma2": post["sigma2"]})
    assert not Read(of_some._repr_html_()).pictures


@pytest.mark.parametrize("firm", [True, False])
def test_a_notebook_shows_a_table_of_ranks(firm):
    table = chosen(FIRM) if firm else troubled()
    html = table._repr_html_()
    shown = Read(html)
    assert len(shown.pictures) == 1 and " ".join(table.verdict().split()) in " ".join(shown.words)
    assert ("#0a7a4b" in html) == firm and ("#b3261e" in html) != firm
    assert "select_rank" not in html


def test_the_command_writes_it(post, tmp_path):
    post.save(tmp_path / "fit.nc")
    done = CliRunner().invoke(app, ["report", str(tmp_path / "fit.nc")])
    assert done.exit_code == 0, done.output
    assert "verdict" in (tmp_path / "fit.html").read_text()
    assert CliRunner().invoke(app, ["report", str(tmp_path / "nothing.nc")]).exit_code == 2


def compared(post):
    """A table in which one fit is left out."""
    return ppnmf.compare({"gibbs": post, "pae": f"{EVIL} was negative"}, data())


def test_the_page_about_a_comparison_says_of_each_fit_whether_to_trust_it(post):
    table = compared(post)
    for html in (page(table), table._repr_html_()):
        words = " ".join(Read(html).words)
        for sentence in (ppnmf.summary(post).sentence, f"pae: left out: {EVIL} was negative", *table.notes):
            assert " ".join(sentence.split()) in words
        assert "method seconds error hidden error" in words and "<script>" not in html


def evidence(rank, value, **facts):
    """An estimate, made by hand: its noise scale hangs on nothing unless told."""
    known = {"method": "chib", "priors": {EVIL: 1.0}, "seconds": 1.0, "mcse": 0.2, "replicates": (value, value)}
    return Evidence(log_evidence=value, rank=rank, **(known | facts))


def chosen(values, failed=None, other=None, **facts):
    """A table of chib's evidence by rank, made by hand; and of smc's."""
    scores = {"chib": {rank: evidence(rank, value) for rank, value in values.items()}}
    if other:
        scores["smc"] = {rank: evidence(rank, value, method="smc") for rank, value in other.items()}
    reasons = {method: {} for method in scores} | {"chib": failed or {}}
    return RankTable(scores=scores, failed=reasons, shape=(30, 8), seed=7, seconds=12.0, **facts)


FIRM = {1: -120.0, 2: -90.0, 3: -105.0}
BROKEN = evidence(4, -40.0, failed="its replicates lie 63 nats apart", warnings=("few sweeps",))


def troubled():
    """A table with all that can go wrong: an impossible estimate, and one that never came."""
    table = chosen(FIRM, {5: f"{EVIL} | *no* memory"}, other={1: -121.0, 2: -90.0})
    return replace(table, scores={**table.scores, "chib": {**table.scores["chib"], 4: BROKEN}})


def test_the_page_about_a_rank_holds_the_scores_and_what_was_said_of_them():
    table = troubled()
    read = Read(page(table))
    words = " ".join(read.words)
    for sentence in str(table).splitlines()[1 + len(table.ranks) :]:
        assert " ".join(sentence.split()) in words
    assert "1 -120 0.2 -121 0.2" in words and "2 (best) -90 0.2 -90 0.2" in words and "seed=7" in words
    (curve,) = read.pictures
    assert "2: -90" in curve["alt"] and "4: -40" not in curve["alt"]
    assert not [tag for tag, _ in read.tags if tag in ("script", "link", "iframe", "object")]


def test_ranks_that_failed_are_red():
    read = page(troubled())
    alarms = read.split('<span class="alarm">')[1:]
    red = [Read(f"<span>{alarm.split('</span>')[0]}</span>").text[0] for alarm in alarms]
    assert red.count("failed") == 2 and len(red) == 4
    assert any("rank 4 by chib has failed" in words for words in red)
    assert f"Rank 5 failed by chib: {EVIL} | *no* memory" in red
    assert '<span class="alarm">' not in page(chosen(FIRM))


DOUBTED = {**chosen(FIRM).scores["chib"], 3: evidence(3, -105.0, warnings=("few draws",))}
OTHER_RATES = {"chib": {2.0: {2: evidence(2, -99.0), 3: evidence(3, -95.0)}}}


@pytest.mark.parametrize(
    "table,kind,words",
    [
        (chosen(FIRM), "good", "Rank 2, firmly."),
        (chosen({1: -120.0, 2: -90.0, 3: -90.5}), "open", "Rank 2, not firmly."),
        (chosen({1: -120.0, 2: -90.0}), "open", "Rank 2, at the edge of what was tried."),
        (chosen(FIRM, {4: "no memory"}), "open", "Rank 2, but 4 could not be tried."),
        (chosen(FIRM, sensitivity=OTHER_RATES), "open", "Rank 2, but other priors would choose 3."),
        (replace(chosen(FIRM), scores={"chib": DOUBTED}), "open", "Rank 2, but there are doubts about 3."),
        (chosen(FIRM, interrupted=True), "bad", "Rank 2 so far: not all ranks were done."),
        (troubled(), "bad", "Rank 2, but estimates of others have failed."),
        (replace(chosen(FIRM), scores={"chib": {4: BROKEN}}), "bad", "No rank can be chosen."),
        (replace(chosen(FIRM), scores={"chib": {}}), "bad", "No rank can be chosen."),
    ],
)
def test_the_colour_says_how_firm_a_rank_is(table, kind, words):
    read = Read(page(table))
    verdicts = [attrs["class"] for tag, attrs in read.tags if attrs.get("class", "").startswith("verdict")]
    assert verdicts == [f"verdict {kind}"] and words in read.text


@pytest.mark.parametrize("name", ["fit", "rank", "compare"])
def test_markdown_says_what_the_page_says(post, tmp_path, name):
    about = {"fit": post, "rank": troubled(), "compare": compared(post)}[name]
    shown = as_shown(write_page(about, tmp_path / f"my {name}.md"))
    assert [word for word in shown.words if word != "❌"] == body(page(about)).words
    assert not [tag for tag, _ in shown.tags if tag == "script"]
    there = Read(page(about)).pictures
    assert [picture["alt"] for picture in shown.pictures] == [picture["alt"] for picture in there]
    for mine, other in zip(shown.pictures, there, strict=True):
        assert mine["src"].startswith(f"my%20{name}_files/")
        assert (tmp_path / unquote(mine["src"])).read_bytes() == base64.b64decode(other["src"].split(",")[1])


def test_the_suffix_decides(post, tmp_path):
    post.save(tmp_path / "fit.nc")
    done = CliRunner().invoke(app, ["report", str(tmp_path / "fit.nc"), "--out", str(tmp_path / "fit.md")])
    assert done.exit_code == 0 and (tmp_path / "fit.md").read_text().startswith(
        "# exponential_gaussian by gibbs, rank 3\n"
    )
    assert (tmp_path / "fit_files" / "components.png").is_file() and not (tmp_path / "fit.html").exists()
    refused = CliRunner().invoke(app, ["report", str(tmp_path / "fit.nc"), "--out", str(tmp_path / "fit.pdf")])
    assert refused.exit_code == 2 and "let it end in .html, or in .md" in refused.stderr
    (tmp_path / "other_files").write_text("in the way")
    refused = CliRunner().invoke(app, ["report", str(tmp_path / "fit.nc"), "--out", str(tmp_path / "other.md")])
    assert refused.exit_code == 2 and "other_files cannot be written" in refused.stderr


@pytest.mark.skipif(browser.BROWSER is None, reason="no browser here")
def test_a_browser_shows_it_without_scrolling_sideways(post, read, tmp_path):
    (tmp_path / "page.html").write_text(page(post))
    (tmp_path / "rank.html").write_text(page(troubled()))
    (tmp_path / "compare.html").write_text(page(compared(post)))
    found, errors = browser.looked_at(tmp_path, ["page.html", "rank.html", "compare.html"])
    assert len(found) == 6 and all(one["wide"] <= one["there"] for one in found)
    assert not [one for one in found if one["broken"] or one["silent"]] and errors == []


@pytest.mark.skipif(browser.BROWSER is None, reason="no browser here")
def test_the_browser_sees_what_is_wrong_with_a_page(tmp_path):
    (tmp_path / "bad.html").write_text(
        "<div style='width: 700px; height: 1px'>wide</div><img src='data:image/png;base64,AAAA'><script>throw Error('no')</script>"
    )
    found, errors = browser.looked_at(tmp_path, ["bad.html"])
    assert [one["wide"] > one["there"] for one in found] == [True, False]
    assert all(one["broken"] and one["silent"] for one in found) and any("Error: no" in line for line in errors)
