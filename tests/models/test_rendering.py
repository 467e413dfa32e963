"""Chat templates that never end, or take all memory, are ended; ordinary ones come out as transformers has them."""

from __future__ import annotations

import contextlib
import os
import resource
import threading
import time
from typing import Any

import pytest
from test_opening import CHATML, SPACED, STRICT, TEMPLATES, WITH_BOS, with_template

from unifeat.errors import UserError
from unifeat.models import rendering
from unifeat.models.opening import opening_of
from unifeat.models.rendering import RenderingError, render

MESSAGES = [{"role": "user", "content": "hello <b>&</b> „you“"}]
LOOP = "{% for i in range(99999) %}" * 3 + "{% endfor %}" * 3
BAD = {
    "a range beyond the sandbox's": ("{% for i in range(10**12) %}{% endfor %}", "Range too big"),
    "loops in loops": (LOOP, "does not end within"),
    "a power": ("{{ 10**(10**10) }}", "does not end within|too much memory"),
    "a long text": ("{{ 'a' * 10**10 }}", "too much memory|invalid value"),
    "a wide format": ("{{ '%999999999999d' | format(1) }}", "."),
    "a text that doubles": (
        "{% set ns = namespace(x='aaaaaaaa') %}{% for i in range(40) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
        "too much memory|does not end within",  # whichever limit a busy machine reaches first
    ),
    "many characters": ("{% for i in range(99999) %}{{ 'a' * 99 }}{% endfor %}", "writes 9,899,901 characters"),
    "a macro that calls itself": ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "recurses too deeply"),
    "brackets in brackets": (
        "{{ " + "(" * 100_000 + "1" + ")" * 100_000 + " }}",
        "recurses too deeply|crashes the process",
    ),
}


@pytest.fixture
def two_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering, "TIME_LIMIT_S", 2)


@pytest.mark.parametrize("name", BAD)
def test_one_line_in_little_time_and_memory(name: str, two_seconds: None):
    template, reason = BAD[name]
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    with pytest.raises(UserError, match=f"accepts no message of role user: .*({reason})") as caught:
        opening_of(with_template(template), "auto", "user")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700
    assert time.monotonic() - start < 60
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # KiB


def test_too_much_memory_is_named_where_there_is_time_to_take_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rendering, "TIME_LIMIT_S", 120)
    with pytest.raises(UserError, match="too much memory"):
        opening_of(with_template(BAD["a text that doubles"][0]), "auto", "user")


def test_no_process_is_left(two_seconds: None):
    for template in (CHATML, LOOP):
        with contextlib.suppress(RenderingError):
            render(template, MESSAGES, {})
        with pytest.raises(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)


@pytest.mark.parametrize(
    "template", [*TEMPLATES.values(), "{{ messages | tojson }}{% generation %}x{% endgeneration %}"]
)
@pytest.mark.parametrize("way", ["forked", "spawned"])
def test_the_text_is_transformers_own(template: str, way: str, monkeypatch: pytest.MonkeyPatch):
    if way == "spawned":
        if template not in (SPACED, STRICT):
            pytest.skip("a process each takes seconds")
        monkeypatch.delattr(os, "fork")
    tokenizer = with_template(template)
    expected = tokenizer.apply_chat_template(MESSAGES, tokenize=False, date_string="d")
    assert render(template, MESSAGES, {**tokenizer.special_tokens_map, "date_string": "d"}) == expected


def test_where_there_is_no_fork_a_template_is_ended_too(two_seconds: None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delattr(os, "fork")
    monkeypatch.setattr(rendering, "_IMPORT_TIME_S", 0)
    with pytest.raises(RenderingError, match="does not end within 2 seconds"):
        render(LOOP, MESSAGES, {})


def test_from_several_threads_at_once():
    found: dict[int, Any] = {}

    def one(number: int) -> None:
        found[number] = render(WITH_BOS, [{"role": "user", "content": str(number)}], {"bos_token": "<bos>"})

    threads = [threading.Thread(target=one, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {n: f"<bos><|im_start|>user\n{n}<|im_end|>\n" for n in range(8)}


def test_what_the_template_prints_or_leaves_open_stays_in_the_child(capfd: pytest.CaptureFixture[str]):
    print("written before", end="")
    render(CHATML, MESSAGES, {})
    assert capfd.readouterr().out == "written before"
