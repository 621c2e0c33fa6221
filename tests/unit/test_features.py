"""What a runtime can do and which one it is."""

from __future__ import annotations

import json
from typing import Any

import pytest
from mirror import differences
from recorded import cases

from runc_async._answers.decode import decode_features, decode_version
from runc_async.features import Features, LinuxFeatures, Version

# All that runtime-spec 1.3.0 has and the recordings haven't.
FULL: dict[str, Any] = {
    "ociVersionMin": "1.0.0",
    "ociVersionMax": "1.3.0",
    "hooks": ["prestart"],
    "mountOptions": ["ro"],
    "linux": {
        "namespaces": ["time"],
        "capabilities": ["CAP_CHOWN"],
        "cgroup": {"v1": True, "v2": False, "systemd": True, "systemdUser": False, "rdma": True},
        "seccomp": {
            "enabled": True,
            "actions": ["SCMP_ACT_LOG"],
            "operators": ["SCMP_CMP_EQ"],
            "archs": ["SCMP_ARCH_X86_64"],
            "knownFlags": ["SECCOMP_FILTER_FLAG_LOG"],
            "supportedFlags": [],
        },
        "apparmor": {"enabled": True},
        "selinux": {"enabled": False},
        "intelRdt": {"enabled": True, "schemata": True, "monitoring": False},
        "memoryPolicy": {"modes": ["MPOL_BIND"], "flags": ["MPOL_F_STATIC_NODES"]},
        "mountExtensions": {"idmap": {"enabled": True}},
        "netDevices": {"enabled": False},
    },
    "annotations": {"org.opencontainers.runc.version": "1.4.3"},
    "potentiallyUnsafeConfigAnnotations": ["org.criu."],
}


def version(case: str) -> Version:
    """Decode the recorded `--version` of a runtime."""
    (answer,) = cases(f"{case}-*", "version")[:1]
    return decode_version(answer.stdout.encode())


def test_every_field_of_the_spec_is_there() -> None:
    """All keys of features.md and features-linux.md are attributes of the same name in snake_case."""
    assert differences(FULL, decode_features(json.dumps(FULL).encode())) == []


def test_what_is_not_told_is_none() -> None:
    """A feature that the runtime says nothing of is None, on each level, and an empty list stays one."""
    least = decode_features(b'{"ociVersionMin":"1.0.0","ociVersionMax":"1.0.0"}')
    assert least == Features(oci_version_min="1.0.0", oci_version_max="1.0.0")
    assert (least.hooks, least.mount_options, least.linux) == (None, None, None)
    assert least.annotations == {}
    some = decode_features(b'{"ociVersionMin":"","ociVersionMax":"","hooks":[],"linux":{"seccomp":null}}')
    assert some.hooks == []
    assert some.linux == LinuxFeatures()


def test_the_line_break_of_runcs_version_is_taken_off() -> None:
    """The version annotation of runc 1.3 and 1.4 has no line break at its end, as that of the others."""
    (old, _, new) = (cases(name, "features")[0] for name in ("runc-1.1.5-v1", "runc-1.2.9-*", "runc-1.3.6-v1"))
    key = "org.opencontainers.runc.version"
    assert json.loads(new.stdout)["annotations"][key] == "1.3.6\n"
    assert decode_features(new.stdout.encode()).annotations[key] == "1.3.6"
    assert decode_features(old.stdout.encode()).annotations[key] == "1.1.5+ds1"


def test_runcs_version_is_read() -> None:
    """The lines of Debian's runc are in the attributes of their names."""
    debian = version("runc-1.1.5")
    assert debian == Version(
        runtime="runc",
        version="1.1.5+ds1",
        commit="1.1.5+ds1-1+deb12u1",
        spec="1.0.2-dev",
        go="go1.19.8",
        libseccomp="2.5.4",
        raw=debian.raw,
    )
    assert debian.raw.startswith("runc version 1.1.5+ds1\ncommit: ")


def test_cruns_version_is_read() -> None:
    """There is neither Go nor a line for libseccomp in what crun prints."""
    crun = version("crun-1.28")
    assert (crun.runtime, crun.version, crun.number) == ("crun", "1.28", (1, 28))
    assert (crun.commit, crun.spec) == ("54f16ffbefcd022bf032af768b5c5ce075c18bfc", "1.0.0")
    assert (crun.go, crun.libseccomp) == (None, None)
    assert "+SYSTEMD" in crun.raw


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1.1.5+ds1", (1, 1, 5)),
        ("1.28", (1, 28)),
        ("1.3.0-rc.1", (1, 3, 0)),
        ("1.21.0.0.3-abc", (1, 21, 0, 0, 3)),
        ("2", (2,)),
        ("UNKNOWN", ()),
        ("9" * 5000, (999_999_999,)),
    ],
)
def test_the_number_is_what_the_version_begins_with(text: str, number: tuple[int, ...]) -> None:
    """The leading numbers are a tuple to compare with; a version without any has an empty one."""
    assert decode_version(f"runc version {text}\n".encode()).number == number


def test_versions_compare_by_number() -> None:
    """1.1.15 is newer than 1.1.5, which comparing text would get wrong."""
    assert version("runc-1.1.15").number > version("runc-1.1.5").number >= (1, 1)
    assert version("runc-1.3.6").number < (1, 4)


def test_a_line_without_a_value_is_not_told() -> None:
    """A runc that was built without a commit doesn't take the next line for one."""
    plain = decode_version(b"runc version 1.1.5\ncommit: \nspec: 1.0.2-dev\nnew: thing\n")
    assert (plain.commit, plain.spec, plain.go) == (None, "1.0.2-dev", None)
