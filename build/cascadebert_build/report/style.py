"""The report's style sheet: light, for screens of any width and for paper."""

STYLE = """
:root { color-scheme: light; --ink: #1f2933; --muted: #52606d; --line: #dfe3e8; --soft: #f5f7fa; }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: #fff; color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial,
  sans-serif; }
main { max-width: 1200px; margin: 0 auto; padding: 32px 24px 64px; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 1.3rem; line-height: 1.3; margin: 48px 0 4px; }
h3 { font-size: 1rem; margin: 0 0 4px; }
p { margin: 6px 0 12px; max-width: 78ch; }
.under { color: var(--muted); margin: 0 0 20px; overflow-wrap: anywhere; }
.lead { font-size: 1.15rem; max-width: 70ch; }
.note { border-left: 4px solid #e69f00; background: #fff8e6; padding: 8px 14px; max-width: 84ch; }
.tiles { display: grid; gap: 12px;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 230px), 1fr));
  margin: 20px 0 24px; padding: 0; list-style: none; }
.tiles li { background: var(--soft); border: 1px solid var(--line); border-radius: 8px;
  padding: 12px 16px; break-inside: avoid; }
.tiles .name { color: var(--muted); font-size: .9rem; }
.tiles .value { display: block; font-size: 1.9rem; font-weight: 650; line-height: 1.25;
  font-variant-numeric: tabular-nums; }
.tiles .more { font-size: .9rem; color: var(--muted); }
.plots { display: grid; gap: 28px 36px; align-items: start;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)); margin: 12px 0; }
figure { margin: 0; break-inside: avoid; max-width: 570px; }
figure > svg { display: block; width: 100%; height: auto; }
svg text { font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial,
  sans-serif !important; }
.key { display: flex; flex-wrap: wrap; gap: 2px 18px; margin: 4px 0 0; padding: 0;
  list-style: none; font-size: .9rem; }
.key li { display: flex; align-items: center; gap: 7px; overflow-wrap: anywhere; }
.key svg { flex: none; width: 26px; height: 14px; }
figcaption { color: var(--muted); font-size: .9rem; margin-top: 6px; }
.scroll { overflow-x: auto; margin: 12px 0; border: 1px solid var(--line); border-radius: 8px; }
table { border-collapse: collapse; width: 100%; font-size: .93rem; }
th, td { padding: 7px 12px; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line); }
thead th { background: var(--soft); font-weight: 600; white-space: nowrap; vertical-align: bottom; }
tbody tr:last-child > * { border-bottom: 0; }
tbody th { font-weight: 600; white-space: nowrap; }
code { white-space: nowrap; }
.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
.range { display: block; color: var(--muted); font-size: .82rem; }
.strong td, .strong th { background: #eef6fb; }
.text { min-width: 24em; overflow-wrap: anywhere; white-space: pre-wrap; }
.text .pair { display: block; margin-top: 6px; padding-top: 6px;
  border-top: 1px dashed var(--line); }
.answer { white-space: nowrap; }
.wrong { color: #a63d00; font-weight: 600; }
.file { display: block; color: var(--muted); }
.hash { font: .8rem/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace;
  overflow-wrap: anywhere; }
.facts { display: grid; grid-template-columns: max-content 1fr; gap: 4px 20px; margin: 12px 0; }
.facts dt { color: var(--muted); }
.facts dd { margin: 0; overflow-wrap: anywhere; }
@media (max-width: 560px) {
  main { padding: 20px 16px 40px; }
  h1 { font-size: 1.5rem; }
  .lead { font-size: 1.05rem; }
  .tiles { grid-template-columns: 1fr 1fr; gap: 8px; }
  .tiles li { padding: 10px 12px; }
  .tiles .value { font-size: 1.45rem; }
  th, td { padding: 6px 9px; }
  .facts { grid-template-columns: 1fr; gap: 0; }
  .facts dd { margin-bottom: 8px; }
  .text { min-width: 17em; }
  .cards thead { display: none; }
  .cards, .cards tbody, .cards tr, .cards td { display: block; }
  .cards tr { padding: 10px 12px; border-bottom: 1px solid var(--line); }
  .cards tr:last-child { border-bottom: 0; }
  .cards td { border: 0; padding: 1px 0; text-align: left; min-width: 0; white-space: normal; }
  .cards .text { white-space: pre-wrap; padding-bottom: 5px; }
  .cards [data-name]::before { content: attr(data-name); display: inline-block; width: 7.5em;
    color: var(--muted); }
}
@media print {
  main { max-width: none; padding: 0; }
  body { font-size: 11pt; }
  h2 { break-after: avoid; }
  .plots { grid-template-columns: 1fr 1fr; }
  .scroll { overflow: visible; border: 0; }
  .text { min-width: 0; }
  tr { break-inside: avoid; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""
