/* Benchmarks of models on devices without Python: what the two programs share.
 *
 *   bench-tflite key=value ...     LiteRT 2.3 or later, through the C API of libLiteRt.so
 *   bench-onnx key=value ...       ONNX Runtime 1.11 or later, through the C API of libonnxruntime.so
 *
 * Each is bench.c and tensors.c with one of litert.c and ort.c. The runtime is opened when the program runs (dlopen), so neither its
 * headers nor its library are needed to build. A glibc program: see ../build.py. An Android program, with the NDK:
 *
 *   $NDK/toolchains/llvm/prebuilt/linux-x86_64/bin/aarch64-linux-android28-clang -std=c11 -O2 -o bench-onnx bench.c tensors.c ort.c -ldl -lm
 *
 * Keys (all of them, but for those with a default):
 *   library   the runtime's library, a path              version  its version, where it cannot tell (LiteRT)
 *   model     the model file                             inputs   one sample, a tensor file
 *   outputs   where to write the answer, a tensor file   threads  of one inference
 *   mask      CPUs to run on, hexadecimal; default: as it was started
 *   profile   yes: load it, run it once and say in the result only whether a delegate computes any of it (LiteRT)
 *   config    KEY=VALUE for the session, any number of times (ONNX Runtime)
 *   warm_max_ns  warm_min  warm_max       the time for warm samples, the least and the most of them
 *   warmup_ns  warmup_max  window  converged  slow_ns     the rule of the agent's `warm_up`, whose numbers these are
 *   windows  window_ns  idle_ns  settle_ns                the agent's `run_windows`; default: none
 *
 * It prints JSON lines as the agent's benchmark process does: {"stage": ...} on the way, then {"result": {...}} or
 * {"error": {"code": ..., "message": ...}}. The result has no distance from the expected answer: the host has the rule
 * for that, and the answer. An error of code `input` that comes with "inputs" says what the model wants instead.
 *
 * A tensor file, all numbers little-endian and nothing aligned:
 *   8 bytes  "EDTENS1\n"
 *   u32      number of tensors
 *   for each u32      number of names, then for each u32 length and that many bytes of UTF-8 without NUL
 *            u32      length of the type's name, and the name as numpy has it: float32, int8, bool ...
 *            u32      number of dimensions, then for each u64
 *            u64      size of the data in bytes, and the data: C order
 */
#ifndef BENCH_H
#define BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MAX_RANK = 8, MAX_NAMES = 4, MAX_TENSORS = 256, MAX_CONFIG = 8 };

enum dtype { BOOL, INT8, UINT8, INT16, UINT16, INT32, UINT32, INT64, UINT64, FLOAT16, FLOAT32, FLOAT64, DTYPES };

struct tensor {
    char *names[MAX_NAMES]; /* the first is how it is spoken of */
    uint32_t name_count;
    enum dtype dtype;
    uint32_t rank;
    int64_t dims[MAX_RANK];
    uint8_t *data; /* aligned for any kernel */
    size_t bytes;
};

struct tensors {
    struct tensor *items;
    uint32_t count;
};

struct job {
    const char *library, *version, *model, *inputs, *outputs, *mask, *profile;
    const char *config[MAX_CONFIG]; /* KEY=VALUE */
    size_t config_count;
    int64_t threads, warm_max_ns, warm_min, warm_max, warmup_ns, warmup_max, window, slow_ns;
    int64_t windows, window_ns, idle_ns, settle_ns; /* under a power meter */
    double converged;
};

/* What a runtime's file has. Each function ends the program with `fail` when it cannot do what it is for. */
extern const char *const runtime_name; /* as its Python distribution is called */
void runtime_open(const struct job *job);
const char *runtime_version(const struct job *job);
/* Load and give it the sample; the time this takes is the model's load time. */
void runtime_load(const struct job *job, const struct tensors *sample);
void runtime_run(void);
/* Between runs, outside the time. */
void runtime_between(void);
/* The answer of the last run; its data are copies. */
struct tensors runtime_outputs(void);
/* Whether a delegate computes all of it; with `profile`, whether any of it. */
bool runtime_delegated(void);

/* Of bench.c: */
_Noreturn void fail(const char *code, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* What the model wants, for the host to prepare the sample anew by the agent's rules. */
_Noreturn void fail_wanting(const struct tensors *wanted, const char *format, ...) __attribute__((format(printf, 2, 3)));
void *library_symbol(void *library, const char *name);
void *library_open(const struct job *job);

/* Of tensors.c: */
void *allocate(size_t bytes); /* zeroed, never NULL; lives until the end */
uint8_t *allocate_aligned(size_t bytes);
struct tensors new_tensors(size_t count);
void add_name(struct tensor *tensor, const char *name);
const char *dtype_name(enum dtype dtype);
size_t dtype_bytes(enum dtype dtype);
/* Number of bytes that a tensor of this type and shape has; false when that is no number. */
bool packed_bytes(const struct tensor *tensor, size_t *bytes);
/* The sample's tensor with one of the names, or NULL. */
const struct tensor *find_tensor(const struct tensors *sample, const struct tensor *wanted);
/* NULL, or what is wrong with the file. */
const char *parse_tensors(const uint8_t *file, size_t size, struct tensors *out);
struct tensors read_tensors(const char *path);
void write_tensors(const char *path, const struct tensors *tensors);
/* Of two answers of the same model. */
bool same_data(const struct tensors *one, const struct tensors *other);

#endif
