"""What the interface costs: the same work through anybroker, the raw client and the peers, in one run.

    python -m benchmarks --broker rabbitmq

See docs/benchmarks.md.
"""
