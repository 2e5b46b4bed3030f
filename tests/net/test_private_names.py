"""The private names of aiortc and aioice this program relies on: fails here when they move."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest
from aioice.ice import Connection, StunProtocol
from aiortc import RTCDtlsTransport, RTCIceGatherer, RTCIceTransport, RTCSctpTransport
from aiortc.rtcsctptransport import DataChunk

from p2psync.net.webrtc.ice import GuardedConnection, GuardedSocket
from p2psync.net.webrtc.sctp import GuardedSctp

OVERRIDDEN = [
    (GuardedSocket, StunProtocol, "datagram_received"),
    (GuardedConnection, Connection, "data_received"),
    (GuardedConnection, Connection, "get_component_candidates"),
    (GuardedSctp, RTCSctpTransport, "_receive"),
    (GuardedSctp, RTCSctpTransport, "_receive_data_chunk"),
    (GuardedSctp, RTCSctpTransport, "_receive_forward_tsn_chunk"),
    (GuardedSctp, RTCSctpTransport, "_receive_sack_chunk"),
    (GuardedSctp, RTCSctpTransport, "_send_sack"),
    (GuardedSctp, RTCSctpTransport, "_t3_expired"),
    (GuardedSctp, RTCSctpTransport, "_transmit"),
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
        (RTCSctpTransport._handle_data, "self._send_sack"),
        (RTCSctpTransport._receive_sack_chunk, "self._transmit()"),
        (RTCSctpTransport._t3_start, "self._t3_expired"),
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
        "_cwnd",
        "_fast_recovery_exit",
        "_flight_size_increase",
        "_forward_tsn_chunk",
        "_get_inbound_stream",
        "_last_received_tsn",
        "_outbound_queue",
        "_sack_duplicates",
        "_sack_misordered",
        "_sack_needed",
        "_sent_queue",
        "_t3_handle",
        "_t3_start",
    ):
        assert f"self.{name}" in source, name
    assert DataChunk().tsn == 0


def test_aiortc_is_imported_only_when_it_is_needed() -> None:
    """Everything that an agent on a LAN needs loads without the 30 MB of aiortc and PyAV."""
    modules = "tls, dial, signalling, pairwire, handshake, memory, lan, registry"
    program = (
        f"from p2psync.net import {modules}; import sys;"
        "sys.exit(any(m.partition('.')[0] in ('aiortc', 'aioice', 'av') for m in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
