"""What a client shows and what it trusts: the bearer token and the TLS context of a load."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import TYPE_CHECKING

from dlbench.loadgen.errors import TargetError

if TYPE_CHECKING:
    from dlbench.loadgen.profile import LoadProfile


def bearer_token(profile: LoadProfile) -> str:
    """The token that every request carries; empty without one. Raises TargetError."""
    if not profile.token_file:
        return ""
    try:
        token = Path(profile.token_file).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise TargetError(f"--token-file {profile.token_file}: {error}") from None
    if not token or len(token.split()) > 1:
        raise TargetError(f"--token-file {profile.token_file} must contain exactly one token")
    return token


def tls_context(profile: LoadProfile) -> ssl.SSLContext:
    """Trusts the system's authorities, those of `tls_ca` instead, or everybody. Raises TargetError."""
    try:
        context = ssl.create_default_context(cafile=profile.tls_ca)
    except (OSError, ssl.SSLError) as error:
        raise TargetError(f"--tls-ca {profile.tls_ca}: {error}") from None
    if profile.tls_insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
