"""What a study will take, before anything runs: from configurations, sizes of text, and rates measured here in seconds.

Rates are measured by running the library's own code on made-up data of the study's shape. What cannot be known before
(how many pairs are kept, activations of an SAE that does not say) is assumed, and listed among the assumptions.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np

from unifeat.correlation.correlate import correlate
from unifeat.errors import UserError, did_you_mean
from unifeat.inference import find_measure
from unifeat.memory import free_memory, working_memory
from unifeat.models.language import check_layers, read_config, resolve_dtype
from unifeat.models.opening import opening_of
from unifeat.models.sizes import sizes_of
from unifeat.pipeline.plan_spaces import SpaceSize, brought_space, model_of, read_only, space_of
from unifeat.pipeline.rematch import BATCH
from unifeat.pipeline.rows import text_of
from unifeat.pipeline.spaces import Tokenizer, check_compares, compared_spaces, elsewhere_corpus, study_corpus
from unifeat.study.measures import MetricSpec
from unifeat.study.plan import PlannedModel, Step, StudyPlan
from unifeat.study.spec import Study
from unifeat.text.corpus import Corpus
from unifeat.threads import cores, one_blas_thread
from unifeat.vocabulary.hook_points import HookPoint
from unifeat.vocabulary.openings import opening_tokens
from unifeat.vocabulary.windowing import Windowing

# Peak of dense 16-bit products (TFLOP/s) and memory (GB), from the makers' data sheets.
GPUS = {"a100": (312, 80), "h100": (989, 80), "h200": (989, 141), "l40s": (362, 48), "rtx4090": (165, 24)}
_GPU_SHARE = 0.4  # of the peak, in forward passes of this kind
_GPU_PRODUCTS = 20e9  # of sparse correlation a second: the target of benchmarks/gpu.py
_ASSUMED_KEPT = 0.35  # of the smaller dictionary
_FORWARD_SHARE = 0.5  # of the speed of one large product that a model on a CPU reaches
# Reading, aligning, tables and files, in units of the time of correlating. (A rematch has its codes in memory.)
_WITH_READING, _IN_MEMORY = 3.0, 1.2
_WITHIN = 2.5  # correlation within token, in units of plain correlation
_ELSEWHERE = 1.5  # r of the kept pairs and of pairs at random on the text elsewhere, with reading, in the same units
_AGAIN_S = 1e-5  # of matching a draw again: a feature's share of the tables, in seconds on one core
_ACTIVATION_BYTES = 6  # of a sampled value, with its number
_LOSS_VARIANTS = 12  # ways to rebuild activations that are spliced in
_UNIT_S = 0.02  # of storing a result and reading it back


def plan_study(study: Study, gpu: str = "h100") -> StudyPlan:
    """Estimate what a study will take. Reads configurations, tokenizers and the text, but no language model's weights.

    Args:
        gpu: one of `GPUS`.

    Raises:
        UserError: an unknown GPU; a text, model or SAE that does not exist.
    """
    if gpu not in GPUS:
        raise UserError(f"no GPU {gpu!r} is known{did_you_mean(gpu, GPUS)}: give one of {', '.join(GPUS)}")
    check_compares(study)
    notes: list[str] = []
    used = [name for name in study.models if any(group.model == name for group in study.encoded)]
    tokenizers = {name: Tokenizer(study.models[name])() for name in study.models}
    counter = tokenizers[next(iter(study.models))] if study.models else None
    corpus = study_corpus(text_of(study.text, study.brought, encoded=bool(study.encoded)), counter)
    other = elsewhere_corpus(study.text, corpus, counter)
    compared = compared_spaces(study) if other is not None else set()
    models, spaces = [], []
    for name in used:
        spec = study.models[name]
        config = read_config(spec.name, spec.dtype, spec.revision, trust_remote_code=spec.trust_remote_code)
        groups = [group for group in study.encoded if group.model == name]
        points = [HookPoint(layer, group.hook) for group in groups for layer in group.layers]
        check_layers(spec.name, points, config.num_hidden_layers)
        opening = opening_of(tokenizers[name], spec.bos, spec.chat)
        windowing = Windowing(study.text.context, opening, study.mask, study.text.windows)
        read = _tokens_read(corpus, tokenizers[name], windowing)
        sizes = sizes_of(config, max(point.layer for point in points), resolve_dtype(spec.dtype).itemsize)
        own = [
            space_of(study, group, layer, int(config.hidden_size), notes) for group in groups for layer in group.layers
        ]
        spaces += own
        there = [space for space in own if space.name in compared]
        read_there = _tokens_read(other, tokenizers[name], windowing) if other is not None and there else 0.0
        models.append(model_of(name, [(read, own), (read_there, there)], sizes, windowing.context, groups))
    for brought in study.brought:
        space, rows_of = brought_space(brought)
        spaces.append(space)
        models.append(read_only(space, rows_of))
    order = {name: number for number, name in enumerate(study.space_names)}
    spaces.sort(key=lambda space: order[space.name])
    cells = [(a, b) for a, b in combinations(spaces, 2) if study.compares(a.name, b.name)]
    rows = {model.name: model.tokens for model in models}
    products = _products(cells, rows)
    laid_out = max((8 * rows[b.model] / 2 * b.l0 for _, b in cells), default=0.0)
    if laid_out > working_memory():
        notes.append(
            f"codes of {laid_out / 1e9:,.0f} GB do not fit in memory: correlation goes through the disk, slower"
        )
    notes.append(f"{_ASSUMED_KEPT:.0%} of the smaller dictionary's features are kept as pairs")
    notes += _not_estimated(study, cells)
    flop_rate, product_rate = _flop_rate(), _product_rate()
    units = sum(corpus.groups + (other.groups if other and model.tokens_elsewhere else 0) for model in models)
    steps = _steps(study, models, cells, products, units, flop_rate, product_rate, gpu)
    return StudyPlan(
        models,
        len(cells),
        products * _correlations(study),
        steps,
        max([*(m.model_bytes + m.largest_sae for m in models), *(_cell_bytes(a, b) for a, b in cells)]),
        free_memory(),
        gpu,
        [
            f"{flop_rate / 1e9:,.0f} GFLOP/s in a float32 product here, of which a model reaches {_FORWARD_SHARE:.0%}",
            f"{product_rate / 1e6:,.0f} M products of sparse activations a second here",
            "each measure, at the number of pairs assumed below",
            f"{gpu}: {_GPU_SHARE:.0%} of the {GPUS[gpu][0]} TFLOP/s of its data sheet, and "
            f"{_GPU_PRODUCTS / 1e9:.0f} G products/s: assumed, not measured",
        ],
        list(dict.fromkeys(notes)),
    )


def _not_estimated(study: Study, cells: list[tuple[SpaceSize, SpaceSize]]) -> list[str]:
    """What a study asks for that the times leave out, and how much of it there is."""
    notes = []
    if study.sampled is not None:
        rows, widths = study.sampled.rows, {(space.model, space.width) for pair in cells for space in pair}
        size = rows * sum((_ACTIVATION_BYTES * width) for _, width in widths)
        notes.append(f"activations of about {rows:,} tokens take {size / 1e9:,.2f} GB for each layer that is read")
    if study.transfer is not None:
        spec = study.transfer
        chosen = len({(a.prefix, b.prefix) for a, b in cells}) if spec.cells == "best" else len(spec.cells)
        passes = 2 * spec.loss_tokens * (_LOSS_VARIANTS + spec.loss_draws) + 5 * spec.pairs * spec.contexts
        notes.append(
            f"transfer is not in these times: for each of {chosen} pairs of spaces, about {passes:,} tokens run "
            "through the upper half of a whole model and its head"
        )
    return notes


def _products(cells: list[tuple[SpaceSize, SpaceSize]], rows: dict[str, float]) -> float:
    """Products of two activations when all pairs of spaces are correlated on so many rows of each model."""
    return sum(min(rows[a.model], rows[b.model]) * a.l0 * b.l0 for a, b in cells)


def _tokens_read(corpus: Corpus, tokenizer: Any, windowing: Windowing) -> float:
    """Tokens of a text that a model reads, with what begins its windows."""
    tokens = corpus.characters * _tokens_per_character(tokenizer, [p.text for p in corpus.parts(0)], windowing)
    return tokens * windowing.context / max(windowing.context - len(opening_tokens(windowing.opening)), 1)


def _tokens_per_character(tokenizer: Any, sample: list[str], windowing: Windowing) -> float:
    """Tokens that are read for each character of the text, where only some windows of a document are."""
    ids = tokenizer(sample, add_special_tokens=False, verbose=False)["input_ids"]
    room = windowing.context - len(opening_tokens(windowing.opening))
    most = math.inf if windowing.limit is None else windowing.limit * room
    return sum(min(len(own), most) for own in ids) / max(sum(map(len, sample)), 1)


def _correlations(study: Study) -> float:
    """Passes over all tokens in the correlations of one cell: both halves, one shifted half, and all draws."""
    passes = (1.5 if study.matching.heldout else 2.0) + 0.5 * _draws(study)
    return passes * (_WITHIN if study.matching.by == "within_token" else 1.0)


def _draws(study: Study) -> int:
    """How often the nulls that match again do so."""
    inference = study.inference
    return inference.rematches + inference.same_token + inference.same_two_tokens


def _cell_bytes(a: SpaceSize, b: SpaceSize) -> float:
    """Memory of one pair of spaces: tables of candidates, or the distances of all pairs kept."""
    kept = _ASSUMED_KEPT * min(a.features, b.features)
    return max(8 * 150.0 * (a.features + b.features), 4 * 8 * kept**2)


def _steps(
    study: Study,
    models: list[PlannedModel],
    cells: list[tuple[SpaceSize, SpaceSize]],
    products: float,
    units: int,
    flop_rate: float,
    product_rate: float,
    gpu: str,
) -> list[Step]:
    flops = sum(model.flops for model in models)
    load = sum(model.model_bytes / 1e9 + 5.0 for model in models if model.model_bytes)
    encode = Step(
        "encode",
        units,
        flops / (flop_rate * _FORWARD_SHARE) + load,
        flops / (GPUS[gpu][0] * 1e12 * _GPU_SHARE) + load,
    )
    inference = study.inference
    halves = 1.5 if study.matching.heldout else 2.0
    tables = sum(a.features + b.features for a, b in cells) * 5e-5 * (1 + inference.bootstraps / 100)
    matching = _WITH_READING * halves * products
    match = Step(
        "match", len(cells), matching / product_rate + tables, matching / max(_GPU_PRODUCTS, product_rate) + tables
    )
    nulls = 1 if inference.strata is None else 2
    seconds = dict.fromkeys(range(len(study.geometry)), 0.0)
    once = dict(seconds)
    for a, b in {(x.width, y.width, min(x.features, y.features)): (x, y) for x, y in cells}.values():
        same = sum(
            (x.width, y.width, min(x.features, y.features)) == (a.width, b.width, min(a.features, b.features))
            for x, y in cells
        )
        pairs = max(int(_ASSUMED_KEPT * min(a.features, b.features)), 16)
        for number, spec in enumerate(study.geometry):
            prepare, score = measure_seconds(spec, pairs, a.width, b.width)
            half = measure_seconds(spec, pairs // 2, a.width, b.width)
            null = nulls * (prepare + score * (1 + inference.permutations))
            seconds[number] += same * (null + sum(half) * inference.subsamples)
            once[number] += same * (prepare + score)
    sets = len(cells) * len(study.geometry) * (1 + nulls)
    scoring = sum(seconds.values()) / cores() + _subspace_seconds(study, cells) + sets * _UNIT_S
    score_step = Step("score", sets, scoring, scoring)
    draws = _draws(study)
    again = draws * (_IN_MEMORY * 0.5 * products)
    of_tables = _AGAIN_S * sum(a.features + b.features for a, b in cells)
    rescoring = draws * (sum(once.values()) + of_tables) / cores()
    rematch = Step(
        "rematch",
        len(cells) * -(-draws // BATCH),
        again / product_rate + rescoring,
        again / max(_GPU_PRODUCTS, product_rate) + rescoring,
    )
    families = _families_steps(study, models, cells, product_rate)
    there = []
    if study.text.elsewhere is not None:
        reading = _ELSEWHERE * _products(cells, {model.name: model.tokens_elsewhere for model in models})
        seconds_there = reading / product_rate + tables / 8  # kept pairs are fewer than candidates
        there = [Step("elsewhere", len(cells), seconds_there, seconds_there)]
    write = 5.0 + 2e-5 * 8 * sum(a.features + b.features for a, b in cells)
    return [encode, match, *there, *families, score_step, rematch, Step("report", len(cells), write, write)]


def _families_steps(
    study: Study, models: list[PlannedModel], cells: list[tuple[SpaceSize, SpaceSize]], product_rate: float
) -> list[Step]:
    """The draws of families: all their pairs of spaces matched again, on re-paired and on resampled documents."""
    spec = study.families
    if spec is None:
        return []
    controls = {
        group.prefix
        for group in study.encoded
        if group.random_directions is not None or study.models[group.model].randomise is not None
    }
    own = [
        pair
        for pair in cells
        if all({s.name, s.prefix} & set(spec.spaces) if spec.spaces else s.prefix not in controls for s in pair)
    ]
    products = 0.5 * _products(own, {model.name: model.tokens for model in models})
    again = spec.draws * _IN_MEMORY * products
    tables = (spec.draws + spec.bootstraps) * _AGAIN_S * sum(a.features + b.features for a, b in own) / cores()
    resampled = _WITH_READING * products / product_rate if spec.bootstraps else 0.0
    units = len(own) * (-(-spec.draws // 10) + bool(spec.bootstraps))
    rest = tables + resampled
    return [Step("families", units, again / product_rate + rest, again / max(_GPU_PRODUCTS, product_rate) + rest)]


def _subspace_seconds(study: Study, cells: list[tuple[SpaceSize, SpaceSize]]) -> float:
    if study.subspaces is None or not cells:
        return 0.0
    lists = 8 * (1 + study.subspaces.control_lists)
    nulls = 1 if study.inference.strata is None else 2
    draws = nulls * study.inference.permutations + study.inference.subsamples + study.subspaces.subsets
    a, b = cells[0]
    geometry = study.subspaces.geometry or study.geometry
    each = sum(measure_seconds(spec, 20, a.width, b.width)[1] for spec in geometry)
    return len(cells) * lists * (draws * each / cores() + (2 + nulls) * len(geometry) * _UNIT_S)


def measure_seconds(spec: MetricSpec, pairs: int, width_a: int, width_b: int) -> tuple[float, float]:
    """Seconds to prepare a measure for so many pairs, and to compute one score of it, on one core."""
    rng = np.random.default_rng(0)
    size = min(pairs, 3000)
    x, y = (rng.normal(size=(size, width)).astype(np.float32) for width in (width_a, width_b))
    grow = (pairs / size) ** 2
    try:
        with one_blas_thread():
            settings = spec.settings | ({"given": [x, y]} if "given" in spec.settings else {})
            find_measure(spec.metric).prepare(x, y, **settings).score()  # compiled, and in the cache
            start = time.perf_counter()
            ready = find_measure(spec.metric).prepare(x, y, **settings)
            prepare = time.perf_counter() - start
            order = rng.permutation(size)
            score = _median_seconds(lambda: ready.shuffled(order))
    except UserError:  # too few pairs for this measure
        return 0.0, 0.0
    return prepare * grow, score * grow


def _median_seconds(work: Callable[[], Any], times: int = 3) -> float:
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return float(np.median(taken))


def _flop_rate() -> float:
    """Multiply-adds, counted as two, a second in a float32 product on all cores."""
    import torch

    x, y = torch.randn(1024, 1024), torch.randn(1024, 2048)
    torch.mm(x, y)
    return 2 * 1024 * 1024 * 2048 / _median_seconds(lambda: torch.mm(x, y), 5)


def _product_rate() -> float:
    """Products of sparse activations a second, in a correlation of made-up codes."""
    from scipy import sparse

    rng = np.random.default_rng(0)
    tokens, features, active = 60_000, 2048, 32
    codes = []
    for _ in range(2):
        ids = np.minimum(rng.pareto(0.6, (tokens, active)) * 10, features - 1).astype(np.int64)
        rows = np.repeat(np.arange(tokens), active)
        codes.append(sparse.csr_array((np.ones(ids.size, np.float32), (rows, ids.ravel())), shape=(tokens, features)))
    correlate(codes[0][:200], codes[1][:200])
    seconds = _median_seconds(lambda: correlate(*codes))
    return float((np.diff(codes[0].indptr) * np.diff(codes[1].indptr)).sum() / seconds)
