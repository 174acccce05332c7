"""The messages between the widgets and the application."""

from __future__ import annotations

from typing import Literal

from textual.message import Message

__all__ = ["BedOpened", "CommandOrdered", "Redraw"]


class Redraw(Message):
    """Show what is known now. Newer wins: any number of waiting ones become a single redraw."""

    def can_replace(self, message: Message) -> bool:
        """Say that a waiting redraw is as good as none."""
        return isinstance(message, Redraw)


class BedOpened(Message):
    """A tile of the wall was chosen."""

    def __init__(self, bed: str) -> None:
        super().__init__()
        self.bed = bed


class CommandOrdered(Message):
    """A person orders something of the alarm stage, for the bed on display."""

    def __init__(self, action: Literal["acknowledge", "pause", "resume", "reset"]) -> None:
        super().__init__()
        self.action = action
