//! Letters of five by seven pixels, to print captions on contact sheets.

use image::{Rgb, RgbImage};

/// Columns that a letter takes, with the gap after it.
pub const ADVANCE: u32 = 6;

/// Rows of each letter, top first; bit 4 is the leftmost pixel. Those of [`DESCENDING`] start two rows lower.
#[rustfmt::skip]
const LETTERS: [[u8; 7]; 26] = [
    [0, 0, 0b01110, 0b00001, 0b01111, 0b10001, 0b01111],
    [0b10000, 0b10000, 0b11110, 0b10001, 0b10001, 0b10001, 0b11110],
    [0, 0, 0b01110, 0b10000, 0b10000, 0b10001, 0b01110],
    [0b00001, 0b00001, 0b01111, 0b10001, 0b10001, 0b10001, 0b01111],
    [0, 0, 0b01110, 0b10001, 0b11111, 0b10000, 0b01110],
    [0b00110, 0b01001, 0b01000, 0b11100, 0b01000, 0b01000, 0b01000],
    [0b01111, 0b10001, 0b10001, 0b10001, 0b01111, 0b00001, 0b01110],
    [0b10000, 0b10000, 0b10110, 0b11001, 0b10001, 0b10001, 0b10001],
    [0b00100, 0, 0b01100, 0b00100, 0b00100, 0b00100, 0b01110],
    [0b00010, 0, 0b00110, 0b00010, 0b00010, 0b10010, 0b01100],
    [0b10000, 0b10000, 0b10010, 0b10100, 0b11000, 0b10100, 0b10010],
    [0b01100, 0b00100, 0b00100, 0b00100, 0b00100, 0b00100, 0b01110],
    [0, 0, 0b11010, 0b10101, 0b10101, 0b10101, 0b10101],
    [0, 0, 0b10110, 0b11001, 0b10001, 0b10001, 0b10001],
    [0, 0, 0b01110, 0b10001, 0b10001, 0b10001, 0b01110],
    [0b11110, 0b10001, 0b10001, 0b10001, 0b11110, 0b10000, 0b10000],
    [0b01111, 0b10001, 0b10001, 0b10001, 0b01111, 0b00001, 0b00001],
    [0, 0, 0b10110, 0b11001, 0b10000, 0b10000, 0b10000],
    [0, 0, 0b01111, 0b10000, 0b01110, 0b00001, 0b11110],
    [0b01000, 0b01000, 0b11100, 0b01000, 0b01000, 0b01001, 0b00110],
    [0, 0, 0b10001, 0b10001, 0b10001, 0b10011, 0b01101],
    [0, 0, 0b10001, 0b10001, 0b10001, 0b01010, 0b00100],
    [0, 0, 0b10001, 0b10001, 0b10101, 0b10101, 0b01010],
    [0, 0, 0b10001, 0b01010, 0b00100, 0b01010, 0b10001],
    [0b10001, 0b10001, 0b10001, 0b10001, 0b01111, 0b00001, 0b01110],
    [0, 0, 0b11111, 0b00010, 0b00100, 0b01000, 0b11111],
];

/// Letters that hang below the line.
const DESCENDING: &[u8] = b"gpqy";

/// Prints one line with its upper left corner at `(left, top)`; what is no lower-case letter stays blank.
pub fn print(picture: &mut RgbImage, text: &str, left: u32, top: u32) {
    for (k, letter) in text.bytes().enumerate() {
        if !letter.is_ascii_lowercase() {
            continue;
        }
        let top = if DESCENDING.contains(&letter) { top + 2 } else { top };
        for (row, bits) in LETTERS[usize::from(letter - b'a')].into_iter().enumerate() {
            for column in (0..5).filter(|column| bits >> (4 - column) & 1 == 1) {
                let (x, y) = (left + k as u32 * ADVANCE + column, top + row as u32);
                if x < picture.width() && y < picture.height() {
                    picture.put_pixel(x, y, Rgb([30, 30, 34]));
                }
            }
        }
    }
}

/// Breaks a text into lines of at most `columns` letters.
pub fn wrap(text: &str, columns: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.len() + 1 + word.len() <= columns => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}
