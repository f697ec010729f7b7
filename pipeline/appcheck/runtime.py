"""Which model runtime a native library is, and which version, from the library itself.

ONNX Runtime names its version as a symbol version (`VERS_1.29.0`, in every ABI of its Android archive). LiteRT has no
such mark, and the numbers among its strings are those of libraries inside it (`2.0.3` in the 2.3.0 wheel is hwloc's):
where it exports `TfLiteVersion`, that function's code says where its text is; otherwise the version stays unknown.
"""

import re
import struct

from pipeline.appcheck import elf
from pipeline.fit.records import Malformed, RuntimeName

# Names in the vendors' Android archives.
LIBRARIES: dict[str, RuntimeName] = {
    "libtensorflowlite_jni.so": "litert",
    "libtensorflowlite_c.so": "litert",
    "libtensorflowlite.so": "litert",
    "liblitert_jni.so": "litert",
    "libLiteRt.so": "litert",
    "libonnxruntime.so": "onnxruntime",
}
GPU_LIBRARIES = frozenset(
    {
        "libtensorflowlite_gpu_jni.so",
        "libtensorflowlite_gpu_delegate.so",
        "libLiteRtClGlAccelerator.so",
        "libLiteRtOpenClAccelerator.so",
        "libLiteRtGpuAccelerator.so",
    }
)
FLEX_LIBRARIES = frozenset({"libtensorflowlite_flex_jni.so"})
# Texts of the runtimes' own errors and banners, for apps that link a runtime into a library of their own.
MARKS: dict[bytes, RuntimeName] = {
    b"Didn't find op for builtin opcode": "litert",
    b"ORT Build Info: ": "onnxruntime",
}
_ONNX_VERSION = re.compile(rb"\0VERS_(\d+\.\d+\.\d+)\0")
_VERSION = re.compile(r"\d+\.\d+\.\d+([-.][0-9A-Za-z.]+)?")
_X86_64, _AARCH64 = 62, 183
_FUNCTION_BYTES = 32  # a function that returns a constant has three instructions


def version_of(runtime: RuntimeName, data: bytes) -> str:
    """The version that the library's bytes tell, or nothing."""
    if runtime == "onnxruntime":
        found = _ONNX_VERSION.search(data)
        return found[1].decode() if found else ""
    try:
        return _tflite_version(data)
    except (Malformed, struct.error):
        return ""


def _tflite_version(data: bytes) -> str:
    """Follow `const char* TfLiteVersion(void)` to the text whose address it returns."""
    head = elf.parse(data)
    address = elf.symbol_address(data, head, b"TfLiteVersion")
    if address is None:
        return ""
    start = head.offset_of(address)
    code = data[start : start + _FUNCTION_BYTES]
    decode = _DECODERS.get(head.machine)
    target = decode(code, address) if decode else None
    text = elf.text_at(data, head.offset_of(target)) if target is not None else ""
    return text if _VERSION.fullmatch(text) else ""


def _x86_64_constant(code: bytes, address: int) -> int | None:
    """`lea rax, [rip + x]`, perhaps after `endbr64` and a frame."""
    place = code.find(b"\x48\x8d\x05")
    if place < 0 or place + 7 > len(code):
        return None
    (offset,) = struct.unpack_from("<i", code, place + 3)
    return address + place + 7 + int(offset)


def _aarch64_constant(code: bytes, address: int) -> int | None:
    """`adrp x0, page; add x0, x0, #low`, perhaps after `bti c`; or `adr x0, x`."""
    words: tuple[int, ...] = struct.unpack(f"<{len(code) // 4}I", code[: len(code) // 4 * 4])
    for place, word in enumerate(words):
        at = address + 4 * place
        offset = (word >> 29 & 3) | (word >> 5 & 0x7FFFF) << 2
        offset -= (offset & 1 << 20) << 1  # 21 bits, signed
        if word & 0x9F00001F == 0x10000000:
            return at + offset
        if word & 0x9F00001F == 0x90000000 and place + 1 < len(words) and words[place + 1] & 0xFFC003FF == 0x91000000:
            return (at & ~0xFFF) + (offset << 12) + (words[place + 1] >> 10 & 0xFFF)
    return None


_DECODERS = {_X86_64: _x86_64_constant, _AARCH64: _aarch64_constant}
