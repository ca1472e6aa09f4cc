//! The native REST API under `/api/v1`, the agents' door under `/agent/v1`, and who is asking.
//!
//! | module | subject |
//! |---|---|
//! | [`identity`] | who is asking, and whether the browser may |
//! | `error` | errors as answers |
//! | `people` | routes for people and programs |
//! | `agents` | routes for agents |

mod agents;
mod error;
pub mod identity;
mod people;

pub use error::ApiError;

use axum::Router;
use lockgate_control::Control;

/// The native API's routes. The caller puts [`identity::identify`] around them.
pub fn router(control: Control) -> Router {
    people::routes().merge(agents::routes()).with_state(control)
}
