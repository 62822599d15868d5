"""Rewrites of a traced graph, one a file."""

from exporter.graphs.passes.declare_io import DeclareIO
from exporter.graphs.passes.name_nodes import NameNodes
from exporter.graphs.passes.prepend import Prepend
from exporter.graphs.passes.strip_metadata import StripMetadata

__all__ = ["DeclareIO", "NameNodes", "Prepend", "StripMetadata"]
