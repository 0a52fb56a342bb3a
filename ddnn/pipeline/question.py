"""A command to several nodes, repeated until each has replied or the time is over."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ddnn.protocol.train_messages import TrainCommand, TrainReply


class Question:
    """One command for each node, and the replies to it."""

    def __init__(
        self, commands: Mapping[str, TrainCommand], now_s: float, due_s: float, retry_s: float
    ) -> None:
        self.commands = dict(commands)
        self.replies: dict[str, TrainReply] = {}
        self.due_s, self._retry_s, self._ask_s = due_s, retry_s, now_s

    @property
    def waiting(self) -> set[str]:
        return self.commands.keys() - self.replies.keys()

    @property
    def next_s(self) -> float:
        """When to call `ask` or to give up."""
        return min(self._ask_s, self.due_s)

    def ask(self, now_s: float) -> list[tuple[str, TrainCommand]]:
        """The commands to send now."""
        if now_s < self._ask_s:
            return []
        self._ask_s = now_s + self._retry_s
        return [(name, self.commands[name]) for name in sorted(self.waiting)]

    def take(self, reply: TrainReply) -> bool:
        """Take a reply; True where it belongs to this question and is the first of its node."""
        command = self.commands.get(reply.sender)
        fits = (
            command is not None
            and (reply.answers, reply.number) == (command.action, command.number)
            and reply.sender not in self.replies
        )
        if fits:
            self.replies[reply.sender] = reply
        return fits

    def drop(self, names: Iterable[str]) -> None:
        """Do not wait for these nodes."""
        for name in names:
            self.commands.pop(name, None)
            self.replies.pop(name, None)
