"""Every error a user can meet, as one tree.

    LabError                    anything we can explain; the CLI prints it and exits with `exit_code`
    ├── ConfigError             lab.toml, a preset or an option is wrong                      (exit 2)
    ├── UsageError              the command cannot apply to this lab as it stands             (exit 2)
    ├── ConsentError            a lab would use or run what the user has not granted          (exit 2)
    ├── LabLocked               another engine runs on this lab                               (exit 3)
    ├── DataError               a corpus, tokenizer or task cannot be built or read           (exit 1)
    ├── StoreError              LMDB: full disk, unreadable or of another version             (exit 1)
    ├── LineageError            git refused, or the published record disagrees with the store (exit 1)
    ├── KnowledgeError          an entry or a paper cannot be read or kept                    (exit 1)
    ├── DiskError               another file of the lab cannot be written: no space, no rights (exit 1)
    └── TrialError              the machinery around a trial broke (never the candidate)      (exit 1)

A message says what was expected, what was found and what to do next. A candidate that fails is not
an error: its failure is a `CandidateState` with evidence.
"""


class LabError(Exception):
    """Base of all errors that are shown to the user as a message, without a traceback."""

    exit_code = 1


class ConfigError(LabError):
    """A setting is unknown, of the wrong type or out of range."""

    exit_code = 2


class UsageError(LabError):
    """The command does not apply to the lab as it stands."""

    exit_code = 2


class ConsentError(LabError):
    """A lab is another user's, would run code of its own, or names a host for a key, and the user has not
    granted it (`asi-lab trust`)."""

    exit_code = 2


class LabLocked(LabError):
    """Another engine holds the lab's lock."""

    exit_code = 3


class DataError(LabError):
    """Text, tokenizer, shards or task files are missing or unusable."""


class StoreError(LabError):
    """The LMDB environment cannot be read or written."""


class LineageError(LabError):
    """Git failed, or the lineage disagrees with the store."""


class DiskError(LabError):
    """A file of the lab cannot be written."""


class TrialError(LabError):
    """The trial or scoring process broke in a way that is not the candidate's fault."""


class KnowledgeError(LabError):
    """An entry of the cognition base cannot be read, or none can be made of a paper."""
