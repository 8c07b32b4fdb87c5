"""Authentication at one API server: the token of each request, and the reload of refused credentials.

Guarantees:

- After a 401 the credentials are reloaded, at most once in `REAUTHENTICATE_EVERY` seconds, however many requests are
  refused. If the reload fails, the old credentials stay in use and the failure is logged.
- A new client certificate is presented on every connection: all of them are reopened. An unchanged one reopens none.
- A reload that outlasts the request that started it, such as a slow plugin's, continues and serves later requests.
"""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from controller.kube import credentials
from controller.kube.credentials import Credentials
from controller.kube.errors import CredentialsError
from controller.kube.transport import Transport, describe

_log = structlog.get_logger(__name__)

REAUTHENTICATE_EVERY: Final = 10.0
"""Minimum seconds between two reloads of refused credentials."""
_TOKEN: Final = "BearerToken"  # noqa: S105 - the library's name for it


class Authentication:
    """The credentials in use, over a transport that presents their client certificate."""

    def __init__(self, found: Credentials, transport: Transport) -> None:
        self._source = found.source
        self._configuration = found.configuration
        self._certificate = found.certificate
        self._transport = transport
        self._renewed_at = float("-inf")
        self._renewing: asyncio.Task[None] | None = None

    async def headers(self) -> dict[str, str]:
        """Return the Authorization header of a request; empty without a token. White space around a token is stripped.

        Raises CredentialsError when a token has to be refreshed and cannot be. The caller sends nothing then.
        """
        if _TOKEN not in self._configuration.api_key:
            return {}
        try:
            token: str = await self._configuration.get_api_key_with_prefix(_TOKEN)
        except Exception as error:
            raise CredentialsError(f"cannot refresh the token: {describe(error)}") from error
        return {"Authorization": token.strip()}

    async def renew(self) -> None:
        """Reload the credentials after a 401. The caller's next request uses them.

        The reload continues when the caller is cancelled: a plugin may take longer than a request's deadline.
        """
        if self._renewing is None or self._renewing.done():
            now = asyncio.get_running_loop().time()
            if now - self._renewed_at < REAUTHENTICATE_EVERY:
                return
            self._renewed_at = now
            self._renewing = asyncio.create_task(self._renew(), name="credentials")
        await asyncio.shield(self._renewing)

    async def close(self) -> None:
        """Cancel a reload in progress, its plugin included."""
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.wait({self._renewing})

    async def _renew(self) -> None:
        try:
            fresh = await credentials.load_anew(self._source, str(self._configuration.host))
            if fresh.certificate != self._certificate:
                former = self._transport.reconnect(fresh.configuration)
                self._configuration, self._certificate = fresh.configuration, fresh.certificate
                await former.close()
        except CredentialsError as error:
            _log.warning("credentials were refused and cannot be reloaded", error=str(error))
            return
        except (OSError, ValueError) as error:
            _log.warning("the renewed client certificate cannot be used", error=str(error))
            return
        self._configuration.api_key = fresh.configuration.api_key
        self._configuration.refresh_api_key_hook = fresh.configuration.refresh_api_key_hook
