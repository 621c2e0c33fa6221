"""A real runtime does what the structs say, whatever document they came from."""

# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false, reportUnknownParameterType=false

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import proof
import pytest
from hypothesis import HealthCheck, Phase, given, settings, strategies as st
from runtime import has_controller, is_cgroup2

from runc_async import Bundle, spec

if TYPE_CHECKING:
    from proof import Tried
    from runtime import Runtime

    from runc_async.client import Runc

pytestmark = pytest.mark.runc

GENERATED = settings(
    max_examples=proof.amount(25, 5),
    database=None,
    phases=[Phase.generate],  # a smaller example isn't worth the minutes
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
LIMIT = "/sys/fs/cgroup/memory/memory.limit_in_bytes"
SCRIPT = f"echo \"$0\"; id -u; id -g; awk '/CapEff|CapBnd|NoNewPrivs/ {{ print $2 }}' /proc/self/status; cat {LIMIT}"
CAPABILITIES = {"CAP_CHOWN": 0, "CAP_KILL": 5, "CAP_SETUID": 7, "CAP_NET_RAW": 13, "CAP_SYS_CHROOT": 18}

# What a key may be respelled to: the same for Go's decoder.
FOLDS = {"s": "sS\u017f", "k": "kK\u212a"}


def spellings(key: str) -> st.SearchStrategy[str]:
    """Spell a key so that a runtime takes it for the same."""
    letters = [st.sampled_from(FOLDS.get(letter.lower(), letter.lower() + letter.upper())) for letter in key]
    return st.tuples(*letters).map("".join)


capabilities = st.lists(st.sampled_from(sorted(CAPABILITIES)), unique=True)
numbers = st.integers(0, 60_000)
limits = st.integers(32, 4096).map(lambda mebibytes: mebibytes << 20)


@st.composite
def processes(draw: st.DrawFn) -> dict[str, Any]:
    """Make a process that shows what it is, as plain values."""
    held = draw(capabilities)
    return {
        "cwd": "/",
        "env": ["PATH=/bin"],
        "args": ["sh", "-c", SCRIPT, draw(st.text("abc", min_size=1, max_size=5))],
        "user": {"uid": draw(numbers), "gid": draw(numbers)},
        "capabilities": {"bounding": held, "effective": held, "permitted": held},
        "noNewPrivileges": draw(st.booleans()),
    }


@st.composite
def respelled(draw: st.DrawFn, value: Any, other: Any) -> Any:
    """Add other spellings of keys to a document, with the values that another document has there."""
    if not isinstance(value, dict):
        return value
    items: list[tuple[str, Any]] = []
    for key, item in value.items():
        theirs = other.get(key) if isinstance(other, dict) else None
        items.append((key, draw(respelled(item, theirs))))
        spelling = draw(spellings(key))
        if spelling != key and draw(st.booleans()):
            items.append((spelling, theirs))
    return dict(draw(st.permutations(items)))


def expected(process: spec.Process, limit: int) -> list[str]:
    """Tell what a process prints that is as its struct says."""
    assert process.args
    assert process.user
    assert process.capabilities
    held = sum(1 << CAPABILITIES[name] for name in process.capabilities.bounding or [])
    effective = held if process.user.uid == 0 else 0
    words = [process.args[-1], process.user.uid, process.user.gid, f"{effective:016x}", f"{held:016x}"]
    return [*map(str, words), str(int(bool(process.no_new_privileges))), str(limit)]


@pytest.fixture(autouse=True)
def judge(runtime: Runtime) -> None:
    """Skip where a container's memory limit can't be seen, or keys are another library's to look up."""
    if runtime.is_crun or is_cgroup2() or not has_controller("memory"):
        pytest.skip("needs a runtime in Go, and the memory controller of cgroup v1")


@GENERATED
@given(st.data())
@pytest.mark.needs("host kernel")
def test_a_container_is_as_its_spec_says(client: Runc, tried: Tried, data: st.DataObject) -> None:
    """Arguments, user, capabilities and memory limit of a container are those of `Spec`, opened from any document."""
    mine, theirs, limit, other = data.draw(st.tuples(processes(), processes(), limits, limits))

    async def run() -> None:
        async with Bundle.busybox(["true"]) as made:
            made.path.chmod(0o755)
            document = made.spec.to_builtins()
            document["process"] = mine
            document["linux"]["resources"]["memory"] = {"limit": limit}
            foreign = json.loads(json.dumps(document))
            foreign["process"] = theirs
            foreign["linux"]["resources"]["memory"] = {"limit": other}
            (made.path / "config.json").write_text(json.dumps(data.draw(respelled(document, foreign))))
            bundle = await Bundle.open(made.path, strict=False)
            assert bundle.spec.process
            response = await client.run("documented", bundle)
            assert response.output.split() == expected(bundle.spec.process, limit), response
            bundle.spec.limit_memory(other).set_user(1, 2).set_args("sh", "-c", SCRIPT, "changed")
            response = await client.run("documented", bundle)
            assert response.output.split() == expected(bundle.spec.process, other), response
            assert bundle.spec.process.args == ["sh", "-c", SCRIPT, "changed"]

    asyncio.run(run())
    tried("documents, judged by a runtime", 2)


@GENERATED
@given(st.data())
def test_what_is_given_to_a_running_container_is_as_its_struct_says(
    client: Runc, tried: Tried, data: st.DataObject
) -> None:
    """So are those of an `exec` of any process document, and the limits after an `update` of any resources."""
    mine, theirs, limit, other = data.draw(st.tuples(processes(), processes(), limits, limits))

    async def run() -> None:
        async with Bundle.busybox(["sleep", "100"]) as bundle:
            bundle.path.chmod(0o755)
            bundle.spec.process = spec.Process(cwd="/", env=["PATH=/bin"], args=["sleep", "100"])
            bundle.spec.add_capabilities(*CAPABILITIES)
            async with client.open_container("documented", bundle, grace=0) as container:
                process = spec.Process.decode(json.dumps(data.draw(respelled(mine, theirs))), strict=False)
                process.user = spec.User(uid=theirs["user"]["gid"], gid=7)
                memory, foreign = {"memory": {"limit": limit}}, {"memory": {"limit": other}}
                text = json.dumps(data.draw(respelled(memory, foreign)))
                await container.update(spec.LinuxResources.decode(text, strict=False))
                response = await container.exec(process)
                assert response.output.split() == expected(process, limit), response

    asyncio.run(run())
    tried("documents, judged by a runtime", 2)
