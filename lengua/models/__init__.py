"""Whisper: languages, tokens, the adaptive model, checkpoints and their formats, where base weights come from."""
