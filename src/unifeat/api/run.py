"""A finished run as a person holds it: its tables, and what can be asked of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unifeat.errors import UserError
from unifeat.runs.folder import Run as Folder
from unifeat.runs.folder import open_run as open_folder

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from unifeat.engine import Engine
    from unifeat.study.spec import Study


@dataclass(frozen=True)
class Run(Folder):
    """A finished run, read from its folder."""

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

    def __repr__(self) -> str:
        return super().__repr__()


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
