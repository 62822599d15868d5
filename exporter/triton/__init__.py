"""Model repositories of the Triton Inference Server: a bundle and a store behind Triton's Python backend."""

from glimmer_export.exporter.triton.repository import TritonModel, TritonOptions, write_repository

__all__ = ["TritonModel", "TritonOptions", "write_repository"]
