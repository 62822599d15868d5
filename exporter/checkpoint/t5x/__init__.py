"""Checkpoints of T5X and Flaxformer, in T5X's own layout and in Orbax's, read without JAX."""

from glimmer_export.exporter.checkpoint.t5x.arrays import T5xArrays
from glimmer_export.exporter.checkpoint.t5x.convert import Conversion, convert_t5x
from glimmer_export.exporter.checkpoint.t5x.name_map import read_name_map

__all__ = ["Conversion", "T5xArrays", "convert_t5x", "read_name_map"]
