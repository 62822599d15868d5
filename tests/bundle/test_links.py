"""No change of a bundle goes through a link; a link that is given is resolved, and what it leads to is changed."""

from __future__ import annotations

import pytest

from glimmer_export.calibration.calibrate import CalibrationOptions
from glimmer_export.calibration.questions import Question
from glimmer_export.exporter.bundle.calibrate import calibrate_bundle
from glimmer_export.exporter.engines.folder import work_on_engines
from glimmer_export.exporter.parity import ParityOptions, ParityRequest, run_parity
from glimmer_export.exporter.training.state import remove_state
from glimmer_export.runtime.contract import PARITY_RECORD, OutputError
from tests.bundle_factory import tree
from tests.exported import QUESTIONS, copy_bundle
from tests.parity.asked import write_gate

ROWS = [Question("0", QUESTIONS[0], ("w1",), None, ())]
FINGERPRINT = "tensorrt-10.3.0.26-sm75-tesla-t4"


@pytest.fixture
def bundle(glimmer, tmp_path):
    return copy_bundle(glimmer, tmp_path / "bundle")


@pytest.fixture
def outside(tmp_path):
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "mine.txt").write_text("mine", encoding="utf-8")
    return folder


@pytest.mark.parametrize("name", ["graphs", "tokenizer.json", "engines"])
def test_a_bundle_with_a_link_in_it_is_not_calibrated(glimmer, bundle, outside, name):
    if (bundle / name).exists():
        (bundle / name).rename(outside / name)
        (bundle / name).symlink_to(outside / name)
    else:
        (bundle / name).symlink_to(outside)
    before = tree(bundle.parent)
    with pytest.raises(OutputError, match=f"bundle.*{name}: expected a file or folder of its own.*`cp -rL`"):
        calibrate_bundle(bundle, glimmer.store, ROWS, CalibrationOptions(threads=1))
    assert tree(bundle.parent) == before


@pytest.mark.parametrize(
    "name", ["engines", f"engines/{FINGERPRINT}", "engines/.partial", f"engines/.partial/{FINGERPRINT}",
             f"engines/.partial/{FINGERPRINT}/memory_encoder.engine", f"engines/{FINGERPRINT}/timing.cache"],
)  # fmt: skip
def test_engines_behind_a_link_are_not_built(bundle, outside, name):
    (bundle / name).parent.mkdir(parents=True, exist_ok=True)
    (bundle / name).symlink_to(outside if "." not in name.rpartition("/")[2][1:] else outside / "mine.txt")
    before = tree(bundle.parent)
    with pytest.raises(OutputError, match="found a link to"), work_on_engines(bundle, FINGERPRINT):
        pytest.fail("nothing is to be built")
    assert tree(bundle.parent) == before


def test_a_record_of_parity_is_not_written_over_a_link(glimmer, bundle, outside, tmp_path):
    (bundle / PARITY_RECORD).symlink_to(outside / "mine.txt")
    request = ParityRequest(
        bundle, reference=glimmer.bundle, store=glimmer.store, options=ParityOptions(threads=1),
        gate=write_gate(tmp_path),
    )  # fmt: skip
    with pytest.raises(OutputError, match="found a link to"):
        run_parity(request, ROWS)
    assert (bundle / PARITY_RECORD).is_symlink()
    assert (outside / "mine.txt").read_text(encoding="utf-8") == "mine"


def test_a_link_where_the_record_was_once_written_is_not_written_through(glimmer, bundle, outside, tmp_path):
    """The name that earlier versions gave to the unfinished file."""
    (bundle / ".parity.json.tmp").symlink_to(outside / "mine.txt")
    request = ParityRequest(
        bundle, reference=glimmer.bundle, store=glimmer.store, options=ParityOptions(threads=1),
        gate=write_gate(tmp_path),
    )  # fmt: skip
    run_parity(request, ROWS)
    assert (bundle / PARITY_RECORD).is_file()
    assert (outside / "mine.txt").read_text(encoding="utf-8") == "mine"


def test_the_state_of_a_training_is_not_removed_through_a_link(outside, tmp_path):
    (outside / "state.pt").write_text("mine", encoding="utf-8")
    (tmp_path / "out.training").symlink_to(outside)
    with pytest.raises(OutputError, match="found a link to"):
        remove_state(tmp_path / "out.training")
    assert (outside / "state.pt").exists()
