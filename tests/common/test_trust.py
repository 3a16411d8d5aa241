"""What a user has granted, and what waits for it."""

from __future__ import annotations

import os
import stat

import pytest
from msgspec import structs

from asi_lab import consent
from asi_lab.common import trust
from asi_lab.common.trust import Grants, KeyHost
from asi_lab.errors import ConfigError, ConsentError, DiskError
from asi_lab.lab import Lab, config
from asi_lab.llm import ollama, openai

OWN = ("https://api.example.com/v1", "")


@pytest.fixture(autouse=True)
def nothing_granted(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY", "OLLAMA_HOST", "OLLAMA_API_KEY", "SUDO_UID"):
        monkeypatch.delenv(name, raising=False)


def test_grants_are_kept_for_the_user_alone():
    assert trust.granted() == Grants()
    grants = Grants(frozenset({"/lab"}), {"KEY": frozenset({"https://a:443"})}, {"1f": "/lab/tasks"})
    trust.keep(grants)
    assert trust.granted() == grants
    assert stat.S_IMODE(trust.file().stat().st_mode) == 0o600
    assert [path.name for path in trust.file().parent.iterdir()] == ["trust.json"]


@pytest.mark.parametrize("content", [b"", b"{", b'{"labs": 3}', b'{"other": {}}', b"\xff"])
def test_a_file_that_says_something_else_is_refused(content):
    trust.keep(Grants())
    trust.file().write_bytes(content)
    with pytest.raises(ConfigError, match="Move it away"):
        trust.granted()


def test_a_file_that_others_can_write_is_refused():
    trust.keep(Grants())
    trust.file().chmod(0o666)
    with pytest.raises(ConfigError, match="you alone can write"):
        trust.granted()


@pytest.mark.parametrize(
    ("address", "origin"),
    [
        ("https://api.openai.com/v1", "https://api.openai.com:443"),
        ("HTTP://User:pw@Host.Example:8000/x?y#z", "http://host.example:8000"),
        ("http://[::1]:8000/v1", "http://[::1]:8000"),
        ("https://api.openai.com@evil.example/v1", "https://evil.example:443"),
        ("https://evil.example#@api.openai.com", "https://evil.example:443"),
        ("https://api.openai.com.evil.example", "https://api.openai.com.evil.example:443"),
    ],
)
def test_an_origin_is_scheme_host_and_port(address, origin):
    assert trust.origin(address) == origin


@pytest.mark.parametrize(
    "address",
    [
        "",
        "host",
        "ftp://host",
        "https://",
        "https://a\\@b",
        "https://a b",
        "https://a\nb",
        "https://a:x",
        "file:///x",
    ],
)
def test_what_is_no_address_has_no_origin(address):
    with pytest.raises(ConfigError, match="expected the address of a server"):
        trust.origin(address)


@pytest.mark.parametrize(
    "address",
    [
        *("https://evil.example/v1", "http://api.example.com/v1", "https://api.example.com:8443/v1"),
        *("https://api.example.com@evil.example", "http://127.0.0.1:8000/v1"),
    ],
)
def test_a_key_goes_nowhere_else_before_it_is_granted(address, monkeypatch):
    host = KeyHost("SOME_KEY", address, OWN)
    host.check()  # there is no key
    monkeypatch.setenv("SOME_KEY", "sk-1")
    with pytest.raises(ConsentError, match="SOME_KEY is not sent there") as refused:
        host.check()
    assert "asi-lab trust" in str(refused.value)
    assert refused.value.exit_code == 2
    trust.keep(Grants(hosts={"OTHER_KEY": frozenset({trust.origin(address)})}))
    assert not host.is_granted
    trust.keep(Grants(hosts={"SOME_KEY": frozenset({trust.origin(address)})}))
    host.check()
    assert not KeyHost("SOME_KEY", "https://third.example", OWN).is_granted


def test_a_key_goes_to_its_provider_and_where_the_user_says(monkeypatch):
    assert openai.key_host(None).is_granted
    assert ollama.key_host(None).is_granted
    assert ollama.key_host("https://ollama.com").is_granted
    assert ollama.key_host("localhost:11434").is_granted is False
    assert not openai.key_host("http://llm.example/v1").is_granted
    assert not ollama.key_host("llm.example").is_granted
    monkeypatch.setenv("OPENAI_BASE_URL", "http://llm.example/other")
    monkeypatch.setenv("OLLAMA_HOST", "llm.example")
    assert openai.key_host("http://llm.example/v1").is_granted
    assert ollama.key_host("http://llm.example:11434").is_granted
    assert not ollama.key_host("http://llm.example").is_granted  # another port: 80


def lab_with(tmp_path, **agents: str) -> Lab:
    lab = Lab(tmp_path / "lab")
    settings = config.from_preset("micro")
    lab.create(structs.replace(settings, agents=structs.replace(settings.agents, **agents)))
    return lab


def test_what_a_lab_asks_for_is_granted_once(tmp_path, monkeypatch):
    servers = {"openai_base_url": "https://e.example/v1", "ollama_host": "e.example"}
    lab = lab_with(tmp_path, embedder="openai:e", **servers)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1")
    with pytest.raises(ConsentError, match=rf"e\.example:443 .*asi-lab trust {lab.path}"):
        consent.check(lab, lab.settings())
    asked = consent.asked(lab, lab.settings())
    assert [(key.variable, key.origin) for key in asked.keys] == [
        ("OPENAI_API_KEY", "https://e.example:443"),
        ("OLLAMA_API_KEY", "http://e.example:11434"),
    ]
    consent.grant(asked)
    consent.check(lab, lab.settings())
    assert consent.asked(lab, lab.settings()).nothing


def test_a_plain_lab_asks_for_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1")
    lab = lab_with(tmp_path)
    consent.check(lab, lab.settings())
    assert consent.asked(lab, lab.settings()).nothing
    assert not trust.file().exists()


def test_another_users_lab_is_granted_by_its_place(tmp_path, monkeypatch):
    lab = lab_with(tmp_path)
    monkeypatch.setattr(trust, "is_own", lambda path: False)
    with pytest.raises(ConsentError, match=f"belongs to user {os.getuid()}"):
        consent.check(lab, lab.settings())
    asked = consent.asked(lab, lab.settings())
    assert asked.owner == os.getuid()
    consent.grant(asked)
    consent.check(lab, lab.settings())
    assert consent.asked(lab, lab.settings()).nothing


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")
def test_a_link_of_ones_own_to_another_users_lab_is_not_ones_own(tmp_path):
    lab, link = lab_with(tmp_path), tmp_path / "link"
    link.symlink_to(lab.path)
    consent.check(Lab(link), lab.settings())
    os.chown(lab.path, 12345, 12345)
    with pytest.raises(ConsentError, match="belongs to user 12345"):
        consent.check(Lab(link), lab.settings())
    asked = consent.asked(Lab(link), lab.settings())
    assert asked.owner == 12345
    consent.grant(asked)
    consent.check(Lab(link), lab.settings())


def test_a_lab_that_wants_no_sandbox_is_granted_by_its_place(tmp_path):
    lab = lab_with(tmp_path)
    text = lab.config.read_text()
    lab.config.write_text(text.replace('sandbox = "auto"', 'sandbox = "limits"'))
    with pytest.raises(ConsentError, match=r"read and change what you can.* asi-lab trust"):
        consent.check(lab, lab.settings())
    asked = consent.asked(lab, lab.settings())
    assert asked.unconfined
    assert not asked.nothing
    consent.grant(asked)
    consent.check(lab, lab.settings())
    assert consent.asked(lab, lab.settings()).nothing
    moved = Lab(lab.path.rename(tmp_path / "moved"))
    with pytest.raises(ConsentError):
        consent.check(moved, moved.settings())


def test_a_lock_that_is_a_link_is_not_written_over(tmp_path):
    lab = lab_with(tmp_path)
    mine = tmp_path / "mine"
    mine.write_text("mine")
    (lab.path / "engine.lock").symlink_to(mine)
    with pytest.raises(DiskError), lab.locked():
        pass
    assert mine.read_text() == "mine"
