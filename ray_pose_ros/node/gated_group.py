"""A callback group with a gate: while it is closed, messages are not even taken."""

from __future__ import annotations

from collections.abc import Callable

from rclpy.callback_groups import CallbackGroup


class GatedGroup(CallbackGroup):
    """
    Runs its callbacks like those of `group`, but only while `is_open()`.

    The executor leaves a closed subscription out of what it waits for, and the middleware
    overwrites its messages. That costs nothing more than their arrival, where taking an image of
    1080p costs milliseconds before any callback sees it. `is_open` is asked whenever the executor
    goes to wait, so something else has to wake it: a timer, another topic.
    """

    def __init__(self, group: CallbackGroup, is_open: Callable[[], bool]) -> None:
        super().__init__()
        self._group, self._is_open = group, is_open

    def add_entity(self, entity) -> None:
        """Add an entity, which excludes those of the group behind as if it were in it."""
        super().add_entity(entity)
        self._group.add_entity(entity)

    def can_execute(self, entity) -> bool:
        """Say whether the gate is open and the group behind lets the entity run."""
        return self._is_open() and self._group.can_execute(entity)

    def beginning_execution(self, entity) -> bool:
        """Pass the start of a callback on to the group behind."""
        return self._group.beginning_execution(entity)

    def ending_execution(self, entity) -> None:
        """Pass the end of a callback on to the group behind."""
        self._group.ending_execution(entity)
