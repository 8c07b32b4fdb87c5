"""A small blocking HTTP client for a starting plane: health checks, and the few objects that `up` writes.

Guarantees: requests are sent one at a time, each with a deadline of 10 s. It authenticates with the administrator's
certificate that kwokctl made.
"""

import http.client
import json
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from controller.controlplane.errors import ApiError, CertificateError

MANAGER = "vmsim-controlplane"
"""The field manager under which the API server records this client's writes in `managedFields`."""

_TIMEOUT = 10.0


@dataclass(frozen=True, slots=True)
class ApiServer:
    """An open connection to kube-apiserver."""

    connection: http.client.HTTPSConnection

    @classmethod
    @contextmanager
    def connect(cls, pki: Path, port: int) -> Iterator[Self]:
        """Connect as the cluster's administrator; the context closes the connection. Raises CertificateError."""
        try:
            context = ssl.create_default_context(cafile=pki / "ca.crt")
            context.load_cert_chain(pki / "admin.crt", pki / "admin.key")
        except (FileNotFoundError, ssl.SSLError) as error:  # not every OSError: a lack of descriptors is no damage
            raise CertificateError(pki, str(error)) from error
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=_TIMEOUT, context=context)
        try:
            yield cls(connection)
        finally:
            connection.close()

    def get(self, path: str) -> dict[str, Any]:
        """Return an object or a list."""
        return self._request("GET", path)

    def post(self, path: str, body: Mapping[str, Any]) -> None:
        """Create an object."""
        self._request("POST", path, body)

    def patch(self, path: str, body: Mapping[str, Any]) -> None:
        """Change an object by a JSON merge patch."""
        self._request("PATCH", path, body, content_type="application/merge-patch+json")

    def delete(self, path: str, *, unchanged_since: str | None = None) -> None:
        """Delete an object; with `unchanged_since`, only at that resource version. 404 and 409 are no errors."""
        body = {"preconditions": {"resourceVersion": unchanged_since}} if unchanged_since else None
        self._request("DELETE", path, body, accept=(http.HTTPStatus.NOT_FOUND, http.HTTPStatus.CONFLICT))

    def _request(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        content_type: str = "application/json",
        accept: tuple[int, ...] = (),
    ) -> dict[str, Any]:
        content = json.dumps(body) if body is not None else None
        try:
            self.connection.request(method, path, content, {"Content-Type": content_type, "User-Agent": MANAGER})
            response = self.connection.getresponse()
            answer = response.read()
        except (OSError, http.client.HTTPException) as error:
            self.connection.close()
            raise ApiError(f"{method} {path}", 0, str(error) or type(error).__name__) from error
        if response.status >= http.HTTPStatus.BAD_REQUEST and response.status not in accept:
            raise ApiError(f"{method} {path}", response.status, answer.decode(errors="replace")[:300])
        decoded: dict[str, Any] = json.loads(answer)
        return decoded

    def is_ready(self) -> bool:
        """Return whether the server answers and all its checks pass, etcd's among them."""
        try:
            self.connection.request("GET", "/readyz")
            response = self.connection.getresponse()
            response.read()
        except (OSError, http.client.HTTPException):
            self.connection.close()
            return False
        return response.status == http.HTTPStatus.OK

    def exists(self, path: str) -> bool:
        """Return whether an object can be read."""
        try:
            self.get(path)
        except ApiError:
            return False
        return True


def is_healthy(port: int, path: str, *, tls: bool) -> bool:
    """Return whether another component on loopback answers its health check with 200."""
    connection = _health_connection(port, tls=tls)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        response.read()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    return response.status == http.HTTPStatus.OK


def _health_connection(port: int, *, tls: bool) -> http.client.HTTPConnection:
    if not tls:
        return http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT)
    # The scheduler and the controller manager sign their own certificates in memory, so there is no CA to verify
    # them with; a health check on loopback carries no secret.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return http.client.HTTPSConnection("127.0.0.1", port, timeout=_TIMEOUT, context=context)
