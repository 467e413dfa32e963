"""A finished run as a person holds it: its tables, and what can be asked of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unifeat.errors import UserError, did_you_mean
from unifeat.runs.folder import Run as Folder
from unifeat.runs.folder import open_run as open_folder

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import plotly.graph_objects as go
    import pyarrow as pa
    from numpy.typing import NDArray

    from unifeat.api.asking import CorrelationOfTwo, PairOfFeatures, RunCodes
    from unifeat.api.contexts import Contexts
    from unifeat.engine import Engine
    from unifeat.study.spec import Study

_SHOWN = 12  # pairs of spaces in a notebook


@dataclass(frozen=True)
class Run(Folder):
    """A finished run, read from its folder.

    Its tables are pandas DataFrames, each in a file of its own (docs/run-folder.md):

    * `pairs`, `scores`: every candidate pair, and every score with its nulls;
    * `families`, `family_sets`, `sharedness`: features of many spaces, with `families` in the study;
    * `members`, `rates`: categories of words, with `subspaces`;
    * `transfer`, `transfer_pairs`, `effects`, `steering`: what shared features do, with `transfer`;
    * `labels`: words for features; `shown`, `examples`: what the report lists, in context.

    `info` is `run.json`. What follows works for any feature, from what the run left in the cache.
    """

    def figure(self, name: str, **options: Any) -> go.Figure:
        """A figure of the run, as in its report: a plotly Figure, which a notebook shows.

        | name | shows | options |
        | --- | --- | --- |
        | `controls` | every comparison beside chance, ceilings and controls | |
        | `heatmap` | layer × layer: a measure or `metric="kept"` | `metric`, `value`, `settings`, `subspace` |
        | `correlation`, `heldout`, `elsewhere`, `within_token`, `partners` | r of two spaces' pairs | `spaces` |
        | `families`, `passages`, `depths` | families: sets of spaces, layers, depths | of `passages`: `model` |
        | `categories` | how alike the features of each category lie | `metric`, `settings` |
        | `transfer`, `effects` | what shared features carry, and do | `spaces` |

        Args:
            metric: "svcca", "rsa" …, or of `heatmap` also "kept", "mean_correlation", "mean_correlation_heldout".
            value: "score", "null_mean" or "corrected"; by default all three.
            spaces: two spaces that were compared; by default those that share the most. For `transfer`, from and to.

        Raises:
            UserError: no figure of this name, an option that it does not take, or nothing in the run to show.
        """
        from unifeat.report.figures.named import figure

        return figure(self, name, **options)

    def codes(self, space: str) -> RunCodes:
        """The codes of a space: a CSR matrix (tokens, features), and a table of places. They must fit in memory.

        Raises:
            UserError: no such space; codes that are no longer in the cache.
        """
        from unifeat.api.asking import codes_of

        return codes_of(self, space)

    def contexts(self, space: str, feature: int, n: int = 10, around: int = 60) -> Contexts:
        """Where a feature fires most. A notebook shows it with every token shaded by the feature's activation.

        Args:
            feature: any feature of the space, listed in the report or not.
            n: how many contexts, strongest first, at least `around` characters apart.
            around: characters before and after.

        Raises:
            UserError: no such space or feature; codes or text that are no longer in the cache.
        """
        from unifeat.api.asking import contexts

        return contexts(self, space, feature, n, around)

    def pair(
        self, feature_a: int, feature_b: int, space_a: str, space_b: str, n: int = 5, around: int = 40
    ) -> PairOfFeatures:
        """Any two features side by side: contexts, correlation, and what the run made of them.

        Raises:
            UserError: as `contexts`.
        """
        from unifeat.api.asking import pair

        return pair(self, feature_a, feature_b, space_a, space_b, n, around)

    def correlation(self, space_a: str, feature_a: int, space_b: str, feature_b: int) -> CorrelationOfTwo:
        """Pearson's r of any two features, on all tokens that both spaces have and on both halves of the documents.

        Raises:
            UserError: as `contexts`.
        """
        from unifeat.api.asking import correlation

        return correlation(self, space_a, feature_a, space_b, feature_b)

    def partners(self, space: str, feature: int, other: str | None = None) -> pd.DataFrame:
        """The candidates of a feature in other spaces: kept ones first, then by r, with why the others were dropped.

        Args:
            other: only in this space; by default in all that were compared with `space`.

        Returns:
            `space`, `feature`, `correlation`, `correlation_heldout`, `correlation_within_token`, `kept`,
            `dropped_because`, `cofiring`, `label`, `top_tokens`; of these, those that the run has.

        Raises:
            UserError: no such space, or the run did not compare the two.
        """
        from unifeat.api.asking import partners

        return partners(self, space, feature, other)

    def unmatched(self, space: str, other: str | None = None) -> pd.DataFrame:
        """The features of a space without a kept partner, those that fire most first; dead ones are at the end.

        Args:
            other: without a partner in this space; by default in any that was compared with `space`.

        Returns:
            `feature`, `count` (tokens on which it fires), `best_correlation` (with any candidate; NaN if it has none),
            `label`.

        Raises:
            UserError: as `partners`; codes that are no longer in the cache.
        """
        from unifeat.api.asking import unmatched

        return unmatched(self, space, other)

    def decoder(self, space: str, features: Any = None) -> NDArray[np.float32]:
        """Decoder rows of a space, of unit norm, (features, width) float32; of all features, or of some.

        Raises:
            UserError: no such space or feature; rows that are no longer in the cache.
        """
        from unifeat.api.asking import decoder

        return decoder(self, space, features)

    def arrow(self, table: str) -> pa.Table:
        """A table of the run as an Arrow table, which polars and DuckDB take as it is: `polars.from_arrow(...)`.

        Args:
            table: pairs, scores, families, labels … (docs/run-folder.md).

        Raises:
            UserError: the run has no such table, or its file is not the one that `run.json` was written with.
        """
        import pyarrow.parquet as pq

        names = [name.removesuffix(".parquet") for name in self.info.get("files", {}) if name.endswith(".parquet")]
        if names and table not in names:
            raise UserError(f"run {self.folder} has no table {table!r}{did_you_mean(table, names)}: {', '.join(names)}")
        return self._own_file(table, pq.read_table)

    def __repr__(self) -> str:
        return super().__repr__()

    def _repr_html_(self) -> str:
        from unifeat.report.summary import summary
        from unifeat.report.tables import cells

        said = "".join(f"<p style='max-width:80ch'>{escape(sentence)}</p>" for sentence in summary(self).lead)
        columns = ["space_a", "space_b", "kept", "mean_correlation", "mean_correlation_heldout"]
        table = cells(self)[columns].sort_values("kept", ascending=False)
        shown = table.head(_SHOWN).to_html(index=False, float_format=lambda v: f"{v:.3f}")
        more = f"<p>{len(table) - _SHOWN} more</p>" if len(table) > _SHOWN else ""
        report = f"<p><code>{escape(str(self.report))}</code></p>" if self.report.is_file() else ""
        return f"<div><b>{escape(repr(self))}</b>{said}{shown}{more}{report}</div>"


def _held(run: Folder) -> Run:
    held = Run(run.folder, run.goes_to)
    held.__dict__.update({name: value for name, value in run.__dict__.items() if name not in held.__dict__})
    return held


def open_run(folder: str | Path) -> Run:
    """Open a run's folder.

    Raises:
        UserError: the folder holds no finished run.
    """
    return _held(open_folder(folder))


def run(
    study: str | Path | Study | Mapping[str, Any],
    out: str | Path | None = None,
    *,
    force: bool = False,
    engine: Engine | str = "local",
) -> Run:
    """Run a study. Work already done, in this run or another over the same text, is not repeated.

    Args:
        study: a study file, a `Study`, or its settings as a dict.
        out: the run's folder; by default `runs/<name of the study>`.
        force: continue, with a warning, with SAEs that are evidently read wrongly (FVU above 1, or L0 off by more than
            a factor of 3).
        engine: what runs the units of work, or its name: "local" (this machine) or "ray" (see docs/scale.md).

    Raises:
        UserError: a mistake in the study, or something that it names does not exist or does not fit.
    """
    from unifeat.pipeline.run import run as run_study
    from unifeat.study.read import study_from
    from unifeat.study.spec import Study

    if isinstance(study, Mapping):
        study = study_from(dict(study), Path.cwd())
    if not isinstance(study, str | Path | Study):
        raise UserError(f"study: give a file's path, a Study or a dict of its settings, not {type(study).__name__}")
    return _held(run_study(study, out, force=force, engine=engine))
