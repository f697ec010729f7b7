"""A device lab in software: genuine OpenSSH servers and ARM64 boards in namespaces of this machine, for rehearsals.

How it holds together, and why:

- **One keeper process owns everything.** Devices are its children with a parent-death signal, every namespace is
  anonymous, every mount is inside a namespace. So killing the keeper, however rudely, makes the kernel take the whole
  lab away: there are no names in /run/netns and no mounts of the machine's own to forget.
- **The way in is a TCP forwarder, not a route.** Devices live behind a bridge in a network namespace that has no link
  to the machine. The forwarder listens on 127.0.0.1 and only then enters that namespace; sockets stay where they were
  made, so it stands in both. `deploy run` needs no privileges and no special case, and the machine's routes,
  addresses and firewall are never touched.
- **Faults of the link are made in the forwarder.** A forwarder acknowledges what a dead device would not; therefore it
  can put a socket filter on its side of a connection that drops all packets: no acknowledgement, no reset, as
  from a pulled cable. Doing it there also allows triggers by exact byte count.

Linux and root only. Nothing here imports `pipeline`, and only `boot`, `keeper` and `forwarder` need root.
"""
