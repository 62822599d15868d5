"""The demo: a generated encyclopedia, its tokenizer, and the checkpoint that was trained on it (configs/training)."""

from glimmer_export.exporter.demo.generator import demo_start
from glimmer_export.exporter.demo.tokenizer import build_tokenizer
from glimmer_export.exporter.demo.world import Passage, Question, World, generate_split, withhold_gold, write_world

__all__ = [
    "Passage",
    "Question",
    "World",
    "build_tokenizer",
    "demo_start",
    "generate_split",
    "withhold_gold",
    "write_world",
]
