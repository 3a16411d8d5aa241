"""New entries of papers: from files and addresses, read by a language model, kept by the rules."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from asi_lab.cli import cli
from asi_lab.errors import DiskError, KnowledgeError
from asi_lab.knowledge import download, reading, source
from asi_lab.knowledge.base import FOLDER, load
from asi_lab.knowledge.entry import SECTIONS
from asi_lab.knowledge.extract import REPLIES, Extractor, FileTape, save
from asi_lab.lab import Lab, config
from asi_lab.llm.model import Reply, TokenUsage
from asi_lab.llm.record import Exchange
from asi_lab.llm.scripted import Scripted
from asi_lab.researcher.grammar.genome import GENES
from asi_lab.settings import AgentSettings

PROSE = " ".join(["The memory of a layer is written by an outer product of key and value."] * 40)
PAPER = (
    f"Fading Memories\n\nA. Author\n\narXiv:2501.01234\n\n{PROSE}\n\nReferences\n\n[1] Somebody. Something."
)
BACKGROUND = {
    "title": "Fading Memories: On Decay",
    "first_author": "A. Author",
    "year": 2025,
    "family": "linear-attention",
    "mechanism": "Let the memory fade by a learned rate.",
    "historical_context": "Memories added up.",
    "limitation": "They never forgot.",
    "concepts": "- **fade**: what is multiplied into the state",
}
INSIGHT = {field: f"Words on {field}." for field in SECTIONS.values()} | {
    "title": "Fade",
    "confidence": "high",
    "signatures": "asi_recall falls without it.",
    "symptoms": "## Symptoms\nold facts drown the new ones",
}


@pytest.fixture
def lab(tmp_path) -> Lab:
    made = Lab(tmp_path / "lab")
    made.create(config.from_preset("micro"))
    return made


class Reader:
    """A model that reads well, or with faults at first."""

    def __init__(self, *insights: dict) -> None:
        self.insights = list(insights) or [INSIGHT]
        self.asked: list[str] = []

    def __call__(self, messages, call) -> Reply:
        self.asked.append(messages[1].content)
        if "families" in messages[1].content.lower().split("## paper")[0]:
            answer = BACKGROUND
        else:
            answer = {"insights": [self.insights.pop(0) if len(self.insights) > 1 else self.insights[0]]}
        return Reply(json.dumps(answer), usage=TokenUsage(10, 10))


def extractor(lab: Lab, reader: Reader) -> Extractor:
    return Extractor(Scripted(reader, "openai:reader"), AgentSettings(), lab.path, GENES, lambda words: None)


def test_an_entry_is_made_and_can_be_read_back(lab):
    reader = Reader()
    entry = extractor(lab, reader).extract(source._without_references(PAPER), load())
    assert (entry.key, entry.front.arxiv) == ("fading-memories", "2501.01234")
    assert entry.insights[0].symptoms == "Symptoms\nold facts drown the new ones"
    assert "Somebody" not in reader.asked[0]
    file = save(entry, lab.path)
    assert file == lab.path / FOLDER / "fading-memories.md"
    assert load(lab.path).get("fading-memories") == entry


def test_faults_are_told_to_the_model_which_puts_them_right(lab):
    reader = Reader(INSIGHT | {"design": "word " * 100}, INSIGHT)
    entry = extractor(lab, reader).extract(PAPER, load())
    assert len(reader.asked) == 3
    assert "Design insight: expected at most 90 words; found 100" in reader.asked[2]
    assert entry.insights[0].design == "Words on design."


def test_one_that_goes_on_breaking_the_rules_is_given_up(lab):
    reader = Reader(INSIGHT | {"signatures": "asi_magic rises"})
    with pytest.raises(KnowledgeError, match=r"(?s)in 3 attempts.*asi_magic") as error:
        extractor(lab, reader).extract(PAPER, load())
    assert "openai:reader" in str(error.value)
    assert not list((lab.path / FOLDER).glob("*.md"))


def test_replies_are_not_paid_for_twice(lab):
    first = Reader()
    extractor(lab, first).extract(PAPER, load())
    assert len(list((lab.path / FOLDER / REPLIES).glob("*.json"))) == 2
    second = Reader()
    again = extractor(lab, second).extract(PAPER, load(), key="other-key", arxiv="2502.00001")
    assert second.asked == []
    assert (again.key, again.front.arxiv) == ("other-key", "2502.00001")


def test_a_reply_that_cannot_be_kept_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskError):
        FileTape(tmp_path / "file").keep("k", Exchange("r", "m", 0.0, (), (), 0.0))
    assert FileTape(tmp_path / "file").find("k") is None


# Where papers come from


def pdf(text: str) -> bytes:
    """A PDF of one page with a text on it."""
    words = text.split()
    lines = [" ".join(words[start : start + 10]) for start in range(0, len(words), 10)]
    shown = "".join(f"({line}) Tj T*\n" for line in lines)
    stream = f"BT /F1 10 Tf 50 750 Td 12 TL\n{shown}ET".encode()
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R "
        b"/Resources << /Font << /F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >> >> >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream),
    ]
    body, places = bytearray(b"%PDF-1.4\n"), []
    for number, content in enumerate(objects, start=1):
        places.append(len(body))
        body += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    start = len(body)
    body += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    body += b"".join(b"%010d 00000 n \n" % place for place in places)
    body += b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, start)
    return bytes(body)


HTML = (
    f"<html><head><style>x{{}}</style></head><body><nav>menu</nav><p>{PROSE}</p>"
    "<script>no()</script></body></html>"
)
PAGES = {
    "/paper.pdf": pdf(PROSE),
    "/paper.html": HTML.encode(),
    "/paper": PAPER.encode(),
    "/short": b"too short",
}
MOVED = {
    "/moved": "/paper.pdf",
    "/round": "/round",
    "/to-a-file": "file:///etc/passwd",
}


@pytest.fixture
def server() -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            content, place = PAGES.get(self.path), MOVED.get(self.path)
            self.send_response(302 if place else 404 if content is None else 200)
            if place:
                self.send_header("Location", place)
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, *words):
            pass

    served = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=served.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{served.server_port}"
    served.shutdown()
    served.server_close()


@pytest.mark.parametrize("name", ["/paper.pdf", "/paper.html", "/paper"])
def test_papers_are_read_from_addresses_and_files(server, name, tmp_path):
    text = source.read(f"{server}{name}")
    assert "outer product of key and value" in " ".join(text.split())
    assert "menu" not in text
    assert "no()" not in text
    assert "Somebody" not in text
    file = tmp_path / Path(name).name
    file.write_bytes(PAGES[name])
    assert source.read(str(file)) == text


@pytest.mark.parametrize(
    ("name", "found"),
    [("/gone", "the server answered 404"), ("/short", "expected a paper of at least 300 words; found 2")],
)
def test_what_is_no_paper_is_told(server, name, found):
    with pytest.raises(KnowledgeError, match=found):
        source.read(f"{server}{name}")


def test_what_cannot_be_read_is_told(tmp_path):
    with pytest.raises(KnowledgeError, match="expected a readable file"):
        source.read(str(tmp_path / "none.pdf"))
    (tmp_path / "broken.pdf").write_bytes(b"%PDF-1.4 nothing")
    with pytest.raises(KnowledgeError, match="expected a PDF"):
        source.read(str(tmp_path / "broken.pdf"))
    (tmp_path / "binary.txt").write_bytes(b"\0\1\2" * 1000)
    with pytest.raises(KnowledgeError, match="found something else"):
        source.read(str(tmp_path / "binary.txt"))
    with pytest.raises(KnowledgeError, match="Without a network give a file"):
        source.read("http://127.0.0.1:9/paper.pdf")


def test_redirects_are_followed_but_not_to_a_private_address(server, monkeypatch):
    assert "outer product" in " ".join(
        source.read(f"{server}/moved").split()
    )  # the user named a local server
    with pytest.raises(KnowledgeError, match="more than 5 redirects"):
        source.read(f"{server}/round")
    with pytest.raises(KnowledgeError, match="neither http nor https"):
        source.read(f"{server}/to-a-file")
    first, real = f"{server}/moved", download._leads_to_private
    monkeypatch.setattr(download, "_leads_to_private", lambda one: one != first and real(one))
    with pytest.raises(KnowledgeError, match=r"redirects to http://127\.0\.0\.1"):
        source.read(first)


@pytest.mark.parametrize(
    ("host", "private"),
    [
        *(("127.0.0.1", True), ("[::1]", True), ("10.0.0.1", True), ("169.254.169.254", True)),
        *(("[::ffff:127.0.0.1]", True), ("[fd00::1]", True), ("2130706433", True), ("0.0.0.0", True)),
        *(("8.8.8.8", False), ("[2001:4860:4860::8888]", False)),
    ],
)
def test_what_a_private_address_is(host, private):
    assert download._leads_to_private(f"http://{host}/paper.pdf") == private


def test_a_download_is_bounded(server, monkeypatch):
    monkeypatch.setattr(download, "MOST_BYTES", 100)
    with pytest.raises(KnowledgeError, match="expected at most"):
        source.read(f"{server}/paper.pdf")
    monkeypatch.setattr(download, "SECONDS", -1.0)
    with pytest.raises(KnowledgeError, match="not read within"):
        source.read(f"{server}/short")


def test_a_pdf_that_is_locked_or_endless_is_told(tmp_path, monkeypatch):
    from pypdf import PdfWriter

    locked, long = PdfWriter(), PdfWriter()
    locked.add_blank_page(100, 100)
    locked.encrypt("secret", algorithm="RC4-128")
    for _ in range(reading.MOST_PAGES + 1):
        long.add_blank_page(100, 100)
    for name, writer, told in (
        ("locked", locked, "asks for a password"),
        ("long", long, "301 pages, 300 at"),
    ):
        writer.write(tmp_path / f"{name}.pdf")
        with pytest.raises(KnowledgeError, match=told):
            source.read(str(tmp_path / f"{name}.pdf"))
    monkeypatch.setattr(reading, "SECONDS", 0.01)
    with pytest.raises(KnowledgeError, match="not read within"):
        source.read(str(tmp_path / "long.pdf"))


@pytest.mark.parametrize(
    ("where", "number"),
    [
        ("2406.06484", "2406.06484"),
        ("arXiv:2406.06484v3", "2406.06484"),
        ("https://arxiv.org/abs/2406.06484", "2406.06484"),
        ("https://arxiv.org/pdf/2406.06484v2.pdf", "2406.06484"),
        ("paper.pdf", None),
        ("https://example.org/2406.06484", None),
    ],
)
def test_arxiv_ids_are_known(where, number):
    assert source.arxiv_id(where) == number


# The commands


def run(*words: object):
    return CliRunner().invoke(cli, ["cognition", *map(str, words)])


def test_entries_are_listed_shown_searched_and_checked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # no lab is needed
    assert "delta-rule" in run("list").stdout
    fronts = json.loads(run("list", "--family", "delta-rule", "--json").stdout)
    assert {front["family"] for front in fronts} == {"delta-rule"}
    assert run("list", "--family", "magic").exit_code == 2
    shown = run("show", "deltanet").stdout
    assert "Parallelizing Linear Transformers" in shown
    assert run("show", "deltanet", "--raw").stdout.startswith("---\nkey: deltanet\n")
    assert run("show", "nobody").exit_code == 1
    found = json.loads(run("search", "weak", "long-range", "recall", "-n", 5, "--json").stdout)
    assert len(found) == 5
    assert run("search", "weak long-range recall").stdout.startswith("1. ")
    assert "Nothing fits" in run("search", "xyzzy").output
    assert run("search", "recall", "--embedder", "magic").exit_code == 2
    checked = run("lint")
    assert (checked.exit_code, checked.stdout) == (0, "")
    assert json.loads(run("lint", "--json").stdout) == []


def test_a_lab_adds_and_checks_its_own(lab, tmp_path, monkeypatch):
    reader = Scripted(Reader(), "openai:reader")
    monkeypatch.setattr("asi_lab.llm.providers.connect", lambda name, **options: reader)
    paper = tmp_path / "paper.txt"
    paper.write_text(PAPER)
    refused = run("add", "--lab", lab.path, paper)
    assert refused.exit_code == 2
    assert "no language model is named" in refused.output
    done = run("add", "--lab", lab.path, "--model", "openai:reader", paper)
    assert done.exit_code == 0, done.output
    assert done.stdout == f"{lab.path / FOLDER / 'fading-memories.md'}\n"
    assert "fading-memories" in run("list", "--lab", lab.path).stdout
    assert run("lint", "--lab", lab.path).exit_code == 0
    again = run("add", "--lab", lab.path, "--model", "openai:reader", paper)
    assert again.exit_code == 2
    assert "there is an entry fading-memories already" in again.output
    assert run("add", "--lab", lab.path, "--model", "openai:reader", "--replace", paper).exit_code == 0
    file = lab.path / FOLDER / "fading-memories.md"
    file.write_text(file.read_text().replace("2501.01234", "none"))
    checked = run("lint", "--lab", lab.path)
    assert checked.exit_code == 1
    assert "fading-memories: arxiv: expected an id" in checked.stdout
    assert msgspec.json.decode(run("stats", "--lab", lab.path, "--json").stdout) == []
