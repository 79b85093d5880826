"""The house in one picture, from the layers that the tests keep: `python -m tests.rooms` writes docs/house.svg."""

from pathlib import Path
from xml.sax.saxutils import escape

from tests.test_layers import LAYERS

PLACE = Path(__file__).parents[1] / "docs" / "house.svg"
WORDS = [  # of each layer, the lowest first
    "numbers, randomness, disks",
    "what a prior is",
    "X by blocks; hot loops",
    "kinds of likelihood",
    "generative stories",
    "draws, and what is read from them",
    "from a model and X to a posterior",
    "whether to believe it",
    "what people see",
]
WIDTH, LEFT, ROW, GAP, ROOM = (
    900,
    250,
    30,
    6,
    12,
)  # pixels: the page, where rooms begin, their height, between, at the edge
CHARACTER = 7.2
INK, WALL, FLOOR = "#1b1b1b", "#8fb8d6", "#eef4f9"


def shelves(names: list[str]) -> list[list[tuple[str, float, float]]]:
    """Rooms (name, left, width) of a layer in as many lines as they take."""
    lines: list[list[tuple[str, float, float]]] = [[]]
    x = float(LEFT)
    for name in names:
        width = CHARACTER * len(name) + 14
        if x + width > WIDTH - ROOM and lines[-1]:
            lines.append([])
            x = float(LEFT)
        lines[-1].append((name, x, width))
        x += width + GAP
    return lines


def floor(top: float, words: str, names: list[str]) -> tuple[str, float]:
    """A layer as SVG, and where it ends."""
    lines = shelves(names)
    height = len(lines) * (ROW + GAP) + GAP
    parts = [
        f'<rect x="{ROOM}" y="{top:g}" width="{WIDTH - 2 * ROOM}" height="{height}" rx="6" fill="{FLOOR}"/>',
        f'<text x="{2 * ROOM}" y="{top + height / 2 + 5:g}" font-weight="bold">{escape(words)}</text>',
    ]
    for number, line in enumerate(lines):
        y = top + GAP + number * (ROW + GAP)
        for name, x, width in line:
            parts.append(
                f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{ROW}" rx="4" fill="white" stroke="{WALL}"/>'
                f'<text x="{x + width / 2:g}" y="{y + 20:g}" text-anchor="middle" font-family="monospace">{escape(name)}</text>'
            )
    return "\n".join(parts), top + height + GAP


def picture() -> str:
    """The whole house, the roof first."""
    top = 40.0
    floors = []
    for words, names in zip(reversed(WORDS), reversed(LAYERS), strict=True):
        drawn, top = floor(top, words, sorted(names))
        floors.append(drawn)
    height = top + ROOM
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" font-family="sans-serif" font-size="13" '
        f'fill="{INK}" role="img" aria-label="The modules of ppnmf in layers; each imports from its own layer and those below">\n'
        f'<rect width="{WIDTH}" height="{height:g}" fill="white"/>\n'
        f'<text x="{2 * ROOM}" y="25">Each module imports from its own layer and from those below it, never from above.</text>\n'
        + "\n".join(floors)
        + "\n</svg>\n"
    )


if __name__ == "__main__":
    PLACE.write_text(picture())
