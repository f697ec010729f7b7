"""SSH connections as this project makes them: known hosts only, keys only, no silent link.

Fabric's own defaults accept any host key, take jump hosts in reverse order and wait forever; all three are overridden
here. Imported by `targets.transports.ssh` alone.
"""

import logging
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from fabric import Config, Connection  # type: ignore[import-untyped]
from paramiko import (
    Agent,
    AuthenticationException,
    HostKeys,
    MissingHostKeyPolicy,
    PKey,
    SSHClient,
    SSHException,
    Transport,
)
from paramiko.auth_strategy import AuthSource, AuthStrategy, InMemoryPrivateKey, OnDiskPrivateKey
from paramiko.config import SSHConfig, SSHConfigDict
from paramiko.hostkeys import HostKeyEntry, InvalidHostKey

from targets.errors import UsageError
from targets.records import TargetSpec
from targets.transports.gateways import Gateways

# Without a handler Python prints paramiko's tracebacks for every refused banner to the user's terminal.
logging.getLogger("paramiko").addHandler(logging.NullHandler())

GLOBAL_KNOWN_HOSTS = "/etc/ssh/ssh_known_hosts"
DEFAULT_PORT = 22
# SSH's own, for a link through a jump host alone: this end's kernel sees only the first hop. On a direct link it would
# hide a dead one: the kernel counts from the first byte that is not acknowledged, and this is a new one.
KEEPALIVE_S = 5
# A link that answers nothing for so long is given up: what was sent is kept there and gone on with, so that being wrong
# about a roaming Wi-Fi client costs a retry, and being slow costs every other device its turn. The kernel looks when a
# probe or a retransmission is due, up to a second later: together 5 s.
SILENCE_S = 4.0
PROBE_S = 1  # of the kernel, when nothing else is sent: the device's kernel answers, whatever its programs do


class UnknownHostKey(SSHException):
    """The server's key is in no known_hosts file."""

    def __init__(self, host: str, key: PKey, looked_in: list[str]) -> None:
        super().__init__(f"{host} is not in {looked_in}")
        self.host, self.key, self.looked_in = host, key, looked_in


class KeysRefused(SSHException):
    """No key was accepted; `silent` when the server said nothing rather than no."""

    def __init__(self, tried: list[str], *, silent: bool) -> None:
        super().__init__("no answer while authenticating" if silent else "no key was accepted")
        self.tried, self.silent = tried, silent


class NotConnected(SSHException):
    """Which connection of a chain failed, and why."""

    def __init__(self, connection: "StrictConnection", why: Exception) -> None:
        super().__init__(str(why))
        self.connection, self.why = connection, why


class _NamingRejectPolicy(MissingHostKeyPolicy):
    """Rejects, as paramiko's RejectPolicy does, but keeps what the user must know to trust the key."""

    def __init__(self, looked_in: list[str]) -> None:
        self._looked_in = looked_in

    def missing_host_key(self, client: SSHClient, hostname: str, key: PKey) -> None:
        raise UnknownHostKey(hostname, key, self._looked_in)


class KeyStrategy(AuthStrategy):
    """Tries the target's own key, then ssh_config's, then the agent's, then the default ones; never asks anything."""

    def __init__(self, ssh_config: SSHConfigDict, fabric_config: Config, username: str) -> None:
        super().__init__(ssh_config=SSHConfig())  # only kept there; what Fabric hands over is one host's entry of it
        self._entry = ssh_config
        self._username = username
        self._named = list(fabric_config.authentication.identities)
        self.tried: list[str] = []
        self._agent: Agent | None = None

    def get_sources(self) -> Iterator[AuthSource]:
        configured = [*self._named, *self._entry.get("identityfile", [])]
        for path in configured:
            yield from self._from_file(Path(path).expanduser())
        if self._entry.get("identitiesonly", "no") != "yes":
            self._agent = Agent()
            for key in self._agent.get_keys():
                self.tried.append(f"ssh-agent key {key.fingerprint}")
                yield InMemoryPrivateKey(self._username, key)
        if not configured:
            for kind in ("ed25519", "ecdsa", "rsa"):
                path = Path.home() / ".ssh" / f"id_{kind}"
                if path.is_file():
                    yield from self._from_file(path)

    def _from_file(self, path: Path) -> Iterator[AuthSource]:
        try:
            key = _private_key(path, _version(path))
        except FileNotFoundError:
            self.tried.append(f"{path} (no such file)")
        except (SSHException, TypeError, ValueError, OSError) as fault:
            # cryptography raises TypeError for a key that needs a passphrase, and ValueError for no key at all.
            needs = "needs a passphrase: ssh-add it" if "assw" in str(fault) or "crypted" in str(fault) else "no key"
            self.tried.append(f"{path} ({needs})")
        else:
            self.tried.append(f"{path} {key.fingerprint}")
            yield OnDiskPrivateKey(self._username, "python-config", path, key)

    def authenticate(self, transport: Any) -> Any:
        start = time.monotonic()
        try:
            return super().authenticate(transport)
        except AuthenticationException as fault:
            # paramiko words a server that fell silent as a refusal, too.
            silent = time.monotonic() - start >= transport.auth_timeout
            raise KeysRefused(self.tried, silent=silent) from fault
        finally:
            if self._agent is not None:
                self._agent.close()


class StrictConnection(Connection):  # type: ignore[misc]
    """A Fabric connection that knows its host, or does not connect."""

    def __init__(self, host: str, *, target: TargetSpec, **options: Any) -> None:
        # Fabric connections are DataProxies: plain attribute assignment would go into the configuration.
        self._set(target=target, taken=[], pooled=False, opening=threading.Lock())
        super().__init__(host, **options)
        limit_s = target.connect_timeout_s
        self.connect_timeout = None  # ssh_config's ConnectTimeout; the target's own is passed below
        self.connect_kwargs: dict[str, Any] = {
            "timeout": limit_s,
            "banner_timeout": limit_s,
            "auth_timeout": limit_s,
            "channel_timeout": limit_s,
            "transport_factory": speak,
        }
        looked_in = self.known_hosts_files()
        self.client.set_missing_host_key_policy(_NamingRejectPolicy(looked_in))
        for path in looked_in:
            _load_host_keys(self.client.get_host_keys(), Path(path), self.known_as)

    @property
    def known_as(self) -> str:
        """The host in known_hosts' notation: `host`, or `[host]:port`."""
        return str(self.host) if int(self.port) == DEFAULT_PORT else f"[{self.host}]:{int(self.port)}"

    def known_hosts_files(self) -> list[str]:
        """The files that may vouch for the host: the target's own alone, or else the user's and the system's."""
        if self.target.known_hosts:
            return [str(Path(self.target.known_hosts).expanduser())]
        own = self.ssh_config.get("userknownhostsfile", "~/.ssh/known_hosts").split()
        return [*(str(Path(path).expanduser()) for path in own), GLOBAL_KNOWN_HOSTS]

    def get_gateway(self) -> "StrictConnection | str | None":
        """The last jump host of ProxyJump, each reached through the one before it, or a ProxyCommand."""
        jump = self.ssh_config.get("proxyjump", "none")
        if jump == "none":
            command = self.ssh_config.get("proxycommand", "none")
            return None if command == "none" else str(command)
        spec = self.target
        key = (jump, spec.ssh_config, spec.identity_file, spec.known_hosts, spec.connect_timeout_s)
        gateway = _GATEWAYS.take(key, lambda: self._chain(jump))
        self._set(taken=[key], pooled=True)
        return gateway

    def _chain(self, jump: str) -> "StrictConnection":
        hops = iter(jump.split(","))
        reached = StrictConnection(next(hops).strip(), target=self.target, config=self.config)
        for hop in hops:
            reached = StrictConnection(hop.strip(), target=self.target, config=self.config, gateway=reached)
        return reached

    def open(self) -> Any:
        with self.opening:  # a gateway is opened by whichever of its devices comes first
            if self.is_connected:
                return None
            try:
                if not self.gateway:
                    self.connect_kwargs["sock"] = dial(self.host, int(self.port), self.target.connect_timeout_s)
                opened = super().open()
            except NotConnected:
                raise  # by a jump host, which named itself
            except (OSError, EOFError, SSHException) as fault:
                raise NotConnected(self, fault) from fault
            if self.gateway:
                self.transport.set_keepalive(KEEPALIVE_S)
            return opened

    def close(self) -> None:
        self.client.close()  # also after a handshake that failed half-way, when Fabric's own close does nothing
        try:
            _GATEWAYS.give_back(self.taken.pop())  # popping is atomic: closed twice at once, it is given back once
        except IndexError:
            if isinstance(self.gateway, StrictConnection) and not self.pooled:
                self.gateway.close()  # the hop before this one in a chain


_GATEWAYS: Gateways[StrictConnection] = Gateways()


def _load_host_keys(keys: HostKeys, path: Path, known_as: str = "") -> None:
    """Add the file's keys, but none that it marks @revoked; of one host alone where that is named.

    For a fleet's file has a line for each device, and each of their connections reads it.

    paramiko's own loader fails on any line with a marker, and would trust a revoked key that is also listed.
    Certificate authorities and host patterns are not understood, so such hosts count as unknown; of two keys of one
    type for a host the later counts.
    """
    if not path.is_file():
        return
    lines, revoked = _known_lines(path, _version(path))
    for names, line in lines:
        if known_as and not _may_be(names, known_as):
            continue
        with suppress(InvalidHostKey):  # one damaged line does not make the others worthless
            entry = HostKeyEntry.from_line(line)
            if entry and entry.key.get_base64() not in revoked:
                for name in entry.hostnames:
                    keys.add(name, entry.key.get_name(), entry.key)


@lru_cache(maxsize=16)
def _known_lines(path: Path, version: tuple[int, ...]) -> tuple[list[tuple[str, str]], frozenset[str]]:
    """(host names, line) of each entry, and the keys that are revoked."""
    found, revoked = [], set()
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        fields = line.split()
        if len(fields) >= 4 and fields[0] == "@revoked":
            revoked.add(fields[3])
        elif len(fields) >= 3 and fields[0][0] not in "#@":
            found.append((fields[0], " ".join(fields)))
    return found, frozenset(revoked)


@lru_cache(maxsize=16)
def _private_key(path: Path, version: tuple[int, ...]) -> PKey:
    return PKey.from_path(path)


def _version(path: Path) -> tuple[int, ...]:
    """Another one when the file is another: a fleet's connections read the same files."""
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _may_be(names: str, known_as: str) -> bool:
    return names.startswith("|") or known_as in names.split(",")  # a hashed name says only to paramiko whose it is


def known_keys(paths: Iterable[Path]) -> HostKeys:
    """The keys that these files vouch for together."""
    keys = HostKeys()
    for path in paths:
        _load_host_keys(keys, path)
    return keys


def speak(sock: Any, **options: Any) -> Transport:
    """A transport over a connected socket, as paramiko makes it, that prefers the cheaper of the strong ciphers.

    AES-GCM encrypts and authenticates in one pass; paramiko would take AES-CTR with an HMAC, which costs a transfer
    half as much CPU time again, here and on the device. Devices that know no GCM get what they would have got.
    """
    transport = Transport(sock, **options)
    offered = transport.get_security_options()
    offered.ciphers = sorted(offered.ciphers, key=lambda name: "-gcm@" not in name)
    return transport


def dial(host: str, port: int, timeout_s: float) -> socket.socket:
    """A TCP connection that ends by itself when the other side goes silent.

    paramiko waits for ever on a link that drops every packet (paramiko#2463); the kernel does not when told so.
    """
    sock = socket.create_connection((host, port), timeout=timeout_s)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1000 * SILENCE_S))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, PROBE_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, PROBE_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def make_connection(target: TargetSpec) -> StrictConnection:
    """The connection a target describes, not opened yet; raises UsageError when its ssh_config cannot be read."""
    if not target.host:
        raise UsageError(f"target {target.name} has no host", hint="set `host:` of the target")
    identities = [target.identity_file] if target.identity_file else []
    overrides = {"authentication": {"strategy_class": KeyStrategy, "identities": identities}}
    path = str(Path(target.ssh_config).expanduser()) if target.ssh_config else None
    # Lazy: Fabric's own configuration files are no part of what a target says.
    config = Config(overrides=overrides, runtime_ssh_path=path, lazy=True)
    try:
        config.load_ssh_config()
    except (OSError, SSHException) as fault:
        hint = f"correct `ssh_config:` of target {target.name}" if path else "correct ~/.ssh/config"
        raise UsageError(
            f"target {target.name}: {path or '~/.ssh/config'} cannot be used: {fault}", hint=hint
        ) from fault
    return StrictConnection(
        target.host, target=target, config=config, user=target.user or None, port=target.port or None
    )
