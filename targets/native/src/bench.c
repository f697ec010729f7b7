/* Everything that is the same for both runtimes; bench.h says what it is. */
#define _GNU_SOURCE
#include "bench.h"

#include <ctype.h>
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

static FILE *replies; /* what was stdout: a library's own prints go to stderr */

/* --- JSON lines ------------------------------------------------------------------------------------------------- */

/* Length of the UTF-8 sequence at `text`, 0 when it is none. */
static size_t utf8_length(const unsigned char *text) {
    size_t length = text[0] < 0x80 ? 1 : (text[0] >> 5) == 6 ? 2 : (text[0] >> 4) == 14 ? 3 : (text[0] >> 3) == 30 ? 4 : 0;
    for (size_t i = 1; i < length; i++)
        if ((text[i] & 0xC0) != 0x80) return 0;
    if ((length == 2 && text[0] < 0xC2) || (length == 3 && text[0] == 0xE0 && text[1] < 0xA0)) return 0;
    if (length == 3 && text[0] == 0xED && text[1] >= 0xA0) return 0; /* half of a surrogate pair */
    if (length == 4 && ((text[0] == 0xF0 && text[1] < 0x90) || text[0] > 0xF4 || (text[0] == 0xF4 && text[1] > 0x8F)))
        return 0;
    return length;
}

static void put_text(const char *text) {
    fputc('"', replies);
    for (const unsigned char *at = (const unsigned char *)text; *at;) {
        size_t length = utf8_length(at);
        if (length == 0) fputc('?', replies);
        else if (*at == '"' || *at == '\\') fprintf(replies, "\\%c", *at);
        else if (*at < 0x20) fprintf(replies, "\\u%04x", *at);
        else fwrite(at, 1, length, replies);
        at += length ? length : 1;
    }
    fputc('"', replies);
}

static void put_samples(const char *key, const int64_t *samples, size_t count) {
    fprintf(replies, "\"%s\":[", key);
    for (size_t i = 0; i < count; i++) fprintf(replies, "%s%" PRId64, i ? "," : "", samples[i]);
    fputs("],", replies);
}

static void put_bytes(const char *key, int64_t bytes) {
    if (bytes < 0) fprintf(replies, "\"%s\":null,", key);
    else fprintf(replies, "\"%s\":%" PRId64 ",", key, bytes);
}

static void stage(const char *text) {
    fputs("{\"stage\":", replies);
    put_text(text);
    fputs("}\n", replies);
    fflush(replies);
}

static _Noreturn void put_error(const char *code, const struct tensors *wanted, const char *format, va_list arguments) {
    char message[2048];
    vsnprintf(message, sizeof message, format, arguments);
    fputs("{\"error\":{\"code\":", replies);
    put_text(code);
    fputs(",\"message\":", replies);
    put_text(message);
    if (wanted) fputs(",\"inputs\":[", replies);
    for (uint32_t i = 0; wanted && i < wanted->count; i++) {
        const struct tensor *tensor = &wanted->items[i];
        fputs(i ? ",{\"names\":[" : "{\"names\":[", replies);
        for (uint32_t n = 0; n < tensor->name_count; n++) {
            if (n) fputc(',', replies);
            put_text(tensor->names[n]);
        }
        fprintf(replies, "],\"dtype\":\"%s\"}", dtype_name(tensor->dtype));
    }
    if (wanted) fputc(']', replies);
    fputs("}}\n", replies);
    fflush(replies);
    _exit(1); /* not exit: a runtime may be in the middle of anything */
}

void fail(const char *code, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    put_error(code, NULL, format, arguments);
}

void fail_wanting(const struct tensors *wanted, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    put_error("input", wanted, format, arguments);
}

/* --- libraries -------------------------------------------------------------------------------------------------- */

void *library_open(const struct job *job) {
    void *library = dlopen(job->library, RTLD_NOW | RTLD_LOCAL);
    if (!library) fail("no-runtime", "%s cannot be loaded: %s", runtime_name, dlerror());
    return library;
}

void *library_symbol(void *library, const char *name) {
    void *symbol = dlsym(library, name);
    if (!symbol) fail("no-runtime", "this %s has no %s: its version is too old or too new", runtime_name, name);
    return symbol;
}

/* --- measuring: the rules of the agent's warm_up, warm_samples and settled --------------------------------------- */

static int64_t now_ns(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static int64_t timed(void) {
    runtime_between();
    int64_t start = now_ns();
    runtime_run();
    return now_ns() - start;
}

static int by_size(const void *one, const void *other) {
    int64_t a = *(const int64_t *)one, b = *(const int64_t *)other;
    return (a > b) - (a < b);
}

static double median(const int64_t *samples, size_t count) {
    int64_t *sorted = allocate(count * sizeof *sorted);
    memcpy(sorted, samples, count * sizeof *sorted);
    qsort(sorted, count, sizeof *sorted, by_size);
    double middle = ((double)sorted[(count - 1) / 2] + (double)sorted[count / 2]) / 2;
    free(sorted);
    return middle;
}

static bool settled(const int64_t *times, size_t count, const struct job *job) {
    size_t window = (size_t)job->window;
    if (count < 2 * window) return false;
    double before = median(times + count - 2 * window, window);
    return fabs(median(times + count - window, window) - before) <= job->converged * before;
}

/* Frequency of the first CPU that tells one, 0 when none does. */
static long current_khz(void) {
    for (int cpu = 0; cpu < 256; cpu++) {
        char path[80];
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/cpufreq/scaling_cur_freq", cpu);
        FILE *file = fopen(path, "r");
        long khz = 0;
        if (!file) continue;
        if (fscanf(file, "%ld", &khz) != 1) khz = 0;
        fclose(file);
        if (khz) return khz;
    }
    return 0;
}

static size_t warm_up(const struct job *job, int64_t first_ns, int64_t *times) {
    int64_t spent = times[0] = timed();
    size_t count = 1;
    long khz = 0;
    while ((first_ns > times[count - 1] ? first_ns : times[count - 1]) < job->slow_ns &&
           spent + times[count - 1] <= job->warmup_ns && count < (size_t)job->warmup_max) {
        if (count % (size_t)job->window == 0) {
            long before = khz;
            khz = current_khz();
            if (settled(times, count, job) && khz == before) break;
        }
        spent += times[count++] = timed();
    }
    return count;
}

/* `had` samples are there already, as far as the least is concerned. */
static size_t warm_samples(const struct job *job, int64_t had, int64_t *times) {
    int64_t least = job->warm_min - had > 1 ? job->warm_min - had : 1, spent = 0;
    size_t count = 0;
    while ((int64_t)count < least || ((int64_t)count < job->warm_max && spent + times[count - 1] <= job->warm_max_ns))
        spent += times[count++] = timed();
    return count;
}

/* --- windows under a power meter: the agent's run_windows, by the clock of /proc/uptime, which a shell can read ------ */

struct window {
    bool busy;
    int64_t start_ns, end_ns, runs;
};

/* At most so many samples, spread evenly over however many there were: when full, every other one goes. */
struct thinned {
    int64_t *samples;
    size_t count, most, stride, seen;
};

static void keep(struct thinned *kept, int64_t sample) {
    if (kept->seen++ % kept->stride) return;
    kept->samples[kept->count++] = sample;
    if (kept->count <= kept->most) return;
    kept->count = (kept->count + 1) / 2;
    for (size_t i = 0; i < kept->count; i++) kept->samples[i] = kept->samples[2 * i];
    kept->stride *= 2;
}

static int64_t boot_ns(void) {
    struct timespec time;
    clock_gettime(CLOCK_BOOTTIME, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static void pause_ns(int64_t duration_ns) {
    struct timespec left = {.tv_sec = duration_ns / 1000000000, .tv_nsec = duration_ns % 1000000000};
    while (nanosleep(&left, &left) && errno == EINTR) {}
}

static int64_t work_ns(int64_t duration_ns, struct thinned *kept) {
    int64_t runs = 0, end = now_ns() + duration_ns;
    for (; now_ns() < end; runs++) keep(kept, timed());
    return runs;
}

static void idle(const struct job *job, struct window *window) {
    pause_ns(job->settle_ns);
    window->start_ns = boot_ns();
    pause_ns(job->idle_ns);
    window->end_ns = boot_ns();
    pause_ns(job->settle_ns);
}

/* Fills 2 x windows + 1 of them. */
static void run_windows(const struct job *job, struct window *windows, struct thinned *kept) {
    idle(job, windows++);
    for (int64_t i = 0; i < job->windows; i++, windows++) {
        work_ns(job->settle_ns, kept);
        windows->busy = true;
        windows->start_ns = boot_ns();
        windows->runs = work_ns(job->window_ns, kept);
        windows->end_ns = boot_ns();
        work_ns(job->settle_ns, kept);
        idle(job, ++windows);
    }
}

static void put_windows(const struct window *windows, size_t count) {
    fputs("\"windows\":[", replies);
    for (size_t i = 0; i < count; i++)
        fprintf(replies, "%s{\"kind\":\"%s\",\"start_ns\":%" PRId64 ",\"end_ns\":%" PRId64 ",\"runs\":%" PRId64 "}",
                i ? "," : "", windows[i].busy ? "busy" : "idle", windows[i].start_ns, windows[i].end_ns, windows[i].runs);
    fputs("],", replies);
}

/* The most memory this process ever had, -1 when the kernel does not say. */
static int64_t peak_rss_bytes(void) {
    FILE *file = fopen("/proc/self/status", "r");
    char line[256];
    int64_t kb = -1;
    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "VmHWM: %" SCNd64 " kB", &kb) == 1) break;
    if (file) fclose(file);
    return kb < 0 ? -1 : kb * 1024;
}

/* By thread of this process: how long it was ready to run and had no core. None where the kernel does not say. */
enum { MOST_THREADS = 256 };
struct waits {
    size_t count;
    long threads[MOST_THREADS];
    int64_t ns[MOST_THREADS];
};

static void read_waits(struct waits *waits) {
    DIR *folder = opendir("/proc/self/task");
    struct dirent *entry;
    waits->count = 0;
    while (folder && (entry = readdir(folder)) && waits->count < MOST_THREADS) {
        char path[64];
        int64_t waited;
        long thread = strtol(entry->d_name, NULL, 10);
        if (thread <= 0) continue;
        snprintf(path, sizeof path, "/proc/self/task/%ld/schedstat", thread);
        FILE *file = fopen(path, "r");
        if (file && fscanf(file, "%*d %" SCNd64, &waited) == 1) {
            waits->threads[waits->count] = thread;
            waits->ns[waits->count++] = waited;
        }
        if (file) fclose(file);
    }
    if (folder) closedir(folder);
}

/* Of the thread that waited longest. */
static double wait_share(const struct waits *before, const struct waits *after, int64_t lasted_ns) {
    int64_t longest = 0;
    for (size_t i = 0; i < after->count; i++) {
        int64_t ns = after->ns[i];
        for (size_t k = 0; k < before->count; k++)
            if (before->threads[k] == after->threads[i]) ns -= before->ns[k];
        if (ns > longest) longest = ns;
    }
    double share = (double)longest / (double)lasted_ns;
    return share < 1 ? share : 1;
}

static void benchmark(const struct job *job) {
    stage("importing the runtime");
    struct tensors sample = read_tensors(job->inputs);
    runtime_open(job);
    int64_t before_load = peak_rss_bytes();
    stage("loading the model");
    int64_t start = now_ns();
    runtime_load(job, &sample);
    int64_t load_ns = now_ns() - start, load_peak = peak_rss_bytes();
    if (job->profile) {
        fprintf(replies, "{\"result\":{\"delegate\":\"\",\"delegated\":%s}}\n", runtime_delegated() ? "true" : "false");
        fflush(replies);
        _exit(0);
    }
    stage("the first inference");
    int64_t first_ns = timed();
    /* LiteRT's C API cannot reset a model's state, so the answer is that of the only run that surely starts fresh. */
    struct tensors answer = runtime_outputs();
    stage("warming up");
    int64_t *warmup = allocate(((size_t)job->warmup_max + 1) * sizeof *warmup);
    size_t warmups = warm_up(job, first_ns, warmup);
    stage("warm inference");
    int64_t most = job->warm_max > job->warm_min ? job->warm_max : job->warm_min;
    int64_t *warm = allocate(((size_t)most + 2) * sizeof *warm);
    size_t warms = 0;
    /* When the first run and the one after it are both slow, the second is a sample already. Slow means one warm-up. */
    if (first_ns >= job->slow_ns && warmup[0] >= job->slow_ns) warm[warms++] = warmup[0], warmups = 0;
    static struct waits before, after;
    size_t fresh = warms;
    int64_t lasted_ns = 0;
    read_waits(&before);
    warms += warm_samples(job, (int64_t)warms, warm + warms);
    read_waits(&after);
    while (fresh < warms) lasted_ns += warm[fresh++];
    struct window *windows = NULL;
    if (job->windows) {
        stage("inference under the power meter");
        struct thinned kept = {.samples = allocate(((size_t)job->warm_max + 2) * sizeof *warm), .stride = 1};
        kept.most = (size_t)(job->warm_max > 2 ? job->warm_max : 2);
        windows = allocate((2 * (size_t)job->windows + 1) * sizeof *windows);
        run_windows(job, windows, &kept);
        warm = kept.samples, warms = kept.count;
    }
    int64_t peak = peak_rss_bytes();
    stage("comparing outputs");
    struct tensors last = runtime_outputs();
    write_tensors(job->outputs, &answer);

    fputs("{\"result\":{\"runtime\":", replies);
    put_text(runtime_name);
    fputs(",\"runtime_version\":", replies);
    put_text(runtime_version(job));
    fprintf(replies, ",\"delegate\":\"\",\"delegated\":%s,", runtime_delegated() ? "true" : "false");
    fprintf(replies, "\"load_ns\":%" PRId64 ",\"first_ns\":%" PRId64 ",", load_ns, first_ns);
    put_samples("warmup_ns", warmup, warmups);
    put_samples("warm_ns", warm, warms);
    put_windows(windows, windows ? 2 * (size_t)job->windows + 1 : 0);
    put_bytes("load_peak_rss_bytes", load_peak);
    put_bytes("peak_rss_bytes", peak);
    fputs("\"conditions\":{", replies);
    if (!same_data(&answer, &last))
        fputs("\"answer\":\"of the first run; later ones differ, so the model keeps state or is random\",", replies);
    for (size_t i = 0; i < job->config_count; i++) {
        char *key = strdup(job->config[i]), *value = key ? strchr(key, '=') : NULL;
        if (!value) continue;
        *value++ = 0;
        put_text(key);
        fputc(':', replies);
        put_text(value);
        fputc(',', replies);
        free(key);
    }
    if (before.count && lasted_ns > 0)
        fprintf(replies, "\"cpu_wait_share\":\"%.3f\",", wait_share(&before, &after, lasted_ns));
    if (before_load < 0) fputs("\"peak_rss_before_load_bytes\":\"unknown\"}}}\n", replies);
    else fprintf(replies, "\"peak_rss_before_load_bytes\":\"%" PRId64 "\"}}}\n", before_load);
    fflush(replies);
    _exit(ferror(replies) ? 1 : 0); /* what a runtime does when it is taken apart is nobody's business here */
}

/* --- the program ------------------------------------------------------------------------------------------------ */

static int64_t whole_number(const char *key, const char *text, int64_t least, int64_t most) {
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (errno || end == text || *end || value < least || value > most) fail("agent", "%s=%s is no usable number", key, text);
    return value;
}

static void read_job(int count, char **words, struct job *job) {
    const struct {
        const char *key;
        const char **text;
        int64_t *number, least, most;
    } keys[] = {
        {"library", &job->library, NULL, 0, 0},
        {"version", &job->version, NULL, 0, 0},
        {"model", &job->model, NULL, 0, 0},
        {"inputs", &job->inputs, NULL, 0, 0},
        {"outputs", &job->outputs, NULL, 0, 0},
        {"mask", &job->mask, NULL, 0, 0},
        {"profile", &job->profile, NULL, 0, 0},
        {"threads", NULL, &job->threads, 1, 1024},
        {"warm_max_ns", NULL, &job->warm_max_ns, 0, INT64_MAX / 4},
        {"warm_min", NULL, &job->warm_min, 0, 1000000},
        {"warm_max", NULL, &job->warm_max, 1, 1000000},
        {"warmup_ns", NULL, &job->warmup_ns, 0, INT64_MAX / 4},
        {"warmup_max", NULL, &job->warmup_max, 1, 1000000},
        {"window", NULL, &job->window, 1, 1000},
        {"slow_ns", NULL, &job->slow_ns, 0, INT64_MAX / 4},
        {"windows", NULL, &job->windows, 0, 1000},
        {"window_ns", NULL, &job->window_ns, 0, INT64_MAX / 4},
        {"idle_ns", NULL, &job->idle_ns, 0, INT64_MAX / 4},
        {"settle_ns", NULL, &job->settle_ns, 0, INT64_MAX / 4},
    };
    size_t known = sizeof keys / sizeof keys[0];
    uint32_t seen = 0;
    bool converged = false;
    for (int i = 1; i < count; i++) {
        char *value = strchr(words[i], '=');
        if (!value) fail("agent", "%s is not key=value", words[i]);
        *value++ = 0;
        size_t k = 0;
        while (k < known && strcmp(words[i], keys[k].key)) k++;
        if (k < known && keys[k].text) *keys[k].text = value;
        else if (k < known) *keys[k].number = whole_number(words[i], value, keys[k].least, keys[k].most);
        else if (!strcmp(words[i], "converged")) job->converged = strtod(value, NULL), converged = true;
        else if (!strcmp(words[i], "config") && strchr(value, '=') && job->config_count < MAX_CONFIG)
            job->config[job->config_count++] = value;
        else fail("agent", "%s=%s is not understood", words[i], value);
        if (k < known) seen |= 1u << k;
    }
    for (size_t k = 0; k < known; k++) {
        const char *const optional[] = {"mask", "profile", "windows", "window_ns", "idle_ns", "settle_ns"};
        bool may = seen & 1u << k;
        for (size_t o = 0; o < sizeof optional / sizeof optional[0]; o++) may = may || !strcmp(keys[k].key, optional[o]);
        if (!may) fail("agent", "%s= is missing", keys[k].key);
    }
    if (!converged) fail("agent", "converged= is missing");
}

/* Run on these CPUs only; threads that the runtime makes inherit it. */
static void keep_to(const char *mask) {
    cpu_set_t cpus;
    CPU_ZERO(&cpus);
    size_t digits = strlen(mask);
    for (size_t i = 0; i < digits; i++) {
        if (!isxdigit((unsigned char)mask[i])) fail("agent", "mask=%s is not hexadecimal", mask);
        char digit[2] = {mask[i], 0};
        long bits = strtol(digit, NULL, 16);
        for (size_t bit = 0; bit < 4; bit++)
            if (bits >> bit & 1 && 4 * (digits - 1 - i) + bit < CPU_SETSIZE) CPU_SET(4 * (digits - 1 - i) + bit, &cpus);
    }
    if (sched_setaffinity(0, sizeof cpus, &cpus)) fail("agent", "mask=%s names no CPU of this device: %s", mask, strerror(errno));
}

int main(int count, char **words) {
    int out = dup(1);
    replies = out < 0 ? NULL : fdopen(out, "w");
    if (!replies) return 2;
    dup2(2, 1);
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* whoever started it is gone: nobody waits for the result */
    FILE *score = fopen("/proc/self/oom_score_adj", "w"); /* when memory runs out, this is the first to go */
    if (score) fputs("1000", score), fclose(score);
    struct job job = {0};
    read_job(count, words, &job);
    if (job.mask) keep_to(job.mask);
    benchmark(&job);
}
