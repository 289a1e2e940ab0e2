/* Shared rings of slipring: rings of events between the processes of one user on one Linux machine.
 *
 * Made from ring/capi/src by cbindgen; a test compares. docs/SHARED_MEMORY.md says what a ring promises.
 *
 * Every function that can fail returns a code; SLIPRING_OK is 0. slipring_error() has the text of the last failure in
 * this thread. A ring may be used by several threads at once, a producer or consumer by one thread at a time. Pass
 * every handle to its _free function once, in any order. */

#ifndef SLIPRING_H
#define SLIPRING_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

/*
 A start of a consumer: the earliest event that is kept.
 */
#define SLIPRING_EARLIEST 18446744073709551614ull

/*
 A start of a consumer: the next event to be published.
 */
#define SLIPRING_LATEST 18446744073709551615ull

/*
 A timeout: wait without end.
 */
#define SLIPRING_FOREVER 18446744073709551615ull

/*
 The result of a call. slipring_error() has the text of one that is not SLIPRING_OK.
 */
typedef enum {
    /*
     It is done.
     */
    SLIPRING_OK = 0,
    /*
     An argument is NULL, is no UTF-8, or is out of its range.
     */
    SLIPRING_INVALID = 1,
    /*
     There is no ring with this name.
     */
    SLIPRING_NOT_FOUND = 2,
    /*
     There is a ring with this name already.
     */
    SLIPRING_EXISTS = 3,
    /*
     The ring, or its file, is not what was expected; the text has both sides.
     */
    SLIPRING_MISMATCH = 4,
    /*
     /dev/shm has no room for the ring.
     */
    SLIPRING_MEMORY = 5,
    /*
     Another participant has the name, is the producer, or uses the ring that is to be removed.
     */
    SLIPRING_IN_USE = 6,
    /*
     No consumer is held under this name.
     */
    SLIPRING_NOT_HELD = 7,
    /*
     The requested start is not kept; the text has the range.
     */
    SLIPRING_OUT_OF_RANGE = 8,
    /*
     The ring has all its participants already.
     */
    SLIPRING_TOO_MANY = 9,
    /*
     A process that joins or removes has not ended for a second.
     */
    SLIPRING_BUSY = 10,
    /*
     A call of the operating system failed, or this system has no shared rings.
     */
    SLIPRING_SYSTEM = 11,
    /*
     There was no room, or no event, until the timeout.
     */
    SLIPRING_TIMED_OUT = 12,
    /*
     The ring was closed, and everything was read.
     */
    SLIPRING_CLOSED = 13,
    /*
     The producer died, and everything was read. After a successor has joined, reading goes on.
     */
    SLIPRING_PRODUCER_DIED = 14,
    /*
     The ring's file was removed or replaced.
     */
    SLIPRING_REPLACED = 15,
    /*
     This process is a fork of the one that joined.
     */
    SLIPRING_FORKED = 16,
    /*
     Another process has written impossible numbers into the ring.
     */
    SLIPRING_DAMAGED = 17,
    /*
     A fault of this library; the text says which.
     */
    SLIPRING_PANICKED = 18,
} slipring_code;

/*
 A consumer of a ring.
 */
typedef struct slipring_consumer slipring_consumer;

/*
 A producer of a ring.
 */
typedef struct slipring_producer slipring_producer;

/*
 An open ring.
 */
typedef struct slipring_ring slipring_ring;

/*
 What slipring_describe tells of a ring.
 */
typedef struct {
    /*
     The full text of the events' layout; valid as long as the ring's handle.
     */
    const char *layout;
    /*
     Size of an event in bytes.
     */
    size_t event_size;
    /*
     Count of slots.
     */
    size_t capacity;
    /*
     Count of events that are kept for consumers that join later.
     */
    size_t retained;
    /*
     The next sequence to be published.
     */
    uint64_t published;
    /*
     True if the ring is for several producers.
     */
    bool several;
} slipring_description;

/*
 Slots to be filled: slipring_claim.
 */
typedef struct {
    /*
     The first slot; the others follow without gaps. An event has the value that its slot had one capacity before.
     */
    void *events;
    /*
     Count of slots.
     */
    size_t len;
    /*
     The sequence of the first event.
     */
    uint64_t first;
} slipring_slots;

/*
 Events to be read: slipring_poll.
 */
typedef struct {
    /*
     The first event; the others follow without gaps. They are read-only memory.
     */
    const void *events;
    /*
     Count of events.
     */
    size_t len;
    /*
     The sequence of the first event.
     */
    uint64_t first;
} slipring_events;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/*
 Opens the ring called `name`. `layout` is the text of the events that the caller expects, as in
 "px:i64 qty:u32 venue:u8[4]", or NULL to take whatever the ring has. Pass `*ring` to slipring_free.
 */
slipring_code slipring_open(const char *name, const char *layout, slipring_ring **ring);

/*
 Opens the ring called `name`, and creates it if it is not there: with `capacity` slots (a power of two), the last
 `retain` events of which are kept for consumers that join later, for one producer or for `several`. `layout` is as for
 slipring_open. A ring that is there must have the same layout, sizes and kind.
 */
slipring_code slipring_open_or_create(const char *name,
                                      const char *layout,
                                      size_t capacity,
                                      size_t retain,
                                      bool several,
                                      slipring_ring **ring);

/*
 Removes the ring called `name`. Without `force` it must have no living participants.
 */
slipring_code slipring_remove(const char *name, bool force);

/*
 Tells the layout, the sizes and the position of a ring.
 */
slipring_code slipring_describe(const slipring_ring *ring, slipring_description *description);

/*
 Ends the ring for all participants of all processes: consumers read what was published, then get SLIPRING_CLOSED. The
 handle stays valid.
 */
slipring_code slipring_end(const slipring_ring *ring);

/*
 Gives up the position of the held consumer `name`, whose process has gone.
 */
slipring_code slipring_release(const slipring_ring *ring, const char *name);

/*
 Frees a ring's handle. The ring stays; so do producers and consumers of this process. NULL is allowed.
 */
void slipring_free(slipring_ring *ring);

/*
 Joins as the producer of a ring, or as one of several if the ring is for several. `wait` is the wait strategy for a full ring: "busy-spin", "spin", "spin-yield",
 "backoff", "spin-then-park", or NULL for the default.
 */
slipring_code slipring_producer_join(const slipring_ring *ring,
                                     const char *wait,
                                     slipring_producer **producer);

/*
 Claims `len` slots, or fewer where the slots end and begin anew: `slots->len` has the count. Waits for room until
 `timeout_ns` nanoseconds have passed (0: does not wait). A claim that was not committed is given up. Among several
 producers, the others and all consumers wait for its commit.
 */
slipring_code slipring_claim(slipring_producer *producer, size_t len, uint64_t timeout_ns, slipring_slots *slots);

/*
 Publishes the claimed events. Their memory must not be written any more.
 */
slipring_code slipring_commit(slipring_producer *producer);

/*
 Leaves as the producer, and gives up a claim that was not committed. NULL is allowed.
 */
void slipring_producer_free(slipring_producer *producer);

/*
 Joins as a consumer called `name`, which begins at the sequence `start`, SLIPRING_EARLIEST or SLIPRING_LATEST. With
 `hold` its position is kept after it has left or its process has died: producers wait for it, and the next consumer of
 its name goes on there. `wait` is as for slipring_producer_join.
 */
slipring_code slipring_consumer_join(const slipring_ring *ring,
                                     const char *name,
                                     uint64_t start,
                                     bool hold,
                                     const char *wait,
                                     slipring_consumer **consumer);

/*
 Waits for events until `timeout_ns` nanoseconds have passed (0: does not wait). Returns up to `limit` of them, fewer
 where the slots end and begin anew. They stay valid until the next call with this consumer. What was not consumed is
 returned again.
 */
slipring_code slipring_poll(slipring_consumer *consumer, size_t limit, uint64_t timeout_ns, slipring_events *events);

/*
 Ends the batch of the last poll, and moves the consumer's position past its first `count` events. The memory of all
 its events must not be read any more.
 */
slipring_code slipring_consume(slipring_consumer *consumer, size_t count);

/*
 Leaves as a consumer. A held one keeps its position. NULL is allowed.
 */
void slipring_consumer_free(slipring_consumer *consumer);

/*
 Returns the text of the last failure in this thread; an empty text if there was none. It stays valid until the next
 failure in this thread.
 */
const char *slipring_error(void);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* SLIPRING_H */
