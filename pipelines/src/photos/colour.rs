//! Colours: from what a file's colour profile says to sRGB, which is what every base was trained on.

use image::{DynamicImage, RgbImage};
use moxcms::{ColorProfile, DataColorSpace, Layout, TransformExecutor, TransformOptions};

use crate::error::caught;

/// A decoded photo, before its colours are looked at.
pub(super) enum Pixels {
    /// Grey or RGB, with or without transparency.
    Light(DynamicImage),
    /// Cyan, magenta, yellow and black of each pixel, 255 for all of an ink.
    Inks {
        /// Width and height.
        size: (u32, u32),
        /// Four bytes for each pixel.
        cmyk: Vec<u8>,
    },
}

impl Pixels {
    /// The photo in sRGB, 8 bits, over white, by its profile; without one its numbers are taken for sRGB already.
    ///
    /// Errors: why the profile cannot be used.
    pub fn to_srgb(&self, profile: &[u8]) -> Result<RgbImage, String> {
        // Profiles come from anywhere, and what reads them is young.
        let converted = caught(|| {
            let profile = ColorProfile::new_from_slice(profile).map_err(|e| e.to_string())?;
            self.by_profile(&profile)
        });
        converted.and_then(|result| result)
    }

    fn by_profile(&self, profile: &ColorProfile) -> Result<RgbImage, String> {
        use DynamicImage as P;
        let picture = match self {
            Self::Inks { size, cmyk } if profile.color_space == DataColorSpace::Cmyk => {
                return by_bytes(cmyk, Layout::Rgba, *size, profile, Layout::Rgb); // Rgba is what four channels are called
            }
            Self::Inks { .. } => {
                return Err(format!(
                    "it is for {:?}, but the picture is CMYK",
                    profile.color_space
                ));
            }
            Self::Light(picture) => picture,
        };
        let (rgb, grey) = (profile.color_space == DataColorSpace::Rgb, is_grey(picture));
        if !(rgb || grey && profile.color_space == DataColorSpace::Gray) {
            let kind = if grey { "grey" } else { "RGB" };
            return Err(format!("it is for {:?}, but the picture is {kind}", profile.color_space));
        }
        let size = (picture.width(), picture.height());
        let bytes = |samples: &[u8], from, to| by_bytes(samples, from, size, profile, to);
        let words = |samples: &[u16], from, to| by_words(samples, from, size, profile, to);
        match picture {
            // What greys are in a space of RGB is what their three equal channels are.
            P::ImageLuma8(_) if rgb => bytes(&picture.to_rgb8(), Layout::Rgb, Layout::Rgb),
            P::ImageLumaA8(_) if rgb => bytes(&picture.to_rgba8(), Layout::Rgba, Layout::Rgba),
            P::ImageLuma16(_) if rgb => words(&picture.to_rgb16(), Layout::Rgb, Layout::Rgb),
            P::ImageLumaA16(_) if rgb => words(&picture.to_rgba16(), Layout::Rgba, Layout::Rgba),
            P::ImageLuma8(pixels) => bytes(pixels, Layout::Gray, Layout::Rgb),
            P::ImageLumaA8(pixels) => bytes(pixels, Layout::GrayAlpha, Layout::Rgba),
            P::ImageLuma16(pixels) => words(pixels, Layout::Gray, Layout::Rgb),
            P::ImageLumaA16(pixels) => words(pixels, Layout::GrayAlpha, Layout::Rgba),
            P::ImageRgb8(pixels) => bytes(pixels, Layout::Rgb, Layout::Rgb),
            P::ImageRgba8(pixels) => bytes(pixels, Layout::Rgba, Layout::Rgba),
            P::ImageRgb16(pixels) => words(pixels, Layout::Rgb, Layout::Rgb),
            P::ImageRgba16(pixels) => words(pixels, Layout::Rgba, Layout::Rgba),
            floats if floats.color().has_alpha() => {
                words(&floats.to_rgba16(), Layout::Rgba, Layout::Rgba)
            }
            floats => words(&floats.to_rgb16(), Layout::Rgb, Layout::Rgb),
        }
    }

    /// The photo over white, its numbers taken for sRGB; inks as light passes them: each takes its share.
    pub fn into_rgb(self) -> RgbImage {
        let photo = match self {
            Self::Inks { size, cmyk } => {
                let mut photo = RgbImage::new(size.0, size.1);
                for (to, ink) in photo.pixels_mut().zip(cmyk.chunks_exact(4)) {
                    let light = |ink: u8, black: u8| share(255 - ink, 255 - black);
                    to.0 = [ink[0], ink[1], ink[2]].map(|colour| light(colour, ink[3]));
                }
                return photo;
            }
            Self::Light(photo) => photo,
        };
        if !photo.color().has_alpha() {
            return photo.into_rgb8();
        }
        let photo = photo.into_rgba8();
        let mut over = RgbImage::new(photo.width(), photo.height());
        for (to, from) in over.pixels_mut().zip(photo.pixels()) {
            let [r, g, b, alpha] = from.0;
            to.0 = over_white([r, g, b], alpha);
        }
        over
    }
}

fn is_grey(picture: &DynamicImage) -> bool {
    !picture.color().has_color()
}

/// A share of `x`, rounded: `x * y / 255`.
fn share(x: u8, y: u8) -> u8 {
    ((u32::from(x) * u32::from(y) + 127) / 255) as u8
}

/// What is transparent shows white.
fn over_white(colour: [u8; 3], alpha: u8) -> [u8; 3] {
    let alpha = u32::from(alpha);
    colour.map(|level| ((u32::from(level) * alpha + 255 * (255 - alpha) + 127) / 255) as u8)
}

fn by_bytes(
    samples: &[u8],
    from: Layout,
    size: (u32, u32),
    profile: &ColorProfile,
    to: Layout,
) -> Result<RgbImage, String> {
    let (srgb, options) = (ColorProfile::new_srgb(), TransformOptions::default());
    let transform = profile.create_transform_8bit(from, &srgb, to, options);
    let transform = transform.map_err(|error| error.to_string())?;
    row_by_row(samples, from, size, &*transform, to, |level| level)
}

fn by_words(
    samples: &[u16],
    from: Layout,
    size: (u32, u32),
    profile: &ColorProfile,
    to: Layout,
) -> Result<RgbImage, String> {
    let (srgb, options) = (ColorProfile::new_srgb(), TransformOptions::default());
    let transform = profile.create_transform_16bit(from, &srgb, to, options);
    let transform = transform.map_err(|error| error.to_string())?;
    let rounded = |level: u16| ((u32::from(level) + 128) / 257) as u8;
    row_by_row(samples, from, size, &*transform, to, rounded)
}

/// Converts row by row, so that no second copy of a large photo is needed beside the one that comes out.
fn row_by_row<S: Copy + Default>(
    samples: &[S],
    from: Layout,
    (width, height): (u32, u32),
    transform: &dyn TransformExecutor<S>,
    to: Layout,
    level: impl Fn(S) -> u8,
) -> Result<RgbImage, String> {
    let mut photo = RgbImage::new(width, height);
    let (across, channels) = (width as usize, to.channels());
    let mut converted = vec![S::default(); across * channels];
    let rows = samples.chunks_exact(across * from.channels());
    for (row, out) in rows.zip(photo.chunks_exact_mut(across * 3)) {
        transform.transform(row, &mut converted).map_err(|error| error.to_string())?;
        for (pixel, out) in converted.chunks_exact(channels).zip(out.chunks_exact_mut(3)) {
            let colour = [pixel[0], pixel[1], pixel[2]].map(&level);
            let alpha = pixel.get(3).map_or(255, |alpha| level(*alpha));
            out.copy_from_slice(&over_white(colour, alpha));
        }
    }
    Ok(photo)
}
