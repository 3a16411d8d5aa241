"""The text of a PDF or of an HTML page, read in a process of its own: both come from strangers.

    python -m asi_lab.knowledge.reading pdf|html

The document is read from stdin and its text written to stdout. Exit status 1 comes with a sentence on stderr
that says what is wrong with it. The process is bounded in memory and processor time.
"""

from __future__ import annotations

import io
import logging
import resource
import subprocess
import sys
from collections.abc import Iterator

from asi_lab.common import process
from asi_lab.common.text import plain
from asi_lab.errors import KnowledgeError

MOST_PAGES = 300
MOST_CHARACTERS = 20_000_000
SECONDS = 60
"""For a document, of processor time and on the clock."""
MEMORY_BYTES = 2 << 30


def read(kind: str, content: bytes, where: str) -> str:
    """The text of a document of the kind `pdf` or `html`, which came from `where`.

    Raises:
        KnowledgeError: it cannot be read, has too many pages, or takes too long.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", __name__, kind], input=content, capture_output=True, timeout=SECONDS
        )
    except subprocess.TimeoutExpired:
        raise KnowledgeError(f"{where}: not read within {SECONDS} s. Use another copy.") from None
    if done.returncode == 0:
        return done.stdout.decode("utf-8", "replace")
    said = plain(done.stderr.decode("utf-8", "replace"), limit=300) if done.returncode == 1 else ""
    told = said or f"it takes more than {MEMORY_BYTES >> 30} GB of memory or {SECONDS} s"
    raise KnowledgeError(f"{where}: expected a {kind.upper()} that can be read; {told}. Use another copy.")


def _pdf(content: bytes) -> Iterator[str]:
    from pypdf import PdfReader

    reader = PdfReader(io.BytesIO(content))
    if reader.is_encrypted and not reader.decrypt(""):
        raise KnowledgeError("it is encrypted and asks for a password")
    if (pages := len(reader.pages)) > MOST_PAGES:
        raise KnowledgeError(f"it has {pages:,} pages, {MOST_PAGES} at most are read")
    for page in reader.pages:
        yield page.extract_text()


def _html(content: bytes) -> Iterator[str]:
    from bs4 import BeautifulSoup

    page = BeautifulSoup(content, "lxml")
    for part in page(["script", "style", "nav", "header", "footer", "noscript"]):
        part.decompose()
    yield page.get_text("\n")


def main() -> int:
    """Entry point; returns the exit status."""
    process.limit({resource.RLIMIT_AS: MEMORY_BYTES, resource.RLIMIT_CPU: SECONDS})
    logging.disable()  # what a parser puts up with
    parse = {"pdf": _pdf, "html": _html}[sys.argv[1]]
    texts: list[str] = []
    try:
        for text in parse(sys.stdin.buffer.read()):
            texts.append(text)
            if sum(map(len, texts)) > MOST_CHARACTERS:
                raise KnowledgeError(f"it has more than {MOST_CHARACTERS:,} characters")
        sys.stdout.buffer.write("\n".join(texts).encode("utf-8", "replace"))
    except KnowledgeError as error:
        print(error, file=sys.stderr)
        return 1
    except MemoryError:
        return 2
    except Exception as error:  # whatever a parser can raise on what a stranger wrote
        needs = (
            "it is encrypted" if type(error).__name__ in ("DependencyError", "FileNotDecryptedError") else ""
        )
        print(needs or f"found {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
