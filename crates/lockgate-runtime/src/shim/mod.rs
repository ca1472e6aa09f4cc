//! Models that only Python can run: one Python process each, the shim, behind a socket pair.
//!
//! | module | subject |
//! |---|---|
//! | `process` | starting a shim and calling it |
//! | `frame` | what goes over the socket |
//! | `batch` | requests put together and answers taken apart |
//! | [`queue`] | requests that wait for a shim |

mod batch;
mod frame;
mod process;
pub mod queue;
#[cfg(test)]
mod tests;

pub use frame::FrameError;
pub use process::{Shim, ShimError, ShimOptions};
