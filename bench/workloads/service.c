/* service REPORT PORT [PEER]: a server on all addresses, IPv4 and IPv6, that returns every byte.
 *
 * With PEER it is also the client of another service, on 127.0.0.1:PEER: it sends numbers over one
 * connection, and checks that each comes back before the next goes out. HOLD keeps it from
 * accepting, once HELD is the same: then connections are made by the kernel alone and wait. A new number in DIAL makes it
 * connect, without waiting, to the IPv4 address TO_ADDRESS (as 32 bits of a number) at TO_PORT;
 * what has become of that is in DIALED: 0 nothing yet, 1 connected, 2 refused or given up. */
#include "report.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>

/* The order of bench/reports.py: Service. */
enum { ACCEPTED = 1, ENDED, BROKEN, LAPS, ERRORS, HOLD, HELD, DIAL, DIALS, DIALED, TO_ADDRESS, TO_PORT };
enum { CLIENTS = 64, BACKLOG = 64, POLL_MS = 2, CONNECTED = 1, FAILED = 2 };

static report_slot *report;
static struct pollfd polled[CLIENTS];

static int listen_everywhere(uint16_t port) {
    struct sockaddr_in6 any = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    int fd = socket(AF_INET6, SOCK_STREAM, 0), one = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (void *)&any, sizeof any) < 0 || listen(fd, BACKLOG) < 0) die("listen");
    return fd;
}

static int dial(uint32_t address, uint16_t port, int flags) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    to.sin_addr.s_addr = htonl(address);
    int fd = socket(AF_INET, SOCK_STREAM | flags, 0);
    if (connect(fd, (void *)&to, sizeof to) == 0 || errno == EINPROGRESS) return fd;
    close(fd);
    return -1;
}

static void take_in(int client) {
    for (int i = 0; i < CLIENTS; i++) {
        if (polled[i].fd >= 0) continue;
        polled[i] = (struct pollfd){client, POLLIN, 0};
        report[ACCEPTED]++;
        return;
    }
    close(client);
}

/* What has come, back to where it came from; false when there is nobody any more. */
static int echo(int client) {
    char bytes[65536];
    ssize_t n = read(client, bytes, sizeof bytes);
    if (n <= 0) {
        report[n == 0 ? ENDED : BROKEN]++;
        return 0;
    }
    for (ssize_t done = 0, part; done < n; done += part) {
        part = write(client, bytes + done, (size_t)(n - done));
        if (part < 0) {
            report[BROKEN]++;
            return 0;
        }
    }
    return 1;
}

static int read_number(int fd, uint64_t *number) {
    size_t got = 0;
    while (got < sizeof *number) {
        ssize_t n = read(fd, (char *)number + got, sizeof *number - got);
        if (n <= 0) return 0;
        got += (size_t)n;
    }
    return 1;
}

/* The client of the other service, in a process of its own. */
static void ask_for_ever(uint16_t port) {
    int fd;
    while ((fd = dial(INADDR_LOOPBACK, port, 0)) < 0) sleep_ns(1000000);
    for (uint64_t lap = 1, back;; lap++) {
        if (write(fd, &lap, sizeof lap) != sizeof lap || !read_number(fd, &back) || back != lap) {
            report[ERRORS]++;
            pause();
        }
        report[LAPS] = lap;
        sleep_ns(500000);
    }
}

static void see_to_dialing(void) {
    static int fd = -1;
    if (report[DIAL] != report[DIALS]) {
        fd = dial((uint32_t)report[TO_ADDRESS], (uint16_t)report[TO_PORT], SOCK_NONBLOCK);
        report[DIALED] = fd < 0 ? FAILED : 0;
        report[DIALS] = report[DIAL];
    }
    struct pollfd ready = {fd, POLLOUT, 0};
    if (fd < 0 || report[DIALED] || poll(&ready, 1, 0) <= 0) return;
    int error = 0;
    socklen_t length = sizeof error;
    getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length);
    report[DIALED] = error || ready.revents & (POLLHUP | POLLERR) ? FAILED : CONNECTED;
}

int main(int argc, char **argv) {
    if (argc != 3 && argc != 4) return 2;
    signal(SIGPIPE, SIG_IGN);
    report = report_open(argv[1]);
    struct pollfd *listener = &polled[0];
    for (int i = 1; i < CLIENTS; i++) polled[i].fd = -1;
    *listener = (struct pollfd){listen_everywhere((uint16_t)atoi(argv[2])), POLLIN, 0};
    if (argc == 4 && fork() == 0) ask_for_ever((uint16_t)atoi(argv[3]));
    report[REPORT_READY] = REPORT_MAGIC;
    for (;;) {
        listener->events = report[HOLD] ? 0 : POLLIN;
        report[HELD] = report[HOLD];
        see_to_dialing();
        if (poll(polled, CLIENTS, POLL_MS) <= 0) continue;
        if (listener->revents & POLLIN) take_in(accept(listener->fd, NULL, NULL));
        for (int i = 1; i < CLIENTS; i++) {
            if (polled[i].fd < 0 || !polled[i].revents || echo(polled[i].fd)) continue;
            close(polled[i].fd);
            polled[i].fd = -1;
        }
    }
}
