"""Mistakes a user can mend: one line that names the thing, exit code 2, nothing half-written, nothing lost."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from homes import STUDY, Place, hashes, write_study
from tiny import tiny_sae
from unifeat.codes.shard import read_shard
from warm import Done, Warm

Change = Callable[[Path], dict[str, Any] | None]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Place]:
    return {}


@pytest.fixture
def common(shared: dict[str, Place], finished: Place, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """One copy of the finished place for all cases that only add files."""
    if "place" not in shared:
        shared["place"] = finished.copy(tmp_path_factory.mktemp("common") / "place")
    return shared["place"]


def refused(warm: Warm, place: Place, *args: object, names: str, **settings: Any) -> Done:
    """Run a command that must end as a user's mistake, and look at what it leaves."""
    before = hashes(place.home.parent)
    runs = sorted(path.name for path in (place.work / "runs").iterdir())
    done = place.unifeat(warm, *args, **settings)
    assert done.code == 2, done
    assert done.out == ""
    assert re.fullmatch(r"unifeat: [^\n]+\n", done.news), done.err
    assert re.search(names, done.err), done.err
    after = hashes(place.home.parent)
    assert {name: after.get(name) for name in before} == before  # nothing lost
    assert sorted(path.name for path in (place.work / "runs").iterdir()) == runs
    assert not list(place.home.parent.rglob(".partial-*"))
    for name in after.keys() - before.keys():
        whole(place.home.parent / name)
    return done


def whole(path: Path) -> None:
    if path.parent.name == "digests":  # what the cache remembers of files, once they are two seconds old
        return
    if path.suffix == ".safetensors":
        read_shard(path, verify=True)
    elif path.suffix == ".json":
        json.loads(path.read_text())
    elif path.suffix == ".parquet":
        pd.read_parquet(path)
    elif path.suffix == ".npz":
        with np.load(path) as arrays:
            assert all(arrays[name] is not None for name in arrays.files)
    else:
        assert path.suffix in (".html", ".yaml"), path


@dataclass
class Case:
    """A study with a mistake.

    Attributes:
        names: what the message must say.
        changes: keys of the study to change, or a function that makes files in the home and returns such keys.
    """

    names: str
    changes: dict[str, Any] | Change = field(default_factory=dict)
    study: str | bytes | None = None  # the whole file instead


def models(**one: Any) -> dict[str, Any]:
    return {"models": STUDY["models"] | {"one": {"name": "model-one", "dtype": "float32"} | one}}


def spaces(**one: Any) -> dict[str, Any]:
    return {"spaces": [STUDY["spaces"][0] | one, STUDY["spaces"][1]]}


def text(**changes: Any) -> dict[str, Any]:
    return {"text": STUDY["text"] | changes}


def text_file(name: str, content: str | bytes, **changes: Any) -> Change:
    def make(home: Path) -> dict[str, Any]:
        (home / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return text(source=name, **changes)

    return make


def other_model(change: Callable[[Path], None]) -> Change:
    """A copy of the first model, changed."""

    def make(home: Path) -> dict[str, Any]:
        folder = home / "bad-model"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(home / "model-one", folder)
        change(folder)
        return models(name="bad-model")

    return make


def poison(value: float, layer: int) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        (key,) = [key for key in weights if key.endswith(f"h.{layer}.mlp.c_proj.weight")]
        weights[key][0, 0] = value
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    return change


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def other_sae(change: Callable[[Path], None], **settings: Any) -> Change:
    def make(home: Path) -> dict[str, Any]:
        folder = home / "bad-sae"
        shutil.rmtree(folder, ignore_errors=True)
        tiny_sae(folder, settings.get("d_in", 32))
        change(folder)
        return spaces(sae="bad-sae", layers=1)

    return make


def only_a_pickle(held: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        for path in folder.iterdir():
            path.unlink()
        with (folder / "sae.pt").open("wb") as file:
            torch.save(held, file)

    return change


class Evil:
    """Opening it would leave a file behind."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("/tmp/unifeat-opened-a-pickle"),))


def bare_pickle(home: Path) -> dict[str, Any]:
    (home / "sae.pt").write_bytes(pickle.dumps({"W_dec": Evil()}))
    return spaces(sae="sae.pt", layers=1)


LAUGHS = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12))
ONE_DOCUMENT = json.dumps({"text": "The gardener watched a bee near the river. " * 30})

CASES = {
    # the study
    "misspelt key": Case("unknown key 'matchin'.*did you mean 'matching'", {"matchin": {}}),
    "misspelt key that is needed": Case("'modles'.*'models'", {"models": ..., "modles": STUDY["models"]}),
    "misspelt key of a model": Case("'models.one.dtpe'.*'dtype'", models(dtpe="float32")),
    "misspelt key of the text": Case("'text.sorce'.*'source'", {"text": {"sorce": "text.jsonl"}}),
    "misspelt key of a space": Case("'spaces.0.layer'.*'layers'", spaces(layer=1)),
    "misspelt key of a measure": Case("'setings'|setings", {"geometry": [{"metric": "rsa", "setings": {}}]}),
    "unknown value": Case("matching.method", {"matching": {"method": "mutal"}}),
    "value of another type": Case("text.context", text(context="long")),
    "missing key": Case("'spaces' is missing", {"spaces": ...}),
    "unknown measure": Case("svccaa.*svcca", {"geometry": ["svccaa"]}),
    "unknown setting of a measure": Case("svcca has no setting 'dim'.*dims", {"geometry": [{"svcca": {"dim": 3}}]}),
    "space of an unknown model": Case("'three'", spaces(model="three")),
    "comparing what is not there": Case("'onne'.*'one'", {"compare": [["onne", "two"]]}),
    "comparing a space that is not there": Case("'two@3'.*'two@1'", {"compare": [["one@0", "two@3"]]}),
    "comparing a space with itself": Case("compare names two@1 with itself", {"compare": [["two@1", "two@1"]]}),
    "comparing nothing": Case("compare", {"compare": []}),
    "other braces in an SAE's name": Case(r"\{lyer\}", spaces(sae="saes/one_{lyer}")),
    "an attribute in an SAE's name": Case(r"only \{layer\} can be in braces", spaces(sae="saes/one_{layer.real}")),
    "a width in an SAE's name": Case(r"only \{layer\} can be in braces", spaces(sae="saes/one_{layer:>99999999999}")),
    "a way back in an SAE's name": Case(".. can only be at the beginning", spaces(sae="./new/../one_{layer}")),
    "negative seed": Case("seed: .*greater than or equal to 0", {"seed": -1}),
    "huge seed": Case("seed: .*less than or equal to 4294967295", {"seed": 10**23}),
    "a count of terabytes": Case(
        "inference.bootstraps: .*less than or equal to 10000", {"inference": {"bootstraps": 10**12}}
    ),
    "a margin below 0": Case("inference.equivalence: .*greater than 0", {"inference": {"equivalence": -0.1}}),
    "a margin in words": Case("inference.equivalence: give a number, or off", {"inference": {"equivalence": "small"}}),
    "a setting of terabytes": Case("dims: at most 1000000", {"geometry": [{"svcca": {"dims": 10**12}}]}),
    "more tokens than are kept": Case("matching.top_tokens: .*or equal to 10", {"matching": {"top_tokens": 50}}),
    "true as a layer": Case("spaces.0.layers: give the number of a block", spaces(layers=True)),
    "a name above the runs": Case("name: '..' cannot be a folder's name", {"name": ".."}),
    "half a character": Case("line 1: text with half a character", study='name: "\\ud800"\n'),
    "a key given twice": Case("line 3: the key 'seed' is given a second time", study="seed: 1\nname: x\nseed: 2\n"),
    "a study that laughs": Case("aliases expand to more than", study=LAUGHS),
    "a study without a bottom": Case("nested more than 50 deep", study="[" * 20_000),
    "a name that is too long": Case("text.source x.*…x.*: the name is longer", text(source="x" * 300 + ".txt")),
    "nobody's home": Case("models.one.name ~nobody-here.*has no home directory", models(name="~nobody-here/model")),
    "the same measure twice": Case("geometry: cka is given twice", {"geometry": ["cka", "rsa", "cka"]}),
    "not YAML": Case(r"line 2", study="text: {source: a\nmodels: ]"),
    "not a study": Case("expected keys such as text", study="- a\n- b\n"),
    "an empty study": Case("expected keys such as text", study=""),
    "a study in another encoding": Case("UTF-8", study="name: Ünder".encode("latin-1")),
    # the text
    "missing text": Case("nowhere.jsonl: no such file", text(source="nowhere.jsonl")),
    "glob without files": Case(r"\*\.txt.*no file", text(source="*.txt")),
    "unknown dataset": Case("nobody/nothing", text(source="nobody/nothing")),
    "text of another kind": Case(r"table\.csv", text_file("table.csv", "a,b\n", documents=1)),
    "empty text": Case(r"empty\.txt.*no text", text_file("empty.txt", "")),
    "blank text": Case(r"blank\.txt.*no text", text_file("blank.txt", " \n\t\n")),
    "all documents skipped": Case("text.jsonl.*skipping 40", text(skip=40)),
    "another field": Case(r"'content'.*\['text'\]", text(field="content")),
    "not JSON": Case("line 2: not JSON", text_file("bad.jsonl", '{"text": "a"}\n{"text": \n')),
    "not UTF-8": Case(r"latin\.txt is not UTF-8", text_file("latin.txt", "Ünder".encode("latin-1"))),
    "shorter than a window": Case(
        "fewer than one window of 32", text_file("short.jsonl", '{"text": "The sea."}\n' * 2)
    ),
    "one document to halve": Case("one document", text_file("one.jsonl", ONE_DOCUMENT)),
    "window longer than the model takes": Case("tiny-gpt2.*256 tokens", text(context=512)),
    # the models
    "missing model": Case(r"model .*nowhere: no such file", models(name="./nowhere")),
    "unknown model": Case("nobody/nothing", models(name="nobody/nothing")),
    "a folder that is no model": Case("saes.*config.json", models(name="./saes")),
    "a file that is no model": Case("text.jsonl.*GGUF", models(name="./text.jsonl")),
    "truncated weights": Case("bad-model", other_model(lambda folder: truncate(folder / "model.safetensors"))),
    "damaged config": Case("bad-model", other_model(lambda folder: (folder / "config.json").write_text("{"))),
    "unknown dtype": Case("dtype", models(dtype="float23")),
    "unknown device": Case("'gpu'", models(device="gpu")),
    "shuffles on a GPU that is not there": Case("no CUDA device; use", {"inference": {"device": "cuda"}}),
    "matching on a GPU that is not there": Case("no CUDA device; use", {"matching": {"device": "cuda"}}),
    "NaN in the first layer read": Case("bad-model, layer 0 .*NaN", other_model(poison(float("nan"), 0))),
    "Inf in a layer below": Case("bad-model, layer 2 .*Inf", other_model(poison(float("inf"), 1))),
    "layer out of range": Case("tiny-gpt2 has layers 0 to 2, not 3", spaces(layers=[0, 3])),
    "negative layer": Case("tiny-gpt2 has layers 0 to 2, not -1", spaces(layers=-1)),
    "unknown hook point": Case("hook", spaces(hook="resid_pots")),
    # the SAEs
    "missing SAE": Case("nowhere_0: no such folder", spaces(sae="./nowhere_{layer}")),
    "unknown release": Case("'gemma-scope-2b-pt-ress'.*did you mean", spaces(sae="gemma-scope-2b-pt-ress/layer_0")),
    "unknown SAE of a release": Case("gpt2-small-res-jb has no SAE", spaces(sae="gpt2-small-res-jb/blocks.99")),
    "SAE of another width": Case("bad-sae.*width 16.*width 32", other_sae(lambda folder: None, d_in=16)),
    "folder without SAE": Case("bad-sae.*neither", other_sae(lambda folder: (folder / "cfg.json").unlink())),
    "truncated SAE": Case("bad-sae", other_sae(lambda folder: truncate(folder / "sae_weights.safetensors"))),
    "damaged SAE config": Case("bad-sae", other_sae(lambda folder: (folder / "cfg.json").write_text("{"))),
    ".pt with code in it": Case(r"sae\.pt holds more than tensors", bare_pickle),
    ".pt with an object in it": Case(r"sae\.pt holds more than tensors", other_sae(only_a_pickle({"W": Path("x")}))),
    ".pt of tensors only": Case(r"sae\.pt.*W_dec", other_sae(only_a_pickle({"W_dec": torch.zeros(2, 2)}))),
}


@pytest.mark.parametrize("name", CASES)
def test_a_study_with_a_mistake(warm: Warm, common: Place, name: str) -> None:
    case = CASES[name]
    path = common.home / "mistaken.yaml"
    path.unlink(missing_ok=True)
    if case.study is not None:
        path.write_bytes(case.study if isinstance(case.study, bytes) else case.study.encode())
    else:
        changes = case.changes(common.home) if callable(case.changes) else case.changes
        write_study(common.home, path.name, **{"name": "mistaken"} | (changes or {}))
    refused(warm, common, "run", path, "--quiet", names=case.names)
    assert not Path("/tmp/unifeat-opened-a-pickle").exists()


def test_the_same_without_quiet(warm: Warm, common: Place) -> None:
    """News may come before, the mistake is the last line."""
    write_study(common.home, "mistaken.yaml", name="mistaken", **spaces(layers=7))
    done = common.unifeat(warm, "run", common.home / "mistaken.yaml")
    assert done.code == 2
    assert done.err.splitlines()[-1].startswith("unifeat: model ")
    assert "Traceback" not in done.err


def test_a_mistake_in_the_last_model_is_found_before_the_first_is_run(warm: Warm, common: Place) -> None:
    codes = len(list(common.cache.glob("codes/*")))
    changes = text_file("new.jsonl", ONE_DOCUMENT + "\n" + ONE_DOCUMENT)(common.home)
    for last in ({"layers": 9}, {"sae": "./nowhere"}, {"layers": [0], "sae": "./saes/two_{layer}"}):
        write_study(common.home, "mistaken.yaml", spaces=[STUDY["spaces"][0], STUDY["spaces"][1] | last], **changes)
        refused(warm, common, "run", common.home / "mistaken.yaml", "--quiet", names="layers|no such folder")
    assert len(list(common.cache.glob("codes/*"))) == codes


@pytest.mark.parametrize(
    ("args", "names"),
    [
        (["run", "nowhere.yaml"], "nowhere.yaml: no such file"),
        (["run", "now\nhere.yaml"], "now here.yaml: no such file"),
        (["run", "runs"], "runs: no such file"),
        (["run", "STUDY", "--out", "STUDY"], "study.yaml.*--out"),
        (["run", "x" * 300], "study x.*the name is longer than a file name may be"),
        (["run", "~nobody-here/study.yaml"], "~nobody-here has no home directory"),
        (["run", "/dev/zero"], "no such file .it is not a regular file"),
        (["run", "STUDY", "--out", "x" * 300], "--out x.*the name is longer than a file name may be"),
        (["run", "STUDY", "--out", "~nobody-here/run"], "--out .*~nobody-here has no home directory"),
        (["run", "STUDY", "--out", "STUDY/a/b"], "study.yaml is a file; name another folder with --out"),
        (["run", "STUDY", "--out", "/proc/a/b"], "--out /proc/a/b: "),
        (["run", "STUDY", "--out", "/proc"], "--out /proc: "),
        (["run", "STUDY", "--out", "HOME"], "would overwrite .*study.yaml, which is not as unifeat wrote it"),
        (["train", "STUDY", "--out", "STUDY/a"], "study.yaml is a file; name another folder with --out"),
        (["train", "STUDY", "--out", "/proc/a"], "--out /proc/a: "),
        (["demo", "--prepare", "STUDY"], "study.yaml is a file; name another folder with --prepare"),
        (["demo", "--prepare", "STUDY/a"], "study.yaml is a file; name another folder with --prepare"),
        (["demo", "--prepare", "/proc/a/b"], "--prepare /proc/a/b: "),
        (["demo", "--prepare", "x" * 300], "--prepare x.*the name is longer than a file name may be"),
        (["demo", "--out", "STUDY/a"], "study.yaml is a file; name another folder with --out"),
        (["train", "STUDY"], "no train section"),
        (["train", "nowhere.yaml"], "nowhere.yaml: no such file"),
        (["show", "nowhere"], "nowhere holds no finished run"),
        (["show", "STUDY"], "study.yaml holds no finished run"),
        (["show", "runs/tiny", "one@0"], "two spaces"),
        (["show", "runs/tiny", "one@0", "two@2"], "'two@2'.*did you mean 'two@1'"),
        (["show", "runs/tiny", "one@0", "one@2"], "one@0 with one@2"),
        (["report", "nowhere"], "nowhere holds no finished run"),
        (["check", "nowhere/nothing", "--layer", 0], "'nowhere'"),
        (["check", "./nowhere", "--layer", 0], "nowhere: no such folder"),
        (["check", "SAE", "--layer", 3], "layers 0 to 2, not 3"),
        (["check", "SAE", "--layer", 0, "--hook", "resid_pots"], "'resid_pots'.*'resid_post'"),
        (["check", "SAE", "--layer", 0, "--dtype", "float23"], "'float23'.*'float32'"),
        (["check", "SAE", "--layer", 0, "--text", "nowhere.txt"], "nowhere.txt: no such file"),
        (["check", "SAE", "--layer", 0, "--model", "./nowhere"], "nowhere: no such file"),
    ],
)
def test_commands_with_a_mistake(warm: Warm, common: Place, args: list[Any], names: str) -> None:
    home = common.home
    places = {"STUDY": common.study, "SAE": home / "saes/one_0", "HOME": home}
    given = [places.get(arg, str(arg).replace("STUDY/", f"{common.study}/")) for arg in args]
    if args[0] == "check":
        defaults = {"--model": home / "model-one", "--text": home / "text.jsonl"}
        given += [word for name, value in defaults.items() if name not in args for word in (name, value)]
    quiet = ["--quiet"] if args[0] in ("run", "train", "check") else []
    refused(warm, common, *given, *quiet, names=names)


def test_not_over_a_study_that_somebody_wrote(warm: Warm, place: Place) -> None:
    """`--out .` beside the study, where its file would be in the way of the resolved one."""
    before = hashes(place.home)
    done = warm.run("run", "study.yaml", "--out", ".", "-q", cache=place.cache, cwd=place.home)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("unifeat: the run would overwrite study.yaml, which is not as unifeat wrote it: ")
    assert done.err.count("\n") == 1
    assert hashes(place.home) == before


def test_a_pipe_is_no_study(warm: Warm, place: Place) -> None:
    """Nobody writes into it: waiting for that would take forever."""
    os.mkfifo(place.home / "pipe.yaml")
    (place.home / "round.yaml").symlink_to("round.yaml")
    refused(warm, place, "run", place.home / "pipe.yaml", names="pipe.yaml: no such file .it is not a regular file")
    refused(warm, place, "run", place.home, names="home: no such file .it is a folder")
    refused(warm, place, "run", place.home / "round.yaml", names="round.yaml: its links form a loop")


@pytest.mark.parametrize(
    ("option", "value", "bound"),
    [
        ("--documents", 10**30, 10**12),
        ("--tokens", 10**12, 10**7),
        ("--context", 10**12, 2**20),
        ("--layer", 10**12, 10_000),
    ],
)
def test_options_have_bounds(warm: Warm, place: Place, option: str, value: int, bound: int) -> None:
    done = place.unifeat(warm, "check", place.home / "saes/one_0", "--model", "x", option, value)
    assert (done.code, done.out) == (2, "")
    assert re.search(rf"Invalid value for '{option}': .*\b{bound}\b", done.err)


@pytest.mark.parametrize(
    ("args", "names"),
    [
        (["--nonsense"], "No such option: --nonsense; `unifeat --help`"),
        (["run"], "Missing argument 'STUDY.yaml'; `unifeat run --help`"),
        (["run", "a", "b"], "`unifeat run --help`"),
        (["check", "x"], "'--model'; `unifeat check --help`"),
        (["check", "x", "--model", "m", "--layer", "x"], "'--layer'.*; `unifeat check --help`"),
        (["cache", "nope"], "'nope'; `unifeat cache --help`"),
        (["cache", "prune", "--older"], "'--older' requires an argument"),
    ],
)
def test_wrong_options_are_one_line_too(warm: Warm, finished: Place, args: list[str], names: str) -> None:
    done = finished.unifeat(warm, *args)
    assert (done.code, done.out) == (2, "")
    assert re.fullmatch(r"unifeat: [^\n]+\n", done.news), done.err
    assert re.search(names, done.err), done.err


def test_interrupted(warm: Warm, place: Place) -> None:
    """Ctrl-C: one line at the end, no traceback, and the same command carries on."""
    shutil.rmtree(place.cache)
    started = warm.start("run", place.study, "-q", cache=place.cache, cwd=place.work)
    while not list(place.cache.glob("codes/*/shard-*")):
        time.sleep(0.01)
    os.kill(started.pid, signal.SIGINT)
    done = started.wait()
    assert (done.code, done.out) == (130, "")
    assert done.news == "unifeat: interrupted; the same command continues where it stopped\n"
    assert not list(place.cache.rglob(".partial-*"))


def shards(place: Place) -> list[Path]:
    return sorted(place.cache.glob("codes/*/shard-*"))


def change_settings(place: Place) -> Path:
    path = shards(place)[0].with_name("settings.json")
    path.write_text(path.read_text().replace('"context": 32', '"context": 64'))
    return path.parent


def swap(place: Place) -> Path:
    one, other = shards(place)[2:4]
    shutil.copy(other, one)
    return one


def damaged(change: Callable[[Path], None], number: int) -> Callable[[Place], Path]:
    def make(place: Place) -> Path:
        path = shards(place)[number]
        change(path)
        return path

    return make


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


OF_ITS_OWN = ("run.json", "report.html", "study.yaml")  # when and where a run was, and how long it took
STORES: dict[str, tuple[Callable[[Place], Path], str]] = {
    "truncated shard": (damaged(truncate, 5), "is damaged .*: it is encoded again"),
    "empty shard": (damaged(lambda path: path.write_bytes(b""), 9), "is damaged .*: it is encoded again"),
    "flipped bit": (damaged(flip, 17), "is damaged .*: it is encoded again"),
    "missing shard": (damaged(Path.unlink, 12), "is missing: it is encoded again"),
    "shard changed for another": (swap, "is damaged .it differs from the manifest.: it is encoded again"),
    "truncated manifest": (
        damaged(lambda path: truncate(path.with_name("manifest.json")), 0),
        "is damaged .*: it is made again",
    ),
    "other settings": (change_settings, "is damaged .its settings differ: context.: it is made again"),
}


@pytest.mark.parametrize("name", STORES)
def test_a_store_that_is_not_as_it_was_written(warm: Warm, place: Place, name: str) -> None:
    """It is named and made again, and nothing else comes of it."""
    change, names = STORES[name]
    before = hashes(place.run, but=OF_ITS_OWN), hashes(place.cache / "codes")
    path = change(place)
    if name == "truncated manifest":
        path = path.with_name("manifest.json")
    if name == "other settings":
        path = path / "settings.json"
    done = place.unifeat(warm, "run", place.study)
    assert done.code == 0, done
    warnings = [line for line in done.err.splitlines() if str(place.cache) in line]
    assert len(warnings) == 1, done.err
    assert re.fullmatch(rf"warning: (shard |manifest )?{re.escape(str(path))} {names}", warnings[0])
    assert (hashes(place.run, but=OF_ITS_OWN), hashes(place.cache / "codes")) == before


def test_damage_is_mended_in_silence_with_quiet(warm: Warm, place: Place) -> None:
    before = hashes(place.run, but=OF_ITS_OWN)
    flip(shards(place)[3])
    done = place.unifeat(warm, "run", place.study, "--quiet")
    assert (done.code, done.news) == (0, "")
    assert hashes(place.run, but=OF_ITS_OWN) == before


@pytest.mark.parametrize("at", [2, 15, 46])
def test_a_full_disk(warm: Warm, place: Place, at: int) -> None:
    """From the n-th file on nothing can be written; with space again, the same command carries on."""
    before = hashes(place.run)
    shutil.rmtree(place.cache / "codes")
    shutil.rmtree(place.cache / "candidates")
    write_study(place.home, seed=8)
    refused(warm, place, "run", place.study, "--quiet", names="disk full while writing .*same command", full_disk=at)
    assert hashes(place.run) == before
    if at == 15:
        assert place.unifeat(warm, "run", place.study, "--quiet").code == 0


def test_a_folder_that_cannot_be_written(warm: Warm, place: Place) -> None:
    """In a place where files cannot be: below a file."""
    done = place.unifeat(warm, "run", place.study, "--quiet", "--out", place.study / "run")
    assert done.code == 2
    assert re.fullmatch(r"unifeat: [^\n]*study\.yaml[^\n]*\n", done.err)
