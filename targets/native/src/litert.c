/* LiteRT, by the C API of libLiteRt.so. The prototypes are of version 2.3; no package brings the headers.
 *
 * What runs is the main subgraph, as with the Python interpreter's `invoke`, on the CPU accelerator (XNNPACK and the
 * built-in kernels).
 */
#define _GNU_SOURCE
#include "bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int Status; /* 0 is good */
typedef void *Handle;
enum { CPU = 1, LOCK_READ = 0, LOCK_WRITE = 1 };

typedef struct {
    unsigned int rank : 7;
    bool has_strides : 1;
    int32_t dims[MAX_RANK];
    uint32_t strides[MAX_RANK];
} Layout;

typedef struct {
    int element_type;
    Layout layout;
} RankedType;

_Static_assert(sizeof(Layout) == 68, "LiteRtLayout");

static struct {
    Status (*CreateEnvironment)(int options, const void *values, Handle *environment);
    Status (*CreateModelFromFile)(Handle environment, const char *path, Handle *model);
    Status (*CreateOptions)(Handle *options);
    Status (*SetOptionsHardwareAccelerators)(Handle options, int accelerators);
    Status (*CreateOpaqueOptions)(const char *identifier, void *payload, void (*destroy)(void *), Handle *opaque);
    Status (*AddOpaqueOptions)(Handle options, Handle opaque);
    Status (*CreateCompiledModel)(Handle environment, Handle model, Handle options, Handle *compiled);
    Status (*GetMainModelSubgraphIndex)(Handle model, size_t *index);
    Status (*GetModelSubgraph)(Handle model, size_t index, Handle *subgraph);
    Status (*GetNumModelSignatures)(Handle model, size_t *count);
    Status (*GetModelSignature)(Handle model, size_t index, Handle *signature);
    Status (*GetSignatureSubgraph)(Handle signature, Handle *subgraph);
    Status (*GetNumSignatureInputs)(Handle signature, size_t *count);
    Status (*GetNumSignatureOutputs)(Handle signature, size_t *count);
    Status (*GetSignatureInputName)(Handle signature, size_t index, const char **name);
    Status (*GetSignatureOutputName)(Handle signature, size_t index, const char **name);
    Status (*GetSignatureInputTensorByIndex)(Handle signature, size_t index, Handle *tensor);
    Status (*GetSignatureOutputTensorByIndex)(Handle signature, size_t index, Handle *tensor);
    Status (*GetTensorName)(Handle tensor, const char **name);
    Status (*GetRankedTensorType)(Handle tensor, RankedType *type);
    Status (*CompiledModelResizeInputTensorNonStrict)(Handle compiled, size_t signature, size_t input, const int *dims, size_t rank);
    Status (*GetCompiledModelInputTensorLayout)(Handle compiled, size_t signature, size_t input, Layout *layout);
    Status (*GetCompiledModelOutputTensorLayouts)(Handle compiled, size_t signature, size_t count, Layout *layouts, bool update);
    Status (*GetCompiledModelInputBufferRequirements)(Handle compiled, size_t signature, size_t input, Handle *needs);
    Status (*GetCompiledModelOutputBufferRequirements)(Handle compiled, size_t signature, size_t output, Handle *needs);
    Status (*CreateManagedTensorBufferFromRequirements)(Handle environment, const RankedType *type, Handle needs, Handle *buffer);
    Status (*GetTensorBufferPackedSize)(Handle buffer, size_t *bytes);
    Status (*LockTensorBuffer)(Handle buffer, void **memory, int mode);
    Status (*UnlockTensorBuffer)(Handle buffer);
    Status (*RunCompiledModel)(Handle compiled, size_t signature, size_t inputs, Handle *in, size_t outputs, Handle *out);
    Status (*CompiledModelIsFullyAccelerated)(Handle compiled, bool *fully);
    Status (*CompiledModelGetProfiler)(Handle compiled, Handle *profiler);
    Status (*StartProfiler)(Handle profiler);
    Status (*StopProfiler)(Handle profiler);
    Status (*GetProfileSummary)(Handle profiler, Handle compiled, const char **summary);
} api;

static const struct {
    const char *name;
    void *slot;
} SYMBOLS[] = {
#define SYMBOL(name) {"LiteRt" #name, &api.name}
    SYMBOL(CreateEnvironment), SYMBOL(CreateModelFromFile), SYMBOL(CreateOptions),
    SYMBOL(SetOptionsHardwareAccelerators), SYMBOL(CreateOpaqueOptions), SYMBOL(AddOpaqueOptions),
    SYMBOL(CreateCompiledModel), SYMBOL(GetMainModelSubgraphIndex), SYMBOL(GetModelSubgraph),
    SYMBOL(GetNumModelSignatures), SYMBOL(GetModelSignature), SYMBOL(GetSignatureSubgraph),
    SYMBOL(GetNumSignatureInputs), SYMBOL(GetNumSignatureOutputs), SYMBOL(GetSignatureInputName),
    SYMBOL(GetSignatureOutputName), SYMBOL(GetSignatureInputTensorByIndex), SYMBOL(GetSignatureOutputTensorByIndex),
    SYMBOL(GetTensorName), SYMBOL(GetRankedTensorType), SYMBOL(CompiledModelResizeInputTensorNonStrict),
    SYMBOL(GetCompiledModelInputTensorLayout), SYMBOL(GetCompiledModelOutputTensorLayouts),
    SYMBOL(GetCompiledModelInputBufferRequirements), SYMBOL(GetCompiledModelOutputBufferRequirements),
    SYMBOL(CreateManagedTensorBufferFromRequirements), SYMBOL(GetTensorBufferPackedSize), SYMBOL(LockTensorBuffer),
    SYMBOL(UnlockTensorBuffer), SYMBOL(RunCompiledModel), SYMBOL(CompiledModelIsFullyAccelerated),
    SYMBOL(CompiledModelGetProfiler), SYMBOL(StartProfiler), SYMBOL(StopProfiler), SYMBOL(GetProfileSummary),
#undef SYMBOL
};

/* LiteRT's number of a type, which is TensorFlow Lite's. */
static const int ELEMENT_TYPE[DTYPES] = {
    [FLOAT32] = 1, [INT32] = 2,    [UINT8] = 3,    [INT64] = 4,   [BOOL] = 6,    [INT16] = 7,
    [INT8] = 9,    [FLOAT16] = 10, [FLOAT64] = 11, [UINT64] = 13, [UINT32] = 16, [UINT16] = 17,
};

const char *const runtime_name = "ai-edge-litert";
static Handle environment, model, compiled, *in, *out;
static size_t signature_index;
static bool profiled;
static struct tensors wanted, made; /* the model's inputs and outputs, without data */

static void good(Status status, const char *doing) {
    if (status) fail("agent", "LiteRT status %d while %s; its own words are above", status, doing);
}

void runtime_open(const struct job *job) {
    void *library = library_open(job);
    for (size_t i = 0; i < sizeof SYMBOLS / sizeof SYMBOLS[0]; i++) {
        void *symbol = library_symbol(library, SYMBOLS[i].name);
        memcpy(SYMBOLS[i].slot, &symbol, sizeof symbol);
    }
}

const char *runtime_version(const struct job *job) { return job->version; }

static Handle main_signature(void) {
    size_t index, count;
    Handle subgraph, signature, its;
    good(api.GetMainModelSubgraphIndex(model, &index), "looking for the main subgraph");
    good(api.GetModelSubgraph(model, index, &subgraph), "looking for the main subgraph");
    good(api.GetNumModelSignatures(model, &count), "counting signatures");
    for (signature_index = 0; signature_index < count; signature_index++) {
        good(api.GetModelSignature(model, signature_index, &signature), "reading signatures");
        good(api.GetSignatureSubgraph(signature, &its), "reading signatures");
        if (its == subgraph) return signature;
    }
    fail("input", "no signature of the model runs its main subgraph, and without one LiteRT's C API cannot");
}

static void describe(struct tensor *tensor, Handle handle, const char *signature_name) {
    const char *name;
    RankedType type;
    good(api.GetTensorName(handle, &name), "reading names");
    add_name(tensor, signature_name);
    add_name(tensor, name);
    if (api.GetRankedTensorType(handle, &type)) fail("input", "the shape of %s has no rank; this program cannot run it", name);
    int dtype = 0;
    while (dtype < DTYPES && ELEMENT_TYPE[dtype] != type.element_type) dtype++;
    if (dtype == DTYPES) fail("input", "%s is of TensorFlow Lite's type %d, which this program does not know", name, type.element_type);
    tensor->dtype = (enum dtype)dtype;
}

static void describe_ends(Handle signature) {
    size_t inputs, outputs;
    Handle tensor;
    const char *name;
    good(api.GetNumSignatureInputs(signature, &inputs), "counting inputs");
    good(api.GetNumSignatureOutputs(signature, &outputs), "counting outputs");
    wanted = new_tensors(inputs);
    made = new_tensors(outputs);
    for (size_t i = 0; i < inputs; i++) {
        good(api.GetSignatureInputName(signature, i, &name), "reading input names");
        good(api.GetSignatureInputTensorByIndex(signature, i, &tensor), "reading inputs");
        describe(&wanted.items[i], tensor, name);
    }
    for (size_t i = 0; i < outputs; i++) {
        good(api.GetSignatureOutputName(signature, i, &name), "reading output names");
        good(api.GetSignatureOutputTensorByIndex(signature, i, &tensor), "reading outputs");
        describe(&made.items[i], tensor, name);
    }
}

static void set_option(Handle options, const char *part, const char *toml) {
    Handle opaque;
    char *payload = strdup(toml); /* freed by LiteRT */
    if (!payload) fail("agent", "no memory");
    good(api.CreateOpaqueOptions(part, payload, free, &opaque), "making options");
    good(api.AddOpaqueOptions(options, opaque), "setting options");
}

static void compile(const struct job *job) {
    Handle options;
    char threads[64];
    good(api.CreateOptions(&options), "making options");
    good(api.SetOptionsHardwareAccelerators(options, CPU), "choosing the CPU");
    snprintf(threads, sizeof threads, "num_threads = %d\n", (int)job->threads);
    set_option(options, "xnnpack", threads);
    profiled = job->profile != NULL;
    if (profiled) set_option(options, "runtime_options_string", "enable_profiling = true\n");
    good(api.CreateCompiledModel(environment, model, options, &compiled), "compiling the model");
}

static void resize(size_t index, const struct tensor *given) {
    Layout layout;
    int dims[MAX_RANK];
    good(api.GetCompiledModelInputTensorLayout(compiled, signature_index, index, &layout), "reading a shape");
    bool same = layout.rank == given->rank;
    for (uint32_t d = 0; d < given->rank; d++) {
        if (given->dims[d] > INT32_MAX) fail("input", "%s has a dimension of more than 2^31", given->names[0]);
        dims[d] = (int)given->dims[d];
        same = same && dims[d] == layout.dims[d];
    }
    if (!same && api.CompiledModelResizeInputTensorNonStrict(compiled, signature_index, index, dims, given->rank))
        fail("input", "the model does not take a sample of the shape of %s", given->names[0]);
}

static Handle buffer_of(struct tensor *tensor, const Layout *layout, Handle needs) {
    RankedType type = {.element_type = ELEMENT_TYPE[tensor->dtype], .layout = *layout};
    Handle buffer;
    size_t room;
    tensor->rank = layout->rank;
    for (uint32_t d = 0; d < tensor->rank; d++) tensor->dims[d] = layout->dims[d];
    if (tensor->rank > MAX_RANK || !packed_bytes(tensor, &tensor->bytes))
        fail("input", "the shape of %s depends on the data, which LiteRT's C API cannot do", tensor->names[0]);
    good(api.CreateManagedTensorBufferFromRequirements(environment, &type, needs, &buffer), "making a buffer");
    good(api.GetTensorBufferPackedSize(buffer, &room), "reading the size of a buffer");
    if (room != tensor->bytes) fail("agent", "the buffer of %s has %zu bytes, not %zu", tensor->names[0], room, tensor->bytes);
    return buffer;
}

static void make_inputs(const struct tensors *sample) {
    Layout layout;
    Handle needs;
    void *memory;
    for (size_t i = 0; i < wanted.count; i++) {
        const struct tensor *given = find_tensor(sample, &wanted.items[i]);
        good(api.GetCompiledModelInputTensorLayout(compiled, signature_index, i, &layout), "reading a shape");
        good(api.GetCompiledModelInputBufferRequirements(compiled, signature_index, i, &needs), "asking for a buffer");
        in[i] = buffer_of(&wanted.items[i], &layout, needs);
        if (given->bytes != wanted.items[i].bytes)
            fail("input", "%s has %zu bytes, the model takes %zu", given->names[0], given->bytes, wanted.items[i].bytes);
        good(api.LockTensorBuffer(in[i], &memory, LOCK_WRITE), "filling an input");
        if (given->bytes) memcpy(memory, given->data, given->bytes);
        good(api.UnlockTensorBuffer(in[i]), "filling an input");
    }
}

static void make_outputs(const Layout *layouts) {
    Handle needs;
    for (size_t i = 0; i < made.count; i++) {
        good(api.GetCompiledModelOutputBufferRequirements(compiled, signature_index, i, &needs), "asking for a buffer");
        out[i] = buffer_of(&made.items[i], &layouts[i], needs);
    }
}

void runtime_load(const struct job *job, const struct tensors *sample) {
    good(api.CreateEnvironment(0, NULL, &environment), "starting");
    good(api.CreateModelFromFile(environment, job->model, &model), "reading the model");
    describe_ends(main_signature());
    for (size_t i = 0; i < wanted.count; i++) {
        const struct tensor *given = find_tensor(sample, &wanted.items[i]);
        if (!given || given->dtype != wanted.items[i].dtype)
            fail_wanting(&wanted, "the sample has no array for input %s", wanted.items[i].names[0]);
    }
    compile(job);
    for (size_t i = 0; i < wanted.count; i++) resize(i, find_tensor(sample, &wanted.items[i]));
    Layout *layouts = allocate((made.count + 1) * sizeof *layouts);
    if (api.GetCompiledModelOutputTensorLayouts(compiled, signature_index, made.count, layouts, true))
        fail("input", "the model cannot be prepared for a sample of this shape");
    in = allocate((wanted.count + 1) * sizeof *in);
    out = allocate((made.count + 1) * sizeof *out);
    make_inputs(sample);
    make_outputs(layouts);
}

void runtime_run(void) {
    Status status = api.RunCompiledModel(compiled, signature_index, wanted.count, in, made.count, out);
    if (status) good(status, "running the model");
}

void runtime_between(void) {}

struct tensors runtime_outputs(void) {
    struct tensors outputs = new_tensors(made.count);
    void *memory;
    for (size_t i = 0; i < made.count; i++) {
        struct tensor *tensor = &outputs.items[i];
        *tensor = made.items[i];
        tensor->data = allocate_aligned(tensor->bytes);
        good(api.LockTensorBuffer(out[i], &memory, LOCK_READ), "reading an output");
        if (tensor->bytes) memcpy(tensor->data, memory, tensor->bytes);
        good(api.UnlockTensorBuffer(out[i]), "reading an output");
    }
    return outputs;
}

/* Of a model that is delegated in part, only a profile tells: it lists what runs, in the order it runs. */
static bool seen_in_profile(void) {
    Handle profiler;
    const char *summary = NULL;
    good(api.CompiledModelGetProfiler(compiled, &profiler), "asking for a profile");
    if (!profiler) fail("agent", "this LiteRT makes no profile");
    good(api.StartProfiler(profiler), "starting the profile");
    runtime_run();
    good(api.StopProfiler(profiler), "ending the profile");
    good(api.GetProfileSummary(profiler, compiled, &summary), "reading the profile");
    return summary && strstr(summary, " Delegate/");
}

bool runtime_delegated(void) {
    bool fully = false;
    if (profiled) return seen_in_profile();
    good(api.CompiledModelIsFullyAccelerated(compiled, &fully), "asking for delegates");
    return fully;
}
