"""The style sheet of the pages."""

from __future__ import annotations

STYLE = """
:root{color-scheme:light dark;--line:#8884;--dim:#888;--good:#2a7d3f;--bad:#b3362f;--new:#2f6fb3}
body{margin:0;font:15px/1.5 system-ui,sans-serif}
main{max-width:72rem;margin:0 auto;padding:1rem}
h1{font-size:1.4rem}h2{font-size:1.1rem}h3{font-size:1rem;margin:.2rem 0}
dl.facts{display:grid;grid-template-columns:max-content 1fr;gap:.1rem 1rem;margin:.5rem 0}
dt{color:var(--dim)}dd{margin:0;overflow-wrap:anywhere}
table{border-collapse:collapse;width:100%;font-size:.9rem;margin:.5rem 0 1.5rem}
th,td{text-align:left;padding:.2rem .5rem;border-bottom:1px solid var(--line)}
td:nth-child(n+5),th:nth-child(n+5){text-align:right;font-variant-numeric:tabular-nums}
tr.resolved td:nth-child(3),.tag.resolved{color:var(--good)}
tr.unresolved td:nth-child(3),.tag.unresolved,.bad{color:var(--bad)}
.filtered label{margin-right:1rem}
.filtered:has(.show-resolved:checked) tbody tr:not(.resolved),
.filtered:has(.show-unresolved:checked) tbody tr:not(.unresolved),
.filtered:has(.show-not-graded:checked) tbody tr:not(.not-graded){display:none}
details.attempt{border:1px solid var(--line);border-radius:6px;padding:.4rem .8rem;margin:.5rem 0}
details.folded{margin:.4rem 0}summary{cursor:pointer}
.step{border-left:3px solid var(--line);padding-left:.8rem;margin:1rem 0}
.bar{display:flex;height:8px;background:#8882;border-radius:4px;overflow:hidden}
.bar .reused{background:var(--good)}.bar .prefilled{background:var(--new)}
.bar .generated{background:#c98a1b}
.legend{color:var(--dim);font-size:.85rem}
.legend i{display:inline-block;width:.8em;height:.8em;border-radius:2px}
.legend .reused{background:var(--good)}.legend .prefilled{background:var(--new)}
.legend .generated{background:#c98a1b}
.cost{color:var(--dim);font-size:.85rem;margin:.1rem 0}
.call{font-weight:600;margin:.6rem 0 0}
.block{margin:.3rem 0}.block>span{color:var(--dim);font-size:.8rem}
pre{margin:0;padding:.4rem .6rem;background:#8881;border-radius:4px;overflow-x:auto;
white-space:pre-wrap;overflow-wrap:anywhere;font:13px/1.45 ui-monospace,monospace}
.thinking pre{font-style:italic;color:var(--dim)}
pre i{font-style:normal}.add{color:var(--good)}.del{color:var(--bad)}.at{color:var(--new)}
.ended{font-weight:600}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,26rem),1fr));gap:1rem}
.beside{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,24rem),1fr));gap:2rem}
figure{margin:0;border:1px solid var(--line);border-radius:6px;padding:.5rem .8rem;min-width:0}
figcaption{font-weight:600;margin-bottom:.4rem}
svg{display:block;width:100%;max-width:30rem;height:auto;
font:12px system-ui,sans-serif;fill:currentColor}
svg .dim{fill:var(--dim);font-size:11px}.grid{stroke:var(--line)}
svg .resolved,svg .shared,svg .tool{fill:var(--good)}svg .unresolved{fill:var(--bad)}
svg .not-graded,svg .other{fill:var(--dim)}svg .prefilled,svg .prefill{fill:var(--new)}
svg .generated,svg .decode{fill:#c98a1b}
svg .band{opacity:.15}svg .curve{fill:none;stroke-width:2}
svg .curve.resolved,svg .whisker.resolved{stroke:var(--good)}
svg .curve.generated,svg .whisker.generated{stroke:#c98a1b}
.legend span{margin-right:1rem}
.legend .resolved,.legend .shared,.legend .tool{background:var(--good)}
.legend .unresolved{background:var(--bad)}.legend .not-graded,.legend .other{background:var(--dim)}
.legend .prefill{background:var(--new)}.legend .decode{background:#c98a1b}
.wide{overflow-x:auto}
@media print{*{print-color-adjust:exact;-webkit-print-color-adjust:exact}main{max-width:none}
figure,tr,.step{break-inside:avoid}.filtered label{display:none}}
"""
