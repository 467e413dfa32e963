"""The study: one typed object that validates, documents, prints and reproduces a run.

Unknown keys are errors, so that a misspelt one is never silently ignored.
"""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, ValidationError, field_validator, model_validator

from unifeat.errors import did_you_mean
from unifeat.study.brought import NO_FILE, BroughtSpec, Labels, is_brought
from unifeat.study.families import Compared, FamiliesSpec, Star
from unifeat.study.measures import Measures, MetricSpec
from unifeat.study.mistakes import explain
from unifeat.study.presets import expand
from unifeat.study.text import TextSpec
from unifeat.study.training import TrainOverride, TrainSpec
from unifeat.study.transfer import TransferSpec
from unifeat.study.values import Part, Seed, Text, memory
from unifeat.vocabulary.bounds import LARGEST_COUNT, LARGEST_WIDTH
from unifeat.vocabulary.hook_points import HookKind
from unifeat.vocabulary.masks import Mask
from unifeat.vocabulary.openings import Chat

# The published code calls these junk words: a pair with one of them among its top tokens is not about a concept.
NON_CONCEPT_TOKENS = ("", " ", "\n", "\\n", ".", ",", "!", "?", "-", "<bos>", "<|endoftext|>", "|bos|")
LAYER = "{layer}"  # stands for the layer in an SAE's name


class ModelSpec(Part):
    """A language model from transformers."""

    name: Text = Field(description="hub name, local folder, or GGUF file")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="auto is bfloat16 on CUDA and float32 on a CPU"
    )
    revision: Text | None = Field(None, description="branch, tag or commit on the hub, such as step3000 of Pythia")
    device: Text = Field("auto", description="auto, cpu, cuda, cuda:1 …; map spreads the model over all devices")
    max_memory: dict[int | str, int | str] | None = Field(
        None, description="for map: bytes or 20GiB per CUDA device number and for cpu; the rest goes to the disk"
    )
    bos: Literal["auto"] | bool = Field(
        "auto", description="begin windows with BOS; auto does as the tokenizer or the chat template does"
    )
    chat: Chat = Field(
        "none", description="user, assistant or system: each window is such a message in the tokenizer's chat template"
    )
    trust_remote_code: bool = Field(
        False, description="run the model's own code, from its folder or repository: only if you trust it"
    )
    randomise: Seed | None = Field(
        None, description="a control: redraw all weights with this seed, keeping each tensor's mean and spread"
    )

    @field_validator("bos", mode="before")
    @classmethod
    def _auto_or_not(cls, value: Any) -> Any:
        if value != "auto" and not isinstance(value, bool):
            raise ValueError("give auto, true or false")
        return value

    @field_validator("max_memory", mode="before")
    @classmethod
    def _amounts(cls, value: Any) -> Any:
        return memory(value)

    @model_validator(mode="after")
    def _memory_is_for_map(self) -> ModelSpec:
        if self.max_memory and self.device != "map":
            raise ValueError("max_memory is for device: map")
        return self


class SpacesSpec(Part):
    """Spaces of one model: a layer, or several, each with its SAE."""

    model: Text = Field(description="name of the model in this study")
    layers: list[int] = Field(min_length=1, description="blocks, counted from 0; layer L is the output of block L")
    sae: Text = Field(
        description="release/sae_id, folder or file, ORG/NAME/folder on the hub; {layer} stands for the layer"
    )
    format: Text = Field("auto", description="format of the SAE's files (docs/saes.md); auto recognises it")
    hook: HookKind = Field(
        "resid_post",
        description="resid_post, resid_pre, resid_mid, attn_z, attn_out, ln2_normalized, mlp_in or mlp_out",
    )
    name: Text | None = Field(None, description="prefix of the spaces' names, if not the model's name")
    codes: Literal["output", "pre_activation", "before_topk"] = Field(
        "output",
        description="the SAE's output, or relu of its encoder before any top-k (dense); before_topk is the latter for "
        "TopK SAEs and the former for others, as published",
    )
    values: Literal["float32", "float16"] = Field(
        "float32", description="how activations are stored: float16 takes half the disk, with three decimal digits"
    )
    random_directions: Seed | None = Field(
        None, description="a control: redraw the SAE's directions with this seed, keeping their lengths"
    )
    labels: Labels = Field(
        "automatic",
        description="names of features: a source's folder of a Neuronpedia export, or .csv, .tsv, .parquet, .jsonl; "
        "{layer} stands for the layer; features without one get a label made from their contexts; off: none",
    )
    train: TrainOverride | None = Field(None, description="settings of `train` that differ for these SAEs")

    @field_validator("layers", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        if not isinstance(value, int | list) or isinstance(value, bool):
            raise ValueError("give the number of a block, or a list of them")
        return [value] if isinstance(value, int) else value

    @field_validator("sae", "labels")
    @classmethod
    def _nothing_but_layer(cls, value: str) -> str:
        if set(value.replace(LAYER, "")) & {"{", "}"}:
            raise ValueError(f"{value!r}: only {LAYER} can be in braces")
        parts = value.split("/")
        below = next((i for i, part in enumerate(parts) if part not in (".", "..")), len(parts))
        if ".." in parts[below:]:
            raise ValueError(f"{value!r}: .. can only be at the beginning")
        return value

    @property
    def prefix(self) -> str:
        """The group of spaces that these are: their names are `prefix@layer`."""
        return self.name or self.model

    def sae_at(self, layer: int) -> str:
        """The SAE's name at a layer."""
        return self.sae.replace(LAYER, str(layer))

    def labels_at(self, layer: int) -> str | None:
        """Where the names of a layer's features are; None if none are given."""
        return None if self.labels in NO_FILE else self.labels.replace(LAYER, str(layer))


class MatchingSpec(Part):
    """How features are paired."""

    method: Literal["max", "mutual", "one-to-one", "assignment", "csls", "first-seen"] = "mutual"
    direction: Literal["a_to_b", "b_to_a"] = Field("a_to_b", description="for max and first-seen: whose best partner")
    by: Literal["correlation", "within_token"] = Field(
        "correlation", description="what pairs are found by: r, or r within rows of the same pair of tokens"
    )
    top: int = Field(4, ge=1, le=1000, description="best partners kept per feature, in both directions: the candidates")
    min_correlation: float = Field(0.1, ge=-1, le=1, description="pairs at or below it are dropped")
    min_count: int = Field(10, ge=0, le=LARGEST_COUNT, description="features firing on fewer tokens are dropped")
    top_tokens: int = Field(5, ge=1, le=10, description="top activating tokens that the token filters compare")
    exclude_tokens: list[str] = Field(
        list(NON_CONCEPT_TOKENS), description="pairs with one of these among their top tokens are dropped"
    )
    shared_top_token: bool = Field(False, description="drop pairs whose top tokens have none in common")
    device: Literal["cpu", "cuda"] = Field("cpu", description="where all pairs of features are correlated")
    heldout: bool = Field(True, description="find pairs on half the documents, report their r on the other half")

    @model_validator(mode="after")
    def _within_runs_on_the_cpu(self) -> MatchingSpec:
        if self.by == "within_token" and self.device != "cpu":
            raise ValueError("by: within_token runs on the cpu: leave out device")
        return self


class SubspacesSpec(Part):
    """Sets of features with a meaning: categories of words, and which features belong to each."""

    categories: Text = Field("paper", description="YAML file of word lists, `paper` (its eight lists), or `wordnet`")
    only: list[Text] | None = Field(None, description="use only these categories")
    top_tokens: int = Field(5, ge=1, le=10, description="top activating tokens of a feature that are compared")
    at_least: int = Field(2, ge=1, le=10, description="how many of them must be words of the category")
    window: int = Field(0, ge=0, le=1000, description="tokens on either side whose words count too")
    control_lists: int = Field(
        1, ge=0, le=1000, description="lists of random words of the same frequency, per category"
    )
    subsets: int = Field(
        200, ge=0, le=1_000_000, description="random sets of pairs, of the same size and firing frequency: the null"
    )
    geometry: Measures | None = Field(None, description="measures for the categories, if not those of the study")

    @model_validator(mode="after")
    def _can_be_reached(self) -> SubspacesSpec:
        if self.at_least > self.top_tokens:
            raise ValueError(f"at_least = {self.at_least} cannot be reached with top_tokens = {self.top_tokens}")
        return self


class InferenceSpec(Part):
    """Nulls and intervals."""

    permutations: int = Field(
        200, ge=0, le=1_000_000, description="shuffles of which row goes with which, within the kept pairs"
    )
    strata: Literal["frequency", "token_share", "both"] | None = Field(
        None,
        description="also shuffle within strata of pairs: that fire as often (frequency), that are as much their "
        "tokens' (token_share), or both",
    )
    rematches: int = Field(0, ge=0, le=10_000, description="times the matching is redone on other text")
    rematch_by: Literal["documents", "rotation"] = Field(
        "documents", description="other text: another document of like length, or the text shifted by documents"
    )
    same_token: int = Field(
        0, ge=0, le=10_000, description="times the matching is redone with rows permuted among those of the same token"
    )
    same_two_tokens: int = Field(
        0, ge=0, le=10_000, description="the same among rows whose token before is the same, too"
    )
    enough: int | None = Field(
        10,
        ge=1,
        le=10_000,
        description="draws of these nulls that reach a score, after which its test is settled and drawing can stop; "
        "null: all draws are made",
    )
    bootstraps: int = Field(
        200, ge=0, le=10_000, description="resampled documents, for intervals of r and of match rates"
    )
    subsamples: int = Field(60, ge=0, le=100_000, description="halves of the pairs, for intervals of the geometry")
    level: float = Field(0.95, gt=0, lt=1, description="confidence level of the intervals")
    clusters: float | None = Field(
        0.7,
        gt=0,
        le=1,
        description="pairs whose decoder rows or codes are at least this alike on one side are near-copies: intervals "
        "draw them together, and a test shuffles whole clusters of them; null counts every pair as independent",
    )
    equivalence: float | None = Field(
        0.05,
        gt=0,
        le=1,
        description="a score this near to the mean of its shuffles is no more than chance, or off",
    )
    device: Literal["cpu", "cuda"] = Field("cpu", description="where the shuffles of rsa and cka run")

    @field_validator("equivalence", mode="before")
    @classmethod
    def _off(cls, value: Any) -> Any:
        if value is False or value == "off":
            return None
        if isinstance(value, bool | str):
            raise ValueError("give a number, or off")
        return value


class ActivationsSpec(Part):
    """The models' own activations, beside codes and decoder rows."""

    rows: int = Field(16_384, ge=64, le=LARGEST_WIDTH, description="about how many tokens' activations are kept")
    dims: int = Field(64, ge=1, le=100_000, description="components of SVCCA and of held-out CCA")


_DEFAULT_METRICS = [
    MetricSpec(metric="svcca", settings={"dims": 64}),
    MetricSpec(metric="rsa", settings={"inner": "cosine", "outer": "spearman"}),
    MetricSpec(metric="cka"),
]


ENCODED, BROUGHT = "encoded", "brought"
Entry = Annotated[
    Annotated[SpacesSpec, Tag(ENCODED)] | Annotated[BroughtSpec, Tag(BROUGHT)],
    Discriminator(lambda entry: BROUGHT if is_brought(entry) else ENCODED),
]
"""Spaces of one model, or a space that is brought."""


class Study(Part):
    """Text, models, spaces, how to match, and what to compare."""

    name: str = Field("study", pattern=r"^[A-Za-z0-9._-]+$", max_length=200, description="name of the run's folder")
    preset: Literal["arxiv-2410.06981"] | None = Field(
        None, description="use the choices of a published study, except where this study sets its own"
    )
    text: TextSpec
    models: dict[Text, ModelSpec] = Field(default_factory=dict, description="the models that are run, by name")
    spaces: Annotated[list[Entry], Field(min_length=1)]
    compare: Compared | None = Field(
        None,
        description="pairs of groups of spaces (name prefixes) or of single spaces (smollm2@15) to compare; or "
        "{star: name}: that one with all others; all pairs of different groups if left out",
    )
    matching: MatchingSpec = MatchingSpec()
    geometry: Measures = _DEFAULT_METRICS
    inference: InferenceSpec = InferenceSpec()
    mask: Mask = Mask()
    subspaces: SubspacesSpec | None = None
    activations: ActivationsSpec | None = Field(
        None, description="compare the models' activations, too, and keep a sample of them for this"
    )
    families: FamiliesSpec | None = Field(None, description="group the features of three spaces or more into families")
    transfer: TransferSpec | None = Field(
        None, description="run models on each other's features; needs the sample of activations"
    )
    published: Literal["arxiv-2410.06981"] | None = Field(
        None, description="show the numbers of that publication beside the run's own"
    )
    train: TrainSpec | None = None
    seed: Seed = 0

    @model_validator(mode="before")
    @classmethod
    def _with_preset(cls, data: Any) -> Any:
        return expand(data)

    @field_validator("name")
    @classmethod
    def _names_a_folder(cls, value: str) -> str:
        if not value.strip("."):
            raise ValueError(f"{value!r} cannot be a folder's name")
        return value

    @model_validator(mode="after")
    def _names_agree(self) -> Study:
        for spaces in self.encoded:
            if spaces.model not in self.models:
                near = did_you_mean(spaces.model, self.models)
                raise ValueError(f"spaces name the model {spaces.model!r}, which is not under models{near}")
        groups = {s.prefix for s in self.spaces}
        names = Counter(self.space_names)
        twice = sorted(name for name, times in names.items() if times > 1)
        if twice:
            raise ValueError(f"two spaces are called {twice[0]}: give one group of spaces another name")
        pairs = self.compare if isinstance(self.compare, list) else []
        in_compare = [self.compare.star] if isinstance(self.compare, Star) else [n for pair in pairs for n in pair]
        in_families = self.families.named if self.families is not None else []
        for key, name in [*(("compare", n) for n in in_compare), *(("families", n) for n in in_families)]:
            if name not in groups and name not in names:
                near = did_you_mean(name, [*groups, *names])
                raise ValueError(f"{key} names {name!r}, but no spaces have that name{near}")
            if name in groups and name in names:
                raise ValueError(
                    f"{key} names {name!r}, which is a group of spaces and a single space: give the group another name"
                )
        for pair in pairs:
            if pair[0] == pair[1] and pair[0] in names:
                raise ValueError(f"compare names {pair[0]} with itself: name another space, or a group of several")
        if self.compare is None and len(groups) < 2:
            raise ValueError("there is only one group of spaces: add another, or set compare to compare it with itself")
        return self

    @property
    def space_names(self) -> list[str]:
        """The names of the spaces, in the study's order."""
        return [f"{spaces.prefix}@{layer}" for spaces in self.spaces for layer in spaces.layers]

    @property
    def encoded(self) -> list[SpacesSpec]:
        """The spaces whose models are run."""
        return [spaces for spaces in self.spaces if isinstance(spaces, SpacesSpec)]

    @property
    def brought(self) -> list[BroughtSpec]:
        """The spaces whose codes or activations are on the disk."""
        return [spaces for spaces in self.spaces if isinstance(spaces, BroughtSpec)]

    @model_validator(mode="after")
    def _brought_spaces_fit(self) -> Study:
        if not self.brought:
            return self
        name = self.brought[0].name
        measures = [*self.geometry, *((self.subspaces.geometry if self.subspaces else None) or [])]
        for key, asked, why in (
            ("transfer", self.transfer is not None, "runs the models"),
            ("activations", self.activations is not None, "compares the models' own activations"),
            ("text.elsewhere", self.text.elsewhere is not None, "reads another text with the models"),
            ("text.tokens", self.text.tokens is not None and not self.models, "counts tokens of the first model"),
            ("given", any("given" in m.settings for m in measures), "takes embeddings from the models"),
        ):
            if asked:
                raise ValueError(f"{key} {why}, and the space {name} brings its codes without one: leave out {key}")
        return self

    def compares(self, a: str, b: str) -> bool:
        """Whether two spaces, such as `smollm2@15` and `gemma3@9`, are compared with each other.

        `compare` names groups, which stand for all their spaces, and single spaces.
        """
        called = [(name, name.rpartition("@")[0]) for name in (a, b)]
        if self.compare is None:
            return called[0][1] != called[1][1]
        if isinstance(self.compare, Star):
            return self.compare.compares(called[0], called[1])
        return any(
            (one in called[0] and other in called[1]) or (other in called[0] and one in called[1])
            for one, other in self.compare
        )

    @property
    def sampled(self) -> ActivationsSpec | None:
        """How activations are sampled, if something asks for them."""
        return self.activations or (ActivationsSpec() if self.transfer else None)

    @model_validator(mode="after")
    def _transfer_fits(self) -> Study:
        if self.transfer is None:
            return self
        names = self.space_names
        for pair in self.transfer.cells if self.transfer.cells != "best" else ():
            for name in pair:
                if name not in names:
                    raise ValueError(f"transfer.cells names {name!r}, which is no space{did_you_mean(name, names)}")
        for spaces in self.encoded:
            if spaces.codes != "output":
                raise ValueError(f"transfer decodes the codes of {spaces.prefix}: set its codes to output")
        return self

    @model_validator(mode="after")
    def _nulls_fit(self) -> Study:
        if self.matching.by == "within_token" and self.families is not None and self.families.draws:
            raise ValueError("by: within_token has no rematches, and no draws of families: set families.draws to 0")
        if self.matching.by == "within_token" and self.inference.rematches:
            raise ValueError(
                "by: within_token has no rematches: rows of different documents are hardly ever of one pair of tokens; "
                "use inference.same_token instead"
            )
        return self

    @model_validator(mode="after")
    def _overrides_fit(self) -> Study:
        for spaces in self.encoded:
            if spaces.train is None:
                continue
            name = spaces.prefix
            if self.train is None:
                raise ValueError(f"the spaces {name} have a train section, but the study has none: add one")
            try:
                self.train.overridden(spaces.train)
            except ValidationError as error:
                raise ValueError(f"train of the spaces {name}: {explain(error, TrainSpec)}") from error
        return self
