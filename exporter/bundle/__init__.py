"""Bundles: the directory that a device runs."""

from exporter.bundle.forms import FormOptions
from exporter.bundle.write import export_bundle

__all__ = ["FormOptions", "export_bundle"]
