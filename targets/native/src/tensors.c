/* Tensors and the files of them; bench.h says what these are. */
#define _GNU_SOURCE
#include "bench.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "tensor files are little-endian");

enum { ALIGNMENT = 64 }; /* a cache line, and what XNNPACK and MLAS ask for at most */
static const char MAGIC[8] = {'E', 'D', 'T', 'E', 'N', 'S', '1', '\n'};
static const struct {
    const char *name;
    size_t bytes;
} DTYPE[DTYPES] = {
    [BOOL] = {"bool", 1},       [INT8] = {"int8", 1},       [UINT8] = {"uint8", 1},     [INT16] = {"int16", 2},
    [UINT16] = {"uint16", 2},   [INT32] = {"int32", 4},     [UINT32] = {"uint32", 4},   [INT64] = {"int64", 8},
    [UINT64] = {"uint64", 8},   [FLOAT16] = {"float16", 2}, [FLOAT32] = {"float32", 4}, [FLOAT64] = {"float64", 8},
};

void *allocate(size_t bytes) {
    void *memory = calloc(1, bytes ? bytes : 1);
    if (!memory) fail("agent", "no memory for %zu bytes", bytes);
    return memory;
}

uint8_t *allocate_aligned(size_t bytes) {
    void *memory = NULL;
    if (bytes > SIZE_MAX - ALIGNMENT || posix_memalign(&memory, ALIGNMENT, bytes + ALIGNMENT))
        fail("agent", "no memory for %zu bytes", bytes);
    return memory;
}

const char *dtype_name(enum dtype dtype) { return DTYPE[dtype].name; }

size_t dtype_bytes(enum dtype dtype) { return DTYPE[dtype].bytes; }

struct tensors new_tensors(size_t count) {
    if (count > MAX_TENSORS) fail("input", "the model has %zu inputs or outputs; this program takes %d", count, MAX_TENSORS);
    return (struct tensors){.items = allocate(count * sizeof(struct tensor)), .count = (uint32_t)count};
}

void add_name(struct tensor *tensor, const char *name) {
    if (!name || tensor->name_count == MAX_NAMES) return;
    tensor->names[tensor->name_count] = strdup(name);
    if (!tensor->names[tensor->name_count++]) fail("agent", "no memory");
}

bool packed_bytes(const struct tensor *tensor, size_t *bytes) {
    size_t product = dtype_bytes(tensor->dtype);
    bool empty = false;
    for (uint32_t i = 0; i < tensor->rank; i++) {
        if (tensor->dims[i] < 0) return false;
        if (tensor->dims[i] == 0) empty = true;
        else if (__builtin_mul_overflow(product, (size_t)tensor->dims[i], &product)) return false;
    }
    *bytes = empty ? 0 : product;
    return true;
}

const struct tensor *find_tensor(const struct tensors *sample, const struct tensor *wanted) {
    for (uint32_t n = 0; n < wanted->name_count; n++)
        for (uint32_t i = 0; i < sample->count; i++)
            for (uint32_t m = 0; m < sample->items[i].name_count; m++)
                if (!strcmp(sample->items[i].names[m], wanted->names[n])) return &sample->items[i];
    return NULL;
}

struct cursor {
    const uint8_t *at;
    size_t left;
};

static bool take(struct cursor *cursor, void *into, size_t bytes) {
    if (cursor->left < bytes) return false;
    if (bytes) memcpy(into, cursor->at, bytes);
    cursor->at += bytes;
    cursor->left -= bytes;
    return true;
}

/* A text of the file, ended by NUL; NULL when it is not all there, or has a NUL inside. */
static char *take_text(struct cursor *cursor) {
    uint32_t length;
    if (!take(cursor, &length, sizeof length) || length > cursor->left || memchr(cursor->at, 0, length)) return NULL;
    char *text = allocate((size_t)length + 1);
    take(cursor, text, length);
    return text;
}

static bool take_dtype(struct cursor *cursor, enum dtype *dtype) {
    char *name = take_text(cursor);
    bool known = false;
    for (int i = 0; name && i < DTYPES; i++)
        if (!strcmp(name, DTYPE[i].name)) *dtype = (enum dtype)i, known = true;
    free(name);
    return known;
}

static const char *take_tensor(struct cursor *cursor, struct tensor *tensor) {
    uint32_t names;
    if (!take(cursor, &names, sizeof names) || names < 1 || names > MAX_NAMES) return "a tensor's number of names is wrong";
    for (uint32_t i = 0; i < names; i++)
        if ((tensor->names[tensor->name_count++] = take_text(cursor)) == NULL) return "a name is cut off or holds a NUL";
    if (!take_dtype(cursor, &tensor->dtype)) return "a tensor's type is not known";
    if (!take(cursor, &tensor->rank, sizeof tensor->rank)) return "it is cut off at a shape";
    if (tensor->rank > MAX_RANK) return tensor->rank = 0, "a tensor has more than 8 dimensions";
    if (!take(cursor, tensor->dims, tensor->rank * sizeof tensor->dims[0])) return "it is cut off at a shape";
    uint64_t told;
    size_t bytes;
    if (!take(cursor, &told, sizeof told)) return "it is cut off at a size";
    if (!packed_bytes(tensor, &bytes) || told != bytes) return "a tensor's size is not that of its shape";
    if (bytes > cursor->left) return "it is cut off in the data";
    tensor->bytes = bytes;
    tensor->data = allocate_aligned(bytes);
    take(cursor, tensor->data, bytes);
    return NULL;
}

const char *parse_tensors(const uint8_t *file, size_t size, struct tensors *out) {
    struct cursor cursor = {file, size};
    char magic[sizeof MAGIC];
    uint32_t count;
    if (!take(&cursor, magic, sizeof magic) || memcmp(magic, MAGIC, sizeof magic)) return "it is no tensor file";
    if (!take(&cursor, &count, sizeof count) || count > MAX_TENSORS) return "its number of tensors is wrong";
    *out = new_tensors(count);
    for (uint32_t i = 0; i < count; i++) {
        const char *wrong = take_tensor(&cursor, &out->items[i]);
        if (wrong) return wrong;
    }
    return cursor.left ? "there is more in it than its tensors" : NULL;
}

struct tensors read_tensors(const char *path) {
    struct stat about;
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0 || fstat(file, &about)) fail("input", "%s cannot be read: %s", path, strerror(errno));
    size_t size = (size_t)about.st_size, have = 0;
    uint8_t *bytes = allocate(size);
    while (have < size) {
        ssize_t some = read(file, bytes + have, size - have);
        if (some < 0 && errno == EINTR) continue;
        if (some <= 0) fail("input", "%s cannot be read: %s", path, some ? strerror(errno) : "it is shorter than it was");
        have += (size_t)some;
    }
    close(file);
    struct tensors tensors;
    const char *wrong = parse_tensors(bytes, size, &tensors);
    if (wrong) fail("input", "%s cannot be used: %s", path, wrong);
    free(bytes);
    return tensors;
}

void write_tensors(const char *path, const struct tensors *tensors) {
    FILE *file = fopen(path, "wb");
    if (!file) fail(errno == ENOSPC ? "disk-full" : "read-only", "%s: %s", strerror(errno), path);
    fwrite(MAGIC, 1, sizeof MAGIC, file);
    fwrite(&tensors->count, sizeof tensors->count, 1, file);
    for (uint32_t i = 0; i < tensors->count; i++) {
        const struct tensor *tensor = &tensors->items[i];
        fwrite(&tensor->name_count, sizeof tensor->name_count, 1, file);
        for (uint32_t n = 0; n <= tensor->name_count; n++) { /* the type comes last */
            const char *text = n < tensor->name_count ? tensor->names[n] : dtype_name(tensor->dtype);
            uint32_t length = (uint32_t)strlen(text);
            fwrite(&length, sizeof length, 1, file);
            fwrite(text, 1, length, file);
        }
        uint64_t bytes = tensor->bytes;
        fwrite(&tensor->rank, sizeof tensor->rank, 1, file);
        fwrite(tensor->dims, sizeof tensor->dims[0], tensor->rank, file);
        fwrite(&bytes, sizeof bytes, 1, file);
        fwrite(tensor->data, 1, tensor->bytes, file);
    }
    if (ferror(file) || fclose(file)) fail("disk-full", "%s: %s", strerror(errno), path);
}

bool same_data(const struct tensors *one, const struct tensors *other) {
    for (uint32_t i = 0; i < one->count; i++)
        if (one->items[i].bytes != other->items[i].bytes ||
            memcmp(one->items[i].data, other->items[i].data, one->items[i].bytes))
            return false;
    return true;
}
