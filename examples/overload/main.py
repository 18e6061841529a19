"""A producer that is faster than its consumer, once as it is and once held by a LagThrottle: backlog and memory.

python main.py                          # on the embedded broker; writes overload.svg, and draws it here
MESSAGING_PROFILE=rabbitmq python main.py
python main.py --messages 20000 --rate 5000 --high 1000 --low 200
"""

import argparse
import os
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from plot import Run, Sample, lines, svg

import messaging
from messaging import Broker, LagThrottle, Queue, SettleFailed

QUEUE = os.environ.get("OVERLOAD_QUEUE", "overload")
BATCH = 20


@dataclass(frozen=True)
class Load:
    """messages of `size` bytes, published at `rate` a second; `work`: seconds that handling one takes."""

    messages: int
    size: int
    rate: float
    work: float
    high: int
    low: int


class Progress:
    """Each number has one writer."""

    def __init__(self) -> None:
        self.published = 0
        self.handled = 0


def produce(publisher: Broker | LagThrottle, load: Load, progress: Progress) -> None:
    due = time.monotonic()
    while progress.published < load.messages:
        count = min(BATCH, load.messages - progress.published)
        publisher.publish_many(QUEUE, [os.urandom(load.size) for _ in range(count)])
        progress.published += count
        due = max(due + count / load.rate, time.monotonic() - 0.1)  # what was held is not made up for
        time.sleep(max(due - time.monotonic(), 0.0))


def consume(broker: Broker, load: Load, progress: Progress) -> None:
    with broker.subscribe(QUEUE, prefetch=10) as consumer:
        while progress.handled < load.messages:
            try:
                deliveries = consumer.receive(10, 0.5)
            except SettleFailed:  # an ack that the broker did not take: that message comes again
                continue
            for delivery in deliveries:
                time.sleep(load.work)  # the work
                delivery.ack()
                progress.handled += 1


def run(load: Load, throttled: bool) -> Run:
    """One overload, from the first message published to the last one handled."""
    progress, samples = Progress(), list[Sample]()
    file = Path(__file__).with_name("messaging.toml")
    with messaging.connect(topology=Queue(QUEUE), config_file=file) as broker, ThreadPoolExecutor(2) as pool:
        broker.purge(QUEUE)
        throttle = LagThrottle(broker, QUEUE, high=load.high, low=load.low, period=0.05, timeout=600)
        with throttle if throttled else nullcontext():
            started, before = time.monotonic(), resident()
            working = [
                pool.submit(consume, broker, load, progress),
                pool.submit(produce, throttle if throttled else broker, load, progress),
            ]
            while not all(job.done() for job in working):
                backlog = max(progress.published - progress.handled, 0)
                samples.append(Sample(time.monotonic() - started, backlog, max(resident() - before, 0)))
                time.sleep(0.05)
            for job in working:
                job.result()
            held = throttle.waited_seconds.get("lag", 0.0)
        throttle.close()
    return Run("with the throttle" if throttled else "as it is", samples, held)


def resident() -> int:
    """Bytes of memory that this process has."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:  # not Linux: the most it has had
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=4000)
    parser.add_argument("--size", type=int, default=20_000, help="bytes of a message (20000)")
    parser.add_argument("--rate", type=float, default=2000, help="messages published a second (2000)")
    parser.add_argument("--work", type=float, default=0.002, help="seconds that handling one takes (0.002)")
    parser.add_argument("--high", type=int, default=400, help="backlog at which the throttle holds (400)")
    parser.add_argument("--low", type=int, default=100, help="backlog at which it lets go (100)")
    parser.add_argument("--svg", type=Path, default=Path("overload.svg"), help="where the chart goes (overload.svg)")
    options = parser.parse_args()
    load = Load(options.messages, options.size, options.rate, options.work, options.high, options.low)
    # A process each: memory that the first run had would be there for the second.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as processes:
        runs = [processes.submit(run, load, throttled).result() for throttled in (False, True)]
    print("\n".join(lines(runs)))
    options.svg.write_text(svg(runs, load.high, load.low), "utf-8")


if __name__ == "__main__":
    main()
