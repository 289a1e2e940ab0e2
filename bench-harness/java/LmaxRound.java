import com.lmax.disruptor.BusySpinWaitStrategy;
import com.lmax.disruptor.RingBuffer;
import com.lmax.disruptor.Sequence;
import com.lmax.disruptor.SequenceBarrier;
import com.lmax.disruptor.WaitStrategy;
import com.lmax.disruptor.YieldingWaitStrategy;
import java.util.concurrent.CountDownLatch;

/** One round of LMAX's Disruptor: the same work as the other contenders of bench-harness peers. */
public final class LmaxRound {
    static final class Event {
        long value;
    }

    public static void main(String[] words) throws Exception {
        boolean multi = words[0].equals("multi");
        int capacity = Integer.parseInt(words[1]);
        int producers = Integer.parseInt(words[2]);
        long each = Long.parseLong(words[3]);
        int batch = Integer.parseInt(words[4]);
        boolean yield = words[5].equals("yield");
        // Until the compiler has seen the loops: not measured.
        for (int warm = 0; warm < 3; warm++) {
            round(multi, capacity, producers, Math.max(batch, each / 4 / batch * batch), batch, yield);
        }
        long nanos = round(multi, capacity, producers, each, batch, yield);
        System.out.println(nanos);
    }

    static long round(boolean multi, int capacity, int producers, long each, int batch, boolean yield)
            throws Exception {
        WaitStrategy wait = yield ? new YieldingWaitStrategy() : new BusySpinWaitStrategy();
        RingBuffer<Event> ring = multi
                ? RingBuffer.createMultiProducer(Event::new, capacity, wait)
                : RingBuffer.createSingleProducer(Event::new, capacity, wait);
        SequenceBarrier barrier = ring.newBarrier();
        Sequence consumed = new Sequence();
        ring.addGatingSequences(consumed);
        CountDownLatch line = new CountDownLatch(producers + 1);
        long[] begun = new long[producers];
        long[] ended = new long[1];
        String[] fault = new String[1];
        long total = each * producers;
        Thread consumer = new Thread(() -> {
            try {
                long[] next = new long[producers];
                long astray = 0;
                long read = -1;
                line.countDown();
                line.await();
                while (read < total - 1) {
                    long available = barrier.waitFor(read + 1);
                    for (long at = read + 1; at <= available; at++) {
                        long value = ring.get(at).value;
                        int producer = (int) (value >>> 48);
                        astray |= (value & 0xFFFFFFFFFFFFL) ^ next[producer];
                        next[producer]++;
                    }
                    read = available;
                    consumed.set(read);
                }
                ended[0] = System.nanoTime();
                if (astray != 0) {
                    fault[0] = "messages arrived out of order";
                }
            } catch (Exception error) {
                fault[0] = error.toString();
            }
        });
        Thread[] threads = new Thread[producers];
        for (int index = 0; index < producers; index++) {
            int producer = index;
            threads[index] = new Thread(() -> {
                try {
                    line.countDown();
                    line.await();
                    begun[producer] = System.nanoTime();
                    long value = (long) producer << 48;
                    long end = value + each;
                    while (value < end) {
                        long high = ring.next(batch);
                        for (long at = high - batch + 1; at <= high; at++) {
                            ring.get(at).value = value++;
                        }
                        ring.publish(high - batch + 1, high);
                    }
                } catch (InterruptedException error) {
                    Thread.currentThread().interrupt();
                }
            });
        }
        consumer.start();
        for (Thread thread : threads) {
            thread.start();
        }
        for (Thread thread : threads) {
            thread.join();
        }
        consumer.join();
        if (fault[0] != null) {
            System.err.println(fault[0]);
            System.exit(3);
        }
        long first = Long.MAX_VALUE;
        for (long moment : begun) {
            first = Math.min(first, moment);
        }
        return ended[0] - first;
    }
}
