"""Who can be measured: our transcriber, other programs with the same weights, and what they are told apart by."""

import csv
import sys
from dataclasses import replace

import pytest

from lengua.data.store import Row
from lengua.evaluation import measure
from lengua.models.checkpoints import read_note
from lengua.models.formats.openai import openai_tensor_name
from lengua.runtime.errors import LenguaError, RequestError
from lengua.scoring import score


def test_a_program_stands_before_the_colon():
    assert measure.program_and_model("faster-whisper:openai/whisper-base") == ("faster-whisper", "openai/whisper-base")
    assert measure.program_and_model("openai-whisper:runs/demo") == ("openai-whisper", "runs/demo")
    assert measure.program_and_model("openai/whisper-base") == (None, "openai/whisper-base")
    assert measure.program_and_model("C:/models/mine") == (None, "C:/models/mine")


def test_an_untouched_model_is_due_in_30_s_only(tiny_model):
    assert read_note(tiny_model).window == "padded"
    assert measure.windows_to_measure(str(tiny_model)) == ["padded"]


def test_ours_hears_stored_features_in_their_order(tiny_model, tiny_store):
    rows = [tiny_store.split("test")[index] for index in range(5)]
    hearer = measure.open_asr_system(str(tiny_model), "es", batch_size=2)
    assert "ctranslate2" in hearer.decoding and "batches of 2" in hearer.decoding
    said = [one.text for one in hearer.hear(rows, "padded")]
    assert said == [hearer.hear([row], "padded")[0].text for row in rows] and len(set(said)) > 1


def test_a_clip_whose_sound_was_not_kept_is_named(tiny_store):
    row = tiny_store.split("test")[0]
    assert len(measure.load_samples(row)) == pytest.approx(16_000 * row.duration_s, abs=16)
    with pytest.raises(LenguaError, match=f"none of {row.id}; build the store with --keep-audio test"):
        measure.load_samples(replace(row, audio=None))


def test_a_program_that_is_not_installed_is_asked_for(tiny_model, monkeypatch):
    monkeypatch.setitem(sys.modules, "whisper", None)
    with pytest.raises(RequestError, match="pip install openai-whisper"):
        measure.open_asr_system(f"openai-whisper:{tiny_model}", "es")


def test_every_tensor_has_a_name_in_openais_program(tiny_model):
    from safetensors.torch import load_file

    names = {
        openai_tensor_name(name) for name in load_file(tiny_model / "model.safetensors") if name != "proj_out.weight"
    }
    expected = """encoder.conv1.weight encoder.positional_embedding encoder.blocks.0.attn.query.weight
        encoder.ln_post.bias encoder.blocks.0.mlp.0.weight encoder.blocks.0.mlp_ln.weight decoder.token_embedding.weight
        decoder.positional_embedding decoder.blocks.0.cross_attn.out.bias decoder.blocks.0.cross_attn_ln.weight
        decoder.blocks.0.attn_ln.weight decoder.ln.weight"""
    assert set(expected.split()) <= names
    assert not [name for name in names if "layers" in name or "_proj" in name or "fc" in name or "model." in name]


@pytest.mark.slow
@pytest.mark.parametrize("program", ["faster-whisper", "openai-whisper"])
def test_other_programs_hear_nearly_the_same_with_the_same_weights(program, base_model, common_voice_es):
    if program == "openai-whisper":
        pytest.importorskip("whisper", reason="needs the package openai-whisper")
    rows = spoken_rows(common_voice_es, 4)
    ours = measure.open_asr_system(str(base_model), "es").hear(rows, "padded")
    other = measure.open_asr_system(f"{program}:{base_model}", "es")
    assert program in other.decoding
    theirs = other.hear(rows, "padded")
    said = [row.text for row in rows]
    far, farther = (score(said, [one.text for one in heard]).cer for heard in (ours, theirs))
    assert abs(far - farther) < 0.15 and max(far, farther) < 0.5
    assert not any(one.looped for one in theirs)


def spoken_rows(folder, count: int) -> list[Row]:
    """Return real clips as rows of a store."""
    from lengua import audio
    from lengua.audio import log_mel

    with open(folder / "validated.tsv", encoding="utf-8", newline="") as file:
        told = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))[:count]
    rows = []
    for one in told:
        sound = (folder / "clips" / one["path"]).read_bytes()
        samples = audio.load(sound)
        peak, coded = log_mel.encode(log_mel.log_mel(samples))
        seconds = len(samples) / 16_000
        rows.append(Row(one["path"], one["sentence"], "es", one["client_id"], seconds, len(coded), peak, coded, sound))
    return rows
