"""The conversation between devices as pure machines: bytes in, events and bytes out."""
