"""The certificate of this process: made at start, named after nobody, verified by nobody.

It only carries a key for the encryption; who is at the other end is proven inside the channel
by `protocol.auth`, which binds its proof to the SHA-256 of this certificate.
"""

from __future__ import annotations

import datetime
import functools
import hashlib
import os
import secrets
import ssl
import tempfile
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

# the same everywhere and for ever: dates would tell when the process started
_NOT_BEFORE: Final = datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)
_NOT_AFTER: Final = datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=datetime.UTC)


class Certificate:
    """A self-signed P-256 certificate without names, and its key."""

    def __init__(self) -> None:
        """Make a new key and certificate."""
        self.key = ec.generate_private_key(ec.SECP256R1())
        nobody = x509.Name([])
        self.x509 = (
            x509.CertificateBuilder()
            .subject_name(nobody)
            .issuer_name(nobody)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(_NOT_BEFORE)
            .not_valid_after(_NOT_AFTER)
            .sign(self.key, hashes.SHA256())
        )
        self.fingerprint = fingerprint(self.x509.public_bytes(serialization.Encoding.DER))

    @functools.cached_property
    def server_context(self) -> ssl.SSLContext:
        """TLS 1.3 and nothing else, no session tickets, no question for a certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.num_tickets = 0
        _load(context, self)
        return context


def fingerprint(der: bytes) -> bytes:
    """Return the SHA-256 of a certificate in DER, 32 bytes."""
    return hashlib.sha256(der).digest()


@functools.cache
def process_certificate() -> Certificate:
    """Return the one certificate of this process."""
    return Certificate()


@functools.cache
def client_context() -> ssl.SSLContext:
    """Return the dialling side's context: TLS 1.3 only, no name sent, nothing verified."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _load(context: ssl.SSLContext, certificate: Certificate) -> None:
    # ssl reads certificates from files only; the key in this one is encrypted, so that no
    # copy of it stays on a disk
    password = secrets.token_bytes(16).hex().encode()
    pem = certificate.x509.public_bytes(serialization.Encoding.PEM)
    pem += certificate.key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(password),
    )
    descriptor, path = tempfile.mkstemp(suffix=".pem")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem)
        context.load_cert_chain(path, password=password)
    finally:
        os.unlink(path)
