// A load generator for HTTP/1.1 over TCP and Unix sockets: N connections that are kept open, each with one request at a time.
//
//   load ADDRESS REQUESTS CONNECTIONS WARM_SECONDS SECONDS [RATE]
//
// ADDRESS is tcp:PORT (loopback only) or unix:PATH. REQUESTS is a file of whole requests, each after its length (32 bits, native); the
// first ######## in one becomes the number of the request, so that units of a rollout don't repeat.
// Without RATE a connection sends its next request as soon as it has its answer; with one, requests are due at a steady pace.
// Prints one object of JSON. A request fails if its answer is not 200, or never comes; every failure is printed as a line on
// standard error: milliseconds since 1970, microseconds since it was sent, what happened. One thread, epoll, no copies: it must cost
// far less than what it measures.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define TIMEOUT_NS 10000000000ULL
#define BUFFER 65536

struct connection {
    int fd;
    bool busy;
    uint64_t sent_at;
    uint64_t due;
    size_t have, need; // bytes of the answer; `need` is 0 until its head is complete
    int status;
    char buffer[BUFFER];
};

static struct { char *bytes, *number; uint32_t length; } *requests;
static size_t request_count, next_request;
static union { struct sockaddr_in in; struct sockaddr_un un; struct sockaddr any; } address;
static socklen_t address_length;
static int epoll;
static uint32_t *latencies; // in tenths of microseconds
static size_t latency_count, latency_room;
static uint64_t total, measured, failed, reconnects;
static uint64_t measure_from;
static volatile sig_atomic_t stopped;

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000ULL + (uint64_t)t.tv_nsec;
}

static void die(const char *what) {
    fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
    exit(2);
}

static void on_signal(int number) { (void)number; stopped = 1; }

static void open_connection(struct connection *c) {
    int family = address.any.sa_family;
    c->fd = -1;
    c->busy = false;
    int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) die("socket");
    // Loopback and Unix sockets connect at once; only a full queue of the listener makes this wait.
    if (connect(fd, &address.any, address_length) < 0) { close(fd); return; }
    int one = 1;
    if (family == AF_INET) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP, .data.ptr = c};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0) die("epoll_ctl");
    c->fd = fd;
}

static void reopen(struct connection *c) {
    if (c->fd >= 0) close(c->fd);
    reconnects++;
    open_connection(c);
}

static void fail(struct connection *c, const char *what, int status) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    failed++;
    c->busy = false;
    if (failed <= 1000)
        fprintf(stderr, "%llu %llu %s %d %.*s\n", (unsigned long long)t.tv_sec * 1000 + (unsigned long long)t.tv_nsec / 1000000,
                (unsigned long long)(now_ns() - c->sent_at) / 1000, what, status,
                (int)(status ? (c->have < 900 ? c->have : 900) : 0), c->buffer);
}

// Sends the next request. A connection that the server closed while it was idle is opened anew: that is no failure.
static void start(struct connection *c) {
    c->sent_at = now_ns();
    c->busy = true;
    c->have = c->need = 0;
    size_t which = next_request % request_count, number = next_request++;
    for (int digit = 7; requests[which].number && digit >= 0; digit--, number /= 10) requests[which].number[digit] = (char)('0' + number % 10);
    for (int attempt = 0; attempt < 2; attempt++) {
        if (c->fd < 0) reopen(c);
        if (c->fd < 0) continue;
        c->busy = true;
        ssize_t sent = send(c->fd, requests[which].bytes, requests[which].length, MSG_NOSIGNAL);
        if (sent == (ssize_t)requests[which].length) return;
        close(c->fd);
        c->fd = -1;
    }
    total++;
    fail(c, "unreachable", 0);
}

static void read_head(struct connection *c) {
    char *end = memmem(c->buffer, c->have, "\r\n\r\n", 4);
    if (!end) return;
    size_t head = (size_t)(end - c->buffer) + 4;
    c->status = c->have > 12 ? atoi(c->buffer + 9) : 0;
    long length = -1;
    for (char *line = memmem(c->buffer, head, "\r\n", 2); line && line < end; line = memmem(line + 2, (size_t)(end + 2 - line - 2), "\r\n", 2))
        if (!strncasecmp(line + 2, "content-length:", 15)) length = atol(line + 17);
    if (length < 0 || head + (size_t)length > BUFFER) {
        fprintf(stderr, "load: an answer without a usable Content-Length: %.*s\n", (int)head, c->buffer);
        exit(2);
    }
    c->need = head + (size_t)length;
}

static void finish(struct connection *c, uint64_t now) {
    total++;
    if (c->status != 200) { fail(c, "status", c->status); return; }
    c->busy = false;
    if (c->sent_at < measure_from) return;
    measured++;
    if (latency_count == latency_room) {
        latency_room = latency_room ? latency_room * 2 : 1 << 20;
        latencies = realloc(latencies, latency_room * sizeof *latencies);
        if (!latencies) die("realloc");
    }
    latencies[latency_count++] = (uint32_t)((now - c->sent_at) / 100);
}

// Takes what has arrived. Returns whether an answer is complete.
static bool receive(struct connection *c) {
    ssize_t got = recv(c->fd, c->buffer + c->have, BUFFER - c->have, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return false;
    if (got <= 0) {
        if (c->busy) { total++; fail(c, "closed", 0); }
        close(c->fd);
        c->fd = -1;
        return false;
    }
    c->have += (size_t)got;
    if (!c->need) read_head(c);
    if (!c->need || c->have < c->need) return false;
    finish(c, now_ns());
    return true;
}

static int by_value(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static double quantile(double q) {
    if (!latency_count) return 0;
    size_t at = (size_t)(q * (double)latency_count);
    return latencies[at < latency_count ? at : latency_count - 1] / 10.0;
}

static void read_requests(const char *path) {
    FILE *file = fopen(path, "rb");
    if (!file) die(path);
    fseek(file, 0, SEEK_END);
    long size = ftell(file);
    rewind(file);
    char *bytes = malloc((size_t)size);
    if (!bytes || fread(bytes, 1, (size_t)size, file) != (size_t)size) die(path);
    fclose(file);
    requests = calloc((size_t)size / 4 + 1, sizeof *requests);
    if (!requests) die("calloc");
    for (char *at = bytes; at + 4 <= bytes + size; at += 4 + requests[request_count++].length) {
        memcpy(&requests[request_count].length, at, 4);
        requests[request_count].bytes = at + 4;
        requests[request_count].number = memmem(at + 4, requests[request_count].length, "########", 8);
    }
    if (!request_count) die("no requests");
}

int main(int argc, char **argv) {
    if (argc < 6) { fputs("load ADDRESS REQUESTS CONNECTIONS WARM_SECONDS SECONDS [RATE]\n", stderr); return 2; }
    if (!strncmp(argv[1], "unix:", 5)) {
        if (strlen(argv[1] + 5) >= sizeof address.un.sun_path) { fputs("load: the path is too long\n", stderr); return 2; }
        address.un.sun_family = AF_UNIX;
        strcpy(address.un.sun_path, argv[1] + 5);
        address_length = sizeof address.un;
    } else {
        address.in.sin_family = AF_INET;
        address.in.sin_port = htons((uint16_t)atoi(argv[1] + 4));
        address.in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        address_length = sizeof address.in;
    }
    read_requests(argv[2]);
    int count = atoi(argv[3]);
    double rate = argc > 6 ? atof(argv[6]) : 0;
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    struct connection *all = calloc((size_t)count, sizeof *all);
    if (epoll < 0 || !all) die("start");
    uint64_t began = now_ns();
    measure_from = began + (uint64_t)(atof(argv[4]) * 1e9);
    uint64_t until = measure_from + (uint64_t)(atof(argv[5]) * 1e9);
    uint64_t step = rate > 0 ? (uint64_t)(1e9 / rate) : 0, next_due = began;
    for (int i = 0; i < count; i++) {
        open_connection(&all[i]);
        if (all[i].fd < 0) die("connect");
        if (!step) start(&all[i]);
    }
    uint64_t looked = began;
    while (!stopped) {
        uint64_t now = now_ns();
        if (now >= until) break;
        if (step) {
            for (int i = 0; i < count && next_due <= now; i++)
                if (!all[i].busy) { start(&all[i]); next_due += step; }
        }
        struct epoll_event events[64];
        int ready = epoll_wait(epoll, events, 64, step ? 1 : 100);
        for (int i = 0; i < ready; i++) {
            struct connection *c = events[i].data.ptr;
            if (c->fd < 0) continue;
            bool done = receive(c);
            if (!step && (done || c->fd < 0)) start(c);
        }
        if (now - looked > 500000000ULL) {
            looked = now;
            for (int i = 0; i < count; i++) {
                if (all[i].busy && now > all[i].sent_at + TIMEOUT_NS) {
                    total++;
                    fail(&all[i], "timeout", 0);
                    reopen(&all[i]);
                }
                if (!step && !all[i].busy) start(&all[i]);
            }
        }
    }
    uint64_t ended = now_ns();
    double seconds = ended > measure_from ? (double)(ended - measure_from) / 1e9 : 0;
    qsort(latencies, latency_count, sizeof *latencies, by_value);
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    double cpu = (double)usage.ru_utime.tv_sec + (double)usage.ru_stime.tv_sec + (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
    printf("{\"seconds\":%.3f,\"requests\":%llu,\"total\":%llu,\"failed\":%llu,\"reconnects\":%llu,\"rps\":%.1f,\"p50_us\":%.1f,\"p90_us\":%.1f,"
           "\"p99_us\":%.1f,\"p999_us\":%.1f,\"max_us\":%.1f,\"load_cpu_s\":%.3f}\n",
           seconds, (unsigned long long)measured, (unsigned long long)total, (unsigned long long)failed, (unsigned long long)reconnects,
           seconds > 0 ? (double)measured / seconds : 0, quantile(0.5), quantile(0.9), quantile(0.99), quantile(0.999), quantile(1), cpu);
    return 0;
}
