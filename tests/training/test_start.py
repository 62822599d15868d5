"""What `start` makes of random weights, before a step is trained."""

from __future__ import annotations

import torch

from glimmer_export.exporter.checkpoint import random_weights
from glimmer_export.exporter.demo.generator import hard_start
from glimmer_export.exporter.stages import Masked
from glimmer_export.exporter.training.trainable import model_to_train
from tests.training.short import short_recipe

ROWS, PASSAGE = 200, 30
SHALLOW = {"num_stage_b_layers": 1, "num_decoder_layers": 1}


def share_that_go_on(start: str) -> float:
    """How often, of the words of a passage, the likeliest behind one is that which stands behind it there."""
    config = hard_start("fid")[0].model_copy(update=SHALLOW)
    draw = torch.Generator().manual_seed(0)
    words = torch.stack([2 + torch.randperm(config.vocab_size - 2, generator=draw)[:PASSAGE] for _ in range(ROWS)])
    asked = 2 + torch.randint(config.vocab_size - 2, (ROWS, 5), generator=draw)
    said = torch.randint(1, PASSAGE - 1, (ROWS, 1), generator=draw)
    recipe, device = short_recipe(start=start, score_head=None), torch.device("cpu")
    model = model_to_train(config, random_weights(config, seed=0), recipe, seed=0, device=device)
    model.eval()
    passages = Masked(words[:, None], torch.ones(ROWS, 1, PASSAGE, dtype=torch.bool))
    with torch.no_grad():
        read = model.encode_texts(Masked(asked, torch.ones_like(asked, dtype=torch.bool)), passages, None)
        logits = model.decode(words.gather(1, said), read.states, read.mask)[:, -1]
    there = logits.gather(1, words)
    there.scatter_(1, said, -torch.inf)
    return (there.argmax(1, keepdim=True) == said + 1).float().mean().item()


def test_copying_spans_goes_on_from_the_last_word():
    """Faintly: all other weights are random. What stands behind it is one word of 29."""
    assert share_that_go_on("copying") < 0.08
    assert share_that_go_on("copying_spans") > 0.15
