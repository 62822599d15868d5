"""The training loop learns, resumes where it stopped, and writes a checkpoint that reads back."""

import io

import pytest
import torch
from rich.console import Console

from glimmer_export.exporter.checkpoint import read_checkpoint
from glimmer_export.exporter.demo import build_tokenizer, demo_config, generate_split, train_demo
from glimmer_export.exporter.demo.batches import encode_world
from glimmer_export.exporter.demo.evaluate import answer
from glimmer_export.exporter.demo.loss import training_loss
from glimmer_export.exporter.demo.recipe import CURRICULUM, Phase
from glimmer_export.exporter.demo.train_demo import progress_line
from glimmer_export.exporter.demo.training import Report, Training, initial_model
from glimmer_export.runtime.contract import OutputError

SHORT = (
    Phase(20, 1, 1, facts_per_passage=1, batch_size=8, learning_rate=1e-3),
    Phase(10, 4, 2, facts_per_passage=2, batch_size=8, learning_rate=1e-4),
)


@pytest.fixture(scope="module")
def encoded():
    return encode_world(generate_split("test", 40, seed=0), build_tokenizer())


def trainer(curriculum=SHORT):
    return Training(demo_config("glimmer"), curriculum, seed=0, device=torch.device("cpu"))


def test_a_few_steps_lower_the_loss():
    reports = []
    training = trainer()
    training.run(reports.append, world_done=lambda: None)
    assert len(reports) == 30
    assert reports[19].loss < 0.8 * reports[0].loss
    assert [report.fraction_done for report in reports] == sorted(report.fraction_done for report in reports)
    assert reports[-1].fraction_done == 1
    assert reports[-1].seconds_left == 0


def test_resumed_training_ends_with_the_same_weights():
    whole, interrupted, resumed = trainer(), trainer(), trainer()
    whole.run(lambda report: None, world_done=lambda: None)

    class StopError(Exception):
        pass

    def stop():
        raise StopError

    with pytest.raises(StopError):
        interrupted.run(lambda report: None, world_done=stop)
    resumed.restore(interrupted.state())
    resumed.run(lambda report: None, world_done=lambda: None)
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(weight, resumed.model.state_dict()[name]), name


def test_a_phase_ends_early_once_it_is_learned():
    curriculum = (Phase(1000, 1, 1, facts_per_passage=1, batch_size=2, learning_rate=1e-3, promote_at=0.0),)
    training = trainer(curriculum=curriculum)
    reports = []
    training.run(reports.append, world_done=lambda: None)
    assert len(reports) == 50


def test_a_batch_keeps_the_gold_passage_and_the_order_of_the_context(encoded):
    generator = torch.Generator().manual_seed(0)
    for batch in encoded.shuffled_batches(10, 3, generator):
        assert batch.passage_ids.shape[:2] == (10, 3)
        kept = batch.passage_ids[torch.arange(10), batch.gold]
        titles = kept[:, :2].tolist()
        questions = [set(row) for row in batch.question_ids.tolist()]
        assert all(set(title) <= question for title, question in zip(titles, questions, strict=True))


def test_one_passage_alone_is_not_ranked(encoded):
    model = initial_model(demo_config("glimmer"), seed=0)
    alone = next(encoded.shuffled_batches(4, 1, torch.Generator().manual_seed(0)))
    assert training_loss(model, alone, num_selected=1).distillation == 0
    assert training_loss(model, next(encoded.ordered_batches(4)), num_selected=3).distillation > 0


def test_answers_read_only_the_selected_passages(encoded):
    batch = next(encoded.ordered_batches(6))
    model = initial_model(demo_config("glimmer"), seed=0)
    tokens, kept = answer(model, batch)
    assert kept.shape == (6, 3)
    assert bool((kept.diff(dim=1) > 0).all())
    assert tokens.shape[0] == 6
    assert tokens.shape[1] <= model.config.max_new_tokens


def test_train_demo_writes_a_small_checkpoint_and_reports(tmp_path):
    text = io.StringIO()
    console = Console(file=text, width=200)
    result = train_demo(tmp_path / "out", curriculum=SHORT, num_test_questions=30, console=console)
    assert set(result) == {"num_questions", "em", "em_by_task", "gold_in_m", "em_withheld", "seconds"}
    assert set(result["em_by_task"]) == {"question", "slot"}
    checkpoint = read_checkpoint(tmp_path / "out")
    assert checkpoint.tokenizer is not None
    assert {tensor.dtype for tensor in checkpoint.tensors.values()} == {torch.float16}
    assert sum(path.stat().st_size for path in (tmp_path / "out").iterdir()) <= 4_000_000
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    with pytest.raises(OutputError):
        train_demo(tmp_path / "out", curriculum=SHORT, console=console)


@pytest.mark.parametrize("terminal", [False, True])
def test_progress_line_shows_loss_em_and_time_left(terminal):
    text = io.StringIO()
    console = Console(file=text, width=120, force_terminal=terminal)
    report = Report(
        phase=1, num_phases=7, step=50, loss=0.25, exact_match=0.875, fraction_done=0.5, seconds_left=61.2
    )
    with progress_line(console) as show:
        show(report)
    assert "phase 2/7 step   50  loss 0.250  EM 0.875  at most 1:01 left" in text.getvalue()


def test_curriculum_grows_to_the_test_setting():
    config = demo_config("glimmer")
    first, last = CURRICULUM[0], CURRICULUM[-1]
    assert (first.num_passages, first.facts_per_passage) == (1, 1)
    assert (last.num_passages, last.num_selected) == (config.num_retrieved, config.num_selected)
    assert all(phase.num_passages <= 4 for phase in CURRICULUM[:-1])
