//! Which picture the coordinates of a file are meant for. Files do not say it, and it is never guessed.

use std::fmt;
use std::str::FromStr;

use crate::Error;

/// The plane that coordinates lie in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame {
    /// 256 by 256 with the photo, 176 wide, in its middle: FPDM's and PCDMs' files.
    Margin40,
    /// The photo scaled to 176 wide and 256 high: the annotation CSVs of DPTN and CFLD.
    Narrow,
    /// Pixels of the photo or picture that the coordinates go with.
    Pixels,
    /// Pixels of a picture of this width and height.
    PixelsOf(u32, u32),
}

/// What can be given as a frame.
const KNOWN: &str = "256-margin-40 (the photo, 176 wide, in the middle of 256 by 256), 256x176 (the photo scaled to 256 high and 176 wide), \
                     pixels (of the photo itself) or pixels:WIDTHxHEIGHT";

impl FromStr for Frame {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "256-margin-40" => Ok(Self::Margin40),
            "256x176" => Ok(Self::Narrow),
            "pixels" => Ok(Self::Pixels),
            _ => match text.strip_prefix("pixels:").map(super::parse_size) {
                Some(size) => size.map(|(width, height)| Self::PixelsOf(width, height)),
                None => Err(Error::Usage(format!("the frame '{text}' is unknown; give {KNOWN}"))),
            },
        }
    }
}

impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Margin40 => f.write_str("256-margin-40"),
            Self::Narrow => f.write_str("256x176"),
            Self::Pixels => f.write_str("pixels"),
            Self::PixelsOf(width, height) => write!(f, "pixels:{width}x{height}"),
        }
    }
}

impl Frame {
    /// Where the photo lies in the frame: its left edge, width and height. Its upper edge is 0.
    pub(super) fn photo(self, picture: (u32, u32)) -> (f64, f64, f64) {
        match self {
            Self::Margin40 => (40.0, 176.0, 256.0),
            Self::Narrow => (0.0, 176.0, 256.0),
            Self::Pixels => (0.0, f64::from(picture.0), f64::from(picture.1)),
            Self::PixelsOf(width, height) => (0.0, f64::from(width), f64::from(height)),
        }
    }

    /// A point as shares of the photo's width and height; nothing for one outside the photo.
    pub(super) fn place(self, (x, y): (f64, f64), picture: (u32, u32)) -> Option<(f64, f64)> {
        let (left, width, height) = self.photo(picture);
        let inside = (left..=left + width).contains(&x) && (0.0..=height).contains(&y);
        inside.then(|| ((x - left) / width, y / height))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_corners_of_each_frame_s_photo_are_the_corners_of_the_picture() {
        let size = (375, 550);
        for (frame, right_bottom, left) in [
            (Frame::Margin40, (216.0, 256.0), 40.0),
            (Frame::Narrow, (176.0, 256.0), 0.0),
            (Frame::Pixels, (375.0, 550.0), 0.0),
            (Frame::PixelsOf(750, 1101), (750.0, 1101.0), 0.0),
        ] {
            assert_eq!(frame.place((left, 0.0), size), Some((0.0, 0.0)), "{frame}");
            assert_eq!(frame.place(right_bottom, size), Some((1.0, 1.0)), "{frame}");
            assert_eq!(frame.place((left - 0.1, 0.0), size), None, "{frame}");
            assert_eq!(frame.place((left, right_bottom.1 + 0.1), size), None, "{frame}");
        }
    }

    #[test]
    fn the_formula_of_the_margin_is_that_of_the_paper_s_code() {
        let (x, y) = Frame::Margin40.place((100.0, 64.0), (0, 0)).unwrap();
        assert!((x * 375.0 - (100.0 - 40.0) * 375.0 / 176.0).abs() < 1e-12);
        assert!((y * 550.0 - 64.0 * 550.0 / 256.0).abs() < 1e-12);
    }

    #[test]
    fn names_are_read_as_they_are_shown_and_others_refused() {
        let frames = [Frame::Margin40, Frame::Narrow, Frame::Pixels, Frame::PixelsOf(750, 1101)];
        for frame in frames {
            assert_eq!(frame.to_string().parse::<Frame>().unwrap(), frame);
        }
        for text in ["", "256", "auto", "pixels:", "pixels:7"] {
            assert!(matches!(text.parse::<Frame>(), Err(Error::Usage(_))), "{text}");
        }
    }
}
