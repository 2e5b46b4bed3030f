"""Meeting on the local network: announce, browse and mailboxes; knows nothing of p2psync.

    mdns          `Lan`: announces services and browses for them on every interface
    registration  one announced service
    browser       one browse: a bounded view of one service type
    asker         the questions for one service type
    guard         bounds what strangers' records cost
    records       what a browse tells, and the order of addresses; pure
    mailbox       `MdnsMailbox`: messages between hosts that cannot connect
    interfaces    which interfaces multicast, and when that changes

Asyncio, one event loop, zeroconf inside. Whatever is received is a claim of whoever sent it;
every queue, view and cache is bounded. Other ways of meeting get modules of their own.
"""
