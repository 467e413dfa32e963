"""Chat templates carried out within bounds of time and memory.

A chat template is a program of the model's author, and transformers' sandbox keeps it from files, but neither from
running for ever nor from taking all memory. So it is carried out in a child process that may be ended.
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
_MEMORY_LIMIT = 1 << 30  # bytes, beyond what the process takes already
_LONGEST_TEXT = 1 << 20  # characters of a conversation of one word
# (What a fresh process has to import takes longer than any template.)
_IMPORT_TIME_S = 50
_lock = threading.Lock()


class RenderingError(Exception):
    """A template that cannot be carried out; the text says why, in a few words."""


def render(template: str, messages: list[dict[str, str]], values: Mapping[str, Any]) -> str:
    """What a chat template makes of some messages.

    Args:
        template: Jinja, as transformers reads it.
        messages: each with `role` and `content`.
        values: what the template can name besides: special tokens and more.

    Raises:
        RenderingError: it raises an error, does not end, or takes too much memory.
    """
    job = {"template": template, "messages": messages, "values": dict(values)}
    answer = _forked(job) if hasattr(os, "fork") else _spawned(job)
    if "text" not in answer:
        raise RenderingError(answer["error"])
    return str(answer["text"])


def _forked(job: dict[str, Any]) -> dict[str, Any]:
    """In a copy of this process: a fresh one would have to import transformers first, for seconds."""
    from transformers.utils import chat_template_utils  # noqa: F401  (before the fork, once and for all)

    # One at a time: another's child would hold this one's pipe open.
    with _lock, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads: the child uses none and no lock of theirs
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
    """The child's answer: one line of JSON."""
    held = b""
    end = time.monotonic() + TIME_LIMIT_S
    while not held.endswith(b"\n"):
        left = end - time.monotonic()
        if left <= 0 or not select.select([readable], [], [], left)[0]:
            return {"error": f"it does not end within {TIME_LIMIT_S} seconds"}
        block = os.read(readable, 1 << 16)
        if not block:
            return {"error": "it brings the process that carries it out to its end"}
        held += block
    answer: dict[str, Any] = json.loads(held)
    return answer


def _answer_and_end(job: dict[str, Any], writable: int) -> None:
    """What the child does. It must never come back: what waits in the parent's frames is the parent's."""
    try:
        _bound()
        line = json.dumps(answer(job)).encode() + b"\n"
        while line:
            line = line[os.write(writable, line) :]
    finally:
        os._exit(0)


def answer(job: Mapping[str, Any]) -> dict[str, str]:
    """The text that a template makes, or what is wrong with it."""
    from transformers.utils.chat_template_utils import render_jinja_template

    try:
        made = render_jinja_template(conversations=[job["messages"]], chat_template=job["template"], **job["values"])
        text = made[0][0]
    except MemoryError:
        return {"error": "it takes more memory than a template may"}
    except RecursionError:
        return {"error": "it goes in circles"}
    except BaseException as error:
        said = str(error).strip() or type(error).__name__
        return {"error": said.splitlines()[0][:500]}
    if len(text) > _LONGEST_TEXT:
        return {"error": f"it writes {len(text):,} characters about a message of one word"}
    return {"text": text}


def _bound() -> None:
    """Limit what this process may take from now on, as far as the system can."""
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
    """In a fresh process, where there is no fork."""
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
        return {"error": "it brings the process that carries it out to its end"}
    return found
