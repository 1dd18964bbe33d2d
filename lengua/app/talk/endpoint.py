"""The endpoint `/reply` for programs: a message and what was said before -> the reply, as it comes.

client = Client("http://127.0.0.1:7860")
job = client.submit("Hola, ¿qué tal?", [{"role": "user", "content": "Buenos días"}], api_name="/reply")
for text in job:
    print(text)                          # the reply so far
"""

from collections.abc import Iterator

import gradio as gr

from lengua.app.admission import Refusal
from lengua.app.parts import Parts
from lengua.app.talk.answering import MOST_TURNS, answering, unfit
from lengua.app.talk.keys import key_field
from lengua.app.talk.panel import language_of
from lengua.conversation import Setting, Turn
from lengua.conversation.settings import LEVELS, SITUATIONS, varieties
from lengua.conversation.turns import turns_of

ABOUT = """Reply to a message, word by word: each answer is the reply so far.
history: [{{"role": "user" or "assistant", "content": text}}, ...], the oldest first.
situation: {situations}. level: {levels}. variety: {varieties}. Others count as the first.
key: of OpenAI's API or the server that this page is connected to, used for this reply alone; none: as the page itself.
An error says in a sentence what went wrong, in the language of the request (Accept-Language), Spanish else."""


def reply_endpoint(parts: Parts) -> None:
    """Make the endpoint, with inputs that the page does not show."""
    default = Setting(language=language_of(parts))
    about = ABOUT.format(
        situations=", ".join(SITUATIONS), levels=", ".join(LEVELS), varieties=", ".join(varieties(default.language))
    )
    with gr.Column(visible=False):
        given = [
            gr.Textbox(label="message"),
            gr.JSON([], label="history"),
            gr.Textbox(default.situation, label="situation"),
            gr.Textbox(default.level, label="level"),
            gr.Textbox(default.variety, label="variety"),
            key_field(value="", label="key"),
        ]
        gr.on(
            [],
            Replying(parts).reply,
            given,
            gr.Textbox(label="reply"),
            api_name="reply",
            api_description=about,
            concurrency_limit=None,
        )


class Replying:
    """What happens on the server."""

    def __init__(self, parts: Parts):
        self.parts = parts

    def reply(
        self,
        message: str,
        history: list,
        situation: str,
        level: str,
        variety: str,
        key: str,
        request: gr.Request,
    ) -> Iterator[str]:
        """Yield the reply so far.

        Raises:
            gr.Error: with a sentence; what was yielded before it counts.
        """
        text = (message or "").strip()
        before = tuple(turns_of(history[-MOST_TURNS + 1 :] if isinstance(history, list) else []))
        if refusal := unfit(before, text):
            raise self._error(refusal, request)
        setting = Setting(situation or "", level or "", variety or "", language_of(self.parts))
        for step in answering(self.parts, (*before, Turn("user", text)), setting, key, request):
            if step.problem:
                raise self._error(Refusal(step.problem, **step.values), request)
            yield step.text

    def _error(self, refusal: Refusal, request: gr.Request) -> gr.Error:
        sentence = self.parts.wording.said(request, refusal.key, **refusal.values)
        return gr.Error(sentence, duration=None, print_exception=False)
