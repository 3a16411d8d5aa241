"""The text of a paper: from a PDF, an HTML page or a text file, on disk or on the network."""

from __future__ import annotations

import re
from pathlib import Path

from asi_lab.common.text import plain
from asi_lab.errors import KnowledgeError
from asi_lab.knowledge import download, reading
from asi_lab.knowledge.download import MOST_BYTES

ARXIV = re.compile(
    r"(?:arxiv:|https?://arxiv\.org/(?:abs|pdf)/)?(\d{4}\.\d{4,5})(?:v\d+)?(?:\.pdf)?", re.IGNORECASE
)
LEAST_WORDS = 300


def arxiv_id(where: str) -> str | None:
    """The arXiv id that a source names, None where it names none."""
    match = ARXIV.fullmatch(where.strip())
    return None if match is None else match[1]


def read(where: str) -> str:
    """The text of a file, of an address or of an arXiv id, without references.

    Raises:
        KnowledgeError: it cannot be had, or has too little text.
    """
    if (number := arxiv_id(where)) is not None:
        content, kind = download.fetch(f"https://arxiv.org/pdf/{number}"), "pdf"
    elif where.lower().startswith(("http://", "https://")):
        content, kind = download.fetch(where), _kind(where)
    else:
        content, kind = _file(Path(where).expanduser()), _kind(where)
    if content.startswith(b"%PDF-"):
        kind = "pdf"
    elif kind != "html" and content[:2000].lstrip()[:1] == b"<" and b"<html" in content[:2000].lower():
        kind = "html"
    is_parsed = kind in ("pdf", "html")
    text = plain(reading.read(kind, content, where) if is_parsed else _text(content, where), multiline=True)
    if len(text.split()) < LEAST_WORDS:
        raise KnowledgeError(
            f"{where}: expected a paper of at least {LEAST_WORDS} words; found {len(text.split())}. A "
            "scanned PDF has no text: use another copy."
        )
    return _without_references(text)


def _kind(where: str) -> str:
    ending = where.rsplit(".", 1)[-1].lower()
    return {"htm": "html", "xhtml": "html"}.get(ending, ending)


def _file(path: Path) -> bytes:
    try:
        if path.stat().st_size > MOST_BYTES:
            raise KnowledgeError(f"{path}: expected at most {MOST_BYTES >> 20} MB; found more.")
        return path.read_bytes()
    except OSError as error:
        raise KnowledgeError(f"{path}: expected a readable file; found: {error.strerror or error}.") from None


def _text(content: bytes, where: str) -> str:
    if b"\0" in content[:4096]:
        raise KnowledgeError(f"{where}: expected a PDF, an HTML page or text; found something else.")
    return content.decode("utf-8", "replace")


def _without_references(text: str) -> str:
    """What stands before the list of references, where that is in the last two thirds."""
    found = [
        match.start() for match in re.finditer(r"^\W*(?:references|bibliography)\W*$", text, re.I | re.M)
    ]
    late = [start for start in found if start > len(text) / 3]
    return text[: late[0]].rstrip() if late else text
