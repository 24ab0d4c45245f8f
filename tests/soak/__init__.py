"""A soak of the whole on real servers: people come, change, move and go, while each process is killed again and again.

`load` is what happens to people, `faults` what happens to processes, `judgement` the comparison at the end. For the
length that one has time for: `make test-soak SECONDS=600`.
"""
