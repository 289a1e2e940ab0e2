//! Charts as SVG text. This module writes it without a plotting library, so that one stylesheet serves page and file, light and
//! dark, and every mark can have a tooltip.

use std::fmt::Write as _;

/// The stylesheet of charts; a page includes it once, a separate SVG file has a copy.
pub const STYLE: &str = "
svg.chart{font:12px system-ui,-apple-system,'Segoe UI',sans-serif;color:#1b2733;background:#fff}
.chart text{fill:#1b2733}.chart .soft{fill:#5b6b7b}.chart .title{font-size:15px;font-weight:600}
.chart .strong{font-weight:600}.chart .grid{stroke:#e3e8ee;stroke-width:1}
.chart .axis{fill:none;stroke:#9aa8b5;stroke-width:1}.chart .whisker{stroke:#1b2733;stroke-width:1.2;opacity:.75}
.chart .paper{fill:#fff}
.s0{--c:#0a62c9}.s1{--c:#d1600a}.s2{--c:#0f8a5f}.s3{--c:#8a4bbd}.s4{--c:#b8306a}.s5{--c:#8a6d00}
.ours{--c:#0a62c9}.rival{--c:#8fa1b3}.floor{--c:#d5dce4}
.chart .line{fill:none;stroke:var(--c);stroke-width:2;stroke-linejoin:round}
.chart .dashed{stroke-dasharray:5 4}.chart .area{fill:var(--c);opacity:.8}
.chart .dot{fill:var(--c);fill-opacity:.85}.chart .bar{fill:var(--c)}
@media (prefers-color-scheme:dark){svg.chart{color:#dde5ee;background:#141a21}.chart text{fill:#dde5ee}
.chart .soft{fill:#93a3b3}.chart .grid{stroke:#27313c}.chart .axis{stroke:#56636f}
.chart .paper{fill:#141a21}.chart .whisker{stroke:#dde5ee}
.s0,.ours{--c:#5aa9ff}.s1{--c:#ff9a4d}.s2{--c:#43c796}.s3{--c:#bd8bea}.s4{--c:#f0709f}.s5{--c:#d8b93c}
.rival{--c:#71808f}.floor{--c:#39444f}}
";

/// The scale of an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Linear.
    Linear,
    /// Logarithmic, to the base of ten.
    Log,
}

/// An axis.
pub struct Axis {
    /// Its label.
    pub label: String,
    /// Its scale.
    pub scale: Scale,
    /// The lowest and the highest value.
    pub range: (f64, f64),
    /// The values with a label, and the labels.
    pub ticks: Vec<(f64, String)>,
}

impl Axis {
    /// An axis that holds all finite `values`, and 0 if it is linear. Without values it is an arbitrary one. `show`
    /// makes the labels.
    pub fn over(label: &str, scale: Scale, values: impl Iterator<Item = f64>, show: impl Fn(f64) -> String) -> Self {
        let (mut low, mut high) = values
            .filter(|value| value.is_finite())
            .fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(value), high.max(value)));
        if low > high {
            (low, high) = (1.0, 10.0);
        }
        let ticks = match scale {
            Scale::Linear => {
                low = low.min(0.0);
                high = if high <= low { low + 1.0 } else { high };
                let step = nice((high - low) / 5.0);
                high = (high / step).ceil() * step;
                let count = ((high - low) / step).round() as usize;
                (0..=count).map(|index| low + step * index as f64).collect()
            }
            Scale::Log => {
                low = low.max(1e-9);
                high = high.max(low);
                let steps: &[f64] = if (high / low).log10() < 2.5 { &[1.0, 2.0, 5.0] } else { &[1.0] };
                let (first, last) = (low.log10().floor() as i32, high.log10().ceil() as i32);
                let all: Vec<f64> =
                    (first..=last).flat_map(|power| steps.iter().map(move |step| step * 10f64.powi(power))).collect();
                // The ends are the nearest ticks outside of the values.
                low = all.iter().copied().rfind(|tick| *tick <= low * 1.0001).unwrap_or(low);
                high = all.iter().copied().find(|tick| *tick >= high * 0.9999).unwrap_or(high);
                if high <= low {
                    high = low * 10.0;
                }
                all.into_iter().filter(|tick| (low * 0.999..=high * 1.001).contains(tick)).collect::<Vec<_>>()
            }
        };
        let ticks = ticks.into_iter().map(|tick: f64| (tick, show(tick))).collect();
        Self { label: label.to_owned(), scale, range: (low, high), ticks }
    }

    fn part(&self, value: f64) -> f64 {
        let (low, high) = self.range;
        let part = match self.scale {
            Scale::Linear => (value - low) / (high - low),
            Scale::Log => (value.max(low) / low).log10() / (high / low).log10(),
        };
        part.clamp(0.0, 1.0)
    }
}

fn nice(step: f64) -> f64 {
    let power = 10f64.powf(step.abs().max(1e-12).log10().floor());
    let lead = step / power;
    power * [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().find(|nice| lead <= *nice).unwrap_or(10.0)
}

/// How a series is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// A line.
    Line,
    /// A dashed line.
    Dashed,
    /// Dots.
    Dots,
    /// Filled steps.
    Area,
}

/// A series of points.
pub struct Series {
    /// Its name in the legend; empty for none.
    pub name: String,
    /// Its colour, 0 to 5.
    pub colour: usize,
    /// How it is drawn.
    pub mark: Mark,
    /// Its points, from left to right.
    pub points: Vec<(f64, f64)>,
}

/// A chart of series over two axes.
pub struct Chart {
    /// The title.
    pub title: String,
    /// A line under the title.
    pub note: String,
    /// Height in pixels.
    pub height: f64,
    /// The lower axis.
    pub x: Axis,
    /// The left axis.
    pub y: Axis,
    /// The series.
    pub series: Vec<Series>,
}

/// The width of every chart in pixels.
pub const WIDTH: f64 = 920.0;
const LEFT: f64 = 84.0;
const RIGHT: f64 = 44.0;
const TOP: f64 = 74.0;
const BOTTOM: f64 = 52.0;

impl Chart {
    /// The chart as SVG.
    pub fn svg(&self) -> String {
        let (plot_width, plot_height) = (WIDTH - LEFT - RIGHT, self.height - TOP - BOTTOM);
        let x_at = |value: f64| LEFT + self.x.part(value) * plot_width;
        let y_at = |value: f64| TOP + (1.0 - self.y.part(value)) * plot_height;
        let floor = TOP + plot_height;
        let mut svg = open(self.height, &self.title);
        heading(&mut svg, &self.title, &self.note);
        let mut legend = LEFT;
        for series in self.series.iter().filter(|series| !series.name.is_empty()) {
            let dash = if series.mark == Mark::Dashed { " dashed" } else { "" };
            let _ = write!(
                svg,
                r#"<g class="s{}"><path class="line{dash}" d="M{legend:.1} 58h22"/></g><text x="{:.1}" y="62">{}</text>"#,
                series.colour,
                legend + 28.0,
                escape(&series.name)
            );
            legend += 28.0 + 7.0 * series.name.chars().count() as f64 + 22.0;
        }
        for (value, label) in &self.y.ticks {
            let y = y_at(*value);
            let _ = write!(
                svg,
                r#"<path class="grid" d="M{LEFT} {y:.1}H{:.1}"/><text class="soft" x="{:.1}" y="{:.1}" text-anchor="end">{}</text>"#,
                WIDTH - RIGHT,
                LEFT - 8.0,
                y + 4.0,
                escape(label)
            );
        }
        for (value, label) in &self.x.ticks {
            let x = x_at(*value);
            let _ = write!(
                svg,
                r#"<path class="grid" d="M{x:.1} {TOP}V{floor:.1}"/><text class="soft" x="{x:.1}" y="{:.1}" text-anchor="middle">{}</text>"#,
                floor + 18.0,
                escape(label)
            );
        }
        let _ = write!(
            svg,
            r#"<path class="axis" d="M{LEFT} {TOP}V{floor:.1}H{:.1}"/><text class="soft" x="{:.1}" y="{:.1}" text-anchor="middle">{}</text><text class="soft" transform="translate(16 {:.1}) rotate(-90)" text-anchor="middle">{}</text>"#,
            WIDTH - RIGHT,
            LEFT + plot_width / 2.0,
            self.height - 12.0,
            escape(&self.x.label),
            TOP + plot_height / 2.0,
            escape(&self.y.label)
        );
        for series in &self.series {
            let _ = write!(svg, r#"<g class="s{}">"#, series.colour);
            self.draw(&mut svg, series, &x_at, &y_at, floor);
            svg.push_str("</g>");
        }
        svg.push_str("</svg>");
        svg
    }

    fn draw(
        &self,
        svg: &mut String,
        series: &Series,
        x_at: &dyn Fn(f64) -> f64,
        y_at: &dyn Fn(f64) -> f64,
        floor: f64,
    ) {
        let tip = |x: f64, y: f64| {
            let near = |axis: &Axis, value: f64| {
                axis.ticks
                    .iter()
                    .find(|(tick, _)| (tick - value).abs() < 1e-9)
                    .map_or_else(|| format!("{value:.6}"), |(_, label)| label.clone())
            };
            format!("{}: {:.0} at {}", series.name, y, near(&self.x, x))
        };
        match series.mark {
            Mark::Line | Mark::Dashed => {
                let dash = if series.mark == Mark::Dashed { " dashed" } else { "" };
                let mut path = String::new();
                for (index, (x, y)) in series.points.iter().enumerate() {
                    let step = if index == 0 { 'M' } else { 'L' };
                    let _ = write!(path, "{step}{:.1} {:.1}", x_at(*x), y_at(*y));
                }
                let _ = write!(svg, r#"<path class="line{dash}" d="{path}"/>"#);
            }
            Mark::Dots => {
                for (x, y) in &series.points {
                    let _ = write!(
                        svg,
                        r#"<circle class="dot" cx="{:.1}" cy="{:.1}" r="4.5"><title>{}</title></circle>"#,
                        x_at(*x),
                        y_at(*y),
                        escape(&tip(*x, *y))
                    );
                }
            }
            Mark::Area => {
                let ends = series.points.iter().skip(1).map(|(x, _)| *x);
                for ((x, y), end) in series.points.iter().zip(ends.chain([self.x.range.1])) {
                    let (left, right, top) = (x_at(*x), x_at(end), y_at(*y));
                    let _ = write!(
                        svg,
                        r#"<rect class="area" x="{left:.1}" y="{top:.1}" width="{:.1}" height="{:.1}"/>"#,
                        (right - left - 0.6).max(0.8),
                        (floor - top).max(0.0)
                    );
                }
            }
        }
    }
}

/// A bar with a whisker from its lowest to its highest value.
pub struct Bar {
    /// Its name.
    pub name: String,
    /// The class of the stylesheet: `ours`, `rival` or `floor`.
    pub class: &'static str,
    /// The length of the bar.
    pub value: f64,
    /// The ends of the whisker.
    pub ends: (f64, f64),
    /// The text behind the bar.
    pub label: String,
}

/// Bars under one heading.
pub struct Panel {
    /// The heading.
    pub title: String,
    /// The bars from top to bottom.
    pub bars: Vec<Bar>,
}

const BAR: f64 = 21.0;
const NAME: f64 = 122.0;
const GAP: f64 = 28.0;

/// The SVG of panels of horizontal bars, two beside each other. Each panel has its own scale.
pub fn bars(title: &str, note: &str, panels: &[Panel]) -> String {
    let columns = if panels.len() == 1 { 1 } else { 2 };
    let panel_width = (WIDTH - 40.0 - GAP * (columns as f64 - 1.0)) / columns as f64;
    let tallest = panels.iter().map(|panel| panel.bars.len()).max().unwrap_or(0);
    let panel_height = 34.0 + BAR * tallest as f64 + 18.0;
    let rows = panels.len().div_ceil(columns);
    let height = 66.0 + rows as f64 * panel_height;
    let mut svg = open(height, title);
    heading(&mut svg, title, note);
    for (index, panel) in panels.iter().enumerate() {
        let left = 20.0 + (index % columns) as f64 * (panel_width + GAP);
        let top = 66.0 + (index / columns) as f64 * panel_height;
        let most = panel.bars.iter().map(|bar| bar.ends.1).fold(1e-9, f64::max);
        let room = panel_width - NAME - 108.0;
        let x_at = |value: f64| left + NAME + value / most * room;
        let _ =
            write!(svg, r#"<text class="strong" x="{left:.1}" y="{:.1}">{}</text>"#, top + 16.0, escape(&panel.title));
        for (line, bar) in panel.bars.iter().enumerate() {
            let y = top + 30.0 + line as f64 * BAR;
            let middle = y + BAR / 2.0 - 2.0;
            let strong = if bar.class == "ours" { "strong" } else { "" };
            let _ = write!(
                svg,
                r#"<g class="{}"><title>{}</title><text class="{strong}" x="{:.1}" y="{:.1}" text-anchor="end">{}</text><rect class="bar" x="{:.1}" y="{y:.1}" width="{:.1}" height="{:.1}" rx="2"/><path class="whisker" d="M{:.1} {middle:.1}H{:.1}M{:.1} {:.1}v8M{:.1} {:.1}v8"/><text class="{strong}" x="{:.1}" y="{:.1}">{}</text></g>"#,
                bar.class,
                escape(&format!("{}: {}", bar.name, bar.label)),
                left + NAME - 8.0,
                middle + 4.0,
                escape(&bar.name),
                left + NAME,
                (x_at(bar.value) - left - NAME).max(1.0),
                BAR - 5.0,
                x_at(bar.ends.0),
                x_at(bar.ends.1),
                x_at(bar.ends.0),
                middle - 4.0,
                x_at(bar.ends.1),
                middle - 4.0,
                x_at(bar.ends.1) + 8.0,
                middle + 4.0,
                escape(&bar.label)
            );
        }
    }
    svg.push_str("</svg>");
    svg
}

fn open(height: f64, title: &str) -> String {
    format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" class="chart" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img" aria-label="{}"><rect class="paper" width="{WIDTH}" height="{height}"/>"#,
        escape(title)
    )
}

fn heading(svg: &mut String, title: &str, note: &str) {
    let _ = write!(
        svg,
        r#"<text class="title" x="20" y="24">{}</text><text class="soft" x="20" y="42">{}</text>"#,
        escape(title),
        escape(note)
    );
}

/// A chart as a separate file, with the stylesheet inside.
pub fn standalone(svg: &str) -> String {
    match svg.find('>') {
        Some(end) => {
            format!("{}<style>{}</style>{}", &svg[..=end], STYLE.trim(), &svg[end + 1..])
        }
        None => svg.to_owned(),
    }
}

/// Escapes a text for XML and HTML.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_hold_their_values() {
        let axis = Axis::over("t", Scale::Log, [130.0, 90_000.0].into_iter(), |it| it.to_string());
        assert!(axis.range.0 <= 130.0 && axis.range.1 >= 90_000.0, "{:?}", axis.range);
        assert!(axis.ticks.len() >= 3);
        let even = Axis::over("t", Scale::Linear, [3.0, 97.0].into_iter(), |it| it.to_string());
        assert_eq!(even.range, (0.0, 100.0));
        let none = Axis::over("t", Scale::Log, std::iter::empty(), |it| it.to_string());
        assert!(none.range.0 < none.range.1);
    }

    #[test]
    fn names_are_escaped() {
        let name = || "<a&b>".to_owned();
        let bar = Bar { name: name(), class: "ours", value: 1.0, ends: (1.0, 1.0), label: name() };
        let mut drawn = vec![bars(&name(), &name(), &[Panel { title: name(), bars: vec![bar] }])];
        for mark in [Mark::Line, Mark::Dashed, Mark::Dots, Mark::Area] {
            let axis = || Axis::over(&name(), Scale::Linear, [1.0, 2.0].into_iter(), |_| name());
            let series = vec![Series { name: name(), colour: 0, mark, points: vec![(1.0, 1.0), (2.0, 2.0)] }];
            drawn.push(Chart { title: name(), note: name(), height: 300.0, x: axis(), y: axis(), series }.svg());
        }
        for svg in drawn {
            assert!(svg.contains("&lt;a&amp;b&gt;") && !svg.contains("<a&"), "{svg}");
        }
    }
}
