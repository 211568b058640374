//! The page around the sections, and what several of them are made of.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use image::codecs::jpeg::JpegEncoder;
use image::{RgbImage, imageops};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use sha2::{Digest as _, Sha256};

use super::home;

const STYLE: &str = include_str!("report.css");
const SCRIPT: &str = include_str!("report.js");

/// The longer side of an embedded picture, in pixels; larger ones are made smaller.
pub(super) const SIDE: u32 = 256;
/// Of JPEG, from 1 to 100.
const QUALITY: u8 = 88;

/// A part of the page.
pub(super) struct Section {
    /// Its anchor.
    pub id: &'static str,
    /// Its heading.
    pub title: &'static str,
    /// What stands below.
    pub body: Markup,
}

/// The whole page. Nothing in it is fetched from anywhere: the browser itself is told to refuse that.
pub(super) fn page(title: &str, subtitle: &str, sections: &[Section]) -> String {
    let script = STANDARD.encode(Sha256::digest(SCRIPT));
    let policy = format!(
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{script}'"
    );
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(policy);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                link rel="icon" href="data:,";
                title { (title) " – personalize" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    h1 { (title) }
                    p.subtitle { (subtitle) }
                    nav aria-label="Sections" {
                        @for section in sections { a href={ "#" (section.id) } { (section.title) } }
                    }
                }
                main {
                    @for section in sections {
                        section id=(section.id) {
                            h2 { (section.title) }
                            (section.body)
                        }
                    }
                }
                footer {
                    "Written by personalize " (env!("CARGO_PKG_VERSION"))
                    ". Pictures are JPEG copies of at most " (SIDE) " pixels a side; the originals lie in the folder."
                }
                script { (PreEscaped(SCRIPT)) }
            }
        }
    };
    page.into_string()
}

/// A picture as data, no larger than `side`.
pub(super) fn picture(pixels: &RgbImage, side: u32, alt: &str) -> Markup {
    let (width, height) = pixels.dimensions();
    let longer = width.max(height).max(1);
    let shrunk;
    let pixels = if longer > side {
        let of = |length: u32| (length * side).div_ceil(longer).max(1);
        shrunk = imageops::resize(pixels, of(width), of(height), imageops::FilterType::CatmullRom);
        &shrunk
    } else {
        pixels
    };
    let mut jpeg = Vec::new();
    let encoded = JpegEncoder::new_with_quality(&mut jpeg, QUALITY).encode_image(pixels);
    let (width, height) = pixels.dimensions();
    match encoded {
        Ok(()) => html! {
            img src={ "data:image/jpeg;base64," (STANDARD.encode(&jpeg)) } alt=(alt) width=(width) height=(height);
        },
        Err(error) => notice(&format!("{alt}: the picture cannot be shown: {error}")),
    }
}

/// A sentence in the place of something that is not there.
pub(super) fn notice(text: &str) -> Markup {
    html! { p.notice { (home::shortened(text)) } }
}

/// A command to be copied.
pub(super) fn command(text: &str) -> Markup {
    html! { pre.command tabindex="0" { code { (text) } } }
}

/// Names and values in two columns.
pub(super) fn facts(facts: &[(&str, String)]) -> Markup {
    html! {
        dl.facts {
            @for (name, value) in facts.iter().filter(|(_, value)| !value.is_empty()) {
                div { dt { (name) } dd { (value) } }
            }
        }
    }
}

/// Pictures side by side, each with a caption.
pub(super) fn gallery(pictures: &[(Markup, String)]) -> Markup {
    html! {
        div.gallery {
            @for (picture, caption) in pictures {
                figure { (picture) figcaption { (caption) } }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_keeps_its_proportions_and_is_no_larger_than_asked_for() {
        let wide = picture(&RgbImage::new(1000, 10), 256, "a \"wide\" one").into_string();
        assert!(wide.contains(r#"width="256" height="3""#), "{wide}");
        assert!(wide.contains("alt=\"a &quot;wide&quot; one\""), "{wide}");
        let small = picture(&RgbImage::new(32, 48), 256, "").into_string();
        assert!(small.contains(r#"width="32" height="48""#), "{small}");
    }
}
