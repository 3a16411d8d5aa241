"""The command line `asi-lab`. Results go to stdout, narration to stderr.

Only click, the standard library and the errors are imported here; each command imports what it
needs, so that the program starts at once.
"""

from __future__ import annotations

import contextlib
import math
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

import click

from asi_lab import __version__
from asi_lab.cli import (
    calibrate,
    care,
    check,
    cognition,
    demo,
    fetch,
    look,
    money,
    race,
    steer,
    trust,
    verify,
)
from asi_lab.cli.shared import current_lab, existing, lab_option, prepare, preset_option, seed_option
from asi_lab.common import streams
from asi_lab.errors import LabError, UsageError

_EPILOG = (
    "Exit codes: 0 success, 1 failure, 2 wrong usage or configuration, 3 the lab is locked by another "
    "engine, 130 interrupted. NO_COLOR switches colours off."
)


_PARTS = ("cognition", "kernels", "lineage_repo", "prompts", "tui")


class _Commands(click.Group):
    """The one place where errors become messages and exit codes."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            _check_whole(Path(__file__).parents[1])
            return super().invoke(ctx)
        except LabError as error:
            click.echo(f"Error: {error}", err=True)
            raise click.exceptions.Exit(error.exit_code) from error
        except KeyboardInterrupt:
            raise click.exceptions.Exit(130) from None


def _finite(_: click.Context, __: click.Parameter, value: float | None) -> float | None:
    if value is not None and not math.isfinite(value):
        raise click.BadParameter(f"expected a number of hours, found {value}.")
    return value


@click.group(
    cls=_Commands,
    invoke_without_command=True,
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@lab_option(envvar="ASI_LAB")
@click.option("--no-tui", is_flag=True, help="Search here and now, without the terminal UI.")
@click.option(
    "--experiments", type=click.IntRange(min=1), help="Search until the lab holds so many candidates."
)
@click.option(
    "--hours", type=click.FloatRange(min=0, min_open=True), callback=_finite, help="Search for so long."
)
@click.option("--readonly", is_flag=True, help="Only watch: the terminal UI gives no orders.")
@click.option("--replay", is_flag=True, help="Play the lab's search again in the terminal UI.")
@click.option("--ascii", "ascii_only", is_flag=True, help="Draw the terminal UI with ASCII alone.")
@preset_option
@seed_option
@click.version_option(__version__, prog_name="asi-lab")
@click.pass_context
def cli(
    ctx: click.Context,
    no_tui: bool,
    experiments: int | None,
    hours: float | None,
    readonly: bool,
    replay: bool,
    ascii_only: bool,
    preset: str | None,
    seed: int | None,
) -> None:
    """Discover linear-attention architectures: propose, train, evaluate, score, commit, repeat.

    `asi-lab` opens the terminal UI on a lab, from which an engine is started, watched and steered.
    `asi-lab --no-tui` searches here and now; with neither --experiments nor --hours it goes on until it is
    stopped. The commands below look at a lab and steer its engine.
    """
    if ctx.invoked_subcommand is not None:
        given: dict[str, Any] = {"--no-tui": no_tui, "--experiments": experiments, "--hours": hours}
        given |= {"--preset": preset, "--seed": seed is not None, "--readonly": readonly}
        given |= {"--replay": replay, "--ascii": ascii_only}
        if wrong := [name for name, value in given.items() if value]:
            raise UsageError(f"{', '.join(wrong)}: goes with asi-lab alone, not before a command.")
        return
    if not no_tui and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("The terminal UI needs a terminal. Search without it: asi-lab --no-tui")
    if not no_tui and (experiments is not None or hours is not None):
        raise UsageError("--experiments, --hours: go with asi-lab --no-tui.")
    if no_tui and (replay or readonly):
        raise UsageError("--replay, --readonly: go with the terminal UI, not with --no-tui.")
    lab = existing() if replay else current_lab()
    prepare(lab, preset, seed)
    if no_tui:
        from asi_lab.cli import headless

        ctx.exit(headless.search(lab, experiments, hours))
    from asi_lab import tui

    ctx.exit(tui.run(lab, readonly=readonly, replay=replay, ascii_only=ascii_only))


for _command in (
    care.init,
    fetch.fetch,
    demo.demo,
    look.status,
    look.watch,
    look.top,
    look.show,
    look.replay,
    look.diff,
    look.log,
    check.check,
    race.race,
    verify.verify,
    verify.verdicts,
    steer.pause,
    steer.resume,
    steer.stop,
    steer.release,
    steer.idea,
    steer.pin,
    steer.ban,
    steer.rerun,
    steer.tag,
    steer.comment,
    calibrate.calibrate,
    money.models,
    money.estimate,
    cognition.cognition,
    trust.trust,
    care.config,
    care.doctor,
    care.fsck,
    care.completion,
):
    cli.add_command(_command)


def _check_whole(package: Path) -> None:
    """Look whether all parts of the package are there: in the source tree they are links.

    Raises:
        UsageError: some are not; the message says how to get them.
    """
    missing = [name for name in _PARTS if not (package / name).is_dir()]
    if missing:
        raise UsageError(
            f"{package}: expected the folders {', '.join(missing)}, which are links in the repository; found "
            "none. Get it again where links can be made, with git clone -c core.symlinks=true, and install "
            "from there."
        )


def main() -> NoReturn:
    """Run the command line and exit."""
    streams.prepare()
    code: Any = 0
    try:
        try:
            cli(prog_name="asi-lab")
        except SystemExit as end:
            code = end.code
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Python would answer a late Ctrl+C with a traceback
        sys.stdout.flush()
    except OSError as error:
        if not streams.is_of_output(error):
            raise
        streams.mute(sys.stdout)
        if not isinstance(error, BrokenPipeError):  # whoever ends a pipe, such as `head`, has seen enough
            code = code or 1
            with contextlib.suppress(OSError):
                print(f"Error: the output cannot be written: {error.strerror}", file=sys.stderr)
    try:
        sys.stderr.flush()
    except OSError:
        streams.mute(sys.stderr)
    sys.exit(code)
