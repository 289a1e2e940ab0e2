//! An HTML page in one file, without scripts and without links to other files.

use std::fmt::Write as _;

use super::plot::{STYLE, escape};
use crate::environment::Environment;

/// A page; each call adds to its end.
pub struct Page {
    body: String,
    title: String,
}

const LOOK: &str = "
:root{color-scheme:light dark;--ink:#1b2733;--soft:#5b6b7b;--line:#e3e8ee;--paper:#fff;--tint:#f4f7fa;--good:#0f7a4d;--bad:#b3261e;--ours:#e8f1fd}
@media (prefers-color-scheme:dark){:root{--ink:#dde5ee;--soft:#93a3b3;--line:#27313c;--paper:#141a21;--tint:#1a222b;--good:#43c796;--bad:#ff8a80;--ours:#12263d}}
body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.5 system-ui,-apple-system,'Segoe UI',sans-serif}
main{max-width:960px;margin:0 auto;padding:32px 20px 64px}
h1{font-size:26px;line-height:1.25;margin:0 0 4px}h2{font-size:18px;margin:36px 0 8px}
p{margin:6px 0}.soft{color:var(--soft)}code{font:13px ui-monospace,'DejaVu Sans Mono',monospace;background:var(--tint);padding:2px 6px;border-radius:4px;overflow-wrap:anywhere}
table{border-collapse:collapse;font-size:14px;margin:8px 0}td,th{padding:4px 14px 4px 0;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap;font-variant-numeric:tabular-nums}
th{font-weight:600;color:var(--soft)}td:first-child,th:first-child{text-align:left}tr.ours td{background:var(--ours);font-weight:600}tr.floor td{color:var(--soft)}tr.words td{text-align:left;white-space:normal}
.scroll{overflow-x:auto}.badge{display:inline-block;padding:2px 10px;border-radius:12px;font-weight:600;font-size:13px;color:#fff}
.good{background:#0f7a4d}.bad{background:#b3261e}figure{margin:20px 0;overflow-x:auto}svg{max-width:100%;height:auto}
table.facts td{white-space:normal;text-align:left}table.facts td:first-child{color:var(--soft);white-space:nowrap}td small{color:var(--soft);font-weight:400}
";

impl Page {
    /// A page with this title and a line under it.
    pub fn new(title: &str, lead: &str) -> Self {
        let body = format!("<h1>{}</h1><p class=\"soft\">{}</p>", escape(title), escape(lead));
        Self { body, title: title.to_owned() }
    }

    /// Adds a heading.
    pub fn heading(&mut self, text: &str) {
        let _ = write!(self.body, "<h2>{}</h2>", escape(text));
    }

    /// Adds a paragraph of plain text.
    pub fn text(&mut self, text: &str) {
        let _ = write!(self.body, "<p>{}</p>", escape(text));
    }

    /// Adds a verdict in colour, with its reason.
    pub fn badge(&mut self, good: bool, word: &str, reason: &str) {
        let class = if good { "good" } else { "bad" };
        let _ = write!(self.body, "<p><span class=\"badge {class}\">{}</span> {}</p>", escape(word), escape(reason));
    }

    /// Adds the verdict on the figures of this environment, which is never good for a debug build.
    pub fn verdict(&mut self, environment: &Environment, valid: bool, word: &str, reason: &str) {
        if valid && environment.profile == "debug" {
            self.badge(false, &format!("{word}, DEBUG BUILD"), "these figures mean nothing; build with --release");
        } else {
            self.badge(valid, word, reason);
        }
    }

    /// Adds a chart, given as SVG.
    pub fn figure(&mut self, svg: &str) {
        let _ = write!(self.body, "<figure>{svg}</figure>");
    }

    /// Adds a table. Each row has a class of the stylesheet and its cells, which are HTML.
    pub fn table(&mut self, head: &[String], rows: &[(String, Vec<String>)]) {
        self.body.push_str("<div class=\"scroll\"><table><tr>");
        for cell in head {
            let _ = write!(self.body, "<th>{}</th>", escape(cell));
        }
        self.body.push_str("</tr>");
        for (class, cells) in rows {
            let _ = write!(self.body, "<tr class=\"{class}\">");
            for cell in cells {
                let _ = write!(self.body, "<td>{cell}</td>");
            }
            self.body.push_str("</tr>");
        }
        self.body.push_str("</table></div>");
    }

    /// Adds the machine and the command of the measurement.
    pub fn origin(&mut self, environment: &Environment, command: &str) {
        self.heading("Where this was measured");
        let _ = write!(self.body, "<p><code>{}</code></p>", escape(command));
        self.body.push_str("<table class=\"facts\">");
        for (name, value) in environment.rows() {
            let _ = write!(self.body, "<tr><td>{name}</td><td>{}</td></tr>", escape(&value));
        }
        self.body.push_str("</table>");
        if environment.profile == "debug" {
            self.badge(false, "DEBUG BUILD", "these figures mean nothing; build with --release");
        }
    }

    /// The HTML of the page.
    pub fn finish(self) -> String {
        format!(
            "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\"><title>{}</title><style>{LOOK}{STYLE}</style></head><body><main>{}</main></body></html>\n",
            escape(&self.title),
            self.body
        )
    }
}
