//! Contact sheets: pictures in rows with their captions below.

use crate::SIZE;
use crate::font::{ADVANCE, print, wrap};
use image::{Rgb, RgbImage, imageops};

const GAP: u32 = 8;
const LINE: u32 = 10;

/// Lays out pictures of 128 by 128, row by row; each row is as tall as its longest caption needs.
pub fn contact_sheet(cells: &[(RgbImage, String)], columns: usize) -> RgbImage {
    let columns = columns.clamp(1, cells.len().max(1));
    let wrapped: Vec<Vec<String>> =
        cells.iter().map(|(_, caption)| wrap(caption, (SIDE_LETTERS) as usize)).collect();
    let heights: Vec<u32> = wrapped
        .chunks(columns)
        .map(|row| {
            SIZE + GAP + row.iter().map(|lines| lines.len() as u32 * LINE).max().unwrap_or(0) + 4
        })
        .collect();
    let width = GAP + columns as u32 * (SIZE + GAP);
    let mut sheet =
        RgbImage::from_pixel(width, GAP + heights.iter().sum::<u32>(), Rgb([250, 250, 248]));
    let mut top = GAP;
    for (row, height) in heights.iter().enumerate() {
        for (column, (picture, _)) in cells[row * columns..].iter().take(columns).enumerate() {
            let left = GAP + column as u32 * (SIZE + GAP);
            imageops::replace(&mut sheet, picture, i64::from(left), i64::from(top));
            for (k, line) in wrapped[row * columns + column].iter().enumerate() {
                print(&mut sheet, line, left, top + SIZE + 4 + k as u32 * LINE);
            }
        }
        top += height;
    }
    sheet
}

/// Letters that fit below one picture.
const SIDE_LETTERS: u32 = (SIZE + GAP - 2) / ADVANCE;
