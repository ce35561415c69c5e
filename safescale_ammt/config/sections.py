"""Config: one frozen dataclass per section, each field with its meaning."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import combinations
from typing import ClassVar, Literal, Required, TypedDict

from safescale_ammt.config.kubernetes_names import is_label
from safescale_ammt.config.roles import require_role
from safescale_ammt.config.section import Name, NameOrNone, Section
from safescale_ammt.config.window import Window
from safescale_ammt.errors import ConfigError, one_of
from safescale_ammt.files.canonical import is_digest
from safescale_ammt.files.code_package import is_entry
from safescale_ammt.files.public_keys import PREFIX, key_bytes
from safescale_ammt.printable import unseen_in

SPLITS = ("train", "validation", "constraint", "monitor", "select")
"""Splits of the dataset; `sealed` lies alone in the holdout."""


def _default_splits() -> dict[str, float]:
    return {
        "train": 0.6,
        "validation": 0.1,
        "constraint": 0.1,
        "monitor": 0.1,
        "select": 0.1,
    }


IMAGE = "image"
"""The column of images: whatever a file calls them, equal rows are equal."""
_IMAGES = ("idx", "npz", "image_folder")
"""Formats of images."""
# Nothing is found out of the cells of images, and no column beside them is an input.
_OF_TABLES = (
    "window",
    "sensitive_in_model",
    "numeric",
    "numbers",
    "dates",
    "columns",
    "comment",
    "skip_rows",
    "delimiter",
    "decimal",
    "encoding",
    "allow_leak",
    "repeats",
    "engine",
)


class Merge(TypedDict, total=False):
    """One declared merge: values of a column that are one group."""

    column: Required[Name]
    """Sensitive column, earlier merge, or the label, whose values are merged."""
    values: Required[dict[str, str]]
    """Old value -> the group that it belongs to; of the label {} = each class."""
    other: str
    """Group of all values that `values` does not name; "" = each is its own."""


@dataclass(frozen=True)
class DataConfig(Section):
    """Where the raw rows lie and how they become typed splits."""

    source: str = ""
    """URI of a file or folder of rows or images (`s3://`, `file://`; raw_data.md)."""
    source_digest: str = ""
    """sha256 of the raw bytes, filled in by `run` and `submit`; "" = unchecked."""
    sealed_source: str = ""
    """URI of an official test file = the sealed split; "" = split one off."""
    window: str = ""
    """Days of a folder of dated files, such as 7d or 2026-11-09/2026-11-16."""
    format: Literal["auto", "csv", "parquet", "idx", "npz", "image_folder"] = "auto"
    """File format; auto is a table, Parquet by its first bytes, else CSV."""
    images: str = ""
    """Format npz: the array with the images; "" = images."""
    labels: str = ""
    """Labels of images: array of an NPZ, file beside an IDX, table of a folder."""
    channels: Literal["last", "first"] = "last"
    """Where an array of images with four dimensions has its channels."""
    label: NameOrNone = ""
    """Column to predict."""
    positive: str = ""
    """The positive outcome's class, in any spelling (True, 1.0); "" = last sorted."""
    label_map: dict[str, str] = field(default_factory=dict)
    """Spellings of classes to merge, such as {"yes.": "yes"}."""
    label_other: str = ""
    """Class of every label that `label_map` does not name; "" = a class of its own."""
    sensitive: tuple[Name, ...] = ()
    """Columns kept for auditing; out of the model unless `sensitive_in_model`."""
    sensitive_in_model: bool = False
    """Whether sensitive columns are model inputs too."""
    merges: dict[Name, Merge] = field(default_factory=dict)
    """Groups by merged values: name -> {column, values: {old: new}, other}."""
    crosses: dict[Name, tuple[Name, ...]] = field(default_factory=dict)
    """Groups by crossed columns: name -> list of sensitive columns or merges."""
    drop: tuple[Name, ...] = ()
    """Columns that are neither inputs nor audited."""
    ids: tuple[Name, ...] = ()
    """Columns that say which row it is: no inputs, and kept beside a prediction."""
    numeric: tuple[Name, ...] = ()
    """Columns declared numeric; a value that is no number is then an error."""
    categorical: tuple[Name, ...] = ()
    """Columns declared categorical, whatever they hold: names and ids too."""
    numbers: dict[Name, Literal[".", ","]] = field(default_factory=dict)
    """Columns of numbers written as text: name -> decimal sign, found out if clear."""
    dates: dict[Name, Literal["ymd", "dmy", "mdy"]] = field(default_factory=dict)
    """Columns of dates: name -> order of day, month and year, found out if clear."""
    entity: NameOrNone = ""
    """Column that says who a row is about; one row of each is judged; "" = none."""
    drop_duplicates: bool = False
    """Whether equal raw rows are copies of one record, of which the first is kept."""
    columns: tuple[Name, ...] = ()
    """Column names of a file without a header; () = the file has one."""
    missing: tuple[str, ...] = ("", "?", "NA", "N/A", "NaN", "nan", "null", "None")
    """Spellings of a missing value; -999 is -999.0 in a column of numbers too."""
    comment: str = ""
    """Lines that start with this are skipped; "" = none."""
    skip_rows: int = 0
    """Lines skipped at the start of a CSV file: a header that `columns` replaces."""
    delimiter: str = ""
    """What parts the fields of a CSV file; "" = found out: `,`, `;`, tab or `|`."""
    decimal: Literal["", ".", ","] = ""
    """Decimal sign of a CSV file; "" = found out, a comma only beside `;`, tab, `|`."""
    encoding: str = ""
    """Encoding of a CSV file, such as cp1252; "" = UTF-8, or what a mark says."""
    unlabelled: Literal["refuse", "drop"] = "refuse"
    """What happens to rows without a label: an error, or left out and counted."""
    allow_leak: tuple[Name, ...] = ()
    """Inputs that may tell the label by themselves; any other one stops the run."""
    trusted_label: NameOrNone = ""
    """Column of labels known to be right, in rows drawn by chance; "" = none."""
    population: dict[Name, dict[str, float]] = field(default_factory=dict)
    """A group's values and their shares of those whom the rows are about, by name."""
    repeats: dict[Name, Name] = field(default_factory=dict)
    """Inputs measured twice in some rows: name -> column of the second measurement."""
    splits: dict[str, float] = field(default_factory=_default_splits)
    """Fractions of the development rows; add `sealed` without a sealed_source."""
    numeric_bins: int = 25
    """Quantile edges of the piecewise-linear encoding, at most."""
    max_levels: int = 64
    """Most frequent levels kept per categorical column; the rest is pooled."""
    seed: int = 0
    """Seed of the split."""
    engine: Literal["local", "spark"] = "local"
    """Where rows are prepared: here, or on Spark (`SAFESCALE_SPARK`, docs/scale.md)."""

    # Of the same bytes both engines make the same rows: whoever made it, it is one.
    how: ClassVar[frozenset[str]] = frozenset({"engine"})
    later: ClassVar[frozenset[str]] = frozenset(
        {
            "delimiter",
            "decimal",
            "encoding",
            "unlabelled",
            "label_other",
            "allow_leak",
            "ids",
            "numbers",
            "dates",
            "drop_duplicates",
            "trusted_label",
            "population",
            "repeats",
            "images",
            "labels",
            "channels",
        }
    )

    def __post_init__(self) -> None:
        """Checks ranges and that the columns' roles do not collide."""
        self.check_images()
        self.require_seed()
        self.require("numeric_bins", 2 <= self.numeric_bins <= 256, "2 to 256")
        self.require("max_levels", 2 <= self.max_levels <= 4096, "2 to 4096")
        self.require("skip_rows", self.skip_rows >= 0, ">= 0")
        sign = self.delimiter
        fits = not sign or (len(sign) == 1 and sign.isascii() and sign not in '"\r\n')
        self.require("delimiter", fits, "one ASCII character, no quote or line end")
        try:
            "a".encode(self.encoding or "utf-8")
        except LookupError:
            self.require("encoding", False, "a text encoding such as utf-8 or cp1252")
        fits = not self.source_digest or is_digest(self.source_digest)
        self.require("source_digest", fits, "'sha256:' and 64 hex digits")
        names = (*SPLITS, "sealed")
        unknown = [name for name in self.splits if name not in names]
        if unknown:
            raise ConfigError(
                f"data.splits names {unknown[0]!r}, {one_of(names, unknown[0])}."
            )
        empty = [name for name in SPLITS if self.splits.get(name, 0) <= 0]
        if empty:
            raise ConfigError(
                f"data.splits gives {empty[0]!r} no rows; every one of "
                f"{', '.join(SPLITS)} needs a fraction > 0."
            )
        # .6 + .1 + .1 + .1 + .1 is not 1 to a float.
        total = sum(self.splits.values())
        self.require(
            "splits", abs(total - 1) < 1e-6, f"fractions that sum to 1, not {total:g}"
        )
        # Parsed for its errors: a schedule learns of a bad window before its first run.
        Window.parse(self.window)
        # Without a source the section is not complete yet: a workload file and the
        # catalogue fill in the rest.
        cut = self.splits.get("sealed", 0) > 0
        if self.sealed_source and cut:
            raise ConfigError(
                "data.splits.sealed and data.sealed_source are both given; the sealed "
                "rows come from one place, keep one."
            )
        if self.source and not self.sealed_source and not cut:
            raise ConfigError(
                "data has neither a sealed_source nor splits.sealed; give a fraction "
                "such as sealed: 0.3 or an official test file."
            )
        self._check_roles()

    @property
    def references(self) -> tuple[str, ...]:
        """Columns that the audit holds others against, and no model reads."""
        trusted = (self.trusted_label,) if self.trusted_label else ()
        return (*trusted, *self.repeats.values())

    @property
    def named_columns(self) -> frozenset[str]:
        """Names of the raw columns that the section mentions."""
        names = {*self.columns, *self.numeric, *self.numbers, *self.dates}
        names |= {*self.references, *self.repeats}
        return self.text_columns | names | {*self.allow_leak}

    @property
    def text_columns(self) -> frozenset[str]:
        """Names of the raw columns that are no numbers, whatever their texts are."""
        names = {self.label, self.entity, *self.sensitive, *self.drop, *self.ids}
        names.add(self.trusted_label)
        names |= {IMAGE} if self.has_images else set()
        return frozenset({*names, *self.categorical} - {""})

    def _check_roles(self) -> None:
        """Refuses columns with two roles that exclude each other."""
        if self.source and not self.label:
            raise ConfigError("data.label is empty; name the column to predict.")
        roles = {
            "label": {self.label} - {""},
            "drop": set(self.drop),
            "ids": set(self.ids),
            "sensitive": set(self.sensitive),
            "trusted_label": {self.trusted_label} - {""},
            "repeats": {*self.repeats, *self.repeats.values()},
        }
        for first, second in combinations(roles, 2):
            both = roles[first] & roles[second]
            if both:
                # The least name: sets have no order, the same config has one sentence.
                raise ConfigError(
                    f"Column {min(both)!r} is named as data.{first} and as "
                    f"data.{second}; a column has one role."
                )
        repeats = [n for n in self.sensitive if self.sensitive.count(n) > 1]
        if repeats:
            raise ConfigError(f"data.sensitive names {repeats[0]!r} twice.")
        self.check_inputs()
        self.check_references()

    def check_references(self) -> None:
        """Refuses shares that are no population's, and repeats of repeats."""
        if self.entity in self.references:
            raise ConfigError(
                f"Column {self.entity!r} is named as data.entity and as a reference; a "
                "column has one role."
            )
        groups = (*self.sensitive, *self.merges, *self.crosses)
        for name, shares in self.population.items():
            if name not in groups:
                known = f", {one_of(groups, name)}" if groups else ""
                raise ConfigError(
                    f"data.population names {name!r}, which is no group of "
                    f"data.sensitive, data.merges or data.crosses{known}."
                )
            total = sum(shares.values())
            fits = len(shares) > 1 and min(shares.values()) > 0
            if not fits or abs(total - 1) > 1e-3:
                raise ConfigError(
                    f"data.population.{name} must give each of two values or more a "
                    f"share > 0, and the shares must sum to 1; they sum to {total:g}."
                )
        named = [*self.repeats, *self.repeats.values()]
        if twice := [name for name in named if named.count(name) > 1]:
            raise ConfigError(
                f"data.repeats names {min(twice)!r} twice; an input is measured again "
                "in one other column."
            )

    @property
    def has_images(self) -> bool:
        """Whether the rows are images."""
        return self.format in _IMAGES

    def check_images(self) -> None:
        """Refuses keys of tables beside images, and keys of images beside tables."""
        default = DataConfig.__dataclass_fields__
        keys = [*(_OF_TABLES if self.has_images else ("labels", "channels"))]
        keys += ["images"] * (self.format != "npz")
        for key in keys:
            unset = default[key].default, ()
            if (value := getattr(self, key)) not in unset and value != {}:
                raise ConfigError(
                    f"data.{key} is given, and nothing reads it with data.format: "
                    f"{self.format}; leave it out."
                )

    def check_inputs(self) -> None:
        """Refuses columns that are declared to be two things, or none."""
        forms = {*self.numbers, *self.dates}
        # `numeric` and `categorical` may name what is no input: nothing comes of it.
        inputs = {
            "numeric": {*self.numeric, *self.numbers},
            "categorical": {*self.categorical},
            "dates": {*self.dates},
            "label, group or no input": forms
            & (self.text_columns - {*self.categorical}),
        }
        for first, second in combinations(inputs, 2):
            both = inputs[first] & inputs[second]
            if both:
                raise ConfigError(
                    f"Column {min(both)!r} is declared {first} and {second}."
                )


_COUNTS = (
    "candidates",
    "rung_steps",
    "rungs",
    "population",
    "max_parameters",
    "power_draws",
    "threads",
)
# Keys of the search that not every strategy reads. Elsewhere only the default is
# accepted, as with the names below: a number that nobody reads is no setting.
_READ_BY = {
    "population": ("ageing",),
    "sample": ("ageing",),
    "architecture_mutation_rate": ("local", "ageing"),
}


@dataclass(frozen=True)
class SearchConfig(Section):
    """How architectures are searched, and the power check before it."""

    strategy: Literal["local", "ageing", "random"] = "local"
    """Where new genomes come from: the best, ageing evolution, or chance."""
    control: Literal["none", "random"] = "none"
    """A random search beside it, at the same cost again, to tell gain from chance."""
    candidates: int = 9
    """Genomes that the search may try; a control tries as many more."""
    rung_steps: int = 80
    """Steps of the first rung."""
    eta: int = 3
    """ASHA: one in `eta` goes on to a rung of `eta` times the steps."""
    rungs: int = 2
    """Number of rungs."""
    population: int = 6
    """Strategy ageing: genomes alive, the youngest (Real et al. 2019)."""
    sample: int = 3
    """Strategy ageing: tournament size."""
    architecture_mutation_rate: float = 0.1
    """Strategies local and ageing: probability that a gene mutates."""
    complexity_weight: float = 0.002
    """l1 in F = loss + l1 log(FLOP / FLOP_ref) + l2 violations."""
    violation_weight: float = 1.0
    """l2 in F."""
    max_parameters: int = 2_000_000
    """Genomes above this are never tried."""
    power_draws: int = 2000
    """Simulated sealed sets per cell of the power check."""
    feasibility_steps: int = 150
    """Steps of the relaxed run that names fighting principles; 0 = skip it."""
    threads: int = 1
    """CPU threads of a candidate's training."""
    seed: int = 0
    """Seed of the search and of the power check."""

    # A control is no part of the search that it measures: the genome is the same.
    how: ClassVar[frozenset[str]] = frozenset({"control"})
    later: ClassVar[frozenset[str]] = frozenset({"strategy"})

    def __post_init__(self) -> None:
        """Checks ranges, and that the strategy reads what was set for it."""
        self.require_seed()
        self.require_positive(*_COUNTS)
        # If one in one goes on, a rung selects nothing.
        self.require("eta", self.eta >= 2, "a whole number >= 2")
        # A tournament draws without replacement.
        self.require("sample", 1 <= self.sample <= self.population, "1 to population")
        self.require_fraction("architecture_mutation_rate")
        for key in ("feasibility_steps", "complexity_weight", "violation_weight"):
            self.require(key, getattr(self, key) >= 0, ">= 0")
        twice = self.strategy == self.control
        self.require("control", not twice, "none where strategy is random already")
        # With fewer, every genome stays alive to the end: nothing would ever age.
        if self.strategy == "ageing":
            grows = self.candidates > self.population
            least = f"more than search.population ({self.population}) to age"
            self.require("candidates", grows, least)
        for key, strategies in _READ_BY.items():
            default = self.__dataclass_fields__[key].default
            read = self.strategy in strategies or getattr(self, key) == default
            known = " or ".join(strategies)
            self.require(key, read, f"{default}: only strategy {known} reads it")


_POSITIVE = (
    "steps",
    "batch_size",
    "learning_rate",
    "sync_every",
    "dual_every",
    "outer_learning_rate",
    "gradient_stability_threshold",
    "memory_threshold",
    "threads",
)
_FRACTIONS = (
    "ema",
    "self_weight",
    "dual_nu",
    "outer_momentum",
    "safety_threshold",
    "bias_tolerance",
    "memory_threshold",
    "architecture_mutation_rate",
)
_NOT_NEGATIVE = (
    "max_epochs",
    "patience",
    "warmup_steps",
    "dual_ki",
    "dual_kp",
    "evolution_frequency",
    "tpu_pods",
    "checkpoint_every",
)


# What trees do not read; they refuse it, so that no number looks obeyed.
_NETS_ALONE = (
    *(
        "max_epochs",
        "budget_seconds",
        "patience",
        "batch_size",
        "optimizer",
        "learning_rate",
        "schedule",
        "warmup_steps",
        "ema",
        "sync_every",
    ),
    *("self_weight", "sharing", "outer_learning_rate", "outer_momentum"),
    *("safety_threshold", "gradient_stability_threshold", "backend"),
    *("monitor", "monitor_alpha", "tune", "branch"),
)
_RANGES = ("tune_learning_rate", "tune_weight_decay", "tune_dual_rate")
_TUNING = ("tune_budget", "tune_every", *_RANGES, "tune_also")
TUNED_TOO = ("batch_size", "roles", "self_weight")
"""What tunes itself only where `tune_also` names it."""
LEAST_TRUNK = 10
"""Steps of a trunk that candidates can race for."""
LEAST_BUDGET_STEPS = 20
"""A budget that is fewer steps is refused."""
_OF_MODEL = ("model_encoding", "model_files", "model_digest", "model_package")
"""Keys that say what `model` alone is asked."""
AUTO_AGENTS = (4, 8, 16)
"""Numbers of agents that `num_agents: auto` tries in turn."""

AUTO_BRANCH = 0.75
"""Share that `branch: auto` stands for."""


class Threshold(TypedDict, total=False):
    """How the decision threshold is chosen; empty: one half."""

    objective: Literal["balanced_accuracy", "cost"]
    false_negative: float
    false_positive: float


@dataclass(frozen=True)
class TrainingConfig(Section):
    """How the agents are trained."""

    learner: Literal["nets", "trees"] = "nets"
    """What the agents are: nets, or boosted trees (LightGBM, safescale-ammt[trees])."""
    model: str = ""
    """Your own torch module in place of a searched net: package.module:function, which
    is given the rows' format and returns a module (docs/own_models.md); "" = none."""
    model_encoding: Literal["standard", "ple"] = "standard"
    """Numbers as your module reads them: standardised, or piecewise linear."""
    model_files: tuple[str, ...] = ()
    """Files of text that your package reads, as patterns below it."""
    model_digest: str = ""
    """Digest of your package's code; "" = the command line finds the package and fills
    it in. If you give it, the code is in the image."""
    model_package: str = ""
    """The packed code, which the command line fills in; "" = it is in the image."""
    num_agents: int | Literal["auto"] = 8
    """Agents trained together (any k >= 1); auto = 4, then twice as many up to 16
    while held-out rows could tell the difference."""
    agent_specializations: tuple[str, ...] = (
        "generalist",
        "safety",
        "minority",
        "efficiency",
    )
    """Roles, dealt out to the agents in turn."""
    max_epochs: int = 0
    """Upper bound on passes over the training rows, those of the trunk among them; 0 =
    `steps` alone decides. Of fewer steps each phase, warm-up, average, sharing and
    multipliers, keeps its share."""
    budget_seconds: float = 0.0
    """Seconds that training may take, merging included: a probe at its start says how
    many steps they are, and each phase keeps its share; 0 = `steps` decides."""
    budget_steps: int = 0
    """Steps that a budget was found to be, as `training.jsonl` tells, so that another
    run has the same length; 0 = the probe says."""
    patience: int = 0
    """Looks at held-out rows, one every five updates of the multipliers, after which
    training ends if neither loss nor violation gets better; 0 = it takes all steps."""
    steps: int = 1200
    """Optimizer steps of each agent, the common trunk included; with trees the whole
    of the rounds, of which trunk_steps and dual_every are parts."""
    trunk_steps: int = 400
    """Unconstrained steps that all agents share before they specialise; trees take
    this part of their rounds without constraints."""
    branch: float | Literal["auto"] = "auto"
    """Share of all agents' steps together (of one net's with max_epochs) that the trunk
    may take while *validation* shows a gain; each agent takes its part of the rest. 0 =
    trunk_steps; auto = .75, and 0 with promises, several num_agents, or tune."""
    batch_size: int = 512
    """Rows per agent and step."""
    optimizer: Literal["adam", "muon"] = "adam"
    """What moves the weights: Adam, or Muon (Jordan et al. 2024) for the matrices of
    hidden layers, in steps as long as Adam's, and Adam for the rest."""
    learning_rate: float = 0.0015
    """Peak learning rate; it falls after the warm-up."""
    schedule: Literal["cosine", "linear"] = "cosine"
    """How the learning rate falls to 0: by half a cosine, or in a line."""
    warmup_steps: int = 50
    """Steps of linear warm-up."""
    ema: float = 0.99
    """Decay of the weight average."""
    sync_every: int = 20
    """Steps between sync rounds (H)."""
    self_weight: float = 0.9
    """alpha of the sharing rule: 1 = independent, 0 = local SGD."""
    sharing: Literal["mean", "fitness", "trimmed_mean", "median"] = "mean"
    """The aggregate A of a sync round."""
    outer_learning_rate: float = 1.0
    """Learning rate of the outer optimizer."""
    outer_momentum: float = 0.0
    """Nesterov momentum of the outer optimizer (DiLoCo: .9 at rate .7)."""
    dual_every: int = 20
    """Steps between updates of the multipliers; with trees a part of `steps`."""
    dual_ki: float = 0.3
    """Integral gain of nuPI (Sohrabi et al. 2024)."""
    dual_kp: float = 3.0
    """Proportional gain of nuPI."""
    dual_nu: float = 0.9
    """Smoothing of the error in nuPI."""
    folds: int = 8
    """Folds of the cross-fitted hard rates, at most one held out per agent."""
    merge: Literal["auto", "soup", "ensemble", "best", "refined", "distilled"] = "auto"
    """How agents become one model; auto = soup, best or ensemble, whichever wins on
    *select*; refined = the soup, trained on for as many steps as an agent; distilled =
    the same, learning what all agents say beside the labels."""
    threshold: Threshold = field(default_factory=Threshold)
    """Decision threshold of two classes, chosen on *select*: {} = one half,
    {objective: balanced_accuracy}, or {objective: cost, false_negative: 5,
    false_positive: 1}."""
    tune: Literal["none", "population"] = "none"
    """Whether learning rate, weight decay and dual rate tune themselves: candidates
    race for the trunk, then agents take up what does well on *validation*."""
    tune_budget: int = 3000
    """Steps of single nets that the race for the trunk may take in all."""
    tune_every: int = 40
    """Steps after the trunk between two rounds of tuning the agents."""
    tune_learning_rate: tuple[float, ...] = (1e-5, 1.0)
    """Least and greatest learning rate that is tried, peaks of the same schedule."""
    tune_weight_decay: tuple[float, ...] = (1e-5, 1.0)
    """Least and greatest decoupled decay that is tried, per unit of rate."""
    tune_dual_rate: tuple[float, ...] = (0.5, 2.0)
    """Least and greatest factor on what an agent sees of the multipliers."""
    tune_also: tuple[str, ...] = ()
    """What tunes itself besides: batch_size before the trunk; roles and self_weight of
    each agent, by what it gives the soup."""
    monitor: Literal["correct", "observe", "none"] = "correct"
    """Bets on fresh rows of split *monitor* that a promise is broken; correct = an
    alarm sets off corrections, and in the end a person is asked."""
    monitor_alpha: float = 0.01
    """Chance of any alarm in a training whose gaps are always within their tau."""
    safety_threshold: float = 0.95
    """Confidence at which an agent is barred from teaching for its violation."""
    bias_tolerance: float = 0.0
    """Extra slack on every enforced gap in training, a fraction; the gate has none."""
    human_oversight_enabled: bool = True
    """Whether `train_model` asks for a person where a promise is undecided; a gate
    leaves it pending either way."""
    precision_switching_enabled: bool = False
    """Modules: precision by memory pressure and gradients (docs/python_api.md)."""
    mixed_precision: bool = False
    """Modules: bf16 autocast, where a probe finds it at least 5 % faster."""
    gradient_checkpointing: bool = False
    """Modules: activations are recomputed on the way back, which takes less memory."""
    memory_threshold: float = 0.9
    """Used / total memory above which precision switching wants int8."""
    gradient_stability_threshold: float = 1000.0
    """Gradient norm above which an agent's step is skipped and logged; of modules the
    gradient is cut to it."""
    architecture_mutation_rate: float = 0.1
    """Of live evolution, which no nets have: said once if given (see search)."""
    evolution_frequency: int = 0
    """Steps between live morphisms, which no nets have: said once if given."""
    tpu_pods: int = 0
    """TPU pods that are wished for; what is not there is said once."""
    device: Literal["auto", "tpu", "cuda", "xpu", "mps", "cpu"] = "auto"
    """Where nets and modules train; auto = the first of these that is there (nets of a
    table leave a TPU, and a GPU of Apple's that is not named, alone)."""
    execution: Literal["loop", "auto", "stacked"] = "loop"
    """Modules: one after another, stacked in one program, or what a probe finds faster
    (the choice is logged: bits depend on it)."""
    changed_copies: int = 0
    """Copies of each training row, changed as a promise of robust_accuracy on the table
    permits; 0 = none."""
    sensitive: tuple[Name, ...] = ()
    """Modules: names of the groups that a dataset's third tensor holds, in order."""
    threads: int = 1
    """CPU threads; part of the config because sums depend on it."""
    seed: int = 0
    """Seed of weights, batches and dropout."""
    backend: Literal["local", "torchrun", "trainjob"] = "local"
    """Where training runs: in the stage, in processes beside it, in a TrainJob."""
    processes: int = 1
    """Processes that the nets are spread over; 1 with backend local."""
    nodes: int = 1
    """Pods of a TrainJob that share the processes evenly; 1 with other backends."""
    runtime: str = "safescale-torch"
    """TrainingRuntime of a TrainJob."""
    queue: str = ""
    """Kueue LocalQueue of a TrainJob; "" = none."""
    restarts: int = 2
    """Times that processes or a TrainJob which were lost begin again, from their
    checkpoint."""
    checkpoint_every: int = 0
    """Sync rounds between checkpoints; 0 = by the clock, a fiftieth of the time, where
    there is a place for them."""

    # Any backend and any number of processes trains the same bits (docs/decisions.md,
    # 30 and 31). `threads` is not among them: sums depend on it.
    how: ClassVar[frozenset[str]] = frozenset(
        {
            "backend",
            "processes",
            "nodes",
            "runtime",
            "queue",
            "restarts",
            "checkpoint_every",
            # The digest says which code it is, however it travels.
            "model_package",
            "model_files",
        }
    )
    later: ClassVar[frozenset[str]] = frozenset(
        {
            "threshold",
            "device",
            "execution",
            "sensitive",
            "monitor",
            "monitor_alpha",
            "learner",
            "patience",
            "budget_seconds",
            "budget_steps",
            "branch",
            "tune",
            *_TUNING,
            "model",
            "model_encoding",
            "model_digest",
            "optimizer",
            "schedule",
            "changed_copies",
        }
    )

    def branch_share(self, *, judged: bool) -> float:
        """Returns the share of the trunk, 0 if it takes `trunk_steps` alone.

        Args:
            judged: whether rates on the folds that agents set aside steer or decide:
                a long trunk has learnt these rows.
        """
        if self.branch != "auto":
            return self.branch
        fixed = judged or self.tune != "none" or self.learner == "trees"
        return 0.0 if fixed else AUTO_BRANCH

    @property
    def agent_counts(self) -> tuple[int, ...]:
        """Numbers of agents to train, in turn until one is enough."""
        return AUTO_AGENTS if self.num_agents == "auto" else (self.num_agents,)

    def __post_init__(self) -> None:
        """Checks types and ranges; lists become tuples."""
        self.bring_to_types()
        self.require_seed()
        known = all(1 <= k <= 256 for k in self.agent_counts)
        self.require("num_agents", known, "1 to 256, or auto")
        roles = self.agent_specializations
        self.require("agent_specializations", bool(roles), "at least one role")
        for role in roles:
            require_role(role)
        self.require_positive(*_POSITIVE)
        self.require("trunk_steps", 0 <= self.trunk_steps <= self.steps, "0 to steps")
        known = self.branch == "auto" or 0 <= self.branch < 1
        self.require("branch", known, "auto, 0, or a share below 1")
        self.require("folds", self.folds >= 2, "a whole number >= 2")
        self.require_fraction(*_FRACTIONS)
        self.require("monitor_alpha", 0 < self.monitor_alpha < 1, "above 0, below 1")
        for key in _NOT_NEGATIVE:
            self.require(key, getattr(self, key) >= 0, "a value >= 0")
        for key in _NETS_ALONE if self.learner == "trees" else ():
            default = self.__dataclass_fields__[key].default
            unset = f"{default!r} with trees, which do not read it"
            self.require(key, getattr(self, key) == default, unset)
        alone = self.learner == "nets" or self.merge not in ("refined", "distilled")
        self.require("merge", alone, "another with trees, whose soup cannot learn on")
        self._check_model()
        counted = self.learner == "nets" or self.num_agents != "auto"
        self.require("num_agents", counted, "a number with learner: trees")
        self._check_tuning()
        costs = [v for k, v in self.threshold.items() if k != "objective"]
        wanted = {None: 0, "balanced_accuracy": 0, "cost": 2}
        right = wanted[self.threshold.get("objective")] == len(costs)
        ways = "{}, {objective: balanced_accuracy} or {objective: cost, "
        ways += "false_negative: 5, false_positive: 1} with costs > 0"
        right &= all(isinstance(c, float) and c > 0 for c in costs)
        self.require("threshold", right, ways)
        # Whole nets are dealt out to processes; a process without one would only wait.
        nets = self.agent_counts[0] + 1
        fits = f"1 to {nets}, a net for each: {nets - 1} agents and the twin"
        self.require("processes", 1 <= self.processes <= nets, fits)
        alone = self.backend != "local" or self.processes == 1
        self.require("processes", alone, "1 with backend local; set backend: torchrun")
        even = self.nodes >= 1 and self.processes % self.nodes == 0
        self.require(
            "nodes", even, f"a divisor of training.processes ({self.processes})"
        )
        together = self.backend == "trainjob" or self.nodes == 1
        self.require("nodes", together, "1 without backend: trainjob")
        self.require("runtime", is_label(self.runtime), "a Kubernetes name")
        named = not self.queue or is_label(self.queue)
        self.require("queue", named, "a Kubernetes name")
        # What nobody reads is no setting: it would look obeyed.
        own = type(self)
        for key, unused in (("queue", ""), ("runtime", own.runtime)):
            read = self.backend == "trainjob" or getattr(self, key) == unused
            self.require(key, read, f"{unused!r} without backend: trainjob")
        alone = self.backend != "local" or self.restarts == own.restarts
        self.require("restarts", alone, f"{own.restarts} with backend: local")
        for key, most in (("restarts", 100), ("changed_copies", 16)):
            self.require(key, 0 <= getattr(self, key) <= most, f"0 to {most}")

    def _check_tuning(self) -> None:
        """Refuses budgets that are none, ranges without a range, and idle numbers."""
        budget = 0 <= self.budget_seconds < float("inf")
        self.require("budget_seconds", budget, "seconds, or 0 for no budget")
        known = self.budget_steps == 0 or self.budget_steps >= LEAST_BUDGET_STEPS
        known = known and (self.budget_steps == 0 or self.budget_seconds > 0)
        least = f"0, or {LEAST_BUDGET_STEPS} or more beside training.budget_seconds"
        self.require("budget_steps", known, least)
        for key in _RANGES:
            ends = getattr(self, key)
            ranged = len(ends) == 2 and 0 < ends[0] < ends[1]
            self.require(key, ranged, "two numbers, 0 < least < greatest")
        self.require_positive("tune_budget", "tune_every")
        distinct = len(set(self.tune_also)) == len(self.tune_also)
        known = distinct and set(self.tune_also) <= {*TUNED_TOO}
        self.require("tune_also", known, f"each of {', '.join(TUNED_TOO)} at most once")
        for key in _TUNING if self.tune == "none" else ():
            default = self.__dataclass_fields__[key].default
            unset = f"{default!r} without tune: population, which alone reads it"
            self.require(key, getattr(self, key) == default, unset)
        if self.tune == "population":
            least = f"{LEAST_TRUNK} or more with tune: population, which races for it"
            self.require("trunk_steps", self.trunk_steps >= LEAST_TRUNK, least)

    def _check_model(self) -> None:
        """Refuses a model that is none, and what belongs to none."""
        if not self.model:
            for key in _OF_MODEL:
                default = self.__dataclass_fields__[key].default
                unset = "nothing where training.model is empty"
                self.require(key, getattr(self, key) == default, unset)
            return
        name = "package.module:function, such as my_package.my_module:build"
        self.require("model", is_entry(self.model), name)
        self.require("learner", self.learner == "nets", "nets with training.model")
        known = not self.model_digest or is_digest(self.model_digest)
        self.require("model_digest", known, "sha256:... of the package, or nothing")
        # What a clock chooses in each process might differ from one to the next.
        alone = self.processes == 1 or self.execution == "loop"
        self.require("execution", alone, "loop where training.processes is over 1")
        for key in ("mixed_precision", "precision_switching_enabled"):
            alone = self.processes == 1 or not getattr(self, key)
            self.require(key, alone, "False where training.processes is over 1")


class SliceSearch(TypedDict, total=False):
    """How groups that nobody named are looked for; what is absent has its default."""

    most: int
    conditions: int
    fdr: float


SLICES = SliceSearch(most=20, conditions=2, fdr=0.1)
"""What `safety.slices: {}` stands for."""


@dataclass(frozen=True)
class SafetyConfig(Section):
    """How the model is judged."""

    rehearse: bool = False
    """Judge on *select*: no use counted, nothing registered."""
    ledger: Literal["official", "research", "benchmark"] = "official"
    """What a use counts for; only official verdicts can be registered."""
    calibration_bins: int = 15
    """Bins of the reliability curve."""
    slices: SliceSearch = field(default_factory=SliceSearch)
    """Groups that nobody named, looked for by up to so many conditions on columns and
    reported, never promised: most of them that are tested (0 = no search), and the
    false discovery rate. {} = {most: 20, conditions: 2, fdr: 0.1}."""

    later: ClassVar[frozenset[str]] = frozenset({"slices"})

    @property
    def searched(self) -> SliceSearch:
        """The search for slices, with its defaults filled in."""
        return {**SLICES, **self.slices}

    def __post_init__(self) -> None:
        """Checks ranges."""
        asked = self.searched
        known = 0 <= asked["most"] <= 100 and 1 <= asked["conditions"] <= 2
        ways = "most from 0 to 100, conditions 1 or 2, fdr above 0 and below 1"
        self.require("slices", known and 0 < asked["fdr"] < 1, ways)
        self.require("calibration_bins", 2 <= self.calibration_bins <= 100, "2 to 100")


_MOST_DAYS = 36_500  # of a lock: a hundred years


@dataclass(frozen=True)
class RegistryConfig(Section):
    """Where the model is registered."""

    name: str = "model"
    """Registered model's name: letters, digits, '-' and '.'."""
    description: str = ""
    """One line for the model card."""
    run_owner: str = ""
    """Who answers for the run: an approver's name or public key; may not approve it."""
    record_retention_days: int = 0
    """Days for which the store locks the record, by S3 object lock; 0: it does not."""
    later: ClassVar[frozenset[str]] = frozenset({"run_owner", "record_retention_days"})

    def __post_init__(self) -> None:
        """Checks name, owner and days."""
        fits = 0 <= self.record_retention_days <= _MOST_DAYS
        self.require("record_retention_days", fits, f"0 to {_MOST_DAYS:,} days")
        letters = set("abcdefghijklmnopqrstuvwxyz0123456789-.")
        fits = bool(self.name) and set(self.name) <= letters and len(self.name) <= 63
        self.require(
            "name",
            fits and self.name[0] not in "-." and self.name[-1] not in "-.",
            "1 to 63 lower-case letters, digits, '-' or '.'",
        )
        # An owner in another spelling would be nobody, and so independent of the run.
        owner = self.run_owner
        seen = owner == owner.strip() and not unseen_in(owner)
        self.require("run_owner", seen, "a name as people see it, no spaces around it")
        if owner.casefold().startswith(PREFIX):
            try:
                key_bytes(self.run_owner)
            except ValueError as error:
                raise ConfigError(
                    f"registry.run_owner is {self.run_owner!r}, which {error}."
                ) from None


SECTIONS: dict[str, type[Section]] = {
    cls.section: cls
    for cls in (DataConfig, SearchConfig, TrainingConfig, SafetyConfig, RegistryConfig)
}
"""Section name -> dataclass, in the order of the pipeline."""
