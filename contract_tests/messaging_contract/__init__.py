"""The contract suite: what every adapter promises, as clauses that run against a real broker.

`python -m messaging_contract --broker URL` or `pytest --pyargs messaging_contract --broker URL`.
"""
