"""What a value would lose on its way is refused where it is enqueued, or where it is returned; what loses nothing goes on as ever."""

from __future__ import annotations

import math
import typing
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Generic, Literal, TypeVar

import attrs
import msgspec
import pydantic
import pytest
from pydantic import BaseModel, Field, Secret, SecretBytes, SecretStr

from stem_iso import Stem, TaskFailed, Worker
from stem_iso.task.arguments import Parameters, pack_arguments

HIDDEN = "4111-1111"
T = TypeVar("T")


class Card(BaseModel):
    number: SecretStr


class Wallet(BaseModel):
    cards: list[Card] = []
    by_name: dict[str, Card] = {}
    first: Card | None = Field(None, serialization_alias="1st", validation_alias="1st")
    more: Any = None


class Expiry(BaseModel):
    day: Secret[date]
    key: SecretBytes = SecretBytes(b"")


class Sent(BaseModel):
    """Its own serializers send the real values."""

    number: SecretStr
    token: str | None = Field(default=None, exclude=True)
    whole: str = ""

    @pydantic.field_serializer("number", when_used="json")
    def _real(self, value: SecretStr) -> str:
        return value.get_secret_value()

    @pydantic.field_serializer("whole")
    def _token_too(self, value: str) -> str:
        return self.token or ""

    @pydantic.model_validator(mode="after")
    def _read(self) -> Sent:
        self.token = self.whole or self.token
        return self


class Audit(BaseModel):
    who: str
    token: str | None = Field(default=None, exclude=True)


class Needed(BaseModel):
    token: str = Field(exclude=True)


class Client:
    """Without an `__eq__`."""


class Loaded(BaseModel):
    """It sets its excluded field by itself, wherever it is made."""

    name: str
    loaded: float | None = Field(None, exclude=True)

    @pydantic.model_validator(mode="after")
    def _load(self) -> Loaded:
        self.loaded = math.pi if self.loaded is None else self.loaded + 1
        return self


class Alike(Card):
    """As the class above, with methods of its own."""


class Deep(msgspec.Struct):
    next: Deep | None = None


class Unreadable(BaseModel):
    card: Card | None = None

    def __getattribute__(self, name: str) -> Any:
        if name == "card":
            raise KeyError(name)
        return super().__getattribute__(name)


class Named(typing.TypedDict):
    subject: Box


class Holder(BaseModel):
    model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)
    client: Client = Field(default_factory=Client, exclude=True)
    ratio: float = Field(default=math.nan, exclude=True)
    rate: float = 0.0


class Visa(Card):
    issuer: str = ""


class Order(BaseModel):
    card: Card = Card(number=SecretStr(""))
    any_card: pydantic.SerializeAsAny[Card] | None = None


class Page(BaseModel, Generic[T]):
    items: list[T]


@dataclass
class Box:
    width: int
    lid: Box | None = None


@dataclass
class Crate(Box):
    wood: str = "oak"


@dataclass(frozen=True)
class Point:
    x: int
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pixel(Point):
    colour: int = 0


@dataclass
class Shelf:
    boxes: list[Box] = field(default_factory=list)
    card: Card | None = None


@attrs.define
class Size:
    width: int


@attrs.define
class Area(Size):
    height: int = 0


class Row(msgspec.Struct):
    number: int


class LongRow(Row):
    more: int = 0


class Square(msgspec.Struct, tag=True):
    side: int


class Circle(msgspec.Struct, tag=True):
    radius: int


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"


class Pet(BaseModel):
    animal: Cat | Dog


def journey(annotation: Any, value: Any, name: str = "value") -> Any:
    """The value as the worker has it, if it is let through."""

    def task(value: Any) -> None: ...

    task.__annotations__ = {} if annotation is None else {"value": annotation}
    parameters = Parameters(task, "pay")
    parameters.check_values({"value": value})
    return parameters.unpack(pack_arguments("pay", {"value": value}))["value"]


def secret() -> Card:
    return Card(number=SecretStr(HIDDEN))


@pytest.mark.parametrize(
    ("annotation", "value", "place"),
    [
        (Card, secret(), "Card.number: a SecretStr"),
        (Card | None, secret(), "Card.number: a SecretStr"),
        (None, secret(), "Card.number: a SecretStr"),
        (Any, {"of": [secret()]}, "Card.number: a SecretStr"),
        (Wallet, Wallet(cards=[Card(number=SecretStr("")), secret()]), "Wallet.cards[1].number: a SecretStr"),
        (Wallet, Wallet(by_name={HIDDEN: secret()}), "Wallet.by_name[...].number: a SecretStr"),
        (Wallet, Wallet.model_validate({"1st": secret()}), "Wallet.first.number: a SecretStr"),
        (Wallet, Wallet(more={HIDDEN: SecretStr(HIDDEN)}), "Wallet.more[...]: a SecretStr"),
        (Expiry, Expiry(day=Secret[date](date(2026, 1, 31))), "Expiry.day: a Secret"),
        (Expiry, Expiry(day=Secret[date](date(2026, 1, 31)), key=SecretBytes(HIDDEN.encode())), "Expiry.day: a Secret"),
        (Shelf, Shelf(card=secret()), "Card.number: a SecretStr"),
    ],
)
def test_a_secret_that_would_arrive_as_stars_is_refused_and_not_shown(annotation: Any, value: Any, place: str) -> None:
    with pytest.raises(TypeError) as refused:
        journey(annotation, value)
    message = str(refused.value)
    path = place.partition(":")[0]
    assert message.startswith(f"pay: argument 'value' cannot be sent: {place} would arrive as '**********'; send {path}.get_secret_value()")
    assert "redact" in message and HIDDEN not in message and "2026" not in message


@pytest.mark.parametrize(
    ("annotation", "value", "message"),
    [
        (Audit, Audit(who="ann", token=HIDDEN), "value.token: its model excludes it from what is sent"),
        (list[Audit], [Audit(who="ann"), Audit(who="ann", token=HIDDEN)], "value[1].token: its model excludes it from what is sent"),
        (Needed, Needed(token=HIDDEN), "value.token: its model excludes it from what is sent"),
        (Card, Visa(number=SecretStr(""), issuer=HIDDEN), "value: a Visa would arrive as a Card"),
        (Order, Order(card=Visa(number=SecretStr(""))), "value.card: a Visa would arrive as a Card"),
        (Order, Order(any_card=Visa(number=SecretStr(""))), "value.any_card: a Visa would arrive as a Card"),
        (Box, Crate(1), "value: a Crate would arrive as a Box"),
        (Box, Box(1, Crate(2)), "value.lid: a Crate would arrive as a Box"),
        (dict[str, list[Box]], {HIDDEN: [Box(1), Crate(2)]}, "value[...][1]: a Crate would arrive as a Box"),
        (set[Point], {Pixel(1), Point(2)}, "value[...]: a Pixel would arrive as a Point"),
        (Shelf, Shelf(boxes=[Crate(1)]), "value.boxes[0]: a Crate would arrive as a Box"),
        (Size, Area(1), "value: a Area would arrive as a Size"),
        (Row, LongRow(1), "value: a LongRow would arrive as a Row"),
        (tuple[Row, ...], (Row(1), LongRow(2)), "value[1]: a LongRow would arrive as a Row"),
    ],
)
def test_what_reading_gives_less_than_was_given_is_refused_with_the_field(annotation: Any, value: Any, message: str) -> None:
    with pytest.raises(TypeError) as refused:
        journey(annotation, value)
    assert str(refused.value).startswith(f"pay: argument 'value' cannot be sent: {message}")
    assert HIDDEN not in str(refused.value)


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (Sent, Sent(number=SecretStr(HIDDEN), token="t", whole="t")),
        (Card, Card(number=SecretStr(""))),
        (Card, Card(number=SecretStr("**********"))),
        (Audit, Audit(who="ann")),
        (Audit, Audit(who="ann", token=None)),
        (Audit, Audit(who="**********")),
        (Visa, Visa(number=SecretStr(""), issuer="x")),
        (Page, Page[int](items=[1])),
        (Page[int], Page[int](items=[1])),
        (Pet, Pet(animal=Dog())),
        (Box, Box(1, Box(2))),
        (Crate, Crate(1, Box(2))),
        (set[Point], {Point(1, ("a",)), Point(2)}),
        (Square | Circle, Circle(1)),
        (list[Area], [Area(1, 2)]),
        (str, "**********"),
        (None, {"rule": "**********", "of": [1]}),
    ],
)
def test_what_loses_nothing_arrives(annotation: Any, value: Any) -> None:
    arrived = journey(annotation, value)
    assert arrived == value or arrived.model_dump() == value.model_dump()
    if isinstance(value, Sent):
        assert (arrived.number.get_secret_value(), arrived.token) == (HIDDEN, "t")


def nested(levels: int) -> Deep:
    value = Deep()
    for _ in range(levels):
        value = Deep(value)
    return value


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (Loaded, Loaded(name="a")),
        (Card, Alike(number=SecretStr(""))),
        (Deep, nested(600)),
        (Unreadable, Unreadable()),
        (Named, {"origin": Crate(1), "subject": Box(2)}),
    ],
)
def test_what_no_user_has_given_away_is_let_through(annotation: Any, value: Any) -> None:
    journey(annotation, value)


def test_what_cannot_be_compared_is_let_through() -> None:
    assert journey(Holder, Holder(client=Client(), ratio=math.nan, rate=1.5)).rate == 1.5


def card() -> Card:
    return secret()


def cards() -> Any:
    return [secret()]


def audit() -> Audit:
    return Audit(who="ann", token=HIDDEN)


def box() -> Box:
    return Crate(1)


def sent() -> Sent:
    return Sent(number=SecretStr(HIDDEN), token="t", whole="t")


def boxes() -> list[Box]:
    return [Box(1, Box(2))]


def another() -> Box:
    return {"width": "broad"}  # type: ignore[return-value]  # results are not checked against the annotation


def test_a_result_with_a_hidden_secret_fails_the_task_and_any_other_is_as_its_model_sends_it() -> None:
    app = Stem("memory://")
    refused: dict[Callable[[], Any], str] = {
        card: "Card.number: a SecretStr would arrive as '**********'",
        cards: "Card.number: a SecretStr would arrive as '**********'",
    }
    with Worker(app, concurrency=2, spares=1):
        for isolate in (False, True):
            for function, message in refused.items():
                with pytest.raises(TaskFailed, match="that cannot be stored") as failure:
                    app.task(name=f"{function.__name__}-{isolate}", isolate=isolate, max_retries=2)(function).enqueue().result(timeout=60)
                shown = failure.value.status
                assert shown.error is not None and message in shown.error.message and shown.error.type == "TypeError"
                assert shown.reason == "not-retryable" and HIDDEN not in repr(shown)
            for kept, expected in ((sent, sent()), (boxes, boxes()), (another, another()), (audit, Audit(who="ann")), (box, Box(1))):
                given: Any = app.task(name=f"{kept.__name__}-{isolate}", isolate=isolate)(kept).enqueue().result(timeout=60)
                assert given == expected
