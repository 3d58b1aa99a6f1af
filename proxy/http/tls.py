"""TLS of the proxy's front, and between a front and its nodes."""

from __future__ import annotations

import ssl

from dlbench.proxy.errors import StartError


def tls_context(cert: str, key: str, client_ca: str) -> ssl.SSLContext | None:
    """A server's context from PEM files; None without `cert`: plain TCP.

    TLS 1.2 or later with Python's choice of ciphers; with `client_ca` only clients come in whose
    certificate one of those authorities has signed.

    Raises:
        StartError: an option is missing, a file cannot be read, or key and certificate do not match.
    """
    if not cert:
        _need_no_more(key, client_ca)
        return None
    if not key:
        raise StartError("--tls-cert needs the certificate's key; add --tls-key FILE")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    _load_pair(context, cert, key)
    if client_ca:
        context.verify_mode = ssl.CERT_REQUIRED
        _load_authorities(context, client_ca, "--tls-client-ca")
    return context


def node_context(ca: str) -> ssl.SSLContext | None:
    """A client's context that trusts nodes signed by these authorities alone; None: plain TCP.

    Raises:
        StartError: the file cannot be read.
    """
    if not ca:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    _load_authorities(context, ca, "--node-tls-ca")
    return context


def _need_no_more(key: str, client_ca: str) -> None:
    for option, value in (("--tls-key", key), ("--tls-client-ca", client_ca)):
        if value:
            raise StartError(f"{option} needs a certificate; add --tls-cert FILE")


def _load_pair(context: ssl.SSLContext, cert: str, key: str) -> None:
    for option, path in (("--tls-cert", cert), ("--tls-key", key)):
        _need_readable(option, path)
    try:
        context.load_cert_chain(cert, key, password=_no_password)
    except ssl.SSLError as error:
        raise StartError(_wrong_pair(cert, key, error)) from None


def _load_authorities(context: ssl.SSLContext, path: str, option: str) -> None:
    _need_readable(option, path)
    try:
        context.load_verify_locations(path)
    except ssl.SSLError as error:
        raise StartError(f"{option} {path}: no PEM certificates ({_reason(error)})") from None


def _need_readable(option: str, path: str) -> None:
    try:
        with open(path, "rb"):
            pass
    except OSError as error:
        raise StartError(f"{option} {path}: {error.strerror}") from None


def _no_password() -> str:
    raise StartError("--tls-key is encrypted; use an unencrypted key")


def _wrong_pair(cert: str, key: str, error: ssl.SSLError) -> str:
    if error.reason == "KEY_VALUES_MISMATCH":
        return f"--tls-key {key} is not the key of --tls-cert {cert}"
    return f"--tls-cert {cert} and --tls-key {key}: not a PEM certificate and its key ({_reason(error)})"


def _reason(error: ssl.SSLError) -> str:
    return (error.reason or str(error)).lower().replace("_", " ")
