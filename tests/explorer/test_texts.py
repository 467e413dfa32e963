"""The text that is shown, and where tokens are in it."""

import numpy as np

from unifeat.codes.peaks import strongest
from unifeat.explorer.texts import Excerpts, excerpts, merged, tokens_in
from worlds import World


def test_merged():
    rng = np.random.default_rng(0)
    start = rng.integers(0, 300, 60)
    spans = np.stack([rng.integers(0, 3, 60), start, start + rng.integers(1, 12, 60)], axis=1)
    covered = np.zeros((3, 400), bool)
    for d, low, high in spans:
        covered[d, low:high] = True
    found = merged(spans)
    again = np.zeros_like(covered)
    for d, low, high in found:
        assert not again[d, low:high].any(), "no character twice"
        again[d, low:high] = True
    assert np.array_equal(again, covered)
    assert len(merged(np.zeros((0, 3), np.int64))) == 0
    assert merged(np.array([[0, 0, 10], [0, 10, 20]])).tolist() == [[0, 0, 10], [0, 10, 20]], "parts stay apart"


def whole_texts(world: World) -> dict[int, str]:
    found: dict[int, str] = {}
    for group in range(world.corpus.groups):
        for part in world.corpus.parts(group):
            found[part.document] = found.get(part.document, "") + part.text
    return found


def test_excerpts_are_the_documents_own_text(world: World):
    peaks = strongest(world.stores[0], 2, 30)
    shown = excerpts(world.corpus, [(peaks, 20)])
    assert 0 < len(shown.text) < world.corpus.characters
    texts = whole_texts(world)
    for document, start, at, end in zip(shown.document, shown.start, shown.at[:-1], shown.at[1:], strict=True):
        assert shown.text[at:end] == texts[document][start : start + end - at]
    at = shown.where(peaks.document.astype(np.int64) * 2**32 + peaks.char_end)
    assert (at > 0).all()
    for offset, feature in zip(at, peaks.feature, strict=True):
        word = world.word[0][feature]
        assert word is not None
        assert shown.text[:offset].endswith(word[-5:])


def test_tokens_are_where_they_are(world: World):
    """Their ends, and where they begin, though some tokens are masked."""
    for number, store in enumerate(world.stores):
        peaks = strongest(store, 2, 30)
        shown = excerpts(world.corpus, [(peaks, 20)])
        tokens = tokens_in(store, shown)
        document, end, _ = world.rows[number]
        at = shown.where(document.astype(np.int64) * 2**32 + end)
        assert tokens.end.tolist() == at[at >= 0].tolist()


def test_a_masked_token_is_not_part_of_the_next(world: World):
    store = world.stores[0]
    shown = excerpts(world.corpus, [(strongest(store, 5, 1), 70)])
    whole = tokens_in(store, shown)
    # Every seventh row is left out, as masked tokens are.
    import unifeat.explorer.texts as module

    def masked(store):
        for place, token in module_places(store):
            keep = np.arange(len(place)) % 7 != 3
            yield place[keep], token[keep]

    module_places, module.places = module.places, masked
    try:
        found = tokens_in(store, shown)
    finally:
        module.places = module_places
    begins = dict(zip(whole.end.tolist(), (np.concatenate([[0], whole.end[:-1]]) + whole.cut).tolist(), strict=True))
    own = np.concatenate([[0], found.end[:-1]]) + found.cut
    expected = np.array([begins[end] for end in found.end.tolist()])
    assert (own == expected).mean() > 0.98, "the first token of a stretch may begin before it"
    assert len(found.end) < len(whole.end)


def test_places_that_are_not_shown():
    shown = Excerpts("abcdef", np.array([0, 2]), np.array([10, 0]), np.array([0, 4, 6]))
    at = np.array([(0, 10), (0, 11), (0, 14), (0, 15), (1, 12), (2, 0), (2, 2), (2, 3)])
    assert shown.where(at[:, 0] * 2**32 + at[:, 1]).tolist() == [-1, 1, 4, -1, -1, -1, 6, -1]
    none = Excerpts("", np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(1, np.int64))
    assert none.where(np.array([5])).tolist() == [-1]


def test_offsets_as_javascript_counts():
    shown = Excerpts("a🎉b\u2028🎉", np.zeros(1, np.int64), np.zeros(1, np.int64), np.array([0, 5]))
    units = shown.units(np.arange(6)).tolist()
    assert units == [len("a🎉b\u2028🎉"[:n].encode("utf-16-le")) // 2 for n in range(6)]
