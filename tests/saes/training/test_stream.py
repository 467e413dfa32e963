"""The stream of activations: shuffled in bounded buffers, found again by its position, read from files if there are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tiny import write_text
from unifeat.errors import UserError
from unifeat.models.activations import GroupActivations
from unifeat.saes.training.activations import ActivationSource
from unifeat.saes.training.stream import ActivationStream, heldout_rows
from unifeat.text.corpus import Corpus, Cut, build_corpus
from unifeat.vocabulary.hook_points import HookPoint
from unifeat.vocabulary.masks import Masked
from unifeat.vocabulary.places import Places
from unifeat.vocabulary.windowing import Windowing

FIRST, SECOND = POINTS = [HookPoint(0), HookPoint(1)]
KEPT = 49  # rows of a document that are no sink at any point


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    """20 documents in 5 groups."""
    text = str(write_text(tmp_path, ["x" * 100] * 20))
    return build_corpus(
        text, documents=None, tokens=None, count_tokens=len, tokenizer_digest="", cut=Cut(group=400, part=400)
    )


@pytest.fixture(autouse=True)
def runs(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The model: row n of document d is (d, n, 1), at a second point the negative; row 3 of each is a sink there.

    Returns the documents of each run, as they come to be run.
    """
    runs: list[list[int]] = []

    def run(_: Any, parts: list[Any], points: list[HookPoint], _windowing: Any) -> GroupActivations:
        runs.append([part.document for part in parts])
        rows = torch.tensor([[part.document + 1.0, n, 100.0] for part in parts for n in range(50)])
        other = -rows
        other[3::50] *= 1000
        none = torch.zeros(len(rows), dtype=torch.int32).numpy()
        document = torch.tensor([p.document for p in parts], dtype=torch.int32).repeat_interleave(50).numpy()
        values = {point: rows if point == FIRST else other for point in points}
        return GroupActivations(Places(document, none, none, none), values, Masked())

    monkeypatch.setattr("unifeat.saes.training.activations.run_group", run)
    return runs


def source(corpus: Corpus, folder: Path, points: list[HookPoint] = POINTS, **identity: Any) -> ActivationSource:
    return ActivationSource(corpus, identity, points, Windowing(8), folder, load=lambda: None)  # type: ignore[arg-type, return-value]


@pytest.fixture
def stream(corpus: Corpus, tmp_path: Path) -> Any:
    def make(**settings: Any) -> ActivationStream:
        chosen = {"batch": 32, "buffer": 200, "last_document": 16, "seed": 0} | settings
        return ActivationStream(source(corpus, tmp_path / "activations"), **chosen)

    return make


def places(batch: Any) -> list[tuple[int, int]]:
    return [(int(d) - 1, int(n)) for d, n, _ in batch[FIRST]]


def test_points_share_their_rows(stream: Any):
    made = stream()
    for _ in range(20):
        first, second = made.take().values()
        assert first.shape == (32, 3)
        assert first.dtype == torch.float32
        assert torch.equal(first, -second)


def test_sinks_of_any_point_and_held_out_documents_are_left_out(stream: Any, runs: list[list[int]]):
    made = stream()
    seen = {place for _ in range(60) for place in places(made.take())}
    assert {document for document, _ in seen} == set(range(16))
    assert {n for _, n in seen} == set(range(50)) - {3}
    assert all(document < 16 for run in runs for document in run)  # the fifth group holds nothing else


def test_held_out_rows_are_the_others(corpus: Corpus, tmp_path: Path, stream: Any):
    rows = list(heldout_rows(source(corpus, tmp_path), 14))
    assert [sorted(set(part.document.tolist())) for part in rows] == [[14, 15], [16, 17, 18, 19]]
    assert sum(map(len, rows)) == 6 * KEPT
    made = stream(last_document=14)
    seen = {place for _ in range(60) for place in places(made.take())}
    assert {document for document, _ in seen} == set(range(14))


@pytest.mark.parametrize(("batch", "buffer"), [(32, 200), (32, 32), (50, 1000), (7, 7)])
def test_a_pass_gives_each_row_at_most_once(stream: Any, batch: int, buffer: int):
    """Of every buffer less than a batch is left over."""
    made = stream(batch=batch, buffer=buffer)
    seen: list[tuple[int, int]] = []
    while made.state()["epoch"] == 0:
        seen += places(made.take())
        whole = made.state()["epoch"] == 0
    seen = seen if whole else seen[:-batch]
    assert len(set(seen)) == len(seen)
    assert 16 * KEPT - batch * 2 < len(seen) <= 16 * KEPT


@pytest.mark.parametrize("buffer", [64, 200, 600])
def test_memory_is_bounded_however_long_a_group(stream: Any, buffer: int):
    """A group has 196 rows: with a smaller buffer it is given out in several buffers."""
    made = stream(buffer=buffer)
    for _ in range(30):
        made.take()
        assert all(len(value) <= buffer for value in made._held.values())


def test_neighbours_do_not_fill_a_batch(stream: Any):
    made = stream(buffer=600)
    for _ in range(10):
        assert len({document for document, _ in places(made.take())}) > 6


def test_buffers_and_passes_differ_in_order(stream: Any):
    made = stream(batch=196, buffer=196 * 4)
    first = [places(made.take()) for _ in range(4)]
    second = [places(made.take()) for _ in range(4)]
    assert sorted(p for batch in first for p in batch) == sorted(p for batch in second for p in batch)
    assert first != second


def test_are_the_same_for_the_same_seed(stream: Any):
    a, b, c = (stream(seed=seed) for seed in (0, 0, 1))
    batches = [[places(made.take()) for _ in range(30)] for made in (a, b, c)]
    assert batches[0] == batches[1] != batches[2]


@pytest.mark.parametrize("buffer", [40, 200, 500])
def test_goes_on_from_any_position(stream: Any, buffer: int):
    """In the middle of a buffer, of a group and of a later pass: what follows is what would have followed."""
    undisturbed = stream(buffer=buffer)
    expected = [places(undisturbed.take()) for _ in range(80)]
    made = stream(buffer=buffer)
    for n in range(70):
        made.take()
        if n % 7 == 6:
            made = stream(buffer=buffer, position=made.state())
            # At a buffer's end there is nothing to peek at; what is taken next is right all the same.
            assert [places(batch) for batch in made.peek(1)] in ([expected[n + 1]], [])
    assert [places(made.take()) for _ in range(10)] == expected[70:]


def test_peek_takes_nothing(stream: Any):
    made = stream(buffer=320)
    ahead = [places(batch) for batch in made.peek(4)]
    assert len(ahead) == 4
    assert [places(made.take()) for _ in range(4)] == ahead
    assert len(stream(buffer=64).peek(100)) == 2


def test_what_is_stored_is_not_run_again(stream: Any, runs: list[list[int]]):
    made = stream()
    for _ in range(60):
        made.take()
    assert made.state()["epoch"] >= 2
    assert sorted(runs) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12, 13, 14, 15]]
    stream(seed=5).take()
    assert len(runs) == 4


def test_another_point_runs_the_model_for_itself_only(corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked: list[list[HookPoint]] = []
    source(corpus, tmp_path, [FIRST]).group(0)
    from unifeat.saes.training import activations

    inner = activations.run_group
    monkeypatch.setattr(
        activations, "run_group", lambda m, parts, points, cut: asked.append(points) or inner(m, parts, points, cut)
    )
    both = source(corpus, tmp_path).group(0)
    assert asked == [[SECOND]]
    assert torch.equal(both.values[FIRST], -both.values[SECOND])


@pytest.mark.parametrize("change", [{"model": "another"}, {"tokenizer": "another"}])
def test_another_model_has_other_files(corpus: Corpus, tmp_path: Path, runs: list[list[int]], change: dict[str, str]):
    source(corpus, tmp_path, model="one", tokenizer="one").group(0)
    source(corpus, tmp_path, model="one", tokenizer="one").group(0)
    assert len(runs) == 1
    source(corpus, tmp_path, **({"model": "one", "tokenizer": "one"} | change)).group(0)
    assert len(runs) == 2


def test_groups_are_spent_when_their_buffer_is(stream: Any):
    made = stream(buffer=196, batch=49)
    assert made.spent() == []
    for _ in range(4):
        made.take()
    assert made.spent() == []  # the buffer is given out, but a resumed training would read it again
    made.take()
    first = made.spent()
    assert len(first) == 1
    assert made.spent() == []
    for _ in range(12):
        made.take()
    assert sorted(first + made.spent()) == [0, 1, 2, 3]  # the pass is over


@pytest.mark.parametrize(("batch", "works"), [(16 * KEPT, True), (16 * KEPT + 1, False)])
def test_a_text_that_does_not_fill_a_batch(stream: Any, batch: int, works: bool):
    if works:
        assert len(stream(batch=batch, buffer=2 * batch).take()[FIRST]) == batch
    else:
        with pytest.raises(UserError, match=r"train\.text is too short to fill one batch"):
            stream(batch=batch, buffer=2 * batch)
