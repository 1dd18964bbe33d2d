"""The export: a folder that programs open, checked in them, with a card that is true; and the same on the Hub."""

import json
import os
import re
import shutil
import subprocess
import sys
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import pytest
import soundfile
from conftest import chirp
from hub_server import READER, a_hub  # noqa: F401 - a fixture
from safetensors.torch import load_file, save_file
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from lengua import audio, cli, printing
from lengua.evaluation import evaluate
from lengua.evaluation.report.tables import with_interval
from lengua.inference import Transcriber
from lengua.models.pretrained import SOURCE_DIGEST_FILE
from lengua.options import EvaluateOptions, PublishOptions, TrainOptions
from lengua.publishing import PublishResult, parity, publish
from lengua.runtime.errors import LenguaError, RequestError
from lengua.runtime.files import exclusive_folder, file_sha256, read_json, write_json
from lengua.runtime.hub import list_visible_files
from lengua.scoring import score
from lengua.training.train import train

stage = import_module("lengua.publishing.publish")  # the package has the function of this name

PUBLISH = """
from pathlib import Path
from lengua.options import PublishOptions
from lengua.publishing import publish
"""


@pytest.fixture(scope="module")
def run(tiny_store, tiny_model, tmp_path_factory):
    """A run of two steps, evaluated against its base."""
    out = tmp_path_factory.mktemp("runs") / "tiny"
    options = TrainOptions(
        str(tiny_store.path), out, base=str(tiny_model), steps=2, margin_s=(0.0, 0.06), precision="fp32"
    )
    train(options)
    french = other_language(tmp_path_factory.mktemp("private") / "voix")
    where = {"against": str(tiny_model), "out": out / "evaluation", "probes": (f"folder:{french}",)}
    evaluate(EvaluateOptions(str(out), str(tiny_store.path), **where))
    return out


def other_language(folder: Path) -> Path:
    """Write clips that are said to be French, to see what a model forgets."""
    folder.mkdir()
    rows = ["file_name,text,language,split"]
    for number, text in enumerate(("oui", "non", "la mer")):
        soundfile.write(folder / f"{number}.wav", chirp(0.6, 200 + 50 * number), 16_000)
        rows.append(f"{number}.wav,{text},fr,test")
    (folder / "metadata.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="module")
def result(run, tmp_path_factory) -> PublishResult:
    """The run as it is published by default."""
    return publish(PublishOptions(str(run), tmp_path_factory.mktemp("exports") / "export"))


@pytest.fixture(scope="module")
def export(result) -> Path:
    return result.path


def contents(folder: Path) -> dict[str, bytes]:
    return {name: path.read_bytes() for name, path in list_visible_files(folder).items()}


def transcripts(model: Path, store) -> list[str]:
    """Return what a model says to the test split of a store."""
    mels = [row.log_mel() for row in store.split("test")]
    return [one.text for one in Transcriber(str(model), "es").decode(mels)]


def quick(run: Path, out: Path, **more) -> PublishOptions:
    """Return options of an export that nobody compares."""
    return PublishOptions(str(run), out, **({"formats": ("hf",), "parity_clips": 0} | more))


def card_of(folder: Path) -> str:
    return (folder / "README.md").read_text(encoding="utf-8")


# The folder


def test_the_export_opens_in_transformers_and_in_ctranslate2(run, export, tiny_store):
    WhisperForConditionalGeneration.from_pretrained(export)
    assert WhisperProcessor.from_pretrained(export).feature_extractor.feature_size == 80
    assert {"model.bin", "config.json", "tokenizer.json", "preprocessor_config.json", "lengua.json"} <= {
        path.name for path in (export / "ctranslate2").iterdir()
    }
    assert transcripts(export, tiny_store) == transcripts(run, tiny_store)


def test_ctranslate2_alone_is_a_model_too_and_says_how_to_decode(run, tmp_path, tiny_store):
    result = publish(quick(run, tmp_path / "export", formats=("ct2",)))
    assert not (result.path / "model.safetensors").exists() and result.formats == ("ct2",)
    assert Transcriber(str(result.path), "es").note.window == "adaptive"
    assert transcripts(result.path, tiny_store) == transcripts(run, tiny_store)
    assert "import pipeline" not in card_of(result.path)


def test_the_programs_are_compared_and_the_card_has_what_they_said(export):
    found, text = read_json(export / parity.PARITY_FILE), card_of(export)
    assert found["clips"] == 5 and found["agreed"] and found["language"] == "es"
    table = parity.parity_table(found["rows"])
    assert len(table.rows) >= 3 and all(cell in text for cell in table.header)
    for line in table.rows:
        assert f"| {line[0]} | {line[1]} | {line[2]} |" in text
    assert "- faster-whisper was left out" in text, "it would pad to 30 s, and this model has a window of one"


def test_what_says_other_words_is_not_published(run, tmp_path, monkeypatch):
    before = publish(quick(run, tmp_path / "export")).path
    kept = contents(before)
    convert = stage.EXPORTERS["ct2"]

    def broken(folder: Path, out: Path) -> None:
        """Convert with the letters of the tokens in another order, as with the tokenizer of another model."""
        other = shutil.copytree(folder, tmp_path / "other")
        tensors = load_file(other / "model.safetensors")
        tensors["model.decoder.embed_tokens.weight"] = tensors["model.decoder.embed_tokens.weight"].roll(3, 0)
        save_file(tensors, other / "model.safetensors", {"format": "pt"})
        convert(other, out)
        shutil.rmtree(other)
        (out / "ctranslate2" / SOURCE_DIGEST_FILE).write_text(file_sha256(folder / "model.safetensors") + "\n")

    monkeypatch.setitem(stage.EXPORTERS, "ct2", broken)
    with pytest.raises(LenguaError, match="the same words in every program") as stopped:
        publish(PublishOptions(str(run), tmp_path / "export"))
    assert "clip " in str(stopped.value) and stopped.value.exit_code == 1
    assert contents(before) == kept
    assert [path.name for path in tmp_path.iterdir()] == ["export"], "nothing half is left"


def test_without_clips_there_is_nothing_to_compare(run, tmp_path):
    with pytest.raises(RequestError, match="--parity-clips 0"):
        publish(PublishOptions(str(run / "model"), tmp_path / "export", formats=("hf",)))
    assert not (tmp_path / "export").exists()
    result = publish(quick(run / "model", tmp_path / "export"))
    text = card_of(result.path)
    assert result.parity is None and "Not compared" in text and "Not measured yet" in text
    assert not re.search(r"\d %", text) and not (result.path / parity.PARITY_FILE).exists()


def test_the_card_holds_what_was_measured(run, export):
    text, results = card_of(export), read_json(run / "evaluation/results.json")
    for row in results["rows"]:
        assert with_interval(row) in text
    assert results["hardware"] in text and results["date"] in text and str(run) not in text
    assert "2 steps of 8 clips" in text and len(results["rows"]) == 6
    record = read_json(run / "run.json")
    assert f"| hardware | {record['hardware']} |" in text and f"torch {record['versions']['torch']}" in text


def test_the_card_says_what_was_forgotten_and_names_no_folder_of_this_machine(run, export):
    text, results = card_of(export), read_json(run / "evaluation/results.json")
    forgotten = text.split("## What it forgot")[1].split("\n## ")[0]
    assert len(re.findall(r"^\| folder:voix \|", forgotten, re.MULTILINE)) == 3 and "/voix" not in text
    found = [probe["timestamps"] for probe in results["probes"].values()]
    told = " | ".join(f"{one['right']} of {one['clips']}" for one in found)
    assert f"| timestamps in order | {told} |" in forgotten and len(found) == 2
    silent = [probe["noise"]["windows"] - probe["noise"]["spoken"] for probe in results["probes"].values()]
    assert f"| keeps silent in noise | {silent[0]} of 12 | {silent[1]} of 12 |" in forgotten


def test_a_folder_of_other_things_is_refused_and_left_alone(run, tmp_path):
    (tmp_path / "export").mkdir()
    (tmp_path / "export/thesis.docx").write_text("mine")
    (tmp_path / "export/config.json").write_text("{}")
    (tmp_path / "file").write_text("mine")
    for name, found in (("export", r"other things \(thesis.docx\)"), ("file", "other things")):
        with pytest.raises(RequestError, match=found):
            publish(quick(run, tmp_path / name))
    assert (tmp_path / "export/thesis.docx").read_text() == (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("place", ["", "model"])
def test_the_run_itself_is_no_place_for_its_export(run, place):
    with pytest.raises(RequestError, match="another folder than the model's own"):
        publish(quick(run, run / place))
    assert (run / "model/model.safetensors").is_file() and (run / "run.json").is_file()


def test_the_same_run_gives_the_same_bytes(run, export, tmp_path):
    out = tmp_path / "export"
    files = contents(publish(quick(run, out, formats=("hf", "ct2"))).path)
    for name in files.keys() - {"README.md"}:
        assert files[name] == (export / name).read_bytes(), name
    again = contents(publish(quick(run, out)).path)  # an earlier export is replaced
    assert len(again) < len(files) and contents(publish(quick(run, out)).path) == again


def test_a_format_that_fails_leaves_nothing(run, tmp_path):
    broken = shutil.copytree(run / "model", tmp_path / "broken", ignore=shutil.ignore_patterns("ctranslate2"))
    os.truncate(broken / "model.safetensors", (broken / "model.safetensors").stat().st_size - 1000)
    with pytest.raises(RequestError, match="cut off"):
        publish(quick(broken, tmp_path / "export"))
    assert list(tmp_path.iterdir()) == [broken]


def test_two_do_not_write_one_folder_at_once(run, tmp_path):
    with exclusive_folder(tmp_path / "export"):
        with pytest.raises(LenguaError, match="another one that writes to it; wait for it"):
            publish(quick(run, tmp_path / "export"))
        assert publish(quick(run, tmp_path / "elsewhere")).bytes > 100_000
    assert publish(quick(run, tmp_path / "export")).bytes > 100_000


def test_what_is_printed(run, result, tmp_path, capsys):
    printing.publish(result)
    shown = capsys.readouterr().out
    assert f"{result.path}: hf, ct2, " in shown and "…" not in shown
    assert f"transformers {version('transformers')}, float32" in shown and "clips with other words" in shown
    assert cli.main(["publish", str(run), "--out", str(tmp_path / "export"), "--parity-clips", "0", "--json"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["formats"] == ["hf", "ct2"] and told["parity"] is None and told["repo"] is None
    where = {"repo": "ana/x", "revision": "abc", "tag": "v1", "url": "http://x/ana/x", "private": True}
    printing.publish(PublishResult(tmp_path, ("hf",), 1, **where, space="http://x/s", space_path=tmp_path))
    shown = capsys.readouterr().out
    assert "ana/x: revision abc, tag v1, private\nhttp://x/ana/x" in shown and "secret HF_TOKEN" in shown


# The Hub


def told(hub, options: str, **client) -> dict:
    (one,) = hub.client(f"show(lambda: publish(PublishOptions({options})))", PUBLISH, timeout=240, **client)
    return one


def test_rights_are_checked_before_anything_is_built(hub, run, tmp_path):
    hub.repo("model", "ana/taken", {"lengua.json": b"{}"}, private=True).tags["v1"] = "a" * 40
    place = f"{str(run)!r}, Path({str(tmp_path / 'export')!r})"
    calls = {
        "to='ana/x'": "one that may only read",
        "to='eva/x'": "one of ana, who is not in eva",
        "to='ana/x', space='eva/y'": "one that may only read",
        "tag='v1'": "found --tag without --to",
        "space='ana/y'": "which is on this machine only; add --to",
    }
    code = "\n".join(f"show(lambda: publish(PublishOptions({place}, {more})))" for more in calls)
    for one, reason in zip(hub.client(code, PUBLISH, token=READER), calls.values(), strict=True):
        assert reason in one["error"] and one["exit_code"] == 2
    taken = told(hub, f"{place}, to='ana/taken', tag='v1'")
    assert "expected a new tag for ana/taken; found v1" in taken["error"]
    assert not (tmp_path / "export").exists() and list(hub.repos) == [("model", "ana/taken")]


@pytest.mark.slow
def test_published_fetched_and_used(hub, run, tmp_path, tiny_store):
    """The whole way: one commit and a tag each; what comes back is what was sent, and says the same words."""
    out, back = tmp_path / "export", tmp_path / "back"
    where = "to='ana/whisper-es', space='ana/voz', tag='first'"
    value = told(hub, f"{str(run)!r}, Path({str(out)!r}), {where}")["value"]
    model, space = hub.repos["model", "ana/whisper-es"], hub.repos["space", "ana/voz"]
    assert (value["repo"], value["tag"], value["url"]) == ("ana/whisper-es", "first", f"{hub.endpoint}/ana/whisper-es")
    assert value["revision"] == model.commits[-1].oid == model.tags["first"] and value["private"]
    assert len(model.commits) == len(space.commits) == 2 and space.private
    assert value["space"] == f"{hub.endpoint}/spaces/ana/voz"
    assert b"\"LENGUA_MODEL\", 'ana/whisper-es'" in space.files["app.py"]
    code = f"""
from huggingface_hub import snapshot_download
snapshot_download("ana/whisper-es", revision="first", local_dir={str(back)!r})
from transformers import WhisperForConditionalGeneration
show(lambda: WhisperForConditionalGeneration.from_pretrained("ana/whisper-es").num_parameters())
"""
    (parameters,) = hub.client(code, timeout=120)
    assert parameters["value"] == WhisperForConditionalGeneration.from_pretrained(run / "model").num_parameters()
    assert contents(back) == contents(out)
    assert transcripts(back, tiny_store) == transcripts(run, tiny_store)


# The snippets of the card


def snippets(text: str) -> dict[str, str]:
    """Return the programs of a card by the package that they are for."""
    found = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    kinds = ("transformers", "faster_whisper", "pywhispercpp", "lengua")
    return {next(kind for kind in kinds if f"from {kind}" in program): program for program in found}


@pytest.mark.slow
def test_the_snippets_of_a_card_run_against_the_hub(hub, run, tmp_path):
    out = tmp_path / "export"
    told(hub, f"{str(run)!r}, Path({str(out)!r}), to='ana/whisper-es', parity_clips=0")
    soundfile.write(hub.home / "clip.wav", chirp(0.8, 220), 16_000)
    programs = snippets(card_of(out))
    assert set(programs) == {"transformers", "faster_whisper", "lengua"}
    assert all('"ana/whisper-es"' in program for program in programs.values())
    del programs["faster_whisper"]  # pads to 30 s, and this model has a window of one: see the test below
    code = "import io, contextlib\n"
    for program in programs.values():
        code += "heard = io.StringIO()\nwith contextlib.redirect_stdout(heard):\n"
        code += "".join(f"    {line}\n" for line in program.splitlines()) + "show(heard.getvalue)\n"
    texts = [one["value"] for one in hub.client(code, timeout=240)]
    assert len(texts) == 2 and all(text.endswith("\n") for text in texts)


@pytest.fixture(scope="module")
def spanish(base_model, tmp_path_factory) -> Path:
    """whisper-base as a model that was trained to Spanish is saved: it forces the language."""
    folder = tmp_path_factory.mktemp("spanish")
    for path in base_model.iterdir():
        if path.is_file():
            (folder / path.name).symlink_to(path)
    told = read_json(folder / "generation_config.json") | {"language": "es", "task": "transcribe"}
    for name, value in {"generation_config.json": told, "lengua.json": {"language": "es"}}.items():
        (folder / name).unlink(missing_ok=True)
        write_json(folder / name, value)
    return folder


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.parametrize(
    ("formats", "kinds"),
    [(("hf", "ct2"), ["transformers", "faster_whisper", "lengua"]), (("ct2-int8", "ggml"), ["faster_whisper", "cpp"])],
    ids=["default", "small"],
)
def test_the_snippets_of_a_card_hear_what_is_said(spanish, spoken_es, tmp_path, formats, kinds):
    if "ggml" in formats:
        pytest.importorskip("pywhispercpp")
    clip, said = next(iter(spoken_es.items()))
    soundfile.write(tmp_path / "clip.wav", audio.load(clip), 16_000)
    publish(PublishOptions(str(spanish), tmp_path / "export", formats=formats, parity_clips=0))
    programs = snippets(card_of(tmp_path / "export"))
    assert [kind.removeprefix("pywhisper") for kind in programs] == kinds
    for kind, program in programs.items():
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, cwd=tmp_path, env=os.environ, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stderr
        assert score(said, done.stdout.strip()).cer < 0.6, (kind, done.stdout, said)
