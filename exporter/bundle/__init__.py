"""Bundles: the directory that a device runs."""

from exporter.bundle.forms import FormOptions, choose_forms
from exporter.bundle.write import export_bundle

__all__ = ["FormOptions", "choose_forms", "export_bundle"]
