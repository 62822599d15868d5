"""The decoding of memory in graphs: a module of each codec's name, and what stands in front of a stage."""

from glimmer_export.exporter.stages.codecs.decoder import CodecDecoder, SelectedMemory

__all__ = ["CodecDecoder", "SelectedMemory"]
