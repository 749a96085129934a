"""The server: what it publishes, whom it asks, and what it makes and learns of the replies.

`app` runs a plan; `strategy` is the loop of Flower; below it stands one room per noun. A stranger
may add an aggregation, a release kind, a rule of guidance or roll-out, and a source of catalogue
entries; `rounds` is better left alone.
"""
