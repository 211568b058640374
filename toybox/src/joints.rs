//! The training of the network that finds joints in pictures of toybox people: what drawn people are judged by.

use std::ops::ControlFlow;
use std::path::Path;

use models::fresh::Fresh;
use models::params::Params;
use models::weights;
use pipelines::config::LrShape;
use pipelines::pose::data::{Pair, PoseData};
use pipelines::pose::joints::{JointFinder, cells, in_cells};
use pipelines::pose::{Frame, mirrored};
use pipelines::trainer::{
    AdamW, AdamWConfig, LearningRate, Losses, StepRecord, Stop, TrainStep, Trainer,
};
use pipelines::{Error, photos};
use tch::{Device, Kind, Tensor};
use torch_ext::Generator;

const BATCH: i64 = 32;
/// Weight of the distance, in cells, beside the heat maps' cross-entropy.
const DISTANCE: f64 = 0.1;
/// Largest deviation of the noise that pictures are made worse with.
const NOISE: f64 = 0.06;

struct Find<'a> {
    finder: &'a JointFinder,
    pairs: &'a [Pair],
}

impl Find<'_> {
    /// Pictures `[B, 3, H, W]` and joints `[B, 18, 2]` in cells: half of them mirrored, some blurred, all noisy, since
    /// drawn pictures are not as clean as true ones.
    fn batch(&self, draw: &Generator) -> Result<(Tensor, Tensor), Error> {
        let places = draw.randint(0, self.pairs.len() as i64, &[BATCH]);
        let coins = draw.rand(&[3, BATCH]);
        let (mut pictures, mut joints) = (Vec::new(), Vec::new());
        for i in 0..BATCH {
            let pair = &self.pairs[places.int64_value(&[i]) as usize];
            let (photo, pose) = (photos::read(&pair.target)?, pair.pose);
            let (photo, pose) = if coins.double_value(&[0, i]) < 0.5 {
                mirrored(&photo, &pose)
            } else {
                (photo, pose)
            };
            joints.push(in_cells(&pose, photo.dimensions()));
            let mut picture = photos::to_tensor(&photo);
            let size = [i64::from(photo.height()), i64::from(photo.width())];
            if coins.double_value(&[1, i]) < 0.3 {
                let half = picture.avg_pool2d([2, 2], [2, 2], [0, 0], false, true, None);
                picture = half.upsample_bilinear2d(size, false, None, None);
            }
            let noise = draw.randn(&picture.size()) * (NOISE * coins.double_value(&[2, i]));
            pictures.push(picture + noise);
        }
        Ok((Tensor::cat(&pictures, 0), Tensor::stack(&joints, 0)))
    }
}

impl TrainStep for Find<'_> {
    fn losses(&mut self, _index: u64, draw: &Generator) -> Result<Losses, Error> {
        let (pictures, joints) = self.batch(draw)?;
        let size = (pictures.size()[3], pictures.size()[2]);
        let heat = self.finder.heat(&pictures); // [B, 18, N]
        let from = cells(size, Device::Cpu).view([1, 1, -1, 2]) - joints.unsqueeze(2);
        let bump = from.square().sum_dim_intlist(-1, false, Kind::Float) * -0.5;
        let truth = bump.softmax(-1, Kind::Float); // a Gaussian of one cell
        let entropy = -(truth * &heat).sum_dim_intlist(-1, false, Kind::Float).mean(Kind::Float);
        let off = JointFinder::centres(&heat, size) - &joints;
        let distance = off.norm_scalaropt_dim(2, [-1], false).mean(Kind::Float);
        let terms = vec![("distance in cells", distance.double_value(&[]))];
        Ok(Losses { total: entropy + distance * DISTANCE, terms })
    }
}

/// Trains a finder on the pictures to learn from in a folder that `toybox people` wrote; writes its weights, halves.
pub fn joints(
    people: &Path,
    steps: u64,
    seed: u64,
    out: &Path,
    report: &mut dyn FnMut(&StepRecord),
) -> Result<(), Error> {
    let data = PoseData::read(people, Frame::Pixels)?;
    let source = Fresh::new(seed, Kind::Float, Device::Cpu);
    let finder = JointFinder::new(&Params::root(&source));
    let leaves: Vec<Tensor> = source.parameters().into_iter().map(|(_, leaf)| leaf).collect();
    let adam = AdamWConfig { beta1: 0.9, beta2: 0.99, epsilon: 1e-8, weight_decay: 1e-4 };
    let mut trainer = Trainer {
        optimizer: AdamW::new(leaves, adam),
        draw: Generator::cpu(seed),
        step: 0,
        steps,
        accumulation: 1,
        learning_rate: LearningRate {
            peak: 2e-3,
            shape: LrShape::Cosine,
            end: 0.0,
            warmup: 20,
            steps,
        },
        max_grad_norm: 1.0,
        average: None,
        loss_scale: 1.0,
    };
    let mut step = Find { finder: &finder, pairs: &data.train };
    let ended = trainer.fit(&mut step, &mut |_, record| {
        report(record);
        Ok(ControlFlow::Continue(()))
    });
    match ended {
        Ok(_) => {}
        Err(Stop::NoBatch(error) | Stop::Failed(error)) => return Err(error),
        Err(Stop::Diverged { step }) => return Err(Error::diverged(step, None, tch::Kind::Float)),
    }
    let halves = source.parameters().into_iter();
    let halves = halves.map(|(name, x)| (name, x.detach().to_kind(Kind::Half))).collect();
    Ok(weights::write(out, halves)?)
}
