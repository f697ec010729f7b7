"""Devices from fleet files, ssh_config and Ansible inventories."""

from pathlib import Path

import pytest

from pipeline.config_file import load_config
from pipeline.errors import UsageError
from targets.records import TargetSpec

BASE = "source: {model: net.onnx}\ndata:\n  calibrate: a.npz\n  test: b.npz\n"


def specs(tmp_path: Path, targets: str, **files: str) -> dict[str, TargetSpec]:
    for name, text in files.items():
        path = tmp_path / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    (tmp_path / "deploy.yaml").write_text(BASE + targets)
    return {spec.name: spec for spec in load_config(tmp_path / "deploy.yaml").target_specs()}


def refused(tmp_path: Path, targets: str, **files: str) -> str:
    with pytest.raises(UsageError) as caught:
        specs(tmp_path, targets, **files)
    assert caught.value.hint
    return caught.value.message


def test_fleet_files_bring_devices_with_their_own_defaults_and_folders(tmp_path: Path) -> None:
    found = specs(
        tmp_path,
        "targets:\n  include: fleet/*.yaml\n  defaults: {user: pi, labels: {ring: late}}\n  desk: {host: desk.lan}\n",
        fleet__lyon_yaml="targets:\n  defaults: {user: edge, identity_file: key, labels: {site: lyon}}\n"
        "  pi-1: {host: 10.0.0.1, labels: {rack: 7}}\n  pi-2: {host: 10.0.0.2, user: root}\n  here: {}\n",
        fleet__nice_yaml="targets:\n  pi-3: {host: 10.1.0.3, groups: [canary]}\n",
    )
    assert list(found) == ["desk", "pi-1", "pi-2", "here", "pi-3"]
    assert (found["desk"].user, found["desk"].labels) == ("pi", {"ring": "late"})
    assert (found["pi-1"].user, found["pi-1"].labels) == ("edge", {"site": "lyon", "rack": "7"})
    assert found["pi-1"].identity_file == str(tmp_path / "fleet" / "key")
    assert found["pi-2"].user == "root"
    assert found["here"].transport == "local", "a default that its transport does not know is not for it"
    assert (found["pi-3"].user, found["pi-3"].groups) == ("", ("canary",))


def test_only_an_include_is_no_local_device(tmp_path: Path) -> None:
    assert list(specs(tmp_path, "targets: {include: f.yaml}\n", f_yaml="targets: {a: {host: a}}\n")) == ["a"]


def test_an_alias_of_ssh_config_is_a_device(tmp_path: Path) -> None:
    config = "Host *\n  User pi\nHost gate\nHost pi-1 pi-2\n  ProxyJump gate\nHost pi-3 !pi-4\nMatch host x\n"
    found = specs(
        tmp_path,
        "targets:\n  include: [{ssh_config: conf, hosts: [pi-*]}]\n  defaults: {python: /opt/py, groups: [shop]}\n",
        conf=config,
    )
    assert list(found) == ["pi-1", "pi-2", "pi-3"]
    assert found["pi-2"].host == "pi-2", "how it is reached stays in the file"
    assert found["pi-2"].ssh_config == str(tmp_path / "conf")
    assert (found["pi-2"].python, found["pi-2"].groups) == ("/opt/py", ("shop",))


INI = """\
# a comment
jump.example.com
[boards]
pi-[01:03].lan site=lyon
desk ansible_host=10.0.0.9 ansible_port=2222 soc="bcm 2712"  # inline
[phones]
pixel ansible_connection=local
[shops:children]
boards
[shops:vars]
ansible_user=edge
ring=late
site=none
[boards:vars]
ring=early
"""

YAML = """\
all:
  hosts: {jump.example.com: }
  children:
    shops:
      vars: {ansible_user: edge, ring: late, site: none}
      children:
        boards:
          vars: {ring: early}
          hosts:
            pi-[01:03].lan: {site: lyon}
            desk: {ansible_host: 10.0.0.9, ansible_port: 2222, soc: bcm 2712, ports: [1, 2]}
    phones:
      hosts:
        pixel: {ansible_connection: local}
"""


@pytest.mark.parametrize(("name", "text"), [("hosts.ini", INI), ("hosts", INI), ("hosts.yml", YAML)])
def test_an_ansible_inventory_says_the_same_in_both_languages(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    found = specs(tmp_path, f"targets: {{include: {{ansible: {name}}}}}\n")
    assert sorted(found) == ["desk", "jump.example.com", "pi-01.lan", "pi-02.lan", "pi-03.lan"]
    desk, pi = found["desk"], found["pi-02.lan"]
    assert (desk.host, desk.port, desk.user, desk.groups) == ("10.0.0.9", 2222, "edge", ("boards", "shops"))
    assert desk.labels == {"ring": "early", "site": "none", "soc": "bcm 2712"}
    assert (pi.host, pi.labels) == ("pi-02.lan", {"ring": "early", "site": "lyon"})
    assert specs(tmp_path, f"targets: {{include: {{ansible: {name}, hosts: [boards]}}}}\n").keys() == found.keys() - {
        "jump.example.com"
    }


@pytest.mark.parametrize(
    ("targets", "files", "said"),
    [
        ("targets:\n  include: none/*.yaml\n", {}, "deploy.yaml:6: targets.include: there is no file none/*.yaml"),
        ("targets:\n  include:\n    - f.yaml\n", {"f_yaml": "targets:\n  a: {hots: x}\n"}, "f.yaml:2: targets.a.hots"),
        (
            "targets:\n  a: {host: a}\n  include: f.yaml\n",
            {"f_yaml": "targets:\n\n  a: {host: b}\n"},
            "f.yaml:3: targets.a: this name is taken by",
        ),
        ("targets: {include: f.yaml}\n", {"f_yaml": "targets: {include: f.yaml}\n"}, "includes this file again"),
        (
            "targets: {include: f.yaml}\n",
            {"f_yaml": "targets:\n  a: {host: a}\n  b: {host: b, password: x}\n"},
            "f.yaml:3: targets.b.password: a secret does not belong",
        ),
        (
            "targets: {include: f.yaml}\n",
            {"f_yaml": "targets: {include: g.yaml}\n", "g_yaml": "targets:\n  defaults: {api_key: x}\n  a: {}\n"},
            "g.yaml:2: targets.defaults.api_key: a secret does not belong",
        ),
        ("targets:\n  defaults: {usr: pi}\n  a: {host: a}\n", {}, "deploy.yaml:6: targets.defaults.usr: no target"),
        ("targets:\n  include: {ansible: h}\n", {"h": "[a]\nx ansible_ssh_pass=1\n"}, "h:2: x: ansible_ssh_pass looks"),
        ("targets:\n  include: {ansible: h}\n", {"h": "[a:hosts]\n[b:x]\n"}, "h:2: [b:x] is no section"),
        ("targets:\n  include: {ansible: h}\n", {"h": "x port\n"}, "h:1: 'port' is no key=value"),
        (
            "targets:\n  include: {ansible: h}\n",
            {"h": "x ansible_host='{{ y }}'\n"},
            "h:1: x: ansible_host is a template",
        ),
        ("targets:\n  include: {ansible: h}\n", {"h": "p[5:1]\n"}, "h:1: the range [5:1] makes no sense"),
        ("targets:\n  include: {ansible: h}\n", {"h": "x ansible_port=http\n"}, "h:1: x: port"),
        ("targets:\n  include: {ansible: h, hosts: [y]}\n", {"h": "x\n"}, "h has no host or group 'y'"),
        ("targets:\n  include: [3]\n", {}, "deploy.yaml:6: targets.include: should be fleet files"),
    ],
)
def test_a_mistake_names_its_file_and_line(tmp_path: Path, targets: str, files: dict[str, str], said: str) -> None:
    assert said in refused(tmp_path, targets, **files)
