"""Arguments: bound where they are given, plain on the way, and back to what the handler's annotations say."""

import contextlib
import enum
import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any, Generic, Literal, NamedTuple, TypedDict, TypeVar
from uuid import UUID

import attrs
import msgspec
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stem_iso import InvalidOptions, Stem, TaskContext, Worker
from stem_iso.task.arguments import InvalidArguments, Parameters, pack_arguments

if TYPE_CHECKING:
    from nowhere import Missing  # type: ignore[import-not-found]


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1


@dataclass
class Box:
    width: int
    where: Path
    inner: "Box | None" = None


class Point(msgspec.Struct):
    x: float
    y: float = 0.0


class Pair(NamedTuple):
    left: int
    right: str


class Options(TypedDict, total=False):
    deep: bool


class Text(str):
    pass


def journey(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """What the function returns after its arguments went the whole way."""
    parameters = Parameters(function, "shop.task")
    packed = pack_arguments("shop.task", parameters.bind(args, kwargs))
    positional, keywords = parameters.spread(Parameters(function, "shop.task").unpack(packed))
    return function(*positional, **keywords)


VALUES: list[tuple[Any, Any]] = [
    (int, 5),
    (float, 2),
    (str, "a"),
    (bytes, b"\x00\xff"),
    (bool, True),
    (None, None),
    (Any, {"a": [1, None]}),
    (object, [1, "x"]),
    (list[int], [1]),
    (tuple[int, ...], (1, 2)),
    (set[str], {"a"}),
    (frozenset[int], frozenset({1})),
    (dict[str, object], {"a": 1}),
    (dict[int, str], {1: "a"}),
    (Sequence[int], [1]),
    (Mapping[str, int], {"a": 1}),
    (Colour, Colour.BLUE),
    (Level, Level.LOW),
    (datetime, datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)),
    (datetime, datetime(2026, 1, 2, 3, 4)),
    (date, date(2026, 1, 2)),
    (timedelta, timedelta(seconds=1.5)),
    (Decimal, Decimal("1.10")),
    (UUID, UUID(int=7)),
    (Path, Path("/tmp/cat.png")),
    (PurePosixPath, PurePosixPath("a/b")),
    (list[Path], [Path("a")]),
    (Path | None, None),
    (str | Path, "a"),
    (Path | str, Path("a")),
    (str | bytes, b"a"),
    (UUID | str | None, UUID(int=7)),
    (Path | list[int] | dict[str, int], [1]),
    (int | str, "a"),
    (Box, Box(1, Path("a"), Box(2, Path("b")))),
    (Point, Point(1.5)),
    (Pair, Pair(1, "a")),
    (Options, {"deep": True}),
    (Literal["a", 3], 3),
    (Annotated[int, msgspec.Meta(ge=0)], 3),
]


@pytest.mark.parametrize(("annotation", "value"), VALUES, ids=lambda each: str(each)[:40])
def test_a_value_comes_back_as_its_annotation_says(annotation: Any, value: Any) -> None:
    def task(it):  # type: ignore[no-untyped-def]
        return it

    task.__annotations__["it"] = annotation
    back = journey(task, value)
    assert back == value
    assert type(back) is (float if annotation is float else type(value))


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.integers(-5, 5), max_size=4),
    st.dictionaries(st.sampled_from(["c", "extra", "k"]), st.integers(-5, 5)),
)
def test_a_call_that_python_takes_arrives_as_it_was_made(args: list[int], kwargs: dict[str, int]) -> None:
    def task(a: int, b: int = 7, /, c: int = 8, *rest: int, k: int = 9, **more: int) -> Any:
        return a, b, c, rest, k, more

    try:
        expected = task(*args, **kwargs)
    except TypeError:
        with pytest.raises(TypeError, match=r"shop\.task"):
            journey(task, *args, **kwargs)
    else:
        assert journey(task, *args, **kwargs) == expected


def _none() -> None: ...
def _two(a: int, b: int) -> None: ...
def _default(a: int, b: int = 7, c: int = 8) -> None: ...
def _by_name(a: int, *, k: int) -> None: ...
def _by_name_at_will(a: int = 6, *, k: int = 9) -> None: ...
def _names_alone(*, k: int, c: int = 8) -> None: ...
def _by_position(a: int, /, b: int = 7) -> None: ...
def _all(a: int, *rest: int, k: int = 9, **more: int) -> None: ...


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from([_none, _two, _default, _by_name, _by_name_at_will, _names_alone, _by_position, _all]),
    st.lists(st.integers(), max_size=4).map(tuple),
    st.dictionaries(st.sampled_from(["a", "b", "c", "k", "other"]), st.integers(), max_size=3),
)
def test_a_call_is_bound_as_inspect_binds_it_and_refused_in_its_words(
    task: Callable[..., Any], args: tuple[int, ...], kwargs: dict[str, int]
) -> None:
    parameters = Parameters(task, "shop.task")
    try:
        expected = inspect.signature(task).bind(*args, **kwargs).arguments
    except TypeError as error:
        with pytest.raises(TypeError, match=f"^{re.escape(f'shop.task: {error}')}$"):
            parameters.bind(args, kwargs)
    else:
        assert list(parameters.bind(args, kwargs).items()) == list(expected.items())


@pytest.mark.parametrize("value", [2**64, -(2**63) - 1, True, 1.0])
def test_an_integer_that_cannot_be_sent_is_refused_where_it_is_enqueued(value: Any) -> None:
    def task(a: int) -> None: ...

    parameters = Parameters(task, "n")
    for fits in (2**64 - 1, -(2**63), 0):
        parameters.check_values({"a": fits})
        assert journey(lambda a: a, fits) == fits
    with pytest.raises(TypeError, match="argument 'a'"):
        parameters.check_values({"a": value})


def test_lists_and_maps_of_further_arguments_travel_under_their_own_names() -> None:
    def task(a: int, *paths: Path, **sizes: Decimal) -> Any:
        return paths, sizes

    bound = Parameters(task, "n").bind((1, Path("a"), Path("b")), {"x": Decimal(2)})
    assert msgspec.msgpack.decode(pack_arguments("n", bound)) == {"a": 1, "paths": ["a", "b"], "sizes": {"x": "2"}}
    assert journey(task, 1, Path("a"), x=Decimal(2)) == ((Path("a"),), {"x": Decimal(2)})


def test_the_context_is_no_parameter() -> None:
    def first(context: TaskContext, a: int) -> None: ...
    def quoted(context: "TaskContext", a: int) -> None: ...
    def other(context: int, a: int) -> None: ...

    assert [Parameters(each, "n").takes_context for each in (first, quoted, other)] == [True, True, False]
    with pytest.raises(TypeError, match="missing a required argument: 'a'"):
        Parameters(first, "n").bind((), {})


@pytest.mark.parametrize("name", ["context", "ctx", "self"])
def test_a_first_parameter_that_looks_like_the_context_is_named(name: str) -> None:
    names: dict[str, Any] = {}
    exec(f"def bare({name}, a): ...\ndef other({name}: int, a): ...", names)
    bare, other = Parameters(names["bare"], "n"), Parameters(names["other"], "n")
    hint = f"; annotate '{name}' as TaskContext if it is meant to be the context$"
    for call in (lambda: bare.bind((1,), {}), lambda: bare.bind((), {"a": 1}), lambda: bare.fit({"a": 1})):
        with pytest.raises(TypeError, match=f"n: missing a required argument: '.*'{hint}"):
            call()
    with pytest.raises(TypeError, match=r"missing a required argument: 'a'$"):
        other.bind((1,), {})


def test_a_context_that_is_not_the_first_parameter_is_told_where_it_belongs() -> None:
    def late(a: int, context: TaskContext) -> None: ...

    with pytest.raises(InvalidOptions, match="n: only a first parameter can be the context: move 'context' to the front"):
        Parameters(late, "n").check()


def test_defaults_do_not_travel() -> None:
    def task(a: int, b: int = 1) -> None: ...

    assert Parameters(task, "n").bind((5,), {}) == {"a": 5}


def test_none_fits_where_it_is_the_default() -> None:
    def task(width=None):  # type: ignore[no-untyped-def]
        return width

    task.__annotations__["width"] = int

    assert (journey(task, None), journey(task, 3)) == (None, 3)
    with pytest.raises(InvalidArguments, match="width"):
        journey(task, "wide")


def test_annotations_that_are_missing_or_resolve_nowhere_mean_plain_data() -> None:
    def task(a, b: "Missing", c):  # type: ignore[no-untyped-def]
        return a, b, c

    task.__annotations__["c"] = "1 / 0"

    assert journey(task, [1], {"x": 1}, "c") == ([1], {"x": 1}, "c")


def test_a_time_with_a_zone_arrives_as_the_same_instant_in_utc() -> None:
    def task(at: datetime) -> datetime:
        return at

    given = datetime(2026, 1, 2, 1, tzinfo=timezone(timedelta(hours=9)))
    arrived = journey(task, given)
    assert (arrived, arrived.utcoffset(), arrived.date()) == (given, timedelta(0), date(2026, 1, 1))
    assert journey(task, datetime(2026, 1, 2)) == datetime(2026, 1, 2)


def test_a_string_annotation_finds_what_stands_around_the_function() -> None:
    @dataclass
    class Local:
        n: int

    def task(it: "Local") -> Any:
        return it, Local

    assert journey(task, Local(3))[0] == Local(3)


class Opaque:
    pass


@pytest.mark.parametrize(
    "annotation",
    [Opaque, list[Opaque], Opaque | None, Callable[[], None], Iterator[int], complex, dict[str, list[Opaque]], Point | Box | Path],
)
def test_an_annotation_that_cannot_be_converted_is_refused_with_the_parameters_name(annotation: Any) -> None:
    def task(picture):  # type: ignore[no-untyped-def]
        ...

    task.__annotations__["picture"] = annotation
    with pytest.raises(InvalidOptions, match=r"shop\.task: parameter 'picture'"):
        Parameters(task, "shop.task").check()
    task.__annotations__ = {"return": annotation}
    with pytest.raises(InvalidOptions, match=r"shop\.task: the result"):
        Parameters(task, "shop.task").check()


@pytest.mark.parametrize(
    "value", [Opaque(), 2**70, "\ud800", lambda: 0, {"deep": [Opaque()]}, (each for each in "ab")], ids=lambda value: type(value).__name__
)
def test_a_value_that_is_no_data_is_a_type_error_with_its_name(value: Any) -> None:
    with pytest.raises(TypeError, match=r"shop\.task: argument 'picture' cannot be sent"):
        pack_arguments("shop.task", {"width": 1, "picture": value})


def test_subclasses_of_plain_types_travel_as_what_they_are() -> None:
    assert msgspec.msgpack.decode(pack_arguments("n", {"a": Text("x"), "b": Level.LOW, "c": Path("p")})) == {"a": "x", "b": 1, "c": "p"}


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        ({}, "missing a required argument: 'a'"),
        ({"a": 1, "z": 2}, "no parameter 'z'"),
        ({"a": "one"}, "argument 'a' does not fit"),
        ({"a": 1, "b": -1}, "argument 'b' does not fit"),
        ([1], "no map"),
        ({1: 2}, "no map"),
    ],
)
def test_what_arrives_and_does_not_fit_is_refused_with_the_name(sent: Any, message: str) -> None:
    def task(a: int, b: Annotated[int, msgspec.Meta(ge=0)] = 0) -> None: ...

    with pytest.raises(InvalidArguments, match=message):
        Parameters(task, "n").unpack(msgspec.msgpack.encode(sent))


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=40))
def test_garbage_for_arguments_is_refused_and_raises_nothing_else(data: bytes) -> None:
    def task(a: int = 0, **more: Box) -> None: ...

    with contextlib.suppress(InvalidArguments):
        assert isinstance(Parameters(task, "n").unpack(data), dict)


# -- refused where it is enqueued --------------------------------------------------------------------------------------------------------


class Stamp(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(strict=True)
    x: int
    at: datetime


P = TypeVar("P")


class Page(pydantic.BaseModel, Generic[P]):
    items: list[P]
    next_page: int | None = pydantic.Field(None, alias="nextPage")


@attrs.define
class Size:
    width: int


MODELS = [
    (Stamp, Stamp(x=1, at=datetime(2026, 1, 31, tzinfo=UTC))),
    (list[Stamp], [Stamp(x=1, at=datetime(2026, 1, 31, tzinfo=UTC))]),
    (Stamp | None, None),
    (Page[Stamp], Page[Stamp](items=[Stamp(x=2, at=datetime(2026, 1, 31, tzinfo=UTC))], nextPage=3)),
    (Size, Size(3)),
    (dict[str, Size], {"a": Size(3)}),
]


@pytest.mark.parametrize(("annotation", "value"), MODELS)
def test_models_travel_both_ways(annotation: Any, value: Any) -> None:
    app = Stem("memory://")

    def same(value: Any) -> Any:
        return value

    same.__annotations__ = {"value": annotation, "return": annotation}
    task = app.task(name="same", isolate=True)(same)
    with Worker(app, concurrency=1, spares=0):
        assert task.enqueue(value).result(timeout=60) == value


@pytest.mark.parametrize(
    ("annotation", "value", "message"),
    [
        (str, 3, r"make: argument 'value' must be str, not 3: Expected `str`, got `int`"),
        (int, "3", r"must be int, not '3'"),
        (int, True, r"must be int, not True"),
        (int | None, 1.5, r"must be int \| None, not 1\.5"),
        (list[int], [1, "x"], r"must be list\[int\], not \[1, 'x'\].*\$\[1\]"),
        (Colour, "green", "Invalid enum value"),
        (Box, {"width": 1}, "missing required field"),
        (Size, {"width": "broad"}, r"must be tests\.task\.test_arguments\.Size"),
        (Stamp, {"x": "1", "at": "2026-01-31T00:00:00Z"}, "x: Input should be a valid integer"),
        (Stamp, Stamp.model_construct(x="no", at=None), "x: Input should be a valid integer; at: Input should be a valid datetime"),
        (str, object(), "cannot be sent"),
    ],
)
def test_a_value_that_the_worker_would_refuse_is_a_type_error_where_it_is_enqueued(annotation: Any, value: Any, message: str) -> None:
    app = Stem("memory://")

    def make(value: Any) -> Any:
        return value

    make.__annotations__ = {"value": annotation}
    task = app.task(name="make", isolate=True)(make)
    for enqueue in (lambda: task.enqueue(value), lambda: task.s(value), lambda: app.enqueue("make", {"value": value})):
        with pytest.raises(TypeError, match=message):
            enqueue()
    assert task(value) is value, "called here and now it is a call like any other"


def test_a_step_that_follows_is_checked_but_for_its_first_argument() -> None:
    app = Stem("memory://")

    @app.task(name="pack", isolate=True)
    def pack(parts: list[str], level: int) -> None: ...

    assert pack.after(level=3)
    with pytest.raises(TypeError, match="argument 'level' must be int"):
        pack.after(level="high")  # type: ignore[arg-type]


@given(
    st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(), lambda one: st.lists(one, max_size=3))
)
def test_what_is_taken_arrives(value: Any) -> None:
    """For each annotation: `check_values` lets a value through exactly if the worker takes its bytes."""
    for annotation in (int, str, float, bool, bytes, list[int], int | str | None, Any):

        def make(value: Any) -> None: ...

        make.__annotations__ = {"value": annotation}
        parameters = Parameters(make, "make")
        try:
            parameters.check_values({"value": value})
            packed = pack_arguments("make", {"value": value})
        except TypeError:
            continue
        parameters.unpack(packed)
