/* A program of the test c_program.rs. Each check that fails ends it with its line. Also valid C++. */

#include "slipring.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct quote {
    int64_t px;
    uint32_t qty;
    uint8_t venue[4];
};

static const char *const LAYOUT = "px:i64 qty:u32 venue:u8[4]";
static const uint64_t SECOND = 1000000000;

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "line %d: %s; the last error: %s\n", __LINE__, #condition, slipring_error());              \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

#define IS(expected, call) CHECK((call) == (expected))

static void publish(slipring_producer *out, int64_t px, uint32_t qty) {
    slipring_slots slots;
    IS(SLIPRING_OK, slipring_claim(out, 1, 60 * SECOND, &slots));
    struct quote *quote = (struct quote *)slots.events;
    quote->px = px;
    quote->qty = qty;
    memcpy(quote->venue, "XETR", 4);
    IS(SLIPRING_OK, slipring_commit(out));
}

static int alone(const char *name) {
    slipring_ring *ring = NULL, *other = NULL;
    slipring_producer *out = NULL, *second = NULL;
    slipring_consumer *tape = NULL, *twin = NULL;
    slipring_slots slots;
    slipring_events batch;
    slipring_description is;

    CHECK(strcmp(slipring_error(), "") == 0);
    IS(SLIPRING_NOT_FOUND, slipring_open(name, NULL, &ring));
    CHECK(ring == NULL && strstr(slipring_error(), name) != NULL);
    IS(SLIPRING_INVALID, slipring_open(NULL, NULL, &ring));
    IS(SLIPRING_INVALID, slipring_open("a/b", NULL, &ring));
    IS(SLIPRING_INVALID, slipring_open("\xff", NULL, &ring));
    IS(SLIPRING_INVALID, slipring_open(name, NULL, NULL));
    IS(SLIPRING_INVALID, slipring_open_or_create(name, "flag:u8 px:i64", 4, 0, false, &ring));
    CHECK(strstr(slipring_error(), "padding") != NULL);
    IS(SLIPRING_INVALID, slipring_open_or_create(name, LAYOUT, 3, 0, false, &ring));
    IS(SLIPRING_OK, slipring_open_or_create(name, LAYOUT, 4, 1, false, &ring));
    IS(SLIPRING_MISMATCH, slipring_open_or_create(name, LAYOUT, 8, 1, false, &other));
    IS(SLIPRING_MISMATCH, slipring_open_or_create(name, LAYOUT, 4, 1, true, &other));
    IS(SLIPRING_MISMATCH, slipring_open(name, "px:u64 qty:u32 venue:u8[4]", &other));
    CHECK(strstr(slipring_error(), "px:i64@0") != NULL && strstr(slipring_error(), "px:u64@0") != NULL);
    CHECK(other == NULL);
    IS(SLIPRING_OK, slipring_open(name, LAYOUT, &other));

    IS(SLIPRING_OK, slipring_describe(ring, &is));
    CHECK(is.event_size == sizeof(struct quote) && is.capacity == 4 && is.retained == 1 && is.published == 0 && !is.several);
    /* The same text from C's own struct. */
    char text[200];
    snprintf(text, sizeof text, "px:i64@%zu qty:u32@%zu venue:u8[%zu]@%zu size=%zu align=%zu", offsetof(struct quote, px),
             offsetof(struct quote, qty), sizeof(((struct quote *)0)->venue), offsetof(struct quote, venue),
             sizeof(struct quote), sizeof(int64_t));
    CHECK(strcmp(is.layout, text) == 0);
    puts(is.layout);

    IS(SLIPRING_INVALID, slipring_producer_join(ring, "sleepy", &out));
    IS(SLIPRING_OK, slipring_producer_join(ring, NULL, &out));
    IS(SLIPRING_IN_USE, slipring_producer_join(other, NULL, &second));
    CHECK(second == NULL);
    IS(SLIPRING_INVALID, slipring_commit(out));
    IS(SLIPRING_OK, slipring_consumer_join(other, "tape", SLIPRING_EARLIEST, true, "spin-then-park", &tape));
    IS(SLIPRING_IN_USE, slipring_consumer_join(other, "tape", SLIPRING_EARLIEST, true, NULL, &twin));
    IS(SLIPRING_OUT_OF_RANGE, slipring_consumer_join(other, "late", 7, false, NULL, &twin));
    CHECK(twin == NULL);
    IS(SLIPRING_INVALID, slipring_consume(tape, 1));
    IS(SLIPRING_INVALID, slipring_poll(tape, 0, 0, &batch));
    IS(SLIPRING_TIMED_OUT, slipring_poll(tape, 4, 0, &batch));
    IS(SLIPRING_TIMED_OUT, slipring_poll(tape, 4, 1000000, &batch));
    CHECK(batch.events == NULL && batch.len == 0);

    /* A claim that is not committed leaves nothing. */
    IS(SLIPRING_INVALID, slipring_claim(out, 0, 0, &slots));
    IS(SLIPRING_OK, slipring_claim(out, 2, 0, &slots));
    CHECK(slots.len == 2 && slots.first == 0 && slots.events != NULL);
    for (int64_t px = 0; px < 4; px++)
        publish(out, px, 7);
    IS(SLIPRING_TIMED_OUT, slipring_claim(out, 1, 0, &slots));
    CHECK(slots.events == NULL && strstr(slipring_error(), "tape") != NULL);
    IS(SLIPRING_TIMED_OUT, slipring_claim(out, 1, 1000000, &slots));

    IS(SLIPRING_OK, slipring_poll(tape, 2, SLIPRING_FOREVER, &batch));
    CHECK(batch.len == 2 && batch.first == 0);
    IS(SLIPRING_INVALID, slipring_consume(tape, 3));
    IS(SLIPRING_OK, slipring_poll(tape, 9, 0, &batch));
    CHECK(batch.len == 4 && batch.first == 0);
    const struct quote *quotes = (const struct quote *)batch.events;
    CHECK(quotes[2].px == 2 && quotes[2].qty == 7 && memcmp(quotes[2].venue, "XETR", 4) == 0);
    IS(SLIPRING_OK, slipring_consume(tape, 3));
    IS(SLIPRING_OK, slipring_describe(other, &is));
    CHECK(is.published == 4);

    /* Batches and claims end where the slots begin anew. */
    publish(out, 4, 7);
    publish(out, 5, 7);
    IS(SLIPRING_OK, slipring_poll(tape, 9, 60 * SECOND, &batch));
    CHECK(batch.len == 1 && batch.first == 3 && ((const struct quote *)batch.events)->px == 3);
    IS(SLIPRING_OK, slipring_consume(tape, 1));
    IS(SLIPRING_OK, slipring_poll(tape, 9, 60 * SECOND, &batch));
    CHECK(batch.len == 2 && batch.first == 4);
    IS(SLIPRING_OK, slipring_consume(tape, 2));
    publish(out, 6, 7);
    IS(SLIPRING_OK, slipring_claim(out, 3, 60 * SECOND, &slots));
    CHECK(slots.len == 1 && slots.first == 7);
    ((struct quote *)slots.events)->px = 7;
    IS(SLIPRING_OK, slipring_commit(out));

    /* A held consumer goes on where it was. */
    slipring_consumer_free(tape);
    IS(SLIPRING_OK, slipring_consumer_join(ring, "tape", SLIPRING_LATEST, true, NULL, &tape));
    IS(SLIPRING_OK, slipring_poll(tape, 9, 60 * SECOND, &batch));
    CHECK(batch.len == 2 && batch.first == 6 && ((const struct quote *)batch.events)[1].px == 7);
    IS(SLIPRING_OK, slipring_consume(tape, 2));
    IS(SLIPRING_NOT_HELD, slipring_release(ring, "tape"));
    slipring_consumer_free(tape);
    IS(SLIPRING_OK, slipring_release(ring, "tape"));
    IS(SLIPRING_NOT_HELD, slipring_release(ring, "tape"));

    /* The end. */
    IS(SLIPRING_OK, slipring_consumer_join(ring, "last", SLIPRING_LATEST, false, NULL, &tape));
    publish(out, 8, 9);
    IS(SLIPRING_OK, slipring_end(other));
    slipring_code code = slipring_claim(out, 1, SLIPRING_FOREVER, &slots);
    CHECK((code == SLIPRING_OK ? slipring_commit(out) : code) == SLIPRING_CLOSED);
    IS(SLIPRING_OK, slipring_poll(tape, 9, SLIPRING_FOREVER, &batch));
    IS(SLIPRING_OK, slipring_consume(tape, batch.len));
    IS(SLIPRING_CLOSED, slipring_poll(tape, 9, SLIPRING_FOREVER, &batch));
    IS(SLIPRING_IN_USE, slipring_remove(name, false));
    IS(SLIPRING_OK, slipring_remove(name, true));
    IS(SLIPRING_REPLACED, slipring_poll(tape, 9, SLIPRING_FOREVER, &batch));
    IS(SLIPRING_NOT_FOUND, slipring_remove(name, false));

    slipring_free(ring);
    slipring_producer_free(out);
    slipring_consumer_free(tape);
    slipring_free(other);
    slipring_free(NULL);
    slipring_producer_free(NULL);
    slipring_consumer_free(NULL);
    return 0;
}

/* Several producers: claims in their order, given up ones skipped, and all of them in one piece of memory. */
static int several(const char *name) {
    slipring_ring *ring = NULL;
    slipring_producer *one = NULL, *two = NULL;
    slipring_consumer *tape = NULL;
    slipring_slots slots;
    slipring_events batch;
    slipring_description is;
    IS(SLIPRING_OK, slipring_open_or_create(name, LAYOUT, 4, 0, true, &ring));
    IS(SLIPRING_OK, slipring_describe(ring, &is));
    CHECK(is.several);
    IS(SLIPRING_OK, slipring_producer_join(ring, NULL, &one));
    IS(SLIPRING_OK, slipring_producer_join(ring, NULL, &two));
    IS(SLIPRING_OK, slipring_consumer_join(ring, "tape", SLIPRING_EARLIEST, false, NULL, &tape));
    publish(one, 0, 7);
    publish(two, 1, 7);
    IS(SLIPRING_OK, slipring_claim(one, 1, 0, &slots));
    CHECK(slots.first == 2 && slots.len == 1);
    publish(two, 3, 7);
    IS(SLIPRING_OK, slipring_poll(tape, 9, 0, &batch));
    CHECK(batch.first == 0 && batch.len == 2);
    IS(SLIPRING_OK, slipring_consume(tape, 2));
    IS(SLIPRING_TIMED_OUT, slipring_poll(tape, 9, 0, &batch));
    /* Leaving gives the claim up. */
    slipring_producer_free(one);
    /* A claim that would pass the end of the slots is the shorter one: 4, 5 and no more were free, 6 is not. */
    IS(SLIPRING_OK, slipring_claim(two, 2, 0, &slots));
    CHECK(slots.first == 4 && slots.len == 2);
    ((struct quote *)slots.events)[0].px = 4;
    ((struct quote *)slots.events)[1].px = 5;
    IS(SLIPRING_OK, slipring_commit(two));
    IS(SLIPRING_OK, slipring_poll(tape, 9, 0, &batch));
    CHECK(batch.first == 3 && batch.len == 1 && ((const struct quote *)batch.events)->px == 3);
    IS(SLIPRING_OK, slipring_consume(tape, 1));
    IS(SLIPRING_OK, slipring_poll(tape, 9, 0, &batch));
    CHECK(batch.first == 4 && batch.len == 2 && ((const struct quote *)batch.events)[1].px == 5);
    IS(SLIPRING_OK, slipring_consume(tape, 2));
    IS(SLIPRING_OK, slipring_claim(two, 4, 0, &slots));
    CHECK(slots.first == 6 && slots.len == 2);
    IS(SLIPRING_OK, slipring_commit(two));
    IS(SLIPRING_OK, slipring_poll(tape, 9, 0, &batch));
    CHECK(batch.first == 6 && batch.len == 2);
    IS(SLIPRING_OK, slipring_consume(tape, 2));
    publish(two, 10, 7);
    /* The rest of the longer claim was given up: the next event is behind it. */
    IS(SLIPRING_OK, slipring_poll(tape, 9, 0, &batch));
    CHECK(batch.first == 10 && batch.len == 1);
    IS(SLIPRING_OK, slipring_consume(tape, 1));
    slipring_producer_free(two);
    slipring_consumer_free(tape);
    slipring_free(ring);
    IS(SLIPRING_OK, slipring_remove(name, false));
    return 0;
}

/* Answers each quote of one ring with its negative price in another. */
static int echo(const char *name, const char *answers) {
    slipring_ring *ring, *back;
    slipring_producer *out;
    slipring_consumer *tape;
    slipring_events batch;
    slipring_code code;
    IS(SLIPRING_OK, slipring_open(name, LAYOUT, &ring));
    IS(SLIPRING_OK, slipring_open(answers, LAYOUT, &back));
    IS(SLIPRING_OK, slipring_producer_join(back, NULL, &out));
    IS(SLIPRING_OK, slipring_consumer_join(ring, "c", SLIPRING_EARLIEST, false, NULL, &tape));
    while ((code = slipring_poll(tape, 3, SLIPRING_FOREVER, &batch)) == SLIPRING_OK) {
        const struct quote *quotes = (const struct quote *)batch.events;
        for (size_t i = 0; i < batch.len; i++)
            publish(out, -quotes[i].px, quotes[i].qty + 1);
        IS(SLIPRING_OK, slipring_consume(tape, batch.len));
    }
    IS(SLIPRING_CLOSED, code);
    puts(slipring_error());
    IS(SLIPRING_OK, slipring_end(back));
    slipring_producer_free(out);
    slipring_consumer_free(tape);
    slipring_free(ring);
    slipring_free(back);
    return 0;
}

int main(int count, char **words) {
    if (count == 3 && strcmp(words[1], "alone") == 0)
        return alone(words[2]);
    if (count == 3 && strcmp(words[1], "several") == 0)
        return several(words[2]);
    if (count == 4 && strcmp(words[1], "echo") == 0)
        return echo(words[2], words[3]);
    return 2;
}
