"""The program that runs on a device: one file, standard library only, Python 3.9 or later.

The host imports it for the wire constants and pushes it named by its own SHA-256; it runs as `python3 -I FILE ROOT`,
reads one JSON request per line on stdin and answers each with one JSON line on stdout. The operations are the fixed
table in `Agent`; nothing it is sent is ever executed. numpy and the runtimes are imported only in a benchmark's child.

    request   {"id": 1, "op": "have", "blobs": {"<sha256>": 1234}}
    reply     {"id": 1, "ok": {...}}   or   {"id": 1, "error": {"code": "disk-full", "message": "..."}}

ROOT/blobs/sha256/<digest>   files, complete and hashed, never changed
ROOT/parts/<session>/        files on their way in; locked by the session's agent, swept when that agent is gone
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import hashlib
import importlib
import importlib.metadata
import json
import os
import platform
import re
import select
import shutil
import signal
import statistics
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, BinaryIO, Callable, Iterable, Iterator

WIRE = (1, 0)  # major, minor; another major is refused in `hello`
MAX_REQUEST_BYTES = 256 * 1024
MAX_REPLY_BYTES = 8 * 1024 * 1024  # 200 000 samples of 20 digits are 4 MB
MAX_WARM_SAMPLES = 200_000
STDERR_TAIL_BYTES = 4000
EMULATED = "/run/edge-deploy-emulated"  # in one line what is emulated: written by an emulator that looks like hardware

RUNTIMES = {"tflite": ("ai-edge-litert", "tflite-runtime"), "onnx": ("onnxruntime",)}
MODULES = {
    "ai-edge-litert": "ai_edge_litert.interpreter",
    "tflite-runtime": "tflite_runtime.interpreter",
    "onnxruntime": "onnxruntime",
}

# A run this long needs no settling: caches and clocks settle inside it, and every more run costs the user.
SLOW_RUN_NS = 500_000_000
WARMUP_WINDOW = 5  # runs in each of the two medians that are compared
WARMUP_MAX_RUNS = 500
WARMUP_SHARE = 0.3  # of the time for warm samples
CONVERGED = 0.02  # relative change between two windows that counts as standing still

Json = dict[str, Any]


class Refused(Exception):
    """An expected failure, sent to the host as {code, message}."""

    def __init__(self, code: str, message: str, **more: Any) -> None:
        super().__init__(message)
        self.error = {"code": code, "message": message, **more}


def os_refusal(fault: OSError) -> Refused:
    codes = {errno.ENOSPC: "disk-full", errno.EDQUOT: "disk-full", errno.EROFS: "read-only"}
    codes.update({errno.EACCES: "read-only", errno.EPERM: "read-only"})
    return Refused(codes.get(fault.errno or 0, "agent"), "%s: %s" % (fault.strerror or fault, fault.filename or "?"))


# --- facts: pure parsers over text, then the probes that feed them -----------------------------------------------

# The instruction sets that choose a kernel in XNNPACK, ruy or MLAS. 32-bit and 64-bit ARM name the first differently.
KERNEL_FEATURES = [
    "neon", "vfpv4", "asimd", "fphp", "asimdhp", "asimddp", "asimdfhm", "bf16", "i8mm", "sve", "sve2", "sme",
    "sse2", "ssse3", "sse4_1", "sse4_2", "avx", "f16c", "fma", "avx2", "avx_vnni",
    "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_int8", "amx_bf16",
]  # fmt: skip

ARM_PARTS = {
    0xB76: "ARM1176", 0xC07: "Cortex-A7", 0xC08: "Cortex-A8", 0xC09: "Cortex-A9", 0xC0F: "Cortex-A15",
    0xD03: "Cortex-A53", 0xD04: "Cortex-A35", 0xD05: "Cortex-A55", 0xD07: "Cortex-A57", 0xD08: "Cortex-A72",
    0xD09: "Cortex-A73", 0xD0A: "Cortex-A75", 0xD0B: "Cortex-A76", 0xD0D: "Cortex-A77", 0xD0C: "Neoverse-N1",
    0xD40: "Neoverse-V1", 0xD41: "Cortex-A78", 0xD42: "Cortex-A78AE", 0xD44: "Cortex-X1", 0xD46: "Cortex-A510",
    0xD47: "Cortex-A710", 0xD48: "Cortex-X2", 0xD49: "Neoverse-N2", 0xD4B: "Cortex-A78C", 0xD4D: "Cortex-A715",
    0xD4E: "Cortex-X3", 0xD4F: "Neoverse-V2", 0xD80: "Cortex-A520", 0xD81: "Cortex-A720", 0xD82: "Cortex-X4",
}  # fmt: skip


def parse_cpuinfo(text: str) -> Json:
    """CPU model, kernel-choosing features and logical CPU count from the text of /proc/cpuinfo."""
    count, flags, name, board, cores = 0, set(), "", "", {}  # type: int, set[str], str, str, dict[str, int]
    for line in text.splitlines():
        key, _, value = (part.strip() for part in line.partition(":"))
        if key == "processor" and value.isdigit():
            count += 1
        elif key in ("flags", "Features", "isa"):
            flags.update(value.split())
        elif key == "model name":
            name = name or value
        elif key == "Model":
            board = value
        elif key == "CPU part":
            known = re.fullmatch("0x[0-9a-f]+", value)
            core = ARM_PARTS.get(int(value, 16), "ARM part " + value) if known else value
            cores[core] = cores.get(core, 0) + 1
    if cores:
        name = " + ".join("%dx %s" % (number, core) for core, number in cores.items())
    model = "%s (%s)" % (board, name) if board and name else board or name
    return {"model": model, "features": [f for f in KERNEL_FEATURES if f in flags], "count": count}


def parse_os_release(text: str) -> str:
    """PRETTY_NAME of /etc/os-release, without its quotes."""
    found = re.search(r"^PRETTY_NAME=(?:\"([^\"]*)\"|'([^']*)'|(\S*))", text, re.MULTILINE)
    return next((group for group in found.groups() if group), "") if found else ""


def parse_kb(text: str, key: str) -> int | None:
    """Bytes of a `Key:  1234 kB` line of /proc/meminfo or /proc/self/status."""
    found = re.search(r"^%s:\s+(\d+) kB" % re.escape(key), text, re.MULTILINE)
    return int(found.group(1)) * 1024 if found else None


def user_arch(machine: str, pointer_bits: int) -> str:
    """The architecture wheels must match: a 64-bit kernel often carries a 32-bit Raspberry Pi OS."""
    if pointer_bits == 32:
        return {"aarch64": "armv7l", "x86_64": "i686"}.get(machine, machine)
    return machine


def read_text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip("\0\n ")
    except OSError:
        return ""


def first_text(folder: str, pattern: str) -> str:
    return next((text for path in sorted(Path(folder).glob(pattern)) if (text := read_text(str(path)))), "")


def temperature_c() -> float | None:
    text = first_text("/sys/class/thermal", "thermal_zone*/temp")
    text = text or first_text("/sys/class/hwmon", "hwmon*/temp1_input")
    return int(text) / 1000 if re.fullmatch(r"-?\d+", text) else None


def saturates_int8(features: list[str]) -> bool:
    """Whether onnxruntime's uint8 x int8 products overflow their 16-bit sums: on x86 without VNNI instructions."""
    return "sse2" in features and not {"avx_vnni", "avx512_vnni"}.intersection(features)


def vcgencmd(*words: str) -> str:
    if not shutil.which("vcgencmd"):
        return ""
    try:
        done = subprocess.run(["vcgencmd", *words], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def found_meters() -> list[str]:
    """Power sensors that can be read here, as `kind:place`."""
    found = []
    for chip in sorted(Path("/sys/class/hwmon").glob("hwmon*")):
        if re.fullmatch(r"ina\d+", read_text(str(chip / "name"))):
            found.append("%s:%s" % (read_text(str(chip / "name")), chip))
    for zone in sorted(Path("/sys/class/powercap").glob("*-rapl:*")):
        if read_text(str(zone / "energy_uj")):  # since Linux 5.10 only root may read it
            found.append("rapl:%s" % zone)
    if "_V" in vcgencmd("pmic_read_adc"):
        found.append("pmic:vcgencmd")
    return found


def emulation() -> str:
    """Why latencies here are not those of the hardware it looks like; empty when nothing says so."""
    if told := read_text(EMULATED).partition("\n")[0]:
        return told[:200]
    # qemu-user answers for /proc/self but not for /proc/thread-self, which still names the emulator.
    for link in ("/proc/thread-self/exe", "/proc/self/task/%d/exe" % os.getpid()):
        with contextlib.suppress(OSError):
            if "qemu" in Path(link).readlink().name:
                return "qemu-user: the processor is emulated in software"
    if "dummy-virt" in read_text("/sys/firmware/devicetree/base/compatible"):
        return "QEMU virt machine: not a real board"
    return "QEMU virtual CPU" if "QEMU" in parse_cpuinfo(read_text("/proc/cpuinfo"))["model"] else ""


def distributions(names: Iterable[str]) -> dict[str, str]:
    found = {}
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def gather_facts(root: Path) -> Json:
    cpu = parse_cpuinfo(read_text("/proc/cpuinfo"))
    meminfo = read_text("/proc/meminfo")
    board = read_text("/sys/firmware/devicetree/base/model")
    if board and board not in cpu["model"]:
        cpu["model"] = "%s (%s)" % (board, cpu["model"]) if cpu["model"] else board
    return {
        "arch": user_arch(platform.machine(), struct.calcsize("P") * 8),
        "cpu_model": cpu["model"] or platform.processor() or "unknown",
        "cpu_features": cpu["features"],
        "cpu_count": os.cpu_count() or cpu["count"] or 1,
        "os": parse_os_release(read_text("/etc/os-release")) or platform.system(),
        "kernel": platform.release(),
        "libc": " ".join(platform.libc_ver()).strip() or "unknown",
        "python": platform.python_version(),
        "executable": sys.executable,
        "runtimes": distributions(MODULES),
        "governor": first_text("/sys/devices/system/cpu", "cpu*/cpufreq/scaling_governor") or None,
        "free_disk_bytes": shutil.disk_usage(root).free,
        "total_memory_bytes": parse_kb(meminfo, "MemTotal"),
        "available_memory_bytes": parse_kb(meminfo, "MemAvailable"),
        "temperature_c": temperature_c(),
        "meters": found_meters(),
        "emulated": emulation(),
    }


def conditions(moment: str) -> dict[str, str]:
    """What the device looked like just now, keys ending in the moment ("before", "after")."""
    temperature = temperature_c()
    seen = {
        "governor": first_text("/sys/devices/system/cpu", "cpu*/cpufreq/scaling_governor"),
        "cpu_freq_khz": first_text("/sys/devices/system/cpu", "cpu*/cpufreq/scaling_cur_freq"),
        "temperature_c": "" if temperature is None else "%.1f" % temperature,
        "load_1min": "%.2f" % os.getloadavg()[0],
        "throttled": vcgencmd("get_throttled").partition("=")[2],
    }
    return {"%s_%s" % (key, moment): value for key, value in seen.items() if value}


# --- the agent: requests in, replies out -------------------------------------------------------------------------


class HostGone(Exception):
    """stdin ended: whoever asked is not there any more."""


class Agent:
    """Serves one session until its stdin ends, then leaves no child and no half file behind."""

    def __init__(self, root: Path, requests_fd: int, replies: BinaryIO) -> None:
        self.root, self.fd, self.replies, self.held = root, requests_fd, replies, b""
        self.blobs = root / "blobs" / "sha256"
        self.parts = root / "parts" / ("%d-%s" % (os.getpid(), os.urandom(6).hex()))
        self.lock_fd = -1
        self.child: subprocess.Popen[bytes] | None = None
        self.operations: dict[str, Callable[[Json], Json]] = {
            "hello": self.hello,
            "facts": lambda _: gather_facts(root),
            "have": self.have,
            "commit": self.commit,
            "discard": self.discard,
            "bench": self.bench,
        }

    def serve(self) -> None:
        try:
            while True:
                self.answer(self.next_line())
        except (HostGone, BrokenPipeError):
            pass
        finally:
            self.kill_child()
            if self.lock_fd >= 0:
                shutil.rmtree(self.parts, ignore_errors=True)

    def next_line(self) -> bytes:
        while b"\n" not in self.held:
            if len(self.held) > MAX_REQUEST_BYTES:
                raise HostGone  # out of protocol; there is no request id to answer to
            self.read_more()
        line, _, self.held = self.held.partition(b"\n")
        return line

    def read_more(self) -> None:
        chunk = os.read(self.fd, 65536)
        if not chunk:
            raise HostGone
        self.held += chunk

    def answer(self, line: bytes) -> None:
        number: Any = None
        try:
            request = json.loads(line)
            number = request["id"]
            operation = self.operations.get(request["op"])
            if operation is None:
                raise Refused("agent", "unknown operation %r" % request["op"])
            reply = {"id": number, "ok": operation(request)}
        except Refused as refusal:
            reply = {"id": number, "error": refusal.error}
        except (HostGone, BrokenPipeError):
            raise
        except OSError as fault:
            reply = {"id": number, "error": os_refusal(fault).error}
        except Exception as fault:  # a request out of protocol must not cost the session
            reply = {"id": number, "error": {"code": "agent", "message": "%s: %s" % (type(fault).__name__, fault)}}
        text = json.dumps(reply, separators=(",", ":")).encode() + b"\n"
        if len(text) > MAX_REPLY_BYTES:
            text = json.dumps({"id": number, "error": {"code": "agent", "message": "reply too large"}}).encode() + b"\n"
        self.replies.write(text)
        self.replies.flush()

    def hello(self, request: Json) -> Json:
        major = request["wire"][0]
        if major != WIRE[0]:
            raise Refused("agent", "this agent speaks wire version %d, the host %s" % (WIRE[0], major))
        self.blobs.mkdir(parents=True, exist_ok=True)
        if self.lock_fd < 0:
            self.parts.mkdir(parents=True)
            self.lock_fd = os.open(str(self.parts / "lock"), os.O_CREAT | os.O_RDONLY, 0o600)
            fcntl.flock(self.lock_fd, fcntl.LOCK_EX)
            self.sweep()
        return {"wire": list(WIRE), "pid": os.getpid(), "parts": str(self.parts)}

    def sweep(self) -> None:
        """Remove what sessions left whose agents were killed; a living agent holds its lock."""
        for folder in self.parts.parent.iterdir():
            if folder == self.parts:
                continue
            try:
                fd = os.open(str(folder / "lock"), os.O_RDONLY)
            except FileNotFoundError:
                # No lock yet: a session that is just being born, unless it has been so for a minute.
                if time.time() - folder.stat().st_mtime > 60:
                    shutil.rmtree(folder, ignore_errors=True)
                continue
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            except BlockingIOError:
                pass
            finally:
                os.close(fd)

    def blob(self, digest: str) -> Path:
        if not re.fullmatch(r"[0-9a-f]{64}", digest):
            raise Refused("agent", "not a SHA-256 digest: %r" % digest)
        return self.blobs / digest

    def part(self, digest: str) -> Path:
        return self.parts / (self.blob(digest).name + ".part")

    def have(self, request: Json) -> Json:
        present = []
        for digest, size in request["blobs"].items():
            path = self.blob(digest)
            if path.is_file() and path.stat().st_size == size:
                present.append(digest)
        return {"present": present, "free_disk_bytes": shutil.disk_usage(self.root).free}

    def commit(self, request: Json) -> Json:
        digest = request["sha256"]
        path = self.part(digest)
        found = sha256_of(path)
        if found != digest:
            path.unlink()
            raise Refused("hash-mismatch", "arrived as sha256 %s, was sent as %s" % (found, digest))
        flush(path)  # the bytes first, then the name: both must outlive a power cut
        path.replace(self.blob(digest))
        flush(self.blobs)
        return {}

    def discard(self, request: Json) -> Json:
        with contextlib.suppress(FileNotFoundError):
            self.part(request["sha256"]).unlink()
        return {"free_disk_bytes": shutil.disk_usage(self.root).free}

    def bench(self, request: Json) -> Json:
        job = {key: request[key] for key in ("format", "threads", "warm_max_s", "warm_min_samples", "warm_max_samples")}
        for role in ("blob", "inputs", "expected"):
            path = self.blob(request[role])
            if not path.is_file():
                raise Refused("agent", "the %s %s is not on the device; push it first" % (role, request[role]))
            if sha256_of(path) != request[role]:  # flash storage rots; the digest is the evidence
                path.unlink()
                raise Refused("hash-mismatch", "the stored %s %s has changed; push it again" % (role, request[role]))
            job[role] = str(path)
        deadline = time.monotonic() + request["deadline_s"]
        with (self.root / "bench.lock").open("w", encoding="utf-8") as lock:
            waited_s = self.take_turn(lock.fileno(), deadline)
            seen = conditions("before")
            result = self.run_child(job, deadline)
            seen.update(conditions("after"))
        if waited_s >= 1:
            seen["waited_for_other_benchmark_s"] = "%.0f" % waited_s
        if emulated := emulation():
            seen["emulated"] = emulated
        seen["cpus_allowed"] = str(len(os.sched_getaffinity(0)))
        seen.update(result.pop("conditions"))
        return {**result, "conditions": seen}

    def take_turn(self, lock_fd: int, deadline: float) -> float:
        """Wait until no other session benchmarks here: two at once would measure each other."""
        start = time.monotonic()
        while True:
            try:
                fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return time.monotonic() - start
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise Refused("timeout", "another benchmark held this device all the time") from None
            if select.select([self.fd], [], [], 0.2)[0]:
                self.read_more()

    def run_child(self, job: Json, deadline: float) -> Json:
        """Run the benchmark in a fresh process, watching for its end, its deadline and the host's disappearance."""
        with (self.parts / "bench.stderr").open("w+b") as stderr:
            argv = [sys.executable, "-I", str(Path(__file__).resolve()), "--bench"]
            self.child = subprocess.Popen(
                argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, start_new_session=True
            )
            assert self.child.stdin and self.child.stdout
            output = b""
            try:
                try:
                    self.child.stdin.write(json.dumps(job).encode())
                    self.child.stdin.close()
                except BrokenPipeError:
                    pass  # it died at once; its end is reported below
                while True:
                    left_s = deadline - time.monotonic()
                    if left_s <= 0:
                        raise Refused("timeout", "the benchmark outlived its deadline; " + stage_text(output))
                    results_fd = self.child.stdout.fileno()
                    ready = select.select([self.fd, results_fd], [], [], left_s)[0]
                    if self.fd in ready:
                        self.read_more()
                    if results_fd in ready:
                        chunk = os.read(results_fd, 1 << 20)
                        if not chunk:
                            break
                        output += chunk
                status = self.child.wait(timeout=max(1.0, deadline - time.monotonic()))
            finally:
                self.kill_child()
            stderr.seek(0)
            noise = stderr.read(1 << 20).decode("utf-8", "replace")
        return judge_child(status, output, noise)

    def kill_child(self) -> None:
        child, self.child = self.child, None
        if child is None:
            return
        if child.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None and not pipe.closed:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


def flush(path: Path) -> None:
    fd = os.open(str(path), os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for chunk in iter(lambda: file.read(1 << 20), b""):
            digest.update(chunk)
    return digest.hexdigest()


def records_of(output: bytes) -> Iterator[Json]:
    for line in output.splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            continue  # the last line of a process that died while writing it


def stage_text(output: bytes) -> str:
    stages = [record["stage"] for record in records_of(output) if "stage" in record]
    return "it was at: %s" % (stages[-1] if stages else "starting")


def judge_child(status: int, output: bytes, noise: str) -> Json:
    """The child's result, or the refusal that says how it ended."""
    last = noise[-STDERR_TAIL_BYTES:].strip()
    if status < 0:
        try:
            name = signal.Signals(-status).name
        except ValueError:
            name = "signal %d" % -status
        raise Refused("agent", "the benchmark process was killed by %s; %s" % (name, stage_text(output)), stderr=last)
    for record in records_of(output):
        if "error" in record:
            raise Refused(**record["error"])
        if "result" in record:
            result: Json = record["result"]
            # The runtime says which delegate it made only on stderr; whether it took any op, the interpreter says.
            named = re.search(r"Created TensorFlow Lite (\w+) delegate", noise)
            if result.pop("delegated"):
                result["delegate"] = named.group(1) if named else "unnamed"
            return result
    raise Refused("agent", "the benchmark process ended with status %d; %s" % (status, stage_text(output)), stderr=last)


# --- the benchmark: a child process of its own -------------------------------------------------------------------


def import_runtime(model_format: str) -> tuple[str, str, Any]:
    """The first runtime of the format that imports: distribution, version, module."""
    troubles = []
    for name, version in distributions(RUNTIMES[model_format]).items():
        try:
            return name, version, importlib.import_module(MODULES[name])
        except Exception as fault:  # a wheel for another numpy raises what it likes
            troubles.append("%s %s cannot be imported (%s: %s)" % (name, version, type(fault).__name__, fault))
    found = ", ".join("%s %s" % pair for pair in distributions(MODULES).items()) or "none"
    detail = "; ".join(troubles) or "none of %s is installed" % " or ".join(RUNTIMES[model_format])
    message = "no runtime for %s: %s; found: %s" % (model_format, detail, found)
    raise Refused("no-runtime", message, executable=sys.executable)


def pick(arrays: Json, names: list[str], count: int, what: str) -> Any:
    """The array called by one of the names; the only array when the model has only one such tensor."""
    for name in names:
        if name in arrays:
            return arrays[name]
    if count == 1 and len(arrays) == 1:
        return next(iter(arrays.values()))
    raise Refused("input", "the sample has no array for %s %s; it has %s" % (what, names[0], sorted(arrays)))


def plain_name(name: str) -> str:
    """The name of a TensorFlow Lite tensor without what converters add to it."""
    return re.sub(r"^[a-z]+_default_|:\d+$", "", name)


def cast(array: Any, dtype: Any, name: str) -> Any:
    """The array in the tensor's dtype; a change of kind (float to integer) is refused, it would be a guess."""
    import numpy as np

    if not np.can_cast(array.dtype, dtype, casting="same_kind"):
        raise Refused("input", "%s is %s, the sample's array is %s" % (name, np.dtype(dtype), array.dtype))
    return np.ascontiguousarray(array, dtype=dtype)


class TfliteModel:
    """A .tflite model in ai-edge-litert or tflite-runtime."""

    def __init__(self, module: Any) -> None:
        self.module = module

    def load(self, path: str, threads: int, sample: Json) -> None:
        self.interpreter = self.module.Interpreter(model_path=path, num_threads=threads)
        details = self.interpreter.get_input_details()
        names = self.names("inputs", details)
        feeds = []
        for detail in details:
            array = pick(sample, names[detail["index"]], len(details), "input")
            array = cast(array, detail["dtype"], names[detail["index"]][0])
            if tuple(detail["shape"]) != array.shape:
                self.interpreter.resize_tensor_input(detail["index"], array.shape)
            feeds.append((detail["index"], array))
        self.interpreter.allocate_tensors()
        for index, array in feeds:
            self.interpreter.set_tensor(index, array)
        self.run: Callable[[], object] = self.interpreter.invoke

    def names(self, side: str, details: list[Json]) -> dict[int, list[str]]:
        """Tensor index to the names a sample may use: the signature's, the tensor's, and that without decoration."""
        names = {d["index"]: [d["name"], plain_name(d["name"])] for d in details}
        full: dict[str, Any] = getattr(self.interpreter, "_get_full_signature_list", dict)() or {}
        for signature in full.values():
            if set(signature[side].values()) == set(names):  # of the main subgraph, the one `invoke` runs
                for name, index in signature[side].items():
                    names[index].insert(0, name)
                break
        return names

    def reset(self) -> None:
        self.interpreter.reset_all_variables()  # does nothing when the model has no state

    def outputs(self) -> list[tuple[list[str], Any]]:
        details = self.interpreter.get_output_details()
        names = self.names("outputs", details)
        return [(names[d["index"]], self.interpreter.get_tensor(d["index"])) for d in details]

    def delegated(self) -> bool:
        operations: list[Json] = getattr(self.interpreter, "_get_ops_details", list)()
        return any(operation["op_name"] == "DELEGATE" for operation in operations)


def exact_int8(cpuinfo: str = "") -> dict[str, str]:
    """onnxruntime's setting for exact int8 products where the fast ones are not; `cpuinfo`: of another device.

    Left out elsewhere: the setting makes every x86 CPU slow, also one that is exact without it.
    """
    features = parse_cpuinfo(cpuinfo or read_text("/proc/cpuinfo"))["features"]
    return {"session.x64quantprecision": "1"} if saturates_int8(features) else {}


def onnx_options(module: Any, threads: int) -> Any:
    """The session options of a benchmark, and of the host's own runs: both must compute alike."""
    options = module.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    for key, value in exact_int8().items():
        options.add_session_config_entry(key, value)
    return options


class OnnxModel:
    """An .onnx model in onnxruntime, on its CPU provider."""

    def __init__(self, module: Any) -> None:
        self.module = module

    def load(self, path: str, threads: int, sample: Json) -> None:
        options = onnx_options(self.module, threads)
        self.session = self.module.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        inputs = self.session.get_inputs()
        feed = {tensor.name: pick(sample, [tensor.name], len(inputs), "input") for tensor in inputs}
        self.values: list[Any] = []

        def run() -> None:
            self.values = self.session.run(None, feed)

        self.run = run

    def reset(self) -> None:
        pass  # ONNX models hold no state between runs

    def outputs(self) -> list[tuple[list[str], Any]]:
        return [([tensor.name], value) for tensor, value in zip(self.session.get_outputs(), self.values)]  # noqa: B905

    def delegated(self) -> bool:
        return False


def settled(times_ns: list[int]) -> bool:
    """Whether the rolling median stands still: the last window's against the window's before it."""
    if len(times_ns) < 2 * WARMUP_WINDOW:
        return False
    before = statistics.median(times_ns[-2 * WARMUP_WINDOW : -WARMUP_WINDOW])
    return abs(statistics.median(times_ns[-WARMUP_WINDOW:]) - before) <= CONVERGED * before


def current_khz() -> str:
    return first_text("/sys/devices/system/cpu", "cpu*/cpufreq/scaling_cur_freq")


def warm_up(timed: Callable[[], int], first_ns: int, budget_ns: float) -> list[int]:
    """Runs until the rolling median and the clock stand still, within a budget; one run when runs are slow."""
    times, spent, khz = [timed()], 0, ""
    spent = times[0]
    while max(first_ns, times[-1]) < SLOW_RUN_NS and spent + times[-1] <= budget_ns and len(times) < WARMUP_MAX_RUNS:
        if len(times) % WARMUP_WINDOW == 0:
            khz_before, khz = khz, current_khz()
            if settled(times) and khz == khz_before:
                break
        times.append(timed())
        spent += times[-1]
    return times


def warm_samples(timed: Callable[[], int], max_s: float, least: int, most: int) -> list[int]:
    times: list[int] = []
    spent_ns = 0
    while len(times) < max(1, least) or (len(times) < most and spent_ns + times[-1] <= max_s * 1e9):
        times.append(timed())
        spent_ns += times[-1]
    return times


def compare(outputs: list[tuple[list[str], Any]], expected: Json) -> tuple[float, bool]:
    """(largest distance in steps, all finite) over every output.

    A step is one raw unit of an integer output. Of a float output it is 1/255 of the range (max - min) of the expected
    values; of a constant output, 1/255 of its magnitude, or 1/255 when it is all zero.
    """
    import numpy as np

    worst, finite = 0.0, True
    for names, got in outputs:
        want = pick(expected, names, len(outputs), "output")
        if want.shape != got.shape:
            raise Refused("input", "output %s is %s here, %s in the expected file" % (names[0], got.shape, want.shape))
        if got.dtype.kind not in "fiub":
            if not np.array_equal(got, want):
                worst = max(worst, 1.0)  # strings have no distance
            continue
        step = 1.0
        far = np.abs(got.astype(np.float64) - want.astype(np.float64))
        if got.dtype.kind == "f":
            finite = finite and bool(np.isfinite(got).all())
            known = want[np.isfinite(want)].astype(np.float64)
            spread = float(known.max() - known.min() or np.abs(known).max() or 1.0) if known.size else 1.0
            step, far = spread / 255, far[np.isfinite(far)]
        worst = max(worst, float(far.max()) / step if far.size else 0.0)
    return worst, finite


def load_arrays(path: str) -> Json:
    import numpy as np

    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def peak_rss_bytes() -> int | None:
    return parse_kb(read_text("/proc/self/status"), "VmHWM")


def run_benchmark(job: Json, stage: Callable[[str], None]) -> Json:
    stage("importing the runtime")
    distribution, version, module = import_runtime(job["format"])
    sample = load_arrays(job["inputs"])
    model: Any = TfliteModel(module) if job["format"] == "tflite" else OnnxModel(module)
    clock = time.perf_counter_ns
    seen = {"peak_rss_before_load_bytes": str(peak_rss_bytes() or "unknown")}

    if job["format"] == "onnx":
        seen.update(exact_int8())  # an application on this CPU needs the same setting

    stage("loading the model")
    start = clock()
    model.load(job["blob"], job["threads"], sample)
    load_ns = clock() - start
    load_peak = peak_rss_bytes()

    def timed() -> int:
        model.reset()
        run = model.run
        start = clock()
        run()
        return clock() - start

    stage("the first inference")
    first_ns = timed()
    stage("warming up")
    warmup = warm_up(timed, first_ns, job["warm_max_s"] * 1e9 * WARMUP_SHARE)
    stage("warm inference")
    most = min(job["warm_max_samples"], MAX_WARM_SAMPLES)
    # When the first run and the one after it are both slow, the first was the warm-up: the second is a sample already.
    slow = min(first_ns, *warmup) >= SLOW_RUN_NS
    warm, warmup = (warmup, []) if slow else ([], warmup)
    warm += warm_samples(timed, job["warm_max_s"], job["warm_min_samples"] - len(warm), most)
    peak = peak_rss_bytes()  # after timing, never polled while it runs

    stage("comparing outputs")
    steps, finite = compare(model.outputs(), load_arrays(job["expected"]))
    return {
        "runtime": distribution, "runtime_version": version, "delegate": "", "delegated": model.delegated(),
        "load_ns": load_ns, "first_ns": first_ns, "warmup_ns": warmup, "warm_ns": warm,
        "load_peak_rss_bytes": load_peak, "peak_rss_bytes": peak,
        "max_steps": steps, "finite": finite, "conditions": seen,
    }  # fmt: skip


def die_with_parent() -> None:
    """Have the kernel kill this process when its agent dies, however it dies."""
    with contextlib.suppress(OSError, AttributeError):  # the agent itself kills it in every case but its own SIGKILL
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def take_stdout() -> BinaryIO:
    """Keep stdout for replies alone: whatever a library prints goes to stderr from here on."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return replies


def be_the_first_to_go() -> None:
    """When memory runs out, the kernel is to end this process and nothing else that the device does."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")


def bench_child(replies: BinaryIO) -> None:
    die_with_parent()
    be_the_first_to_go()

    def emit(record: Json) -> None:
        replies.write(json.dumps(record).encode() + b"\n")
        replies.flush()

    job = json.loads(sys.stdin.buffer.read(MAX_REQUEST_BYTES))
    try:
        emit({"result": run_benchmark(job, lambda text: emit({"stage": text}))})
    except Refused as refusal:
        emit({"error": refusal.error})
    except Exception as fault:  # runtimes raise ValueError, RuntimeError and classes of their own
        emit({"error": {"code": "agent", "message": "%s: %s" % (type(fault).__name__, fault)}})


def main(argv: list[str]) -> None:
    replies = take_stdout()
    if argv[1:] == ["--bench"]:
        bench_child(replies)
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that `serve` still cleans up
    signal.signal(signal.SIGHUP, lambda *_: sys.exit(1))
    Agent(Path(argv[1]), 0, replies).serve()


if __name__ == "__main__":
    main(sys.argv)
