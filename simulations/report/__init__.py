"""The page and the tables of one run, and runs side by side.

`run_page` hands values to ``templates/run.html``, which holds the sentences of the page and escapes
what it is given; `summary_tables` reads ``summary.json``, `row_tables` the Parquet tables,
`figures` draws, `device_life` follows one device, `terms` is the glossary, `compare` and
`terminal_tables` print. You may add a chart: copy `draw_quality_over_rounds` in `figures.py`,
register it in `draw_figures` and give it a title and a caption in ``templates/run.html``. You may
add a table: copy `tabulate_refused` in `row_tables.py`, name its rows in `run_page.py` and show
them in ``templates/run.html``.
"""
