"""What a small model of real text begins with: a vocabulary, a shape, and rows to pre-train it on.

    python -m tests.real_text.prepare ../shared/data/qa OUT

Writes `tokenizer.json`, 6,000 lower-cased pieces of the passages and of the training rows' questions; `size.yaml` for
`glimmer-export init --random`; and rows that ask for the missing words of a stretch of a passage: `window.jsonl`, whose
passages are windows of some 20 words about such stretches, `windows.jsonl`; and `cloze.jsonl`, the same with whole
passages. No dev row is read for these. `DATASET.dev.jsonl` has the dev rows with ten passages, of which one is gold,
and `DATASET.withheld.jsonl` the same rows with the gold one and all that have an answer withheld.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

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
CLOZE_ROWS, SEED = 40_000, 0
MISSING, BEFORE, BEHIND, AROUND = (1, 4), (3, 6), (2, 4), (0, 8)
FIRST_WINDOW = 1_000_000
CONTEXTS, DEV_CONTEXTS = 20, 10


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


def cloze(rng: random.Random, passages: list[dict], number: int) -> tuple[dict, dict]:
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
        return row, {"id": FIRST_WINDOW + number, "title": "", "text": " ".join(window)}


def write_rows(path: Path, rows: list[dict]) -> None:
    with path.open("w", encoding="utf-8") as lines:
        lines.writelines(json.dumps(row) + "\n" for row in rows)


def dev_rows(path: Path) -> tuple[list[dict], list[dict]]:
    """Rows with the gold passage among ten, and the same rows without any that has an answer."""
    given, withheld = [], []
    for row in rows_of(path):
        without = [
            passage for passage, has_answer in zip(row["ctx_ids"], row["has_answer"], strict=True)
            if not has_answer and passage not in row["gold_ids"]
        ]  # fmt: skip
        kept = {name: row[name] for name in ("qid", "question", "answers", "gold_ids")}
        if len(without) >= DEV_CONTEXTS:
            given.append({**kept, "ctx_ids": [row["gold_ids"][0], *without[: DEV_CONTEXTS - 1]]})
            withheld.append({**kept, "ctx_ids": without[:DEV_CONTEXTS]})
    return given, withheld


def prepare(data: Path, output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    corpus = list(rows_of(data / "corpus.jsonl"))
    asked = [row["question"] for name in ("nq", "squad") for row in rows_of(data / f"{name}.train.k20.jsonl")]
    tokenizer = build_tokenizer([f"{passage['title']} {passage['text']}" for passage in corpus] + asked)
    tokenizer.save(str(output / "tokenizer.json"))
    (output / "size.yaml").write_text(SIZE, encoding="utf-8")
    rng = random.Random(SEED)
    made = [cloze(rng, corpus, number) for number in range(CLOZE_ROWS)]
    windows = [window for _, window in made]
    for name, ids in (("cloze", [each["id"] for each in corpus]), ("window", [each["id"] for each in windows])):
        rows = []
        for number, (row, window) in enumerate(made):
            gold = window["id"] if name == "window" else row["gold_ids"][0]
            others = [other for other in rng.sample(ids, CONTEXTS) if other != gold]
            given = {"ctx_ids": [gold, *others[: CONTEXTS - 1]], "gold_ids": [gold]}
            rows.append({"qid": f"{name}/{number}", **row, **given})
        write_rows(output / f"{name}.jsonl", rows)
    write_rows(output / "windows.jsonl", windows)
    for name in ("nq", "squad"):
        given, withheld = dev_rows(data / f"{name}.dev.k20.jsonl")
        write_rows(output / f"{name}.dev.jsonl", given)
        write_rows(output / f"{name}.withheld.jsonl", withheld)


if __name__ == "__main__":
    prepare(Path(sys.argv[1]), Path(sys.argv[2]))
