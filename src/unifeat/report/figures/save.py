"""Saving a plotly figure to a file, whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from unifeat.errors import UserError
from unifeat.store.paths import user_path
from unifeat.store.writing import written_aside

if TYPE_CHECKING:
    import plotly.graph_objects as go

PICTURES = ("svg", "pdf", "png", "jpg", "jpeg", "webp")
PAGES = ("html", "json")
WIDTH = 760  # pixels


def check_kind(path: str | Path) -> str:
    """The format that a file's ending names.

    Raises:
        UserError: another ending.
    """
    kind = Path(path).suffix.lstrip(".").lower()
    if kind not in (*PICTURES, *PAGES):
        raise UserError(f"{path} does not say a kind of figure: end it in .{', .'.join((*PICTURES, *PAGES))}")
    return kind


def save_figure(
    figure: go.Figure, path: str | Path, width: int | None = None, height: int | None = None, scale: float = 2
) -> Path:
    """Write a figure; the file's ending says the format: svg, pdf, png, jpg, webp, html or json.

    Args:
        width, height: in pixels; by default `WIDTH` and the figure's own height.
        scale: pixels of a raster image for each of these.

    Returns:
        The file's path.

    Raises:
        UserError: another ending; for a picture, no kaleido (`pip install "unifeat[figures]"`) or no Chrome.
    """
    path, kind = user_path(path, "--out"), check_kind(path)
    if kind == "html":
        text = figure.to_html(include_plotlyjs=True, full_html=True, default_width=f"{width or WIDTH}px")
        content = text.encode()
    elif kind == "json":
        content = figure.to_json().encode()
    else:
        content = _picture(figure, kind, width or WIDTH, height, scale)
    with written_aside(path) as aside:
        aside.write_bytes(content)
    return path


def _picture(figure: go.Figure, kind: str, width: int, height: int | None, scale: float) -> bytes:
    try:
        import kaleido  # noqa: F401
    except ImportError:
        raise UserError(
            'a picture needs kaleido: pip install "unifeat[figures]", or end the file in .html or .json'
        ) from None
    try:
        return figure.to_image(format=kind, width=width, height=height, scale=scale)
    except (RuntimeError, ValueError, OSError) as error:
        if "hrome" in str(error):
            raise UserError(
                "kaleido finds no Chrome or Chromium: install one, or run kaleido_get_chrome; .html and .json need none"
            ) from error
        raise
