"""A controller takes over before it queues a key, and its channels are ignored before it starts."""

from __future__ import annotations

from controller.engine.controller import Add, Channel, Controller
from controller.engine.workers import Result


class Reconciler:
    """Records that it has begun."""

    def __init__(self, diary: list[str]) -> None:
        self._diary = diary

    def begin(self) -> None:
        """Record the call."""
        self._diary.append("begins")

    async def reconcile(self, key: str) -> Result:
        """Do nothing."""
        self._diary.append(key)
        return Result()


def test_a_controller_begins_and_then_starts_its_sources_in_order() -> None:
    """Keys that a source queues at once reach a reconciler that has taken over."""
    diary: list[str] = []

    def source(name: str) -> None:
        def start(add: Add) -> None:
            add(name, "start")

        sources.append(start)

    sources: list[object] = []
    source("a")
    source("b")
    controller = Controller("vms", tuple(sources), Reconciler(diary))  # type: ignore[arg-type]
    assert diary == []
    controller.start(lambda key, cause: diary.append(f"{key}: {cause}"))
    assert diary == ["begins", "a: start", "b: start"]


def test_a_channel_queues_keys_once_its_controller_has_started() -> None:
    """Earlier keys are dropped: the start queues all keys."""
    queued: list[tuple[str, str]] = []
    channel = Channel()
    controller = Controller("migrations", (channel,), Reconciler([]))
    channel.put("early", "a slot is free")
    controller.start(lambda key, cause: queued.append((key, cause)))
    channel.put("default/vm-1", "a slot is free")
    assert queued == [("default/vm-1", "a slot is free")]
