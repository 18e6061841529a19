"""A work queue with retries and a failed queue: on RabbitMQ this is the classic DLX topology, elsewhere its equal.

    work --(fails)--> wait 30 s --> work --> ... --(failed too often)--> work--dlq, the failed queue

python main.py                       # 10 jobs, of which one is broken for good and one until it is repaired
python main.py --ttl 0.5 --rounds 2  # the same with shorter waits and fewer rounds
MESSAGING_PROFILE=rabbitmq python main.py
"""

import argparse
import os
import sys
from collections import Counter
from pathlib import Path
from threading import Event

import messaging
from messaging import Broker, Delivery, Queue, RetryPolicy, Worker

WORK = os.environ.get("WORK_QUEUE", "work")
JOBS = 10
FLAKY, POISON = 3, 7
done: set[int] = set()
attempts: Counter[int] = Counter()
repaired = Event()
finished = Event()


def work(broker: Broker, ttl: float, rounds: int) -> Worker:
    worker = Worker(broker)

    @worker.on(WORK, retry=RetryPolicy(attempts=1 + rounds, delays=(ttl,)), concurrency=4)
    def handle(delivery: Delivery) -> None:
        job = delivery.value["job"]
        attempts[job] = delivery.attempt
        if job == FLAKY and delivery.attempt == 1:
            raise ConnectionError("busy, try later")  # back after `ttl` seconds; the other jobs go on meanwhile
        if job == POISON and not repaired.is_set():
            raise ValueError("this job is broken")  # to the failed queue after the last round
        done.add(job)
        if len(done) == JOBS - 1 + repaired.is_set():
            finished.set()

    return worker


def wait_for(event: Event, seconds: float) -> None:
    if not event.wait(seconds):
        sys.exit(f"after {seconds:g} s only jobs {sorted(done)} are done")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--ttl", type=float, default=30.0, help="seconds that a failed job waits (30)")
    parser.add_argument("--rounds", type=int, default=3, help="how often it is tried again (3)")
    options = parser.parse_args()
    file = Path(__file__).with_name("messaging.toml")
    with messaging.connect(topology=Queue(WORK), config_file=file) as broker:
        failed = broker.dead_letter_queue(WORK)
        with work(broker, options.ttl, options.rounds):
            broker.publish_many(WORK, [{"job": number} for number in range(JOBS)])
            wait_for(finished, 60 + 2 * options.ttl * options.rounds)
            while not (letters := failed.peek()):
                pass  # the last round is still to come
        (letter,) = letters
        print(f"{len(done)} jobs done, job {FLAKY} in attempt {attempts[FLAKY]}")
        print(f"in {failed.name}: {letter.body.decode()}, {letter.error} after {letter.attempts} attempts")

        repaired.set()  # somebody looked at it and mended the cause: back with it
        finished.clear()
        with work(broker, options.ttl, options.rounds):
            print(f"{failed.redrive().moved} redriven")
            wait_for(finished, 60)
        print(f"{len(done)} jobs done, {failed.depth()} failed")


if __name__ == "__main__":
    main()
