"""Keys that a runtime takes for those of the specification, though they are spelled otherwise, have no effect."""

# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false, reportUnknownParameterType=false

from __future__ import annotations

import contextlib
import json
import os
import shutil
import string
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import once
import proof
import pytest
import spec_documents
from hypothesis import HealthCheck, given, settings, strategies as st

from runc_async import spec
from runc_async.errors import DecodeError
from runc_async.spec._folding import FoldedKeys

JUDGE = Path(__file__).parents[2] / "data" / "folding.go"
GENERATED = settings(
    max_examples=proof.amount(60, 15),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
# Characters that folding takes for the same, and some that only look as if: for `casefold`, or in capitals.
VARIANTS = {"s": "sS\u017f\u0455", "k": "kK\u212a\u03ba", "i": "iI\u0131\u0130", "b": "bB\u00df", "f": "fF\ufb00"}


@cache
def names() -> tuple[str, ...]:
    """Give all keys of the specification, whatever object they belong to; of those that fold to each other one."""
    structs = [value for value in vars(spec).values() if isinstance(value, type) and issubclass(value, spec.SpecObject)]
    found = {name.lower(): name for cls in structs for name in cls.__struct_encode_fields__ if name != "extra"}
    return tuple(found.values())


def spellings(name: str) -> st.SearchStrategy[str]:
    """Spell a name as it may come: in the other case, with look-alikes, cut or longer."""
    letters = [st.sampled_from(VARIANTS.get(letter.lower(), letter.lower() + letter.upper())) for letter in name]
    respelled = st.tuples(*letters).map("".join)
    return respelled | respelled.map(lambda text: text[:-1]) | respelled.flatmap(lambda text: st.just(text + "s"))


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Build the program that asks Go's decoder, once in a run, and give a function that runs it."""
    go = shutil.which("go")
    if go is None:
        pytest.skip("needs go (golang-go) in $PATH: its decoder is the judge")

    def build(place: Path) -> None:
        cache = {"GOCACHE": str(place / "cache"), "HOME": str(place)}
        env = os.environ | cache | {"GO111MODULE": "off", "GOFLAGS": ""}
        subprocess.run([go, "build", "-o", str(place / "judge"), str(JUDGE)], check=True, env=env)

    program = once.directory(tmp_path_factory, "go", build) / "judge"

    def ask(names: list[str], keys: list[str]) -> list[str]:
        question = json.dumps({"names": names, "keys": keys}).encode()
        answer: list[str] = json.loads(subprocess.run([program], input=question, stdout=-1, check=True).stdout)
        return answer

    return ask


def ours(names: list[str], keys: list[str]) -> list[str]:
    """Answer as the judge does, by our own folding."""
    folded = FoldedKeys(names)
    return [key if key in names else folded.known(key) or "" for key in keys]


@pytest.mark.timeout(150)
def test_go_folds_no_other_character(judge: Any) -> None:
    """Of all characters there are, Go's decoder takes for one of a key's what our folding does."""
    characters = [chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code <= 0xDFFF]
    names = [*string.ascii_lowercase, *string.digits]
    assert ours(names, characters) == judge(names, characters)


@pytest.mark.timeout(150)
def test_go_folds_the_same_keys(judge: Any) -> None:
    """Whatever way the specification's keys are spelled, Go's decoder takes for one what our folding does."""
    # Each letter of each key in each of its variants; beside them, at random, spellings that no rule gives.
    asked = [
        name[:place] + variant + name[place + 1 :]
        for name in names()
        for place, letter in enumerate(name)
        for variant in VARIANTS.get(letter.lower(), letter.lower() + letter.upper())
    ]

    @settings(max_examples=proof.amount(3000, 300), database=None)
    @given(st.sampled_from(names()).flatmap(spellings) | st.text(st.characters(codec="utf-8"), max_size=6))
    def collect(key: str) -> None:
        asked.append(key)

    collect()
    found = ours(list(names()), asked)
    assert found == judge(list(names()), asked)
    assert sum(map(bool, found)) > 300
    assert found.count("") > 300


DOCUMENT = """{
 "ociVersion": "1.0.2",
 "process": {"cwd": "/", "args": ["mine"], "Args": ["theirs"], "noNewPrivileges": true, "NoNewPrivileges": false,
             "User": {"uid": 0}},
 "linux": {"re\u017fources": {"memory": {"limit": 1}}, "MA\u212aEDPATHS": [], "sysctl": {"Args": "1", "args": "1"},
           "maskedPaths": ["/a"], "resources": {"unified": {"Memory.max": "1"}, "Memory": {"limit": 7}},
           "netDevices": {"Name": {"Name": "x"}}},
 "annotations": {"OCIVersion": "1"},
 "Mounts": [{"destination": "/a"}]
}"""


def test_a_folded_key_is_a_violation() -> None:
    """`validate` reports each key that folds to a known one, with its path."""
    assert [violation.path for violation in spec.validate(DOCUMENT)] == [
        "$.process.Args",
        "$.process.NoNewPrivileges",
        "$.process.User",
        '$.linux["re\\u017fources"]',
        "$.linux.resources.Memory",
        "$.linux.netDevices.Name.Name",
        "$.Mounts",
    ]


@pytest.mark.parametrize("strict", [True, False])
def test_decoding_drops_folded_keys(*, strict: bool) -> None:
    """Such keys are gone, strict or not, and those that a user chooses, in maps, are as they were."""
    config = spec.Spec.decode(DOCUMENT, strict=strict)
    assert json.loads(config.encode()) == {
        "ociVersion": "1.0.2",
        "process": {"cwd": "/", "args": ["mine"], "noNewPrivileges": True},
        "linux": {
            "MA\u212aEDPATHS": [],  # an S is missing: no key of the specification
            "sysctl": {"Args": "1", "args": "1"},
            "maskedPaths": ["/a"],
            "resources": {"unified": {"Memory.max": "1"}},
            "netDevices": {"Name": {}},
        },
        "annotations": {"OCIVersion": "1"},
    }


@pytest.mark.parametrize("key", ["Limit", "LIMIT", "l\u0131mit"])
def test_nothing_unknown_beats_what_is_set(key: str) -> None:
    """A key in `extra` that folds to a known one isn't written; one that only looks like it is."""
    memory = spec.LinuxMemory(limit=1, extra={key: 2})
    assert json.loads(memory.encode()) == ({"limit": 1} if key.isascii() else {"limit": 1, key: 2})


def seen(cls: Any, document: dict[str, Any]) -> dict[str, Any]:
    """Give what Go's decoder would make of an object: of keys that fold to one, the last."""
    spelling = {name.translate(FOLDING): name for name in cls.__struct_encode_fields__ if name != "extra"}
    return {spelling[folded]: item for key, item in document.items() if (folded := key.translate(FOLDING)) in spelling}


FOLDING = str.maketrans(
    dict(zip(string.ascii_uppercase, string.ascii_lowercase, strict=True)) | {"\u017f": "s", "\u212a": "k"}
)


@GENERATED
@given(st.data())
def test_a_runtime_sees_what_the_struct_has(data: st.DataObject) -> None:
    """Of any document, with keys spelled in any way at any depth, a runtime sees what the structs say, and no more."""
    cls: Any = data.draw(st.sampled_from([spec.Spec, spec.Process, spec.LinuxResources]))
    document = data.draw(spec_documents.documents(spec_documents.struct_type(cls)))
    text = json.dumps(respelled(document, data))
    try:
        found = cls.decode(text, strict=False)
    except DecodeError:  # the only spelling of a required key was another
        return
    compare(found, json.loads(found.encode()))


def respelled(value: Any, data: st.DataObject) -> Any:
    """Add other spellings of some keys to the objects of a document."""
    if isinstance(value, list):
        return [respelled(item, data) for item in value]
    if not isinstance(value, dict):
        return value
    found = {key: respelled(item, data) for key, item in value.items()}
    for key in list(found):
        if key in names() and data.draw(st.booleans()):
            found.setdefault(data.draw(spellings(key)), data.draw(spec_documents.JSON_VALUES))
    return found


def compare(struct: Any, document: dict[str, Any]) -> None:
    """See that Go's decoder would find each field as the struct has it, all the way down."""
    found = seen(type(struct), document)
    for field, key in zip(type(struct).__struct_fields__, type(struct).__struct_encode_fields__, strict=True):
        value = getattr(struct, field)
        if field == "extra":
            continue
        if value is None:
            assert found.get(key) is None
        elif isinstance(value, msgspec.Struct):
            compare(value, found[key])
        elif isinstance(value, list):
            for item, written in zip(value, found[key], strict=True):
                if isinstance(item, msgspec.Struct):
                    compare(item, written)
        else:
            assert value == found[key] or isinstance(value, dict)


@GENERATED
@given(st.data())
def test_strict_and_lenient_agree(data: st.DataObject) -> None:
    """What strict reading takes, lenient reading takes unchanged; so a folded key is all that is ever dropped."""
    document = json.dumps(respelled(data.draw(spec_documents.configurations()), data))
    with contextlib.suppress(DecodeError):
        assert spec.Spec.decode(document, strict=False) == spec.Spec.decode(document)
