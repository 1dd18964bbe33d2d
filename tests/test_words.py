"""words: tokens joined to words with their marks, times in order within the clip, pauses left out, any window."""

import numpy as np
import pytest

from lengua import audio
from lengua.audio import log_mel
from lengua.inference import DecodingResult, Transcriber, Word
from lengua.inference.word_timestamps import clamp_times, split_into_words, time_words, trim_pauses
from lengua.models.tokens import word_tokens
from lengua.runtime.errors import RequestError

SENTENCES = [
    "hola",
    "¿Qué tal, niña?",
    "¡Ay! ¿y el mar?",
    "dijo: «el corazón», y calló...",
    "un 50 % de los quesos",
    "l'eau qu'il y a",
    "ñ",
    "uno - dos",
    "- sí",
    "fin -",
    '"así" (no) asá',
]


@pytest.fixture(scope="module")
def tiny(tiny_model):
    return Transcriber(str(tiny_model), "es", "ctranslate2")


@pytest.fixture(scope="module")
def mels(tiny_store) -> list[np.ndarray]:
    return [row.log_mel() for row in tiny_store.split("train")]


def a_word(start: float, end: float, text: str = "a", probability: float = 0.5) -> Word:
    return Word(start, end, text, probability)


def spelled(tokenizer, text: str, spaces: bool = True) -> list[str]:
    return [word for word, _ in split_into_words(tokenizer, word_tokens(tokenizer, text), spaces)]


# Tokens to words


@pytest.mark.parametrize("sentence", SENTENCES)
def test_words_are_the_sentence_and_use_every_token(sentence, tiny):
    tokens = word_tokens(tiny.tokenizer, sentence)
    found = split_into_words(tiny.tokenizer, tokens)
    assert " ".join(word for word, _ in found) == sentence
    assert sum(count for _, count in found) == len(tokens) and all(count > 0 for _, count in found)


def test_marks_belong_to_their_words(tiny):
    assert spelled(tiny.tokenizer, "¿Qué tal, niña?") == ["¿Qué", "tal,", "niña?"]
    assert spelled(tiny.tokenizer, "uno ! ¿ dos ?") == ["uno !", "¿ dos ?"]
    assert spelled(tiny.tokenizer, "- sí") == ["- sí"]


def test_languages_without_spaces_are_parted_by_characters(tiny):
    assert spelled(tiny.tokenizer, "今日は。", spaces=False) == ["今", "日", "は。"]
    assert spelled(tiny.tokenizer, "今日は。") == ["今日は。"]


def test_broken_bytes_lose_no_token(tiny):
    whole = word_tokens(tiny.tokenizer, "año de niña")
    for cut in range(1, len(whole)):
        for tokens in (whole[:cut], whole[cut:]):
            assert sum(count for _, count in split_into_words(tiny.tokenizer, tokens)) == len(tokens)
    assert split_into_words(tiny.tokenizer, []) == []


# Times


def test_times_never_go_back_nor_leave_the_clip():
    found = list(clamp_times([a_word(-0.1, 0.5), a_word(0.3, 0.2), a_word(0.4, 3.0), a_word(5.0, 6.0)], 2.0))
    times = [time for word in found for time in (word.start_s, word.end_s)]
    assert times == [0.0, 0.5, 0.5, 0.5, 0.5, 2.0, 2.0, 2.0]


def test_a_pause_is_no_part_of_a_word():
    """It lies before the first word and behind a mark; else nobody knows, and it is taken for the word's end."""
    found = [a_word(0, 3), a_word(3, 3.3, "sí,"), a_word(3.3, 7.3), a_word(7.3, 7.6), a_word(7.6, 10.6)]
    cut = [(word.start_s, word.end_s) for word in trim_pauses([*found, *[a_word(10.6, 10.9)] * 3])]
    assert cut[:5] == [(2, 3), (3, 3.3), (6.3, 7.3), (7.3, 7.6), (7.6, 8.6)]
    assert trim_pauses([]) == []


def test_every_word_of_a_clip_has_its_time(tiny, mels):
    decoded = tiny.decode(mels)
    found = time_words(tiny, mels, decoded)
    assert len(found) == len(mels) and sum(map(len, found)) > len(mels)
    for one, clip, its_words in zip(decoded, mels, found, strict=True):
        assert " ".join(word.text for word in its_words).split() == one.text.split()
        times = [time for word in its_words for time in (word.start_s, word.end_s)]
        assert times == sorted(times) and times[0] >= 0 and times[-1] <= len(clip) / 100
        assert all(0 <= word.probability <= 1 for word in its_words)


def test_a_clip_has_the_same_times_whatever_stands_beside_it(tiny, mels):
    decoded = tiny.decode(mels)
    assert time_words(tiny, mels, decoded)[3:5] == time_words(tiny, mels[3:5], decoded[3:5])


def test_what_says_nothing_has_no_words(tiny, mels):
    silent = DecodingResult("", 0, looped=False, second_try=False, language="es")
    assert time_words(tiny, mels[:1], [silent]) == [()] and time_words(tiny, [], []) == []


def test_torch_is_refused_in_three_clauses(tiny_model, mels):
    transcriber = Transcriber(str(tiny_model), "es", "torch")
    with pytest.raises(
        RequestError, match=r"expected .*word timestamps; found torch.*; decode with --engine ctranslate2"
    ):
        time_words(transcriber, mels[:1], transcriber.decode(mels[:1]))


# Real speech


@pytest.fixture(scope="module")
def base(base_model):
    return Transcriber(str(base_model), "es", "ctranslate2")


@pytest.fixture(scope="module")
def spoken(spoken_es) -> list[tuple[np.ndarray, str]]:
    """Sound of real clips and what was said in them."""
    return [(audio.load(path), text) for path, text in list(spoken_es.items())[:4]]


def timed(base, samples: np.ndarray, text: str) -> tuple[Word, ...]:
    """Return when each word of a text was said: the true one, since what whisper-base writes is another matter."""
    tokens = tuple(word_tokens(base.tokenizer, text))
    said = DecodingResult(text, len(tokens), looped=False, second_try=False, language="es", token_ids=tokens)
    return time_words(base, [log_mel.log_mel(samples)], [said])[0]


@pytest.mark.real
def test_words_come_where_they_are_said(base, spoken):
    """Two clips with a pause of 3 s between them: no word is said in the pause."""
    for (one, text), (other, next_text) in (spoken[:2], spoken[2:]):
        found = timed(base, np.concatenate([one, np.zeros(3 * 16_000, np.float32), other]), f"{text} {next_text}")
        assert [word.text for word in found] == f"{text} {next_text}".split()
        until, since = audio.duration_s(one), audio.duration_s(one) + 3
        before, behind = found[: len(text.split())], found[len(text.split()) :]
        assert before[-1].end_s < until + 1 and before[-1].start_s < until, found
        assert behind[0].start_s > since - 1 and behind[0].end_s > since, found


@pytest.mark.real
def test_words_are_long_enough_to_be_said(base, spoken):
    chances = []
    for clip, text in spoken:
        found = timed(base, clip, text)
        lengths = [word.end_s - word.start_s for word in found]
        assert 0.1 < np.median(lengths) < 0.8 and max(lengths) <= 1.6
        assert found[-1].end_s <= audio.duration_s(clip) + 0.01
        chances += [word.probability for word in found]
    assert np.mean(chances) > 0.2
