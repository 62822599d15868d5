"""`optimum-cli export glimmer`, made known to optimum by a file in the folder where it looks for commands.

The file is no part of the wheel: with it `import optimum` would succeed where optimum is not installed.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from glimmer_export.exporter.files.whole_file import replace_file

__all__ = ["register_with_optimum"]

REGISTRATION = '''"""Adds `optimum-cli export glimmer`. Written by `glimmer-export env --register-optimum`."""

try:
    from optimum.commands.export.base import ExportCommand

    from glimmer_export.exporter.cli.optimum_command import GlimmerExportCommand
except ImportError:  # glimmer-export was uninstalled: optimum's other commands go on working
    REGISTER_COMMANDS = []
else:
    REGISTER_COMMANDS = [(GlimmerExportCommand, ExportCommand)]
'''


def register_with_optimum() -> Path:
    """Write the file and return its path; optimum must be installed. Raises OutputError if it cannot be written."""
    found = find_spec("optimum.version")
    assert found is not None
    assert found.origin is not None
    place = Path(found.origin).parent / "commands" / "register" / "register_glimmer_export.py"
    replace_file(place, REGISTRATION.encode())
    return place
