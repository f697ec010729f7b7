/* Feeds the parser of tensor files with damaged ones: fuzz_tensors FILE TIMES. Built with the address and undefined
 * behaviour sanitizers, which end it with a report at the first wrong access. Prints how many were refused and taken. */
#include "../../targets/native/src/tensors.c"

void fail(const char *code, const char *format, ...) {
    fprintf(stderr, "%s: %s\n", code, format);
    exit(3);
}

static uint64_t state = 88172645463325252u; /* xorshift64: the same damage every time */

static size_t below(size_t limit) {
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return (size_t)(state % limit);
}

static void damage(uint8_t *bytes, size_t size) {
    for (size_t left = 1 + below(4); left; left--) {
        size_t at = below(size), kind = below(3);
        if (kind == 0) bytes[at] = (uint8_t)below(256);
        else if (kind == 1) bytes[at] ^= (uint8_t)(1u << below(8));
        else memset(bytes + at, kind == 2 && below(2) ? 0xFF : 0, below(9) < size - at ? below(8) % (size - at) : 1);
    }
}

static void release(struct tensors *tensors) {
    for (uint32_t i = 0; tensors->items && i < tensors->count; i++) {
        for (int n = 0; n < MAX_NAMES; n++) free(tensors->items[i].names[n]);
        free(tensors->items[i].data);
    }
    free(tensors->items);
}

int main(int count, char **words) {
    static uint8_t whole[65536];
    FILE *file = count == 3 ? fopen(words[1], "rb") : NULL;
    size_t size = file ? fread(whole, 1, sizeof whole, file) : 0, refused = 0, taken = 0;
    if (!size) return 2;
    for (long times = atol(words[2]); times; times--) {
        size_t length = below(8) ? size : below(size) + 1;
        uint8_t *copy = malloc(length); /* of its very size, so that one byte too far is found */
        struct tensors tensors = {0};
        memcpy(copy, whole, length);
        damage(copy, length);
        *(parse_tensors(copy, length, &tensors) ? &refused : &taken) += 1;
        release(&tensors);
        free(copy);
    }
    printf("%zu %zu\n", refused, taken);
    return 0;
}
