"""Conversation mode: `history`, `tutor`, `backend`, `replies` and `export` know no gradio; `tab` and `handlers` do."""
