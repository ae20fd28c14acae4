/* memory REPORT MIB: holds memory of four kinds, a quarter each, and can prove that it is unchanged.
 *
 * random: does not compress. floats: 32-bit values around zero like a model's weights, compress a
 * little. text: words of a small vocabulary, compress well. zero: written, so the pages exist.
 * A new number in VERIFY makes it compute the checksum again and publish the verdict. */
#include "report.h"

#include <string.h>

/* The order of bench/reports.py: Memory. */
enum { BYTES = 1, CHECKSUM, VERIFY, VERIFIED, FAILURES };

enum { POLL_NS = 5000000, SEED = 20 };
#define ODD UINT64_C(0x9e3779b97f4a7c15)

static uint64_t state = SEED;

static uint64_t next(void) { /* xorshift64*: fast, and the same bytes in every run */
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return state * UINT64_C(0x2545f4914f6cdd1d);
}

static void fill_random(char *at, size_t bytes) {
    uint64_t *words = (uint64_t *)at;
    for (size_t i = 0; i < bytes / 8; i++) words[i] = next();
}

static void fill_floats(char *at, size_t bytes) {
    float *values = (float *)at;
    for (size_t i = 0; i < bytes / sizeof(float); i++) {
        uint64_t r = next(); /* the sum of four uniform values is nearly a normal one */
        int sum = (int)(r & 0xffff) + (int)(r >> 16 & 0xffff) + (int)(r >> 32 & 0xffff) + (int)(r >> 48);
        values[i] = (float)(sum - 131070) * (0.02f / 37837.0f); /* standard deviation 0.02 */
    }
}

/* Words as a language has them: the n-th most frequent is used 1/n as often as the first (Zipf), and
 * frequent ones are short. Compresses about as well and as fast as English or source code. */
static void fill_text(char *at, size_t bytes) {
    enum { WORDS = 1 << 13, LONGEST = 16, DRAWS = 1 << 16, PER_WORD = DRAWS / 9 };
    static char vocabulary[WORDS][LONGEST];
    static uint16_t drawn[DRAWS]; /* word n about PER_WORD / n times */
    for (int w = 0; w < WORDS; w++) {
        int length = 2 + (int)(next() % 3);
        for (int rank = w; rank > 4; rank /= 4) length++;
        for (int i = 0; i < length; i++) vocabulary[w][i] = (char)('a' + next() % 26);
        vocabulary[w][length] = w % 16 == 15 ? '\n' : ' ';
    }
    for (int draw = 0, w = 0, left = PER_WORD; draw < DRAWS; draw++) {
        drawn[draw] = (uint16_t)w;
        if (--left > 0) continue;
        w = (w + 1) % WORDS;
        left = PER_WORD / (w + 1);
    }
    for (size_t done = 0; done < bytes;) {
        const char *word = vocabulary[drawn[next() % DRAWS]];
        size_t length = strlen(word);
        if (length > bytes - done) length = bytes - done;
        memcpy(at + done, word, length);
        done += length;
    }
}

static uint64_t checksum(const char *at, size_t bytes) {
    const uint64_t *words = (const uint64_t *)at;
    uint64_t lanes[4] = {1, 2, 3, 4};
    for (size_t i = 0; i < bytes / 8; i += 4)
        for (int lane = 0; lane < 4; lane++) lanes[lane] = (lanes[lane] ^ words[i + lane]) * ODD;
    return lanes[0] ^ lanes[1] * ODD ^ lanes[2] * (ODD + 2) ^ lanes[3] * (ODD + 4);
}

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    report_slot *report = report_open(argv[1]);
    size_t bytes = strtoull(argv[2], NULL, 10) << 20, quarter = bytes / 4;
    char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) die("mmap");
    fill_random(memory, quarter);
    fill_floats(memory + quarter, quarter);
    fill_text(memory + 2 * quarter, quarter);
    memset(memory + 3 * quarter, 0, quarter);
    const uint64_t expected = checksum(memory, bytes);
    uint64_t failures = 0;
    report[BYTES] = bytes;
    report[CHECKSUM] = expected;
    report[FAILURES] = 0;
    report[REPORT_READY] = REPORT_MAGIC;
    for (;;) {
        uint64_t asked = report[VERIFY];
        if (asked != report[VERIFIED]) {
            report[CHECKSUM] = checksum(memory, bytes);
            failures += report[CHECKSUM] != expected;
            report[FAILURES] = failures;
            report[VERIFIED] = asked;
        }
        sleep_ns(POLL_NS);
    }
}
