"""The style sheet of a report: light and dark, phone and desktop, paper."""

from __future__ import annotations

from wake2vec.show.chart import COLOURS

_LIGHT = (
    ";".join(f"--{look}:{colour}" for look, colour in COLOURS.items())
    + """;
--page:#fbfaf7;--card:#fff;--soft:#5f6673;--rule:#e2e0d8;--new:#c2410c;--base:#2563a8;--link:#1d4ed8;
--j0:#2563a8;--j1:#c2410c;--j2:#15803d;--j3:#7c3aed;--j4:#0e7490;--j5:#a16207;--j6:#be185d;--j7:#525252"""
)
_DARK = """--page:#14161b;--card:#1c1f26;--ink:#e7e5df;--soft:#9aa1ad;--rule:#31353f;--train:#6ea8e5;--val:#f29559;
--best:#5cc689;
--floor:#9aa1ad;--oom:#f47174;--regime:#b79bf2;--new:#f29559;--base:#6ea8e5;--link:#8ab4f8;
--j0:#6ea8e5;--j1:#f29559;--j2:#5cc689;--j3:#b79bf2;--j4:#4fc3d9;--j5:#dcb25b;--j6:#f28bb9;--j7:#b5b5b5"""
_LOOKS = {name: f"var(--{name})" for name in (*COLOURS, "new", "base")} | {
    f"job-{number}": f"var(--j{number})" for number in range(8)
}

_RULES = """
*{box-sizing:border-box}
body{margin:0;overflow-wrap:anywhere;background:var(--page);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:1060px;margin:0 auto;padding:20px 20px 60px}
h1{font-size:1.7rem;margin:.2em 0}
h2{font-size:1.35rem;margin:1.8em 0 .4em;padding-top:.6em;border-top:2px solid var(--rule)}
h3{font-size:1.1rem;margin:2em 0 .6em}h4{font-size:.95rem;margin:1.4em 0 .4em;color:var(--soft)}
h1,h2,td,dd,summary,nav a,blockquote{unicode-bidi:isolate;overflow-wrap:anywhere}td,th{overflow-wrap:break-word}
.note{color:var(--soft);font-size:.85rem;margin:.3em 0}
.model{color:var(--soft);margin:.2em 0 1em;overflow-wrap:anywhere}
nav{display:flex;flex-wrap:wrap;gap:6px 16px}a{color:var(--link)}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(200px,1fr));gap:10px;margin:0}
.cards div{background:var(--card);border:1px solid var(--rule);border-radius:8px;padding:10px 12px}
.cards dt{color:var(--soft);font-size:.8rem}.cards dd{margin:0;font-size:1.3rem;font-variant-numeric:tabular-nums}
.cards p{margin:0;color:var(--soft);font-size:.78rem;overflow-wrap:anywhere}
.verdict{border-left:3px solid var(--train);padding:.2em 0 .2em .9em;margin:1.2em 0}
.verdict.bad{border-color:var(--oom);font-weight:600}

.charts{display:grid;grid-template-columns:1fr 1fr;gap:12px}.charts figure:not(.small){grid-column:1/-1}
figure{min-width:0;margin:0;background:var(--card);border:1px solid var(--rule);border-radius:8px;padding:10px 12px}
figcaption{display:flex;flex-wrap:wrap;gap:2px 16px;align-items:baseline;margin-bottom:4px}
.legend{display:flex;flex-wrap:wrap;gap:0 14px;color:var(--soft);font-size:.8rem;overflow-wrap:anywhere}
.key{display:inline-block;width:16px;height:0;border-top:3px solid;margin-right:5px;vertical-align:middle}
.key.dashed{border-top:2px dashed}.key.dot{width:9px;height:9px;border:0;border-radius:50%;background:currentColor}
.key.border{border-top:0;border-left:2px solid var(--rule);width:0;height:12px;margin-left:6px}
svg{display:block;width:100%;height:auto}svg text{fill:var(--soft);font-size:12px}svg text.axis{font-size:11px}
.for-narrow{display:none}
.line{fill:none;stroke-width:1.8;stroke-linejoin:round}.line.faint{stroke-width:.8;opacity:.35}
.grid{stroke:var(--rule);stroke-width:.7}.border{stroke:var(--rule);stroke-width:1.2}
.level{stroke-width:1.2;stroke-dasharray:6 4}
.tall{max-height:36rem;overflow-y:auto}.tall th{position:sticky;top:0;background:var(--page)}
.wide{overflow-x:auto;margin:.5em 0 1em}table{border-collapse:collapse;font-size:.87rem;min-width:40%}
th{text-align:left;color:var(--soft);font-weight:600;border-bottom:2px solid var(--rule)}
th,td{padding:3px 14px 3px 0;vertical-align:top}td{border-bottom:1px solid var(--rule);max-width:38em}
td.s{white-space:nowrap}th.n,td.n{text-align:right}td.n{font-variant-numeric:tabular-nums;white-space:nowrap}
table{line-height:1.4}
pre{overflow:auto;font-size:.8rem;background:var(--card);border:1px solid var(--rule);padding:10px;border-radius:8px}
summary{cursor:pointer;margin:.4em 0}
blockquote{margin:.3em 0 1.2em;padding:.6em 1em;background:var(--card);white-space:pre-wrap;
border:1px solid var(--rule);border-radius:8px;font-family:Georgia,"Times New Roman",serif}
.plate{width:100%;height:auto;border-radius:8px;background:#fff}
@media(max-width:640px){.charts{grid-template-columns:1fr}
main{padding:12px 12px 40px}.for-wide{display:none}.for-narrow{display:block}
.cards{grid-template-columns:repeat(2,1fr)}.cards dd{font-size:1.1rem}td{max-width:18em}
table{font-size:.76rem}th,td{padding:3px 8px 3px 0}td:not(.n):not(.s){min-width:7em}}
@media print{body{background:#fff}figure,.cards div{break-inside:avoid}.wide{overflow:visible;max-height:none}}
"""
STYLE = f":root{{{_LIGHT}}}\n@media(prefers-color-scheme:dark){{:root{{{_DARK}}}}}\n{_RULES.strip()}\n" + "\n".join(
    f"polyline.{look},.level.{look}{{stroke:{color}}}circle.{look}{{fill:{color}}}.key.{look}{{color:{color};border-color:{color}}}"
    for look, color in _LOOKS.items()
)
