//! Grouped horizontal bars as SVG, readable on light and on dark.

use std::fmt::Write as _;

use crate::results::{Figure, OURS, number};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    Linear,
    Log,
}

pub struct Plot<'a> {
    title: &'a str,
    scale: Scale,
    figures: &'a [&'a Figure],
}

const WIDTH: f64 = 760.0;
const LABELS: f64 = 190.0;
const FIGURES: f64 = 90.0;
const BAR: f64 = 16.0;
const GAP: f64 = 5.0;
const HEAD: f64 = 24.0;
const TOP: f64 = 52.0;

const STYLE: &str = "\
text{font:13px system-ui,sans-serif;fill:#1f2328}\
.title{font-weight:600;font-size:15px}.case{font-weight:600}\
.back{fill:#fff}.ours{fill:#0969da}.other{fill:#afb8c1}.spread{stroke:#57606a;stroke-width:1.5}\
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.back{fill:#0d1117}.ours{fill:#4493f8}\
.other{fill:#57606a}.spread{stroke:#9198a1}}";

impl<'a> Plot<'a> {
    pub fn new(title: &'a str, scale: Scale, figures: &'a [&'a Figure]) -> Self {
        Self {
            title,
            scale,
            figures,
        }
    }

    pub fn svg(&self) -> String {
        let mut body = String::new();
        let (mut y, mut case) = (TOP, "");
        for figure in self.figures {
            if figure.case != case {
                case = &figure.case;
                y += GAP;
                text(&mut body, 12.0, y + 14.0, "case", case);
                y += HEAD;
            }
            self.bar(&mut body, y, figure);
            y += BAR + GAP;
        }
        let height = y + 12.0;
        let mut title = String::new();
        text(&mut title, 12.0, 26.0, "title", self.title);
        let note = match self.scale {
            Scale::Linear => "from 0; the line is the spread of the rounds",
            Scale::Log => "logarithmic; the line is the spread of the rounds",
        };
        text(&mut title, 12.0, 42.0, "", note);
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
             width=\"{WIDTH}\" height=\"{height}\" role=\"img\"><title>{}</title>\
             <style>{STYLE}</style><rect class=\"back\" width=\"100%\" height=\"100%\"/>\n\
             {title}{body}</svg>\n",
            escaped(self.title)
        )
    }

    fn bar(&self, out: &mut String, y: f64, figure: &Figure) {
        let class = if figure.side == OURS { "ours" } else { "other" };
        let middle = y + BAR / 2.0;
        let length = |value: f64| self.length(value);
        text(out, 24.0, y + 13.0, "", &figure.side);
        let _ = writeln!(
            out,
            "<rect class=\"{class}\" x=\"{LABELS}\" y=\"{y}\" width=\"{:.1}\" height=\"{BAR}\"/>\
             <line class=\"spread\" x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{middle}\" y2=\"{middle}\"/>",
            length(figure.median),
            LABELS + length(figure.least),
            LABELS + length(figure.most)
        );
        let end = LABELS + length(figure.median.max(figure.most)) + 8.0;
        text(out, end, y + 13.0, "", &number(figure.median));
    }

    fn length(&self, value: f64) -> f64 {
        let room = WIDTH - LABELS - FIGURES;
        let most = self.figures.iter().map(|figure| figure.most);
        let most = most.fold(f64::MIN_POSITIVE, f64::max);
        match self.scale {
            Scale::Linear => room * value / most,
            Scale::Log => {
                // Half a decade below the least, so that its bar can be seen.
                let least = self.figures.iter().map(|figure| figure.least);
                let least = least.fold(f64::INFINITY, f64::min) / 3.0;
                room * (value / least).ln() / (most / least).ln()
            }
        }
    }
}

fn text(out: &mut String, x: f64, y: f64, class: &str, words: &str) {
    let words = escaped(words);
    let _ = writeln!(
        out,
        "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\">{words}</text>"
    );
}

fn escaped(words: &str) -> String {
    words.replace('&', "&amp;").replace('<', "&lt;")
}
