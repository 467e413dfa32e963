"""Writing features in the layout of Neuronpedia's exports, and as SAEDashboard's batches.

* `exports/MODEL/SOURCE/`: `model.jsonl`, `release.jsonl`, `sourceset.jsonl`, `source.jsonl`, and
  `features/`, `activations/`, `explanations/batch-N.jsonl.gz`, one record a line: the layout of Neuronpedia's public
  data sets.
* `saedashboard/MODEL_SOURCE/batch-N.json`: what SAEDashboard writes (`NeuronpediaDashboardBatch` of its
  `neuronpedia_dashboard.py`).

Both hold the same features. What needs the model itself (logits, aligned neurons) is empty.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from unifeat.labels.lines import MARK

_BATCH = 1024
# What needs the model itself.
_EMPTY = (
    *("neuron_alignment_indices", "neuron_alignment_values", "neuron_alignment_l1"),
    *("correlated_neurons_indices", "correlated_neurons_l1", "correlated_neurons_pearson", "correlated_features_l1"),
    *("neg_str", "neg_values", "pos_str", "pos_values", "logits_hist_data_bar_heights", "logits_hist_data_bar_values"),
    *("decoder_weights_dist", "vector"),
)
_DIGITS = 4


@dataclass(frozen=True)
class Source:
    """One dictionary, as Neuronpedia names it.

    Attributes:
        model: the model's id, such as `gemma-2-2b`.
        layer: the block.
        set_name: the set of dictionaries, such as `gemmascope-res-16k`.
        hook: the name of the hook point.
        release: the name of the release, which has all sources of a run.
        release_about: a sentence on it.
        dataset: the text.
        documents, context: how much of it, and the tokens of a window.
        about: a sentence on it.
    """

    model: str
    layer: int
    set_name: str
    hook: str
    release: str
    release_about: str
    dataset: str
    documents: int
    context: int
    about: str

    @property
    def id(self) -> str:
        """`LAYER-SET`."""
        return f"{self.layer}-{self.set_name}"


def activation_record(tokens: Sequence[str], values: Sequence[float], at: int, greatest: float) -> dict[str, Any]:
    """A passage as SAEDashboard has it: the group of the strongest, which has no bin.

    Args:
        at: the place of the strong token.
        greatest: the feature's greatest activation.
    """
    group = {"bin_min": -1.0, "bin_max": _rounded(greatest), "bin_contains": -1.0}
    rounded = [_rounded(value) for value in values]
    return group | {"tokens": list(tokens), "values": rounded, "qualifying_token_index": at}


def feature_record(
    source: Source,
    feature: int,
    *,
    fires: float,
    heights: Sequence[int],
    reach: tuple[float, float],
    partners: Sequence[tuple[int, float]],
    activations: list[dict[str, Any]],
) -> dict[str, Any]:
    """A feature as SAEDashboard has it.

    Args:
        fires: the share of tokens on which it fires.
        heights: a histogram of its activations, in equal bins from one end of `reach` to the other.
        partners: features of the other space with their r, the kept ones first.
    """
    low, width = reach[0], (reach[1] - reach[0]) / max(len(heights), 1)
    return {name: [] for name in _EMPTY} | {
        "feature_index": feature,
        "correlated_features_indices": [other for other, _ in partners],
        "correlated_features_pearson": [_rounded(r) for _, r in partners],
        "frac_nonzero": fires,
        "freq_hist_data_bar_values": [_rounded(low + (i + 0.5) * width) for i in range(len(heights))],
        "freq_hist_data_bar_heights": [float(height) for height in heights],
        "n_prompts_total": source.documents,
        "n_tokens_in_prompt": source.context,
        "dataset": source.dataset,
        "activations": activations,
    }


def write_source(
    folder: Path, source: Source, features: Iterable[dict[str, Any]], labels: Mapping[int, str], read_from: str
) -> None:
    """Write one source in both forms.

    Args:
        folder: gets `exports/` and `saedashboard/`; the caller puts it in its place when it is whole.
        features: of `feature_record`, in order.
        labels: words for features.
        read_from: what stands as the author of labels that unifeat did not make: what they were read from.
    """
    export = folder / "exports" / source.model / source.id
    dashboard = folder / "saedashboard" / f"{source.model}_{source.id}"
    for kind in ("features", "activations", "explanations"):
        (export / kind).mkdir(parents=True)
    dashboard.mkdir(parents=True)
    _write_about(export, source)
    ahead = iter(features)
    batches = iter(lambda: list(islice(ahead, _BATCH)), [])
    for number, batch in enumerate(batches):
        lines: dict[str, list[dict[str, Any]]] = {"features": [], "activations": [], "explanations": []}
        own = {"modelId": source.model, "layer": source.id}
        for record in batch:
            at = own | {"index": str(record["feature_index"])}
            lines["features"].append(at | _as_feature(record, source))
            lines["activations"] += [at | _as_activation(one) for one in record["activations"]]
            if label := labels.get(record["feature_index"]):
                author = "unifeat" if label.startswith(MARK) else read_from
                explained = {"description": label, "typeName": "unifeat", "explanationModelName": author}
                lines["explanations"].append(at | explained)
        for kind, records in lines.items():
            text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
            # Without the time of writing, so that the same features give the same bytes.
            data = gzip.compress(text.encode("utf-8", "backslashreplace"), mtime=0)
            (export / kind / f"batch-{number}.jsonl.gz").write_bytes(data)
        whole = {"model_id": source.model, "layer": source.layer, "sae_set": source.set_name, "sae_id_suffix": None}
        text = json.dumps(whole | {"features": batch}, ensure_ascii=False)
        (dashboard / f"batch-{number}.json").write_bytes(text.encode("utf-8", "backslashreplace"))


def _write_about(export: Path, source: Source) -> None:
    model = {"id": source.model, "displayName": source.model, "displayNameShort": source.model}
    about = source.release_about
    release = {"name": source.release, "description": about, "descriptionShort": source.release, "urls": []}
    of = {"modelId": source.model}
    source_set = of | {"name": source.set_name, "releaseName": source.release, "description": source.about}
    own: dict[str, Any] = of | {"id": source.id, "setName": source.set_name, "dataset": source.dataset}
    own |= {"num_prompts": source.documents, "num_tokens_in_prompt": source.context}
    records = {"model": model, "release": release, "sourceset": source_set, "source": own}
    for name, record in records.items():
        (export / f"{name}.jsonl").write_text(json.dumps(record, ensure_ascii=False) + "\n", encoding="utf-8")


def _as_feature(record: dict[str, Any], source: Source) -> dict[str, Any]:
    """A feature's line in `features/`: without its activations, with its greatest."""
    left_out = ("feature_index", "activations", "n_prompts_total", "n_tokens_in_prompt", "dataset")
    greatest = max((value for one in record["activations"] for value in one["values"]), default=0.0)
    known = {"sourceSetName": source.set_name, "hookName": source.hook, "maxActApprox": greatest, "hasVector": False}
    return known | {name: value for name, value in record.items() if name not in left_out}


def _as_activation(one: dict[str, Any]) -> dict[str, Any]:
    """A passage's line in `activations/`."""
    values = one["values"]
    greatest = max(values, default=0.0)
    return {
        "tokens": one["tokens"],
        "values": values,
        "maxValue": greatest,
        "maxValueTokenIndex": values.index(greatest) if values else 0,
        "minValue": min(values, default=0.0),
        "binMin": one["bin_min"],
        "binMax": one["bin_max"],
        "binContains": one["bin_contains"],
        "qualifyingTokenIndex": one["qualifying_token_index"],
    }


def shared_list(
    name: str, about: str, sources: tuple[Source, Source], pairs: Sequence[tuple[int, int, float]], said: Sequence[str]
) -> dict[str, Any]:
    """A list of features that two sources share, both partners of a pair one after the other.

    Args:
        pairs: feature of A, feature of B, r; strongest first.
        said: what is said of each pair.
    """
    features = [
        {"modelId": source.model, "layer": source.id, "index": str(feature), "description": words}
        for (a, b, _), words in zip(pairs, said, strict=True)
        for source, feature in zip(sources, (a, b), strict=True)
    ]
    return {"name": name, "description": about, "features": features}


def _rounded(value: float) -> float:
    return round(float(value), _DIGITS)
