"""Commands on what the field already knows: cognition list, show, search, lint, add, stats."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from asi_lab.cli.shared import current_lab, existing, json_option, lab_option
from asi_lab.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from asi_lab.settings import AgentSettings


@click.group()
def cognition() -> None:
    """What papers know: look, search, add.

    Entries come with the package; those in the lab's folder `cognition` take their place or stand beside
    them.
    """


def _lab() -> Path | None:
    """The lab's folder, where there is one: the packaged entries can be looked at without any."""
    lab = current_lab()
    return lab.path if lab.exists else None


def _settings() -> AgentSettings:
    from asi_lab.settings import AgentSettings

    lab = current_lab()
    return lab.settings().agents if lab.exists else AgentSettings()


@cognition.command("list")
@lab_option()
@click.option("--family", help="Only entries of this family.")
@json_option
def list_(family: str | None, as_json: bool) -> None:
    """All entries, by family."""
    from rich.table import Table
    from rich.text import Text

    from asi_lab.common.text import plain
    from asi_lab.knowledge.base import load
    from asi_lab.view import tables

    base = load(_lab())
    known = sorted({entry.front.family for entry in base})
    if family is not None and family not in known:
        raise UsageError(f"--family: expected one of {', '.join(known)}; found {family!r}.")
    entries = sorted(
        (entry for entry in base if family in (None, entry.front.family)),
        key=lambda e: (e.front.family, e.key),
    )
    if as_json:
        click.echo(tables.to_json([entry.front for entry in entries]))
        return
    shown = Table(box=None, pad_edge=False)
    for heading in ("family", "key", "year", "mechanism"):
        shown.add_column(heading, no_wrap=heading in ("family", "key"))
    last = ""
    for entry in entries:
        front = entry.front
        cells = ("" if front.family == last else front.family, front.key, str(front.year), front.mechanism)
        last = front.family
        shown.add_row(*(Text(plain(cell)) for cell in cells))
    tables.console().print(shown)
    insights = sum(len(entry.insights) for entry in entries)
    click.echo(f"{len(entries)} papers, {insights} insights", err=True)


@cognition.command()
@lab_option()
@click.argument("key")
@click.option("--raw", is_flag=True, help="Print the file instead.")
def show(key: str, raw: bool) -> None:
    """The entry of KEY, rendered."""
    from rich.markdown import Markdown

    from asi_lab.common.text import plain
    from asi_lab.knowledge.base import load
    from asi_lab.knowledge.entry import render
    from asi_lab.view import tables

    entry = load(_lab()).get(key)
    text = plain(render(entry), multiline=True)
    if raw:
        click.echo(text, nl=False)
        return
    front, body = entry.front, text.split("\n---\n", 1)[1]
    links = [("supersedes", front.supersedes), ("combines with", front.combines_with)]
    where = f", arXiv {front.arxiv}" if front.arxiv else ""
    head = [f"**{front.title}**", "", f"{front.first_author} and others, {front.year}{where}"]
    head += ["", f"{front.family}: {front.mechanism}", ""]
    head += [f"{words} {', '.join(keys)}\n" for words, keys in links if keys]
    console = tables.console()
    console.print(Markdown(plain("\n".join(head), multiline=True) + body, code_theme="ansi_dark"))


@cognition.command()
@lab_option()
@click.argument("words", nargs=-1, required=True)
@click.option("-n", "count", type=click.IntRange(min=1, max=50), default=3, show_default=True)
@click.option("--embedder", help="lexical, ollama:NAME or openai:NAME; by default that of lab.toml.")
@json_option
def search(words: tuple[str, ...], count: int, embedder: str | None, as_json: bool) -> None:
    """The entries for a weakness, such as "weak long-range recall"."""
    from rich.text import Text

    from asi_lab.common.text import plain
    from asi_lab.knowledge import rank
    from asi_lab.knowledge.base import load
    from asi_lab.view import tables

    lab = current_lab()
    base = load(_lab())
    found = rank.search(base, _settings(), lab.path / rank.INDEX, embedder)(" ".join(words), count)
    if as_json:
        click.echo(tables.to_json(found))
        return
    console = tables.console()
    for place, one in enumerate(found, start=1):
        front = base.get(one.key).front
        console.print(Text(f"{place}. {one.key}  {one.score:.2f}  ({front.family})", style="bold"))
        console.print(Text(f"   {plain(one.insight)}. {plain(front.mechanism)}"))
    if not found:
        click.echo("Nothing fits. Say it with other words, or look: asi-lab cognition list", err=True)


@cognition.command()
@lab_option()
@json_option
@click.pass_context
def lint(ctx: click.Context, as_json: bool) -> None:
    """Check all entries: layout, lengths, links, names, duplicates. Exit status 1 where one is at fault."""
    from asi_lab.common.text import plain
    from asi_lab.knowledge import lint as rules
    from asi_lab.knowledge.base import load
    from asi_lab.researcher.grammar.genome import GENES
    from asi_lab.view import tables

    base = load(_lab())
    faults = rules.faults(base, GENES)
    if as_json:
        click.echo(tables.to_json(faults))
    else:
        for fault in faults:
            click.echo(f"{fault.key}: {plain(fault.message)}")
        click.echo(f"{len(base)} entries, {len(faults)} faults", err=True)
    ctx.exit(1 if faults else 0)


@cognition.command()
@lab_option()
@click.argument("source")
@click.option("--key", default="", help="The entry's key; by default made of the title.")
@click.option("--model", "name", help="Who reads it; by default the analyst of lab.toml.")
@click.option("--replace", is_flag=True, help="Take the place of an entry with the same key.")
def add(source: str, key: str, name: str | None, replace: bool) -> None:
    """Read SOURCE, a paper, into a new entry of the lab.

    SOURCE is a PDF, an HTML page or a text, as a file or an address, or an arXiv id such as 2406.06484.
    """
    from asi_lab.knowledge import source as paper
    from asi_lab.knowledge.base import load
    from asi_lab.knowledge.extract import Extractor, save
    from asi_lab.llm.choice import listed
    from asi_lab.llm.providers import connected
    from asi_lab.researcher.grammar.genome import GENES
    from asi_lab.view import tables

    lab = existing()
    settings, base = lab.settings().agents, load(lab.path)
    models = (name,) if name else listed(settings, "analyst")
    if not models:
        raise UsageError(
            "no language model is named: a paper is read by one. Name it under [agents] in lab.toml, or with "
            "--model ollama:NAME."
        )
    if key and key in base.entries and not replace:
        raise UsageError(f"there is an entry {key} already: give another --key, or --replace.")
    text = paper.read(source)
    model = connected(models[0], settings, lambda words: click.echo(words, err=True))
    extractor = Extractor(model, settings, lab.path, GENES, lambda words: click.echo(words, err=True))
    entry = extractor.extract(text, base, key, paper.arxiv_id(source) or "")
    if entry.key in base.entries and not replace:
        raise UsageError(
            f"there is an entry {entry.key} already: give another --key, or --replace. The replies are kept."
        )
    click.echo(save(entry, lab.path))
    click.echo(f"Read it: {tables.command(lab, f'cognition show {entry.key}')}", err=True)


@cognition.command()
@lab_option()
@json_option
def stats(as_json: bool) -> None:
    """Which entries led to candidates, and which of these to gains."""
    from rich.table import Table

    from asi_lab.knowledge.standing import standings
    from asi_lab.view import remote, tables

    lab = existing()
    with remote.results(lab) as store:
        found = standings(store.candidates()) if store else []
    if as_json:
        click.echo(tables.to_json(found))
        return
    if not found:
        click.echo("No candidate rests on an entry yet.", err=True)
        return
    shown = Table(box=None, pad_edge=False)
    for heading in ("entry", "candidates", "scored", "over parent beyond noise", "mean gain in fitness"):
        shown.add_column(heading, justify="left" if heading == "entry" else "right")
    for one in found:
        gain = "-" if one.gain is None else f"{one.gain:+.4f}"
        shown.add_row(one.key, str(one.candidates), str(one.scored), str(one.better), gain)
    tables.console().print(shown)
