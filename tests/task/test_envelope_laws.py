"""What travels comes back as it was, also to a version that knows less."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stem_iso.task.context_protocol import CallHeader, decode_call, encode_call
from stem_iso.task.envelope import FIELDS, Envelope, Undecodable, decode, encode
from tests.task.making import envelopes, metas, plain

laws = settings(max_examples=200, deadline=None)


@laws
@given(envelopes)
def test_an_envelope_survives_the_journey(envelope: Envelope) -> None:
    assert decode(encode(envelope)) == envelope


@laws
@given(envelopes, st.dictionaries(st.text("abc_", min_size=1, max_size=6).filter(lambda name: name not in FIELDS), plain, max_size=3))
def test_fields_of_a_newer_version_survive_a_round_trip(envelope: Envelope, newer: dict[str, Any]) -> None:
    sent = {**msgspec.msgpack.decode(encode(envelope)), **newer, "v": 2}
    received = decode(msgspec.msgpack.encode(sent))
    assert msgspec.msgpack.decode(encode(received)) == sent
    again = msgspec.structs.replace(received, attempt=received.attempt + 1)
    assert {name: msgspec.msgpack.decode(encode(again))[name] for name in newer} == newer


@pytest.mark.parametrize(
    "field",
    [{"id": "a\0b"}, {"id": "a\x1b[2J"}, {"id": "a\nb"}, {"run": -1}, {"attempt": 2**31}, {"redeliveries": 2**63}, {"priority": 10}],
)
def test_an_id_that_cannot_be_printed_and_a_number_that_no_store_holds_are_undecodable(field: dict[str, Any]) -> None:
    body = msgspec.msgpack.encode({"id": "good", "name": "add", "args": {}, **field})
    with pytest.raises(Undecodable):
        decode(body)


def test_the_message_names_what_is_wrong_with_undecodable_bytes() -> None:
    with pytest.raises(Undecodable, match="attempt"):
        decode(msgspec.msgpack.encode({"id": "t", "name": "n", "args": {}, "attempt": "one"}))
    with pytest.raises(Undecodable):
        decode(b"\x81" * 100_000)


@laws
@given(metas, plain)
def test_a_call_keeps_its_header_and_its_arguments_undecoded(meta: dict[str, Any], args: Any) -> None:
    header = CallHeader(id="t", name="n", queue="q", meta=meta, soft_limit=2.5)
    packed = msgspec.msgpack.encode(args)
    assert decode_call(encode_call(header, msgspec.Raw(packed))) == (header, packed)
