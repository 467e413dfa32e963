"""Published numbers beside those of a run."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path, PurePath
from typing import Any, Protocol

import numpy as np
import pandas as pd
import yaml

from unifeat.matching.methods import METHODS
from unifeat.study.presets import PRESETS

SOURCE = "arxiv-2410.06981"
COLUMNS = [
    *("space_a", "layer_a", "space_b", "layer_b", "subspace", "matching", "metric", "settings"),
    *("n_published", "n_pairs", "score_published", "score", "null_published", "null_mean", "p_published", "p"),
]
# The settings of the published numbers, by metric. A run's score with other settings is used only if there is no such.
_AS_PUBLISHED = {str(m["metric"]): dict(m["settings"]) for m in PRESETS[SOURCE]["geometry"]}
# Settings of the text, which depend on the models and so are not part of the preset.
_TEXT = {
    ("pythia-70m", "pythia-160m"): {"documents": 100, "context": 300},
    ("gemma-2b", "gemma-2-2b"): {"documents": 150, "context": 150},
}


class Run(Protocol):
    """What is used of a run (`runs.folder.Run`)."""

    @property
    def folder(self) -> Path:
        """Where its files are."""
        ...

    @property
    def info(self) -> dict[str, Any]:
        """`run.json`."""
        ...

    @property
    def scores(self) -> pd.DataFrame:
        """One row for each pair of spaces and measure."""
        ...


def published_scores() -> pd.DataFrame:
    """The 567 published cells: `model_a` … `rsa_p` (see the package), `category` "" for whole spaces.

    `layer_a` and `layer_b` are the SAEs' layers. p-values are uncorrected shares of 1 to 1,000 shuffles, so 0 means
    "none of them". Values that were not published are NaN.
    """
    with (files("unifeat") / "published" / f"{SOURCE}.csv").open(encoding="utf-8") as stream:
        return pd.read_csv(stream, keep_default_na=True).fillna({"category": ""})


def beside(run: Run) -> pd.DataFrame:
    """The cells that were published and that a run has measured too: one row per cell and metric, in the run's order.

    Cells are joined by the models' names (only the last part, so that a local copy of `EleutherAI/pythia-70m` counts as
    that model), layers, matching and category. Every one-to-one matching is compared with the published one-to-one.
    `max` is compared with many-to-one if each feature of the second model takes its best partner, and with reverse
    many-to-one in the other direction. If a run has the two models in the other order, it is reversed. Controls are
    left out, since they are other models.

    Returns:
        `COLUMNS`: `subspace` is "all" or a category; `settings` (JSON) are those of the run's score.
    """
    table = published_scores()
    known = set(zip(table["model_a"], table["model_b"], strict=True))
    study = yaml.safe_load((run.folder / "study.yaml").read_text(encoding="utf-8"))["matching"]
    scores = run.scores[run.scores["metric"].isin(_AS_PUBLISHED)]
    rows = []
    for row in _preferred(scores).to_dict("records"):
        names = [_model(run, row[f"space_{side}"]) for side in "ab"]
        layers = [row["layer_a"], row["layer_b"]]
        turned = (names[1], names[0]) in known
        if turned:
            names, layers = names[::-1], layers[::-1]
        if tuple(names) not in known:
            continue
        rows.append(
            {name: row[name] for name in COLUMNS if name in row}
            | dict(zip(("model_a", "model_b"), names, strict=True))
            | dict(zip(("published_a", "published_b"), layers, strict=True))
            | {"matching": _matching(study["method"], study["direction"], turned)}
            | {"category": "" if row["subspace"] == "all" else row["subspace"]}
        )
    if not rows:
        return pd.DataFrame(columns=COLUMNS)
    keys = ["model_a", "model_b", "published_a", "published_b", "matching", "category", "metric"]
    return pd.DataFrame(rows).merge(_long(table), on=keys, how="inner", validate="many_to_one")[COLUMNS]


def differences(study: dict[str, Any], models: list[str]) -> list[tuple[str, Any, Any]]:
    """Where a resolved study differs from the published choices: (key, published value, the study's value).

    Args:
        study: the plain data of `study.yaml`.
        models: last parts of the names of the models compared.
    """
    texts = [text for pair, text in _TEXT.items() if set(pair) <= set(models)]
    found: list[tuple[str, Any, Any]] = []
    for key, settings in (PRESETS[SOURCE] | {"text": PRESETS[SOURCE]["text"] | (texts[0] if texts else {})}).items():
        if key in ("inference", "published") or (key == "subspaces" and not study.get(key)):
            continue  # nulls and intervals do not change scores
        if key == "spaces":
            for name, value in settings.items():
                own = sorted({str(group[name]) for group in study[key]} - {value})
                # `before_topk` means `pre_activation` for some SAEs, so an explicit `pre_activation` is no difference.
                if own and not (name == "codes" and own == ["pre_activation"]):
                    found.append((f"spaces.{name}", value, ", ".join(own)))
        elif key == "geometry":
            found += [
                ("geometry", wanted, None) for wanted in settings if not any(_same(wanted, m) for m in study[key])
            ]
        else:
            own_part = study[key]
            undirected = key == "matching" and not METHODS[own_part["method"]].directed
            found += [
                (f"{key}.{name}", v, own_part[name])
                for name, v in settings.items()
                if own_part[name] != v and not (undirected and name == "direction")
            ]
    return found


def model_name(name: str) -> str:
    """`pythia-70m` for `EleutherAI/pythia-70m` or a local folder of that name."""
    return PurePath(name).name


def _model(run: Run, space: str) -> str | None:
    info = run.info["spaces"][space]
    return None if info.get("control") else model_name(run.info["models"][info["model"]]["name"])


def _preferred(scores: pd.DataFrame) -> pd.DataFrame:
    """One score per cell and metric: with the published settings if the run has it, else its first one."""
    if scores.empty:
        return scores
    other = [
        0 if _same({"metric": metric, "settings": _AS_PUBLISHED[metric]}, {"metric": metric, "settings": own}) else 1
        for metric, own in zip(scores["metric"], scores["settings"].map(json.loads), strict=True)
    ]
    cell = ["space_a", "space_b", "subspace", "metric"]
    first = scores.assign(other=other, order=np.arange(len(scores))).sort_values("other", kind="stable")
    return first.drop_duplicates(cell).sort_values("order")


def _same(wanted: dict[str, Any], found: dict[str, Any]) -> bool:
    """Whether a measure has these settings, Spearman being RSA's default."""
    own = {"outer": "spearman"} | found["settings"] if found["metric"] == "rsa" else found["settings"]
    return bool(wanted["metric"] == found["metric"] and wanted["settings"] == own)


def _matching(method: str, direction: str, turned: bool) -> str:
    if method != "max":
        return "one-to-one"
    second_chooses = (direction == "b_to_a") != turned
    return "many-to-one" if second_chooses else "reverse many-to-one"


def _long(table: pd.DataFrame) -> pd.DataFrame:
    """The published cells with one row per metric, without those that have no score."""
    names = {"layer_a": "published_a", "layer_b": "published_b", "n_pairs": "n_published"}
    keys = ["model_a", "model_b", "matching", "category", *names]
    parts = []
    for metric in _AS_PUBLISHED:
        own = {metric: "score_published", f"{metric}_null": "null_published", f"{metric}_p": "p_published"}
        part = table[keys + list(own)].rename(columns=names | own).assign(metric=metric)
        parts.append(part.dropna(subset=["score_published"]))
    return pd.concat(parts, ignore_index=True)
