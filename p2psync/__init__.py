"""p2psync keeps folders equal on any number of devices, peer to peer."""

__version__ = "0.1.0"
