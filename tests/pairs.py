"""Which model goes with which method and evidence, as the README shows it: `python -m tests.pairs` prints the table."""

from ppnmf.inference import METHODS, methods_of
from ppnmf.models import REGISTRY
from ppnmf.protocols import Amortised, Blocked, Stepping, Sweeping, Variational

EVIDENCE = {
    "Stepping-stone": (Stepping,),
    "Chib": (Blocked,),
    "SMC": (Sweeping,),
    "ELBO": (Amortised, Variational),
}  # and the abilities of which one will do


def table() -> str:
    """A row a model, a column a method or kind of evidence."""
    columns = [f"`{method}`" for method in METHODS] + [f"{name} evidence" for name in EVIDENCE]
    lines = ["| | " + " | ".join(columns) + " |", "| --- |" + " :-: |" * len(columns)]
    for name, kind in REGISTRY.items():
        model = kind(rank=1)
        fits = [method in methods_of(model) for method in METHODS]
        scores = [isinstance(model, abilities) for abilities in EVIDENCE.values()]
        lines.append(f"| `{name}` | " + " | ".join("x" if own else "" for own in fits + scores) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())  # noqa: T201
