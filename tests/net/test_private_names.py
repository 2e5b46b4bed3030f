"""The private names of aiortc and aioice this program relies on: fails here when they move."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest
from aioice.ice import Connection, StunProtocol
from aiortc import (
    RTCDataChannel,
    RTCDtlsTransport,
    RTCIceGatherer,
    RTCIceTransport,
    RTCSctpTransport,
)

from p2psync.net.webrtc.fast import FastDtls, FastSctp, missing
from p2psync.net.webrtc.ice import GuardedConnection, GuardedSocket
from p2psync.net.webrtc.sctp import GuardedSctp
from p2psync.net.webrtc.stack import best

OVERRIDDEN = [
    (GuardedSocket, StunProtocol, "datagram_received"),
    (GuardedConnection, Connection, "data_received"),
    (GuardedConnection, Connection, "get_component_candidates"),
    (GuardedSctp, RTCSctpTransport, "_handle_data"),
    (GuardedSctp, RTCSctpTransport, "_receive"),
    (GuardedSctp, RTCSctpTransport, "_receive_data_chunk"),
    (GuardedSctp, RTCSctpTransport, "_receive_forward_tsn_chunk"),
    (GuardedSctp, RTCSctpTransport, "_receive_sack_chunk"),
    (FastSctp, RTCSctpTransport, "_data_channel_send"),
    (FastSctp, RTCSctpTransport, "_handle_data"),
    (FastSctp, RTCSctpTransport, "_receive_chunk"),
    (FastSctp, RTCSctpTransport, "_receive_data_chunk"),
    (FastSctp, RTCSctpTransport, "_receive_sack_chunk"),
    (FastSctp, RTCSctpTransport, "_set_state"),
    (FastDtls, RTCDtlsTransport, "_recv_next"),
]


@pytest.mark.parametrize(("ours", "theirs", "name"), OVERRIDDEN)
def test_what_we_override_is_still_there(ours: type, theirs: type, name: str) -> None:
    """An override that overrides nothing would silently guard nothing."""
    mine, original = getattr(ours, name), getattr(theirs, name)
    assert mine is not original
    names = [list(inspect.signature(f).parameters) for f in (mine, original)]
    assert names[0] == names[1]
    assert inspect.iscoroutinefunction(mine) == inspect.iscoroutinefunction(original)


def test_what_we_override_is_what_they_call() -> None:
    """The paths of a datagram, a chunk and a SACK lead through the methods we override."""
    calls = [
        (StunProtocol.datagram_received, "self.receiver.data_received"),
        (Connection.gather_candidates, "self.get_component_candidates"),
        (Connection.data_received, "self._queue.put_nowait"),
        (RTCSctpTransport._receive_chunk, "self._receive_data_chunk"),
        (RTCSctpTransport._receive_chunk, "self._receive_forward_tsn_chunk"),
        (RTCSctpTransport._receive_chunk, "self._receive_sack_chunk"),
        (RTCSctpTransport._receive_data_chunk, "self._receive("),
        (RTCSctpTransport._handle_data, "self._receive_chunk"),
        (RTCDataChannel.send, "self.transport._data_channel_send"),
        (RTCDtlsTransport._recv_next, "self._data_receiver._handle_data"),
        (RTCIceTransport.__init__, "gatherer._connection"),
    ]
    for function, call in calls:
        assert call in inspect.getsource(function), call


async def test_what_we_read_and_write_is_still_there() -> None:
    """Attributes used from outside exist before we touch them."""
    gatherer = RTCIceGatherer(iceServers=[])
    assert hasattr(gatherer, "_connection")
    for name in ("_protocols", "_queue", "_remote_candidates", "_nominated"):
        assert hasattr(gatherer._connection, name), name
    assert hasattr(StunProtocol(gatherer._connection), "id")
    dtls = RTCDtlsTransport.__init__
    assert "self._task" in inspect.getsource(dtls)
    source = inspect.getsource(RTCSctpTransport)
    for name in (
        "_advertised_rwnd",
        "_association_state",
        "_last_received_tsn",
        "_local_tsn",
        "_local_verification_tag",
        "_remote_verification_tag",
        "_sent_queue",
    ):
        assert f"self.{name}" in source, name
    assert "self._ssl.recv" in inspect.getsource(RTCDtlsTransport)
    assert missing() == []
    assert best().sctp is FastSctp


MOVED = {
    "a class": "del rtcsctptransport.HeartbeatAckChunk",
    "a method": (
        "RTCSctpTransport._channel_send = RTCSctpTransport._data_channel_send;"
        "del RTCSctpTransport._data_channel_send;"
        "RTCDataChannel.send = lambda self, data: self.transport._channel_send(self, data)"
    ),
}
TRANSFER = """
import asyncio, os
from aiortc import RTCDataChannel, RTCSctpTransport, rtcsctptransport
MOVED
from p2psync.net.webrtc.stack import PLAIN, best
from p2psync.net.certificate import Certificate
from p2psync.net.webrtc import WebRtcEnd

async def transfer():
    assert best() == PLAIN
    ends = [
        WebRtcEnd(Certificate(), offering=offering, addresses=["127.0.0.1"])
        for offering in (True, False)
    ]
    signals = [await end.gather() for end in ends]
    one, other = await asyncio.gather(
        ends[0].connect(signals[1], 20), ends[1].connect(signals[0], 20)
    )
    one.admit()
    other.admit()
    message = os.urandom(500_000)
    await one.send(message)
    assert await other.receive() == message
    await asyncio.gather(one.close(), other.close())

asyncio.run(transfer())
"""


@pytest.mark.slow
@pytest.mark.parametrize("moved", MOVED.values(), ids=MOVED.keys())
def test_where_a_name_has_moved_aiortcs_own_layers_carry_the_channel(moved: str) -> None:
    """An update of aiortc may make WebRTC slow, and not break it."""
    program = TRANSFER.replace("MOVED", moved)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "WebRTC will be slow" in done.stderr


def test_aiortc_is_imported_only_when_it_is_needed() -> None:
    """Everything that an agent on a LAN needs loads without the 30 MB of aiortc and PyAV."""
    modules = "tls, dial, signalling, pairwire, handshake, memory, lan, registry"
    program = (
        f"from p2psync.net import {modules}; import sys;"
        "sys.exit(any(m.partition('.')[0] in ('aiortc', 'aioice', 'av') for m in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
