"""Which topics are there in some documents, and in which wider topics do they gather?

Documents are drawn: six topics with words of their own, two of which share each of three wider topics' words, among words that
all documents have. Two layers are fitted to the words' frequencies by Neural NMF, once without labels and once with the wider
topics of two documents of five; topics are named by their words. Writes the topic tree and the labels' probabilities as pictures.
Run it with --quick for fewer documents.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import ppnmf

WIDER = {
    "sport": ("team game season player coach score league win", ("hockey", "baseball")),
    "science": ("study data theory result research measure model test", ("space", "medicine")),
    "computers": ("system file program user version code memory disk", ("graphics", "networks")),
}
OWN = {
    "hockey": "ice goal puck playoff goalie wing rangers penguins",
    "baseball": "pitcher inning bat homer catcher braves hitter mets",
    "space": "orbit moon launch shuttle satellite rocket lunar nasa",
    "medicine": "patient disease doctor drug symptom infection dose clinic",
    "graphics": "image pixel polygon render colour gif texture bitmap",
    "networks": "router packet server protocol ethernet port modem client",
}
COMMON = "people time year good day work thing way point question number case week company place group problem fact"
LENGTH = 120  # words of a document
SHARES = (0.35, 0.25)  # of a document's words that are its topic's own, and its wider topic's
SHOWN = 5  # words that name a topic


def drawn(documents: int, seed: int = 0) -> tuple[np.ndarray, list[str], list[str], list[str]]:
    """Word frequencies (words, documents), the words, and each document's topic and wider topic."""
    generator = np.random.default_rng(seed)
    groups = {**OWN, **{wider: words for wider, (words, _) in WIDER.items()}, "common": COMMON}
    words = [word for group in groups.values() for word in group.split()]
    place = {word: number for number, word in enumerate(words)}
    odds = {name: generator.dirichlet(np.full(len(group.split()), 5.0)) for name, group in groups.items()}
    above = {topic: wider for wider, (_, topics) in WIDER.items() for topic in topics}
    X = np.zeros((len(words), documents))
    topics = [list(OWN)[number] for number in generator.integers(len(OWN), size=documents)]
    for document, topic in enumerate(topics):
        counts = generator.multinomial(LENGTH, [*SHARES, 1 - sum(SHARES)])
        for count, name in zip(counts, (topic, above[topic], "common"), strict=True):
            own = [place[word] for word in groups[name].split()]
            X[own, document] += generator.multinomial(count, odds[name])
    return X / LENGTH, words, topics, [above[topic] for topic in topics]


def names(A: np.ndarray, words: list[str], X: np.ndarray) -> list[str]:
    """Each topic by the words that it has more of than documents have on average."""
    share = A / A.sum(0, keepdims=True)
    more = share - X.mean(1, keepdims=True) / X.mean(1).sum()
    return [" ".join(words[word] for word in np.argsort(-more[:, k])[:SHOWN]) for k in range(A.shape[1])]


def show(post: ppnmf.Posterior, words: list[str], X: np.ndarray) -> tuple[list[str], list[str]]:
    """Print which topics gather in which wider one; the names of both."""
    A0, A1 = (post.best().draws[site][0, 0].numpy() for site in ("A0", "A1"))
    below, above = names(A0, words, X), names(A0 @ A1, words, X)
    home = (A1 * post.best().draws["H"][0, 0].sum(-1).numpy()).argmax(1)
    for wider, name in enumerate(above):
        print(f"  {name}")
        for topic in np.flatnonzero(home == wider):
            print(f"      {below[topic]}")
    return below, above


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("topics"))
    options = parser.parse_args()
    X, words, _, truth = drawn(90 if options.quick else 600)
    model = ppnmf.models.Hierarchical(ranks=(7, 3))  # six topics, and the words that all have
    steps = 60 if options.quick else 400
    print(f"{X.shape[1]} documents, {len(words)} words; without labels:")
    alone = ppnmf.fit(model, X, method="neural", steps=steps, progress=False)
    below, above = show(alone, words, X)
    options.out.mkdir(exist_ok=True)
    ppnmf.plots.save(ppnmf.plots.topics(alone, names=below, wider=above), options.out / "topics.png")

    known = np.random.default_rng(1).random(len(truth)) < 0.4
    labels = [wider if seen else None for wider, seen in zip(truth, known, strict=True)]
    post = ppnmf.fit(model, X, method="neural", labels=labels, label_weight=0.1, steps=steps, progress=False)
    print(f"\nwith the wider topics of {known.sum()} documents:")
    show(post, words, X)
    found = ppnmf.predicted_labels(post)
    print(f"\n{1 - found.accuracy(truth):.1%} of the other documents are put into a wrong wider topic")
    ppnmf.plots.save(ppnmf.plots.labels(found), options.out / "labels.png")
    print(f"pictures: {options.out / 'topics.png'}, {options.out / 'labels.png'}")


if __name__ == "__main__":
    main()
