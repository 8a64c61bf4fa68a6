"""Attentive probe and fine-tuning of small encoders: what they can see that a mean can't, and what they leave alone."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch

from ecgscale.data.splits import TEST, TRAIN, VALIDATION
from ecgscale.ladder import InputShape, shape
from ecgscale.models import build_encoder
from ecgscale.models.encoder import Encoded, Encoder
from ecgscale.specs import FineTuningRecipe, ProbeSpec, ReadOutRecipe, TaskSpec
from ecgscale.transfer import SignalPart, score_attentive, score_fine_tuned

SIZES = {TRAIN: 200, VALIDATION: 100, TEST: 200}
LABELS = {"seen_labels": ("AF",), "trained_on": ("AF",)}
AF = TaskSpec(name="AF", column="AF")
AGE = TaskSpec(name="age", kind="regression", column="age", unit="years")
RHYTHM = TaskSpec(name="rhythm", kind="multiclass", column="rhythm", classes=("a", "b", "c"))


class Tokens(Encoder):
    """The signal's first leads, 16 samples at a time, are the tokens."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.width = width
        self.scale = torch.nn.Parameter(torch.ones(1))

    def forward(self, signal):
        stage = self.scale * signal[:, : self.width, ::16]
        return Encoded((stage,), stage.mean(dim=-1))


def parts_of(make_signal, seed=0, **columns):
    """A column is a function of (rng, n); a signal of (rng, exams) → `(record, lead, time)`."""
    rng = np.random.default_rng(seed)
    parts = {}
    for name, n in SIZES.items():
        exams = pd.DataFrame({key: make(rng, n) for key, make in columns.items()})
        signal = torch.from_numpy(make_signal(rng, exams).astype(np.float32))
        parts[name] = SignalPart(lambda rows, signal=signal: signal[rows], exams)
    return parts


def one_token_tells(rng, exams):
    """Ten tokens; one of them, anywhere, is marked by lead 1 and tells by lead 0, which is noise in all others."""
    n = len(exams)
    signal = rng.normal(size=(n, 12, 160))
    side = 2.0 * exams["AF"].to_numpy() - 1
    place = 16 * rng.integers(10, size=n)
    signal[np.arange(n), 1, place] = 5
    signal[np.arange(n), 0, place] = 2 * side
    return signal


def coin(rng, n):
    return rng.integers(2, size=n)


def test_a_query_finds_the_token_that_tells():
    parts = parts_of(one_token_tells, AF=coin)
    encoder = Tokens()
    before = copy.deepcopy(encoder.state_dict())
    probe = ProbeSpec(tasks=(AF,), attentive=ReadOutRecipe(n_steps=150, learning_rate=0.05))
    blind = ProbeSpec(tasks=(AF,), attentive=ReadOutRecipe(n_steps=1))
    (found,), (start,) = (score_attentive("B", encoder, parts, p, seed=0, **LABELS) for p in (probe, blind))
    assert (found.read_out, found.label_fraction, found.seen, found.trained_on) == ("attentive", 1.0, True, True)
    assert found.l2 is found.converged is None and found.n_train == 200
    assert found.auroc > 0.95 and found.auroc > start.auroc + 0.1 and found.loss < 0.5 < start.loss
    assert found.auroc_low < found.auroc < found.auroc_high
    assert all((encoder.state_dict()[name] == value).all() for name, value in before.items())
    assert encoder.scale.requires_grad and encoder.training


def lead_means(rng, exams):
    signal = rng.normal(size=(len(exams), 12, 160))
    signal[:, 0] += exams["AF"].to_numpy()[:, None]
    signal[:, 1] += (exams["age"].fillna(60).to_numpy()[:, None] - 60) / 15
    signal[:, 2] += (exams["rhythm"] == "b").to_numpy()[:, None]
    signal[:, 3] += (exams["rhythm"] == "c").to_numpy()[:, None]
    return signal


def ages(rng, n):
    return np.where(np.arange(n) % 5 == 0, np.nan, 60 + 15 * rng.normal(size=n))


def rhythms(rng, n):
    return rng.choice(["a", "b", "c"], n)


@pytest.fixture(scope="module")
def three_kinds():
    return parts_of(lead_means, AF=coin, age=ages, rhythm=rhythms)


@pytest.mark.parametrize("score", [score_attentive, score_fine_tuned])
def test_every_kind_of_task_is_read_out(score, three_kinds):
    recipe = {"n_steps": 150, "learning_rate": 0.03}
    probe = ProbeSpec(
        tasks=(AF, AGE, RHYTHM), attentive=ReadOutRecipe(**recipe), fine_tuning=FineTuningRecipe(**recipe)
    )
    af, age, rhythm = score("B", Tokens(), three_kinds, probe, seed=0, **LABELS)
    assert af.auroc > 0.9 and af.loss < 0.6 * af.constant_loss
    assert age.loss < 0.5 < age.constant_loss and age.mae < 10 and (age.n_train, age.n_test) == (160, 160)
    assert rhythm.auroc > 0.85 and rhythm.loss < 0.8 * rhythm.constant_loss


@pytest.mark.parametrize("score", [score_attentive, score_fine_tuned])
def test_the_same_seed_has_the_same_scores_and_nothing_happens_unless_asked_for(score, three_kinds):
    recipe = {"n_steps": 10}
    probe = ProbeSpec(tasks=(AF,), attentive=ReadOutRecipe(**recipe), fine_tuning=FineTuningRecipe(**recipe))
    one, same, other = (score("B", Tokens(), three_kinds, probe, seed=seed, **LABELS) for seed in (0, 0, 1))
    assert one == same != other
    assert score("B", Tokens(), three_kinds, ProbeSpec(tasks=(AF,)), seed=0, **LABELS) == ()


def test_targets_of_an_attentive_probe_do_not_see_each_other(three_kinds):
    def attentive(*tasks):
        probe = ProbeSpec(tasks=tasks, attentive=ReadOutRecipe(n_steps=50))
        return score_attentive("B", Tokens(), three_kinds, probe, seed=0, **LABELS)

    (alone,), (together, _) = attentive(AF), attentive(AF, RHYTHM)
    assert together.loss == pytest.approx(alone.loss, rel=1e-4)


def test_fewer_labels_are_used_when_fewer_are_asked_for(three_kinds):
    probe = ProbeSpec(tasks=(AF, AGE), attentive=ReadOutRecipe(n_steps=60), label_fractions=(0.1, 1.0))
    found = score_attentive("B", Tokens(), three_kinds, probe, seed=0, **LABELS)
    assert [(s.task, s.label_fraction) for s in found] == [("AF", 0.1), ("AF", 1.0), ("age", 0.1), ("age", 1.0)]
    assert found[0].n_train == pytest.approx(20, abs=2) and found[2].n_train == pytest.approx(16, abs=2)
    assert all(s.loss < s.constant_loss for s in found)


@pytest.mark.parametrize("family", ["resnet", "transformer"])
def test_fine_tuning_learns_and_leaves_the_encoder_as_it_was(family):
    def wave(rng, exams):
        signal = rng.normal(size=(len(exams), 12, 256))
        signal[:, :3] *= 1 + 2 * exams["AF"].to_numpy()[:, None, None]  # louder, which no mean of the signal shows
        return signal

    torch.manual_seed(0)
    given = InputShape(256, 16)
    encoder = build_encoder(shape(family, "20K", given), given)
    before = copy.deepcopy(encoder.state_dict())
    probe = ProbeSpec(tasks=(AF,), fine_tuning=FineTuningRecipe(n_steps=60, n_evaluations=3))
    (found,) = score_fine_tuned("B", encoder, parts_of(wave, AF=coin), probe, seed=0, **LABELS)
    assert found.read_out == "fine_tuned" and found.auroc > 0.9 and found.loss < found.constant_loss
    assert all((encoder.state_dict()[name] == value).all() for name, value in before.items())


def test_a_training_that_diverges_is_a_reason(three_kinds):
    probe = ProbeSpec(tasks=(AF,), fine_tuning=FineTuningRecipe(n_steps=20, learning_rate=1e30))
    (found,) = score_fine_tuned("B", Tokens(), three_kinds, probe, seed=0, **LABELS)
    assert (found.loss, found.reason) == (None, "its training diverged")
