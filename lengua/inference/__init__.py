"""Transcriber: the one decode path of evaluation, app and command line.

    transcriber = Transcriber("runs/demo")
    transcriber.transcribe("clip.mp3").text

    for segment in transcriber.segments("talk.mp4", words=True):     hours of it, in constant memory

sound -> pauses (voice activity detection) -> silence (what never reaches the model) -> decoding (adaptive window, loop
guard, second try at 30 s) -> words -> segments -> text, subtitles, JSON.
"""

from lengua.inference.decoding import TRAINED_MARGIN, Decoder, DecodingResult
from lengua.inference.subtitles import TRANSCRIPT_FORMATS
from lengua.inference.transcribe import FileText, TranscriptChunk, transcribe_files
from lengua.inference.transcriber import SegmentStream, Transcriber
from lengua.inference.transcript import Segment, Transcript, Word
from lengua.inference.vad import MAX_SEGMENT_SECONDS, Span, speech_spans

__all__ = [
    "MAX_SEGMENT_SECONDS",
    "TRAINED_MARGIN",
    "TRANSCRIPT_FORMATS",
    "Decoder",
    "DecodingResult",
    "FileText",
    "Segment",
    "SegmentStream",
    "Span",
    "Transcriber",
    "Transcript",
    "TranscriptChunk",
    "Word",
    "speech_spans",
    "transcribe_files",
]
