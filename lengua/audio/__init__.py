"""Any usual audio file, its bytes, or an array -> mono float32 at 16 kHz. The only decoder in the project.

    load("clip.mp3")                     a clip, whole
    for block in stream("talk.m4a"):     a recording of any length, in constant memory

soundfile (libsndfile) decodes WAV, FLAC, Ogg, Opus and MP3 about four times faster than PyAV; PyAV carries its own
FFmpeg and opens the rest: M4A, WebM, G.722, GSM, the sound of videos. Nothing needs a program of the system.
"""

from lengua.audio.decoding import (
    MAX_RECORDING_S,
    STDIN,
    AudioInput,
    RecordingInfo,
    load,
    recording_info,
    require_readable,
    stream,
)
from lengua.audio.samples import SAMPLE_RATE, SILENCE_RMS, SUPPORTED_RATES_HZ, as_flac, duration_s, is_silent

__all__ = [
    "MAX_RECORDING_S",
    "SAMPLE_RATE",
    "SILENCE_RMS",
    "STDIN",
    "SUPPORTED_RATES_HZ",
    "AudioInput",
    "RecordingInfo",
    "as_flac",
    "duration_s",
    "is_silent",
    "load",
    "recording_info",
    "require_readable",
    "stream",
]
