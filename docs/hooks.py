"""Links of the documents that lead out of ``docs``, to files of the repository, become the names of those files.

The site stands alone: the repository's address is not known to it.
"""

from __future__ import annotations

import re

OUTSIDE = re.compile(r"(?<!!)\[([^\]]+)\]\((\.\./[^)]+)\)")


def on_page_markdown(markdown: str, page: object, **_: object) -> str:
    """mkdocs calls this for every page before it is rendered."""
    depth = page.file.src_uri.count("/")  # type: ignore[attr-defined]

    def named(found: re.Match[str]) -> str:
        target = found[2]
        leaves = target.startswith("../" * (depth + 1))
        return f"{found[1]} (`{target.removeprefix('../' * (depth + 1))}`)" if leaves else found[0]

    return OUTSIDE.sub(named, markdown)
