"""What a finished run answers, of any feature: beside NumPy on its codes, and beside the run's own tables."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import unifeat as uf
from homes import Place
from unifeat.errors import UserError

A, B = "one@0", "two@1"


@pytest.fixture
def run(here: Place) -> uf.Run:
    return uf.open(here.run)


def dense(run: uf.Run, space: str) -> pd.DataFrame:
    """The codes by place, as a table with a column for each feature."""
    codes = run.codes(space)
    places = pd.MultiIndex.from_frame(codes.places[["document", "char_end"]])
    return pd.DataFrame(codes.matrix.toarray(), index=places)


def test_codes_and_places(run: uf.Run, here: Place) -> None:
    codes = run.codes(A)
    info = run.info["spaces"][A]
    assert codes.matrix.shape == (info["tokens_kept"], info["d_sae"])
    assert codes.matrix.nnz / codes.matrix.shape[0] == pytest.approx(info["l0"])
    documents = [json.loads(line)["text"] for line in (here.home / "text.jsonl").read_text().splitlines()]
    for row in codes.places.sample(50, random_state=0).itertuples():
        assert documents[row.document][: row.char_end].endswith(row.text.strip())
    assert f"{info['tokens_kept']:,} tokens × 64 features" in repr(codes)


def test_correlation_of_any_two_features(run: uf.Run) -> None:
    """Of a pair that is a candidate, and of one that is none; on all tokens and on both halves, as NumPy has it."""
    from unifeat.text.halves import fitting_documents

    a, b = dense(run, A), dense(run, B)
    both = a.add_suffix("a").join(b.add_suffix("b"), how="inner")
    fit = fitting_documents(run.info["text"]["documents"], 3)[both.index.get_level_values("document")]
    candidates = run.space_pair(A, B)
    first = candidates.iloc[0]
    known = set(zip(candidates["feature_a"], candidates["feature_b"], strict=True))
    alive = [int(f) for f in np.flatnonzero((a != 0).any())][:12]
    other = next((x, y) for x in alive for y in map(int, np.flatnonzero((b != 0).any())) if (x, y) not in known)
    for fa, fb in ((int(first["feature_a"]), int(first["feature_b"])), other):
        found = run.correlation(A, fa, B, fb)
        x, y = both[f"{fa}a"].to_numpy(float), both[f"{fb}b"].to_numpy(float)
        assert float(found) == pytest.approx(np.corrcoef(x, y)[0, 1], abs=1e-9)
        assert found.fitted == pytest.approx(np.corrcoef(x[fit], y[fit])[0, 1], abs=1e-9, nan_ok=True)
        assert found.heldout == pytest.approx(np.corrcoef(x[~fit], y[~fit])[0, 1], abs=1e-9, nan_ok=True)
        assert found.cofiring == int(((x != 0) & (y != 0)).sum())
        assert found.tokens == len(both)
    own = run.correlation(A, int(first["feature_a"]), B, int(first["feature_b"]))
    assert own.fitted == pytest.approx(first["correlation"], abs=1e-12)
    assert own.heldout == pytest.approx(first["correlation_heldout"], abs=1e-12)
    assert run.correlation(B, int(first["feature_b"]), A, int(first["feature_a"])).correlation == own.correlation


def test_codes_can_be_correlated(run: uf.Run) -> None:
    one, two = run.codes(A), run.codes("one@2")
    found = uf.correlate(one, two, top=1)
    beside = uf.correlate(one.matrix, two.matrix, top=1)
    pd.testing.assert_frame_equal(found.candidates(), beside.candidates())
    with pytest.raises(UserError, match="both must cover the same tokens"):
        uf.correlate(one, run.codes(B))


def test_contexts_are_where_the_feature_fires_most(run: uf.Run) -> None:
    codes = run.codes(A)
    feature = int(np.argmax((codes.matrix != 0).sum(axis=0)))
    column = codes.matrix[:, [feature]].toarray().ravel()
    found = run.contexts(A, feature, n=4, around=30)
    assert found.count == (column != 0).sum()
    assert len(found) == 4
    assert found.contexts[0].activation == pytest.approx(column.max())
    values = [one.activation for one in found]
    assert values == sorted(values, reverse=True)
    for one in found:
        row = codes.places[(codes.places["document"] == one.document) & (codes.places["char_end"] == one.char_end)]
        assert column[row.index[0]] == pytest.approx(one.activation)
        assert one.token.strip() == row["text"].iloc[0].strip()
        assert len(one.before) + len(one.token) <= 31
        # Every token of the stretch has its own activation.
        inside = codes.places.index[
            (codes.places["document"] == one.document)
            & codes.places["char_end"].between(one.char_end - 25, one.char_end + 25)
        ]
        assert {round(float(v), 4) for v in column[inside]} <= {round(v, 4) for v in [*one.activations, 0.0]}
    ends = found.table.groupby("document")["char_end"].apply(lambda s: s.sort_values().diff().min())
    assert not (ends.dropna() < 30).any(), "contexts do not overlap"


def test_a_correlation_shows_itself(run: uf.Run) -> None:
    found = run.correlation(A, 3, B, 5)
    assert re.sub("<[^>]+>", "", found._repr_html_()).replace(" ", "") == repr(found).replace(" ", "")


def test_contexts_show_themselves(run: uf.Run) -> None:
    found = run.contexts(A, 3, n=2)
    text, html = repr(found), found._repr_html_()
    assert text.splitlines()[0].startswith("one@0/3 ")
    assert len(text.splitlines()) == 1 + len(found)
    assert f"[{found.contexts[0].token.strip()}" in text or f"[ {found.contexts[0].token.strip()}" in text
    assert html.count("<tr>") == len(found)
    assert "background:rgb(31 95 168/0.50)" in html


def test_hostile_text_stays_text(here: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    tokens = [["<script>alert(1)</script>", " a\u2028b", "</td>"][n % 3] for n in range(300)]
    codes = uf.Codes(rng.random((300, 5)) * (rng.random((300, 5)) < 0.3), np.repeat(np.arange(3), 100), tokens=tokens)
    spaces = [uf.space(codes=codes, decoder=np.eye(5)), uf.space(codes=codes, decoder=np.eye(5))]
    run = uf.compare(spaces, matching={"min_count": 2}, inference={"permutations": 5, "bootstraps": 0})
    for html in (run.contexts("a@0", 1)._repr_html_(), run.pair(1, 1, "a@0", "b@0")._repr_html_(), run._repr_html_()):
        assert "<script" not in html
    assert "&lt;script&gt;" in run.contexts("a@0", 1)._repr_html_()
    assert run.codes("a@0").places["text"].tolist() == tokens


def test_pair(run: uf.Run) -> None:
    first = run.space_pair(A, B).iloc[0]
    found = run.pair(first["feature_a"], first["feature_b"], A, B, n=2)
    assert found.facts is not None
    assert found.facts["correlation"] == first["correlation"]
    assert "kept" in found.said
    assert (found.a.space, found.b.space, len(found.a)) == (A, B, 2)
    turned = run.pair(first["feature_b"], first["feature_a"], B, A, n=1)
    assert turned.facts is not None
    assert turned.facts["correlation"] == first["correlation"]
    for shown in (repr(found), found._repr_html_()):
        assert A in shown
        assert f"fitted {first['correlation']:.3f}" in shown


def test_a_pair_that_the_run_did_not_have(run: uf.Run) -> None:
    dead = int(np.flatnonzero(np.bincount(run.codes(A).matrix.indices, minlength=64) == 0)[:1].sum())
    found = run.pair(dead, 0, A, "one@2", n=1)
    assert found.facts is None
    assert found.said == "not among each other’s best partners"


def test_partners(run: uf.Run) -> None:
    first = run.space_pair(A, B).iloc[0]
    found = run.partners(A, first["feature_a"])
    assert set(found["space"]) <= {B, "one@2"}
    own = run.partners(A, first["feature_a"], B)
    assert own.iloc[0]["feature"] == first["feature_b"]
    assert own["correlation"].tolist() == sorted(own["correlation"], reverse=True)
    back = run.partners(B, first["feature_b"], A)
    assert back.iloc[0]["feature"] == first["feature_a"]
    assert list(own)[:4] == ["space", "feature", "correlation", "correlation_heldout"]


def test_unmatched(run: uf.Run) -> None:
    kept = {f for b in (B,) for f in run.space_pair(A, b).query("kept")["feature_a"]}
    found = run.unmatched(A, B)
    assert set(found["feature"]) == set(range(64)) - kept
    counts = np.bincount(run.codes(A).matrix.indices, minlength=64)
    assert found["count"].tolist() == sorted(counts[found["feature"]], reverse=True)
    best = run.space_pair(A, B).groupby("feature_a")["correlation"].max()
    for row in found.itertuples():
        assert row.best_correlation == pytest.approx(best.get(row.feature, np.nan), nan_ok=True)
    assert set(run.unmatched(A)["feature"]) <= set(found["feature"])


def test_decoder(run: uf.Run, here: Place) -> None:
    rows = run.decoder(B)
    w = uf.load_sae(str(here.home / "saes/two_1")).W_dec.detach().numpy()
    assert np.allclose(rows, w / np.linalg.norm(w, axis=1, keepdims=True), atol=1e-6)
    assert np.array_equal(run.decoder(B, [3, 1]), rows[[3, 1]])
    assert np.array_equal(run.decoder(B, 3), rows[[3]])
    assert np.array_equal(run.decoder(B, np.arange(64) < 2), rows[:2])
    assert run.decoder(B, []).shape == (0, rows.shape[1])


def test_arrow(run: uf.Run) -> None:
    table = run.arrow("pairs")
    assert table.num_rows == len(run.pairs)
    assert table.column("correlation").to_pylist() == run.pairs["correlation"].tolist()
    with pytest.raises(UserError, match=r"has no table 'pair' \(did you mean 'pairs'\?\)"):
        run.arrow("pair")


def test_a_run_shows_itself(run: uf.Run) -> None:
    html = run._repr_html_()
    assert "one@0" in html
    assert "have a mutual best partner in" in html
    assert str(run.report) in html
    assert repr(run).startswith("Run('")


def test_results_in_memory_show_themselves() -> None:
    rng = np.random.default_rng(0)
    codes = rng.random((200, 6)) * (rng.random((200, 6)) < 0.4)
    found = uf.correlate(codes, codes[:, :4], top=2)
    assert repr(found).startswith("Correlation(200 tokens, 6 × 4 features, top 2, median best r ")
    assert "feature_a" in found._repr_html_()
    x = rng.normal(size=(40, 5))
    for thing in (uf.rsa(x, x), uf.permutation_test(uf.rsa, x, x, permutations=20, seed=0), uf.Codes(codes)):
        assert thing._repr_html_()
        assert len(repr(thing)) < 300
    empty = uf.correlate(np.zeros((3, 2)), np.zeros((3, 2)))
    assert "Correlation(3 tokens" in repr(empty)
    assert empty._repr_html_()


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda run: run.contexts("one@1", 0), r"no space 'one@1' \(did you mean"),
        (lambda run: run.contexts(A, 64), "one@0 has features 0 to 63, not 64"),
        (lambda run: run.contexts(A, -1), "not -1"),
        (lambda run: run.contexts(A, 1, n=0), "n and around are at least 1"),
        (lambda run: run.correlation(A, 0, B, 99), "two@1 has features 0 to 63, not 99"),
        (lambda run: run.partners(A, 0, A), "did not compare one@0 with one@0"),
        (lambda run: run.partners("x@1", 0), "no space 'x@1'"),
        (lambda run: run.unmatched(A, A), "did not compare"),
        (lambda run: run.decoder(A, [64]), "features 0 to 63"),
        (lambda run: run.decoder(A, 1.5), "a whole number, a list of them, or a mask of all 64"),
        (lambda run: run.decoder(A, "a"), "a whole number, a list of them"),
        (lambda run: run.decoder(A, [[1], [2]]), "a whole number, a list of them"),
        (lambda run: run.decoder(A, [True, False]), "a mask of all 64"),
        (lambda run: run.contexts(A, 8.31), "a feature is a whole number, not 8.31"),
        (lambda run: run.contexts(A, "8"), "a feature is a whole number, not '8'"),
        (lambda run: run.contexts(A, 8, n=1.5), "contexts: n is a whole number, not 1.5"),
        (lambda run: run.correlation(A, 8.5, B, 1), "a feature is a whole number, not 8.5"),
        (lambda run: run.correlation(8, A, 1, B), "a space is a name, like 'one@0', not 8"),
        (lambda run: run.partners(A, 10**7), "one@0 has features 0 to 63, not 10000000"),
        (lambda run: run.partners(A, -5), "not -5"),
        (lambda run: run.partners(A, "8"), "a feature is a whole number, not '8'"),
    ],
)
def test_mistakes(run: uf.Run, ask: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        ask(run)


def test_decoder_rows_need_no_codes(run: uf.Run, here: Place) -> None:
    rows = run.decoder(A)
    run.info["spaces"][A]["codes"] = f"/nowhere/{Path(run.info['spaces'][A]['codes']).name}"
    run.notes.clear()
    shutil.rmtree(here.cache / "codes")
    assert np.array_equal(run.decoder(A), rows)


def test_what_was_pruned_is_named(run: uf.Run, here: Place) -> None:
    name = Path(run.info["spaces"][A]["codes"]).name
    run.info["spaces"][A]["codes"] = f"/nowhere/{name}"  # (the run was made with another cache, which is still there)
    for kind, ask in (
        ("decoders", lambda: run.decoder(A)),
        ("text", lambda: run.contexts(A, 0)),
        ("codes", lambda: (run.notes.clear(), run.codes(A))),
    ):
        shutil.rmtree(Path(here.cache) / kind)
        with pytest.raises(UserError, match=r"not in the cache .*\(any more\).*unifeat run .*study\.yaml"):
            ask()
    first = run.space_pair(A, B).iloc[0]
    found = uf.open(here.run).partners(A, first["feature_a"], B)
    assert found.iloc[0]["correlation"] == first["correlation"], "tables need no cache"
