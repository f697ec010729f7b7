/* ONNX Runtime, by the C API of libonnxruntime.so, on its CPU provider.
 *
 * OrtApi is a table of functions that only ever grows at its end: "this struct must be ABI compatible between
 * releases". A function is therefore its place in the table, in every version since the one that brought it. The
 * places below can be checked against a genuine header (an .aar of ONNX Runtime has one in headers/):
 *     cc -std=c11 -fsyntax-only -DORT_HEADER='"onnxruntime_c_api.h"' -I FOLDER ort.c
 */
#include "bench.h"

#include <string.h>

typedef void Status; /* NULL is good */
typedef void *Handle;
/* The oldest version whose table has all that is used: any later library serves it too. */
enum { API_VERSION = 11, LOG_ERROR = 3, ARENA = 1, MEMORY_DEFAULT = 0, KIND_TENSOR = 1 };

#define FUNCTIONS(F)                                                                                                   \
    F(2, GetErrorMessage, const char *, (const Status *))                                                              \
    F(3, CreateEnv, Status *, (int level, const char *name, Handle *environment))                                      \
    F(7, CreateSession, Status *, (Handle environment, const char *path, Handle options, Handle *session))             \
    F(9, Run, Status *,                                                                                                \
      (Handle session, Handle options, const char *const *names, const Handle *inputs, size_t input_count,             \
       const char *const *output_names, size_t output_count, Handle *outputs))                                         \
    F(10, CreateSessionOptions, Status *, (Handle *))                                                                  \
    F(22, SetSessionLogSeverityLevel, Status *, (Handle options, int level))                                           \
    F(24, SetIntraOpNumThreads, Status *, (Handle options, int threads))                                               \
    F(25, SetInterOpNumThreads, Status *, (Handle options, int threads))                                               \
    F(30, SessionGetInputCount, Status *, (Handle session, size_t *count))                                             \
    F(31, SessionGetOutputCount, Status *, (Handle session, size_t *count))                                            \
    F(33, SessionGetInputTypeInfo, Status *, (Handle session, size_t index, Handle *info))                             \
    F(36, SessionGetInputName, Status *, (Handle session, size_t index, Handle allocator, char **name))                \
    F(37, SessionGetOutputName, Status *, (Handle session, size_t index, Handle allocator, char **name))               \
    F(49, CreateTensorWithDataAsOrtValue, Status *,                                                                    \
      (Handle memory, void *data, size_t bytes, const int64_t *dims, size_t rank, int type, Handle *value))            \
    F(51, GetTensorMutableData, Status *, (Handle value, void **data))                                                 \
    F(55, CastTypeInfoToTensorInfo, Status *, (Handle info, Handle *shape))                                            \
    F(60, GetTensorElementType, Status *, (Handle shape, int *type))                                                   \
    F(61, GetDimensionsCount, Status *, (Handle shape, size_t *rank))                                                  \
    F(62, GetDimensions, Status *, (Handle shape, int64_t *dims, size_t rank))                                         \
    F(65, GetTensorTypeAndShape, Status *, (Handle value, Handle *shape))                                              \
    F(67, GetValueType, Status *, (Handle value, int *kind))                                                           \
    F(69, CreateCpuMemoryInfo, Status *, (int allocator, int memory, Handle *info))                                    \
    F(78, GetAllocatorWithDefaultOptions, Status *, (Handle *))                                                        \
    F(96, ReleaseValue, void, (Handle value))                                                                          \
    F(99, ReleaseTensorTypeAndShapeInfo, void, (Handle shape))                                                         \
    F(130, AddSessionConfigEntry, Status *, (Handle options, const char *key, const char *value))

#define POINTER(place, name, result, parameters) result(*name) parameters;
static struct {
    FUNCTIONS(POINTER)
} api;

#ifdef ORT_HEADER
#include ORT_HEADER
#define CHECKED(place, name, result, parameters)                                                                       \
    _Static_assert(offsetof(OrtApi, name) == (place) * sizeof(void *), #name " is elsewhere");
FUNCTIONS(CHECKED)
#endif

struct base {
    const void *const *(*get_api)(uint32_t version);
    const char *(*get_version)(void);
};

/* ONNX's number of a type. */
static const int ELEMENT_TYPE[DTYPES] = {
    [FLOAT32] = 1, [UINT8] = 2, [INT8] = 3,     [UINT16] = 4,   [INT16] = 5,   [INT32] = 6,
    [INT64] = 7,   [BOOL] = 9,  [FLOAT16] = 10, [FLOAT64] = 11, [UINT32] = 12, [UINT64] = 13,
};

const char *const runtime_name = "onnxruntime";
static const struct base *base;
static Handle session, *in, *out;
static const char **in_names, **out_names;
static size_t inputs, outputs;

static void good(Status *status, const char *doing) {
    if (status) fail("agent", "%s: %s", doing, api.GetErrorMessage(status));
}

void runtime_open(const struct job *job) {
    const struct base *(*get_base)(void);
    void *symbol = library_symbol(library_open(job), "OrtGetApiBase");
    memcpy(&get_base, &symbol, sizeof symbol);
    base = get_base();
    const void *const *table = base->get_api(API_VERSION);
    if (!table) fail("no-runtime", "onnxruntime %s is too old", base->get_version());
#define FILLED(place, name, result, parameters) memcpy(&api.name, &table[place], sizeof api.name);
    FUNCTIONS(FILLED)
}

const char *runtime_version(const struct job *job) {
    (void)job;
    return base->get_version();
}

static Handle options_of(const struct job *job) {
    Handle options;
    good(api.CreateSessionOptions(&options), "making options");
    good(api.SetIntraOpNumThreads(options, (int)job->threads), "setting threads");
    good(api.SetInterOpNumThreads(options, 1), "setting threads");
    good(api.SetSessionLogSeverityLevel(options, LOG_ERROR), "setting the log");
    for (size_t i = 0; i < job->config_count; i++) {
        char key[256];
        size_t length = strcspn(job->config[i], "=");
        if (length >= sizeof key) fail("agent", "config=%s is too long", job->config[i]);
        memcpy(key, job->config[i], length);
        key[length] = 0;
        good(api.AddSessionConfigEntry(options, key, job->config[i] + length + 1), "setting the session");
    }
    return options;
}

static enum dtype dtype_of(int element_type, const char *name) {
    for (int i = 0; i < DTYPES; i++)
        if (ELEMENT_TYPE[i] == element_type) return (enum dtype)i;
    fail("input", "%s is of ONNX's type %d, which this program does not know", name, element_type);
}

static void read_names(void) {
    Handle allocator;
    char *name;
    good(api.GetAllocatorWithDefaultOptions(&allocator), "reading names");
    good(api.SessionGetInputCount(session, &inputs), "counting inputs");
    good(api.SessionGetOutputCount(session, &outputs), "counting outputs");
    in_names = allocate(inputs * sizeof *in_names);
    out_names = allocate(outputs * sizeof *out_names);
    for (size_t i = 0; i < inputs; i++) {
        good(api.SessionGetInputName(session, i, allocator, &name), "reading input names");
        in_names[i] = name;
    }
    for (size_t i = 0; i < outputs; i++) {
        good(api.SessionGetOutputName(session, i, allocator, &name), "reading output names");
        out_names[i] = name;
    }
}

static void want(struct tensors *wanted) {
    Handle info, shape;
    int type;
    for (size_t i = 0; i < inputs; i++) {
        add_name(&wanted->items[i], in_names[i]);
        good(api.SessionGetInputTypeInfo(session, i, &info), "reading input types");
        good(api.CastTypeInfoToTensorInfo(info, &shape), "reading input types");
        if (!shape) fail("input", "input %s is no tensor", in_names[i]);
        good(api.GetTensorElementType(shape, &type), "reading input types");
        wanted->items[i].dtype = dtype_of(type, in_names[i]);
    }
}

void runtime_load(const struct job *job, const struct tensors *sample) {
    Handle environment, memory;
    good(api.CreateEnv(LOG_ERROR, "bench", &environment), "starting");
    good(api.CreateSession(environment, job->model, options_of(job), &session), "loading the model");
    read_names();
    struct tensors wanted = new_tensors(inputs);
    want(&wanted);
    good(api.CreateCpuMemoryInfo(ARENA, MEMORY_DEFAULT, &memory), "making inputs");
    in = allocate(inputs * sizeof *in);
    out = allocate(outputs * sizeof *out);
    for (size_t i = 0; i < inputs; i++) {
        const struct tensor *given = find_tensor(sample, &wanted.items[i]);
        if (!given) fail_wanting(&wanted, "the sample has no array for input %s", in_names[i]);
        good(api.CreateTensorWithDataAsOrtValue(memory, given->data, given->bytes, given->dims, given->rank,
                                                ELEMENT_TYPE[given->dtype], &in[i]), "making inputs");
    }
}

void runtime_run(void) {
    Status *status = api.Run(session, NULL, in_names, in, inputs, out_names, outputs, out);
    if (status) good(status, "running the model");
}

/* Each run makes its outputs anew, as it does in Python. */
void runtime_between(void) {
    for (size_t i = 0; i < outputs; i++) {
        if (out[i]) api.ReleaseValue(out[i]);
        out[i] = NULL;
    }
}

struct tensors runtime_outputs(void) {
    struct tensors answer = new_tensors(outputs);
    for (size_t i = 0; i < outputs; i++) {
        struct tensor *tensor = &answer.items[i];
        Handle shape;
        int kind, type;
        size_t rank;
        void *data;
        add_name(tensor, out_names[i]);
        good(out[i] ? api.GetValueType(out[i], &kind) : NULL, "reading an output");
        if (!out[i] || kind != KIND_TENSOR) fail("input", "output %s is no tensor", out_names[i]);
        good(api.GetTensorTypeAndShape(out[i], &shape), "reading an output");
        good(api.GetTensorElementType(shape, &type), "reading an output");
        good(api.GetDimensionsCount(shape, &rank), "reading an output");
        tensor->dtype = dtype_of(type, out_names[i]);
        if (rank > MAX_RANK) fail("input", "output %s has %zu dimensions", out_names[i], rank);
        tensor->rank = (uint32_t)rank;
        good(api.GetDimensions(shape, tensor->dims, rank), "reading an output");
        api.ReleaseTensorTypeAndShapeInfo(shape);
        if (!packed_bytes(tensor, &tensor->bytes)) fail("agent", "output %s has an impossible shape", out_names[i]);
        good(api.GetTensorMutableData(out[i], &data), "reading an output");
        tensor->data = allocate_aligned(tensor->bytes);
        if (tensor->bytes) memcpy(tensor->data, data, tensor->bytes);
    }
    return answer;
}

bool runtime_delegated(void) { return false; }
