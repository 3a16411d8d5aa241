"""The text of a paper: from a PDF, an HTML page or a text file, on disk or on the network."""

from __future__ import annotations

import io
import re
from pathlib import Path

from asi_lab.errors import KnowledgeError
from asi_lab.text import plain

ARXIV = re.compile(
    r"(?:arxiv:|https?://arxiv\.org/(?:abs|pdf)/)?(\d{4}\.\d{4,5})(?:v\d+)?(?:\.pdf)?", re.IGNORECASE
)
SECONDS = 60.0
MOST_BYTES = 64 << 20
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
        content, kind = _fetched(f"https://arxiv.org/pdf/{number}"), "pdf"
    elif where.startswith(("http://", "https://")):
        content, kind = _fetched(where), _kind(where)
    else:
        content, kind = _file(Path(where).expanduser()), _kind(where)
    if content.startswith(b"%PDF-"):
        kind = "pdf"
    elif kind != "html" and content[:2000].lstrip()[:1] == b"<" and b"<html" in content[:2000].lower():
        kind = "html"
    text = plain({"pdf": _pdf, "html": _html}.get(kind, _text)(content, where), multiline=True)
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


def _fetched(address: str) -> bytes:
    import httpx

    try:
        with httpx.stream("GET", address, follow_redirects=True, timeout=SECONDS) as answer:
            answer.raise_for_status()
            content = bytearray()
            for piece in answer.iter_bytes():
                content += piece
                if len(content) > MOST_BYTES:
                    raise KnowledgeError(f"{address}: expected at most {MOST_BYTES >> 20} MB; found more.")
            return bytes(content)
    except httpx.HTTPStatusError as error:
        raise KnowledgeError(f"{address}: the server answered {error.response.status_code}.") from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise KnowledgeError(
            f"{address}: it cannot be reached ({type(error).__name__}). Without a network give a file: "
            "asi-lab cognition add paper.pdf"
        ) from None


def _pdf(content: bytes, where: str) -> str:
    from pypdf import PdfReader
    from pypdf.errors import PyPdfError

    try:
        return "\n".join(page.extract_text() for page in PdfReader(io.BytesIO(content)).pages)
    except (PyPdfError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise KnowledgeError(f"{where}: expected a PDF; it cannot be read ({error}).") from None


def _html(content: bytes, where: str) -> str:
    from bs4 import BeautifulSoup

    page = BeautifulSoup(content, "lxml")
    for part in page(["script", "style", "nav", "header", "footer", "noscript"]):
        part.decompose()
    return page.get_text("\n")


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
