"""Rows of a run, and what is made of them: tables, means over devices, ledgers, the summary.

`recorder` makes one row of each device's night, `device_means` turns rows into estimates with
intervals over devices, `ledgers` says whose joules a number counts, and `summary` is what
``summary.json`` holds. A stranger may read; a column of one's own joins `recorder.SCHEMA`.
"""
