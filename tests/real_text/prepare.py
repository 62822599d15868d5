"""What a small model of real text begins with: a vocabulary, a shape, and rows to train it on.

    python -m tests.real_text.prepare ../shared/data/qa OUT

Writes `tokenizer.json`, 6,000 lower-cased pieces of the passages and of the training rows' questions, `size.yaml` for
`glimmer-export init --random`, and rows:

- `cloze.jsonl` asks for the missing words of a stretch of a passage, `window.jsonl` of a window of some 20 words;
- `asked.jsonl` has questions made of statements by rule (pseudo_questions.py), `asked-window.jsonl` of windows of some
  20 words, `asked-wide.jsonl` of some 55;
- `near.jsonl` and `near-wide.jsonl` have the training rows' questions with such windows of their gold passages,
  `DATASET.jsonl` with the passages that they come with, but for the last 200 of each data set;
- `held.jsonl` has those 400 with the gold passage alone, to watch a training by;
- `DATASET.dev.jsonl` are the dev rows as they come, with 20 passages; `DATASET.withheld.jsonl` the same with random
  passages of the corpus in place of the gold one and of all that have an answer.

`windows.jsonl` has the texts of all windows. No dev row is read for what is trained on; the passages are those of all.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from glimmer_export.exporter.training.relevance import has_answer
from glimmer_export.runtime.store import Passage
from tests.real_text.pseudo_questions import EDGES, STOP_WORDS, ask

DATA_SETS = ("nq", "squad")
SPECIAL_TOKENS = ("<pad>", "</s>", "<unk>", "[SEP]")
VOCABULARY = 6000
SIZE = """\
d_model: 128
d_kv: 32
d_ff: 384
num_heads: 4
num_layers: 7
num_decoder_layers: 2
vocab_size: 6000
"""
CLOZE_ROWS, ASKED_ROWS, HELD_ROWS, SEED = 40_000, 60_000, 200, 0
MISSING, BEFORE, BEHIND, AROUND = (1, 4), (3, 6), (2, 4), (0, 8)
NEAR, WIDE = (6, 12), (15, 40)
"""Words on each side of an answer."""
FIRST_WINDOW, FIRST_ASKED, FIRST_NEAR, WIDER = 1_000_000, 2_000_000, 3_000_000, 2_000_000
CONTEXTS = 20
Made = tuple[dict, dict, tuple[int, int]]
"""A row with `gold_ids`, a window of its gold passage, and where in that the answer stands: first word, and behind."""


def rows_of(path: Path) -> Iterator[dict]:
    with path.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def build_tokenizer(texts: list[str]) -> Tokenizer:
    """Byte pairs within words, which begin with a mark as in SentencePiece; numbers stand alone."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation(), pre_tokenizers.Digits(individual_digits=False)]
    )
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=list(SPECIAL_TOKENS), show_progress=False)
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    return tokenizer


def cloze(rng: random.Random, passages: list[dict], number: int) -> Made:
    """A stretch of a passage with `[SEP]` for what is missing, and the window of some 20 words that it is from."""
    while True:
        passage = rng.choice(passages)
        words = passage["text"].split()
        missing, before, behind = (rng.randint(*span) for span in (MISSING, BEFORE, BEHIND))
        left, right = rng.randint(*AROUND), rng.randint(*AROUND)
        if len(words) <= missing + before + behind:
            continue
        start = rng.randrange(before, len(words) - missing - behind + 1)
        answer = " ".join(words[start : start + missing]).strip(".,;:()\"'")
        if not answer:
            continue
        end = start + missing
        asked = [*words[start - before : start], "[SEP]", *words[end : end + behind]]
        window = words[max(0, start - before - left) : end + behind + right]
        row = {"question": " ".join(asked), "answers": [answer], "gold_ids": [passage["id"]]}
        return row, {"id": FIRST_WINDOW + number, "title": "", "text": " ".join(window)}, (start, end)


def asked(rng: random.Random, passages: list[dict], others: list[str], number: int) -> Made:
    """A question made of a passage's statement, and a window of some 20 words about the answer."""
    while True:
        passage = rng.choice(passages)
        words = passage["text"].split()
        if found := ask(rng, passage["title"], words, others):
            row = {"question": found.question, "answers": [found.answer], "gold_ids": [passage["id"]]}
            place = found.start, found.end
            return row, window_about(rng, words, place, NEAR, FIRST_ASKED + number), place


def near(rng: random.Random, row: dict, passage: dict, number: int) -> Made | None:
    """A training row, and a window of its passage: where the answer stands beside most words of the question."""
    words, wanted = passage["text"].split(), bare(row["answers"][0])
    plain, question = bare(passage["text"]), {*bare(row["question"])} - STOP_WORDS
    places = [place for place in range(len(words)) if plain[place : place + len(wanted)] == wanted]
    if not places:
        return None
    start = max(places, key=lambda place: len(question & {*plain[max(0, place - NEAR[1]) : place + NEAR[1]]}))
    place = start, start + len(wanted)
    return row, window_about(rng, words, place, NEAR, FIRST_NEAR + number), place


def window_about(
    rng: random.Random, words: list[str], place: tuple[int, int], width: tuple[int, int], identifier: int
) -> dict:
    (start, end), before, behind = place, rng.randint(*width), rng.randint(*width)
    return {"id": identifier, "title": "", "text": " ".join(words[max(0, start - before) : end + behind])}


def wider(rng: random.Random, made: Made, by_id: dict[int, dict]) -> Made:
    row, window, place = made
    words = by_id[row["gold_ids"][0]]["text"].split()
    return row, window_about(rng, words, place, WIDE, window["id"] + WIDER), place


def bare(text: str) -> list[str]:
    return [word.strip(EDGES).lower() for word in text.split()]


def training_rows(path: Path) -> list[dict]:
    """Each row with its shortest answer alone, without punctuation at its ends."""
    rows = []
    for row in rows_of(path):
        answers = {short for answer in row["answers"] if (short := answer.strip(EDGES + " "))}
        if answers:
            kept = {name: row[name] for name in ("qid", "question", "gold_ids", "ctx_ids")}
            rows.append(kept | {"answers": [min(answers, key=lambda text: (len(text), text))]})
    return rows


def with_contexts(rng: random.Random, name: str, made: list[Made], ids: list[int], *, windows: bool) -> list[dict]:
    """The rows with their gold passage, or its window, first of 20, the others random ones of `ids`."""
    rows = []
    for number, (row, window, _) in enumerate(made):
        gold = window["id"] if windows else row["gold_ids"][0]
        others = [other for other in rng.sample(ids, CONTEXTS) if other != gold]
        given = {"ctx_ids": [gold, *others[: CONTEXTS - 1]], "gold_ids": [gold]}
        rows.append({"qid": f"{name}/{number}", **row, **given})
    return rows


def withheld(rng: random.Random, row: dict, corpus: list[dict]) -> dict:
    """A dev row with passages without an answer in place of the gold one and of those that have one."""
    given = list(row["ctx_ids"])
    for place, answers in enumerate(row["has_answer"]):
        while answers or given[place] in row["gold_ids"]:
            other = rng.choice(corpus)
            given[place] = other["id"]
            text = Passage(other["id"], other["title"], other["text"])
            answers = given.count(other["id"]) > 1 or has_answer(text, row["answers"])  # noqa: PLW2901
    return row | {"ctx_ids": given}


def write_rows(path: Path, rows: list[dict]) -> None:
    with path.open("w", encoding="utf-8") as lines:
        lines.writelines(json.dumps(row) + "\n" for row in rows)


def prepare(data: Path, output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    corpus = list(rows_of(data / "corpus.jsonl"))
    questions = [row["question"] for name in DATA_SETS for row in rows_of(data / f"{name}.train.k20.jsonl")]
    tokenizer = build_tokenizer([f"{passage['title']} {passage['text']}" for passage in corpus] + questions)
    tokenizer.save(str(output / "tokenizer.json"))
    (output / "size.yaml").write_text(SIZE, encoding="utf-8")
    rng = random.Random(SEED)
    made = [cloze(rng, corpus, number) for number in range(CLOZE_ROWS)]
    ids = [passage["id"] for passage in corpus]
    write_rows(output / "cloze.jsonl", with_contexts(rng, "cloze", made, ids, windows=False))
    windows = write_windows(rng, output, "window", made)
    others = [word for question in questions for word in bare(question)]
    statements = [asked(rng, corpus, others, number) for number in range(ASKED_ROWS)]
    write_rows(output / "asked.jsonl", with_contexts(rng, "asked", statements, ids, windows=False))
    windows += write_windows(rng, output, "asked-window", statements)
    by_id, made, held = {passage["id"]: passage for passage in corpus}, [], []
    for name in DATA_SETS:
        rows = training_rows(data / f"{name}.train.k20.jsonl")
        write_rows(output / f"{name}.jsonl", rows[:-HELD_ROWS])
        held += [row | {"ctx_ids": row["gold_ids"]} for row in rows[-HELD_ROWS:]]
        for row in rows[:-HELD_ROWS]:
            found = near(rng, row, by_id[row["gold_ids"][0]], len(made))
            made += [found] if found else []
        dev = list(rows_of(data / f"{name}.dev.k20.jsonl"))
        write_rows(output / f"{name}.dev.jsonl", dev)
        write_rows(output / f"{name}.withheld.jsonl", [withheld(rng, row, corpus) for row in dev])
    windows += write_windows(rng, output, "near", made)
    for name, narrow in (("asked-wide", statements), ("near-wide", made)):
        windows += write_windows(rng, output, name, [wider(rng, each, by_id) for each in narrow])
    write_rows(output / "held.jsonl", held)
    write_rows(output / "windows.jsonl", windows)


def write_windows(rng: random.Random, output: Path, name: str, made: list[Made]) -> list[dict]:
    """Write rows about windows, among the others of their kind, and give the windows."""
    windows = [window for _, window, _ in made]
    write_rows(output / f"{name}.jsonl", with_contexts(rng, name, made, [each["id"] for each in windows], windows=True))
    return windows


if __name__ == "__main__":
    prepare(Path(sys.argv[1]), Path(sys.argv[2]))
