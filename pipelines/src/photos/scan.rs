//! Which files of a folder are photos: told by their first bytes, not by their names alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use image::ImageFormat;

use super::{Notice, PhotoError};

/// Bytes from a file's start that tell its format.
const HEAD: usize = 32;

/// Endings of caption files, the one that counts where there are several first.
const CAPTIONS: [&str; 2] = ["txt", "caption"];

/// How other trainers name the masks of photos, which lie beside these: behind the photo's name.
const MASKS: [&str; 2] = ["-masklabel", "-condlabel"];

/// A photo found, not decoded yet.
pub(super) struct Entry {
    pub path: PathBuf,
    pub format: ImageFormat,
    pub caption: Option<String>,
}

/// The photos of a folder in the byte order of their names, and what else lies there.
pub(super) struct Listing {
    pub entries: Vec<Entry>,
    pub report: Vec<Notice>,
}

enum Kind {
    Photo(ImageFormat),
    /// A picture of a format that we do not read.
    Unsupported(&'static str),
    Foreign,
}

/// Lists `folder` without descending into sub-folders.
pub(super) fn list(folder: &Path) -> Result<Listing, PhotoError> {
    let paths = sorted_paths(folder)?;
    if paths.is_empty() {
        return Err(PhotoError::Empty { folder: folder.into() });
    }

    let (mut photos, mut texts, mut skipped, mut folders) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut unsupported: BTreeMap<&'static str, Vec<PathBuf>> = BTreeMap::new();
    for path in paths {
        if is_hidden(&path) {
            skipped.push(path);
            continue;
        }
        let metadata = fs::metadata(&path)
            .map_err(|source| PhotoError::File { file: path.clone(), source })?;
        if metadata.is_dir() {
            folders.push(path);
        } else if !metadata.is_file() {
            skipped.push(path); // a pipe or a device: reading it could wait for ever
        } else if CAPTIONS.contains(&&*extension(&path)) {
            texts.push(path);
        } else {
            match kind(&path)? {
                Kind::Photo(format) => photos.push((path, format)),
                Kind::Unsupported(format) => unsupported.entry(format).or_default().push(path),
                Kind::Foreign => skipped.push(path),
            }
        }
    }

    let mut report = Vec::new();
    let stems: BTreeSet<PathBuf> = photos.iter().map(|(photo, _)| stem(photo)).collect();
    let masks: Vec<PathBuf> = photos
        .extract_if(.., |(photo, _)| masked(&stem(photo)).is_some_and(|of| stems.contains(&of)))
        .map(|(mask, _)| mask)
        .collect();
    let mut captions: BTreeMap<PathBuf, (PathBuf, Option<String>)> = BTreeMap::new();
    texts.sort_by_key(|text| CAPTIONS.iter().position(|ending| *ending == extension(text)));
    for text in texts {
        let stem = stem(&text);
        if let Some((used, _)) = captions.get(&stem) {
            report.push(Notice::SecondCaption { used: used.clone(), unused: text });
        } else if stems.contains(&stem) {
            let caption = caption(&text, &mut report)?;
            captions.insert(stem, (text, caption));
        } else {
            skipped.push(text);
        }
    }
    if !masks.is_empty() {
        report.push(Notice::Masks { files: masks });
    }
    skipped.sort();
    if !skipped.is_empty() {
        report.push(Notice::Skipped { files: skipped });
    }
    if !folders.is_empty() {
        report.push(Notice::SkippedFolders { folders });
    }
    report.extend(
        unsupported.into_iter().map(|(format, files)| Notice::Unsupported { format, files }),
    );
    if photos.is_empty() {
        let found = report.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        return Err(PhotoError::NoPhotos { folder: folder.into(), found });
    }

    let entries = photos.into_iter().map(|(path, format)| {
        let caption = captions.get(&stem(&path)).and_then(|(_, caption)| caption.clone());
        Entry { path, format, caption }
    });
    Ok(Listing { entries: entries.collect(), report })
}

fn sorted_paths(folder: &Path) -> Result<Vec<PathBuf>, PhotoError> {
    let unreadable = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => PhotoError::Missing { folder: folder.into() },
        io::ErrorKind::NotADirectory => PhotoError::NotAFolder { path: folder.into() },
        _ => PhotoError::Folder { folder: folder.into(), source },
    };
    let entries = fs::read_dir(folder).map_err(unreadable)?;
    let mut paths: Vec<_> = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()
        .map_err(unreadable)?;
    paths.sort();
    Ok(paths)
}

fn is_hidden(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with('.')
        || ["thumbs.db", "ehthumbs.db", "desktop.ini"].contains(&&*name.to_lowercase())
}

fn extension(path: &Path) -> String {
    path.extension().unwrap_or_default().to_string_lossy().to_lowercase()
}

/// The format of one picture, by its first bytes.
pub(super) fn format(path: &Path) -> Result<ImageFormat, PhotoError> {
    match kind(path)? {
        Kind::Photo(format) => Ok(format),
        Kind::Unsupported(format) => {
            Err(PhotoError::UnsupportedFormat { file: path.into(), format })
        }
        Kind::Foreign => Err(PhotoError::NotAPicture { file: path.into() }),
    }
}

fn kind(path: &Path) -> Result<Kind, PhotoError> {
    let unreadable = |source| PhotoError::File { file: path.into(), source };
    let mut head = Vec::with_capacity(HEAD);
    torch_ext::file::open(path)
        .map_err(unreadable)?
        .take(HEAD as u64)
        .read_to_end(&mut head)
        .map_err(unreadable)?;

    let extension = extension(path);
    if let Some(kind) = kind_by_content(&head, &extension) {
        return Ok(kind);
    }
    match extension.as_str() {
        "heic" | "heif" | "hif" => Ok(Kind::Unsupported("HEIC")),
        "avif" => Ok(Kind::Unsupported("AVIF")),
        "jxl" => Ok(Kind::Unsupported("JPEG XL")),
        raw if is_raw(raw) => Ok(Kind::Unsupported("camera raw")),
        "jpg" | "jpeg" | "jpe" | "jfif" | "png" | "webp" | "bmp" | "dib" | "tif" | "tiff"
            if head.is_empty() =>
        {
            Err(PhotoError::ZeroBytes { file: path.into() })
        }
        "jpg" | "jpeg" | "jpe" | "jfif" | "png" | "webp" | "bmp" | "dib" | "tif" | "tiff" => {
            Err(PhotoError::NotAPicture { file: path.into() })
        }
        _ => Ok(Kind::Foreign),
    }
}

fn kind_by_content(head: &[u8], extension: &str) -> Option<Kind> {
    if head.get(4..8) == Some(b"ftyp") {
        return match head.get(8..12)? {
            b"avif" | b"avis" => Some(Kind::Unsupported("AVIF")),
            b"heic" | b"heix" | b"heim" | b"heis" | b"hevc" | b"hevx" | b"mif1" | b"msf1" => {
                Some(Kind::Unsupported("HEIC"))
            }
            _ => None, // a film: the .mov of a live photo
        };
    }
    if head.starts_with(b"\xff\x0a") || head.starts_with(b"\0\0\0\x0cJXL ") {
        return Some(Kind::Unsupported("JPEG XL"));
    }
    match image::guess_format(head).ok()? {
        // Raw files are TIFF inside; what a TIFF reader finds in them is a thumbnail.
        ImageFormat::Tiff if is_raw(extension) => Some(Kind::Unsupported("camera raw")),
        // "BM" also starts a note about a BMW; a bitmap goes on with the size of a known header.
        ImageFormat::Bmp
            if !matches!(head.get(14..18), Some([12 | 40 | 52 | 56 | 64 | 108 | 124, 0, 0, 0])) =>
        {
            None
        }
        format @ (ImageFormat::Jpeg
        | ImageFormat::Png
        | ImageFormat::WebP
        | ImageFormat::Bmp
        | ImageFormat::Tiff) => Some(Kind::Photo(format)),
        ImageFormat::Gif => Some(Kind::Unsupported("GIF")),
        ImageFormat::Avif => Some(Kind::Unsupported("AVIF")),
        _ => None,
    }
}

/// The path without its extension: what a photo and its caption have in common.
fn stem(path: &Path) -> PathBuf {
    path.with_extension("")
}

/// The photo that a mask is of, both without extension.
pub(super) fn masked(mask: &Path) -> Option<PathBuf> {
    let name = mask.file_name()?.to_str()?;
    let of = MASKS.iter().find_map(|ending| name.strip_suffix(ending))?;
    Some(mask.with_file_name(of))
}

fn is_raw(extension: &str) -> bool {
    ["dng", "cr2", "cr3", "nef", "nrw", "arw", "orf", "rw2", "raf", "pef", "srw", "raw"]
        .contains(&extension)
}

/// The first line of a caption file, trimmed; `None` where it holds no text.
fn caption(file: &Path, report: &mut Vec<Notice>) -> Result<Option<String>, PhotoError> {
    let text = torch_ext::file::read_to_string(file).map_err(|source| match source.kind() {
        io::ErrorKind::InvalidData => PhotoError::Caption { file: file.into() },
        _ => PhotoError::File { file: file.into(), source },
    })?;
    let mut lines = text.trim().lines();
    let Some(first) = lines.next() else {
        report.push(Notice::EmptyCaption { file: file.into() });
        return Ok(None);
    };
    if lines.next().is_some() {
        report.push(Notice::LongCaption { file: file.into() });
    }
    Ok(Some(first.trim_end().to_owned()))
}
