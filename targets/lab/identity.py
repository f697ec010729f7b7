"""Accounts, keys and sshd's configuration of a lab: what is written before anything starts."""

import os
import shutil
from pathlib import Path

from targets.lab.state import LOOPBACK, USER

_PASSWD = f"""root:x:0:0:root:/root:/bin/sh
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
sshd:x:100:65534::/run/sshd:/usr/sbin/nologin
{USER}:x:1000:1000:,,,:/home/{USER}:/bin/sh
"""
_GROUP = f"root:x:0:\ntty:x:5:\nnogroup:x:65534:\n{USER}:x:1000:\n"
# Without PAM sshd refuses a locked account (`!`); `*` is one that merely has no password.
_SHADOW = "".join(f"{name}:*:19000:0:99999:7:::\n" for name in ("root", "nobody", "sshd", USER))
# The default of MaxStartups drops connections when a whole fleet connects at once, or one client opens many.
_SSHD_CONFIG = """HostKey /etc/ssh/ssh_host_ed25519_key
AuthorizedKeysFile /etc/ssh/authorized_keys
PidFile none
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin no
UseDNS no
MaxStartups 200:30:400
MaxSessions 50
PrintMotd no
Subsystem sftp internal-sftp
AcceptEnv LANG LC_*
"""


def new_key(path: Path, comment: str) -> str:
    """Write an ed25519 key pair in OpenSSH's format; the public half as `type base64`."""
    # Here, because importing it takes longer than everything else that `deploy lab --help` needs.
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

    key = Ed25519PrivateKey.generate()
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode("ascii")
    path.with_name(path.name + ".pub").write_text(f"{public} {comment}\n", encoding="ascii")
    return public


def write_device_folder(folder: Path, authorized: str, environment: dict[str, str]) -> str:
    """Everything that makes a device itself; the public half of its host key.

    `environment` is set in every session, for sshd gives its own to none.
    """
    ssh = folder / "ssh"
    ssh.mkdir(parents=True)
    (folder / "disk").mkdir()  # where a board mounts its own, unseen from outside
    folder.chmod(0o755)
    for name, text in (("passwd", _PASSWD), ("group", _GROUP), ("shadow", _SHADOW)):
        (folder / name).write_text(text, encoding="ascii")
    (folder / "shadow").chmod(0o640)
    # Only the first SetEnv line of the file counts.
    pairs = " ".join(f"{name}={value}" for name, value in environment.items())
    (ssh / "sshd_config").write_text(_SSHD_CONFIG + (f"SetEnv {pairs}\n" if pairs else ""), encoding="ascii")
    (ssh / "authorized_keys").write_text(authorized + "\n", encoding="ascii")
    public = new_key(folder / "host_key", folder.name)
    shutil.copy2(folder / "host_key", ssh / "ssh_host_ed25519_key")  # the device may change its own
    return public


def known_hosts(ports: dict[str, int], host_keys: dict[str, str]) -> str:
    """A known_hosts file for the forwarded ports: device -> port, device -> public host key."""
    return "".join(f"[{LOOPBACK}]:{ports[name]} {key}\n" for name, key in host_keys.items())
