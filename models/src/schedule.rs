//! The forward noising process and the training targets that follow from it.
use serde::{Deserialize, Serialize};
/// Placeholder until the schedule is merged.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ScheduleConfig {}
