"""Counts the words of a text exactly once, also when the counting process is killed again and again. Needs Kafka.

    gettysburg.txt --> lines --> [count, in transactions] --> counts --> [check: adds up, compares with the text]

python main.py              # no crash
python main.py --crash 3    # the counter is killed three times in the midst; then the same with at-least-once
"""

import argparse
import os
import random
import re
import subprocess
import sys
import time
import uuid
from collections import Counter
from pathlib import Path

import messaging
from messaging import Broker, Delivery, Message, Topic, Transaction, Worker

TEXT = Path(__file__).with_name("gettysburg.txt")
URL = os.environ.get("MESSAGING_URL", "kafka://127.0.0.1:9092")
WORK = 0.01  # seconds a line takes, so that there is something to be killed in
WAIT = 60  # seconds without any progress before giving up


def words(line: str) -> Counter[str]:
    return Counter(re.findall(r"[a-z]+", line.lower()))


def topics(run: str) -> tuple[Topic, Topic]:
    return Topic(f"{run}-lines", "count"), Topic(f"{run}-counts", "check")


def connect(run: str) -> Broker:
    # A killed counter's transaction holds up the next one until it times out.
    return messaging.connect(URL, topology=list(topics(run)), transaction_timeout=5)


def count(run: str, delivery: str) -> None:
    """The process that is killed: for each line, how often each word is in it. Prints a line for each line."""
    lines, counts = topics(run)
    with connect(run) as broker:
        worker = Worker(broker)
        if delivery == "exactly-once":

            @worker.on(lines.name, "count", delivery="exactly-once")
            def in_a_transaction(line: Delivery, transaction: Transaction) -> None:
                for word, times in words(line.value).items():
                    transaction.publish(counts.name, {"word": word, "times": times}, key=word)
                time.sleep(WORK)
                print("counted", flush=True)

        else:

            @worker.on(lines.name, "count")
            def by_itself(line: Delivery) -> None:
                broker.publish_many(
                    counts.name,
                    [Message.of({"word": w, "times": times}, key=w) for w, times in words(line.value).items()],
                )
                time.sleep(WORK)
                print("counted", flush=True)

        worker.run()


def crash_and_finish(broker: Broker, run: str, delivery: str, crashes: int, lines: int) -> None:
    """Runs counters until all is counted; the first `crashes` of them are killed after some lines."""
    source = topics(run)[0].name
    for number in range(crashes + 1):
        command = [sys.executable, __file__, "--count", run, "--delivery", delivery]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as counter:
            try:
                assert counter.stdout is not None
                if number < crashes:
                    for _ in range(random.randint(1, lines // (crashes + 1))):
                        counter.stdout.readline()
                else:
                    wait_until_counted(broker, source)
            finally:
                counter.kill()


def wait_until_counted(broker: Broker, source: str) -> None:
    left, since = None, time.monotonic()
    while left != 0:
        before, left = left, broker.depth(source, "count")
        if left != before:
            since = time.monotonic()
        elif time.monotonic() - since > WAIT:
            sys.exit(f"{left} lines are not counted, and nothing happens")
        time.sleep(0.1)


def check(broker: Broker, run: str, expected: int) -> Counter[str]:
    """Adds up what the counters published. Ends once there is enough, and nothing more comes."""
    totals: Counter[str] = Counter()
    last = time.monotonic()
    with broker.subscribe(topics(run)[1].name, "check") as consumer:
        while time.monotonic() - last < (2 if totals.total() >= expected else WAIT):
            deliveries = consumer.receive(500, 0.5)
            for delivery in deliveries:
                totals[delivery.value["word"]] += delivery.value["times"]
                last = time.monotonic()
            consumer.ack(deliveries)
    return totals


def run_once(delivery: str, crashes: int, copies: int) -> bool:
    """Whether the totals are those of the text."""
    text = TEXT.read_text("utf-8").splitlines() * copies
    truth: Counter[str] = sum((words(line) for line in text), Counter())
    run = f"words-{uuid.uuid4().hex[:8]}"
    with connect(run) as broker:
        try:
            broker.publish_many(topics(run)[0].name, text)
            crash_and_finish(broker, run, delivery, crashes, len(text))
            totals = check(broker, run, truth.total())
        finally:
            for topic in topics(run):
                broker.delete(topic)
    print(f"{delivery}, {crashes} crashes: {totals.total()} words counted of {truth.total()}")
    for word, times in truth.most_common(3):
        print(f"  {word!r}: {totals[word]} of {times}")
    return totals == truth


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--crash", type=int, default=0, metavar="N", help="kill the counter so often (0)")
    parser.add_argument("--copies", type=int, default=20, help="the text so many times over (20)")
    parser.add_argument("--count", metavar="RUN", help=argparse.SUPPRESS)
    parser.add_argument("--delivery", default="exactly-once", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.count:
        count(options.count, options.delivery)
        return
    exact = run_once("exactly-once", options.crash, options.copies)
    if options.crash:
        run_once("at-least-once", options.crash, options.copies)
    if not exact:
        sys.exit("exactly-once: the totals are not those of the text")


if __name__ == "__main__":
    main()
