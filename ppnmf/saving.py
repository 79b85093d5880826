"""Posteriors on disk: a NetCDF file that ArviZ opens too."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ppnmf.arviz import as_numpy
from ppnmf.data.saved import facts_and_arrays, restored
from ppnmf.models import REGISTRY

if TYPE_CHECKING:
    import xarray

    from ppnmf.posterior import Posterior

__all__ = ["read", "write"]


def write(post: Posterior, path: str | Path, names: dict[str, Sequence[str] | None]) -> Path:
    """What `Posterior.save` does."""
    tree = post.to_datatree(**names)  # type: ignore[arg-type]
    told = {axis: list(map(str, given)) for axis, given in names.items() if given is not None}
    facts = {
        "model": post.model.name,
        "method": post.method,
        "seed": post.seed,
        "timings": post.timings,
        "attrs": post.attrs,
        "names": post.names | told,
    }
    config, arrays = {}, {}
    for name, value in post.model.config().items():
        if isinstance(value, Tensor):
            arrays[f"config.{name}"] = value
        else:
            config[name] = value
    if isinstance(post.model, torch.nn.Module):
        arrays |= {f"state.{name}": value for name, value in post.model.state_dict().items()}
    about_X, parts_of_X = facts_and_arrays(post.X)
    if about_X["kind"] != "dense":
        for group in ("observed_data", "constant_data"):
            if group in tree.children:
                del tree[group]
    tree.attrs["ppnmf"] = json.dumps({**facts, "config": config, "X": about_X})
    tree["ppnmf_model"] = _dataset(arrays)
    tree["ppnmf_data"] = _dataset(parts_of_X)
    path = Path(path)
    tree.to_netcdf(path, engine="h5netcdf")
    return path


def read(path: str | Path) -> dict[str, Any]:
    """The fields of the `Posterior` that `write` wrote. Raises ValueError when the file is not one of ours."""
    import xarray as xr

    with xr.open_datatree(path, engine="h5netcdf") as tree:
        if "ppnmf" not in tree.attrs:
            raise ValueError(f"{path} holds no ppnmf posterior; files written by Posterior.save do")
        facts = json.loads(tree.attrs["ppnmf"])
        sites = {str(k): _tensor(v) for k, v in tree["posterior"].data_vars.items()}
        stats = {str(k): _tensor(v) for k, v in tree["sample_stats"].data_vars.items()}
        arrays = {str(k): _tensor(v) for k, v in tree["ppnmf_model"].data_vars.items()}
        parts = {str(k): _tensor(v) for k, v in tree["ppnmf_data"].data_vars.items()} if "ppnmf_data" in tree else {}
        about_X = facts.get("X", {"kind": "dense"})
        if about_X["kind"] == "dense":
            parts |= {"values": _tensor(tree["observed_data"]["X"]), "mask": _tensor(tree["constant_data"]["mask"])}
    config = facts["config"] | {k[len("config.") :]: v for k, v in arrays.items() if k.startswith("config.")}
    config = {name: tuple(value) if isinstance(value, list) else value for name, value in config.items()}
    state = {k[len("state.") :]: v for k, v in arrays.items() if k.startswith("state.")}
    model = REGISTRY[facts["model"]](**config)
    if isinstance(model, torch.nn.Module):
        model.load_state_dict(state)
    X = restored(about_X, parts)
    rest = {name: facts[name] for name in ("method", "seed", "timings", "attrs", "names")}
    return {"draws": sites, "stats": stats, "model": model, "X": X, **rest}


def _tensor(values: Any) -> Tensor:
    return torch.from_numpy(np.array(values.values))


def _dataset(arrays: dict[str, Tensor]) -> xarray.Dataset:
    import xarray as xr

    return xr.Dataset({name: ([f"{name}_{axis}" for axis in range(a.ndim)], as_numpy(a)) for name, a in arrays.items()})
