"""Real `unifeat` processes without ten seconds of imports each: a server that imports once and forks for every command.

A command runs in a process of its own, with its own exit code, stdout and stderr, and can really be killed.
"""

from __future__ import annotations

import errno
import gc
import importlib
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_HEAVY = (
    *("jinja2", "narwhals", "numba", "plotly.express", "plotly.offline", "plotly.graph_objects", "rich.table"),
    *("pyarrow.parquet", "sae_lens", "scipy.sparse.csgraph", "scipy.stats", "typer._adapters"),
    *("transformers.models.gpt2.modeling_gpt2", "transformers.models.llama.modeling_llama"),
    *(
        "unifeat.cli",
        "unifeat.saes.checking.check",
        "unifeat.pipeline.run",
        "unifeat.report.terminal",
        "unifeat.pipeline.train",
    ),
)
KILLED = -signal.SIGKILL


@dataclass
class Done:
    """How a command ended: its exit code (negative for a signal), and what it wrote."""

    code: int
    out: str
    err: str

    @property
    def news(self) -> str:
        """What is on stderr besides warnings about results, which no mode swallows."""
        return "".join(line for line in self.err.splitlines(keepends=True) if not line.startswith("warning: "))


@dataclass
class Started:
    """A command under way."""

    warm: Warm
    pid: int
    folder: Path

    def kill(self) -> None:
        """`kill -9`. Nobody has waited for the process yet, so its number is its own even if it has ended."""
        os.kill(self.pid, signal.SIGKILL)

    def ended(self) -> bool:
        """Whether it has ended by itself."""
        return Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"

    def wait(self) -> Done:
        """Wait for its end."""
        self.warm._write({"wait": self.pid})
        code = self.warm._read()["code"]
        out, err = ((self.folder / name).read_text(encoding="utf-8") for name in ("out", "err"))
        return Done(code, out, err)


class Warm:
    """The server. Several commands may run at the same time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        )

    def start(
        self,
        *args: object,
        cache: Path,
        cwd: Path,
        die_before_rename: int = 0,
        die_in_write: int = 0,
        full_disk: int = 0,
        pid: int = 0,
        checkpoints_every: float = 0.0,
        **env: str,
    ) -> Started:
        """Begin `unifeat ARGS`.

        Args:
            cache: its UNIFEAT_CACHE.
            die_before_rename: it kills itself with SIGKILL when about to rename its n-th file into place.
            die_in_write: it kills itself when it has written one half of its n-th file.
            full_disk: from its n-th file on, renaming it into place fails for want of space.
            pid: the process id that it takes itself to have: two containers both have a process 1.
            checkpoints_every: a training writes a checkpoint after so many seconds.
            env: more environment variables.
        """
        folder = self.folder / str(len(list(self.folder.iterdir())))
        folder.mkdir()
        request = {
            "args": [str(arg) for arg in args],
            "env": {"UNIFEAT_CACHE": str(cache), **env},
            "cwd": str(cwd),
            "folder": str(folder),
            "die_before_rename": die_before_rename,
            "die_in_write": die_in_write,
            "full_disk": full_disk,
            "pid": pid,
            "checkpoints_every": checkpoints_every,
        }
        self._write(request)
        return Started(self, self._read()["pid"], folder)

    def run(self, *args: object, **settings: Any) -> Done:
        """Begin and wait."""
        return self.start(*args, **settings).wait()

    def _write(self, message: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(message) + "\n")
        self.process.stdin.flush()

    def _read(self) -> dict[str, int]:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        """End the server."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


def _serve() -> None:
    for name in _HEAVY:
        importlib.import_module(name)
    importlib.import_module("sae_lens.loading.pretrained_saes_directory").get_pretrained_saes_directory()
    while line := sys.stdin.readline():
        request = json.loads(line)
        if "wait" in request:
            _, status = os.waitpid(request["wait"], 0)
            print(json.dumps({"code": os.waitstatus_to_exitcode(status)}), flush=True)
            continue
        pid = os.fork()
        if pid == 0:
            _command(request)
        print(json.dumps({"pid": pid}), flush=True)


def _command(request: dict[str, Any]) -> None:
    """In the forked process: become `unifeat ARGS`."""
    import unifeat.cli
    import unifeat.saes.training.checkpoints

    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    for number, name in ((1, "out"), (2, "err")):
        file = os.open(f"{request['folder']}/{name}", os.O_WRONLY | os.O_CREAT)
        os.dup2(file, number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in a shell's background
    own, rename, count = os.getpid(), os.replace, itertools.count(1)

    def replace(*args: Any, **kwargs: Any) -> None:
        number = next(count)
        if number == request["die_before_rename"]:
            os.kill(own, signal.SIGKILL)
        if 0 < request["full_disk"] <= number:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        rename(*args, **kwargs)

    os.replace = replace  # type: ignore[assignment]
    if request["pid"]:
        os.getpid = lambda: request["pid"]
    if request["checkpoints_every"]:
        unifeat.saes.training.checkpoints.INTERVAL_S = request["checkpoints_every"]
    if request["die_in_write"]:
        _die_in_write(request["die_in_write"])
    sys.argv = ["unifeat", *request["args"]]
    code = 1
    try:
        unifeat.cli.main()
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        # (As at the end of every Python process: threads finish, and what is suspended is closed.)
        threading._shutdown()  # type: ignore[attr-defined]
        gc.collect()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _die_in_write(last: int) -> None:
    import pandas
    import safetensors.numpy

    count = itertools.count(1)

    def half(write: Any) -> Any:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            result = write(*args, **kwargs)
            if next(count) == last:
                path = next(arg for arg in args if isinstance(arg, Path))
                os.truncate(path, path.stat().st_size // 2)
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return wrapped

    for owner, name in ((safetensors.numpy, "save_file"), (Path, "write_text"), (pandas.DataFrame, "to_parquet")):
        setattr(owner, name, half(getattr(owner, name)))


if __name__ == "__main__":
    _serve()
