"""Releases: how the vendor makes the next model, what devices download of it, what it comes with.

`schedule` says what each release is made from and `publisher` makes it when it is due. A stranger
may add a kind of release: an entry in `strategies.releases.schedule.READS` with what it reads, and
the work itself beside `strategies.releases.rewritten`, called from `strategies.releases.training`.
"""
