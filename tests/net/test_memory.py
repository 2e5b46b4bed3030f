"""The memory transport."""

from __future__ import annotations

from p2psync.net.memory import memory_pair
from tests.support.channel_contract import MIB, ChannelContract, Pair


class TestMemory(ChannelContract):
    """The contract."""

    most_on_the_way = 2 * MIB

    async def connect(self) -> Pair:
        return memory_pair()


async def test_every_pair_has_a_binding_of_its_own() -> None:
    """What was proven on one channel means nothing on another."""
    assert memory_pair()[0].binding != memory_pair()[0].binding
