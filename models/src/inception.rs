//! Inception-v3 up to its pooled features, which the Fréchet inception distance compares pictures by.
//!
//! Source: Szegedy et al. 2016 (arXiv 1512.00567), figures 5 to 7 and 10; names and sizes are torchvision's `inception_v3`,
//! which timm's `inception_v3.tv_in1k` has, too. The auxiliary classifier and the last layer are left out.

use tch::Tensor;

use crate::params::Params;

/// A convolution without bias and the batch normalisation after it, folded into one, then a `ReLU`.
struct ConvNorm {
    weight: Tensor,
    bias: Tensor,
    stride: i64,
    padding: [i64; 2],
}

impl ConvNorm {
    /// A window of `kernel` (height, width) that keeps the picture's size.
    fn new(params: &Params, inputs: i64, outputs: i64, kernel: [i64; 2]) -> Self {
        const EPS: f64 = 1e-3;
        let weight = params.pp("conv").get("weight", &[outputs, inputs, kernel[0], kernel[1]]);
        let norm = params.pp("bn");
        let [scale, shift, mean, variance] = ["weight", "bias", "running_mean", "running_var"]
            .map(|name| norm.get(name, &[outputs]));
        let scale = scale / (variance + EPS).sqrt(); // [outputs]
        Self {
            weight: weight * scale.view([-1, 1, 1, 1]),
            bias: shift - mean * scale,
            stride: 1,
            padding: kernel.map(|side| side / 2),
        }
    }

    /// Without a border, at every `stride`-th place.
    fn valid(self, stride: i64) -> Self {
        Self { stride, padding: [0, 0], ..self }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        x.conv2d(&self.weight, Some(&self.bias), [self.stride; 2], self.padding, [1, 1], 1).relu()
    }
}

/// Layers one after the other.
struct Chain(Vec<ConvNorm>);

impl Chain {
    fn forward(&self, x: &Tensor) -> Tensor {
        self.0.iter().fold(x.shallow_clone(), |x, layer| layer.forward(&x))
    }
}

/// What a block does with its input besides its branches.
enum Pool {
    /// Halves it.
    Max,
    /// Smooths it, then a layer.
    Mean(ConvNorm),
}

/// Branches side by side, their channels joined; the pooled input comes last. A branch is a chain whose result goes
/// through each of the last layers, where it has some.
struct Block {
    branches: Vec<(Chain, Vec<ConvNorm>)>,
    pool: Pool,
}

impl Block {
    fn forward(&self, x: &Tensor) -> Tensor {
        let mut all = Vec::new();
        for (chain, ends) in &self.branches {
            let y = chain.forward(x);
            if ends.is_empty() {
                all.push(y);
            } else {
                all.extend(ends.iter().map(|end| end.forward(&y)));
            }
        }
        all.push(match &self.pool {
            Pool::Max => halved(x),
            Pool::Mean(layer) => {
                layer.forward(&x.avg_pool2d([3, 3], [1, 1], [1, 1], false, true, None::<i64>))
            }
        });
        Tensor::cat(&all, 1)
    }
}

fn halved(x: &Tensor) -> Tensor {
    x.max_pool2d([3, 3], [2, 2], [0, 0], [1, 1], false)
}

/// Reads the layers of a block by name.
struct Layers<'a>(Params<'a>);

impl Layers<'_> {
    fn one(&self, name: &str, inputs: i64, outputs: i64, kernel: [i64; 2]) -> ConvNorm {
        ConvNorm::new(&self.0.pp(name), inputs, outputs, kernel)
    }

    /// `prefix_1`, `prefix_2`, … from a width through (width, kernel) of each.
    fn chain(&self, prefix: &str, inputs: i64, layers: &[(i64, [i64; 2])]) -> Chain {
        let mut inputs = inputs;
        let build = |(k, &(outputs, kernel)): (usize, &(i64, [i64; 2]))| {
            let layer = self.one(&format!("{prefix}_{}", k + 1), inputs, outputs, kernel);
            inputs = outputs;
            layer
        };
        Chain(layers.iter().enumerate().map(build).collect())
    }

    /// A chain whose last layer halves the picture.
    fn halving(&self, prefix: &str, inputs: i64, layers: &[(i64, [i64; 2])]) -> Chain {
        let Chain(mut layers) = self.chain(prefix, inputs, layers);
        let last = layers.pop().map(|layer| layer.valid(2));
        Chain(layers.into_iter().chain(last).collect())
    }

    fn alone(&self, name: &str, inputs: i64, outputs: i64) -> Chain {
        Chain(vec![self.one(name, inputs, outputs, ONE)])
    }

    fn mean(&self, inputs: i64, outputs: i64) -> Pool {
        Pool::Mean(self.one("branch_pool", inputs, outputs, ONE))
    }
}

const ONE: [i64; 2] = [1, 1];
const THREE: [i64; 2] = [3, 3];
const FIVE: [i64; 2] = [5, 5];
const WIDE: [i64; 2] = [1, 7];
const TALL: [i64; 2] = [7, 1];

/// 35 by 35: figure 5.
fn fine(params: &Params, name: &str, inputs: i64, pooled: i64) -> Block {
    let layers = Layers(params.pp(name));
    let branches = vec![
        layers.alone("branch1x1", inputs, 64),
        layers.chain("branch5x5", inputs, &[(48, ONE), (64, FIVE)]),
        layers.chain("branch3x3dbl", inputs, &[(64, ONE), (96, THREE), (96, THREE)]),
    ];
    Block { branches: plain(branches), pool: layers.mean(inputs, pooled) }
}

/// 35 by 35 to 17 by 17: figure 10.
fn to_middle(params: &Params, name: &str, inputs: i64) -> Block {
    let layers = Layers(params.pp(name));
    let branches = vec![
        Chain(vec![layers.one("branch3x3", inputs, 384, THREE).valid(2)]),
        layers.halving("branch3x3dbl", inputs, &[(64, ONE), (96, THREE), (96, THREE)]),
    ];
    Block { branches: plain(branches), pool: Pool::Max }
}

/// 17 by 17: figure 6.
fn middle(params: &Params, name: &str, inner: i64) -> Block {
    let layers = Layers(params.pp(name));
    let branches = vec![
        layers.alone("branch1x1", 768, 192),
        layers.chain("branch7x7", 768, &[(inner, ONE), (inner, WIDE), (192, TALL)]),
        layers.chain(
            "branch7x7dbl",
            768,
            &[(inner, ONE), (inner, TALL), (inner, WIDE), (inner, TALL), (192, WIDE)],
        ),
    ];
    Block { branches: plain(branches), pool: layers.mean(768, 192) }
}

/// 17 by 17 to 8 by 8.
fn to_coarse(params: &Params, name: &str) -> Block {
    let layers = Layers(params.pp(name));
    let branches = vec![
        layers.halving("branch3x3", 768, &[(192, ONE), (320, THREE)]),
        layers.halving("branch7x7x3", 768, &[(192, ONE), (192, WIDE), (192, TALL), (192, THREE)]),
    ];
    Block { branches: plain(branches), pool: Pool::Max }
}

/// 8 by 8: figure 7.
fn coarse(params: &Params, name: &str, inputs: i64) -> Block {
    let layers = Layers(params.pp(name));
    let ends = |names: [&str; 2]| {
        let [wide, tall] = names;
        vec![layers.one(wide, 384, 384, [1, 3]), layers.one(tall, 384, 384, [3, 1])]
    };
    let branches = vec![
        (layers.alone("branch1x1", inputs, 320), Vec::new()),
        (layers.chain("branch3x3", inputs, &[(384, ONE)]), ends(["branch3x3_2a", "branch3x3_2b"])),
        (
            layers.chain("branch3x3dbl", inputs, &[(448, ONE), (384, THREE)]),
            ends(["branch3x3dbl_3a", "branch3x3dbl_3b"]),
        ),
    ];
    Block { branches, pool: layers.mean(inputs, 192) }
}

fn plain(chains: Vec<Chain>) -> Vec<(Chain, Vec<ConvNorm>)> {
    chains.into_iter().map(|chain| (chain, Vec::new())).collect()
}

/// The network without its classifiers.
pub struct Inception {
    /// Before the first pooling, and between the first and the second.
    stem: [Chain; 2],
    blocks: Vec<Block>,
}

impl Inception {
    /// Reads `Conv2d_1a_3x3.conv.weight`, `Conv2d_1a_3x3.bn.…`, …, `Mixed_7c.…`.
    pub fn new(params: &Params) -> Self {
        let layer = |name: &str, inputs: i64, outputs: i64, kernel: [i64; 2]| {
            ConvNorm::new(&params.pp(name), inputs, outputs, kernel)
        };
        let stem = [
            Chain(vec![
                layer("Conv2d_1a_3x3", 3, 32, THREE).valid(2),
                layer("Conv2d_2a_3x3", 32, 32, THREE).valid(1),
                layer("Conv2d_2b_3x3", 32, 64, THREE),
            ]),
            Chain(vec![
                layer("Conv2d_3b_1x1", 64, 80, ONE),
                layer("Conv2d_4a_3x3", 80, 192, THREE).valid(1),
            ]),
        ];
        let blocks = vec![
            fine(params, "Mixed_5b", 192, 32),
            fine(params, "Mixed_5c", 256, 64),
            fine(params, "Mixed_5d", 288, 64),
            to_middle(params, "Mixed_6a", 288),
            middle(params, "Mixed_6b", 128),
            middle(params, "Mixed_6c", 160),
            middle(params, "Mixed_6d", 160),
            middle(params, "Mixed_6e", 192),
            to_coarse(params, "Mixed_7a"),
            coarse(params, "Mixed_7b", 1280),
            coarse(params, "Mixed_7c", 2048),
        ];
        Self { stem, blocks }
    }

    /// Prepared pictures `[B, 3, 299, 299]` to features `[B, 2048]`, means over the last 8 by 8 places.
    pub fn forward(&self, pictures: &Tensor) -> Tensor {
        let x =
            self.stem.iter().fold(pictures.shallow_clone(), |x, part| halved(&part.forward(&x)));
        let x = self.blocks.iter().fold(x, |x, block| block.forward(&x)); // [B, 2048, 8, 8]
        x.mean_dim([2, 3].as_slice(), false, x.kind())
    }
}
