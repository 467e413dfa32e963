"""A study to begin with: commented, for SAEs and models that a user names, with what the registry knows filled in."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from unifeat.errors import UserError
from unifeat.saes.listing import Listed, listed, model_of, saes_of
from unifeat.saes.load import is_local, load_sae
from unifeat.saes.provenance import provenance_of
from unifeat.store.paths import user_path
from unifeat.study.read import load_study_text
from unifeat.vocabulary.hook_points import HookKind, parse_hook

TEXT = "NeelNanda/pile-10k"
_LAYERS = 3


@dataclass
class _Group:
    """Entries of a study's spaces of one model."""

    model: str
    entries: list[tuple[list[int], str, HookKind]] = field(default_factory=list)
    found: str = ""


def first_study(
    named: Sequence[str], *, text: str | None = None, documents: int = 200, layers: Sequence[int] | None = None
) -> str:
    """The text of a study file.

    Args:
        named: for each group of spaces a release of SAELens' registry, `release/sae_id`, or the folder of an SAE; with
            `MODEL=` before it, another model than the one that it names.
        text: a file or dataset; by default `TEXT`.
        layers: which layers; by default up to three of those that there are.

    Raises:
        UserError: nothing named, or something that does not exist; a layer that a release does not have.
    """
    if not named:
        raise UserError("name at least one release of SAELens' registry, SAE, or folder of an SAE")
    groups = [_group(name, layers) for name in named]
    models: dict[str, str] = {}
    called: list[tuple[str, str, _Group]] = []
    count = Counter(_short(group.model) for group in groups)
    for number, group in enumerate(groups, start=1):
        short = _short(group.model)
        models[short] = group.model
        called.append((short, short if count[short] == 1 else f"{short}-{number}", group))
    written = _written(called, models, text or TEXT, documents, asked=text is not None)
    load_study_text(written, Path.cwd(), "the study")  # (a mistake here is ours)
    return written


def numbers(text: str, what: str) -> list[int]:
    """`3,6,9` as numbers.

    Raises:
        UserError: something else.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise UserError(f"{what} {text}: give numbers of blocks, such as 3,6,9")
    return [int(part) for part in parts]


def _group(name: str, layers: Sequence[int] | None) -> _Group:
    model, equals, sae = name.partition("=")
    if not equals:
        model, sae = "", name
    path = user_path(sae, "SAE")
    if is_local(sae) or path.exists():
        return _of_folder(sae, model, layers)
    release, _, sae_id = sae.partition("/")
    if sae_id:
        one = listed(sae)
        if layers is not None and one.layer not in layers:
            raise UserError(f"SAE {sae} is of layer {one.layer}: name its release for other layers")
        return _Group(model or model_of(release), [([one.layer], one.pattern, one.hook)], "as named")
    every = saes_of(release)
    there = sorted({one.layer for one in every})
    chosen = _chosen(there, layers, release)
    found = f"{len(every):,} SAEs of {len(there)} layers ({there[0]} to {there[-1]})"
    return _Group(model or model_of(release), _entries(every, chosen), found)


def _of_folder(sae: str, model: str, layers: Sequence[int] | None) -> _Group:
    provenance = provenance_of(load_sae(sae))
    kind, layer = parse_hook(provenance.hook)
    hook = provenance.hook_kind
    if kind is None and layers is not None:
        if len(set(layers)) > 1:
            raise UserError(f"SAE {sae} reads one layer: give --layers with one, not {', '.join(map(str, layers))}")
        layer, hook = layers[0], "resid_post"
    if layer is None or hook is None:
        raise UserError(
            f"SAE {sae} does not say where it reads ({kind or 'no hook point'}): give --layers with it, or write "
            "its spaces by hand"
        )
    if not (model or provenance.model):
        raise UserError(f"SAE {sae} does not say its model: name it before, as in MODEL={sae}")
    return _Group(model or str(provenance.model), [([layer], sae, hook)], "as its files say")


def _chosen(there: list[int], layers: Sequence[int] | None, release: str) -> list[int]:
    """The layers asked for; or up to three, spread over the depth."""
    if layers is not None:
        absent = [layer for layer in layers if layer not in there]
        if absent:
            raise UserError(f"release {release} has no SAE of layer {absent[0]}: it has {', '.join(map(str, there))}")
        return sorted(set(layers))
    if len(there) <= _LAYERS:
        return there
    places = [(2 * number + 1) * len(there) // (2 * _LAYERS) for number in range(_LAYERS)]
    return [there[place] for place in places]


def _entries(every: list[Listed], layers: list[int]) -> list[tuple[list[int], str, HookKind]]:
    """One entry for all layers if a name fits them all, else one for each layer; of several, the first listed."""
    by_pattern: dict[tuple[str, HookKind], set[int]] = {}
    for one in every:
        by_pattern.setdefault((one.pattern, one.hook), set()).add(one.layer)
    for (pattern, hook), has in by_pattern.items():
        if set(layers) <= has:
            return [(layers, pattern, hook)]
    return [([layer], one.name, one.hook) for layer in layers for one in [next(o for o in every if o.layer == layer)]]


def _short(model: str) -> str:
    return Path(model).name.casefold().removesuffix(".gguf")


def _quoted(value: str) -> str:
    """Text as YAML takes it."""
    return json.dumps(value, ensure_ascii=False)


def _written(
    called: list[tuple[str, str, _Group]], models: dict[str, str], text: str, documents: int, *, asked: bool
) -> str:
    names = [name for _, name, _ in called]
    lines = [
        "# A study for unifeat: what the features of these spaces share.",
        "#   unifeat plan THIS.yaml    what it will take, before anything runs",
        "#   unifeat run THIS.yaml     run it; the same command continues after an interruption",
        "# docs/study.md has every key.",
        f"name: {'-'.join(dict.fromkeys(names))[:100]}",
        "",
        "text:",
        f"  source: {_quoted(text)}   # a file, folder, glob or dataset{'' if asked else ': put your own here'}",
        f"  documents: {documents}   # half of them find the pairs, the other half judges them",
        "  context: 128   # window length in tokens, BOS included",
        "",
        "models:",
        *(f"  {short}: {{name: {_quoted(name)}}}" for short, name in models.items()),
        "",
        "spaces:   # a space is one model, one layer, one SAE; layer L is the output of block L, counted from 0",
    ]
    for short, name, group in called:
        lines.append(f"  # {group.found}")
        for layers, sae, hook in group.entries:
            lines += [f"  - model: {short}", f"    layers: {layers}", f"    sae: {_quoted(sae)}"]
            lines += [f"    hook: {hook}"] if hook != "resid_post" else []
            lines += [f"    name: {name}"] if name != short else []
    lines.append("")
    if sum(len(layers) for _, _, group in called for layers, _, _ in group.entries) == 1:
        lines += [
            "# There is only one space yet, and a study compares two: give it another layer above; or add spaces of",
            "# another model or SAE, and delete the next line.",
        ]
    if len(set(names)) == 1:
        lines += [f"compare: [[{names[0]}, {names[0]}]]   # layers of one model with each other", ""]
    lines += [
        "matching:",
        "  method: mutual   # each other's best partner; also one-to-one, assignment, csls, max",
        "  min_correlation: 0.1",
        "",
        "geometry:   # how alike the decoder rows of the pairs are",
        "  - rsa",
        "  - cka: {debiased: true}",
        "  - svcca: {dims: 32}",
        "",
        "inference:",
        "  permutations: 500   # shuffles of the pairs",
        "  rematches: 39       # the matching redone on rearranged documents: what chance gives",
        "  same_token: 39      # … and on rows of the same token: what the token alone gives",
        "",
        "# subspaces: {categories: paper}   # also by categories of words",
        "# families: {}                     # with three spaces or more: features that many of them have",
        "# transfer: {}                     # run the models on each other's features",
        "seed: 0",
    ]
    return "\n".join(lines) + "\n"
