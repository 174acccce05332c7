"""How pages look: on a screen in light and dark, and printed. Nothing is loaded from elsewhere."""

from __future__ import annotations

from html import escape
from importlib.resources import files

from ecgnat_stream import __version__

__all__ = ["NOT_A_DEVICE", "document"]

NOT_A_DEVICE = (
    "ecgnat-stream is not a certified medical device. This was written by a program and checked by nobody: "
    "do not decide on a patient's care by it."
)

_STYLE = files(__package__).joinpath("page.css").read_text(encoding="utf-8")


def document(title: str, header: str, body: str) -> str:
    """Return a whole page.

    Parameters
    ----------
    header, body
        As HTML, escaped already.
    """
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{_STYLE}</style></head>\n<body>\n<header>{header}\n"
        f'<p class="notice" role="note">{NOT_A_DEVICE}</p></header>\n<main>\n{body}\n</main>\n'
        f"<footer>ecgnat-stream {__version__}. {NOT_A_DEVICE}</footer>\n</body></html>\n"
    )
