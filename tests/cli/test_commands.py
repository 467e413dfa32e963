"""The commands, as a user types them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import unifeat
from homes import Place, hashes, shared_output, write_study
from tiny import tiny_sae
from warm import Warm

LIGHT = """
import sys
from unifeat.cli import main
sys.argv = ["unifeat", *{args}]
try:
    main()
except SystemExit as stop:
    code = stop.code or 0
else:
    code = 0
heavy = {{"torch", "transformers", "sae_lens", "numpy", "pandas", "numba", "scipy", "plotly", "pyarrow", "datasets"}}
print(sorted(heavy & set(sys.modules)), code, file=sys.stderr)
"""


def test_a_mistyped_key_loads_nothing_heavy(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text("modles: {}\n")
    for command in ("run", "train"):
        args = [command, str(tmp_path / "study.yaml")]
        done = subprocess.run([sys.executable, "-c", LIGHT.format(args=args)], capture_output=True, text=True)
        assert done.stderr.splitlines()[-1] == "[] 2"
        assert "unknown key 'modles'" in done.stderr


@pytest.mark.parametrize("args", [["--help"], ["--version"], ["run", "--help"], [], ["--nonsense"]])
def test_help_loads_nothing_heavy(args: list[str]) -> None:
    done = subprocess.run([sys.executable, "-c", LIGHT.format(args=args)], capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == ("[] 0" if "--nonsense" not in args and args else "[] 2")


def test_importing_the_package_loads_nothing_heavy() -> None:
    script = "import sys, unifeat; assert not {'torch', 'numpy', 'pandas'} & set(sys.modules); unifeat.UserError"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0


def test_the_installed_script() -> None:
    script = Path(sys.executable).parent / "unifeat"
    done = subprocess.run([script, "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"unifeat {unifeat.__version__}\n", "")
    done = subprocess.run([script, "run", "no such study.yaml"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "unifeat: study no such study.yaml: no such file\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shell_completion(shell: str) -> None:
    """The script for a shell is printed, and what it asks for is completed."""

    def asked(*args: str, **settings: str) -> str:
        command = [
            sys.executable,
            "-c",
            "import sys; sys.argv[0] = 'unifeat'; from unifeat.cli import main; main()",
            *args,
        ]
        return subprocess.run(command, capture_output=True, text=True, env=os.environ | settings, check=True).stdout

    # (Typer would look for the shell that called it, which a test has none of.)
    script = asked("--show-completion", shell, _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert "_UNIFEAT_COMPLETE" in script
    words = (
        {"COMP_WORDS": "unifeat sh", "COMP_CWORD": "1"}
        if shell == "bash"
        else {"_TYPER_COMPLETE_ARGS": "unifeat sh", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    )
    found = asked(_UNIFEAT_COMPLETE=f"complete_{shell}", **words)
    assert "show" in found
    assert "doctor" not in found


def test_every_command_is_listed(warm: Warm, place: Place) -> None:
    text = place.unifeat(warm, "--help").out
    for command in ("demo", "run", "train", "show", "report", "check"):
        assert f"\n  {command} " in text
        done = place.unifeat(warm, command, "--help")
        assert done.code == 0
        assert done.err == ""


def test_run_prints_the_short_version_and_show_prints_it_again(warm: Warm, finished: Place) -> None:
    shown = finished.unifeat(warm, "show", "runs/tiny")
    assert (shown.code, shown.err) == (0, "")
    assert shown.out == shared_output().out
    for word in ("one", "two", "SVCCA", "report: runs/tiny/report.html"):
        assert word in shown.out


def test_show_two_spaces(warm: Warm, finished: Place) -> None:
    done = finished.unifeat(warm, "show", "runs/tiny", "one@0", "two@1")
    assert (done.code, done.err) == (0, "")
    assert done.out != shared_output().out


def test_report_is_written_anew(warm: Warm, place: Place) -> None:
    report = place.run / "report.html"
    before, text = hashes(place.run, but=("report.html",)), report.read_text()
    report.unlink()
    done = place.unifeat(warm, "report", "runs/tiny")
    assert (done.code, done.out, done.err) == (0, "runs/tiny/report.html\n", "")
    # How long the report itself took is only known the second time.
    assert re.sub(r", report [\d.]+<", "<", report.read_text()) == text
    assert hashes(place.run, but=("report.html",)) == before


def test_settings_of_measures_are_the_measures_own(warm: Warm, place: Place) -> None:
    """Tests have an `alpha` and a `seed` too."""
    measures = [{"ridge_map": {"alpha": 0.5}}, {"ridge_map": {"alpha": 2.0, "seed": 5}}, {"heldout_cca": {"seed": 1}}]
    subspaces = {"categories": "lists.yaml", "at_least": 1, "control_lists": 0, "subsets": 5}
    (place.home / "lists.yaml").write_text("Sea: [river, the, bee]\n")
    write_study(place.home, name="measured", geometry=[*measures, "ridge_map"], subspaces=subspaces)
    done = place.unifeat(warm, "run", place.study, "--quiet")
    assert (done.code, done.err) == (0, "")
    scores = unifeat.open(place.work / "runs/measured").scores
    own = scores[(scores["metric"] == "ridge_map") & (scores["subspace"] == "all")]
    for _, cell in own.groupby(["space_a", "space_b"]):
        assert cell["score"].nunique() == 3


def test_out_names_the_folder(warm: Warm, place: Place) -> None:
    before = hashes(place.run)
    done = place.unifeat(warm, "run", place.study, "--quiet", "--out", "somewhere/else")
    assert done.code == 0, done.err
    assert done.out.endswith("report: somewhere/else/report.html\n")
    assert hashes(place.work / "somewhere/else", but=("run.json", "report.html", "study.yaml")) == {
        name: digest for name, digest in before.items() if name.endswith(".parquet")
    }
    assert hashes(place.run) == before


def test_quiet_and_plain_log(warm: Warm, place: Place) -> None:
    """Without a terminal news are plain lines on stderr, and with --quiet there are none."""
    loud, quiet = place.unifeat(warm, "run", place.study), shared_output()
    assert loud.code == 0
    assert loud.err.startswith("text: 40 documents, ")
    assert "\x1b" not in loud.err + loud.out
    assert quiet.news == ""
    assert "FVU is 0.81" in quiet.err, "warnings are never swallowed"
    assert quiet.out.splitlines()[1:] == loud.out.splitlines()[1:]  # the first line names the text's file


def test_check(warm: Warm, place: Place) -> None:
    args = ("--model", place.home / "model-one", "--layer", 0, "--text", place.home / "text.jsonl", "--quiet")
    done = place.unifeat(warm, "check", place.home / "saes/one_0", *args, "--documents", 5, "--context", 32)
    assert (done.code, done.err) == (0, "")
    assert re.search(r"L0 +4\.0 +4\b", done.out)
    assert re.search(r"FVU +0\.\d", done.out)
    assert "loss recovered" in done.out
    assert "top-k of 4" in done.out
    assert "layer 1, resid_post" in done.out
    again = place.unifeat(warm, "check", place.home / "saes/one_0", *args, "--documents", 5, "--context", 32, "--json")
    found = json.loads(again.out)
    assert f"{found['fvu']:.3f}" in done.out
    assert found["hook"] == "blocks.0.hook_resid_post"
    assert found["loss"]["ce_clean"] > 0


def test_check_of_an_sae_that_does_not_fit(warm: Warm, place: Place) -> None:
    """Exit code 1, for scripts; by default the text is one that ships with unifeat."""
    tiny_sae(place.home / "saes/bad", 32)
    args = ("--model", place.home / "model-one", "--layer", 0, "--context", 32, "--tokens", 500, "--no-loss")
    done = place.unifeat(warm, "check", place.home / "saes/bad", *args, "--bos", "false")
    assert (done.code, done.err) == (1, "")
    assert "tokens of Alice's Adventures in Wonderland" in done.out
    assert re.search(r"wrong: FVU is \d+\.\d: the mean activation would be a better reconstruction", done.out)
    assert "likely: " in done.out
    assert "loss recovered" not in done.out
    wrong = place.unifeat(warm, "check", place.home / "saes/bad", *args, "--bos", "yes")
    assert (wrong.code, wrong.err) == (2, "unifeat: --bos yes: give true, false or auto\n")


def test_a_damaged_shard_is_repaired(warm: Warm, place: Place) -> None:
    before = hashes(place.run, but=("run.json", "report.html")), hashes(place.cache / "codes")
    shards = sorted(place.cache.glob("codes/*/shard-*"))
    shards[3].write_bytes(shards[3].read_bytes()[:-8])
    shards[10].unlink()
    shards[20].write_bytes(shards[19].read_bytes())
    done = place.unifeat(warm, "run", place.study, "--quiet", "--repair")  # (what it once took, and is left alone)
    assert (done.code, done.news) == (0, "")
    assert "is damaged" not in done.err, "what is mended is no reason to distrust a result"
    again = hashes(place.run, but=("run.json", "report.html")), hashes(place.cache / "codes")
    assert again[0].keys() == before[0].keys()
    assert {k: v for k, v in again[1].items() if "top-" not in k} == {
        k: v for k, v in before[1].items() if "top-" not in k
    }
    assert again[1] == before[1]
    assert again[0]["pairs.parquet"] == before[0]["pairs.parquet"]
