"""The tutor: replies without a language model, from fixed phrases (assets/tutor.toml), and says that it does.

It repeats the transcript, asks about words of low probability, asks the next question of the situation, and gives
sentences to read or to write, which it corrects. It keeps no state: its place follows from its earlier turns, so
undo, retry and edit work as with a model.

    mark_dictation("El café está frío.", "el cafe esta frío").accents == (("café", "cafe"), ("está", "esta"))
"""

import re
import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import ClassVar

from lengua.app.chat.history import Setting, Turn, opening_message, require_bounded, up_to_last_user_turn
from lengua.runtime.files import ASSETS
from lengua.scoring import count_spelling_errors, score
from lengua.scoring.normalizer import normalise, strip_accents, strip_marks

SpellingPair = tuple[str, str]
"""A word of the sentence, and what stands in its place."""


@dataclass(frozen=True)
class DictationMarks:
    """How an answer fares against its sentence. Case and punctuation count only in `signs`."""

    words: int
    """Of the sentence."""
    right: int
    """Of them, those that are there, accents and all."""
    accents: tuple[SpellingPair, ...] = ()
    """Right but for accents: "esta" for "está"."""
    letters: tuple[SpellingPair, ...] = ()
    """Right but for marks that make another letter: "ano" for "año"."""
    missed: tuple[str, ...] = ()
    """Words of the sentence that are missing, or stand as others."""
    added: tuple[str, ...] = ()
    """Words of the answer that are not the sentence's."""
    signs: bool = False
    """Whether capitals or punctuation differ, where all words are there."""

    @property
    def is_perfect(self) -> bool:
        """Whether every word is right, however it is punctuated."""
        return self.right == self.words and not self.added


def mark_dictation(sentence: str, answer: str, language: str = "es") -> DictationMarks:
    """Mark an answer, spoken or typed."""
    spelling, counts = count_spelling_errors([sentence], [answer], language), score([sentence], [answer])
    accents, letters = (tuple(spelling.pairs[name].elements()) for name in ("accents", "letters"))
    misspelled = {word for pair in accents + letters for word in pair}
    reference, hypothesis = normalise(sentence).split(), normalise(answer).split()
    missed, added = _without(reference, hypothesis, misspelled), _without(hypothesis, reference, misspelled)
    signs = not (missed or added) and _unmarked(sentence) != _unmarked(answer)
    return DictationMarks(counts.words, counts.hits, accents, letters, missed, added, signs)


def without_marks(sentence: str, language: str = "es") -> str:
    """Return the sentence as it is dictated: without accents, capitals and punctuation; ñ stays a letter."""
    return strip_accents(normalise(sentence), language)


def _unmarked(text: str) -> str:
    """Return a text as it is written, but for marks on letters."""
    return strip_marks(" ".join(text.split()))


def _without(words: list[str], others: list[str], misspelled: set[str]) -> tuple[str, ...]:
    """Return the words that are not among the others, but for those that are spelled otherwise there."""
    left, rest = Counter(others), []
    for word in words:
        if left[word]:
            left[word] -= 1
        elif word not in misspelled:
            rest.append(word)
    return tuple(rest)


MAX_ECHO_LETTERS, MAX_WORD_LETTERS = 160, 40
EDGE_PUNCTUATION = " .,;:¿?¡!“”«»"
MAX_CORRECTIONS = 4
"""Words of each kind that the marks of a sentence name."""


@dataclass(frozen=True)
class Tutor:
    """Replies without a server. Its phrases are Spanish or English; what it says back is in any language."""

    is_tutor: ClassVar[bool] = True
    name: ClassVar[str] = "lengua"

    def reply(self, turns: Sequence[Turn], setting: Setting) -> Iterator[str]:
        """Yield the reply to the last turn, sentence by sentence.

        Raises:
            ReplyError: too_long, the visitor's last turn.
        """
        spoken = up_to_last_user_turn([turn for turn in turns if turn.text.strip()])
        if spoken:
            require_bounded(spoken[-1])
        lesson = Lesson(setting, [turn.text for turn in spoken if turn.role == "assistant"])
        yield from re.findall(r".+?[.?!»”](?:\s+|$)|.+$", " ".join(lesson.answer(spoken)), re.DOTALL)

    def cost(self, turns: Sequence[Turn], setting: Setting) -> int:
        """Return 0: it asks nobody."""
        return 0


class Lesson:
    """One reply: the tutor's turns before it, and the parts it is made of."""

    def __init__(self, setting: Setting, replies: Sequence[str]):
        self.setting, self.replies = setting, replies
        self.texts = tutor_texts(setting.language, setting.variety)
        self.own = setting.language in _all_texts()

    def answer(self, spoken: Sequence[Turn]) -> list[str]:
        """Return the parts of the reply to the last of the turns."""
        if not spoken:
            return [self.texts["intro"], self.texts["help"], *self.question()]
        begin = [] if self.replies else [self.texts["intro"], self.texts["help"]]
        last, before = spoken[-1], self.replies[-1] if self.replies else ""
        if normalise(last.text) == normalise(opening_message(self.setting)):
            return begin + self.question()
        return begin + (self.obey(last.text) or self.mark(before, last) or self.settle(before, last) or self.talk(last))

    def obey(self, text: str) -> list[str]:
        """Return the reply to a command; nothing where the text is none."""
        words = set(normalise(text).split()) - set(self.texts["fillers"])
        command = next((name for name, ways in self.texts["commands"].items() if words and words <= set(ways)), "")
        if command == "help":
            return [self.texts["intro"], self.texts["help"]] if self.replies else self.question()
        if command == "stop":
            return [self.texts["stopped"], *self.question()]
        return [self.exercise(command)] if command else []

    # Sentences to read and to write

    def exercise(self, kind: str) -> str:
        """Return the next sentence to read, to write, or to stumble over: one that was not given yet."""
        if not self.own:
            return self.texts["none"]
        sentences = self.texts["sentences"]["twister" if kind == "twister" else self.setting.level]
        shown = [self.shown(kind, sentence) for sentence in sentences]
        given = sum(any(one in reply for one in shown) for reply in self.replies)
        unused = (one for one in shown if not any(one in reply for reply in self.replies))
        return next(unused, shown[given % len(shown)])

    def shown(self, kind: str, sentence: str) -> str:
        """Return how a sentence is set."""
        if kind == "write":
            return self.texts["write"].format(sentence=without_marks(sentence, self.setting.language))
        return self.texts["read"].format(sentence=sentence)

    def pending(self, before: str) -> tuple[str, str] | None:
        """Return (kind, sentence) of what the tutor set at the end of its last turn."""
        for level, sentences in self.texts["sentences"].items() if self.own else ():
            for kind in ("twister",) if level == "twister" else ("read", "write"):
                for sentence in sentences:
                    if before.endswith(self.shown(kind, sentence)):
                        return kind, sentence
        return None

    def mark(self, before: str, turn: Turn) -> list[str]:
        """Return the marks of a sentence that was set, and the next one; signs count only where it was written."""
        if not (pending := self.pending(before)):
            return []
        kind, sentence = pending
        marks = mark_dictation(sentence, turn.text, self.setting.language)
        if marks.is_perfect and not (marks.signs and kind == "write" and not turn.audio):
            return [self.texts["perfect"], self.exercise(kind)]
        parts = [self.texts["part"].format(right=marks.right, words=marks.words)]
        for name, pairs in (("accents", marks.accents), ("letters", marks.letters)):
            named = (self.texts["pair"].format(reference=one, hypothesis=_strip_word(other)) for one, other in pairs)
            if pairs:
                parts.append(self.texts[name].format(pairs="; ".join(islice(named, MAX_CORRECTIONS))))
        for name, words in (("missed", marks.missed), ("added", marks.added)):
            if words and marks.right:
                shown = ", ".join(f"“{_strip_word(word)}”" for word in words[:MAX_CORRECTIONS])
                parts.append(self.texts[name].format(words=shown))
        parts.append(self.texts["signs"].format(sentence=sentence))
        if not (marks.right or marks.accents or marks.letters):  # another sentence
            parts.append(self.texts["help"])
        return [*parts, self.exercise(kind)]

    # Talk

    def settle(self, before: str, turn: Turn) -> list[str]:
        """Return the reply to a word that was repeated, where the tutor asked for one."""
        template = re.escape(self.texts["doubt"]).replace(re.escape("{word}"), "(?P<word>[^«»]+)")
        if not (asked := re.search(template + "$", before)):
            return []
        word, words = asked["word"], normalise(turn.text).split()
        if len(words) == 1 and words[0] in map(normalise, self.texts["no"]):
            return [self.texts["again"], self.texts["doubt"].format(word=word)]
        answer = word_from_letters(turn.text, self.texts["spelling"]) or turn.text.strip(EDGE_PUNCTUATION)
        confirmed = len(words) <= 2 and " ".join(words) in map(normalise, self.texts["yes"])
        if confirmed or normalise(word) in (*words, normalise(answer)):
            return [self.texts["sure"].format(word=word), *self.question()]
        if len(answer.split()) > 2:  # another thought, not another word
            return []
        return [self.texts["other"].format(word=_strip_word(answer)), *self.question()]

    def talk(self, turn: Turn) -> list[str]:
        """Return the transcript, and the next question: about the first doubtful word, or of the situation."""
        text = " ".join(turn.text.split())
        cut = text if len(text) <= MAX_ECHO_LETTERS else text[:MAX_ECHO_LETTERS].rsplit(" ", 1)[0] + "…"
        echo = self.texts["transcript"].format(text=cut.strip("“”«»").removesuffix("."))
        doubtful = next((_strip_word(word) for word in turn.doubtful if normalise(word)), "")
        return [echo, self.texts["doubt"].format(word=doubtful)] if doubtful else [echo, *self.question()]

    def question(self) -> list[str]:
        """Return the next question that was not asked; at the end, what else there is to do, once."""
        questions = self.texts["questions"][self.setting.situation]
        left = (one for one in (*questions, self.texts["done"]) if not any(one in reply for reply in self.replies))
        return [question] if (question := next(left, "")) else []


def word_from_letters(text: str, spelling: dict[str, str]) -> str:
    """Return the word that was spelled, "ce a ese a" -> "casa"; nothing where it was not."""
    letters, names = {name: letter for letter, name in spelling.items()}, normalise(text).split()
    word = [name if len(name) == 1 else letters.get(name, "") for name in names]
    return "".join(word) if len(word) > 1 and all(word) else ""


def _strip_word(word: str) -> str:
    """Return a word without what stands around it; nobody says one of a hundred letters."""
    return word.strip(EDGE_PUNCTUATION)[:MAX_WORD_LETTERS]


def tutor_texts(language: str, variety: str = "") -> dict:
    """Return the phrases for a language, with what its variety says otherwise."""
    texts = _all_texts()
    return texts.get(language, texts["en"]) | texts.get(f"{language}-{variety}", {})


@cache
def _all_texts() -> dict:
    return tomllib.loads((ASSETS / "tutor.toml").read_text(encoding="utf-8"))
