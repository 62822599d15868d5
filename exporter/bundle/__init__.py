"""Bundles: the directory that a device runs."""

from glimmer_export.exporter.bundle.forms import FormOptions, choose_forms
from glimmer_export.exporter.bundle.write import export_bundle

__all__ = ["FormOptions", "choose_forms", "export_bundle"]
