//! What reading photos says: notices that leave the run going, errors that stop it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::{FEW_PHOTOS, MAX_BYTES, MAX_PIXELS};

/// Something about the photos that the user should know; each displays as one line.
#[derive(Debug, Clone, PartialEq)]
pub enum Notice {
    /// Hidden files and files that are no photos.
    Skipped {
        /// The files, by name.
        files: Vec<PathBuf>,
    },
    /// Folders inside the photo folder; their photos are not read.
    SkippedFolders {
        /// The folders, by name.
        folders: Vec<PathBuf>,
    },
    /// Pictures in a format that is not read here.
    Unsupported {
        /// The format's name.
        format: &'static str,
        /// The files, by name.
        files: Vec<PathBuf>,
    },
    /// Masks of photos, as other trainers want them beside the photos.
    Masks {
        /// The files, by name.
        files: Vec<PathBuf>,
    },
    /// A picture that moves, of which one frame is read.
    Animated {
        /// The picture.
        file: PathBuf,
    },
    /// A colour profile that cannot be used.
    BrokenProfile {
        /// The picture.
        file: PathBuf,
        /// What is wrong with the profile.
        reason: String,
    },
    /// A photo of which the cut leaves out much.
    CutsMuch {
        /// The photo.
        file: PathBuf,
        /// The share of what stands out that is left out.
        lost: f64,
    },
    /// Photos that are brought to another shape.
    Squashed {
        /// The photos.
        files: Vec<PathBuf>,
    },
    /// A photo whose cut part has to be enlarged to the training size.
    TooSmall {
        /// The photo.
        file: PathBuf,
        /// Its width and height.
        size: (u32, u32),
        /// The training width and height.
        target: (u32, u32),
    },
    /// Fewer than [`FEW_PHOTOS`] photos.
    TooFew {
        /// How many there are.
        count: usize,
    },
    /// Two photos that show the same.
    Duplicate {
        /// The earlier one.
        a: PathBuf,
        /// The later one.
        b: PathBuf,
        /// Equal byte for byte, rather than equal to the eye.
        same_bytes: bool,
    },
    /// Photos without a caption among others that have one.
    WithoutCaption {
        /// The photos.
        files: Vec<PathBuf>,
    },
    /// A caption file beside another of the same photo.
    SecondCaption {
        /// The one that is used.
        used: PathBuf,
        /// The one that is not.
        unused: PathBuf,
    },
    /// A caption file with more than one line, of which the first is used.
    LongCaption {
        /// The caption file.
        file: PathBuf,
    },
    /// A caption file without text.
    EmptyCaption {
        /// The caption file.
        file: PathBuf,
    },
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Skipped { files } => {
                write!(f, "skipped {}: {}", count(files, "file"), names(files))
            }
            Self::SkippedFolders { folders } => write!(
                f,
                "skipped {}: {}; only photos that lie directly in the folder are read",
                count(folders, "sub-folder"),
                names(folders)
            ),
            Self::Unsupported { format, files } => {
                let (are, them) = if files.len() == 1 { ("is", "it") } else { ("are", "them") };
                let (pictures, names, tool) =
                    (count(files, "picture"), names(files), converter(format));
                write!(
                    f,
                    "{format} is not supported, so {pictures} {are} left out: {names}; export as JPEG or PNG to use {them}{tool}"
                )
            }
            Self::Masks { files } => write!(
                f,
                "skipped {}: {}; photos are learnt whole, so give photos of which the background is cut off, or none",
                count(files, "mask"),
                names(files)
            ),
            Self::Animated { file } => {
                write!(f, "{} is animated; its first frame is read", name(file))
            }
            Self::BrokenProfile { file, reason } => write!(
                f,
                "{} has a colour profile that cannot be used ({reason}); its colours are read as sRGB",
                name(file)
            ),
            Self::CutsMuch { file, lost } => write!(
                f,
                "{}: the cut to the training shape leaves out {:.0} % of what stands out; see --crop-sheet, cut it yourself, or pass --crop pad",
                name(file),
                100.0 * lost
            ),
            Self::Squashed { files } => write!(
                f,
                "{} of another shape than the training pictures {} squashed: {}; --crop pad keeps the shape",
                count(files, "photo"),
                if files.len() == 1 { "is" } else { "are" },
                names(files)
            ),
            Self::TooSmall { file, size, target } => write!(
                f,
                "{} is {}×{}, too small for {}×{}: it is enlarged, and the concept will look soft",
                name(file),
                size.0,
                size.1,
                target.0,
                target.1
            ),
            Self::TooFew { count } => write!(
                f,
                "only {count} photo{}: {FEW_PHOTOS} or more, with different backgrounds, teach the concept rather than the photo",
                if *count == 1 { "" } else { "s" }
            ),
            Self::Duplicate { a, b, same_bytes: true } => {
                write!(f, "{} and {} are the same file", name(a), name(b))
            }
            Self::Duplicate { a, b, same_bytes: false } => {
                write!(
                    f,
                    "{} and {} show nearly the same; each counts, so what they show weighs double",
                    name(a),
                    name(b)
                )
            }
            Self::WithoutCaption { files } => {
                write!(f, "no caption for {}: {}", count(files, "photo"), names(files))
            }
            Self::SecondCaption { used, unused } => {
                write!(f, "{} is left out; {} is the photo's caption", name(unused), name(used))
            }
            Self::LongCaption { file } => {
                write!(f, "{} has several lines; the first is the caption", name(file))
            }
            Self::EmptyCaption { file } => {
                write!(f, "{} is empty; its photo counts as without a caption", name(file))
            }
        }
    }
}

/// How to make a readable copy, where there is a short way.
fn converter(format: &str) -> &'static str {
    match format {
        "HEIC" => {
            ", e.g. `heif-convert photo.heic photo.jpg`; iPhones write JPEG with Camera > Formats > Most Compatible"
        }
        "AVIF" => ", e.g. `avifdec photo.avif photo.png`",
        _ => "",
    }
}

/// "1 file", "3 files".
fn count(files: &[PathBuf], noun: &str) -> String {
    format!("{} {noun}{}", files.len(), if files.len() == 1 { "" } else { "s" })
}

/// Up to five file names in one line.
fn names(files: &[PathBuf]) -> String {
    const SHOWN: usize = 5;
    let mut line = files.iter().take(SHOWN).map(|file| name(file)).collect::<Vec<_>>().join(", ");
    if files.len() > SHOWN {
        line = format!("{line} and {} more", files.len() - SHOWN);
    }
    line
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// Why a folder of photos cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PhotoError {
    /// Nothing at the path.
    #[error(
        "photo folder {folder} does not exist; give the folder that holds the photos of the concept"
    )]
    Missing {
        /// The path given.
        folder: PathBuf,
    },
    /// A file where a folder is expected.
    #[error(
        "{path} is a file, but a folder of photos is expected; put the photo into a folder of its own and give that"
    )]
    NotAFolder {
        /// The path given.
        path: PathBuf,
    },
    /// The folder cannot be listed.
    #[error("photo folder {folder} cannot be read: {source}{}", models::advice(.source))]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Nothing in the folder.
    #[error(
        "photo folder {folder} is empty; put at least one photo (JPEG, PNG, WebP, BMP or TIFF) into it"
    )]
    Empty {
        /// The folder.
        folder: PathBuf,
    },
    /// Files, but no photo among them.
    #[error(
        "photo folder {folder} holds no photo (JPEG, PNG, WebP, BMP or TIFF), only others: {found}; put at least one photo into it"
    )]
    NoPhotos {
        /// The folder.
        folder: PathBuf,
        /// What lies there instead: the notices in one line.
        found: String,
    },
    /// A file that cannot be read.
    #[error("{file} cannot be read: {source}{}", models::advice(.source))]
    File {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A photo of zero bytes.
    #[error("{file} is empty (0 bytes); remove it or copy it again")]
    ZeroBytes {
        /// The file.
        file: PathBuf,
    },
    /// A file named like a picture that holds something else.
    #[error(
        "{file} is named like a picture, but holds none that is known; remove it, or export it as JPEG or PNG"
    )]
    NotAPicture {
        /// The file.
        file: PathBuf,
    },
    /// A picture of a format that is not read here.
    #[error(
        "{file} is {format}, which is not supported; export it as JPEG or PNG{}",
        converter(format)
    )]
    UnsupportedFormat {
        /// The file.
        file: PathBuf,
        /// The format's name.
        format: &'static str,
    },
    /// More pixels than [`MAX_PIXELS`].
    #[error(
        "{file} is {width}×{height} pixels, more than the {} million that are read; scale it down or remove it",
        MAX_PIXELS / 1_000_000
    )]
    TooLarge {
        /// The file.
        file: PathBuf,
        /// Its width by its header.
        width: u32,
        /// Its height by its header.
        height: u32,
    },
    /// More bytes than [`MAX_BYTES`].
    #[error(
        "{file} is {width}×{height} pixels and takes {:.1} GB while it is decoded, more than the {:.1} GB that a picture may; scale it down, save it with 8 bits and, as a JPEG, in one pass (not progressive), or remove it",
        *bytes as f64 / 1e9,
        MAX_BYTES as f64 / 1e9
    )]
    TooMuchMemory {
        /// The file.
        file: PathBuf,
        /// Its width by its header.
        width: u32,
        /// Its height by its header.
        height: u32,
        /// The bytes that it takes.
        bytes: u64,
    },
    /// A JPEG that ends before its picture does.
    #[error(
        "{file} is incomplete: the file ends before its picture does; remove it or copy it again"
    )]
    Truncated {
        /// The file.
        file: PathBuf,
    },
    /// A picture that cannot be decoded.
    #[error(
        "{file} is not a sound picture ({reason}); remove it, or open it in an image editor and export it again"
    )]
    Broken {
        /// The file.
        file: PathBuf,
        /// What the decoder said.
        reason: String,
    },
    /// A kind of a known format that the decoder does not know, such as a TIFF with a palette.
    #[error(
        "{file} is of a kind that is not read here ({reason}); export it as JPEG or PNG, or remove it"
    )]
    UnknownKind {
        /// The file.
        file: PathBuf,
        /// What the decoder said.
        reason: String,
    },
    /// No pictures where masks are expected.
    #[error(
        "{folder} is no folder of masks; give one that holds a picture for each photo, white where the subject is and black elsewhere"
    )]
    NoMasks {
        /// The path given.
        folder: PathBuf,
    },
    /// A photo without a mask where masks are given.
    #[error(
        "{folder} holds no mask for the photo {photo}; put one there under the photo's name, such as {} (white where the subject is, black elsewhere)",
        name(&photo.with_extension("png"))
    )]
    NoMask {
        /// The folder of the masks.
        folder: PathBuf,
        /// The photo.
        photo: PathBuf,
    },
    /// Two masks of one photo.
    #[error("{first} and {second} are both masks of one photo; remove one of them")]
    TwoMasks {
        /// One of them.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// A mask of another size than its photo.
    #[error(
        "the mask {mask} is {}×{}, but its photo is {}×{} (upright); make the mask of the same picture",
        found.0, found.1, expected.0, expected.1
    )]
    MaskSize {
        /// The mask.
        mask: PathBuf,
        /// Its width and height.
        found: (u32, u32),
        /// The photo's.
        expected: (u32, u32),
    },
    /// A mask that leaves nothing of its photo.
    #[error(
        "the mask {mask} is black all over, so nothing of its photo is left; paint the subject white"
    )]
    BlackMask {
        /// The mask.
        mask: PathBuf,
    },
    /// A caption in another encoding.
    #[error("caption {file} is not UTF-8 text; save it as UTF-8")]
    Caption {
        /// The caption file.
        file: PathBuf,
    },
}
