"""Jump hosts shared by the devices behind them: one connection for all, for as long as one of them needs it.

A hundred devices behind one gateway would else be a hundred logins there, of which its sshd drops most (MaxStartups).
"""

import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar


class Closable(Protocol):
    """A connection to a jump host."""

    def close(self) -> None:
        """End it, and whatever goes through it."""


Gateway = TypeVar("Gateway", bound=Closable)


@dataclass(slots=True)
class _Held(Generic[Gateway]):
    gateway: Gateway
    users: int


class Gateways(Generic[Gateway]):
    """Counts the users of each gateway and closes it after the last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[Hashable, _Held[Gateway]] = {}

    def take(self, key: Hashable, make: Callable[[], Gateway]) -> Gateway:
        """The gateway of this key, made (not opened) when nobody has it."""
        with self._lock:
            held = self._held.get(key)
            if held is None:
                held = self._held[key] = _Held(make(), 0)
            held.users += 1
            return held.gateway

    def give_back(self, key: Hashable) -> None:
        """One user less; closes the gateway when there is none left."""
        with self._lock:
            held = self._held[key]
            held.users -= 1
            if held.users:
                return
            del self._held[key]
        held.gateway.close()
