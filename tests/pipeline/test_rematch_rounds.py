"""Rounds of draws: they stop where every test is settled, and give the same in any order and after any interruption."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from stores import places, shard_of, written
from unifeat.engine import Local, Unit
from unifeat.inference.sequential import sequential, sequential_family_wise
from unifeat.matching.candidates import Comparison
from unifeat.matching.filters import Filters
from unifeat.matching.rule import Rule
from unifeat.pipeline import rematch
from unifeat.pipeline.match import Cell
from unifeat.pipeline.rematch import Asked, rematch_cells, rounds
from unifeat.pipeline.rematch_tests import R_BINS, add_rematch, decoys, families, reaches
from unifeat.pipeline.spaces import Space
from unifeat.study.spec import Study

DOCUMENTS, TOKENS, FEATURES, DRAWS, ENOUGH = 10, 12, 24, 60, 5
NULL = Asked("rematch", "documents", DRAWS)


@dataclass(frozen=True)
class Rows:
    """A decoder in memory."""

    matrix: np.ndarray

    def rows(self, features: np.ndarray) -> np.ndarray:
        return self.matrix[features]


def study(enough: int | None = ENOUGH) -> Study:
    names = ("one", "two", "three")
    return Study.model_validate(
        {
            "text": {"source": "text.txt"},
            "models": {name: {"name": name} for name in names},
            "spaces": [{"model": name, "layers": 0, "sae": "sae"} for name in names],
            "geometry": [{"metric": "rsa"}, {"metric": "svcca", "settings": {"dims": 2}}],
            "inference": {"rematches": DRAWS, "enough": enough, "bootstraps": 0, "clusters": None},
        }
    )


class World:
    """Three spaces over one text: `one` and `two` share what is asked, `three` shares nothing with them."""

    def __init__(self, folder: Path, *, codes: bool, directions: bool, seed: int = 3) -> None:
        rng = np.random.default_rng(seed)
        where = places(np.repeat(np.arange(DOCUMENTS), TOKENS), np.tile(np.arange(1, TOKENS + 1), DOCUMENTS))
        n = DOCUMENTS * TOKENS
        dense = {name: np.maximum(rng.normal(size=(n, FEATURES)) - 0.8, 0) for name in ("one", "two", "three")}
        rows = {name: rng.normal(size=(FEATURES, 8)).astype(np.float32) for name in dense}
        if codes:
            dense["two"] = dense["one"] * rng.uniform(0.8, 1.2, dense["one"].shape)
        if directions:
            rows["two"] = rows["one"]
        spaces = {
            name: Space(
                *(f"{name}@0", name, 0),
                written(folder, [shard_of(dense[name].astype(np.float32), where)], sae=f"{name} {seed}"),
                tokenizer=None,  # type: ignore[arg-type]
                decoder=Rows(rows[name]),  # type: ignore[arg-type]
                tokens={},  # type: ignore[arg-type]
                info={"model": name, "hook": "resid_post", "layer": 0},
            )
            for name in dense
        }
        self.names = [("one", "two"), ("one", "three"), ("two", "three")]
        self.cells = [
            Cell(
                *(spaces[a], spaces[b], Rule(Filters(0.05, 3), "mutual")),
                Comparison(spaces[a].store, spaces[b].store, 2, False, DOCUMENTS, 0),
                study().inference,
            )
            for a, b in self.names
        ]
        self.facts = [cell.matched().facts for cell in self.cells]

    def again(self, enough: int | None = ENOUGH, null: Asked = NULL, engine: Any = None) -> list[dict[str, Any]]:
        return rematch_cells(study(enough), null, self.cells, self.facts, engine or Local())


@pytest.fixture
def nothing(tmp_path: Path) -> World:
    return World(tmp_path, codes=False, directions=False)


def prefix(whole: list[Any], part: list[Any]) -> bool:
    return np.array_equal(np.array(whole[: len(part)], float), np.array(part, float), equal_nan=True)


def test_rounds_double_and_their_beginnings_do_not_depend_on_the_number_of_draws() -> None:
    assert rounds(99) == [0, 20, 40, 80, 99]
    assert rounds(19) == [0, 19]
    assert rounds(20) == [0, 20]
    assert rounds(1) == [0, 1]
    assert rounds(1000)[:4] == rounds(99)[:4]


def test_where_nothing_is_shared_drawing_stops_and_p_is_that_of_all_draws(nothing: World) -> None:
    stopped, whole = nothing.again(), nothing.again(enough=None)
    for own, all_, facts in zip(stopped, whole, nothing.facts, strict=True):
        assert (own["draws"], own["asked"], own["stopped"]) == (40, DRAWS, True)
        assert (all_["draws"], all_["stopped"]) == (DRAWS, False)
        assert own["least_p"] == all_["least_p"] == 1 / (DRAWS + 1)
        for name in ("kept", "mean_correlation", "same"):
            assert len(own[name]) == own["draws"]
            assert prefix(all_[name], own[name])
        # Every p is the one that all draws give, in their order.
        kept = reaches(facts["kept"], np.array([all_["kept"]], float))
        assert own["p_kept"] == sequential(kept, ENOUGH).p[0]
        assert all_["p_kept"] == pytest.approx((kept.sum() + 1) / (DRAWS + 1))
        for measure in range(2):
            assert prefix(all_["scores"][measure], own["scores"][measure])
            assert len(own["scores"][measure]) == len(own["observed"][measure])
            excess = np.array([all_["scores"][measure]], float) - np.array([all_["observed"][measure]], float)
            assert own["p"][measure] == sequential(reaches(0.0, excess), ENOUGH).p[0]
    kept = np.array([own["kept"] for own in whole], float)
    observed = np.array([facts["kept"] for facts in nothing.facts], float)
    expected = sequential_family_wise(observed, kept, ENOUGH)
    assert expected.settled.all()
    assert [own["p_kept_family"] for own in stopped] == expected.p.tolist()


def test_where_something_is_shared_nothing_stops(tmp_path: Path) -> None:
    """And the other cells of its family go on with it: they are part of its maxima."""
    world = World(tmp_path, codes=True, directions=True)
    found = world.again()
    for own in found:
        assert (own["draws"], own["stopped"]) == (DRAWS, False)
        assert [len(values) for values in own["scores"]] == [DRAWS, DRAWS]
    for name in ("p_kept", "p_kept_family", "p_mean_correlation_family"):
        assert found[0][name] == 1 / (DRAWS + 1)
    assert found[0]["p_family"] == [1 / (DRAWS + 1)] * 2
    assert min(own["p_kept_family"] for own in found[1:]) > 0.05


def test_a_measure_is_left_out_where_only_the_pairs_are_shared(tmp_path: Path) -> None:
    """The pairs of the first cell are certain, so their tests go on; unrelated decoders are settled early."""
    world = World(tmp_path, codes=True, directions=False, seed=0)
    found, whole = world.again(), world.again(enough=None)
    for own, all_ in zip(found, whole, strict=True):
        assert own["draws"] == DRAWS
        assert not own["stopped"]
        assert [len(values) for values in own["scores"]] == [40, 20], "a family leaves a measure out together"
        for measure in range(2):
            assert prefix(all_["scores"][measure], own["scores"][measure])
        assert own["kept"] == all_["kept"]
        assert own["r"] == all_["r"]
    scores = pd.DataFrame(
        [
            {"space_a": f"{a}@0", "space_b": f"{b}@0", "subspace": "all", "metric": metric, "settings": "{}"}
            for a, b in world.names
            for metric in ("rsa", "svcca")
        ]
    )
    names = [(f"{a}@0", f"{b}@0") for a, b in world.names]
    table = add_rematch(scores, "rematch", names, found)
    assert table["rematch_draws"].tolist() == [len(values) for own in found for values in own["scores"]]
    assert table["rematch_stopped"].tolist() == [n < DRAWS for n in table["rematch_draws"]]
    assert table["rematch_p"].tolist() == [p for own in found for p in own["p"]]
    assert (table.loc[table["rematch_stopped"], "rematch_p"] >= ENOUGH / DRAWS).all()


def test_decoys_know_how_many_draws_there_were(nothing: World) -> None:
    for own, cell in zip(nothing.again(), nothing.cells, strict=True):
        assert own["draws"] < DRAWS
        kept = cell.kept["correlation"]
        found = decoys(kept, own)
        at = int(np.argmax(kept))
        low = R_BINS[np.searchsorted(R_BINS, kept.iloc[at], side="right") - 1]
        above = sum(own["r"][int(np.searchsorted(R_BINS, low)) :]) / own["draws"]
        assert found[at] <= min(above, 1.0) + 1e-12
        assert found.max() > 0.1


class Backwards:
    """Computes some units at a time, the last first."""

    def __init__(self, at_most: int | None = None) -> None:
        self.left = at_most

    def map(self, units: Iterable[Unit[Any]]) -> Iterator[Any]:
        together = list(units)
        for unit in reversed(together):
            if self.left is not None:
                if not self.left:
                    raise KeyboardInterrupt
                self.left -= unit.piece.read() is None
            unit.result()
        return (unit.result() for unit in together)


def test_the_order_of_units_and_interruptions_change_nothing(
    nothing: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = nothing.again()
    monkeypatch.setenv("UNIFEAT_CACHE", str(tmp_path / "another cache"))
    interrupted = 0
    for _ in range(40):
        try:
            found = nothing.again(engine=Backwards(5))
        except KeyboardInterrupt:
            interrupted += 1
        else:
            break
    assert interrupted > 3
    assert repr(found) == repr(expected)


def test_families_are_the_cells_of_one_role_that_share_all_draws() -> None:
    found = families(["ordinary", "control", "ordinary", "ordinary", "ceiling"], [9, 9, 5, 9, 9], 9)
    assert [(own.cells, own.shared) for own in found] == [
        *(((0, 3), True), ((1,), True), ((4,), True)),
        ((2,), False),
    ]


def test_a_family_stops_without_the_others(nothing: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A control in which nothing is shared is spared, while a cell of another role goes on."""
    monkeypatch.setattr(rematch, "role", lambda a, b: "control" if b.name == "three@0" else "ordinary")
    sharing = [facts | {"kept": 1000} if i == 0 else facts for i, facts in enumerate(nothing.facts)]
    found = rematch_cells(study(), NULL, nothing.cells, sharing, Local())
    assert [own["stopped"] for own in found] == [False, True, True]
    assert found[0]["draws"] == DRAWS
    assert found[0]["p_kept_family"] == 1 / (DRAWS + 1)
    assert found[1]["draws"] == found[2]["draws"] < DRAWS


def test_a_cell_with_fewer_rotations_has_no_family_and_stops_alone(nothing: World) -> None:
    few = [facts | {"shifts": 30 if i else 60} for i, facts in enumerate(nothing.facts)]
    asked = [rematch._possible(Asked("rematch", "rotation", DRAWS), own) for own in few]
    assert asked == [60, 30, 30]
    assert [own.cells for own in families(["ordinary"] * 3, asked, DRAWS)] == [(0,), (1,), (2,)]
    alone = [facts | {"documents_fitted": 1} for facts in nothing.facts]
    for own in rematch_cells(study(), NULL, nothing.cells, alone, Local()):
        assert (own["draws"], own["asked"], own["stopped"], own["least_p"]) == (0, 0, False, None)
        assert own["p_kept"] is own["p_kept_family"] is None
        assert own["p"] == own["p_family"] == [None, None]
