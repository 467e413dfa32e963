"""Published cells find the run's, by name, layer, matching, category and metric; what is another thing finds none."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from unifeat.published.beside import beside, differences, published_scores
from unifeat.runs.folder import Run
from unifeat.study.spec import Study

ONE, RSA = {"dims": 1}, {"inner": "pearson", "outer": "spearman"}
NAMES = {"small": "EleutherAI/pythia-70m", "large": "/somewhere/pythia-160m"}


def made_up(
    folder: Path,
    cells: list[tuple[str, int, str, int]],
    *,
    measures: list[tuple[str, dict[str, Any]]] = [("svcca", ONE), ("rsa", RSA)],  # noqa: B006
    method: str = "first-seen",
    direction: str = "b_to_a",
    subspace: str = "all",
    control: str | None = None,
    names: dict[str, str] = NAMES,
) -> Run:
    """A run's folder with as much as `beside` reads; scores are 0, 1, 2 …"""
    spaces = {f"{name}@{layer}": {"model": name} for cell in cells for name, layer in (cell[:2], cell[2:])}
    spaces = {name: info | {"control": control} for name, info in spaces.items()}
    rows = []
    for a, layer_a, b, layer_b in cells:
        for metric, settings in measures:
            rows.append(
                {"space_a": f"{a}@{layer_a}", "layer_a": layer_a, "space_b": f"{b}@{layer_b}", "layer_b": layer_b}
                | {"subspace": subspace, "metric": metric, "settings": json.dumps(settings, sort_keys=True)}
                | {"n_pairs": 7, "score": float(len(rows)), "null_mean": 0.5, "p": 0.25}
            )
    folder.mkdir(exist_ok=True)
    pd.DataFrame(rows).to_parquet(folder / "scores.parquet")
    info = {"spaces": spaces, "models": {key: {"name": name} for key, name in names.items()}}
    (folder / "run.json").write_text(json.dumps(info))
    (folder / "study.yaml").write_text(yaml.safe_dump({"matching": {"method": method, "direction": direction}}))
    return Run(folder)


def published_cell(matching: str, layer_a: int, layer_b: int, category: str = "") -> pd.Series:
    """Read without the code under test."""
    table = pd.read_csv(Path(__file__).parents[2] / "src/unifeat/published/arxiv-2410.06981.csv")
    own = table[(table["model_a"] == "pythia-70m") & (table["matching"] == matching)]
    own = own[own["category"].fillna("") == category]
    (row,) = own[(own["layer_a"] == layer_a) & (own["layer_b"] == layer_b)].to_dict("records")
    return pd.Series(row)


def test_the_table_is_the_one_that_was_given() -> None:
    path = Path(__file__).parents[2] / "src/unifeat/published/arxiv-2410.06981.csv"
    digest = "0d1b63b2192269e2b04ec1e26dcbf88fe8b2b85bb08c89e9b640281ccc533a3d"
    assert hashlib.sha256(path.read_bytes()).hexdigest() == digest
    table = published_scores()
    assert len(table) == 567
    best = table.query("model_a == 'pythia-70m' and matching == 'one-to-one' and category == ''")
    best = best.set_index(["layer_a", "layer_b"])["svcca"]
    # The headline numbers.
    assert [round(best[cell], 3) for cell in ((3, 5), (2, 5), (3, 6), (5, 10))] == [0.661, 0.678, 0.633, 0.541]


@pytest.mark.parametrize(
    ("method", "direction", "matching"),
    [
        ("first-seen", "b_to_a", "one-to-one"),
        ("mutual", "a_to_b", "one-to-one"),
        ("assignment", "a_to_b", "one-to-one"),
        ("max", "b_to_a", "many-to-one"),
        ("max", "a_to_b", "reverse many-to-one"),
    ],
)
def test_numbers_of_a_cell_stand_beside_its_own(tmp_path: Path, method: str, direction: str, matching: str) -> None:
    run = made_up(
        tmp_path / "run", [("small", 3, "large", 5), ("small", 4, "large", 9)], method=method, direction=direction
    )
    table = beside(run)
    whole = table[table["metric"] == "svcca"]
    assert whole["score"].tolist() == [0.0, 2.0]
    for row, (layer_a, layer_b) in zip(whole.itertuples(), ((3, 5), (4, 9)), strict=True):
        cell = published_cell(matching, layer_a, layer_b)
        assert (row.matching, row.layer_a, row.layer_b) == (matching, layer_a, layer_b)
        assert (row.n_published, row.score_published, row.null_published, row.p_published) == (
            *(cell["n_pairs"], cell["svcca"], cell["svcca_null"], cell["svcca_p"]),
        )
        assert (row.n_pairs, row.null_mean, row.p) == (7, 0.5, 0.25)
    rsa = table[table["metric"] == "rsa"]
    # The reverse matching has no published RSA.
    assert rsa["score"].tolist() == ([] if matching.startswith("reverse") else [1.0, 3.0])
    assert rsa["score_published"].notna().all()


def test_models_the_other_way_round(tmp_path: Path) -> None:
    turned = [("large", 5, "small", 3)]
    table = beside(made_up(tmp_path / "one", turned))
    assert table["score_published"].iloc[0] == published_cell("one-to-one", 3, 5)["svcca"]
    assert table[["layer_a", "layer_b"]].iloc[0].tolist() == [5, 3]
    # Who takes its best partner is then turned, too: here each feature of the published second model.
    table = beside(made_up(tmp_path / "two", turned, method="max", direction="a_to_b"))
    assert table["matching"].tolist() == ["many-to-one"] * 2
    assert table["score_published"].iloc[0] == published_cell("many-to-one", 3, 5)["svcca"]


def test_categories(tmp_path: Path) -> None:
    table = beside(made_up(tmp_path / "run", [("small", 3, "large", 5)], subspace="Emotions"))
    assert table["score_published"].tolist() == [
        published_cell("one-to-one", 3, 5, "Emotions")[m] for m in ("svcca", "rsa")
    ]
    assert table["n_published"].tolist() == [24, 24]
    assert beside(made_up(tmp_path / "other", [("small", 3, "large", 5)], subspace="noun.plant")).empty


def test_the_published_settings_are_preferred(tmp_path: Path) -> None:
    cells = [("small", 3, "large", 5)]
    several = [("svcca", {"dims": 64}), ("svcca", ONE), ("rsa", {"inner": "cosine"}), ("cka", {})]
    table = beside(made_up(tmp_path / "run", cells, measures=several))
    assert table["metric"].tolist() == ["svcca", "rsa"]
    assert table["score"].tolist() == [1.0, 2.0]
    # RSA's outer measure is Spearman where nothing is said.
    table = beside(
        made_up(tmp_path / "short", cells, measures=[("rsa", {"inner": "cosine"}), ("rsa", {"inner": "pearson"})])
    )
    assert table["score"].tolist() == [1.0]


def test_what_is_another_thing_stands_beside_nothing(tmp_path: Path) -> None:
    cells = [("small", 3, "large", 5)]
    assert len(beside(made_up(tmp_path / "run", cells))) == 2
    assert beside(made_up(tmp_path / "control", cells, control="random weights")).empty
    assert beside(made_up(tmp_path / "names", cells, names=NAMES | {"small": "EleutherAI/pythia-70m-deduped"})).empty
    assert beside(made_up(tmp_path / "layers", [("small", 3, "large", 12)])).empty
    assert beside(made_up(tmp_path / "measures", cells, measures=[("cka", {})])).empty


class TestDifferences:
    MODELS = ("pythia-70m", "pythia-160m")

    def of(self, **changes: Any) -> dict[str, Any]:
        study = {
            "preset": "arxiv-2410.06981",
            "text": {"source": "x", "documents": 100, "context": 300},
            "models": {name: {"name": name} for name in self.MODELS},
            "spaces": [{"model": name, "layers": 1, "sae": "x"} for name in self.MODELS],
        }
        return Study.model_validate(study | changes).model_dump(mode="json")

    def test_the_preset_has_none(self) -> None:
        assert differences(self.of(), [*self.MODELS]) == []
        explicit = [{"model": name, "layers": 1, "sae": "x", "codes": "pre_activation"} for name in self.MODELS]
        assert differences(self.of(spaces=explicit, inference={"permutations": 9}), [*self.MODELS]) == []

    def test_every_one_is_named(self) -> None:
        spaces = [{"model": name, "layers": 1, "sae": "x", "hook": "resid_post"} for name in self.MODELS]
        changed = self.of(
            spaces=spaces,
            mask={"pads": True},
            matching={"method": "mutual", "min_correlation": 0.2, "direction": "a_to_b"},
            geometry=["cka", {"svcca": {"dims": 1}}],
            text={"source": "x", "documents": 200, "context": 300},
            subspaces={"window": 0},
        )
        found = {key: here for key, _, here in differences(changed, [*self.MODELS])}
        assert found == {
            "text.documents": 200,
            "mask.pads": True,
            "spaces.hook": "resid_post",
            "matching.method": "mutual",
            "matching.min_correlation": 0.2,
            "geometry": None,
            "subspaces.window": 0,
        }
        assert "text.documents" not in {key for key, _, _ in differences(changed, ["other", "models"])}
