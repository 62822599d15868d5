"""What the training of the hard world begins with: the demo checkpoint's layers under the hard world's words.

    python -m tests.demo.hard_start start

A word that both worlds have keeps its embedding; a new one has random numbers as large. The output projection keeps
the rows of the words that the demo answers with, and has of every other word what a linear map, fitted to those rows,
makes of its embedding: the demo has learned never to say a word that is no answer of its own.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from glimmer_export.exporter.checkpoint import random_weights, read_checkpoint, write_checkpoint
from glimmer_export.exporter.demo.generator import hard_start
from glimmer_export.exporter.demo.hard_relations import HARD_KINDS
from glimmer_export.exporter.demo.relations import KINDS
from glimmer_export.exporter.demo.tokenizer import SPECIAL_TOKENS, vocabulary
from glimmer_export.exporter.demo.world import CHECKPOINT

SEED = 0


def write_start(output: Path) -> None:
    """Write the checkpoint, in FP16."""
    config, tokenizer = hard_start("glimmer")
    trained = {name: tensor.float() for name, tensor in read_checkpoint(CHECKPOINT).tensors.items()}
    embedding, projection = trained["shared.weight"], trained["lm_head.weight"]
    old, new = vocabulary(), vocabulary(HARD_KINDS)
    answers = {word.lower() for kind in KINDS for each in kind.relations for words in each.values for word in words}
    said = {word: old[word] for word in (*sorted(answers), SPECIAL_TOKENS[1])}
    rows = torch.tensor(list(said.values()))
    linear = torch.linalg.lstsq(embedding[rows], projection[rows]).solution
    table = random_weights(config, seed=SEED)["shared.weight"]
    table *= embedding.std() / table.std()
    for word, place in new.items():
        if word in old:
            table[place] = embedding[old[word]]
    head = table @ linear
    for word, place in said.items():
        if word in new:
            head[new[word]] = projection[place]
    weights = {**trained, "shared.weight": table, "lm_head.weight": head}
    write_checkpoint(output, config, {name: tensor.half() for name, tensor in weights.items()}, tokenizer)


if __name__ == "__main__":
    write_start(Path(sys.argv[1]))
