"""What an isolate says and sees at its edges: while it boots, just before the end of a call, beside a thread; and its environment."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from socket import MSG_PEEK

import pytest

from stem_iso.isolate import wire
from stem_iso.isolate.engine.isolate import Isolate
from tests.isolate.calling import Calls, eventually

pytestmark = pytest.mark.repeat
Make = Callable[..., Calls]


def test_what_is_logged_at_boot_arrives_and_costs_nothing(engines: Make, caplog: pytest.LogCaptureFixture) -> None:
    calls = engines(boot=b"logs", size=1, spares=0)
    assert calls.value("echo", "served") == "served"
    assert [record.getMessage() for record in caplog.records if record.name == "at boot"] == ["a model was loaded"]
    assert calls.reasons() == []


def replied(isolate: Isolate) -> bool:
    try:
        frames = wire.Unframer().feed(isolate.pipe.link.recv(1000, MSG_PEEK))
    except BlockingIOError:
        return False
    return [frame.kind for frame in frames] == [wire.BEAT, wire.REPLY]


def test_what_was_printed_between_two_words_of_one_turn_is_not_lost(engines: Make, tmp_path: Path) -> None:
    calls = engines(size=1, spares=0)
    calls.value("echo", "booted")
    call = calls.start("beat_and_print", str(tmp_path / "go"), "printed")
    (isolate,) = calls.engine._isolates.by_number.values()
    with calls.engine._lock:  # a turn that begins with the beat finds the reply as well
        (tmp_path / "go").touch()
        eventually(lambda: replied(isolate), "it did not reply")
    call.outcome()
    assert [text for _, _, text in call.lines] == ["printed"]


def test_a_soft_limit_is_raised_in_the_handler_though_a_thread_of_it_sends(calls: Calls) -> None:
    for _ in range(3):
        assert calls.value("send_in_a_thread_until_raised", soft=0.2, hard=5.0, raise_soft=True) == "raised here, there []"


def test_the_environment_is_whole_but_for_the_secrets(engines: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_SECRET", "not to be seen")
    monkeypatch.setenv("A_SETTING", "to be seen")
    shown, used = engines(secrets=("A_SECRET",), size=1, spares=0).value("environment")
    assert "A_SETTING=to be seen" in shown, "the process title has overwritten it"
    assert "not to be seen" not in shown
    assert used["A_SETTING"] == "to be seen"
    assert used.keys().isdisjoint({"A_SECRET", "SPT_NOENV"})
