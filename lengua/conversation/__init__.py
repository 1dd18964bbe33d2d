"""Conversation: turns, the prompt of a situation, who replies. No gradio and no page in here.

    responder = responder_for()        # of the environment: a server that speaks OpenAI's API, or else the tutor
    for piece in responder.reply([Turn("user", "Hola, ¿qué tal?")], Setting("café")):
        print(piece, end="")

turns, settings -> prompts, trimming (what is sent) -> streaming, failures (how it goes) -> backends; tutor, dictation
(without a server); exporting (what one takes home); allowance (how much a day).
"""

from lengua.conversation.backends import Backend, responder_for
from lengua.conversation.errors import KINDS, ReplyError
from lengua.conversation.settings import LEVELS, SITUATIONS, Setting, varieties
from lengua.conversation.turns import Responder, Turn, turns_of
from lengua.conversation.tutor import Tutor

__all__ = [
    "KINDS",
    "LEVELS",
    "SITUATIONS",
    "Backend",
    "ReplyError",
    "Responder",
    "Setting",
    "Turn",
    "Tutor",
    "responder_for",
    "turns_of",
    "varieties",
]
