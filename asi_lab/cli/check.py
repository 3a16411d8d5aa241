"""The command that checks one architecture without training it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from asi_lab.cli.shared import current_lab, json_option, lab_option, preset_option
from asi_lab.errors import UsageError

if TYPE_CHECKING:
    from asi_lab.lab import Lab
    from asi_lab.settings import Settings


@click.command()
@lab_option()
@click.argument("target", metavar="FILE|ID")
@json_option
@preset_option
@click.pass_context
def check(ctx: click.Context, target: str, as_json: bool, preset: str | None) -> None:
    """Check an architecture as a search would before it trains it.

    FILE is an architecture.py; ID a candidate of the lab, or best. Without a lab, or with --preset, the
    checks run at the scale of a preset.
    """
    from asi_lab import consent, sandbox
    from asi_lab.common.text import plain
    from asi_lab.engineer.check import check
    from asi_lab.view import page, tables

    lab = current_lab()
    settings, vocabulary = _scale(lab, preset)
    code = _code(lab, target)
    if preset is None and lab.exists:
        consent.check_sandbox(lab, settings)
    confinement = sandbox.choose(settings.sandbox, sandbox.probe())
    evidence = check(code, settings, vocabulary, confinement)
    passed = evidence.failure is None
    if as_json:
        state = None if evidence.failure is None else evidence.failure.value
        report = {"ok": passed, "state": state, "error": evidence.error, "checks": evidence.checks}
        click.echo(tables.to_json({**report, "sandbox": confinement.level.value}))
    else:
        console = tables.console()
        console.print(page.checks(evidence.checks))
        seconds = sum(found.seconds for found in evidence.checks)
        verdict = "All checks passed" if passed else f"In a search it would end as {evidence.failure}"
        click.echo(f"{verdict} ({seconds:.1f} s, sandbox: {confinement.level.value}).", err=True)
        if not passed and all(found.passed for found in evidence.checks):
            click.echo(plain(evidence.error, multiline=True), err=True)
    ctx.exit(0 if passed else 1)


def _scale(lab: Lab, preset: str | None) -> tuple[Settings, int]:
    """The settings to check under, and the size of the vocabulary."""
    from asi_lab.data.manifest import MANIFEST_FILE, load_manifest
    from asi_lab.lab import config

    if preset is not None or not lab.exists:
        settings = config.from_preset(preset or config.DEFAULT_PRESET)
        return settings, settings.data.vocabulary
    settings = lab.settings()
    if (lab.data / MANIFEST_FILE).exists():
        return settings, load_manifest(lab.data).vocab_size
    return settings, settings.data.vocabulary


def _code(lab: Lab, target: str) -> str:
    """The source to check, of a file or of a candidate.

    Raises:
        UsageError: there is no such file or candidate, or it is no text.
    """
    from asi_lab.common.syntax import decoded
    from asi_lab.view import remote

    path = Path(target)
    if path.is_file():
        try:
            return decoded(path.read_bytes())
        except (OSError, SyntaxError) as error:
            raise UsageError(f"{target}: cannot be read as UTF-8 text: {error}.") from None
    if not (target.isdigit() or target == "best"):
        raise UsageError(
            f"expected a file, a candidate's id or best; found {target!r}, which is none of them."
        )
    if not lab.exists:
        raise UsageError(f"candidate {target}: expected a lab at {lab.path}; found none. Name it with --lab.")
    with remote.results(lab) as store:
        proposal = remote.find(lab, store, target).proposal
    if proposal is None:
        raise UsageError(f"candidate {target} has no code.")
    return proposal.code
