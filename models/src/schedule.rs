//! The forward noising process and the training targets that follow from it.
