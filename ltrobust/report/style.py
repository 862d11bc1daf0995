"""The style sheet of a report: colours for light, dark and paper, and layout from a phone's width up. No JAX.

The series' colours are those of Okabe and Ito, which people with the usual kinds of colour blindness can tell apart.
"""

STYLE = """
:root { --paper: #fff; --ink: #1b1f24; --soft: #59636e; --rule: #d1d9e0; --panel: #f6f8fa; --link: #0550ae;
  --s0: #0072b2; --s1: #d55e00; --s2: #009e73; --s3: #b0548c; --s4: #b37a00; --s5: #2f8fc4; --s6: #6e7781;
  --s7: #1b1f24;
  --pass: #00704f; --warn: #8a5a00; --fail: #a3310a; }
@media screen and (prefers-color-scheme: dark) { :root { --paper: #0f1419; --ink: #e6eaef; --soft: #9aa5b1;
  --rule: #36404b; --panel: #182028; --link: #79b8ff;
  --s0: #56b4e9; --s1: #f08a3c; --s2: #2fc79c; --s3: #e39cc6; --s4: #f0c84a; --s5: #9bb8ff; --s6: #9aa5b1;
  --s7: #e6eaef;
  --pass: #4cd3a5; --warn: #f0c84a; --fail: #ff8f66; } }
* { box-sizing: border-box; }
html { background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; scroll-behavior: smooth;
  -webkit-text-size-adjust: 100%; }
body { margin: 0 auto; max-width: 1180px; padding: 0 16px 48px; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; margin: 20px 0 8px; }
h2 { font-size: 1.25rem; margin: 40px 0 8px; padding-top: 12px; border-top: 1px solid var(--rule); }
h3 { font-size: 1rem; margin: 24px 0 6px; }
p { margin: 6px 0; }
nav { display: flex; flex-wrap: wrap; gap: 4px 14px; font-size: .9rem; }
a { color: var(--link); }
.note, .missing { color: var(--soft); font-size: .9rem; max-width: 75ch; }
.missing { border-left: 3px solid var(--rule); padding-left: 10px; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 400px), 1fr)); gap: 8px 24px;
  align-items: start; }
figure { margin: 12px 0; break-inside: avoid; max-width: 480px; min-width: 0; }
.figures > figure:has(.heat) { grid-column: 1 / -1; max-width: none; }
figcaption { font-weight: 600; font-size: .95rem; }
figure > svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--ink); font: 12px system-ui, sans-serif; }
.legend { display: flex; flex-wrap: wrap; gap: 2px 16px; font-size: .85rem; }
.legend svg { margin-right: 6px; }
.grid { stroke: var(--rule); stroke-width: .6; }
.axis { stroke: var(--soft); stroke-width: 1; }
.mark { stroke: var(--soft); stroke-width: 1; stroke-dasharray: 3 3; }
.line { fill: none; stroke: var(--c); stroke-width: 1.8; stroke-linejoin: round; }
.line.solid { stroke-dasharray: none !important; stroke-width: 1.4; }
.band { fill: var(--c); opacity: .16; }
.bar { fill: var(--c); }
.whisker { stroke: var(--ink); stroke-width: 1.2; }
.dot { fill: var(--c); stroke: var(--c); stroke-width: 1.4; }
.dot.hollow { fill: var(--paper); }
.s0 { --c: var(--s0); } .s1 { --c: var(--s1); } .s2 { --c: var(--s2); } .s3 { --c: var(--s3); }
.s4 { --c: var(--s4); } .s5 { --c: var(--s5); } .s6 { --c: var(--s6); } .s7 { --c: var(--s7); }
.line.s1 { stroke-dasharray: 7 3; } .line.s2 { stroke-dasharray: 2 2; } .line.s3 { stroke-dasharray: 8 3 2 3; }
.line.s4 { stroke-dasharray: 12 3; } .line.s5 { stroke-dasharray: 4 2; } .line.s6 { stroke-dasharray: 1 2; }
.line.s7 { stroke-dasharray: 10 2 2 2 2 2; }
.bar.s6 { opacity: .55; }
.scroll { overflow-x: auto; max-width: 100%; }
.scroll > table { width: max-content; max-width: none; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { padding: 3px 10px 3px 0; text-align: right; vertical-align: top; border-bottom: 1px solid var(--rule);
  max-width: 36ch; }
th:first-child { text-align: left; position: sticky; left: 0; background: var(--paper); }
code { font: .95em ui-monospace, monospace; }
.word { display: inline-block; max-width: 100%; }
th { font-weight: 600; }
tbody th { font-weight: 400; }
tbody th.title { font-weight: 600; padding-top: 10px; }
.words td, .words th { text-align: left; }
.words td:last-child { max-width: 60ch; }
.heat th, .heat td { padding: 4px 7px; text-align: center; border: 1px solid var(--rule); }
.heat .right { outline: 1.5px solid var(--soft); outline-offset: -2px; }
details { margin: 8px 0; }
summary { cursor: pointer; color: var(--link); font-size: .9rem; }
details ul { margin: 4px 0; padding-left: 18px; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 2px 16px; font-size: .9rem; }
dt { color: var(--soft); }
dd { margin: 0; }
.badge { font-size: .85rem; font-weight: 600; white-space: nowrap; }
.badge.pass { color: var(--pass); } .badge.warn { color: var(--warn); } .badge.fail { color: var(--fail); }
.badge.none, .badge.skipped { color: var(--soft); font-weight: 400; white-space: normal; }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 290px), 1fr)); gap: 0 20px; }
.pictures figure { max-width: 340px; }
.pictures figcaption { font-weight: 400; font-size: .85rem; }
.triple { display: grid; grid-template-columns: repeat(3, 1fr); gap: 4px; }
.pixels { width: 100%; image-rendering: pixelated; display: block; border: 1px solid var(--rule); }
.wide { max-width: 520px; }
@media (max-width: 480px) { .heat th, .heat td { padding: 4px 3px; min-width: 24px; }
  th:first-child { max-width: 40vw; } dl { grid-template-columns: 1fr; } dd { margin-bottom: 6px; } }
@media (max-width: 640px) { .scroll > table.words { width: auto; } .words thead { display: none; }
  .words tr { display: block; padding: 4px 0; border-bottom: 1px solid var(--rule); }
  .words th, .words td, .words td:last-child { display: block; max-width: none; padding: 0; border: 0;
    position: static; } }
@media print { * { print-color-adjust: exact; -webkit-print-color-adjust: exact; } nav { display: none; }
  html { font-size: 12px; } h2, h3, .note { break-after: avoid; } .figures { grid-template-columns: 1fr 1fr; }
  .pictures { grid-template-columns: 1fr 1fr 1fr; } .scroll { overflow: visible; } .scroll > table { width: auto; } }
"""
