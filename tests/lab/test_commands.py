"""Orders as files."""

from asi_lab.lab import commands


def test_orders_come_in_the_order_they_were_given(tmp_path):
    sent = [commands.send(tmp_path / "commands", action) for action in ("pause", "resume", "stop")]
    found = commands.pending(tmp_path / "commands")
    assert [command for _, command in found] == sent
    assert not list((tmp_path / "commands").glob(".*.partial"))


def test_what_is_no_order_is_told_apart(tmp_path):
    (tmp_path / "1.json").write_text('{"id": "a", "action": "explode", "time": 0}')
    (tmp_path / "2.json").write_bytes(b"\xff{")
    (tmp_path / "3.json.partial").write_text("half")
    assert [command for _, command in commands.pending(tmp_path)] == [None, None]
    assert commands.pending(tmp_path / "nowhere") == []
