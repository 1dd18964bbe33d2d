"""Reports of evaluations and of stores: one-file HTML pages (`html`), Markdown, figures, and lines for a terminal."""

from lengua.evaluation.report.html import summary_lines, write_comparison, write_page
from lengua.evaluation.report.significance import Verdict, headline, judge_rows

__all__ = ["Verdict", "headline", "judge_rows", "summary_lines", "write_comparison", "write_page"]
