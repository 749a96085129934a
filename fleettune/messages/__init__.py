"""Messages: what server and device tell each other, as values and as Flower's records.

`report` holds the values of a device's reply; `flower_records` writes and reads both directions and
is the only module of fleettune that imports Flower. Leave it alone: whatever is added to a report
leaves the device, and needs a field, a reader and a reason.
"""
