"""What the README says of optimum, run in its order; the rest of it is run without optimum."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

from glimmer_export.exporter.checkpoint import ModelOptions
from glimmer_export.exporter.init import init_from_t5
from tests.optimum_line import needs_optimum
from tests.t5_factory import make_t5, save_t5
from tests.test_readme import BLOCK, README, ROOT, TOKENIZER, WITH_OPTIMUM

OPTIMUM_CLI = "from optimum.commands.optimum_cli import main; main()"


@needs_optimum
def test_the_readmes_blocks_of_optimum_run(tmp_path: Path):
    source = save_t5(make_t5("v1.1", vocab_size=2048, num_layers=6), tmp_path / "t5")
    init_from_t5(source, tmp_path / "t5-glimmer", ModelOptions("glimmer"), tokenizer=TOKENIZER)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([os.environ.get("PYTHONPATH", ""), str(ROOT)])}
    ran = []
    for block in BLOCK.finditer(README):
        if block["note"] != WITH_OPTIMUM:
            continue
        commands = [block["body"]] if block["language"] == "python" else block["body"].splitlines()
        for command in commands:
            words = shlex.split(command.removeprefix("$ ")) if block["language"] == "console" else []
            assert words[:1] in ([], ["optimum-cli"])
            call = ["-c", OPTIMUM_CLI, *words[1:]] if words else ["-c", command]
            done = subprocess.run(
                [sys.executable, *call], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
            assert done.stdout.strip(), f"{command} printed nothing"
            ran.append(block["language"])
    assert ran == ["console", "python"]
