//! The vision transformer behind CLIP's picture tower, DINO and `DINOv2`, for pictures of any size.
//!
//! Paper: Dosovitskiy et al. 2021, section 3.1. What the two differ in is the names in their checkpoints, a norm before
//! the blocks (CLIP), a bias of the patches and layer scale (`DINOv2`), and what follows the last block.

mod clip;
mod dino;
mod dinov2;
mod encoder;

use tch::{Kind, Tensor};

use crate::layers::LayerNorm;
use crate::params::Params;
use crate::transformer::{Block, BlockConfig};

pub use clip::{ClipVision, ClipVisionConfig, ClipVisionOutput};
pub use dino::{Dino, DinoConfig};
pub use dinov2::{Dinov2, Dinov2Config};
pub use encoder::{VisionConfig, VisionEncoder, VisionFeatures};

/// Patches, a class token, positions, blocks. N patches of a picture, `side`² of the size it was trained on.
struct Vit {
    class_token: Tensor,        // [width]
    patch_weight: Tensor,       // [width, 3, patch, patch]
    patch_bias: Option<Tensor>, // [width]
    position_embedding: Tensor, // [1 + side², width]
    norm_before: Option<LayerNorm>,
    layers: Vec<Block>,
    norm_after: LayerNorm,
    patch_size: i64,
}

impl Vit {
    /// The tower of DINO or `DINOv2`, from `embeddings.…`, `encoder.layer.…` and `layernorm.…`; the sides of a picture and
    /// of a patch in pixels.
    fn new(params: &Params, block: BlockConfig, layers: i64, (image, patch): (i64, i64)) -> Self {
        let (width, positions) = (block.width, (image / patch).pow(2) + 1);
        let embeddings = params.pp("embeddings");
        let projection = embeddings.pp("patch_embeddings.projection");
        Self {
            class_token: embeddings.get("cls_token", &[1, 1, width]).view([width]),
            patch_weight: projection.get("weight", &[width, 3, patch, patch]),
            patch_bias: Some(projection.get("bias", &[width])),
            position_embedding: embeddings
                .get("position_embeddings", &[1, positions, width])
                .view([positions, width]),
            norm_before: None,
            layers: Block::stack(&params.pp("encoder.layer"), layers, block),
            norm_after: LayerNorm::new(&params.pp("layernorm"), width, block.eps),
            patch_size: patch,
        }
    }

    /// Normalised pixels `[B, 3, H, W]` to what leaves the last block, class token first, `[B, 1 + N, width]`. Pixels
    /// beyond the last whole patch are cut.
    fn forward(&self, pixels: &Tensor) -> Tensor {
        let kind = pixels.kind();
        let (weight, bias) =
            (self.patch_weight.to_kind(kind), self.patch_bias.as_ref().map(|b| b.to_kind(kind)));
        let patches =
            pixels.conv2d(&weight, bias.as_ref(), [self.patch_size; 2], [0, 0], [1, 1], 1); // [B, width, h, w]
        let (batch, rows, columns) = (patches.size()[0], patches.size()[2], patches.size()[3]);
        let patches = patches.flatten(2, 3).transpose(1, 2); // [B, N, width]
        let class = self.class_token.to_kind(kind).expand([batch, 1, -1], false); // [B, 1, width]
        let mut hidden =
            Tensor::cat(&[class, patches], 1) + self.positions(rows, columns).to_kind(kind);
        if let Some(norm) = &self.norm_before {
            hidden = norm.forward(&hidden);
        }
        for layer in &self.layers {
            hidden = layer.forward(&hidden);
        }
        hidden
    }

    /// The positions of a grid of patches, `[1 + rows · columns, width]`: those of training, resampled bicubically in
    /// f32 where the grid is another; the class token's is its own.
    fn positions(&self, rows: i64, columns: i64) -> Tensor {
        let table = &self.position_embedding;
        let &[positions, width] = table.size().as_slice() else { return table.shallow_clone() };
        let side = ((positions - 1) as f64).sqrt().round() as i64;
        if (rows, columns) == (side, side) {
            return table.shallow_clone();
        }
        let grid = table.narrow(0, 1, positions - 1).to_kind(Kind::Float);
        let grid = grid.view([1, side, side, width]).permute([0, 3, 1, 2]); // [1, width, side, side]
        let grid = grid.upsample_bicubic2d([rows, columns], false, None, None);
        let grid = grid.flatten(2, 3).squeeze_dim(0).transpose(0, 1); // [rows · columns, width]
        Tensor::cat(&[table.narrow(0, 0, 1), grid.to_kind(table.kind())], 0)
    }
}
