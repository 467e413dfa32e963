"""Rendering chat templates within limits of time and memory.

A chat template is a program by the model's author. transformers' sandbox keeps it from reading files, but not from
running forever or using all memory. So it runs in a child process that can be killed.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

TIME_LIMIT_S = 10
_MEMORY_LIMIT = 1 << 30  # bytes beyond what the process already uses
_LONGEST_TEXT = 1 << 20  # characters; the message is one word
_IMPORT_TIME_S = 50  # added for a fresh process, whose imports take longer than any template
_lock = threading.Lock()


class RenderingError(Exception):
    """A template that cannot be rendered; the message says why."""


def render(template: str, messages: list[dict[str, str]], values: Mapping[str, Any]) -> str:
    """The text that a chat template makes of some messages.

    Args:
        template: Jinja, as transformers reads it.
        messages: each with `role` and `content`.
        values: other variables of the template, such as special tokens.

    Raises:
        RenderingError: the template raises an error, does not end, or takes too much memory.
    """
    job = {"template": template, "messages": messages, "values": dict(values)}
    answer = _forked(job) if hasattr(os, "fork") else _spawned(job)
    if "text" not in answer:
        raise RenderingError(answer["error"])
    return str(answer["text"])


def _forked(job: dict[str, Any]) -> dict[str, Any]:
    """Run a job in a fork of this process, since a fresh one would take seconds to import transformers."""
    from transformers.utils import chat_template_utils  # noqa: F401  (imported before the fork, for all children)

    # One at a time: the child of another thread would hold this pipe open.
    with _lock, warnings.catch_warnings():
        # Python warns of forks beside threads; the child uses none of their locks.
        warnings.simplefilter("ignore", DeprecationWarning)
        readable, writable = os.pipe()
        child = os.fork()
        if child == 0:
            _answer_and_end(job, writable)
        os.close(writable)
        try:
            return _read(readable, child)
        finally:
            os.close(readable)
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(child, 0)


def _read(readable: int, child: int) -> dict[str, Any]:
    """Read the child's answer, one line of JSON."""
    held = b""
    end = time.monotonic() + TIME_LIMIT_S
    while not held.endswith(b"\n"):
        left = end - time.monotonic()
        if left <= 0 or not select.select([readable], [], [], left)[0]:
            return {"error": f"it does not end within {TIME_LIMIT_S} seconds"}
        block = os.read(readable, 1 << 16)
        if not block:
            return {"error": "it crashes the process that renders it"}
        held += block
    answer: dict[str, Any] = json.loads(held)
    return answer


def _answer_and_end(job: dict[str, Any], writable: int) -> None:
    """Run the job in the child. It must never return into the parent's frames, whose cleanup is the parent's."""
    try:
        _bound()
        line = json.dumps(answer(job)).encode() + b"\n"
        while line:
            line = line[os.write(writable, line) :]
    finally:
        os._exit(0)


def answer(job: Mapping[str, Any]) -> dict[str, str]:
    """The text that a template makes, or its error."""
    from transformers.utils.chat_template_utils import render_jinja_template

    try:
        made = render_jinja_template(conversations=[job["messages"]], chat_template=job["template"], **job["values"])
        text = made[0][0]
    except MemoryError:
        return {"error": "it takes too much memory"}
    except RecursionError:
        return {"error": "it recurses too deeply"}
    except BaseException as error:
        said = str(error).strip() or type(error).__name__
        return {"error": said.splitlines()[0][:500]}
    if len(text) > _LONGEST_TEXT:
        return {"error": f"it writes {len(text):,} characters for a message of one word"}
    return {"text": text}


def _bound() -> None:
    """Limit the time and memory of this process from now on, as far as the system allows."""
    try:
        import resource
    except ImportError:  # Windows
        return
    size = 0
    with suppress(OSError, ValueError), open("/proc/self/statm", encoding="ascii") as file:
        size = int(file.read().split()[0]) * resource.getpagesize()
    limits = [(resource.RLIMIT_CPU, TIME_LIMIT_S + 1), (resource.RLIMIT_CORE, 0)]
    if size:
        limits.append((resource.RLIMIT_AS, size + _MEMORY_LIMIT))
    for which, most in limits:
        with suppress(OSError, ValueError):
            hard = resource.getrlimit(which)[1]
            within = most if hard == resource.RLIM_INFINITY else min(most, hard)
            resource.setrlimit(which, (within, hard))


def _spawned(job: dict[str, Any]) -> dict[str, Any]:
    """Run a job in a fresh process, on systems without fork."""
    code = (
        "import json, sys\n"
        "from unifeat.models import rendering\n"
        "from transformers.utils import chat_template_utils\n"
        "job = json.load(sys.stdin)\n"
        "rendering._bound()\n"
        "sys.stdout.write(json.dumps(rendering.answer(job)))\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            input=json.dumps(job),
            env=environment,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=TIME_LIMIT_S + _IMPORT_TIME_S,
            check=False,
        )
        found: dict[str, Any] = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        return {"error": f"it does not end within {TIME_LIMIT_S} seconds"}
    except ValueError:
        return {"error": "it crashes the process that renders it"}
    return found
