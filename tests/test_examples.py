"""Every example runs."""

from pathlib import Path

import pytest

from tests.scripts import ran

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_answers_its_question_quickly(path, tmp_path):
    assert path.read_text().split("\n\n")[0].removeprefix('"""').rstrip('"').strip().endswith("?"), (
        "its first line asks"
    )
    done = ran(path, "--quick", folder=tmp_path, seconds=300, MPLBACKEND="agg")
    assert done.returncode == 0, done.stderr
    assert done.stdout
