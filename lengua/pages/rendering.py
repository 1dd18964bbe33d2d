"""Templates of `lengua/data` -> one HTML file. Everything that comes from data is escaped by the template engine."""

from pathlib import Path

from lengua.files import ASSETS, write_bytes


def render(path: Path, template: str, facts: dict) -> Path:
    """Write a page whole or not at all; a fact that the template names and that is missing is an error."""
    from markupsafe import Markup

    engine = template_engine(autoescape=True)
    style = Markup((ASSETS / "page.css").read_text(encoding="utf-8"))
    engine.filters["drawn"] = Markup  # for SVG of lengua.pages.drawing, which holds nothing that came from data raw
    engine.filters["unbroken"] = unbroken
    write_bytes(Path(path), engine.get_template(template).render(style=style, **facts).encode())
    return Path(path)


def template_engine(**how):
    """Return a jinja2.Environment over `lengua/data`; how: its escaping."""
    import jinja2

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(ASSETS),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        **how,
    )


def unbroken(text: str) -> str:
    """Return the text with every figure and its % on one line."""
    return text.replace(" %", "\u00a0%")
