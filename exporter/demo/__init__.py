"""The demo: a generated encyclopedia, the recipe that trains a small checkpoint on it, and that checkpoint."""

from glimmer_export.exporter.demo.recipe import CURRICULUM, DemoArchitecture, Phase, demo_config
from glimmer_export.exporter.demo.tokenizer import build_tokenizer
from glimmer_export.exporter.demo.train_demo import train_demo
from glimmer_export.exporter.demo.world import Passage, Question, World, generate_split, withhold_gold, write_world

__all__ = [
    "CURRICULUM",
    "DemoArchitecture",
    "Passage",
    "Phase",
    "Question",
    "World",
    "build_tokenizer",
    "demo_config",
    "generate_split",
    "train_demo",
    "withhold_gold",
    "write_world",
]
