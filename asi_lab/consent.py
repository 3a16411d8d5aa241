"""What a lab asks of whoever searches in it, beyond data: to be another's, to run code outside of a sandbox,
to use keys."""

from __future__ import annotations

from pathlib import Path

import msgspec

from asi_lab.common import trust
from asi_lab.common.trust import Grants, KeyHost
from asi_lab.data import taskcode
from asi_lab.errors import ConsentError
from asi_lab.lab import Lab
from asi_lab.llm import ollama, openai
from asi_lab.llm.choice import names_of
from asi_lab.sandbox import Level
from asi_lab.settings import AgentSettings, Settings


class TaskCode(msgspec.Struct, frozen=True):
    """A folder of tasks that may run code: why, and the SHA-256 of its files by name."""

    folder: str
    digest: str
    reasons: tuple[str, ...]
    files: dict[str, str]


class KeyWanted(msgspec.Struct, frozen=True):
    """An environment variable whose key would be sent to an origin such as `https://llm.example:443`."""

    variable: str
    origin: str


class Asked(msgspec.Struct, frozen=True):
    """All that a lab asks for and that is not granted yet. `owner` is a user's number where the lab is
    another's, else None; `unconfined` says that it wants candidates to run without a sandbox."""

    lab: str
    owner: int | None
    unconfined: bool
    tasks: tuple[TaskCode, ...]
    keys: tuple[KeyWanted, ...]

    @property
    def nothing(self) -> bool:
        """Whether there is nothing to grant."""
        return self.owner is None and not (self.unconfined or self.tasks or self.keys)


def check(lab: Lab, settings: Settings) -> None:
    """Look whether a lab asks for nothing that was not granted.

    Raises:
        ConsentError: it asks for something else; the message names the command that shows and grants it.
        ConfigError: the address of a server is none.
        DataError: a folder of tasks cannot be read, or names code outside of it.
    """
    trust.check_owner(lab.path, lab.path)
    check_sandbox(lab, settings)
    granted = trust.granted()
    for folder in taskcode.code_of((*settings.evaluate.tasks, *settings.verify.tasks), lab.path):
        taskcode.check(folder, granted.tasks, trust.command(lab.path))
    for host in key_hosts(settings.agents):
        host.check(trust.command(lab.path))


def check_sandbox(lab: Lab, settings: Settings) -> None:
    """Look whether a lab whose settings want no sandbox may run candidates so.

    Raises:
        ConsentError: it may not.
    """
    if _is_unconfined(lab, settings, trust.granted()):
        raise ConsentError(
            f'sandbox = "{settings.sandbox}" in {lab.config} lets candidates of this lab read and change '
            f"what you can. See it, and grant it: {trust.command(lab.path)}. Or take the line out."
        )


def _is_unconfined(lab: Lab, settings: Settings, granted: Grants) -> bool:
    return settings.sandbox == Level.LIMITS.value and str(lab.path.resolve()) not in granted.unconfined


def asked(lab: Lab, settings: Settings) -> Asked:
    """What a lab asks for and is not granted yet, also keys that are not set now. Raises as `check`, but no
    `ConsentError`."""
    granted = trust.granted()
    own = [path for path in (lab.path, lab.lineage / ".git") if path.exists()]
    strange = [path for path in own if not trust.is_own(path)]
    folders = taskcode.code_of((*settings.evaluate.tasks, *settings.verify.tasks), lab.path)
    codes = [_task_code(folder, why) for folder, why in folders.items()]
    hosts = [host for host in key_hosts(settings.agents) if not host.is_granted]
    return Asked(
        lab=str(lab.path.resolve()),
        owner=strange[0].stat().st_uid if strange and str(lab.path.resolve()) not in granted.labs else None,
        unconfined=_is_unconfined(lab, settings, granted),
        tasks=tuple(code for code in codes if code.digest not in granted.tasks),
        keys=tuple(KeyWanted(host.variable, trust.origin(host.address)) for host in hosts),
    )


def _task_code(folder: Path, why: list[str]) -> TaskCode:
    """What is shown of a folder and what is granted, of one reading."""
    found = taskcode.files(folder)
    return TaskCode(str(folder), taskcode.digest(folder, found), tuple(why), found)


def grant(what: Asked) -> None:
    """Grant all that a lab asks for. Raises `DiskError` where that cannot be kept."""
    before = trust.granted()
    hosts = dict(before.hosts)
    for key in what.keys:
        hosts[key.variable] = hosts.get(key.variable, frozenset()) | {key.origin}
    trust.keep(
        Grants(
            labs=before.labs | ({what.lab} if what.owner is not None else set()),
            unconfined=before.unconfined | ({what.lab} if what.unconfined else set()),
            hosts=hosts,
            tasks=before.tasks | {code.digest: code.folder for code in what.tasks},
        )
    )


def key_hosts(settings: AgentSettings) -> list[KeyHost]:
    """Where keys go for the models and the embedder that the settings name, and for those of a server that
    they name."""
    names = (*names_of(settings), settings.embedder)
    providers = {name.partition(":")[0] for name in names}
    found = []
    if "openai" in providers or settings.openai_base_url:
        found.append(openai.key_host(settings.openai_base_url or None))
    if "ollama" in providers or settings.ollama_host:
        found.append(ollama.key_host(settings.ollama_host or None))
    return found
