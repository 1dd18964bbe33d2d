"""Transcriber: the one decode path of evaluation, app and command line.

    transcriber = Transcriber("runs/demo")
    transcriber.transcribe("clip.mp3").text

    for segment in transcriber.segments("talk.mp4", words=True):     hours of it, in constant memory

sound -> pauses (voice activity detection) -> silence (what never reaches the model) -> decoding (adaptive window, loop
guard, second try at 30 s) -> words -> segments -> text, subtitles, JSON.
"""

from lengua.transcription.decoding import TRAINED, Decoded, Decoder
from lengua.transcription.pauses import MAX_SEGMENT_SECONDS, Span, spans
from lengua.transcription.segments import Segment, Transcript, Word
from lengua.transcription.stage import FileText, Heard, transcribe_files
from lengua.transcription.streaming import SegmentStream
from lengua.transcription.subtitles import FORMATS
from lengua.transcription.transcriber import Transcriber

__all__ = [
    "FORMATS",
    "MAX_SEGMENT_SECONDS",
    "TRAINED",
    "Decoded",
    "Decoder",
    "FileText",
    "Heard",
    "Segment",
    "SegmentStream",
    "Span",
    "Transcriber",
    "Transcript",
    "Word",
    "spans",
    "transcribe_files",
]
