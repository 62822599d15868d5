"""Adds `optimum-cli export glimmer`: optimum-cli imports every file of this folder of optimum's namespace."""

from optimum.commands.export.base import ExportCommand

from glimmer_export.exporter.cli.optimum_command import GlimmerExportCommand

REGISTER_COMMANDS = [(GlimmerExportCommand, ExportCommand)]
