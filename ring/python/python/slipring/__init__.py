"""Rings of events in shared memory, between processes in Python, Rust and C on one Linux machine.

    import slipring

    ring = slipring.open("quotes")                  # whatever its events are
    with ring.consumer("research") as tape:
        for batch in tape:                          # waits; lets go of the GIL, and Ctrl-C works
            print(batch.first, batch["px"].mean())  # NumPy arrays of the shared memory, nothing is copied

A batch's arrays are read-only, and void (of length 0) after the batch is released: copy what must stay.
"""

from __future__ import annotations

from typing import Any, Iterator, List, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np

from . import _native
from ._errors import (
    Closed,
    Damaged,
    Ended,
    Error,
    Exists,
    Forked,
    Full,
    InUse,
    Invalid,
    Mismatch,
    NotFound,
    OutOfRange,
    ProducerDied,
    Replaced,
)

__all__ = [
    "Batch",
    "Closed",
    "Consumer",
    "Damaged",
    "Ended",
    "Error",
    "Exists",
    "Forked",
    "Full",
    "InUse",
    "Invalid",
    "Mismatch",
    "NotFound",
    "OutOfRange",
    "Participant",
    "Producer",
    "ProducerDied",
    "Replaced",
    "Ring",
    "create",
    "names",
    "open",
    "open_or_create",
    "remove",
]

_KINDS = {"u": "u", "i": "i", "f": "f"}


def _layout(events: Any) -> str:
    """The text of a layout, from a text or from what numpy.dtype takes."""
    if isinstance(events, str) and ":" in events:
        return events
    dtype = np.dtype(events)
    if dtype.names is None:
        dtype = np.dtype([("value", dtype)])
    fields = []
    for name in dtype.names:
        of, offset = dtype.fields[name][:2]
        number, shape = of.subdtype if of.subdtype is not None else (of, None)
        if number.kind not in _KINDS or number.itemsize > 8 or number.str == "<f2" or not number.isnative:
            raise Invalid(f"the field {name!r} is {of}: take i1 to i8, u1 to u8, f4, f8, or arrays of one dimension of them")
        if shape is not None and len(shape) != 1:
            raise Invalid(f"the field {name!r} has the shape {shape}: take arrays of one dimension")
        count = "" if shape is None else f"[{shape[0]}]"
        fields.append(f"{name}:{_KINDS[number.kind]}{number.itemsize * 8}{count}@{offset}")
    align = max(dtype.fields[name][0].base.itemsize for name in dtype.names)
    return " ".join(fields) + f" size={dtype.itemsize} align={align}"


def _dtype(fields: Sequence[Tuple[str, str, Optional[int], int]], size: int) -> np.dtype:
    def of(number: str, count: Optional[int]) -> Any:
        kind = np.dtype(f"{number[0]}{int(number[1:]) // 8}")
        return kind if count is None else (kind, (count,))

    return np.dtype(
        {
            "names": [name for name, _, _, _ in fields],
            "formats": [of(number, count) for _, number, count, _ in fields],
            "offsets": [offset for _, _, _, offset in fields],
            "itemsize": size,
        }
    )


def _events(given: Any, dtype: np.dtype) -> np.ndarray:
    """These events as an array of `dtype`. NumPy alone would go by the place of a field and not by its name, give a plain
    number to each field, and cut numbers to what fits."""
    found = getattr(given, "dtype", None)
    if found == dtype:
        return np.asarray(given)
    names = list(dtype.names or ())
    if found is None:
        _refuse_parts(given, dtype)
        if isinstance(given, list) and not given:
            raise Invalid("there is no event to publish: the list is empty")
        return np.asarray(given, dtype)
    if found.names is None and len(names) > 1:
        raise Invalid(f"the events are plain numbers ({found}), and the ring's have the fields {names}: take tuples")
    if found.names is not None and sorted(found.names) != sorted(names):
        raise Invalid(f"the events have the fields {list(found.names)}, and the ring's have {names}")
    given = np.asarray(given)
    given = given if found.names is None else given[names]
    events = given.astype(dtype)
    for name in names:
        numbers = given if found.names is None else given[name]
        if events[name].dtype.kind in "iu" and not np.array_equal(events[name], numbers):
            raise Invalid(f"the field {name!r} is {dtype[name]}, into which not all of the given numbers ({numbers.dtype}) fit")
    return events


def _refuse_parts(given: Any, dtype: np.dtype) -> None:
    """An error if an event of several fields is no tuple, or a number with a fraction stands in the place of a whole one."""
    names = list(dtype.names or ())
    whole = [place for place, name in enumerate(names) if dtype[name].kind in "iu"]
    for event in given if isinstance(given, list) else [given]:
        if isinstance(event, np.void):
            if list(event.dtype.names or ()) != names:
                raise Invalid(f"an event has the fields {list(event.dtype.names or ())}, and the ring's have {names}")
        elif not isinstance(event, tuple) and len(names) > 1:
            raise Invalid(f"an event is {event!r}, and the ring's have the fields {names}: take a tuple")
        numbers = event if isinstance(event, tuple) else (event,)
        for place in whole if isinstance(event, (tuple, int, float)) else ():
            number = numbers[place] if place < len(numbers) else 0
            if isinstance(number, float) and not number.is_integer():
                name = names[place]
                raise Invalid(f"the field {name!r} is {dtype[name]}, into which {number!r} does not fit: round it, or scale it")


class Participant(NamedTuple):
    """A participant of a ring, as it was at one moment."""

    name: str
    #: "producer", "consumer" or "joining".
    role: str
    #: True if its process lives and has not left.
    alive: bool
    #: True if its position is kept when it dies or leaves.
    held: bool
    #: The process id that it gave when it joined.
    pid: int
    #: The next sequence that a consumer reads; None for a producer.
    position: Optional[int]
    #: Count of published events that a consumer has not read.
    lag: int
    #: The sequences (first, end) that one of several producers has claimed and not published; otherwise None.
    claim: Optional[Tuple[int, int]]


class Ring:
    """An open ring. It is no participant: it neither gates producers nor keeps the ring."""

    def __init__(self, native: _native.Ring) -> None:
        self._native = native
        self._dtype = _dtype(native.fields, native.event_size)

    def __repr__(self) -> str:
        return f"<slipring.Ring {self.name!r}: {self.capacity} slots of {self.layout!r}>"

    @property
    def name(self) -> str:
        """The ring's name."""
        return self._native.name

    @property
    def dtype(self) -> np.dtype:
        """The type of the events."""
        return self._dtype

    @property
    def layout(self) -> str:
        """The text of the events' layout, the same in all languages."""
        return self._native.layout

    @property
    def capacity(self) -> int:
        """Count of slots."""
        return self._native.capacity

    @property
    def retained(self) -> int:
        """Count of events that are kept for consumers that join later."""
        return self._native.retained

    @property
    def several(self) -> bool:
        """True if several producers may join."""
        return self._native.several

    @property
    def published(self) -> int:
        """The next sequence to be published."""
        return self._native.published

    def participants(self) -> List[Participant]:
        """Those that are alive, those that are held, and those whose death was not yet noticed."""
        return [Participant(*it) for it in self._native.participants()]

    def producer(self, wait: Optional[str] = None, name: str = "producer") -> Producer:
        """Joins as the only producer, or as one of several if the ring is for several. `wait` is how it waits for room:
        "busy-spin", "spin", "spin-yield", "backoff" or "spin-then-park". `name` is what participants and errors show."""
        return Producer(self, self._native.producer(name, wait))

    def consumer(
        self,
        name: str,
        *,
        start: Union[str, int] = "earliest",
        hold: bool = False,
        wait: Optional[str] = None,
    ) -> Consumer:
        """Joins as a consumer, for which producers wait. It begins at `start`: "earliest", "latest" or a sequence. With
        `hold` its position is kept when it leaves or dies, and the next consumer of its name goes on there."""
        return Consumer(self, self._native.consumer(name, start, hold, wait))

    def release(self, name: str) -> None:
        """Gives up the position of a held consumer whose process has gone."""
        self._native.release(name)

    def end(self) -> None:
        """Ends the ring for all participants: consumers read what was published, and then get Closed."""
        self._native.close()


class Producer:
    """A producer of a ring. Leave with `close`, or use it in a `with` statement."""

    def __init__(self, ring: Ring, native: _native.Producer) -> None:
        self._ring = ring
        self._native = native

    def publish(self, events: Any, timeout: Optional[float] = None) -> int:
        """Publishes events: an array of the ring's dtype, a list of tuples, or one tuple. Waits for room, for at most
        `timeout` seconds. Returns the sequence of the first. All of them are published, or none. An array of another dtype
        must have the same fields, in any order, and values that fit; otherwise `Invalid` is raised."""
        array = np.ascontiguousarray(_events(events, self._ring.dtype))
        return self._native.publish(array.tobytes(), timeout)

    def end(self) -> None:
        """Ends the ring for all participants: consumers read what was published, and then get Closed."""
        self._native.end()

    def close(self) -> None:
        """Leaves. The ring stays, and another producer may join."""
        self._native.close()

    def __enter__(self) -> Producer:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


class _Slots:
    """The owner of the memory that arrays show: it keeps the ring's mapping."""

    def __init__(self, ring: _native.Ring, first: int, bytes_: int) -> None:
        self._ring = ring
        self.__array_interface__ = {
            "version": 3,
            "shape": (bytes_,),
            "typestr": "|u1",
            "data": (ring.address(first), True),
        }


class Batch:
    """Consecutive events in the ring's memory. `with batch:` releases it at the end, unless there was an error; a loop
    over the consumer releases it when it asks for the next one."""

    def __init__(self, ring: Ring, consumer: _native.Consumer, first: int, count: int) -> None:
        self._consumer = consumer
        #: The sequence of the first event.
        self.first = first
        self._count = count
        bytes_ = np.asarray(_Slots(ring._native, first, count * ring.dtype.itemsize))
        self._events = bytes_.view(ring.dtype)
        # The arrays that were given out; None after the release.
        self._arrays: Optional[List[np.ndarray]] = [self._events]

    def _given(self) -> List[np.ndarray]:
        if self._arrays is None:
            raise ValueError("this batch is released: its events may have been overwritten")
        return self._arrays

    @property
    def array(self) -> np.ndarray:
        """The events, as a read-only structured array of the shared memory. It is void, of length 0, after the release;
        arrays made from it by slices are not, and must not be read then."""
        self._given()
        return self._events

    @property
    def sequences(self) -> np.ndarray:
        """The sequences of the events."""
        return np.arange(self.first, self.first + self._count, dtype=np.uint64)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, key: Any) -> Any:
        """With the name of a field: its numbers, in the shared memory, as `array`. Otherwise a copy of an event, or of
        several."""
        if isinstance(key, str):
            field = self.array[key]
            self._given().append(field)
            return field
        return self.array[key].copy()

    def copy(self) -> np.ndarray:
        """A copy of the events, which stays."""
        return self.array.copy()

    @property
    def released(self) -> bool:
        """True after the release."""
        return self._arrays is None

    def release(self, count: Optional[int] = None) -> None:
        """Gives the events back: the consumer goes on behind the first `count` of them, or behind all. Arrays that the
        batch gave out are void then."""
        if self._arrays is None:
            return
        count = self._count if count is None else count
        if not 0 <= count <= self._count:
            raise ValueError(f"a batch of {self._count} events cannot be released up to {count}")
        self._void()
        if count:
            self._consumer.consume(count)

    def _void(self) -> None:
        arrays, self._arrays = self._arrays, None
        for array in arrays or ():
            _native.void(array)

    def __enter__(self) -> Batch:
        return self

    def __exit__(self, error: Any, *_: Any) -> None:
        self.release(None if error is None else 0)


class Consumer:
    """A consumer of a ring. Leave with `close`, or use it in a `with` statement."""

    def __init__(self, ring: Ring, native: _native.Consumer) -> None:
        self._ring = ring
        self._native = native
        self._last: Optional[Batch] = None

    @property
    def position(self) -> int:
        """The next sequence that this consumer reads."""
        return self._native.position

    def poll(self, limit: int = 1024, timeout: Optional[float] = None) -> Optional[Batch]:
        """Waits for events, for at most `timeout` seconds (None: without end; 0: not at all). Returns a batch of up to
        `limit` events, fewer where the slots end; None after the timeout. The batch before this one is void, and is
        returned again unless it was released."""
        if limit < 1:
            raise ValueError(f"the limit is {limit}: ask for 1 or more events")
        if self._last is not None:
            self._last._void()
            self._last = None
        found = self._native.poll(limit, timeout)
        if found is None:
            return None
        self._last = Batch(self._ring, self._native, *found)
        return self._last

    def __iter__(self) -> Iterator[Batch]:
        """The batches until the ring is closed. Each is released when the loop asks for the next."""
        while True:
            try:
                batch = self.poll()
            except Closed:
                return
            assert batch is not None
            yield batch
            batch.release()

    def close(self, for_good: bool = False) -> None:
        """Leaves. A held consumer keeps its position, unless `for_good`."""
        if self._last is not None:
            self._last._void()
            self._last = None
        self._native.close(for_good)

    def __enter__(self) -> Consumer:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def open(name: str) -> Ring:
    """Opens the ring called `name`, whatever its events are."""
    return Ring(_native.Ring.open(name))


def create(name: str, events: Any, capacity: int, retain: int = 0, several: bool = False) -> Ring:
    """Creates a ring with `capacity` slots (a power of two), the last `retain` events of which are kept for consumers that
    join later, for one producer or for `several`. `events` is a structured dtype without padding, or a text such as "px:i64 qty:u32 venue:u8[4]"."""
    return Ring(_native.Ring.create(name, _layout(events), capacity, retain, several))


def open_or_create(name: str, events: Any, capacity: int, retain: int = 0, several: bool = False) -> Ring:
    """Opens the ring called `name`, and creates it if it is not there. A ring that is there must have the same events,
    sizes and kind."""
    return Ring(_native.Ring.open_or_create(name, _layout(events), capacity, retain, several))


def names() -> List[str]:
    """The names of this user's rings."""
    return _native.names()


def remove(name: str, force: bool = False) -> None:
    """Removes a ring. Without `force` it must have no living participants."""
    _native.remove(name, force)
