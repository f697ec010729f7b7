"""An Android debug daemon for the genuine `adb` client, in states in which the genuine daemon cannot be put.

Services: `shell:`, `shell,v2:`, `exec:`, `sync:` and `reboot:`. File access and programs are real, so a full or
read-only file system is one of the operating system's; rebooting is the end of the process, and who owns it starts it
again. Meant to be the first process of namespaces of its own with `--root /`: then `adb push` and `adb shell` agree on
absolute paths, and whatever a shell has left behind ends with the daemon.

Switched while it runs, by replacing the file of `--state` (see `state.AdbdState`) and then sending SIGHUP:

    what the client sees                      state
    device                                    {}
    offline                                   {"access": "offline"}
    unauthorized, for ever                    {"access": "keys"}
    unauthorized until the user says yes      {"access": "keys"}, then {"access": "keys", "user_allows": true}
    device for the owner of a key             {"access": "keys", "authorized_keys": ["QAAAA... user@host"]}
    the connection resets during a transfer   {"cut_after_bytes": 4000000}
"""
