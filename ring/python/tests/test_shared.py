"""The package against itself, in this process and in others."""

import ast
import itertools
import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest

import slipring

QUOTE = [("px", "i8"), ("qty", "u4"), ("venue", "u1", (4,))]
TEXT = "px:i64@0 qty:u32@8 venue:u8[4]@12 size=16 align=8"
LONG = 60.0


counter = itertools.count()


@pytest.fixture
def name():
    name = f"py-{os.getpid()}-{next(counter)}"
    yield name
    try:
        slipring.remove(name, force=True)
    except slipring.NotFound:
        pass


def quotes(first, count):
    events = np.zeros(count, QUOTE)
    events["px"] = np.arange(first, first + count)
    events["qty"] = 7
    events["venue"] = list(b"XETR")
    return events


def start(code, *arguments):
    # A child that stays until it is killed reads its input, which must not end where that of the tests is empty.
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *arguments], stdin=pipe, stdout=pipe, stderr=pipe, text=True
    )


def wait_until(condition):
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() < begun + LONG
        time.sleep(0.001)


def test_the_layout_is_the_same_text_from_a_dtype_and_from_a_text(name):
    ring = slipring.create(name, QUOTE, 8)
    assert ring.layout == TEXT
    assert slipring.open_or_create(name, "px:i64 qty:u32 venue:u8[4]", 8).layout == TEXT
    assert ring.dtype == np.dtype(QUOTE) and ring.dtype.itemsize == 16
    assert (ring.name, ring.capacity, ring.retained, ring.published) == (name, 8, 0, 0)
    assert name in slipring.names()
    with pytest.raises(slipring.Mismatch, match="px:u64"):
        slipring.open_or_create(name, "px:u64 qty:u32 venue:u8[4]", 8)
    with pytest.raises(slipring.Exists):
        slipring.create(name, QUOTE, 8)


@pytest.mark.parametrize("number", ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f4", "f8"])
def test_every_type_of_numbers_passes(name, number):
    ring = slipring.create(name, number, 4)
    assert ring.layout.startswith("value:")
    with ring.producer() as out, ring.consumer("c") as tape:
        out.publish([(1,), (2,)])
        assert tape.poll()["value"].tolist() == [1, 2]


@pytest.mark.parametrize(
    "events",
    ["O", "S4", "f2", ">i8", "c16", "?", [("a", "u1"), ("b", "i8")], [("a", "i8", (2, 2))], "a:i64 b", "m8[s]"],
)
def test_other_types_are_refused(name, events):
    with pytest.raises(slipring.Invalid):
        slipring.create(name, events, 4)
    assert name not in slipring.names()


def test_aligned_dtypes_with_padding_are_refused(name):
    with pytest.raises(slipring.Invalid):
        slipring.create(name, np.dtype([("a", "u1"), ("b", "i8")], align=True), 4)


def test_events_are_read_in_place_and_void_after_the_release(name):
    ring = slipring.create(name, QUOTE, 8)
    with ring.producer() as out, ring.consumer("research") as tape:
        assert tape.poll(timeout=0) is None
        assert out.publish(quotes(0, 5)) == 0
        batch = tape.poll(3)
        events, px = batch.array, batch["px"]
        assert (batch.first, len(batch), batch.sequences.tolist()) == (0, 3, [0, 1, 2])
        assert events.dtype == ring.dtype and bytes(events["venue"][0]) == b"XETR"
        assert px.tolist() == [0, 1, 2] and not events.flags.writeable and not px.flags.writeable
        with pytest.raises(ValueError):
            px[0] = 9
        assert not events.flags.owndata and np.shares_memory(events, px)
        copied, one = batch.copy(), batch[1]
        batch.release(2)
        assert (len(events), len(px), batch.released) == (0, 0, True)
        assert px.sum() == 0 and events.tolist() == []
        for use in [lambda: batch.array, lambda: batch["px"], lambda: batch[0], batch.copy]:
            with pytest.raises(ValueError, match="released"):
                use()
        batch.release()
        assert copied["px"].tolist() == [0, 1, 2] and one["px"] == 1
        assert tape.position == 2
        # A batch that was not released comes again, and the one before is void.
        first = tape.poll()
        again = tape.poll()
        assert first.released and again.array["px"].tolist() == [2, 3, 4]
        with pytest.raises(ValueError):
            again.release(4)
        with again:
            kept = again.array
        assert len(kept) == 0 and tape.position == 5
        # An error leaves the batch unread.
        out.publish(quotes(5, 1))
        with pytest.raises(KeyError):
            with tape.poll():
                raise KeyError
        assert tape.position == 5


def test_arrays_keep_their_memory_when_everything_else_is_gone(name):
    ring = slipring.create(name, QUOTE, 8)
    out, tape = ring.producer(), ring.consumer("research")
    out.publish(quotes(0, 4))
    # A view of a view: it is not made void, so it must at least stay readable.
    part = tape.poll().array["px"][1:]
    tape.close()
    out.close()
    slipring.remove(name)
    del ring, out, tape
    assert part.tolist() == [1, 2, 3]


def test_a_limit_below_1_is_refused_and_the_batch_before_it_stays(name):
    ring = slipring.create(name, QUOTE, 8)
    with ring.producer() as out, ring.consumer("c") as tape:
        out.publish(quotes(5, 2))
        batch = tape.poll()
        for limit in (0, -1):
            with pytest.raises(ValueError, match="ask for 1 or more"):
                tape.poll(limit)
        assert batch["px"].tolist() == [5, 6]


def test_what_is_published_goes_by_the_names_of_fields_and_is_never_cut(name):
    """NumPy goes by the places of fields, gives a plain number to each of them, and cuts numbers to what fits."""
    ring = slipring.create(name, "px:i64 qty:u32 part:f32", 64)
    with ring.producer() as out, ring.consumer("c") as tape:
        turned = np.array([(0.5, 100, 7)], [("part", "f8"), ("px", "i2"), ("qty", "u8")])
        for events in (turned, turned[0], (100, 7, 0.5), [(100.0, 7, 0.5)], [np.array([(100, 7, 0.5)], ring.dtype)[0]]):
            out.publish(events)
            with tape.poll(timeout=LONG) as batch:
                assert batch.copy().tolist() == [(100, 7, 0.5)]
        for refused, why in [
            ((1.5, 7, 0), "px.*1.5"),
            ([(1, 2.5, 0)], "qty.*2.5"),
            ([[1, 2, 0]], "take a tuple"),
            ([1, 2, 3], "take a tuple"),
            ([], "no event"),
            (np.arange(3), "plain numbers"),
            (turned[["px", "qty"]], "have the fields"),
            (np.array([(-1, 2, 3)], [("qty", "i8"), ("px", "i8"), ("part", "f4")]), "qty.*fit"),
            (np.array([(1, 2.5, 3)], [("qty", "i8"), ("px", "f8"), ("part", "f4")]), "px.*fit"),
        ]:
            with pytest.raises(slipring.Invalid, match=why):
                out.publish(refused)
        assert ring.published == 5
    numbers = slipring.create(name + "-numbers", "u1", 8)
    try:
        with numbers.producer() as out:
            assert [out.publish(it) for it in ([1, 2], 3, (4,), np.arange(2), np.array([2.0]))] == [0, 2, 3, 4, 6]
            for refused in (np.array([256]), np.array([0.5]), [0.5], (-1,)):
                with pytest.raises((slipring.Invalid, OverflowError)):
                    out.publish(refused)
    finally:
        slipring.remove(numbers.name, force=True)


def test_batches_end_where_the_slots_do_and_nothing_is_lost(name):
    ring = slipring.create(name, QUOTE, 4)
    with ring.producer() as out, ring.consumer("research") as tape:
        read = []
        for first in range(0, 99, 3):
            assert out.publish(quotes(first, 3)) == first
            while len(read) < first + 3:
                with tape.poll() as batch:
                    read += batch["px"].tolist()
        assert read == list(range(99))
        with pytest.raises(slipring.Invalid):
            out.publish(quotes(0, 5))
        with pytest.raises(slipring.Invalid):
            out.publish([])


def test_a_full_ring_names_the_slowest_and_times_out(name):
    ring = slipring.create(name, "i8", 2)
    with ring.producer() as out, ring.consumer("slow"):
        out.publish([(1,), (2,)])
        for timeout in [0, 0.01]:
            with pytest.raises(slipring.Full, match="slow"):
                out.publish((3,), timeout=timeout)
        with pytest.raises(ValueError):
            out.publish((3,), timeout=-1)
        assert ring.published == 2


def test_the_loop_ends_when_the_ring_is_closed(name):
    ring = slipring.create(name, QUOTE, 64)
    tape = ring.consumer("research")

    def publish():
        with ring.producer() as out:
            for first in range(0, 1000, 10):
                out.publish(quotes(first, 10))
            out.end()

    thread = threading.Thread(target=publish)
    thread.start()
    read = []
    for batch in tape:
        read += batch["px"].tolist()
    thread.join()
    assert read == list(range(1000))
    with pytest.raises(slipring.Closed):
        tape.poll()
    with pytest.raises(slipring.Closed):
        ring.producer()


def test_participants_names_and_holds(name):
    ring = slipring.create(name, "i8", 4)
    out = ring.producer()
    tape = ring.consumer("recorder", hold=True)
    with pytest.raises(slipring.InUse):
        ring.consumer("recorder")
    with pytest.raises(slipring.InUse):
        ring.producer()
    with pytest.raises(slipring.InUse):
        slipring.remove(name)
    with pytest.raises(slipring.OutOfRange):
        ring.consumer("late", start=9)
    with pytest.raises(ValueError):
        ring.consumer("late", start="middle")
    out.publish([(1,), (2,)])
    seen = {it.name: it for it in ring.participants()}
    assert seen["recorder"][1:4] == ("consumer", True, True) and seen["recorder"].lag == 2
    assert seen["producer"].role == "producer" and seen["producer"].pid == os.getpid()
    tape.poll().release(1)
    tape.close()
    with pytest.raises(ValueError, match="closed"):
        tape.poll()
    tape = ring.consumer("recorder", hold=True, start="latest")
    assert tape.position == 1
    tape.close()
    ring.release("recorder")
    with pytest.raises(slipring.Error):
        ring.release("recorder")


def test_several_producers_publish_and_the_dead_hold_nobody(name):
    ring = slipring.create(name, QUOTE, 8, several=True)
    assert ring.several and not slipring.open_or_create(name + "-one", "i8", 4).several
    slipring.remove(name + "-one")
    with pytest.raises(slipring.Mismatch):
        slipring.open_or_create(name, QUOTE, 8)
    child = start(
        """
        import slipring, sys
        with slipring.open(sys.argv[1]).producer(name="child") as out:
            out.publish([(px, 7, list(b"XETR")) for px in range(3)])
            print("published", flush=True)
            sys.stdin.read()
        """,
        name,
    )
    with ring.consumer("research") as tape, ring.producer(name="parent") as out:
        assert child.stdout.readline() == "published\n"
        out.publish(quotes(3, 3))
        assert sorted(it.name for it in ring.participants()) == ["child", "parent", "research"]
        assert all(it.claim is None for it in ring.participants())
        with tape.poll() as batch:
            assert batch["px"].tolist() == list(range(6))
        child.kill()
        child.wait()
        for first in range(6, 60, 3):
            out.publish(quotes(first, 3), timeout=LONG)
            got = []
            while len(got) < 3:
                with tape.poll(timeout=LONG) as batch:
                    got += batch["px"].tolist()
            assert got == [first, first + 1, first + 2]
    child.communicate()


def test_waiting_lets_other_threads_run(name):
    ring = slipring.create(name, "i8", 4)
    with ring.producer() as out, ring.consumer("c") as tape:
        seen = []
        thread = threading.Thread(target=lambda: seen.append(tape.poll()["value"].tolist()))
        thread.start()
        # This thread could not run if the other one kept the lock of the interpreter while it waits.
        with pytest.raises(RuntimeError, match="another thread"):
            begun = time.monotonic()
            while time.monotonic() < begun + LONG:
                tape.position
        out.publish((5,))
        thread.join(LONG)
        assert seen == [[5]]


def test_ctrl_c_ends_a_wait(name):
    slipring.create(name, "i8", 4)
    child = start(
        """
        import signal, slipring, sys
        # A program that was started in the background ignores the signal.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        ring = slipring.open(sys.argv[1])
        with ring.consumer("waits") as tape:
            try:
                tape.poll()
            except KeyboardInterrupt:
                print("interrupted")
        """,
        name,
    )
    ring = slipring.open(name)
    wait_until(lambda: any(it.role == "consumer" for it in ring.participants()) or child.poll() is not None)
    # It may not wait yet: a signal is asked for until it ends.
    begun = time.monotonic()
    while child.poll() is None and time.monotonic() < begun + LONG:
        child.send_signal(signal.SIGINT)
        time.sleep(0.2)
        if child.poll() is None and ring.participants() == []:
            break
    out, err = child.communicate(timeout=LONG)
    assert "interrupted" in out or "KeyboardInterrupt" in err, err
    assert ring.participants() == []


def test_a_producer_that_is_killed_is_told_and_succeeded(name):
    ring = slipring.create(name, QUOTE, 64)
    child = start(
        """
        import slipring, sys
        out = slipring.open(sys.argv[1]).producer()
        out.publish([(px, 7, list(b"XETR")) for px in range(10)])
        print("published", flush=True)
        sys.stdin.read()
        """,
        name,
    )
    with ring.consumer("research") as tape:
        assert child.stdout.readline() == "published\n"
        child.kill()
        child.wait()
        with tape.poll() as batch:
            assert batch["px"].tolist() == list(range(10))
        with pytest.raises(slipring.ProducerDied):
            tape.poll()
        with ring.producer() as out:
            assert out.publish(quotes(10, 1)) == 10
            assert tape.poll()["px"].tolist() == [10]
    child.communicate()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_must_open_the_ring_itself(name):
    ring = slipring.create(name, "i8", 4)
    tape, out = ring.consumer("c"), ring.producer()
    out.publish((5,))
    child = os.fork()
    if child == 0:
        try:
            tape.poll()
        except slipring.Forked:
            own = slipring.open(name).consumer("child")
            os._exit(0 if own.poll()["value"][0] == 5 else 3)
        except BaseException:
            os._exit(2)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert tape.poll()["value"].tolist() == [5]


def test_a_removed_ring_is_told(name):
    ring = slipring.create(name, "i8", 4)
    tape = ring.consumer("c")
    slipring.remove(name, force=True)
    with pytest.raises(slipring.Replaced):
        tape.poll()
    with pytest.raises(slipring.NotFound):
        slipring.open(name)
    assert isinstance(slipring.Replaced("x"), slipring.Ended)


def test_the_stub_has_the_names_of_the_native_module():
    from slipring import _native

    stub = ast.parse(pathlib.Path(slipring.__file__).with_name("_native.pyi").read_text())
    functions = {it.name for it in stub.body if isinstance(it, ast.FunctionDef)}
    classes = {it.name: {f.name for f in it.body} for it in stub.body if isinstance(it, ast.ClassDef)}
    public = {it for it in dir(_native) if not it.startswith("_")}
    assert public == functions | set(classes)
    for of, names in classes.items():
        assert {it for it in vars(getattr(_native, of)) if not it.startswith("_")} == names


def test_the_readme_runs(name):
    readme = pathlib.Path(__file__).parent.parent.joinpath("README.md").read_text()
    writer, reader = (part.split("```")[0] for part in readme.split("```python\n")[1:3])
    changed = lambda code: code.replace('"quotes"', repr(name)).replace("10_000", "100").replace("4096", "128")
    ring = slipring.create(name, QUOTE, 128)
    reading = start(changed(reader))
    wait_until(lambda: ring.participants() or reading.poll() is not None)
    writing = start(changed(writer))
    out, err = reading.communicate(timeout=LONG)
    assert reading.returncode == 0, err
    assert writing.wait(LONG) == 0, writing.communicate()
    assert sum(int(line.split()[1]) for line in out.splitlines()) == 100
