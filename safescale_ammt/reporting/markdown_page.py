"""A page of our own Markdown: the same words, in the look of the reports.

The Markdown is read by CommonMark's rules (markdown-it-py), raw HTML as text. So what
is foreign in it stays what `markdown.plain` made of it, and the two forms cannot
differ in a word.
"""

from __future__ import annotations

from markdown_it import MarkdownIt

from safescale_ammt.reporting.report import framed

_SPACED = (
    # Points stand in one card, one below the other, and print with what is below them.
    ".card h3 { margin-top: 18px; break-after: avoid; }"
    ".card ul { margin: 4px 0 0; padding-left: 20px; } .card li { max-width: 86ch; }"
)


def markdown_page(text: str, source: str) -> str:
    """Writes Markdown as one page without scripts, images or links of others.

    Args:
        text: a title (`#`), what stands before the first section, sections (`##`).
        source: what it was written from, for the foot; HTML.
    """
    reader = MarkdownIt("commonmark", {"html": False})
    before, *sections = text.split("\n## ")
    title, _, head = before.removeprefix("# ").partition("\n")
    body = (
        f"<style>{_SPACED}</style>\n"
        f'<header><p class="kind">Technical documentation</p>'
        f"<h1>{reader.renderInline(title)}</h1></header>\n{reader.render(head)}"
    )
    for section in sections:
        told = reader.render(f"## {section}")
        body += f'<section class="card">{told}</section>\n'
    return framed(title, body, source)
