"""Bundles: the directory that a device runs."""

from exporter.bundle.write import export_bundle

__all__ = ["export_bundle"]
