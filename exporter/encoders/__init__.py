"""Sentence encoders of Hugging Face and sentence-transformers -> directories that `memory index --encoder` takes."""

from glimmer_export.exporter.encoders.export import EncoderParity, EncoderReport, export_encoder, exported_encoder
from glimmer_export.exporter.encoders.source import EncoderChoices, is_encoder_source

__all__ = [
    "EncoderChoices", "EncoderParity", "EncoderReport", "export_encoder", "exported_encoder", "is_encoder_source",
]  # fmt: skip
