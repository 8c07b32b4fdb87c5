"""Settings of every test."""

from __future__ import annotations

import asyncio

# Plugins call `get_event_loop` before synchronous tests, of any folder; without this it makes a loop that nobody
# closes, and a later test fails of the warning. So it is done when tests are collected, before any of them runs.
asyncio.set_event_loop(None)
