"""What a virtual machine starts from: the order of kernel modules, and that nobody but root reads its private keys."""

import stat
from pathlib import Path

from targets.lab.boot import Machine
from targets.lab.identity import write_device_folder
from targets.lab.kinds.machine import own_files
from targets.lab.machine_image import in_order
from targets.lab.power.supply import Supply


def test_modules_come_after_those_they_depend_on_and_once(tmp_path: Path) -> None:
    folder = tmp_path / "lib/modules/6.1/kernel/drivers/net"
    folder.mkdir(parents=True)
    depends = {"virtio": "", "virtio_ring": "virtio", "net-failover": "failover", "failover": ""}
    depends |= {"virtio_net": "virtio_ring,virtio,net_failover", "virtio_blk": "virtio", "other": "virtio"}
    for name, others in depends.items():
        (folder / f"{name}.ko").write_bytes(b"ELF\0license=GPL\0depends=" + others.encode() + b"\0name=x\0")
    found = [path.stem for path in in_order(("virtio_net", "virtio_blk"), tmp_path)]
    assert found == ["virtio", "virtio_ring", "failover", "net-failover", "virtio_net", "virtio_blk"]


def test_private_keys_stay_private_on_the_machine(tmp_path: Path) -> None:
    write_device_folder(tmp_path / "vm-0", "ssh-ed25519 AAAA", {})
    machine = Machine(
        hostname="vm-0", address="10.99.0.2", folder=tmp_path / "vm-0", disk_bytes=1 << 20, supply=Supply()
    )
    modes = {entry.name: stat.S_IMODE(entry.mode) for entry in own_files(machine) if b"PRIVATE KEY" in entry.content}
    assert modes == {"device/etc/ssh/ssh_host_ed25519_key": 0o600, "device/run/console/key": 0o600}
