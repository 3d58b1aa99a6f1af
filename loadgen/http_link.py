"""The conversation in which an HTTP server says what it serves, before any load."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import httpx

from dlbench.loadgen.credentials import bearer_token, tls_context
from dlbench.loadgen.encode import headers
from dlbench.loadgen.errors import TargetError

if TYPE_CHECKING:
    from dlbench.loadgen.encode import Body
    from dlbench.loadgen.location import Location
    from dlbench.loadgen.profile import LoadProfile
    from dlbench.loadgen.target import Target

TIMEOUT_S = 10.0
REFUSAL_LENGTH = 300


class HttpLink:
    """A context manager; what goes wrong is a TargetError in one line."""

    def __init__(self, location: Location, profile: LoadProfile) -> None:
        token = bearer_token(profile)
        self.base = location.base
        self._profile = profile
        self._http = httpx.Client(
            base_url=location.base,
            timeout=TIMEOUT_S,
            trust_env=False,
            verify=tls_context(profile) if location.base.startswith("https") else False,
            headers={"Authorization": f"Bearer {token}"} if token else None,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def send(self, method: str, path: str, **content: Any) -> httpx.Response:  # noqa: ANN401
        """The reply, whatever its status."""
        try:
            return self._http.request(method, path, **content)
        except httpx.TimeoutException:
            raise TargetError(f"{self.base} does not answer within {TIMEOUT_S:g} s") from None
        except httpx.RemoteProtocolError as error:
            raise TargetError(f"{self.base} does not answer in HTTP: {error}") from None
        except httpx.TransportError as error:
            raise TargetError(f"cannot reach {self.base}: {error}{_advice(error)}") from None

    def ask(self, path: str, speaker: str) -> dict[str, Any]:
        """A JSON object; `speaker` says what a server is that has one here."""
        response = self.send("GET", path)
        body = json_of(response)
        if response.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            raise TargetError(
                f"{self.base} wants a token (status {response.status_code}"
                f"{detail(body)}); name its file with --token-file"
            )
        if response.status_code != httpx.codes.OK or not isinstance(body, dict):
            raise TargetError(
                f"{self.base} answers, but not as {speaker} "
                f"(GET {path} gave {response.status_code}{detail(body)})"
            )
        return body

    def refusal(self, target: Target, body: Body) -> str:
        """Why the server does not run one request; empty: it does."""
        response = self.send(
            "POST", target.path, content=body.content, headers=headers(self._profile, body)
        )
        if response.status_code == httpx.codes.OK:
            return ""
        text = f"status {response.status_code}{detail(json_of(response))}"
        return text.splitlines()[0][:REFUSAL_LENGTH]


def json_of(response: httpx.Response) -> Any:  # noqa: ANN401 - any JSON
    """The body's JSON; None if it is none."""
    try:
        return response.json()
    except ValueError:
        return None


def detail(body: Any) -> str:  # noqa: ANN401 - any JSON
    """What an error's JSON says, for the end of a sentence."""
    if not isinstance(body, dict):
        return ""
    texts = [body[key] for key in ("error", "message") if body.get(key)]
    return f": {texts[0]}" if texts else ""


def _advice(error: httpx.TransportError) -> str:
    if "CERTIFICATE_VERIFY_FAILED" not in str(error):
        return ""
    return "; name its authority with --tls-ca, or trust it with --tls-insecure"
