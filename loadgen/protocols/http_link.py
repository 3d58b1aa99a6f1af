"""The conversation in which an HTTP server says what it serves, before any load."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import httpx

from dlbench.loadgen.credentials import bearer_token, tls_context
from dlbench.loadgen.errors import TargetError
from dlbench.loadgen.protocols.encode import headers
from dlbench.loadgen.quantity import duration
from dlbench.loadgen.transport.timed_http import TimedTransport

if TYPE_CHECKING:
    from dlbench.loadgen.location import Location
    from dlbench.loadgen.profile import LoadProfile
    from dlbench.loadgen.protocols.encode import Body
    from dlbench.loadgen.target import Target

REFUSAL_LENGTH = 300


class HttpLink:
    """A context manager; what goes wrong is a TargetError in one line."""

    def __init__(self, location: Location, profile: LoadProfile) -> None:
        token = bearer_token(profile)
        self.base = location.base
        self._profile = profile
        context = tls_context(profile) if location.base.startswith("https") else None
        self._http = httpx.Client(
            base_url=location.base,
            transport=TimedTransport(profile.timeout_s, context),
            trust_env=False,
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
            took = duration(self._profile.timeout_s)
            raise TargetError(
                f"{self.base} does not answer {method} {path} within {took} (--timeout)"
            ) from None
        except httpx.RemoteProtocolError as error:
            raise TargetError(f"{self.base} does not speak HTTP: {error}") from None
        except httpx.TransportError as error:
            raise TargetError(f"cannot reach {self.base}: {error}{_advice(error)}") from None

    def ask(self, path: str, speaker: str) -> dict[str, Any]:
        """A JSON object; `speaker` says what a server is that has one here."""
        response = self.send("GET", path)
        body = json_of(response)
        if response.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            raise TargetError(
                f"{self.base} requires a token (status {response.status_code}"
                f"{detail(body)}); add --token-file FILE"
            )
        if not response.is_success or not isinstance(body, dict):
            raise TargetError(
                f"{self.base} answers, but not as {speaker} (GET {path} gave {said_by(response)})"
            )
        return body

    def refusal(self, target: Target, body: Body) -> str:
        """Why the server does not run one request; empty: it does."""
        response = self.send(
            "POST", target.path, content=body.content, headers=headers(self._profile, body)
        )
        if response.is_success:
            return ""
        return f"status {said_by(response)}".splitlines()[0][:REFUSAL_LENGTH]


def said_by(response: httpx.Response) -> str:
    """The status and what it means for the URL that was given; the error's text where there is one."""
    status, path = response.status_code, response.request.url.path
    if response.has_redirect_location:
        there = str(response.request.url.join(response.headers["location"]))
        return f"{status} to {there}: use that URL, {there.removesuffix(path) or there}"
    if status == httpx.codes.NOT_FOUND:
        return f"404: nothing at {path}{detail(json_of(response))}"
    return f"{status}{detail(json_of(response))}"


def json_of(response: httpx.Response) -> Any:  # noqa: ANN401 - any JSON
    """The body's JSON; None if it is not JSON."""
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
    return "; name its CA with --tls-ca, or skip verification with --tls-insecure"
