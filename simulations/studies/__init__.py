"""What a study measures over its runs, how its claims are judged, and its page.

`claim_measures` and `explanations` estimate, `judge` says whether a claim holds, `study_tables` and
`study_figures` show it, `study_page` hands it to ``simulations/report/templates/study.html``. You
may add a measure: copy `estimate_retune_rate` in `decision_measures.py`, register it in `judge.py`,
name it in `simulations/experiment/study_settings.py` and put it into words in
`study_tables.describe_comparison`. You may add a chart: copy `draw_scores` in `study_figures.py`,
register it in `study_page.py` and in the template.
"""
