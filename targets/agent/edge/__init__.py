"""The program that runs on a device: standard library only, Python 3.9 or later.

`targets.agent.pack` packs these modules into one file, which is pushed named by its own SHA-256 and runs as
`python3 -I FILE ROOT`. It reads one JSON request per line on stdin and answers each with one JSON line on stdout. The
operations are the fixed table in `agent`; nothing it is sent is ever executed. numpy and the runtimes are imported only
in a benchmark's child. The host imports the same modules for the wire's constants and for the rules of measuring.

    request   {"id": 1, "op": "have", "blobs": {"<sha256>": 1234}}
    reply     {"id": 1, "ok": {...}}   or   {"id": 1, "error": {"code": "disk-full", "message": "..."}}
"""
