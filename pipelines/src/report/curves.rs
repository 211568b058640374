//! Logged quantities as small plots.

use std::ops::Range;

use maud::{Markup, PreEscaped, html};
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

use super::quantities::{Series, drawable, smoothed, thinned};
use crate::evaluate::Summary;

type Chart<'a> = ChartContext<'a, SVGBackend<'a>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;
type Failure = Box<dyn std::error::Error>;

/// Points of a curve; what is logged oftener is averaged.
const POINTS: usize = 400;
/// Of the drawing; the page scales it.
const SIZE: (u32, u32) = (720, 330);
/// The moving average looks back over this share of the points.
const WINDOW: f64 = 0.1;
/// Fewer points than this are drawn as they are.
const FEW: usize = 20;

// The style sheet knows these colours and gives them others on a dark ground.
const FAINT: RGBColor = RGBColor(0xB9, 0xCB, 0xE4);
const BOLD: RGBColor = RGBColor(0x1F, 0x5F, 0xBF);
const AXIS: RGBColor = RGBColor(0x77, 0x77, 0x77);
const GRID: RGBColor = RGBColor(0xE4, 0xE4, 0xE4);

/// The groups in which quantities stand, in order.
const GROUPS: [&str; 6] =
    ["Validation", "Loss", "Concept", "Norm of the gradient", "Share of the gradient", "Course"];

/// All quantities of a log, in small plots by group.
pub(super) fn curves(all: &[Series]) -> Markup {
    let longest = all.iter().map(|series| series.points.len()).max().unwrap_or(0);
    let size = longest.div_ceil(POINTS).max(1);
    html! {
        p.caption {
            @if longest < FEW {
                "Each quantity over the steps, as it was logged."
            } @else {
                "Each quantity over the steps: faint "
                @if size > 1 { "the means of every " (size) " logged values" } @else { "as it was logged" }
                ", bold a moving average over the last " (percent(WINDOW)) " of the curve. "
                "In brackets where that average ends."
            }
        }
        @for group in GROUPS {
            @let here: Vec<&Series> = all.iter().filter(|series| series.group() == group).collect();
            @if !here.is_empty() {
                h3 { (group) }
                div.curves { @for series in here { (panel(series)) } }
            }
        }
    }
}

fn percent(share: f64) -> String {
    format!("{:.0} %", 100.0 * share)
}

fn panel(series: &Series) -> Markup {
    let (points, _) = thinned(&series.points, POINTS);
    let average =
        (points.len() >= FEW).then(|| smoothed(&points, (WINDOW * points.len() as f64).max(2.0)));
    let last = average.as_ref().unwrap_or(&points).last().map_or(0.0, |point| point.1);
    let span = range(points.iter().map(|point| point.1), 0.0);
    let (title, last) = (series.title(), number(last, span.end - span.start));
    html! {
        figure.curve data-quantity=(series.key) {
            figcaption { (title) " (" (last) ")" }
            (PreEscaped(drawn(&points, average.as_deref(), &format!("{title} over the steps"))))
        }
    }
}

/// The plot of a quantity.
fn drawn(points: &[(f64, f64)], average: Option<&[(f64, f64)]>, label: &str) -> String {
    let mut svg = String::new();
    draw(&mut svg, points, average).expect("a string takes every drawing");
    within_html(&svg, label)
}

/// A drawing as a part of a page; the words of `label` are for those who do not see it.
fn within_html(svg: &str, label: &str) -> String {
    // Within HTML the name space goes without saying; and no address at all is in the file.
    let label = html! { (label) }.into_string();
    let svg = svg.replacen(r#"xmlns="http://www.w3.org/2000/svg""#, "", 1);
    svg.replacen("<svg ", &format!("<svg role=\"img\" aria-label=\"{label}\" "), 1)
}

fn draw(
    svg: &mut String,
    points: &[(f64, f64)],
    average: Option<&[(f64, f64)]>,
) -> Result<(), Failure> {
    let x = range(points.iter().map(|point| point.0), 0.0);
    let y = range(points.iter().map(|point| point.1), 0.05);
    let mut chart = axes(svg, x, y)?;
    let line = |points: &[(f64, f64)], colour: RGBColor, width: u32| {
        LineSeries::new(points.to_vec(), colour.stroke_width(width))
    };
    let few = average.is_none();
    chart.draw_series(line(points, if few { BOLD } else { FAINT }, if few { 4 } else { 2 }))?;
    if few {
        chart.draw_series(points.iter().map(|&point| Circle::new(point, 5, BOLD.filled())))?;
    }
    if let Some(average) = average {
        chart.draw_series(line(average, BOLD, 4))?;
    }
    Ok(chart.plotting_area().present()?)
}

/// A chart of numbers over numbers.
fn axes(svg: &mut String, x: Range<f64>, y: Range<f64>) -> Result<Chart<'_>, Failure> {
    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    let (width, height) = (x.end - x.start, y.end - y.start);
    let text = ("sans-serif", 24).into_font();
    let mut chart = ChartBuilder::on(&area)
        .margin(8)
        .margin_right(24)
        .x_label_area_size(44)
        .y_label_area_size(96)
        .build_cartesian_2d(x, y)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
        .axis_style(AXIS)
        .label_style(text.color(&AXIS))
        .x_labels(5)
        .y_labels(4)
        .x_label_formatter(&|x| number(*x, width))
        .y_label_formatter(&|y| number(*y, height))
        .draw()?;
    Ok(chart)
}

/// What a metric found for each prompt, in their order: a dot each, the mean as a line on its interval, and, where there is
/// one, the value of the photos as a thin line.
pub(super) fn scores(
    title: &str,
    values: &[f64],
    summary: &Summary,
    photos: Option<f64>,
) -> Markup {
    let mut svg = String::new();
    draw_scores(&mut svg, values, summary, photos).expect("a string takes every drawing");
    let label = format!("{title} of each prompt");
    html! {
        figure.curve {
            figcaption { (title) }
            (PreEscaped(within_html(&svg, &label)))
        }
    }
}

fn draw_scores(
    svg: &mut String,
    values: &[f64],
    summary: &Summary,
    photos: Option<f64>,
) -> Result<(), Failure> {
    let x = 0.5..values.len() as f64 + 0.5;
    let photos = photos.and_then(drawable);
    let interval = summary.interval.filter(|ends| ends.iter().all(|x| drawable(*x).is_some()));
    let dots: Vec<(f64, f64)> = values
        .iter()
        .enumerate()
        .filter_map(|(i, &y)| Some((i as f64 + 1.0, drawable(y)?)))
        .collect();
    let seen = dots.iter().map(|dot| dot.1).chain(interval.into_iter().flatten()).chain(photos);
    let mut chart = axes(svg, x.clone(), range(seen, 0.05))?;
    if let Some([low, high]) = interval {
        let band = Rectangle::new([(x.start, low), (x.end, high)], FAINT.filled());
        chart.draw_series([band])?;
    }
    let across = |y: f64| [(x.start, y), (x.end, y)];
    if let Some(mean) = drawable(summary.mean) {
        chart.draw_series(LineSeries::new(across(mean), BOLD.stroke_width(3)))?;
    }
    if let Some(photos) = photos {
        chart.draw_series(LineSeries::new(across(photos), AXIS.stroke_width(2)))?;
    }
    chart.draw_series(dots.into_iter().map(|dot| Circle::new(dot, 6, BOLD.filled())))?;
    Ok(chart.plotting_area().present()?)
}

/// From the least to the most and a little beyond; of one value, or none, something around it.
fn range(values: impl Iterator<Item = f64>, margin: f64) -> Range<f64> {
    let (least, most) = values
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), x| (least.min(x), most.max(x)));
    if least > most {
        return 0.0..1.0;
    }
    let width = most - least;
    if width <= 1e-9 * most.abs() {
        let around = if most == 0.0 { 1.0 } else { 0.1 * most.abs() };
        return least - around..most + around;
    }
    least - margin * width..most + margin * width
}

/// A number with as many digits as tell places apart on an axis of this width.
fn number(x: f64, width: f64) -> String {
    let large = x.abs().max(width);
    if x != 0.0 && !(1e-3..1e6).contains(&large) {
        return format!("{x:.1e}");
    }
    let digits = (2.0 - width.max(1e-9).log10().ceil()).clamp(0.0, 6.0) as usize;
    format!("{x:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write as _;

    #[test]
    fn numbers_have_the_digits_that_their_axis_needs() {
        let shown = [(0.0, 300.0), (150.0, 300.0), (0.25, 0.4), (0.0005, 0.0001), (0.731, 0.02)];
        let shown = shown.map(|(x, width)| number(x, width));
        assert_eq!(shown, ["0", "150", "0.25", "5.0e-4", "0.731"]);
    }

    #[test]
    fn a_constant_and_a_single_point_have_room_around_them() {
        assert_eq!(range([0.5, 0.5].into_iter(), 0.05), 0.45..0.55);
        assert_eq!(range([0.0].into_iter(), 0.0), -1.0..1.0);
        assert_eq!(range(std::iter::empty(), 0.0), 0.0..1.0);
    }

    #[test]
    fn numbers_that_no_run_logs_are_left_out_of_every_drawing() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log.jsonl");
        let huge = [1e308, -1e308, 3.0, 4.0, 5e-324, 0.0, 1e38, f64::MIN_POSITIVE];
        let mut text = "{\"step\":1e300,\"loss\":1}\n{\"step\":1,\"loss\":1e999}\n".to_owned();
        for (step, value) in huge.iter().enumerate() {
            let tiny = value / 1e308;
            writeln!(text, "{{\"step\":{step},\"loss\":{value:e},\"tiny\":{tiny:e}}}").unwrap();
        }
        std::fs::write(&log, text).unwrap();
        let logged = super::super::quantities::read(&log).unwrap();
        let loss = logged.iter().find(|series| series.key == "loss").unwrap();
        assert_eq!(loss.points.len(), 6, "{loss:?}");
        assert!(curves(&logged).into_string().contains("data-quantity=\"loss\""));
        let summary = Summary {
            mean: 1e308,
            standard_deviation: None,
            interval: Some([-1e308, 1e308]),
            count: 2,
        };
        let html = scores("CLIP-I", &[1e308, 0.5, f64::NAN], &summary, Some(f64::INFINITY));
        assert!(html.into_string().len() < 20_000);
    }

    #[test]
    fn a_long_log_makes_no_large_drawing_and_names_no_address() {
        let points = (0..100_000).map(|i| (f64::from(i), f64::from(i % 7))).collect();
        let series = Series { key: "terms.<b>".to_owned(), points };
        let html = curves(&[series]).into_string();
        assert!(html.len() < 20_000, "{}", html.len());
        assert!(html.contains("means of every 250 logged values"), "{html}");
        assert!(!html.contains("<b>") && !html.contains("://"), "{html}");
    }
}
