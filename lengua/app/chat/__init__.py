"""Conversation mode: history and prompts, backends, the tutor, export, and their tab in the page.

`history`, `backend` and `tutor` know no gradio. Nothing is imported here.
"""
