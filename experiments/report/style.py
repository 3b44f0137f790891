"""How the report looks: one style sheet, no scripts, readable in light and dark and on paper."""

CSS = """
:root { --ink: #1f2733; --soft: #5b6573; --line: #e3e7ec; --paper: #ffffff; --wash: #f5f7f9; --accent: #2f6fb0;
  --good: #2c7a4b; --bad: #b03a36; --open: #8a6d1f; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--wash); color: var(--ink); line-height: 1.55;
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 48px 28px 80px; }
header p { color: var(--soft); margin: 4px 0 0; }
h1 { font-size: 30px; line-height: 1.2; margin: 0; letter-spacing: -0.01em; }
h2 { font-size: 20px; margin: 44px 0 10px; letter-spacing: -0.005em; }
h3 { font-size: 16px; margin: 22px 0 6px; }
section, .card { background: var(--paper); border: 1px solid var(--line); border-radius: 10px; padding: 20px 24px;
  margin: 14px 0; overflow-x: auto; }
.lead { font-size: 18px; }
.note { color: var(--soft); font-size: 14px; }
.warn { border-left: 4px solid #d9a12b; background: #fff9ea; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: 14.5px; }
th { text-align: left; color: var(--soft); font-weight: 600; padding: 6px 10px; border-bottom: 2px solid var(--line);
  white-space: nowrap; }
td { padding: 7px 10px; border-bottom: 1px solid var(--line); vertical-align: top; }
tr:last-child td { border-bottom: 0; }
td.n, th.n { text-align: right; white-space: nowrap; }
td .i { color: var(--soft); font-size: 12.5px; display: block; }
tr.bound td { color: var(--soft); font-style: italic; }
tr.reference td:first-child::after { content: " reference"; color: var(--soft); font-size: 12px; }
.up { color: var(--good); font-weight: 600; } .down { color: var(--bad); font-weight: 600; }
.level { display: inline-block; border-radius: 99px; padding: 1px 10px; font-size: 12.5px; white-space: nowrap;
  background: #e8f0f8; color: var(--accent); }
.level.judges { background: #e4f3ea; color: var(--good); } .level.open { background: #f7f0dc; color: var(--open); }
img { max-width: 100%; height: auto; display: block; }
ul { margin: 6px 0; padding-left: 20px; } li { margin: 3px 0; }
pre { background: var(--wash); border: 1px solid var(--line); border-radius: 8px; padding: 12px 14px; overflow-x: auto;
  font-size: 13px; }
.session { display: grid; grid-template-columns: repeat(auto-fit, minmax(300px, 1fr)); gap: 14px; }
.session > div { border: 1px solid var(--line); border-radius: 8px; padding: 12px 16px; }
.session ol { margin: 4px 0 12px; padding-left: 22px; font-size: 14px; }
.session .taken { font-weight: 600; color: var(--good); }
.session .untaken { color: var(--soft); }
.columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(280px, 1fr)); gap: 24px; }
summary { cursor: pointer; color: var(--accent); margin: 10px 0; }
@media print { body { background: #fff; } section, .card { break-inside: avoid; } }
"""
