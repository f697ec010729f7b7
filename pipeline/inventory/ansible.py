"""Devices of an Ansible inventory, in INI or YAML: hosts with ranges, groups, children, and variables.

Read by hand, not by Ansible: its own loader runs plug-ins and templates, and is a hundred times this module's size.
Variables that say how to connect become the target's settings; plain ones become labels. Not read: dynamic inventories
(programs), group_vars and host_vars folders, templates and vaults.
https://docs.ansible.com/ansible/latest/inventory_guide/intro_inventory.html
"""

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipeline.errors import InputError
from pipeline.inventory.found import Found

_SETTINGS: Mapping[str, str] = {
    "ansible_host": "host",
    "ansible_ssh_host": "host",
    "ansible_user": "user",
    "ansible_ssh_user": "user",
    "ansible_port": "port",
    "ansible_ssh_port": "port",
    "ansible_ssh_private_key_file": "identity_file",
    "ansible_private_key_file": "identity_file",
}
_SECRETS = ("pass", "secret", "token")
_RANGE = re.compile(r"\[(\w+):(\w+)(?::(\d+))?\]")
_MOST_HOSTS = 100_000  # a range such as [0:999999999] is a slip
Variables = dict[str, str]


@dataclass(slots=True)
class _Group:
    variables: Variables = field(default_factory=dict)
    hosts: dict[str, int] = field(default_factory=dict)  # name → line
    children: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Inventory:
    path: Path
    groups: dict[str, _Group] = field(default_factory=dict)
    own: dict[str, Variables] = field(default_factory=dict)  # of single hosts

    def group(self, name: str) -> _Group:
        return self.groups.setdefault(name, _Group())

    def host(self, group: str, pattern: str, variables: Variables, line: int) -> None:
        for name in _expanded(pattern, self.path, line):
            self.group(group).hosts.setdefault(name, line)
            self.own.setdefault(name, {}).update(variables)


def ansible_hosts(path: Path) -> list[Found]:
    """Every host of the inventory file that is reached over SSH, in the file's order.

    Raises InputError with file and line for what cannot be read, and for passwords: only keys are used here.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as fault:
        raise InputError(f"{path}: cannot be read: {fault}", hint="an INI or YAML inventory is a text file") from None
    if text.startswith("#!"):
        raise InputError(f"{path}:1: this inventory is a program", hint="save what `--list` of it prints as YAML")
    inventory = _Inventory(path=path)
    if path.suffix in (".yml", ".yaml", ".json"):
        _read_yaml(text, inventory)
    else:
        _read_ini(text, inventory)
    return list(_hosts(inventory))


def _hosts(inventory: _Inventory) -> Iterator[Found]:
    lines = {name: line for group in inventory.groups.values() for name, line in group.hosts.items()}
    parents = _parents(inventory)
    for name, line in lines.items():
        direct = [group for group, content in inventory.groups.items() if name in content.hosts]
        chain = _upwards(direct, parents)
        merged: Variables = {}
        for group in ("all", *reversed(chain)):  # what is nearer to the host counts
            merged.update(inventory.groups[group].variables if group in inventory.groups else {})
        merged.update(inventory.own.get(name, {}))
        if merged.get("ansible_connection", "ssh") not in ("ssh", "smart", "paramiko", "paramiko_ssh"):
            continue
        groups = tuple(group for group in chain if group not in ("all", "ungrouped"))
        yield _found(name, line, groups, merged, inventory.path)


def _found(name: str, line: int, groups: tuple[str, ...], variables: Variables, path: Path) -> Found:
    settings: dict[str, str | int] = {"host": name}
    labels: dict[str, str] = {}
    for key, value in variables.items():
        if any(word in key.lower() for word in _SECRETS):
            raise InputError(
                f"{path}:{line}: {name}: {key} looks like a secret, and only keys are used here",
                hint="give the device a public key (ssh-copy-id) and take the variable out of this inventory",
            )
        if "{{" in value:
            if key in _SETTINGS:
                raise InputError(f"{path}:{line}: {name}: {key} is a template", hint="write its value")
        elif key in _SETTINGS:
            settings[_SETTINGS[key]] = int(value) if _SETTINGS[key] == "port" and value.isdigit() else value
        elif not key.startswith("ansible_"):
            labels[key] = value
    return Found(name=name, line=line, settings=settings, groups=groups, labels=labels)


def _parents(inventory: _Inventory) -> dict[str, list[str]]:
    parents: dict[str, list[str]] = {}
    for name, group in inventory.groups.items():
        for child in group.children:
            parents.setdefault(child, []).append(name)
    return parents


def _upwards(direct: list[str], parents: Mapping[str, list[str]]) -> list[str]:
    """The groups of a host and theirs, nearest first; a circle ends where it began."""
    seen = dict.fromkeys(direct)
    queue = list(direct)
    while queue:
        for parent in parents.get(queue.pop(0), ()):
            if parent not in seen:
                seen[parent] = None
                queue.append(parent)
    return list(seen)


def _read_ini(text: str, inventory: _Inventory) -> None:
    group, kind = "ungrouped", "hosts"
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if not line or line[0] in "#;":
            continue
        if section := re.fullmatch(r"\[([^\]:]+)(?::(\w+))?\]\s*(?:#.*)?", line):
            group, kind = section[1], section[2] or "hosts"
            if kind not in ("hosts", "vars", "children"):
                raise InputError(f"{inventory.path}:{number}: [{group}:{kind}] is no section", hint="vars or children")
            inventory.group(group)
        elif kind == "vars":
            key, _, value = line.partition("=")
            inventory.group(group).variables[key.strip()] = _unquoted(value.strip())
        elif kind == "children":
            inventory.group(group).children.append(line.split("#")[0].strip())
        else:
            _ini_host(line, group, number, inventory)


def _ini_host(line: str, group: str, number: int, inventory: _Inventory) -> None:
    try:
        pattern, *words = shlex.split(line, comments=True)
    except ValueError as fault:
        raise InputError(f"{inventory.path}:{number}: {fault}", hint="close the quotation") from None
    variables = {}
    for word in words:
        key, sign, value = word.partition("=")
        if not sign:
            raise InputError(
                f"{inventory.path}:{number}: {word!r} is no key=value", hint="after the host come variables"
            )
        variables[key] = value
    name, colon, port = pattern.rpartition(":")
    if colon and port.isdigit() and "[" not in port:
        pattern, variables = name, {"ansible_port": port, **variables}
    inventory.host(group, pattern, variables, number)


def _read_yaml(text: str, inventory: _Inventory) -> None:
    try:
        root = YAML(typ="rt").load(text)
    except YAMLError as fault:
        raise InputError(f"{inventory.path}: not YAML: {fault}", hint="fix the YAML") from None
    if not isinstance(root, dict):
        raise InputError(f"{inventory.path}:1: this is no inventory", hint="it begins with `all:` or another group")
    for name, content in root.items():
        _yaml_group(str(name), content, inventory, depth=0)


def _yaml_group(name: str, content: Any, inventory: _Inventory, *, depth: int) -> None:
    group = inventory.group(name)
    if content is None:
        return
    if not isinstance(content, dict) or depth > 50 or not set(content) <= {"hosts", "vars", "children"}:
        raise InputError(
            f"{inventory.path}: group {name} should have hosts, vars and children", hint="see Ansible's guide"
        )
    group.variables.update(_plain(content.get("vars")))
    hosts: Any = content.get("hosts") or {}  # ruamel's mapping, which knows its lines
    for pattern, variables in hosts.items():
        inventory.host(name, str(pattern), _plain(variables), hosts.lc.key(pattern)[0] + 1)
    for child, inner in (content.get("children") or {}).items():
        group.children.append(str(child))
        _yaml_group(str(child), inner, inventory, depth=depth + 1)


def _plain(variables: Any) -> Variables:
    """The scalar ones as text; lists and mappings are for playbooks, not for us."""
    found = variables if isinstance(variables, dict) else {}
    return {str(key): _text(value) for key, value in found.items() if isinstance(value, str | int | float | bool)}


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _unquoted(value: str) -> str:
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"" else value


def _expanded(pattern: str, path: Path, line: int) -> Iterator[str]:
    """`pi-[01:03].lan` is pi-01.lan, pi-02.lan, pi-03.lan; letters count too, and a third number is the stride."""
    found = _RANGE.search(pattern)
    if not found:
        yield pattern
        return
    first, last, stride = found[1], found[2], int(found[3] or 1)
    if first.isdigit() and last.isdigit():
        places = [
            str(n).zfill(len(first))
            for n in range(int(first), min(int(last), int(first) + _MOST_HOSTS) + 1, stride or 1)
        ]
    elif len(first) == len(last) == 1:
        places = [chr(n) for n in range(ord(first), ord(last) + 1, stride or 1)]
    else:
        places = []
    if not places or len(places) > _MOST_HOSTS:
        raise InputError(f"{path}:{line}: the range {found[0]} makes no sense", hint="write such as [01:50] or [a:f]")
    for place in places:
        yield from _expanded(pattern[: found.start()] + place + pattern[found.end() :], path, line)
