"""Recordings that a visitor corrects and keeps: a `folder:` source at once, after consent, and gone with the visit."""

import json
import logging
import os
import re
import threading
import time
import zipfile
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import chirp
from standin_page import Visitor, build, parts_of, request_in, saying

from lengua import audio
from lengua.app import record_tab, recordings
from lengua.app.highlighting import highlight_confidence, unsure_words
from lengua.app.i18n import Wording
from lengua.app.limits import Refusal
from lengua.app.record_tab import (
    ZIP_FOLDER,
    CorrectionDraft,
    CorrectionOutputs,
    RecordHandlers,
    VisitFolders,
)
from lengua.app.recordings import (
    KEEP_DIR_VARIABLE,
    MAX_CLIP_LETTERS,
    FolderBounds,
    RecordedClip,
    RecordingsFolder,
    corrected_clips,
    segment_cuts,
)
from lengua.data import features
from lengua.data.sources import SPLITS, open_source
from lengua.data.store import open_store
from lengua.inference import Segment, Transcriber, Word
from lengua.options import FeatureOptions
from lengua.runtime.errors import RequestError

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # event loops that gradio leaves to the collector

SPANISH, ENGLISH = request_in("es-MX"), request_in("en")
TEXTS = ["¿Sí?", "No.", "Uno", "dos", "El mar", "la niña"]
ROOM = FolderBounds(clips=50, seconds=600)


@pytest.fixture(scope="module")
def tiny(tiny_model) -> Transcriber:
    one = Transcriber(str(tiny_model), "es", "ctranslate2")
    one.engine.generate = saying(one, "el camion rojo")
    return one


@pytest.fixture
def keeper(tiny, tmp_path) -> RecordHandlers:
    return RecordHandlers(parts_of(tiny), VisitFolders(tmp_path / "cache"))


def wav(path: Path, samples: np.ndarray, rate: int = 16_000) -> Path:
    soundfile.write(path, samples, rate)
    return path


def a_clip(seconds: float = 0.5, text: str = "hola", hertz: float = 200) -> RecordedClip:
    return RecordedClip(chirp(seconds, hertz), text, "es")


def a_draft(folder: Path, number: int = 1, seconds: float = 0.6) -> CorrectionDraft:
    path = wav(folder / f"rec {number}.wav", chirp(seconds, 180 + 20 * number))
    return CorrectionDraft(str(path), (Segment(0.0, seconds, "lo oido", "es"),), f"take{number}")


def keep_all(keeper: RecordHandlers, folder: Path, texts=TEXTS, visit=None):
    """Keep a recording with each text, as one visitor; return (visit, ZIP, what was told last)."""
    for number, text in enumerate(texts, start=1):
        told, visit, download, _ = keeper.keep(a_draft(folder, number), text, True, visit, SPANISH)
    return visit, Path(download["value"]), told


def utterances(folder: Path) -> list:
    source = open_source(f"folder:{folder}")
    return [item for split in SPLITS for item in source.read(split)]


# A source at once


def test_what_is_kept_is_a_source_and_becomes_features(keeper, tiny_model, tmp_path):
    visit, _, note = keep_all(keeper, tmp_path)
    folder = visit.folder / ZIP_FOLDER
    items = utterances(folder)
    assert sorted(item.text for item in items) == sorted(TEXTS)
    assert {item.language for item in items} == {"es"} and {item.speaker for item in items} == {visit.speaker}
    assert all(item.extra["heard"] == "lo oido" and "Acepto" in item.extra["consent"] for item in items)
    made = features.build(FeatureOptions(f"folder:{folder}", tmp_path / "store", workers=1, base=str(tiny_model)))
    store = open_store(made.path)
    rows = [row for split in SPLITS for row in store.split(split)]
    assert sorted(row.text for row in rows) == sorted(TEXTS)
    assert all(row.duration_s == pytest.approx(0.6, abs=0.01) for row in rows)
    assert "6 (" in note and "4 s" in note
    stereo = np.stack([chirp(1.5, 300, 44_100)] * 2, axis=1)
    draft = replace(a_draft(tmp_path), recording=str(wav(tmp_path / "stereo.wav", stereo, 44_100)))
    _, other, _, _ = keeper.keep(draft, "Hola.", True, None, SPANISH)
    (item,) = utterances(other.folder / ZIP_FOLDER)
    assert (visit.folder, visit.speaker) != (other.folder, other.speaker), "visitors keep apart"
    assert soundfile.info(item.audio).samplerate == 16_000 and soundfile.info(item.audio).channels == 1
    np.testing.assert_allclose(audio.load(item.audio), audio.load(draft.recording), atol=1e-4)


def test_the_zip_is_the_same_source_with_a_note_on_how_to_use_it(keeper, tmp_path):
    _, file, _ = keep_all(keeper, tmp_path, TEXTS[:3])
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        assert archive.testzip() is None
        archive.extractall(tmp_path / "out")
    clips = [name for name in names if re.fullmatch(r"grabaciones/clips/v[0-9a-f]{12}-take\d-001\.flac", name)]
    assert len(clips) == 3
    assert sorted(set(names) - set(clips)) == ["grabaciones/LEEME.txt", "grabaciones/metadata.jsonl"]
    assert sorted(item.text for item in utterances(tmp_path / "out" / ZIP_FOLDER)) == sorted(TEXTS[:3])
    note = (tmp_path / "out" / ZIP_FOLDER / "LEEME.txt").read_text()
    assert "lengua features folder:grabaciones" in note


def test_corrected_once_more_it_replaces_what_was_kept(keeper, tmp_path):
    draft = a_draft(tmp_path)
    _, visit, first, _ = keeper.keep(draft, "Ola.", True, None, SPANISH)
    _, again, second, _ = keeper.keep(draft, "Hola.", True, visit, SPANISH)
    assert again == visit
    assert [item.text for item in utterances(visit.folder / ZIP_FOLDER)] == ["Hola."]
    assert len(list((visit.folder / ZIP_FOLDER / "clips").iterdir())) == 1
    assert first["value"] != second["value"] and [path.name for path in visit.folder.glob("*.zip")] == [
        Path(second["value"]).name
    ]


# Consent


@pytest.mark.parametrize("consent", [False, None, "true"], ids=repr)
def test_nothing_is_written_without_consent(keeper, tmp_path, consent):
    told, visit, *_ = keeper.keep(a_draft(tmp_path), "Hola.", consent, None, SPANISH)
    assert "Marca primero la casilla" in told and visit is None
    assert not (tmp_path / "cache").exists()
    assert "nothing to correct yet" in keeper.keep(None, "Hola.", True, None, ENGLISH)[0]


def page_of(tiny, environ):
    return build(record_tab.build_record_tab, parts_of(tiny), environ)


def test_the_box_names_a_lasting_folder_and_only_then(tiny, tmp_path):
    def label(environ):
        (box,) = [one for one in page_of(tiny, environ).blocks.values() if one.elem_id == "keeping-consent"]
        return str(box.label)

    assert "keeping.consent_lasting" in label({KEEP_DIR_VARIABLE: str(tmp_path / "voces")})
    assert label({KEEP_DIR_VARIABLE: str(tmp_path / "voces")}).endswith("«voces»")
    assert "consent_lasting" not in label({}) and "keeping.consent" in label({KEEP_DIR_VARIABLE: ""})


def test_a_lasting_folder_outlives_the_visit_and_holds_what_was_agreed_to(tiny, tmp_path):
    lasting = recordings.lasting_folder_of({KEEP_DIR_VARIABLE: str(tmp_path / "voces")}, ROOM)
    keeper = RecordHandlers(parts_of(tiny), VisitFolders(tmp_path / "cache"), lasting)
    keeper.keep(a_draft(tmp_path), "Hola.", False, None, SPANISH)
    assert not (tmp_path / "voces/metadata.jsonl").exists(), "nothing without consent"
    one, _, _ = keep_all(keeper, tmp_path, TEXTS[:2])
    other, _, _ = keep_all(keeper, tmp_path, ["Otra voz."])
    keeper.end(one)
    items = utterances(tmp_path / "voces")
    assert not one.folder.exists() and len(items) == 3
    assert all(item.extra["consent"].endswith("en la carpeta «voces»") for item in items)
    keeper.forget(other, SPANISH)
    assert {item.speaker for item in utterances(tmp_path / "voces")} == {one.speaker}
    assert len(list((tmp_path / "voces/clips").iterdir())) == 2


def test_a_folder_of_other_recordings_is_not_kept_into(tmp_path):
    (tmp_path / "metadata.csv").write_text("file_name,text\n")
    with pytest.raises(RequestError, match=r"metadata\.csv.*empty"):
        record_tab.lasting_folder_of({KEEP_DIR_VARIABLE: str(tmp_path)})


def test_many_at_once_lose_nothing(tmp_path):
    folders = [RecordingsFolder(tmp_path / "voces", ROOM) for _ in range(4)]
    threads = [
        threading.Thread(target=folder.add, args=([a_clip(0.3)], f"take{number}", f"v{number}"))
        for number, folder in enumerate(folders * 3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(utterances(tmp_path / "voces")) == 12


# What a visitor writes


HOSTILE = [
    '<script>alert("x")</script> hola',
    "../../etc/passwd",
    'comillas "dobles", comas; y\ttabulador',
    "uno\ndos\r\ntres",
    "\u202ehola\u0000 mundo\u200b",
    "<|endoftext|> hola {{this}} ${x}",
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_a_text_is_only_ever_a_text(keeper, tmp_path, text):
    told, visit, *_ = keeper.keep(a_draft(tmp_path), text, True, None, SPANISH)
    assert "Guardado" in told and "<script" not in told
    (item,) = utterances(visit.folder / ZIP_FOLDER)
    letters = "".join(char for char in text if not char.isspace() and char not in "\u202e\u200b\0")
    assert "".join(item.text.split()) == letters
    assert "\0" not in item.text and "\n" not in item.text
    assert item.audio.parent == visit.folder / ZIP_FOLDER / "clips"
    assert {path.name for path in visit.folder.iterdir()} == {ZIP_FOLDER, next(visit.folder.glob("*.zip")).name}


@pytest.mark.parametrize(
    "text, key",
    [
        (" \n\t", "no_words"),
        ("¿? …", "no_words"),
        ("[risas]", "no_words"),
        ("a" * (MAX_CLIP_LETTERS + 1), "too_many_letters"),
        ("a " * 200_000, "too_many_letters"),
    ],
    ids=["blank", "marks", "noise", "long", "endless"],
)
def test_a_text_that_teaches_nothing_is_refused(keeper, tmp_path, text, key):
    told, visit, *_ = keeper.keep(a_draft(tmp_path), text, True, None, SPANISH)
    assert Wording().message(SPANISH, f"keeping.{key}", letters=MAX_CLIP_LETTERS) in told
    assert visit is None


def test_a_recording_that_is_gone_or_broken_gives_one_plain_sentence(keeper, tmp_path):
    draft = a_draft(tmp_path)
    Path(draft.recording).write_text("esto no es un audio\n" * 50)
    told, visit, *_ = keeper.keep(draft, "Hola.", True, None, SPANISH)
    assert "<p" in told and str(tmp_path) not in told and visit is None
    Path(draft.recording).unlink()
    told, *_ = keeper.keep(draft, "Hola.", True, None, SPANISH)
    assert "ya se borró de este servidor" in told


def test_a_failure_is_logged_and_not_shown(keeper, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(recordings, "write_bytes", lambda *_: 1 / 0)
    with caplog.at_level(logging.ERROR, "lengua.app.record_tab"):
        told, *_ = keeper.keep(a_draft(tmp_path), "Hola.", True, None, SPANISH)
    assert "Algo falló aquí" in told and "ZeroDivision" in caplog.text


# A long recording


LONG = tuple(Segment(start, start + 8, f"trozo {start}", "es") for start in (1, 12, 21, 33))


def test_of_a_long_recording_each_line_is_a_clip_and_an_empty_one_is_left_out():
    samples = np.arange(45 * 16_000, dtype=np.float32)
    clips = corrected_clips(samples, LONG, "Uno.\n\n«Tres»\nCuatro.\n", "es")
    assert [(clip.text, clip.hypothesis) for clip in clips] == [
        ("Uno.", "trozo 1"), ("Tres", "trozo 21"), ("Cuatro.", "trozo 33"),
    ]  # fmt: skip
    assert [round(clip.samples[0] / 16_000, 2) for clip in clips] == [0.7, 20.7, 32.7]


@pytest.mark.parametrize("text", ["uno", "uno\ndos\ntres", "1\n2\n3\n4\n5"])
def test_lines_that_do_not_fit_the_pieces_are_refused(text):
    with pytest.raises(Refusal) as refused:
        corrected_clips(np.zeros(45 * 16_000, np.float32), LONG, text, "es")
    assert refused.value.key == "keeping.lines" and refused.value.values["segments"] == 4


def test_cuts_leave_a_margin_and_never_reach_into_each_other():
    close = [Segment(0.1, 28.0, ""), Segment(28.1, 29.0, ""), Segment(50.0, 59.95, "")]
    found = [(start / 16_000, end / 16_000) for start, end in segment_cuts(close, 60 * 16_000)]
    assert found == [(0.0, 28.05), (28.05, 29.3), (49.7, 60.0)]
    assert segment_cuts([Segment(5.0, 40.0, "")], 60 * 16_000) == [(round(4.7 * 16_000), round(34.7 * 16_000))]


# Bounds


def test_a_visit_is_bounded(keeper, tmp_path, monkeypatch):
    monkeypatch.setattr(record_tab, "VISIT_BOUNDS", FolderBounds(clips=2, seconds=600))
    visit, _, _ = keep_all(keeper, tmp_path, TEXTS[:2])
    told, *_ = keeper.keep(a_draft(tmp_path, 3), "Hola.", True, visit, SPANISH)
    assert "Ya no cabe más: el límite es de 2 grabaciones o 10 minutos." in told
    assert len(utterances(visit.folder / ZIP_FOLDER)) == 2
    folder = RecordingsFolder(tmp_path / "kept", FolderBounds(clips=9, seconds=1.0))
    folder.add([a_clip(0.6)], "take1", "v1")
    with pytest.raises(Refusal, match="full"):
        folder.add([a_clip(0.6)], "take2", "v1")
    assert len(folder.add([a_clip(0.9)], "take1", "v1")) == 1  # in the place of the first


def test_a_full_disk_is_refused_before_it_is_full(keeper, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")(1, 1, recordings.MIN_FREE_DISK_BYTES - 1)
    monkeypatch.setattr(recordings.shutil, "disk_usage", lambda _: usage)
    told, *_ = keeper.keep(a_draft(tmp_path), "Hola.", True, None, SPANISH)
    assert "se quedó sin espacio" in told


# Words tinted


WORDS = (
    Word(0.0, 0.4, "¿El", 0.99),
    Word(0.4, 0.8, "<b>camión", 0.62),
    Word(0.8, 1.0, "rojo?", 0.31),
    Word(1.0, 1.2, "…", 0.1),
)


def test_words_are_marked_by_probability_and_escaped():
    shown = highlight_confidence([Segment(0, 1, "", "es", WORDS), Segment(1, 2, "sin <i>tiempos")], "es")
    assert shown.startswith("<p class='words' lang='es'>¿El <mark class='doubtful' title='62 %'>&lt;b&gt;camión</mark>")
    assert "<mark class='guessed' title='31 %'>rojo?</mark>" in shown
    assert shown.endswith("sin &lt;i&gt;tiempos</p>")
    assert unsure_words([Segment(0, 1, "", "es", WORDS + WORDS)]) == ["rojo", "b>camión"], "the least sure first"


def test_no_kind_is_told_by_colour_alone():
    style = (Path(recordings.__file__).parent.parent / "assets/app_words.css").read_text()
    lines = re.findall(r"^mark\.(doubtful|guessed|differs) .*text-decoration-style: (\w+)", style, re.MULTILINE)
    assert len(lines) == 3 and len({kind for _, kind in lines}) == 3


def test_what_was_heard_is_laid_out_word_by_word_with_a_legend(keeper, tmp_path):
    draft = a_draft(tmp_path, seconds=2.0)
    translation = (Segment(0, 2, "the red truck", "es"),)
    *_, last = keeper.prepare(draft.recording, translation, SPANISH)
    sheet = CorrectionOutputs(*last)
    assert sheet.text == "el camion rojo" and "camion" in sheet.words and sheet.consent is False
    assert sheet.draft.recording == draft.recording and sheet.draft.take.isalnum()
    assert all(segment.words for segment in sheet.draft.segments)
    assert "<ul class='legend'>" in sheet.words and "Palabras dudosas, de más a menos: «" in sheet.words


def test_an_unread_closed_or_long_recording_is_not_heard_again_unasked(keeper, tmp_path):
    draft = a_draft(tmp_path)
    (step,) = keeper.after_transcribing(draft.recording, draft.segments, None, False, SPANISH)
    assert step == CorrectionOutputs()
    (step,) = keeper.after_transcribing(draft.recording, LONG, None, True, SPANISH)
    assert "grabación larga" in CorrectionOutputs(*step).note and CorrectionOutputs(*step).prepare["visible"] is True
    (step,) = keeper.on_opening(draft.recording, draft.segments, draft, SPANISH)
    assert all("value" not in one for one in step)


@pytest.mark.real
def test_a_long_recording_is_laid_out_line_by_line(keeper, tiny, spoken_es, tmp_path, monkeypatch):
    monkeypatch.setattr(tiny.engine, "aligns", False)  # a tiny model aligns nonsense
    pause = np.zeros(16_000, np.float32)
    said = [samples for path in sorted(spoken_es)[:9] for samples in (audio.load(path), pause)]
    path = str(wav(tmp_path / "long.wav", np.concatenate(said)))
    *_, last = keeper.prepare(path, LONG, SPANISH)
    sheet = CorrectionOutputs(*last)
    lines = sheet.text.split("\n")
    assert len(lines) == len(sheet.draft.segments) > 1 and f"{len(lines)} en total" in sheet.note
    _, visit, *_ = keeper.keep(sheet.draft, sheet.text, True, None, SPANISH)
    items = utterances(visit.folder / ZIP_FOLDER)
    assert len(items) == len(lines) and all(item.duration_s <= 30 for item in items)


def test_silence_failures_and_missing_times_are_told_in_a_sentence(keeper, tiny, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(tiny.engine, "aligns", False)
    *_, last = keeper.prepare(a_draft(tmp_path, seconds=2.0).recording, LONG[:1], ENGLISH)
    assert "does not tell which words it doubts" in last[0] and last[2] == "el camion rojo"
    silent = str(wav(tmp_path / "silent.wav", np.zeros(32_000)))
    *_, last = keeper.prepare(silent, LONG[:1], SPANISH)
    assert Wording().message(SPANISH, "refusal.silent") in CorrectionOutputs(*last).note
    monkeypatch.setattr(tiny.engine, "generate", lambda *_: 1 / 0)
    with caplog.at_level(logging.ERROR, "lengua.app.record_tab"):
        *_, last = keeper.prepare(a_draft(tmp_path, seconds=2.0).recording, LONG[:1], SPANISH)
    assert "Algo falló aquí" in CorrectionOutputs(*last).note and "ZeroDivision" in caplog.text


# The end of a visit


def test_forgetting_removes_everything_of_the_visit(keeper, tmp_path):
    visit, _, _ = keep_all(keeper, tmp_path, TEXTS[:2])
    told, none, download, button = keeper.forget(visit, SPANISH)
    assert "ya no queda nada" in told and none is None and not visit.folder.exists()
    assert download["visible"] is button["visible"] is False
    keeper.end(None)


def test_what_visits_left_that_never_ended_is_swept_away(tmp_path):
    killed = tmp_path / "lengua-visits-killed/abc"
    killed.mkdir(parents=True)
    mine = VisitFolders(tmp_path)
    mine.open()
    assert killed.exists()
    os.utime(killed, (1, 1))
    assert mine.open().exists()
    assert not killed.exists()


def test_the_folders_of_a_process_go_with_it(tmp_path):
    mine = VisitFolders(tmp_path)
    folder = mine.open()
    assert folder.stat().st_mode & 0o077 == 0 and len(folder.name) >= 20
    del mine
    assert not folder.exists() and not list(tmp_path.iterdir())


@pytest.fixture
def page(tiny, monkeypatch, tmp_path):
    monkeypatch.setenv("GRADIO_IS_E2E_TEST", "1")  # a closed tab is over after a second, not after an hour
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "gradio"))
    demo = page_of(tiny, {})
    demo.launch(server_name="127.0.0.1", prevent_thread_lock=True, quiet=True, ssr_mode=False)
    yield demo
    demo.close(verbose=False)


def test_on_the_page_a_recording_is_kept_downloaded_and_forgotten_when_the_tab_closes(page, tmp_path):
    (button,) = [one for one in page.blocks.values() if one.elem_id == "keeping-download"]
    assert Path(button.GRADIO_CACHE) == tmp_path / "gradio", "where gradio need not copy what is downloaded"
    one, other = Visitor(page), Visitor(page, "en")
    with one.staying():
        file = one.upload(wav(tmp_path / "loud.wav", chirp(2, 200)))
        one.does("heard_in", file)
        words, _, text, *_ = one.does("prepare", file, None)
        told, _, download, _ = one.does("keep", None, "El camión rojo.", True, None)
        assert "Guardado. En esta visita: 1 (audio: 2 s)." in told, (words, text)
        place = download["value"]["path"]
        (tmp_path / "got.zip").write_bytes(one.web.get(f"file={place}").content)
        assert "nothing to correct" in other.does("keep", None, "Mine.", True, None)[0]
    with zipfile.ZipFile(tmp_path / "got.zip") as archive:
        rows = archive.read(f"{ZIP_FOLDER}/metadata.jsonl").decode().splitlines()
    assert [json.loads(row)["text"] for row in rows] == ["El camión rojo."]
    end = time.monotonic() + 20
    while Path(place).parent.exists() and time.monotonic() < end:
        time.sleep(0.2)
    assert not Path(place).parent.exists()
    left = [path for path in (tmp_path / "gradio").rglob("*") if path.suffix in (".zip", ".flac", ".jsonl")]
    assert left == []
