/* A cable with a length: joins two TAP devices with delay, rate, a queue and random loss, each way.

   usage: wire TAP TAP DELAY_US LOSS_PPM RATE_KBIT QUEUE_BYTES      (rate 0: without limit)

   The devices are made here, in the namespace this is started in; the caller moves them to where
   they belong after "ready" was printed. Loss befalls IPv4 frames only, so that ARP works. Stands
   in for netem, which not every kernel has. */

#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { SLOTS = 32768, FRAME = 1600, BURST = 64, IPV4_HEADERS = 34 };

struct frame {
    uint64_t due; /* ns */
    uint32_t length;
    unsigned char data[FRAME];
};

struct way { /* one direction: a ring of frames on their way */
    struct frame *ring;
    uint32_t head, tail;
    uint64_t busy_until; /* ns: when the last frame has left the queue */
};

static volatile sig_atomic_t ended = 0;
static uint64_t state = 88172645463325252ull;

static void end(int number) { (void)number, ended = 1; }

static uint64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000ull + (uint64_t)time.tv_nsec;
}

static uint64_t chance(void) {
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return (state >> 11) % 1000000;
}

static int open_tap(const char *name) {
    struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI};
    int file = open("/dev/net/tun", O_RDWR | O_NONBLOCK);
    strncpy(request.ifr_name, name, IFNAMSIZ - 1);
    if (file < 0 || ioctl(file, TUNSETIFF, &request) < 0) {
        perror(name);
        exit(1);
    }
    return file;
}

static int is_ipv4(const struct frame *frame) {
    return frame->length > IPV4_HEADERS && frame->data[12] == 8 && frame->data[13] == 0;
}

static void take_in(struct way *way, int file, uint64_t delay, uint64_t loss_ppm, uint64_t kbit,
                    uint64_t queue) {
    for (int count = 0; count < BURST; count++) {
        static struct frame spare;
        int full = way->tail - way->head >= SLOTS;
        struct frame *frame = full ? &spare : &way->ring[way->tail % SLOTS];
        ssize_t length = read(file, frame->data, FRAME);
        if (length <= 0) return;
        frame->length = (uint32_t)length;
        if (full || (loss_ppm && is_ipv4(frame) && chance() < loss_ppm)) continue;
        uint64_t start = now(), came = start;
        if (kbit) {
            if (way->busy_until > start) start = way->busy_until;
            if ((start - came) * kbit / 8000000ull > queue) continue;
            start += (uint64_t)length * 8 * 1000000ull / kbit;
            way->busy_until = start;
        }
        frame->due = start + delay;
        way->tail++;
    }
}

static void give_out(struct way *way, int file) {
    for (uint64_t time = now(); way->head != way->tail; way->head++) {
        struct frame *frame = &way->ring[way->head % SLOTS];
        if (frame->due > time) return;
        if (write(file, frame->data, frame->length) < 0) continue; /* the far end is down */
    }
}

static uint64_t next_due(const struct way *ways) {
    uint64_t next = 0;
    for (int i = 0; i < 2; i++) {
        if (ways[i].head == ways[i].tail) continue;
        uint64_t due = ways[i].ring[ways[i].head % SLOTS].due;
        if (!next || due < next) next = due;
    }
    return next;
}

int main(int count, char **arguments) {
    if (count != 7) return 2;
    int files[2] = {open_tap(arguments[1]), open_tap(arguments[2])};
    uint64_t delay = strtoull(arguments[3], 0, 10) * 1000, loss = strtoull(arguments[4], 0, 10);
    uint64_t kbit = strtoull(arguments[5], 0, 10), queue = strtoull(arguments[6], 0, 10);
    struct way ways[2] = {{0}};
    for (int i = 0; i < 2; i++)
        if (!(ways[i].ring = malloc(sizeof(struct frame) * SLOTS))) return 1;
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    prctl(PR_SET_TIMERSLACK, 1000);
    signal(SIGTERM, end);
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    state ^= now();
    printf("ready\n");
    fflush(stdout);
    while (!ended) {
        struct pollfd waits[3] = {{files[0], POLLIN, 0}, {files[1], POLLIN, 0}, {timer, POLLIN, 0}};
        uint64_t due = next_due(ways), junk;
        struct itimerspec at = {.it_value = {(time_t)(due / 1000000000ull), (long)(due % 1000000000ull)}};
        timerfd_settime(timer, TFD_TIMER_ABSTIME, &at, 0); /* zero: disarmed */
        poll(waits, 3, 1000);
        if (read(timer, &junk, sizeof junk) < 0) junk = 0;
        for (int i = 0; i < 2; i++)
            if (waits[i].revents & POLLIN) take_in(&ways[i], files[i], delay, loss, kbit, queue);
        for (int i = 0; i < 2; i++) give_out(&ways[i], files[1 - i]);
    }
    return 0;
}
