"""What docs/guide/optimum.md says, run in its order; the other pages are run without optimum."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

from glimmer_export.exporter.checkpoint import ModelOptions
from glimmer_export.exporter.checkpoint.init import init_from_t5
from tests.docs.pages import DOCS, ROOT, steps
from tests.docs.work_folder import TOKENIZER
from tests.optimum_line import needs_optimum
from tests.t5_factory import make_t5, save_t5

PROGRAMS = {
    "glimmer-export": "from glimmer_export.exporter.cli import main; main()",
    "optimum-cli": "from optimum.commands.optimum_cli import main; main()",
}


@needs_optimum
def test_the_pages_blocks_run(tmp_path: Path):
    source = save_t5(make_t5("v1.1", vocab_size=2048, num_layers=6), tmp_path / "t5")
    init_from_t5(source, tmp_path / "t5-glimmer", ModelOptions("glimmer"), tokenizer=TOKENIZER)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([os.environ.get("PYTHONPATH", ""), str(ROOT)])}
    found = [step for step in steps(DOCS / "guide" / "optimum.md") if step.note == "with optimum"]
    assert [step.language for step in found] == ["console", "console", "python"]
    for step in found:
        call = ["-c", step.source]
        if step.language == "console":
            name, *words = shlex.split(step.source)
            call = ["-c", PROGRAMS[name], *words]
        done = subprocess.run(
            [sys.executable, *call], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{step}\n{done.stdout}\n{done.stderr}"
        assert done.stdout.strip(), f"{step} printed nothing"
