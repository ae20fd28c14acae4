/* family REPORT PORT: six processes that pass one token round over every kind of channel.
 *
 *   0 -pipe-> 1 -socketpair-> 2 -named unix socket-> 3 -TCP-> 4 -threads, shared memory-> 0
 *
 * Process 5 echoes for whoever connects to the TCP listener on 127.0.0.1:PORT or to the named socket.
 * Every member checks that the token is the one it waits for, so a byte lost, doubled or changed by
 * a restore is counted in ERRORS or stops LAPS. Process 0 also keeps a file that was deleted while
 * open, and once per lap compares what the others counted in shared memory. A new number in PROBE
 * makes it open fresh connections to both listeners. PORT 0 takes any free port and publishes it. */
#include "report.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

/* The order of bench/reports.py: Family. */
enum { LAPS = 1, ERRORS, LISTEN_PORT, PROBE, PROBED, ECHOES, HOPS };
enum { MEMBERS = 5, LAP_NS = 1000000, BLOCKS = 16, BLOCK_WORDS = 512, CLIENTS = 16 };

struct shared {
    sem_t full; /* process shared: a futex in the shared mapping */
    uint64_t mail, hops[MEMBERS], echoes, errors;
};
static struct shared *shared;

static void send_token(int fd, uint64_t token) {
    if (write(fd, &token, sizeof token) != sizeof token) die("write of the token");
}

static uint64_t receive_token(int fd) {
    uint64_t token;
    for (size_t got = 0; got < sizeof token;) {
        ssize_t n = read(fd, (char *)&token + got, sizeof token - got);
        if (n <= 0) die("read of the token");
        got += (size_t)n;
    }
    return token;
}

static void check(int good) {
    if (!good) __atomic_add_fetch(&shared->errors, 1, __ATOMIC_RELAXED);
}

static void bump(int member) {
    __atomic_add_fetch(&shared->hops[member], 1, __ATOMIC_RELEASE);
}

/* Members 1 to 3: from one descriptor to the next. */
static void pass_on(int member, int in, int out) {
    for (uint64_t expected = 1;; expected++) {
        uint64_t token = receive_token(in);
        check(token == expected);
        bump(member);
        send_token(out, token);
    }
}

/* Member 4: the token goes through two more threads before it is left in shared memory. */
struct relay {
    pthread_mutex_t lock;
    pthread_cond_t moved;
    uint64_t token; /* 0: empty */
};
static struct relay relays[2] = {{PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0},
                                 {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0}};

static void relay_put(struct relay *relay, uint64_t token) {
    pthread_mutex_lock(&relay->lock);
    relay->token = token;
    pthread_cond_signal(&relay->moved);
    pthread_mutex_unlock(&relay->lock);
}

static uint64_t relay_take(struct relay *relay) {
    pthread_mutex_lock(&relay->lock);
    while (!relay->token) pthread_cond_wait(&relay->moved, &relay->lock);
    uint64_t token = relay->token;
    relay->token = 0;
    pthread_mutex_unlock(&relay->lock);
    return token;
}

static void *first_thread(void *unused) {
    for (;;) relay_put(&relays[1], relay_take(&relays[0]));
    return unused;
}

static void *second_thread(void *unused) {
    for (uint64_t expected = 1;; expected++) {
        uint64_t token = relay_take(&relays[1]);
        check(token == expected);
        bump(4);
        shared->mail = token;
        sem_post(&shared->full);
    }
    return unused;
}

static void through_threads(int in) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, first_thread, NULL)) die("pthread_create");
    if (pthread_create(&thread, NULL, second_thread, NULL)) die("pthread_create");
    for (;;) relay_put(&relays[0], receive_token(in));
}

/* Member 5. */
static void echo_for_all(int tcp, int named) {
    struct pollfd polled[2 + CLIENTS] = {{tcp, POLLIN, 0}, {named, POLLIN, 0}};
    for (int i = 2; i < 2 + CLIENTS; i++) polled[i].fd = -1;
    for (;;) {
        if (poll(polled, 2 + CLIENTS, -1) < 0) continue;
        for (int i = 0; i < 2 + CLIENTS; i++) {
            if (polled[i].fd < 0 || !polled[i].revents) continue;
            if (i < 2) {
                int slot = 2, client = accept(polled[i].fd, NULL, NULL);
                while (slot < 2 + CLIENTS && polled[slot].fd >= 0) slot++;
                if (slot == 2 + CLIENTS) close(client);
                else polled[slot] = (struct pollfd){client, POLLIN, 0};
                continue;
            }
            char bytes[4096];
            ssize_t n = read(polled[i].fd, bytes, sizeof bytes);
            if (n > 0 && write(polled[i].fd, bytes, (size_t)n) == n) {
                __atomic_add_fetch(&shared->echoes, 1, __ATOMIC_RELAXED);
                continue;
            }
            close(polled[i].fd);
            polled[i].fd = -1;
        }
    }
}

static int listen_at(const struct sockaddr *address, socklen_t length) {
    int fd = socket(address->sa_family, SOCK_STREAM, 0), one = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, address, length) < 0 || listen(fd, CLIENTS) < 0) die("listen");
    return fd;
}

static int connect_to(const struct sockaddr *address, socklen_t length) {
    int fd = socket(address->sa_family, SOCK_STREAM, 0);
    if (connect(fd, address, length) == 0) return fd;
    close(fd);
    return -1;
}

static void probe(const struct sockaddr *address, socklen_t length, uint64_t number) {
    int fd = connect_to(address, length);
    check(fd >= 0);
    if (fd < 0) return;
    send_token(fd, number);
    check(receive_token(fd) == number);
    close(fd);
}

/* A file without a name: one block is checked and rewritten per lap. */
static int deleted;
static uint64_t written[BLOCKS];

static void rewrite_block(uint64_t lap) {
    uint64_t block[BLOCK_WORDS], number = lap % BLOCKS;
    off_t at = (off_t)(number * sizeof block);
    check(pread(deleted, block, sizeof block, at) == sizeof block);
    for (int i = 0; i < BLOCK_WORDS; i++) check(block[i] == written[number]);
    for (int i = 0; i < BLOCK_WORDS; i++) block[i] = lap;
    check(pwrite(deleted, block, sizeof block, at) == sizeof block);
    written[number] = lap;
}

static void open_deleted(const char *report_path) {
    char path[96];
    snprintf(path, sizeof path, "%s.deleted", report_path);
    deleted = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    if (deleted < 0 || ftruncate(deleted, BLOCKS * BLOCK_WORDS * 8) < 0 || unlink(path) < 0) die(path);
}

/* Addresses and listeners of both kinds. */
static struct sockaddr_un named = {.sun_family = AF_UNIX};
static struct sockaddr_in tcp = {.sin_family = AF_INET};
static const struct sockaddr *const named_at = (void *)&named, *const tcp_at = (void *)&tcp;
static int named_listener, tcp_listener;

static void open_listeners(const char *report_path, const char *port) {
    snprintf(named.sun_path, sizeof named.sun_path, "%s.sock", report_path);
    unlink(named.sun_path);
    named_listener = listen_at(named_at, sizeof named);
    tcp.sin_port = htons((uint16_t)atoi(port));
    tcp.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    tcp_listener = listen_at(tcp_at, sizeof tcp);
    socklen_t length = sizeof tcp;
    getsockname(tcp_listener, (void *)&tcp, &length);
}

/* Opens all channels and starts all members but this one; the descriptor to send the token into. */
static int start_members(void) {
    int first_pipe[2], pair[2], one = 1;
    if (pipe(first_pipe) < 0 || socketpair(AF_UNIX, SOCK_STREAM, 0, pair) < 0) die("channels");
    int named_out = connect_to(named_at, sizeof named);
    int named_in = accept(named_listener, NULL, NULL);
    int tcp_out = connect_to(tcp_at, sizeof tcp);
    int tcp_in = accept(tcp_listener, NULL, NULL);
    if (named_out < 0 || named_in < 0 || tcp_out < 0 || tcp_in < 0) die("connections");
    setsockopt(tcp_out, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);

    if (fork() == 0) pass_on(1, first_pipe[0], pair[0]);
    if (fork() == 0) pass_on(2, pair[1], named_out);
    if (fork() == 0) pass_on(3, named_in, tcp_out);
    if (fork() == 0) through_threads(tcp_in);
    if (fork() == 0) echo_for_all(tcp_listener, named_listener);
    return first_pipe[1];
}

static void run_lap(report_slot *report, int out, uint64_t lap) {
    bump(0);
    send_token(out, lap);
    while (sem_wait(&shared->full) < 0) continue;
    check(shared->mail == lap);
    rewrite_block(lap);
    if (report[PROBE] != report[PROBED]) {
        probe(tcp_at, sizeof tcp, report[PROBE]);
        probe(named_at, sizeof named, report[PROBE]);
        report[PROBED] = report[PROBE];
    }
    for (int member = 0; member < MEMBERS; member++) {
        check(shared->hops[member] == lap);
        report[HOPS + member] = shared->hops[member];
    }
    report[ECHOES] = shared->echoes;
    report[ERRORS] = shared->errors;
    report[LAPS] = lap;
}

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    report_slot *report = report_open(argv[1]);
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED || sem_init(&shared->full, 1, 0) < 0) die("shared memory");
    open_deleted(argv[1]);
    open_listeners(argv[1], argv[2]);
    int out = start_members();
    report[LISTEN_PORT] = ntohs(tcp.sin_port);
    report[REPORT_READY] = REPORT_MAGIC;
    for (uint64_t lap = 1;; lap++) {
        run_lap(report, out, lap);
        sleep_ns(LAP_NS);
    }
}
