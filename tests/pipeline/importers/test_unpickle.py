"""Reading pickles without running them: allowed values are read, anything else is one error sentence."""

from __future__ import annotations

import bz2
import contextlib
import copyreg
import io
import os
import pickle
import pickletools
import random
import re
import struct
import tracemalloc
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hnas.errors import UsageError
from hnas.pipeline.importers.nasbench201 import read_nasbench201
from hnas.pipeline.importers.nats_bench import read_nats_bench
from hnas.pipeline.importers.pickles.names import SKIPPED
from hnas.pipeline.importers.pickles.stream import Stream
from hnas.pipeline.importers.pickles.unpickle import unpickle, unpickle_all
from tests.support.peer_results import ignore_progress

"".encode("cp437")  # which zipfile imports
MAGIC = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + pickle.dumps({}, 2)


def stream(content: bytes) -> Stream:
    return Stream(Path("some.pickle"), io.BytesIO(content).read)


def load(content: bytes) -> Any:
    return unpickle_all(stream(content), "benchmark")


def optimised(value: object, protocol: int) -> bytes:
    return pickletools.optimize(pickle.dumps(value, protocol))


def pure(value: object, protocol: int) -> bytes:
    """Pickled by the pure-Python pickler, which does not look ahead for the size of a batch."""
    file = io.BytesIO()
    pickle._Pickler(file, protocol).dump(value)  # type: ignore[attr-defined]
    return file.getvalue()


# --- allowed values -------------------------------------------------------------------------------------------------

KEYS = st.text(max_size=20) | st.integers(-(2**63), 2**63 - 1) | st.tuples(st.text(max_size=3), st.integers(0, 999))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(max_size=300)
    | st.floats(allow_nan=False).map(np.float64) | st.integers(-(2**31), 2**31 - 1).map(np.int32),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(KEYS, inner)
    | st.dictionaries(KEYS, inner).map(OrderedDict),
    max_leaves=30,
)  # fmt: skip


@given(VALUES, st.integers(0, 5), st.sampled_from([pickle.dumps, optimised, pure]))
@settings(max_examples=300)
def test_allowed_values_are_read(value: Any, protocol: int, dump: Callable[..., bytes]) -> None:
    assert load(dump(value, protocol)) == value


@given(
    st.lists(st.tuples(st.integers(0, 120), st.sampled_from(["x-valid@%d", "%d", "é@%d", "\0%d"]), st.booleans())),
    st.integers(0, 5),
    st.sampled_from([pickle.dumps, optimised, pure]),
    st.randoms(use_true_random=False),
)
@settings(max_examples=100)
def test_runs_of_entries_are_read(
    runs: list[tuple[int, str, bool]], protocol: int, dump: Callable[..., bytes], choose: random.Random
) -> None:
    """Keys of many lengths, shared between dictionaries or not, mixed with values that are not floats."""
    made: list[object] = []
    names: list[str] = []
    for count, pattern, shared in runs:
        if not shared or not names:
            names = [pattern % number for number in range(count)]
        made += [{name: choose.random() for name in names}, {n: choose.random() for n in range(count)}]
        made += [{name: choose.choice([1.5, 2.5, None]) for name in names}, [choose.random() for _ in names], names[:3]]
    assert load(dump(made, protocol)) == made


def test_a_framed_pickle_longer_than_the_window_is_read() -> None:
    made = [{f"{part}@{number}": number / 7 for number in range(250)} for part in range(150)]
    for protocol in range(6):
        content = pickle.dumps(made, protocol)
        assert len(content) > 2**19
        assert load(content) == made


def test_sets_scalars_and_ordered_dicts_become_plain_values() -> None:
    for protocol in range(2, 6):
        assert load(pickle.dumps({5}, protocol)) == [5]
        assert load(pickle.dumps(b"12345678", protocol)) == b"12345678"
    assert load(pickle.dumps(b"1" * 100_000, 4)) is SKIPPED
    assert load(b"\x80\x02c__builtin__\nset\n](K\x01K\x02e\x85R.") == [1, 2]
    for number in (np.float32(0.1), np.int64(-5), np.int32(7)):
        assert load(pickle.dumps(number, 2)) == number
    swapped = pickle.dumps(np.float64(2.5), 4).replace(b"\x8c\x01<", b"\x8c\x01>")
    assert load(swapped.replace(struct.pack("<d", 2.5), struct.pack(">d", 2.5))) == 2.5


# --- hostile pickles ------------------------------------------------------------------------------------------------

CANARY = "HNAS_CANARY"


class Calls:
    """Pickled as a call of `function` with `arguments`."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.reduced = (function, arguments)

    def __reduce__(self) -> Any:
        return self.reduced


class Stateful:
    ran = False

    def __setstate__(self, state: object) -> None:
        Stateful.ran = True


class Extended:
    """Registered with `copyreg` by a test."""


def set_canary() -> None:
    os.environ[CANARY] = "ran"


SETS = f"__import__('os').environ.__setitem__('{CANARY}', 'ran')"
CALLS = {
    "os.system": Calls(os.system, f"touch $HOME/{CANARY}"),
    "eval": Calls(eval, SETS),
    "exec": Calls(exec, SETS),
    "__import__": Calls(__import__, "antigravity"),
    "getattr": Calls(getattr, "a", "upper"),
    "open": Calls(open, "/dev/null"),
    "a function of the tests": Calls(set_canary),
    "print": Calls(print, "ran"),
    "numpy load": Calls(np.fromfile, "/etc/passwd"),
    "reconstructor": Calls(copyreg._reconstructor, Extended, object, None),  # type: ignore[attr-defined]
    "partial": Calls(__import__("functools").partial, set_canary),
    "state": Stateful(),
    "object": Extended(),
    "a class": Extended,
    "array": np.zeros(3),
    "complex": 1j,
    "frozen": frozenset([Calls(set_canary)]),
}


def text(value: str) -> bytes:
    content = value.encode()
    return b"X" + struct.pack("<I", len(content)) + content


def laughs(depth: int, make: bytes, end: bytes) -> bytes:
    """A value that holds its predecessor twice, which holds its own predecessor twice, and so on."""
    memo = b"".join(b"r" + struct.pack("<I", n) + b"j" + struct.pack("<I", n) + make for n in range(depth))
    return b"\x80\x02)" + memo + end


ASSEMBLED = {
    # Names, in every instruction that takes one.
    "GLOBAL": b"cos\nsystem\n(S'true'\ntR.",
    "GLOBAL alone": b"cposix\nsystem\n.",
    "STACK_GLOBAL": b"\x80\x04" + text("posix") + text("system") + b"\x93" + text("true") + b"\x85R.",
    "STACK_GLOBAL, dotted": b"\x80\x04" + text("collections") + text("OrderedDict.__init__.__globals__") + b"\x93.",
    "STACK_GLOBAL of no text": b"\x80\x04" + b"K\x01K\x02\x93.",
    "INST": b"(S'true'\nios\nsystem\n.",
    "OBJ": b"(cos\nsystem\nS'true'\no.",
    "NEWOBJ": b"\x80\x02ccollections\nOrderedDict\n)\x81.",
    "NEWOBJ_EX": b"\x80\x04ccollections\nOrderedDict\n)}\x92.",
    "BUILD of a function": b"ccollections\nOrderedDict\n}" + text("__code__") + b"K\x01sb.",
    "BUILD of a dtype": b"cnumpy\ndtype\n" + text("f8") + b"K\x00K\x01\x87RK\x05b.",
    "BUILD of a list": b"]}" + text("__class__") + b"K\x01sb.",
    "EXT1": b"\x80\x02\x82\x01.",
    "EXT2": b"\x80\x02\x83\x01\x00.",
    "EXT4": b"\x80\x02\x84\x01\x00\x00\x00.",
    "PERSID": b"Pposix.system\n.",
    "BINPERSID": b"\x80\x02" + text("posix.system") + b"Q.",
    "NEXT_BUFFER": b"\x80\x05\x97.",
    "REDUCE of text": text("os.system") + b")R.",
    "REDUCE with no tuple": b"ccollections\nOrderedDict\n]R.",
    "codecs": b"c_codecs\nencode\n" + text("x") + text("zip") + b"\x86R.",
    "codecs of no text": b"c_codecs\nencode\nK\x01" + text("latin1") + b"\x86R.",
    "dtype of objects": b"cnumpy\ndtype\n" + text("O8") + b"K\x00K\x01\x87R.",
    "scalar of no dtype": b"cnumpy.core.multiarray\nscalar\n}C\x01a\x86R.",
    "scalar too short": b"cnumpy.core.multiarray\nscalar\ncnumpy\ndtype\n" + text("f8") + b"\x85RC\x01a\x86R.",
    # Sizes.
    "BINUNICODE8 of 2^60": b"\x80\x04\x8d" + struct.pack("<Q", 2**60) + b"a.",
    "BINUNICODE of 2^32": b"X\xff\xff\xff\xff.",
    "BINBYTES8 of 2^60": b"\x80\x04\x8e" + struct.pack("<Q", 2**60) + b"a.",
    "BINBYTES8 of 2^63": b"\x80\x04\x8e" + struct.pack("<Q", 2**63) + b"a.",
    "BYTEARRAY8 of 2^60": b"\x80\x05\x96" + struct.pack("<Q", 2**60) + b"a.",
    "BINSTRING of 2^31": b"T\xff\xff\xff\x7f.",
    "LONG4 of 2^31": b"\x80\x02\x8b\xff\xff\xff\x7f.",
    "LONG of many digits": b"L" + b"9" * 50_000 + b"L\n.",
    "INT of many digits": b"I" + b"9" * 50_000 + b"\n.",
    "a line without end": b"V" + b"a" * 5_000_000,
    "LONG_BINPUT of 2^31": b"\x80\x02]r\xff\xff\xff\x7f",
    "PUT of many digits": b"]p" + b"9" * 5_000 + b"\n",
    "frame of 2^60": b"\x80\x04\x95" + struct.pack("<Q", 2**60),
    "protocol 255": b"\x80\xff].",
    # Structures.
    "nested lists": b"]" * 800_000 + b"a" * 799_999 + b".",
    "nested marks": b"(" * 800_000,
    "nested tuples": b")" + b"\x85" * 800_000 + b".",
    "many dictionaries": b"\x80\x02(" + b"}" * 800_000 + b"l.",
    "laughing key": laughs(100, b"\x86", b"}r\xff\0\0\0j\x63\0\0\0K\x01s."),
    "laughing key, other way": laughs(100, b"\x86", b"r\xfe\0\0\0}j\xfe\0\0\0K\x01s."),
    "laughing key of a run": laughs(100, b"\x86", b"r\xfe\0\0\0}(" + (b"j\xfe\0\0\0G" + b"\0" * 8) * 4 + b"u."),
    "laughing dtype": laughs(100, b"\x86", b"r\xfe\0\0\0cnumpy\ndtype\nj\xfe\0\0\0\x85R."),
    "laughing encoding": laughs(100, b"\x86", b"r\xfe\0\0\0c_codecs\nencode\nX\0\0\0\0j\xfe\0\0\0\x86R."),
    "a list in itself as a key": b"]r\0\0\0\0j\0\0\0\0a}j\0\0\0\0K\x01s.",
    "a key that hashes as others do": b"}(\x8a\x10" + (9 * (2**61 - 1)).to_bytes(16, "little") + b"Nu.",
    "a floating-point key": b"}G\0\0\0\0\0\0\0\0K\x01s.",
    # Inconsistent programs.
    "empty stack": b"a.",
    "no stop": b"]",
    "two values": b"]].",
    "open mark": b"(].",
    "no mark": b"]t.",
    "tuple of nothing": b"\x87.",
    "key without value": b"}(K\x01u.",
    "item without key": b"}K\x01s.",
    "append to a tuple": b")K\x01a.",
    "items of a list": b"]K\x01K\x02s.",
    "unknown place of the memo": b"h\x05.",
    "memo of nothing": b"q\x00.",
    "no UTF-8": b"X\x01\0\0\0\xff.",
    "no number": b"Iabc\n.",
    "an unknown instruction": b"\xff.",
    "nothing": b"",
}  # fmt: skip


def hostile() -> Iterator[Any]:
    for name, value in CALLS.items():
        for protocol in range(6):
            for inside, wrapped in (("", value), (" in a file", {"arch2infos": {0: {"less": value}}})):
                yield pytest.param(pickle.dumps(wrapped, protocol), id=f"{name}{inside}, protocol {protocol}")
    for name, content in ASSEMBLED.items():
        yield pytest.param(content, id=name)


@pytest.fixture
def small_allowance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hnas.pipeline.importers.pickles.stream.ALLOWANCE", 2**18)


@pytest.fixture
def no_canary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Fail if anything ran: a process, a class's `__setstate__`, an environment variable, an import."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    monkeypatch.delenv(CANARY, raising=False)
    imported = set(__import__("sys").modules)
    yield
    assert CANARY not in os.environ
    assert not list((tmp_path / "home").iterdir())
    assert not Stateful.ran
    assert set(__import__("sys").modules) == imported


def sentence(call: Callable[[], object]) -> str:
    with pytest.raises(UsageError) as caught:
        call()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600
    return str(caught.value)


def test_pythons_own_unpickler_runs_these_pickles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CANARY, "")
    for name in ("eval", "exec", "a function of the tests"):
        monkeypatch.setenv(CANARY, "")
        pickle.loads(pickle.dumps(CALLS[name]))
        assert os.environ[CANARY] == "ran"


@pytest.mark.parametrize("content", hostile())
@pytest.mark.usefixtures("no_canary", "small_allowance")
def test_hostile_pickles_are_rejected(content: bytes, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    sentence(lambda: load(content))
    if len(content) < 1000:  # the same through the importers
        legacy, archive, packed = tmp_path / "legacy.pth", tmp_path / "zip.pth", tmp_path / "one.pickle.pbz2"
        legacy.write_bytes(MAGIC + content)
        with zipfile.ZipFile(archive, "w") as made:
            made.writestr("archive/data.pkl", content)
        packed.write_bytes(bz2.compress(content))
        for read, path in ((read_nasbench201, legacy), (read_nasbench201, archive), (read_nats_bench, packed)):
            assert str(path) in sentence(lambda read=read, path=path: list(read(path, ignore_progress)))
        (tmp_path / "meta.pickle.pbz2").write_bytes(bz2.compress(content))
        sentence(lambda: list(read_nats_bench(tmp_path, ignore_progress)))
    assert capfd.readouterr().out == ""


@pytest.mark.usefixtures("small_allowance")
def test_the_error_names_the_requested_object() -> None:
    for content, words in (
        (pickle.dumps(CALLS["os.system"], 4), "holds a posix.system, which no benchmark file contains"),
        (pickle.dumps(CALLS["eval"], 0), "holds a __builtin__.eval, which no"),
        (ASSEMBLED["BINPERSID"], "holds the pickle instruction b'Q', which no"),
        (ASSEMBLED["codecs"], "holds a _codecs.encode of an unknown kind, which no"),
        (ASSEMBLED["BINUNICODE8 of 2^60"], "holds a string of 1,152,921,504,606,846,976 bytes, which no"),
        (ASSEMBLED["BINBYTES8 of 2^60"], "holds a bytes object of 1,152,921,504,606,846,976 bytes, which no"),
        (ASSEMBLED["laughing key"], "holds a dictionary with keys other than strings and numbers, which no"),
        (b"c\x1b[31mos\nsy\x00stem\n.", r"holds a \x1b[31mos.sy\x00stem, which no"),
        (ASSEMBLED["many dictionaries"], "bytes in one part, which no such file does"),
    ):
        assert words in sentence(lambda content=content: load(content))


def test_registered_extensions_are_rejected_too() -> None:
    copyreg.add_extension(Extended.__module__, "Extended", 240)
    try:
        content = pickle.dumps(Extended, 2)
        assert b"\x82" in content
        assert "pickle instruction" in sentence(lambda: load(content))
    finally:
        copyreg.remove_extension(Extended.__module__, "Extended", 240)


@pytest.mark.parametrize("name", [name for name in ASSEMBLED if " of 2^" in name])
def test_declared_sizes_alone_allocate_no_memory(name: str) -> None:
    tracemalloc.start()
    sentence(lambda: load(ASSEMBLED[name]))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


def test_repeated_references_take_no_memory() -> None:
    head = b"\x80\x02(](" + b"K\x01" * 50_000 + b"er\0\0\0\0cbuiltins\nset\nr\1\0\0\0" + text("é" * 60)
    head += b"r\2\0\0\0c_codecs\nencode\nr\3\0\0\0" + text("latin1") + b"r\4\0\0\0"
    content = head + b"j\1\0\0\0j\0\0\0\0\x85R" * 1000 + b"j\3\0\0\0j\2\0\0\0j\4\0\0\0\x86R" * 1000 + b"t."
    tracemalloc.start()
    assert len(load(content)) == 2005
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4_000_000


def test_exponential_sharing_takes_no_time_outside_keys() -> None:
    assert type(load(laughs(5_000, b"\x86", b"."))) is tuple


# --- damage ---------------------------------------------------------------------------------------------------------

SAMPLE = {
    "meta_archs": ["a", "b"],
    "arch2infos": {
        n: {"less": OrderedDict(a=np.float64(n)), "x": {f"k@{i}": i / 3 for i in range(30)}} for n in range(4)
    },
    "evaluated_indexes": {0, 1},
}


def entries(content: bytes) -> list[Any]:
    return list(unpickle(lambda: stream(content), "benchmark", "arch2infos"))


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_truncated_anywhere_is_rejected(protocol: int) -> None:
    content = pickle.dumps(SAMPLE, protocol)
    assert entries(content) == list(SAMPLE["arch2infos"].items())  # type: ignore[attr-defined]
    for end in range(0, len(content) - 1, 3):
        assert "some.pickle" in sentence(lambda end=end: entries(content[:end]))


@given(st.integers(0, 5), st.lists(st.tuples(st.integers(0, 10**6), st.binary(min_size=1, max_size=9)), max_size=4))
@settings(max_examples=300)
def test_a_pickle_changed_anywhere_never_crashes(protocol: int, changes: list[tuple[int, bytes]]) -> None:
    content = bytearray(pickle.dumps(SAMPLE, protocol))
    for at, change in changes:
        at %= len(content)
        content[at : at + len(change)] = change
    with contextlib.suppress(UsageError):
        entries(bytes(content))


def test_a_pickle_that_fetches_a_skipped_memo_slot_is_damaged() -> None:
    """A memo slot that was never filled looks like a dropped one until the file is read again."""
    content = bytearray(pickle.dumps(SAMPLE, 0))
    names = [match.start() for match in re.finditer(rb"(?<=\n)p\d+\n", content)]
    assert len(names) > 20
    for start in names:
        end = content.index(b"\n", start)
        changed = content[:start] + b"p99999999" + content[end:]
        with contextlib.suppress(UsageError):
            entries(bytes(changed))
