"""The style and the frame of a page, which `simulations.report.run_page` fills in."""

from string import Template

STYLE = """
:root { --ink: #1f2933; --soft: #616e7c; --line: #e4e7eb; --accent: #0072b2; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 72rem; padding: 2.5rem 1.5rem 4rem; background: #fff;
  color: var(--ink); line-height: 1.55; font-size: 16px;
  font-family: system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .25rem; letter-spacing: -.01em; }
h2 { font-size: 1.25rem; margin: 3rem 0 .5rem; }
p, figcaption { max-width: 52rem; }
.facts, figcaption, .note { color: var(--soft); font-size: .9rem; margin: .25rem 0; }
.answer { border-left: 4px solid var(--accent); background: #f5f9fc; font-size: 1.12rem;
  margin: 1.5rem 0; padding: 1rem 1.25rem; max-width: none; border-radius: 0 6px 6px 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .86rem; width: 100%;
  font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid var(--line); padding: .5rem .6rem; text-align: right; }
th { color: var(--soft); font-weight: 600; vertical-align: bottom; border-bottom-width: 2px; }
td { white-space: nowrap; vertical-align: top; }
small { color: var(--soft); font-weight: 400; font-size: .8rem; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
.prose td:nth-last-child(2) { min-width: 9rem; white-space: normal; }
.prose td:last-child { min-width: 22rem; text-align: left; white-space: normal; }
.swatch { display: inline-block; width: .7rem; height: .7rem; border-radius: 2px;
  margin-right: .5rem; }
figure { margin: 1rem 0 2rem; }
.chart { width: 100%; min-width: 40rem; }
details { border: 1px solid var(--line); border-radius: 6px; padding: .6rem 1rem;
  margin: .75rem 0; }
summary { cursor: pointer; font-weight: 600; }
pre { overflow-x: auto; font-size: .82rem; line-height: 1.45; }
@media print { details { break-inside: avoid; } figure { break-inside: avoid; } }
"""
PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>$style</style>
<script>$plotly</script>
</head>
<body>
<h1>$title</h1>
<p class="facts">$facts</p>
<p class="answer">$answer</p>
<div class="scroll">$headline</div>
<p class="note">$caption</p>
$charts
<h2>Who took part</h2>
$attendance
<h2>Ledgers</h2>
$ledgers
<h2>Releases</h2>
<div class="scroll">$releases</div>
<h2>Provenance</h2>
$provenance
</body>
</html>
""")
