"""Values of a fleet travel unchanged, and refuse nonsense when they are made."""

from __future__ import annotations

import pickle

import msgspec
import pytest

from runc_async import spec
from runc_async.dask import Recipe
from runc_async.dask.values import Demand, demand_of

SPEC = spec.Spec.default().set_args("true").limit_memory("64M").limit_cpu(0.5)


def test_a_recipe_travels() -> None:
    """A recipe is the same after pickling, and after msgspec's encoding; its document is the spec."""
    recipe = Recipe(spec=SPEC, rootfs="/srv/python.tar", sha256="a" * 64, init=True)
    assert pickle.loads(pickle.dumps(recipe)) == recipe  # noqa: S301 - our own
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(recipe), type=Recipe) == recipe
    assert recipe.document() == SPEC
    recipe.document().set_args("false")
    assert recipe.document() == SPEC


def test_a_digest_names_a_recipe() -> None:
    """Equal recipes have one digest; a change of any part gives another."""
    recipe = Recipe(spec=SPEC)
    others = [Recipe(spec=SPEC, rootfs="busybox"), Recipe(spec=SPEC, init=True), Recipe(spec=spec.Spec.default())]
    assert recipe.digest == Recipe(spec=SPEC.encode()).digest
    assert len({recipe.digest, *(other.digest for other in others)}) == 4


def test_the_demand_of_a_recipe() -> None:
    """Limits of the spec are the demand; without a limit it is 0."""
    assert demand_of(Recipe(spec=SPEC)) == Demand(64 << 20, 0.5)
    assert demand_of(Recipe(spec=spec.Spec.default())) == Demand(0, 0.0)
    assert demand_of(Recipe(spec=spec.Spec.default().limit_memory(-1))) == Demand(0, 0.0)
    assert Demand(1, 0.5) + Demand(2, 1.0) == Demand(3, 1.5)
    assert Demand(1, 0.5).fits(Demand(1, 0.5))
    assert not Demand(2, 0.5).fits(Demand(1, 8))


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"rootfs": ""}, ValueError),
        ({"rootfs": "a/b"}, ValueError),
        ({"sha256": "abc"}, ValueError),
        ({"sha256": "A" * 64}, ValueError),
        ({"spec": "text"}, TypeError),
        ({"spec": None}, TypeError),
    ],
)
def test_nonsense_is_refused(arguments: dict[str, object], error: type[Exception]) -> None:
    """A recipe that no node can understand isn't made."""
    with pytest.raises(error):
        Recipe(**{"spec": SPEC, **arguments})  # type: ignore[arg-type]
