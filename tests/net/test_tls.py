"""The TLS transport: the contract, and what strangers can and cannot do to a listener."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import inspect
import resource
import socket
import ssl
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from cryptography import x509

from p2psync.errors import ChannelClosedError, RemoteProtocolError
from p2psync.net.certificate import Certificate
from p2psync.net.channel import Channel
from p2psync.net.tls import TlsListener, dial
from p2psync.net.tlschannel import TlsChannel
from p2psync.protocol.framing import frame
from tests.support.channel_contract import LimitedChannelContract, Pair

HERE = ("127.0.0.1",)
LONG_S = 10.0


class Listening:
    """A listener that keeps the channels it gets."""

    def __init__(self) -> None:
        self.certificate = Certificate()
        self.channels: asyncio.Queue[Channel] = asyncio.Queue()
        self.listener: TlsListener

    async def on_channel(self, channel: Channel) -> None:
        """Keep the channel, and its place until it is admitted or gone."""
        self.channels.put_nowait(channel)
        await asyncio.Event().wait()

    async def dial(self) -> Pair:
        """Return both ends of a new channel."""
        dialled = await dial("127.0.0.1", self.listener.port, LONG_S)
        return dialled, await self.channels.get()


@asynccontextmanager
async def listening(**options: float) -> AsyncIterator[Listening]:
    """Listen on loopback."""
    here = Listening()
    here.listener = await TlsListener.open(
        here.certificate,
        here.on_channel,
        hosts=HERE,
        **options,  # type: ignore[arg-type]  # limits, some of them counts
    )
    try:
        yield here
    finally:
        await here.listener.close()


class TestTls(LimitedChannelContract):
    """The contract, on asyncio's own loop."""

    async def connect(self) -> Pair:
        self.stack = contextlib.AsyncExitStack()
        here = await self.stack.enter_async_context(listening())
        return await here.dial()

    async def disconnect(self) -> None:
        await self.stack.aclose()


CONTRACT = sorted(name for name in dir(TestTls) if name.startswith("test_"))


@pytest.mark.parametrize("name", CONTRACT)
def test_the_contract_holds_on_uvloop(name: str) -> None:
    """The agent runs on another event loop than the tests, where there is one."""

    async def run() -> None:
        contract = TestTls()
        test = getattr(contract, name)
        if "pair" not in inspect.signature(test).parameters:
            await test()
            return
        async with contract.admitted() as pair:
            await test(pair)

    pytest.importorskip("uvloop", reason="uvloop is not for this platform").run(run())


def client_context(**versions: ssl.TLSVersion) -> ssl.SSLContext:
    """Return a context of somebody else's client."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    for name, version in versions.items():
        setattr(context, name, version)
    return context


@contextlib.contextmanager
def raw_connection(port: int) -> Iterator[socket.socket]:
    """Connect without TLS."""
    with socket.create_connection(("127.0.0.1", port), timeout=LONG_S) as connection:
        yield connection


async def closed_by_the_peer(connection: socket.socket) -> bool:
    """Read until the other side closes; say that it did."""

    def read() -> bool:
        with contextlib.suppress(ConnectionError):
            while connection.recv(4096):
                pass
        return True

    return await asyncio.to_thread(read)


async def test_t03_two_listeners_have_two_bindings() -> None:
    """The binding is the listener's certificate: a man in the middle has another."""
    async with listening() as one, listening() as other:
        pairs = [await one.dial(), await other.dial()]
        assert pairs[0][0].binding == one.certificate.fingerprint
        assert pairs[0][0].binding != pairs[1][0].binding


async def test_t03_a_tls_1_2_client_is_refused() -> None:
    """Nothing older than TLS 1.3 is spoken."""
    async with listening() as here:
        old = client_context(maximum_version=ssl.TLSVersion.TLSv1_2)
        with pytest.raises(ssl.SSLError):
            await asyncio.open_connection("127.0.0.1", here.listener.port, ssl=old)
        assert here.channels.empty()


async def test_t03_a_tls_1_2_listener_is_refused() -> None:
    """The dialler speaks nothing older than TLS 1.3 either."""
    context = Certificate().server_context
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    server = await asyncio.start_server(
        lambda reader, writer: None, "127.0.0.1", 0, ssl=context
    )
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(ChannelClosedError):
            await dial("127.0.0.1", port, LONG_S)


async def test_no_session_tickets_are_given() -> None:
    """Nothing of a session outlives it: there is nothing to resume."""
    async with listening() as here:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", here.listener.port, ssl=client_context()
        )
        channel = await here.channels.get()
        await channel.send(b"a ticket would have come before this")
        await reader.readexactly(4)
        tls: ssl.SSLObject = writer.get_extra_info("ssl_object")
        assert tls.version() == "TLSv1.3"
        assert tls.session is None or not tls.session.has_ticket
        writer.transport.abort()


def test_the_certificate_names_nobody() -> None:
    """It has no names, no dates that tell anything and no extensions."""
    one, other = Certificate(), Certificate()
    for certificate in (one.x509, other.x509):
        assert certificate.subject == certificate.issuer == x509.Name([])
        assert len(certificate.extensions) == 0
    assert one.x509.not_valid_before_utc == other.x509.not_valid_before_utc
    assert one.fingerprint != other.fingerprint


async def test_n07_a_silent_connection_is_closed_in_time() -> None:
    """Who connects and says nothing loses its place after the time for strangers."""
    async with listening(timeout_s=0.05) as here:
        with raw_connection(here.listener.port) as connection:
            assert await closed_by_the_peer(connection)
        assert here.channels.empty()


async def test_n07_a_handshake_without_authentication_is_closed_in_time() -> None:
    """TLS alone gives no right to stay."""
    async with listening(timeout_s=0.2) as here:
        dialled, listened = await here.dial()
        with pytest.raises(ChannelClosedError, match="took too long"):
            await listened.receive()
        with pytest.raises(ChannelClosedError):
            await dialled.receive()


async def test_an_admitted_channel_stays() -> None:
    """The time for strangers does not count for peers."""
    async with listening(timeout_s=0.2) as here:
        dialled, listened = await here.dial()
        listened.admit()
        _, other = await here.dial()
        with pytest.raises(ChannelClosedError):  # the same time, for the stranger
            await other.receive()
        await dialled.send(b"still here")
        assert await listened.receive() == b"still here"
        await asyncio.gather(dialled.close(), listened.close())


async def test_t10_a_slow_loris_is_closed_in_time() -> None:
    """A handshake that trickles in byte by byte is over when the time is."""
    async with listening(timeout_s=0.2) as here:
        reader, writer = await asyncio.open_connection("127.0.0.1", here.listener.port)

        async def trickle() -> None:
            for byte in b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc" * 100:
                writer.write(bytes([byte]))
                await asyncio.sleep(0.01)

        trickling = asyncio.create_task(trickle())
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        assert not trickling.done()
        trickling.cancel()
        writer.transport.abort()


async def test_t10_one_address_cannot_take_all_places() -> None:
    """A stranger beyond the share of its address is refused, and served when one has gone."""
    async with listening(places_per_address=3) as here:
        pairs = [await here.dial() for _ in range(3)]
        with raw_connection(here.listener.port) as connection:
            assert await closed_by_the_peer(connection)
        await asyncio.gather(*(channel.close() for channel in pairs[0]))
        assert await here.dial()


async def test_t10_the_65th_stranger_is_refused() -> None:
    """No more than the places there are; an admitted peer holds none."""
    async with listening(places_per_address=1_000) as here:
        pairs = [await here.dial() for _ in range(64)]
        with pytest.raises(ChannelClosedError):
            await dial("127.0.0.1", here.listener.port, LONG_S)
        pairs[0][1].admit()
        assert await here.dial()


async def test_t10_the_listener_survives_running_out_of_descriptors() -> None:
    """When no descriptor is left connections wait, and are taken when there are some again."""
    async with listening() as here:
        with raw_connection(here.listener.port):
            pass
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        probe = socket.socket()
        port = here.listener.port
        waiting = socket.socket()
        waiting.setblocking(False)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (probe.fileno() + 1, hard))
            held = []
            with contextlib.suppress(OSError):
                while True:
                    held.append(socket.socket())
            assert waiting.connect_ex(("127.0.0.1", port)) in (0, errno.EINPROGRESS)
            while not here.listener.paused:  # noqa: ASYNC110 - there is no event to wait for
                await asyncio.sleep(0.001)
        finally:
            for connection in (probe, *held):
                connection.close()
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert await here.dial()
        waiting.close()


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00\x00\x00\x00",
        b"\xff\xff\xff\xff",
        (0x80000000 | 5 * 1024 * 1024).to_bytes(4, "big"),
        (2 * 1024 * 1024).to_bytes(4, "big"),
    ],
)
async def test_t10_what_is_no_frame_closes_the_channel(garbage: bytes) -> None:
    """A peer that breaks the framing is told apart from one that goes away."""
    async with listening() as here:
        _, writer = await asyncio.open_connection(
            "127.0.0.1", here.listener.port, ssl=client_context()
        )
        channel = await here.channels.get()
        channel.admit()
        writer.write(frame(b"first"))
        assert await channel.receive() == b"first"
        writer.write(garbage + bytes(10_000))
        with pytest.raises(RemoteProtocolError):
            await channel.receive()
        writer.transport.abort()


async def test_bytes_that_are_no_tls_close_the_channel() -> None:
    """Somebody on the path can end a channel, and nothing else."""
    async with listening() as here:
        with raw_connection(here.listener.port) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert await closed_by_the_peer(connection)
        assert here.channels.empty()


async def test_n11_frames_split_at_every_byte_arrive() -> None:
    """How TCP cuts the stream changes nothing."""
    async with listening() as here:
        _, writer = await asyncio.open_connection(
            "127.0.0.1", here.listener.port, ssl=client_context()
        )
        channel = await here.channels.get()
        sent = [b"a", b"bc", b"def" * 20]
        for byte in b"".join(map(frame, sent)):
            writer.write(bytes([byte]))
            await asyncio.sleep(0)
        assert [await channel.receive() for _ in sent] == sent
        writer.transport.abort()


async def test_a_connection_that_is_cut_is_not_one_that_ended() -> None:
    """The reason tells whether the peer closed or somebody cut the wire."""
    async with listening() as here:
        dialled, listened = await here.dial()
        await dialled.close()
        with pytest.raises(ChannelClosedError, match="closed by the peer"):
            await listened.receive()
        dialled, listened = await here.dial()
        dialled.abort("cut")
        with pytest.raises(ChannelClosedError, match="connection"):
            await listened.receive()


async def test_a_handler_that_fails_closes_its_channel_only() -> None:
    """One connection's trouble ends that connection; the listener goes on."""

    async def refuse(channel: Channel) -> None:
        raise RemoteProtocolError("nobody we know")

    listener = await TlsListener.open(Certificate(), refuse, hosts=HERE)
    for _ in range(2):
        channel = await dial("127.0.0.1", listener.port, LONG_S)
        with pytest.raises(ChannelClosedError):
            await channel.receive()
    await listener.close()


async def test_listens_on_ipv4_and_ipv6_at_one_port() -> None:
    """By default every address of the machine is served, and printed as people know it."""
    here = Listening()
    here.listener = await TlsListener.open(here.certificate, here.on_channel)
    hosts = ["127.0.0.1"]
    with contextlib.suppress(OSError), socket.create_server(("::1", 0), family=socket.AF_INET6):
        hosts.append("::1")
    for host in hosts:
        dialled = await dial(host, here.listener.port, LONG_S)
        listened = await here.channels.get()
        assert listened.address.startswith("127.0.0.1:" if host == "127.0.0.1" else "[::1]:")
        assert dialled.address.endswith(f":{here.listener.port}")
    await here.listener.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "not an address", "fe80::1%nope"])
async def test_a_dial_that_finds_nobody_says_so(host: str) -> None:
    """Refused, no address at all, or a name, for which nobody is asked: one kind of error."""
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with pytest.raises(ChannelClosedError):
        await dial(host, port, LONG_S)


async def test_a_dial_gives_up_in_time() -> None:
    """A listener that accepts and never answers does not hold the dialler."""
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(ChannelClosedError, match="nobody answered"),
    ):
        await dial("127.0.0.1", silent.getsockname()[1], 0.05)


async def test_a_cancelled_dial_leaves_nothing_open() -> None:
    """Losing a race closes the socket at once."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        dialling = asyncio.create_task(dial("127.0.0.1", silent.getsockname()[1], LONG_S))
        connection, _ = await asyncio.to_thread(silent.accept)
        connection.settimeout(LONG_S)
        dialling.cancel()
        assert await closed_by_the_peer(connection)
        connection.close()


async def test_n02_tcp_itself_notices_a_dead_peer() -> None:
    """Both ends ask for probes and bound how long sent bytes may stay unacknowledged."""
    async with listening() as here:
        for channel in await here.dial():
            assert isinstance(channel, TlsChannel)
            assert channel._socket is not None
            wire = channel._socket.get_extra_info("socket")
            options = [
                wire.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
                wire.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY),
                wire.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT),
            ]
            assert all(options)


async def test_the_kernels_bbr_is_used_where_we_may() -> None:
    """Both ends set it, or neither may; a kernel without it does no harm."""
    with socket.socket() as probe:
        try:
            probe.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"bbr")
        except OSError:
            pytest.skip("no BBR for us in this kernel")
    async with listening() as here:
        for channel in await here.dial():
            assert channel._socket is not None
            wire = channel._socket.get_extra_info("socket")
            name = wire.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
            assert name.rstrip(b"\0") == b"bbr"


async def test_t10_a_stranger_costs_little_memory() -> None:
    """A connection that has not said anything useful holds at most 64 KiB of ours."""
    async with listening(places_per_address=64) as here:
        pairs = [await here.dial()]  # what is made once
        gc.collect()
        tracemalloc.start()
        for _ in range(20):
            pairs.append(await here.dial())
        gc.collect()
        both_ends, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert both_ends / 20 < 2 * 64 * 1024
