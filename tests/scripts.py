"""Scripts run in processes of their own that need not import the libraries anew."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import sys
from pathlib import Path
from typing import NamedTuple

import torch

# The processes are forks of one that has imported these and has done nothing else: an import of all takes seconds
LIBRARIES = ["ppnmf.inference.gibbs", "ppnmf.evidence.rank", "ppnmf.plots", "ppnmf.report", "sklearn.decomposition"]
METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"


class Done(NamedTuple):
    """How a script ended, and what it printed."""

    returncode: int | None
    stdout: str
    stderr: str


def ran(script: Path, *arguments: str, folder: Path, seconds: float, **environment: str) -> Done:
    """Run `python script arguments` in a folder, on one thread; after so many seconds it is ended, with -9."""
    processes = multiprocessing.get_context(METHOD)
    if METHOD == "forkserver":
        processes.set_forkserver_preload(LIBRARIES)
    said = folder / "stdout", folder / "stderr"
    process = processes.Process(target=_run, args=(script, arguments, folder, environment, said))
    process.start()
    process.join(seconds)
    process.kill()
    process.join()
    return Done(process.exitcode, *(path.read_text() for path in said))


def _run(
    script: Path, arguments: tuple[str, ...], folder: Path, environment: dict[str, str], said: tuple[Path, Path]
) -> None:
    for stream, path in zip((1, 2), said, strict=True):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), stream)
    os.chdir(folder)
    os.environ.update(environment)
    torch.set_num_threads(1)
    sys.argv = [str(script), *arguments]
    sys.path[0] = str(script.parent)
    runpy.run_path(str(script), run_name="__main__")
