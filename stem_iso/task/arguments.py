"""The parameters of a task, and how a call's arguments travel.

    make.enqueue("cat.png", width=64)
        └ bind ──> {"path": "cat.png", "width": 64} ── pack ──> msgpack ── unpack ──> the same, by annotation ── spread ──> make(...)

Rules
 1. A wrong call is a TypeError at enqueue: arguments are bound to the function's parameters there, and a value that the worker would
    refuse is refused there too, as it would be in the worker: by the annotation.
 2. `*args` travel as a list and `**kwargs` as a map, under their own names.
 3. Defaults do not travel: a worker with newer code uses its own.
 4. What a task redacts is shown to nobody: not in an error of its call, and not in what is shown of a task (`redacted`). A name that is no
    parameter of its own is a key of `**kwargs`.
 5. Annotations are resolved late (first enqueue, worker's start), each for itself. Missing or unresolvable: plain data;
    a worker's start names the latter (`unresolved`).
"""

from __future__ import annotations

import inspect
import reprlib
import types
import typing
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import msgspec

from stem_iso.errors import InvalidOptions
from stem_iso.task.codec import Converter, first_refused, pack, unpack
from stem_iso.validation import did_you_mean

EMPTY = inspect.Parameter.empty
VAR_POSITIONAL, VAR_KEYWORD = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD
Hints = Mapping[str, Any]

_repr = reprlib.Repr()  # survives a __repr__ that raises
_repr.maxstring = _repr.maxother = 100
_raw_decoder = msgspec.msgpack.Decoder(dict[str, msgspec.Raw])


REDACTED = "***"
CONTEXT_NAMES = ("context", "ctx", "self")  # "self" as of Celery's bound tasks


class InvalidArguments(TypeError):
    """What arrived does not fit the handler's signature."""


class Unresolved(NamedTuple):
    """An annotation that cannot be evaluated. `missing` is the name that it does not find, None where `error` is another one."""

    parameter: str
    annotation: str
    missing: str | None
    error: str


@dataclass(frozen=True, slots=True)
class PlainShape:
    """Parameters without `*`, `**` and `/`, as nearly all tasks have them. A call that fits them is bound in a quarter of the time that
    `inspect` takes; one that may not fit is left to it, and to its messages."""

    names: tuple[str, ...]
    by_position: int  # how many of them may be given by position
    least: int  # how many must be, where none is given by keyword; more than there are, where one must be given so
    needed: frozenset[str]

    @classmethod
    def of(cls, shape: Sequence[inspect.Parameter]) -> PlainShape | None:
        if any(each.kind not in (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY) for each in shape):
            return None
        needed = frozenset(each.name for each in shape if each.default is EMPTY)
        by_position = [each for each in shape if each.kind is not inspect.Parameter.KEYWORD_ONLY]
        least = sum(each.name in needed for each in by_position)
        return cls(tuple(each.name for each in shape), len(by_position), least if least == len(needed) else len(shape) + 1, needed)

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any] | None:
        """The arguments by parameter name, in the order of the parameters; None for a call that is not seen to fit."""
        given = len(args)
        if given > self.by_position:
            return None
        bound = dict(zip(self.names, args))  # noqa: B905 - fewer may be given; to say so would cost a tenth of it
        if not kwargs:
            return bound if given >= self.least else None
        for name in self.names[given:]:
            if name in kwargs:
                bound[name] = kwargs[name]
            elif name in self.needed:
                return None
        return bound if len(bound) == given + len(kwargs) else None  # else there is one that is unknown, or given twice


class Parameters:
    """The parameters of a function, its context left out (`shape`). `hints` are its annotations, where they were resolved elsewhere;
    `redact` the names of arguments that are shown to nobody."""

    def __init__(self, function: Callable[..., Any], name: str, hints: Hints | None = None, redact: Sequence[str] = ()) -> None:
        self.name, self._function, self._given_hints, self.redact = name, function, hints, redact
        signature = inspect.signature(function)
        parameters = list(signature.parameters.values())
        self.takes_context = bool(parameters) and _is_context(parameters[0], function, hints)
        self.shape = parameters[1:] if self.takes_context else parameters
        self.signature = inspect.Signature(self.shape, return_annotation=signature.return_annotation)
        self._plain_shape = PlainShape.of(self.shape)

    # -- where the code is declared or enqueued ------------------------------------------------------------------------------------

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments by parameter name. Raises TypeError as the call itself would."""
        if self._plain_shape is not None and (bound := self._plain_shape.bind(args, kwargs)) is not None:
            return bound
        try:
            return self.signature.bind(*args, **kwargs).arguments
        except TypeError as error:
            raise TypeError(f"{self.name}: {error}{self._context_hint}") from None

    @property
    def _context_hint(self) -> str:
        """The end of a message about arguments that do not fit: what looks like the context and is none."""
        first = self.shape[0] if self.shape else None
        if first is None or self.takes_context or first.name not in CONTEXT_NAMES or first.annotation is not EMPTY:
            return ""
        return f"; annotate {first.name!r} as TaskContext if it is meant to be the context"

    def bind_after(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """As `bind`, but without the first one, which is the result before this call. Raises TypeError."""
        if not self.shape or self.shape[0].kind in (inspect.Parameter.KEYWORD_ONLY, VAR_KEYWORD):
            raise TypeError(f"{self.name}: it has no first parameter for the result before it; use .s(...)")
        first = self.shape[0]
        if first.kind is VAR_POSITIONAL:
            return self.bind(args, kwargs)
        if first.name in kwargs:
            raise TypeError(f"{self.name}: {first.name!r} is the result before it; leave it out, or use .s(...)")
        bound = self.bind((None, *args), kwargs)
        del bound[first.name]
        return bound

    def check_values(self, values: Mapping[str, Any]) -> None:
        """Raises TypeError, with the parameter and the value, for an argument that the worker would refuse, or that cannot be sent."""
        for name, converter in self.converters.items():
            if name not in values or converter.surely_arrives(values[name]):
                continue
            value = values[name]
            try:
                converter.check(value, name)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError) as error:
                wanted = inspect.formatannotation(converter.annotation)
                shown = REDACTED if self._is_secret(name) else f"{_repr.repr(value)}: {error}"
                raise TypeError(f"{self.name}: argument {name!r} must be {wanted}, not {shown}") from None
            except TypeError as error:
                raise TypeError(f"{self.name}: argument {name!r} cannot be sent: {error}") from None

    def refuse_unknown_redactions(self) -> None:
        """Raises InvalidOptions for a name in `redact` that no argument can have."""
        known = [parameter.name for parameter in self.shape]
        for name in self.redact:
            if name not in known and self.extra is None:
                raise InvalidOptions(f"{self.name}: redact: there is no parameter {name!r}{did_you_mean(name, known)}")

    @property
    def extra(self) -> str | None:
        """The name of `**kwargs`, if it takes any."""
        return next((parameter.name for parameter in self.shape if parameter.kind is VAR_KEYWORD), None)

    def redacted(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments as people are shown them. Of a task that redacts, neither is shown what is no parameter: it may be one that was
        called otherwise in the producer's code, or misspelt."""
        known = {parameter.name for parameter in self.shape}
        strange = values.keys() - known if self.redact else ()
        shown = redacted(values, (*self.redact, *strange))
        if self.extra is not None and isinstance(extra := shown.get(self.extra), Mapping):
            shown[self.extra] = redacted(extra, self.redact)
        return shown

    def _is_secret(self, name: str) -> bool:
        """Whether nothing of this argument may be shown."""
        if name in self.redact:
            return True
        return name == self.extra and any(each not in self.signature.parameters for each in self.redact)

    def fit(self, names: Mapping[str, Any]) -> None:
        """Raises TypeError if arguments of these names do not fit."""
        known = {parameter.name: parameter for parameter in self.shape}
        for name in names:
            if name not in known:
                raise InvalidArguments(f"{self.name}: there is no parameter {name!r}")
        for parameter in self.shape:
            needed = parameter.default is EMPTY and parameter.kind not in (VAR_POSITIONAL, VAR_KEYWORD)
            if needed and parameter.name not in names:
                raise InvalidArguments(f"{self.name}: missing a required argument: {parameter.name!r}{self._context_hint}")

    @cached_property
    def hints(self) -> Hints:
        """Annotations by parameter name, and the result's under "return"; those that resolve."""
        if self._given_hints is not None:
            return self._given_hints
        return resolved_hints(self._function)

    @cached_property
    def converters(self) -> Mapping[str, Converter]:
        """Raises InvalidOptions for an annotation that cannot be converted, with the parameter's name."""
        found = {}
        for parameter in self.shape:
            if _is_context(parameter, self._function, self.hints):
                raise InvalidOptions(f"{self.name}: only a first parameter can be the context: move {parameter.name!r} to the front")
            if parameter.name in self.hints:
                annotation = _as_it_travels(parameter, self.hints[parameter.name])
                # `width: int = None` says that None is welcome, whatever checkers think of it.
                optional = parameter.default is None
                found[parameter.name] = _converter(self.name, f"parameter {parameter.name!r}", annotation, optional)
        return found

    @property
    def unresolved(self) -> list[Unresolved]:
        """Of the parameters, and of the result ("return"): what stays plain data, though it is annotated."""
        names = {parameter.name for parameter in self.shape} | {"return"}
        found = _hints(self._function) if self._given_hints is None else ()
        return [hint for name, hint in found if name in names and isinstance(hint, Unresolved)]

    @cached_property
    def result(self) -> Converter:
        return _converter(self.name, "the result", self.hints.get("return", Any))

    def check(self) -> None:
        """Resolve all annotations now. Raises InvalidOptions."""
        _ = self.converters, self.result

    # -- where the call runs -------------------------------------------------------------------------------------------------------

    def unpack(self, data: bytes, before: bytes | None = None) -> dict[str, Any]:
        """The arguments by parameter name, converted; `before` is the first one, where it comes by itself. Raises InvalidArguments."""
        try:
            raw = _raw_decoder.decode(data)
            if before is not None:
                self._put_first(raw, msgspec.Raw(before))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidArguments(f"{self.name}: the arguments are no map of parameter names ({error})") from None
        self.fit(raw)
        return {name: self._convert(name, value) for name, value in raw.items()}

    def _put_first(self, raw: dict[str, msgspec.Raw], before: msgspec.Raw) -> None:
        if not self.shape:
            raise InvalidArguments(f"{self.name}: it takes no argument for the result before it")
        first = self.shape[0]
        if first.kind is VAR_POSITIONAL:
            rest = msgspec.msgpack.decode(raw[first.name], type=list[msgspec.Raw]) if first.name in raw else []
            raw[first.name] = msgspec.Raw(msgspec.msgpack.encode([before, *rest]))
        else:
            raw[first.name] = before

    def _convert(self, name: str, value: msgspec.Raw) -> Any:
        converter = self.converters.get(name)
        try:
            return unpack(value) if converter is None else converter.unpack(value)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError) as error:
            why = "it is redacted" if self._is_secret(name) else error
            raise InvalidArguments(f"{self.name}: argument {name!r} does not fit: {why}") from None

    def spread(self, values: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """The positional and keyword arguments of a call with these values."""
        positional: list[Any] = []
        keywords: dict[str, Any] = {}
        for parameter in self.shape:
            if parameter.kind is VAR_POSITIONAL:
                positional.extend(values.get(parameter.name, ()))
            elif parameter.kind is VAR_KEYWORD:
                keywords.update(values.get(parameter.name, {}))
            elif parameter.kind is inspect.Parameter.KEYWORD_ONLY:
                keywords[parameter.name] = values.get(parameter.name, parameter.default)
            else:
                positional.append(values.get(parameter.name, parameter.default))
        return positional, keywords


def redacted(values: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    """A copy in which nothing is left of the values of these names."""
    return {name: REDACTED if name in names else value for name, value in values.items()}


def pack_arguments(name: str, values: Mapping[str, Any], canonical: bool = False) -> bytes:
    """Raises TypeError with the argument's name for what is no plain data."""
    try:
        return pack(values if type(values) is dict else dict(values), canonical)
    except TypeError as error:
        if (found := first_refused(values)) is not None:
            raise TypeError(f"{name}: argument {found[0]!r} cannot be sent: {found[1]}") from None
        raise TypeError(f"{name}: the arguments cannot be sent: {error}") from None


def _converter(name: str, what: str, annotation: Any, optional: bool = False) -> Converter:
    try:
        return Converter(annotation, optional)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidOptions(f"{name}: {what} is annotated {annotation!r}, which cannot be converted: {error}") from None


def _as_it_travels(parameter: inspect.Parameter, annotation: Any) -> Any:
    if parameter.kind is VAR_POSITIONAL:
        return types.GenericAlias(list, (annotation,))
    if parameter.kind is VAR_KEYWORD:
        return types.GenericAlias(dict, (str, annotation))
    return annotation


def resolved_hints(function: Callable[..., Any]) -> Hints:
    return {name: hint for name, hint in _hints(function) if not isinstance(hint, Unresolved)}


def _hints(function: Callable[..., Any]) -> Iterator[tuple[str, Any]]:
    """Each annotation by its name, Unresolved where it cannot be evaluated."""
    function = inspect.unwrap(function)
    function = getattr(function, "__func__", function)
    known = dict(getattr(function, "__globals__", {}))
    for name, annotation in getattr(function, "__annotations__", {}).items():
        shim = types.SimpleNamespace(__annotations__={name: annotation})
        try:
            hint = typing.get_type_hints(shim, known, _enclosed(function), include_extras=True)[name]
        except Exception as error:  # an annotation is user code, and may raise anything when it is evaluated
            missing = error.name if isinstance(error, NameError) else None
            yield name, Unresolved(name, _repr.repr(annotation), missing, f"{type(error).__name__}: {error}")
        else:
            yield name, hint


def _enclosed(function: Callable[..., Any]) -> dict[str, Any]:
    """What the function sees of the functions around it."""
    names = getattr(getattr(function, "__code__", None), "co_freevars", ())
    cells = getattr(function, "__closure__", None) or ()
    found = {}
    for name, cell in zip(names, cells, strict=False):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    return found


def _is_context(parameter: inspect.Parameter, function: Callable[..., Any], hints: Hints | None) -> bool:
    from stem_iso.task.context import TaskContext

    annotation = parameter.annotation
    if isinstance(annotation, str):
        # Under `if TYPE_CHECKING:` the name resolves nowhere, and is still plain to read.
        if annotation.rpartition(".")[2] == "TaskContext":
            return True
        annotation = (resolved_hints(function) if hints is None else hints).get(parameter.name)
    return isinstance(annotation, type) and issubclass(annotation, TaskContext)
