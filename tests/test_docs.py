"""The documentation is executed: its Python, its command lines, its studies, its links and the names in it."""

from __future__ import annotations

import contextlib
import doctest
import importlib
import io
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
import typer.main
import yaml
from pydantic import BaseModel

import unifeat
from homes import shared_place
from pages import GUIDES, PAGES, ROOT, SOURCE, blocks, broken_links, commands, inline, is_there, named, read, resolves
from tiny import tiny_sae
from unifeat.cli import app
from unifeat.study import spec
from unifeat.study.brought import is_brought
from unifeat.study.read import load_study_text

NOT_RUN = re.compile(r"<!-- not run: .+ -->")
COMMAND: Any = typer.main.get_command(app)
WRONG = (AssertionError, typer.BadParameter.__bases__[0])  # the latter is click's UsageError
_OF_SCRIPTS = {"--architecture", "--decay"}  # an option of benchmarks/training.py
_TO_BE_WRITTEN = {"geometry/_name.py", "saes/formats/name.py"}  # by whoever adds a measure or a format


whole = pytest.mark.skipif(not (ROOT / "scripts").exists(), reason="scripts are not part of this distribution")


# Python


@pytest.fixture
def with_a_run(
    tmp_path_factory: pytest.TempPathFactory,
    model_folder: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A folder to work in, with all that the examples name: a study, a finished run, an SAE."""
    place = shared_place(tmp_path_factory, model_folder).copy(tmp_path / "place")
    shutil.copytree(place.run, place.home / "runs" / "demo")
    tiny_sae(place.home / "saes" / "layer12", 32)
    monkeypatch.chdir(place.home)
    monkeypatch.setenv("UNIFEAT_CACHE", str(place.cache))


def carry_out(text: str, name: str) -> int:
    """Execute the blocks of Python of a page one after the other; returns how many there were."""
    scope: dict[str, Any] = {"__name__": "docs"}
    count = 0
    for block in blocks(text):
        if block.language == "python" and not NOT_RUN.fullmatch(block.before):
            code = compile("\n" * (block.line - 1) + block.text, name, "exec")
            with contextlib.redirect_stdout(io.StringIO()):
                exec(code, scope)
            count += 1
    return count


@named([path for path in PAGES if "```python" in read(path)])
def test_python_runs(page: Path, with_a_run: None):
    assert carry_out(read(page), str(page)) > 0


def test_python_stands_in_blocks_that_are_run():
    assert "```python" in read("README.md")
    assert sum(len(NOT_RUN.findall(read(path))) for path in PAGES) <= 2
    for path in PAGES:
        for block in blocks(read(path)):
            if block.language != "python":
                assert not re.search(r"^(import|from) |\b(uf|unifeat)\.\w+\(", block.text, re.M), (path, block.line)


def test_python_that_fails_is_found():
    with pytest.raises(AttributeError):
        carry_out("```python\nimport unifeat as uf\n\nuf.corelate\n```", "page")
    assert carry_out("<!-- not run: why -->\n```python\n1 / 0\n```", "page") == 0
    assert carry_out("```python\na = 1\n```\ntext\n```python\nassert a == 1\n```", "page") == 2


_EXAMPLES = [path for path in sorted(SOURCE.rglob("*.py")) if ">>>" in path.read_text(encoding="utf-8")]


@pytest.mark.parametrize("path", _EXAMPLES, ids=[str(path.relative_to(SOURCE)) for path in _EXAMPLES])
def test_examples_in_docstrings(path: Path):
    module = importlib.import_module(".".join(["unifeat", *path.relative_to(SOURCE).with_suffix("").parts]))
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0


# Command lines


def parse(line: str) -> None:
    """Have the command line's own parser read a line; nothing is carried out."""
    first, *words = shlex.split(line.replace("[", " ").replace("]", " "))
    assert first == "unifeat"
    command = COMMAND
    context = command.make_context("unifeat", words)
    rest = [*context._protected_args, *context.args]
    while rest:
        name, command, rest = command.resolve_command(context, rest)
        context = command.make_context(name, rest, parent=context)
        rest = [*context._protected_args, *context.args]


def options(command: Any = COMMAND) -> set[str]:
    """All options of a command and of those below it."""
    found = {name for param in command.params for name in (*param.opts, *param.secondary_opts)}
    for below in getattr(command, "commands", {}).values():
        found |= options(below)
    return found


@named(PAGES)
def test_command_lines_parse(page: Path):
    for line, said, named_only in commands(read(page)):
        command = COMMAND.commands.get(line.split()[1])
        assert command is not None, f"{page.name}: {line}"
        if not named_only:
            try:
                parse(line)
            except WRONG as error:
                pytest.fail(f"{page.name}: {line}: {error}")
        assert not set(re.findall(r"--[a-z][\w-]+", said)) - options(command), f"{page.name}: {line}: {said}"


@named(GUIDES)
def test_options_in_the_prose_exist(page: Path):
    for code in inline(read(page)):
        for option in re.findall(r"^(--[a-z][\w-]*)", code):
            assert option in options() | _OF_SCRIPTS, f"{page.name}: {option}"


def test_every_command_is_in_the_readme():
    listed = {tuple(line.split()[1:3]) for line, *_ in commands(read("README.md"))}
    assert {words[0] for words in listed} == set(COMMAND.commands)
    assert ("cache", "prune") in listed


@pytest.mark.parametrize(
    "line",
    [
        *("unifeat runn x", "unifeat run x --fource", "unifeat run", "unifeat cache prune --older", "unifeat show"),
        *("unifeat cache prine", "unifeat show a b c d", "unifeat check a --model m --tokens many", "unifeet run x"),
    ],
)
def test_wrong_command_lines_are_found(line: str):
    with pytest.raises(WRONG):
        parse(line)


# Studies

_LEAST = {"text": {"source": "./t.txt"}, "models": {}, "spaces": [{"model": "m", "layers": 0, "sae": "./a"}]}


def loaded(text: str, folder: Path) -> spec.Study:
    """A study from a block of YAML that may hold only a part of one."""
    study = _LEAST | yaml.safe_load(text)
    used = [spaces["model"] for spaces in study["spaces"] if not is_brought(spaces)]
    study["models"] = {name: {"name": f"./{name}"} for name in used} | study["models"]
    if len({spaces.get("name", spaces.get("model")) for spaces in study["spaces"]}) < 2:
        study.setdefault("compare", [[used[0], used[0]]])
    return load_study_text(yaml.safe_dump(study), folder)


@named([path for path in PAGES if "```yaml" in read(path)])
def test_keys_of_studies_are_accepted(page: Path, tmp_path: Path):
    for block in blocks(read(page)):
        if block.language == "yaml":
            loaded(block.text, tmp_path)


def test_the_study_of_the_docs_is_whole(tmp_path: Path):
    first = next(block for block in blocks(read("docs/study.md")) if block.language == "yaml")
    study = load_study_text(first.text, tmp_path)
    assert study.subspaces is not None
    assert study.train is not None


def test_wrong_keys_are_found(tmp_path: Path):
    with pytest.raises(unifeat.UserError, match="min_corelation"):
        loaded("matching: {min_corelation: 0.1}", tmp_path)


def test_every_key_is_in_the_docs():
    pages = [read("docs/study.md"), read("docs/training.md"), read("docs/own.md")]
    written = [block.text for text in pages for block in blocks(text) if block.language == "yaml"]
    words = set(re.findall(r"\w+", " ".join([*written, *inline("\n\n".join(pages))])))
    parts = [kind for kind in vars(spec).values() if isinstance(kind, type) and issubclass(kind, BaseModel)]
    keys = {key for part in parts if part is not spec.MetricSpec for key in part.model_fields}
    assert len(keys) > 60
    assert not keys - words


# Names and links


@whole
@named(PAGES)
def test_names_of_code_exist(page: Path):
    text = read(page)
    if page.name == "CHANGELOG.md":
        text = text.split("\n## 0.1.0")[0]  # what was
    for code in inline(text):
        for name in re.findall(r"\b(?:uf|unifeat)(?:\.[A-Za-z_]\w*)+", code):
            assert resolves(name), f"{page.name}: {name}"
        for path in re.findall(r"^(?:python )?([\w/.-]+\.py)\b", code):
            assert is_there(path) or path in _TO_BE_WRITTEN, f"{page.name}: {path}"


def test_names_that_do_not_exist_are_found():
    assert resolves("uf.rsa")
    assert resolves("unifeat.store.paths.user_path")
    assert not resolves("unifeat.storage")
    assert not resolves("uf.rsa.no")
    assert is_there("codes/store.py")
    assert is_there("rule.py")
    assert not is_there("storage.py")


@whole
@named(PAGES)
def test_links_resolve(page: Path):
    assert not broken_links(read(page), page.parent)


def test_broken_links_are_found(tmp_path: Path):
    (tmp_path / "a.md").write_text("# Some Title\n")
    text = "[x](a.md) [x](b.md) [x](a.md#some-title) [x](a.md#other) [x](https://example.org/no) [x](#none)"
    assert broken_links(text, tmp_path) == ["b.md", "a.md#other", "#none"]
