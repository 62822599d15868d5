"""The runtime on a device: a virtual environment with the runtime's dependencies and nothing of the build side."""

from __future__ import annotations

import json

ABSENT = ["onnx", "onnxscript", "optimum", "polygraphy", "pydantic", "rich", "torch", "transformers"]

IMPORT_RUNTIME = """
import importlib.util, json, sys
import runtime
absent = json.loads(sys.argv[1])
print(json.dumps({
    "installed": [name for name in absent if importlib.util.find_spec(name)],
    "imported": [name for name in absent if name in sys.modules],
    "runtime": runtime.__file__,
}))
"""

# The base install has the command; a device that lacks the extra is told so by name.
RUN_COMMAND = """
import subprocess, sys
from pathlib import Path
command = Path(sys.executable).with_name("glimmer-export")
done = subprocess.run([command, "--help"], capture_output=True, text=True)
print(done.returncode, done.stderr)
"""


def test_runtime_imports_without_the_build_side(runtime_venv):
    found = json.loads(runtime_venv.run(IMPORT_RUNTIME, json.dumps(ABSENT)))
    assert found["installed"] == []
    assert found["imported"] == []
    assert "site-packages" in found["runtime"]


def test_command_names_the_missing_extra(runtime_venv):
    printed = runtime_venv.run(RUN_COMMAND)
    assert printed.startswith("2 ")
    assert "glimmer-export[tools]" in printed
    assert "Traceback" not in printed
