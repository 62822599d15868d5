"""Makes kilt_grades.jsonl.gz: odd answers and pages, with what KILT's own script gives each.

    python make_kilt_grades.py CLONE_OF_KILT | gzip -n9 > kilt_grades.jsonl.gz

The clone is of github.com/facebookresearch/KILT at 2664322; its modules import rouge (1.0.1 here) and nltk. The tests
need neither: they read what came of it. A row has `output` (gold), `answer` and `pages` (predicted), and KILT's figures
in the order of KILT and RETRIEVAL below; `kilt` is null where its script fails, for want of a gold.
"""

from __future__ import annotations

import json
import random
import sys
from typing import Any

NUM_ROWS = 2000
KILT = ("accuracy", "em", "f1", "rougel", "KILT-accuracy", "KILT-em", "KILT-f1", "KILT-rougel")
RETRIEVAL = ("Rprec", "recall@2", "recall@5", "recall@10", "recall@20")
WORDS = [
    "the", "a", "an", "The", "An", "A", "THE", "Paris", "paris", "PARIS", "U.S.A.", "u.s.", "usa", "don't",
    "dont", "a.b", "the-end", "theatre", "an-", "-a", "_the_", "1,000", "1000", "2½", "½", "½-a",
    "stra\u00dfe", "STRASSE", "\u0130stanbul", "istanbul", "i\u0307stanbul", "\ufb01eld", "field",
    "caf\u00e9", "cafe\u0301", "CAF\u00c9", "\u201cquoted\u201d", "\u2019s", "\u6771\u4eac",
    "\u0e44\u0e17\u0e22", "\u03a3\u03af\u03c3\u03c5\u03c6\u03bf\u03c2", "c++", "C", ".", "...", "!", "?!",
    "&", "\u2026", "\u2014", "\u00e0", "\u0430", "a\u0301", "x", "y", "z", "July", "1886", "July 1886",
    "\U0001f600", "\u200ba", "\ufeff", "e.g.", "First.", "second.", "It is so.", "so it is.", "$5", "5$",
    "<a>", "a/the", "#", "\u00ad",
]
SPACES = [" ", " ", " ", " ", "  ", "\t", "\n", "\u00a0", "\u2003", "\u3000", "\x1c", "\x85", " \r\n", "\u200b", ""]
BLANKS = ["", " ", "\t\n", "\u00a0", "\u3000 ", "\x1f"]
PAGES = ["1", "2", "3", "4", "5", "6", "7", "70", "a", "B"]


def text(chance: random.Random, longest: int = 6) -> str:
    """Some words, with some space between and around them; now and then nothing else."""
    if chance.random() < 0.06:
        return chance.choice(BLANKS)
    words = [chance.choice(WORDS) for _ in range(chance.randint(1, longest))]
    joined = words[0] + "".join(chance.choice(SPACES) + word for word in words[1:])
    return chance.choice(SPACES) + joined + chance.choice(SPACES) if chance.random() < 0.3 else joined


def altered(chance: random.Random, given: str) -> str:
    """A text that is much like another."""
    words = given.split(" ")
    ways = [
        lambda: given,
        lambda: chance.choice([given.upper(), given.lower(), given.title(), given.casefold()]),
        lambda: f"{chance.choice(['the ', 'A ', 'an ', 'The The '])}{given}",
        lambda: f"{given}{chance.choice(['.', '!', ' .', ', the', ' a', ' '])}",
        lambda: " ".join(reversed(words)),
        lambda: " ".join(words + words[:1]),
        lambda: " ".join(words[1:]),
        lambda: given.replace(" ", chance.choice(["\u00a0", "  ", "-", "\n"])),
        lambda: f"{given} {text(chance, 3)}",
    ]
    return ways[chance.randrange(len(ways))]()


def provenance(chance: random.Random) -> list[dict[str, Any]]:
    """Pages of one evidence set, some of them twice, some without a name."""
    pages: list[dict[str, Any]] = []
    for _ in range(chance.choice([0, 1, 1, 1, 1, 2, 2, 3])):
        page, odd = chance.choice(PAGES), chance.random()
        if odd < 0.04:
            pages.append({"title": "no page"})
        elif odd < 0.08:
            pages.append({"wikipedia_id": chance.choice([None, "", " "])})
        elif odd < 0.25:
            pages.append({"wikipedia_id": int(page) if page.isdecimal() else f" {page} "})
        else:
            pages.append({"wikipedia_id": page})
    return pages


def row(chance: random.Random) -> tuple[list[dict[str, Any]], str, list[str]]:
    """The outputs that are gold, an answer, and the pages that it names, best first and each once."""
    prediction = text(chance)
    outputs = []
    for _ in range(chance.choice([1, 1, 1, 2, 2, 3, 4])):
        output: dict[str, Any] = {}
        if chance.random() < 0.9:
            output["answer"] = altered(chance, prediction) if chance.random() < 0.6 else text(chance)
        if chance.random() < 0.03:
            output["answer"] = None
        if chance.random() < 0.85:
            output["provenance"] = provenance(chance)
        outputs.append(output)
    if chance.random() < 0.1:
        outputs.append(dict(outputs[0]))
    pages = chance.sample(PAGES, chance.choice([0, 1, 1, 2, 3, 4, 5, 6, 7, 8]))
    named = [str(page.get("wikipedia_id", "")).strip() for page in outputs[0].get("provenance", ())]
    if chance.random() < 0.3:  # so that some evidence is found at once
        found = dict.fromkeys(page for page in named if page in PAGES)
        pages = [*found, *(page for page in pages if page not in found)]
    return outputs, prediction, pages


def main() -> None:
    """Write the rows to standard output."""
    sys.path.insert(0, sys.argv[1])
    from kilt import eval_downstream, eval_retrieval

    chance = random.Random(14)
    for number in range(NUM_ROWS):
        outputs, prediction, pages = row(chance)
        gold = {"id": number, "input": "?", "output": outputs}
        guess = {
            "id": str(number),
            "output": [{"answer": prediction, "provenance": [{"wikipedia_id": page} for page in pages]}],
        }
        try:
            scores = eval_downstream._calculate_metrics([gold], [guess])
        except ValueError:
            kilt = None
        else:
            kilt = figures({**scores["downstream"], **scores["kilt"]}, KILT)
        ks = [int(name.partition("@")[2]) for name in RETRIEVAL[1:]]
        found = eval_retrieval.get_ranking_metrics(guess, gold, ks, ["wikipedia_id"])
        line = {
            "output": outputs, "answer": prediction, "pages": pages, "kilt": kilt,
            "retrieval": figures(found, RETRIEVAL),
        }
        sys.stdout.write(json.dumps(line, separators=(",", ":"), ensure_ascii=False) + "\n")


def figures(scores: dict[str, float], names: tuple[str, ...]) -> list[float]:
    """Twelve places; whole numbers without a point."""
    return [int(value) if value == int(value) else round(value, 12) for value in map(scores.__getitem__, names)]


if __name__ == "__main__":
    main()
