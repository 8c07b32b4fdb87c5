"""Who we are at one API server: the token with each request, and credentials that are renewed while we run.

Guarantees: credentials that the server refused are read again, once within `REAUTHENTICATE_EVERY` seconds however many
requests are refused; what cannot be read again leaves the old ones in use, and is logged. A renewed client certificate
is shown on every connection; one that is the same leaves them alone. A plugin that takes longer than the request which
needed it goes on for the next.
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
"""Seconds between two reloads of refused credentials."""
_TOKEN: Final = "BearerToken"  # noqa: S105 - the library's name for it


class Authentication:
    """Credentials in use over a transport, which shows their client certificate."""

    def __init__(self, found: Credentials, transport: Transport) -> None:
        self._source = found.source
        self._configuration = found.configuration
        self._certificate = found.certificate
        self._transport = transport
        self._renewed_at = float("-inf")
        self._renewing: asyncio.Task[None] | None = None

    async def headers(self) -> dict[str, str]:
        """Return the headers that say who we are; a token file's last newline is not part of the token.

        Raises CredentialsError when a token has to be read anew and cannot be: nothing was sent then.
        """
        if _TOKEN not in self._configuration.api_key:
            return {}
        try:
            token: str = await self._configuration.get_api_key_with_prefix(_TOKEN)
        except Exception as error:
            raise CredentialsError(f"cannot refresh the token: {describe(error)}") from error
        return {"Authorization": token.strip()}

    async def renew(self) -> None:
        """Read the credentials again, which were refused: they may have been renewed. The caller's next try uses them.

        It goes on where the caller's time is up: a plugin may take longer than a request.
        """
        if self._renewing is None or self._renewing.done():
            now = asyncio.get_running_loop().time()
            if now - self._renewed_at < REAUTHENTICATE_EVERY:
                return
            self._renewed_at = now
            self._renewing = asyncio.create_task(self._renew(), name="credentials")
        await asyncio.shield(self._renewing)

    async def close(self) -> None:
        """Wait for no plugin: end it."""
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
            _log.warning("credentials were refused and cannot be read again", error=str(error))
            return
        except (OSError, ValueError) as error:
            _log.warning("the renewed client certificate cannot be used", error=str(error))
            return
        self._configuration.api_key = fresh.configuration.api_key
        self._configuration.refresh_api_key_hook = fresh.configuration.refresh_api_key_hook
