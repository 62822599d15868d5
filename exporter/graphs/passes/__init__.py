"""Rewrites of a traced graph, one a file."""

from glimmer_export.exporter.graphs.passes.declare_io import DeclareIO
from glimmer_export.exporter.graphs.passes.name_nodes import NameNodes
from glimmer_export.exporter.graphs.passes.prepend import Prepend
from glimmer_export.exporter.graphs.passes.strip_metadata import StripMetadata

__all__ = ["DeclareIO", "NameNodes", "Prepend", "StripMetadata"]
