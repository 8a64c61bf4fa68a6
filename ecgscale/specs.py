"""What we intend to run: sweeps as a person writes them, trials as a machine runs them.

Specs are frozen, refuse unknown keys, hold no path, no clock and no "auto". A trial's identity is the hash of every
field that can change its training, computed after validation, so that `1e-3` and `0.001` are the same trial. What is
read off its encoder has identities of its own, so that another task or population trains nothing again.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    StrictFloat,
    StrictInt,
    StrictStr,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

from ecgscale import ready_made_tasks
from ecgscale.concentrations import ready_made as targets_and_heads
from ecgscale.concentrations.corruptions import Corruption, ready_made_corruption
from ecgscale.concentrations.declared import HeadSpec, TargetSpec
from ecgscale.concentrations.head_counts import n_classes
from ecgscale.conventions import CODE_FS_HZ, CODE_LABELS
from ecgscale.errors import SpecError
from ecgscale.ladder import RUNGS, Family, InputShape, Rung, shape
from ecgscale.spec_base import DataFraction, Name, Spec, hashed, unique
from ecgscale.yaml_text import YamlText

Paradigm = Literal["sl", "ssl", "target"]
"""`target`: the encoder is trained on one continuous target, through one head."""


class InputSpec(Spec):
    """What the encoder sees: rate, length, patch, normalisation."""

    fs_hz: float = Field(gt=0, le=1000)
    n_samples: int = Field(gt=0)
    patch_samples: int = Field(gt=0)
    store_samples: int | None = Field(default=None, gt=0)
    """Samples that are kept of a record when more than `n_samples`: what a random crop is cut from."""
    normalise: Literal["zscore", "fixed"] = "zscore"
    bandpass_hz: tuple[float, float] | None = None
    """Zero-phase Butterworth band, so that sources filtered elsewhere can be compared with raw ones."""

    @model_validator(mode="after")
    def _band_is_below_nyquist(self) -> InputSpec:
        if self.bandpass_hz is not None:
            low, high = self.bandpass_hz
            nyquist_hz = min(self.fs_hz, CODE_FS_HZ) / 2  # records are filtered before they are resampled
            if not 0 < low < high < nyquist_hz:
                raise ValueError(f"bandpass_hz {low}, {high}: needs 0 < low < high < {nyquist_hz:g} Hz")
        return self

    @model_validator(mode="after")
    def _store_holds_the_input(self) -> InputSpec:
        if self.stored_samples < self.n_samples:
            raise ValueError(f"store_samples {self.store_samples} is less than n_samples {self.n_samples}")
        return self

    @property
    def stored_samples(self) -> int:
        """Samples per lead of the packed store; training crops `n_samples` of them, evaluation the central ones."""
        return self.store_samples or self.n_samples

    @property
    def shape(self) -> InputShape:
        return InputShape(self.n_samples, self.patch_samples)


class TaskSpec(Spec):
    """One thing to read off a frozen encoder on another population: a column of its exams.csv, or several."""

    name: Name
    kind: Literal["binary", "multilabel", "multiclass", "regression"] = "binary"
    column: str | None = None
    columns: tuple[str, ...] = ()
    """Multilabel tasks: one 0/1 column per label, each read out by itself."""
    unit: str | None = None
    """Regression tasks: the unit of the column, for people; nothing is converted."""
    above: float | None = None
    """Binary tasks on a number: the positive class is `column > above`."""
    classes: tuple[StrictInt | StrictStr, ...] = ()
    """Multiclass tasks: every value of the column, in the order of the classes; all words or all whole numbers."""
    missing_values: tuple[StrictInt | StrictFloat | StrictStr, ...] = ()
    """Values that stand for "not known", besides an empty cell."""
    missing: Literal["drop", "negative"] = "drop"
    """Whether a record without a value is left out of the task, or counts as 0 (binary and multilabel tasks)."""

    @model_validator(mode="after")
    def _fields_fit_the_kind(self) -> TaskSpec:
        where = f"task {self.name}:"
        wanted = "columns" if self.kind == "multilabel" else "column"
        other = "column" if self.kind == "multilabel" else "columns"
        if getattr(self, other) or not getattr(self, wanted):
            raise ValueError(f"{where} a {self.kind} task has `{wanted}`, no `{other}`")
        if self.above is not None and self.kind != "binary":
            raise ValueError(f"{where} `above` makes a binary task; a {self.kind} task has none")
        if self.unit is not None and self.kind != "regression":
            raise ValueError(f"{where} `unit` is that of a regression task; a {self.kind} task has none")
        if self.missing == "negative" and self.kind not in ("binary", "multilabel"):
            raise ValueError(f"{where} `missing: negative` is for 0/1 columns; a {self.kind} task has no negatives")
        if bool(self.classes) != (self.kind == "multiclass"):
            raise ValueError(f"{where} a multiclass task lists its `classes`, other tasks have none")
        if self.classes and (len(self.classes) < 2 or len({type(name) for name in self.classes}) > 1):
            raise ValueError(f"{where} `classes` are at least two, all words or all whole numbers")
        unique(self.columns, f"{where} column")
        unique(tuple(map(str, self.classes)), f"{where} class")
        return self


def _named(ready_made: Callable[[str], dict[str, Any]]) -> BeforeValidator:
    """The name of something ready-made stands for it."""
    return BeforeValidator(lambda value: ready_made(value) if isinstance(value, str) else value)


Task = Annotated[TaskSpec, _named(ready_made_tasks.task)]
"""In YAML a mapping, or the name of a ready-made task."""
Target = Annotated[TargetSpec, _named(targets_and_heads.target)]
Head = Annotated[HeadSpec, _named(targets_and_heads.head)]
Damage = Annotated[Corruption, _named(ready_made_corruption)]


class FoldSpec(Spec):
    """Official folds: which values of a column are validation and test; all others are training."""

    column: str
    validation: tuple[StrictInt | StrictStr, ...] = ()
    test: tuple[StrictInt | StrictStr, ...] = ()
    """A part without folds is drawn from the training patients, with the share that the split gives it."""

    @model_validator(mode="after")
    def _parts_are_disjoint(self) -> FoldSpec:
        if not self.validation + self.test:
            raise ValueError("folds: names no fold of validation or test")
        unique(tuple(map(str, self.validation + self.test)), "fold")
        return self


class LaterSpec(Spec):
    """A second test set beside the first: the patients who were first seen last."""

    column: str
    """Of dates."""
    share: float = Field(gt=0, lt=0.5)
    """Of all patients."""


class SplitSpec(Spec):
    """Training, validation (checkpoint choice) and test (every reported loss) patients, drawn by patient.

    A population's own `split` column is honoured unless `folds` or `temporal` is given.
    """

    seed: int = 0
    validation: float = Field(default=0.1, gt=0, lt=0.5)
    test: float = Field(default=0.15, gt=0, lt=0.5)
    stratify_on: tuple[str, ...] = CODE_LABELS
    """0/1 columns whose share is the same in every part and fraction; those of the six CODE labels that exist."""
    folds: FoldSpec | None = None
    temporal: str | None = None
    """A column of dates: the share `test` of the patients is then the one that was first seen last."""
    later: LaterSpec | None = None
    """Patients who are taken out before anybody is drawn: a temporal test set beside the random one."""

    @model_validator(mode="after")
    def _one_rule_makes_the_test(self) -> SplitSpec:
        if self.folds is not None and self.temporal is not None:
            raise ValueError("folds and temporal both say who is tested; give one of them")
        if self.later is not None and self.temporal is not None:
            raise ValueError("temporal makes the test of the latest patients already; later is for those beside it")
        unique(self.stratify_on, "stratify_on: column")
        return self

    @model_serializer(mode="wrap")
    def _trials_without_a_later_part_keep_their_identity(self, fields: SerializerFunctionWrapHandler) -> dict[str, Any]:
        dumped: dict[str, Any] = fields(self)
        if self.later is None:
            dumped.pop("later", None)
        return dumped


class DataSpec(Spec):
    """Populations are folders of the data directory; no path stands in a spec."""

    train_on: Name
    transfer_to: tuple[Name, ...] = ()
    n_train_records: int = Field(gt=0)
    """Expected number of training records: what `plan` computes with until it is given the data."""
    split: SplitSpec = SplitSpec()

    @field_validator("transfer_to")
    @classmethod
    def _populations_areunique(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return unique(names, "population")


class Budget(Spec):
    """How long a trial trains: passes over its own records, or a number of samples that is the same for every D."""

    kind: Literal["epochs", "samples_seen"]
    value: float = Field(gt=0)

    def n_steps(self, n_records: int, batch_size: int) -> int:
        samples = self.value * n_records if self.kind == "epochs" else self.value
        return max(1, round(samples / batch_size))


class LearningRateRule(Spec):
    """peak rate = base · (width / reference_width) ^ exponent, so that one recipe serves every rung of a family.

    With µP the peak rate is `base` at every width, and what changes with it is how weights are drawn and which of them
    learn slower; see `maximal_update`.
    """

    base: float = Field(gt=0)
    reference_width: int = Field(default=64, gt=0)
    exponent: float = -0.5
    parametrisation: Literal["standard", "mup"] = "standard"
    reference_depth: int | None = Field(default=None, gt=0)
    """With µP, of a Transformer: layers at which a residual branch counts as much as without; None for no such rule."""

    @model_validator(mode="after")
    def _mup_has_no_exponent_and_alone_a_depth(self) -> LearningRateRule:
        if self.parametrisation == "mup" and "exponent" in self.model_fields_set:
            raise ValueError("parametrisation mup has one rate for all widths; leave out the exponent")
        if self.parametrisation == "standard" and self.reference_depth is not None:
            raise ValueError("reference_depth goes with `parametrisation: mup`")
        return self

    @model_serializer(mode="wrap")
    def _what_says_nothing_is_left_out(self, fields: SerializerFunctionWrapHandler) -> dict[str, Any]:
        dumped: dict[str, Any] = fields(self)
        dumped.pop("parametrisation" if self.parametrisation == "standard" else "exponent", None)
        if self.reference_depth is None:
            dumped.pop("reference_depth", None)
        return dumped

    def peak(self, width: int) -> float:
        if self.parametrisation == "mup":
            return self.base
        return float(self.base * (width / self.reference_width) ** self.exponent)


class AugmentSpec(Spec):
    """Random changes of training batches, none unless asked for; a pure function of seed and step.

    What SSL reconstructs is the changed signal.
    """

    random_crop: bool = False
    """Cut the `n_samples` anywhere from the recorded part of the `store_samples`, not from the middle."""
    noise_mv: float = Field(default=0.0, ge=0)
    """Standard deviation of white Gaussian noise on every recorded sample, in mV (or the unit of the records)."""
    gain: float = Field(default=0.0, ge=0, lt=1)
    """Every record is multiplied by exp(gain · z), z standard normal: about the relative deviation of its amplitude."""
    lead_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Probability that a lead of a record is set to zero, each lead by itself."""


class Recipe(Spec):
    """What of the training is the same for every rung and family; part of a trial's identity."""

    batch_size: int = Field(default=32, gt=1)
    weight_decay: float = Field(default=0.05, ge=0)
    warmup_fraction: float = Field(default=0.1, ge=0, lt=1)
    clip_norm: float = Field(default=1.0, gt=0)
    n_evaluations: int = Field(default=8, gt=0)
    """How often the validation loss is taken, the last time after the last step."""
    precision: Literal["bf16_on_gpu", "fp32"] = "bf16_on_gpu"
    augment: AugmentSpec = AugmentSpec()


class TrainSpec(Recipe):
    """How a grid trains: the recipe, and the rules that a trial has resolved into numbers of its own."""

    budget: Budget
    learning_rate: dict[Family, LearningRateRule]
    mask_ratio: float = Field(default=0.5, gt=0, lt=1)
    """Share of patches hidden from SSL."""

    @field_validator("learning_rate")
    @classmethod
    def _a_resnet_has_one_depth(cls, rules: dict[Family, LearningRateRule]) -> dict[Family, LearningRateRule]:
        if "resnet" in rules and rules["resnet"].reference_depth is not None:
            raise ValueError("a ResNet has five stages at every size; leave out its reference_depth")
        return rules

    def recipe(self) -> Recipe:
        return Recipe(**self.model_dump(include=set(Recipe.model_fields)))


class ReadOutRecipe(Spec):
    """How a read-out is trained that has no closed optimum: AdamW, cosine decay to zero, the best of a few validations.

    Short and the same for every encoder (our choice).
    """

    n_steps: int = Field(default=400, gt=0)
    batch_size: int = Field(default=64, gt=1)
    learning_rate: float = Field(default=1e-2, gt=0)
    weight_decay: float = Field(default=0.01, ge=0)
    n_evaluations: int = Field(default=5, gt=0)
    """How often the validation loss is taken; each target keeps its best."""


class FineTuningRecipe(ReadOutRecipe):
    """The same for a read-out that changes the encoder as well."""

    learning_rate: float = Field(default=1e-3, gt=0)


class ProbeSpec(Spec):
    """What is read out on other populations, and how: a linear read-out of the frozen encoder, its L2 chosen on
    validation patients, and what is asked for beside it."""

    tasks: tuple[Task, ...] = ()
    fit_on: Literal["target", "source"] = "target"
    """Whose training patients the read-out is fitted to: those of the population it is tested on, or those of the
    pre-training population, for test sets too small to be split; then every record of them is tested on."""
    l2: tuple[Annotated[float, Field(gt=0)], ...] = Field(default=(1e-4, 1e-3, 1e-2, 1e-1, 1.0), min_length=1)
    label_fractions: tuple[DataFraction, ...] = (1.0,)
    """Few-shot curves: the shares of a task's training patients whose labels are used; one of them is 1."""
    attentive: ReadOutRecipe | None = None
    """A learned query over the frozen encoder's tokens; `{}` for the recipe as it is."""
    fine_tuning: FineTuningRecipe | None = None
    """The whole encoder, once per task and label fraction; `{}` for the recipe as it is."""

    @field_validator("label_fractions")
    @classmethod
    def _all_labels_are_used_once(cls, fractions: tuple[float, ...]) -> tuple[float, ...]:
        if len(set(fractions)) < len(fractions) or 1 not in fractions:
            raise ValueError("label_fractions name each share once, and 1 among them")
        return fractions

    @field_validator("tasks")
    @classmethod
    def _names_areunique(cls, tasks: tuple[TaskSpec, ...]) -> tuple[TaskSpec, ...]:
        unique(tuple(task.name for task in tasks), "task")
        return tasks


class StartSpec(Spec):
    """Weights that an encoder begins with: those of a trial of the same family, rung and input."""

    encoder: Name
    """encoders/NAME.ckpt of the data directory; `ecgscale export encoder` makes it."""
    frozen: bool = False
    """Whether they stay as they are, so that only the head learns."""


class Axes(Spec):
    """Every combination is a cell of the grid. `n_labels` multiplies the cells of SL alone, targets and heads those of
    the paradigm `target`."""

    family: tuple[Family, ...] = Field(min_length=1)
    paradigm: tuple[Paradigm, ...] = Field(min_length=1)
    rung: tuple[Rung, ...] = Field(min_length=1)
    data_fraction: tuple[DataFraction, ...] = Field(min_length=1)
    n_labels: tuple[Annotated[int, Field(gt=0)], ...] = Field(default=(len(CODE_LABELS),), min_length=1)
    target: tuple[Target, ...] = ()
    head: tuple[Head, ...] = ()
    start: tuple[Literal["scratch"] | StartSpec, ...] = Field(default=("scratch",), min_length=1)
    """Paradigm `target`: drawn weights, or those of a trained encoder, fine-tuned or frozen."""
    # the keys of batches hold 20 bits of seed
    seed: tuple[Annotated[int, Field(ge=0, lt=2**20)], ...] = Field(default=(0,), min_length=1)

    @model_validator(mode="after")
    def _values_areunique(self) -> Axes:
        for axis, values in self:
            if len(set(values)) < len(values):
                raise ValueError(f"axis {axis} names a value twice: {list(values)}")
        unique(tuple(target.name for target in self.target), "axis target:")
        unique(tuple(head.name for head in self.head), "axis head:")
        return self

    @model_validator(mode="after")
    def _targets_have_heads(self) -> Axes:
        asked = "target" in self.paradigm
        for axis, values in (("target", self.target), ("head", self.head)):
            if asked != bool(values):
                raise ValueError(f"axes.{axis} goes with paradigm `target`, one without the other means nothing")
        if not asked and self.start != ("scratch",):
            raise ValueError("axes.start goes with paradigm `target`")
        return self


class GridSpec(Spec):
    """A grid is a promise: every cell is planned, and nothing else is."""

    name: Name
    question: str
    data: DataSpec
    input: InputSpec
    axes: Axes
    labels: tuple[str, ...] = CODE_LABELS
    train: TrainSpec
    probe: ProbeSpec = ProbeSpec()
    corruptions: tuple[Damage, ...] = ()
    """Paradigm `target`: damaged copies of the test records that are predicted as well."""

    @field_validator("labels")
    @classmethod
    def _labels_areunique(cls, labels: tuple[str, ...]) -> tuple[str, ...]:
        return unique(labels, "label")

    @model_validator(mode="after")
    def _augmentation_has_an_effect(self) -> GridSpec:
        augment = self.train.augment
        if augment.random_crop and self.input.stored_samples == self.input.n_samples:
            raise ValueError("train.augment.random_crop: needs an input.store_samples larger than input.n_samples")
        if augment.gain and self.input.normalise == "zscore":
            raise ValueError("train.augment.gain: zscore takes it out again; it needs input.normalise: fixed")
        return self

    @model_validator(mode="after")
    def _cells_exist(self) -> GridSpec:
        if max(self.axes.n_labels) > len(self.labels):
            raise ValueError(f"axes.n_labels asks for {max(self.axes.n_labels)} labels, only {len(self.labels)} exist")
        for family in self.axes.family:
            if family not in self.train.learning_rate:
                raise ValueError(f"train.learning_rate has no rule for family {family!r}")
            for rung in self.axes.rung:
                try:
                    shape(family, rung, self.input.shape)
                except SpecError as error:
                    raise ValueError(f"input: {error}") from None
        return self


class ReadOutSpec(Spec):
    """What is read off an encoder on one population. Two equal specs give the same scores of the same encoder."""

    schema_version: Literal[1] = 1
    population: Name
    data_fingerprint: dict[str, str]
    """Of that population, and of the one that was trained on where the read-outs are fitted to its patients."""
    split: SplitSpec
    input: InputSpec
    probe: ProbeSpec
    corruptions: tuple[Corruption, ...] = ()

    @cached_property
    def protocol_id(self) -> str:
        """The identity of what was asked, whatever the records: what begins with it was asked the same."""
        return hashed(self.model_dump(mode="json", exclude={"data_fingerprint"}))

    @cached_property
    def read_out_id(self) -> str:
        return self.protocol_id + hashed(self.data_fingerprint)


@lru_cache(maxsize=256)
def _read_out(
    population: str,
    fingerprints: tuple[tuple[str, str], ...],
    split: SplitSpec,
    input_: InputSpec,
    probe: ProbeSpec,
    corruptions: tuple[Corruption, ...],
) -> ReadOutSpec:
    """One object for all trials of a sweep, so that it is hashed once."""
    return ReadOutSpec(
        population=population,
        data_fingerprint=dict(fingerprints),
        split=split,
        input=input_,
        probe=probe,
        corruptions=corruptions,
    )


class TrialSpec(Spec):
    """One training run, fully resolved, and what is read off its encoder.

    Two equal specs must give the same answer on the same machine; trials with the same id, the same encoder.
    """

    schema_version: Literal[1] = 1
    train_on: Name
    transfer_to: tuple[Name, ...]
    data_fingerprint: dict[str, str]
    """Population → fingerprint of its records; empty in a plan that was made without the data."""
    split: SplitSpec
    input: InputSpec
    family: Family
    paradigm: Paradigm
    rung: Rung
    data_fraction: float
    labels: tuple[str, ...]
    """What SL is trained on, in order; empty for SSL."""
    seed: int
    n_records: int
    """D: unique training records."""
    n_steps: int
    peak_lr: float
    mask_ratio: float | None
    """None in an SL trial, which hides nothing."""
    train: Recipe
    probe: ProbeSpec
    target: TargetSpec | None = None
    head: HeadSpec | None = None
    """Both in a trial of paradigm `target`, else neither."""
    corruptions: tuple[Corruption, ...] = ()
    start: StartSpec | None = None
    """None for weights that the seed draws."""
    start_fingerprint: str | None = None
    """Of the file that the weights come from; None without one, and in a plan that was made without the data."""
    mup_reference_width: int | None = None
    """With µP: the width at which weights are drawn, and learn, as without it; else None."""
    mup_reference_depth: int | None = None
    """With µP's rule for depth: the layers at which it changes nothing; else None."""

    @model_serializer(mode="wrap")
    def _trials_without_mup_keep_their_identity(self, fields: SerializerFunctionWrapHandler) -> dict[str, Any]:
        dumped: dict[str, Any] = fields(self)
        for name in ("mup_reference_width", "mup_reference_depth"):
            if getattr(self, name) is None:
                dumped.pop(name, None)
        return dumped

    @cached_property
    def form(self) -> Hashable:
        """Equal for trials whose steps can be computed as one: one network, one objective, batches of one size. Their
        records, labels, targets, seeds, rates and lengths may differ."""
        classes = n_classes(self.head, self.target) if self.head is not None and self.target is not None else None
        objective = (self.paradigm, len(self.labels), self.mask_ratio, self.head, classes)
        frozen = self.start is not None and self.start.frozen
        batch = (self.input.n_samples, self.input.patch_samples, self.train.batch_size, self.train.precision)
        return self.family, self.rung, objective, frozen, batch

    @cached_property
    def trial_id(self) -> str:
        """The identity of the training: without what is read off its encoder elsewhere."""
        elsewhere = {"transfer_to", "probe", "data_fingerprint", "corruptions"}
        none = {"target", "head"} if self.target is None else set()
        none |= {"start", "start_fingerprint"} if self.start is None else set()
        training = self.model_dump(mode="json", exclude=elsewhere | none)
        return hashed(training | {"data_fingerprint": self._fingerprints(self.train_on)})

    @cached_property
    def read_outs(self) -> tuple[ReadOutSpec, ...]:
        """One per population; none without a task. A target is predicted where it was trained, too."""
        if self.target is not None:
            populations: tuple[str, ...] = (self.train_on, *self.transfer_to)
            source: tuple[str, ...] = ()
        else:
            populations = self.transfer_to if self.probe.tasks else ()
            source = (self.train_on,) if self.probe.fit_on == "source" else ()
        return tuple(
            _read_out(
                name,
                tuple(self._fingerprints(name, *source).items()),
                self.split,
                self.input,
                self.probe,
                self.corruptions,
            )
            for name in populations
        )

    def _fingerprints(self, *populations: str) -> dict[str, str]:
        return {name: self.data_fingerprint[name] for name in populations if name in self.data_fingerprint}

    def model_copy(self, **options: Any) -> Self:
        copied = super().model_copy(**options)
        for name in ("trial_id", "read_outs"):  # those of another trial, maybe
            vars(copied).pop(name, None)
        return copied

    @property
    def arm(self) -> str:
        if self.target is not None and self.head is not None:
            start = "" if self.start is None else f"-{'frozen' if self.start.frozen else 'from'}-{self.start.encoder}"
            return f"{self.family}-{self.target.name}-{self.head.name}{start}"
        return f"{self.family}-{self.paradigm}"

    @property
    def label(self) -> str:
        """A name for people; unique within a plan, never parsed."""
        labels = f"-k{len(self.labels)}" if self.paradigm == "sl" else ""
        return f"{self.arm}-{self.rung}-f{self.data_fraction:.4g}{labels}-s{self.seed}"

    @property
    def n_samples_seen(self) -> int:
        return self.n_steps * self.train.batch_size


def load_grid(path: Path) -> GridSpec:
    """Reads a sweep file.

    Raises:
        SpecError: naming file, line, field and what is allowed.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SpecError(f"{path}: can't be read ({error.strerror}); sweeps are listed by `ls sweeps/`") from None
    except UnicodeDecodeError:
        raise SpecError(f"{path}: is not a text file; a sweep is YAML, see `ls sweeps/`") from None
    parsed = YamlText(text, name=str(path))
    try:
        return GridSpec.model_validate(parsed.value)
    except ValidationError as error:
        # pydantic counts what is left of a list without its bad items, and calls that list too short as well
        found = [item for item in error.errors() if item["type"] != "too_short" or not item["input"]]
        raise SpecError("\n".join(_explain(parsed, item) for item in found)) from None


def _explain(parsed: YamlText, item: Any) -> str:
    """One pydantic error as `file:line: field: what is wrong; what is allowed`."""
    location = tuple(item["loc"])
    field = ".".join(str(part) for part in location) or "the sweep"
    where = f"{parsed.name}:{parsed.line(location)}: {field}"
    if item["type"] == "extra_forbidden":
        return f"{where}: unknown key; allowed are {', '.join(_keys_at(location[:-1]))}"
    if item["type"] == "missing":
        return f"{where}: is missing"
    message = item["msg"].removeprefix("Value error, ").replace("a valid tuple", "a list in square brackets")
    if item["type"] == "too_short":
        message = "needs at least one value"
    if location[:2] == ("axes", "rung") and item["type"] == "literal_error":
        message = f"rung does not exist; the ladder has {', '.join(RUNGS)}"
    return f"{where}: {message} (got {item['input']!r})" if item["type"] != "value_error" else f"{where}: {message}"


def _keys_at(location: tuple[Any, ...]) -> list[str]:
    """The field names of the spec at a location inside `GridSpec`."""
    model: Any = GridSpec
    for part in location:
        if not isinstance(part, str) or not hasattr(model, "model_fields") or part not in model.model_fields:
            model = _element_spec(model)
            continue
        model = model.model_fields[part].annotation
    model = model if hasattr(model, "model_fields") else _element_spec(model)
    return list(model.model_fields) if model is not None else []


def _element_spec(annotation: Any) -> Any:
    """The spec class inside a container annotation such as `tuple[TaskSpec, ...]` or `dict[Family, Rule]`."""
    arguments = getattr(annotation, "__args__", ())
    return next((a for a in arguments if hasattr(a, "model_fields")), annotation)
