//! Outlines as paths: y points down, the ground is y = 0, so heights are negative.

use tiny_skia::{LineCap, LineJoin, Path, PathBuilder, Rect, Stroke};

/// A point.
pub type Point = (f32, f32);

/// A path that covers nothing, for sizes that vanish.
fn nothing() -> Path {
    let mut builder = PathBuilder::new();
    builder.move_to(0.0, 0.0);
    builder.line_to(1e-3, 0.0);
    builder.line_to(0.0, 1e-3);
    builder.close();
    builder.finish().expect("three points make a path")
}

/// An ellipse about a centre.
pub fn ellipse(x: f32, y: f32, rx: f32, ry: f32) -> Path {
    Rect::from_ltrb(x - rx, y - ry, x + rx, y + ry)
        .and_then(PathBuilder::from_oval)
        .unwrap_or_else(nothing)
}

/// A circle.
pub fn circle(x: f32, y: f32, radius: f32) -> Path {
    ellipse(x, y, radius, radius)
}

/// A rectangle from two corners.
pub fn rectangle(left: f32, top: f32, right: f32, bottom: f32) -> Path {
    Rect::from_ltrb(left, top, right, bottom).map_or_else(nothing, PathBuilder::from_rect)
}

/// A rectangle from two corners with round corners.
pub fn rounded(left: f32, top: f32, right: f32, bottom: f32, radius: f32) -> Path {
    let r = radius.min((right - left) * 0.5).min((bottom - top) * 0.5);
    let k = r * 0.45;
    let mut b = PathBuilder::new();
    b.move_to(left + r, top);
    b.line_to(right - r, top);
    b.cubic_to(right - k, top, right, top + k, right, top + r);
    b.line_to(right, bottom - r);
    b.cubic_to(right, bottom - k, right - k, bottom, right - r, bottom);
    b.line_to(left + r, bottom);
    b.cubic_to(left + k, bottom, left, bottom - k, left, bottom - r);
    b.line_to(left, top + r);
    b.cubic_to(left, top + k, left + k, top, left + r, top);
    b.close();
    b.finish().unwrap_or_else(nothing)
}

/// A polygon.
pub fn polygon(points: &[Point]) -> Path {
    let mut b = PathBuilder::new();
    b.move_to(points[0].0, points[0].1);
    for point in &points[1..] {
        b.line_to(point.0, point.1);
    }
    b.close();
    b.finish().unwrap_or_else(nothing)
}

/// Adds the Catmull-Rom piece from `p[1]` to `p[2]`.
fn curve(b: &mut PathBuilder, p: [Point; 4]) {
    let (ax, ay) = (p[1].0 + (p[2].0 - p[0].0) / 6.0, p[1].1 + (p[2].1 - p[0].1) / 6.0);
    let (bx, by) = (p[2].0 - (p[3].0 - p[1].0) / 6.0, p[2].1 - (p[3].1 - p[1].1) / 6.0);
    b.cubic_to(ax, ay, bx, by, p[2].0, p[2].1);
}

/// A closed smooth outline through all points (Catmull-Rom).
pub fn blob(points: &[Point]) -> Path {
    let count = points.len();
    let mut b = PathBuilder::new();
    b.move_to(points[0].0, points[0].1);
    for i in 0..count {
        let at = |k: usize| points[(i + k + count - 1) % count];
        curve(&mut b, [at(0), at(1), at(2), at(3)]);
    }
    b.close();
    b.finish().unwrap_or_else(nothing)
}

/// A round-ended stroke of one width along a smooth line through all points.
pub fn tube(points: &[Point], width: f32) -> Path {
    let last = points.len() - 1;
    let mut b = PathBuilder::new();
    b.move_to(points[0].0, points[0].1);
    for i in 0..last {
        curve(
            &mut b,
            [points[i.saturating_sub(1)], points[i], points[i + 1], points[(i + 2).min(last)]],
        );
    }
    let stroke =
        Stroke { width, line_cap: LineCap::Round, line_join: LineJoin::Round, ..Stroke::default() };
    // Resolution 64: units are about 30 pixels, so curves must be finer than their own numbers suggest.
    b.finish().and_then(|line| line.stroke(&stroke, 64.0)).unwrap_or_else(nothing)
}

/// A limb: a capsule from `a` to `b` whose ends have their own radii.
pub fn limb(a: Point, b: Point, radius_a: f32, radius_b: f32) -> Path {
    const DIAGONAL: f32 = std::f32::consts::FRAC_1_SQRT_2;
    let (dx, dy) = (b.0 - a.0, b.1 - a.1);
    let length = (dx * dx + dy * dy).sqrt();
    if length < 1e-3 {
        return circle(a.0, a.1, radius_a.max(radius_b));
    }
    let (tx, ty) = (dx / length, dy / length);
    let (nx, ny) = (-ty, tx);
    let around = |c: Point, r: f32, along: f32, side: f32| {
        (c.0 + r * (tx * along + nx * side), c.1 + r * (ty * along + ny * side))
    };
    let middle = |side: f32| {
        let (p, q) = (around(a, radius_a, 0.0, side), around(b, radius_b, 0.0, side));
        ((p.0 + q.0) * 0.5, (p.1 + q.1) * 0.5)
    };
    blob(&[
        around(a, radius_a, 0.0, 1.0),
        around(a, radius_a, -DIAGONAL, DIAGONAL),
        around(a, radius_a, -1.0, 0.0),
        around(a, radius_a, -DIAGONAL, -DIAGONAL),
        around(a, radius_a, 0.0, -1.0),
        middle(-1.0),
        around(b, radius_b, 0.0, -1.0),
        around(b, radius_b, DIAGONAL, -DIAGONAL),
        around(b, radius_b, 1.0, 0.0),
        around(b, radius_b, DIAGONAL, DIAGONAL),
        around(b, radius_b, 0.0, 1.0),
        middle(1.0),
    ])
}
