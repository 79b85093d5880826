"""Bars are seen in a terminal and in a notebook, and nowhere else."""

import io
import sys
from types import SimpleNamespace

import pytest

from ppnmf.progress import bar, shown


def shell(*apps):
    """A stand-in for the module IPython, inside a shell with these apps, or outside any."""
    inside = SimpleNamespace(config=dict.fromkeys(apps)) if apps else None
    return SimpleNamespace(get_ipython=lambda: inside)


@pytest.mark.parametrize(
    ("terminal", "ipython", "seen"),
    [
        (True, None, True),
        (False, None, False),
        (False, shell(), False),
        (False, shell("TerminalIPythonApp"), False),
        (False, shell("IPKernelApp"), True),
    ],
    ids=["terminal", "file", "IPython imported", "IPython's terminal into a file", "notebook"],
)
def test_a_bar_is_shown_where_somebody_looks(terminal, ipython, seen, monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr(screen, "isatty", lambda: terminal, raising=False)
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    assert shown() is seen and not shown(progress=False)
    with bar(3, "sweeps") as ticker:
        ticker.update()
    assert ("sweeps" in screen.getvalue()) is seen
    with bar(3, "quiet", progress=False) as ticker:
        ticker.update()
    assert "quiet" not in screen.getvalue()


def test_what_is_neither_true_nor_false_is_refused():
    with pytest.raises(ValueError, match=r"progress is 'no'; it must be True or False"):
        shown("no")
