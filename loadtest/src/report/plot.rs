//! Plots as SVG: data in, text out. Colours and widths are the page's style's.

use std::fmt::Write;

use super::scale::Scale;
use super::text::escape;

pub struct Axis {
    /// With its unit.
    pub label: String,
    pub scale: Scale,
}

#[derive(Clone, Copy, PartialEq)]
pub enum Stroke {
    Solid,
    Dashed,
    /// Marks alone.
    None,
    /// An area.
    Fill,
}

#[derive(Clone)]
pub struct Point {
    pub x: f64,
    pub y: f64,
    /// Shown where the pointer rests, and a mark for it; none without.
    pub title: Option<String>,
}

pub struct Series {
    pub name: String,
    /// An index into the style's colours, and of a mark's form.
    pub colour: usize,
    pub stroke: Stroke,
    /// Pieces of one line, with gaps between them.
    pub pieces: Vec<Vec<Point>>,
}

/// A line that data are held against.
pub enum Guide {
    Across {
        y: f64,
        label: String,
    },
    Up {
        x: f64,
        label: String,
    },
    /// Where y is x.
    Diagonal,
}

pub struct Plot {
    pub x: Axis,
    pub y: Axis,
    pub size: Size,
    pub guides: Vec<Guide>,
    pub series: Vec<Series>,
}

/// Width and height of the whole drawing, in units that a page makes about a pixel each: text is as large in all.
pub type Size = (f64, f64);

const LEFT: f64 = 66.0;
const RIGHT: f64 = 18.0;
const TOP: f64 = 22.0;
const BOTTOM: f64 = 38.0;
/// Marks of longer lines would hide them: they show where the pointer is.
const DENSE: usize = 40;
/// Of colours that the style has; from then on they come again.
pub const COLOURS: usize = 7;

impl Plot {
    pub fn svg(&self) -> String {
        let mut drawing = self.frame();
        self.series.iter().for_each(|series| self.series(&mut drawing, series));
        self.guides.iter().for_each(|guide| self.guide(&mut drawing, guide));
        drawing.finish()
    }

    fn frame(&self) -> Drawing {
        let mut drawing = Drawing::new(self.size, &format!("{} by {}", self.y.label, self.x.label));
        drawing.y_axis(&self.y);
        let mut last = f64::MIN;
        for (value, text) in self.x.scale.ticks() {
            let x = drawing.x(self.x.scale.place(value));
            drawing.line("grid", (x, TOP), (x, drawing.floor()));
            // Those of a logarithmic axis stand near each other.
            if x - last > 8.0 + 6.5 * text.chars().count() as f64 {
                drawing.text("tick", (x, drawing.floor() + 14.0), "middle", &text);
                last = x;
            }
        }
        drawing.x_label(&self.x.label);
        drawing
    }

    fn place(&self, drawing: &Drawing, x: f64, y: f64) -> (f64, f64) {
        (drawing.x(self.x.scale.place(x)), drawing.y(self.y.scale.place(y)))
    }

    fn guide(&self, drawing: &mut Drawing, guide: &Guide) {
        let (right, floor) = (drawing.right(), drawing.floor());
        match guide {
            Guide::Across { y, label } if self.y.scale.has(*y) => {
                let y = drawing.y(self.y.scale.place(*y));
                drawing.line("guide", (LEFT, y), (right, y));
                drawing.text("note", (right - 2.0, y - 4.0), "end", label);
            }
            Guide::Up { x, label } if self.x.scale.has(*x) => {
                let x = drawing.x(self.x.scale.place(*x));
                drawing.line("guide", (x, TOP), (x, floor));
                drawing.text("note", (x, TOP - 4.0), if x > right - 40.0 { "end" } else { "middle" }, label);
            }
            Guide::Diagonal => {
                let end = [self.x.scale, self.y.scale].map(|scale| match scale {
                    Scale::Linear { high } | Scale::Logarithmic { high, .. } => high,
                    Scale::Nines { .. } => 1.0,
                });
                let end = end[0].min(end[1]);
                let (from, to) = (self.place(drawing, 0.0, 0.0), self.place(drawing, end, end));
                drawing.line("guide", from, to);
            }
            _ => {}
        }
    }

    fn series(&self, drawing: &mut Drawing, series: &Series) {
        let colour = format!("c{}", series.colour % COLOURS);
        let again = series.colour >= COLOURS;
        for piece in &series.pieces {
            let places: Vec<_> = piece.iter().map(|point| self.place(drawing, point.x, point.y)).collect();
            let dashes = if series.stroke == Stroke::Dashed || again { " dashed" } else { "" };
            if series.stroke != Stroke::None {
                let path: Vec<_> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
                let _ =
                    write!(drawing.svg, r#"<polyline class="line {colour}{dashes}" points="{}" />"#, path.join(" "));
            }
            let marks = piece.iter().filter(|point| point.title.is_some()).count();
            for (point, (x, y)) in piece.iter().zip(places) {
                if let Some(title) = &point.title {
                    let hollow = if series.stroke == Stroke::Solid { "" } else { " hollow" };
                    let dense = if marks > DENSE { " dense" } else { "" };
                    let _ = write!(
                        drawing.svg,
                        r#"<path class="mark {colour}{hollow}{dense}" d="{}"><title>{}</title></path>"#,
                        mark(series.colour, x, y),
                        escape(title)
                    );
                }
            }
        }
    }
}

/// Bars side by side in each category.
pub struct Bars {
    pub x_label: String,
    pub y: Axis,
    pub size: Size,
    pub categories: Vec<String>,
    /// Colours, and a height and a title for each category.
    pub groups: Vec<(usize, Vec<(f64, String)>)>,
}

impl Bars {
    pub fn svg(&self) -> String {
        let mut drawing = Drawing::new(self.size, &format!("{} by {}", self.y.label, self.x_label));
        drawing.y_axis(&self.y);
        let room = (drawing.right() - LEFT) / self.categories.len().max(1) as f64;
        let width = room * 0.8 / self.groups.len().max(1) as f64;
        for (number, category) in self.categories.iter().enumerate() {
            let left = LEFT + room * number as f64;
            drawing.text("tick", (left + room / 2.0, drawing.floor() + 14.0), "middle", category);
            for (place, (colour, bars)) in self.groups.iter().enumerate() {
                let Some((height, title)) = bars.get(number).filter(|(height, _)| *height > 0.0) else { continue };
                let top = drawing.y(self.y.scale.place(*height));
                let _ = write!(
                    drawing.svg,
                    r#"<rect class="bar c{}" x="{:.1}" y="{top:.1}" width="{width:.1}" height="{:.1}"><title>{}</title></rect>"#,
                    colour % COLOURS,
                    left + room * 0.1 + width * place as f64,
                    (drawing.floor() - top).max(0.5),
                    escape(title)
                );
            }
        }
        drawing.x_label(&self.x_label);
        drawing.finish()
    }
}

/// A piece of a series' line, for a legend.
pub fn swatch(colour: usize, stroke: Stroke) -> String {
    let again = colour >= COLOURS;
    let class = format!("c{}", colour % COLOURS);
    let dashes = if stroke == Stroke::Dashed || again { " dashed" } else { "" };
    let line = match stroke {
        Stroke::None => String::new(),
        Stroke::Fill => {
            return format!(
                r#"<svg class="swatch" viewBox="0 0 26 12" aria-hidden="true"><rect class="bar {class}" x="7" y="0" width="12" height="12" /></svg>"#
            );
        }
        _ => format!(r#"<line class="line {class}{dashes}" x1="0" y1="6" x2="26" y2="6" />"#),
    };
    let hollow = if stroke == Stroke::Solid { "" } else { " hollow" };
    let mark = mark(colour, 13.0, 6.0);
    format!(
        r#"<svg class="swatch" viewBox="0 0 26 12" aria-hidden="true">{line}<path class="mark {class}{hollow}" d="{mark}" /></svg>"#
    )
}

pub fn guide_swatch() -> String {
    r#"<svg class="swatch" viewBox="0 0 26 12" aria-hidden="true"><line class="guide" x1="0" y1="6" x2="26" y2="6" /></svg>"#
        .to_owned()
}

/// Forms differ as colours do, for those who cannot tell colours apart.
fn mark(form: usize, x: f64, y: f64) -> String {
    match form % 4 {
        0 => format!("M{:.1},{y:.1}a3.2,3.2 0 1,0 6.4,0a3.2,3.2 0 1,0 -6.4,0z", x - 3.2),
        1 => format!("M{:.1},{:.1}h5.8v5.8h-5.8z", x - 2.9, y - 2.9),
        2 => format!("M{x:.1},{:.1}l3.9,6.8h-7.8z", y - 4.2),
        _ => format!("M{x:.1},{:.1}l4.2,4.2l-4.2,4.2l-4.2,-4.2z", y - 4.2),
    }
}

/// An SVG that is being written.
struct Drawing {
    svg: String,
    size: Size,
}

impl Drawing {
    fn new((width, height): Size, said: &str) -> Drawing {
        let said = escape(said);
        let svg = format!(r#"<svg viewBox="0 0 {width} {height}" role="img" aria-label="{said}">"#);
        Drawing { svg, size: (width, height) }
    }

    /// Where the plotted area ends.
    fn floor(&self) -> f64 {
        self.size.1 - BOTTOM
    }

    fn right(&self) -> f64 {
        self.size.0 - RIGHT
    }

    fn x(&self, place: f64) -> f64 {
        LEFT + place.clamp(-0.02, 1.02) * (self.right() - LEFT)
    }

    fn y(&self, place: f64) -> f64 {
        self.floor() - place.clamp(-0.02, 1.02) * (self.floor() - TOP)
    }

    fn line(&mut self, class: &str, from: (f64, f64), to: (f64, f64)) {
        let ((x1, y1), (x2, y2)) = (from, to);
        let _ = write!(self.svg, r#"<line class="{class}" x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}" />"#);
    }

    fn text(&mut self, class: &str, (x, y): (f64, f64), anchor: &str, text: &str) {
        let text = escape(text);
        let _ = write!(self.svg, r#"<text class="{class}" x="{x:.1}" y="{y:.1}" text-anchor="{anchor}">{text}</text>"#);
    }

    fn y_axis(&mut self, axis: &Axis) {
        let mut last = f64::MAX;
        for (value, text) in axis.scale.ticks() {
            let y = self.y(axis.scale.place(value));
            self.line("grid", (LEFT, y), (self.right(), y));
            if last - y > 13.0 {
                self.text("tick", (LEFT - 6.0, y + 4.0), "end", &text);
                last = y;
            }
        }
        self.line("axis", (LEFT, self.floor()), (self.right(), self.floor()));
        self.text("label", (4.0, 12.0), "start", &axis.label);
    }

    fn x_label(&mut self, label: &str) {
        let y = self.size.1 - 6.0;
        self.text("label", ((LEFT + self.right()) / 2.0, y), "middle", label);
    }

    fn finish(self) -> String {
        self.svg + "</svg>"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(points: Vec<Point>) -> Plot {
        let axis = |label: &str| Axis { label: label.to_owned(), scale: Scale::linear([100.0]) };
        let series = Series { name: "a".to_owned(), colour: 0, stroke: Stroke::Solid, pieces: vec![points] };
        Plot { x: axis("x, 1/s"), y: axis("y, ms"), size: (400.0, 200.0), guides: Vec::new(), series: vec![series] }
    }

    #[test]
    fn points_are_where_their_values_are() {
        let point = |x, y| Point { x, y, title: Some(format!("<{x}>")) };
        let svg = plot(vec![point(0.0, 0.0), point(106.0, 106.0)]).svg();
        let (left, right) = (LEFT, 400.0 - RIGHT);
        let expected = format!(r#"points="{left:.1},{:.1} {right:.1},{TOP:.1}""#, 200.0 - BOTTOM);
        assert!(svg.contains(&expected), "{expected} in {svg}");
        assert!(svg.contains("<title>&lt;0&gt;</title>") && svg.contains(">y, ms</text>"));
    }

    #[test]
    fn guides_off_the_scale_are_left_out() {
        let mut plot = plot(Vec::new());
        plot.guides =
            vec![Guide::Across { y: 50.0, label: "in".to_owned() }, Guide::Up { x: 500.0, label: "out".to_owned() }];
        let svg = plot.svg();
        assert!(svg.contains(">in</text>") && !svg.contains(">out</text>"));
    }
}
